//! One watched program, looked at again and again.
//!
//! Invariants: a figure is counted in the program's own control group where it has one, else at its processes, and it
//! is said where; what is shared with others is not told as the program's own; a program that doesn't run uses nothing
//! that is known.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::host::cgroup::Group;
use crate::host::process::{self, Look, Member, micros, own_group};
use crate::host::{machine, network};
use crate::sidecar::used::{By, Used};
use crate::usage::tree::{Counted, Grown, Tree};
use crate::usage::{Metric, Reading, Readings, Unknown};

/// What is counted of a program.
const COUNTERS: [Metric; 5] =
    [Metric::Cpu, Metric::DiskRead, Metric::DiskWrite, Metric::NetRx, Metric::NetTx];

/// Most processes whose disk traffic is read at one look.
const READ_MAX: usize = 1_024;

/// What is read in a program's own group.
const IN_GROUP: [Metric; 5] =
    [Metric::Cpu, Metric::Memory, Metric::Swap, Metric::DiskRead, Metric::DiskWrite];

/// A program that is looked at.
#[derive(Debug)]
pub(super) struct Tracked {
    first: Option<(u32, u64)>,
    /// Its own group.
    group: Option<Group>,
    container: Option<String>,
    has_network: Result<bool, Unknown>,
    trees: [Tree; 3],
    grown: [Grown; 5],
    totals: [u64; 5],
    /// When it was looked at last, since the boot; `None`: it was not there.
    last: Option<Duration>,
}

/// One look at all processes.
#[derive(Debug)]
pub(super) struct At<'a> {
    pub(super) look: &'a Look,
    pub(super) clock: Timestamp,
    /// Since the boot.
    pub(super) now: Duration,
}

/// What was counted since the look before, or why that is not known; `None` within: there was none before.
type Since = Result<Option<u64>, Unknown>;

impl Tracked {
    /// Nothing is looked at yet.
    pub(super) fn new() -> Self {
        Self {
            first: None,
            group: None,
            container: None,
            has_network: Err(Unknown::Gone),
            trees: Default::default(),
            grown: Default::default(),
            totals: [0; 5],
            last: None,
        }
    }

    /// Looks at it. `place` is its place among the programs of the look, `ways` what it is found by. Its disk is asked
    /// elsewhere.
    pub(super) fn sample(
        &mut self,
        at: &At<'_>,
        place: usize,
        ways: &[process::By],
    ) -> (Used, Vec<u32>) {
        let members = match at.look.members(place) {
            // It is known by its logs or ports alone.
            _ if ways.is_empty() => {
                return (self.nothing(at.clock, Unknown::NotSupported), Vec::new());
            }
            Ok(members) if members.is_empty() => {
                return (self.nothing(at.clock, Unknown::Gone), Vec::new());
            }
            Ok(members) => members,
            Err(why) => return (self.nothing(at.clock, why), Vec::new()),
        };
        let is_same = self.know(&members, ways);
        let (readings, by, cpu) = self.read(at, &members);
        let before = self.last.replace(at.now).filter(|_| is_same);
        let spent = before.and_then(|before| Some((before, cpu.ok()??)));
        let cpu_percent = match (spent, cpu) {
            (Some((before, spent)), _) => percent(spent, at.now.saturating_sub(before)),
            (None, Err(why)) => Err(why),
            (None, Ok(_)) => Err(Unknown::Missed),
        };
        let used = Used {
            at: at.clock,
            cpu_percent,
            readings,
            by,
            container: self.container.clone(),
            disk_free: Err(Unknown::Off),
            cards: Err(Unknown::Failed),
        };
        (used, members.into_iter().map(|it| it.pid).collect())
    }

    /// Of a program that isn't there nothing is known.
    fn nothing(&mut self, at: Timestamp, why: Unknown) -> Used {
        self.trees.iter_mut().for_each(Tree::lose);
        self.grown.iter_mut().for_each(Grown::lose);
        (self.first, self.group, self.container, self.last) = (None, None, None, None);
        let mut readings = Readings::unknown(Unknown::Off);
        for metric in COUNTERS.into_iter().chain(GAUGES) {
            readings[metric] = Err(why);
        }
        Used {
            at,
            cpu_percent: Err(why),
            readings,
            by: by(By::Processes, By::Processes, By::Processes),
            container: None,
            disk_free: Err(Unknown::Off),
            cards: Err(why),
        }
    }

    /// Finds out what it belongs to; whether it is the program of the last look, and was not begun anew.
    fn know(&mut self, members: &[Member], ways: &[process::By]) -> bool {
        let oldest = members.iter().min_by_key(|it| (it.started_ticks, it.pid));
        let first = oldest.map(|it| (it.pid, it.started_ticks));
        if first == self.first {
            return true;
        }
        self.first = first;
        let Some((pid, _)) = first else { return false };
        self.container = process::container_of(pid);
        self.has_network = network::is_own(pid);
        self.group = own_group(ways).and_then(|name| Group::around(pid, name).ok());
        self.grown.iter_mut().skip(3).for_each(Grown::lose);
        false
    }

