//! One process of one agent: the agent's own parts on simulated effects.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lamda_node::agent::JobAuth;
use lamda_node::agent::events::Events;
use lamda_node::agent::jobs::board::Board;
use lamda_node::agent::jobs::desk::Desk;
use lamda_node::agent::jobs::effects::{Deliveries, Effects as _};
use lamda_node::agent::jobs::hand::Jobs;
use lamda_node::agent::jobs::intake::Intake;
use lamda_node::agent::jobs::notary::Notary;
use lamda_node::agent::jobs::shutdown;
use lamda_node::agent::jobs::terms::{OwnersSandbox, Terms};
use lamda_node::agent::jobs::{leases, orphans, outbox, reconcile, recover};
use lamda_node::backoff::Backoff;
use lamda_node::bus::{self, AckHandle, Delivery, Settle, Target};
use lamda_node::clock::Clock as _;
use lamda_node::container::ImagePolicy;
use lamda_node::ids::JobId;
use lamda_node::job::phase::{Rules, StopCause};
use lamda_node::job::spec::parse;
use lamda_node::journal::Journal;
use lamda_node::node::admission::{Offer, Reach};
use lamda_node::node::fitness::{Look, Probed};
use lamda_node::node::{Gpu, GpuUuid};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::effects::{Simulated, Writes};
use super::time::HostClock;
use super::world::{Cut, World};
use super::{check, held, leave};

/// The backoff of a failed recovery, the same as in the program.
const RECOVERY_AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// How often a process packs finished jobs. The program does so more often.
const PACKED_EVERY: Duration = Duration::from_mins(1);

/// A running process. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) life: u64,
    pub(crate) jobs: Arc<Jobs<Simulated, HostClock>>,
    intake: Arc<Intake<Simulated, HostClock>>,
    world: World,
    host: usize,
    tasks: JoinSet<()>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.jobs.crew.abort();
    }
}

impl Process {
    /// Starts a new process on a host.
    pub(crate) fn start(world: &World, host: usize) -> Self {
        let began_ms = world.time.ms();
        let mut state = world.state();
        let one = &mut state.hosts[host];
        one.lives += 1;
        one.life = Some(one.lives);
        one.began_ms = began_ms;
        let (life, slots, disk, agent) = (one.lives, one.slots, one.disk.clone(), one.agent);
        drop(state);
        world.note(Some(host), || format!("starts, life {life}"));
        let terms = terms(slots);
        let board = Board::new(terms.clone());
        world.state().hosts[host].board = Some(board.clone());
        let gate = Writes { world: world.clone(), host, life };
        let effects = Simulated { world: world.clone(), host, life, board: board.clone() };
        let shared = Desk {
            journal: Journal::simulated(&disk, Arc::new(gate)),
            board,
            clock: world.clock(host),
            rules: rules(),
            outbox: Arc::new(Notify::new()),
            notary: Notary::new(check::mark, watch::channel(None).1),
            events: Events::default(),
        };
        let jobs = Arc::new(Jobs::new(agent, terms, shared, Arc::new(effects)));
        let intake = Arc::new(Intake {
            jobs: Arc::clone(&jobs),
            auth: JobAuth::Open,
            owner: None,
            domain: watch::channel(None).1,
            data_dir: "/".into(),
            disk_free_min_mib: 0,
            open: watch::Sender::new(0),
        });
        let mut process =
            Self { life, jobs, intake, world: world.clone(), host, tasks: JoinSet::new() };
        process.serve();
        process
    }

    fn serve(&mut self) {
        let (desk, effects) = (self.jobs.desk.clone(), Arc::clone(&self.jobs.effects));
        let (desk_of, effects_of) = (desk.clone(), Arc::clone(&effects));
        self.tasks.spawn(async move {
            loop {
                outbox::run(desk_of.clone(), Arc::clone(&effects_of)).await.ok();
                desk_of.clock.sleep(Duration::from_secs(1)).await;
            }
        });
        let (journal, time) = (desk.journal.clone(), self.world.time.clone());
        self.tasks.spawn(async move {
            loop {
                let packed = journal.pack().await.unwrap_or(0);
                let soon = Duration::from_millis(5);
                time.sleep(if packed > 0 { soon } else { PACKED_EVERY }).await;
            }
        });
        self.tasks.spawn(async move {
            loop {
                leases::run(desk.clone(), Arc::clone(&effects)).await.ok();
                desk.clock.sleep(Duration::from_secs(1)).await;
            }
        });
        self.serve_jobs();
    }

