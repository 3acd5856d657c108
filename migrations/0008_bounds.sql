-- What is not done of the chain's transactions is found without reading those that are.
CREATE INDEX transactions_unfinished ON transactions (chain_id, account, nonce)
    WHERE state IN ('open', 'displaced');

-- Events of this job that went before it was packed: an older version wrote a row for each try.
ALTER TABLE leaving ADD COLUMN trimmed INTEGER NOT NULL DEFAULT 0;
