use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::{oneshot, watch};

use super::*;
use crate::clock::Timestamp;
use crate::gpu::Error;
use crate::gpu::fake::Fake;
use crate::ids::JobId;
use crate::node::card::{
    CardProcess, Happened, Reading as CardReading, Round, Sample, Unknown as CardUnknown,
};
use crate::node::toolkit::Verdict;
use crate::node::{Gpu, GpuInventory, GpuUuid};
use crate::usage::profile::{Name, Profile};
use crate::usage::{Batch, Chain, EnergyMethod, Unknown, Usage};

/// A clock that the test moves.
#[derive(Debug, Clone)]
struct Hand(Arc<watch::Sender<Duration>>);

impl Hand {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Duration::ZERO)))
    }

    fn go(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_700_000_000_000).plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        *self.0.borrow()
    }

    fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send {
        let (end, mut now) = (self.monotonic() + span, self.0.subscribe());
        async move {
            now.wait_for(|now| *now >= end).await.ok();
        }
    }
}

fn card() -> GpuUuid {
    GpuUuid::new("GPU-1").unwrap()
}

fn cards(sample: Sample) -> Arc<Fake> {
    let gpu = Gpu { uuid: card(), model: "NVIDIA A100".to_owned(), vram_mib: 40_960 };
    let fake = Fake::new(GpuInventory { gpus: vec![gpu], ..GpuInventory::default() });
    fake.set_sample(card(), Ok(sample));
    Arc::new(fake)
}

fn attempt() -> Attempt {
    Attempt { job: "watched".parse::<JobId>().unwrap(), number: 1 }
}

fn running(cards: Vec<GpuUuid>, profile: Profile) -> RunningJob {
    RunningJob {
        attempt: attempt(),
        place: Err(Unknown::NotSupported),
        has_network: true,
        cards,
        memory_bytes: 1 << 30,
        profile,
        is_new: true,
        age: Duration::ZERO,
        so_far: None,
    }
}

/// A monitor at work, and what it says.
struct Bench {
    clock: Hand,
    tell: mpsc::Sender<Watch>,
    said: mpsc::Receiver<Said>,
    heard: Vec<Said>,
    crew: crate::supervise::Crew,
}

impl Bench {
    fn new<G: GpuProbe>(gpu: Arc<G>, deadline: Duration) -> Self {
        let (clock, crew) = (Hand::new(), crate::supervise::Crew::default());
        let (tell, watches) = mpsc::channel(WATCHES_MAX);
        let (say, said) = mpsc::channel(SAID_MAX);
        let mut monitor = Monitor::new(Address::new([1; 20]), gpu, clock.clone(), say);
        monitor.cards.deadline = deadline;
        crew.spawn("the monitor".to_owned(), monitor.run(watches));
        Self { clock, tell, said, heard: Vec::new(), crew }
    }

    /// Waits for the next live message of the job: one a look.
    async fn look(&mut self) -> serde_json::Value {
        loop {
            if let Said::Message(_, body) = self.said.recv().await.expect("it goes on") {
                return serde_json::from_slice(&body).unwrap();
            }
        }
    }

    async fn end(&mut self) -> Usage {
        let (tell, told) = oneshot::channel();
        let answer = Answer::new(move |usage| {
            tell.send(usage).ok();
        });
        self.tell.send(Watch::Exited { attempt: attempt(), answer }).await.unwrap();
        loop {
            match self.said.recv().await.expect("it goes on") {
                Said::Done(answer, usage) => {
                    answer.give(usage);
                    return told.await.expect("an answer");
                }
                said => self.heard.push(said),
            }
        }
    }

    /// What was said until now, of which nobody took anything yet.
    fn rest(&mut self) -> Vec<Said> {
        let more: Vec<Said> = std::iter::from_fn(|| self.said.try_recv().ok()).collect();
        self.heard.drain(..).chain(more).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.crew.abort();
    }
}

fn idle_sample() -> Sample {
    Sample {
        busy_percent: Ok(0),
        energy_mj: Ok(1_000),
        power_mw: Ok(60_000),
        processes: Ok(vec![CardProcess { pid: std::process::id(), bytes: Ok(5) }]),
        ..Sample::unknown(&CardUnknown::NotSupported)
    }
}

#[tokio::test]
async fn a_job_that_holds_a_card_idle_is_told_once_until_it_works_again() {
    let gpu = cards(idle_sample());
    let mut bench = Bench::new(Arc::clone(&gpu), Duration::from_secs(5));
    let profile = Name::Standard.profile();
    bench.tell.send(Watch::Started(Box::new(running(vec![card()], profile)))).await.unwrap();
    bench.look().await;
    let mut told = 0;
    for round in 0..120 {
        if round == 80 {
            gpu.set_sample(card(), Ok(Sample { busy_percent: Ok(97), ..idle_sample() }));
        }
        bench.clock.go(profile.interval);
        loop {
            match bench.said.recv().await.expect("it goes on") {
                Said::Message(..) => break,
                Said::HeldIdle { idle, .. } => panic!("told out of turn after {idle:?}"),
                _ => {}
            }
        }
        // It is told right after the look that shows it.
        tokio::task::yield_now().await;
        while let Ok(said) = bench.said.try_recv() {
            if let Said::HeldIdle { idle, has_process, cards, .. } = said {
                assert!(idle >= Duration::from_mins(5) && round < 80, "{idle:?} in {round}");
                assert_eq!((has_process, cards), (false, vec![card()]), "no process of the job's");
                told += 1;
            }
        }
    }
    assert_eq!(told, 1);
}

