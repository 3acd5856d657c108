//! The journal on a real disk: what was committed survives the process.

use std::time::Duration;

use lamda_node::clock::Timestamp;
use lamda_node::ids::{Address, JobId};
use lamda_node::job::phase::{Asked, Event, Phase, PinnedImage, Rules, Transition};
use lamda_node::job::spec::{Refused, parse};
use lamda_node::job::{Job, Reason, Status};
use lamda_node::journal::{Error, Journal, OutgoingKind};

const NODE: Address = Address::new([1; 20]);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

fn rules() -> Rules {
    let span = Duration::from_mins(1);
    Rules { timeout_max: span, fetch_give_up: span, upload_give_up: span, result_keep: span }
}

fn taken(id: &str, more: &str) -> Transition {
    let body = format!(r#"{{"job_id":"{id}","image":"img"{more}}}"#);
    let parsed = parse(body.as_bytes()).expect("a job");
    let (spec, spec_hash) = (parsed.spec, parsed.spec_hash);
    Job::accept(Asked { spec, spec_hash, target: "pool.a".to_owned() }, NODE, 0, at(5))
}

fn id(text: &str) -> JobId {
    text.parse().expect("an id")
}

async fn unsent(journal: &Journal) -> Vec<(String, u64)> {
    let rows = journal.unsent(100).await.expect("rows");
    rows.into_iter().map(|row| (row.job_id.to_string(), row.seq)).collect()
}

/// Opens a journal that its former owner may hold for a moment longer.
fn reopen(dir: &std::path::Path) -> Journal {
    let limit = Duration::from_secs(10);
    crate::support::tools::eventually("the lock is free", limit, || Journal::open(dir).ok())
}

#[tokio::test]
async fn a_job_and_its_statuses_are_there_after_a_restart_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(dir.path()).expect("a journal");
    let first = taken("first", "");
    journal.admit(&first, b"body".to_vec(), Some("ack".to_owned())).await.expect("taken");
    journal.admit(&taken("second", ""), b"body".to_vec(), None).await.expect("taken");
    let image = PinnedImage { id: "i".to_owned(), digest: "d".to_owned(), unconfirmed: false };
    let event = Event::Pulled { image };
    let moved = first.job.apply(event.clone(), at(6), &rules()).expect("it belongs");
    journal.record(&event, &moved, at(6)).await.expect("recorded");
    assert!(matches!(Journal::open(dir.path()), Err(Error::InUse(_))), "two owners");
    drop(journal);

    let journal = reopen(dir.path());
    let jobs = journal.open_jobs().await.expect("jobs");
    assert_eq!(jobs.iter().map(|job| job.id().as_str()).collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(jobs[0], moved.job);
    assert!(matches!(jobs[0].phase, Phase::Pulled { .. }));
    let known = journal.lookup(&id("first")).await.expect("a look").expect("it is known");
    assert_eq!((known.delivery.as_deref(), known.open), (Some("ack"), true));
    let order = [("first", 1), ("first", 2), ("second", 1), ("second", 2)];
    let order = order.map(|(id, seq)| (id.to_owned(), seq));
    assert_eq!(unsent(&journal).await, order);
}

#[tokio::test]
async fn an_id_is_taken_once_and_a_refusal_of_a_stranger_does_not_use_it_up() {
    let journal = Journal::in_memory().expect("a journal");
    let first = taken("mine", "");
    let refused = Refused {
        id: id("mine"),
        body_hash: first.job.spec_hash,
        reason: Reason::SignatureInvalid,
        error: "forged".to_owned(),
    };
    let status = Status::rejected(NODE, &refused, at(1));
    journal.refuse(&refused, status, false).await.expect("refused");
    let known = journal.lookup(&id("mine")).await.expect("a look").expect("it is known");
    assert_eq!(known.unproven_seq, Some(1));
    let spec = first.job.spec.clone();
    let asked = Asked { spec, spec_hash: first.job.spec_hash, target: "pool.a".to_owned() };
    let owners = Job::accept(asked.clone(), NODE, 1, at(2));
    for _ in 0..2 {
        // The second call repeats a commit whose answer was lost.
        journal.admit(&owners, Vec::new(), None).await.expect("taken");
        assert_eq!(unsent(&journal).await.len(), 3);
    }
    let other = Job::accept(asked, NODE, 1, at(3));
    assert!(journal.admit(&other, Vec::new(), None).await.is_err(), "taken twice");
}

#[tokio::test]
async fn what_is_sent_is_not_sent_again_unless_it_is_asked_for() {
    let journal = Journal::in_memory().expect("a journal");
    journal.admit(&taken("job", ""), Vec::new(), None).await.expect("taken");
    let rows = journal.unsent(100).await.expect("rows");
    journal.sent(rows.iter().map(|row| row.row).collect()).await.expect("marked");
    assert_eq!(unsent(&journal).await, []);
    journal.send_again(&id("job")).await.expect("asked");
    let again = journal.unsent(100).await.expect("rows");
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].seq, again[0].kind), (2, OutgoingKind::Again));
    assert_eq!(again[0].body, rows[1].body, "the same byte for byte");
}

#[tokio::test]
async fn jobs_are_forgotten_when_they_are_long_done_but_not_before_their_deadline() {
    let journal = Journal::in_memory().expect("a journal");
    for (job, more) in
        [("old", ""), ("due-later", r#","deadline":"2099-01-01T00:00:00Z""#), ("unfinished", "")]
    {
        let mut moved = taken(job, more);
        journal.admit(&moved, Vec::new(), None).await.expect("taken");
        if job != "unfinished" {
            let cancel = Event::StopAsked { cause: lamda_node::job::phase::StopCause::Cancelled };
            for event in [cancel, Event::Concluded, Event::Removed, Event::Acked] {
                moved = moved.job.apply(event.clone(), at(6), &rules()).expect("it belongs");
                journal.record(&event, &moved, at(6)).await.expect("recorded");
            }
        }
    }
    let rows = journal.unsent(100).await.expect("rows");
    journal.sent(rows.iter().map(|row| row.row).collect()).await.expect("marked");
    while journal.pack().await.expect("packed") > 0 {}
    let month = Duration::from_hours(30 * 24);
    assert_eq!(journal.forget_done(at(1000), month).await.expect("looked").rows, 0);
    let later = at(6).plus(month).plus(Duration::from_secs(1));
    // A job whose id is needed longer is kept.
    assert_eq!(journal.forget_done(later, month).await.expect("forgotten").rows, 2);
    assert!(journal.lookup(&id("old")).await.expect("a look").is_none());
    for kept in ["due-later", "unfinished"] {
        assert!(journal.lookup(&id(kept)).await.expect("a look").is_some(), "{kept}");
    }
}
