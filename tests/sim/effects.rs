//! The effects of a simulated agent. Each may fail, be lost in flight, or be the last action of its
//! process.

use std::time::Duration;

use lamda_node::agent::jobs::board::Board;
use lamda_node::agent::jobs::effects::Effects;
use lamda_node::bus::{self, AckHandle, Found as FoundClaim, PoolName, Settle, Target};
use lamda_node::clock::Clock as _;
use lamda_node::container::{self, ContainerId, Found, FoundState};
use lamda_node::ids::{Address, Domain, JobId, Signature};
use lamda_node::job::claim::Claim;
use lamda_node::job::phase::{Event, Fault, Phase, PinnedImage, Retry, RunExit, Sealed};
use lamda_node::job::plan::Step;
use lamda_node::job::receipt::{Facts, Signed};
use lamda_node::job::spec::parse;
use lamda_node::job::status::PullProgress;
use lamda_node::job::{Job, LateResult, Reason, Receipt};
use lamda_node::journal::Outgoing;
use lamda_node::node::GpuUuid;
use lamda_node::sql::{Fate, Gate, Slowness};

use super::plant::Plant;
use super::time::HostClock;
use super::work::Work;
use super::world::{ACK_WAIT_MS, Container, Doing, GONE_DARK, Message, RunRecord, World};
use super::{check, leave};

/// The exit code of a container that the node stopped.
const STOPPED: i32 = 143;

/// The world as one process of one agent sees it.
#[derive(Debug, Clone)]
pub(crate) struct Simulated {
    pub(crate) world: World,
    pub(crate) host: usize,
    pub(crate) life: u64,
    pub(crate) board: Board,
}

/// Decides the fate of one process's journal writes.
#[derive(Debug)]
pub(crate) struct Writes {
    pub(crate) world: World,
    pub(crate) host: usize,
    pub(crate) life: u64,
}

impl Gate for Writes {
    fn fate(&self, write: &'static str) -> Fate {
        let (world, host) = (&self.world, self.host);
        if !world.lives(host, self.life) {
            return Fate::DiesBefore;
        }
        world.note(Some(host), || format!("writes {write}"));
        world.state().writes.insert(write);
        if world.has(Plant::Forgets(write)) {
            return Fate::Forgotten;
        }
        if world.happens(|weather| weather.kill) {
            let dark = world.happens(|weather| weather.power);
            let after = world.roll(2) == 1;
            if !after {
                world.kill(host, dark);
                return Fate::DiesBefore;
            }
            // The process dies right after the write: whatever it does next finds it dead.
            world.state().hosts[host].life = None;
            world.note(Some(host), || "killed after that write".to_owned());
            world.news.notify_one();
            return Fate::DiesAfter;
        }
        let troubles = [
            (world.happens(|weather| weather.disk), Fate::Refused),
            (world.happens(|weather| weather.unsure), Fate::Unsure),
        ];
        let trouble = troubles.into_iter().find(|(happens, _)| *happens);
        trouble.map_or(Fate::Written, |(_, fate)| {
            world.hinder(host, world.time.ms());
            fate
        })
    }

    fn slowness(&self) -> Option<Slowness> {
        let ms = self.world.time.ms();
        if self.world.state().hosts[self.host].journal_slow_until_ms <= ms {
            return None;
        }
        let span = Duration::from_millis(self.world.roll(3_000));
        let clock = self.world.clock(self.host);
        Some(Box::pin(async move { clock.sleep(span).await }))
    }

    fn syncs(&self, write: Option<&'static str>) -> bool {
        let unsynced = if write.is_some() { Plant::WritesUnsynced } else { Plant::ReadsUnsynced };
        !self.world.has(unsynced)
    }
}

impl Simulated {
    pub(super) fn clock(&self) -> HostClock {
        self.world.clock(self.host)
    }

    /// Lets up to `at_most_ms` pass. The process may be killed meanwhile.
    pub(super) async fn pass(&self, at_most_ms: u64) {
        let ms = self.world.roll(at_most_ms);
        self.clock().sleep(Duration::from_millis(ms)).await;
        if self.world.lives(self.host, self.life) && self.world.happens(|weather| weather.kill) {
            let dark = self.world.happens(|weather| weather.power);
            self.world.kill(self.host, dark);
        }
        self.alive().await;
    }

