//! Wrong settings and arguments: named all at once, and exit code 64.

use std::path::Path;

use crate::support::anvil::Anvil;
use crate::support::program::{ACCOUNT, Program};

#[test]
fn wrong_settings_are_told_all_at_once_and_end_the_start_with_64() {
    let program = Program::with(&[
        ("AGENT_PRIVATE_KEY", "your_private_key_here"),
        ("NATS_URL", "nats://user:hunter2@nats.example.com:4222"),
        ("OPBNB_RPC_URL", "rpc.example.com/v2/hunter3"),
        ("HEARTBEAT_INTERVAL", "often"),
        ("JOB_SLOTS", "0"),
    ]);
    let ended = program.run(&["run"]);
    assert_eq!(ended.code(), 64);
    let told = ended.stderr();
    for name in [
        "AGENT_PRIVATE_KEY",
        "JOB_AUTH",
        "OPBNB_RPC_URL",
        "REPUTATION_CONTRACT_ADDRESS",
        "HEARTBEAT_INTERVAL",
        "JOB_SLOTS",
        "PINATA_JWT",
    ] {
        assert!(told.contains(&format!("\n  {name}: ")), "{name} is not named:\n{told}");
    }
    assert!(told.contains("JOB_AUTH=open") && told.contains("lamda-node store"), "{told}");
    assert!(!ended.both().contains("hunter"), "{told}");
    assert!(!Path::new(&program.path(".lamda-node")).exists(), "nothing was touched");
}

#[test]
fn the_environment_goes_before_the_file_and_a_broken_line_of_it_is_told_without_its_value() {
    let program = Program::with(&[("JOB_SLOTS", "many")]);
    program.write(".env", "JOB_SLOTS=2\nPOOL_PREFETCH=lots\nPINATA_JWT=\"hunter2\n");
    let told = program.run(&["run"]).stderr();
    assert!(told.contains("JOB_SLOTS: \"many\"") && told.contains("POOL_PREFETCH: "), "{told}");
    assert!(told.contains("\n  .env: ") && !told.contains("hunter2"), "{told}");
}

#[test]
fn wrong_arguments_end_with_64_and_help_names_every_command() {
    let program = Program::with(&[]);
    assert_eq!(program.run(&["submit"]).code(), 64);
    assert_eq!(program.run(&["dance"]).code(), 64);
    let help = program.run(&["--help"]).succeeds().stdout();
    for command in
        ["run", "submit", "watch", "logs", "cancel", "jobs", "store", "doctor", "key", "contract"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        let own = program.run(&[command, "--help"]).succeeds().stdout();
        assert!(own.contains("Usage: lamda-node"), "{own}");
    }
    let version = program.run(&["--version"]).succeeds().stdout();
    assert_eq!(version.trim(), concat!("lamda-node ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_command_about_a_node_asks_which_one() {
    let program = Program::with(&[]);
    for args in [vec!["submit", "--image", "img"], vec!["cancel", "job-1"]] {
        let ended = program.run(&args);
        assert_eq!(ended.code(), 64);
        assert!(ended.stderr().contains("AGENT_ADDRESS"), "{}", ended.stderr());
    }
}

#[test]
fn a_simulated_node_is_refused_away_from_loopback() {
    let program = Program::with(&[
        ("AGENT_PRIVATE_KEY", Anvil::key_hex(0)),
        ("NATS_URL", "nats://nats.example.com:4222"),
        ("JOB_AUTH", "open"),
        ("OPBNB_RPC_URL", "http://127.0.0.1:1"),
        ("REPUTATION_CONTRACT_ADDRESS", ACCOUNT),
        ("PINATA_JWT", "any"),
    ]);
    let ended = program.run(&["run", "--simulate"]);
    assert_eq!(ended.code(), 64);
    assert!(ended.stderr().contains("--simulate needs a NATS server on this machine"));
}
