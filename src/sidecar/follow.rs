//! Follows one log: lines, records, what they mean, and the place up to which all of it was taken in.
//!
//! Invariants: a line is scrubbed before anything else sees it; what lines mean and the place after them are one
//! commit, and a record that may still go on is part of that place: a kill loses and doubles nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::program::{Program, Taken};
use super::report::original;
use super::store::Error;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::host::tail::{Config, GapWhy, Position, Read, Start, Tail};
use crate::supervise::Failure;
use crate::watch::grammar::{Assembler, Local, Pending};
use crate::watch::line::{Line, Record};
use crate::watch::meaning::{Kind, Meaning};
use crate::watch::observation::{Seen, TEXT_BYTES_MAX, log_source};
use crate::watch::profile::FilledLog;
use crate::watch::scrub::After;

/// How often the growth of a log is noted if its lines mean nothing.
const NOTE_EVERY: Duration = Duration::from_secs(15);

/// Most records of one commit whose meaning is noted one by one; of more, the last of each kind.
const TOLD_MAX: usize = 64;

const REMEDY: &str = "look at the disk under SIDECAR_DB; the log is read on where it was left";

/// Follows one log. One service.
#[derive(Debug, Clone)]
pub struct Follower {
    /// Whose log it is.
    pub program: Arc<Program>,
    /// The log.
    pub log: FilledLog,
    /// Whether each record is reported to the original's service.
    pub is_reported: bool,
}

/// Up to where a log was taken in.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Mark {
    /// The place in the files.
    position: Option<Position>,
    /// The record that may still go on.
    pending: Option<Pending>,
    /// Lines that were taken in and not noted yet.
    lines: u64,
    /// Whether the next line is the value of a secret.
    #[serde(skip_serializing_if = "After::is_nothing")]
    after: After,
}

/// One run of a follower.
struct Run<'a> {
    follower: &'a Follower,
    source: String,
    assembler: Assembler<()>,
    mark: Mark,
    noted: Timestamp,
    clock: SystemClock,
}

impl Follower {
    /// Follows the log until it is aborted.
    pub async fn run(self) -> Result<(), Failure> {
        let again = |err: Error| Failure::again(err, REMEDY);
        let (clock, source) = (SystemClock, log_source(&self.log.name));
        let mark = self.program.mark(&source).await.map_err(again)?;
        // A place that another version wrote is none.
        let mut mark: Mark =
            mark.and_then(|mark| serde_json::from_str(&mark).ok()).unwrap_or_default();
        let mut config = Config::new(self.log.path.clone().into());
        config.start = Start::LastLines(self.program.watching.first_lines);
        let mut tail = Tail::new(config, mark.position.clone());
        let mut assembler = Assembler::new(Arc::clone(&self.log.grammar), &Local::of_host());
        if let Some(pending) = mark.pending.take() {
            assembler.resume(pending, clock.now());
        }
        let noted = Timestamp::default();
        let mut run = Run { follower: &self, source, assembler, mark, noted, clock };
        loop {
            let due = run.due();
            let read = tokio::select! {
                read = tail.next() => Some(read),
                () = clock.sleep_until(due.unwrap_or_default()), if due.is_some() => None,
            };
            match read {
                Some(read) => run.take(read).await.map_err(again)?,
                None => run.flush().await.map_err(again)?,
            }
        }
    }
}

