//! The outbox: what somebody is to be told.
use crate::fleet::notice::Notice;
use crate::sql::{Connection, SqliteError};
pub(super) fn queue(_db: &Connection, _n: &Notice, _c: &[&str]) -> Result<(), SqliteError> {
    Ok(())
}
