-- Up to which nonce an account's transactions are explained: ours, or accepted as somebody else's.
CREATE TABLE accounts (
    chain_id   INTEGER NOT NULL,
    account    TEXT NOT NULL,
    nonce      INTEGER NOT NULL,        -- all below it are explained
    foreign_ms INTEGER,                 -- when one was last seen that is not ours
    PRIMARY KEY (chain_id, account)
) STRICT;

-- One row for each thing that was to be done on a chain, with the nonce that is reserved for it.
CREATE TABLE transactions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    chain_id    INTEGER NOT NULL,
    account     TEXT NOT NULL,
    contract    TEXT NOT NULL,
    nonce       INTEGER NOT NULL,
    call        TEXT NOT NULL,          -- reputation::Call as JSON
    state       TEXT NOT NULL,          -- open; settled; displaced: its nonce seems to be
                                        -- another's; abandoned: that is sure, or it was never signed
    reserved_ms INTEGER NOT NULL,
    settled_ms  INTEGER,
    outcome     TEXT                    -- reputation::tx::Outcome as JSON, where it is settled
) STRICT;
-- A nonce belongs to one transaction for good, unless somebody else used it.
CREATE UNIQUE INDEX transactions_nonce ON transactions (chain_id, account, nonce)
    WHERE state IN ('open', 'settled');

-- Every form of a transaction that was ever signed, written down before it was sent.
CREATE TABLE signed_forms (
    hash           TEXT PRIMARY KEY,
    transaction_id INTEGER NOT NULL REFERENCES transactions (id),
    raw            BLOB NOT NULL,
    form           TEXT NOT NULL        -- reputation::tx::Form as JSON
) STRICT;
CREATE INDEX signed_forms_transaction ON signed_forms (transaction_id);

-- What was signed about jobs. They outlive their jobs: a proof may be asked for later.
CREATE TABLE receipts (
    digest         TEXT PRIMARY KEY,    -- EIP-712
    job_id         TEXT NOT NULL,
    chain_id       INTEGER NOT NULL,
    contract       TEXT NOT NULL,
    finished_ms    INTEGER NOT NULL,
    completed      INTEGER NOT NULL,    -- 1 where the job completed
    document       TEXT NOT NULL,
    transaction_id INTEGER REFERENCES transactions (id)  -- whose root holds it
) STRICT;
CREATE INDEX receipts_job ON receipts (job_id);
CREATE INDEX receipts_waiting ON receipts (finished_ms, job_id) WHERE transaction_id IS NULL;
CREATE INDEX receipts_transaction ON receipts (transaction_id);
