//! What one process says of itself to people: its arguments, its folder, what it belongs to.

use std::path::{Path, PathBuf};

use super::{Look, one};
use crate::usage::Unknown;
use crate::watch::checks::Fact;

/// The longest command line that is kept, in bytes.
const COMMAND_BYTES_MAX: u64 = 4 * 1024;

/// Most parents of a process that are asked for.
const PARENTS_MAX: usize = 64;

/// The length of a container's id.
const ID_BYTES: usize = 64;

/// A process, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its number.
    pub pid: u32,
    /// Its arguments, up to 4 KiB.
    pub arguments: Vec<String>,
    /// Its working directory, in its own view of the file system.
    pub folder: Fact<PathBuf>,
    /// The service of systemd that it belongs to.
    pub unit: Option<String>,
    /// The id of its container.
    pub container: Option<String>,
    /// The session of screen that it was begun in.
    pub screen: Option<String>,
}

impl Look {
    /// The processes that a program was found by, without those that these began; neither we nor who began us.
    pub fn roots(&self, program: usize) -> Vec<u32> {
        let own: Vec<u32> = self.parents(std::process::id());
        let places = self.roots.get(program).map_or(&[][..], Vec::as_slice);
        let pids = places.iter().filter_map(|place| Some(self.processes.get(*place)?.pid));
        pids.filter(|pid| !own.contains(pid)).collect()
    }

    /// Describes a process; `None` if it has ended.
    pub fn describe(&self, pid: u32) -> Option<Described> {
        self.describe_at(Path::new("/proc"), pid)
    }

    pub(super) fn describe_at(&self, proc: &Path, pid: u32) -> Option<Described> {
        let folder = proc.join(pid.to_string());
        let bytes = one::arguments(&folder, COMMAND_BYTES_MAX);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\0');
        if text.is_empty() {
            return None;
        }
        let groups = one::groups(&folder);
        let link = std::fs::read_link(folder.join("cwd")).map_err(|err| one::why(&err));
        Some(Described {
            pid,
            arguments: text.split('\0').map(str::to_owned).collect(),
            folder: link
                .and_then(|link| if link.is_absolute() { Ok(link) } else { Err(Unknown::Gone) }),
            unit: unit_of(&groups),
            container: container_of(&groups),
            screen: self.screen_of(pid),
        })
    }

    fn screen_of(&self, pid: u32) -> Option<String> {
        let (sessions, _) = self.sessions();
        let parents = self.parents(pid);
        sessions.into_iter().find(|it| parents.contains(&it.pid)).map(|session| session.name)
    }

    /// A process and those that began it.
    fn parents(&self, pid: u32) -> Vec<u32> {
        let first = self.process(pid);
        let next = |process: &&super::Process| self.process(process.parent);
        std::iter::successors(first, next).take(PARENTS_MAX).map(|process| process.pid).collect()
    }
}

/// The innermost service in the paths of the groups. A user's own manager is none of its programs.
fn unit_of(groups: &str) -> Option<String> {
    let parts = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let units = parts.flat_map(|path| path.split('/').rev());
    let is_unit = |part: &&str| part.ends_with(".service") && !part.starts_with("user@");
    units.filter(is_unit).map(str::to_owned).next()
}

/// The id that engines name their groups by.
fn container_of(groups: &str) -> Option<String> {
    let words = groups.split(|c: char| !c.is_ascii_alphanumeric());
    let is_id = |word: &&str| {
        word.len() == ID_BYTES
            && word.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    words.filter(is_id).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_service_and_the_containers_id_are_read_from_the_groups() {
        let id = "ab".repeat(32);
        for (groups, unit, container) in [
            ("0::/system.slice/rl-swarm.service\n".to_owned(), Some("rl-swarm.service"), None),
            (format!("0::/system.slice/docker-{id}.scope\n"), None, Some(id.as_str())),
            (format!("4:memory:/docker/{id}\n"), None, Some(id.as_str())),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n".to_owned(),
                Some("x.service"),
                None,
            ),
            ("0::/user.slice/user@1000.service/init.scope\n".to_owned(), None, None),
            (String::new(), None, None),
        ] {
            assert_eq!(unit_of(&groups).as_deref(), unit, "{groups}");
            assert_eq!(container_of(&groups).as_deref(), container, "{groups}");
        }
    }
}
