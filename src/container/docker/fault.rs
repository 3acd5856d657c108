//! Translates the engine's answers into [`Error`], whose variants drive the agent's decisions.
//!
//! Must hold: an unknown message is never read as the job's fault. The engine has few status codes and many
//! messages, so some decisions rest on its text.

use std::str::FromStr;

pub(super) use bollard::errors::Error as EngineError;

use super::super::{Error, image};
use crate::report;

/// The longest reason that is passed on, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Longest word of a runtime, a registry or an image in one of our messages, in characters.
const WORD_CHARS_MAX: usize = 128;

/// The toolkit's messages if no container can get a GPU.
const NO_DRIVER: [&str; 4] = [
    "driver not loaded",
    "initialization error",
    "driver/library version mismatch",
    "could not select device driver",
];

/// What runtimes put before a name of the job's or its image's: runc, the engine, crun, runsc.
const OF_THE_JOB: [&str; 7] = [
    "exec: ",
    "chdir to cwd",
    "unable to find user",
    "unable to find group",
    "executable file ",
    "open executable",
    "error finding executable",
];

/// What they put before a complaint about the host.
const OF_THE_NODE: [&str; 8] = [
    "hook",
    "gathering device information",
    "nvidia-container-cli: ",
    "nvml error",
    "cdi device",
    "could not select device driver",
    "error mounting",
    "unable to retrieve oci runtime error",
];

/// Phrases, anywhere in the message, that mean that the container can't be started as the job asks.
const NO_START: [&str; 10] = [
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
];

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// Path of a Unix socket.
    Unix(String),
    /// `host:port`, over plain TCP.
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

/// The HTTP status of an error answer; `None` for any other error.
pub(super) fn status(err: &EngineError) -> Option<u16> {
    match err {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Translates the error of a call that needs no distinctions of its own.
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

/// The image was present a moment ago: transient, since another pull brings it back.
pub(super) fn image_is_gone(image_id: &str) -> Error {
    let reason = "it was removed from this node meanwhile".to_owned();
    Error::Pull { reference: image_id.to_owned(), reason }
}

/// Translates a create call's error. `image_id` was present a moment ago, so a 404 is transient.
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

/// Translates a start call's error.
pub(super) fn of_start(host: &str, err: EngineError) -> Error {
    if matches!(err, EngineError::RequestTimeoutError) {
        // Not `Unreachable`: the engine answers other calls; this start hangs, most likely in a GPU hook.
        return Error::Engine { reason: "the container did not start in time".to_owned() };
    }
    let EngineError::DockerResponseServerError { message, .. } = &err else {
        return of_call(host, err);
    };
    let reason = one_line(message);
    let words = message.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    if let Some(said) = about_the_job(message, &words) {
        return if says(&["docker-init"]) {
            Error::Engine { reason }
        } else {
            Error::Start { reason: one_line(said) }
        };
    }
    match about_the_node(&words) {
        // One of the node's folders is missing, or an image has no place for one.
        Some("error mounting") => Error::Engine { reason },
        Some(_) => of_gpu(message, &words, reason),
        // The engine's own init is missing.
        None if says(&["docker-init"]) => Error::Engine { reason },
        None => match NO_START.iter().find(|phrase| words.contains(**phrase)) {
            // Only the phrase: the rest may contain paths of the host.
            Some(phrase) => Error::Start { reason: (*phrase).to_owned() },
            None => of_call(host, err),
        },
    }
}

/// The error for a complaint about the host: what handing over GPUs stumbled over, or the engine.
fn of_gpu(message: &str, words: &str, reason: String) -> Error {
    const GPU: [&str; 4] =
        ["nvidia-container", "nvml error", "cdi device", "gathering device information"];
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    if let Some(of_image) = of_toolkit(message, words) {
        of_image
    } else if says(&["device driver \"cdi\""]) {
        let reason = "GPU_ACCESS=cdi: the engine has no CDI (Docker Engine 28.2 and newer have it, and 25 with \
                      `\"features\": {\"cdi\": true}` in /etc/docker/daemon.json)";
        Error::Driver { reason: reason.to_owned() }
    } else if says(&NO_DRIVER) {
        Error::Driver { reason }
    } else if says(&GPU) {
        Error::Gpu { reason }
    } else {
        Error::Engine { reason }
    }
}

/// The first phrase of a complaint about the host, unless a path comes before it: an image names those.
fn about_the_node(words: &str) -> Option<&'static str> {
    let found = |phrase: &'static str| words.find(phrase).map(|at| (at, phrase));
    let (at, phrase) = OF_THE_NODE.into_iter().filter_map(found).min()?;
    words.find("mkdir /").is_none_or(|path| at < path).then_some(phrase)
}

/// NVIDIA's toolkit's complaints about something in the image: no GPU is to blame.
fn of_toolkit(message: &str, words: &str) -> Option<Error> {
    let after = |mark: &str| words.find(mark).map(|at| &message[at + mark.len()..]);
    if let Some(condition) = after("unsatisfied condition: ") {
        let plain = |c: &char| c.is_ascii_alphanumeric() || "<>=!._-".contains(*c);
        let needed = condition.chars().take_while(plain).take(WORD_CHARS_MAX).collect();
        return Some(Error::Requirement { needed });
    }
    if after("nvidia-container-cli: requirement error: ").is_some() {
        let reason = "what the image requires of the GPU's driver can't be read".to_owned();
        return Some(Error::Start { reason });
    }
    let rest = after("nvidia-container-cli: mount error: ")?;
    let end = rest.find(": file exists")?;
    let path = &rest[..end];
    // Keep the part below the container's root; the part before it is a path of the host.
    let inside = ["/merged/", "/rootfs/"].iter().find_map(|root| path.split_once(root));
    let name = inside.map(|(_, inside)| inside).or(path.rsplit('/').next())?;
    let name: String = name.chars().filter(char::is_ascii_graphic).take(WORD_CHARS_MAX).collect();
    let reason = format!("the image has a file of its own where the GPU's driver puts one: {name}");
    Some(Error::Start { reason })
}

/// The end of a message that blames what the job or its image names (command, working folder, user), from
/// where the blame starts. Of all fixed phrases the first one decides: names can say anything, and come after the
/// phrase that they belong to.
fn about_the_job<'a>(message: &'a str, words: &str) -> Option<&'a str> {
    let first = |phrases: &[&str]| phrases.iter().filter_map(|phrase| words.find(phrase)).min();
    let theirs = first(&OF_THE_JOB)?;
    let is_first = first(&OF_THE_NODE).is_none_or(|ours| theirs < ours);
    is_first.then(|| &message[theirs..])
}

