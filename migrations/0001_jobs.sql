-- One row for each job id ever taken or refused; `state` is job::Job as JSON, absent for refusals.
CREATE TABLE jobs (
    job_id     TEXT PRIMARY KEY,
    body_hash  TEXT NOT NULL,           -- tells two messages under one id apart
    body       BLOB,                    -- the message as it came; absent for refusals
    delivery   TEXT,                    -- how to acknowledge it, as the bus wrote it
    phase      TEXT NOT NULL,           -- job::Phase's name; 'rejected', or 'unproven': refused
                                        -- to somebody who had not proved that the id was theirs
    state      TEXT,
    open       INTEGER NOT NULL,        -- 1 while anything is left to do
    updated_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_open ON jobs (open) WHERE open = 1;

-- What happened, in order: the history behind `jobs.state`.
CREATE TABLE events (
    id     INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    at_ms  INTEGER NOT NULL,
    event  TEXT NOT NULL
) STRICT;
CREATE INDEX events_job ON events (job_id);

-- Statuses, in the order in which they are published. Kept after that: a job that is asked for
-- again is answered with its last one.
CREATE TABLE outbox (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    seq    INTEGER NOT NULL,
    body   BLOB NOT NULL,
    sent   INTEGER NOT NULL DEFAULT 0,  -- 0 not yet, 1 published, 2 published and asked for again
    UNIQUE (job_id, seq)
) STRICT;
CREATE INDEX outbox_unsent ON outbox (id) WHERE sent <> 1;
