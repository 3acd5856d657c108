//! How long a step that fails is tried, and what becomes of a result that can't be published.

use super::*;

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
        let attested = Event::Attested { receipt: serde_json::json!({}), usage: None };
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
    let attested = Event::Attested { receipt: serde_json::json!({}), usage: None };
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
    let moved = job.apply(Event::Attested { receipt, usage: None }, at(22), &rules()).unwrap();
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
