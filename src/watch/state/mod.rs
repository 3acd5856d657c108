//! What is known of a watched program: everything that was seen of it, summed up.
//!
//! Must hold: [`Watched::apply`] is a function of the state and the observation; the state is bounded however long
//! it is fed, and is written down as JSON: a key that is added has a default.

mod witness;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::meaning::Kind;
use super::observation::log_source;
use super::observation::{ChainSeen, DHT, Observation, PROCESS, Seen};
use crate::clock::Timestamp;

/// The longest silence that an announcement is believed.
const IDLE_MAX: Duration = Duration::from_hours(24);

/// Starts that are closer to each other are one.
const SAME_START: Duration = Duration::from_secs(1);

/// How long after its beginning the watch has caught up with the logs.
const CAUGHT_UP_AFTER: Duration = Duration::from_mins(1);

/// How long before the watch something must have been written to be of before.
const OLD: Duration = Duration::from_mins(10);

/// Most causes, and most rounds, that are kept.
const KEPT_MAX: usize = 32;

/// Most names of one kind (logs, ports, keys, sources) that are kept: more than any profile has.
const NAMES_MAX: usize = 128;

/// What is known of a watched program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watched {
    /// Since when it is watched without a break.
    pub watching: Option<Timestamp>,
    /// Its logs, by name.
    pub logs: BTreeMap<String, LogState>,
    /// Whether it runs.
    pub process: Option<ProcessState>,
    /// Its ports: whether each is open, and since when that is so.
    pub ports: BTreeMap<String, (bool, Timestamp)>,
    /// What it said last, by kind.
    pub told: BTreeMap<Kind, Heard>,
    /// Until when it said that it will be silent.
    pub idle_until: Option<Timestamp>,
    /// Its id among its peers, as it says itself.
    pub peer: Option<String>,
    /// The account that is paid, as it says itself.
    pub account: Option<String>,
    /// The round in which it says that it takes part, and since when.
    pub round: Option<(u64, Timestamp)>,
    /// How it failed, if nothing shows that it goes on.
    pub crash: Option<Heard>,
    /// What was seen of known causes of trouble, the newest last.
    pub causes: VecDeque<CauseSeen>,
    /// What its peers keep.
    pub dht: Option<DhtState>,
    /// What the contract says.
    pub chain: Option<ChainState>,
    /// When it was seen to start, the newest last.
    pub starts: VecDeque<Timestamp>,
    /// The sources that can't be asked: since when, and why.
    pub troubles: BTreeMap<String, (Timestamp, String)>,
}

/// What is known of a log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogState {
    /// When a line was read last.
    pub last: Option<Timestamp>,
    /// How many lines were read.
    pub lines: u64,
    /// How often a part of it was lost.
    pub gaps: u64,
    /// How many bytes are known to be lost.
    pub lost: u64,
}

/// Whether the program runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessState {
    /// Whether it does.
    pub is_running: bool,
    /// Since when that is so, as far as it was seen.
    pub since: Timestamp,
    /// When the program started, if that is known.
    pub started: Option<Timestamp>,
    /// When it was looked at last.
    pub at: Timestamp,
    /// What was found, or is missing.
    pub why: String,
}

/// Something that the program said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// When.
    pub at: Timestamp,
    /// In which log.
    pub log: String,
    /// What, scrubbed.
    pub text: String,
    /// The cause that it names.
    pub cause: Option<String>,
    /// Whether it was written long before it was read: it says nothing of now.
    #[serde(default)]
    pub is_old: bool,
}

/// A known cause of trouble that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseSeen {
    /// When.
    pub at: Timestamp,
    /// The cause's id in the profile.
    pub cause: String,
    /// Where it was seen.
    pub source: String,
    /// What was seen, scrubbed.
    pub text: String,
}

/// What the program's peers keep of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DhtState {
    /// When they were asked last.
    pub at: Timestamp,
    /// How many bootnodes were asked then.
    pub asked: u32,
    /// How many of them answered.
    pub alive: u32,
    /// When one of them answered last.
    pub alive_at: Option<Timestamp>,
    /// Since when none of them has answered.
    pub dead_since: Option<Timestamp>,
    /// When the program published last, by key.
    pub published: BTreeMap<String, Timestamp>,
    /// Since when each look had an answer for a key: absent or not.
    pub answered_since: Option<Timestamp>,
    /// Why the last look had none.
    pub unknown: Option<String>,
}

