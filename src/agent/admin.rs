//! Answers the requests to this node on `jobs.control.<address>` (cancel a job, retry an upload,
//! readmit a GPU, drain, status, and what instances of one key say to each other), and the questions of other
//! agents on `jobs.holds.<address>` whether this node has a pool's job.
//!
//! Invariants: every request that means this instance is answered; if jobs must be signed, only the
//! job's requester or the node's key can cancel one; only the node's key or its owner can drain the
//! node, retry an upload or readmit a GPU.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::jobs::effects::Effects;
use super::jobs::intake::Intake;
use super::key::hello::{Greeter, Greeting, Reply};
use super::key::instance::Instance;
use super::link::Link;
use super::settings::JobAuth;
use crate::bus::ControlRequest;
use crate::chain::key;
use crate::clock::Clock;
use crate::fleet::kinds;
use crate::ids::{Address, JobId, Signature};
use crate::job::phase::{Outcome, Phase, StopCause};
use crate::node::GpuUuid;
use crate::report;
use crate::supervise::{Crew, Failure};

/// The largest accepted difference between a request's time and this node's clock.
const FRESH: Duration = Duration::from_mins(1);
/// Time limit for a job to answer a cancel: one that is starting answers when it has started.
const ANSWER: Duration = Duration::from_secs(20);
/// The most requests that are answered at a time.
const AT_ONCE_MAX: usize = 32;
/// The most requests of the node's key and its owner that are answered beyond those, so that strangers can't keep
/// the owner out.
const OWNERS_AT_ONCE_MAX: usize = 8;
/// The largest request that is read, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// The parts that answers need.
#[derive(Debug)]
pub(super) struct Admin<E, C> {
    /// The owner's address, where earnings go; it may drain the node. Shown, never spent from.
    pub owner: Option<Address>,
    /// The jobs in hand and those ever taken, and whose jobs are taken, which decides what must be
    /// signed.
    pub intake: Arc<Intake<E, C>>,
    /// Answers other instances with the same key.
    pub greeter: Greeter<C>,
    /// Notified when a kept output is to be published.
    pub retried: Arc<Notify>,
}

#[derive(Debug, Deserialize)]
struct Request {
    action: String,
    #[serde(default)]
    job_id: Option<JobId>,
    #[serde(default)]
    gpu: Option<String>,
    #[serde(default)]
    on: Option<bool>,
    #[serde(default)]
    issued_at_ms: Option<u64>,
    #[serde(default)]
    signature: Option<Signature>,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jobs: Option<std::collections::BTreeMap<String, usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    draining: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_ready: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_in_use_elsewhere: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<Instance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
}

fn no(reason_code: &'static str, error: impl Into<String>) -> Answer {
    Answer { reason_code: Some(reason_code), error: Some(error.into()), ..Answer::default() }
}

fn yes() -> Answer {
    Answer { ok: true, ..Answer::default() }
}

/// Answers requests as they come; a service that ends only when it fails.
pub(super) async fn run<E: Effects, C: Clock + Clone>(
    admin: Arc<Admin<E, C>>,
    link: Link,
) -> Result<(), Failure> {
    let bus = link.bus().await;
    // Subscribing earlier would have hidden from this node's hello that nobody else listens.
    admin.greeter.sole.asking().await;
    let failed = |err: crate::bus::Error| Failure::Again(err.into());
    let mut requests = bus.control_requests(admin.intake.jobs.node).await.map_err(failed)?;
    admin.greeter.sole.listens();
    // A cancel may wait for a job that is starting: no other request must wait for that.
    let (asked, owners) = (Crew::default(), Crew::default());
    loop {
        let request = requests.next().await.map_err(failed)?;
        let crew = if asked.len() < AT_ONCE_MAX {
            &asked
        } else if owners.len() < OWNERS_AT_ONCE_MAX
            && request_of(&request).is_some_and(|request| admin.is_owners(&request))
        {
            &owners
        } else {
            respond(request, &no("busy", "too many requests at a time; ask again")).await;
            continue;
        };
        let admin = Arc::clone(&admin);
        crew.spawn("a control request".to_owned(), async move {
            if let Some(answer) = admin.answer(&request).await {
                respond(request, &answer).await;
            }
        });
    }
}

async fn respond(request: ControlRequest, answer: &Answer) {
    let body = serde_json::to_vec(answer).unwrap_or_default();
    if let Err(err) = request.respond(body.into()).await {
        tracing::debug!("a control request was not answered: {err}");
    }
}

/// The request in a body that is not too large.
fn request_of(request: &ControlRequest) -> Option<Request> {
    let body = (request.body.len() <= BODY_BYTES_MAX).then_some(&request.body)?;
    serde_json::from_slice(body).ok()
}

impl<E: Effects, C: Clock + Clone> Admin<E, C> {
    /// Whether the node's key or its owner signed it.
    fn is_owners(&self, request: &Request) -> bool {
        let is_owner = |signer| signer == self.intake.jobs.node || Some(signer) == self.owner;
        self.signer(request).is_some_and(is_owner)
    }

