-- The hub's tables. Times are milliseconds since 1970. A name is what a node calls itself to the hub: the
-- `node_id` of its beats, or the lower-case address of a node that is known only from NATS or the chain.

CREATE TABLE nodes (
    name          TEXT PRIMARY KEY,
    address       TEXT UNIQUE,              -- the account of one of our nodes, lower-case 0x…
    ip            TEXT NOT NULL DEFAULT '',
    meta          TEXT NOT NULL DEFAULT '',
    reported      TEXT NOT NULL DEFAULT 'UP',   -- what its last beat said: UP or DOWN
    first_ms      INTEGER NOT NULL,
    beat_ms       INTEGER,                  -- last own beat
    nats_ms       INTEGER,                  -- last message on NATS
    nats_seq      INTEGER,                  -- its sequence number in its stream
    chain_ms      INTEGER,                  -- last heartbeat on chain
    chain_block   INTEGER,
    standing      TEXT NOT NULL,            -- as in fleet::clocks::Standing
    standing_ms   INTEGER NOT NULL,         -- since when
    gswarm        TEXT,                     -- JSON of the keys that newer agents of the original send
    presence      TEXT,                     -- JSON: what the node last said of itself on NATS (cards, slots, …)
    secret        BLOB,                     -- SHA-256 of the node's own secret; NULL: the shared one
    tags          TEXT NOT NULL DEFAULT ''  -- separated by spaces
) WITHOUT ROWID;

-- How often a node's standing changed, and why: the history that alerts are judged by afterwards.
CREATE TABLE standings (
    name     TEXT NOT NULL,
    at_ms    INTEGER NOT NULL,
    standing TEXT NOT NULL,
    why      TEXT NOT NULL
);
CREATE INDEX standings_of ON standings (name, at_ms);
CREATE INDEX standings_at ON standings (at_ms);

-- The first beat of a node in each five minutes.
CREATE TABLE slots (
    name TEXT NOT NULL,
    slot INTEGER NOT NULL,                  -- at_ms / 300000
    PRIMARY KEY (name, slot)
) WITHOUT ROWID;
CREATE INDEX slots_at ON slots (slot);

-- When the hub itself was there. What lies between two rows was not watched.
CREATE TABLE watches (
    from_ms INTEGER PRIMARY KEY,
    to_ms   INTEGER NOT NULL
);

-- Events and jobs of our nodes, as NATS told them.
CREATE TABLE events (
    id     INTEGER PRIMARY KEY,
    seq    INTEGER UNIQUE,                  -- in the stream EVENTS
    at_ms  INTEGER NOT NULL,
    node   TEXT NOT NULL,
    job_id TEXT,
    level  TEXT NOT NULL,
    body   TEXT NOT NULL                    -- JSON of fleet::Event
);
CREATE INDEX events_at ON events (at_ms);
CREATE INDEX events_of ON events (node, id);

CREATE TABLE jobs (
    node     TEXT NOT NULL,                 -- address
    job_id   TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms  INTEGER NOT NULL,
    status   TEXT NOT NULL,                 -- the last one
    is_over  INTEGER NOT NULL,
    statuses TEXT NOT NULL,                 -- JSON array of the statuses, in order
    PRIMARY KEY (node, job_id)
) WITHOUT ROWID;
CREATE INDEX jobs_last ON jobs (last_ms);

-- Up to where each stream was read and committed.
CREATE TABLE cursors (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE people (
    name     TEXT PRIMARY KEY,
    password TEXT NOT NULL,                 -- PHC string of argon2id
    role     TEXT NOT NULL,                 -- admin or reader
    made_ms  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE sessions (
    token    BLOB PRIMARY KEY,              -- SHA-256 of the cookie
    person   TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE,
    until_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Codes with which a node gets a secret of its own.
CREATE TABLE codes (
    code     BLOB PRIMARY KEY,              -- SHA-256 of the code
    until_ms INTEGER NOT NULL,
    name     TEXT                           -- the only node that may use it, if it is for one
) WITHOUT ROWID;
