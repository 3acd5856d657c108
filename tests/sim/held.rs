//! The promises about deliveries: what a node has in hand stays its own, and what it gives back it
//! has let go.

use lamda_node::bus::{AckHandle, Target};
use lamda_node::job::claim::State as ClaimState;
use lamda_node::job::phase::Phase;
use lamda_node::job::spec::parse;
use lamda_node::journal::Known;

use super::check::known;
use super::world::{Message, World};

/// How much longer than its ack wait a lease may be on its way.
const MARGIN_MS: u64 = 10_000;

/// Before a message is given out: nobody who could renew its lease has its job in hand.
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
    // Of several messages that ask for one job its node holds the one that came last.
    let is_own = known.and_then(|known| own(&known)).is_some_and(|own| own.stream_seq == seq);
    if quiet && goes_on && is_own {
        world.broken(format!("{id} is given out, and host {host} has it and could have said so"));
    }
}

/// Once a delivery is given back: its job is not gone on with, and nobody else finds it claimed.
pub(crate) fn was_given_back(world: &World, host: usize, message: &Message, ack: &AckHandle) {
    let state = world.state();
    let Some(id) = message.job() else { return };
    let (disk, agent) = (state.hosts[host].disk.clone(), state.hosts[host].agent);
    let claim = match &message.target {
        Target::Pool(pool) => state.claims.get(&(pool.clone(), id.clone())).map(|(it, _)| *it),
        Target::Agent(_) => None,
    };
    // Who can't tell whether it has written gives the message back, and takes it up from its journal.
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
    // The delivery that came last: one that comes while its job is let go is given back before.
    if !is_own {
        return;
    }
    let job = known.filter(|known| known.open).and_then(|known| known.job);
    if let Some(job) = job.filter(|job| !is_let_go(&job.phase)) {
        let phase = job.phase.name();
        world.broken(format!("{id} is given back, and its journal has it as {phase}"));
    }
    let asked_for = parse(&message.body).ok().map(|parsed| parsed.spec_hash);
    let claimed = claim.is_some_and(|claim| {
        claim.agent == agent
            && claim.state == ClaimState::Claimed
            && Some(claim.spec_hash) == asked_for
    });
    if claimed {
        world.broken(format!("{id} is given back, and its claim is not"));
    }
}

/// Once a job was answered for: nothing of what it ran is left on its host.
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
        world.broken(format!("{id} left the queue, and its container {name} is still there"));
    }
}

/// Whether a job is on its way to another agent, or waits for its own to have room.
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

/// Whether its message is not this node's any more.
fn is_let_go(phase: &Phase) -> bool {
    goes_back(phase) || *phase == Phase::HandingBack
}

/// The delivery by which a journal has a job.
fn own(known: &Known) -> Option<AckHandle> {
    serde_json::from_str(known.delivery.as_deref()?).ok()
}
