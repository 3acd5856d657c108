//! The pipeline of transactions: killed at every step, and in bad weather. What the chain holds
//! afterwards is compared with what the journal says.

mod crash;

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// A transaction as the journal has it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) nonce: u64,
    pub(super) call: String,
    pub(super) state: String,
    /// The hashes of its forms.
    pub(super) forms: Vec<String>,
}

/// All transactions in the journal under this folder, in order.
pub(super) fn transactions(data: &Path) -> Vec<Row> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = Connection::open_with_flags(data.join("journal.db"), flags).expect("a journal");
    let sql =
        "SELECT nonce, call, state, (SELECT coalesce(group_concat(hash), '') FROM signed_forms
         WHERE transaction_id = transactions.id) FROM transactions ORDER BY id";
    let mut query = db.prepare(sql).expect("its schema");
    let rows = query.query_map([], |row| {
        let (nonce, forms): (i64, String) = (row.get(0)?, row.get(3)?);
        let forms = forms.split(',').filter(|hash| !hash.is_empty()).map(str::to_owned).collect();
        let nonce = u64::try_from(nonce).expect("a nonce");
        Ok(Row { nonce, call: row.get(1)?, state: row.get(2)?, forms })
    });
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}
