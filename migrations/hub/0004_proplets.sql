-- What nodes and jobs tell live of what they use: the newest hundred messages of each (store::proplets).
CREATE TABLE tellers (
    kind    TEXT NOT NULL,                  -- node or job
    id      TEXT NOT NULL,                  -- a node's address in lower case, or what it calls itself; a job's id
    number  INTEGER NOT NULL,               -- of its last message of what it uses; -1: none yet
    last_ms INTEGER NOT NULL,               -- when it was heard last
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX tellers_last ON tellers (kind, last_ms);

CREATE TABLE told (
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL,
    place  INTEGER NOT NULL,                -- number modulo a hundred
    number INTEGER NOT NULL,
    body   TEXT NOT NULL,                   -- JSON of usage::heard
    PRIMARY KEY (kind, id, place)
);

-- In which five minutes a node said on NATS that it is alive; what it beats itself is in slots.
CREATE TABLE alive (
    id   TEXT NOT NULL,
    slot INTEGER NOT NULL,                  -- at_ms / 300000
    PRIMARY KEY (id, slot)
) WITHOUT ROWID;
CREATE INDEX alive_at ON alive (slot);

-- Jobs that the hub itself has sent, as they were asked for.
CREATE TABLE tasks (
    id      TEXT PRIMARY KEY,
    made_ms INTEGER NOT NULL,
    body    TEXT NOT NULL                   -- JSON, without the variables, which may be secret
) WITHOUT ROWID;
CREATE INDEX tasks_made ON tasks (made_ms);
CREATE INDEX jobs_id ON jobs (job_id);
