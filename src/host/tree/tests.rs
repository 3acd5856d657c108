use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::mkdirat;
use rustix::process::{Resource, getrlimit};

use super::*;

/// A folder in memory: on a disk, each folder takes milliseconds to remove.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Creates nested folders below `at`, and a file in the innermost.
fn nest(at: &Path, levels: usize) {
    let mut folder = openat(CWD, at, FOLDER, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&folder, "d", Mode::RWXU).unwrap();
        folder = openat(&folder, "d", FOLDER, Mode::empty()).unwrap();
    }
    let new = OFlags::CREATE | OFlags::WRONLY;
    drop(openat(&folder, "end", new, Mode::RWXU).unwrap());
}

/// Removes everything on a stack as small as any task's; returns the number of steps.
fn clear(at: &Path, entries_max: usize) -> usize {
    let at = at.to_owned();
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    let cleared = small.spawn(move || {
        let mut clearing = Clearing::of(&at).unwrap();
        let mut steps = 1;
        while !matches!(clearing.step(entries_max).unwrap(), Cleared::All) {
            steps += 1;
            assert!(steps < 10_000, "it gets nowhere");
        }
        steps
    });
    cleared.unwrap().join().unwrap()
}

/// Runs this test again in a process of its own that may have at most `count` files open: the limit
/// is per process, and other tests run in this one.
fn with_descriptors(count: u64, test: &str) {
    let run = std::process::Command::new("sh")
        .args(["-c", &format!("ulimit -n {count}; exec \"$0\" --exact \"$1\"")])
        .arg(std::env::current_exe().unwrap())
        .arg(format!("host::tree::tests::{test}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_hundred_thousand_folders_in_one_another_go_with_256_descriptors() {
    const DESCRIPTORS: u64 = 256;
    if getrlimit(Resource::Nofile).current != Some(DESCRIPTORS) {
        let own = "a_hundred_thousand_folders_in_one_another_go_with_256_descriptors";
        return with_descriptors(DESCRIPTORS, own);
    }
    let dir = folder();
    nest(dir.path(), 100_000);
    let usage = usage(dir.path(), u64::MAX, Duration::from_mins(1)).unwrap();
    assert!(!usage.is_whole && usage.entries >= 60, "{usage:?}");
    sync(dir.path()).expect("what lies deeper is in no output");
    let steps = clear(dir.path(), 1000);
    assert!(steps > 100, "{steps} steps of a thousand entries");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_hundred_thousand_entries_in_one_folder_go_and_so_do_folders_beside_one_another() {
    let dir = folder();
    for sub in ["a", "b", "c"] {
        fs::create_dir_all(dir.path().join(sub).join("below")).unwrap();
    }
    for n in 0..100_000 {
        fs::File::create(dir.path().join("b").join(n.to_string())).unwrap();
    }
    let part = usage(dir.path(), 5000, Duration::from_mins(1)).unwrap();
    assert!(!part.is_whole && part.entries == 5000, "{part:?}");
    clear(dir.path(), 1000);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_can_not_go_holds_nothing_else_up() {
    let dir = folder();
    let root_only = rustix::process::geteuid().is_root();
    fs::create_dir_all(dir.path().join("closed/in")).unwrap();
    fs::set_permissions(dir.path().join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
    clear(dir.path(), 7);
    assert!(Path::new("/etc/passwd").exists());
    if !root_only {
        return;
    }
    // A mount point can be neither removed nor moved.
    let stuck = dir.path().join("stuck/mount");
    fs::create_dir_all(&stuck).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "lamda-test"])
        .arg(&stuck)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    for n in 0..100 {
        fs::create_dir_all(dir.path().join(format!("{n}/below"))).unwrap();
    }
    let mut clearing = Clearing::of(dir.path()).unwrap();
    let end = loop {
        match clearing.step(10).unwrap() {
            Cleared::More => {}
            end => break end,
        }
    };
    std::process::Command::new("umount").arg(dir.path().join("stuck/mount")).status().unwrap();
    assert!(matches!(end, Cleared::Stuck(_)), "{end:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the rest went");
}

#[test]
fn folders_that_nobody_may_write_to_go_though_the_node_is_a_plain_user() {
    const NOBODY: u32 = 65_534;
    let dir = folder();
    let top = dir.path().to_owned();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&top, Some(NOBODY), None).unwrap();
    }
    let work = move || {
        if rustix::process::geteuid().is_root() {
            // From here on, this thread alone runs as another user.
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
        }
        fs::create_dir_all(top.join("a/b/c/d")).unwrap();
        fs::write(top.join("a/b/c/file"), "x").unwrap();
        for closed in ["a/b/c/d", "a/b/c", "a/b", "a"] {
            fs::set_permissions(top.join(closed), fs::Permissions::from_mode(0o555)).unwrap();
        }
        let mut clearing = Clearing::of(&top).unwrap();
        loop {
            match clearing.step(10).unwrap() {
                Cleared::More => {}
                end => break format!("{end:?}"),
            }
        }
    };
    assert_eq!(std::thread::spawn(work).join().unwrap(), "All");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_goes_while_it_is_measured_takes_up_nothing() {
    let dir = folder();
    let gone = usage(&dir.path().join("gone"), 100, Duration::from_mins(1)).unwrap();
    assert_eq!(gone, Usage { is_whole: true, ..Usage::default() });
    // Another thread creates and removes folders, as builds do.
    let (top, is_over) = (dir.path().to_owned(), std::sync::atomic::AtomicBool::new(false));
    let looks = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                for n in 0..50 {
                    fs::create_dir_all(top.join(format!("{n}/in"))).unwrap();
                }
                for n in 0..50 {
                    fs::remove_dir_all(top.join(n.to_string())).unwrap();
                    fs::write(top.join(n.to_string()), "").unwrap();
                    fs::remove_file(top.join(n.to_string())).unwrap();
                }
            }
        });
        let looks = (0..3000)
            .map(|_| usage(dir.path(), 10_000, Duration::from_mins(1)).unwrap().is_whole)
            .filter(|is_whole| *is_whole)
            .count();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        looks
    });
    assert_eq!(looks, 3000, "looks that saw something strange");
}

#[test]
fn a_folder_is_measured_as_it_lies_on_disk() {
    let dir = folder();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::write(dir.path().join("in/file"), vec![1; 1 << 20]).unwrap();
    fs::hard_link(dir.path().join("in/file"), dir.path().join("again")).unwrap();
    let sparse = fs::File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
    let usage = usage(dir.path(), 100, Duration::from_mins(1)).unwrap();
    assert!(usage.is_whole && usage.entries == 5, "{usage:?}");
    assert!((1 << 20..(1 << 20) + 65_536).contains(&usage.bytes), "{usage:?}");
}

#[test]
fn paths_longer_than_the_kernel_takes_are_synced() {
    let dir = folder();
    let name = "x".repeat(255);
    let mut folder = openat(CWD, dir.path(), FOLDER, Mode::empty()).unwrap();
    for _ in 0..40 {
        mkdirat(&folder, &*name, Mode::RWXU).unwrap();
        folder = openat(&folder, &*name, FOLDER, Mode::empty()).unwrap();
    }
    let new = OFlags::CREATE | OFlags::WRONLY;
    drop(openat(&folder, "end", new, Mode::RWXU).unwrap());
    sync(dir.path()).unwrap();
    clear(dir.path(), 100);
}
