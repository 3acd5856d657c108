//! On-chain transactions: the call, the nonce reserved for it, and every signed form of it.
//!
//! Invariants: a nonce is committed before anything is signed with it, and a signed form before it is sent. A
//! nonce belongs to one transaction for good, unless another sender turns out to have used it.

use std::collections::BTreeMap;

use crate::sql::{Connection, Row, params};

use super::receipts::{self, Leaf, number};
use super::{Error, Journal, millis};
use crate::clock::Timestamp;
use crate::ids::Address;
use crate::reputation::Call;
use crate::reputation::tx::{Account, Form, Outcome, State, Transaction};

/// What the journal knows about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Every nonce below this one is accounted for: used by this node, or accepted as used by another sender.
    pub nonce: u64,
    /// When a transaction of another sender was last seen on the account.
    pub foreign: Option<Timestamp>,
}

/// Queries over all transactions ever made. Each must be answered by an index; a test checks the query plans.
mod find {
    const COLUMNS: &str = "id, contract, nonce, call, state, outcome";

    /// Transactions that still need attention: open or displaced. The condition on `state` comes first and
    /// repeats the partial index's own, so that SQLite can use that index.
    pub(super) fn unfinished() -> String {
        format!(
            "SELECT {COLUMNS} FROM transactions INDEXED BY transactions_unfinished
             WHERE state IN ('open', 'displaced') AND chain_id = ? AND account = ?"
        )
    }

    /// Transactions settled at a nonce that the chain does not count as used, e.g. after a reorganization.
    pub(super) fn uncounted() -> String {
        format!(
            "SELECT {COLUMNS} FROM transactions INDEXED BY transactions_nonce
             WHERE state IN ('open', 'settled') AND chain_id = ? AND account = ? AND nonce >= ?
             AND state = 'settled' AND settled_ms >= ?"
        )
    }

    /// Transactions that were settled, displaced or abandoned at or after a given time.
    pub(super) fn done_since() -> String {
        format!(
            "SELECT {COLUMNS} FROM transactions INDEXED BY transactions_settled
             WHERE settled_ms >= ? AND chain_id = ? AND account = ?"
        )
    }

    pub(super) const LAST_BEAT: &str = "SELECT max(settled_ms) FROM transactions
         INDEXED BY transactions_settled WHERE chain_id = ? AND account = ?
         AND contract = ? AND state = 'settled' AND json_extract(outcome, '$.success')
         AND json_extract(call, '$.call') <> 'register' AND settled_ms <= ?";
}

impl Journal {
    /// What is known about this account. An account seen for the first time is recorded with `nonce` as its
    /// next nonce.
    pub async fn account(&self, account: Account, nonce: u64) -> Result<Known, Error> {
        let work = move |db: &Connection| {
            let sql = "INSERT OR IGNORE INTO accounts (chain_id, account, nonce) VALUES (?, ?, ?)";
            let (chain_id, address) = key(account);
            db.prepare_cached(sql)?.execute(params![chain_id, address, number(nonce)])?;
            let sql = "SELECT nonce, foreign_ms FROM accounts WHERE chain_id = ? AND account = ?";
            let known = db.prepare_cached(sql)?.query_row(params![chain_id, address], |row| {
                let foreign: Option<i64> = row.get(1)?;
                Ok(Known { nonce: unsigned(row.get(0)?), foreign: foreign.map(time) })
            })?;
            Ok(known)
        };
        self.writer.change("account", true, work).await
    }