    /// The answer; `None` if another instance is meant, or no answer must be given.
    async fn answer(&self, request: &ControlRequest) -> Option<Answer> {
        let body = (request.body.len() <= BODY_BYTES_MAX).then_some(&request.body);
        let parsed = request_of(request);
        let said = || body.and_then(|body| serde_json::from_slice::<Greeting>(body).ok());
        let is_to_holder = request.is_to_holder;
        let Some(request) = parsed else {
            return Some(no("malformed", "a request is {\"action\": …} of at most 4 KiB"));
        };
        if is_to_holder != (request.action == "holds") {
            return Some(no(
                "malformed",
                "holders are asked `holds` on jobs.holds, and all else on jobs.control",
            ));
        }
        Some(match (request.action.as_str(), &request.job_id) {
            ("cancel", Some(id)) => self.cancel(&request, id).await,
            ("cancel", None) => no("malformed", "a cancel names its `job_id`"),
            ("holds", Some(id)) => self.holds(id, request.issued_at_ms.unwrap_or_default()),
            ("holds", None) => no("malformed", "who asks for a job names its `job_id`"),
            ("drain", _) => self.drain(&request),
            ("retry", Some(id)) => self.retry(&request, id).await,
            ("readmit", _) => match request.gpu.as_deref().and_then(GpuUuid::new) {
                Some(gpu) => self.readmit(&request, &gpu),
                None => no("malformed", "a readmission names its `gpu`"),
            },
            ("retry", None) => no("malformed", "a retry names its `job_id`"),
            ("redis", _) => match request.on {
                Some(on) => self.redis(&request, on),
                None => no("malformed", "it says with `on` whether the Redis sink is to be on"),
            },
            ("status", _) => self.status(),
            (action @ ("hello" | "leave"), _) => match said() {
                Some(said) if action == "hello" => return self.hello(&said),
                Some(said) => return self.leave(&said),
                None => no("malformed", "it names its `instance`, a UUID"),
            },
            _ => no(
                "malformed",
                "the actions are cancel, retry, readmit, drain, redis, status, hello and leave",
            ),
        })
    }

    fn status(&self) -> Answer {
        let alarm = self.greeter.sole.alarm(self.intake.jobs.desk.clock.now());
        let unfit = self.intake.jobs.desk.board.unfit();
        Answer {
            ready: Some(unfit.is_none()),
            not_ready: unfit.map(|why| why.told()),
            jobs: Some(self.intake.jobs.desk.board.phases()),
            draining: Some(self.intake.jobs.desk.board.is_draining()),
            owner: self.owner,
            key_in_use_elsewhere: alarm.map(|why| why.to_string()),
            ..yes()
        }
    }

    /// Answers an agent that was given a pool's job and asks before it takes it.
    fn holds(&self, id: &JobId, asked_at_ms: u64) -> Answer {
        let Some(goes_on) = self.intake.jobs.desk.board.asked_for(id) else {
            return Answer { holds: Some(false), ..yes() };
        };
        let for_ms = u64::try_from(goes_on.as_millis()).unwrap_or(u64::MAX);
        let signature = Some(self.greeter.holds(id, for_ms, asked_at_ms));
        Answer { holds: Some(true), for_ms: Some(for_ms), signature, ..yes() }
    }

    fn hello(&self, said: &Greeting) -> Option<Answer> {
        let signature = match self.greeter.hears(said) {
            Reply::Silence => return None,
            Reply::Here => None,
            Reply::Proof(signature) => Some(signature),
        };
        Some(Answer { instance: Some(self.greeter.me().clone()), signature, ..yes() })
    }

    fn leave(&self, said: &Greeting) -> Option<Answer> {
        let leaves = self.greeter.hears_leave(said)?;
        let refusal = "only the node's own key may ask it to end, within a minute of its own clock";
        Some(if leaves { yes() } else { no("not_allowed", refusal) })
    }

    async fn cancel(&self, request: &Request, id: &JobId) -> Answer {
        // Ask the board first: a job in hand can be stopped even if the journal is stuck.
        let requester = if let Some(requester) = self.intake.jobs.desk.board.requester(id) {
            requester
        } else {
            let Ok(Some(known)) = self.intake.jobs.desk.journal.lookup(id).await else {
                return no("unknown_job", format!("this node knows no job {id}"));
            };
            known.job.and_then(|job| job.spec.requester)
        };
        if matches!(self.intake.auth, JobAuth::Requesters(_)) {
            match self.signer(request) {
                Some(signer) if Some(signer) == requester || signer == self.intake.jobs.node => {}
                _ => {
                    let error = "only the job's requester or the node itself may cancel it: sign \
                        the request";
                    return no("not_allowed", error);
                }
            }
        }
        match tokio::time::timeout(ANSWER, self.stop(id)).await {
            Ok(true) => {
                tracing::info!(job.id = %id, "job {id} is cancelled on request");
                yes()
            }
            Ok(false) => self.too_late(id).await,
            Err(_) => no("busy", "the job did not answer in time; ask again"),
        }
    }

