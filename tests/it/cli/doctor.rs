//! `doctor` where parts are down or not set.

use crate::support::anvil::Anvil;
use crate::support::program::{ACCOUNT, Program};
use crate::support::tools::free_port;

#[test]
fn doctor_names_everything_that_is_down_with_its_remedy() {
    let port = free_port();
    let nowhere = format!("127.0.0.1:{port}");
    let program = Program::with(&[
        ("AGENT_PRIVATE_KEY", Anvil::key_hex(0)),
        ("NATS_URL", &format!("nats://{nowhere}")),
        ("OPBNB_RPC_URL", &format!("http://{nowhere}")),
        ("REPUTATION_CONTRACT_ADDRESS", ACCOUNT),
        ("DOCKER_HOST", &format!("tcp://{nowhere}")),
        ("PINATA_JWT", "any"),
        ("PINATA_API_URL", &format!("http://{nowhere}")),
        ("IPFS_GATEWAYS", &format!("http://{nowhere}")),
        ("NVML_LIB", "/etc/hostname"),
        ("HUB_URL", &format!("http://{nowhere}")),
    ]);
    let ended = program.run(&["doctor", "--json"]);
    assert_eq!(ended.code(), 2, "{}", ended.both());
    let report = &ended.objects()[0];
    let checks = report["checks"].as_array().expect("a list of checks");
    let of = |name: &str| {
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}"))
    };
    for name in [
        "nats",
        "docker",
        "files in containers",
        "sandbox",
        "gpu",
        "disk",
        "gpu in containers",
        "gpu access",
        "chain",
        "pinning service",
        "gateways",
    ] {
        let check = of(name);
        assert_eq!(check["status"], "fail", "{check}");
        assert!(check["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{check}");
    }
    assert_eq!(of("settings")["status"], "warn", "doctor warns about a key in plain text");
    assert_eq!(of("data folder")["status"], "ok");
    assert_eq!(of("hub")["status"], "warn", "a node runs without its hub");
    assert_eq!(report["fail"], 11);
    assert!(!ended.both().contains(Anvil::key_hex(0).trim_start_matches("0x")));

    let text = program.run(&["doctor"]);
    assert_eq!(text.code(), 2);
    assert!(text.stdout().contains("\nfail  nats: "), "{}", text.stdout());
}

#[test]
fn doctor_without_any_setting_tells_all_of_them_and_still_checks_the_rest() {
    let program = Program::with(&[("DOCKER_HOST", "unix:///nonexistent/docker.sock")]);
    let ended = program.run(&["doctor", "--json"]);
    assert_eq!(ended.code(), 2);
    let report = &ended.objects()[0];
    let settings = &report["checks"][0];
    let problems = settings["problems"].as_array().expect("a list of problems");
    assert!(problems.iter().any(|problem| problem["variable"] == "PINATA_JWT"), "{settings}");
    let docker = report["checks"].as_array().into_iter().flatten();
    let docker = docker.filter(|check| check["name"] == "docker").count();
    assert_eq!(docker, 1);
}
