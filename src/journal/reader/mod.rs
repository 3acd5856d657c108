//! Read-only access to the journal for other processes, also while a node is writing: jobs, their history,
//! receipts, and the roots that hold them.
//!
//! Invariants: a reader writes nothing and takes no lock that the node needs; every answer is bounded.

mod jobs;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::sql::{Connection, OpenFlags, OptionalExtension as _, Row, SqliteError, params};

use super::packed::unpack;
use super::{Dated, Error, KeptOutput, SCHEMA, UsageKept, gpu_health, kept, receipts, usage};
use crate::ids::{Hash, JobId};
use crate::job::receipt::Signed;
use crate::node::GpuUuid;
use crate::reputation::Call;
use crate::reputation::tx::Outcome;

pub use jobs::{Chronicle, Page, Publication, Record, Standing, StatusRecord};

/// How long a read waits while the node holds the database, e.g. during a checkpoint.
const BUSY: Duration = Duration::from_secs(5);

/// Upper bound on the leaves under a root that a heartbeat carries.
const LEAVES_MAX: u32 = 65_536;

/// The columns of a receipt, in the order that [`of_row`] reads.
const COLUMNS: &str = "document, completed, transaction_id, call, state, outcome, packed
    FROM receipts LEFT JOIN transactions ON transactions.id = receipts.transaction_id";

/// A read-only connection to the journal. Its calls block.
#[derive(Debug)]
pub struct Reader {
    db: Connection,
}

/// A receipt and its way to the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The signed receipt.
    pub signed: Signed,
    /// Whether its job completed.
    pub completed: bool,
    /// Which root holds the receipt, if any.
    pub commitment: Commitment,
}

/// How far a receipt has come on its way to the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commitment {
    /// No root holds it yet.
    Waiting,
    /// A heartbeat with this root was reserved or sent, but is not settled.
    Sent {
        /// The root over the receipt.
        root: Hash,
    },
    /// A heartbeat with this root is settled in a block.
    Mined {
        /// The root over the receipt.
        root: Hash,
        /// The outcome of the heartbeat's transaction.
        outcome: Outcome,
        /// The transaction's row id, for [`Reader::leaves`].
        transaction: i64,
    },
}

