//! The sidecar as a whole: opens its store, starts what observes, judges and tells, and answers requests.
//!
//! Invariants: whatever fails for good ends the sidecar with a reason; a source that can't be asked does not.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::api::{self, Shared};
use super::error::Error;
use super::follow::Follower;
use super::probe::chain::ChainProbe;
use super::probe::usage::{Sampler, Ways};
use super::probe::{Programs, host, ports};
use super::program::{Program, Tap};
use super::report::hardware::Hardware;
use super::report::hub::HubReporter;
use super::report::llama::{self, LlamaTap};
use super::report::{key, nats, original};
use super::restart::Restarter;
use super::settings::{Links, Sampling, Settings, Watching};
use super::store::{self, Expected, Store};
use super::used::Board;
use super::watcher::{Verdicts, Watcher};
use crate::backoff::Backoff;
use crate::chain::coordinator::Coordinator;
use crate::chain::{self, EndpointLimits, Key};
use crate::clock::{Clock as _, SystemClock};
use crate::gswarm::Service;
use crate::notify::{Channel, Outbox, Switch};
use crate::supervise::{Failure, Services};
use crate::watch::observation::Seen;
use crate::watch::profile::{Filled, FilledChain};
use crate::web;

/// How long answers under way may take once the sidecar is to stop.
const GRACE: Duration = Duration::from_secs(5);

/// How long a part that failed rests.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));

/// How often it forgets what is too old, and the pause between two parts of that.
const CLEAN: Duration = Duration::from_hours(1);
const PAUSE: Duration = Duration::from_millis(200);

/// How long an endpoint of the chain may take.
const CHAIN_MAX: Duration = Duration::from_secs(20);

/// What the bootnodes of a contract are told by, for each contract.
type Named = BTreeMap<String, Arc<tokio::sync::watch::Sender<Vec<String>>>>;

/// Runs the sidecar until `shutdown`.
pub async fn run(
    settings: Settings,
    mut links: Links,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let at = settings.listen;
    // Before the store: an address that is taken is the commoner mistake, and leaves nothing behind.
    let listener = TcpListener::bind(at).await.map_err(|source| Error::Listen { at, source })?;
    let at = listener.local_addr().map_err(Error::Serve)?;
    let store = Store::open(&settings.db)?;
    let key = signs_by(settings.key, &settings.db)?;
    let teller = links.nats.is_some().then(|| nats::Teller::new(key.address()));
    let (clock, bell, changed) = (SystemClock, Arc::new(Notify::new()), Arc::new(Notify::new()));
    let sinks = links.redis.as_ref().map(llama::Sinks::new);
    let (programs, taps) = load(settings.programs, &store, &bell, sinks.as_ref()).await?;
    say(&programs, &settings.without, at);
    let mut services = Services::default();
    let channels = Channel::all(&links.channels).map_err(Error::Link)?;
    services.spawn_with("channels", BACKOFF, channels.clone(), Channel::check_all);
    let outbox = Outbox::new(store.book(), channels);
    outbox.warn_of_others().await.map_err(store::Error::from)?;
    outbox.spawn(&mut services);
    // On a full disk nothing is observed either: the watcher begins once there is room.
    let has_begun = begin(&programs).await.is_ok();
    let (verdicts, board) = (Verdicts::default(), Board::default());
    let watcher = Watcher {
        store: store.clone(),
        programs: Arc::clone(&programs),
        rules: Arc::new(settings.rules),
        policy: settings.policy,
        has_begun,
        board: board.clone(),
        verdicts: verdicts.clone(),
        outbox,
        bell,
        changed: Arc::clone(&changed),
        teller: teller.clone(),
        clock,
    };
    services.spawn_with("watch", BACKOFF, watcher, Watcher::run);
    let is_reported = links.original.as_ref().is_some_and(|it| it.ingest.is_some());
    let ways = observe(&mut services, &programs, is_reported)?;
    sample(&mut services, (&programs, ways), settings.sampling, (&store, &board));
    if let (Some(link), Some(sinks)) = (links.redis.take(), &sinks) {
        llama::start(&mut services, &link, taps, sinks);
    }
    if let (Some(config), Some(teller)) = (links.nats.take(), &teller) {
        let sender = nats::Sender::new(config, store.clone(), teller, &key);
        services.spawn_with("nats", BACKOFF, sender, nats::Sender::run);
    }
    tell(&mut services, (&programs, &verdicts, &changed), (&store, &board, key), links)?;
    let restarter = Restarter::new(store.clone(), Arc::clone(&programs), verdicts.clone());
    services.spawn_with("restart", BACKOFF, restarter, Restarter::run);
    services.spawn_with("housekeeping", BACKOFF, store.clone(), keep_house);
    let shared = Shared::new(store, programs, (verdicts, board), clock);
    let app = api::router(shared, at.ip().to_canonical().is_loopback());
    let serve = web::serve_within_until(listener, app, api::BOUNDS, shutdown, GRACE);
    let ended = tokio::select! {
        ended = serve => ended.map_err(Error::Serve),
        failed = services.first_fatal() => Err(Error::Part(failed)),
    };
    services.stop().await;
    ended
}

