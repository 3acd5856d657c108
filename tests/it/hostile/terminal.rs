//! Logs that command the terminal of whoever reads them.

use std::process::Output;

use lamda_node::report::is_obeyed;
use serde_json::{Value, json};

use super::Siege;
use crate::support::tools::run_with_input;
use crate::support::world::{World, shell, shell_with};

/// Sets the clipboard, makes a link, changes the title, clears the screen by a C1 control, turns the line around. The
/// bytes of the last two come in two writes each.
const SCRIPT: &str = "printf '\\033]52;c;cm0=\\007 \\033]8;;http://x\\033\\\\ \\033]0;x\\007 \\302'; sleep 0.3; \
    printf '\\2332J \\233 tab\\tend\\nexe.\\342\\200'; sleep 0.3; printf '\\256gpj\\n'; echo x > /output/output";

/// What a command of the program prints, and the characters of it that a terminal would obey.
fn said(world: &World, arguments: &[&str]) -> (String, Vec<char>) {
    let Output { stdout, stderr, .. } = run_with_input(&mut world.command(arguments), "");
    let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    let obeyed = text.chars().filter(|c| is_obeyed(*c) && !"\n\t".contains(*c)).collect();
    (text, obeyed)
}

#[tokio::test]
async fn no_log_commands_the_terminal_that_shows_it() {
    let siege = Siege::begin(World::start().await, &[]);
    let world = &siege.world;
    world.publish("shouts", &shell(SCRIPT));
    let turned = json!({"output_path": "/output/\u{202e}gpj.exe"});
    world.publish("turned", &shell_with("true", &turned));
    siege.ends("shouts", "completed", Value::Null);
    siege.ends("turned", "failed", json!("output_missing"));
    let agent = World::agent_address().to_string();
    let (logs, obeyed) = said(world, &["logs", "shouts", "--agent", &agent]);
    assert!(
        logs.contains("]52;c;cm0=") && logs.contains("tab\tend\n") && logs.contains("gpj"),
        "{logs:?}"
    );
    assert!(obeyed.is_empty(), "{logs:?}");
    let (logs, obeyed) = said(world, &["logs", "shouts", "--agent", &agent, "--raw"]);
    for wanted in ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'] {
        assert!(obeyed.contains(&wanted), "{} is not in {logs:?}", wanted.escape_unicode());
    }
    let submit = |id: &str, raw: &[&str]| {
        let first = [
            "submit",
            "--image",
            "busybox:test",
            "--agent",
            &agent,
            "--job-id",
            id,
            "--follow",
            "--unsigned",
        ];
        said(world, &[&first[..], raw, &["--", "/bin/sh", "-c", SCRIPT]].concat())
    };
    let (text, obeyed) = submit("followed", &[]);
    assert!(text.contains("| ") && text.contains("]52;c;cm0="), "{text:?}");
    assert!(obeyed.is_empty(), "{text:?}");
    assert!(submit("followed-raw", &["--raw"]).1.contains(&'\u{1b}'));
    for arguments in [&["jobs", "--all"][..], &["jobs", "turned"], &["jobs", "turned", "--json"]] {
        let (text, obeyed) = said(world, arguments);
        assert!(text.contains("gpj.exe") || text.contains("turned"), "{text:?}");
        assert!(obeyed.is_empty(), "{text:?}");
    }
    siege.end().await;
}