    /// Accepts that all nonces below `nonce` are used, the unknown ones by another sender. Durable.
    pub async fn accept(&self, account: Account, nonce: u64, at: Timestamp) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let (chain_id, address) = key(account);
            explain(db, account, nonce)?;
            let sql = "UPDATE accounts SET foreign_ms = ? WHERE chain_id = ? AND account = ?";
            db.execute(sql, params![millis(at), chain_id, address])?;
            Ok(())
        };
        self.writer.change("accept", true, work).await
    }

    /// The transactions that need attention, ordered by nonce, if the chain's next nonce of the account is
    /// `nonce`: those that are open, those that are displaced but not abandoned, and those that were settled
    /// at or after `since` at a nonce that the chain does not count.
    pub async fn unfinished(
        &self,
        account: Account,
        nonce: u64,
        since: Timestamp,
    ) -> Result<Vec<Transaction>, Error> {
        let work = move |db: &Connection| {
            let (chain_id, address) = key(account);
            let mut found = read_all(db, &find::unfinished(), params![chain_id, address])?;
            let settled = params![chain_id, address, number(nonce), millis(since)];
            found.extend(read_all(db, &find::uncounted(), settled)?);
            found.sort_by_key(|transaction| transaction.nonce);
            Ok(found)
        };
        self.writer.call(false, work).await
    }

    /// The settled transaction with the highest nonce, if it was settled at or after `since`.
    pub async fn last_settled(
        &self,
        account: Account,
        since: Timestamp,
    ) -> Result<Option<Transaction>, Error> {
        let work = move |db: &Connection| {
            let sql = "SELECT id, contract, nonce, call, state, outcome FROM transactions
                 WHERE chain_id = ? AND account = ? AND state = 'settled' AND settled_ms >= ?
                 ORDER BY nonce DESC LIMIT 1";
            let (chain_id, address) = key(account);
            let mut query = db.prepare_cached(sql)?;
            let mut rows = query.query(params![chain_id, address, millis(since)])?;
            rows.next()?.map(|row| read(db, row)).transpose()
        };
        self.writer.call(false, work).await
    }

    /// Lowers the account's next nonce to `nonce`, although higher nonces were known. Durable.
    pub async fn lower(&self, account: Account, nonce: u64) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let (chain_id, address) = key(account);
            let sql = "UPDATE accounts SET nonce = ? WHERE chain_id = ? AND account = ?";
            db.execute(sql, params![number(nonce), chain_id, address])?;
            Ok(())
        };
        self.writer.change("lower", true, work).await
    }

    /// Reserves `nonce` for a call and binds the receipts `leaves` to the root that the call carries.
    /// Durable.
    pub async fn reserve(
        &self,
        account: Account,
        (contract, nonce): (Address, u64),
        (call, leaves): (Call, Vec<Leaf>),
        at: Timestamp,
    ) -> Result<Transaction, Error> {
        let work = move |db: &Connection| {
            let sql = "INSERT INTO transactions
                 (chain_id, account, contract, nonce, call, state, reserved_ms)
                 VALUES (?, ?, ?, ?, ?, 'open', ?)";
            let (chain_id, address) = key(account);
            // The nonce is unique among open and settled transactions. If one was settled at it, the chain
            // was restarted.
            let old = "UPDATE transactions SET state = 'abandoned'
                 WHERE chain_id = ? AND account = ? AND nonce = ? AND state = 'settled'";
            db.prepare_cached(old)?.execute(params![chain_id, address, number(nonce)])?;
            let text = serde_json::to_string(&call)?;
            db.prepare_cached(sql)?.execute(params![
                chain_id,
                address,
                contract.to_string(),
                number(nonce),
                text,
                millis(at),
            ])?;
            let id = db.last_insert_rowid();
            receipts::bind(db, id, &leaves)?;
            let (state, forms) = (State::Open, Vec::new());
            Ok(Transaction { id, contract, nonce, call, state, forms })
        };
        self.writer.change("reserve_nonce", true, work).await
    }

    /// Stores a signed form. Durable: the form may be sent once this has returned.
    pub async fn signed(&self, transaction: i64, form: &Form) -> Result<(), Error> {
        let (hash, raw) = (form.hash.to_string(), form.raw.clone());
        let form = serde_json::to_string(form)?;
        let work = move |db: &Connection| {
            let sql =
                "INSERT INTO signed_forms (hash, transaction_id, raw, form) VALUES (?, ?, ?, ?)";
            db.prepare_cached(sql)?.execute(params![hash, transaction, raw, form])?;
            Ok(())
        };
        self.writer.change("signed", true, work).await
    }

    /// Records that the transaction is final in a block, with its outcome. A failed transaction frees its
    /// receipts for another root. Durable.
    pub async fn record_mined(
        &self,
        account: Account,
        transaction: &Transaction,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<(), Error> {
        let (id, nonce) = (transaction.id, transaction.nonce);
        let work = move |db: &Connection| {
            let sql = "UPDATE transactions SET state = 'settled', settled_ms = ?, outcome = ?
                 WHERE id = ?";
            let text = serde_json::to_string(&outcome)?;
            db.prepare_cached(sql)?.execute(params![millis(at), text, id])?;
            if !outcome.success {
                receipts::free(db, id)?;
            }
            explain(db, account, nonce.saturating_add(1))
        };
        self.writer.change("settle", true, work).await
    }

    /// Marks the transaction as displaced: another transaction seems to have used its nonce. Durable.
    pub async fn displace(&self, transaction: i64, at: Timestamp) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let sql = "UPDATE transactions SET state = 'displaced', settled_ms = ? WHERE id = ?";
            db.prepare_cached(sql)?.execute(params![millis(at), transaction])?;
            Ok(())
        };
        self.writer.change("displace", true, work).await
    }

    /// Abandons the transaction: none of its forms can get into a block. Its receipts are free for another
    /// root. Durable.
    pub async fn abandon(&self, transaction: i64, at: Timestamp) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let sql = "UPDATE transactions SET state = 'abandoned', settled_ms = ? WHERE id = ?";
            db.prepare_cached(sql)?.execute(params![millis(at), transaction])?;
            receipts::free(db, transaction)
        };
        self.writer.change("abandon", true, work).await
    }

    /// Reopens the transaction, because the block that held it was removed by a reorganization. Durable.
    pub async fn reopen(&self, transaction: i64) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let sql = "UPDATE transactions SET state = 'open', settled_ms = NULL, outcome = NULL
                 WHERE id = ?";
            db.prepare_cached(sql)?.execute([transaction])?;
            Ok(())
        };
        self.writer.change("reopen", true, work).await
    }

    /// Upper bound on what the account's transactions since `since` cost, in wei: for each nonce, the most
    /// expensive form ever signed. An endpoint's report that a transaction ended does not lower it: whoever
    /// saw a signed form can still send it, and a receipt is only that one endpoint's word.
    pub async fn spent(&self, account: Account, since: Timestamp) -> Result<u128, Error> {
        let work = move |db: &Connection| {
            let (chain_id, address) = key(account);
            let mut counted = read_all(db, &find::unfinished(), params![chain_id, address])?;
            // Displaced ones count only if that was at or after `since`; most likely they are never mined.
            counted.retain(|transaction| matches!(transaction.state, State::Open));
            let done = params![millis(since), chain_id, address];
            counted.extend(read_all(db, &find::done_since(), done)?);
            let mut most = BTreeMap::<u64, u128>::new();
            for transaction in counted {
                let forms = transaction.forms.iter().map(|form| form.fees.worst(form.gas_limit));
                // On a layer 2, the data fee comes on top of what the form allows.
                let told = match &transaction.state {
                    State::Settled(outcome) => outcome.fee_wei,
                    State::Open | State::Displaced | State::Abandoned => 0,
                };
                let worst = forms.max().map_or(0, |worst| worst.max(told));
                // Only one form per nonce can be mined.
                let of_nonce = most.entry(transaction.nonce).or_default();
                *of_nonce = worst.max(*of_nonce);
            }
            Ok(most.into_values().fold(0, u128::saturating_add))
        };
        self.writer.call(false, work).await
    }

    /// When a heartbeat of the account last succeeded on this contract, with or without receipts. Times after
    /// `now` are ignored: they were written before the clock was set back.
    pub async fn last_beat(
        &self,
        account: Account,
        contract: Address,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let work = move |db: &Connection| last_beat(db, account, contract, now);
        self.writer.call(false, work).await
    }
}

