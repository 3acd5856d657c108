//! The time in which cards that become free are given out among many jobs that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lamda_node::agent::jobs::board::Board;
use lamda_node::job::Job;
use lamda_node::job::phase::{Asked, Event, PinnedImage};
use lamda_node::job::spec::parse;
use lamda_node::node::admission::{Demand, Offer, Reach, Share, round};
use lamda_node::node::allocation::Wish;
use lamda_node::node::{Gpu, GpuUuid};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Failure, IMAGE, NODE, STUCK, terms};
use lamda_node::clock::{Clock as _, SystemClock};

/// Cards of the node, half of them of each kind.
const CARDS: usize = 8;
/// How often the row is measured; the median counts.
const ROUNDS: usize = 21;
/// Slots for everybody: only cards are short, and no decision ends early for want of a slot.
const SLOTS: usize = 1024;

/// Gives out eight cards among `jobs` waiting jobs: the decision alone, and the board's whole round, in which
/// every waiting task wakes and asks.
pub(super) async fn line(jobs: usize) -> Result<Value, Failure> {
    let gpus = gpus()?;
    let demands: Vec<Demand> = (0..jobs).map(demand).collect();
    let offer = Offer { gpus: gpus.clone(), ..terms(SLOTS).offer };
    let mut alone = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let starts = round(&offer, &[], &demands);
        alone.push(begun.elapsed());
        if starts.len() != CARDS {
            return Err(format!("{} jobs start, not {CARDS}", starts.len()).into());
        }
    }
    let mut board = Vec::new();
    for _ in 0..ROUNDS {
        board.push(on_the_board(&gpus, jobs).await?);
    }
    let ms = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    Ok(json!({ "jobs": jobs, "cards": CARDS, "decision_ms": ms(alone), "board_ms": ms(board) }))
}

fn gpus() -> Result<Vec<Gpu>, Failure> {
    let gpu = |number: usize| {
        let uuid = GpuUuid::new(&format!("GPU-{number}")).ok_or("a UUID")?;
        let (model, vram_mib) = if number.is_multiple_of(2) {
            ("NVIDIA H100 80GB HBM3", 81_559)
        } else {
            ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", 19_968)
        };
        Ok(Gpu { uuid, model: model.to_owned(), vram_mib })
    };
    (0..CARDS).map(gpu).collect()
}

/// One card for each job, of one kind or the other or of any, by four different words.
fn demand(number: usize) -> Demand {
    let model = [None, Some("H100"), Some("3g.20gb"), Some("nvidia a100")][number % 4];
    let share = Share { milli_cpus: 1, memory_mib: 1, disk_mib: 1 };
    let gpus = Wish { count: 1, model: model.map(str::to_owned), min_vram_mib: 0 };
    Demand { gpus, share, network: Reach::Nothing }
}

fn ready(number: usize) -> Result<Job, Failure> {
    let model = demand(number).gpus.model.map(|it| format!(r#","gpu_model":"{it}""#));
    let body = format!(
        r#"{{"job_id":"line-{number}","image_name":"{IMAGE}","gpus":1,"cpus":0.01,
            "memory_mib":6,"disk_mib":1{}}}"#,
        model.unwrap_or_default()
    );
    let parsed = parse(body.as_bytes()).map_err(|refused| refused.error)?;
    let target = "pool.bench".to_owned();
    let asked = Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target };
    let now = SystemClock.now();
    let hour = Duration::from_hours(1);
    let rules = lamda_node::job::phase::Rules {
        timeout_max: hour,
        fetch_give_up: hour,
        upload_give_up: hour,
        result_keep: hour,
    };
    let image = PinnedImage { id: "id".into(), digest: "digest".into(), unconfirmed: false };
    let job = Job::accept(asked, NODE, 0, now).job;
    let job = job.apply(Event::Pulled { image }, now, &rules)?.job;
    Ok(job.apply(Event::Fetched, now, &rules)?.job)
}

/// From the moment at which all cards become free until each is given out, with a task for each waiting job.
async fn on_the_board(gpus: &[Gpu], jobs: usize) -> Result<Duration, Failure> {
    let mut terms = terms(SLOTS);
    terms.offer.gpus = gpus.to_vec();
    let board = Board::new(terms);
    let in_use = gpus.iter().map(|gpu| (gpu.uuid.clone(), "not yet".to_owned())).collect();
    board.in_foreign_use(in_use);
    let (asked, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    let mut stops = Vec::new();
    for number in 0..jobs {
        let job = ready(number)?;
        stops.push(board.enter(&job, None));
        let (board, asked, served) = (board.clone(), Arc::clone(&asked), Arc::clone(&served));
        tasks.spawn(async move {
            asked.fetch_add(1, Ordering::Relaxed);
            let cards = board.reserve(&job).await;
            served.fetch_add(cards.len(), Ordering::Relaxed);
        });
    }
    until(&asked, jobs).await?;
    // Those that have said so may not wait yet.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let begun = Instant::now();
    board.in_foreign_use(std::collections::BTreeMap::new());
    until(&served, gpus.len()).await?;
    Ok(begun.elapsed())
}

async fn until(count: &AtomicUsize, wanted: usize) -> Result<(), Failure> {
    let reached = async {
        while count.load(Ordering::Relaxed) < wanted {
            tokio::task::yield_now().await;
        }
    };
    Ok(tokio::time::timeout(STUCK, reached).await?)
}
