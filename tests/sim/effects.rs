//! The effects of a simulated agent: each may fail, be lost on the way, or be the last thing that
//! its process does.

use std::time::Duration;

use lamda_node::agent::board::Board;
use lamda_node::agent::effects::Effects;
use lamda_node::bus::{self, AckHandle, Found as FoundClaim, PoolName, Settle, Target};
use lamda_node::clock::{Clock as _, Timestamp};
use lamda_node::container::{self, ContainerId, Found, FoundState};
use lamda_node::job::claim::Claim;
use lamda_node::job::phase::{Event, Fault, Phase, PinnedImage, Retry, RunExit, Sealed};
use lamda_node::job::plan::Step;
use lamda_node::job::receipt::{Facts, Signed};
use lamda_node::job::{Domain, Job, JobId, LateResult, Reason, Receipt, Signature};
use lamda_node::journal::{Fate, Gate, Outgoing};
use lamda_node::node::Address;

use super::check;
use super::work::Work;
use super::world::{Container, Doing, GONE_DARK, RunRecord, World};

/// What a container exits with that the node stopped.
const STOPPED: i32 = 143;

/// The world as one life of one agent's process sees it.
#[derive(Debug, Clone)]
pub(crate) struct Simulated {
    pub(crate) world: World,
    pub(crate) host: usize,
    pub(crate) life: u64,
    pub(crate) board: Board,
}

/// What the journal's writes meet.
#[derive(Debug)]
pub(crate) struct Writes {
    pub(crate) world: World,
    pub(crate) host: usize,
    pub(crate) life: u64,
    /// The write that is forgotten, where a defect is planted.
    pub(crate) forgotten: Option<&'static str>,
}

impl Gate for Writes {
    fn fate(&self, write: &'static str) -> Fate {
        if !self.world.lives(self.host, self.life) {
            return Fate::DiesBefore;
        }
        self.world.note(Some(self.host), || format!("writes {write}"));
        if self.forgotten == Some(write) {
            return Fate::Forgotten;
        }
        if self.world.happens(|weather| weather.kill) {
            let dark = self.world.happens(|weather| weather.power);
            let after = self.world.roll(2) == 1;
            if !after {
                self.world.kill(self.host, dark);
                return Fate::DiesBefore;
            }
            // It dies as soon as the write is done: the next thing that it tries finds it dead.
            self.world.state().hosts[self.host].life = None;
            self.world.note(Some(self.host), || "killed after that write".to_owned());
            self.world.news.notify_one();
            return Fate::DiesAfter;
        }
        if self.world.happens(|weather| weather.disk) { Fate::Refused } else { Fate::Written }
    }
}

impl Simulated {
    /// Lets time pass, and dies here where the day wants it so.
    async fn pass(&self, at_most_ms: u64) {
        let ms = self.world.roll(at_most_ms);
        self.world.time.sleep(Duration::from_millis(ms)).await;
        if self.world.lives(self.host, self.life) && self.world.happens(|weather| weather.kill) {
            let dark = self.world.happens(|weather| weather.power);
            self.world.kill(self.host, dark);
        }
        self.alive().await;
    }

