//! A request to a database: work, and how its answer waits for the commit.

use super::{Connection, Error};

/// Runs inside the batch's transaction. The returned closure answers the caller after the commit.
pub(super) type Work = Box<dyn FnOnce(&Connection) -> Answer + Send>;
pub(super) type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;

pub(super) struct Request {
    /// Whether what it writes or reads must survive a power cut before it is answered.
    pub(super) durable: bool,
    /// The work, to run on the database thread.
    pub(super) work: Work,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("durable", &self.durable).finish_non_exhaustive()
    }
}
