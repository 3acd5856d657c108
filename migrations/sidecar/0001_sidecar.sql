-- The sidecar's tables. Times are milliseconds since 1970. A name is what the configuration calls a watched program.

-- What is known of each program: everything that was observed of it, summed up.
CREATE TABLE programs (
    name  TEXT PRIMARY KEY,
    state TEXT NOT NULL,                    -- JSON of watch::state::Watched
    base  TEXT NOT NULL DEFAULT '{}'        -- the same, as of the observations that were forgotten
) WITHOUT ROWID;

-- Up to where each source was read: a log's position, a chain's cursor, the beginning of a record.
CREATE TABLE marks (
    name   TEXT NOT NULL,
    source TEXT NOT NULL,
    body   TEXT NOT NULL,
    PRIMARY KEY (name, source)
) WITHOUT ROWID;

-- What was observed, in order: the evidence, and what can be replayed.
CREATE TABLE observations (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    body  TEXT NOT NULL                     -- JSON of watch::observation::Observation
);
CREATE INDEX observations_of ON observations (name, id);
CREATE INDEX observations_at ON observations (at_ms);

-- Each verdict that differs from the one before.
CREATE TABLE verdicts (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL,
    after INTEGER NOT NULL,                 -- the last observation that it rests on
    at_ms INTEGER NOT NULL,
    body  TEXT NOT NULL                     -- JSON of watch::verdict::Verdict
);
CREATE INDEX verdicts_of ON verdicts (name, id);

-- What is expected of each program: what the verdicts from an observation on rest on.
CREATE TABLE expects (
    name              TEXT PRIMARY KEY,
    since_observation INTEGER NOT NULL,     -- the number of the first one
    body              TEXT NOT NULL         -- JSON of sidecar::store::Expected
) WITHOUT ROWID;

-- What is to be reported to others and was not taken yet.
CREATE TABLE reports (
    id      INTEGER PRIMARY KEY,
    sink    TEXT NOT NULL,
    at_ms   INTEGER NOT NULL,
    body    TEXT NOT NULL
);
CREATE INDEX reports_of ON reports (sink, id);

-- What was started again, and what came of it.
CREATE TABLE restarts (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL,
    at_ms   INTEGER NOT NULL,
    why     TEXT NOT NULL,
    outcome TEXT                            -- NULL: on its way when the sidecar ended
);