    /// Never returns in a process that is dead.
    async fn alive(&self) {
        if !self.world.lives(self.host, self.life) {
            std::future::pending::<()>().await;
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.world.note(Some(self.host), what);
    }

    fn bus_is_away(&self) -> bool {
        let ms = self.world.time.ms();
        self.world.state().queue.away_until_ms > ms
    }

    fn engine_is_away(&self) -> bool {
        let ms = self.world.time.ms();
        self.world.state().hosts[self.host].engine_away_until_ms > ms
    }

    /// One call to the bus: it may not arrive, and its answer may not come back.
    async fn call<T>(
        &self,
        act: impl FnOnce() -> Result<T, bus::Error> + Send,
    ) -> Result<T, bus::Error> {
        self.pass(20).await;
        if self.bus_is_away() {
            return Err(bus::Error::Disconnected { server: "simulated".to_owned() });
        }
        if self.world.happens(|weather| weather.bus) {
            return Err(bus::Error::Timeout { what: "simulated" });
        }
        let answer = act();
        self.pass(20).await;
        if self.world.happens(|weather| weather.bus) {
            return Err(bus::Error::Timeout { what: "simulated" });
        }
        answer
    }

    fn engine_failed(&self) -> Option<Event> {
        let away = self.engine_is_away() || self.world.happens(|weather| weather.engine);
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
        let text = "sha256:1".to_owned();
        Event::Pulled { image: PinnedImage { id: text.clone(), digest: text } }
    }

    async fn create(&self, job: &Job) -> Event {
        let Phase::Starting { gpus, .. } = &job.phase else { return Event::Lost };
        self.pass(50).await;
        if let Some(event) = self.engine_failed() {
            return event;
        }
        let name = name(job, job.attempt);
        for earlier in 1..job.attempt {
            self.remove_container(&self::name(job, earlier));
        }
        let there = self.world.state().hosts[self.host].containers.contains_key(&name);
        if !there {
            let container = Container {
                job: job.id().clone(),
                attempt: job.attempt,
                gpus: gpus.clone(),
                created_at: self.world.now(),
                state: Doing::Created,
                run: None,
            };
            self.note(|| format!("creates {name}"));
            self.world.state().hosts[self.host].containers.insert(name.clone(), container);
        }
        self.pass(50).await;
        self.engine_failed().unwrap_or(Event::Created { container: name })
    }

    async fn start(&self, job: &Job) -> Event {
        self.pass(50).await;
        if let Some(event) = self.engine_failed() {
            return event;
        }
        let name = name(job, job.attempt);
        self.world.settle_containers(self.host);
        let there = self.world.state().hosts[self.host].containers.get(&name).cloned();
        let at = match there.map(|container| container.state) {
            None => return Event::Lost,
            Some(Doing::Created) if job.spec.deadline.is_some_and(|at| at <= self.world.now()) => {
                return Event::Expired;
            }
            Some(Doing::Created) => self.run(job, &name),
            Some(Doing::Running { since, .. } | Doing::Exited { since, .. }) => since,
        };
        self.pass(50).await;
        self.engine_failed().unwrap_or(Event::Started { container: name, at })
    }

    fn run(&self, job: &Job, name: &str) -> Timestamp {
        self.note(|| format!("starts {name}"));
        check::may_start(&self.world, self.host, job);
        if !self.remembers(job) {
            self.world.broken(format!("{} is started with inputs that may be cut short", job.id()));
        }
        let (ms, since) = (self.world.time.ms(), self.world.now());
        let work = Work::of(job);
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
        if let Some(container) = host.containers.get_mut(name) {
            let until_ms = ms + work.run_ms;
            container.state = Doing::Running { since, until_ms, code: work.code };
            container.run = run;
        }
        since
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
                // What ran when the host went down: nobody knows how it would have ended.
                None | Some(Doing::Created | Doing::Exited { code: GONE_DARK, .. }) => {
                    return Event::Lost;
                }
                // Nor how one would that somebody ended, as far as this journal knows.
                Some(Doing::Exited { code: STOPPED, .. })
                    if matches!(job.phase, Phase::Running { .. }) =>
                {
                    return Event::Lost;
                }
                Some(Doing::Exited { since, at, code }) => {
                    let by_itself = Some(code != STOPPED);
                    let exit = RunExit {
                        code: Some(code),
                        oom: false,
                        started_at: since,
                        finished_at: at,
                    };
                    return Event::Exited { exit, by_itself };
                }
                Some(Doing::Running { until_ms, .. }) => {
                    let left = until_ms - self.world.time.ms();
                    self.world.time.sleep(Duration::from_millis(left.min(10_000))).await;
                }
            }
        }
    }

    async fn stop(&self, job: &Job) -> Event {
        self.pass(500).await;
        if let Some(event) = self.engine_failed() {
            return event;
        }
        self.end(&name(job, job.attempt));
        self.follow(job).await
    }

    /// The engine ends a container that runs.
    fn end(&self, name: &str) {
        self.world.settle_containers(self.host);
        let now = self.world.now();
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
            self.world.broken(format!("the folder of job {} went before its result", job.id()));
        }
        let succeeded = exit.code == Some(0) && cause.is_none();
        let key = (job.id().clone(), job.attempt);
        let known = self.world.state().hosts[self.host].sealed.contains(&key);
        if succeeded && !known && !self.remembers(job) {
            return Event::Lost;
        }
        if succeeded {
            self.world.state().hosts[self.host].sealed.insert(key);
        }
        let output = succeeded.then(|| Sealed {
            path: "output".to_owned(),
            cid: Work::output(job.node, job.id(), job.attempt),
            bytes: 1,
            directory: false,
        });
        Event::Collected { output: Ok(output), log: None }
    }

    async fn publish(&self, job: &Job) -> Event {
        let Phase::Collected { ended } = &job.phase else { return Event::Lost };
        self.pass(3_000).await;
        if self.world.happens(|weather| weather.store) {
            return failed(Reason::UploadFailed, Retry::Patiently);
        }
        let output = ended.output.as_ref().map(|sealed| sealed.cid);
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
            self.remove_container(&name(job, attempt));
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

impl Effects for Simulated {
    async fn perform(&self, job: &Job, step: Step) -> Event {
        self.alive().await;
        self.note(|| format!("{}: {}", job.id(), step.name()));
        let event = match step {
            Step::Pull => self.pull(job).await,
            Step::Fetch => self.fetch(job).await,
            Step::Reserve => Event::Reserved { gpus: self.board.reserve(job).await },
            Step::Create => self.create(job).await,
            Step::Start => self.start(job).await,
            Step::Follow { until } => {
                tokio::select! {
                    biased;
                    event = self.follow(job) => event,
                    () = self.world.time.sleep_until(until) => Event::TimeIsUp,
                }
            }
            Step::Stop => self.stop(job).await,
            Step::Collect => self.collect(job).await,
            Step::Publish => self.publish(job).await,
            Step::Attest => {
                self.pass(10).await;
                Event::Attested { receipt: receipt(job) }
            }
            Step::Remove => self.remove(job).await,
            step => unreachable!("{step:?} is a message"),
        };
        self.alive().await;
        event
    }

    async fn settle(&self, delivery: &AckHandle, how: Settle) -> Result<(), bus::Error> {
        self.call(|| {
            let ms = self.world.time.ms();
            let mut state = self.world.state();
            if state.queue.created_ns != delivery.stream_created_ns {
                return Err(bus::Error::StaleAck { stream: "JOBS".to_owned() });
            }
            let seq = delivery.stream_seq;
            let Some(message) = state.queue.messages.get_mut(&seq) else { return Ok(()) };
            match how {
                Settle::Ack | Settle::Term => {
                    let message = message.clone();
                    state.queue.messages.remove(&seq);
                    drop(state);
                    self.note(|| format!("acknowledges {seq}"));
                    check::may_acknowledge(&self.world, self.host, &message);
                }
                // The server does not look at whose answer it is.
                Settle::Nak(delay) => {
                    message.free_at_ms = ms + u64::try_from(delay.as_millis()).unwrap_or(0);
                    drop(state);
                    self.note(|| format!("gives {seq} back for {delay:?}"));
                    self.world.queued.notify_waiters();
                }
                Settle::Progress => message.free_at_ms = ms + message.ack_wait_ms(),
            }
            Ok(())
        })
        .await
    }

    async fn say(&self, status: &Outgoing) -> Result<(), bus::Error> {
        self.call(|| {
            self.note(|| {
                format!("says {} {}", status.job_id, String::from_utf8_lossy(&status.body))
            });
            check::hear(&self.world, self.host, status);
            Ok(())
        })
        .await
    }

    async fn say_late(&self, _: &LateResult) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn said(&self) -> Result<(), bus::Error> {
        self.call(|| Ok(())).await
    }

    async fn bury(&self, _: &Target, body: Vec<u8>, _: &str) -> Result<(), bus::Error> {
        self.call(|| {
            let letter = serde_json::from_slice(&body).expect("a dead letter is JSON");
            self.world.state().dead.push(letter);
            Ok(())
        })
        .await
    }

    async fn claim(&self, pool: &PoolName, job: &JobId) -> Result<Option<FoundClaim>, bus::Error> {
        self.call(|| {
            let state = self.world.state();
            let found = state.claims.get(&(pool.clone(), job.clone()));
            Ok(found.map(|(claim, revision)| FoundClaim { claim: *claim, revision: *revision }))
        })
        .await
    }

    async fn put_claim(
        &self,
        pool: &PoolName,
        job: &JobId,
        claim: &Claim,
        over: Option<u64>,
    ) -> Result<bool, bus::Error> {
        self.call(|| {
            let mut state = self.world.state();
            let key = (pool.clone(), job.clone());
            if state.claims.get(&key).map(|(_, revision)| *revision) != over {
                return Ok(false);
            }
            state.revision += 1;
            let revision = state.revision;
            state.claims.insert(key, (*claim, revision));
            drop(state);
            self.note(|| format!("claims {}", claim.to_json()));
            Ok(true)
        })
        .await
    }

    async fn keeps(&self, holder: Address, job: &JobId) -> Option<Duration> {
        let kept = self.call(|| Ok(self.world.asks(holder, job))).await;
        let kept = kept.ok().flatten();
        self.note(|| format!("asks {holder} for {job}: {kept:?}"));
        kept
    }

    async fn ack_wait(&self, delivery: &AckHandle) -> Result<Duration, bus::Error> {
        self.alive().await;
        Ok(delivery.ack_wait())
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
        let found = all.map(|(name, container)| Found {
            id: ContainerId(name.clone()),
            job_id: Some(container.job.clone()),
            attempt: container.attempt,
            state: match container.state {
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

    fn remembers(&self, job: &Job) -> bool {
        let state = self.world.state();
        let host = &state.hosts[self.host];
        host.fetched.get(&(job.id().clone(), job.attempt)) == Some(&host.boots)
    }

    async fn sweep(&self, keep: &[JobId]) -> std::io::Result<usize> {
        self.alive().await;
        let mut state = self.world.state();
        let folders = &mut state.hosts[self.host].folders;
        let before = folders.len();
        folders.retain(|id| keep.contains(id));
        Ok(before - folders.len())
    }
}

/// A receipt in its form; nobody looks at its signature here.
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
