//! What waits in the journal, in numbers.
//!
//! Invariant: one short transaction, however much waits: each number is counted up to a limit, by an index.

use super::{Error, Journal, transactions};
use crate::clock::Timestamp;
use crate::ids::Address;
use crate::reputation::tx::Account;
use crate::sql::{Connection, params};

/// No number is counted beyond this.
const COUNTED_MAX: u32 = 100_000;

/// Where the numbers of a [`Backlog`] come from, in the order of its fields.
const WAITING: [&str; 3] = [
    "SELECT 1 FROM outbox WHERE sent <> 1",
    "SELECT 1 FROM done WHERE again > 0",
    "SELECT 1 FROM usage_batches WHERE waits = 1",
];

/// How much waits; each number at most 100,000.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// Statuses that wait to be published.
    pub statuses: u32,
    /// Batches of samples that wait to be published.
    pub usage_batches: u32,
    /// Outputs that are kept because they could not be published.
    pub kept: u32,
    /// What is known of the account on the chain.
    pub account: Option<AccountBacklog>,
}

/// What is known of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountBacklog {
    /// Transactions that are not final.
    pub pending: u32,
    /// When its last heartbeat was final; `None` if there was none.
    pub last_beat: Option<Timestamp>,
}

impl Journal {
    /// How much waits. `account`: the node's, with its contract, if the chain is known.
    pub async fn backlog(
        &self,
        account: Option<(Account, Address)>,
        now: Timestamp,
    ) -> Result<Backlog, Error> {
        let work = move |db: &Connection| {
            let [statuses, again, usage_batches] = WAITING.map(|rows| count(db, rows));
            // A kept output's row is large, and there are few: an upload that failed for weeks.
            let kept = count(db, "SELECT 1 FROM kept WHERE said = 0")?;
            let account = account.map(|(account, contract)| {
                let pending = transactions::pending(db, account, COUNTED_MAX)?;
                let last_beat = transactions::last_beat(db, account, contract, now)?;
                Ok::<_, Error>(AccountBacklog { pending, last_beat })
            });
            Ok(Backlog {
                statuses: statuses?.saturating_add(again?).min(COUNTED_MAX),
                usage_batches: usage_batches?,
                kept,
                account: account.transpose()?,
            })
        };
        self.writer.call(false, work).await
    }
}

fn count(db: &Connection, rows: &str) -> Result<u32, Error> {
    let sql = format!("SELECT count(*) FROM ({rows} LIMIT ?)");
    Ok(db.prepare_cached(&sql)?.query_row(params![COUNTED_MAX], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::SCHEMA;

    #[test]
    fn what_waits_is_counted_by_an_index_and_not_by_looking_at_all_jobs_that_ever_were() {
        let mut db = Connection::open_in_memory().unwrap();
        SCHEMA.apply(&mut db, std::path::Path::new("x")).unwrap();
        for (sql, index) in
            WAITING.into_iter().zip(["outbox_unsent", "done_again", "usage_batches_waiting"])
        {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql} LIMIT 5")).unwrap();
            let plan: String = plan.query_row([], |row| row.get(3)).unwrap();
            assert!(plan.contains(index), "{sql}: {plan}");
        }
    }
}
