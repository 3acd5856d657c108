//! What the hub says of itself: the digest of a day, and that it was away.
//!
//! Invariant: each digest is told once, whenever the hub is killed.

use std::sync::Arc;
use std::time::Duration;

use super::store::digest::plain;
use super::store::{self, Store};
use crate::clock::{Clock, Timestamp};
use crate::fleet::alerts::Daily;
use crate::fleet::notice::NoticeKind;
use crate::fleet::words;
use crate::notify::Outbox;
use crate::supervise::Failure;

/// How often it looks whether a digest is due.
const LOOK: Duration = Duration::from_secs(20);

/// Tells the digest of each day. One service.
#[derive(Debug)]
pub struct Digests<C> {
    /// The database.
    pub store: Store,
    /// When it is told.
    pub at: Daily,
    /// The channels that are set.
    pub channels: Vec<&'static str>,
    /// Told when a notice was queued.
    pub outbox: Outbox,
    /// The clock.
    pub clock: C,
}

impl<C: Clock> Digests<C> {
    /// Tells digests until it is aborted.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        let again = |err: store::Error| Failure::again(err, "look at the disk of DB_PATH");
        loop {
            let now = self.clock.now();
            if let Some(due) = self.at.last(now) {
                let channels = self.channels.clone();
                if self.store.digest(due, now, channels).await.map_err(again)? {
                    self.outbox.poke();
                }
            }
            self.clock.sleep(LOOK).await;
        }
    }
}

/// Tells that the hub was away from one moment to another, in which it watched nobody.
pub async fn tell_absence(
    store: &Store,
    from: Timestamp,
    to: Timestamp,
    channels: Vec<&'static str>,
) -> Result<(), store::Error> {
    let lasted = words::age(to.since(from));
    let title = format!("The hub was away for {lasted}");
    let lines = vec![
        format!("It watched nobody from {from} to {to}."),
        "Nodes that it has not heard since show as not watched, not as down.".to_owned(),
    ];
    let notice = plain(NoticeKind::Digest, title, lines, to);
    Ok(store.book().queue_notice(notice, channels).await?)
}
