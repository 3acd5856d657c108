use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// What a kernel of version 2 shows of a group with one container, shortened.
const V2: [(&str, &str); 11] = [
    ("cpu.stat", "usage_usec 81234\nuser_usec 70000\nsystem_usec 11234\nnr_periods 0\n"),
    ("memory.current", "73400320\n"),
    ("memory.stat", "anon 50331648\nfile 20971520\ninactive_file 10485760\nactive_file 10485760\n"),
    ("memory.peak", "99614720\n"),
    ("memory.swap.current", "0\n"),
    ("io.stat", "259:0 rbytes=4096 wbytes=12288 rios=1 wios=3 dbytes=0 dios=0\n"),
    ("pids.current", "12\n"),
    (
        "cpu.pressure",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    ),
    ("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=78\n"),
    ("io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=79\n"),
    ("c0ffee/cgroup.procs", ""),
];

/// Which metrics come from the file of this name.
fn of(file: &str) -> &'static [Metric] {
    match file {
        "cpu.stat" => &[Metric::Cpu],
        "memory.current" | "memory.stat" => &[Metric::Memory],
        "memory.peak" => &[Metric::MemoryPeak],
        "memory.swap.current" => &[Metric::Swap],
        "io.stat" => &[Metric::DiskRead, Metric::DiskWrite],
        "pids.current" => &[Metric::Threads],
        "cpu.pressure" => &[Metric::CpuPressure],
        "memory.pressure" => &[Metric::MemoryPressure],
        "io.pressure" => &[Metric::IoPressure],
        _ => &[Metric::Processes, Metric::Descriptors],
    }
}

fn tree() -> TempDir {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
    fs::create_dir_all(root.path().join("lamda/job-1/c0ffee")).unwrap();
    for (name, text) in V2 {
        fs::write(root.path().join("lamda/job-1").join(name), text).unwrap();
    }
    root
}

fn place() -> Place {
    Place::Parent { path: "/lamda/job-1".to_owned(), container: "c0ffee".to_owned() }
}

#[test]
fn version_2_tells_of_all_that_ran_in_the_group() {
    let root = tree();
    let mut group = Group::open_at(root.path(), &place()).unwrap();
    let told = group.read(|_| true);
    let expected = [
        (Metric::Cpu, 81_234),
        (Metric::Memory, 62_914_560),
        (Metric::MemoryPeak, 99_614_720),
        (Metric::Swap, 0),
        (Metric::CpuPressure, 77),
        (Metric::MemoryPressure, 78),
        (Metric::IoPressure, 79),
        (Metric::DiskRead, 4096),
        (Metric::DiskWrite, 12_288),
        (Metric::Processes, 0),
        (Metric::Threads, 12),
        (Metric::Descriptors, 0),
    ];
    for (metric, value) in expected {
        assert_eq!(told[metric], Ok(value), "{}", metric.name());
    }
    assert_eq!(told[Metric::NetRx], Err(Unknown::Gone), "no process, no network");
}

#[test]
fn what_is_not_asked_for_is_not_read() {
    let root = tree();
    let mut group = Group::open_at(root.path(), &place()).unwrap();
    let told = group.read(|metric| metric == Metric::Cpu);
    for metric in Metric::ALL {
        let expected = if metric == Metric::Cpu { Ok(81_234) } else { Err(Unknown::Off) };
        assert_eq!(told[metric], expected, "{}", metric.name());
    }
}

#[test]
fn after_the_end_only_sums_and_the_peak_are_told() {
    let root = tree();
    let mut group = Group::open_at(root.path(), &place()).unwrap();
    fs::remove_dir_all(root.path().join("lamda/job-1/c0ffee")).unwrap();
    let told = group.read_last(|metric| metric != Metric::NetRx && metric != Metric::NetTx);
    assert_eq!(told[Metric::Cpu], Ok(81_234));
    assert_eq!(told[Metric::MemoryPeak], Ok(99_614_720));
    assert_eq!(told[Metric::Memory], Err(Unknown::Gone));
    assert_eq!(told[Metric::Processes], Err(Unknown::Gone));
    assert_eq!(told[Metric::NetRx], Err(Unknown::Off));
}

