//! What the sidecar publishes on NATS: each verdict that differs from the one before, as an event of the watcher.
//!
//! Invariants: an event is queued in the commit that writes the verdict down, and leaves the queue once the stream has
//! stored it; a repetition has the same message id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::backoff::Backoff;
use crate::bus::{self, Bus, MessageIds, Sending};
use crate::chain::Key;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::fleet::rule::Trouble;
use crate::fleet::seen::Answer;
use crate::fleet::{Event, Kind, kinds};
use crate::ids::Address;
use crate::ids::hash::keccak256;
use crate::report::causes;
use crate::secret::Secret;
use crate::seldom::Seldom;
use crate::sidecar::store::{Report, Store};
use crate::supervise::Failure;
use crate::watch::verdict::Verdict;

/// The receiver's name in the queue.
pub const EVENTS: &str = "nats.events";

/// Most events that are sent at once.
const AT_ONCE_MAX: u32 = 100;

/// How often the queue is looked at if nobody rings.
const EVERY: Duration = Duration::from_secs(30);

/// The wait before events are sent again.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_mins(1));

/// An event is given up once it was refused so often while others were stored.
const TRIES_MAX: u32 = 3;

const REMEDY: &str = "look at the disk under SIDECAR_DB";
const LINK_REMEDY: &str = "look at NATS_URL and its credentials";

/// Makes events of verdicts. Clones share the bell.
#[derive(Debug, Clone)]
pub struct Teller {
    watcher: Address,
    bell: Arc<Notify>,
}

impl Teller {
    /// One for this watcher.
    pub fn new(watcher: Address) -> Self {
        Self { watcher, bell: Arc::default() }
    }

    /// The event of a verdict, for the queue.
    pub fn report(
        &self,
        program: &str,
        verdict: &Verdict,
        at: Timestamp,
    ) -> (&'static str, String) {
        (EVENTS, event(self.watcher, program, verdict, at).to_json())
    }

    /// Wakes the sender: something was queued.
    pub fn ring(&self) {
        self.bell.notify_one();
    }
}

/// The event of a verdict on a program.
fn event(watcher: Address, program: &str, verdict: &Verdict, at: Timestamp) -> Event {
    let trouble = verdict.troubles.first().copied();
    let message = format!("{program}: {}", verdict.says);
    let answers = [
        ("alive", &verdict.alive),
        ("training", &verdict.training),
        ("published", &verdict.published),
        ("earning", &verdict.earning),
        ("swarm", &verdict.swarm),
    ];
    let mut event = Event::new(kind(trouble, verdict.alive.answer), watcher, at, &message);
    event = event.with("program", program);
    for (name, finding) in answers {
        event = event.with(name, finding.answer.as_str());
    }
    let troubles: Vec<&str> = verdict.troubles.iter().map(|it| it.as_str()).collect();
    event = event.with("troubles", troubles);
    let Some(found) = trouble.and_then(|it| verdict.about(it)) else { return event };
    if let Some(cause) = &found.cause {
        event = event.with("cause", cause.as_str());
    }
    if found.remedy.is_empty() { event } else { event.with("remedy", found.remedy.as_str()) }
}

const fn kind(trouble: Option<Trouble>, alive: Answer) -> Kind {
    match (trouble, alive) {
        (Some(Trouble::Down), _) => kinds::SIDECAR_DOWN,
        (Some(Trouble::Stuck), _) => kinds::SIDECAR_STUCK,
        (Some(Trouble::Unpublished), _) => kinds::SIDECAR_UNPUBLISHED,
        (Some(Trouble::Unpaid), _) => kinds::SIDECAR_UNPAID,
        (Some(Trouble::SwarmDown), _) => kinds::SIDECAR_SWARM_DOWN,
        (Some(Trouble::Blind), _) => kinds::SIDECAR_BLIND,
        (None, Answer::Yes) => kinds::SIDECAR_WELL,
        (None, _) => kinds::SIDECAR_UNKNOWN,
    }
}

