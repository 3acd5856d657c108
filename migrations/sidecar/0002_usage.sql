-- What watched programs and the machine use, rolled up. The machine has the empty name.

-- Minutes of the last day, and spans of two hours of the last 30 days.
CREATE TABLE usage (
    name  TEXT NOT NULL,
    span  TEXT NOT NULL,                    -- '1m' or '2h'
    place INTEGER NOT NULL,                 -- how many spans since 1970, by a clock that only goes forward
    body  TEXT NOT NULL,                    -- JSON of usage::rollup::Bucket
    PRIMARY KEY (name, span, place)
) WITHOUT ROWID;

-- What is not over yet, as of some minutes ago, so that a restart doesn't lose two hours.
CREATE TABLE usage_open (
    name     TEXT PRIMARY KEY,
    since_ms INTEGER NOT NULL,              -- the time of the last sample, by the same clock
    body     TEXT NOT NULL                  -- JSON of usage::rollup::Rollups
) WITHOUT ROWID;
