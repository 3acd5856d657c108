//! Test doubles for the agent's parts: a node whose host, bus and journal a test controls.
//!
//! Invariants: everything works unless a test says otherwise. A sleep ends at once.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::board::Board;
use super::desk::Desk;
use super::effects::Effects;
use super::hand::Jobs;
use super::intake::Intake;
use super::notary::Notary;
use super::terms::{OwnersSandbox, Terms};
use crate::agent::settings::JobAuth;
use crate::bus::claims::Found as FoundClaim;
use crate::bus::{self, AckHandle, PoolName, Settle, Target};
use crate::clock::{Clock, Timestamp};
use crate::container::{self, ContainerId, Found, FoundState, ImagePolicy};
use crate::ids::{Address, Domain, Hash, JobId, Signature};
use crate::job::claim::Claim;
use crate::job::phase::{Asked, Event, PinnedImage, Rules, Transition};
use crate::job::plan::Step;
use crate::job::receipt::{Facts, Receipt, Signed};
use crate::job::spec::parse;
use crate::job::{Job, LateResult};
use crate::journal::{Journal, Outgoing, SCHEMA};
use crate::node::admission::Offer;
use crate::node::presence::Presence;
use crate::sql::{Disk, Fate, Gate, Slowness};

pub(super) const NODE: Address = Address::new([1; 20]);

/// A clock on which every sleep ends at once and advances the time.
#[derive(Debug, Clone, Default)]
pub(super) struct Quick(Arc<AtomicU64>);

impl Clock for Quick {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + self.0.load(Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Relaxed))
    }

    async fn sleep(&self, span: Duration) {
        tokio::task::yield_now().await;
        self.0.fetch_add(u64::try_from(span.as_millis()).unwrap().max(1), Relaxed);
    }
}

/// A host on which everything works; a container runs until it is stopped.
#[derive(Debug, Default)]
pub(super) struct Fakes {
    clock: Quick,
    board: Option<Board>,
    /// Panics the n-th time that a container is followed; 0: never.
    panics_at: usize,
    followed: AtomicUsize,
    pub(super) is_followed: Notify,
    pub(super) is_stopped: Notify,
    /// The containers that the engine lists.
    pub(super) containers: Mutex<Vec<Found>>,
    pub(super) engine_is_away: AtomicBool,
    /// Containers that it can't remove.
    pub(super) stuck: Mutex<Vec<ContainerId>>,
    /// Whether a container listed as created has been started when it is withdrawn.
    pub(super) starts_late: AtomicBool,
    /// The claim on every job.
    pub(super) claim: Mutex<Option<Claim>>,
    /// The answer of any holder that is asked for a job.
    pub(super) keeps: Mutex<Option<Duration>>,
    /// Whether all queues are empty.
    pub(super) is_purged: AtomicBool,
    /// Whether folders can't be removed.
    pub(super) keeps_folders: AtomicBool,
    /// The actions that were performed, in order.
    pub(super) done: Mutex<Vec<String>>,
}

impl Fakes {
    fn note(&self, what: String) {
        self.done.lock().unwrap().push(what);
    }

    /// How many actions begin with this text.
    pub(super) fn count(&self, what: &str) -> usize {
        self.done.lock().unwrap().iter().filter(|one| one.starts_with(what)).count()
    }
}

/// A container of the first attempt of a job.
pub(super) fn container(id: &str, state: FoundState) -> Found {
    Found {
        id: ContainerId(format!("c-{id}")),
        job_id: Some(id.parse().unwrap()),
        attempt: 1,
        state,
        created_at: Quick::default().now(),
    }
}

impl Effects for Fakes {
    async fn perform(&self, job: &Job, step: Step) -> Event {
        self.note(format!("{} {}", step.name(), job.id()));
        match step {
            Step::Pull => {
                let text = "sha256:1".to_owned();
                Event::Pulled {
                    image: PinnedImage { id: text.clone(), digest: text, unconfirmed: false },
                }
            }
            Step::Fetch => Event::Fetched,
            Step::Reserve => {
                Event::Reserved { gpus: self.board.as_ref().unwrap().reserve(job).await }
            }
            Step::Create => Event::Created { container: "c".to_owned() },
            Step::Start => Event::Started { container: "c".to_owned(), at: self.clock.now() },
            Step::Follow { .. } => {
                let times = self.followed.fetch_add(1, Relaxed) + 1;
                assert_ne!(times, self.panics_at, "a defect, planted");
                self.is_followed.notify_one();
                std::future::pending().await
            }
            Step::Stop => {
                self.is_stopped.notify_one();
                std::future::pending().await
            }
            // An endless upload, or an engine that is away.
            Step::Publish | Step::Remove => std::future::pending().await,
            step => panic!("{step:?}"),
        }
    }

    async fn settle(&self, delivery: &AckHandle, how: Settle) -> Result<(), bus::Error> {
        self.note(format!("{how:?} {}", delivery.delivered));
        Ok(())
    }

