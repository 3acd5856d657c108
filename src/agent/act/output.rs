//! A job's results: seals output and log on disk, uploads them, and signs the receipt.
//!
//! Invariants: an output's CID is computed before the output leaves this host; no link that the job
//! made is followed out of its folder.

use std::path::{Path, PathBuf};

use super::place::{self, Place, SealError, missing};
use super::{Act, Event};
use crate::agent::jobs::folders::JobFolders;
use crate::agent::jobs::terms;
use crate::artifact::{self, Kind, View, for_strangers};
use crate::clock::Clock;
use crate::container::{ContainerId, ContainerRuntime, Error as EngineError};
use crate::ids::{Cid, Hash, Signature};
use crate::job::phase::{EndedRun, Fault, Outcome, Phase, Retry, Run, Sealed};
use crate::job::receipt::{Facts, Receipt, Signed};
use crate::job::{Job, Reason};
use crate::report::causes;
use crate::usage::record::{Record, SignedUsage};
use crate::{failpoint, host};

/// Limit for sealing and uploading a log. Its real bound is enforced where it is written.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// Upload attempts for a log if the output is published: about 15 s.
const LOG_TRIES_BESIDE: u32 = 5;
/// Upload attempts for a log without an output, often all that a job leaves: about 8 min.
const LOG_TRIES_ALONE: u32 = 10;

/// The parts of a job's result that this process has uploaded, and how often it failed to upload
/// the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uploads {
    output: Option<Cid>,
    log: Option<Cid>,
    log_tries: u32,
}

/// A part of a result. Both are uploaded at the same time, and neither waits for the other.
#[derive(Debug, Clone, Copy)]
enum Upload {
    Output,
    Log,
}

impl<R: ContainerRuntime, C: Clock> Act<R, C> {
    pub(super) async fn collect(&self, job: &Job) -> Event {
        let Phase::Exited { run, exit, cause } = &job.phase else { return Event::Lost };
        self.give_layer_back(job, run, *cause).await;
        let folders = self.folders.of(job);
        let succeeded = exit.code == Some(0) && cause.is_none();
        let known = if succeeded { folders.sealed_output() } else { None };
        if succeeded && known.is_none() && !folders.is_of_this_boot() {
            // The host went down before the output was synced, so it may be truncated.
            let id = job.id();
            tracing::warn!(job.id = %id, "the output of job {id} may be cut short: it runs again");
            return Event::Lost;
        }
        let log = match seal(&folders, &folders.log(), LOG_BYTES_MAX).await {
            Ok(log) => Some(log),
            Err(artifact::Error::Missing(_)) => None,
            Err(err) => return node_failed(&err),
        };
        let output = if let Some(known) = known {
            Ok(Some(known))
        } else if succeeded {
            match self.seal_output(job, run, &folders).await {
                Ok(sealed) => match self.note_sealed(job, &sealed).await {
                    Ok(()) => Ok(Some(sealed)),
                    Err(err) => return super::disk_failed(&err),
                },
                Err(SealError::Job(fault)) => Err(fault),
                Err(SealError::Node(event)) => return *event,
            }
        } else {
            Ok(None)
        };
        Event::Collected { output, log }
    }

    async fn seal_output(
        &self,
        job: &Job,
        run: &Run,
        folders: &JobFolders,
    ) -> Result<Sealed, SealError> {
        let Place { path, seen_as } = self.find_output(job, run, folders).await?;
        let view = View { seen_as, bytes_max: terms::disk_bytes(&job.spec) };
        let sealed = artifact::seal_output(&path, view).await.map_err(|err| {
            use artifact::Error as E;
            let fault = |reason| SealError::Job(Fault::new(reason, format!("the output: {err}")));
            match err {
                E::Missing(_) => SealError::Job(missing(job)),
                E::TooLarge { .. } => fault(Reason::OutputTooLarge),
                E::Unsupported { .. } => fault(Reason::OutputUnsupported),
                err => SealError::Node(Box::new(node_failed(&err))),
            }
        });
        sealed.map(|(sealed, notes)| noted(folders, &path, sealed, notes))
    }

    /// The host's folder behind `/output`. If a job that ran as root left something in it that this
    /// process can't read, a copy made by the engine.
    async fn readable_output(
        &self,
        job: &Job,
        run: &Run,
        folders: &JobFolders,
    ) -> Result<PathBuf, SealError> {
        let output = folders.output();
        let looked_at = output.clone();
        let closed = move || !host::overrides_owners() && host::tree::is_closed(&looked_at);
        if tokio::task::spawn_blocking(closed).await.unwrap_or(false) {
            return self.copy_out(job, run, folders, "/output").await;
        }
        Ok(output)
    }

