//! The jobs in hand, and the slots, GPUs and share of the host that they hold.
//!
//! Invariants: only [`admission`] decides which job goes when, under one lock with everything that
//! the jobs hold. What a job holds counts as long as its phase says so, also across a restart.
//! While the node is not fit ([`fitness`]) no job is taken in.
//!
//! [`admission`]: crate::node::admission
//! [`fitness`]: crate::node::fitness

mod fitness;
mod look;
mod room;

mod in_hand;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};

pub use in_hand::InHand;
pub use look::Running;

use super::terms::{Terms, disk_bytes};
use crate::bus::{AckHandle, PoolName};
use crate::ids::{Address, Hash, JobId};
use crate::job::claim::{Stand, Start};
use crate::job::phase::{Phase, Run, StopCause};
use crate::job::{Job, JobSpec, Reason};
use crate::node::GpuUuid;
use crate::node::admission::{Demand, Held, Offer, Verdict, decide};
use crate::node::fitness::{Fitness, Unfit};

/// A request to stop a job.
#[derive(Debug)]
pub struct StopRequest {
    /// Why the job should stop.
    pub cause: StopCause,
    /// Receives whether the request took effect.
    pub answer: oneshot::Sender<bool>,
}

/// The jobs in hand. Clones share the same board.
#[derive(Debug, Clone)]
pub struct Board {
    state: Arc<Mutex<State>>,
    /// Notified at each change; wakes its waiters in the order in which they began to wait.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    terms: Terms,
    entries: BTreeMap<JobId, Entry>,
    /// Jobs that wait to reserve, keyed by negated priority, then by arrival.
    queue: BTreeMap<(i32, u64), JobId>,
    arrivals: u64,
    /// How many jobs have ever been entered.
    taken: u64,
    /// How often a delivery in hand was doubted.
    doubts: u64,
    /// Jobs delivered to this agent whose claim holders did not answer.
    silent: BTreeMap<JobId, Start>,
    /// No more jobs are taken in.
    draining: bool,
    /// The node is shutting down: no open job is resumed either.
    closed: bool,
    fitness: Fitness,
    /// The last verdict.
    unfit: Option<Unfit>,
    /// Whether the last log line about fitness says that no job is taken.
    is_unfit_told: bool,
    /// How many failures of jobs a look at the host may explain.
    symptoms: u64,
    /// How many jobs did not get their inputs.
    unfetched: u64,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact about the job by itself")]
struct Entry {
    stop: mpsc::Sender<StopRequest>,
    delivery: Option<AckHandle>,
    phase: &'static str,
    node: Address,
    pool: Option<PoolName>,
    attempt: u32,
    spec_hash: Hash,
    stand: Stand,
    doubts: u64,
    demand: Demand,
    wants_slot: bool,
    started: bool,
    holds: Option<Vec<GpuUuid>>,
    process: Process,
    requester: Option<Address>,
    /// It holds resources, but no task has it in hand: its container may be running.
    abandoned: bool,
    /// It was given back, or may be another agent's: its lease is not renewed.
    is_let_go: bool,
    /// The store refuses uploads until the node's owner acts.
    refused: bool,
    /// It has run, and the store refuses this output alone: no reason to refuse other jobs.
    oversized: bool,
    /// It has run, and waits to retry a later step, such as publishing its output.
    rests: bool,
}

/// What is known about a job's container, ahead of the journal.
#[derive(Debug)]
enum Process {
    /// It is not known to run.
    None,
    /// It runs or may run; its start may not be journaled yet.
    Runs(Running),
    /// It has exited; that may not be journaled yet.
    Exited,
}

impl Process {
    fn of(job: &Job) -> Self {
        let (Phase::Starting { container: Some(container), .. }
        | Phase::Running { run: Run { container, .. } }) = &job.phase
        else {
            return Self::None;
        };
        Self::Runs(Running {
            id: job.id().clone(),
            attempt: job.attempt,
            container: container.clone(),
            disk_bytes: disk_bytes(&job.spec),
        })
    }

