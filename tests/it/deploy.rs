//! What deploy/ offers, looked at by the programs that will read it: systemd, the shell, a reader of YAML.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::tools::{Running, eventually, tool};

/// How long something that takes a moment may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the units think that the program is.
const INSTALLED: &str = "/usr/local/bin/lamda-node";

/// The highest exposure that systemd may see in a service of ours, in tenths (100 is all).
const EXPOSURES: [(&str, u32); 3] = [
    ("lamda-node-hub.service", 15),
    ("sidecar/lamda-node-sidecar.service", 21),
    ("sidecar/lamda-node-sidecar-beat.service", 29),
];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).expect(path)
}

/// A folder with these units as they are installed, but with a program that is there.
fn installed(units: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for unit in units {
        let name = unit.rsplit('/').next().expect("a name");
        let text = text(unit).replace(INSTALLED, &tool("true").display().to_string());
        std::fs::write(dir.path().join(name), text).expect("a unit");
    }
    dir
}

/// What a program of systemd says of the units of a folder, and whether it likes them.
fn analyzed(dir: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(tool("systemd-analyze"));
    let ended = command.args(arguments).current_dir(dir).output().expect("systemd-analyze");
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn systemd_finds_no_fault_with_a_unit_of_the_sidecar() {
    let units = [
        "lamda-node-sidecar.service",
        "lamda-node-sidecar-beat.service",
        "lamda-node-sidecar-beat.timer",
    ];
    let dir =
        installed(&units.map(|unit| format!("sidecar/{unit}")).each_ref().map(String::as_str));
    let paths = units.map(|unit| format!("./{unit}"));
    let arguments: Vec<&str> =
        ["verify", "--man=no"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    let (is_good, said) = analyzed(dir.path(), &arguments);
    // It looks at what the units need, too.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("lamda-node")).collect();
    assert!(is_good && ours.is_empty(), "{said}");
}

#[test]
fn a_service_of_ours_may_do_little_on_its_host() {
    for (unit, most) in EXPOSURES {
        let dir = installed(&[unit]);
        let name = unit.rsplit('/').next().expect("a name");
        let threshold = format!("--threshold={most}");
        let arguments = ["security", "--offline=true", "--no-pager", &threshold, name];
        let (is_good, said) = analyzed(dir.path(), &arguments);
        assert!(is_good && said.contains("Overall exposure level"), "{unit}: {said}");
    }
}

#[test]
fn the_composed_sidecar_reads_the_logs_has_no_engines_socket_and_answers_on_this_machine_alone() {
    let composed: Value =
        serde_saphyr::from_str(&text("sidecar/docker-compose.yml")).expect("YAML");
    let sidecar = &composed["services"]["sidecar"];
    let list = |value: &Value| -> Vec<String> {
        let items = value.as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
    };
    let volumes = list(&sidecar["volumes"]);
    assert!(volumes.contains(&"logs:/watched/logs:ro".to_owned()), "{volumes:?}");
    assert!(!volumes.iter().any(|volume| volume.contains("sock")), "{volumes:?}");
    assert_eq!(list(&sidecar["ports"]), ["127.0.0.1:8080:8080"]);
    assert_eq!(
        (list(&sidecar["cap_drop"]), sidecar["read_only"].as_bool()),
        (vec!["ALL".to_owned()], Some(true))
    );
    let watched = list(&composed["services"]["watched"]["volumes"]);
    assert!(watched.contains(&"logs:/logs".to_owned()), "{watched:?}");
    for service in ["sidecar", "watched"] {
        for volume in list(&composed["services"][service]["volumes"]) {
            let Some(file) = volume.strip_prefix("./") else { continue };
            let file = file.split(':').next().expect("a file");
            assert!(
                deploy("sidecar").join(file).is_file(),
                "{service} mounts {file}, which is not there"
            );
        }
    }
    assert!(!sidecar["user"].as_str().expect("a user").contains("root"));
}

#[test]
fn the_image_is_of_the_base_that_was_asked_for_and_its_program_is_not_root() {
    let text = text("sidecar/Dockerfile");
    let line = |start: &str| text.lines().position(|line| line.starts_with(start)).expect(start);
    assert!(
        line("ARG BASE=") < line("FROM ${BASE}") && line("USER 10001:10001") < line("ENTRYPOINT")
    );
    assert!(text.contains("/health") && line("HEALTHCHECK") > line("USER"));
    let ignored = std::fs::read_to_string(deploy("../.dockerignore")).expect(".dockerignore");
    for path in [".env", ".git", "target"] {
        assert!(ignored.lines().any(|line| line == path), "an image would get {path}");
    }
}

/// The composed program's log is what the sidecar reads: a stand-in in the form of a training node.
#[test]
fn the_stand_in_writes_a_log_of_the_swarms_form_until_it_is_asked_to_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("swarm_launcher.log");
    let mut command = Command::new(tool("sh"));
    let mut stand_in = Running::start(command.arg(deploy("sidecar/stand-in.sh")).arg(&log));
    let text = eventually("its first round", PATIENCE, || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("Joining round: 1").then_some(text)
    });
    for line in text.lines() {
        assert!(
            line.starts_with('[') && line.contains("][genrl.") && line.contains("][INFO] - "),
            "{line}"
        );
    }
    let pid = rustix::process::Pid::from_child(&stand_in.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    let ended = eventually("its end", PATIENCE, || stand_in.0.try_wait().expect("its state"));
    assert!(ended.success(), "{ended}");
}
