-- Who speaks for a node: its key, where one is enrolled. Nobody else is believed then.

ALTER TABLE nodes ADD COLUMN key TEXT;      -- the account whose signature it is, lower-case 0x…
CREATE UNIQUE INDEX nodes_key ON nodes (key) WHERE key IS NOT NULL;

-- The runs of the program that were heard with a key lately: no beat is taken twice, also after a restart of the hub.
CREATE TABLE runs (
    key       TEXT NOT NULL,                -- lower-case 0x…
    instance  BLOB NOT NULL,                -- 32 bytes
    signed_ms INTEGER NOT NULL,             -- the latest time that it signed a beat at
    heard_ms  INTEGER NOT NULL,
    place     TEXT NOT NULL,                -- where it was heard from
    PRIMARY KEY (key, instance)
) WITHOUT ROWID;
CREATE INDEX runs_at ON runs (heard_ms);
