//! Maps a failure of the engine to a job's fault, in words that strangers may read.
//!
//! Invariant: words of the engine's, of gateways and of the store that may contain the owner's paths and addresses
//! go only to the owner's log.

use super::{Act, disk_failed};
use crate::agent::health::sight::Unseen;
use crate::artifact;
use crate::clock::Clock;
use crate::container::{ContainerRuntime, Error};
use crate::job::phase::{Event, Fault, Phase, Retry};
use crate::job::{Job, Reason};
use crate::report::causes;

impl<R: ContainerRuntime, C: Clock> Act<R, C> {
    /// The event for a failure of the engine. Logs for the owner what the job's fault leaves out.
    pub(super) fn engine_failed(&self, job: &Job, err: &Error) -> Event {
        let (reason, retry) = meaning(err);
        let (id, words) = (job.id(), causes(err));
        if let Error::Driver { .. } = err {
            let Phase::Starting { gpus, .. } = &job.phase else {
                return failed(reason, err, retry);
            };
            self.base.board.no_driver(gpus, &words);
        }
        if let Error::Requirement { needed } = err {
            let error = format!("the image wants {needed}, this node has {}", self.base.driver);
            return Event::Failed { fault: Fault::new(reason, error), retry };
        }
        if told(err).is_some() {
            tracing::warn!(job.id = %id, "job {id}: {words}");
        }
        failed(reason, err, retry)
    }

    /// The event if the engine does not see the node's files, so that no job may run on it.
    pub(super) fn unseen(&self, job: &Job, err: Unseen) -> Event {
        let id = job.id();
        let error = match err {
            Unseen::Engine(err) => return self.engine_failed(job, &err),
            Unseen::Io(err) => return disk_failed(&err),
            Unseen::Lately => NOT_SEEN,
            Unseen::Elsewhere(_) => {
                tracing::warn!(job.id = %id, "job {id}: {err}");
                NOT_SEEN
            }
        };
        Event::Failed { fault: Fault::new(Reason::NodeFault, error), retry: Retry::Always }
    }
}

/// Logs for the owner what a job's fault leaves out of a failed transfer's words.
pub(super) fn log_words(job: &Job, err: &artifact::Error) {
    let (id, words) = (job.id(), causes(err));
    if artifact::for_strangers(&words) != words {
        tracing::warn!(job.id = %id, "job {id}: {words}");
    }
}

/// Why an image of this download size is not pulled, with so much that the disk can give it now, once images went,
/// and ever. Other jobs' files go again, so a lack of room is final only if an empty disk has it too.
pub(super) fn too_large(image: &str, size_mib: u64, now_mib: u64, ever_mib: u64) -> Option<Error> {
    let reference = image.to_owned();
    let said = |mib: u64| {
        format!("it is {size_mib} MiB to download, and this node's disk can give it {mib}")
    };
    if size_mib > ever_mib {
        return Some(Error::ImageRefused { reference, reason: said(ever_mib) });
    }
    let reason = || format!("{} now", said(now_mib));
    (size_mib > now_mib).then(|| Error::Pull { reference, reason: reason() })
}

const NOT_SEEN: &str = "the node's container engine does not see the node's files";

fn failed(reason: Reason, err: &Error, retry: Retry) -> Event {
    let error = told(err).map_or_else(|| causes(err), str::to_owned);
    Event::Failed { fault: Fault::new(reason, error), retry }
}

const fn meaning(err: &Error) -> (Reason, Retry) {
    use Error as E;
    match err {
        E::ImageNotAllowed { .. } => (Reason::ImageNotAllowed, Retry::Never),
        E::ImageRefused { .. } => (Reason::ImageUnavailable, Retry::Never),
        E::Pull { .. } => (Reason::ImagePullFailed, Retry::Patiently),
        E::Gpu { .. } | E::Driver { .. } => (Reason::GpuFailed, Retry::Patiently),
        E::Requirement { .. } => (Reason::GpuRequirement, Retry::Never),
        E::Start { .. } => (Reason::StartFailed, Retry::Never),
        E::Unreachable { .. } => (Reason::NodeFault, Retry::Always),
        _ => (Reason::NodeFault, Retry::Patiently),
    }
}

