//! What was decided and what is to be told of it: incidents, silences and the outbox, in the database of whoever
//! decides. `migrations/alerts.sql` creates them, [`Book`] reads and writes them.
//!
//! Must hold: what a decision changes and the notices that follow from it are one commit.

mod alerts;
mod outbox;
mod tells;
mod told;

use crate::sql::{self, Writer};

pub use alerts::SILENCES_MAX;
pub use outbox::{Due, Next, PUT_OFF_MAX, queue};
pub use told::{Count, State, Told};

/// A database with these tables alone, for tests.
#[cfg(test)]
pub(super) const SCHEMA: sql::Schema =
    sql::Schema { name: "book", migrations: &[include_str!("../../../migrations/alerts.sql")] };

/// Why a call failed: the database did.
pub type Error = sql::Error;

/// A handle to the tables. Clones share it.
#[derive(Debug, Clone)]
pub struct Book {
    writer: Writer,
}

impl Book {
    /// The book in this database, which has the tables of `migrations/alerts.sql`.
    pub const fn of(writer: Writer) -> Self {
        Self { writer }
    }

    #[cfg(test)]
    pub(super) const fn writer(&self) -> &Writer {
        &self.writer
    }
}
