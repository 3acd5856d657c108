//! Is the program there? Its host says so, or its ports, or else its logs.

use std::time::Duration;

use super::{Answer, Finding, Look, lasting};
use crate::clock::Timestamp;
use crate::fleet::words::age;
use crate::watch::observation::{PROCESS, log_source};

/// How long a program may be gone before it counts as down: so long takes a restart.
const GONE_FOR: Duration = Duration::from_secs(30);

/// How long nothing may be written after a failure before it counts as its end.
const CRASHED_FOR: Duration = Duration::from_mins(1);

/// So many starts within the grace of its profile are a loop.
const STARTS_MAX: usize = 3;

pub(super) fn of(look: &Look<'_>) -> Finding {
    if look.state.watching.is_none() {
        return Finding::new(Answer::Unknown, "it isn't watched yet");
    }
    let host = if look.expect.has_process { by_host(look) } else { None };
    if host.as_ref().is_none_or(|host| host.answer == Answer::Yes)
        && let Some(closed) = closed_port(look)
    {
        return closed;
    }
    if let Some(host) = host {
        return host;
    }
    if !look.expect.logs.is_empty() {
        return by_logs(look);
    }
    by_ports(look)
}

/// A port that must be open and is not.
fn closed_port(look: &Look<'_>) -> Option<Finding> {
    let closed = look.expect.ports.iter().find_map(|name| {
        let (is_open, since) = look.state.ports.get(name)?;
        let is_known = look.trouble(&format!("port {name}")).is_none();
        let is_closed = is_known && !is_open && look.now.since(*since) >= GONE_FOR;
        is_closed.then_some((name, *since))
    });
    let (name, since) = closed?;
    let process = look.state.process.as_ref().filter(|it| it.is_running);
    let started = process.map(|it| it.started.unwrap_or(it.since));
    if started.is_some_and(|started| look.now.since(started) < look.expect.grace) {
        let why = format!("its port {name} is not open yet");
        return Some(Finding::new(Answer::Waiting, why));
    }
    let why = format!("nothing answers at its port {name} {}", lasting(look.now.since(since)));
    let found = Finding::new(Answer::No, why).with(format!("port {name}"), since, "closed");
    let crash = look.state.crash.as_ref();
    let cause = crash.and_then(|it| it.cause.as_deref());
    let found = found.because(look.expect, cause);
    Some(match crash {
        Some(crash) => found.heard(crash),
        None => found,
    })
}

/// What the host says; `None` while it says nothing.
fn by_host(look: &Look<'_>) -> Option<Finding> {
    if look.trouble(PROCESS).is_some() {
        return None;
    }
    let Some(process) = &look.state.process else {
        return Some(Finding::new(Answer::Waiting, "its host was not asked yet"));
    };
    let lately = |at: &&Timestamp| look.now.since(**at) <= look.expect.grace;
    let starts = look.state.starts.iter().filter(lately).count();
    if starts >= STARTS_MAX {
        let why =
            format!("it starts again and again: {starts} times within {}", age(look.expect.grace));
        let crash = look.state.crash.as_ref();
        let found = Finding::new(Answer::No, why);
        let found = found.because(look.expect, crash.and_then(|it| it.cause.as_deref()));
        return Some(found.with(PROCESS, process.at, process.why.clone()));
    }
    if process.is_running {
        let since = process.started.unwrap_or(process.since);
        let why = format!("it runs, {} now", age(look.now.since(since)));
        return Some(Finding::new(Answer::Yes, why).with(PROCESS, process.at, process.why.clone()));
    }
    if look.now.since(process.since) < GONE_FOR {
        return Some(Finding::new(Answer::Waiting, "it is gone, and may be starting again"));
    }
    let gone = look.now.since(process.since);
    let found = Finding::new(Answer::No, format!("it does not run {}", lasting(gone)));
    let crash = look.state.crash.as_ref();
    let found = found.because(look.expect, crash.and_then(|it| it.cause.as_deref()));
    let found = found.with(PROCESS, process.since, process.why.clone());
    Some(match crash {
        Some(crash) => found.heard(crash),
        None => found,
    })
}

fn by_logs(look: &Look<'_>) -> Finding {
    let logs = || look.expect.logs.iter();
    let last = logs().filter_map(|log| look.state.logs.get(log)?.last).max();
    let unread = logs().find_map(|log| look.trouble(&log_source(log)).map(|why| (log, why)));
    let is_new = |at: Timestamp| look.state.watching.is_some_and(|watching| at >= watching);
    // Where silence says nothing, neither does what was said before it.
    if let Some(crash) = look.state.crash.as_ref().filter(|it| is_new(it.at))
        && look.expect.idle.is_some()
    {
        let after = last.map_or(Duration::ZERO, |last| last.since(crash.at));
        if after < CRASHED_FOR && look.now.since(crash.at) >= CRASHED_FOR {
            let found = Finding::new(Answer::No, "its log ends with a failure");
            return found.because(look.expect, crash.cause.as_deref()).heard(crash);
        }
    }
    let Some(silent) = look.silent_for(last) else {
        return Finding::new(Answer::Unknown, "it isn't watched yet");
    };
    if look.patience(last).is_none_or(|patience| silent <= patience) {
        return match (last, unread) {
            (Some(last), _) => {
                let why = format!("its log grew {} ago", age(look.now.since(last)));
                let is_past = look.is_past(last, look.patience(Some(last)));
                let answer = if is_past { Answer::Waiting } else { Answer::Yes };
                Finding::new(answer, why).with(name_of(look, last), last, "a line")
            }
            (None, Some((log, why))) => {
                Finding::new(Answer::Unknown, format!("its log {log} can't be read: {why}"))
            }
            (None, None) => Finding::new(Answer::Waiting, "its log has not grown yet"),
        };
    }
    if let Some((log, why)) = unread {
        return Finding::new(Answer::Unknown, format!("its log {log} can't be read: {why}"));
    }
    let found = Finding::new(Answer::No, format!("its log has had no line {}", lasting(silent)));
    let found = found.because_or(look.expect, None, "gone-silent");
    match last {
        Some(last) => found.with(name_of(look, last), last, "the last line"),
        None => found,
    }
}

/// The log whose last line came then.
fn name_of(look: &Look<'_>, at: Timestamp) -> String {
    let is_it = |log: &&String| look.state.logs.get(*log).is_some_and(|it| it.last == Some(at));
    look.expect.logs.iter().find(is_it).map_or_else(String::new, |log| log_source(log))
}

fn by_ports(look: &Look<'_>) -> Finding {
    let ports = &look.expect.ports;
    if ports.is_empty() {
        return Finding::new(Answer::Unknown, "its profile names no process, log or port");
    }
    for name in ports {
        if let Some(why) = look.trouble(&format!("port {name}")) {
            let why = format!("its port {name} can't be asked: {why}");
            return Finding::new(Answer::Unknown, why);
        }
    }
    let seen: Vec<_> = ports.iter().map(|name| look.state.ports.get(name)).collect();
    if let [Some((true, since)), ..] = seen.as_slice()
        && seen.iter().all(|it| it.is_some_and(|(is_open, _)| *is_open))
    {
        let found = Finding::new(Answer::Yes, "its ports answer");
        return found.with("port", *since, "open");
    }
    let is_asked = seen.iter().all(Option::is_some);
    let why = if is_asked {
        "a port is closed, and may open again"
    } else {
        "its ports were not asked yet"
    };
    Finding::new(Answer::Waiting, why)
}
