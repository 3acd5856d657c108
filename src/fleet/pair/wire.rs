//! The values of the bucket `HUB_OUTBOX`: who sends over a channel and what is on its way ([`Sheet`]), and what was told
//! ([`Mark`]). JSON, as docs/protocol.md says.
//!
//! Must hold: a value is at most [`VALUE_BYTES_MAX`] long, written or read; what is read is one whole value of these
//! types or is refused; nothing lies further ahead than `AHEAD_MAX` of the time at which it says that it was written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::HubName;
use super::told::{Say, Subject};
use crate::clock::Timestamp;
use crate::fleet::notice::{NODES_MAX, Notice};

/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;

/// The most subjects of one message; what more it is about may be told twice.
pub const SAYS_MAX: usize = 2_500;

/// The most earlier messages that are told within one, by their titles.
pub const EARLIER_MAX: usize = 8;

/// How far what is said may lie ahead.
const AHEAD_MAX: Duration = Duration::from_hours(1);

/// The version of these forms.
const VERSION: u32 = 1;

/// A value that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// Which run of which hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The hub's name.
    pub hub: HubName,
    /// The run of its program: a random number.
    pub run: u64,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Sending {
    /// The number of the notice in the outbox of the hub that decided it.
    pub number: i64,
    /// What it says.
    pub notice: Notice,
    /// What is told within it, without nodes, and whether that may have arrived before.
    pub earlier: Vec<(Notice, bool)>,
    /// How many more are.
    pub left_out: usize,
    /// Whether it may have arrived before.
    pub may_be_repeat: bool,
    /// Of whom it says what.
    pub says: Vec<Say>,
}

/// Who sends over a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Sheet {
    /// Who.
    pub who: Who,
    /// Since when.
    pub since: Timestamp,
    /// What is on its way.
    pub sending: Option<Sending>,
}

/// A message that was told, or may have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The hub that sent it.
    pub hub: HubName,
    /// When.
    pub at: Timestamp,
    /// Whether it isn't known that it arrived.
    pub is_doubtful: bool,
    /// Of whom it said what.
    pub says: Vec<Say>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSays {
    well: bool,
    when: Timestamp,
    /// 16 hex digits for each subject.
    of: String,
}

#[derive(Serialize, Deserialize)]
struct WrittenSending {
    number: i64,
    notice: Notice,
    #[serde(default)]
    earlier: Vec<(Notice, bool)>,
    #[serde(default)]
    left_out: usize,
    #[serde(default)]
    may_be_repeat: bool,
    says: Vec<WrittenSays>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSheet {
    v: u32,
    hub: String,
    run: String,
    since: Timestamp,
    sending: Option<WrittenSending>,
}

#[derive(Serialize, Deserialize)]
struct WrittenMark {
    v: u32,
    hub: String,
    at: Timestamp,
    #[serde(default)]
    may_have_arrived: bool,
    says: Vec<WrittenSays>,
}

impl Sending {
    /// The message with so much of it that its value is short enough: the earlier ones by their titles, and nodes and
    /// lines only where there is room.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let over = self.earlier.len().saturating_sub(EARLIER_MAX);
        self.earlier.drain(..over);
        self.left_out = self.left_out.saturating_add(over);
        for (notice, _) in &mut self.earlier {
            notice.nodes.clear();
            notice.lines.clear();
        }
        self.says.truncate(SAYS_MAX);
        let room = VALUE_BYTES_MAX / 4;
        let is_long = |notice: &Notice| {
            serde_json::to_vec(notice).map_or(usize::MAX, |text| text.len()) > room
        };
        if is_long(&self.notice) {
            self.notice.lines.clear();
        }
        if is_long(&self.notice) {
            self.notice.more = self.notice.more.saturating_add(self.notice.nodes.len());
            self.notice.nodes.clear();
        }
        self
    }
}

