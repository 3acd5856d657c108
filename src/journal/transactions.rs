//! Transactions: what is to be done on a chain, the nonce that is reserved for it, every form of
//! it that was signed.
//!
//! What must hold: a nonce is written down before anything is signed with it, a form before it is
//! sent; a nonce belongs to one transaction for good, unless it turned out to be somebody else's.

use std::collections::BTreeMap;

use crate::sql::{Connection, Row, params};

use super::attempts::millis;
use super::receipts::{self, Leaf, number};
use super::{Error, Journal};
use crate::clock::Timestamp;
use crate::ids::Address;
use crate::reputation::Call;
use crate::reputation::tx::{Account, Form, Outcome, State, Transaction};

/// What the journal knows of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// All nonces below it are explained: ours, or accepted as somebody else's.
    pub nonce: u64,
    /// When a transaction was last seen that is not ours.
    pub foreign: Option<Timestamp>,
}

/// The statements that look for transactions among all that there ever were: each is to use an index.
mod find {
    const COLUMNS: &str = "id, contract, nonce, call, state, outcome";

    /// What is in nobody's hand but ours. The index's own condition stands first, so that it is
    /// taken.
    pub(super) fn unfinished() -> String {
        format!(
            "SELECT {COLUMNS} FROM transactions INDEXED BY transactions_unfinished
             WHERE state IN ('open', 'displaced') AND chain_id = ? AND account = ?"
        )
    }

    /// What was settled at a nonce that is not counted any more.
    pub(super) fn uncounted() -> String {
        format!(
            "SELECT {COLUMNS} FROM transactions INDEXED BY transactions_nonce
             WHERE state IN ('open', 'settled') AND chain_id = ? AND account = ? AND nonce >= ?
             AND state = 'settled' AND settled_ms >= ?"
        )
    }

    /// What is done since then.
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
    /// What is known of this account; at first sight, that `nonce` transactions went before.
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

    /// Accepts that all nonces below `nonce` are used, the unknown ones by somebody else.
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

    /// What is not done, with the account's next nonce on the chain being `nonce`: what is open,
    /// what is displaced but not given up, and what was settled since `since` but is not counted
    /// any more. In the order of their nonces.
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

    /// The newest transaction that was settled, where that was at `since` or later.
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

    /// Believes that the account's next nonce is `nonce`, though more were known of. Durable.
    pub async fn lower(&self, account: Account, nonce: u64) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let (chain_id, address) = key(account);
            let sql = "UPDATE accounts SET nonce = ? WHERE chain_id = ? AND account = ?";
            db.execute(sql, params![number(nonce), chain_id, address])?;
            Ok(())
        };
        self.writer.change("lower", true, work).await
    }

    /// Reserves `nonce` for a call, and gathers `leaves` under the root that it carries. Durable.
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
            // Settled long ago on a chain that has begun anew.
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

    /// Keeps a form that was signed. Durable: it may be sent once this has returned.
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

    /// The transaction is in a block for good. Durable.
    pub async fn settle(
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

    /// The transaction's nonce seems to be another's. Durable.
    pub async fn displace(&self, transaction: i64, at: Timestamp) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let sql = "UPDATE transactions SET state = 'displaced', settled_ms = ? WHERE id = ?";
            db.prepare_cached(sql)?.execute(params![millis(at), transaction])?;
            Ok(())
        };
        self.writer.change("displace", true, work).await
    }

    /// No form of the transaction will ever be in a block: its receipts go with another. Durable.
    pub async fn abandon(&self, transaction: i64, at: Timestamp) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let sql = "UPDATE transactions SET state = 'abandoned', settled_ms = ? WHERE id = ?";
            db.prepare_cached(sql)?.execute(params![millis(at), transaction])?;
            receipts::free(db, transaction)
        };
        self.writer.change("abandon", true, work).await
    }

    /// The block that held the transaction is part of the chain no more.
    pub async fn reopen(&self, transaction: i64) -> Result<(), Error> {
        let work = move |db: &Connection| {
            let sql = "UPDATE transactions SET state = 'open', settled_ms = NULL, outcome = NULL
                 WHERE id = ?";
            db.prepare_cached(sql)?.execute([transaction])?;
            Ok(())
        };
        self.writer.change("reopen", true, work).await
    }

    /// The most that the account's transactions since then may cost, in wei: of each nonce the
    /// dearest form that was ever signed. What an endpoint says of their end is not believed, since
    /// what was signed can be sent by whoever saw it, and a receipt of one endpoint is its word.
    pub async fn spent(&self, account: Account, since: Timestamp) -> Result<u128, Error> {
        let work = move |db: &Connection| {
            let (chain_id, address) = key(account);
            let mut counted = read_all(db, &find::unfinished(), params![chain_id, address])?;
            // What was displaced before that is done, as far as one can tell: it is not counted.
            counted.retain(|transaction| matches!(transaction.state, State::Open));
            let done = params![millis(since), chain_id, address];
            counted.extend(read_all(db, &find::done_since(), done)?);
            let mut most = BTreeMap::<u64, u128>::new();
            for transaction in counted {
                let forms = transaction.forms.iter().map(|form| form.fees.worst(form.gas_limit));
                // A second layer's data fee comes on top of what the form allows.
                let told = match &transaction.state {
                    State::Settled(outcome) => outcome.fee_wei,
                    State::Open | State::Displaced | State::Abandoned => 0,
                };
                let worst = forms.max().map_or(0, |worst| worst.max(told));
                // One nonce is mined once, whichever of its forms it is.
                let of_nonce = most.entry(transaction.nonce).or_default();
                *of_nonce = worst.max(*of_nonce);
            }
            Ok(most.into_values().fold(0, u128::saturating_add))
        };
        self.writer.call(false, work).await
    }

    /// When a heartbeat of the account last succeeded on this contract, by `now`: what lies ahead
    /// was written under a clock that has been set back.
    pub async fn last_beat(
        &self,
        account: Account,
        contract: Address,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let work = move |db: &Connection| {
            let (chain_id, address) = key(account);
            let params = params![chain_id, address, contract.to_string(), millis(now)];
            let last: Option<i64> = db.query_row(find::LAST_BEAT, params, |row| row.get(0))?;
            Ok(last.map(time))
        };
        self.writer.call(false, work).await
    }
}

fn explain(db: &Connection, account: Account, nonce: u64) -> Result<(), Error> {
    let (chain_id, address) = key(account);
    let sql = "UPDATE accounts SET nonce = max(nonce, ?) WHERE chain_id = ? AND account = ?";
    db.prepare_cached(sql)?.execute(params![number(nonce), chain_id, address])?;
    Ok(())
}

/// The transactions that a statement finds.
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
