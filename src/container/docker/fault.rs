//! The engine's words into [`Error`], whose variants are what the agent decides by.
//!
//! The engine has few codes and many sentences, so some decisions rest on its text. What must
//! hold: a sentence that is not known here is never read as the job's fault.

use std::str::FromStr;

pub(super) use bollard::errors::Error as EngineError;

use super::super::{Error, image};

/// The longest reason that is passed on, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// The path of a socket.
    Unix(String),
    /// Host and port.
    Tcp(String),
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unix = text.strip_prefix("unix://").filter(|path| path.starts_with('/'));
        let tcp = text.strip_prefix("tcp://").map(|address| address.trim_end_matches('/'));
        let tcp = tcp.filter(|address| {
            let (host, port) = address.rsplit_once(':').unwrap_or_default();
            !host.is_empty() && !host.contains(['/', '@', '?', '#']) && port.parse::<u16>().is_ok()
        });
        unix.map(|path| Self::Unix(path.to_owned()))
            .or_else(|| tcp.map(|address| Self::Tcp(address.to_owned())))
            .ok_or_else(|| Error::Host { host: text.to_owned() })
    }
}

/// The status of an answer that was an error; `None` where there was no answer.
pub(super) fn status(err: &EngineError) -> Option<u16> {
    match err {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Any call that has no decisions of its own.
pub(super) fn of_call(host: &str, err: EngineError) -> Error {
    match err {
        EngineError::DockerResponseServerError { status_code, message } if status_code != 503 => {
            Error::Engine { reason: one_line(&message) }
        }
        EngineError::DockerStreamError { error } => Error::Engine { reason: one_line(&error) },
        EngineError::JsonDataError { .. }
        | EngineError::JsonSerdeError { .. }
        | EngineError::URLEncodedError { .. }
        | EngineError::URLParseError { .. } => Error::Engine { reason: one_line(&err.to_string()) },
        other => Error::Unreachable { host: host.to_owned(), source: other.into() },
    }
}

/// It was here a moment ago: another pull brings it back.
pub(super) fn image_is_gone(image_id: &str) -> Error {
    let reason = "it was removed from this node meanwhile".to_owned();
    Error::Pull { reference: image_id.to_owned(), reason }
}

/// A create call. `image_id` was here a moment ago, so its absence passes with another pull.
pub(super) fn of_create(host: &str, image_id: &str, err: EngineError) -> Error {
    match &err {
        EngineError::DockerResponseServerError { status_code: 404, .. } => image_is_gone(image_id),
        EngineError::DockerResponseServerError { status_code: 400, message }
            if message.to_ascii_lowercase().contains("no command specified") =>
        {
            Error::Start { reason: one_line(message) }
        }
        _ => of_call(host, err),
    }
}

/// A start call.
pub(super) fn of_start(host: &str, err: EngineError) -> Error {
    if matches!(err, EngineError::RequestTimeoutError) {
        // The engine answers other calls: it is this start that hangs, in a GPU hook most likely.
        return Error::Engine { reason: "the container did not start in time".to_owned() };
    }
    let EngineError::DockerResponseServerError { message, .. } = &err else {
        return of_call(host, err);
    };
    let reason = one_line(message);
    let words = message.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    if is_about_the_job(&words) {
        return if says(&["docker-init"]) {
            Error::Engine { reason }
        } else {
            Error::Start { reason }
        };
    }
    if says(&["nvidia-container", "could not select device driver", "nvml error", "cdi device"]) {
        Error::Gpu { reason }
    } else if says(&["docker-init", "error mounting"]) {
        // The engine's own init or one of our folders is missing: not the job's fault.
        Error::Engine { reason }
    } else if says(&[
        "executable file not found",
        "permission denied",
        "no such file or directory",
        "exec format error",
        "is a directory",
        "not a directory",
        "unable to find user",
        "unable to find group",
        "no matching entries in passwd file",
        "chdir to cwd",
    ]) {
        Error::Start { reason }
    } else {
        of_call(host, err)
    }
}

/// Whether the engine complains of what the job or its image names: command, working folder, user.
/// Told by the words before the first of theirs, since theirs can say anything.
fn is_about_the_job(words: &str) -> bool {
    let runtime = ["container process caused: ", "container process: "]
        .iter()
        .filter_map(|mark| words.split_once(mark))
        .min_by_key(|(before, _)| before.len());
    let (own, said) = runtime.map_or((false, words), |(_, said)| (true, said));
    let begins = |phrases: &[&str]| phrases.iter().any(|phrase| said.starts_with(phrase));
    begins(&["unable to find user", "unable to find group"])
        || own && begins(&["exec: ", "chdir to cwd"])
}

/// What a requester is told where a registry did not give the image. One sentence for every cause:
/// which of them it was would tell a stranger which ports of the owner's network are open.
pub(super) const NOT_GIVEN: &str = "its registry did not give it: it could not be reached, did not \
                                    answer in time, or broke off";

/// A pull: what the registry won't change its mind about is refused, the rest may work later. None
/// of the engine's words go on: they hold addresses, and what answered there.
pub(super) fn of_pull(reference: &str, err: &EngineError) -> Option<Error> {
    let reference = reference.to_owned();
    let (status, words) = match err {
        EngineError::DockerResponseServerError { status_code: 503, .. } => return None,
        EngineError::DockerResponseServerError { status_code, message } => {
            (Some(*status_code), message.as_str())
        }
        EngineError::DockerStreamError { error } => (None, error.as_str()),
        EngineError::JsonDataError { .. } | EngineError::JsonSerdeError { .. } => (None, ""),
        _ => return None,
    };
    let words = words.to_ascii_lowercase();
    Some(if image::is_refusal(status, &words) {
        let reason = if words.contains("no matching manifest") {
            "there is none of it for this host's platform"
        } else {
            "its registry does not have it, or does not give it to this node"
        };
        Error::ImageRefused { reference, reason: reason.to_owned() }
    } else {
        let here = words.contains("no space left on device");
        let reason = if here { "this node's disk is full" } else { NOT_GIVEN };
        Error::Pull { reference, reason: reason.to_owned() }
    })
}

/// One line of printable text, at most [`REASON_CHARS_MAX`] characters: parts of it are the job's.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> EngineError {
        EngineError::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn an_engines_address_is_a_socket_or_a_host_and_port() {
        for text in ["unix:///run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375/"] {
            assert!(text.parse::<Host>().is_ok(), "{text}");
        }
        for text in ["", "unix://docker.sock", "tcp://host", "tcp://:1", "ssh://h", "tcp://u@h:1"] {
            assert!(matches!(text.parse::<Host>(), Err(Error::Host { .. })), "{text}");
        }
    }

    #[test]
    fn a_failed_start_is_laid_at_the_right_door() {
        let oci = "OCI runtime create failed: container_linux.go:380: starting container process";
        for (words, door) in [
            (format!("{oci} caused: exec: \"nope\": executable file not found in $PATH"), "start"),
            (format!("{oci} caused: exec: \"/data\": permission denied"), "start"),
            ("unable to find user nobody9: no matching entries in passwd file".into(), "start"),
            (
                format!(
                    "{oci} caused: process_linux.go: error running hook #0: exit status 1, stdout: , \
                     stderr: nvidia-container-cli: initialization error: nvml error: driver not loaded"
                ),
                "gpu",
            ),
            ("could not select device driver \"nvidia\" with capabilities: [[gpu]]".into(), "gpu"),
            (
                format!("{oci} caused: exec: \"docker-init\": executable file not found in $PATH"),
                "engine",
            ),
            (format!("{oci} caused: exec: \"/nvidia-container\": permission denied"), "start"),
            (format!("{oci} caused: chdir to cwd (\"/nvml error\") set in config.json"), "start"),
            (
                "unable to find user nvidia-container: no matching entries in passwd file".into(),
                "start",
            ),
            (
                "OCI runtime create failed: unable to retrieve OCI runtime error: exec: \
                 \"nvidia-container-runtime\": executable file not found in $PATH"
                    .into(),
                "gpu",
            ),
            (format!("{oci} caused: error mounting \"/srv\": no such file or directory"), "engine"),
            ("something new".into(), "engine"),
        ] {
            let told = match of_start("h", answer(500, &words)) {
                Error::Start { .. } => "start",
                Error::Gpu { .. } => "gpu",
                Error::Engine { .. } => "engine",
                other => panic!("{other:?}"),
            };
            assert_eq!(told, door, "{words}");
        }
    }

    #[test]
    fn a_timeout_and_a_busy_engine_are_worth_another_try() {
        for err in [EngineError::RequestTimeoutError, answer(503, "not yet")] {
            assert!(of_call("h", err).is_transient());
        }
        assert!(!of_call("h", answer(500, "no")).is_transient());
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(one_line("a\n\tb\u{1b}[31m c\r\n"), "a b [31m c");
        assert_eq!(one_line(&"x".repeat(1000)).len(), REASON_CHARS_MAX);
    }
}