/// The key that its owner set, or the one beside the database.
fn signs_by(set: Option<Key>, db: &Path) -> Result<Key, Error> {
    let key = match set {
        Some(key) => key,
        None => key::load_or_make(&db.with_extension("key")).map_err(Error::Link)?,
    };
    tracing::info!("what this sidecar signs is signed by {}", key.address());
    Ok(key)
}

/// What is known of the programs, and what taps those that are published on Redis.
async fn load(
    watched: Vec<Watching>,
    store: &Store,
    bell: &Arc<Notify>,
    sinks: Option<&Arc<llama::Sinks>>,
) -> Result<(Programs, Vec<Arc<LlamaTap>>), Error> {
    let (mut programs, mut taps) = (Vec::new(), Vec::new());
    for watching in watched {
        store.expects(&watching.name, &Expected::now(&watching.expect)).await?;
        let program = Program::load(watching, store, SystemClock, Arc::clone(bell)).await?;
        let tap = sinks.and_then(|sinks| LlamaTap::of(&program, sinks));
        taps.extend(tap.clone());
        let tap = tap.map(|tap| -> Arc<dyn Tap> { tap });
        programs.push(Arc::new(program.with_tap(tap)));
    }
    Ok((Arc::new(programs), taps))
}

/// Begins the watch before anything is observed in it. What could not be asked before is asked anew, or no more.
async fn begin(programs: &Programs) -> Result<(), store::Error> {
    for program in programs.iter() {
        for source in program.look().state.troubles.keys() {
            program.source(source, None).await?;
        }
        program.saw(Seen::Watching).await?;
    }
    Ok(())
}

/// Says once where the sidecar is, what it watches, and what it does without.
fn say(programs: &Programs, without: &[String], at: std::net::SocketAddr) {
    tracing::info!("the sidecar is at http://{at}/health");
    for program in programs.iter() {
        let profile = &program.watching.profile;
        let logs: Vec<&str> = profile.logs.iter().map(|log| log.name.as_str()).collect();
        let logs = if logs.is_empty() { "none".to_owned() } else { logs.join(", ") };
        tracing::info!("watches {} by profile {}, logs: {logs}", program.name(), profile.profile);
    }
    for without in without {
        tracing::info!("{without}");
    }
}

/// Starts who samples what is used, unless nobody wants that.
fn sample(
    services: &mut Services,
    (programs, ways): (&Programs, tokio::sync::watch::Receiver<Ways>),
    sampling: Sampling,
    (store, board): (&Store, &Board),
) {
    let Some(every) = sampling.every else { return };
    let sampler = Sampler {
        programs: Arc::clone(programs),
        ways,
        every,
        library: sampling.library,
        store: store.clone(),
        board: board.clone(),
    };
    services.spawn_with("usage", BACKOFF, sampler, Sampler::run);
}

/// Starts what observes. Returns by what the programs are found.
fn observe(
    services: &mut Services,
    programs: &Programs,
    is_reported: bool,
) -> Result<tokio::sync::watch::Receiver<Ways>, Error> {
    for (at, program) in programs.iter().enumerate() {
        for log in &program.watching.profile.logs {
            // The original's service is told of the first program alone: it knows one node a token.
            let is_reported = is_reported && at == 0;
            let follower = Follower { program: Arc::clone(program), log: log.clone(), is_reported };
            services.spawn_with("log", BACKOFF, follower, Follower::run);
        }
    }
    let (tell, ways) = tokio::sync::watch::channel(host::first_ways(programs));
    services.spawn_with("host", BACKOFF, (Arc::clone(programs), Arc::new(tell)), host::run);
    services.spawn_with("ports", BACKOFF, Arc::clone(programs), ports::run);
    let named = read_chains(services, programs)?;
    ask_peers(services, programs, &named);
    Ok(ways)
}

/// The programs that share something, by its name.
fn together<T: Clone>(
    programs: &Programs,
    of: impl Fn(&Filled) -> Option<(String, T)>,
) -> BTreeMap<String, (T, Vec<Arc<Program>>)> {
    let mut groups: BTreeMap<String, (T, Vec<Arc<Program>>)> = BTreeMap::new();
    for program in programs.iter() {
        if let Some((name, what)) = of(&program.watching.profile) {
            let group = groups.entry(name).or_insert_with(|| (what, Vec::new()));
            group.1.push(Arc::clone(program));
        }
    }
    groups
}

fn name_of(chain: &FilledChain) -> String {
    format!("{} {}", chain.rpc.join(" "), chain.contract)
}

