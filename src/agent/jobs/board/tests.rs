use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::container::ImagePolicy;
use crate::job::phase::{Asked, Event, Fault, Outcome, PinnedImage, Retry, Rules};
use crate::job::spec::parse;
use crate::node::Gpu;
use crate::node::admission::{Offer, Scarce};
use crate::node::fitness::Unfit;
use crate::node::health::{Record, State};

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

fn board(slots: usize) -> Board {
    let gpus = ["GPU-a", "GPU-b"].map(|uuid| Gpu {
        uuid: GpuUuid::new(uuid).unwrap(),
        model: "H100".to_owned(),
        vram_mib: 80_000,
    });
    Board::new(Terms {
        offer: Offer {
            gpus: gpus.to_vec(),
            milli_cpus: 4000,
            memory_mib: 4000,
            disk_mib: 4000,
            network: crate::node::admission::Reach::Nothing,
            slots,
        },
        images: ImagePolicy::default(),
        sandbox: crate::agent::OwnersSandbox::default(),
    })
}

/// A job that is ready, with these extra JSON members in its message.
fn ready(id: &str, words: &str) -> Job {
    let body = format!(r#"{{"job_id": "{id}", "image_name": "x"{words}}}"#);
    let parsed = parse(body.as_bytes()).unwrap();
    let asked =
        Asked { spec: parsed.spec, spec_hash: parsed.spec_hash, target: "pool.x".to_owned() };
    let job = Job::accept(asked, Address::new([1; 20]), 0, NOW).job;
    let image =
        PinnedImage { id: "id".to_owned(), digest: "digest".to_owned(), unconfirmed: false };
    moved(&moved(&job, Event::Pulled { image }), Event::Fetched)
}

fn moved(job: &Job, event: Event) -> Job {
    let hour = std::time::Duration::from_hours(1);
    let rules =
        Rules { timeout_max: hour, fetch_give_up: hour, upload_give_up: hour, result_keep: hour };
    job.apply(event, NOW, &rules).unwrap().job
}

/// How many cards a reservation returns at once; `None` if it has to wait.
fn got(reserving: impl Future<Output = Vec<GpuUuid>>) -> Option<usize> {
    match pin!(reserving).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(gpus) => Some(gpus.len()),
        Poll::Pending => None,
    }
}