impl Run<'_> {
    async fn take(&mut self, read: Read) -> Result<(), Error> {
        let name = &self.follower.log.name;
        match read {
            Read::Open { position } => {
                self.mark.position = Some(position);
                // Before any line: a kill now must not begin the log anew.
                self.commit(Vec::new(), Vec::new(), self.clock.now()).await?;
                self.follower.program.source(&self.source, None).await
            }
            Read::Lines { lines, position } => {
                let now = self.clock.now();
                let mut records = Vec::new();
                self.mark.lines = self.mark.lines.saturating_add(lines.len() as u64);
                let (mut cut, mut raw) = (0, Vec::new());
                let tap = self.follower.program.tap();
                for line in &lines {
                    cut += line.cut;
                    let line = Line::read_after(&line.bytes, &mut self.mark.after);
                    raw.extend(tap.map(|_| line.as_str().to_owned()));
                    records.extend(self.assembler.take(&line, (), now).map(|(record, ())| record));
                }
                self.mark.position = Some(position);
                let mut seen = Vec::new();
                if cut > 0 {
                    let why = "a line was longer than 64 KiB".to_owned();
                    seen.push(Seen::Gap { log: name.clone(), bytes: Some(cut), why });
                }
                self.commit(seen, records, now).await?;
                if let Some(tap) = tap {
                    tap.lines(name, raw, now);
                }
                Ok(())
            }
            Read::Gap { bytes, why, position } => {
                self.mark.position = Some(position);
                let why = match why {
                    GapWhy::Truncated => "the file was truncated",
                    GapWhy::Gone => "the file was removed while nobody read it",
                    GapWhy::Compressed => "the file was compressed while nobody read it",
                };
                let gap = Seen::Gap { log: name.clone(), bytes, why: why.to_owned() };
                self.commit(vec![gap], Vec::new(), self.clock.now()).await?;
                self.follower.program.source(&self.source, None).await
            }
            Read::Trouble { what } => {
                let what = Line::read(what.as_bytes()).as_str().to_owned();
                // What the program works without is not missed.
                let trouble = (!self.follower.log.is_optional).then_some(what);
                self.follower.program.source(&self.source, trouble).await
            }
        }
    }

    /// When something is to be taken in though nothing was written: a record that nothing continued, or lines that
    /// were not noted yet.
    fn due(&self) -> Option<Timestamp> {
        let noted = (self.mark.lines > 0).then(|| self.noted.plus(NOTE_EVERY));
        self.assembler.due().into_iter().chain(noted).min()
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        let record = self.assembler.flush(now).map(|(record, ())| record);
        self.commit(Vec::new(), record.into_iter().collect(), now).await
    }

    /// Takes in what records mean, and the place after them.
    async fn commit(
        &mut self,
        mut seen: Vec<Seen>,
        records: Vec<Record>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let follower = self.follower;
        let told = few(told(&follower.log, &records));
        let is_due = now.since(self.noted) >= NOTE_EVERY || now < self.noted;
        if self.mark.lines > 0 && (is_due || !told.is_empty()) {
            let lines = std::mem::take(&mut self.mark.lines);
            seen.push(Seen::Lines { log: follower.log.name.clone(), lines });
            self.noted = now;
        }
        seen.extend(told);
        let reports = if follower.is_reported {
            let name = follower.program.name();
            records.iter().filter_map(|record| original::event(name, record, now)).collect()
        } else {
            Vec::new()
        };
        self.mark.pending = self.assembler.pending();
        let mark = serde_json::to_string(&self.mark).unwrap_or_default();
        let marks = vec![(self.source.clone(), mark)];
        follower.program.observe(Taken { seen, marks, reports }).await
    }
}

/// What the records mean, each that means something.
fn told(log: &FilledLog, records: &[Record]) -> Vec<(Meaning, Seen)> {
    let each = records.iter().filter_map(|record| {
        let meaning = log.classifier.meaning(record)?;
        let end = record.text.floor_char_boundary(TEXT_BYTES_MAX);
        let text = record.text.get(..end).unwrap_or_default().to_owned();
        let (log, said) = (log.name.clone(), record.at);
        Some((meaning.clone(), Seen::Told { log, meaning, text, said }))
    });
    each.collect()
}

/// Of very many, the last of each kind and cause: a state follows from these alone.
fn few(told: Vec<(Meaning, Seen)>) -> Vec<Seen> {
    if told.len() <= TOLD_MAX {
        return told.into_iter().map(|(_, seen)| seen).collect();
    }
    let mut last = std::collections::BTreeMap::<(Kind, Option<String>), usize>::new();
    for (at, (meaning, _)) in told.iter().enumerate() {
        last.insert((meaning.kind, meaning.cause.clone()), at);
    }
    let kept: std::collections::BTreeSet<usize> = last.into_values().collect();
    let each = told.into_iter().enumerate();
    each.filter(|(at, _)| kept.contains(at)).map(|(_, (_, seen))| seen).collect()
}