    /// Returns only if the process is alive.
    pub(super) async fn alive(&self) {
        if !self.world.lives(self.host, self.life) {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        self.world.note(Some(self.host), what);
    }

    fn engine_is_away(&self) -> bool {
        let ms = self.world.time.ms();
        self.world.state().hosts[self.host].engine_away_until_ms > ms
    }

    fn engine_failed(&self) -> Option<Event> {
        let away = self.engine_is_away() || self.world.happens(|weather| weather.engine);
        if away {
            self.world.hinder(self.host, self.world.time.ms());
        }
        away.then(|| failed(Reason::NodeFault, Retry::Always))
    }

    async fn fetch(&self, job: &Job) -> Event {
        self.pass(2_000).await;
        if self.world.happens(|weather| weather.store) {
            return failed(Reason::InputUnavailable, Retry::Patiently);
        }
        let mut state = self.world.state();
        let host = &mut state.hosts[self.host];
        host.folders.insert(job.id().clone());
        host.fetched.insert((job.id().clone(), job.attempt), host.boots);
        Event::Fetched
    }

    async fn pull(&self, job: &Job) -> Event {
        self.pass(2_000).await;
        if let Some(event) = self.engine_failed() {
            return event;
        }
        if job.spec.image == "missing" {
            return failed(Reason::ImageUnavailable, Retry::Never);
        }
        // Every fourth job's first pull is slow enough to say how far it is.
        if job.seq == 2 && job.spec_hash.0[0].is_multiple_of(4) {
            return Event::Pulling {
                progress: PullProgress { bytes: 7, layers: 2, layers_done: 1 },
            };
        }
        let text = "sha256:1".to_owned();
        Event::Pulled { image: PinnedImage { id: text.clone(), digest: text, unconfirmed: false } }
    }

    async fn create(&self, job: &Job) -> Event {
        let Phase::Starting { gpus, .. } = job.phase.clone() else { return Event::Lost };
        self.pass(50).await;
        if let Some(event) = self.engine_failed() {
            return event;
        }
        let name = name(job, job.attempt);
        for earlier in 1..job.attempt {
            self.remove_container(&self::name(job, earlier));
        }
        let (me, of) = (self.clone(), job.clone());
        let create = move || me.make(&of, gpus);
        self.engine(create).await;
        self.pass(50).await;
        self.engine_failed().unwrap_or(Event::Created { container: name })
    }

    /// Makes one request to the engine, which may carry it out only after the process died.
    async fn engine(&self, act: impl FnOnce() + Send + 'static) {
        if self.world.happens(|weather| weather.late) {
            self.world.later(self.world.roll(8_000), Some(self.host), act);
            self.world.kill(self.host, false);
            self.alive().await;
        } else {
            act();
        }
    }

    fn make(&self, job: &Job, gpus: Vec<GpuUuid>) {
        let (name, now) = (name(job, job.attempt), self.world.now_on(self.host));
        let host = &mut self.world.state().hosts[self.host];
        // A container that never started is created anew if the job has other cards since.
        let is_same = |there: &Container| there.gpus == gpus || there.state != Doing::Created;
        if host.containers.get(&name).is_some_and(is_same) {
            return;
        }
        let container = Container {
            job: job.id().clone(),
            attempt: job.attempt,
            gpus,
            created_at: now,
            due_ms: u64::MAX,
            state: Doing::Created,
            run: None,
        };
        host.containers.insert(name, container);
    }

    async fn start(&self, job: &Job) -> Event {
        self.pass(50).await;
        if let Some(event) = self.engine_failed() {
            return event;
        }
        let name = name(job, job.attempt);
        self.world.settle_containers(self.host);
        let there = self.world.state().hosts[self.host].containers.get(&name).cloned();
        let late = job.spec.deadline.is_some_and(|at| at <= self.world.now_on(self.host));
        let late = late && !self.world.has(Plant::StartsLate);
        match there.map(|container| container.state) {
            None => return Event::Lost,
            Some(Doing::Created) if late => return Event::Expired,
            Some(Doing::Created) if self.world.happens(|weather| weather.cards) => {
                return failed(Reason::GpuFailed, Retry::Patiently);
            }
            Some(Doing::Exited { .. }) if self.world.has(Plant::StartsWhatEnded) => self.run(job),
            Some(Doing::Created) => {
                let (me, of) = (self.clone(), job.clone());
                self.engine(move || me.run_what_is_new(&of)).await;
            }
            Some(_) => {}
        }
        let there = self.world.state().hosts[self.host].containers.get(&name).cloned();
        let Some(Doing::Running { since: at, .. } | Doing::Exited { since: at, .. }) =
            there.map(|container| container.state)
        else {
            return Event::Lost;
        };
        self.pass(50).await;
        self.engine_failed().unwrap_or(Event::Started { container: name, at })
    }

    fn run_what_is_new(&self, job: &Job) {
        let name = name(job, job.attempt);
        let there = self.world.state().hosts[self.host].containers.get(&name).cloned();
        if there.is_some_and(|container| container.state == Doing::Created) {
            self.run(job);
        }
    }

    fn run(&self, job: &Job) {
        let name = name(job, job.attempt);
        self.note(|| format!("starts {name}"));
        check::may_start(&self.world, self.host, job);
        if !self.is_whole(job) {
            self.world.broken(format!("{} is started with inputs that may be truncated", job.id()));
        }
        let (ms, since) = (self.world.time.ms(), self.world.now_on(self.host));
        let work = Work::of(job);
        let timeout_ms = u64::try_from(job.spec.timeout.as_millis()).unwrap_or(u64::MAX);
        let left_ms = job
            .spec
            .deadline
            .map_or(u64::MAX, |at| u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX));
        let mut state = self.world.state();
        let host = &mut state.hosts[self.host];
        host.runs.push(RunRecord {
            job: job.id().clone(),
            attempt: job.attempt,
            code: None,
            stopped: false,
            stolen: false,
        });
        let run = Some(host.runs.len() - 1);
        if let Some(container) = host.containers.get_mut(&name) {
            let until_ms = ms + work.run_ms;
            container.state = Doing::Running { since, until_ms, code: work.code };
            container.run = run;
            container.due_ms = ms + timeout_ms.min(left_ms);
        }
    }

