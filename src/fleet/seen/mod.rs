//! What a watcher says of a program, signed by the watcher's own key, so that a hub can show who saw what. Pure.
//!
//! Must hold: the signature is over the exact bytes that were sent, so that nothing is lost by reading and writing
//! them anew; what is read is bounded; what is too old or of the future is refused.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rule::Trouble;
use crate::clock::Timestamp;
use crate::ids::eip712::Word;
use crate::ids::hash::keccak256;
use crate::ids::{Address, Domain, Hash};
use crate::report::{is_obeyed, one_line};

/// The struct that is signed, as EIP-712 encodes it. `at` is milliseconds since 1970, `bodyHash` the keccak-256 of the
/// body's bytes.
const KIND: &str = "Observation(address watcher,string program,uint64 at,bytes32 bodyHash)";

/// The head that carries the signature of a body: `0x` and 130 digits of hex.
pub const SIGNATURE_HEAD: &str = "lamda-signature";

/// The largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 48 * 1024;

/// The longest name of a program, in bytes: as that of a node that beats.
pub const PROGRAM_BYTES_MAX: usize = super::beat::NAME_BYTES_MAX;

/// The longest text of an observation, in bytes.
pub const TEXT_BYTES_MAX: usize = 300;

/// The longest name (a version, a profile, a peer, an account, a source), in bytes.
pub const WORD_BYTES_MAX: usize = 128;

/// The most pieces of evidence for one answer.
pub const EVIDENCE_MAX: usize = 6;

/// An observation is taken for so long after it was signed.
pub const AGE_MAX: Duration = Duration::from_mins(10);

/// So far the clocks of a watcher and a hub may differ.
pub const AHEAD_MAX: Duration = Duration::from_mins(2);

/// How often a watcher says the same again.
pub const EVERY: Duration = Duration::from_mins(5);

/// A watcher that was silent for so long does not count any more where watchers are compared.
pub const LATE_AFTER: Duration = Duration::from_mins(15);

/// An answer to one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is so.
    Yes,
    /// It is not so, and should be.
    No,
    /// It need not be so yet.
    Waiting,
    /// Nobody can say.
    Unknown,
    /// It isn't expected of this program.
    NotExpected,
}

impl Answer {
    /// The answer as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
            Self::NotExpected => "not_expected",
        }
    }
}

/// What shows that an answer is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Who saw it: `process`, `log swarm`, `dht`, `chain`.
    pub source: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: String,
}

/// An answer, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The answer.
    pub answer: Answer,
    /// Why, in one sentence without a full stop.
    pub why: String,
    /// The known cause, by its id in the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do about it; empty if there is nothing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// What shows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
}

/// The answers to the questions that a watcher asks of each program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Whether the program is there.
    pub alive: Finding,
    /// Whether it does its work.
    pub training: Finding,
    /// Whether its peers have what it published.
    pub published: Finding,
    /// Whether it was paid.
    pub earning: Finding,
    /// Whether the swarm that it belongs to works.
    pub swarm: Finding,
}

impl Answers {
    /// All of them with their names, in order.
    pub const fn all(&self) -> [(&'static str, &Finding); 5] {
        [
            ("alive", &self.alive),
            ("training", &self.training),
            ("published", &self.published),
            ("earning", &self.earning),
            ("swarm", &self.swarm),
        ]
    }
}

/// What a watcher says of a program: the body that it signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The watcher's address: that of the key which signs.
    pub watcher: Address,
    /// What the watcher calls the program: the `node_id` of its beats.
    pub program: String,
    /// When it says this; later than whatever it said of the program before.
    pub at: Timestamp,
    /// Since when the answers are these.
    pub since: Timestamp,
    /// The watcher's version.
    pub version: String,
    /// The profile by which it watches.
    pub profile: String,
    /// The program's id among its peers, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The account that is paid, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The answers with their evidence.
    pub answers: Answers,
    /// What is wrong; empty if nothing is.
    pub troubles: Vec<Trouble>,
    /// All of it in one sentence.
    pub says: String,
}

/// Why a body is no observation.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It has more bytes than any.
    #[error("an observation has at most {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not the JSON of one.
    #[error("it is no observation: {0}")]
    Form(#[from] serde_json::Error),
    /// A part of it is above its limit, or holds what a terminal obeys.
    #[error("its {0} is too long, or has control characters")]
    Part(&'static str),
}

/// Why an observation comes at the wrong time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    /// It was signed too long ago: it may be a copy that somebody sends again.
    #[error("it was signed more than ten minutes ago: is the watcher's clock right?")]
    Old,
    /// It was signed in the future.
    #[error("it was signed in the future: is the watcher's clock right?")]
    Ahead,
}

