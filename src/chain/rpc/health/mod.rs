//! Chooses the endpoint to ask next, and how long a failed one rests. Pure: time and randomness are
//! arguments.
//!
//! Must hold: endpoints are tried in the order of the settings. No call goes to a resting endpoint.
//! Every rest ends, and none is longer than [`EndpointLimits`] allows. Neither a chain reset nor one
//! endpoint that was ahead excludes the others for longer than `height_memory`.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::clock::Timestamp;
use crate::node::LOCAL_CHAINS;

/// A head of at most this age is fresh, however far behind the highest one it is.
const HEAD_FRESH: Duration = Duration::from_mins(1);

/// When an endpoint is set aside, and for how long it rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointLimits {
    /// The rest after a failure; it doubles with each consecutive failure.
    pub rest: Backoff,
    /// The longest rest that an endpoint can request with `Retry-After`.
    pub retry_after_max: Duration,
    /// The rest of an endpoint on another chain, which only a change of settings can mend.
    pub foreign_rest: Duration,
    /// How long a call waits for the first rest to end if all endpoints rest. If the wait would be
    /// longer, the call fails at once.
    pub wait_max: Duration,
    /// The age at which an endpoint's last head check expires; the next call repeats it.
    pub look_every: Duration,
    /// The age, by this host's clock, beyond which a head is stale. Not applied to local chains, which
    /// make blocks on demand.
    pub head_age_max: Duration,
    /// The distance behind the highest head seen beyond which a head is stale.
    pub blocks_behind_max: u64,
    /// How long a height counts as the highest after an endpoint last showed it.
    pub height_memory: Duration,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            rest: Backoff::new(Duration::from_secs(1), Duration::from_mins(2)),
            retry_after_max: Duration::from_mins(5),
            foreign_rest: Duration::from_hours(1),
            wait_max: Duration::from_secs(2),
            look_every: Duration::from_secs(30),
            head_age_max: Duration::from_mins(5),
            blocks_behind_max: 30,
            height_memory: Duration::from_mins(2),
        }
    }
}

/// The latest block, as an endpoint reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::chain) struct Head {
    pub(in crate::chain) number: u64,
    /// Unix seconds.
    pub(in crate::chain) timestamp_s: u64,
    /// `None` on a chain without EIP-1559.
    pub(in crate::chain) base_fee: Option<u128>,
}

/// Why an endpoint gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointFault {
    pub(super) kind: Kind,
    /// What happened, in words, without the endpoint's URL.
    pub(super) said: String,
    /// The rest that the endpoint requested.
    pub(super) retry_after: Option<Duration>,
    /// Whether the endpoint may have executed the call nevertheless.
    pub(super) perhaps_done: bool,
}

/// The kinds of [`EndpointFault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No connection, no answer in time, or an HTTP status that means "not now".
    Away,
    /// It asks for fewer calls.
    Throttled,
    /// The answer can't be used.
    Nonsense,
    /// It is on another chain, the one with this id.
    Foreign(u64),
    /// Its head is too old or too far behind.
    Stale,
    /// It refuses this method, which another endpoint serves.
    Unwilling(&'static str),
}

/// The checks that an endpoint needs before any other request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vetting {
    pub(super) chain_id: bool,
    pub(super) head: bool,
}

/// The state of each endpoint, and what they share.
#[derive(Debug)]
pub(super) struct Roster {
    limits: EndpointLimits,
    endpoints: Vec<Health>,
    /// The chain that all must be on: the configured one, or else the first one reported.
    chain_id: Option<u64>,
    highest: Option<(u64, Instant)>,
}

#[derive(Debug, Clone, Default)]
struct Health {
    /// Its chain id was checked and matched, and it has not failed since.
    is_identified: bool,
    /// When its head last passed the check.
    looked_at: Option<Instant>,
    /// When its head was last requested for comparison, along with another endpoint's.
    compared_at: Option<Instant>,
    /// Consecutive failures.
    failures: u32,
    failed_at: Option<Instant>,
    rests_until: Option<Instant>,
    /// Why it was set aside; `None` while it works.
    fault: Option<EndpointFault>,
}

