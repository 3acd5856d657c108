//! What is the node's own fault: left to another node of the pool, or the end of the job.

use super::*;

/// A failure that may be the node's own.
#[test]
fn a_pools_job_that_this_node_cant_begin_goes_back_to_its_pool_instead_of_failing() {
    let created = Event::Created { container: "c".to_owned() };
    let gpu = |retry| at_fault(Reason::GpuFailed, retry);
    let cases = [
        (0, vec![], at_fault(Reason::ImagePullFailed, Retry::Patiently), "returning"),
        (0, vec![], at_fault(Reason::NodeFault, Retry::Always), "returning"),
        (1, vec![], at_fault(Reason::InputUnavailable, Retry::Patiently), "returning"),
        (4, vec![], at_fault(Reason::NodeFault, Retry::Always), "returning"),
        (4, vec![created.clone()], at_fault(Reason::NodeFault, Retry::Patiently), "unable"),
        (4, vec![created], gpu(Retry::Patiently), "unable"),
    ];
    let late = at(10).plus(rules().fetch_give_up);
    for (done, then, fault, phase) in cases {
        let is_gpu =
            matches!(&fault, Event::Failed { fault, .. } if fault.reason == Reason::GpuFailed);
        let (job, _) = run_pooled(happy_pooled().into_iter().take(done).chain(then));
        let once = job.apply(fault.clone(), at(10), &rules()).unwrap();
        assert_eq!(once.job.phase.name() == phase, is_gpu, "a card is not tried twice");
        let given = if is_gpu { once } else { once.job.apply(fault, late, &rules()).unwrap() };
        assert_eq!(given.job.phase.name(), phase);
        assert_eq!(given.job.phase.holds(), None);
        assert_eq!(stages(&given.statuses), "interrupted");
        let removed = [Event::Removed].into_iter().take(usize::from(phase == "unable"));
        let let_go = [Event::HandedBack, Event::Removed, Event::HandedBack];
        let back = removed.chain(let_go).chain([Event::Resumed]);
        let mut again = given.job.clone();
        for event in back {
            again = again.apply(event, late, &rules()).unwrap().job;
        }
        assert_eq!((again.phase.name(), again.attempt), ("accepted", 2));
    }
}

#[test]
fn a_job_whose_card_fails_gives_it_up_and_is_patient_with_all_cards_together() {
    let fault = || at_fault(Reason::GpuFailed, Retry::Patiently);
    let created = Event::Created { container: "c".to_owned() };
    let (mut job, _) = run("", happy().into_iter().take(3));
    for seconds in [10, 20] {
        for event in [created.clone(), fault()] {
            job = job.apply(event, at(seconds * 1000), &rules()).unwrap().job;
        }
        assert_eq!((job.phase.name(), job.phase.holds()), ("ready", None), "for another one");
        assert!(job.trouble.is_some());
        let gpus = vec![GpuUuid::new("GPU-b").unwrap()];
        job = job.apply(Event::Reserved { gpus }, at(seconds * 1000), &rules()).unwrap().job;
    }
    let late = at(10_000).plus(rules().fetch_give_up);
    let ended = job.apply(fault(), late, &rules()).unwrap();
    assert_eq!(ended.statuses[0].reason_code, Some(Reason::GpuFailed));
    // If no working card is left, it fails from the phase in which it waits.
    let waits = job.apply(fault(), at(30_000), &rules()).unwrap().job;
    assert_eq!(waits.phase.name(), "ready");
    assert_eq!(waits.apply(fault(), late, &rules()).unwrap().job.phase.name(), "ended");
    let runs = job.apply(created, at(30_000), &rules()).unwrap().job;
    let started = Event::Started { container: "c".to_owned(), at: at(30_000) };
    assert_eq!(runs.apply(started, at(30_000), &rules()).unwrap().job.trouble, None);
}

#[test]
fn an_image_that_is_gone_at_the_start_is_pulled_again_but_not_for_ever() {
    for target in ["pool.a100", "dispatch.0x"] {
        let pooled = target.starts_with("pool");
        let steps = if pooled { happy_pooled() } else { happy() };
        let steps = || steps.iter().take(if pooled { 4 } else { 3 }).cloned();
        let mut job = accept_from(target, "").job;
        let gone = || at_fault(Reason::ImagePullFailed, Retry::Never);
        for _ in 0..IMAGE_GONE_MAX {
            job = steps().fold(job, |job, event| job.apply(event, at(1), &rules()).unwrap().job);
            job = job.apply(gone(), at(1), &rules()).unwrap().job;
            assert_eq!((job.phase.name(), job.attempt), ("accepted", 1));
        }
        job = steps().fold(job, |job, event| job.apply(event, at(1), &rules()).unwrap().job);
        let given_up = job.apply(gone(), at(1), &rules()).unwrap().job;
        assert_eq!(given_up.phase.name(), if pooled { "returning" } else { "ended" });
    }
}

#[test]
fn a_pools_job_that_too_many_nodes_cant_begin_ends_with_the_last_ones_fault() {
    let fault = || at_fault(Reason::ImagePullFailed, Retry::Patiently);
    let job = accept_from("pool.a100", "").job.apply(fault(), at(0), &rules()).unwrap().job;
    let job = job.apply(fault(), at(60_000), &rules()).unwrap().job;
    let ended = job.apply(Event::Concluded, at(60_001), &rules()).unwrap();
    assert_eq!(ended.statuses[0].stage, Stage::Failed);
    assert_eq!(ended.statuses[0].reason_code, Some(Reason::ImagePullFailed));
}

#[test]
fn what_is_the_jobs_own_fault_or_no_pools_ends_it_here() {
    for (pooled, reason) in [
        (true, Reason::StartFailed),
        (true, Reason::InputUnsupported),
        (false, Reason::ImageUnavailable),
        (false, Reason::InputUnverified),
        (false, Reason::GpuRequirement),
        (false, Reason::GpuFailed),
        (false, Reason::ImagePullFailed),
    ] {
        let target = if pooled { "pool.a100" } else { "dispatch.0x" };
        let job = accept_from(target, "").job;
        let failed = job.apply(at_fault(reason, Retry::Never), at(9), &rules()).unwrap().job;
        let phase = if pooled { "concluding" } else { "ended" };
        assert_eq!(failed.phase.name(), phase, "{reason:?}");
    }
}

#[test]
fn what_another_node_may_have_or_see_right_goes_back_to_the_pool() {
    for reason in [Reason::ImageUnavailable, Reason::InputUnverified, Reason::GpuRequirement] {
        let job = accept_from("pool.a100", "").job;
        let failed = job.apply(at_fault(reason, Retry::Never), at(9), &rules()).unwrap().job;
        assert_eq!(failed.phase.name(), "returning", "{reason:?}");
        assert!(reason.is_of_one_job(), "{reason:?} says nothing of the next job");
    }
}
