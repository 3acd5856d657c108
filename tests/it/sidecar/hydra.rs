//! A node whose log Hydra writes and whose folder wandb does, both from `PyPI`, watched with the shipped profile as it
//! is. scripts/test installs them for its long run; only `long` calls this.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::process::{PATIENCE, SWARM, Sidecar};
use crate::support::tools::{Running, eventually};

const PEER: &str = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";

/// What the owner's folder has that nobody else may open.
const SECRETS: [&str; 2] = ["swarm.pem", "modal-login/temp-data/userApiKey.json"];

/// A running tests/swarm.
struct Node(Running);

impl Node {
    fn start(root: &str) -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = own.join(".tools/swarm/bin/python");
        assert!(python.is_file(), "hydra-core is missing: scripts/test --long installs it");
        let said = File::options().create(true).append(true).open(format!("{root}/said"));
        let said = said.expect("a file for what it says");
        let mut command = Command::new(python);
        command.args(["-m", "code_gen_exp.runner.swarm_launcher"]);
        command.args([format!("peer={PEER}"), "mail=alice@example.com".to_owned()]);
        // wandb would tell its makers of the run.
        command.env("WANDB_ERROR_REPORTING", "false").env("OTEL_SDK_DISABLED", "true");
        command.env("ROOT", root).env("HOME", root).current_dir(root);
        command.stdout(said.try_clone().expect("the file")).stderr(said);
        Self(Running::start(command.stdin(Stdio::piped())))
    }

    fn does(&mut self, what: &str) {
        let words = self.0.0.stdin.as_mut().expect("its input is piped");
        writeln!(words, "{what}").expect("it reads");
    }

    fn has_ended(&mut self) {
        eventually("the node ends", PATIENCE * 2, || self.0.0.try_wait().expect("it"));
    }
}

/// Lays the program's files out as its repository does.
fn lay_out(root: &str) {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/swarm");
    for file in ["code_gen_exp/runner/swarm_launcher.py", "code_gen_exp/config/node.yaml"] {
        let to = Path::new(root).join(file);
        fs::create_dir_all(to.parent().expect("its folder")).expect("a folder");
        fs::copy(own.join(file), to).expect("a file of the repository");
    }
    fs::write(format!("{root}/run_rl_swarm.sh"), "").expect("a file of the repository");
}

/// Whether an observation of this kind is there, with this text in it.
fn has(sidecar: &Sidecar, kind: &str, text: &str) -> bool {
    let all = sidecar.observations();
    all.iter().any(|it| it["meaning"]["kind"] == kind && it.to_string().contains(text))
}

fn waits_for(sidecar: &Sidecar, kind: &str, text: &str) {
    eventually(&format!("{kind} {text}"), PATIENCE, || has(sidecar, kind, text).then_some(()));
}

/// How many lines of wandb's log were read.
fn lines_of_wandb(one: &Value) -> u64 {
    one["sources"]["log wandb"]["lines"].as_u64().unwrap_or_default()
}

/// What the sidecar and `discover` opened, once both have ended.
fn opened(traces: &[PathBuf]) -> String {
    let all = traces.iter().map(|trace| {
        eventually("the trace is whole", PATIENCE, || {
            let text = fs::read_to_string(trace).ok()?;
            (text.contains("+++ killed by SIGKILL") || text.contains("+++ exited")).then_some(text)
        })
    });
    all.collect()
}

/// Trains, hands in, fails and is started again: the verdicts follow, wandb's log is read over both runs, and neither
/// the private keys nor the owner's address are seen by anybody.
pub(crate) fn a_node_is_read_from_the_files_of_hydra_and_wandb() {
    let mut sidecar = Sidecar::with(SWARM, &[]);
    sidecar.program.set("SIDECAR_PROFILES", &sidecar.program.path("none"));
    fs::create_dir(sidecar.program.path("none")).expect("a folder without profiles");
    let root = sidecar.program.path("root");
    fs::create_dir_all(format!("{root}/modal-login/temp-data")).expect("a folder");
    lay_out(&root);
    for secret in SECRETS {
        fs::write(format!("{root}/{secret}"), "hunter2").expect("a secret");
    }
    let traces = ["watching", "discovering"].map(|name| PathBuf::from(sidecar.program.path(name)));
    sidecar.begin_traced(&traces[0]);
    let mut node = Node::start(&root);
    node.does("join 15579");
    let trains = |it: &Value| it["alive"] == "yes" && it["training"] == "yes";
    let one = sidecar.until("it trains", |it| trains(it) && it["round"] == 15_579);
    assert_eq!((&one["peer"], &one["troubles"]), (&json!(PEER), &json!([])), "{one:#}");
    let one = sidecar.until("wandb's log is read", |it| lines_of_wandb(it) > 10);
    let wandb = lines_of_wandb(&one);
    // At DEBUG, which only the file has.
    node.does("submit 200");
    waits_for(&sidecar, "submit", "200");
    node.does("submit 500");
    waits_for(&sidecar, "submit_failed", "500");

    node.does("fail");
    let one = sidecar.until("it fails", |it| it["training"] == "no");
    assert!(one["verdict"]["training"].to_string().contains("memory"), "{one:#}");
    node.has_ended();
    sidecar.until("its end is seen", |it| it["alive"] != "yes");
    let mut node = Node::start(&root);
    node.does("join 15580");
    sidecar.until("it trains again", |it| trains(it) && it["round"] == 15_580);
    sidecar.until("the log of wandb's next run is read", |it| lines_of_wandb(it) > wandb + 10);
    let discovered = sidecar.program.traced(&["sidecar", "discover"], &traces[1]).output();
    let found = String::from_utf8(discovered.expect("it runs").stdout).expect("text");
    assert!(found.contains("rl-swarm-hydra") && found.contains(&root), "{found}");
    drop(node.0.0.stdin.take());
    node.has_ended();

    let sources = sidecar.one()["sources"].clone();
    for log in ["log swarm", "log wandb"] {
        assert_eq!(sources[log]["gaps"], 0, "{sources:#}");
    }
    let observed = json!(sidecar.observations()).to_string();
    assert!(!observed.contains("alice") && !sidecar.log().contains("alice"), "{observed}");
    sidecar.kill();
    let opened = opened(&traces);
    for log in ["swarm_launcher.log", "wandb/debug.log"] {
        assert!(opened.contains(log), "the trace has what was opened: {opened}");
    }
    for secret in SECRETS {
        let name = secret.rsplit('/').next().unwrap_or(secret);
        assert!(!opened.contains(name), "{name} was opened: {opened}");
    }
}
