-- How often a job has moved: job::Job's `revision`, so that a decision is written once however often
-- it is tried.
ALTER TABLE jobs ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
