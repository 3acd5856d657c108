//! What the node tells Prometheus of itself (`METRICS_LISTEN`): each request reads what the node knows at that moment.
//!
//! Invariants: nothing is asked at intervals for this, and nothing of the node waits for it; the GPUs' driver, the chain
//! and NATS are not asked, only what is known of them is told; what is not known is absent.

mod gpus;
mod node;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::act::Act;
use super::hardware::Hardware;
use super::herald;
use super::jobs::board::Board;
use super::jobs::hand::Jobs;
use super::link::Link;
use crate::artifact::Pinata;
use crate::clock::{Clock, Timestamp};
use crate::container::ContainerRuntime;
use crate::host::{self, Meter};
use crate::ids::{Address, Domain};
use crate::journal::{self, Backlog, Journal};
use crate::node::Gpu;
use crate::node::card::Round;
use crate::reputation::tx::Account;
use crate::supervise::Failure;
use crate::telemetry::{self, Family, Page};

/// How long the journal may take to count what waits in it; a working one takes a millisecond.
const JOURNAL: Duration = Duration::from_secs(1);

/// Where and of what the node tells Prometheus.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// What watching jobs costs.
    pub sampler: Meter,
}

/// A question to the journal that may be under way.
type Asked = Pin<Box<dyn Future<Output = Result<Backlog, journal::Error>> + Send>>;

/// Where the values come from.
pub(super) struct Source<C> {
    listen: SocketAddr,
    node: Address,
    gpus: Vec<Gpu>,
    driver: String,
    started: Timestamp,
    clock: C,
    board: Board,
    journal: Journal,
    link: Link,
    pinata: Pinata,
    known: Known,
    sampler: Meter,
    /// The question that a stuck journal has not answered: a second one is not put behind it.
    asked: Mutex<Option<(Duration, Asked)>>,
}

/// What other services have learned; clones share it.
#[derive(Clone)]
pub(super) struct Known {
    /// The chain and its contract.
    domain: watch::Receiver<Option<Domain>>,
    /// The account's balance in wei, as it was last seen.
    pub balance: Arc<watch::Sender<Option<u128>>>,
    /// What is known of the hub.
    pub hub: herald::Known,
    /// The latest samples of the GPUs, and when they were taken by the monotonic clock.
    pub latest: Arc<watch::Sender<Option<(Duration, Round)>>>,
}

impl Known {
    /// Nothing, except the chain once it has answered.
    pub(super) fn new(domain: watch::Receiver<Option<Domain>>) -> Self {
        Self { domain, balance: Arc::default(), hub: Arc::default(), latest: Arc::default() }
    }
}

impl<C: Clock + Clone> Source<C> {
    /// The values of this node.
    pub(super) fn new<R: ContainerRuntime>(
        metrics: Metrics,
        jobs: &Jobs<Act<R, C>, C>,
        link: &Link,
        known: Known,
        hardware: &Hardware,
    ) -> Self {
        let desk = &jobs.desk;
        Self {
            listen: metrics.listen,
            node: jobs.node,
            gpus: hardware.gpus.clone(),
            driver: hardware.driver.clone(),
            started: desk.clock.now(),
            clock: desk.clock.clone(),
            board: desk.board.clone(),
            journal: desk.journal.clone(),
            link: link.clone(),
            pinata: jobs.effects.pinata.clone(),
            known,
            sampler: metrics.sampler,
            asked: Mutex::default(),
        }
    }
}

/// Answers Prometheus; a service that ends only when it fails.
pub(super) async fn run<C: Clock + Clone>(source: Arc<Source<C>>) -> Result<(), Failure> {
    let listen = source.listen;
    let page = move || {
        let source = Arc::clone(&source);
        async move { source.page().await }
    };
    let served = telemetry::serve(listen, page).await;
    served.map_err(|err| Failure::again(err, "METRICS_LISTEN"))
}

impl<C: Clock> Source<C> {
    async fn page(&self) -> Page {
        let mut page = Page::default();
        let census = self.board.census();
        self.tell_node(&mut page, &census);
        self.tell_outside(&mut page);
        node::tell_backlog(&mut page, self.backlog().await);
        let samples = self.known.latest.borrow().clone();
        gpus::tell(&mut page, &self.gpus, samples, &census.cards, self.clock.monotonic());
        tell_process(&mut page, &self.sampler);
        page
    }

    /// What waits in the journal; `None` if it does not answer in time, or another request asks it.
    async fn backlog(&self) -> Option<Backlog> {
        let mut asked = self.asked.try_lock().ok()?;
        let (since, question) = asked.get_or_insert_with(|| {
            let domain = *self.known.domain.borrow();
            let account = domain.map(|Domain { chain_id, contract }| {
                (Account { chain_id, address: self.node }, contract)
            });
            let (journal, now) = (self.journal.clone(), self.clock.now());
            let question = async move { journal.backlog(account, now).await };
            (self.clock.monotonic(), Box::pin(question))
        });
        let told = timeout(JOURNAL, question.as_mut()).await.ok()?;
        // What an earlier request asked tells of that time.
        let is_old = self.clock.monotonic().saturating_sub(*since) > JOURNAL * 2;
        *asked = None;
        told.ok().filter(|_| !is_old)
    }
}

/// What the process uses.
fn tell_process(page: &mut Page, sampler: &Meter) {
    let used = host::own_use();
    let cpu = used.map(|used| used.user.saturating_add(used.system).as_secs_f64());
    page.put(Family::ProcessCpu, cpu);
    page.put(Family::ProcessMemory, used.and_then(|used| used.resident_bytes).map(number));
    let files = host::open_files().and_then(|files| u64::try_from(files).ok());
    page.put(Family::ProcessFiles, files.map(number));
    page.put(Family::SamplerCpu, sampler.used().as_secs_f64());
}

/// A count as Prometheus has all its values.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
const fn number(count: u64) -> f64 {
    count as f64
}
