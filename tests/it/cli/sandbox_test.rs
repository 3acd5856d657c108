//! `sandbox-test` against an engine whose containers hold, and against one whose do not.

use serde_json::json;

use crate::support::engine::Engine;
use crate::support::program::Program;

#[tokio::test]
async fn a_sandbox_is_tried_from_inside_and_one_that_lets_through_is_found() {
    let mut engine = Engine::start();
    let program = Program::with(&[("DOCKER_HOST", &engine.host())]);
    let tried = program.run(&["sandbox-test"]).succeeds();
    let told = tried.stdout();
    for line in [
        "standard: what",
        "strict: what",
        " 0 failed",
        "pass  mount ",
        "pass  memory ",
        "pass  setuid ",
    ] {
        assert!(told.contains(line), "{line} is not in\n{told}");
    }
    assert!(!told.contains("FAIL") && !told.contains("told nothing"), "{told}");
    let doctor = program.run(&["doctor"]).stdout();
    assert!(doctor.contains("ok    sandbox: 41 ways out"), "{doctor}");

    // An engine of the owner's with a filter that filters nothing.
    engine.stop_daemon();
    let profile =
        program.write("open.json", &json!({"defaultAction": "SCMP_ACT_ALLOW"}).to_string());
    engine.start_daemon_with(&["--seccomp-profile", &profile]);
    let tried = program.run(&["sandbox-test", "--profile", "strict", "--json"]);
    assert_eq!(tried.code(), 1, "{}", tried.both());
    let objects = tried.objects();
    let failed: Vec<&str> = objects
        .iter()
        .filter(|one| one["passed"] == false)
        .filter_map(|one| one["name"].as_str())
        .collect();
    for name in ["keyctl", "perf", "new-user"] {
        assert!(failed.contains(&name), "{name} is not among {failed:?}");
    }
    // What rests on other walls still holds.
    for name in ["mount", "mknod", "capabilities", "routes", "memory", "threads", "kernel-files"] {
        assert!(!failed.contains(&name), "{failed:?}");
    }
    let doctor = program.run(&["doctor"]).stdout();
    assert!(doctor.contains("fail  sandbox: ") && doctor.contains("keyctl"), "{doctor}");
    let all = bollard::query_parameters::ListContainersOptionsBuilder::default().all(true);
    let left = engine.client().list_containers(Some(all.build())).await.expect("a list");
    assert!(left.is_empty(), "{left:?}");
}