impl Said {
    /// Reads a body.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > BODY_BYTES_MAX {
            return Err(Invalid::TooLarge);
        }
        let said: Self = serde_json::from_slice(bytes)?;
        let is_named = !said.program.is_empty();
        if !is_named || !fits(&said.program, PROGRAM_BYTES_MAX) {
            return Err(Invalid::Part("program"));
        }
        let some = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
        for (name, text) in [
            ("version", &said.version),
            ("profile", &said.profile),
            ("peer", &some(&said.peer)),
            ("account", &some(&said.account)),
        ] {
            if !fits(text, WORD_BYTES_MAX) {
                return Err(Invalid::Part(name));
            }
        }
        if !fits(&said.says, 2 * TEXT_BYTES_MAX) {
            return Err(Invalid::Part("says"));
        }
        if said.troubles.len() > Trouble::ALL.len() {
            return Err(Invalid::Part("troubles"));
        }
        let is_wrong = |(_, finding): &(&str, &Finding)| !finding.fits();
        let wrong = said.answers.all().into_iter().find(is_wrong).map(|(name, _)| name);
        match wrong {
            Some(name) => Err(Invalid::Part(name)),
            None => Ok(said),
        }
    }

    /// The same with each text cut to its limit: what a watcher may send.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.version, &mut self.profile] {
            *text = cut(text, WORD_BYTES_MAX);
        }
        for text in [&mut self.peer, &mut self.account] {
            *text = text.take().map(|text| cut(&text, WORD_BYTES_MAX));
        }
        self.says = cut(&self.says, 2 * TEXT_BYTES_MAX);
        let Answers { alive, training, published, earning, swarm } = &mut self.answers;
        for finding in [alive, training, published, earning, swarm] {
            finding.bound();
        }
        self
    }

    /// The EIP-712 digest that the watcher signs for these bytes of it.
    pub fn digest(&self, bytes: &[u8]) -> Hash {
        let words = [
            Word::address(self.watcher),
            Word::text(&self.program),
            Word::number(self.at.unix_ms()),
            Word::bytes32(keccak256(bytes)),
        ];
        Domain::OWN.digest_of(KIND, &words)
    }

    /// `Err` unless it was signed just now.
    pub fn is_timely(&self, now: Timestamp) -> Result<(), Untimely> {
        if now.since(self.at) > AGE_MAX {
            Err(Untimely::Old)
        } else if self.at.since(now) > AHEAD_MAX {
            Err(Untimely::Ahead)
        } else {
            Ok(())
        }
    }

    /// The answers and troubles without their words: what has to differ for a change.
    pub fn gist(&self) -> Gist {
        let answers = self.answers.all().map(|(name, it)| (name.to_owned(), it.answer));
        Gist { answers: answers.into(), troubles: self.troubles.clone() }
    }
}

/// What has to differ between two observations for a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gist {
    /// The answers, by the questions' names.
    pub answers: std::collections::BTreeMap<String, Answer>,
    /// What is wrong.
    pub troubles: Vec<Trouble>,
}

impl Finding {
    fn fits(&self) -> bool {
        let is_shown =
            |it: &Evidence| fits(&it.source, WORD_BYTES_MAX) && fits(&it.what, TEXT_BYTES_MAX);
        fits(&self.why, TEXT_BYTES_MAX)
            && fits(&self.remedy, TEXT_BYTES_MAX)
            && fits(self.cause.as_deref().unwrap_or_default(), WORD_BYTES_MAX)
            && self.evidence.len() <= EVIDENCE_MAX
            && self.evidence.iter().all(is_shown)
    }

    fn bound(&mut self) {
        self.why = cut(&self.why, TEXT_BYTES_MAX);
        self.remedy = cut(&self.remedy, TEXT_BYTES_MAX);
        self.cause = self.cause.take().map(|it| cut(&it, WORD_BYTES_MAX));
        self.evidence.truncate(EVIDENCE_MAX);
        for it in &mut self.evidence {
            it.source = cut(&it.source, WORD_BYTES_MAX);
            it.what = cut(&it.what, TEXT_BYTES_MAX);
        }
    }
}

fn fits(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.chars().any(is_obeyed)
}

/// One line of at most so many bytes.
fn cut(text: &str, bytes_max: usize) -> String {
    let mut line = one_line(text, bytes_max);
    if line.len() > bytes_max {
        line.truncate(line.floor_char_boundary(bytes_max));
    }
    line
}

/// The questions to which some of these watchers say yes and others no.
pub fn disagreements(all: &[&Said]) -> Vec<&'static str> {
    let says = |name: &str, answer: Answer| {
        let mut findings = all.iter().flat_map(|said| said.answers.all());
        findings.any(|(asked, finding)| asked == name && finding.answer == answer)
    };
    let names = all.first().map(|said| said.answers.all().map(|(name, _)| name));
    let names = names.into_iter().flatten();
    names.filter(|name| says(name, Answer::Yes) && says(name, Answer::No)).collect()
}

#[cfg(test)]
pub(crate) mod tests;
