//! What was logged and told about the chain, so that nothing is said twice.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use super::ledger;
use crate::agent::health::trials::LoggedTroubles;
use crate::chain;

/// The owner is warned if the balance lasts for fewer days.
pub const WARN_DAYS: u128 = 7;

/// What was logged about the chain, whose absence restarts the service again and again.
#[derive(Debug, Default)]
pub struct Logged {
    /// Whether this process has reached its chain and contract.
    pub(super) met: AtomicBool,
    /// Whether the present registration was logged.
    pub(super) registered: AtomicBool,
    /// The number of days that the balance lasts, as last computed.
    days: Mutex<Option<u128>>,
    /// The faults of endpoints that were logged.
    pub(super) endpoints: LoggedTroubles,
    /// Why no transaction could be sent, as last told.
    waits: Mutex<Option<String>>,
}

impl Logged {
    /// Notes why no transaction can be sent, or that one was; returns whether that is another reason than before.
    pub(super) fn is_new_wait(&self, why: Option<&str>) -> bool {
        let why = why.map(str::to_owned);
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = why.is_some() && *waits != why;
        *waits = why;
        is_new
    }

    /// Whether the owner is to be warned that the balance lasts for so many days: once per day, not at each
    /// heartbeat.
    pub(super) fn is_warned(&self, days: u128) -> bool {
        let before = self.days.lock().unwrap_or_else(PoisonError::into_inner).replace(days);
        days < WARN_DAYS && before != Some(days)
    }
}

/// Whether a transaction was sent, or would have been, and failed itself.
pub(super) const fn is_of_transaction(err: &ledger::Error) -> bool {
    matches!(
        err,
        ledger::Error::FailedInBlock(_) | ledger::Error::Chain(chain::Error::Reverted { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_warned_once_a_day_and_also_on_the_last_one() {
        let logged = Logged::default();
        let warned: Vec<u128> =
            [0, 0, 40, 2, 2, 1].into_iter().filter(|days| logged.is_warned(*days)).collect();
        assert_eq!(warned, [0, 2, 1]);
    }

    #[test]
    fn what_keeps_transactions_back_is_no_failed_one_and_is_told_once() {
        assert!(!is_of_transaction(&ledger::Error::DaySpent));
        assert!(!is_of_transaction(&ledger::Error::Displaced));
        let logged = Logged::default();
        let told = [Some("a"), Some("a"), Some("b"), None, Some("b"), Some("b")];
        let told = told.map(|why| logged.is_new_wait(why));
        assert_eq!(told, [true, false, true, false, true, false]);
    }
}
