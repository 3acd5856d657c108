//! How often an address may guess.
//!
//! Invariants: only wrong tokens count, so that nobody who knows one is ever refused, even behind the same proxy;
//! however many addresses guess, the table is bounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The most wrong tokens of an address in a [`SPAN`] that are answered with 401.
const GUESSES_MAX: u32 = 20;

/// The span, and so how long to wait at most.
const SPAN: Duration = Duration::from_mins(1);

/// The most addresses that are remembered; further ones count together.
const ADDRESSES_MAX: usize = 4_096;

/// How often something that costs the owner may be done in a `SPAN`, whoever asks for it. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    most: u32,
    used: Arc<Mutex<Count>>,
}

impl Budget {
    /// So many times.
    pub fn new(most: u32) -> Self {
        Self { most, used: Arc::new(Mutex::new(Count { since: Duration::ZERO, times: 0 })) }
    }

    /// Whether it may be done once more; if so, that is counted. `now`: of a clock that never steps back.
    pub fn take(&self, now: Duration) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(used.since) >= SPAN {
            *used = Count { since: now, times: 0 };
        }
        let is_left = used.times < self.most;
        used.times += u32::from(is_left);
        is_left
    }
}

/// Wrong tokens, by address. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Guesses(Arc<Mutex<HashMap<IpAddr, Count>>>);

#[derive(Debug, Clone, Copy)]
struct Count {
    since: Duration,
    times: u32,
}

impl Guesses {
    /// What was counted as wrong from there last was right.
    pub fn right(&self, from: IpAddr) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&household(from)) {
            count.times = count.times.saturating_sub(1);
        }
    }

    /// Counts a wrong token from there. `Err`: there were too many, wait so long. `now`: of a clock that never steps
    /// back.
    pub fn wrong(&self, from: IpAddr, now: Duration) -> Result<(), Duration> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut from = household(from);
        if counts.len() >= ADDRESSES_MAX && !counts.contains_key(&from) {
            counts.retain(|_, count| now.saturating_sub(count.since) < SPAN);
            if counts.len() >= ADDRESSES_MAX {
                from = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let count = counts.entry(from).or_insert(Count { since: now, times: 0 });
        if now.saturating_sub(count.since) >= SPAN {
            *count = Count { since: now, times: 0 };
        }
        count.times = count.times.saturating_add(1);
        if count.times <= GUESSES_MAX {
            return Ok(());
        }
        Err(SPAN.saturating_sub(now.saturating_sub(count.since)))
    }

    /// How long to wait before anything is done for there that costs more than a look at a table; `None`: not at all.
    /// Counts nothing.
    pub fn is_over(&self, from: IpAddr, now: Duration) -> Option<Duration> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let count = counts.get(&household(from)).or_else(|| {
            // Where no address is remembered any more, all others are one.
            (counts.len() >= ADDRESSES_MAX).then(|| counts.get(&unknown)).flatten()
        })?;
        let age = now.saturating_sub(count.since);
        (count.times >= GUESSES_MAX && age < SPAN).then(|| SPAN.saturating_sub(age))
    }
}

/// Who has one IPv6 address has the 2^64 others of its network.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_guesses_often_waits_and_others_do_not() {
        let guesses = Guesses::default();
        let now = Duration::from_secs(1_000);
        for _ in 0..GUESSES_MAX {
            assert_eq!(guesses.wrong(ip("1.2.3.4"), now), Ok(()));
        }
        let later = now + Duration::from_secs(10);
        assert_eq!(guesses.wrong(ip("1.2.3.4"), later), Err(Duration::from_secs(50)));
        assert_eq!(guesses.wrong(ip("::ffff:1.2.3.4"), later), Err(Duration::from_secs(50)));
        assert_eq!(guesses.wrong(ip("1.2.3.5"), later), Ok(()));
        assert_eq!(guesses.is_over(ip("1.2.3.4"), later), Some(Duration::from_secs(50)));
        assert_eq!(guesses.is_over(ip("1.2.3.5"), later), None);
        assert_eq!(guesses.is_over(ip("1.2.3.4"), now + SPAN), None);
        assert_eq!(guesses.wrong(ip("1.2.3.4"), now + SPAN), Ok(()));
    }

    #[test]
    fn what_costs_the_owner_is_done_so_often_a_minute_whoever_asks() {
        let budget = Budget::new(3);
        let takes = |second| budget.take(Duration::from_secs(second));
        assert_eq!([100, 101, 102, 103, 159].map(takes), [true, true, true, false, false]);
        assert_eq!([160, 161, 162, 163].map(takes), [true, true, true, false]);
    }

    #[test]
    fn a_network_of_many_addresses_is_one_guesser_and_the_table_stays_small() {
        let guesses = Guesses::default();
        let now = Duration::from_secs(1);
        let wrong: Vec<_> = (0..30)
            .map(|last| guesses.wrong(ip(&format!("2001:db8:1:2::{last:x}")), now).is_err())
            .collect();
        assert_eq!(wrong.iter().filter(|it| **it).count(), 10);
        for number in 0..20_000u32 {
            guesses.wrong(IpAddr::V4(number.into()), now).ok();
        }
        assert!(guesses.0.lock().unwrap().len() <= ADDRESSES_MAX + 1);
        assert!(guesses.wrong(ip("99.1.1.1"), now).is_err(), "what doesn't fit counts together");
        assert_eq!(guesses.wrong(ip("99.1.1.1"), now + SPAN), Ok(()));
    }
}
