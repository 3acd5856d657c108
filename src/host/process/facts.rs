//! What the checks of the original agent want to know of this machine.

use std::path::Path;
use std::time::Duration;

use super::one::why;
use super::{By, Look, port};
use crate::clock::{Clock, Timestamp};
use crate::usage::Unknown;
use crate::watch::checks::{Checks, Fact, Facts};
use crate::watch::pattern::Pattern;

/// How long ago a log changed; `None` if there is no such file.
pub fn log_age(path: &Path, now: Timestamp) -> Fact<Option<Duration>> {
    Ok(changed(path)?.map(|at| now.since(at)))
}

/// When a file changed; `None` if it isn't there. A folder has no age that says anything.
pub(super) fn changed(path: &Path) -> Fact<Option<Timestamp>> {
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(why(&err)),
    };
    if found.is_dir() {
        return Err(Unknown::NotSupported);
    }
    let since = found.modified().map_err(|err| why(&err))?;
    let since = since.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Ok(Some(Timestamp::from_unix_ms(ms)))
}

/// Gathers what the checks of the original agent want to know.
pub fn facts(checks: &Checks, clock: &impl Clock) -> Facts {
    let command = |pattern: &Pattern| By::Command {
        pattern: pattern.clone(),
        except: Some(checks.deny.clone()),
    };
    let programs = [vec![command(&checks.allow)], vec![command(&checks.daemon)]];
    let look = Look::take(clock, &programs);
    let (sessions, may_hide) = look.sessions();
    let named: Vec<_> = sessions.into_iter().filter(|it| it.name == checks.screen).collect();
    let session = match (named.is_empty(), may_hide) {
        (false, _) => Ok(true),
        (true, true) => Err(Unknown::Denied),
        (true, false) => Ok(false),
    };
    Facts {
        session,
        in_session: look.is_within(0, &named),
        anywhere: look.is_there(0),
        p2pd_in_session: look.is_within(1, &named),
        p2pd_anywhere: look.is_there(1),
        port: checks.port.map_or(Err(Unknown::Off), |port| port::is_listening(port, None)),
        log_age: match &checks.log {
            Some((path, _)) => log_age(path, clock.now()),
            None => Err(Unknown::Off),
        },
    }
}