impl Reader {
    /// Opens the journal that a node created in this folder. Fails if there is none, or if its schema version
    /// differs.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(super::open::FILE);
        if !path.is_file() {
            return Err(Error::Missing(dir.to_owned()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let db = Connection::open_with_flags(&path, flags)?;
            db.busy_timeout(BUSY)?;
            let found = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok((db, found))
        };
        let (db, found) = open().map_err(|source: SqliteError| Error::Unusable {
            path: path.clone(),
            source: source.into(),
        })?;
        let known = SCHEMA.version();
        match found {
            found if found > known => Err(Error::TooNew { path, found, known }),
            found if found < known => Err(Error::TooOld { path, found, known }),
            _ => Ok(Self { db }),
        }
    }

    /// The receipt of this job. If the id was forgotten and used again, the newest one.
    pub fn receipt(&self, job: &JobId) -> Result<Option<Kept>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} WHERE job_id = ?
             ORDER BY finished_ms DESC, completed DESC, digest LIMIT 1"
        );
        let mut query = self.db.prepare(&sql)?;
        let mut rows = query.query([job.as_str()])?;
        rows.next()?.map(of_row).transpose()
    }

    /// The receipts that were signed last, at most `limit`, sorted by end of run, newest first.
    pub fn receipts(&self, limit: u32) -> Result<Vec<Kept>, Error> {
        // Row ids follow the order of signing. Sorting by end of run would read the whole table.
        let sql = format!("SELECT {COLUMNS} ORDER BY receipts.rowid DESC LIMIT ?");
        let mut query = self.db.prepare(&sql)?;
        let mut rows = query.query([limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(of_row(row)?);
        }
        found.sort_by(|a, b| {
            let key =
                |kept: &Kept| (kept.signed.receipt.finished_at, kept.signed.receipt.job_id.clone());
            let ((a_at, a_id), (b_at, b_id)) = (key(a), key(b));
            b_at.cmp(&a_at).then(a_id.cmp(&b_id))
        });
        Ok(found)
    }

    /// The digests of the receipts under a transaction's root, in the order of the tree's leaves.
    pub fn leaves(&self, transaction: i64) -> Result<Vec<Hash>, Error> {
        let sql = "SELECT digest FROM receipts WHERE transaction_id = ?
             ORDER BY finished_ms, job_id, digest LIMIT ?";
        let mut query = self.db.prepare(sql)?;
        let digests = query.query_map(params![transaction, LEAVES_MAX], |row| row.get(0))?;
        let parse = |text: String| text.parse().map_err(|err| Error::Failed(Box::new(err)));
        digests.map(|digest| parse(digest?)).collect()
    }

    /// The record of each card that ever was anything but healthy, and when it came into its state.
    pub fn gpu_health(&self) -> Result<BTreeMap<GpuUuid, Dated>, Error> {
        gpu_health::all(&self.db)
    }

    /// What this job's latest attempt used, up to its last batch of samples; `None` if nothing is kept of it.
    pub fn usage(&self, job: &JobId) -> Result<Option<UsageKept>, Error> {
        usage::of(&self.db, job)
    }

    /// The job's kept output, if it could not be published in time and is still known.
    pub fn kept(&self, job: &JobId) -> Result<Option<KeptOutput>, Error> {
        kept::find(&self.db, job)
    }

    /// The jobs whose outputs are kept.
    pub fn kept_ids(&self) -> Result<Vec<JobId>, Error> {
        kept::all_ids(&self.db)
    }

    /// The job's phase by name, or `rejected` or `unproven` for a refusal; `None` if the id is not known or
    /// was forgotten.
    pub fn phase(&self, job: &JobId) -> Result<Option<String>, Error> {
        let sql = "SELECT phase FROM jobs WHERE job_id = ?1
             UNION ALL SELECT phase FROM done WHERE job_id = ?1 LIMIT 1";
        Ok(self.db.query_row(sql, [job.as_str()], |row| row.get(0)).optional()?)
    }

    /// Whether the node's latest successful heartbeat to the receipt's contract was reserved after the job's
    /// end and yet carried no root.
    pub fn passed_over(&self, signed: &Signed) -> Result<bool, Error> {
        let sql = "SELECT call, reserved_ms FROM transactions
             WHERE chain_id = ? AND contract = ? AND state = 'settled'
             AND json_extract(outcome, '$.success')
             AND json_extract(call, '$.call') LIKE 'heartbeat%' ORDER BY id DESC LIMIT 1";
        let domain = signed.domain;
        let key = params![receipts::number(domain.chain_id), domain.contract.to_string()];
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        let Some((call, reserved_ms)) = self.db.query_row(sql, key, read).optional()? else {
            return Ok(false);
        };
        let plain = serde_json::from_str::<Call>(&call)? == Call::Heartbeat;
        Ok(plain && reserved_ms > receipts::number(signed.receipt.finished_at))
    }
}

fn of_row(row: &Row<'_>) -> Result<Kept, Error> {
    // Packed, unless an older version stored it and it was not swept yet.
    let document = match row.get::<_, Option<Vec<u8>>>(6)? {
        Some(packed) => unpack(&packed)?,
        None => row.get::<_, String>(0)?.into_bytes(),
    };
    let signed = Signed::from_json(&serde_json::from_slice(&document)?)
        .map_err(|err| Error::Failed(Box::new(err)))?;
    let (transaction, call): (Option<i64>, Option<String>) = (row.get(2)?, row.get(3)?);
    let outcome: Option<String> = row.get(5)?;
    let call = call.map(|call| serde_json::from_str(&call)).transpose()?;
    let commitment = match (transaction, call) {
        (Some(transaction), Some(Call::HeartbeatWithReceipts { root, .. })) => match outcome {
            Some(text) => {
                let outcome = serde_json::from_str(&text)?;
                Commitment::Mined { root, outcome, transaction }
            }
            None => Commitment::Sent { root },
        },
        _ => Commitment::Waiting,
    };
    Ok(Kept { signed, completed: row.get(1)?, commitment })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    #[test]
    fn only_a_journal_of_this_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Reader::open(dir.path()), Err(Error::Missing(_))));
        drop(Journal::open(dir.path()).unwrap());
        assert_eq!(Reader::open(dir.path()).unwrap().receipts(1).unwrap(), []);
        let set = |version: u32| {
            let db = Connection::open(dir.path().join("journal.db")).unwrap();
            db.pragma_update(None, "user_version", version).unwrap();
        };
        set(1);
        assert!(matches!(Reader::open(dir.path()), Err(Error::TooOld { found: 1, .. })));
        set(99);
        assert!(matches!(Reader::open(dir.path()), Err(Error::TooNew { found: 99, .. })));
    }

    #[test]
    fn who_reads_can_not_write() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let reader = Reader::open(dir.path()).unwrap();
        assert!(reader.db.execute("DELETE FROM receipts", []).is_err());
        drop(journal);
    }
}
