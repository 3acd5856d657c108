//! A container's exit, and its output in parallel.
//!
//! The engine reports the exit by its wait call, the output by its log, and who ended the container by its
//! events, each on its own connection. Must hold: the exit never depends on the other two. The engine writes
//! a job's output to a file, so a slow reader delays neither the job nor its exit; a reader that takes
//! nothing more after the exit is abandoned.
//!
//! The events are followed from the beginning: an engine that shuts down accepts no new connections, but
//! reports on open ones how it stops its containers (seen with 20.10). An engine that was killed sends the
//! same signals when it is back, and remembers those; events of its previous process are forgotten
//! (docs/adr/0017-a-containers-end.md).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::{ContainerState, ContainerStateStatusEnum as Status, EventMessage};
use bollard::query_parameters::{EventsOptionsBuilder, WaitContainerOptions};
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};

use super::super::{ContainerId, EndedBy, Error, Exit, Gone, LogSink};
use super::Docker;
use super::fault::{self, EngineError};
use super::inspect::inspect;
use super::output::Output;
use crate::clock::Timestamp;

/// How often the container is inspected while the wait is unanswered: a connection can die silently.
const PULSE: Duration = Duration::from_secs(30);
/// How long to wait for the engine's event about an exit. It comes with the exit or not at all.
const NEWS_WAIT: Duration = Duration::from_secs(2);

/// Containers whose events are kept: more than any node runs at a time.
const HEARD_MAX: usize = 2048;

/// The events of each container, the newest container last. An engine that shuts down reports an end before
/// its wait call breaks off, and has forgotten it when it is back.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<VecDeque<(String, Arc<News>)>>);

impl Heard {
    fn of(&self, id: &ContainerId) -> Arc<News> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, news)) = heard.iter().find(|(known, _)| *known == id.0) {
            return Arc::clone(news);
        }
        let news = Arc::new(News::default());
        heard.push_back((id.0.clone(), Arc::clone(&news)));
        if heard.len() > HEARD_MAX {
            heard.pop_front();
        }
        news
    }
}

/// What the engine's events have said about one container so far.
#[derive(Debug, Default)]
struct News {
    was_signalled: AtomicBool,
    /// Unix time in ms; 0 if not reported.
    started_at: AtomicU64,
    died_at: AtomicU64,
}

/// Sends the output to `sink` and returns the exit.
pub(super) async fn follow(
    docker: &Docker,
    id: &ContainerId,
    sink: LogSink,
    gone: Gone<'_>,
) -> Result<Exit, Error> {
    let news = docker.heard.of(id);
    let mut events = Box::pin(listen(docker, id, &news));
    let mut end = Box::pin(end(docker, id, sink, gone));
    let code = tokio::select! {
        biased;
        () = &mut events => end.await?,
        code = &mut end => {
            // Also if the wait broke off: the event that explains it may be on its way on the other
            // connection.
            timeout(NEWS_WAIT, events).await.ok();
            code?
        }
    };
    match inspect(docker, &id.0).await {
        Ok(found) => {
            let state = found.and_then(|found| found.state);
            exit_of(&state.ok_or_else(|| Error::Gone(id.clone()))?, code, news.ended_by())
        }
        // An engine that has shut down can't be inspected: its events have to do.
        Err(err) => news.exit(code).ok_or(err),
    }
}

/// The exit code, once the processes are gone and the output has been read.
async fn end(
    docker: &Docker,
    id: &ContainerId,
    sink: LogSink,
    gone: Gone<'_>,
) -> Result<i64, Error> {
    let output = Output::new(docker, id, sink);
    let mut exit = Box::pin(exit_code(docker, id));
    let mut followed = Box::pin(output.follow());
    tokio::select! {
        biased;
        code = &mut exit => {
            let code = code?;
            gone();
            output.finish(Some(followed)).await;
            Ok(code)
        }
        () = &mut followed => {
            let code = exit.await?;
            gone();
            output.finish(None::<std::future::Ready<()>>).await;
            Ok(code)
        }
    }
}

/// Reads the container's past and future events, until its `die` event or the end of the stream.
async fn listen(docker: &Docker, id: &ContainerId, news: &News) {
    let Ok(client) = docker.client().await else { return };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let filters = HashMap::from([
        ("container".to_owned(), words(&[&id.0])),
        ("event".to_owned(), words(&["start", "kill", "die"])),
    ]);
    // Without `since` the engine sends no past events.
    let options = EventsOptionsBuilder::default().since("1").filters(&filters).build();
    let mut events = Box::pin(client.events(Some(options)));
    while let Some(Ok(event)) = events.next().await {
        if news.take(&event) {
            return;
        }
    }
}

impl News {
    /// Records an event. Returns whether it was the last one.
    fn take(&self, event: &EventMessage) -> bool {
        let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
        let signal = attributes.and_then(|attributes| attributes.get("signal"));
        let at_ms =
            u64::try_from(event.time_nano.unwrap_or_default()).unwrap_or_default() / 1_000_000;
        match (event.action.as_deref(), signal.map(String::as_str)) {
            (Some("start"), _) => self.started_at.store(at_ms, Ordering::Relaxed),
            // Only SIGKILL and SIGTERM ask a container to end; other signals are between its owner and the
            // job.
            (Some("kill"), Some("9" | "15")) => self.was_signalled.store(true, Ordering::Relaxed),
            (Some("die"), _) => self.died_at.store(at_ms, Ordering::Relaxed),
            _ => {}
        }
        event.action.as_deref() == Some("die")
    }

