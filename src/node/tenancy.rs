//! Who uses a card besides the job that holds it: the previous job, or a program of the owner.
//!
//! Pure. Invariant: missing data never holds a card back for ever: a driver that does not report processes or
//! memory gives no reason to wait.

use super::card::{Reading, Sample};

/// Bytes that may be in use beyond those before the job: drivers free some of their own memory late.
const SLACK: u64 = 256 << 20;

/// A program of the owner with less memory than this, in bytes, does not count: a desktop always holds some.
const SMALL: u64 = 256 << 20;

/// The owner of a process that uses a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenant {
    /// The job that just ended.
    Former,
    /// Another job of this node.
    Job,
    /// The host: it is no job's process.
    Foreign,
    /// The host does not show the process.
    Unknown,
}

/// What the previous job still holds on the card, in words; `None` if nothing. `before`: a sample of
/// the card while no job had it.
pub fn remains(
    now: &Sample,
    before: Option<&Sample>,
    whose: impl Fn(u32) -> Tenant,
) -> Option<String> {
    if let Ok(processes) = &now.processes
        && let Some(process) = processes.iter().find(|it| whose(it.pid) == Tenant::Former)
    {
        return Some(format!("process {} of the job before still uses it", process.pid));
    }
    let (now, before) = (unexplained(now, &whose), unexplained(before?, &whose));
    let more = now.ok()?.saturating_sub(before.ok()?);
    (more > SLACK).then(|| format!("{} MiB of the job before are still in use", more >> 20))
}

/// Whether the driver names every process on the card and the host shows it. If not, it can't be told whose memory
/// is in use: the node may run in a process namespace of its own.
pub fn is_visible(now: &Sample, whose: impl Fn(u32) -> Tenant) -> bool {
    let is_known = |pid| whose(pid) != Tenant::Unknown;
    now.processes.as_ref().is_ok_and(|processes| processes.iter().all(|it| is_known(it.pid)))
}

/// Memory in use that processes of the host and of other jobs don't explain.
fn unexplained(sample: &Sample, whose: impl Fn(u32) -> Tenant) -> Reading<u64> {
    let used = sample.used_bytes.clone()?;
    let processes = sample.processes.as_deref().unwrap_or_default();
    let others =
        processes.iter().filter(|it| matches!(whose(it.pid), Tenant::Foreign | Tenant::Job));
    // A process of unknown size may explain all of it.
    let explained = others.map(|it| it.bytes.clone()).sum::<Reading<u64>>()?;
    Ok(used.saturating_sub(explained))
}

/// The owner's program that uses the card, in words; `None` if there is none.
pub fn foreign(now: &Sample, whose: impl Fn(u32) -> Tenant) -> Option<String> {
    let processes = now.processes.as_deref().unwrap_or_default();
    let is_large = |bytes: &Reading<u64>| bytes.as_ref().map_or(true, |bytes| *bytes >= SMALL);
    let found =
        processes.iter().find(|it| whose(it.pid) == Tenant::Foreign && is_large(&it.bytes))?;
    Some(format!("process {} of the host uses it", found.pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::card::{CardProcess, Rows, Slowed, Unknown};

    const MIB: u64 = 1 << 20;

    fn sample(used_mib: u64, processes: &[(u32, u64)]) -> Sample {
        let process = |&(pid, mib): &(u32, u64)| CardProcess { pid, bytes: Ok(mib * MIB) };
        Sample {
            busy_percent: Ok(0),
            used_bytes: Ok(used_mib * MIB),
            free_bytes: Ok(0),
            power_mw: Ok(0),
            energy_mj: Ok(0),
            sm_mhz: Ok(0),
            memory_mhz: Ok(0),
            celsius: Ok(0),
            slowed: Ok(Slowed::default()),
            uncorrected_errors: Ok(0),
            rows: Ok(Rows::default()),
            processes: Ok(processes.iter().map(process).collect()),
        }
    }

    /// Process 1 is the former job's, 2 another job's, 3 the host's.
    fn whose(pid: u32) -> Tenant {
        [Tenant::Former, Tenant::Job, Tenant::Foreign][pid as usize - 1]
    }

    #[test]
    fn a_card_is_free_once_neither_process_nor_memory_of_the_job_is_left() {
        let before = sample(500, &[(3, 400)]);
        let left = |now: &Sample| remains(now, Some(&before), whose);
        let text = left(&sample(70_500, &[(1, 70_000), (3, 400)]));
        assert_eq!(text.as_deref(), Some("process 1 of the job before still uses it"));
        let text = left(&sample(70_500, &[(3, 400)]));
        assert_eq!(text.as_deref(), Some("70000 MiB of the job before are still in use"));
        assert_eq!(left(&sample(600, &[(3, 400)])), None);
        assert_eq!(left(&sample(9_100, &[(3, 9_000)])), None, "the owner's program grew");
        assert_eq!(left(&sample(9_100, &[(3, 0), (2, 9_000)])), None, "the next job is there");
    }

    #[test]
    fn what_is_not_known_keeps_no_card_back() {
        let now = sample(70_500, &[]);
        assert_eq!(remains(&now, None, whose), None);
        let now = Sample::unknown(&Unknown::NotSupported);
        assert_eq!(remains(&now, Some(&sample(0, &[])), whose), None);
        assert_eq!(foreign(&now, whose), None);
        // The memory may be a program's that the driver does not name.
        let now = Sample { processes: Err(Unknown::NotSupported), ..sample(900, &[]) };
        assert!(
            remains(&now, Some(&sample(500, &[])), whose).is_some() && !is_visible(&now, whose)
        );
        assert!(is_visible(&sample(900, &[(3, 400)]), whose));
    }

    #[test]
    fn a_large_program_of_the_hosts_uses_the_card_and_a_desktop_does_not() {
        assert_eq!(foreign(&sample(0, &[(1, 9000), (2, 9000), (3, 100)]), whose), None);
        let found = foreign(&sample(0, &[(3, 300)]), whose);
        assert_eq!(found.as_deref(), Some("process 3 of the host uses it"));
    }
}
