//! A job's task where the journal is stuck, and where the task itself is at fault.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::*;
use crate::agent::intake::Intake;
use crate::agent::recover;
use crate::agent::settings::JobAuth;
use crate::agent::terms::Terms;
use crate::bus::claims::Found as FoundClaim;
use crate::bus::{self, AckHandle, PoolName, Settle, Target};
use crate::clock::Timestamp;
use crate::container::ImagePolicy;
use crate::container::{self, ContainerId};
use crate::job::claim::Claim;
use crate::job::phase::{Asked, PinnedImage, StopCause};
use crate::job::spec::parse;
use crate::job::{LateResult, Signature};
use crate::journal::{Disk, Fate, Gate, Outgoing};
use crate::node::Address;
use crate::node::admission::Offer;
use crate::node::presence::Presence;
use crate::supervise::Crew;

const NODE: Address = Address::new([1; 20]);

/// A clock on which every sleep is over at once.
#[derive(Debug, Clone, Default)]
struct Quick(Arc<AtomicU64>);

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

/// A host on which everything works, but that a container goes on until it is stopped.
#[derive(Debug, Default)]
struct Fakes {
    clock: Quick,
    board: Option<Board>,
    /// Which time that it is followed its task panics.
    panics_at: usize,
    followed: AtomicUsize,
    is_followed: Notify,
    is_stopped: Notify,
}

impl Effects for Fakes {
    async fn perform(&self, job: &Job, step: Step) -> Event {
        match step {
            Step::Pull => {
                let text = "sha256:1".to_owned();
                Event::Pulled { image: PinnedImage { id: text.clone(), digest: text } }
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
            step => panic!("{step:?}"),
        }
    }

    async fn settle(&self, _: &AckHandle, _: Settle) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn say(&self, _: &Outgoing) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn say_late(&self, _: &LateResult) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn said(&self) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn bury(&self, _: &Target, _: Vec<u8>, _: &str) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn is_queued(&self, _: &AckHandle, _: &Target, _: &JobId) -> Result<bool, bus::Error> {
        Ok(true)
    }

    async fn neighbours(&self, _: &PoolName) -> Result<Vec<Presence>, bus::Error> {
        Ok(Vec::new())
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

    async fn containers(&self) -> Result<Vec<Found>, container::Error> {
        Ok(vec![Found {
            id: ContainerId("c".to_owned()),
            job_id: Some("job".parse().unwrap()),
            attempt: 1,
            state: FoundState::Running,
            created_at: self.clock.now(),
        }])
    }

    async fn discard(&self, container: &Found) -> Result<(), container::Error> {
        panic!("{container:?} runs")
    }

    fn remembers(&self, _: &Job) -> bool {
        true
    }

    async fn sweep(&self, _: &[JobId]) -> std::io::Result<usize> {
        Ok(0)
    }
}

/// A journal that never answers a write of this name.
#[derive(Debug)]
struct StuckAt(&'static str);

impl Gate for StuckAt {
    fn fate(&self, write: &'static str) -> Fate {
        if write == self.0 { Fate::DiesBefore } else { Fate::Written }
    }
}

/// A node with one slot whose journal is stuck at this write, and what it does to its host.
fn node(stuck_at: &'static str, panics_at: usize) -> Arc<Intake<Fakes, Quick>> {
    let clock = Quick::default();
    let offer = Offer {
        gpus: Vec::new(),
        milli_cpus: 1000,
        memory_mib: 1000,
        disk_mib: 100_000,
        bridge: false,
        slots: 1,
    };
    let terms = Terms { offer, images: ImagePolicy::default() };
    let board = Board::new(terms.clone());
    let hour = Duration::from_hours(1);
    let desk = Desk {
        journal: Journal::simulated(&Disk::new().unwrap(), Arc::new(StuckAt(stuck_at))),
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
    };
    let effects = Fakes { clock, board: Some(board), panics_at, ..Fakes::default() };
    Arc::new(Intake {
        node: NODE,
        auth: JobAuth::Open,
        terms,
        domain: tokio::sync::watch::channel(None).1,
        desk,
        effects: Arc::new(effects),
        crew: Crew::default(),
        data_dir: "/".into(),
        disk_free_min_mib: 0,
        open: tokio::sync::watch::Sender::new(0),
        waiting: tokio::sync::Mutex::default(),
    })
}

async fn start(node: &Intake<Fakes, Quick>, id: &str) {
    let body = format!(r#"{{"job_id": "{id}", "image": "x", "timeout_s": 3600}}"#);
    let parsed = parse(body.as_bytes()).unwrap();
    let target = format!("dispatch.{NODE}");
    let asked = Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target };
    let taken = Job::accept(asked, NODE, 0, node.desk.clock.now());
    node.desk.journal.admit(&taken, body.into_bytes(), None).await.unwrap();
    node.start(taken.job, None);
}

/// What is to happen at once, on a machine that may be busy.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it happens")
}

#[tokio::test]
async fn a_container_is_stopped_though_the_journal_never_answers() {
    let id: JobId = "job".parse().unwrap();
    for stuck_at in ["running", "stopping"] {
        let node = node(stuck_at, 0);
        start(&node, "job").await;
        // `Follow` of these fakes does not look at the time: that is `act`'s.
        if stuck_at == "running" {
            soon(node.effects.is_stopped.notified()).await;
            continue;
        }
        soon(node.effects.is_followed.notified()).await;
        tokio::select! {
            biased;
            answer = node.desk.board.stop(&id, StopCause::Cancelled) => {
                panic!("{answer:?}, though it is not written down")
            }
            () = soon(node.effects.is_stopped.notified()) => {}
        }
    }
}

#[tokio::test]
async fn a_task_that_panics_leaves_its_slot_to_its_container_until_the_job_is_taken_up_again() {
    let node = node("", 1);
    start(&node, "job").await;
    while !node.crew.is_empty() {
        tokio::task::yield_now().await;
    }
    let (board, id) = (&node.desk.board, "job".parse().unwrap());
    assert!(board.has(&id) && !board.is_looked_after(&id));
    assert_eq!(board.room(0), 0, "its container still runs");
    tokio::select! {
        biased;
        () = soon(node.effects.is_followed.notified()) => {}
        ended = recover::keep(Arc::clone(&node)) => panic!("{ended:?}"),
    }
    assert!(board.is_looked_after(&id));
    assert_eq!(node.crew.len(), 1);
}

#[tokio::test]
async fn a_job_that_was_written_down_though_the_answer_was_an_error_is_taken_up() {
    let node = node("", 0);
    let taken = {
        let parsed = parse(br#"{"job_id": "job", "image": "x"}"#).unwrap();
        let target = format!("dispatch.{NODE}");
        let asked = Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target };
        Job::accept(asked, NODE, 0, node.desk.clock.now())
    };
    // Whoever wrote it down believes that it failed, and starts nothing.
    node.desk.journal.admit(&taken, Vec::new(), None).await.unwrap();
    tokio::select! {
        biased;
        () = soon(node.effects.is_followed.notified()) => {}
        ended = recover::keep(Arc::clone(&node)) => panic!("{ended:?}"),
    }
}
