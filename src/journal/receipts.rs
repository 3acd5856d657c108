//! Receipts: stored when their job ends, then gathered under the root that a heartbeat carries.
//!
//! Invariants: a receipt is under at most one root that can be on the chain, and the leaves of that root
//! never change.

use crate::sql::{Connection, params};

use super::packed::pack;
use super::{Error, Journal};
use crate::ids::{Domain, Hash, JobId};
use crate::job::Status;
use crate::job::receipt::Signed;
use crate::job::status::Stage;

/// A receipt that can become a leaf of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// The receipt's EIP-712 digest.
    pub digest: Hash,
    /// Whether its job completed.
    pub completed: bool,
}

/// A receipt in its row's form. The caller computes it, so that the database thread need not compute the
/// digest.
pub(super) struct Row {
    digest: String,
    job_id: JobId,
    domain: Domain,
    finished_at: u64,
    completed: bool,
    packed: Vec<u8>,
}

impl Row {
    /// The receipt that a status carries, if any.
    pub(super) fn of(status: &Status) -> Result<Option<Self>, Error> {
        let Some(document) = &status.receipt else { return Ok(None) };
        Self::of_document(document, status.stage == Stage::Completed).map(Some)
    }

    /// The row of a signed receipt. `completed` says whether its job completed.
    pub(super) fn of_document(
        document: &serde_json::Value,
        completed: bool,
    ) -> Result<Self, Error> {
        let signed = Signed::from_json(document).map_err(|err| Error::Failed(Box::new(err)))?;
        let Signed { domain, receipt, .. } = signed;
        Ok(Self {
            digest: receipt.digest(&domain).to_string(),
            job_id: receipt.job_id,
            domain,
            finished_at: receipt.finished_at,
            completed,
            packed: pack(document.to_string().as_bytes())?,
        })
    }

    pub(super) fn keep(&self, db: &Connection) -> Result<(), Error> {
        let sql = "INSERT OR IGNORE INTO receipts
             (digest, job_id, chain_id, contract, finished_ms, completed, document, packed)
             VALUES (?, ?, ?, ?, ?, ?, '', ?)";
        db.prepare_cached(sql)?.execute(params![
            self.digest,
            self.job_id.as_str(),
            number(self.domain.chain_id),
            self.domain.contract.to_string(),
            number(self.finished_at),
            self.completed,
            self.packed,
        ])?;
        Ok(())
    }
}

/// Puts these receipts under a transaction's root. Fails if one is unknown or already under a root.
pub(super) fn bind(db: &Connection, transaction: i64, leaves: &[Leaf]) -> Result<(), Error> {
    let sql = "UPDATE receipts SET transaction_id = ? WHERE digest = ? AND transaction_id IS NULL";
    let mut update = db.prepare_cached(sql)?;
    for leaf in leaves {
        if update.execute(params![transaction, leaf.digest.to_string()])? != 1 {
            let text = format!("receipt {} is unknown or under a root already", leaf.digest);
            return Err(Error::Failed(text.into()));
        }
    }
    Ok(())
}

/// Frees the receipts of a transaction whose root can't get on the chain.
pub(super) fn free(db: &Connection, transaction: i64) -> Result<(), Error> {
    let sql = "UPDATE receipts SET transaction_id = NULL WHERE transaction_id = ?";
    db.prepare_cached(sql)?.execute([transaction])?;
    Ok(())
}

impl Journal {
    /// The receipts of this chain and contract that are under no root, in the order of the tree: by end of
    /// run, then job id, then digest. At most `limit`.
    pub async fn waiting_receipts(&self, domain: Domain, limit: u32) -> Result<Vec<Leaf>, Error> {
        let work = move |db: &Connection| {
            let sql = "SELECT digest, completed FROM receipts INDEXED BY receipts_waiting
                 WHERE transaction_id IS NULL AND chain_id = ? AND contract = ?
                 ORDER BY finished_ms, job_id, digest LIMIT ?";
            let mut query = db.prepare_cached(sql)?;
            let (chain_id, contract) = (number(domain.chain_id), domain.contract.to_string());
            let rows = query.query_map(params![chain_id, contract, limit], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?))
            })?;
            rows.map(|row| {
                let (digest, completed) = row?;
                let digest = digest.parse().map_err(|err| Error::Failed(Box::new(err)))?;
                Ok(Leaf { digest, completed })
            })
            .collect()
        };
        self.writer.call(false, work).await
    }
}

/// SQLite's integers are signed. Chain ids and times in use are far below the limit.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
