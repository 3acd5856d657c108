//! Tries the external services that jobs will need, before the first job and each hour: uploads a
//! few bytes to the store and unpins them, and asks each gateway for a block. The chain's
//! endpoints, which `Heart::survey` asks, share the interval and the log of faults.
//!
//! Invariants: no job starts in vain while the store refuses, and a store that is only away stops no job; a
//! fault is logged once, and so is its end; trials leave nothing that piles up at a service.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::agent::jobs::board::Board;
use crate::artifact::{Error, Gateways, Pinata, Tried};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::report::causes;
use crate::supervise::Failure;

/// Time between two trials of a service that works.
pub const EVERY: Duration = Duration::from_hours(1);

/// Delays between the trials of a store that refuses, which its owner may be about to repair.
const REFUSED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(5));

/// A store that has not answered its first trial after this long counts as away.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// The shortest time between two tries of the gateways.
const PAUSE: Duration = Duration::from_mins(1);

/// The service that tries the store.
#[derive(Debug)]
pub struct Store<C> {
    pinata: Pinata,
    board: Board,
    clock: C,
    /// Whether it was logged that the key can't unpin: each trial uploads the same bytes, so that one pin is
    /// left.
    leaves_pins: AtomicBool,
}

impl<C: Clock> Store<C> {
    /// A service that reports the store's answers to `board`.
    pub fn new(pinata: Pinata, board: Board, clock: C) -> Self {
        Self { pinata, board, clock, leaves_pins: AtomicBool::new(false) }
    }

    /// Tries the store at the start and each hour; a service that ends only when it fails.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        let late = async {
            self.clock.sleep(FIRST_ANSWER).await;
            self.board.not_uploaded();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = self.again_and_again() => end,
            () = late => Ok(()),
        }
    }

    async fn again_and_again(&self) -> Result<(), Failure> {
        let mut refusals = 0;
        loop {
            let tried = self.once().await;
            self.board.events().leans_on("pinning service", tried.is_ok());
            let wait = match tried {
                Ok(()) => {
                    self.board.uploaded(None);
                    refusals = 0;
                    EVERY
                }
                Err(err) if err.is_refusal() => {
                    self.board.uploaded(Some(causes(&err)));
                    refusals += 1;
                    REFUSED.jittered(refusals)
                }
                Err(err) => {
                    self.board.not_uploaded();
                    let remedy = "PINATA_JWT and PINATA_API_URL; results wait on disk meanwhile";
                    if err.is_transient() {
                        return Err(Failure::again(err, remedy));
                    }
                    // A permanent error: an earlier repetition would end the same way.
                    tracing::warn!("the store can't be tried: {}: {remedy}", causes(&err));
                    // Its last refusal stands until it answers otherwise.
                    if refusals == 0 { EVERY } else { REFUSED.jittered(refusals) }
                }
            };
            self.clock.sleep(wait).await;
        }
    }

    async fn once(&self) -> Result<(), Error> {
        match self.pinata.try_upload().await? {
            Tried::TakenBack => tracing::debug!("the store takes an upload"),
            // The next trial uploads the same bytes, and may unpin them.
            Tried::Stays { why, .. } if why.is_transient() => {}
            Tried::Stays { cid, why } => {
                if self.leaves_pins.swap(true, Ordering::Relaxed) {
                    return Ok(());
                }
                tracing::warn!(
                    %cid,
                    "the store takes uploads, but not back: {cid}, a few bytes to try it by, stays \
                     pinned: {}; let the key of PINATA_JWT unpin, or never mind",
                    causes(&why)
                );
            }
        }
        Ok(())
    }
}

/// The faults that were logged, by the service's name.
#[derive(Debug, Default)]
pub struct LoggedTroubles(Mutex<BTreeMap<String, String>>);

impl LoggedTroubles {
    /// Logs the faults that are new or have changed, and the services that serve again. `wrong`: all present
    /// faults.
    pub fn tell(&self, wrong: BTreeMap<String, String>, is_any_left: bool) {
        let rest = if is_any_left { "the others do its work" } else { "no other one does" };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, why) in wrong.iter().filter(|(name, why)| told.get(*name) != Some(*why)) {
            tracing::warn!("{name} does not serve: {why}; {rest}");
        }
        for name in told.keys().filter(|name| !wrong.contains_key(*name)) {
            tracing::info!("{name} serves again");
        }
        *told = wrong;
    }
}

/// Asks each gateway for a block: at the start, each hour, and after a job did not get its input; a service
/// that ends only when it fails.
pub async fn try_gateways<C: Clock>(
    gateways: Gateways,
    board: Board,
    clock: C,
    told: Arc<LoggedTroubles>,
) -> Result<(), Failure> {
    loop {
        let seen = board.unfetched();
        let checked = gateways.check().await;
        board.gateways(checked.is_ok());
        if checked.is_err() {
            let events = board.events();
            gateways
                .names()
                .iter()
                .for_each(|name| events.leans_on(&format!("gateway {name}"), false));
        }
        let unfit = checked.map_err(|err| {
            Failure::again(err, "IPFS_GATEWAYS; jobs with an input fail meanwhile")
        })?;
        let events = board.events();
        for name in gateways.names() {
            let serves = !unfit.iter().any(|(gateway, _)| *gateway == name);
            events.leans_on(&format!("gateway {name}"), serves);
        }
        let named = |(gateway, why): (String, String)| (format!("the gateway {gateway}"), why);
        told.tell(unfit.into_iter().map(named).collect(), true);
        clock.sleep(PAUSE).await;
        tokio::select! {
            () = board.more_unfetched_than(seen) => {}
            () = clock.sleep(EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_remembered_until_it_is_right() {
        let told = LoggedTroubles::default();
        let wrong = || BTreeMap::from([("the gateway a".to_owned(), "403".to_owned())]);
        told.tell(wrong(), true);
        assert_eq!(*told.0.lock().unwrap(), wrong());
        told.tell(BTreeMap::new(), true);
        assert!(told.0.lock().unwrap().is_empty());
    }
}
