-- What jobs used, as their batches on NATS told it.
CREATE TABLE usage_jobs (
    node    TEXT NOT NULL,                  -- address
    job_id  TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    next    INTEGER NOT NULL,               -- the number of the batch that follows
    missed  INTEGER NOT NULL,               -- batches that never came
    samples INTEGER NOT NULL,
    seq     INTEGER NOT NULL,               -- the last batch's number in the stream USAGE
    last_ms INTEGER NOT NULL,               -- when the server got that batch
    state   TEXT,                           -- JSON of usage::Rollups; NULL: no more is added
    PRIMARY KEY (node, job_id)
) WITHOUT ROWID;
CREATE INDEX usage_jobs_last ON usage_jobs (last_ms);

-- The rollups of a job. The last one of each span may still be open.
CREATE TABLE usage_points (
    node    TEXT NOT NULL,
    job_id  TEXT NOT NULL,
    span_s  INTEGER NOT NULL,               -- 60, 600, 7200 or 28800
    idx     INTEGER NOT NULL,               -- how many come before it in the job's life
    from_ms INTEGER NOT NULL,
    ms      INTEGER NOT NULL,               -- how much of the job's life it covers
    body    TEXT NOT NULL,                  -- JSON of store::usage::Values
    PRIMARY KEY (node, job_id, span_s, idx)
) WITHOUT ROWID;
CREATE INDEX usage_points_at ON usage_points (span_s, from_ms);
CREATE INDEX usage_points_day ON usage_points (node, span_s, from_ms);

-- What each node's jobs came to in each day (UTC) in which they ended or ran.
CREATE TABLE earned (
    node         TEXT NOT NULL,             -- address
    day          INTEGER NOT NULL,          -- days since 1970
    completed    INTEGER NOT NULL DEFAULT 0,
    failed       INTEGER NOT NULL DEFAULT 0,
    other        INTEGER NOT NULL DEFAULT 0,    -- cancelled or rejected
    receipts     INTEGER NOT NULL DEFAULT 0,
    run_ms       INTEGER NOT NULL DEFAULT 0,    -- containers ran
    card_ms      INTEGER NOT NULL DEFAULT 0,    -- the same, times the cards that they held
    busy_ms      INTEGER NOT NULL DEFAULT 0,    -- those cards computed, where it is known
    busy_unknown INTEGER NOT NULL DEFAULT 0,    -- card_ms of which that is not known
    PRIMARY KEY (node, day)
) WITHOUT ROWID;
CREATE INDEX earned_day ON earned (day);
