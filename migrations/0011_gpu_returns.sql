-- How long it took until a GPU that a job had left was free of the job's memory and processes (node::tenancy).
CREATE TABLE gpu_returns (
    job_id  TEXT NOT NULL,
    uuid    TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    free_ms INTEGER,                      -- after so many milliseconds; absent: not seen free
    why     TEXT,                         -- why it was held back, in one sentence; absent: it was not
    PRIMARY KEY (job_id, uuid)
) STRICT, WITHOUT ROWID;
