-- Incidents, the outbox and silences: what was decided and what is to be told of it. A part of the first migration
-- of each database that holds them (the hub's, a sidecar's). Times are milliseconds since 1970.

-- An incident: nodes that have the same trouble and came into it at about the same time.
CREATE TABLE incidents (
    id        INTEGER PRIMARY KEY,
    rule      TEXT NOT NULL,
    opened_ms INTEGER NOT NULL,
    closed_ms INTEGER,
    head      TEXT NOT NULL                 -- JSON of fleet::alerts::Head
);
CREATE INDEX incidents_open ON incidents (closed_ms, id);

CREATE TABLE members (
    incident INTEGER NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    name     TEXT NOT NULL,
    body     TEXT NOT NULL,                 -- JSON of fleet::alerts::Member
    PRIMARY KEY (incident, name)
) WITHOUT ROWID;

-- The outbox: what somebody is to be told, one row a channel.
CREATE TABLE notices (
    id          INTEGER PRIMARY KEY,
    incident    INTEGER,                    -- NULL: of no incident (digest, test)
    channel     TEXT NOT NULL,              -- telegram, webhook, mail, ntfy
    decided_ms  INTEGER NOT NULL,
    body        TEXT NOT NULL,              -- JSON of fleet::notice::Notice
    -- queued; sending (a hub that finds it at its start doesn't know whether it arrived); sent; folded (told
    -- within a newer notice of the same incident); refused (the channel will never take it)
    state       TEXT NOT NULL DEFAULT 'queued',
    tries       INTEGER NOT NULL DEFAULT 0,
    next_ms     INTEGER NOT NULL,           -- not tried before
    answered_ms INTEGER,
    answer      TEXT,                       -- what the channel said last
    told_in     INTEGER,                    -- of a folded one: the notice that told it
    maybe_repeat INTEGER NOT NULL DEFAULT 0 -- 1: an earlier try may have arrived
);
CREATE INDEX notices_waiting ON notices (channel, state, next_ms);
CREATE INDEX notices_of ON notices (incident);
CREATE INDEX notices_at ON notices (decided_ms);

CREATE TABLE silences (
    id       INTEGER PRIMARY KEY,
    body     TEXT NOT NULL,                 -- JSON of fleet::alerts::Silence
    until_ms INTEGER NOT NULL
);

