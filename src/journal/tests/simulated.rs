//! The journal on a simulated disk that loses power.

use std::sync::Arc;

use super::super::{Error, Journal, SCHEMA};
use crate::clock::Timestamp;
use crate::ids::{Address, Hash, JobId};
use crate::job::spec::Refused;
use crate::job::{Reason, Status};
use crate::sql::{Disk, Fate, Gate};

#[derive(Debug)]
struct Always(Fate);

impl Gate for Always {
    fn fate(&self, _: &'static str) -> Fate {
        self.0
    }
}

async fn refuse(disk: &Disk, fate: Fate, id: &str) -> Result<(), Error> {
    let id: JobId = id.parse().unwrap();
    let body_hash = Hash([1; 32]);
    let refused = Refused { id, body_hash, reason: Reason::NoGpu, error: String::new() };
    let status = Status::rejected(Address::new([1; 20]), &refused, Timestamp::default());
    Journal::simulated(disk, Arc::new(Always(fate))).refuse(&refused, status, true).await
}

async fn knows(disk: &Disk, id: &str) -> bool {
    let journal = Journal::simulated(disk, Arc::new(Always(Fate::Written)));
    journal.lookup(&id.parse().unwrap()).await.unwrap().is_some()
}

#[tokio::test]
async fn what_was_synced_survives_a_power_cut_and_what_was_not_answered_may_too() {
    use futures_util::FutureExt as _;
    let disk = Disk::new(&SCHEMA).unwrap();
    refuse(&disk, Fate::Written, "a").await.unwrap();
    assert!(refuse(&disk, Fate::DiesAfter, "b").now_or_never().is_none());
    assert!(refuse(&disk, Fate::DiesBefore, "c").now_or_never().is_none());
    refuse(&disk, Fate::Forgotten, "d").await.unwrap();
    assert!(matches!(refuse(&disk, Fate::Refused, "e").await, Err(Error::Full)));
    disk.lose_power().unwrap();
    let known = [("a", true), ("b", true), ("c", false), ("d", false), ("e", false)];
    for (id, expected) in known {
        assert_eq!(knows(&disk, id).await, expected, "{id}");
    }
}

#[tokio::test]
async fn what_was_not_synced_is_lost_by_a_power_cut_alone() {
    let disk = Disk::new(&SCHEMA).unwrap();
    refuse(&disk, Fate::Written, "a").await.unwrap();
    let journal = Journal::simulated(&disk, Arc::new(Always(Fate::Written)));
    let delivery =
        || async { journal.lookup(&"a".parse().unwrap()).await.unwrap().unwrap().delivery };
    journal
        .redelivered(&"a".parse().unwrap(), Some("x".to_owned()), Timestamp::default())
        .await
        .unwrap();
    assert_eq!(delivery().await.as_deref(), Some("x"));
    disk.lose_power().unwrap();
    assert_eq!(delivery().await, None);
}
