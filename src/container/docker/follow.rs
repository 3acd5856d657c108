//! A container's exit, and its output beside it.
//!
//! The engine tells the exit by its wait call and the output by its log, each on a connection of
//! its own. What must hold: the exit never depends on the output. The engine writes a job's output
//! to a file, so a reader who is slow holds up neither the job nor its exit; one who takes
//! nothing more after the exit is left behind.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::{ContainerState, ContainerStateStatusEnum as Status};
use bollard::query_parameters::{LogsOptionsBuilder, WaitContainerOptions};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::super::{ContainerId, Error, Exit, LogChunk, LogSink, LogStream};
use super::fault::{self, EngineError};
use super::{Docker, run};
use crate::clock::Timestamp;

/// A chunk is never longer; the engine's own are 16 KiB.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// How often an unanswered wait is checked: a connection can die without a word.
const PULSE: Duration = Duration::from_secs(30);
/// After the exit, output that moves nothing for this long is given up.
const DRAIN_STALL: Duration = Duration::from_secs(5);
/// After the exit, output is given up after this long however it moves: as long as it takes to
/// read the two full log files that the policy allows.
const DRAIN_MAX: Duration = Duration::from_mins(1);

/// Hands the output to `sink` and returns the exit.
pub(super) async fn follow(
    docker: &Docker,
    id: &ContainerId,
    sink: LogSink,
) -> Result<Exit, Error> {
    let moved = AtomicU64::new(0);
    let mut exit = Box::pin(exit_code(docker, id));
    let mut output = Box::pin(pump(docker, id, sink, &moved));
    let code = tokio::select! {
        biased;
        code = &mut exit => {
            let code = code?;
            drain(id, output, &moved).await;
            code
        }
        () = &mut output => exit.await?,
    };
    let state = run::inspect(docker, &id.0).await?.and_then(|found| found.state);
    exit_of(&state.ok_or_else(|| Error::Gone(id.clone()))?, code)
}

/// The exit code, once the container's processes are gone.
async fn exit_code(docker: &Docker, id: &ContainerId) -> Result<i64, Error> {
    let client = docker.client().await?;
    let mut wait = client.wait_container(&id.0, None::<WaitContainerOptions>);
    loop {
        tokio::select! {
            answer = wait.next() => return match answer {
                Some(Ok(answer)) => Ok(answer.status_code),
                // The client's name for any exit code but 0.
                Some(Err(EngineError::DockerContainerWaitError { code, .. })) => Ok(code),
                Some(Err(err)) if fault::status(&err) == Some(404) => Err(Error::Gone(id.clone())),
                Some(Err(err)) => Err(docker.fault(err)),
                None => Err(docker.fault(EngineError::IOError {
                    err: std::io::ErrorKind::ConnectionReset.into(),
                })),
            },
            () = sleep(PULSE) => {
                let found = run::inspect(docker, &id.0).await?;
                let state = found.and_then(|found| found.state);
                let state = state.ok_or_else(|| Error::Gone(id.clone()))?;
                if matches!(state.status, Some(Status::EXITED | Status::DEAD)) {
                    return Ok(state.exit_code.unwrap_or_default());
                }
            }
        }
    }
}

/// Sends the log into `sink` until it ends, breaks, or nobody reads it any more.
async fn pump(docker: &Docker, id: &ContainerId, sink: LogSink, moved: &AtomicU64) {
    let Ok(client) = docker.client().await else { return };
    let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
    let mut log = client.logs(&id.0, Some(options));
    while let Some(item) = log.next().await {
        let (stream, mut bytes) = match item {
            Ok(LogOutput::StdErr { message }) => (LogStream::Stderr, message),
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                (LogStream::Stdout, message)
            }
            Ok(LogOutput::StdIn { .. }) => continue,
            Err(err) => {
                tracing::warn!(container = %id, "the container's output broke off: {err}");
                return;
            }
        };
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX));
            if sink.send(LogChunk { stream, bytes: piece }).await.is_err() {
                return;
            }
            moved.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads the rest of the output of a container that is gone, as long as it moves.
async fn drain(
    id: &ContainerId,
    mut output: Pin<Box<impl Future<Output = ()>>>,
    moved: &AtomicU64,
) {
    let started = Instant::now();
    loop {
        let before = moved.load(Ordering::Relaxed);
        if timeout(DRAIN_STALL, &mut output).await.is_ok() {
            return;
        }
        let still = moved.load(Ordering::Relaxed) == before;
        if still || started.elapsed() > DRAIN_MAX {
            tracing::warn!(container = %id, "the end of the container's output was not read");
            return;
        }
    }
}

fn exit_of(state: &ContainerState, code: i64) -> Result<Exit, Error> {
    // The engine answers a wait for a container that never ran, too; it has no times then.
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
        // The engine notes the start once its call to the runtime has returned. A command that
        // ends at once has ended before that, and a receipt would tell of a negative time.
        started_at: time(&state.started_at)?.min(finished_at),
        finished_at,
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
        let exit = exit_of(&state, 7).unwrap();
        assert_eq!(exit.finished_at, "2026-11-22T04:29:53.188Z".parse().unwrap());
        assert_eq!(exit.started_at, exit.finished_at);
    }
}