    fn ended_by(&self) -> EndedBy {
        if self.was_signalled.load(Ordering::Relaxed) {
            EndedBy::Engine
        } else if self.died_at.load(Ordering::Relaxed) > 0 {
            EndedBy::Itself
        } else {
            EndedBy::Unknown
        }
    }

    /// The exit from events alone; `None` unless the engine ended the container and its times are known.
    fn exit(&self, code: i64) -> Option<Exit> {
        let [started_at, finished_at] = [&self.started_at, &self.died_at]
            .map(|at| Some(at.load(Ordering::Relaxed)).filter(|at| *at > 0))
            .map(|at| at.map(Timestamp::from_unix_ms));
        let (ended_by, code) = (self.ended_by(), i32::try_from(code).unwrap_or(i32::MAX));
        let exit =
            Exit { code, oom: false, started_at: started_at?, finished_at: finished_at?, ended_by };
        (ended_by == EndedBy::Engine).then_some(exit)
    }
}

/// The exit code, once the container's processes are gone.
pub(super) async fn exit_code(docker: &Docker, id: &ContainerId) -> Result<i64, Error> {
    let client = docker.client().await?;
    let mut wait = client.wait_container(&id.0, None::<WaitContainerOptions>);
    loop {
        tokio::select! {
            answer = wait.next() => return match answer {
                Some(Ok(answer)) if answer.status_code >= 0 => Ok(answer.status_code),
                // The client reports any exit code except 0 as this error.
                Some(Err(EngineError::DockerContainerWaitError { code, .. })) => Ok(code),
                Some(Err(err)) if fault::status(&err) == Some(404) => Err(Error::Gone(id.clone())),
                Some(Err(err)) => Err(docker.fault(err)),
                // An engine that gives up a wait says -1: nothing is known of the container.
                Some(Ok(_)) | None => Err(docker.fault(EngineError::IOError {
                    err: std::io::ErrorKind::ConnectionReset.into(),
                })),
            },
            () = sleep(PULSE) => {
                let found = inspect(docker, &id.0).await?;
                let state = found.and_then(|found| found.state);
                let state = state.ok_or_else(|| Error::Gone(id.clone()))?;
                if matches!(state.status, Some(Status::EXITED | Status::DEAD)) {
                    return Ok(state.exit_code.unwrap_or_default());
                }
            }
        }
    }
}

fn exit_of(state: &ContainerState, code: i64, ended_by: EndedBy) -> Result<Exit, Error> {
    // The engine also answers a wait for a container that never ran; such a container has no times.
    let time = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        text.parse::<Timestamp>().map_err(|_| Error::Engine {
            reason: fault::one_line(&format!("the container was never run: its time is `{text}`")),
        })
    };
    let finished_at = time(&state.finished_at)?;
    Ok(Exit {
        code: i32::try_from(code).unwrap_or(i32::MAX),
        oom: state.oom_killed.unwrap_or(false),
        // The engine records the start after its call to the runtime has returned. A command that ends at
        // once has ended before that, and the receipt would show a negative duration.
        started_at: time(&state.started_at)?.min(finished_at),
        finished_at,
        ended_by,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_ends_before_its_start_is_noted_started_no_later_than_it_ended() {
        let state = ContainerState {
            started_at: Some("2026-11-22T04:29:53.190Z".to_owned()),
            finished_at: Some("2026-11-22T04:29:53.188Z".to_owned()),
            ..ContainerState::default()
        };
        let exit = exit_of(&state, 7, EndedBy::Itself).unwrap();
        assert_eq!(exit.finished_at, "2026-11-22T04:29:53.188Z".parse().unwrap());
        assert_eq!(exit.started_at, exit.finished_at);
    }

    fn event(action: &str, signal: Option<&str>) -> EventMessage {
        let attributes = signal.map(|signal| ("signal".to_owned(), signal.to_owned()));
        let actor = bollard::models::EventActor {
            attributes: Some(attributes.into_iter().collect()),
            ..Default::default()
        };
        let time_nano = Some(1_700_000_000_000_000_000);
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(actor),
            time_nano,
            ..Default::default()
        }
    }

    #[test]
    fn only_a_signal_to_end_makes_an_end_the_engines_doing() {
        for (signals, ended_by) in [
            (&[][..], EndedBy::Itself),
            (&["1", "10"], EndedBy::Itself),
            (&["15"], EndedBy::Engine),
            (&["15", "9"], EndedBy::Engine),
        ] {
            let news = News::default();
            assert_eq!(news.ended_by(), EndedBy::Unknown);
            assert!(signals.iter().all(|signal| !news.take(&event("kill", Some(signal)))));
            assert!(news.take(&event("die", None)));
            assert_eq!(news.ended_by(), ended_by, "{signals:?}");
            assert_eq!(news.exit(1), None, "the start is not known");
            news.take(&event("start", None));
            assert_eq!(news.exit(1).is_some(), ended_by == EndedBy::Engine);
        }
    }
}
