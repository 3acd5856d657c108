//! What follows from all that was seen: does the program live, does it work, did it publish, was it paid? Each
//! answer has its evidence; where the witnesses disagree, that is the trouble.
//!
//! Must hold: a verdict is a function of what was seen, of what is expected and of the time; what nobody watched for
//! long enough is never called missing; one fault is one trouble: what follows from it is not told as a second one.

mod alive;
mod earning;
mod published;
mod swarm;
#[cfg(test)]
mod tests;
mod training;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::expect::Expect;
use super::state::{Heard, Watched};
use crate::clock::Timestamp;
use crate::fleet::rule::Trouble;
use crate::fleet::words::age;

pub use crate::fleet::seen::{Answer, Evidence, Finding};

/// How long a source may fail before that is a trouble of its own.
const BLIND_AFTER: Duration = Duration::from_mins(10);

/// Most pieces of evidence for one answer.
const EVIDENCE_MAX: usize = 6;

/// What follows from all that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the program is there.
    pub alive: Finding,
    /// Whether it does its work, as its log says.
    pub training: Finding,
    /// Whether its peers have what it published.
    pub published: Finding,
    /// Whether the contract paid it.
    pub earning: Finding,
    /// Whether the swarm that it belongs to works: is it me or the swarm?
    pub swarm: Finding,
    /// Whether it was watched for long enough to know which sources can't be asked.
    #[serde(default)]
    pub is_long_watched: bool,
    /// What is wrong; empty if nothing is.
    pub troubles: Vec<Trouble>,
    /// All of it in one sentence.
    pub says: String,
}

impl Finding {
    fn new(answer: Answer, why: impl Into<String>) -> Self {
        let (cause, remedy, evidence) = (None, String::new(), Vec::new());
        Self { answer, why: why.into(), cause, remedy, evidence }
    }

    fn not_expected() -> Self {
        Self::new(Answer::NotExpected, "not expected of this program")
    }

    fn with(mut self, source: impl Into<String>, at: Timestamp, what: impl Into<String>) -> Self {
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(Evidence { source: source.into(), at, what: what.into() });
        }
        self
    }

    /// Names the cause, if it is known.
    fn because(mut self, expect: &Expect, cause: Option<&str>) -> Self {
        let Some(id) = cause else { return self };
        if let Some(known) = expect.cause(id) {
            self.why = format!("{}: {}", self.why, known.says);
            self.remedy.clone_from(&known.remedy);
        }
        self.cause = Some(id.to_owned());
        self
    }

    /// Names the cause, or the one that only a verdict knows, if the profile has it.
    fn because_or(self, expect: &Expect, cause: Option<&str>, known_by_verdict: &str) -> Self {
        let by_verdict = || expect.cause(known_by_verdict).map(|_| known_by_verdict);
        self.because(expect, cause.or_else(by_verdict))
    }

    fn heard(self, heard: &Heard) -> Self {
        self.with(super::observation::log_source(&heard.log), heard.at, heard.text.clone())
    }
}

/// The verdict on a program.
pub fn verdict(state: &Watched, expect: &Expect, now: Timestamp) -> Verdict {
    let look = Look { state, expect, now };
    let alive = alive::of(&look);
    let training = training::of(&look, &alive);
    let published = published::of(&look);
    let swarm = swarm::of(&look);
    let earning = earning::of(&look);
    let mut troubles = Vec::new();
    if swarm.answer == Answer::No {
        troubles.push(Trouble::SwarmDown);
    }
    let stages = [
        (&alive, Trouble::Down),
        (&training, Trouble::Stuck),
        (&published, Trouble::Unpublished),
        (&earning, Trouble::Unpaid),
    ];
    troubles.extend(stages.iter().find(|(it, _)| it.answer == Answer::No).map(|(_, it)| *it));
    if look.blind().is_some() {
        troubles.push(Trouble::Blind);
    }
    let says = says(&look, [&alive, &training, &published, &earning], &swarm);
    let is_long_watched = look.silent_for(None) >= Some(BLIND_AFTER);
    Verdict { alive, training, published, earning, swarm, is_long_watched, troubles, says }
}

impl Verdict {
    /// Whether this trouble holds; `None` if nobody can say.
    pub fn has(&self, trouble: Trouble) -> Option<bool> {
        if self.troubles.contains(&trouble) {
            return Some(true);
        }
        if self.about(trouble).is_some_and(|it| it.answer == Answer::NotExpected) {
            return Some(false);
        }
        let stages = [&self.alive, &self.training, &self.published, &self.earning];
        let before = match trouble {
            Trouble::Down => 0,
            Trouble::Stuck => 1,
            Trouble::Unpublished => 2,
            Trouble::Unpaid => 3,
            Trouble::SwarmDown => return self.swarm.is_known().then_some(false),
            Trouble::Blind => return self.is_long_watched.then_some(false),
        };
        let is_well = stages.iter().take(before + 1).all(|it| it.answer != Answer::No);
        let asked = stages.get(before)?;
        (is_well && asked.is_known()).then_some(false)
    }