/// The reason that a requester gets if a registry did not deliver the image. One sentence for every cause:
/// more detail would tell strangers which ports are open in the owner's network.
pub(super) const NOT_GIVEN: &str = "its registry did not give it: it could not be reached, did not \
                                    answer in time, or broke off";

/// The reason that a requester gets if a registry refuses the image.
pub(super) const NOT_HAD: &str = "its registry does not have it, or does not give it to this node";

/// Nothing can be pulled until there is room, whatever the registry says.
pub(super) const DISK_FULL: &str = "this node's disk is full";

/// The registry answers, but limits this node's requests for a while.
pub(super) const TOO_MANY: &str =
    "its registry takes no more requests of this node for now (rate limit)";

/// Translates a pull's error: a refusal if the registry would repeat its answer, else transient. The engine's
/// own words are not passed on: they contain addresses and what answered there. `None`: the engine itself
/// does not answer. A 503 does not mean that: the engine passes on a registry's.
pub(super) fn of_pull(reference: &str, err: &EngineError) -> Option<Error> {
    let reference = reference.to_owned();
    let (status, words) = match err {
        EngineError::DockerResponseServerError { status_code, message } => {
            (Some(*status_code), message.as_str())
        }
        EngineError::DockerStreamError { error } => (None, error.as_str()),
        EngineError::JsonDataError { .. } | EngineError::JsonSerdeError { .. } => (None, ""),
        _ => return None,
    };
    let words = words.to_ascii_lowercase();
    Some(if image::is_refusal(status, &words) {
        let says = |phrase| words.contains(phrase);
        let reason = if says("no matching manifest") || says("cannot be used on this platform") {
            "there is none of it for this host's platform"
        } else if says("max depth exceeded") {
            "it has more layers than this node's engine can stack"
        } else if image::is_beyond_users(&words) {
            "this node's engine can't unpack it: it has too few user ids (/etc/subuid)"
        } else {
            NOT_HAD
        };
        Error::ImageRefused { reference, reason: reason.to_owned() }
    } else {
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
        let reason = if says(&["no space left on device"]) {
            DISK_FULL
        } else if status == Some(429) || says(&["toomanyrequests", "too many requests"]) {
            TOO_MANY
        } else {
            NOT_GIVEN
        };
        Error::Pull { reference, reason: reason.to_owned() }
    })
}

