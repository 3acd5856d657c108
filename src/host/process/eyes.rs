//! Looks at the same programs again and again, at little cost.
//!
//! Must hold: a program that ended, and one that was begun anew, is noticed at the next look; what it began, and one
//! that was not there, at the latest after [`ALL_EVERY`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{By, Look, Process, session};
use crate::clock::Clock;

/// How often all processes are looked at, and not those of the programs alone.
pub const ALL_EVERY: Duration = Duration::from_secs(10);

/// What was seen last.
#[derive(Debug)]
pub struct Eyes {
    programs: Vec<Vec<By>>,
    proc: PathBuf,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    look: Look,
    /// The programs' processes, by their places.
    its: Vec<usize>,
    /// When all processes were looked at, since the boot.
    at: Duration,
}

impl Eyes {
    /// For these programs. Nothing is looked at yet.
    pub fn new(programs: Vec<Vec<By>>) -> Self {
        Self { programs, proc: PathBuf::from("/proc"), last: None }
    }

    /// Looks at the programs; at all processes only if that is needed to know.
    pub fn look(&mut self, clock: &impl Clock) -> &Look {
        let now = clock.monotonic();
        let known = self.last.take().filter(|last| now.saturating_sub(last.at) < ALL_EVERY);
        let known = known.and_then(|last| again(last, &self.proc, clock));
        let last = known.unwrap_or_else(|| self.all(clock, now));
        &self.last.insert(last).look
    }

    /// What was seen last.
    pub fn seen(&self) -> Option<&Look> {
        self.last.as_ref().map(|last| &last.look)
    }

    fn all(&self, clock: &impl Clock, at: Duration) -> Last {
        let look = Look::take_at(&self.proc, &session::folders(), clock, &self.programs);
        let mut its: Vec<usize> = look.roots.iter().flat_map(|roots| look.below(roots)).collect();
        its.sort_unstable();
        its.dedup();
        Last { look, its, at }
    }
}

/// The same look with what its programs use now; nothing if one of them ended.
fn again(mut last: Last, proc: &Path, clock: &impl Clock) -> Option<Last> {
    last.look.now = clock.now();
    last.look.since_boot = clock.monotonic();
    for place in &last.its {
        let is_root = last.look.roots.iter().any(|roots| roots.contains(place));
        let process = last.look.processes.get_mut(*place)?;
        if process.is_gone {
            continue;
        }
        let now = Process::read(&proc.join(process.pid.to_string()), process.pid);
        match now.ok().filter(|now| now.started_ticks == process.started_ticks) {
            Some(now) => *process = now,
            None if is_root => return None,
            // What it used is its parent's now.
            None => process.is_gone = true,
        }
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Stopped, laid_out};
    use super::*;
    use crate::watch::pattern::Pattern;

    fn eyes(proc: &Path) -> Eyes {
        let by =
            |pattern| vec![By::Command { pattern: Pattern::new(pattern).unwrap(), except: None }];
        Eyes { proc: proc.to_owned(), ..Eyes::new(vec![by("launcher"), by("server")]) }
    }

    #[test]
    fn between_looks_at_all_a_programs_end_is_noticed_at_once_and_a_new_one_in_its_time() {
        let proc = laid_out(&[
            (1, "init", 0, "init", ""),
            (2, "kthreadd", 0, "", ""),
            (10, "python", 1, "python launcher", ""),
            (11, "python", 10, "python worker", ""),
        ]);
        let clock = Stopped::default();
        let mut eyes = eyes(proc.path());
        let first = eyes.look(&clock).found(0);
        assert_eq!((first.pids.as_slice(), first.uses.cpu_ms), (&[10, 11][..], Ok(600)));
        // Its worker ends, and what that used is counted to its parent.
        std::fs::remove_dir_all(proc.path().join("11")).unwrap();
        let stat = proc.path().join("10/stat");
        let text = std::fs::read_to_string(&stat).unwrap();
        std::fs::write(&stat, text.replace(" 10 20 0 0 ", " 10 20 10 20 ")).unwrap();
        let second = eyes.look(&clock).found(0);
        assert_eq!((second.pids.as_slice(), second.uses.cpu_ms), (&[10][..], Ok(600)));
        assert_eq!((second.uses.processes, second.first), (Ok(1), first.first));
        // Another program begins: it is seen with all others.
        let more = laid_out(&[(30, "redis", 1, "redis server", "")]);
        std::fs::rename(more.path().join("30"), proc.path().join("30")).unwrap();
        assert_eq!(eyes.look(&clock).is_there(1), Ok(false));
        clock.wait(ALL_EVERY);
        assert_eq!(eyes.look(&clock).is_there(1), Ok(true));
        // The number is another's: that is the program's end.
        let other = laid_out(&[(10, "bash", 1, "bash", "")]);
        let text = std::fs::read_to_string(other.path().join("10/stat")).unwrap();
        std::fs::write(&stat, text.replace(" 3 0 10 ", " 3 0 999 ")).unwrap();
        std::fs::write(proc.path().join("10/cmdline"), "bash").unwrap();
        assert_eq!(eyes.look(&clock).is_there(0), Ok(false));
    }
}
