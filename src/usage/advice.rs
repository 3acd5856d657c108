//! What a job used against what it asked for, in lines that a person reads, and one line of advice.
//!
//! Pure. Invariants: what is not known is said to be unknown, with its reason, and nothing is advised on it; there is
//! at most one advice.

use std::time::Duration;

use super::figures::Usage;
use super::metric::Metric;
use super::sample::{Reading, Unknown};
use super::tally::percent;
use super::totals::Totals;

/// Jobs shorter than this are given no advice: their start weighs too much.
const ADVICE_FROM: Duration = Duration::from_secs(10);

/// Cells of a bar.
const CELLS: u64 = 10;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a job asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// Its limit of memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Its limit of CPU, in billionths of a core.
    pub nano_cpus: Option<u64>,
    /// Number of cards.
    pub cards: u32,
    /// Its limit of disk, in bytes.
    pub disk_bytes: Option<u64>,
}

/// What a job used, as far as its lines need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// How long it ran.
    pub elapsed: Duration,
    /// The most memory that it had, in bytes.
    pub memory_bytes: Reading,
    /// Whether that includes pages of files, with which the kernel fills all memory that there is.
    pub has_file_pages: bool,
    /// Its CPU use over its whole life, in thousandths of a core.
    pub milli_cpus: Reading,
    /// Its highest CPU use between two samples, in thousandths of a core.
    pub milli_cpus_max: Reading,
    /// Time in which its cards were busy, summed over them, in milliseconds.
    pub gpu_ms: Reading,
    /// The most that it had on the disk, in bytes.
    pub disk_bytes: Reading,
    /// Whether one of its cards was slowed.
    pub is_throttled: bool,
}

