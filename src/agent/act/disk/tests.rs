use super::*;

const MIB: u64 = 1 << 20;

fn job(id: &str, output_mib: u64, layer_mib: u64) -> (Running, Written) {
    let running = Running {
        id: id.parse().unwrap(),
        attempt: 1,
        container: id.to_owned(),
        disk_bytes: 100 * MIB,
    };
    let (output, layer) = (output_mib * MIB, layer_mib * MIB);
    (running, Written { output, layer: Some(layer), entries: 10, is_whole: true })
}

/// A disk that lacks 8 MiB.
const LACK: Option<Lack> = Some(Lack { bytes: 8 * MIB, inodes: 0 });

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
fn a_job_above_its_limit_is_stopped_at_the_second_look_and_not_at_the_first() {
    for greedy in [job("a", 101, 0), job("a", 0, 101)] {
        let jobs = [greedy, job("b", 100, 100)];
        let mut looks = Seconds::default();
        assert_eq!(looks.judge(&jobs, None, false), []);
        let stops = looks.judge(&jobs, None, false);
        assert_eq!(named(&stops), [("a", StopCause::DiskExceeded)]);
        // A job that cleaned up in between starts over with its first look.
        assert_eq!(looks.judge(&[job("a", 1, 0)], None, false), []);
        assert_eq!(looks.judge(&jobs, None, false), []);
    }
}

#[test]
fn a_layer_is_above_the_limit_only_where_two_measurements_say_so() {
    let large = [job("a", 0, 101)];
    let mut unknown = large.clone();
    unknown[0].1.layer = None;
    let mut looks = Seconds::default();
    assert_eq!(looks.judge(&large, None, false), []);
    for _ in 0..20 {
        assert_eq!(looks.judge(&unknown, None, false), [], "nothing was measured");
    }
    assert_eq!(named(&looks.judge(&large, None, false)), [("a", StopCause::DiskExceeded)]);
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
    let hidden = (job("d", 0, 0).0, Written { is_whole: false, ..Written::default() });
    let jobs = [jobs[0].clone(), hidden];
    assert_eq!(named(&looks.judge(&jobs, LACK, false)), [("d", StopCause::DiskFull)]);
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
    let eyes = Eyes { runtime: &engine, folders: &folders, node: Address::new([1; 20]) };
    let mut layers = Layers::new();
    let look = async |error: EngineError, layers: &mut Layers, all: bool| {
        engine.fail(Call::Written, error);
        eyes.measure(vec![job("a", 0, 0).0], layers, all).await
    };
    let broken = || EngineError::Engine { reason: "too many links".to_owned() };
    let away = || EngineError::Unreachable { host: "unix:///x".to_owned(), source: "no".into() };
    let seen = look(broken(), &mut layers, false).await;
    assert!(!seen.jobs[0].1.is_whole && !seen.is_engine_away, "{seen:?}");
    // Not due again so soon, except on a full disk.
    let seen = look(broken(), &mut layers, false).await;
    assert!(seen.jobs[0].1.is_whole && seen.jobs[0].1.layer.is_none(), "{seen:?}");
    let seen = eyes.measure(vec![job("a", 0, 0).0], &mut layers, true).await;
    assert!(!seen.jobs[0].1.is_whole, "{seen:?}");
    let seen = look(away(), &mut layers, true).await;
    assert!(seen.jobs[0].1.is_whole && seen.is_engine_away, "{seen:?}");
    // A job whose container is gone can't be stopped.
    let seen = eyes.measure(vec![job("a", 0, 0).0], &mut layers, true).await;
    assert!(seen.jobs.is_empty(), "{seen:?}");
}

#[test]
fn inodes_run_out_as_well_as_blocks() {
    assert_eq!(Lack::of(Room { mib: 9, inodes: FULL_INODES }, 8), None);
    let lack = Lack::of(Room { mib: 9, inodes: 24 }, 8);
    assert_eq!(lack, Some(Lack { bytes: 0, inodes: 1000 }));
    let mut many = job("many", 1, 0);
    many.1.entries = 5000;
    assert_eq!(greediest(&[job("big", 90, 0), many], lack.unwrap()).unwrap().as_str(), "many");
    assert_eq!(Lack::of(Room { mib: 9, inodes: u64::MAX }, 8), None);
}