    /// Recovers, then starts the tasks that look after jobs, in the program's order.
    fn serve_jobs(&mut self) {
        let (intake, world, place) =
            (Arc::clone(&self.intake), self.world.clone(), (self.host, self.life));
        let jobs = Arc::clone(&self.jobs);
        self.tasks.spawn(async move {
            let mut failures = 0;
            while recover::run(Arc::clone(&jobs)).await.is_err() {
                failures += 1;
                world.clock(place.0).sleep(RECOVERY_AGAIN.delay(failures, 1.0)).await;
            }
            let slots = jobs.terms.offer.slots;
            let pool = Target::Pool("p".parse().expect("a pool"));
            let looked_after = async {
                loop {
                    recover::keep(Arc::clone(&jobs), watch::channel(true).1).await.ok();
                    jobs.desk.clock.sleep(Duration::from_secs(1)).await;
                }
            };
            let swept = async {
                loop {
                    orphans::run(Arc::clone(&jobs)).await.ok();
                    jobs.desk.clock.sleep(Duration::from_secs(1)).await;
                }
            };
            let looked_for = async {
                loop {
                    reconcile::run(Arc::clone(&jobs)).await.ok();
                    jobs.desk.clock.sleep(Duration::from_secs(1)).await;
                }
            };
            // The host's own probes always succeed; only failed jobs can make the node unfit.
            let looked_at = async {
                let (board, clock) = (&jobs.desk.board, &jobs.desk.clock);
                loop {
                    clock.sleep(Duration::from_mins(1)).await;
                    let due = board.to_probe(clock.monotonic());
                    let probes = due.into_iter().map(|card| (card, Probed::Well)).collect();
                    board.looked(Look::default(), clock.monotonic());
                    board.probed(probes, clock.monotonic());
                }
            };
            tokio::join!(
                looked_at,
                looked_after,
                swept,
                looked_for,
                serve_source(&intake, &world, place, Target::Agent(jobs.node), slots),
                serve_source(&intake, &world, place, pool, 0),
            );
        });
    }

    /// The owner asks the process to stop: waiting jobs are given back, running ones get a grace period.
    pub(crate) fn ask_to_end(&mut self) {
        let (intake, world, place) =
            (Arc::clone(&self.intake), self.world.clone(), (self.host, self.life));
        self.tasks.spawn(async move {
            world.note(Some(place.0), || "asked to stop".to_owned());
            let graces = leave::ask(&world, place, &intake.jobs.desk.board);
            shutdown::wind_down(&intake, graces).await;
            leave::has_ended(&world, place);
            shutdown::let_out(&intake).await;
            if world.lives(place.0, place.1) {
                world.kill(place.0, false);
            }
        });
    }

    /// Cancels a job for a requester, as `agent::admin` does.
    pub(crate) fn cancel(&mut self, job: JobId) {
        let (jobs, world, host) = (Arc::clone(&self.jobs), self.world.clone(), self.host);
        self.tasks.spawn(async move {
            // Recorded first, since the process may die before the cancel is answered.
            if jobs.desk.board.ids(None).contains(&job) {
                world.state().hosts[host].cancelled.insert(job.clone());
            }
            let stopped = jobs.desk.board.stop(&job, StopCause::Cancelled).await;
            world.note(Some(host), || format!("cancel of {job}: {stopped:?}"));
        });
    }

    /// Whether the process has no job and no task in hand.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.desk.board.ids(None).is_empty() && self.jobs.crew.is_empty()
    }
}

async fn serve_source(
    intake: &Intake<Simulated, HostClock>,
    world: &World,
    place: (usize, u64),
    source: Target,
    ahead: usize,
) {
    let (board, effects) = (&intake.jobs.desk.board, &intake.jobs.effects);
    while !board.is_draining() {
        let deliveries = Source {
            world: world.clone(),
            place,
            effects: Arc::clone(effects),
            of: source.clone(),
            ready: VecDeque::new(),
            last: None,
        };
        if intake.read(deliveries, &source, ahead).await.is_err() {
            world.clock(place.0).sleep(Duration::from_secs(1)).await;
        }
        tokio::select! {
            () = board.becomes_fit(true) => {}
            () = board.drained() => {}
        }
    }
}

/// The deliveries of one source, as the server makes them: in any order, sometimes twice, and some of them
/// ahead of the agent's reading.
struct Source {
    world: World,
    place: (usize, u64),
    effects: Arc<Simulated>,
    of: Target,
    ready: VecDeque<Delivery>,
    last: Option<AckHandle>,
}

impl Deliveries for Source {
    async fn next(&mut self, room: usize) -> Result<Delivery, bus::Error> {
        let (world, (host, life)) = (&self.world, self.place);
        // An agent that asks for the next delivery must have dealt with the last one.
        if let Some(ack) = self.last.take() {
            check::is_answered_for(world, host, &ack);
        }
        loop {
            let queued = world.queued.notified();
            if !world.lives(host, life) {
                std::future::pending::<()>().await;
            }
            let more = world.roll(room as u64);
            while self.ready.len() as u64 <= more
                && let Some(delivery) = deliver(world, host, &self.of)
            {
                self.ready.push_back(delivery);
            }
            if let Some(delivery) = self.ready.pop_front() {
                self.last.clone_from(&delivery.ack);
                return Ok(delivery);
            }
            let left = left(world, host, &self.of);
            let clock = world.clock(host);
            tokio::select! {
                biased;
                () = queued => {}
                () = clock.sleep(Duration::from_millis(left)) => {}
            }
        }
    }

