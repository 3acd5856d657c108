//! The cost of a job to the node itself: the real plan, board and journal (on a real disk), with
//! effects that answer at once.
//!
//! `cargo bench --bench jobs [-- --quick | --year JOBS | --folder FILES | --cards LIBRARY |
//! --line JOBS | --watching JOBS | --events COUNT]` prints JSON.
//! `--year` prints only the row about a journal of `JOBS` jobs, `--folder` only that about an output of
//! `FILES` files, `--cards` only that about sampling the GPUs of this management library, `--line` only that about giving
//! out cards among `JOBS` waiting jobs, `--watching` (root only) that about sampling what `JOBS` jobs use, `--events` only
//! that about telling so many events.
//! docs/performance.md explains the figures.

#![expect(clippy::print_stdout, reason = "the figures go to stdout")]

mod cards;
mod events;
mod fakes;
mod folder;
mod line;
mod watching;
mod year;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lamda_node::agent::events::Events;
use lamda_node::agent::jobs::attempt::drive;
use lamda_node::agent::jobs::board::{Board, StopRequest};
use lamda_node::agent::jobs::desk::Desk;
use lamda_node::agent::jobs::folders::Folders;
use lamda_node::agent::jobs::hand::Jobs;
use lamda_node::agent::jobs::notary::Notary;
use lamda_node::agent::jobs::terms::{OwnersSandbox, Terms};
use lamda_node::agent::jobs::{outbox, recover};
use lamda_node::chain::Key;
use lamda_node::clock::{Clock, SystemClock};
use lamda_node::container::fake::Fake;
use lamda_node::container::{ContainerRuntime as _, ImagePolicy};
use lamda_node::ids::{Address, Domain};
use lamda_node::job::Job;
use lamda_node::job::phase::{Asked, Event, PinnedImage, Rules, Transition};
use lamda_node::job::spec::parse;
use lamda_node::journal::{Journal, Reader};
use lamda_node::node::admission::{Offer, Reach};
use lamda_node::supervise::Crew;
use tokio::sync::{Notify, mpsc, watch};

use fakes::{Fakes, Host, Pace};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const NODE: Address = Address::new([7; 20]);
/// The time after which a measurement is given up, since a failing step would be retried for ever.
const STUCK: Duration = Duration::from_mins(2);
const IMAGE: &str = "registry.example/bench/job:1";

/// The first transition of a job, and its body as a requester sends it.
fn accepted(number: usize) -> Result<(Transition, Vec<u8>), Failure> {
    let body = format!(
        r#"{{"job_id":"bench-{number}","image_name":"{IMAGE}","command":["python","train.py"],
            "env":{{"EPOCHS":"3"}},"input_file_cid":"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"}}"#
    );
    let parsed = parse(body.as_bytes()).map_err(|refused| refused.error)?;
    let target = format!("dispatch.{NODE}");
    let asked = Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target };
    Ok((Job::accept(asked, NODE, 0, SystemClock.now()), body.into_bytes()))
}

/// A job on the board, and the receiver of its stop requests.
type InHand = (Job, mpsc::Receiver<StopRequest>);

/// A node made of the real parts, on fake effects.
#[derive(Debug, Clone)]
struct Bench {
    desk: Desk<SystemClock>,
    crew: Crew,
    effects: Arc<Fakes>,
    slots: usize,
}

fn terms(slots: usize) -> Terms {
    let large = 1 << 30;
    Terms {
        offer: Offer {
            gpus: Vec::new(),
            milli_cpus: large,
            memory_mib: large,
            disk_mib: large,
            network: Reach::Nothing,
            slots,
        },
        images: ImagePolicy::default(),
        sandbox: OwnersSandbox::default(),
    }
}

/// Opens a journal, retrying while its previous owner releases it.
fn open(dir: &Path) -> Result<Journal, Failure> {
    for _ in 0..500 {
        match Journal::open(dir) {
            Err(lamda_node::journal::Error::InUse(_)) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return Ok(other?),
        }
    }
    Err("the journal is still in use".into())
}

impl Bench {
    fn new(dir: &Path, slots: usize, effects: Fakes) -> Result<Self, Failure> {
        let hour = Duration::from_hours(1);
        let board = Board::new(terms(slots));
        let desk = Desk {
            journal: open(dir)?,
            board: board.clone(),
            clock: SystemClock,
            rules: Rules {
                timeout_max: hour,
                fetch_give_up: hour,
                upload_give_up: hour,
                result_keep: hour,
            },
            outbox: Arc::new(Notify::new()),
            notary: Notary::of(Arc::new(Key::random()), watch::channel(Some(Domain::OWN)).1),
            events: Events::default(),
        };
        let effects = Arc::new(Fakes { board: Some(board), ..effects });
        Ok(Self { desk, crew: Crew::default(), effects, slots })
    }

