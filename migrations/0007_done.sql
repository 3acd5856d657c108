-- Nothing here reads what there is: a journal of millions of jobs is brought up to date at once, and
-- what lies in it is packed bit by bit while the node works (`sweeps`).

-- What repeats itself is counted in one row, with its first moment and its last.
ALTER TABLE events ADD COLUMN times INTEGER NOT NULL DEFAULT 1;
ALTER TABLE events ADD COLUMN until_ms INTEGER;         -- absent: it happened once
ALTER TABLE events ADD COLUMN kind TEXT;                -- what may repeat itself: journal::events

-- Jobs and refusals that nothing is left to do for, one packed row each: what the id must be
-- remembered by, and what its last status was.
CREATE TABLE done (
    id          INTEGER PRIMARY KEY,
    job_id      TEXT NOT NULL UNIQUE,
    body_hash   BLOB NOT NULL,
    phase       TEXT NOT NULL,
    refused     INTEGER NOT NULL,        -- 1 where it was never taken
    seq         INTEGER NOT NULL,        -- its last status's number
    due_ms      INTEGER NOT NULL,        -- from then on its story's keep is counted
    deadline_ms INTEGER,                 -- the id is remembered until then at least
    again       INTEGER NOT NULL DEFAULT 0,  -- 1: its last status is to be said once more
    story       BLOB                     -- journal::story; absent: only the id is remembered
) STRICT;
CREATE INDEX done_due ON done (due_ms);
CREATE INDEX done_refused ON done (id) WHERE refused = 1;
CREATE INDEX done_again ON done (id) WHERE again = 1;

-- Rows of `jobs` that are to be packed, the oldest first.
CREATE TABLE leaving (
    id     INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE
) STRICT;

-- How far what an older version left has been gone through, by rowid.
CREATE TABLE sweeps (
    name TEXT PRIMARY KEY,
    at   INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT;
INSERT INTO sweeps SELECT 'jobs', 0, max(rowid) FROM jobs HAVING max(rowid) IS NOT NULL;
INSERT INTO sweeps SELECT 'receipts', 0, max(rowid) FROM receipts HAVING max(rowid) IS NOT NULL;

-- The document, packed; `document` is empty then.
ALTER TABLE receipts ADD COLUMN packed BLOB;

CREATE INDEX transactions_settled ON transactions (settled_ms);
