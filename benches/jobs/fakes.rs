//! Fake effects that answer at once, or after a given time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lamda_node::agent::jobs::board::Board;
use lamda_node::agent::jobs::effects::Effects;
use lamda_node::agent::jobs::folders::Folders;
use lamda_node::bus::claims::Found as FoundClaim;
use lamda_node::bus::{self, AckHandle, PoolName, Settle, Target};
use lamda_node::chain::key::Key;
use lamda_node::clock::{Clock, SystemClock};
use lamda_node::container::fake::Fake;
use lamda_node::container::{self, ContainerId, ContainerRuntime as _, Found};
use lamda_node::ids::{Address, Domain, JobId, Signature};
use lamda_node::job::claim::Claim;
use lamda_node::job::phase::{Event, Phase, PinnedImage, RunExit};
use lamda_node::job::plan::Step;
use lamda_node::job::receipt::{Facts, Receipt, Signed};
use lamda_node::job::{Job, LateResult};
use lamda_node::journal::Outgoing;
use tokio::sync::{Notify, mpsc};

use super::NODE;

/// The duration of each of the three slow steps of a job, and of publishing a status.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    pub(crate) fetch: Duration,
    pub(crate) run: Duration,
    pub(crate) upload: Duration,
    /// The round trip of a status to the server.
    pub(crate) say: Duration,
}

/// The engine that runs the containers, and the folders with their files.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) engine: Fake,
    pub(crate) folders: Folders,
}

/// Effects that change nothing and take the given time. With a host, `Follow` and recovery use it.
#[derive(Debug)]
pub(crate) struct Fakes {
    pub(crate) pace: Pace,
    pub(crate) board: Option<Board>,
    pub(crate) host: Option<Host>,
    pub(crate) followed: Notify,
    pub(crate) following: AtomicUsize,
    pub(crate) key: Key,
}

impl Default for Fakes {
    fn default() -> Self {
        Self {
            pace: Pace::default(),
            board: None,
            host: None,
            followed: Notify::new(),
            following: AtomicUsize::new(0),
            key: Key::random(),
        }
    }
}

impl Effects for Fakes {
    async fn perform(&self, job: &Job, step: Step) -> Event {
        let now = SystemClock.now();
        match step {
            Step::Pull => Event::Pulled { image: image() },
            Step::Fetch => {
                pause(self.pace.fetch).await;
                Event::Fetched
            }
            Step::Reserve => match &self.board {
                Some(board) => Event::Reserved { gpus: board.reserve(job).await },
                None => Event::Reserved { gpus: Vec::new() },
            },
            Step::Create => Event::Created { container: format!("{}-1", job.id()) },
            Step::Start => Event::Started { container: format!("{}-1", job.id()), at: now },
            Step::Follow { .. } => self.follow(job).await,
            Step::Stop => exited(0),
            Step::Collect => Event::Collected { output: Ok(None), log: None },
            Step::Publish => {
                pause(self.pace.upload).await;
                Event::Published { output: None, log: None }
            }
            Step::Attest => Event::Attested { receipt: self.receipt(job), usage: None },
            Step::Remove => Event::Removed,
            Step::Claim
            | Step::Conclude
            | Step::Bury
            | Step::Ack
            | Step::HandBack
            | Step::Return => {
                unreachable!("{} is a message", step.name())
            }
        }
    }

    async fn disk_max_mib(&self) -> u64 {
        u64::MAX
    }

    async fn settle(&self, _: &AckHandle, _: Settle) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn say(&self, _: &Outgoing) -> Result<(), bus::Error> {
        pause(self.pace.say).await;
        Ok(())
    }

    async fn said(&self) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn is_queued(&self, _: &AckHandle, _: &Target, _: &JobId) -> Result<bool, bus::Error> {
        Ok(true)
    }

    async fn say_late(&self, _: &LateResult) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn bury(&self, _: &Target, _: Vec<u8>, _: &str) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn claim(&self, _: &PoolName, _: &JobId) -> Result<Option<FoundClaim>, bus::Error> {
        Ok(None)
    }

    async fn put_claim(
        &self,
        _: &PoolName,
        _: &JobId,
        _: &Claim,
        _: Option<u64>,
    ) -> Result<bool, bus::Error> {
        Ok(true)
    }

    async fn keeps(&self, _: Address, _: &JobId) -> Option<Duration> {
        None
    }

    async fn ack_wait(&self, delivery: &AckHandle) -> Result<Duration, bus::Error> {
        Ok(delivery.ack_wait())
    }

    async fn neighbours(
        &self,
        _: &PoolName,
    ) -> Result<Vec<lamda_node::node::presence::Presence>, bus::Error> {
        Ok(Vec::new())
    }

    async fn containers(&self) -> Result<Vec<Found>, container::Error> {
        match &self.host {
            Some(Host { engine, .. }) => engine.list(NODE).await,
            None => Ok(Vec::new()),
        }
    }

    async fn discard(&self, container: &Found) -> Result<(), container::Error> {
        match &self.host {
            Some(Host { engine, .. }) => engine.remove(&container.id).await,
            None => Ok(()),
        }
    }

    async fn withdraw(&self, container: &Found) -> Result<bool, container::Error> {
        match &self.host {
            Some(Host { engine, .. }) => engine.withdraw(&container.id).await,
            None => Ok(true),
        }
    }

    fn remembers(&self, _: &Job) -> bool {
        true
    }

    async fn remove_folder(&self, _: &Job) -> std::io::Result<()> {
        Ok(())
    }

    async fn sweep(&self, keep: &[JobId]) -> std::io::Result<usize> {
        self.host.as_ref().map_or(Ok(0), |host| host.folders.sweep(keep))
    }
}

impl Fakes {
    /// A receipt with a real signature, since the journal parses it again.
    fn receipt(&self, job: &Job) -> serde_json::Value {
        let Phase::Published { ended, .. } = &job.phase else { return serde_json::Value::Null };
        let facts = Facts {
            image_digest: &ended.run.image.digest,
            gpus: &ended.run.gpus,
            input: job.spec.input.as_ref(),
            output: None,
            exit_code: 0,
            ran: (ended.exit.started_at, ended.exit.finished_at),
        };
        let receipt = Receipt::new(job.id().clone(), job.node, job.spec_hash, facts);
        let domain = Domain { chain_id: 31337, contract: NODE };
        let signature = Signature(self.key.sign_digest(&receipt.digest(&domain).0));
        Signed { domain, receipt, signature }.to_json()
    }

    async fn follow(&self, job: &Job) -> Event {
        let (Some(Host { engine, .. }), Phase::Running { run }) = (&self.host, &job.phase) else {
            pause(self.pace.run).await;
            return exited(0);
        };
        self.following.fetch_add(1, Ordering::Relaxed);
        self.followed.notify_one();
        let (sink, _output) = mpsc::channel(1);
        match engine.follow(&ContainerId(run.container.clone()), sink, &|| ()).await {
            Ok(exit) => exited(exit.code),
            Err(_) => Event::Lost,
        }
    }
}

/// Sleeps for `span`; without a span, not even for the resolution of a timer.
async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

pub(crate) fn image() -> PinnedImage {
    let digest = format!("sha256:{}", "ab".repeat(32));
    PinnedImage { id: digest.clone(), digest, unconfirmed: false }
}

fn exited(code: i32) -> Event {
    let now = SystemClock.now();
    Event::Exited {
        exit: RunExit {
            code: Some(code),
            oom: false,
            started_at: now,
            finished_at: now,
            hint: None,
            usage: None,
        },
        by_itself: Some(true),
    }
}