#[tokio::test]
async fn a_jobs_energy_is_the_difference_of_its_cards_counter() {
    let gpu = cards(idle_sample());
    let mut bench = Bench::new(Arc::clone(&gpu), Duration::from_secs(5));
    let profile = Name::Intensive.profile();
    bench.tell.send(Watch::Started(Box::new(running(vec![card()], profile)))).await.unwrap();
    bench.look().await;
    gpu.set_sample(card(), Ok(Sample { energy_mj: Ok(6_500), ..idle_sample() }));
    let usage = bench.end().await;
    assert_eq!((usage.energy_mj, usage.energy_method), (Ok(5_500), EnergyMethod::Counter));
    assert_eq!(usage.cpu_us, Err(Unknown::NotSupported), "nothing counts its CPU here");
}

/// A driver that never answers.
#[derive(Debug, Default)]
struct Hung(Mutex<u32>);

impl GpuProbe for Hung {
    async fn inventory(&self) -> Result<GpuInventory, Error> {
        Ok(GpuInventory::default())
    }

    async fn sample(&self) -> Result<Round, Error> {
        *self.0.lock().unwrap() += 1;
        std::future::pending().await
    }

    async fn energy(&self, _: &[GpuUuid]) -> Result<BTreeMap<GpuUuid, CardReading<u64>>, Error> {
        *self.0.lock().unwrap() += 1;
        std::future::pending().await
    }

    fn events(&self) -> mpsc::Receiver<Happened> {
        mpsc::channel(1).1
    }

    async fn toolkit(&self) -> Verdict {
        Verdict::Unused
    }
}

#[tokio::test]
async fn a_driver_that_hangs_makes_its_values_unknown_and_is_left_alone_for_a_while() {
    let gpu = Arc::new(Hung::default());
    let mut bench = Bench::new(Arc::clone(&gpu), Duration::from_millis(5));
    let profile = Name::Intensive.profile();
    bench.tell.send(Watch::Started(Box::new(running(vec![card()], profile)))).await.unwrap();
    bench.look().await;
    for _ in 0..25 {
        bench.clock.go(profile.interval);
        let told = bench.look().await;
        assert_eq!(told["gpus"][0]["unknown"]["gpu_busy_percent"], "failed", "{told}");
    }
    let asked = *gpu.0.lock().unwrap();
    assert_eq!(asked, 2, "for energy and for a round, and not again within half a minute");
    let usage = bench.end().await;
    assert!(usage.energy_mj.is_err() && usage.gpu_ms.is_err(), "{usage:?}");
}

#[tokio::test]
async fn a_node_that_is_restarted_goes_on_with_the_chain_of_a_job() {
    let profile = Name::Intensive.profile();
    let (mut so_far, mut bodies, mut last) = (None, Vec::new(), None);
    for life in 0..3 {
        let mut bench = Bench::new(cards(idle_sample()), Duration::from_secs(5));
        let job = RunningJob { is_new: life == 0, so_far, ..running(Vec::new(), profile) };
        bench.tell.send(Watch::Started(Box::new(job))).await.unwrap();
        for _ in 0..65 {
            bench.clock.go(profile.interval);
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        last = Some(bench.end().await);
        so_far = None;
        for said in bench.rest() {
            if let Said::Batch { so_far: until, body, .. } = said {
                bodies.push(body);
                so_far = Some(*until);
            }
        }
    }
    let head = Chain::verify(bodies.iter().map(Vec::as_slice)).expect("one chain over all lives");
    let usage = last.expect("three lives");
    assert_eq!(head.hash, usage.series_head);
    assert_eq!(head.samples, usage.samples, "the sums go on as well");
    let numbers: Vec<u32> =
        bodies.iter().map(|body| Batch::unpack(body).unwrap().0.number).collect();
    assert_eq!(
        numbers,
        (0..numbers.len()).map(|at| u32::try_from(at).unwrap()).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_profile_that_publishes_nothing_still_gives_final_figures() {
    let mut bench = Bench::new(cards(idle_sample()), Duration::from_secs(5));
    let profile = Name::Minimal.profile();
    bench.tell.send(Watch::Started(Box::new(running(vec![card()], profile)))).await.unwrap();
    let usage = bench.end().await;
    assert_eq!(usage.samples, 2, "one at the start, one at the end");
    assert_eq!(usage.net_rx_bytes, Err(Unknown::Off), "the profile does not read it");
    assert!(
        bench.rest().iter().all(|said| !matches!(said, Said::Message(..) | Said::Batch { .. }))
    );
}
