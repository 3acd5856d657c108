-- What only this node knows, such as the key that the ids of its messages are made with. Never shown.
CREATE TABLE secrets (
    name   TEXT PRIMARY KEY,
    secret TEXT NOT NULL                -- 32 random bytes as hex
) STRICT;
