//! Sessions of screen, by their sockets. Nothing is asked of screen itself: a call of it cleans up after others.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

/// Most folders of users, and most sessions of one, that are looked at.
const USERS_MAX: usize = 1_024;
const SESSIONS_MAX: usize = 256;

/// Longest name of a session, in bytes, that is kept.
const NAME_BYTES_MAX: usize = 255;

/// Where screen keeps its sockets, in a folder for each user.
const SHARED: [&str; 4] = ["/run/screen", "/var/run/screen", "/tmp/screens", "/tmp/uscreens"];

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The process that keeps it.
    pub pid: u32,
    /// Its name, without the number.
    pub name: String,
}

/// The folders with sockets on this machine: the shared ones, and those in the homes.
pub(super) fn folders() -> Vec<PathBuf> {
    let homes = std::fs::read_dir("/home").into_iter().flatten().flatten().take(USERS_MAX);
    let homes = homes.map(|entry| entry.path()).chain([PathBuf::from("/root")]);
    let own = homes.map(|home| home.join(".screen"));
    SHARED.iter().map(PathBuf::from).chain(own).collect()
}

/// All sessions in these folders, and whether all folders could be read.
pub(super) fn listed(folders: &[PathBuf]) -> (Vec<Session>, bool) {
    let (mut sessions, mut is_all) = (Vec::new(), true);
    for folder in folders {
        let users = match std::fs::read_dir(folder) {
            Ok(entries) => entries.flatten().take(USERS_MAX),
            Err(err) => {
                is_all &= is_absent(&err);
                continue;
            }
        };
        for entry in users {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => is_all &= list(&entry.path(), &mut sessions),
                Ok(_) => keep(&entry.path(), &mut sessions),
                Err(_) => {}
            }
        }
    }
    (sessions, is_all)
}

/// The sessions of one user. False if they can't be seen.
fn list(folder: &Path, sessions: &mut Vec<Session>) -> bool {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries.flatten().take(SESSIONS_MAX) {
                keep(&entry.path(), sessions);
            }
            true
        }
        Err(err) => is_absent(&err),
    }
}

fn is_absent(err: &std::io::Error) -> bool {
    matches!(err.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// A socket or a FIFO, whichever this screen was built with, by the name `PID.name`.
fn keep(path: &Path, sessions: &mut Vec<Session>) {
    let session = path.file_name().and_then(|name| parse(name.to_str()?));
    let Some(session) = session.filter(|session| !sessions.contains(session)) else { return };
    let kind = rustix::fs::lstat(path).map(|it| FileType::from_raw_mode(it.st_mode));
    if matches!(kind, Ok(FileType::Socket | FileType::Fifo)) {
        sessions.push(session);
    }
}

fn parse(name: &str) -> Option<Session> {
    let (pid, name) = name.split_once('.')?;
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    is_name.then_some(Session { pid: pid.parse().ok()?, name: name.to_owned() })
}

/// The session of a process of screen by its arguments, such as `SCREEN -dmS gensyn`: those of other users hide
/// their sockets.
pub(super) fn of_command(pid: u32, arguments: &[u8]) -> Option<Session> {
    let text = String::from_utf8_lossy(arguments);
    let mut words = text.split('\0');
    words.next().filter(|program| keeps(program))?;
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix('-') else { break };
        if let Some(at) = letters.find('S') {
            let name =
                letters.get(at + 1..).filter(|rest| !rest.is_empty()).or_else(|| words.next())?;
            return parse(&format!("{pid}.{name}"));
        }
    }
    None
}

/// Whether these are the arguments of a process that keeps a session.
pub(super) fn is_keeper(arguments: &[u8]) -> bool {
    arguments.split(|byte| *byte == 0).next().is_some_and(|it| keeps(&String::from_utf8_lossy(it)))
}

/// In small letters it is who looks at a session.
fn keeps(program: &str) -> bool {
    program.rsplit('/').next() == Some("SCREEN")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Option<String> {
        of_command(7, command.replace(' ', "\0").as_bytes()).map(|session| session.name)
    }

    #[test]
    fn a_session_is_known_by_the_arguments_of_its_process() {
        assert_eq!(of("SCREEN -dmS gensyn bash -c x").as_deref(), Some("gensyn"));
        assert_eq!(of("/usr/bin/SCREEN -S gensyn").as_deref(), Some("gensyn"));
        assert_eq!(of("SCREEN -Sgensyn").as_deref(), Some("gensyn"));
        assert_eq!(of("screen -r -S gensyn"), None, "who looks at it");
        assert_eq!(of("SCREEN bash -S x"), None, "of the program within");
        assert_eq!(of("SCREEN -S"), None);
    }

    #[test]
    fn only_sockets_and_fifos_with_a_number_and_a_name_are_sessions() {
        let dir = tempfile::tempdir().unwrap();
        let user = dir.path().join("S-rig");
        std::fs::create_dir(&user).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(user.join("12.gensyn")).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, user.join("13.a.b"), FileType::Fifo, mode, 0).unwrap();
        std::fs::write(user.join("14.file"), "").unwrap();
        std::os::unix::fs::symlink("12.gensyn", user.join("15.link")).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(user.join("gensyn")).unwrap();
        let folders = [dir.path().to_owned(), dir.path().join("none"), user.join("14.file")];
        let (mut sessions, is_all) = listed(&folders);
        sessions.sort_by_key(|session| session.pid);
        let wanted = [(12, "gensyn"), (13, "a.b")];
        let wanted = wanted.map(|(pid, name)| Session { pid, name: name.to_owned() });
        assert_eq!((sessions.as_slice(), is_all), (&wanted[..], true));
    }
}
