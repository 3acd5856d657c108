//! The state machine in every order of events, and its transitions one by one.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::job::Reason;
use crate::job::plan::{Next, Step, next_step};
use crate::job::spec::parse;
use crate::job::unable::IMAGE_GONE_MAX;

const CID: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

fn rules() -> Rules {
    Rules {
        timeout_max: Duration::from_hours(1),
        fetch_give_up: Duration::from_mins(1),
        upload_give_up: Duration::from_hours(1),
        result_keep: Duration::from_hours(24),
    }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

fn accept(extra: &str) -> Transition {
    accept_from("dispatch.0x", extra)
}

fn accept_from(target: &str, extra: &str) -> Transition {
    let body = format!(r#"{{"job_id":"job","image":"img","input_cid":"{CID}"{extra}}}"#);
    let parsed = parse(body.as_bytes()).unwrap();
    let target = target.to_owned();
    let asked = Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target };
    Job::accept(asked, Address::new([1; 20]), 0, at(0))
}

fn image() -> PinnedImage {
    PinnedImage { id: "sha256:1".to_owned(), digest: "sha256:2".to_owned(), unconfirmed: false }
}

fn exit(code: i32) -> Event {
    let exit = RunExit { code: Some(code), oom: false, started_at: at(1), finished_at: at(2) };
    Event::Exited { exit, by_itself: None }
}

/// The exit of a container that was stopped, after it was asked to stop.
fn stopped(code: i32) -> Event {
    let exit = RunExit { code: Some(code), oom: false, started_at: at(1), finished_at: at(11) };
    Event::Exited { exit, by_itself: None }
}

fn sealed() -> Sealed {
    Sealed {
        path: "1/output".to_owned(),
        cid: CID.parse().unwrap(),
        bytes: 1,
        directory: true,
        seen_as: String::new(),
        notes: Vec::new(),
    }
}

fn failed(retry: Retry) -> Event {
    Event::Failed { fault: Fault::new(Reason::NodeFault, "broken"), retry }
}

fn started() -> Event {
    Event::Started { container: "c".to_owned(), at: at(1) }
}

/// The events of a run that succeeds, in order.
fn happy() -> Vec<Event> {
    vec![
        Event::Pulled { image: image() },
        Event::Fetched,
        Event::Reserved { gpus: Vec::new() },
        started(),
        exit(0),
        Event::Collected { output: Ok(Some(sealed())), log: None },
        Event::Published { output: Some(CID.parse().unwrap()), log: None },
        Event::Attested { receipt: serde_json::json!({}) },
        Event::Removed,
        Event::Acked,
    ]
}

/// Applies events, each of which must belong to its phase; returns the job and all statuses.
fn run(extra: &str, events: impl IntoIterator<Item = Event>) -> (Job, Vec<Status>) {
    apply_all(accept(extra), events)
}

/// [`run`] of a pool's job.
fn run_pooled(events: impl IntoIterator<Item = Event>) -> (Job, Vec<Status>) {
    apply_all(accept_from("pool.a100", ""), events)
}

/// The events of a pool's job that succeeds, in order.
fn happy_pooled() -> Vec<Event> {
    let mut events = happy();
    events.insert(3, Event::Claimed);
    events.insert(9, Event::Concluded);
    events
}

fn apply_all(accepted: Transition, events: impl IntoIterator<Item = Event>) -> (Job, Vec<Status>) {
    let Transition { mut job, mut statuses, .. } = accepted;
    for event in events {
        let moved = job.apply(event, at(10), &rules()).unwrap();
        job = moved.job;
        statuses.extend(moved.statuses);
    }
    (job, statuses)
}

fn stages(statuses: &[Status]) -> String {
    let names = statuses.iter().map(|s| serde_json::to_value(s.stage).unwrap());
    names.map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_run_that_goes_well_is_told_stage_by_stage() {
    let (job, statuses) = run("", happy());
    assert_eq!(stages(&statuses), "accepted pulling fetching running uploading completed");
    assert_eq!(job.phase, Phase::Settled { outcome: Outcome::Completed });
    assert_eq!(statuses.last().unwrap().output_cid.unwrap().to_string(), CID);
}

#[test]
fn the_plan_and_the_machine_fit_together() {
    use Step as S;
    let steps =
        [S::Pull, S::Fetch, S::Reserve, S::Create, S::Stop, S::Collect, S::Publish, S::Attest];
    let mut job = accept("").job;
    for (event, step) in happy().into_iter().zip(steps) {
        let next = next_step(&job, at(10));
        let same = matches!((&next, step), (Next::Do(S::Follow { .. }), S::Stop));
        assert!(same || next == Next::Do(step), "{next:?} is not {step:?}");
        job = job.apply(event, at(10), &rules()).unwrap().job;
    }
}

#[test]
fn a_command_that_fails_keeps_its_exit_code_and_gets_a_receipt() {
    let mut events = happy();
    events[4] = exit(3);
    events[5] = Event::Collected { output: Ok(None), log: Some(sealed()) };
    events[6] = Event::Published { output: None, log: Some(CID.parse().unwrap()) };
    let (_, statuses) = run("", events);
    let last = statuses.last().unwrap();
    assert_eq!((last.stage, last.exit_code), (Stage::Failed, Some(3)));
    assert_eq!(last.reason_code, Some(Reason::NonzeroExit));
    assert!(last.receipt.is_some() && last.log_cid.is_some() && last.output_cid.is_none());
}

#[test]
fn a_job_that_runs_too_long_is_stopped_and_says_why() {
    for (extra, reason) in [
        (r#","timeout_s":5"#, Reason::Timeout),
        (r#","deadline":"1970-01-01T00:00:02.000Z""#, Reason::DeadlineReached),
    ] {
        let (job, _) = run(extra, happy().into_iter().take(4));
        assert_eq!(next_step(&job, at(5_001)), Next::Apply(Event::TimeIsUp), "{extra}");
        let end = [Event::TimeIsUp, stopped(137), Event::Collected { output: Ok(None), log: None }];
        let rest = [
            Event::Published { output: None, log: None },
            Event::Attested { receipt: serde_json::json!({}) },
        ];
        let (_, statuses) = run(extra, happy().into_iter().take(4).chain(end).chain(rest));
        let last = statuses.last().unwrap();
        assert_eq!((last.stage, last.reason_code), (Stage::TimedOut, Some(reason)));
    }
}

#[test]
fn the_deadline_is_kept_over_restarts() {
    let (job, _) = run(r#","timeout_s":5"#, happy().into_iter().take(4));
    let again: Job = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
    assert_eq!(again, job);
    let Phase::Running { run } = again.phase else { panic!("not running") };
    assert_eq!(run.kill_at, at(5_001));
}

#[test]
fn a_job_stopped_by_the_node_is_handed_back_and_runs_again() {
    let stop = [
        Event::StopAsked { cause: StopCause::Shutdown },
        stopped(0),
        Event::Removed,
        Event::HandedBack,
        Event::Resumed,
    ];
    let (job, statuses) = run("", happy().into_iter().take(4).chain(stop).chain(happy()));
    assert_eq!(
        stages(&statuses),
        "accepted pulling fetching running interrupted pulling fetching running uploading completed"
    );
    assert_eq!((job.attempt, job.lost), (2, 0));
}

#[test]
fn a_result_that_was_there_before_the_stop_is_kept() {
    for cause in [StopCause::Shutdown, StopCause::Timeout, StopCause::Cancelled] {
        let stop = [Event::StopAsked { cause }];
        let events = happy().into_iter().take(4).chain(stop).chain(happy().into_iter().skip(4));
        let (_, statuses) = run("", events);
        assert_eq!(statuses.last().unwrap().stage, Stage::Completed, "{cause:?}");
    }
}

#[test]
fn a_result_that_came_between_the_decision_to_stop_and_the_signal_is_kept() {
    for cause in [StopCause::Shutdown, StopCause::Cancelled, StopCause::LeaseLost] {
        let (job, _) = run("", happy().into_iter().take(4).chain([Event::StopAsked { cause }]));
        let Event::Exited { exit, .. } = stopped(0) else { panic!("no exit") };
        let exited =
            job.apply(Event::Exited { exit, by_itself: Some(true) }, at(12), &rules()).unwrap();
        assert!(matches!(exited.job.phase, Phase::Exited { cause: None, .. }), "{cause:?}");
    }
}

#[test]
fn a_job_is_never_started_after_its_deadline_however_long_it_waited() {
    let (job, _) = run(r#","deadline":"1970-01-01T00:00:02.000Z""#, happy().into_iter().take(2));
    let reserved = Event::Reserved { gpus: Vec::new() };
    let late = job.apply(reserved, at(2_000), &rules()).unwrap();
    assert_eq!(late.statuses[0].reason_code, Some(Reason::DeadlinePassed));
    assert_eq!(late.job.phase.holds(), None);
}

#[test]
fn a_start_that_fails_again_and_again_can_be_cancelled_and_expires() {
    let deadline = r#","deadline":"1970-01-01T00:01:00.000Z""#;
    let (job, _) = run(deadline, happy().into_iter().take(3));
    let job = job.apply(failed(Retry::Always), at(20), &rules()).unwrap().job;
    let cancel = Event::StopAsked { cause: StopCause::Cancelled };
    assert_eq!(job.apply(cancel, at(30), &rules()).unwrap().statuses[0].stage, Stage::Cancelled);
    assert_eq!(next_step(&job, at(60_000)), Next::Apply(Event::Expired));
    let expired = job.apply(Event::Expired, at(60_000), &rules()).unwrap();
    assert_eq!(expired.statuses[0].stage, Stage::TimedOut);
}

#[test]
fn a_container_that_is_lost_three_times_fails_the_job_which_is_put_aside() {
    // If the container was not known to run each time, the job may not be to blame.
    for (done, reason) in [(4, Reason::Poison), (3, Reason::ContainerLost)] {
        let once = || happy().into_iter().take(done).chain([Event::Lost]);
        let (job, statuses) = run("", once().chain(once()).chain(once()));
        assert_eq!(statuses.last().unwrap().reason_code, Some(reason));
        assert_eq!(job.attempt, 3);
        let cleaned = job.apply(Event::Removed, at(10), &rules()).unwrap().job;
        assert_eq!(next_step(&cleaned, at(10)), Next::Do(Step::Bury));
        let buried = cleaned.apply(Event::Buried, at(10), &rules()).unwrap().job;
        assert_eq!(next_step(&buried, at(10)), Next::Do(Step::Ack));
    }
}

#[test]
fn a_pools_job_is_claimed_before_its_start_and_before_its_end() {
    let (job, statuses) = run_pooled(happy_pooled());
    assert_eq!(job.phase, Phase::Settled { outcome: Outcome::Completed });
    assert_eq!(stages(&statuses), "accepted pulling fetching running uploading completed");
    for (done, step) in [(3, Step::Claim), (9, Step::Conclude)] {
        let (job, _) = run_pooled(happy_pooled().into_iter().take(done));
        assert_eq!(next_step(&job, at(10)), Next::Do(step));
    }
    let (claiming, _) = run_pooled(happy_pooled().into_iter().take(3));
    assert!(claiming.apply(started(), at(10), &rules()).is_err(), "started without its claim");
}

#[test]
fn a_pools_job_of_another_agent_ends_here_without_a_terminal_status() {
    let stop = || Event::StopAsked { cause: StopCause::LeaseLost };
    let lost: [(usize, Vec<Event>); 5] = [
        (1, vec![stop()]),
        (3, vec![Event::Outbid]),
        (3, vec![stop()]),
        (5, vec![stop(), stopped(137)]),
        (9, vec![Event::Outbid]),
    ];
    for (done, events) in lost {
        let (job, statuses) =
            run_pooled(happy_pooled().into_iter().take(done).chain(events).chain([Event::Removed]));
        let told = statuses.last().unwrap();
        assert_eq!((told.stage, told.reason_code), (Stage::Interrupted, Some(Reason::LeaseLost)));
        // Only the claim says whose the delivery is by now.
        assert_eq!(next_step(&job, at(10)), Next::Do(Step::HandBack));
        let job = job.apply(Event::HandedBack, at(10), &rules()).unwrap().job;
        assert_eq!((job.phase.clone(), next_step(&job, at(10))), (Phase::Waiting, Next::Rest));
        let again = job.apply(Event::Resumed, at(10), &rules()).unwrap().job;
        assert_eq!((again.phase, again.attempt), (Phase::Accepted, 2));
    }
}

#[test]
fn no_card_is_held_while_the_claim_can_not_be_made() {
    let (job, _) = run_pooled(happy_pooled().into_iter().take(3));
    assert!(job.phase.holds().is_some());
    let job = job.apply(failed(Retry::Always), at(10), &rules()).unwrap().job;
    assert_eq!((job.phase.name(), job.phase.holds()), ("ready", None));
    assert!(matches!(next_step(&job, at(10)), Next::Wait(until) if until > at(10)));
}

#[test]
fn a_job_that_may_run_is_stopped_only_once_it_is_known_whether_it_does() {
    let created = Event::Created { container: "c".to_owned() };
    let (job, _) = run("", happy().into_iter().take(3).chain([created]));
    for cause in [StopCause::Cancelled, StopCause::Shutdown, StopCause::LeaseLost] {
        let stop = || Event::StopAsked { cause };
        assert!(job.apply(stop(), at(9), &rules()).is_err(), "{cause:?}");
        let looked = job.apply(Event::NeverRan, at(9), &rules()).unwrap().job;
        let stopped = looked.apply(stop(), at(9), &rules()).unwrap().job;
        assert!(!stopped.phase.wants_slot(), "{cause:?}: {:?}", stopped.phase);
    }
}

#[test]
fn a_pools_job_that_was_started_too_often_is_concluded_and_put_aside() {
    let events = happy_pooled().into_iter().take(3);
    let (job, statuses) = run_pooled(events.chain([Event::Poisoned, Event::Concluded]));
    assert_eq!(statuses.last().unwrap().reason_code, Some(Reason::Poison));
    assert!(job.phase.outcome().unwrap().is_dead_letter());
}

#[test]
fn what_everybody_refuses_and_what_holds_cards_is_tried_for_a_minute_at_most() {
    let long = Rules { fetch_give_up: Duration::from_hours(1), ..rules() };
    let ends = |job: &Job, retry| {
        let (mut job, mut now) = (job.clone(), at(0));
        while not_ended(&job) {
            job = job.apply(failed(retry), now, &long).unwrap().job;
            if let Next::Wait(until) = next_step(&job, now) {
                now = until;
            }
        }
        now.since(at(0)).as_secs()
    };
    let (pulled, _) = run("", happy().into_iter().take(1));
    assert!((60..75).contains(&ends(&pulled, Retry::Briefly)));
    assert!(ends(&pulled, Retry::Patiently) >= 3600);
    let (starting, _) = run("", happy().into_iter().take(3));
    assert!((60..75).contains(&ends(&starting, Retry::Patiently)));
}

fn not_ended(job: &Job) -> bool {
    job.phase.outcome().is_none()
}

#[test]
fn an_image_or_input_is_tried_patiently_but_not_for_ever() {
    let mut job = accept("").job;
    let mut now = at(0);
    let mut tries = 0;
    while job.phase.outcome().is_none() {
        job = job.apply(failed(Retry::Patiently), now, &rules()).unwrap().job;
        tries += 1;
        if let Next::Wait(until) = next_step(&job, now) {
            assert!(until > now, "a wait that does not wait");
            now = until;
        }
    }
    assert!(now.since(at(0)) >= rules().fetch_give_up && tries > 5, "{tries} tries until {now}");
}

#[test]
fn a_service_of_the_node_that_is_away_is_waited_for() {
    let late = at(1_000_000_000);
    let job = accept("").job.apply(failed(Retry::Always), at(0), &rules()).unwrap().job;
    let job = job.apply(failed(Retry::Always), late, &rules()).unwrap().job;
    assert!(job.phase.outcome().is_none() && job.trouble.unwrap().failures == 2);
}

#[test]
fn time_in_which_nobody_tried_uses_no_patience_for_a_result_up() {
    let days = |days: u64| at(20).plus(Duration::from_hours(24 * days));
    // A failed upload, a host that is off or suspended for a day, another failure, and so on.
    for taken_up in [Job::taken_up as fn(Job) -> Job, |job| job] {
        let (mut job, _) = run("", happy().into_iter().take(6));
        for day in 0..15 {
            job = taken_up(job).apply(failed(Retry::Patiently), days(day), &rules()).unwrap().job;
            assert_eq!(job.phase.name(), "collected", "day {day}");
        }
    }
}

#[test]
fn a_good_result_that_the_node_can_not_collect_is_never_given_up() {
    let fails_for_days = |code: i32| {
        let (mut job, _) = run("", happy().into_iter().take(4).chain([exit(code)]));
        for hour in 0..24 * 30 {
            let now = at(20).plus(Duration::from_hours(hour));
            if job.phase.name() != "exited" {
                break;
            }
            job = job.apply(failed(Retry::Patiently), now, &rules()).unwrap().job;
        }
        job.phase.name()
    };
    assert_eq!(fails_for_days(0), "exited");
    // A failed run has no result to lose.
    assert_eq!(fails_for_days(3), "collected");
}

#[test]
fn a_result_that_can_not_be_published_in_time_is_kept_and_its_job_fails_with_a_receipt() {
    for pooled in [false, true] {
        let (mut job, _) = if pooled {
            run_pooled(happy_pooled().into_iter().take(7))
        } else {
            run("", happy().into_iter().take(6))
        };
        let (mut now, mut tries) = (at(20), 0);
        let fault = Fault::new(Reason::UploadFailed, "broken");
        let failed = Event::Failed { fault, retry: Retry::Patiently };
        while job.phase.name() == "collected" {
            job = job.apply(failed.clone(), now, &rules()).unwrap().job;
            tries += 1;
            if let Next::Wait(until) = next_step(&job, now) {
                now = until;
            }
        }
        assert!(tries >= UPLOAD_TRIES_MIN, "{tries}");
        assert!(now.since(at(20)) >= rules().upload_give_up, "{now}");
        let attested = Event::Attested { receipt: serde_json::json!({}) };
        let mut moved = job.apply(attested, now, &rules()).unwrap();
        if pooled {
            assert_eq!(moved.kept, None, "another agent may have the job by now");
            moved = moved.job.apply(Event::Concluded, now, &rules()).unwrap();
        }
        let status = &moved.statuses[0];
        assert_eq!(status.stage, Stage::Failed);
        assert!(status.receipt.is_some() && status.output_cid.is_none());
        let kept = moved.kept.expect("it is kept");
        assert_eq!(kept.until, now.plus(rules().result_keep));
        assert_eq!((kept.ended.outcome, kept.ended.output), (Outcome::Completed, Some(sealed())));
        assert_eq!(*kept.job, moved.job);
    }
}

#[test]
fn a_store_that_refuses_the_node_is_told_of_once_and_waited_for() {
    let refused = || {
        let fault = Fault::new(Reason::StoreRefused, "the key");
        Event::Failed { fault, retry: Retry::Refused }
    };
    let (mut job, _) = run("", happy().into_iter().take(6));
    let mut said = Vec::new();
    for day in 0..100 {
        let now = at(20).plus(Duration::from_hours(24 * day));
        let moved = job.apply(refused(), now, &rules()).unwrap();
        (job, said) = (moved.job, [said, moved.statuses].concat());
    }
    let told: Vec<_> = said.iter().map(|status| (status.stage, status.reason_code)).collect();
    assert_eq!(told, [(Stage::Uploading, Some(Reason::StoreRefused))]);
    // Its patience begins with the first try after that.
    let job = job.apply(failed(Retry::Patiently), at(u64::MAX), &rules()).unwrap().job;
    assert_eq!((job.phase.name(), job.trouble.unwrap().tried.times), ("collected", 1));
}

#[test]
fn an_output_that_the_store_refuses_alone_is_told_of_at_once_and_kept_when_its_patience_is_over() {
    let refused = || {
        let fault = Fault::new(Reason::OutputRefused, "too large");
        Event::Failed { fault, retry: Retry::Refused }
    };
    let (mut job, _) = run("", happy().into_iter().take(6));
    let (mut said, mut tries) = (Vec::new(), 0);
    while job.phase.name() == "collected" {
        tries += 1;
        let now = at(20).plus(Duration::from_hours(tries));
        let moved = job.apply(refused(), now, &rules()).unwrap();
        (job, said) = (moved.job, [said, moved.statuses].concat());
    }
    let told: Vec<_> = said.iter().map(|status| (status.stage, status.reason_code)).collect();
    assert_eq!(told, [(Stage::Uploading, Some(Reason::OutputRefused))]);
    assert!(tries >= 20, "{tries}");
    let attested = Event::Attested { receipt: serde_json::json!({}) };
    let moved = job.apply(attested, at(u64::MAX), &rules()).unwrap();
    assert_eq!(moved.statuses[0].reason_code, Some(Reason::UploadFailed));
    assert!(moved.kept.is_some());
}

#[test]
fn a_log_that_is_published_is_told_whatever_becomes_of_the_output() {
    let (job, _) = run("", happy().into_iter().take(6));
    let log: Cid = CID.parse().unwrap();
    let job = job.apply(Event::LogPublished { log }, at(19), &rules()).unwrap().job;
    let job = job.apply(failed(Retry::Patiently), at(20), &rules()).unwrap().job;
    let job = job.apply(failed(Retry::Never), at(21), &rules()).unwrap().job;
    let receipt = serde_json::json!({});
    let moved = job.apply(Event::Attested { receipt }, at(22), &rules()).unwrap();
    let end = &moved.statuses[0];
    assert_eq!((end.stage, end.output_cid, end.log_cid), (Stage::Failed, None, Some(log)));
}

#[test]
fn a_job_that_is_stopped_for_the_disk_has_failed_however_it_ends() {
    for cause in [StopCause::DiskExceeded, StopCause::DiskFull] {
        for code in [0, 137] {
            let Event::Exited { exit, .. } = stopped(code) else { panic!("no exit") };
            let ended = [
                Event::StopAsked { cause },
                Event::Exited { exit, by_itself: Some(false) },
                Event::Collected { output: Ok(None), log: None },
            ];
            let (job, _) = run("", happy().into_iter().take(4).chain(ended));
            let Phase::Collected { ended, .. } = job.phase else { panic!("{:?}", job.phase) };
            let Outcome::Failed(fault) = ended.outcome else { panic!("{:?}", ended.outcome) };
            assert_eq!(fault.reason, Reason::DiskExceeded);
        }
    }
}

#[test]
fn a_cancel_comes_too_late_once_the_container_has_exited() {
    let cancel = || Event::StopAsked { cause: StopCause::Cancelled };
    for done in 0..=4 {
        let (job, _) = run("", happy().into_iter().take(done));
        assert!(job.apply(cancel(), at(9), &rules()).is_ok(), "after {done} events");
    }
    for done in 5..=10 {
        let (job, _) = run("", happy().into_iter().take(done));
        assert!(job.apply(cancel(), at(9), &rules()).is_err(), "after {done} events");
    }
}

/// A failure that may be the node's own.
fn at_fault(reason: Reason, retry: Retry) -> Event {
    Event::Failed { fault: Fault::new(reason, "broken"), retry }
}

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

#[test]
fn a_command_that_was_killed_is_told_what_it_may_have_been() {
    for (code, is_told) in [(137, true), (1, false)] {
        let mut events = happy();
        events[4] = exit(code);
        events[5] = Event::Collected { output: Ok(None), log: None };
        events[6] = Event::Published { output: None, log: None };
        let (_, statuses) = run("", events);
        let last = statuses.last().unwrap();
        assert_eq!(last.reason_code, Some(Reason::NonzeroExit));
        let said = last.error.clone().unwrap();
        assert_eq!(said.contains("want of memory"), is_told, "{said}");
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let mut events = happy();
    events.extend([
        exit(1),
        Event::Lost,
        Event::Created { container: "c".to_owned() },
        Event::NeverRan,
        Event::Claimed,
        Event::Concluded,
        Event::Outbid,
        Event::Poisoned,
        Event::Doubted,
        Event::Buried,
        Event::StopAsked { cause: StopCause::LeaseLost },
        Event::TimeIsUp,
        Event::Expired,
        Event::HandedBack,
        Event::Resumed,
        Event::StopAsked { cause: StopCause::Cancelled },
        Event::StopAsked { cause: StopCause::Shutdown },
        Event::Collected { output: Err(Fault::new(Reason::OutputMissing, "none")), log: None },
        failed(Retry::Never),
        failed(Retry::Patiently),
        failed(Retry::Always),
        at_fault(Reason::GpuFailed, Retry::Patiently),
    ]);
    select(events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn statuses_are_gapless_with_one_terminal_in_every_order_of_events(
        pooled: bool,
        events in proptest::collection::vec((any_event(), 0_u64..30_000), 0..60),
    ) {
        let target = if pooled { "pool.a100" } else { "dispatch.0x" };
        let Transition { mut job, mut statuses, .. } = accept_from(target, "");
        let (mut now, mut starts) = (0, 0);
        for (event, wait) in events {
            now += wait;
            let start = matches!(event, Event::Started { .. });
            // An event that does not belong to the phase is refused and changes nothing.
            let Ok(moved) = job.apply(event, at(now), &rules()) else { continue };
            starts += u32::from(start);
            prop_assert!(moved.durable.is_some() || moved.statuses.iter().all(|s| !s.stage.is_terminal()));
            job = moved.job;
            statuses.extend(moved.statuses);
            prop_assert!(starts <= job.attempt, "two starts in one attempt");
        }
        let seqs: Vec<u64> = statuses.iter().map(|status| status.seq).collect();
        prop_assert_eq!(&seqs, &(1..=statuses.len() as u64).collect::<Vec<_>>());
        let terminal = statuses.iter().filter(|status| status.stage.is_terminal()).count();
        prop_assert_eq!(terminal, usize::from(job.phase.outcome().is_some()));
        prop_assert!(terminal == 0 || statuses.last().unwrap().stage.is_terminal());
    }
}

#[test]
fn a_clock_that_is_set_back_gives_a_run_no_more_than_it_had() {
    let (mut job, _) = run(r#","timeout_s":60"#, happy().into_iter().take(4));
    let until = |job: &Job, now: u64| match next_step(job, at(now)) {
        Next::Do(Step::Follow { until }) => until,
        other => panic!("{other:?}"),
    };
    assert_eq!(until(&job, 30_000), at(60_001));
    // With a clock set back to hours before its start, it has its 60 s from then, and no more.
    let Phase::Running { run } = &mut job.phase else { panic!("{:?}", job.phase) };
    let day = 24 * 60 * 60 * 1000;
    (run.started_at, run.kill_at) = (at(day), at(day + 60_000));
    assert_eq!(until(&job, 1000), at(61_000));
}