impl Health {
    fn rest(&self, now: Instant) -> Duration {
        self.rests_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn foreign(&self) -> Option<u64> {
        match self.fault.as_ref()?.kind {
            Kind::Foreign(actual) => Some(actual),
            _ => None,
        }
    }
}

impl EndpointFault {
    pub(super) fn new(kind: Kind, said: impl Into<String>) -> Self {
        Self { kind, said: said.into(), retry_after: None, perhaps_done: false }
    }
}

impl Roster {
    /// A roster of `count` endpoints in unknown state.
    pub(super) fn new(count: usize, chain_id: Option<u64>, limits: EndpointLimits) -> Self {
        Self { limits, endpoints: vec![Health::default(); count], chain_id, highest: None }
    }

    /// The first endpoint that is neither resting nor among `tried`.
    pub(super) fn choose(&self, tried: &[usize], now: Instant) -> Option<usize> {
        (0..self.endpoints.len())
            .find(|index| !tried.contains(index) && self.endpoints[*index].rest(now).is_zero())
    }

    /// The endpoints that are not resting, in order.
    pub(super) fn well(&self, now: Instant) -> Vec<usize> {
        let all = 0..self.endpoints.len();
        all.filter(|index| self.endpoints[*index].rest(now).is_zero()).collect()
    }

    /// The endpoint whose rest ends first, and the time until then.
    pub(super) fn first_back(&self, now: Instant) -> (usize, Duration) {
        let rests = self.endpoints.iter().map(|endpoint| endpoint.rest(now)).enumerate();
        rests.min_by_key(|(_, rest)| *rest).unwrap_or_default()
    }

    /// The endpoint whose rest ends first and the time until then, ignoring `but_for`; `None` if that
    /// is longer than a call may wait.
    pub(super) fn wait(&self, but_for: &[usize], now: Instant) -> Option<(usize, Duration)> {
        let rests = self.endpoints.iter().map(|endpoint| endpoint.rest(now)).enumerate();
        let others = rests.filter(|(index, _)| !but_for.contains(index));
        others.min_by_key(|(_, rest)| *rest).filter(|(_, rest)| *rest <= self.limits.wait_max)
    }

    /// Why the endpoint was set aside; `None` while it works.
    pub(super) fn fault(&self, index: usize) -> Option<&EndpointFault> {
        self.endpoints[index].fault.as_ref()
    }

    /// The expected chain and that of the first endpoint, if every endpoint was last found on a wrong
    /// chain. `None` if any of them last failed for another reason: it may be on the right one.
    pub(super) fn all_foreign(&self) -> Option<(u64, u64)> {
        let mut chains = self.endpoints.iter().map(Health::foreign);
        let first = chains.next().flatten()?;
        chains.all(|chain| chain.is_some()).then_some((self.chain_id?, first))
    }

    /// The checks that the endpoint needs before any other request.
    pub(super) fn vetting(&self, index: usize, now: Instant) -> Vetting {
        let Health { is_identified, looked_at, .. } = self.endpoints[index];
        let is_fresh = |at| now.saturating_duration_since(at) < self.limits.look_every;
        Vetting { chain_id: !is_identified, head: !looked_at.is_some_and(is_fresh) }
    }

    /// Another endpoint to compare heads with: of those due and not resting, the one compared least
    /// recently. Marks it as compared now.
    pub(super) fn other_to_look_at(&mut self, index: usize, now: Instant) -> Option<usize> {
        let every = self.limits.look_every;
        let is_due = |endpoint: &Health| {
            let is_fresh = |at| now.saturating_duration_since(at) < every;
            endpoint.rest(now).is_zero() && !endpoint.compared_at.is_some_and(is_fresh)
        };
        let others = self.endpoints.iter_mut().enumerate().filter(|(other, _)| *other != index);
        let due = others.filter(|(_, endpoint)| is_due(endpoint));
        let (other, endpoint) = due.min_by_key(|(_, endpoint)| endpoint.compared_at)?;
        endpoint.compared_at = Some(now);
        Some(other)
    }