    /// Starts one job, as the agent's intake does after its checks.
    async fn take(&self, number: usize) -> Result<(), Failure> {
        if let Some((job, stops)) = self.admit(number).await? {
            let (effects, desk) = (Arc::clone(&self.effects), self.desk.clone());
            self.crew.spawn(format!("job {number}"), async move {
                Box::pin(drive(job, effects.as_ref(), &desk, stops)).await;
            });
        }
        Ok(())
    }

    /// Journals a job and puts it on the board.
    async fn admit(&self, number: usize) -> Result<Option<InHand>, Failure> {
        let (taken, body) = accepted(number)?;
        let journal = &self.desk.journal;
        if journal.lookup(taken.job.id()).await?.is_some() {
            return Err(format!("job {number} is in the journal").into());
        }
        journal.admit(&taken, body, Some("an acknowledgement's subject".to_owned())).await?;
        self.desk.outbox.notify_one();
        let stops = self.desk.board.enter(&taken.job, None);
        Ok(stops.map(|stops| (taken.job, stops)))
    }

    /// Runs `jobs` jobs, as many at a time as there are slots, each from admission to its end.
    async fn abreast(&self, jobs: usize) -> Result<Duration, Failure> {
        let (started, next) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        for worker in 0..self.slots {
            let (bench, next) = (self.clone(), Arc::clone(&next));
            self.crew.spawn(format!("worker {worker}"), async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= jobs {
                        return;
                    }
                    if let Ok(Some((job, stops))) = bench.admit(number).await {
                        let drive = drive(job, bench.effects.as_ref(), &bench.desk, stops);
                        Box::pin(drive).await;
                    }
                }
            });
        }
        tokio::time::timeout(STUCK, async {
            while !self.crew.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await?;
        Ok(started.elapsed())
    }

    /// Runs `jobs` jobs, each started as soon as the board has room for it.
    async fn together(&self, jobs: usize) -> Result<Duration, Failure> {
        let started = Instant::now();
        for number in 0..jobs {
            self.desk.board.wait_for_room(self.slots).await;
            self.take(number).await?;
        }
        tokio::time::timeout(STUCK, self.desk.board.wait_until_at_rest()).await?;
        Ok(started.elapsed())
    }

    /// Runs `jobs` jobs, each started after the one before has ended.
    async fn one_by_one(&self, jobs: usize) -> Result<Duration, Failure> {
        let started = Instant::now();
        for number in 0..jobs {
            self.take(number).await?;
            self.desk.board.wait_until_at_rest().await;
        }
        Ok(started.elapsed())
    }
}

/// (a): jobs per second, while the outbox publishes their statuses concurrently.
async fn rate(dir: &Path, jobs: usize) -> Result<f64, Failure> {
    let bench = Bench::new(dir, 256, Fakes::default())?;
    let (desk, effects) = (bench.desk.clone(), Arc::clone(&bench.effects));
    let took = tokio::select! {
        took = bench.abreast(jobs) => took?,
        failed = outbox::run(desk, effects) => return Err(format!("{failed:?}").into()),
    };
    let known = Reader::open(dir)?.jobs(u32::MAX)?.records;
    let done = known.iter().filter(|job| !job.open).count();
    if done != jobs {
        return Err(format!("{done} of {jobs} jobs are done").into());
    }
    Ok(f64::from(u32::try_from(jobs)?) / took.as_secs_f64())
}

/// (b): jobs with 1 s each of fetching, running and uploading, on one slot.
async fn pipeline(dir: &Path, jobs: usize) -> Result<serde_json::Value, Failure> {
    let second = Duration::from_secs(1);
    let pace = Pace { fetch: second, run: second, upload: second, ..Pace::default() };
    let run = |name: &str| {
        let dir = dir.join(name);
        std::fs::create_dir(&dir)?;
        Bench::new(&dir, 1, Fakes { pace, ..Fakes::default() })
    };
    // The serial run needs only a few jobs. Neither run uses the CPU, so they can run concurrently.
    let few = jobs.div_ceil(4);
    let (beside, alone) = (run("together")?, run("serial")?);
    let (together, serial) = tokio::try_join!(beside.together(jobs), alone.one_by_one(few))?;
    Ok(serde_json::json!({
        "jobs": jobs,
        "together_s": together.as_secs_f64(),
        "serial_jobs": few,
        "serial_s": serial.as_secs_f64(),
        "limit_s": 1.1 * f64::from(u32::try_from(jobs + 2)?),
    }))
}

