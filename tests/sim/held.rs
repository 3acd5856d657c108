//! Checks of the promises about deliveries. Must hold: a node's messages are delivered to nobody else
//! while it works on them, and a node works on nothing that it has given back.

use lamda_node::bus::{AckHandle, Target};
use lamda_node::job::claim::State as ClaimState;
use lamda_node::job::phase::Phase;
use lamda_node::job::spec::parse;
use lamda_node::journal::Known;

use super::check::known;
use super::world::{Message, World};

/// How long a lease's renewal may be in flight, in addition to the ack wait.
const MARGIN_MS: u64 = 10_000;

/// Before a delivery: no agent has the job in hand and was free to renew the message's lease.
pub(crate) fn may_be_given(world: &World, seq: u64) {
    let ms = world.time.ms();
    let state = world.state();
    let Some(message) = state.queue.messages.get(&seq) else { return };
    let (Some((host, life)), Some(id)) = (message.held_by, message.job()) else { return };
    let one = &state.hosts[host];
    let in_hand = one.board.as_ref().is_some_and(|board| board.ids(None).contains(&id));
    let disturbed = state.was_late || state.loose_until_ms.contains_key(&id);
    if one.life != Some(life) || !in_hand || disturbed {
        return;
    }
    let quiet_from = [
        one.began_ms,
        one.hindered_until_ms,
        one.cut.map_or(0, |(_, until)| until),
        state.queue.away_until_ms,
        state.queue.leaderless_until_ms,
    ];
    let quiet_from = quiet_from.into_iter().max().unwrap_or(0);
    let disk = one.disk.clone();
    let quiet = quiet_from + state.queue.ack_wait_ms(&message.target) + MARGIN_MS <= ms;
    drop(state);
    let known = known(&disk, &id);
    let goes_on = known.as_ref().and_then(|known| known.job.as_ref());
    let goes_on = goes_on.is_some_and(|job| !is_let_go(&job.phase));
    // If several messages ask for one job, its node renews only the latest.
    let is_own = known.and_then(|known| own(&known)).is_some_and(|own| own.stream_seq == seq);
    if quiet && goes_on && is_own {
        world
            .broken(format!("{id} is delivered, but host {host} has it and could renew its lease"));
    }
}

/// After a nak: the node has stopped work on the job and has released its claim.
pub(crate) fn was_given_back(world: &World, host: usize, message: &Message, ack: &AckHandle) {
    let state = world.state();
    let Some(id) = message.job() else { return };
    let (disk, agent) = (state.hosts[host].disk.clone(), state.hosts[host].agent);
    let claim = match &message.target {
        Target::Pool(pool) => state.claims.get(&(pool.clone(), id.clone())).map(|(it, _)| *it),
        Target::Agent(_) => None,
    };
    // An agent that does not know whether it wrote the job naks it, and may then find it in its journal.
    let unsure = state.weather.unsure > 0;
    let excused = unsure || state.was_late || !state.strict || state.unclaimed.contains(&id);
    drop(state);
    if excused {
        return;
    }
    let known = known(&disk, &id);
    let is_own = known
        .as_ref()
        .and_then(own)
        .is_some_and(|own| own.stream_seq == ack.stream_seq && own.delivered == ack.delivered);
    // Only the job's own delivery counts: one that arrives while the job is let go is given back earlier.
    if !is_own {
        return;
    }
    let job = known.filter(|known| known.open).and_then(|known| known.job);
    if let Some(job) = job.filter(|job| !is_let_go(&job.phase)) {
        let phase = job.phase.name();
        world.broken(format!("{id} is given back, but its journal has it as {phase}"));
    }
    let asked_for = parse(&message.body).ok().map(|parsed| parsed.spec_hash);
    let claimed = claim.is_some_and(|claim| {
        claim.agent == agent
            && claim.state == ClaimState::Claimed
            && Some(claim.spec_hash) == asked_for
    });
    if claimed {
        world.broken(format!("{id} is given back, but its claim is not released"));
    }
}

/// After an ack: no container of the job is left on its host.
pub(crate) fn left_nothing(world: &World, host: usize, message: &Message) {
    let state = world.state();
    let Some(id) = message.job().filter(|_| !state.was_late && state.strict) else { return };
    let one = &state.hosts[host];
    let left: Vec<_> = one.containers.iter().filter(|(_, it)| it.job == id).collect();
    let left = left.first().map(|(name, _)| (*name).clone());
    let disk = one.disk.clone();
    drop(state);
    let Some(name) = left else { return };
    let job = known(&disk, &id).and_then(|known| known.job);
    if job.is_some_and(|job| matches!(job.phase, Phase::Cleaned { .. } | Phase::Buried { .. })) {
        world.broken(format!("{id} left the queue, but its container {name} is still there"));
    }
}

/// Whether a job is going back to its queue, or waits there for room on this node.
pub(crate) fn goes_back(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Waiting
            | Phase::Unable { .. }
            | Phase::Returning { .. }
            | Phase::Yielded
            | Phase::LettingGo
    )
}

/// Whether the node has let go of the job's message.
fn is_let_go(phase: &Phase) -> bool {
    goes_back(phase) || *phase == Phase::HandingBack
}

/// The latest delivery of a job that the journal knows.
fn own(known: &Known) -> Option<AckHandle> {
    serde_json::from_str(known.delivery.as_deref()?).ok()
}