/// See [`Journal::last_beat`].
pub(super) fn last_beat(
    db: &Connection,
    account: Account,
    contract: Address,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let (chain_id, address) = key(account);
    let params = params![chain_id, address, contract.to_string(), millis(now)];
    let last: Option<i64> = db.query_row(find::LAST_BEAT, params, |row| row.get(0))?;
    Ok(last.map(time))
}

/// The number of the account's transactions that are not final, counted up to `limit`.
pub(super) fn pending(db: &Connection, account: Account, limit: u32) -> Result<u32, Error> {
    let (chain_id, address) = key(account);
    let sql = format!("SELECT count(*) FROM ({} LIMIT ?)", find::unfinished());
    let params = params![chain_id, address, limit];
    Ok(db.prepare_cached(&sql)?.query_row(params, |row| row.get(0))?)
}

fn explain(db: &Connection, account: Account, nonce: u64) -> Result<(), Error> {
    let (chain_id, address) = key(account);
    let sql = "UPDATE accounts SET nonce = max(nonce, ?) WHERE chain_id = ? AND account = ?";
    db.prepare_cached(sql)?.execute(params![number(nonce), chain_id, address])?;
    Ok(())
}

/// Runs a query and reads the transactions that it finds.
fn read_all(
    db: &Connection,
    sql: &str,
    params: &[&dyn crate::sql::ToSql],
) -> Result<Vec<Transaction>, Error> {
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(db, row)?);
    }
    Ok(found)
}