    async fn say(&self, _: &Outgoing) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn say_late(&self, result: &LateResult) -> Result<(), bus::Error> {
        self.note(format!("say_late {}", result.job_id));
        Ok(())
    }

    async fn said(&self) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn bury(&self, _: &Target, _: Vec<u8>, _: &str) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn is_queued(&self, _: &AckHandle, _: &Target, _: &JobId) -> Result<bool, bus::Error> {
        Ok(!self.is_purged.load(Relaxed))
    }

    async fn neighbours(&self, _: &PoolName) -> Result<Vec<Presence>, bus::Error> {
        Ok(Vec::new())
    }

    async fn claim(&self, _: &PoolName, _: &JobId) -> Result<Option<FoundClaim>, bus::Error> {
        let claim = *self.claim.lock().unwrap();
        Ok(claim.map(|claim| FoundClaim { claim, revision: 1 }))
    }

    async fn put_claim(
        &self,
        _: &PoolName,
        _: &JobId,
        claim: &Claim,
        _: Option<u64>,
    ) -> Result<bool, bus::Error> {
        *self.claim.lock().unwrap() = Some(*claim);
        Ok(true)
    }

    async fn keeps(&self, _: Address, _: &JobId) -> Option<Duration> {
        *self.keeps.lock().unwrap()
    }

    async fn ack_wait(&self, delivery: &AckHandle) -> Result<Duration, bus::Error> {
        Ok(delivery.ack_wait())
    }

    async fn containers(&self) -> Result<Vec<Found>, container::Error> {
        if self.engine_is_away.load(Relaxed) {
            return Err(container::Error::Host { host: "away".to_owned() });
        }
        Ok(self.containers.lock().unwrap().clone())
    }

    async fn discard(&self, container: &Found) -> Result<(), container::Error> {
        assert_ne!(container.state, FoundState::Running, "{container:?}");
        if self.stuck.lock().unwrap().contains(&container.id) {
            return Err(container::Error::Engine { reason: "it is stuck".to_owned() });
        }
        self.containers.lock().unwrap().retain(|one| one.id != container.id);
        Ok(())
    }

    async fn withdraw(&self, container: &Found) -> Result<bool, container::Error> {
        if self.starts_late.load(Relaxed) {
            return Ok(false);
        }
        self.discard(container).await.map(|()| true)
    }

    fn remembers(&self, _: &Job) -> bool {
        true
    }

    async fn disk_max_mib(&self) -> u64 {
        u64::MAX
    }

    async fn remove_folder(&self, job: &Job) -> std::io::Result<()> {
        self.note(format!("remove_folder {}", job.id()));
        if self.keeps_folders.load(Relaxed) {
            return Err(std::io::Error::other("planted"));
        }
        Ok(())
    }

    async fn sweep(&self, _: &[JobId]) -> std::io::Result<usize> {
        Ok(0)
    }
}

/// The faults of a journal.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// It never answers a write with this name.
    pub(super) stuck_at: &'static str,
    /// It refuses a write with this name so many times.
    pub(super) refuses: (&'static str, AtomicUsize),
    /// Whether other tasks run while it handles a request.
    pub(super) is_slow: bool,
}

impl Gate for Trouble {
    fn fate(&self, write: &'static str) -> Fate {
        if write == self.stuck_at {
            return Fate::DiesBefore;
        }
        let (name, times) = &self.refuses;
        let less = |left: usize| left.checked_sub(1);
        let refused = write == *name && times.fetch_update(Relaxed, Relaxed, less).is_ok();
        if refused { Fate::Refused } else { Fate::Written }
    }

    fn slowness(&self) -> Option<Slowness> {
        self.is_slow.then(|| -> Slowness {
            Box::pin(async {
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
            })
        })
    }
}

/// A node with one slot whose journal is stuck at this write, and whose engine has a running
/// container of the job `job`.
pub(super) fn node(stuck_at: &'static str, panics_at: usize) -> Arc<Jobs<Fakes, Quick>> {
    let node = node_with(Trouble { stuck_at, ..Trouble::default() }, panics_at);
    node.effects.containers.lock().unwrap().push(container("job", FoundState::Running));
    node
}

/// A node with one slot, and these faults of its journal.
pub(super) fn node_with(trouble: Trouble, panics_at: usize) -> Arc<Jobs<Fakes, Quick>> {
    let clock = Quick::default();
    let offer = Offer {
        gpus: Vec::new(),
        milli_cpus: 1000,
        memory_mib: 1000,
        disk_mib: 100_000,
        network: crate::node::admission::Reach::Nothing,
        slots: 1,
    };
    let terms = Terms { offer, images: ImagePolicy::default(), sandbox: OwnersSandbox::default() };
    let board = Board::new(terms.clone());
    let hour = Duration::from_hours(1);
    let desk = Desk {
        journal: Journal::simulated(&Disk::new(&SCHEMA).unwrap(), Arc::new(trouble)),
        board: board.clone(),
        clock: clock.clone(),
        rules: Rules {
            timeout_max: hour,
            fetch_give_up: hour,
            upload_give_up: hour,
            result_keep: hour,
        },
        outbox: Arc::default(),
        notary: Notary::new(|_| Signature([27; 65]), tokio::sync::watch::channel(None).1),
        events: crate::agent::events::Events::default(),
    };
    let effects = Fakes { clock, board: Some(board), panics_at, ..Fakes::default() };
    Arc::new(Jobs::new(NODE, terms, desk, Arc::new(effects)))
}