impl Sheet {
    /// The value.
    pub fn to_json(&self) -> String {
        let sending = self.sending.as_ref().map(|it| WrittenSending {
            number: it.number,
            notice: it.notice.clone(),
            earlier: it.earlier.clone(),
            left_out: it.left_out,
            may_be_repeat: it.may_be_repeat,
            says: written(&it.says),
        });
        let sheet = WrittenSheet {
            v: VERSION,
            hub: self.who.hub.to_string(),
            run: format!("{:016x}", self.who.run),
            since: self.since,
            sending,
        };
        serde_json::to_string(&sheet).unwrap_or_default()
    }

    /// Reads a value.
    pub fn parse(value: &[u8]) -> Result<Self, Invalid> {
        let it: WrittenSheet = read(value)?;
        version(it.v)?;
        let run = subject(&it.run).ok_or_else(|| Invalid("its run is no number".to_owned()))?.0;
        let sending = it.sending.map(sending).transpose()?;
        Ok(Self { who: Who { hub: name(&it.hub)?, run }, since: it.since, sending })
    }
}

impl Mark {
    /// The value.
    pub fn to_json(&self) -> String {
        let mark = WrittenMark {
            v: VERSION,
            hub: self.hub.to_string(),
            at: self.at,
            may_have_arrived: self.is_doubtful,
            says: written(&self.says),
        };
        serde_json::to_string(&mark).unwrap_or_default()
    }

    /// Reads a value.
    pub fn parse(value: &[u8]) -> Result<Self, Invalid> {
        let it: WrittenMark = read(value)?;
        version(it.v)?;
        let says = says(&it.says, it.at)?;
        Ok(Self { hub: name(&it.hub)?, at: it.at, is_doubtful: it.may_have_arrived, says })
    }
}