/// Starts a reader for each contract.
fn read_chains(services: &mut Services, programs: &Programs) -> Result<Named, Error> {
    let mut named = Named::new();
    let groups = together(programs, |it| it.chain.as_ref().map(|it| (name_of(it), it.clone())));
    for (name, (chain, programs)) in groups {
        let config = chain::Config {
            rpc_urls: chain.rpc.clone(),
            chain_id: Some(chain.chain_id),
            contract: chain.contract.parse().map_err(|err| Error::Link(Box::new(err)))?,
            request_timeout: CHAIN_MAX,
            endpoints: EndpointLimits::default(),
        };
        let coordinator = Coordinator::new(config).map_err(|err| Error::Link(err.into()))?;
        let bootnodes = Arc::new(tokio::sync::watch::Sender::new(Vec::new()));
        named.insert(name, Arc::clone(&bootnodes));
        let probe = ChainProbe { coordinator: Arc::new(coordinator), programs, bootnodes };
        services.spawn_with("chain", BACKOFF, probe, ChainProbe::run);
    }
    Ok(named)
}

/// Starts who asks the programs' peers, for each swarm.
#[cfg(feature = "p2p")]
fn ask_peers(services: &mut Services, programs: &Programs, named: &Named) {
    use super::probe::dht::DhtProbe;
    use crate::dht::{Config, Witness};
    let longest =
        programs.iter().filter_map(|it| Some(it.watching.profile.asked_dht()?.expiration)).max();
    // A clock of a minute's difference is no lie.
    let ahead_max = longest.unwrap_or_default() + Duration::from_mins(2);
    let witness = Witness::new(Config { ahead_max, ..Config::default() });
    let groups = together(programs, |it| {
        let dht = it.asked_dht()?.clone();
        let chain = it.chain.as_ref().map(name_of).unwrap_or_default();
        Some((format!("{chain} {dht:?}"), (dht, chain)))
    });
    for ((dht, chain), programs) in groups.into_values() {
        let none = || tokio::sync::watch::channel(Vec::new()).1;
        let named = named.get(&chain).map_or_else(none, |it| it.subscribe());
        let probe = DhtProbe { dht, programs, named, witness: witness.clone() };
        services.spawn_with("dht", BACKOFF, probe, DhtProbe::run);
    }
}

/// This build knows no DHT.
#[cfg(not(feature = "p2p"))]
fn ask_peers(services: &mut Services, programs: &Programs, _: &Named) {
    let groups = together(programs, |it| it.asked_dht().map(|_| (String::new(), ())));
    for ((), programs) in groups.into_values() {
        services.spawn_with("dht", BACKOFF, programs, async |programs| {
            for program in programs {
                let why = "this build has no feature p2p".to_owned();
                program.source(crate::watch::observation::DHT, Some(why)).await.ok();
            }
            std::future::pending().await
        });
    }
}

/// Starts what tells others.
fn tell(
    services: &mut Services,
    (programs, verdicts, changed): (&Programs, &Verdicts, &Arc<Notify>),
    (store, board, key): (&Store, &Board, Key),
    links: Links,
) -> Result<(), Error> {
    if let Some(link) = links.hub {
        let (programs, verdicts) = (Arc::clone(programs), verdicts.clone());
        let state = (store.clone(), programs, verdicts);
        let reporter = HubReporter::new(link, state, Arc::clone(changed), key);
        let reporter = reporter.map_err(Error::Link)?;
        services.spawn_with("hub", BACKOFF, reporter, HubReporter::run);
    }
    if let Some(config) = links.original {
        let takes_events = config.ingest.is_some();
        let service = Arc::new(Service::new(config).map_err(Error::Link)?);
        let (store, programs) = (store.clone(), Arc::clone(programs));
        if let Some(hardware) = Hardware::new(&service, &store, board) {
            services.spawn_with("hardware", BACKOFF, hardware, Hardware::run);
        }
        let sender = original::Sender { service, store, programs };
        if takes_events {
            services.spawn_with("ingest", BACKOFF, sender.clone(), original::Sender::events);
        }
        services.spawn_with("figures", BACKOFF, sender, original::Sender::figures);
    }
    if let Some(url) = links.ping {
        let switch = Switch::new("SIDECAR_PING_URL", url).map_err(Error::Link)?;
        services.spawn_with("ping", BACKOFF, (switch, store.clone()), async |(switch, store)| {
            switch.run(SystemClock, async || Ok(store.answers().await?)).await
        });
    }
    Ok(())
}

async fn keep_house(store: Store) -> Result<(), Failure> {
    let again = |err| Failure::again(err, "look whether the disk under SIDECAR_DB is full");
    loop {
        while store.forget(SystemClock.now()).await.map_err(again)? {
            SystemClock.sleep(PAUSE).await;
        }
        store.forget_usage(SystemClock.now()).await.map_err(again)?;
        let dropped = store.dropped();
        if dropped > 0 {
            tracing::warn!(
                "{dropped} reports were dropped within the last hour: too many wait for NATS or the ingest service"
            );
        }
        SystemClock.sleep(CLEAN).await;
    }
}
