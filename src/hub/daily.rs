//! What the hub says of itself: the digest of a day, that it was away, and to a dead man's switch that it is there.
//!
//! Invariants: each digest is told once, whenever the hub is killed; the switch is only told that the hub is there
//! while its database answers.

use std::sync::Arc;
use std::time::Duration;

use super::store::digest::plain;
use super::store::{self, Store};
use crate::clock::{Clock, Timestamp};
use crate::fleet::alerts::Daily;
use crate::fleet::notice::NoticeKind;
use crate::fleet::words;
use crate::http::{self, Url};
use crate::notify::Outbox;
use crate::report::causes;
use crate::supervise::Failure;

/// How often it looks whether a digest is due.
const LOOK: Duration = Duration::from_secs(20);

/// How often the switch is told.
const PING_EVERY: Duration = Duration::from_mins(1);

/// How long the switch may take to answer.
const PING_MAX: Duration = Duration::from_secs(10);

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

/// Tells a dead man's switch (`HUB_PING_URL`) that the hub is there. One service.
#[derive(Debug)]
pub struct Pings<C> {
    /// The database.
    pub store: Store,
    /// The switch; it may be a secret.
    pub url: Url,
    /// The clock.
    pub clock: C,
}

impl<C: Clock> Pings<C> {
    /// Tells the switch until it is aborted.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        let client = http::client().timeout(PING_MAX).build();
        let client = client.map_err(|err| Failure::Again(http::boxed(err)))?;
        let mut is_told = false;
        loop {
            match self.ping(&client).await {
                Ok(()) => is_told = false,
                Err(why) if !is_told => {
                    is_told = true;
                    tracing::warn!("HUB_PING_URL was not told that the hub is there: {why}");
                }
                Err(_) => {}
            }
            self.clock.sleep(PING_EVERY).await;
        }
    }

    async fn ping(&self, client: &http::Client) -> Result<(), String> {
        self.store.has_people().await.map_err(|err| causes(&err))?;
        let sent = client.get(self.url.clone()).send().await;
        let answer = sent.map_err(|err| causes(http::boxed(err).as_ref()))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answers {status}")) }
    }
}