/// What the contract says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChainState {
    /// When it was read last.
    pub at: Timestamp,
    /// Since when it is read without a break.
    pub since: Timestamp,
    /// What it said then.
    pub last: ChainSeen,
    /// Since when the round is what it is, as far as it was seen.
    pub round_since: Option<Timestamp>,
    /// Whether its beginning was seen.
    pub is_round_whole: bool,
    /// When something happened in the swarm last: a round, or a payment to anybody.
    pub active: Option<Timestamp>,
    /// Since when it goes on again after it stood still for long.
    pub going_since: Option<Timestamp>,
    /// How long the last rounds lasted.
    pub rounds: VecDeque<Duration>,
    /// When the program was paid last, and in which block.
    pub paid: Option<(Timestamp, u64)>,
    /// The same for the time before that, which counts again if the last one is taken back.
    pub paid_before: Option<(Timestamp, u64)>,
    /// When another program of the same account was paid last.
    pub twin: Option<Timestamp>,
    /// When anybody else was paid last.
    pub others: Option<Timestamp>,
}

impl Watched {
    /// Takes in what was seen.
    pub fn apply(&mut self, observation: &Observation) {
        let at = observation.at;
        match &observation.seen {
            Seen::Watching => self.begin(at),
            Seen::Lines { log, lines } => {
                let state = entry(&mut self.logs, log);
                state.last = Some(at);
                state.lines = state.lines.saturating_add(*lines);
            }
            Seen::Told { log, meaning, text, said } => {
                let cause = meaning.cause.clone();
                let is_old = self.is_old(*said, at);
                let heard = Heard { at, log: log.clone(), text: text.clone(), cause, is_old };
                self.hear(meaning.kind, &meaning.fields, heard);
            }
            Seen::Gap { log, bytes, .. } => {
                let state = entry(&mut self.logs, log);
                state.gaps += 1;
                state.lost = state.lost.saturating_add(bytes.unwrap_or_default());
            }
            Seen::Source { source, trouble } => self.source(source, trouble.as_ref(), at),
            Seen::Process { is_running, started, why } => {
                self.troubles.remove(PROCESS);
                let was = self.process.as_ref();
                if *is_running && was.is_some_and(|was| !was.is_running || is_other(was, *started))
                {
                    push(&mut self.starts, at);
                }
                let same = self.process.as_ref().filter(|was| was.is_running == *is_running);
                let since = same.map_or(at, |was| was.since);
                let (is_running, started, why) = (*is_running, *started, why.clone());
                self.process = Some(ProcessState { is_running, since, started, at, why });
            }
            Seen::Port { name, is_open } => {
                let port = entry_or(&mut self.ports, name, || (*is_open, at));
                if port.0 != *is_open {
                    *port = (*is_open, at);
                }
            }
            Seen::Dht { asked, alive, kept } => self.look_at_dht((*asked, *alive), kept, at),
            Seen::Chain(seen) => self.look_at_chain(seen, at),
            Seen::TakenBack { after } => {
                if let Some(chain) = &mut self.chain {
                    let stands = |(_, block): &(Timestamp, u64)| block <= after;
                    chain.paid_before = chain.paid_before.filter(stands);
                    chain.paid = chain.paid.filter(stands).or(chain.paid_before);
                }
            }
            Seen::Paid { whose, block, paid, .. } => self.pay(*whose, *block, *paid, at),
        }
    }

    /// From now on what is not seen counts as silent after its time; of before, nothing is known.
    fn begin(&mut self, at: Timestamp) {
        self.watching = Some(at);
        self.ports.clear();
        self.process = None;
        self.starts.clear();
        self.not_after(at);
        if let Some(dht) = &mut self.dht {
            dht.answered_since = None;
            dht.dead_since = None;
        }
        if let Some(chain) = &mut self.chain {
            chain.since = at;
            chain.round_since = chain.round_since.map(|_| at);
            chain.is_round_whole = false;
        }
    }