    /// Follows the job's phase, but keeps `Exited` as long as the phase only lags behind.
    fn moved(&mut self, job: &Job) {
        let seems_to_run = matches!(job.phase, Phase::Running { .. } | Phase::Stopping { .. });
        if !(matches!(self, Self::Exited) && seems_to_run) {
            *self = Self::of(job);
        }
    }
}

impl State {
    fn is_refused(&self) -> bool {
        self.entries.values().any(|entry| entry.refused)
    }

    /// The verdict on this demand, with the jobs queued before `place` served first.
    fn decide(&self, place: (i32, u64), demand: &Demand) -> Verdict {
        let held: Vec<Held<'_>> = self.entries.values().filter_map(Entry::held).collect();
        let before = self.queue.range(..place).filter_map(|(_, id)| self.entries.get(id));
        let ahead: Vec<&Demand> = before.map(|entry| &entry.demand).collect();
        let mut offer = self.offer();
        // A card that has not been tried yet is offered to nobody; a job that needs it waits.
        offer.gpus.retain(|gpu| self.fitness.was_tried(&gpu.uuid));
        decide(&offer, &held, &ahead, demand)
    }

    /// What the node offers, without the cards that are missing or set aside.
    fn offer(&self) -> Offer {
        let mut offer = self.terms.offer.clone();
        let out = self.fitness.out();
        offer.gpus.retain(|gpu| !out.contains(&gpu.uuid));
        offer
    }
}

impl Entry {
    fn moved(&mut self, job: &Job) {
        self.phase = job.phase.name();
        let is_same = self.attempt == job.attempt;
        self.started = job.phase.may_have_started() || self.started && is_same;
        self.attempt = job.attempt;
        self.stand = job.phase.stand();
        self.wants_slot = job.phase.wants_slot();
        self.is_let_go = job.phase.is_let_go();
        self.process.moved(job);
        let has_exited = matches!(self.process, Process::Exited);
        let holds = job.phase.holds().filter(|_| !has_exited);
        self.holds = holds.map(<[GpuUuid]>::to_vec);
        self.wants_slot &= !has_exited;
        let trouble = job.trouble.as_ref();
        let is_of = |reason| trouble.is_some_and(|it| it.fault.reason == reason);
        self.refused = is_of(Reason::StoreRefused);
        self.oversized = is_of(Reason::OutputRefused);
        self.rests = !self.wants_slot && trouble.is_some();
    }

    fn held(&self) -> Option<Held<'_>> {
        Some(Held { gpus: self.holds.as_ref()?, share: self.demand.share })
    }
}