/// The end of an engine's message on one line: the cause comes after the names of all layers that passed it
/// on.
pub(super) fn one_line(text: &str) -> String {
    report::one_line_end(text, REASON_CHARS_MAX)
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

    const HOOK: &str = "process_linux.go: error running hook #0: exit status 1, stdout: , stderr: \
                        nvidia-container-cli: ";
    const NEEDS: &str = "unsatisfied condition: cuda>=12.8, please update your driver to a newer \
                         version, or use an earlier cuda container: unknown";
    const THERE: &str = "file creation failed: /var/lib/docker/overlay2/0f/merged/usr/lib/\
                         libnvidia-ml.so.1: file exists: unknown";

    #[test]
    fn what_an_image_brings_along_is_named_without_a_path_of_the_hosts() {
        let told = |words: &str| of_start("h", answer(500, words)).to_string();
        let exec = "starting container process caused: exec: \"nope\": not found: unknown";
        for (words, end) in [
            (format!("{HOOK}requirement error: {NEEDS}"), "wants cuda>=12.8 of the GPU's driver"),
            (format!("{HOOK}mount error: {THERE}"), "puts one: usr/lib/libnvidia-ml.so.1"),
            (format!("failed to create /run/x: {exec}"), "exec: \"nope\": not found: unknown"),
            ("/var/lib/docker/x: exec format error".to_owned(), "started: exec format error"),
        ] {
            let told = told(&words);
            assert!(told.ends_with(end) && !told.contains("/var/lib"), "{told}");
        }
    }

    fn door(words: &str) -> &'static str {
        match of_start("h", answer(500, words)) {
            Error::Start { .. } => "start",
            Error::Gpu { .. } => "gpu",
            Error::Driver { .. } => "driver",
            Error::Requirement { .. } => "requirement",
            Error::Engine { .. } => "engine",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_of_the_jobs_blames_nobody_else_under_any_runtime() {
        // runc 1.2, crun and runsc.
        for words in [
            "OCI runtime create failed: container_linux.go:380: mkdir /proc/nvml error: driver not \
             loaded: no such file or directory",
            "OCI runtime create failed: runc create failed: unable to start container process: error \
             during container init: exec: \"driver not loaded\": executable file not found",
            "OCI runtime create failed: crun: executable file `hook: nvidia-container-cli: driver not \
             loaded` not found in $PATH: No such file or directory: unknown",
            "OCI runtime create failed: creating container: error finding executable \"nvml error: \
             driver not loaded\" in PATH [/bin]: no such file or directory",
        ] {
            assert_eq!(door(words), "start", "{words}");
        }
    }

    #[test]
    fn a_runtime_that_is_missing_or_dies_and_a_foreign_hook_are_the_nodes() {
        for words in [
            "OCI runtime create failed: unable to retrieve OCI runtime error (open /run/x/log.json: no \
             such file or directory): runc did not terminate successfully: exit status 127",
            "OCI runtime create failed: unable to retrieve OCI runtime error: exec: \"crun\": executable \
             file not found in $PATH",
            "starting container process caused: error running hook #0: fork/exec /opt/h: no such file \
             or directory",
            "starting container process caused: error mounting \"/v\" to rootfs at \"/proc/driver not \
             loaded\": no such file or directory",
        ] {
            assert_eq!(door(words), "engine", "{words}");
        }
    }

    #[test]
    fn a_failed_start_is_laid_at_the_right_door() {
        let oci = "OCI runtime create failed: container_linux.go:380: starting container process";
        for (words, at) in [
            (format!("{oci} caused: exec: \"nope\": executable file not found in $PATH"), "start"),
            (format!("{oci} caused: exec: \"/data\": permission denied"), "start"),
            ("unable to find user nobody9: no matching entries in passwd file".into(), "start"),
            (
                format!(
                    "{oci} caused: process_linux.go: error running hook #0: exit status 1, stdout: , \
                     stderr: nvidia-container-cli: initialization error: nvml error: driver not loaded"
                ),
                "driver",
            ),
            (
                "could not select device driver \"nvidia\" with capabilities: [[gpu]]".into(),
                "driver",
            ),
            (format!("{oci} caused: {HOOK}device error: GPU-1: unknown device"), "gpu"),
            (format!("{oci} caused: {HOOK}requirement error: {NEEDS}"), "requirement"),
            (format!("{oci} caused: {HOOK}mount error: {THERE}"), "start"),
            (format!("{oci} caused: {HOOK}requirement error: invalid expression"), "start"),
            (
                format!(
                    "{oci} caused: {HOOK}mount error: mount operation failed: /usr/lib/libcuda.so: \
                     no such file or directory"
                ),
                "gpu",
            ),
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
            ("could not select device driver \"cdi\" with capabilities: []".into(), "driver"),
            (
                "error gathering device information while adding custom device \"/dev/nvidia0\": no \
                 such file or directory"
                    .into(),
                "gpu",
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
            let told = door(&words);
            assert_eq!(told, at, "{words}");
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
        let long = one_line(&format!("{}the cause", "runc: ".repeat(100)));
        assert!(long.starts_with('…') && long.ends_with("runc: the cause"), "{long}");
        assert_eq!(long.chars().count(), REASON_CHARS_MAX);
    }
}