    /// The finding that a trouble is about.
    pub const fn about(&self, trouble: Trouble) -> Option<&Finding> {
        match trouble {
            Trouble::Down => Some(&self.alive),
            Trouble::Stuck => Some(&self.training),
            Trouble::Unpublished => Some(&self.published),
            Trouble::Unpaid => Some(&self.earning),
            Trouble::SwarmDown => Some(&self.swarm),
            Trouble::Blind => None,
        }
    }
}

impl Finding {
    fn is_known(&self) -> bool {
        matches!(self.answer, Answer::Yes | Answer::No)
    }
}

/// What the questions are answered from.
struct Look<'a> {
    state: &'a Watched,
    expect: &'a Expect,
    now: Timestamp,
}

impl Look<'_> {
    /// How long ago this was, or how long the program is watched if that is shorter; `None` while it isn't.
    fn silent_for(&self, last: Option<Timestamp>) -> Option<Duration> {
        let watching = self.state.watching?;
        Some(self.now.since(last.map_or(watching, |last| last.max(watching))))
    }

    /// How long it may be silent now; `None`: for ever.
    fn patience(&self, last: Option<Timestamp>) -> Option<Duration> {
        let idle = self.expect.idle?;
        let usual = idle + self.expect.grace;
        let named = self.state.idle_until.zip(last);
        let named = named.map(|(until, last)| until.since(last).max(idle) + self.expect.grace);
        Some(named.map_or(usual, |named| named.max(usual)))
    }

    /// Whether this was so long ago that nobody can say whether it is still so: it was not watched since.
    fn is_past(&self, last: Timestamp, patience: Option<Duration>) -> bool {
        patience.is_some_and(|patience| self.now.since(last) > patience)
    }

    /// When the program's current run began.
    fn started(&self) -> Option<Timestamp> {
        let process = self.state.process.as_ref().filter(|it| it.is_running);
        let by_host = process.and_then(|it| it.started);
        let by_log = self.state.told.get(&super::meaning::Kind::Start).map(|it| it.at);
        by_host.or(by_log).or(self.state.watching)
    }

    /// Why this source can't be asked, if it has not been for long.
    fn trouble(&self, source: &str) -> Option<&str> {
        self.state.troubles.get(source).map(|(_, why)| why.as_str())
    }

    /// The sources that could not be asked for long.
    fn blind(&self) -> Option<String> {
        // In a container the host's processes are never seen; there are the logs and the ports.
        let has_others = !self.expect.logs.is_empty() || !self.expect.ports.is_empty();
        let is_missed = |source: &str| source != super::observation::PROCESS || !has_others;
        let long = self.state.troubles.iter().filter(|(source, (at, _))| {
            is_missed(source) && self.silent_for(Some(*at)) >= Some(BLIND_AFTER)
        });
        let named: Vec<String> =
            long.map(|(source, (_, why))| format!("{source}: {why}")).collect();
        (!named.is_empty()).then(|| named.join("; "))
    }
}

/// All of it in one sentence.
fn says(look: &Look<'_>, stages: [&Finding; 4], swarm: &Finding) -> String {
    let names = [
        "it is up",
        "its log says that it trains",
        "its peers have what it published",
        "it was paid",
    ];
    let well: Vec<&str> = stages
        .iter()
        .zip(names)
        .filter(|(it, _)| it.answer == Answer::Yes)
        .map(|(_, name)| name)
        .collect();
    let bad = stages.iter().find(|it| it.answer == Answer::No);
    let mut says = match (bad, well.as_slice()) {
        (Some(bad), []) => bad.why.clone(),
        (Some(bad), well) => format!("{}, but {}", well.join(", "), bad.why),
        (None, []) => stages.first().map(|it| it.why.clone()).unwrap_or_default(),
        (None, well) => well.join(", "),
    };
    if swarm.answer == Answer::No {
        says = format!("it is the swarm, not this node: {}; {says}", swarm.why);
    }
    if let Some(blind) = look.blind() {
        says = format!("{says}; not to be seen: {blind}");
    }
    says
}

/// `for 12 min`.
fn lasting(span: Duration) -> String {
    format!("for {}", age(span))
}