impl Board {
    /// An empty board of a node with these terms.
    pub fn new(terms: Terms) -> Self {
        let fitness = Fitness::of(terms.offer.gpus.len());
        let state = State {
            fitness,
            unfit: None,
            is_unfit_told: false,
            symptoms: 0,
            unfetched: 0,
            terms,
            entries: BTreeMap::new(),
            queue: BTreeMap::new(),
            arrivals: 0,
            taken: 0,
            doubts: 0,
            silent: BTreeMap::new(),
            draining: false,
            closed: false,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Enters a job, with the cards that it holds already. Returns the receiver of its stop
    /// requests, or `None` if a task has it in hand already. Takes over an abandoned one.
    pub fn enter(
        &self,
        job: &Job,
        delivery: Option<AckHandle>,
    ) -> Option<mpsc::Receiver<StopRequest>> {
        let (stop, requests) = mpsc::channel(4);
        let mut state = self.state();
        if state.entries.get(job.id()).is_some_and(|entry| !entry.abandoned) {
            return None;
        }
        let demand = state.terms.demand(&job.spec);
        // What it holds is set before the entry is visible, or another job could be given it.
        let mut entry = Entry {
            stop,
            delivery,
            phase: "",
            node: job.node,
            pool: job.pool().and_then(|pool| pool.parse().ok()),
            attempt: job.attempt,
            spec_hash: job.spec_hash,
            stand: Stand::Open,
            doubts: 0,
            demand,
            wants_slot: true,
            started: false,
            holds: None,
            process: Process::None,
            requester: job.spec.requester,
            abandoned: false,
            is_let_go: false,
            refused: false,
            oversized: false,
            rests: false,
        };
        entry.moved(job);
        state.entries.insert(job.id().clone(), entry);
        state.taken += 1;
        state.tell();
        drop(state);
        self.notify();
        Some(requests)
    }

    /// Updates the entry from the job's present phase.
    pub fn moved(&self, job: &Job) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(job.id()) {
            let (before, held) = (entry.phase, entry.holds.clone().unwrap_or_default());
            entry.moved(job);
            state.learn(before, &held, job);
            state.tell();
        }
        drop(state);
        self.notify();
    }

    /// No process of the job is left: frees what it held, before that is journaled.
    pub fn exited(&self, id: &JobId) {
        if let Some(entry) = self.state().entries.get_mut(id) {
            entry.process = Process::Exited;
            entry.wants_slot = false;
            entry.holds = None;
        }
        self.notify();
    }

    /// Removes the job: it needs nothing more.
    pub fn leave(&self, id: &JobId) {
        let mut state = self.state();
        state.entries.remove(id);
        state.silent.remove(id);
        state.tell();
        drop(state);
        self.notify();
    }

    /// Waits until the job may go, and reserves what it needs. Dropping the future gives up its
    /// place in the queue.
    pub async fn reserve(&self, job: &Job) -> Vec<GpuUuid> {
        let place = self.line_up(job);
        self.wait_for(|| self.take(&place)).await
    }

    /// Calls `look` again at each change, until it returns an answer.
    async fn wait_for<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            // Registered before the look, so that a change between the two is not missed.
            let changed = self.changed.notified();
            if let Some(answer) = look() {
                return answer;
            }
            changed.await;
        }
    }

    fn line_up(&self, job: &Job) -> Place {
        let mut state = self.state();
        state.arrivals += 1;
        let key = (-job.spec.priority, state.arrivals);
        state.queue.insert(key, job.id().clone());
        Place { board: self.clone(), key, id: job.id().clone() }
    }

    /// Reserves what the job at this place needs, if it may go now.
    fn take(&self, place: &Place) -> Option<Vec<GpuUuid>> {
        let mut state = self.state();
        let verdict = state.decide(place.key, &state.entries.get(&place.id)?.demand);
        // A job that can't run here any more waits for a restart with other hardware, its deadline
        // or a cancellation; `recover` fails those that are not ready yet.
        let Verdict::Now(gpus) = verdict else { return None };
        state.entries.get_mut(&place.id)?.holds = Some(gpus.clone());
        state.queue.remove(&place.key);
        Some(gpus)
    }

    /// The verdict on a job that came now, behind all jobs in hand that hold nothing yet, whether
    /// they are queued already or still being prepared. A pool's job that would have to wait is
    /// better off with another agent.
    pub fn verdict(&self, spec: &JobSpec) -> Verdict {
        let state = self.state();
        let held: Vec<Held<'_>> = state.entries.values().filter_map(Entry::held).collect();
        let to_come =
            state.entries.values().filter(|entry| entry.wants_slot && entry.holds.is_none());
        let ahead: Vec<&Demand> = to_come.map(|entry| &entry.demand).collect();
        decide(&state.offer(), &held, &ahead, &state.terms.demand(spec))
    }

    /// Asks a job to stop. `None` if it is not in hand, otherwise whether the request took effect.
    /// A job that has run is not asked: an upload would see the request only once it is done.
    pub async fn stop(&self, id: &JobId, cause: StopCause) -> Option<bool> {
        let asked = self.state().entries.get(id).map(|it| (it.wants_slot, it.stop.clone()))?;
        let (true, stop) = asked else { return Some(false) };
        let (answer, answered) = oneshot::channel();
        stop.send(StopRequest { cause, answer }).await.ok()?;
        answered.await.ok()
    }

    /// Waits until every job on the board is at rest: it has run and waits for a retry, or no task
    /// has it in hand.
    pub async fn wait_until_at_rest(&self) {
        let rests = |entry: &Entry| entry.rests || entry.abandoned;
        self.wait_for(|| self.state().entries.values().all(rests).then_some(())).await;
    }
}