    async fn close(self) {
        for ack in self.ready.into_iter().filter_map(|delivery| delivery.ack) {
            self.effects.settle(&ack, Settle::Nak(Duration::ZERO)).await.ok();
        }
    }
}

/// How long to wait before a message of the source may be deliverable, in milliseconds.
fn left(world: &World, host: usize, source: &Target) -> u64 {
    let ms = world.time.ms();
    let state = world.state();
    let of_source = state.queue.messages.values().filter(|message| message.target == *source);
    let due = of_source.map(|message| message.free_at_ms).min().unwrap_or(u64::MAX);
    let cut = state.hosts[host].cut.map_or(0, |(_, until)| until);
    due.max(state.queue.away_until_ms)
        .max(state.queue.leaderless_until_ms)
        .max(cut)
        .saturating_sub(ms)
        .clamp(1, 600_000)
}

/// Perhaps redelivers a message soon. Only from an agent's own queue: in a pool, another agent would get a
/// job that the first one holds.
fn perhaps_twice(world: &World, source: &Target, seq: u64) {
    if !matches!(source, Target::Agent(_)) || !world.happens(|weather| weather.twice) {
        return;
    }
    let soon = world.time.ms() + world.roll(3_000);
    if let Some(message) = world.state().queue.messages.get_mut(&seq) {
        message.free_at_ms = soon;
        message.held_by = None;
    }
}

/// Delivers a random free message of the source to the host; `None` if there is none, or it got lost.
fn deliver(world: &World, host: usize, source: &Target) -> Option<Delivery> {
    let ms = world.time.ms();
    let mut state = world.state();
    // A server delivers to a deaf host too; the message then is in flight until its ack wait is over.
    let cut = state.hosts[host].cut.filter(|(_, until)| *until > ms).map(|(cut, _)| cut);
    let is_away = state.queue.away_until_ms.max(state.queue.leaderless_until_ms) > ms;
    if is_away || cut == Some(Cut::Both) {
        return None;
    }
    let free = state
        .queue
        .messages
        .iter()
        .filter(|(_, message)| message.target == *source && message.free_at_ms <= ms);
    let free: Vec<u64> = free.map(|(seq, _)| *seq).collect();
    if free.is_empty() {
        return None;
    }
    let at = state.rng.usize(..free.len());
    let seq = free[at];
    drop(state);
    held::may_be_given(world, seq);
    let mut state = world.state();
    let life = state.hosts[host].life;
    let created_ns = state.queue.created_ns;
    let ack_wait_ms = state.queue.ack_wait_ms(source);
    let message = state.queue.messages.get_mut(&seq)?;
    message.delivered += 1;
    message.free_at_ms = ms + ack_wait_ms;
    message.held_by = life.map(|life| (host, life));
    let message = message.clone();
    if cut == Some(Cut::Deaf) {
        return None;
    }
    let one = &mut state.hosts[host];
    one.given_ms.entry(seq).or_insert(ms);
    if let Ok(parsed) = parse(&message.body) {
        one.asks.insert(parsed.spec.id, parsed.spec_hash);
    }
    drop(state);
    perhaps_twice(world, source, seq);
    world.note(Some(host), || format!("is given {seq}, delivery {}", message.delivered));
    let ack = AckHandle {
        reply: format!("ack.{seq}.{}", message.delivered),
        stream: "JOBS".to_owned(),
        stream_created_ns: created_ns,
        stream_seq: seq,
        delivered: message.delivered,
        consumer: source.to_string(),
        ack_wait_ms,
    };
    Some(Delivery {
        subject: source.subject(),
        body: message.body.into(),
        ack: Some(ack),
        delivered: message.delivered,
    })
}

fn terms(slots: usize) -> Terms {
    let gpu = |uuid: &str| Gpu {
        uuid: GpuUuid::new(uuid).expect("a UUID"),
        model: "Simulated".to_owned(),
        vram_mib: 1,
    };
    let offer = Offer {
        gpus: vec![gpu("GPU-1"), gpu("GPU-2")],
        milli_cpus: 2_000,
        memory_mib: 2_000,
        disk_mib: 200_000,
        network: Reach::Nothing,
        slots,
    };
    Terms { offer, images: ImagePolicy::default(), sandbox: OwnersSandbox::default() }
}

fn rules() -> Rules {
    Rules {
        timeout_max: Duration::from_hours(1),
        fetch_give_up: Duration::from_mins(1),
        upload_give_up: Duration::from_hours(24),
        result_keep: Duration::from_hours(14 * 24),
    }
}
