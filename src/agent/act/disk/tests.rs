use super::judge::*;
use super::*;
use crate::container::{ContainerId, Error as EngineError};
use crate::ids::Address;

const MIB: u64 = 1 << 20;

fn job(id: &str, output_mib: u64, layer_mib: u64) -> (Running, Written) {
    let running = Running {
        id: id.parse().unwrap(),
        attempt: 1,
        container: id.to_owned(),
        disk_bytes: 100 * MIB,
    };
    let (output, layer) = (output_mib * MIB, layer_mib * MIB);
    let written = Written {
        output,
        layer,
        entries: 10,
        are_folders_whole: true,
        is_layer_whole: true,
        is_fresh: true,
        ..Written::default()
    };
    (running, written)
}

/// A disk that lacks 8 MiB.
const LACK: Option<Lack> = Some(Lack { bytes: 8 * MIB, inodes: 0, holds: Holds::All });

fn named(stops: &[(JobId, StopCause)]) -> Vec<(&str, StopCause)> {
    stops.iter().map(|(id, cause)| (id.as_str(), *cause)).collect()
}

/// Looks at intervals of one second.
#[derive(Default)]
struct Seconds(Looks, u64);

impl Seconds {
    fn judge(
        &mut self,
        jobs: &[(Running, Written)],
        lack: Option<Lack>,
        settles: bool,
    ) -> Vec<(JobId, StopCause)> {
        static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        self.1 += 1;
        self.0.judge(jobs, lack, settles, *BEGAN + Duration::from_secs(self.1))
    }
}

#[test]
fn a_job_is_stopped_for_the_sum_of_all_that_it_has_on_the_disk() {
    let part = |input: u64, log: u64, entries: u64| {
        let mut job = job("a", 30, 30);
        job.1 = Written { input: input * MIB, log: log * MIB, entries, ..job.1 };
        job
    };
    // The blocks of the file system itself are no reason.
    for well in [part(20, 20, 10), part(21, 20, 10), part(0, 0, 16_384)] {
        assert_eq!(
            Seconds::default().judge(std::slice::from_ref(&well), None, false),
            [],
            "{well:?}"
        );
    }
    for above in [part(22, 20, 10), part(20, 22, 10), part(0, 0, 16_385)] {
        let stops = Seconds::default().judge(&[above, job("b", 100, 0)], None, false);
        assert_eq!(named(&stops), [("a", StopCause::DiskExceeded)]);
    }
}

#[test]
fn the_files_that_a_job_may_have_follow_from_its_disk_mib_within_bounds() {
    assert_eq!(entries_max(8 * MIB), 16_384);
    assert_eq!(entries_max(4096 * MIB), 65_536);
    // The default: a million files are too many.
    assert_eq!(entries_max(51_200 * MIB), 500_000);
}

#[test]
fn a_layer_that_was_not_measured_now_is_no_reason() {
    let mut stale = job("a", 1, 101);
    stale.1.is_fresh = false;
    assert!(stale.1.is_above(&stale.0) && !stale.1.is_surely_above(&stale.0));
    assert_eq!(Seconds::default().judge(&[stale.clone()], None, false), []);
    stale.1.output = 102 * MIB;
    assert_eq!(Seconds::default().judge(&[stale], None, false).len(), 1);
}

#[test]
fn a_look_is_due_after_a_rest_or_when_the_nearest_job_may_have_used_its_room() {
    let began = Instant::now();
    let at = |ms: u64| began + Duration::from_millis(ms);
    let room = |mib: u64, inodes: u64| Room { mib, inodes };
    let rooms = |mib: u64| vec![room(1000, 9_000_000), room(mib, 9_000_000)];
    let mut pace = Pace::default();
    let left = (400 * MIB, 100_000);
    assert_eq!(pace.due(&rooms(500), left, at(0)), Some(Haste::Calm), "the first one");
    pace.looked(rooms(500), at(1000), at(100));
    assert_eq!(pace.due(&rooms(401), left, at(500)), None, "less than a quarter went");
    assert_eq!(pace.due(&rooms(400), left, at(50)), None, "the last look took long");
    assert_eq!(pace.due(&rooms(400), left, at(500)), Some(Haste::Some));
    assert_eq!(pace.due(&rooms(499), (0, 0), at(500)), Some(Haste::Some), "near its limit");
    let fewer = vec![room(1000, 9_000_000), room(500, 9_000_000 - 25_000)];
    assert_eq!(pace.due(&fewer, left, at(500)), Some(Haste::Some), "files");
    assert_eq!(pace.due(&rooms(900), left, at(999)), None, "others freed space");
    assert_eq!(pace.due(&rooms(900), left, at(1000)), Some(Haste::Calm));
}

#[test]
fn on_a_full_disk_the_greediest_job_goes_where_that_helps() {
    let jobs = [job("a", 30, 30), job("b", 50, 0), job("c", 1, 0)];
    let mut looks = Seconds::default();
    assert_eq!(looks.judge(&jobs, LACK, false), []);
    assert_eq!(named(&looks.judge(&jobs, LACK, false)), [("a", StopCause::DiskFull)]);
    // Something else has filled the disk: stopping this job would not free enough.
    for _ in 0..3 {
        assert_eq!(looks.judge(&[job("c", 1, 0)], LACK, false), []);
    }
    let hidden = (
        job("d", 0, 0).0,
        Written { are_folders_whole: false, is_layer_whole: true, ..Written::default() },
    );
    let jobs = [jobs[0].clone(), hidden];
    assert_eq!(named(&looks.judge(&jobs, LACK, false)), [("d", StopCause::DiskFull)]);
}