/// A place in the queue; given up when dropped.
struct Place {
    board: Board,
    key: (i32, u64),
    id: JobId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.board.state().queue.remove(&self.key);
        self.board.notify();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::clock::Timestamp;
    use crate::container::ImagePolicy;
    use crate::job::phase::{Asked, Event, Fault, PinnedImage, Retry, Rules};
    use crate::job::spec::parse;
    use crate::node::Gpu;
    use crate::node::admission::{Offer, Scarce};

    const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

    fn board(slots: usize) -> Board {
        let gpus = ["GPU-a", "GPU-b"].map(|uuid| Gpu {
            uuid: GpuUuid::new(uuid).unwrap(),
            model: "H100".to_owned(),
            vram_mib: 80_000,
        });
        Board::new(Terms {
            offer: Offer {
                gpus: gpus.to_vec(),
                milli_cpus: 4000,
                memory_mib: 4000,
                disk_mib: 4000,
                bridge: false,
                slots,
            },
            images: ImagePolicy::default(),
            sandbox: crate::agent::OwnersSandbox::default(),
        })
    }

    /// A job that is ready, with these extra JSON members in its message.
    fn ready(id: &str, words: &str) -> Job {
        let body = format!(r#"{{"job_id": "{id}", "image_name": "x"{words}}}"#);
        let parsed = parse(body.as_bytes()).unwrap();
        let asked =
            Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target: "pool.x".to_owned() };
        let job = Job::accept(asked, Address::new([1; 20]), 0, NOW).job;
        let image =
            PinnedImage { id: "id".to_owned(), digest: "digest".to_owned(), unconfirmed: false };
        moved(&moved(&job, Event::Pulled { image }), Event::Fetched)
    }

    fn moved(job: &Job, event: Event) -> Job {
        let hour = std::time::Duration::from_hours(1);
        let rules = Rules {
            timeout_max: hour,
            fetch_give_up: hour,
            upload_give_up: hour,
            result_keep: hour,
        };
        job.apply(event, NOW, &rules).unwrap().job
    }