    async fn follow(&self, job: &Job) -> Event {
        let name = name(job, job.attempt);
        loop {
            self.alive().await;
            self.world.settle_containers(self.host);
            if let Some(event) = self.engine_failed() {
                return event;
            }
            let state =
                self.world.state().hosts[self.host].containers.get(&name).map(|found| found.state);
            match state {
                None | Some(Doing::Created) => return Event::Lost,
                // A power cut ended the run, so its exit code says nothing about the job.
                Some(Doing::Exited { code: GONE_DARK, .. })
                    if !self.world.has(Plant::TakesAPowerCutForAnEnd) =>
                {
                    return Event::Lost;
                }
                // Stopped, but this journal knows of no stop: somebody else ended the container.
                Some(Doing::Exited { code: STOPPED, .. })
                    if matches!(job.phase, Phase::Running { .. }) =>
                {
                    return Event::Lost;
                }
                Some(Doing::Exited { since, at, code }) => {
                    let by_itself =
                        Some(code != STOPPED || self.world.has(Plant::TakesAStopForAnEnd));
                    let exit = RunExit {
                        code: Some(code),
                        oom: false,
                        hint: None,
                        started_at: since,
                        finished_at: at,
                        usage: None,
                    };
                    return Event::Exited { exit, by_itself };
                }
                Some(Doing::Running { until_ms, .. }) => {
                    let left = until_ms - self.world.time.ms();
                    self.clock().sleep(Duration::from_millis(left.min(10_000))).await;
                }
            }
        }
    }

