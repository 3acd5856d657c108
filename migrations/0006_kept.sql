-- Outputs that could not be published in time. They outlive what is known of their jobs.
CREATE TABLE kept (
    job_id   TEXT PRIMARY KEY,
    kept     TEXT NOT NULL,               -- job::phase::Kept as JSON
    until_ms INTEGER NOT NULL,            -- its folder goes after that
    asked_ms INTEGER,                     -- when its owner last asked for it to be published
    result   BLOB,                        -- job::LateResult, once it is published
    said     INTEGER NOT NULL DEFAULT 0   -- 1 once that was said
) STRICT;
