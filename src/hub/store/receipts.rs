//! The receipts that nodes signed, as their statuses brought them.
//!
//! Must hold: they go out as they came; who reads them checks them.

use serde_json::Value;

use super::Error;
use super::view::{Eyes, all};
use crate::sql::{OptionalExtension as _, params};

/// How far around a job others are looked for, in milliseconds, and how many there may be.
const AROUND_MS: i64 = 3 * 3_600_000;
const RECEIPTS_MAX: u32 = 400;

impl Eyes {
    /// The receipts of a node's jobs that ended within three hours of this one, and its own; `None` if the job is
    /// not known.
    pub async fn receipts(&self, node: String, job: String) -> Result<Option<Vec<Value>>, Error> {
        self.look(move |db| {
            let last = "SELECT last_ms FROM jobs WHERE node = ? AND job_id = ?";
            let read = |row: &crate::sql::Row<'_>| row.get::<_, i64>(0);
            let last = db.query_row(last, params![node, job], read).optional()?;
            let Some(last) = last else { return Ok(None) };
            let sql = "SELECT statuses FROM jobs
                WHERE node = ?1 AND is_over AND last_ms BETWEEN ?2 - ?3 AND ?2 + ?3
                ORDER BY ABS(last_ms - ?2) LIMIT ?4";
            let with = params![node, last, AROUND_MS, RECEIPTS_MAX];
            let statuses = all(db, sql, with, |row| row.get::<_, String>(0))?;
            Ok(Some(statuses.iter().filter_map(|text| receipt(text)).collect()))
        })
        .await
    }
}

/// The receipt in the last one of these statuses that has one.
fn receipt(statuses: &str) -> Option<Value> {
    let statuses: Vec<Value> = serde_json::from_str(statuses).ok()?;
    statuses.into_iter().rev().find_map(|mut it| {
        it.pointer_mut("/status/receipt").map(Value::take).filter(Value::is_object)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;
    use crate::sql::Connection;

    #[tokio::test]
    async fn receipts_around_a_job_are_found_and_no_others() {
        let store = Store::in_memory().unwrap();
        let fill = |db: &Connection| -> Result<(), Error> {
            let sql = "INSERT INTO jobs VALUES (?1, ?2, 0, ?3, 'completed', 1, ?4)";
            for (node, job, last) in [
                ("0xa", "j1", 10),
                ("0xa", "j2", 20),
                ("0xb", "j3", 20),
                ("0xa", "old", 90_000_000),
            ] {
                let statuses =
                    serde_json::json!([{"status": {"receipt": {"of": job}}}, {"status": {}}]);
                db.execute(sql, params![node, job, last, statuses.to_string()])?;
            }
            Ok(())
        };
        store.writer.call(true, fill).await.unwrap();
        let eyes = Eyes::of(store);
        let found = eyes.receipts("0xa".to_owned(), "j1".to_owned()).await.unwrap().unwrap();
        assert_eq!(found, [serde_json::json!({"of": "j1"}), serde_json::json!({"of": "j2"})]);
        assert_eq!(eyes.receipts("0xb".to_owned(), "j1".to_owned()).await.unwrap(), None);
    }
}
