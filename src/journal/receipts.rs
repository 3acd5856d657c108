//! Receipts: kept when their job ends, gathered under the root that a heartbeat carries.
//!
//! What must hold: a receipt is in at most one root that can be on the chain, and that root's
//! leaves never change.

use crate::sql::{Connection, params};

use super::packed::pack;
use super::{Error, Journal};
use crate::ids::{Domain, Hash, JobId};
use crate::job::Status;
use crate::job::receipt::Signed;
use crate::job::status::Stage;

/// A receipt that no root holds yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Its EIP-712 digest.
    pub digest: Hash,
    /// Whether its job completed.
    pub completed: bool,
}

/// A receipt as its row holds it. Made by the caller: the one thread that writes has no time for
/// its digest.
pub(super) struct Row {
    digest: String,
    job_id: JobId,
    domain: Domain,
    finished_at: u64,
    completed: bool,
    packed: Vec<u8>,
}

impl Row {
    /// The receipt that a status carries, where it carries one.
    pub(super) fn of(status: &Status) -> Result<Option<Self>, Error> {
        let Some(document) = &status.receipt else { return Ok(None) };
        Self::of_document(document, status.stage == Stage::Completed).map(Some)
    }

    /// A signed receipt; `completed`: whether its job did.
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

/// Gathers these receipts under a transaction's root.
pub(super) fn bind(db: &Connection, transaction: i64, leaves: &[Leaf]) -> Result<(), Error> {
    let sql = "UPDATE receipts SET transaction_id = ? WHERE digest = ? AND transaction_id IS NULL";
    let mut update = db.prepare_cached(sql)?;
    for leaf in leaves {
        if update.execute(params![transaction, leaf.digest.to_string()])? != 1 {
            let text = format!("receipt {} waits for no root", leaf.digest);
            return Err(Error::Failed(text.into()));
        }
    }
    Ok(())
}

/// Frees the receipts of a transaction whose root will never be on the chain.
pub(super) fn free(db: &Connection, transaction: i64) -> Result<(), Error> {
    let sql = "UPDATE receipts SET transaction_id = NULL WHERE transaction_id = ?";
    db.prepare_cached(sql)?.execute([transaction])?;
    Ok(())
}

impl Journal {
    /// The receipts of this chain and contract that no root holds yet, in a tree's order: by the
    /// end of their run, then by job id and digest. At most `limit`.
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

/// SQLite's integers are signed; chain ids and times in use end long before they do.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