    /// How many cards a reservation returns at once; `None` if it has to wait.
    fn got(reserving: impl Future<Output = Vec<GpuUuid>>) -> Option<usize> {
        match pin!(reserving).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(gpus) => Some(gpus.len()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn jobs_that_say_nothing_fill_every_slot() {
        let board = board(4);
        for id in ["a", "b", "c", "d"] {
            let job = ready(id, r#", "gpus": 0"#);
            let _requests = board.enter(&job, None).unwrap();
            assert_eq!(got(board.reserve(&job)), Some(0), "{id}");
        }
    }

    #[test]
    fn a_job_that_is_taken_back_after_a_restart_counts_with_all_that_it_holds() {
        let board = board(4);
        let gpus = vec![GpuUuid::new("GPU-a").unwrap()];
        let large = moved(&ready("large", r#", "memory_mib": 3500"#), Event::Reserved { gpus });
        let _requests = board.enter(&large, None).unwrap();
        let small = ready("small", r#", "memory_mib": 501"#);
        assert_eq!(board.verdict(&small.spec), Verdict::Later(Scarce::Memory));
        let pair = ready("pair", r#", "gpus": 2, "memory_mib": 100"#);
        assert_eq!(board.verdict(&pair.spec), Verdict::Later(Scarce::Gpus));
        let _requests = board.enter(&small, None).unwrap();
        assert_eq!(got(board.reserve(&small)), None);
        board.leave(large.id());
        assert_eq!(got(board.reserve(&small)), Some(1));
    }

    #[test]
    fn what_a_job_held_is_free_when_its_container_has_exited_and_not_only_when_that_is_written() {
        let board = board(1);
        let gpus = vec![GpuUuid::new("GPU-a").unwrap()];
        let first = moved(&ready("first", ""), Event::Reserved { gpus });
        let started = Event::Started { container: "c".to_owned(), at: NOW };
        let first = moved(&moved(&first, Event::Claimed), started);
        let _requests = board.enter(&first, None).unwrap();
        assert_eq!(board.running().len(), 1);
        let second = ready("second", "");
        let _requests = board.enter(&second, None).unwrap();
        assert_eq!(got(board.reserve(&second)), None);
        board.exited(first.id());
        assert_eq!(board.running(), []);
        assert_eq!(got(board.reserve(&second)), Some(1));
        // A failed attempt to journal the exit must not revive the container.
        board.moved(&first);
        assert_eq!(board.running(), []);
        let third = ready("third", r#", "gpus": 0"#);
        let _requests = board.enter(&third, None).unwrap();
        assert_eq!(got(board.reserve(&third)), None, "the slot is the second's alone");
        board.leave(second.id());
        assert_eq!(got(board.reserve(&third)), Some(0));
    }

    /// A job that runs without a GPU.
    fn running(id: &str) -> Job {
        let reserved = moved(&ready(id, r#", "gpus": 0"#), Event::Reserved { gpus: Vec::new() });
        let started = Event::Started { container: "c".to_owned(), at: NOW };
        moved(&moved(&reserved, Event::Claimed), started)
    }

    #[test]
    fn an_attempt_that_was_not_started_is_not_because_the_one_before_was() {
        let board = board(1);
        let job = running("a");
        let _requests = board.enter(&job, None).unwrap();
        assert_eq!(board.ids(Some(true)), [job.id().clone()]);
        board.moved(&moved(&job, Event::Lost));
        assert_eq!(
            (board.ids(Some(true)), board.ids(Some(false))),
            (vec![], vec![job.id().clone()])
        );
    }

    #[test]
    fn the_lease_of_what_is_given_back_is_not_renewed() {
        let board = board(1);
        let job = running("a");
        let delivery = AckHandle {
            reply: "$JS.ACK.x".to_owned(),
            stream: "JOBS".to_owned(),
            stream_created_ns: 1,
            stream_seq: 7,
            delivered: 1,
            consumer: "pool-x".to_owned(),
            ack_wait_ms: 120_000,
        };
        let _requests = board.enter(&job, Some(delivery.clone())).unwrap();
        assert_eq!(board.in_hand().len(), 1);
        let stopping = moved(&job, Event::StopAsked { cause: StopCause::LeaseLost });
        let yielded = moved(&stopping, Event::Lost);
        assert_eq!(yielded.phase.name(), "yielded");
        for job in [yielded.clone(), moved(&yielded, Event::Removed)] {
            board.moved(&job);
            assert!(board.in_hand().is_empty(), "{}", job.phase.name());
            assert_eq!(board.delivery(job.id()), Some(delivery.clone()), "it may be given back");
        }
    }

    #[test]
    fn a_container_counts_as_running_before_its_start_is_written_down() {
        let board = board(1);
        let job = moved(&ready("job", ""), Event::Reserved { gpus: Vec::new() });
        let job = moved(&job, Event::Claimed);
        let _requests = board.enter(&job, None).unwrap();
        assert_eq!(board.running(), [], "there is none yet");
        board.moved(&moved(&job, Event::Created { container: "c".to_owned() }));
        assert_eq!(board.running()[0].container, "c");
        assert!(board.is_ending(job.id()));
        board.leave(job.id());
        assert!(!board.is_ending(job.id()));
    }

    #[test]
    fn the_line_goes_by_priority_and_then_by_arrival() {
        let board = board(1);
        let jobs = [("a", ""), ("b", ""), ("c", r#", "priority": 1"#)];
        let jobs = jobs.map(|(id, words)| ready(id, words));
        let _requests = jobs.each_ref().map(|job| board.enter(job, None).unwrap());
        let places = jobs.each_ref().map(|job| board.line_up(job));
        let firsts = || places.each_ref().map(|place| board.take(place).is_some());
        assert_eq!(firsts(), [false, false, true]);
        board.leave(jobs[2].id());
        assert_eq!(firsts(), [true, false, false]);
    }

    #[test]
    fn a_pools_job_is_offered_nothing_that_a_job_in_hand_will_need() {
        let board = board(2);
        let in_hand = ready("in-hand", "");
        let _requests = board.enter(&in_hand, None).unwrap();
        let spec = |words| ready("next", words).spec;
        assert!(matches!(board.verdict(&spec("")), Verdict::Now(_)));
        assert_eq!(board.verdict(&spec(r#", "gpus": 2"#)), Verdict::Later(Scarce::Gpus));
        assert!(matches!(board.verdict(&spec(r#", "gpus": 3"#)), Verdict::Never(_)));
        assert!(board.has_room(0));
        let second = ready("second", "");
        let _requests = board.enter(&second, None).unwrap();
        assert!(!board.has_room(0) && board.has_room(1));
    }

    fn collected(id: &str) -> Job {
        let gpus = Vec::new();
        let job = moved(&ready(id, ""), Event::Reserved { gpus });
        // A pool's job is claimed before it starts.
        let job = moved(&job, Event::Claimed);
        let started = moved(&job, Event::Started { container: id.to_owned(), at: NOW });
        let exit = crate::job::phase::RunExit {
            code: Some(0),
            oom: false,
            started_at: NOW,
            finished_at: NOW,
        };
        let exited = moved(&started, Event::Exited { exit, by_itself: Some(true) });
        moved(&exited, Event::Collected { output: Ok(None), log: None })
    }

    #[test]
    fn results_that_can_not_be_published_leave_no_room_in_the_end() {
        let board = board(2);
        let ids: Vec<String> = (0..17).map(|number| format!("job-{number}")).collect();
        let mut taken = 0;
        for id in &ids {
            if !board.has_room(0) {
                break;
            }
            taken += 1;
            let job = collected(id);
            let _requests = board.enter(&job, None).unwrap();
        }
        assert_eq!(taken, room::UNPUBLISHED_MIN, "results beyond the slots");
        assert_eq!(board.unfit(), Some(Unfit::Unpublished(taken)), "and the node says why");
        assert_eq!(board.room(8), 0, "nothing is made ready ahead of them");
        board.leave(&ids[0].parse().unwrap());
        assert_eq!(board.unfit(), None);
        assert_eq!(board.room(0), 1);
    }

    #[test]
    fn a_card_that_failed_a_start_is_given_to_no_other_job() {
        let board = board(4);
        let gpus = vec![GpuUuid::new("GPU-a").unwrap()];
        let job = moved(&moved(&ready("a", ""), Event::Reserved { gpus }), Event::Claimed);
        let _requests = board.enter(&job, None).unwrap();
        let fault = Fault::new(Reason::GpuFailed, "no driver");
        let retry = Retry::Patiently;
        board.moved(&moved(&job, Event::Failed { fault, retry }));
        board.leave(job.id());
        for (id, cards) in [("b", Some(1)), ("c", None)] {
            let next = ready(id, "");
            let _requests = board.enter(&next, None).unwrap();
            let reserving = board.reserve(&next);
            assert_eq!(got(reserving), cards, "{id}");
        }
        assert_eq!(board.unfit(), None, "the other card goes on");
    }

    #[test]
    fn content_that_nobody_has_keeps_a_node_from_others_jobs_only_where_no_gateway_serves() {
        for serve in [true, false] {
            let board = board(1);
            board.gateways(serve);
            for id in ["a", "b", "c", "d"] {
                let job = moved(&ready(id, ""), Event::Doubted);
                let stops = board.enter(&job, None);
                let fault = Fault::new(Reason::InputUnavailable, "nobody has it");
                board.moved(&moved(&job, Event::Failed { fault, retry: Retry::Never }));
                board.leave(job.id());
                drop(stops);
            }
            assert_eq!(board.unfit().is_none(), serve, "{:?}", board.unfit());
            assert_eq!(board.unfetched(), 4);
        }
    }
}