#[test]
fn a_group_that_is_not_there_and_a_path_that_leads_out_are_refused() {
    let root = tree();
    let at = |path: &str| Place::Parent { path: path.to_owned(), container: "c0ffee".to_owned() };
    assert_eq!(Group::open_at(root.path(), &at("/lamda/job-2")).err(), Some(Unknown::Gone));
    for path in ["", "/", "/lamda/../../etc", "."] {
        assert_eq!(Group::open_at(root.path(), &at(path)).err(), Some(Unknown::Failed), "{path}");
        assert!(remove_at(root.path(), path).is_err(), "{path}");
    }
}

#[test]
fn a_group_is_removed_unless_something_is_in_it() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("cgroup.controllers"), "").unwrap();
    fs::create_dir_all(root.path().join("lamda/job-1/c0ffee")).unwrap();
    assert!(remove_at(root.path(), "/lamda/job-1").is_err());
    fs::remove_dir(root.path().join("lamda/job-1/c0ffee")).unwrap();
    remove_at(root.path(), "/lamda/job-1").unwrap();
    assert!(!root.path().join("lamda/job-1").exists());
    remove_at(root.path(), "/lamda/job-1").unwrap();
}

proptest! {
    /// A file that is missing, empty or nonsense makes its metrics unknown, never 0, and no other ones.
    #[test]
    fn a_bad_file_makes_unknown_what_it_tells_and_nothing_else(
        bad in prop::sample::subsequence((0..V2.len() - 1).collect::<Vec<_>>(), 0..V2.len()),
        text in prop::option::of("[a-z\\n ]{0,40}"),
    ) {
        let root = tree();
        for file in &bad {
            let path = root.path().join("lamda/job-1").join(V2[*file].0);
            match &text {
                None => fs::remove_file(path).unwrap(),
                Some(text) => fs::write(path, text).unwrap(),
            }
        }
        let told = Group::open_at(root.path(), &place()).unwrap().read(|_| true);
        for (at, (name, _)) in V2.iter().enumerate() {
            // An empty `io.stat` is what a group has that never used a disk.
            let is_good =
                !bad.contains(&at) || (*name == "io.stat" && text.as_ref().is_some_and(String::is_empty));
            let sibling = ["memory.current", "memory.stat"];
            let pair_bad = sibling.contains(name)
                && V2.iter().enumerate().any(|(at, (name, _))| sibling.contains(name) && bad.contains(&at));
            for metric in of(name) {
                if is_good && !pair_bad {
                    prop_assert!(told[*metric].is_ok(), "{}", metric.name());
                } else {
                    prop_assert!(told[*metric].is_err(), "{}: {:?}", metric.name(), told[*metric]);
                }
            }
        }
    }
}

#[test]
fn a_programs_own_group_ends_with_its_unit_or_container_and_another_ones_is_not_its() {
    let up_to =
        |path: &str, name: &str| up_to(Path::new(path), name).map(|it| it.display().to_string());
    let id = "c0ffee".repeat(11);
    let unit = "system.slice/rl-swarm.service";
    assert_eq!(up_to(&format!("{unit}/worker"), "rl-swarm.service").as_deref(), Some(unit));
    assert_eq!(up_to(unit, "swarm.service"), None, "a part of a name is another unit");
    let scope = format!("system.slice/docker-{id}.scope");
    assert_eq!(up_to(&format!("{scope}/init"), &id), Some(scope));
    assert_eq!(up_to("system.slice", &id), None);
    assert_eq!(Group::around(std::process::id(), "no-such.service").err(), Some(Unknown::Gone));
}