/// (c): the time of recovery, until every container is followed again.
async fn adoption(dir: &Path, containers: usize) -> Result<serde_json::Value, Failure> {
    let engine = Fake::new(Duration::from_hours(1), Vec::new());
    let host = Host { engine, folders: Folders::create(dir)? };
    {
        let bench = Bench::new(dir, containers, Fakes::default())?;
        for number in 0..containers {
            run_one(&bench, &host, number).await?;
        }
    }
    let fakes = Fakes { host: Some(host), ..Fakes::default() };
    let Bench { desk, effects, slots, .. } = Bench::new(dir, containers, fakes)?;
    let started = Instant::now();
    let jobs = Arc::new(Jobs::new(NODE, terms(slots), desk, Arc::clone(&effects)));
    let crew = jobs.crew.clone();
    Box::pin(recover::run(jobs))
        .await
        .map_err(|failure| format!("recovery failed: {failure:?}"))?;
    while effects.following.load(Ordering::Relaxed) < containers {
        effects.followed.notified().await;
    }
    let took = started.elapsed();
    crew.abort();
    Ok(serde_json::json!({ "containers": containers, "ms": took.as_secs_f64() * 1000.0 }))
}

/// Brings one job to a running container, in the journal and on the engine.
async fn run_one(bench: &Bench, host: &Host, number: usize) -> Result<(), Failure> {
    let Host { engine, folders } = host;
    let (taken, body) = accepted(number)?;
    let journal = &bench.desk.journal;
    journal.admit(&taken, body, None).await?;
    let image = engine.image(IMAGE).await?;
    let image = PinnedImage { id: image.id, digest: image.digest, unconfirmed: image.unconfirmed };
    let folder = folders.of(&taken.job);
    folder.prepare()?;
    let spec = terms(bench.slots).container(&taken.job, &image, &[], &folder);
    let id = engine.create(&spec).await?;
    let container = engine.start(&id).await?.id.0;
    let now = SystemClock.now();
    let mut job = taken.job;
    for event in [
        Event::Pulled { image },
        Event::Fetched,
        Event::Reserved { gpus: Vec::new() },
        Event::Created { container: container.clone() },
        Event::Started { container, at: now },
    ] {
        let moved = job.apply(event.clone(), now, &bench.desk.rules)?;
        journal.record(&event, &moved, now).await?;
        job = moved.job;
    }
    Ok(())
}

/// A folder in Cargo's target folder: the system's temporary folder may be in memory, where fsync is free.
fn place(name: &str) -> Result<tempfile::TempDir, Failure> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    Ok(tempfile::Builder::new().prefix(name).tempdir_in(target)?)
}

/// The one row that the arguments ask for; `None` if they ask for all.
async fn one_row(arguments: &[String]) -> Result<Option<serde_json::Value>, Failure> {
    let rows = ["--year", "--folder", "--cards", "--watching", "--line", "--events"];
    let asked = arguments.iter().position(|argument| rows.contains(&argument.as_str()));
    let Some(at) = asked else { return Ok(None) };
    let (row, value) = (arguments[at].as_str(), arguments.get(at + 1).ok_or("a row's value")?);
    let told = match row {
        "--year" => Box::pin(year::year(place("year")?.path(), value.parse()?)).await?,
        "--folder" => Box::pin(folder::folder(place("folder")?.path(), value.parse()?)).await?,
        "--cards" => serde_json::to_value(cards::cards(value.into()).await?)?,
        "--watching" => watching::watching(value.parse()?)?,
        "--line" => line::line(value.parse()?).await?,
        _ => events::events(value.parse()?),
    };
    Ok(Some(serde_json::json!({ row.trim_start_matches('-'): told })))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Searched rather than parsed strictly: Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--part") {
        let [name, dir] =
            [1, 2].map(|after| arguments.get(at + after).cloned().unwrap_or_default());
        println!("{}", Box::pin(year::part(&name, Path::new(&dir))).await?);
        return Ok(());
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    if let Some(row) = Box::pin(one_row(&arguments)).await? {
        println!("{row:#}");
        return Ok(());
    }
    let (jobs, piped) = if quick { (2_000, 4) } else { (20_000, 20) };
    let rate = rate(place("rate")?.path(), jobs).await?;
    let adoption = Box::pin(adoption(place("adoption")?.path(), 50)).await?;
    let pipeline = pipeline(place("pipeline")?.path(), piped).await?;
    let done = if quick { 30_000 } else { 3_000_000 };
    let year = Box::pin(year::year(place("year")?.path(), done)).await?;
    let files = if quick { 2_900 } else { 29_000 };
    let folder = Box::pin(folder::folder(place("folder")?.path(), files)).await?;
    let figures = serde_json::json!({
        "line": line::line(1_000).await?,
        "events": events::events(1_000_000),
        "folder": folder,
        "year": year,
        "jobs_per_s": rate,
        "adoption": adoption,
        "pipeline": pipeline,
    });
    println!("{figures:#}");
    Ok(())
}