    async fn stop(&self, job: &Job) -> Event {
        self.pass(500).await;
        if let Some(event) = self.engine_failed() {
            return event;
        }
        if self.world.has(Plant::FreesCardsEarly)
            && let Phase::Stopping { run, .. } = &job.phase
        {
            let (started_at, finished_at) = (run.started_at, self.world.now_on(self.host));
            let exit = RunExit {
                code: Some(STOPPED),
                oom: false,
                hint: None,
                started_at,
                finished_at,
                usage: None,
            };
            return Event::Exited { exit, by_itself: Some(false) };
        }
        leave::may_stop(&self.world, (self.host, self.life), job.id(), &job.phase);
        self.end(&name(job, job.attempt));
        self.follow(job).await
    }

    /// Stops a running container through the engine.
    fn end(&self, name: &str) {
        self.world.settle_containers(self.host);
        let now = self.world.now_on(self.host);
        let mut state = self.world.state();
        let host = &mut state.hosts[self.host];
        if let Some(container) = host.containers.get_mut(name)
            && let Doing::Running { since, .. } = container.state
        {
            container.state = Doing::Exited { since, at: now.max(since), code: STOPPED };
            if let Some(run) = container.run {
                (host.runs[run].code, host.runs[run].stopped) = (Some(STOPPED), true);
            }
        }
    }

    async fn collect(&self, job: &Job) -> Event {
        let Phase::Exited { exit, cause, .. } = &job.phase else { return Event::Lost };
        self.pass(200).await;
        if self.world.happens(|weather| weather.disk) {
            return failed(Reason::NodeFault, Retry::Patiently);
        }
        if !self.world.state().hosts[self.host].folders.contains(job.id()) {
            self.world.broken(format!("{} lost its folder before its result", job.id()));
        }
        let succeeded = exit.code == Some(0) && cause.is_none();
        let key = (job.id().clone(), job.attempt);
        let known = self.world.state().hosts[self.host].sealed.contains(&key);
        if succeeded && !known && !self.remembers(job) {
            return Event::Lost;
        }
        if succeeded && !known {
            let unsynced = self.world.has(Plant::SealsUnsynced);
            let host = &mut self.world.state().hosts[self.host];
            host.written.insert(key.clone(), host.boots);
            if !unsynced {
                host.sealed.insert(key);
            }
        }
        let output = succeeded.then(|| Sealed {
            path: "output".to_owned(),
            cid: Work::output(job.node, job.id(), job.attempt),
            bytes: 1,
            directory: false,
            seen_as: String::new(),
            notes: Vec::new(),
        });
        Event::Collected { output: Ok(output), log: None }
    }

    async fn publish(&self, job: &Job) -> Event {
        let Phase::Collected { ended, .. } = &job.phase else { return Event::Lost };
        self.pass(3_000).await;
        if self.world.state().store_refuses_until_ms > self.world.time.ms() {
            return failed(Reason::StoreRefused, Retry::Refused);
        }
        if self.world.happens(|weather| weather.store) {
            return failed(Reason::UploadFailed, Retry::Patiently);
        }
        let output = ended.output.as_ref().map(|sealed| sealed.cid);
        let key = (job.id().clone(), job.attempt);
        let is_whole = || {
            let host = &self.world.state().hosts[self.host];
            host.sealed.contains(&key) || host.written.get(&key) == Some(&host.boots)
        };
        let whole = is_whole();
        if output.is_some() && !whole {
            return failed(Reason::UploadFailed, Retry::Patiently);
        }
        self.world.state().store.extend(output);
        self.pass(100).await;
        if self.world.happens(|weather| weather.store) {
            return failed(Reason::UploadFailed, Retry::Patiently);
        }
        Event::Published { output, log: None }
    }

    async fn remove(&self, job: &Job) -> Event {
        self.pass(100).await;
        if let Some(event) = self.engine_failed() {
            return event;
        }
        for attempt in 1..=job.attempt {
            if !self.world.has(Plant::RemovesNothing) {
                self.remove_container(&name(job, attempt));
            }
        }
        self.pass(50).await;
        self.world.state().hosts[self.host].folders.remove(job.id());
        Event::Removed
    }

    fn remove_container(&self, name: &str) {
        self.world.settle_containers(self.host);
        let removed = self.world.state().hosts[self.host].containers.remove(name);
        if let Some(container) = removed {
            self.note(|| format!("removes {name}"));
            if matches!(container.state, Doing::Running { .. })
                && let Some(run) = container.run
            {
                let mut state = self.world.state();
                (state.hosts[self.host].runs[run].stopped) = true;
            }
        }
    }
}