#[test]
fn where_the_engine_has_a_disk_of_its_own_only_what_lies_on_the_full_one_counts() {
    let room = |mib: u64| Room { mib, inodes: u64::MAX };
    let victim = |own: u64, engines: u64, are_apart: bool| {
        let lack = Lack::of_first(&[room(own), room(engines)], are_apart, 8).unwrap();
        greediest(&[job("out", 90, 9), job("layer", 0, 95)], lack).unwrap().to_string()
    };
    assert_eq!(victim(9, 0, true), "layer");
    assert_eq!(victim(0, 9, true), "out");
    assert_eq!(victim(0, 0, true), "out", "both are full");
    assert_eq!(victim(0, 0, false), "out", "they are one");
    assert_eq!(Lack::of_first(&[room(9), room(9)], true, 8), None);
    // Inodes too: a layer's files are none of the jobs' folders.
    let lack = Lack { bytes: 0, inodes: 5, holds: Holds::Folders };
    let (mut output, mut layer) = (job("out", 0, 0), job("layer", 0, 0));
    (output.1.entries, layer.1.layer_entries) = (20, 900);
    assert_eq!(greediest(&[output, layer], lack).unwrap().as_str(), "out");
}

#[test]
fn the_files_of_an_input_are_no_reason_to_stop_its_job() {
    let mut job = job("a", 1, 1);
    job.1.input_entries = 20_000;
    assert_eq!(Seconds::default().judge(std::slice::from_ref(&job), None, false), []);
    job.1.layer_entries = 16_384;
    assert_eq!(Seconds::default().judge(&[job], None, false).len(), 1);
}

#[test]
fn nobody_else_is_stopped_while_room_is_about_to_be_given_back() {
    let jobs = [job("a", 60, 0), job("b", 50, 0)];
    let mut looks = Seconds::default();
    assert_eq!(looks.judge(&jobs, LACK, false), []);
    assert_eq!(named(&looks.judge(&jobs, LACK, false)), [("a", StopCause::DiskFull)]);
    let others = &jobs[1..];
    for second in 0..SETTLE_MAX.as_secs() {
        assert_eq!(looks.judge(others, LACK, true), [], "after {second} s");
    }
    // The space was freed and the disk fills again: it takes two looks again.
    assert_eq!(looks.judge(others, LACK, false), []);
    assert_eq!(named(&looks.judge(others, LACK, false)), [("b", StopCause::DiskFull)]);
}

#[test]
fn room_that_never_comes_back_is_not_waited_for_for_ever() {
    let jobs = [job("b", 50, 0)];
    let mut looks = Seconds::default();
    let waited = (1..200).find(|_| !looks.judge(&jobs, LACK, true).is_empty());
    assert_eq!(waited, Some(SETTLE_MAX.as_secs() + 2));
}

#[test]
fn a_disk_that_had_room_in_between_is_at_its_first_look_again() {
    let jobs = [job("a", 60, 0)];
    let mut looks = Seconds::default();
    assert_eq!(looks.judge(&jobs, LACK, false), []);
    looks.0.rested();
    assert_eq!(looks.judge(&jobs, LACK, false), []);
}

#[tokio::test]
async fn a_layer_that_can_not_be_measured_makes_its_job_the_greediest_and_an_engine_away_none() {
    use crate::container::fake::{Call, Fake};

    let dir = tempfile::tempdir().unwrap();
    let folders = Folders::create(dir.path()).unwrap();
    let engine = Fake::new(Duration::ZERO, Vec::new());
    let log_of = |_: &Running| 7;
    let eyes =
        Eyes { runtime: &engine, folders: &folders, node: Address::new([1; 20]), log_of: &log_of };
    let mut known = Known::new();
    let look = async |error: EngineError, known: &mut Known, haste: Haste| {
        engine.fail(Call::Written, error);
        eyes.measure(vec![job("a", 0, 0).0], known, haste).await
    };
    let broken = || EngineError::Engine { reason: "too many links".to_owned() };
    let away = || EngineError::Unreachable { host: "unix:///x".to_owned(), source: "no".into() };
    let seen = look(broken(), &mut known, Haste::Calm).await;
    assert!(!seen.jobs[0].1.is_whole() && !seen.is_engine_away, "{seen:?}");
    assert_eq!(seen.jobs[0].1.log, 7);
    // Not due again so soon, except on a full disk.
    let seen = look(broken(), &mut known, Haste::Calm).await;
    assert!(seen.jobs[0].1.is_whole() && !seen.jobs[0].1.is_fresh, "{seen:?}");
    let seen = eyes.measure(vec![job("a", 0, 0).0], &mut known, Haste::All).await;
    assert!(!seen.jobs[0].1.is_whole(), "{seen:?}");
    let seen = look(away(), &mut known, Haste::All).await;
    assert!(seen.jobs[0].1.is_whole() && seen.is_engine_away, "{seen:?}");
    // A job whose container is gone can't be stopped.
    engine.fail(Call::Written, EngineError::Gone(ContainerId("a".to_owned())));
    let seen = eyes.measure(vec![job("a", 0, 0).0], &mut known, Haste::All).await;
    assert!(seen.jobs.is_empty(), "{seen:?}");
}

#[test]
fn inodes_run_out_as_well_as_blocks() {
    assert_eq!(Lack::of(Room { mib: 9, inodes: FULL_INODES }, 8), None);
    let lack = Lack::of(Room { mib: 9, inodes: 24 }, 8);
    assert_eq!(lack, Some(Lack { bytes: 0, inodes: 1000, holds: Holds::All }));
    let mut many = job("many", 1, 0);
    many.1.entries = 5000;
    assert_eq!(greediest(&[job("big", 90, 0), many], lack.unwrap()).unwrap().as_str(), "many");
    assert_eq!(Lack::of(Room { mib: 9, inodes: u64::MAX }, 8), None);
}
