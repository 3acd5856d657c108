-- What watchers say of the nodes that they watch, each signed by the watcher's key: the newest of each, as it came.
CREATE TABLE seen (
    name      TEXT NOT NULL,                -- the node, as in nodes
    watcher   TEXT NOT NULL,                -- address, lower-case 0x…
    at_ms     INTEGER NOT NULL,             -- when the watcher signed it
    heard_ms  INTEGER NOT NULL,             -- when it came
    gist      TEXT NOT NULL,                -- JSON of fleet::seen::Gist
    body      TEXT NOT NULL,                -- JSON of fleet::seen::Said, byte for byte
    signature TEXT NOT NULL,
    PRIMARY KEY (name, watcher)
) WITHOUT ROWID;

-- Each that differed from the one before.
CREATE TABLE seen_changes (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL,
    watcher TEXT NOT NULL,
    at_ms   INTEGER NOT NULL,
    gist    TEXT NOT NULL,
    says    TEXT NOT NULL
);
CREATE INDEX seen_changes_of ON seen_changes (name, id);
CREATE INDEX seen_changes_at ON seen_changes (at_ms);