impl Simulated {
    fn is_hindered(&self) -> bool {
        let ms = self.world.time.ms();
        self.world.state().hosts[self.host].hindered_until_ms > ms
    }

    /// Whether the job's inputs were fetched in the present boot, so that no power cut truncated them.
    fn is_whole(&self, job: &Job) -> bool {
        let state = self.world.state();
        let host = &state.hosts[self.host];
        host.fetched.get(&(job.id().clone(), job.attempt)) == Some(&host.boots)
    }
}

impl Effects for Simulated {
    async fn perform(&self, job: &Job, step: Step) -> Event {
        self.alive().await;
        self.note(|| format!("{}: {}", job.id(), step.name()));
        // Only a stop does not wait for a stuck journal: every other step needs its commit first.
        if step != Step::Stop || !self.is_hindered() {
            check::acts_on_what_is_written(&self.world, self.host, job);
        }
        let event = match step {
            Step::Pull => self.pull(job).await,
            Step::Fetch => self.fetch(job).await,
            Step::Reserve => Event::Reserved { gpus: self.board.reserve(job).await },
            Step::Create => self.create(job).await,
            Step::Start => self.start(job).await,
            Step::Follow { until } => {
                let clock = self.clock();
                if self.world.has(Plant::AcksEarly)
                    && let Some(ack) = self.board.delivery(job.id())
                {
                    self.answer(&ack, Settle::Ack).await.ok();
                }
                tokio::select! {
                    biased;
                    event = self.follow(job) => event,
                    () = clock.sleep_until(until), if !self.world.has(Plant::IgnoresTime) => {
                        Event::TimeIsUp
                    }
                }
            }
            Step::Stop => self.stop(job).await,
            Step::Collect => self.collect(job).await,
            Step::Publish => self.publish(job).await,
            Step::Attest => {
                self.pass(10).await;
                Event::Attested { receipt: receipt(job), usage: None }
            }
            Step::Remove => self.remove(job).await,
            step => unreachable!("{step:?} is a message"),
        };
        self.alive().await;
        event
    }

    async fn settle(&self, delivery: &AckHandle, how: Settle) -> Result<(), bus::Error> {
        self.answer(delivery, how).await
    }

    async fn say(&self, status: &Outgoing) -> Result<(), bus::Error> {
        self.tell(status).await
    }

    async fn say_late(&self, _: &LateResult) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn said(&self) -> Result<(), bus::Error> {
        self.call(|_| Ok(())).await
    }

    async fn is_queued(
        &self,
        delivery: &AckHandle,
        source: &Target,
        job: &JobId,
    ) -> Result<bool, bus::Error> {
        if self.world.has(Plant::BelievesInItsQueue) {
            return Ok(true);
        }
        let (source, job, delivery) = (source.clone(), job.clone(), delivery.clone());
        self.call(move |here| {
            let state = here.world.state();
            let is_same = state.queue.created_ns == delivery.stream_created_ns;
            if is_same && !state.queue.messages.contains_key(&delivery.stream_seq) {
                return Ok(false);
            }
            let mut of_source = state.queue.messages.values().filter(|one| one.target == source);
            let is_it = |one: &Message| parse(&one.body).is_ok_and(|it| it.spec.id == job);
            Ok(of_source.any(is_it))
        })
        .await
    }

    async fn bury(&self, _: &Target, body: Vec<u8>, _: &str) -> Result<(), bus::Error> {
        self.put_aside(body).await
    }

    async fn claim(&self, pool: &PoolName, job: &JobId) -> Result<Option<FoundClaim>, bus::Error> {
        self.read_claim(pool, job).await
    }

    async fn put_claim(
        &self,
        pool: &PoolName,
        job: &JobId,
        claim: &Claim,
        over: Option<u64>,
    ) -> Result<bool, bus::Error> {
        self.write_claim(pool, job, *claim, over).await
    }