/// What takes deliveries for a node.
pub(super) fn intake(jobs: &Arc<Jobs<Fakes, Quick>>) -> Intake<Fakes, Quick> {
    Intake {
        jobs: Arc::clone(jobs),
        auth: JobAuth::Open,
        owner: None,
        domain: tokio::sync::watch::channel(None).1,
        data_dir: "/".into(),
        disk_free_min_mib: 0,
        open: tokio::sync::watch::Sender::new(0),
    }
}

/// A job of the node's own queue, just accepted.
pub(super) fn dispatched(node: &Jobs<Fakes, Quick>, id: &str) -> Transition {
    accepted(node, id, format!("dispatch.{NODE}"))
}

/// The body of a job's message.
pub(super) fn body(id: &str) -> Vec<u8> {
    format!(r#"{{"job_id": "{id}", "image": "x", "timeout_s": 3600}}"#).into_bytes()
}

fn accepted(node: &Jobs<Fakes, Quick>, id: &str, target: String) -> Transition {
    let parsed = parse(&body(id)).unwrap();
    let asked = Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target };
    Job::accept(asked, NODE, 0, node.desk.clock.now())
}

/// The signal that recovery at the start is `done`.
pub(super) fn recovered(done: bool) -> tokio::sync::watch::Receiver<bool> {
    tokio::sync::watch::channel(done).1
}

pub(super) async fn start(node: &Jobs<Fakes, Quick>, id: &str) {
    let taken = dispatched(node, id);
    node.desk.journal.admit(&taken, body(id), None).await.unwrap();
    node.start(taken.job, None);
}

/// The handle of the `delivered`-th delivery of the pool's message.
pub(super) fn delivery(delivered: u64) -> AckHandle {
    AckHandle {
        reply: "$JS.ACK.x".to_owned(),
        stream: "JOBS".to_owned(),
        stream_created_ns: 1,
        stream_seq: 7,
        delivered,
        consumer: "pool-it".to_owned(),
        ack_wait_ms: 120_000,
    }
}

/// A journaled job, advanced by these events, that no task has in hand. A pool's job has its first
/// delivery.
pub(super) async fn written(
    node: &Jobs<Fakes, Quick>,
    id: &str,
    is_pools: bool,
    events: impl IntoIterator<Item = Event>,
) -> Job {
    let target = if is_pools { "pool.it".to_owned() } else { format!("dispatch.{NODE}") };
    let taken = accepted(node, id, target);
    let handle = is_pools.then(|| serde_json::to_string(&delivery(1)).unwrap());
    node.desk.journal.admit(&taken, body(id), handle).await.unwrap();
    let mut job = taken.job;
    for event in events {
        let now = node.desk.clock.now();
        let moved = job.apply(event.clone(), now, &node.desk.rules).unwrap();
        node.desk.journal.record(&event, &moved, now).await.unwrap();
        job = moved.job;
    }
    job
}

/// The events that take a job up to its container's start.
pub(super) fn until_started(is_pools: bool, now: Timestamp) -> Vec<Event> {
    let text = "sha256:1".to_owned();
    let image = PinnedImage { id: text.clone(), digest: text, unconfirmed: false };
    let mut events =
        vec![Event::Pulled { image }, Event::Fetched, Event::Reserved { gpus: Vec::new() }];
    events.extend(is_pools.then_some(Event::Claimed));
    events.push(Event::Started { container: "c".to_owned(), at: now });
    events
}

/// The name of a job's phase in the journal.
pub(super) async fn phase(node: &Jobs<Fakes, Quick>, id: &str) -> &'static str {
    let known = node.desk.journal.lookup(&id.parse().unwrap()).await.unwrap();
    known.and_then(|known| known.job).map_or("unknown", |job| job.phase.name())
}

/// A well-formed receipt; its signature is never checked.
pub(super) fn receipt(id: &str) -> serde_json::Value {
    let at = Quick::default().now();
    let facts = Facts {
        image_digest: "sha256:1",
        gpus: &[],
        input: None,
        output: None,
        exit_code: 0,
        ran: (at, at),
    };
    let receipt = Receipt::new(id.parse().unwrap(), NODE, Hash([9; 32]), facts);
    let domain = Domain { chain_id: 31337, contract: NODE };
    Signed { domain, receipt, signature: Signature([27; 65]) }.to_json()
}

/// Awaits something that must happen soon, even on a busy machine.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it happens")
}

/// Yields to the other tasks until the condition holds.
pub(super) async fn until(mut is_so: impl FnMut() -> bool) {
    soon(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
