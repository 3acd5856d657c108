//! The state machine in every order of events, and its transitions one by one.

mod faults;
mod patience;

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::job::Reason;
use crate::job::plan::{Next, Step, next_step};
use crate::job::spec::parse;
use crate::job::status::PullProgress;
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
    let exit = RunExit {
        code: Some(code),
        oom: false,
        hint: None,
        started_at: at(1),
        finished_at: at(2),
        usage: None,
    };
    Event::Exited { exit, by_itself: None }
}

/// The exit of a container that was stopped, after it was asked to stop.
fn stopped(code: i32) -> Event {
    let exit = RunExit {
        code: Some(code),
        oom: false,
        hint: None,
        started_at: at(1),
        finished_at: at(11),
        usage: None,
    };
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

fn at_fault(reason: Reason, retry: Retry) -> Event {
    Event::Failed { fault: Fault::new(reason, "broken"), retry }
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
        Event::Attested { receipt: serde_json::json!({}), usage: None },
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
            Event::Attested { receipt: serde_json::json!({}), usage: None },
        ];
        let (_, statuses) = run(extra, happy().into_iter().take(4).chain(end).chain(rest));
        let last = statuses.last().unwrap();
        assert_eq!((last.stage, last.reason_code), (Stage::TimedOut, Some(reason)));
    }
}

#[test]
fn a_job_that_the_engine_could_not_stop_in_time_is_told_both_times() {
    for (ended_ms, told) in [
        (5_900, "the job ran for 5 s, as long as it may, and was stopped"),
        (90_001, "the job may run for 5 s and was stopped then; its container ended after 90 s"),
    ] {
        let (job, _) = run(r#","timeout_s":5"#, happy().into_iter().take(4));
        let Phase::Running { run: running } = &job.phase else { panic!("not running") };
        let (started_at, finished_at) = (running.started_at, at(ended_ms));
        let exit = RunExit {
            code: Some(137),
            oom: false,
            started_at,
            finished_at,
            hint: None,
            usage: None,
        };
        let steps = [
            Event::TimeIsUp,
            Event::Exited { exit, by_itself: Some(false) },
            Event::Collected { output: Ok(None), log: None },
        ];
        let ended = steps
            .into_iter()
            .fold(job, |job, event| job.apply(event, at(ended_ms), &rules()).unwrap().job);
        let Phase::Collected { ended, .. } = &ended.phase else { panic!("{ended:?}") };
        let Outcome::TimedOut(fault) = &ended.outcome else { panic!("{ended:?}") };
        assert_eq!(fault.error, told);
    }
}

#[test]
fn a_pull_that_goes_on_is_told_and_changes_nothing_else() {
    let progress = PullProgress { bytes: 7, layers: 2, layers_done: 1 };
    let pulling = Event::Pulling { progress };
    let (job, statuses) = run("", [pulling.clone(), pulling].into_iter().chain(happy()));
    assert!(stages(&statuses).starts_with("accepted pulling pulling pulling fetching running"));
    let told: Vec<_> = statuses.iter().filter_map(|status| status.pull).collect();
    assert_eq!(told, [progress, progress]);
    assert_eq!(job.phase.name(), "settled");
    let (job, _) = run("", [failed(Retry::Patiently)]);
    let moved = job.apply(Event::Pulling { progress }, at(9), &rules()).unwrap().job;
    assert_eq!((&moved.trouble, moved.since), (&job.trouble, job.since), "its patience runs on");
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
fn a_job_whose_card_fails_runs_again_and_after_three_times_it_is_the_nodes_fault() {
    let Event::Exited { exit, .. } = stopped(0) else { panic!("no exit") };
    let gone = [Event::CardFailed { exit }, Event::Removed, Event::HandedBack, Event::Resumed];
    let by_itself = || happy().into_iter().take(4).chain(gone.clone());
    // The same if the node has stopped it for that.
    let stop = [Event::StopAsked { cause: StopCause::GpuFailed }];
    let stopped_for_it = || {
        happy()
            .into_iter()
            .take(4)
            .chain(stop.clone())
            .chain([stopped(137)])
            .chain(gone[1..].to_vec())
    };
    let (job, statuses) = run("", by_itself().chain(stopped_for_it()).chain(happy()));
    let told = "accepted pulling fetching running interrupted pulling fetching running interrupted \
                pulling fetching running uploading completed";
    assert_eq!(stages(&statuses), told);
    assert_eq!((job.attempt, job.lost), (3, 2));
    let interrupted = statuses.iter().find(|status| status.stage == Stage::Interrupted).unwrap();
    assert_eq!(interrupted.reason_code, Some(Reason::GpuFailed));

    let thrice = by_itself().chain(by_itself()).chain(happy().into_iter().take(4));
    let (job, _) = run("", thrice.chain([Event::CardFailed { exit }]));
    let collected = Event::Collected { output: Ok(None), log: None };
    let end = job.apply(collected, at(20), &rules()).unwrap().job;
    let Phase::Collected { ended, .. } = end.phase else { panic!("{:?}", end.phase) };
    let Outcome::Failed(fault) = ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!(fault.reason, Reason::GpuFailed);
}

#[test]
fn a_job_that_was_being_stopped_when_its_card_failed_ends_as_it_was_to() {
    let Event::Exited { exit, .. } = stopped(137) else { panic!("no exit") };
    for (cause, reason) in
        [(StopCause::Cancelled, Reason::Cancelled), (StopCause::DiskExceeded, Reason::DiskExceeded)]
    {
        let ends = [
            Event::StopAsked { cause },
            Event::CardFailed { exit },
            Event::Collected { output: Ok(None), log: None },
        ];
        let (job, _) = run("", happy().into_iter().take(4).chain(ends));
        let Phase::Collected { ended, .. } = job.phase else { panic!("{:?}", job.phase) };
        let (Outcome::Cancelled(fault) | Outcome::Failed(fault)) = ended.outcome else {
            panic!("{:?}", ended.outcome)
        };
        assert_eq!(fault.reason, reason);
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
        Event::Pulling { progress: PullProgress { bytes: 7, layers: 2, layers_done: 1 } },
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
