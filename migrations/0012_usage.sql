-- What jobs use (src/usage): the sums of each attempt, runs of its samples, and rollups over longer spans.
CREATE TABLE usage_sums (
    job_id  TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    number  INTEGER NOT NULL,             -- of the last batch
    head    BLOB NOT NULL,                -- of the last batch
    sums    TEXT NOT NULL,                -- JSON: totals and open rollups up to that batch
    keep    INTEGER NOT NULL,             -- how many of its newest batches stay once they are published
    PRIMARY KEY (job_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_batches (
    id      INTEGER PRIMARY KEY,
    job_id  TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    body    BLOB NOT NULL,                -- as it is published
    waits   INTEGER NOT NULL,             -- whether it is yet to be published
    UNIQUE (job_id, attempt, number)
) STRICT;
CREATE INDEX usage_batches_of_attempt ON usage_batches (job_id, attempt) WHERE waits = 1;
CREATE INDEX usage_batches_waiting ON usage_batches (id) WHERE waits = 1;

CREATE TABLE usage_rollups (
    job_id  TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    span_s  INTEGER NOT NULL,
    place   INTEGER NOT NULL,             -- how many spans come before it in the job's life
    body    TEXT NOT NULL,                -- JSON
    PRIMARY KEY (job_id, attempt, span_s, place)
) STRICT, WITHOUT ROWID;
