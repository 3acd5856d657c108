//! A pool's job that this node releases while another agent may be working on it.

use super::*;
use crate::agent::jobs::fakes::{NODE, Trouble, delivery, node_with, until_started, written};
use crate::job::claim::State;
use crate::job::phase::{Phase, StopCause};

#[tokio::test]
async fn what_cant_be_begun_here_is_left_to_the_agent_that_is_back_at_work_on_it() {
    let node = node_with(Trouble::default(), 0);
    let fault = Fault::new(Reason::ImagePullFailed, "the registry does not answer");
    let events = [Event::Failed { fault, retry: Retry::Never }];
    let job = written(&node, "job", true, events).await;
    assert!(matches!(job.phase, Phase::Returning { .. }), "{:?}", job.phase);
    let theirs = bid(Address::new([2; 20]), &delivery(1), 1, job.spec_hash, &node.desk.clock);
    let claim::Take::Write(theirs) = claim::take(None, &theirs) else { panic!("it is free") };
    let (effects, desk) = (node.effects.as_ref(), &node.desk);
    let second = delivery(2);
    let give = || give_back(&job, &second, effects, desk);
    let ours = bid(NODE, &second, 0, job.spec_hash, &desk.clock);
    let pool: PoolName = "it".parse().unwrap();
    let refuse = || refuse(&pool, job.id(), &ours, &desk.board, effects);
    let put = || *effects.claim.lock().unwrap() = Some(theirs);
    let found = || effects.claim.lock().unwrap().unwrap();

    put();
    assert_eq!(give().await.unwrap(), Given::Lost, "it claimed it since the delivery came");
    assert!(!refuse().await.unwrap());
    desk.board.holder_is_silent(job.id(), theirs.start());
    *effects.keeps.lock().unwrap() = Some(std::time::Duration::from_secs(96));
    assert_eq!(give().await.unwrap(), Given::Lost, "it answers");
    assert!(!refuse().await.unwrap());
    assert_eq!(found(), theirs);
    *effects.keeps.lock().unwrap() = None;
    assert_eq!(give().await.unwrap(), Given::Back, "it is silent still");
    assert_eq!((found().state, found().agent), (State::Refused, NODE));
    put();
    assert!(!refuse().await.unwrap());
    assert_eq!((found().state, found().refusals), (State::Refused, 1));
    assert_eq!(found().silent.iter().collect::<Vec<_>>(), [theirs.start()]);
}

#[tokio::test]
async fn what_has_moved_since_its_lease_was_looked_at_is_not_claimed_again() {
    let node = node_with(Trouble::default(), 0);
    let (desk, effects) = (&node.desk, node.effects.as_ref());
    let running = written(&node, "job", true, until_started(true, desk.clock.now())).await;
    let held = Bid { held: true, ..bid(NODE, &delivery(1), 1, running.spec_hash, &desk.clock) };
    let claim::Take::Write(claimed) = claim::take(None, &held) else { panic!("it is free") };
    let back = claim::hand_back(Some(&claimed), &held).expect("it is ours");
    let claim::Conclude::Write(done) = claim::conclude(Some(&claimed), &held) else {
        panic!("it is ours")
    };
    let stopped = |cause| [Event::StopAsked { cause }, Event::Lost, Event::Removed];
    let interrupted =
        stopped(StopCause::Shutdown).into_iter().fold(running.clone(), |job, event| {
            job.apply(event, desk.clock.now(), &desk.rules).unwrap().job
        });
    assert_eq!(interrupted.phase.name(), "handing_back");
    for (job, found) in [(&running, done), (&interrupted, back)] {
        let _requests = desk.board.enter(&running, Some(delivery(1))).unwrap();
        let [looked_at] = &desk.board.in_hand()[..] else { panic!("it is in hand") };
        desk.board.moved(job);
        *effects.claim.lock().unwrap() = Some(found);
        assert!(renew(looked_at, true, effects, desk).await.unwrap());
        assert_eq!(*effects.claim.lock().unwrap(), Some(found));
        desk.board.leave(job.id());
    }
}