    async fn keeps(&self, holder: Address, job: &JobId) -> Option<Duration> {
        let asked = job.clone();
        let kept = self.call(move |me| Ok(me.world.answer_of(holder, &asked))).await;
        let kept = kept.ok().flatten();
        self.note(|| format!("asks {holder} for {job}: {kept:?}"));
        kept
    }

    async fn ack_wait(&self, delivery: &AckHandle) -> Result<Duration, bus::Error> {
        self.alive().await;
        let edited = self.world.state().queue.pools_ack_wait_ms;
        let of_pool = Duration::from_millis(edited.unwrap_or(ACK_WAIT_MS.1));
        Ok(if delivery.consumer.contains("pool") { of_pool } else { delivery.ack_wait() })
    }

    async fn neighbours(
        &self,
        _: &PoolName,
    ) -> Result<Vec<lamda_node::node::presence::Presence>, bus::Error> {
        Ok(Vec::new())
    }

    async fn containers(&self) -> Result<Vec<Found>, container::Error> {
        self.pass(100).await;
        if self.engine_failed().is_some() {
            let source = "simulated".into();
            return Err(container::Error::Unreachable { host: "simulated".to_owned(), source });
        }
        self.world.settle_containers(self.host);
        let state = self.world.state();
        let all = state.hosts[self.host].containers.iter();
        let (none, new) =
            (state.plant == Plant::SeesNoContainers, state.plant == Plant::TakesAllForNew);
        let all = all.filter(|_| !none);
        let found = all.map(|(name, container)| Found {
            id: ContainerId(name.clone()),
            job_id: Some(container.job.clone()),
            attempt: container.attempt,
            state: match container.state {
                _ if new => FoundState::Created,
                Doing::Created => FoundState::Created,
                Doing::Running { .. } => FoundState::Running,
                Doing::Exited { .. } => FoundState::Exited,
            },
            created_at: container.created_at,
        });
        Ok(found.collect())
    }

    async fn discard(&self, container: &Found) -> Result<(), container::Error> {
        self.pass(50).await;
        self.remove_container(&container.id.0);
        Ok(())
    }

    async fn withdraw(&self, container: &Found) -> Result<bool, container::Error> {
        self.pass(50).await;
        let name = &container.id.0;
        let there = self.world.state().hosts[self.host].containers.get(name).cloned();
        if there.is_some_and(|there| there.state != Doing::Created) {
            return Ok(false);
        }
        self.remove_container(name);
        Ok(true)
    }

    fn remembers(&self, job: &Job) -> bool {
        self.is_whole(job) || self.world.has(Plant::TrustsItsInputs)
    }

    async fn disk_max_mib(&self) -> u64 {
        u64::MAX
    }

    async fn remove_folder(&self, job: &Job) -> std::io::Result<()> {
        self.alive().await;
        self.world.state().hosts[self.host].folders.remove(job.id());
        Ok(())
    }

    async fn sweep(&self, keep: &[JobId]) -> std::io::Result<usize> {
        self.alive().await;
        let everything = self.world.has(Plant::SweepsEverything);
        let mut state = self.world.state();
        let folders = &mut state.hosts[self.host].folders;
        let before = folders.len();
        folders.retain(|id| keep.contains(id) && !everything);
        Ok(before - folders.len())
    }
}

/// The receipt of a job with a placeholder signature, which no check looks at.
fn receipt(job: &Job) -> serde_json::Value {
    let Phase::Published { ended, output, .. } = &job.phase else { return serde_json::Value::Null };
    let facts = Facts {
        image_digest: &ended.run.image.digest,
        gpus: &ended.run.gpus,
        input: None,
        output: output.as_ref(),
        exit_code: ended.exit.code.unwrap_or(-1),
        ran: (ended.exit.started_at, ended.exit.finished_at),
    };
    let receipt = Receipt::new(job.id().clone(), job.node, job.spec_hash, facts);
    let domain = Domain { chain_id: 31337, contract: job.node };
    Signed { domain, receipt, signature: Signature([27; 65]) }.to_json()
}

fn name(job: &Job, attempt: u32) -> String {
    format!("{}-{attempt}", job.id())
}

fn failed(reason: Reason, retry: Retry) -> Event {
    Event::Failed { fault: Fault::new(reason, "simulated"), retry }
}