    fn read(
        &mut self,
        at: &At<'_>,
        members: &[Member],
    ) -> (Readings, [(&'static str, By); 3], Since) {
        let none = Readings::unknown(Unknown::NotSupported);
        let group = self.group.as_mut();
        let group = group.map_or(none, |group| group.read(|metric| IN_GROUP.contains(&metric)));
        let mut readings = Readings::unknown(Unknown::Off);
        let own = self.of_processes(at, members, group[Metric::DiskRead].is_err());
        let place = |reading: Reading| if reading.is_ok() { By::Group } else { By::Processes };
        let mut cpu = Err(Unknown::Failed);
        for (at, metric) in COUNTERS.into_iter().enumerate().take(3) {
            // Both go on, so that one can take the other's place.
            let counted =
                group[metric].map(|value| self.grown.get_mut(at).and_then(|it| it.look(value)));
            let since = counted.or_else(|why| match own.get(at) {
                None | Some(Err(Unknown::Off)) => Err(why),
                Some(own) => *own,
            });
            readings[metric] = self.count(at, since);
            if at == 0 {
                cpu = since;
            }
        }
        let sum = |of: fn(&Member) -> u64| {
            Ok(members.iter().fold(0_u64, |sum, it| sum.saturating_add(of(it))))
        };
        readings[Metric::Memory] = group[Metric::Memory].or_else(|_| sum(|it| it.resident_bytes));
        readings[Metric::Swap] = group[Metric::Swap];
        readings[Metric::Processes] = Ok(members.len() as u64);
        readings[Metric::Threads] = sum(|it| it.threads);
        let pids: Vec<u32> = members.iter().map(|it| it.pid).collect();
        readings[Metric::Descriptors] = process::files_of(&pids);
        (readings[Metric::NetRx], readings[Metric::NetTx]) = self.traffic();
        let by = by(
            place(group[Metric::Cpu]),
            place(group[Metric::Memory]),
            place(group[Metric::DiskRead]),
        );
        (readings, by, cpu)
    }

    /// What its processes used since the look before: microseconds of CPU, and bytes read and written.
    fn of_processes(&mut self, at: &At<'_>, members: &[Member], with_disk: bool) -> [Since; 3] {
        let ticks = at.look.ticks();
        let counted = |it: &Member, own: u64, children: u64| Counted {
            pid: it.pid,
            parent: it.parent,
            started: it.started_ticks,
            own,
            children,
        };
        let cpu: Vec<Counted> =
            members.iter().map(|it| counted(it, it.own_ticks, it.child_ticks)).collect();
        let [of_cpu, of_read, of_written] = &mut self.trees;
        let cpu = of_cpu.look(ticks, &cpu).map(micros);
        let disk = if with_disk { disk(members) } else { Err(Unknown::Off) };
        let disk = match disk {
            Ok(disk) => {
                let of = |bytes: fn(&(Member, (u64, u64))) -> u64| -> Vec<Counted> {
                    disk.iter().map(|it| counted(&it.0, 0, bytes(it))).collect()
                };
                let (read, written) = (of(|it| it.1.0), of(|it| it.1.1));
                [Ok(of_read.look(ticks, &read)), Ok(of_written.look(ticks, &written))]
            }
            Err(why) => {
                of_read.lose();
                of_written.lose();
                [Err(why); 2]
            }
        };
        [Ok(cpu), disk[0], disk[1]]
    }

    /// Adds to a counter; what it counts since the sidecar looks.
    fn count(&mut self, at: usize, since: Since) -> Reading {
        let total = self.totals.get_mut(at).ok_or(Unknown::Failed)?;
        *total = total.saturating_add(since?.unwrap_or(0));
        Ok(*total)
    }

    /// Bytes received and sent, where its network is its own.
    fn traffic(&mut self) -> (Reading, Reading) {
        let Some((pid, _)) = self.first else { return (Err(Unknown::Gone), Err(Unknown::Gone)) };
        let bytes = match self.has_network {
            Ok(true) => network::bytes(pid),
            Ok(false) => Err(Unknown::NotSupported),
            Err(why) => Err(why),
        };
        let mut of = |at: usize, value: Reading| {
            let grown = self.grown.get_mut(at).ok_or(Unknown::Failed)?;
            let since = grown.look(value?);
            self.count(at, Ok(since))
        };
        (of(3, bytes.map(|it| it.0)), of(4, bytes.map(|it| it.1)))
    }
}

/// What is not counted, but goes up and down.
const GAUGES: [Metric; 5] =
    [Metric::Memory, Metric::Swap, Metric::Processes, Metric::Threads, Metric::Descriptors];

const fn by(cpu: By, memory: By, disk: By) -> [(&'static str, By); 3] {
    [("cpu", cpu), ("memory", memory), ("disk", disk)]
}

/// A process, and the bytes that it has read from disks and written to them.
type Traffic = (Member, (u64, u64));

/// The disk traffic of these processes. One that has ended meanwhile is none of them; if all have, it is unknown.
fn disk(members: &[Member]) -> Result<Vec<Traffic>, Unknown> {
    if members.len() > READ_MAX {
        return Err(Unknown::NotSupported);
    }
    let mut all = Vec::with_capacity(members.len());
    for member in members {
        match process::disk_bytes(member.pid) {
            Ok(bytes) => all.push((*member, bytes)),
            Err(Unknown::Gone) => {}
            Err(why) => return Err(why),
        }
    }
    if all.is_empty() { Err(Unknown::Gone) } else { Ok(all) }
}

/// The share of one core that so many microseconds are in a span, in percent with one decimal.
#[expect(clippy::cast_precision_loss, reason = "one decimal of a percent is shown")]
pub(super) fn percent(micros: u64, span: Duration) -> Result<f64, Unknown> {
    if span.is_zero() {
        return Err(Unknown::Missed);
    }
    let share = micros as f64 / span.as_micros() as f64;
    // A process that was looked at a moment after its parent may count twice.
    let most = machine::cores().map_or(f64::INFINITY, |it| it as f64);
    Ok((share.min(most) * 1_000.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use crate::watch::pattern::Pattern;

    /// A process with this mark in its command line.
    fn start(mark: &str) -> Child {
        let script = format!(": {mark}; read end");
        Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap()
    }

    fn ways(mark: &str) -> Vec<process::By> {
        vec![process::By::Command { pattern: Pattern::new(mark).unwrap(), except: None }]
    }

    fn sample(tracked: &mut Tracked, look: &Look, ways: &[process::By]) -> Used {
        let at = At { look, clock: SystemClock.now(), now: SystemClock.monotonic() };
        tracked.sample(&at, 0, ways).0
    }

    #[test]
    fn a_process_that_vanishes_while_it_is_read_is_unknown_and_not_0() {
        let mark = format!("lamda-vanishes-{}", std::process::id());
        let (mut child, ways, mut tracked) = (start(&mark), ways(&mark), Tracked::new());
        let look = Look::take(&SystemClock, std::slice::from_ref(&ways));
        child.kill().unwrap();
        child.wait().unwrap();
        let used = sample(&mut tracked, &look, &ways);
        assert!(
            used.readings[Metric::Memory].is_ok_and(|bytes| bytes > 0),
            "it was there at the look"
        );
        for metric in
            [Metric::DiskRead, Metric::DiskWrite, Metric::Descriptors, Metric::NetRx, Metric::NetTx]
        {
            assert_eq!(used.readings[metric], Err(Unknown::Gone), "{}", metric.name());
        }
        let look = Look::take(&SystemClock, std::slice::from_ref(&ways));
        let used = sample(&mut tracked, &look, &ways);
        for metric in COUNTERS.into_iter().chain(GAUGES) {
            assert_eq!(used.readings[metric], Err(Unknown::Gone), "{}", metric.name());
        }
        assert_eq!(used.figure("memory_mib"), Err(Unknown::Gone));
    }

    #[test]
    fn of_a_program_that_began_anew_no_share_is_told_of_the_time_before() {
        let mark = format!("lamda-anew-{}", std::process::id());
        let (mut child, ways, mut tracked) = (start(&mark), ways(&mark), Tracked::new());
        let look = |tracked: &mut Tracked| {
            let look = Look::take(&SystemClock, std::slice::from_ref(&ways));
            sample(tracked, &look, &ways).cpu_percent
        };
        assert_eq!(look(&mut tracked), Err(Unknown::Missed), "the first look");
        assert!(look(&mut tracked).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        let mut child = start(&mark);
        assert_eq!(look(&mut tracked), Err(Unknown::Missed));
        assert!(look(&mut tracked).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_program_that_is_known_by_its_log_alone_is_not_looked_for() {
        let look = Look::take(&SystemClock, &[Vec::new()]);
        let used = sample(&mut Tracked::new(), &look, &[]);
        assert_eq!(used.readings[Metric::Memory], Err(Unknown::NotSupported));
        assert_eq!(used.cards.as_ref().err(), Some(&Unknown::NotSupported));
    }

    #[test]
    fn a_share_is_bounded_by_the_cores_that_there_are() {
        let second = Duration::from_secs(1);
        assert_eq!(percent(123_456, second), Ok(12.3));
        let most = f64::from(u32::try_from(machine::cores().unwrap()).unwrap()) * 100.0;
        assert!((percent(u64::MAX, second).unwrap() - most).abs() < 0.1);
        assert_eq!(percent(1, Duration::ZERO), Err(Unknown::Missed));
    }
}