    /// Stops a job in hand, or one that was given back; returns whether that was still possible.
    async fn stop(&self, id: &JobId) -> bool {
        match self.intake.jobs.desk.board.stop(id, StopCause::Cancelled).await {
            Some(stopped) => stopped,
            None => match self.intake.jobs.cancel_waiting(id).await {
                Ok(cancelled) => cancelled,
                Err(err) => {
                    let text = report::causes(&err);
                    tracing::error!(job.id = %id, "job {id} can't be cancelled: {text}");
                    false
                }
            },
        }
    }

    /// The answer if the job could not be stopped, with a sentence on where it stands.
    async fn too_late(&self, id: &JobId) -> Answer {
        let known = self.intake.jobs.desk.journal.lookup(id).await.ok().flatten();
        let phase = known.and_then(|known| known.job).map(|job| job.phase);
        if phase.as_ref().is_some_and(Phase::wants_slot) {
            // The node has just started and has not taken the job back into hand yet.
            return no("busy", format!("job {id} is being taken back; ask again"));
        }
        let stands = match phase.as_ref().map(|phase| (phase, phase.outcome())) {
            None => "was refused",
            Some((
                Phase::Waiting
                | Phase::HandingBack
                | Phase::LettingGo
                | Phase::Interrupted
                | Phase::Unable { .. }
                | Phase::Returning { .. },
                _,
            )) => "was stopped by the node and goes back to its queue",
            Some((_, Some(Outcome::Completed))) => "has completed",
            Some((_, Some(_))) => "has ended",
            Some((_, None)) => "has run, and its result is being published",
        };
        no("too_late", format!("job {id} {stands}"))
    }

    fn drain(&self, request: &Request) -> Answer {
        if !self.is_owners(request) {
            let error = "only the node itself or its owner may drain it: sign the request";
            return no("not_allowed", error);
        }
        self.intake.jobs.desk.board.drain();
        let text = "draining: no more jobs are taken until the node starts again";
        tracing::info!("{text}");
        self.intake.jobs.desk.events.tell(kinds::NODE_DRAINING, text, |event| event);
        yes()
    }

    /// Turns the Redis sink of events on or off.
    fn redis(&self, request: &Request, on: bool) -> Answer {
        if !self.is_owners(request) {
            let error = "only the node itself or its owner may turn the Redis sink on or off: sign \
                the request";
            return no("not_allowed", error);
        }
        let asked_at_ms = request.issued_at_ms.unwrap_or_default();
        match self.intake.jobs.desk.events.redis(on, asked_at_ms) {
            Some(true) => yes(),
            Some(false) => no("not_allowed", "a later request was heard already: sign it anew"),
            None => no("not_set", "this node has no Redis sink: set EVENTS_REDIS_URL"),
        }
    }

    /// Asks for a kept output to be published.
    async fn retry(&self, request: &Request, id: &JobId) -> Answer {
        if !self.is_owners(request) {
            let error = "only the node itself or its owner may have a kept output published: sign \
                the request";
            return no("not_allowed", error);
        }
        let desk = &self.intake.jobs.desk;
        match desk.journal.ask_for(id, desk.clock.now()).await {
            Ok(true) => {
                tracing::info!(job.id = %id, "the kept output of job {id} is asked for");
                self.retried.notify_one();
                yes()
            }
            Ok(false) => no("not_kept", format!("no output of job {id} is kept here")),
            Err(err) => no("busy", report::causes(&err)),
        }
    }

    /// Lets a retired GPU be tried again.
    fn readmit(&self, request: &Request, gpu: &GpuUuid) -> Answer {
        if !self.is_owners(request) {
            let error = "only the node itself or its owner may readmit a GPU: sign the request";
            return no("not_allowed", error);
        }
        if self.intake.jobs.desk.board.readmit(gpu) {
            tracing::info!(%gpu, "the GPU {gpu} is readmitted: it is tried at once");
            yes()
        } else {
            no("not_retired", format!("the GPU {gpu} is not retired here"))
        }
    }

    /// The address that signed the request; `None` without a signature, if its time is too far off,
    /// or before the chain's id is known. A signature for another node gives an address that has no
    /// rights.
    fn signer(&self, request: &Request) -> Option<Address> {
        let (issued_at_ms, signature) = (request.issued_at_ms?, request.signature?);
        let now = self.intake.jobs.desk.clock.now().unix_ms();
        if now.abs_diff(issued_at_ms) > u64::try_from(FRESH.as_millis()).unwrap_or(0) {
            return None;
        }
        let domain = (*self.intake.domain.borrow())?;
        // Exactly what is acted on, or a signature for one thing would serve for another.
        let id = match request.action.as_str() {
            "readmit" => request.gpu.as_deref(),
            "redis" => request.on.map(|on| if on { "on" } else { "off" }),
            _ => request.job_id.as_ref().map(JobId::as_str),
        };
        let id = id.unwrap_or_default();
        let digest =
            domain.control_digest(&request.action, id, self.intake.jobs.node, issued_at_ms);
        key::recover(&digest.0, &signature.0).ok()
    }
}