fn read<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Result<T, Invalid> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Invalid(format!("it is longer than {VALUE_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(value).map_err(|err| Invalid(err.to_string()))
}

fn version(of: u32) -> Result<(), Invalid> {
    if of == VERSION { Ok(()) } else { Err(Invalid(format!("it is of version {of}"))) }
}

fn name(text: &str) -> Result<HubName, Invalid> {
    HubName::parse(text).map_err(|err| Invalid(err.to_string()))
}

fn sending(it: WrittenSending) -> Result<Sending, Invalid> {
    if it.earlier.len() > EARLIER_MAX || it.notice.nodes.len() > NODES_MAX {
        return Err(Invalid("its message tells more than one may".to_owned()));
    }
    Ok(Sending {
        says: says(&it.says, it.notice.decided)?,
        number: it.number,
        notice: it.notice,
        earlier: it.earlier,
        left_out: it.left_out,
        may_be_repeat: it.may_be_repeat,
    })
}

/// What is said alike is written together.
fn written(says: &[Say]) -> Vec<WrittenSays> {
    let mut alike: BTreeMap<(bool, Timestamp), String> = BTreeMap::new();
    for say in says.iter().take(SAYS_MAX) {
        let of = alike.entry((say.is_well, say.when)).or_default();
        write!(of, "{:016x}", say.subject.0).ok();
    }
    alike.into_iter().map(|((well, when), of)| WrittenSays { well, when, of }).collect()
}

fn says(all: &[WrittenSays], at: Timestamp) -> Result<Vec<Say>, Invalid> {
    let mut says = Vec::new();
    for it in all {
        if it.when > at.plus(AHEAD_MAX) {
            return Err(Invalid(format!("it says at {at} what begins at {}", it.when)));
        }
        for digits in it.of.as_bytes().chunks(16) {
            let text = std::str::from_utf8(digits).unwrap_or_default();
            let subject =
                subject(text).ok_or_else(|| Invalid("a subject is no hash".to_owned()))?;
            says.push(Say { subject, is_well: it.well, when: it.when });
            if says.len() > SAYS_MAX {
                return Err(Invalid(format!("it is about more than {SAYS_MAX} subjects")));
            }
        }
    }
    Ok(says)
}

/// 16 lower-case hex digits.
fn subject(text: &str) -> Option<Subject> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_one = text.len() == 16 && text.bytes().all(is_hex);
    is_one.then(|| u64::from_str_radix(text, 16).ok().map(Subject)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::notice::{NoticeKind, Severity};

    fn at(s: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + s * 1_000)
    }

    fn notice(title: &str) -> Notice {
        Notice {
            incident: 1,
            kind: NoticeKind::Opened,
            rule: "node-down".to_owned(),
            severity: Severity::Critical,
            title: title.to_owned(),
            opened: at(0),
            decided: at(0),
            nodes: Vec::new(),
            more: 0,
            lines: Vec::new(),
            remedy: String::new(),
            is_node_down: true,
            channels: Vec::new(),
        }
    }

    fn sheet(sending: Option<Sending>) -> Sheet {
        let who = Who { hub: HubName::parse("one").unwrap(), run: 7 };
        Sheet { who, since: at(0), sending }
    }

    fn sending(says: Vec<Say>) -> Sending {
        let notice = notice("x");
        Sending { number: 5, notice, earlier: vec![], left_out: 0, may_be_repeat: true, says }
    }

    fn any_say() -> impl Strategy<Value = Say> {
        (any::<u64>(), any::<bool>(), 0_u64..100).prop_map(|(of, is_well, s)| Say {
            subject: Subject(of),
            is_well,
            when: at(s),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(mut says in proptest::collection::vec(any_say(), 0..50)) {
            says.sort_by_key(|say| (say.is_well, say.when));
            let mark = Mark {
                hub: HubName::parse("two").unwrap(), at: at(9), is_doubtful: true, says: says.clone(),
            };
            prop_assert_eq!(Mark::parse(mark.to_json().as_bytes()), Ok(mark));
            let sheet = sheet(Some(sending(says)));
            prop_assert_eq!(Sheet::parse(sheet.to_json().as_bytes()), Ok(sheet));
        }

        #[test]
        fn rubbish_is_refused_and_does_no_harm(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Sheet::parse(&value).is_err() && Mark::parse(&value).is_err());
        }
    }

    #[test]
    fn a_value_that_is_nearly_ours_is_refused() {
        let good = sheet(None).to_json();
        assert!(Sheet::parse(good.as_bytes()).is_ok(), "{good}");
        for (from, to) in [
            ("\"v\":1", "\"v\":2"),
            ("\"one\"", "\"a b\""),
            ("\"one\"", "\"\""),
            ("0000000000000007", "000000000000000G"),
            ("0000000000000007", "7"),
            ("2027-01", "not"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            assert!(Sheet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let ahead = Say { subject: Subject(1), is_well: false, when: at(86_400) };
        let mark = |says| Mark {
            hub: HubName::parse("one").unwrap(),
            at: at(0),
            is_doubtful: false,
            says,
        };
        assert!(Mark::parse(mark(vec![ahead]).to_json().as_bytes()).is_err());
        let long = mark(vec![]).to_json().replace("[]", &"[".repeat(VALUE_BYTES_MAX));
        assert!(Mark::parse(long.as_bytes()).is_err());
    }

    #[test]
    fn a_message_about_many_nodes_fits_into_a_value() {
        let say = |of| Say { subject: Subject(of), is_well: false, when: at(0) };
        let mut huge = sending((0..100_000).map(say).collect());
        huge.notice.lines = vec!["x".repeat(10_000); 100];
        huge.earlier = vec![(notice(&"x".repeat(1_000)), false); 50];
        let value = sheet(Some(huge.bounded())).to_json();
        assert!(value.len() <= VALUE_BYTES_MAX, "{}", value.len());
        let read = Sheet::parse(value.as_bytes()).unwrap().sending.unwrap();
        assert_eq!((read.says.len(), read.earlier.len(), read.left_out), (SAYS_MAX, 8, 42));
    }
}