#[test]
fn jobs_that_say_nothing_fill_every_slot() {
    let board = board(4);
    for id in ["a", "b", "c", "d"] {
        let job = ready(id, r#", "gpus": 0"#);
        let _requests = board.enter(&job, None).unwrap();
        assert_eq!(got(board.reserve(&job)), Some(0), "{id}");
    }
}

#[test]
fn a_job_that_is_taken_back_after_a_restart_counts_with_all_that_it_holds() {
    let board = board(4);
    let gpus = vec![GpuUuid::new("GPU-a").unwrap()];
    let large = moved(&ready("large", r#", "memory_mib": 3500"#), Event::Reserved { gpus });
    let _requests = board.enter(&large, None).unwrap();
    let small = ready("small", r#", "memory_mib": 501"#);
    assert_eq!(board.verdict(&small.spec), Verdict::Later(Scarce::Memory));
    let pair = ready("pair", r#", "gpus": 2, "memory_mib": 100"#);
    assert_eq!(board.verdict(&pair.spec), Verdict::Later(Scarce::Gpus));
    let _requests = board.enter(&small, None).unwrap();
    assert_eq!(got(board.reserve(&small)), None);
    board.leave(large.id());
    assert_eq!(got(board.reserve(&small)), Some(1));
}

#[test]
fn a_card_that_was_taken_out_of_the_host_counts_against_nobody() {
    let board = board(2);
    let retired = Record { state: State::Retired, why: "Xid 64".to_owned(), quarantines: 1 };
    let gone = |card: &str| (GpuUuid::new(card).unwrap(), retired.clone());
    board.restore_health([gone("GPU-x"), gone("GPU-y")].into());
    assert_eq!((board.unfit(), board.offered().1.len()), (None, 0));
    board.restore_health([gone("GPU-a")].into());
    assert_eq!(board.offered().1, [(GpuUuid::new("GPU-a").unwrap(), "retired")].into());
}

#[test]
fn a_card_that_a_job_has_left_goes_to_nobody_before_it_was_seen_free() {
    let board = board(4);
    board.watch_cards();
    let gpus = vec![GpuUuid::new("GPU-a").unwrap(), GpuUuid::new("GPU-b").unwrap()];
    let first = moved(&ready("first", r#", "gpus": 2"#), Event::Reserved { gpus: gpus.clone() });
    let first = moved(&first, Event::Claimed);
    let first = moved(&first, Event::Started { container: "c".to_owned(), at: NOW });
    let _requests = board.enter(&first, None).unwrap();
    board.exited(first.id());
    let second = ready("second", "");
    let _requests = board.enter(&second, None).unwrap();
    assert_eq!(got(board.reserve(&second)), None);
    assert!(matches!(board.verdict(&ready("third", "").spec), Verdict::Later(_)));
    assert_eq!(board.unfit(), None, "they will be free in a moment");
    for card in &gpus {
        board.stays_taken(card, "process 1 of the job before still uses it");
    }
    assert!(matches!(board.unfit(), Some(Unfit::HeldBack(_))));
    board.freed(&gpus[1]);
    assert_eq!((board.unfit(), got(board.reserve(&second))), (None, Some(1)));
    // One that was stopped leaves its cards when its container has exited, not before.
    board.freed(&gpus[0]);
    board.leave(second.id());
    board.leave(first.id());
    let third = moved(&first, Event::StopAsked { cause: StopCause::Cancelled });
    let _requests = board.enter(&third, None).unwrap();
    board.moved(&third);
    let (_, container) = board.holders()[&gpus[0]].clone();
    assert_eq!((container.as_deref(), board.left().len()), (Some("c"), 0));
    board.exited(third.id());
    assert_eq!(board.left().len(), 2);
    // So does one whose container is lost.
    board.leave(first.id());
    for card in &gpus {
        board.freed(card);
    }
    let lost = moved(&first, Event::Lost);
    let _requests = board.enter(&first, None);
    board.moved(&lost);
    assert!(board.left().contains_key(&gpus[0]));
}

#[test]
fn what_a_job_held_is_free_when_its_container_has_exited_and_not_only_when_that_is_written() {
    let board = board(1);
    let gpus = vec![GpuUuid::new("GPU-a").unwrap()];
    let first = moved(&ready("first", ""), Event::Reserved { gpus });
    let started = Event::Started { container: "c".to_owned(), at: NOW };
    let first = moved(&moved(&first, Event::Claimed), started);
    let _requests = board.enter(&first, None).unwrap();
    assert_eq!(board.running().len(), 1);
    let second = ready("second", "");
    let _requests = board.enter(&second, None).unwrap();
    assert_eq!(got(board.reserve(&second)), None);
    board.exited(first.id());
    assert_eq!(board.running(), []);
    assert_eq!(got(board.reserve(&second)), Some(1));
    // A failed attempt to journal the exit must not revive the container.
    board.moved(&first);
    assert_eq!(board.running(), []);
    let third = ready("third", r#", "gpus": 0"#);
    let _requests = board.enter(&third, None).unwrap();
    assert_eq!(got(board.reserve(&third)), None, "the slot is the second's alone");
    board.leave(second.id());
    assert_eq!(got(board.reserve(&third)), Some(0));
}

/// A job that runs without a GPU.
fn running(id: &str) -> Job {
    let reserved = moved(&ready(id, r#", "gpus": 0"#), Event::Reserved { gpus: Vec::new() });
    let started = Event::Started { container: "c".to_owned(), at: NOW };
    moved(&moved(&reserved, Event::Claimed), started)
}

#[test]
fn an_attempt_that_was_not_started_is_not_because_the_one_before_was() {
    let board = board(1);
    let job = running("a");
    let _requests = board.enter(&job, None).unwrap();
    assert_eq!(board.ids(Some(true)), [job.id().clone()]);
    board.moved(&moved(&job, Event::Lost));
    assert_eq!((board.ids(Some(true)), board.ids(Some(false))), (vec![], vec![job.id().clone()]));
}

#[test]
fn the_lease_of_what_is_given_back_is_not_renewed() {
    let board = board(1);
    let job = running("a");
    let delivery = AckHandle {
        reply: "$JS.ACK.x".to_owned(),
        stream: "JOBS".to_owned(),
        stream_created_ns: 1,
        stream_seq: 7,
        delivered: 1,
        consumer: "pool-x".to_owned(),
        ack_wait_ms: 120_000,
    };
    let _requests = board.enter(&job, Some(delivery.clone())).unwrap();
    assert_eq!(board.in_hand().len(), 1);
    let stopping = moved(&job, Event::StopAsked { cause: StopCause::LeaseLost });
    let yielded = moved(&stopping, Event::Lost);
    assert_eq!(yielded.phase.name(), "yielded");
    for job in [yielded.clone(), moved(&yielded, Event::Removed)] {
        board.moved(&job);
        assert!(board.in_hand().is_empty(), "{}", job.phase.name());
        assert_eq!(board.delivery(job.id()), Some(delivery.clone()), "it may be given back");
    }
}

#[test]
fn a_container_counts_as_running_before_its_start_is_written_down() {
    let board = board(1);
    let job = moved(&ready("job", ""), Event::Reserved { gpus: Vec::new() });
    let job = moved(&job, Event::Claimed);
    let _requests = board.enter(&job, None).unwrap();
    assert_eq!(board.running(), [], "there is none yet");
    board.moved(&moved(&job, Event::Created { container: "c".to_owned() }));
    assert_eq!(board.running()[0].container, "c");
    assert!(board.is_ending(job.id()));
    board.leave(job.id());
    assert!(!board.is_ending(job.id()));
}

#[test]
fn the_line_goes_by_priority_and_then_by_arrival() {
    let board = board(1);
    let jobs = [("a", ""), ("b", ""), ("c", r#", "priority": 1"#)];
    let jobs = jobs.map(|(id, words)| ready(id, words));
    let _requests = jobs.each_ref().map(|job| board.enter(job, None).unwrap());
    let places = jobs.each_ref().map(|job| board.line_up(job));
    let firsts = || places.each_ref().map(|place| board.take(place).is_some());
    assert_eq!(firsts(), [false, false, true]);
    board.leave(jobs[2].id());
    assert_eq!(firsts(), [true, false, false]);
}

#[test]
fn a_pools_job_is_offered_nothing_that_a_job_in_hand_will_need() {
    let board = board(2);
    let in_hand = ready("in-hand", "");
    let _requests = board.enter(&in_hand, None).unwrap();
    let spec = |words| ready("next", words).spec;
    assert!(matches!(board.verdict(&spec("")), Verdict::Now(_)));
    assert_eq!(board.verdict(&spec(r#", "gpus": 2"#)), Verdict::Later(Scarce::Gpus));
    assert!(matches!(board.verdict(&spec(r#", "gpus": 3"#)), Verdict::Never(_)));
    assert!(board.has_room(0));
    let second = ready("second", "");
    let _requests = board.enter(&second, None).unwrap();
    assert!(!board.has_room(0) && board.has_room(1));
}

fn collected(id: &str) -> Job {
    let gpus = Vec::new();
    let job = moved(&ready(id, ""), Event::Reserved { gpus });
    // A pool's job is claimed before it starts.
    let job = moved(&job, Event::Claimed);
    let started = moved(&job, Event::Started { container: id.to_owned(), at: NOW });
    let exit = crate::job::phase::RunExit {
        code: Some(0),
        oom: false,
        hint: None,
        started_at: NOW,
        finished_at: NOW,
        usage: None,
    };
    let exited = moved(&started, Event::Exited { exit, by_itself: Some(true) });
    moved(&exited, Event::Collected { output: Ok(None), log: None })
}

#[test]
fn results_that_can_not_be_published_leave_no_room_in_the_end() {
    let board = board(2);
    let ids: Vec<String> = (0..17).map(|number| format!("job-{number}")).collect();
    let mut taken = 0;
    for id in &ids {
        if !board.has_room(0) {
            break;
        }
        taken += 1;
        let job = collected(id);
        let _requests = board.enter(&job, None).unwrap();
    }
    assert_eq!(taken, room::UNPUBLISHED_MIN, "results beyond the slots");
    assert_eq!(board.unfit(), Some(Unfit::Unpublished(taken)), "and the node says why");
    assert_eq!(board.room(8), 0, "nothing is made ready ahead of them");
    board.leave(&ids[0].parse().unwrap());
    assert_eq!(board.unfit(), None);
    assert_eq!(board.room(0), 1);
}

#[test]
fn a_card_that_failed_a_start_is_given_to_no_other_job() {
    let board = board(4);
    let gpus = vec![GpuUuid::new("GPU-a").unwrap()];
    let job = moved(&moved(&ready("a", ""), Event::Reserved { gpus }), Event::Claimed);
    let _requests = board.enter(&job, None).unwrap();
    let fault = Fault::new(Reason::GpuFailed, "no driver");
    let retry = Retry::Patiently;
    board.moved(&moved(&job, Event::Failed { fault, retry }));
    board.leave(job.id());
    for (id, cards) in [("b", Some(1)), ("c", None)] {
        let next = ready(id, "");
        let _requests = board.enter(&next, None).unwrap();
        let reserving = board.reserve(&next);
        assert_eq!(got(reserving), cards, "{id}");
    }
    assert_eq!(board.unfit(), None, "the other card goes on");
}

#[test]
fn content_that_nobody_has_keeps_a_node_from_others_jobs_only_where_no_gateway_serves() {
    for serve in [true, false] {
        let board = board(1);
        board.gateways(serve);
        for id in ["a", "b", "c", "d"] {
            let job = moved(&ready(id, ""), Event::Doubted);
            let stops = board.enter(&job, None);
            let fault = Fault::new(Reason::InputUnavailable, "nobody has it");
            board.moved(&moved(&job, Event::Failed { fault, retry: Retry::Never }));
            board.leave(job.id());
            drop(stops);
        }
        assert_eq!(board.unfit().is_none(), serve, "{:?}", board.unfit());
        assert_eq!(board.unfetched(), 4);
    }
}

#[test]
fn what_an_earlier_process_left_makes_the_offer_larger_only_by_files_that_go_and_up_to_the_disk() {
    let offered = |jobs: &[Job], max_mib: u64| {
        let board = board(1);
        board.occupied_by(jobs, max_mib);
        board.state().terms.offer.disk_mib
    };
    let waiting = ready("w", "");
    let cleaned = Job { phase: Phase::Cleaned { outcome: Outcome::Completed }, ..waiting.clone() };
    let kept = Outcome::Failed(Fault::new(Reason::UploadFailed, "no"));
    let kept = Job { phase: Phase::Ended { outcome: kept }, ..waiting.clone() };
    let given_back = Job { phase: Phase::Waiting, ..waiting.clone() };
    assert_eq!(offered(&[waiting, cleaned, kept, given_back], u64::MAX), 4000);
    let (first, second) = (collected("a"), collected("b"));
    let share = board(1).state().terms.demand(&first.spec).share.disk_mib;
    assert_eq!(offered(std::slice::from_ref(&first), u64::MAX), 4000 + share);
    assert_eq!(offered(&[first.clone(), second], 5000), 5000, "the disk has no more");
    assert_eq!(offered(&[first], 3000), 4000);
}

#[test]
fn the_offer_of_the_disk_does_not_shrink_while_files_of_jobs_are_being_removed() {
    let board = board(1);
    let offered = || board.state().terms.offer.disk_mib;
    board.disk(1000, false);
    assert_eq!(offered(), 4000);
    board.disk(5000, false);
    assert_eq!(offered(), 5000);
    board.disk(1000, true);
    assert_eq!(offered(), 1000);
}

/// Lines these jobs up, and takes what each gets, the last first.
fn served(board: &Board, line: &[Job]) -> BTreeMap<JobId, Vec<GpuUuid>> {
    let places: Vec<line::Place> = line.iter().map(|job| board.line_up(job)).collect();
    let got = |place: &line::Place| Some((place.id.clone(), board.take(place)?));
    places.iter().rev().filter_map(got).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_node_that_starts_again_beside_its_containers_decides_as_before(
        wants in vec((0_u32..3, 0_u32..3), 1..8),
        ends in 0_usize..8,
        turns in prop::bool::ANY,
    ) {
        let words = |(gpus, memory): &(u32, u32)| {
            format!(r#", "gpus": {gpus}, "memory_mib": {}"#, 6 + memory * 1900)
        };
        let jobs = wants.iter().enumerate();
        let jobs: Vec<Job> =
            jobs.map(|(number, want)| ready(&format!("job-{number}"), &words(want))).collect();
        let before = board(3);
        let _stops: Vec<_> = jobs.iter().map(|job| before.enter(job, None)).collect();
        let got = served(&before, &jobs);
        let (holders, line): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| got.contains_key(job.id()));
        let mut holders: Vec<Job> = holders
            .iter()
            .map(|job| moved(job, Event::Reserved { gpus: got[job.id()].clone() }))
            .collect();
        if turns {
            holders.reverse();
        }
        let after = board(3);
        for job in &holders {
            after.hold(job);
        }
        let _again: Vec<_> = holders.iter().chain(&line).map(|job| after.enter(job, None)).collect();
        prop_assert_eq!(served(&after, &line), BTreeMap::new(), "nothing is given twice");
        let ended = &holders[ends % holders.len()];
        before.leave(ended.id());
        after.leave(ended.id());
        prop_assert_eq!(served(&after, &line), served(&before, &line));
    }
}

#[test]
fn what_was_decided_for_the_line_is_decided_anew_after_every_change() {
    let board = board(2);
    let (first, second) = (ready("first", ""), ready("second", r#", "gpus": 2"#));
    let _requests = [&first, &second].map(|job| board.enter(job, None).unwrap());
    let places = [&first, &second].map(|job| board.line_up(job));
    assert_eq!(board.take(&places[1]), None, "the first one comes first");
    board.in_foreign_use(BTreeMap::from([
        (GpuUuid::new("GPU-a").unwrap(), "the owner's".to_owned()),
        (GpuUuid::new("GPU-b").unwrap(), "the owner's".to_owned()),
    ]));
    assert_eq!(board.take(&places[0]), None, "no card is left to give");
    board.in_foreign_use(BTreeMap::new());
    assert_eq!(board.take(&places[0]).map(|gpus| gpus.len()), Some(1));
    board.leave(first.id());
    assert_eq!(board.take(&places[1]).map(|gpus| gpus.len()), Some(2));
}
