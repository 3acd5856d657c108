//! `run`: the node itself. Reads the settings, loads the key, builds the adapters, and passes them to the
//! agent.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::doctor::checks::rights;
use super::logging::Audience;
use super::{Misused, Unavailable, load};
use crate::agent::metrics::Metrics;
use crate::agent::usage::MonitorLink;
use crate::agent::{self, Shutdown};
use crate::artifact::{Gateways, Pinata};
use crate::chain::{Chain as _, Evm, Key};
use crate::clock::SystemClock;
use crate::config::{self, Gpu, Monitoring};
use crate::container::{ContainerRuntime, docker::Docker, fake as container_fake};
use crate::gpu::{GpuProbe, fake as gpu_fake, host::Host};
use crate::host::{self, Meter};
use crate::monitor::{self, Monitor};
use crate::node::{Gpu as Card, GpuInventory, GpuUuid, LOCAL_CHAINS};

/// How long a simulated job takes.
const SIMULATED_RUN: Duration = Duration::from_secs(2);

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Replace container engine and GPU by fakes; no job is really run (loopback NATS, local chain only)
    #[arg(long)]
    simulate: bool,
    /// If another node uses the same key on the same NATS server, ask it to stop and wait until it has
    #[arg(long)]
    take_over: bool,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let (settings, source) = load(Audience::Owner, config::Node::read)?;
    if args.simulate && !config::is_loopback(&settings.bus.url) {
        let text = "--simulate needs a NATS server on this machine: nobody else may be told that \
                    such jobs were run";
        return Err(Misused(text.to_owned()).into());
    }
    let key = source.load()?;
    // Drop the passphrase and the other key material as soon as the key is loaded.
    drop(source);
    if let Some(owner) = settings.owner {
        tracing::info!(%owner, "the node's owner is {owner}: it may drain the node, and is never \
            spent from");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the program can't start")?;
    runtime.block_on(Box::pin(node(settings, key, args)))?;
    Ok(ExitCode::SUCCESS)
}

async fn node(settings: config::Node, key: Key, args: &Args) -> anyhow::Result<()> {
    let chain = Evm::new(settings.chain.clone(), key.clone())?;
    if args.simulate {
        let facts = chain.check().await.context("--simulate needs its chain to answer")?;
        if !LOCAL_CHAINS.contains(&facts.chain_id) {
            let id = facts.chain_id;
            let text = format!("--simulate is for a local chain (1337 or 31337), this is {id}");
            return Err(Unavailable(text).into());
        }
        tracing::warn!("--simulate: container and GPU are fakes, and no job is run for real");
        let inventory = simulated_gpus()?;
        let uuids = inventory.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
        let runtime = container_fake::Fake::new(SIMULATED_RUN, uuids);
        let gpu = gpu_fake::Fake::new(inventory);
        return start((settings, args), key, runtime, gpu, chain).await;
    }
    if let Some((lacking, remedy)) = rights(host::overrides_owners()) {
        tracing::warn!("{lacking} ({remedy})");
    }
    let runtime = Docker::connect(&settings.docker)?;
    let library = match &settings.gpu {
        Gpu::Auto { library, .. } => library.clone(),
        Gpu::None => None,
    };
    let host = Host::new(library).with_toolkit(settings.gpu.toolkit(&settings.docker));
    start((settings, args), key, runtime, host, chain).await
}

fn simulated_gpus() -> anyhow::Result<GpuInventory> {
    let uuid = GpuUuid::new("GPU-51301a7e-d000-4000-8000-000000000000").context("no GPU's UUID")?;
    let card = Card { uuid, model: "Simulated GPU".to_owned(), vram_mib: 16_384 };
    let (driver, cuda) = ("simulated".to_owned(), "simulated".to_owned());
    Ok(GpuInventory { driver, cuda, gpus: vec![card], ..GpuInventory::default() })
}

async fn start<R: ContainerRuntime, G: GpuProbe>(
    (settings, args): (config::Node, &Args),
    key: Key,
    runtime: R,
    gpu: G,
    chain: Evm,
) -> anyhow::Result<()> {
    let pinata = Pinata::new(&settings.artifact)?.tried_as(&key.address().to_string());
    let gpu = Arc::new(gpu);
    let sampler = Meter::default();
    let monitor = settings.monitoring.is_on.then(|| {
        let (watches, heard) = mpsc::channel(monitor::WATCHES_MAX);
        let (say, said) = mpsc::channel(monitor::SAID_MAX);
        let monitor = Monitor::new(key.address(), Arc::clone(&gpu), SystemClock, say);
        watch_beside(sampler.of(monitor.run(heard)));
        let Monitoring { topic, profile, beat, .. } = settings.monitoring;
        MonitorLink { watches, said, topic, profile, beat }
    });
    let node = agent::Node {
        owner: settings.owner,
        key: Arc::new(key),
        take_over: args.take_over,
        bus: Arc::new(settings.bus),
        runtime: Arc::new(runtime),
        gpu,
        monitor,
        hub: settings.hub,
        metrics: settings.metrics.map(|listen| Metrics { listen, sampler }),
        chain: Arc::new(chain),
        contract: settings.chain.contract,
        chain_id: settings.chain.chain_id,
        gateways: Gateways::new(&settings.artifact)?,
        pinata,
        clock: SystemClock,
        settings: settings.settings,
    };
    let (ask, asked) = watch::channel(Shutdown::No);
    tokio::select! {
        ended = Box::pin(node.run(asked)) => Ok(ended?),
        never = signals(ask) => match never? {},
    }
}

/// Has the monitor work on a thread of its own: it reads files of the kernel's, which may take long, and takes nothing
/// else with it if it fails. It ends with the program.
fn watch_beside(monitor: impl Future<Output = ()> + Send + 'static) {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => {
                let worked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(monitor)));
                if worked.is_err() {
                    tracing::error!(
                        "the monitor ended by a defect of this program: what jobs use is not watched"
                    );
                }
            }
            Err(err) => tracing::warn!("what jobs use is not watched: {err}"),
        }
    };
    if let Err(err) = std::thread::Builder::new().name("monitor".to_owned()).spawn(work) {
        tracing::warn!("what jobs use is not watched: {err}");
    }
}

/// Handles SIGTERM and SIGINT: the first asks for a graceful shutdown, the second for an immediate one.
async fn signals(ask: watch::Sender<Shutdown>) -> anyhow::Result<Infallible> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let again = *ask.borrow() != Shutdown::No;
        if again {
            tracing::warn!("asked a second time: ending at once");
        } else {
            tracing::info!("asked to end: no more jobs are taken (once more to end at once)");
        }
        ask.send_replace(if again { Shutdown::Now } else { Shutdown::Graceful });
    }
}

/// Returns at the first SIGTERM or SIGINT.
pub(super) async fn first_signal() {
    let term = async {
        match signal(SignalKind::terminate()) {
            Ok(mut term) => _ = term.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = term => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