impl Used {
    /// What these totals say. They don't know the room on the disk, which is measured elsewhere.
    pub fn of_totals(totals: &Totals) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` clamps it"
        )]
        let milli = |percent: f64| (percent * 10.0).round() as u64;
        Self {
            elapsed: Duration::from_micros(totals.elapsed_us()),
            memory_bytes: totals.total(Metric::Memory),
            has_file_pages: false,
            milli_cpus: totals.cpu_average().map(milli),
            milli_cpus_max: totals.cpu_maximum().map(milli),
            gpu_ms: totals.gpu_ms(),
            disk_bytes: Err(Unknown::NotSupported),
            is_throttled: totals.is_throttled(),
        }
    }

    /// What the final figures of a job that ran so long say. They don't know its highest CPU use.
    pub fn of_usage(usage: &Usage, elapsed: Duration) -> Self {
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        Self {
            elapsed,
            memory_bytes: usage.memory_peak_bytes,
            has_file_pages: true,
            milli_cpus: usage.cpu_us.map(|us| us.saturating_mul(1_000) / elapsed_us),
            milli_cpus_max: Err(Unknown::Missed),
            gpu_ms: usage.gpu_ms,
            disk_bytes: Err(Unknown::NotSupported),
            is_throttled: false,
        }
    }

    /// Share of the time in which its cards were busy, in percent.
    fn gpu_percent(&self, cards: u32) -> Result<u64, Unknown> {
        let whole_ms = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX);
        share(self.gpu_ms?, whole_ms.saturating_mul(cards.into())).ok_or(Unknown::Missed)
    }
}

/// One line for each thing that the job asked for or that is known of it: name, bar, figures. `is_ascii` draws the bars
/// for terminals that have no other characters.
pub fn lines(asked: &Asked, used: &Used, is_ascii: bool) -> Vec<String> {
    let bytes_of = |name: &str, reading: Reading, limit: Option<u64>| {
        let text = |most: u64| match limit {
            Some(limit) => format!("{} of {} at most", number_of(most, limit), size(limit)),
            None => format!("{} at most, without a limit", size(most)),
        };
        line(name, reading.map(|most| (text(most), limit.and_then(|l| share(most, l)))), is_ascii)
    };
    let mut lines = vec![bytes_of("memory", used.memory_bytes, asked.memory_bytes)];
    let cpu = used.milli_cpus.map(|milli| match asked.nano_cpus {
        Some(nano) => {
            let asked_milli = nano / 1_000_000;
            let text = format!("{} of {} on average", cores(milli), cores_word(asked_milli));
            (text, share(milli, asked_milli))
        }
        None => (format!("{} on average, without a limit", cores_word(milli)), None),
    });
    lines.push(line("cpu", cpu, is_ascii));
    if asked.cards > 0 {
        let word =
            if asked.cards == 1 { "1 card".into() } else { format!("{} cards", asked.cards) };
        let busy = used.gpu_percent(asked.cards);
        let text = busy.map(|percent| (format!("{word} busy on average"), Some(percent)));
        lines.push(line("gpu", text, is_ascii));
    }
    if asked.disk_bytes.is_some() {
        lines.push(bytes_of("disk", used.disk_bytes, asked.disk_bytes));
    }
    lines
}

/// The advice that matters most, if there is one. In this order: the memory was nearly all used (the next run may be
/// ended for it); the cards were idle for half of the time or more (they are what costs most); a card was slowed; at
/// most half of the memory was used; at most half of the cores were ever used.
pub fn advice(asked: &Asked, used: &Used) -> Option<String> {
    if used.elapsed < ADVICE_FROM {
        return None;
    }
    let memory = asked.memory_bytes.zip(used.memory_bytes.ok());
    let memory = memory.and_then(|(limit, most)| Some((limit, most, share(most, limit)?)));
    let idle = (asked.cards > 0).then(|| used.gpu_percent(asked.cards).ok()).flatten();
    let idle = idle.map(|busy| 100_u64.saturating_sub(busy)).filter(|idle| *idle >= 50);
    let tight = memory.filter(|(_, _, share)| *share >= 95 && !used.has_file_pages);
    let ample = memory.filter(|(_, _, share)| *share <= 50);
    let with_room = |most: u64| rounded_up(most.saturating_add(most / 2));
    if let Some((limit, most, share)) = tight {
        let more = size(with_room(most));
        return Some(format!("it used {share} % of {} of memory: ask for {more}", size(limit)));
    }
    if let Some(idle) = idle {
        let whose = if asked.cards == 1 { "GPU was" } else { "GPUs were" };
        return Some(format!("the {whose} idle for {idle} % of the time"));
    }
    if used.is_throttled {
        return Some("a GPU was slowed by heat or by its power supply".to_owned());
    }
    // Of little memory, there is nothing to give back.
    if let Some((limit, most, share)) = ample.filter(|(limit, most, _)| with_room(*most) < *limit) {
        let less = size(with_room(most));
        return Some(format!("it used {share} % of {} of memory: ask for {less}", size(limit)));
    }
    cpu_advice(asked, used)
}

fn cpu_advice(asked: &Asked, used: &Used) -> Option<String> {
    let asked_milli = asked.nano_cpus? / 1_000_000;
    let (average, most) = (used.milli_cpus.ok()?, used.milli_cpus_max.ok()?);
    // A twentieth of a core over a whole number is the grain of the measurement.
    let enough = most.saturating_sub(50).div_ceil(1_000).max(1);
    (enough.saturating_mul(2_000) <= asked_milli).then(|| {
        let asked = cores_word(asked_milli);
        format!("it used {} of {asked}: ask for {enough}", cores(average))
    })
}

/// Name, bar, text and share; or name and reason.
fn line(name: &str, known: Result<(String, Option<u64>), Unknown>, is_ascii: bool) -> String {
    match known {
        Ok((text, Some(share))) => {
            format!("{name:<7} {}  {text} ({share} %)", bar(share, is_ascii))
        }
        Ok((text, None)) => format!("{name:<7} {text}"),
        Err(why) => format!("{name:<7} unknown: {why}"),
    }
}

/// A bar for this many percent: at least one cell if there are any, at most all.
fn bar(share: u64, is_ascii: bool) -> String {
    let (full, empty) = if is_ascii { ("#", ".") } else { ("█", "░") };
    let filled = (share.saturating_mul(CELLS) + 50) / 100;
    let filled = filled.clamp(u64::from(share > 0), CELLS);
    let cells = (0..CELLS).map(|cell| if cell < filled { full } else { empty });
    cells.collect()
}

/// `part` of `whole` in whole percent; `None` if `whole` is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` clamps it")]
fn share(part: u64, whole: u64) -> Option<u64> {
    (whole > 0).then(|| percent(part, whole).round() as u64)
}

/// Bytes in the largest unit of which there is one, to a decimal where it is not whole.
pub fn size(bytes: u64) -> String {
    let (scale, unit) = unit_of(bytes);
    format!("{} {unit}", decimal(bytes, scale))
}

/// Bytes as a number in the unit in which `like` is shown, or with a unit of their own where they would be 0 in it.
fn number_of(bytes: u64, like: u64) -> String {
    let (scale, _) = unit_of(like);
    if bytes > 0 && bytes < scale / 10 { size(bytes) } else { decimal(bytes, scale) }
}

const fn unit_of(bytes: u64) -> (u64, &'static str) {
    match bytes {
        GIB.. => (GIB, "GiB"),
        MIB.. => (MIB, "MiB"),
        KIB.. => (KIB, "KiB"),
        _ => (1, "bytes"),
    }
}

fn decimal(value: u64, scale: u64) -> String {
    let tenths = (u128::from(value) * 10 + u128::from(scale) / 2) / u128::from(scale);
    if value.is_multiple_of(scale) {
        format!("{}", tenths / 10)
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

/// Bytes rounded up to whole units that a person would write: GiB, or 64 MiB.
const fn rounded_up(bytes: u64) -> u64 {
    let unit = if bytes >= GIB { GIB } else { 64 * MIB };
    bytes.div_ceil(unit).saturating_mul(unit)
}

/// Thousandths of a core as cores, with one decimal.
fn cores(milli: u64) -> String {
    let tenths = milli.saturating_add(50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The same with its word; whole numbers without a decimal.
fn cores_word(milli: u64) -> String {
    let number =
        if milli.is_multiple_of(1_000) { (milli / 1_000).to_string() } else { cores(milli) };
    let word = if milli == 1_000 { "core" } else { "cores" };
    format!("{number} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Hash;

    const ASKED: Asked = Asked {
        memory_bytes: Some(64 * GIB),
        nano_cpus: Some(8_000_000_000),
        cards: 1,
        disk_bytes: None,
    };

    /// A job of 100 seconds that used all that it asked for.
    const FULL: Used = Used {
        elapsed: Duration::from_secs(100),
        memory_bytes: Ok(50 * GIB),
        has_file_pages: false,
        milli_cpus: Ok(7_500),
        milli_cpus_max: Ok(8_000),
        gpu_ms: Ok(95_000),
        disk_bytes: Ok(0),
        is_throttled: false,
    };

    #[test]
    fn lines_show_what_was_used_of_what_was_asked_for() {
        let used = Used {
            memory_bytes: Ok(3_800 * MIB),
            milli_cpus: Ok(1_040),
            gpu_ms: Ok(20_000),
            ..FULL
        };
        assert_eq!(
            lines(&ASKED, &used, false),
            [
                "memory  █░░░░░░░░░  3.7 of 64 GiB at most (6 %)",
                "cpu     █░░░░░░░░░  1.0 of 8 cores on average (13 %)",
                "gpu     ██░░░░░░░░  1 card busy on average (20 %)",
            ]
        );
        let asked = Asked { cards: 2, disk_bytes: Some(10 * GIB), ..ASKED };
        let used = Used { memory_bytes: Ok(70 * GIB), disk_bytes: Ok(5 * MIB), ..used };
        assert_eq!(
            lines(&asked, &used, true),
            [
                "memory  ##########  70 of 64 GiB at most (109 %)",
                "cpu     #.........  1.0 of 8 cores on average (13 %)",
                "gpu     #.........  2 cards busy on average (10 %)",
                "disk    ..........  5 MiB of 10 GiB at most (0 %)",
            ]
        );
    }

    #[test]
    fn lines_say_what_is_unknown_and_why_and_what_has_no_limit() {
        let used = Used { memory_bytes: Err(Unknown::Denied), milli_cpus: Ok(1_500), ..FULL };
        assert_eq!(
            lines(&Asked::default(), &used, false),
            [
                "memory  unknown: not allowed to the node's user",
                "cpu     1.5 cores on average, without a limit",
            ]
        );
        let used = Used { memory_bytes: Ok(300 * KIB), gpu_ms: Err(Unknown::TooOld), ..FULL };
        let said = lines(&Asked { memory_bytes: None, ..ASKED }, &used, false);
        assert_eq!(said[0], "memory  300 KiB at most, without a limit");
        assert_eq!(said[2], "gpu     unknown: the driver is too old");
    }

    #[test]
    fn the_advice_is_the_one_that_matters_most() {
        let tight = Used { memory_bytes: Ok(62 * GIB), ..FULL };
        let idle = Used { gpu_ms: Ok(20_000), is_throttled: true, ..FULL };
        let ample = Used { memory_bytes: Ok(3_800 * MIB), milli_cpus_max: Ok(900), ..FULL };
        let slow = Used { is_throttled: true, ..ample };
        let few_cores = Used { milli_cpus: Ok(960), milli_cpus_max: Ok(1_040), ..FULL };
        for (used, says) in [
            (Used { gpu_ms: Ok(0), ..tight }, "it used 97 % of 64 GiB of memory: ask for 93 GiB"),
            (idle, "the GPU was idle for 80 % of the time"),
            (slow, "a GPU was slowed by heat or by its power supply"),
            (ample, "it used 6 % of 64 GiB of memory: ask for 6 GiB"),
            (few_cores, "it used 1.0 of 8 cores: ask for 1"),
        ] {
            assert_eq!(advice(&ASKED, &used).as_deref(), Some(says));
        }
    }

    #[test]
    fn there_is_no_advice_without_need_knowledge_or_time() {
        let wasteful = Used {
            memory_bytes: Ok(0),
            milli_cpus: Ok(0),
            milli_cpus_max: Ok(0),
            gpu_ms: Ok(0),
            is_throttled: true,
            ..FULL
        };
        let unknown = Err(Unknown::Failed);
        let blind = Used {
            memory_bytes: unknown,
            milli_cpus: unknown,
            milli_cpus_max: unknown,
            gpu_ms: unknown,
            ..FULL
        };
        let bursts = Used { milli_cpus: Ok(500), ..FULL };
        let short = Used { elapsed: Duration::from_millis(9_999), ..wasteful };
        let full_of_files = Used { memory_bytes: Ok(64 * GIB), has_file_pages: true, ..FULL };
        for used in [FULL, blind, bursts, short, full_of_files] {
            assert_eq!(advice(&ASKED, &used), None, "{used:?}");
        }
        assert!(advice(&ASKED, &wasteful).is_some());
        let nothing_asked = Used { is_throttled: false, ..wasteful };
        assert_eq!(advice(&Asked::default(), &nothing_asked), None);
        let small = Asked { memory_bytes: Some(64 * MIB), ..Asked::default() };
        assert_eq!(advice(&small, &Used { memory_bytes: Ok(30 * MIB), ..FULL }), None);
    }

    #[test]
    fn final_figures_give_the_same_lines_and_no_advice_on_cores() {
        let usage = Usage {
            cpu_us: Ok(104_000_000),
            memory_peak_bytes: Ok(40 * GIB),
            gpu_ms: Ok(90_000),
            series_head: Hash([0; 32]),
            ..Usage::unknown(Unknown::Off)
        };
        let used = Used::of_usage(&usage, Duration::from_secs(100));
        assert_eq!(
            lines(&ASKED, &used, true),
            [
                "memory  ######....  40 of 64 GiB at most (63 %)",
                "cpu     #.........  1.0 of 8 cores on average (13 %)",
                "gpu     #########.  1 card busy on average (90 %)",
            ]
        );
        assert_eq!(advice(&ASKED, &used), None);
        assert_eq!(Used::of_totals(&Totals::default()).milli_cpus, Err(Unknown::Missed));
    }
}