/// The node's own sentence for an error that contains the engine's words; `None` if the error may
/// be shown as it is.
pub(in crate::agent) const fn told(err: &Error) -> Option<&'static str> {
    use Error as E;
    match err {
        E::ImageNotAllowed { .. }
        | E::ImageRefused { .. }
        | E::Pull { .. }
        | E::Requirement { .. }
        | E::Start { .. }
        | E::Gone(_)
        | E::NoSuchPath { .. }
        | E::TooLarge { .. }
        | E::CopyOut { .. } => None,
        E::Gpu { .. } => Some("the node could not give the container its GPUs"),
        E::Driver { .. } => Some("the node can't give GPUs to any container now"),
        E::Host { .. } | E::Unreachable { .. } => {
            Some("the node's container engine does not answer")
        }
        E::Io(_) => Some("a file could not be handled for the node's container engine"),
        E::Unlimited { .. } => Some("the node's container engine can't hold a job to its limits"),
        E::Unfiltered => Some("the node's container engine does not filter a job's system calls"),
        E::NoRuntime { .. } => Some("the node's container engine lacks the owner's runtime"),
        E::Engine { .. } => Some("the node's container engine refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_refused_for_good_only_if_an_empty_disk_has_no_room_for_it() {
        assert!(too_large("x", 100, 100, 200).is_none());
        let meant = |size_mib| meaning(&too_large("x", size_mib, 100, 200).unwrap());
        assert_eq!(meant(101), (Reason::ImagePullFailed, Retry::Patiently));
        assert_eq!(meant(200), (Reason::ImagePullFailed, Retry::Patiently));
        assert_eq!(meant(201), (Reason::ImageUnavailable, Retry::Never));
    }

    #[test]
    fn nothing_of_the_engines_own_words_is_told_to_strangers() {
        let reason = || "mount /srv/secret: tcp://10.0.0.1:2375".to_owned();
        for err in [
            Error::Host { host: reason() },
            Error::Unreachable { host: reason(), source: reason().into() },
            Error::Gpu { reason: reason() },
            Error::Driver { reason: reason() },
            Error::Io(std::io::Error::other(reason())),
            Error::Engine { reason: reason() },
        ] {
            let (reason, retry) = meaning(&err);
            let event = failed(reason, &err, retry);
            let Event::Failed { fault, .. } = &event else { panic!("{event:?}") };
            assert!(!fault.error.contains(['/', ':']), "{}", fault.error);
        }
    }

    /// [`Fault::remedy`] chooses by the words of these error texts.
    #[test]
    fn each_of_the_nodes_faults_has_the_remedy_of_its_cause() {
        let of = |event: Event| match event {
            Event::Failed { fault, .. } => fault,
            other => panic!("{other:?}"),
        };
        let fault = |error: &str| Fault::new(Reason::NodeFault, error);
        let io = |kind: std::io::ErrorKind| of(disk_failed(&kind.into()));
        let engine = |err: Error| of(failed(Reason::NodeFault, &err, Retry::Patiently));
        let unlimited = Error::Unlimited { missing: "memory".to_owned() };
        let no_runtime = Error::NoRuntime { runtime: "x".to_owned(), known: String::new() };
        let refused = Error::Engine { reason: "x".to_owned() };
        for (fault, remedy) in [
            (fault(NOT_SEEN), "on one host"),
            (io(std::io::ErrorKind::PermissionDenied), "may not read or remove"),
            (io(std::io::ErrorKind::StorageFull), "Make room"),
            (engine(unlimited), "control groups"),
            (engine(Error::Unfiltered), "default seccomp profile"),
            (engine(no_runtime), "JOB_RUNTIME"),
            (engine(refused), "Look at the container engine"),
        ] {
            assert!(fault.remedy().contains(remedy), "{}: {}", fault.error, fault.remedy());
        }
    }
}