/// Sends what waits. One service.
#[derive(Debug, Clone)]
pub struct Sender {
    config: Arc<bus::Config>,
    store: Store,
    bell: Arc<Notify>,
    ids: MessageIds,
    watcher: Address,
}

impl Sender {
    /// A sender of what `teller` has queued.
    pub fn new(config: bus::Config, store: Store, teller: &Teller, key: &Key) -> Self {
        // Nobody without the key knows the ids of what is yet to be sent.
        let seed = key.sign_digest(&keccak256(b"lamda-node sidecar message ids").0);
        let ids = MessageIds::new(Secret::new(data_encoding::HEXLOWER.encode(&seed)));
        let bell = Arc::clone(&teller.bell);
        Self { config: Arc::new(config), store, bell, ids, watcher: teller.watcher }
    }

    /// Sends until it is aborted. An error is about the connection or the database, and is tried again.
    pub async fn run(self) -> Result<(), Failure> {
        let link = |err: bus::Error| Failure::again(err, LINK_REMEDY);
        let bus = Bus::connect(&self.config).await.map_err(link)?;
        tracing::info!("verdicts go to NATS at {} as {}", bus.server(), self.watcher);
        let said = Seldom::within(1, Duration::from_hours(1));
        let mut tries = Tries::default();
        loop {
            bus.connected().await.map_err(link)?;
            let waiting = self.store.reports(EVENTS, AT_ONCE_MAX).await;
            let waiting = waiting.map_err(|err| Failure::again(err, REMEDY))?;
            if waiting.is_empty() {
                tokio::select! {
                    () = self.bell.notified() => {}
                    () = SystemClock.sleep(EVERY) => {}
                }
                continue;
            }
            let (done, failed) = self.send(&bus, &waiting, &mut tries).await;
            let kept = self.store.forget_reports(done).await;
            kept.map_err(|err| Failure::again(err, REMEDY))?;
            let Some(err) = failed else { continue };
            if let Some(more) = said.line() {
                let (text, watcher) = (causes(&err), self.watcher);
                tracing::warn!(
                    "verdicts are not sent to NATS: {text}; may this account publish events.{watcher}.*.*?{more}"
                );
            }
            SystemClock.sleep(AGAIN.jittered(tries.in_a_row)).await;
        }
    }

    /// Sends these. Returns the numbers of those that need no further try, and why others do.
    async fn send(
        &self,
        bus: &Bus,
        waiting: &[Report],
        tries: &mut Tries,
    ) -> (Vec<i64>, Option<bus::Error>) {
        let read = |it: &Report| Some((it.id, Event::parse(it.body.as_bytes()).ok()?));
        let events: Vec<(i64, Event)> = waiting.iter().filter_map(read).collect();
        // What can't be read any more goes.
        let is_read = |it: &&Report| events.iter().any(|(id, _)| *id == it.id);
        let mut done: Vec<i64> = waiting.iter().filter(|it| !is_read(it)).map(|it| it.id).collect();
        let named = events.iter().map(|(id, event)| (name(*id, event), event));
        let named: Vec<_> = named.collect();
        let sent = match bus.publish_events(&self.ids, &named).await {
            Ok(sent) => sent,
            Err(err) => {
                tries.in_a_row = tries.in_a_row.saturating_add(1);
                return (done, Some(err));
            }
        };
        let failed = tries.judge(events.iter().map(|(id, _)| *id).zip(sent), &mut done);
        (done, failed)
    }
}

/// By which an event's message id is made: the same for a repetition. A number may be given twice once its event was
/// sent, hence the time.
fn name(id: i64, event: &Event) -> String {
    format!("sidecar:{}:{id}", event.timestamp.unix_ms())
}

/// What was refused before.
#[derive(Debug, Default)]
struct Tries {
    /// Goes in a row after which nothing was stored.
    in_a_row: u32,
    /// How often each event was refused while others were stored.
    of: BTreeMap<i64, u32>,
    /// Events that were given up.
    given_up: u64,
}