    /// What was seen in a future that is none any more, since the clock was set back, was seen now.
    fn not_after(&mut self, now: Timestamp) {
        let clamp = |at: &mut Timestamp| *at = (*at).min(now);
        self.logs.values_mut().filter_map(|log| log.last.as_mut()).for_each(clamp);
        self.told.values_mut().chain(&mut self.crash).for_each(|heard| clamp(&mut heard.at));
        self.causes.iter_mut().for_each(|seen| clamp(&mut seen.at));
        self.round.iter_mut().for_each(|(_, since)| clamp(since));
        self.troubles.values_mut().for_each(|(since, _)| clamp(since));
        if let Some(dht) = &mut self.dht {
            clamp(&mut dht.at);
            dht.alive_at.iter_mut().chain(dht.published.values_mut()).for_each(clamp);
        }
        if let Some(chain) = &mut self.chain {
            clamp(&mut chain.at);
            let paid = chain.paid.iter_mut().chain(&mut chain.paid_before).map(|(at, _)| at);
            paid.chain(&mut chain.twin).chain(&mut chain.others).for_each(clamp);
        }
        let most = now.plus(IDLE_MAX);
        self.idle_until = self.idle_until.map(|until| until.min(most));
    }

    /// Whether something was written long before anybody watched. Asked only while a log is caught up with: a program
    /// that writes the time of another zone would be old for ever.
    fn is_old(&self, said: Option<Timestamp>, at: Timestamp) -> bool {
        said.zip(self.watching).is_some_and(|(said, watching)| {
            at.since(watching) <= CAUGHT_UP_AFTER && watching.since(said) > OLD && watching > said
        })
    }

    fn source(&mut self, source: &str, trouble: Option<&String>, at: Timestamp) {
        match trouble {
            None => {
                self.troubles.remove(source);
            }
            Some(why) => {
                entry_or(&mut self.troubles, source, || (at, String::new())).1.clone_from(why);
                if source == DHT
                    && let Some(dht) = &mut self.dht
                {
                    dht.answered_since = None;
                    dht.unknown = Some(why.clone());
                }
            }
        }
    }

    fn hear(&mut self, kind: Kind, fields: &BTreeMap<String, String>, heard: Heard) {
        let at = heard.at;
        if let Some(cause) = &heard.cause {
            let source = log_source(&heard.log);
            let seen = CauseSeen { at, cause: cause.clone(), source, text: heard.text.clone() };
            push(&mut self.causes, seen);
        }
        match kind {
            Kind::Crash | Kind::OutOfMemory if !heard.is_old => self.crash = Some(heard.clone()),
            Kind::Start | Kind::Work | Kind::Join | Kind::Round | Kind::Idle => self.crash = None,
            _ => {}
        }
        if kind == Kind::Idle {
            let seconds = fields.get("seconds").and_then(|it| it.parse::<f64>().ok());
            let span = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
            self.idle_until = span.map(|span| at.plus(span.min(IDLE_MAX)));
        } else if matches!(kind, Kind::Start | Kind::Work | Kind::Join) {
            self.idle_until = None;
        }
        if let Some(peer) = fields.get("peer") {
            self.peer = Some(peer.clone());
        }
        if let Some(account) = fields.get("account") {
            self.account = Some(account.clone());
        }
        let round = fields.get("round").and_then(|it| it.parse::<u64>().ok());
        if let Some(round) = round.filter(|_| matches!(kind, Kind::Join | Kind::Round | Kind::Work))
            && self.round.is_none_or(|(was, _)| was != round)
        {
            self.round = Some((round, at));
        }
        self.told.insert(kind, heard);
    }
}

/// Whether a program that runs is another one: clocks that are set, and rounding, move a start a little.
fn is_other(was: &ProcessState, started: Option<Timestamp>) -> bool {
    was.started.zip(started).is_some_and(|(was, is)| is.since(was).max(was.since(is)) > SAME_START)
}

fn push<T>(to: &mut VecDeque<T>, value: T) {
    to.push_back(value);
    if to.len() > KEPT_MAX {
        to.pop_front();
    }
}

fn entry<'a, T: Default>(map: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    entry_or(map, name, T::default)
}

/// The value of this name; names beyond the limit share one entry.
fn entry_or<'a, T>(
    map: &'a mut BTreeMap<String, T>,
    name: &str,
    new: impl FnOnce() -> T,
) -> &'a mut T {
    let is_room = map.len() < NAMES_MAX || map.contains_key(name);
    map.entry(if is_room { name.to_owned() } else { String::new() }).or_insert_with(new)
}