    /// Finds the output on this host: in the folder behind `/output`, or copied out of the exited
    /// container.
    async fn find_output(
        &self,
        job: &Job,
        run: &Run,
        folders: &JobFolders,
    ) -> Result<Place, SealError> {
        let Some(wanted) = &job.spec.output_path else {
            return place::default(job, &self.readable_output(job, run, folders).await?);
        };
        if let Some(below) = place::below_output(wanted) {
            let output = self.readable_output(job, run, folders).await?;
            return place::inside(&output, below).map_err(|why| SealError::Job(why.fault(job)));
        }
        let mut seen_as = wanted.clone();
        for _ in 0..place::HOPS_MAX {
            let copied = self.copy_out(job, run, folders, &seen_as).await?;
            let Ok(target) = std::fs::read_link(&copied) else {
                return Ok(Place { path: copied, seen_as });
            };
            // The copy is a link: go on with the path that it leads to inside the container.
            seen_as = place::leads_to(&seen_as, &target.to_string_lossy());
            if let Some(below) = place::below_output(&seen_as) {
                let output = self.readable_output(job, run, folders).await?;
                return place::inside(&output, below).map_err(|why| SealError::Job(why.fault(job)));
            }
        }
        Err(SealError::Job(missing(job)))
    }

    /// Copies a path of the exited container to the host and returns the copy's path.
    async fn copy_out(
        &self,
        job: &Job,
        run: &Run,
        folders: &JobFolders,
        wanted: &str,
    ) -> Result<PathBuf, SealError> {
        let copied = folders
            .fresh_copied()
            .map_err(|err| SealError::Node(Box::new(super::disk_failed(&err))))?;
        let id = ContainerId(run.container.clone());
        let limit = terms::disk_bytes(&job.spec);
        match self.runtime.copy_out(&id, wanted, &copied, limit).await {
            Ok(()) => Ok(copied.join(Path::new(wanted).file_name().unwrap_or_default())),
            Err(EngineError::NoSuchPath { .. } | EngineError::Gone(_)) => {
                Err(SealError::Job(missing(job)))
            }
            Err(err @ EngineError::TooLarge { .. }) => {
                Err(SealError::Job(Fault::new(Reason::OutputTooLarge, causes(&err))))
            }
            Err(err @ EngineError::CopyOut { .. }) => {
                Err(SealError::Job(Fault::new(Reason::OutputUnsupported, causes(&err))))
            }
            Err(err) => Err(SealError::Node(Box::new(self.engine_failed(job, &err)))),
        }
    }

    pub(super) async fn publish(&self, job: &Job) -> Event {
        let Phase::Collected { ended, log: written } = &job.phase else { return Event::Lost };
        let folders = self.folders.of(job);
        let known = self.memory.uploads().entry(job.id().clone()).or_default().clone();
        let (known_output, known_log) = (known.output, known.log.or(*written));
        let (output, log) = tokio::join!(
            self.publish_one(job, &folders, (ended.output.as_ref(), known_output), Upload::Output),
            self.publish_one(job, &folders, (ended.log.as_ref(), known_log), Upload::Log),
        );
        let log_tries = known.log_tries + u32::from(log.is_err());
        let of = |done: &Result<Option<Cid>, _>| done.as_ref().ok().copied().flatten();
        let uploads = Uploads { output: of(&output), log: of(&log), log_tries };
        self.memory.uploads().insert(job.id().clone(), uploads);
        let output = match (output, &log) {
            (Ok(output), _) => output,
            // Journal the log's CID now, so that it is reported whatever happens to the output.
            (Err(_), Ok(Some(log))) if written.is_none() => {
                return Event::LogPublished { log: *log };
            }
            (Err(err), _) => {
                super::refusal::log_words(job, &err);
                return self.output_failed(&err).await;
            }
        };
        let patience = if ended.output.is_some() { LOG_TRIES_BESIDE } else { LOG_TRIES_ALONE };
        match log {
            Ok(log) => Event::Published { output, log },
            Err(err) if log_tries < patience => {
                let error = format!("the log: {}", causes(&err));
                // Limited by `log_tries` alone: the log's failures must not use up the output's
                // patience.
                let retry = Retry::Always;
                Event::Failed { fault: Fault::new(Reason::UploadFailed, error), retry }
            }
            Err(err) => {
                let id = job.id();
                tracing::warn!(job.id = %id, "the log of job {id} is given up: {}", causes(&err));
                Event::Published { output, log: None }
            }
        }
    }

