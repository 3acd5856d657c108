//! Folders laid out as the program and its containers lay them out.

use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::clock::SystemClock;
use crate::watch::discover::discover;

const PEER: &str = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";
const ACCOUNT: &str = "0x00000000000000000000000000000000000000aa";
const CONTRACT: &str = "0xFaD7C5e93f28257429569B854151A1B8DCD404c2";

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A repository in a folder of the machine's, as one that was run by hand leaves it.
fn repository(place: &Path) -> PathBuf {
    let root = place.join("rl-swarm");
    write(&root.join("run_rl_swarm.sh"), &format!("export SWARM_CONTRACT=\"{CONTRACT}\"\n"));
    let hello = format!("[2025-08-05 02:04:54,237][genrl][INFO] - 🐝 Hello [a b c] [{PEER}]!\n");
    write(&root.join("logs/swarm_launcher.log"), &hello);
    write(&root.join("logs/yarn.log"), "ready\n");
    let login = format!(r#"{{"org": {{"email": "rig@example.com", "address": "{ACCOUNT}"}}}}"#);
    write(&root.join("modal-login/temp-data/userData.json"), &login);
    write(&root.join("modal-login/temp-data/userApiKey.json"), "{}");
    write(&root.join("swarm.pem"), "key");
    root
}

fn look(asked: &[PathBuf], places: &[PathBuf]) -> Found {
    let asked = Asked { folders: asked.to_vec(), command: None };
    let mut found = look_around_in(&SystemClock, &asked, places);
    // Whatever else runs on this machine, the programs of other tests among it.
    found.processes.clear();
    let ours: Vec<PathBuf> =
        asked.folders.iter().chain(places).filter_map(|it| it.canonicalize().ok()).collect();
    found.roots.retain(|root| ours.iter().any(|place| Path::new(&root.path).starts_with(place)));
    found.could_not.retain(|it| !it.starts_with("Not all processes"));
    found
}

#[test]
fn a_repository_is_found_with_its_log_its_peer_its_account_and_its_contract() {
    let home = tempfile::tempdir().unwrap();
    let path = repository(home.path()).canonicalize().unwrap();
    let found = look(&[], &[home.path().to_owned(), home.path().join("none")]);
    let wanted = Root {
        path: path.display().to_string(),
        logs: Some(path.join("logs").display().to_string()),
        log_files: vec!["swarm_launcher.log".to_owned(), "yarn.log".to_owned()],
        account: Some(ACCOUNT.to_owned()),
        peer: Some(PEER.to_owned()),
        contract: Some(CONTRACT.to_owned()),
    };
    assert_eq!(found, Found { roots: vec![wanted], ..Found::default() });
    let toml = discover(&found).toml;
    assert!(!toml.contains("example.com"), "{toml}");
}

#[test]
fn a_folder_that_was_asked_for_counts_once_and_one_of_something_else_is_told() {
    let home = tempfile::tempdir().unwrap();
    let path = repository(home.path());
    let link = home.path().join("rl-swarm-link");
    symlink(&path, &link).unwrap();
    let other = home.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let found = look(&[link, path, other], &[home.path().to_owned()]);
    assert_eq!(found.roots.len(), 1);
    assert_eq!(found.could_not.len(), 1);
    assert!(found.could_not[0].ends_with("/other: it is no folder of such a program."));
}

#[test]
fn the_layout_of_the_containers_is_known_too() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("rl-swarm");
    write(
        &root.join("code_gen_exp/config/code-gen-swarm.yaml"),
        &format!("contract_address: {CONTRACT}\n"),
    );
    write(
        &root.join("user/logs/swarm_launcher.log"),
        &format!("Peer ID [{PEER}] is already registered!\n"),
    );
    write(&root.join("user/modal-login/userData.json"), &format!(r#"{{"address": "{ACCOUNT}"}}"#));
    let found = look(&[root], &[]);
    let root = &found.roots[0];
    assert!(root.logs.as_ref().unwrap().ends_with("/user/logs"));
    assert_eq!((root.peer.as_deref(), root.account.as_deref()), (Some(PEER), Some(ACCOUNT)));
    assert_eq!(root.contract.as_deref(), Some(CONTRACT));
}

#[test]
fn files_with_private_keys_are_never_opened_also_not_by_way_of_links() {
    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
    let home = tempfile::tempdir().unwrap();
    let path = repository(home.path());
    let hello = format!("Hello [a] [{PEER}]\n");
    for (secret, links) in [
        ("swarm.pem", ["logs/swarm_launcher.log", "run_rl_swarm.sh"]),
        (
            "modal-login/temp-data/userApiKey.json",
            ["logs/swarm.log", "modal-login/temp-data/userData.json"],
        ),
    ] {
        std::fs::write(path.join(secret), &hello).unwrap();
        for link in links {
            std::fs::remove_file(path.join(link)).ok();
            symlink(path.join(secret), path.join(link)).unwrap();
        }
    }
    let watch = init(CreateFlags::NONBLOCK).unwrap();
    for secret in SECRETS {
        let secret = if secret == "swarm.pem" {
            path.join(secret)
        } else {
            path.join("modal-login/temp-data").join(secret)
        };
        add_watch(&watch, secret, WatchFlags::OPEN | WatchFlags::ACCESS).unwrap();
    }
    let found = look(&[], &[home.path().to_owned()]);
    assert_eq!((found.roots[0].peer.as_deref(), found.roots[0].account.as_deref()), (None, None));
    assert!(found.could_not.iter().any(|it| it.contains("leads to a private key")), "{found:?}");
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let seen = Reader::new(&watch, &mut buffer).next().map(|event| event.events());
    assert_eq!(seen, Err(rustix::io::Errno::AGAIN), "a private key was opened");
    std::fs::read(path.join("swarm.pem")).unwrap();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    assert!(Reader::new(&watch, &mut buffer).next().is_ok(), "the watch works");
}

#[test]
fn logs_that_are_folders_fifos_loops_or_endless_cost_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = repository(home.path());
    let log = path.join("logs/swarm_launcher.log");
    std::fs::remove_file(&log).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &log, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    symlink("swarm.log", path.join("logs/swarm.log")).unwrap();
    std::fs::remove_file(path.join("run_rl_swarm.sh")).unwrap();
    std::fs::create_dir(path.join("run_rl_swarm.sh")).unwrap();
    let found = look(&[], &[home.path().to_owned()]);
    assert_eq!((found.roots.len(), found.could_not.len()), (1, 3), "{:?}", found.could_not);
    // 8 MiB of other words between the beginning and the end.
    std::fs::remove_file(&log).unwrap();
    let newest = "QmWhiaLrx3HRZfgXc2i7KW5nMUNK7P9tRc71yFJdGEZKkC";
    let filler = "\0 not a line of ours\n".repeat(400_000);
    write(&log, &format!("Hello [a] [{PEER}]\n{filler}Hello [a] [{newest}]\n"));
    let found = look(&[], &[home.path().to_owned()]);
    assert_eq!(found.roots[0].peer.as_deref(), Some(newest));
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_process_leads_to_its_repository_wherever_that_is() {
    assert!(Pattern::new(KNOWN).is_ok());
    let home = tempfile::tempdir().unwrap();
    let path = repository(home.path()).canonicalize().unwrap();
    let inner = path.join("code_gen_exp");
    std::fs::create_dir(&inner).unwrap();
    // Any program that waits, under the name of the launcher.
    let python = home.path().join("python3");
    symlink("/bin/sh", &python).unwrap();
    let mut command = Command::new(&python);
    command.args(["-c", "read x", "code_gen_exp.runner.swarm_launcher"]);
    let program = Program(command.current_dir(&inner).stdin(Stdio::piped()).spawn().unwrap());
    let found = look_around_in(&SystemClock, &Asked::default(), &[]);
    let process = found.processes.iter().find(|it| it.pid == program.0.id()).unwrap();
    assert_eq!((process.kind, process.folder.as_deref()), (Kind::Hydra, inner.to_str()));
    assert!(found.roots.iter().any(|root| Path::new(&root.path) == path));
    let asked = Asked { command: Pattern::new("read x code_gen").ok(), ..Asked::default() };
    let found = look_around_in(&SystemClock, &asked, &[]);
    let kinds: Vec<_> = found.processes.iter().filter(|it| it.pid == program.0.id()).collect();
    assert_eq!(kinds.len(), 1, "found by both, told once");
}
