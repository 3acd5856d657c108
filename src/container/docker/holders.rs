//! Holders: containers of the tool image, each with a network namespace that one job's container joins
//! (docs/adr/0033-warm-networks.md). A few are made ahead, since making its namespace takes half of a
//! container's start; those of the network `internet` set their packet filter before a container joins.
//!
//! Must hold: a holder is lent at most once, even if nobody knows whether it was used, and only when its
//! namespace is ready. Holders that no container joins and nobody keeps are removed.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum as Listed,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RenameContainerOptionsBuilder,
    StartContainerOptions,
};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::timeout;

use super::super::{ContainerId, ContainerSpec, Error, Network, policy};
use super::fault;
use super::inspect::inspect;
use super::tool::PROGRAM;
use super::{Config, Docker, within};
use crate::ids::Address;

/// How often the kept holders are compared with the engine's containers, if nothing else makes that
/// necessary.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// A used holder is replaced after this long, or when a container is removed, so that making the next one
/// does not slow the start that used it.
const REFILL_AFTER: Duration = Duration::from_secs(2);
/// Wait after a round that failed.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// An older holder of `internet` is not lent: the host may have got new addresses since its rules were made.
const GOOD_FOR: Duration = Duration::from_mins(10);
/// The word of a holder of `internet` once its rules are in force.
const READY: &str = "ready\n";

/// The holders that this process knows.
#[derive(Default)]
pub(super) struct Holders {
    state: Mutex<State>,
    /// Held while a holder is made, and while unused ones are searched for.
    pub(super) making: AsyncMutex<()>,
    lent: Notify,
    freed: Notify,
}

#[derive(Default)]
struct State {
    ready: Vec<Ready>,
    /// The ids of those that a create call may be using.
    lent: HashSet<String>,
    is_closed: bool,
}

/// A holder that is ready to be joined.
struct Ready {
    network: Network,
    /// Its container's id.
    id: String,
    made_at: Instant,
}

impl Ready {
    fn new(network: Network, id: String) -> Self {
        Self { network, id, made_at: Instant::now() }
    }

    /// Whether its rules still cover the host's addresses at this time, as far as anybody knows.
    fn is_good(&self, at: Instant) -> bool {
        self.network != Network::Internet || at.duration_since(self.made_at) < GOOD_FOR
    }
}

impl Holders {
    /// Notes that a job's container was removed, so that its holder can go. Not called for the node's own
    /// containers, which a round removes itself.
    pub(super) fn freed(&self) {
        self.freed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, network: Network, now: Instant) -> Option<Lent<'_>> {
        let mut state = self.state();
        let is_one = |one: &Ready| one.network == network && one.is_good(now);
        let at = state.ready.iter().position(is_one)?;
        let ready = state.ready.swap_remove(at);
        drop(state);
        self.lent.notify_one();
        Some(self.lend(ready))
    }

    fn lend(&self, ready: Ready) -> Lent<'_> {
        self.state().lent.insert(ready.id.clone());
        Lent { holders: self, holder: Some(ready) }
    }

    /// The ids of the holders that may still be joined. Forgets those that will be too old before the next
    /// round.
    fn known(&self, now: Instant) -> HashSet<String> {
        let mut state = self.state();
        state.ready.retain(|one| one.is_good(now + LOOK_EVERY));
        state.ready.iter().map(|one| &one.id).chain(&state.lent).cloned().collect()
    }
}

/// A holder for one create call, or the absence of one. Once dropped, it is never lent again.
pub(super) struct Lent<'a> {
    holders: &'a Holders,
    holder: Option<Ready>,
}

impl Lent<'_> {
    /// Its id in the engine; `None` without a holder.
    pub(super) fn id(&self) -> Option<&str> {
        self.holder.as_ref().map(|one| one.id.as_str())
    }

    /// Takes the holder back, which the engine has certainly not used.
    pub(super) fn put_back(mut self) {
        if let Some(ready) = self.holder.take() {
            let mut state = self.holders.state();
            state.lent.remove(&ready.id);
            state.ready.push(ready);
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(ready) = &self.holder {
            self.holders.state().lent.remove(&ready.id);
        }
    }
}

/// A holder for this container: for `internet` always, for no network if one is ready.
pub(super) async fn lend<'a>(docker: &'a Docker, spec: &ContainerSpec) -> Result<Lent<'a>, Error> {
    let holders = &docker.holders;
    let lent = match spec.network {
        Network::Bridge => None,
        Network::None => holders.take(Network::None, Instant::now()),
        Network::Internet => Some(fenced(docker, spec.node).await?),
    };
    Ok(lent.unwrap_or(Lent { holders, holder: None }))
}

