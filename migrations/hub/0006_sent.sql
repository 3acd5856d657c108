-- Where a job is that the hub sent. 0: it is being sent, or NATS gave no answer; 1: the queue took it; 2: it was taken
-- out of the queue again.
ALTER TABLE tasks ADD COLUMN queue INTEGER NOT NULL DEFAULT 1;