fn read(db: &Connection, row: &Row<'_>) -> Result<Transaction, Error> {
    let failed = |err: crate::ids::address::InvalidAddress| Error::Failed(Box::new(err));
    let id: i64 = row.get(0)?;
    let state: String = row.get(4)?;
    let outcome: Option<String> = row.get(5)?;
    let state = match (state.as_str(), outcome) {
        ("settled", Some(outcome)) => State::Settled(serde_json::from_str(&outcome)?),
        ("displaced", _) => State::Displaced,
        ("abandoned", _) => State::Abandoned,
        _ => State::Open,
    };
    let sql = "SELECT form, raw FROM signed_forms WHERE transaction_id = ? ORDER BY rowid";
    let mut query = db.prepare_cached(sql)?;
    let forms = query.query_map([id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let forms = forms.map(|form| {
        let (form, raw) = form?;
        Ok(Form { raw, ..serde_json::from_str(&form)? })
    });
    Ok(Transaction {
        id,
        contract: row.get::<_, String>(1)?.parse().map_err(failed)?,
        nonce: unsigned(row.get(2)?),
        call: serde_json::from_str(&row.get::<_, String>(3)?)?,
        state,
        forms: forms.collect::<Result<_, Error>>()?,
    })
}

fn key(account: Account) -> (i64, String) {
    (number(account.chain_id), account.address.to_string())
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(unsigned(ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::SCHEMA;

    #[test]
    fn what_is_asked_before_each_beat_is_found_by_an_index() {
        let mut db = Connection::open_in_memory().unwrap();
        SCHEMA.apply(&mut db, std::path::Path::new("x")).unwrap();
        let all = [
            (find::unfinished(), "transactions_unfinished (chain_id=? AND account=?)"),
            (find::uncounted(), "transactions_nonce (chain_id=? AND account=? AND nonce>?)"),
            (find::done_since(), "transactions_settled (settled_ms>?)"),
            (find::LAST_BEAT.to_owned(), "transactions_settled (settled_ms<?)"),
        ];
        for (sql, expected) in all {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let none = vec![0; plan.parameter_count()];
            let rows =
                plan.query_map(crate::sql::params_from_iter(none), |row| row.get(3)).unwrap();
            let plan: Vec<String> = rows.collect::<Result<_, _>>().unwrap();
            assert!(plan.join("; ").ends_with(expected), "{sql}\n{plan:?}");
        }
    }
}