/// A holder of `internet`: a ready one, or a new one.
async fn fenced(docker: &Docker, node: Address) -> Result<Lent<'_>, Error> {
    if let Some(reason) = keeps_own_networks(docker).await? {
        return Err(reason);
    }
    if let Some(lent) = take_running(docker).await? {
        return Ok(lent);
    }
    let _alone = docker.holders.making.lock().await;
    // Another holder may have become ready while this call waited.
    if let Some(lent) = take_running(docker).await? {
        return Ok(lent);
    }
    let id = make(docker, node, Network::Internet).await?;
    Ok(docker.holders.lend(Ready::new(Network::Internet, id)))
}

/// A ready holder of `internet` that runs, since a container that joins a dead one is lost. Dead ones are
/// forgotten here and removed by the next round.
async fn take_running(docker: &Docker) -> Result<Option<Lent<'_>>, Error> {
    while let Some(lent) = docker.holders.take(Network::Internet, Instant::now()) {
        let there = inspect(docker, lent.id().unwrap_or_default()).await?;
        let state = there.and_then(|there| there.state);
        if state.is_some_and(|state| state.running == Some(true)) {
            return Ok(Some(lent));
        }
    }
    Ok(None)
}

/// The reason why jobs can't join holders, if their runtime gives each container a network stack of its own.
pub(super) async fn keeps_own_networks(docker: &Docker) -> Result<Option<Error>, Error> {
    let (setting, runtime) = if let Some(runtime) = &docker.config.runtime {
        ("JOB_RUNTIME", runtime.clone())
    } else {
        // Asked each time, since the owner may change it.
        let info = docker.call(docker.client().await?.info()).await?;
        ("the engine's default runtime", info.default_runtime.unwrap_or_default())
    };
    Ok((!policy::Holder::serves(&runtime)).then(|| {
        let reason = format!(
            "JOB_NETWORK=internet needs JOB_RUNTIME to be one of {}, whose containers use the kernel's own network, and \
             {setting} is {runtime}: name one of them, or offer no internet",
            policy::Holder::SERVED.join(", ")
        );
        Error::Engine { reason: fault::one_line(&reason) }
    }))
}

/// What is done about a holder after the engine refused the start of the container that joins it.
pub(super) enum Mended {
    /// Nothing to mend: the container joins no holder, or one that runs.
    No,
    /// The holder had ended and runs again: the start can be repeated.
    Yes,
    /// The container can't be started any more.
    Never,
}

/// If the holder that this container joins has ended, starts it again, except one of `internet`: a container
/// could join that before its rules are back.
pub(super) async fn mend(
    docker: &Docker,
    there: &ContainerInspectResponse,
) -> Result<Mended, Error> {
    let mode = there.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
    let Some(id) = mode.and_then(policy::joins) else { return Ok(Mended::No) };
    let Some(holder) = inspect(docker, id).await? else { return Ok(Mended::Never) };
    if holder.state.is_some_and(|state| state.running == Some(true)) {
        return Ok(Mended::No);
    }
    let labels = holder.config.and_then(|config| config.labels).unwrap_or_default();
    if labels.get(policy::LABEL_HOLDER).is_none_or(|network| network != "none") {
        return Ok(Mended::Never);
    }
    tracing::info!("container {id}, which held a network, has ended: starting it again");
    let client = docker.client().await?;
    let start = client.start_container(id, None::<StartContainerOptions>);
    let started = within(docker.config.start_timeout, start).await;
    started.map_err(|err| cannot_hold(Network::None, &err.to_string()))?;
    Ok(Mended::Yes)
}

/// Keeps `spare` holders of each of these networks ready, and removes those that are not needed. Never
/// returns.
pub(super) async fn keep(docker: &Docker, node: Address, networks: &[Network], spare: usize) {
    let holders = &docker.holders;
    let mut told = String::new();
    loop {
        if let Err(err) = tend(docker, node, networks, spare).await {
            let words = err.to_string();
            // Other parts of the agent report an engine that is away.
            if words != told && !matches!(err, Error::Unreachable { .. }) {
                tracing::warn!("no networks are made ahead: {words}");
            }
            told = words;
            // The whole time, even if containers are removed meanwhile.
            timeout(RETRY_AFTER, std::future::pending::<()>()).await.ok();
            continue;
        }
        told.clear();
        tokio::select! {
            () = holders.freed.notified() => {}
            () = async {
                holders.lent.notified().await;
                timeout(REFILL_AFTER, std::future::pending::<()>()).await.ok();
            } => {}
            _ = timeout(LOOK_EVERY, std::future::pending::<()>()) => {}
        }
    }
}