    async fn publish_one(
        &self,
        job: &Job,
        folders: &JobFolders,
        (sealed, known): (Option<&Sealed>, Option<Cid>),
        what: Upload,
    ) -> Result<Option<Cid>, artifact::Error> {
        let (Some(sealed), None) = (sealed, known) else { return Ok(known) };
        let kind = if sealed.directory { Kind::Directory } else { Kind::File };
        let (word, place, bytes_max) = match what {
            Upload::Output => ("output", "upload_output", terms::disk_bytes(&job.spec)),
            Upload::Log => ("log", "upload_log", LOG_BYTES_MAX),
        };
        // The view that it was sealed with: links are resolved by it.
        let view = View { seen_as: sealed.seen_as.clone(), bytes_max };
        let named = artifact::Sealed { cid: sealed.cid, bytes: sealed.bytes, kind, view };
        let name = format!("{}-{word}", job.id());
        let path = folders.absolute(&sealed.path);
        failpoint::hit(place, ".before");
        let published = self.pinata.publish(&path, &named, &name, |_| {}).await;
        failpoint::hit(place, ".after");
        published.map(Some)
    }

    /// The event for a failed upload, which may be the fault of the job or of the node.
    async fn output_failed(&self, err: &artifact::Error) -> Event {
        if !err.is_refusal() {
            return output_failed(err, Reason::UploadFailed);
        }
        // Try a few bytes. If those are refused too, the store refuses the node; else only this
        // output, by its size or content, which must not keep other jobs from the node.
        match self.pinata.try_upload().await {
            Err(small) if small.is_refusal() => output_failed(err, Reason::StoreRefused),
            _ => output_failed(err, Reason::OutputRefused),
        }
    }

    pub(super) async fn attest(&self, job: &Job) -> Event {
        let Phase::Published { ended, output, .. } = &job.phase else { return Event::Lost };
        let mut domain = self.base.domain.clone();
        // The signed data contains the chain's id, so wait until that is known.
        let domain = match domain.wait_for(Option::is_some).await {
            Ok(domain) => *domain,
            Err(_) => None,
        };
        let Some(domain) = domain else {
            let fault = Fault::new(Reason::NodeFault, "the chain's id is not known yet");
            return Event::Failed { fault, retry: Retry::Always };
        };
        let receipt = receipt(job, ended, output.as_ref());
        let digest = receipt.digest(&domain);
        let sign = |digest: Hash| Signature(self.key.sign_digest(&digest.0));
        let usage = ended.exit.usage.map(|usage| {
            let record = Record::new(digest, job.node, &usage);
            let signature = sign(record.digest(&domain));
            SignedUsage { domain, record, signature }.to_json()
        });
        let signature = sign(digest);
        Event::Attested { receipt: Signed { domain, receipt, signature }.to_json(), usage }
    }
}

fn receipt(job: &Job, ended: &EndedRun, output: Option<&Cid>) -> Receipt {
    let completed = ended.outcome == Outcome::Completed;
    Receipt::new(
        job.id().clone(),
        job.node,
        job.spec_hash,
        Facts {
            image_digest: &ended.run.image.digest,
            gpus: &ended.run.gpus,
            input: job.spec.input.as_ref(),
            output: output.filter(|_| completed),
            // A lost container has no exit code; no process can have -1.
            exit_code: ended.exit.code.unwrap_or(-1),
            ran: (ended.exit.started_at, ended.exit.finished_at),
        },
    )
}

async fn seal(
    folders: &JobFolders,
    path: &Path,
    bytes_max: u64,
) -> Result<Sealed, artifact::Error> {
    let sealed = artifact::seal(path, bytes_max).await?;
    Ok(noted(folders, path, sealed, Vec::new()))
}

/// Converts a sealed artifact to the journal's form, with a path relative to the job's folder.
fn noted(
    folders: &JobFolders,
    path: &Path,
    sealed: artifact::Sealed,
    notes: Vec<String>,
) -> Sealed {
    let directory = sealed.kind == Kind::Directory;
    let seen_as = if directory { sealed.view.seen_as } else { String::new() };
    let path = folders.relative(path);
    Sealed { path, cid: sealed.cid, bytes: sealed.bytes, directory, seen_as, notes }
}

/// The event for a failed upload of the output; `refused` is the reason if the store refused it.
fn output_failed(err: &artifact::Error, refused: Reason) -> Event {
    use artifact::Error as E;
    let (reason, retry) = match err {
        E::Mismatch { .. } => (Reason::OutputUnverified, Retry::Patiently),
        // The store misread a file's name, and would do so again.
        E::Unsupported { .. } => (Reason::OutputUnverified, Retry::Never),
        E::Refused { .. } | E::Declined { .. } | E::Oversized { .. } => (refused, Retry::Refused),
        _ => (Reason::UploadFailed, Retry::Patiently),
    };
    let error = format!("the output: {}", for_strangers(&causes(err)));
    Event::Failed { fault: Fault::new(reason, error), retry }
}

fn node_failed(err: &artifact::Error) -> Event {
    match err {
        artifact::Error::Io(err) => return super::disk_failed(err),
        artifact::Error::NoSpace => {
            return super::disk_failed(&std::io::ErrorKind::StorageFull.into());
        }
        _ => {}
    }
    let fault = Fault::new(Reason::NodeFault, for_strangers(&causes(err)));
    Event::Failed { fault, retry: Retry::Patiently }
}
