-- The GPUs that were ever anything but healthy (node::health): a restart must not forget a sick card.
CREATE TABLE gpu_health (
    uuid        TEXT PRIMARY KEY,
    state       TEXT NOT NULL,            -- node::health::State by its name
    why         TEXT NOT NULL,            -- in one sentence
    quarantines INTEGER NOT NULL,         -- those that count against the card
    since_ms    INTEGER NOT NULL          -- when it came into that state
) STRICT;