/// Removes the holders that are kept ready, and keeps none from now on.
pub(super) async fn drop_all(docker: &Docker) {
    docker.holders.state().is_closed = true;
    // Waits for a holder that is just being made, which joins the others.
    let _alone = docker.holders.making.lock().await;
    let ready = std::mem::take(&mut docker.holders.state().ready);
    for Ready { id, .. } in ready {
        if let Err(err) = docker.discard(&ContainerId(id)).await {
            tracing::debug!("a network that was made ahead stays: {err}");
        }
    }
}

/// One round: removes unneeded holders and makes missing ones.
async fn tend(
    docker: &Docker,
    node: Address,
    networks: &[Network],
    spare: usize,
) -> Result<(), Error> {
    sweep(docker, node).await?;
    if let Some(reason) = keeps_own_networks(docker).await? {
        // Without a network, the job's container has a closed namespace of its own.
        return if networks.contains(&Network::Internet) { Err(reason) } else { Ok(()) };
    }
    for &network in networks {
        loop {
            let _alone = docker.holders.making.lock().await;
            let (count, is_closed) = {
                let state = docker.holders.state();
                (state.ready.iter().filter(|one| one.network == network).count(), state.is_closed)
            };
            if count >= spare || is_closed {
                break;
            }
            let id = make(docker, node, network).await?;
            docker.holders.state().ready.push(Ready::new(network, id));
        }
    }
    Ok(())
}

/// Forgets the holders that have died, and removes those that no container needs.
pub(super) async fn sweep(docker: &Docker, node: Address) -> Result<(), Error> {
    let _alone = docker.holders.making.lock().await;
    // Before the list: a holder that is lent after the list is known before it.
    let known = docker.holders.known(Instant::now());
    let client = docker.client().await?;
    let filters = policy::label_filter(node);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = docker.call(client.list_containers(Some(options))).await?;
    let (alive, unused) = sort(listed, &known);
    docker.holders.state().ready.retain(|one| !known.contains(&one.id) || alive.contains(&one.id));
    for id in unused {
        if let Err(err) = docker.discard(&ContainerId(id.clone())).await {
            tracing::warn!("container {id}, which holds a network that nobody needs, stays: {err}");
        }
    }
    Ok(())
}

/// Of the node's containers, the ids of the holders that run, and of the holders to remove: those that
/// neither this process knows nor a container that has not ended joins.
fn sort(listed: Vec<ContainerSummary>, known: &HashSet<String>) -> (HashSet<String>, Vec<String>) {
    let mut holders = HashMap::new();
    let mut joined = HashSet::new();
    for container in listed {
        let labels = container.labels.unwrap_or_default();
        let has_ended = matches!(container.state, Some(Listed::EXITED | Listed::DEAD));
        if labels.contains_key(policy::LABEL_HOLDER) {
            holders.extend(container.id.map(|id| (id, has_ended)));
        } else if !has_ended
            && let Some(mode) = container.host_config.and_then(|host| host.network_mode)
        {
            joined.extend(policy::joins(&mode).map(str::to_owned));
        }
    }
    let alive = holders.iter().filter(|(_, has_ended)| !**has_ended);
    let alive = alive.map(|(id, _)| id.clone()).collect();
    let unused = holders
        .iter()
        .filter(|(id, has_ended)| !joined.contains(*id) && (**has_ended || !known.contains(*id)));
    let unused = unused.map(|(id, _)| id.clone()).collect();
    (alive, unused)
}

/// Makes a holder, ready to be joined, and returns its id. The caller holds `making`.
pub(super) async fn make(
    docker: &Docker,
    node: Address,
    network: Network,
) -> Result<String, Error> {
    let client = docker.client().await?;
    let image = docker.tool_image().await?;
    let host = match network {
        Network::Internet => docker.blocks_of_host(node).await?,
        Network::None | Network::Bridge => Vec::new(),
    };
    let Config { resolvers, runtime, .. } = &docker.config;
    let runtime = runtime.as_deref();
    let holder = policy::Holder { node, image: &image, network, host: &host, resolvers, runtime };
    let body = policy::holder_body(&holder, PROGRAM);
    let name = policy::holder_name(node, network, fastrand::u64(..));
    let options = CreateContainerOptionsBuilder::default().name(&format!("{name}-new")).build();
    let id = docker.call(client.create_container(Some(options), body)).await?.id;
    let made = async {
        let start = client.start_container(&id, None::<StartContainerOptions>);
        let started = within(docker.config.start_timeout, start).await;
        started.map_err(|err| cannot_hold(network, &err.to_string()))?;
        if network == Network::Internet {
            let said = docker.hear(&id, Some(READY)).await?;
            if !said.contains(READY) {
                return Err(cannot_hold(network, &said));
            }
        }
        let options = RenameContainerOptionsBuilder::default().name(&name).build();
        docker.call(client.rename_container(&id, options)).await
    };
    match made.await {
        Ok(()) => Ok(id),
        Err(err) => {
            docker.discard(&ContainerId(id)).await.ok();
            Err(err)
        }
    }
}

