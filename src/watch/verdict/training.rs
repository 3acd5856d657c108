//! Does the program do its work, as its own log says?

use std::time::Duration;

use super::{Answer, Finding, Look, lasting};
use crate::fleet::words::age;
use crate::watch::meaning::Kind;
use crate::watch::observation::CHAIN;

/// What shows that it works, or waits for work.
const WORK: [Kind; 4] = [Kind::Work, Kind::Join, Kind::Round, Kind::Idle];

/// By how many rounds it may be behind: what it reads of the contract is itself late.
const BEHIND_MAX: u64 = 2;

pub(super) fn of(look: &Look<'_>, alive: &Finding) -> Finding {
    if !look.expect.says_work {
        return Finding::not_expected();
    }
    if matches!(alive.answer, Answer::No) {
        return Finding { evidence: Vec::new(), ..alive.clone() };
    }
    if let Some(crash) = &look.state.crash {
        let found = Finding::new(Answer::No, "it failed, and has not gone on");
        return found.because(look.expect, crash.cause.as_deref()).heard(crash);
    }
    if let Some(behind) = behind(look) {
        return behind;
    }
    let last = WORK.iter().filter_map(|kind| look.state.told.get(kind)).max_by_key(|it| it.at);
    let at = last.map(|it| it.at);
    let Some(silent) = look.silent_for(at) else {
        return Finding::new(Answer::Unknown, "it isn't watched yet");
    };
    let found = match last {
        _ if look.patience(at).is_some_and(|patience| silent > patience) => {
            let why = format!("its log has not said that it trains {}", lasting(silent));
            let known = look.state.causes.back().filter(|it| at.is_none_or(|at| it.at >= at));
            let cause = known.map(|it| it.cause.clone());
            Finding::new(Answer::No, why).because(look.expect, cause.as_deref())
        }
        None => Finding::new(Answer::Waiting, "its log has not said yet that it trains"),
        Some(last) => {
            let why = format!("its log said so {} ago", age(look.now.since(last.at)));
            let is_past = last.is_old || look.is_past(last.at, look.patience(at));
            Finding::new(if is_past { Answer::Waiting } else { Answer::Yes }, why)
        }
    };
    match last {
        Some(last) => found.heard(last),
        None => found,
    }
}

/// It says that it is in a round that is over for long.
fn behind(look: &Look<'_>) -> Option<Finding> {
    let (round, since) = look.state.round?;
    let chain = look.state.chain.as_ref().filter(|_| look.trouble(CHAIN).is_none())?;
    let current = chain.last.round?;
    let long = chain.long_round().unwrap_or(Duration::from_hours(1));
    let patience = (look.expect.idle? + look.expect.grace + long) * 2;
    if current <= round.saturating_add(BEHIND_MAX) || look.silent_for(Some(since))? <= patience {
        return None;
    }
    let stuck = look.now.since(since);
    let why = format!("it is in round {round} {} and the swarm is in {current}", lasting(stuck));
    let found = Finding::new(Answer::No, why);
    let known = look.state.causes.back().filter(|it| it.at >= since);
    let cause = known.map(|it| it.cause.clone());
    let found = found.because_or(look.expect, cause.as_deref(), "stuck-round");
    let found = match look.state.told.get(&Kind::Join) {
        Some(join) => found.heard(join),
        None => found,
    };
    Some(found.with(CHAIN, chain.at, format!("round {current}, block {}", chain.last.block)))
}