impl Tries {
    fn gives_up(&mut self, why: &str) {
        self.given_up = self.given_up.saturating_add(1);
        let all = self.given_up;
        tracing::warn!("an event of a verdict is given up, {all} since the connection: {why}");
    }

    /// Adds those that need no further try to `done`; why others do.
    fn judge(
        &mut self,
        sent: impl Iterator<Item = (i64, Sending)>,
        done: &mut Vec<i64>,
    ) -> Option<bus::Error> {
        let (mut failed, mut again) = (None, Vec::new());
        let before = done.len();
        for (id, sent) in sent {
            match sent {
                Sending::Done => done.push(id),
                Sending::Never(err) => {
                    self.gives_up(&causes(&err));
                    done.push(id);
                }
                Sending::NoStream => {
                    again.push(id);
                    failed = Some(bus::Error::Timeout { what: "make the stream EVENTS" });
                }
                Sending::Failed(err) => {
                    again.push(id);
                    failed = Some(err);
                }
            }
        }
        if done.len() == before {
            self.in_a_row = self.in_a_row.saturating_add(u32::from(failed.is_some()));
            return failed;
        }
        self.in_a_row = 0;
        let tries = std::mem::take(&mut self.of);
        for id in again {
            let now = tries.get(&id).copied().unwrap_or_default() + 1;
            if now >= TRIES_MAX {
                self.gives_up(&failed.as_ref().map_or_else(String::new, |err| causes(err)));
                done.push(id);
            } else {
                self.of.insert(id, now);
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::expect::Expect;
    use crate::watch::observation::{Observation, Seen};
    use crate::watch::state::Watched;
    use crate::watch::verdict::verdict;

    const T0: Timestamp = Timestamp::from_unix_ms(1_800_000_000_123);

    fn failed() -> Sending {
        Sending::Failed(bus::Error::Timeout { what: "x" })
    }

    fn judged(is_running: bool) -> Verdict {
        let expect = Expect {
            logs: Vec::new(),
            has_process: true,
            ports: Vec::new(),
            says_work: false,
            idle: None,
            grace: Duration::from_secs(1),
            published_for: None,
            earning: None,
            causes: BTreeMap::new(),
        };
        let mut state = Watched::default();
        for (seconds, seen) in [
            (0, Seen::Watching),
            (1, Seen::Process { is_running, started: None, why: "it was looked at".to_owned() }),
        ] {
            state.apply(&Observation { at: T0.plus(Duration::from_secs(seconds)), seen });
        }
        verdict(&state, &expect, T0.plus(Duration::from_mins(5)))
    }

    #[test]
    fn a_verdict_becomes_an_event_of_the_watcher_with_its_answers() {
        let watcher = Address::new([7; 20]);
        let well = event(watcher, "one", &judged(true), T0);
        assert_eq!((well.component.as_str(), well.event_type.as_str()), ("sidecar", "well"));
        let down = event(watcher, "one", &judged(false), T0);
        assert_eq!((down.event_type.as_str(), down.node), ("down", watcher));
        assert_eq!(down.details()["program"], "one");
        assert_eq!(down.details()["alive"], "no");
        assert!(down.message().starts_with("one: "), "{}", down.message());
        assert_eq!(Event::parse(down.to_json().as_bytes()).unwrap().to_json(), down.to_json());
    }

    #[test]
    fn what_alone_is_refused_is_given_up_and_while_nothing_is_stored_all_wait() {
        let mut tries = Tries::default();
        for turn in 1..=TRIES_MAX {
            let mut done = Vec::new();
            let sent = [(1, failed()), (2, Sending::Done)];
            assert!(tries.judge(sent.into_iter(), &mut done).is_some());
            assert_eq!(done.contains(&1), turn == TRIES_MAX, "{turn}");
            assert!(done.contains(&2));
            assert_eq!(tries.given_up, u64::from(turn == TRIES_MAX));
        }
        for turn in 1..10 {
            let mut done = Vec::new();
            assert!(tries.judge([(1, failed())].into_iter(), &mut done).is_some());
            assert_eq!((done, tries.in_a_row), (vec![], turn));
        }
    }
}