    /// Checks the chain id that the endpoint reports; without a configured one, the first sets it.
    pub(super) fn identify(&mut self, index: usize, actual: u64) -> Result<u64, EndpointFault> {
        let expected = *self.chain_id.get_or_insert(actual);
        if expected != actual {
            let said = format!("it is on chain {actual}, not {expected}");
            return Err(EndpointFault::new(Kind::Foreign(actual), said));
        }
        self.endpoints[index].is_identified = true;
        Ok(expected)
    }

    /// Checks the head that the endpoint reports. `today` is the time by this host's clock.
    pub(super) fn judge(
        &mut self,
        index: usize,
        head: Head,
        now: Instant,
        today: Timestamp,
    ) -> Result<(), EndpointFault> {
        let Head { number, timestamp_s, .. } = head;
        let age = Duration::from_secs((today.unix_ms() / 1000).saturating_sub(timestamp_s));
        let is_local = self.chain_id.is_some_and(|id| LOCAL_CHAINS.contains(&id));
        if age > self.limits.head_age_max && !is_local {
            // If all look stale, suspect this host's clock.
            let age = age.as_secs();
            let said = format!("its head, block {number}, is {age} s old by this host's clock");
            return Err(EndpointFault::new(Kind::Stale, said));
        }
        let is_remembered =
            |at: Instant| now.saturating_duration_since(at) < self.limits.height_memory;
        let highest = self.highest.filter(|(_, at)| is_remembered(*at)).map(|(number, _)| number);
        let behind = highest.unwrap_or_default().saturating_sub(number);
        if behind == 0 || highest.is_none() {
            self.highest = Some((number, now));
        }
        // Some chains make four blocks a second, and an endpoint may lie about its height, so a head
        // of the last minute is never too far behind.
        if behind > self.limits.blocks_behind_max && (is_local || age > HEAD_FRESH) {
            let said = format!("its head, block {number}, is {behind} blocks behind");
            return Err(EndpointFault::new(Kind::Stale, said));
        }
        self.endpoints[index].looked_at = Some(now);
        Ok(())
    }

    /// Records the failure of an attempt that began at `began`, and starts the endpoint's rest.
    /// Returns the rest if the kind of fault is new and therefore worth a log line.
    pub(super) fn failed(
        &mut self,
        index: usize,
        fault: EndpointFault,
        (began, now): (Instant, Instant),
        chance: f64,
    ) -> Option<Duration> {
        let endpoint = &mut self.endpoints[index];
        // Concurrent calls fail together, which counts as one failure.
        if endpoint.failed_at.is_none_or(|at| at < began) {
            endpoint.failures = endpoint.failures.saturating_add(1);
        }
        let limits = &self.limits;
        let rest = match fault.kind {
            Kind::Foreign(_) => limits.foreign_rest,
            _ => limits.rest.delay(endpoint.failures, chance),
        };
        let asked_for = fault.retry_after.unwrap_or_default().min(limits.retry_after_max);
        let rest = rest.max(asked_for);
        endpoint.rests_until = endpoint.rests_until.max(Some(now + rest));
        endpoint.failed_at = Some(now);
        endpoint.is_identified = false;
        endpoint.looked_at = None;
        let is_new = endpoint.fault.as_ref().is_none_or(|known| known.kind != fault.kind);
        endpoint.fault = Some(fault);
        is_new.then_some(rest)
    }

    /// Records a good answer to a call of `method` that began at `began`. Returns whether that brings
    /// the endpoint back.
    pub(super) fn answered(&mut self, index: usize, method: &str, began: Instant) -> bool {
        let endpoint = &mut self.endpoints[index];
        // An endpoint that refused a method is back only once it serves that method.
        let refused = endpoint.fault.as_ref().map(|fault| fault.kind);
        if matches!(refused, Some(Kind::Unwilling(refused)) if refused != method) {
            return false;
        }
        // An attempt that began before the failure proves nothing about the time after it.
        if endpoint.failed_at.is_some_and(|at| at >= began) {
            return false;
        }
        endpoint.failures = 0;
        endpoint.rests_until = None;
        endpoint.fault.take().is_some()
    }
}

#[cfg(test)]
mod tests;