fn cannot_hold(network: Network, why: &str) -> Error {
    let why = fault::one_line(why);
    Error::Engine { reason: format!("the network {network:?} can't be made: {why}") }
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerSummaryHostConfig;
    use futures_util::FutureExt as _;

    use super::super::super::ContainerRuntime as _;
    use super::*;

    fn listed(name: &str, is_holder: bool, state: Listed, mode: &str) -> ContainerSummary {
        let holder = (policy::LABEL_HOLDER.to_owned(), "none".to_owned());
        ContainerSummary {
            id: Some(name.to_owned()),
            labels: Some(is_holder.then_some(holder).into_iter().collect()),
            state: Some(state),
            host_config: Some(ContainerSummaryHostConfig {
                network_mode: Some(mode.to_owned()),
                ..ContainerSummaryHostConfig::default()
            }),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn a_holder_is_removed_when_nobody_keeps_it_and_no_container_can_still_need_it() {
        let holder = |name, state| listed(name, true, state, "none");
        let job = |name, state, mode| listed(name, false, state, mode);
        let known = ["spare", "dead"].map(str::to_owned).into();
        let (alive, mut unused) = sort(
            vec![
                holder("spare", Listed::RUNNING),
                holder("dead", Listed::EXITED),
                holder("of-the-last-node", Listed::RUNNING),
                holder("of-a-created", Listed::RUNNING),
                holder("of-a-running", Listed::RUNNING),
                holder("of-an-ended", Listed::RUNNING),
                holder("dead-of-a-created", Listed::EXITED),
                job("1", Listed::CREATED, "container:of-a-created"),
                job("2", Listed::RUNNING, "container:of-a-running"),
                job("4", Listed::EXITED, "container:of-an-ended"),
                job("5", Listed::CREATED, "container:dead-of-a-created"),
                job("6", Listed::RUNNING, "none"),
            ],
            &known,
        );
        unused.sort_unstable();
        assert_eq!(unused, ["dead", "of-an-ended", "of-the-last-node"]);
        assert!(alive.contains("spare") && !alive.contains("dead"));
    }

    #[tokio::test]
    async fn a_jobs_removal_begins_a_round_and_a_rounds_own_do_not() {
        let docker = Docker::connect(&Config::new("unix:///nobody-listens")).unwrap();
        let id = ContainerId("one".to_owned());
        let is_woken = || docker.holders.freed.notified().now_or_never().is_some();
        docker.discard(&id).await.unwrap_err();
        assert!(!is_woken());
        docker.remove(&id).await.unwrap_err();
        assert!(is_woken() && !is_woken());
    }

    #[test]
    fn a_holder_is_lent_once_unless_it_was_certainly_not_used() {
        let (holders, now) = (Holders::default(), Instant::now());
        holders.state().ready.push(Ready::new(Network::None, "one".to_owned()));
        assert!(holders.take(Network::Internet, now).is_none());
        let lent = holders.take(Network::None, now).unwrap();
        assert!(holders.take(Network::None, now).is_none());
        assert!(holders.known(now).contains("one"));
        lent.put_back();
        drop(holders.take(Network::None, now).unwrap());
        assert!(holders.take(Network::None, now).is_none(), "it may have been used");
        assert!(holders.known(now).is_empty());
    }

    #[test]
    fn a_holder_of_internet_is_not_lent_when_the_hosts_addresses_may_be_others() {
        let holders = Holders::default();
        for network in [Network::None, Network::Internet] {
            holders.state().ready.push(Ready::new(network, format!("{network:?}")));
        }
        let made = Instant::now();
        holders.take(Network::Internet, made + GOOD_FOR / 2).unwrap().put_back();
        assert!(holders.take(Network::Internet, made + GOOD_FOR).is_none());
        assert_eq!(holders.known(made).len(), 2);
        assert_eq!(holders.known(made + GOOD_FOR), HashSet::from(["None".to_owned()]));
        assert!(holders.take(Network::None, made + GOOD_FOR).is_some());
    }
}
