//! Sources that can't be read: one clear sentence each, and the others go on.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::process::{PATIENCE, SWARM, Sidecar};
use crate::support::small_disk::SmallDisk;
use crate::support::tools::eventually;

#[test]
fn a_log_that_is_a_folder_is_told_and_the_other_program_goes_on() {
    let second = SWARM.replace("\"one\"", "\"two\"").replace("ROOT", "ROOT/two");
    let mut sidecar = Sidecar::with(&format!("{SWARM}{second}"), &[]);
    fs::create_dir_all(sidecar.program.path("root/logs/swarm_launcher.log")).expect("a folder");
    fs::create_dir_all(sidecar.program.path("root/two/logs")).expect("a folder");
    sidecar.begin();
    sidecar.append(
        "two/logs/swarm_launcher.log",
        &super::process::hydra("INFO", "🐝 Joining round: 7"),
    );
    let one = sidecar
        .until("the trouble is told", |it| it["sources"]["log swarm"]["trouble"].is_string());
    let why = one["sources"]["log swarm"]["trouble"].as_str().unwrap_or_default();
    assert!(why.contains("is a directory") || why.contains("is a folder"), "{why}");
    eventually("the other one trains", PATIENCE, || {
        let two = sidecar.ask("/api/programs/two").json();
        (two["training"] == json!("yes")).then_some(())
    });
    // What was a folder becomes a log.
    fs::remove_dir(sidecar.program.path("root/logs/swarm_launcher.log")).expect("it is empty");
    sidecar.says("INFO", "🐝 Joining round: 8");
    sidecar.until("it is read", |it| it["training"] == json!("yes"));
}

#[test]
fn a_configuration_with_a_mistake_is_refused_with_its_place() {
    for (config, says) in [
        ("", "it has no [[watch]]"),
        ("[[watch]]\nname = \"a\"\nprofile = \"nobodys\"\n", "there is no such profile"),
        ("[[watch]]\nname = \"a\"\nprofile = \"generic\"\nset = { colour = 1 }\n", "colour"),
        ("[[watch]]\nname = \"a/b\"\nprofile = \"generic\"\n", "without /"),
        ("[[watch]]\nnam = \"a\"\n", "unknown field `nam`"),
        (
            "[[watch]]\nname = \"a\"\nprofile = \"generic\"\nrestart = { unit = \"--force\" }\n",
            "no name of a unit",
        ),
        (
            "[[watch]]\nname = \"a\"\nprofile = \"generic\"\n[[rule]]\nname = \"r\"\nwhen = { standing = [\"down\"] }\n",
            "a sidecar knows only",
        ),
    ] {
        let sidecar = Sidecar::with(config, &[]);
        let ended = sidecar.program.run(&["sidecar"]);
        assert_eq!(ended.code(), 64, "{}", ended.stderr());
        let told = ended.stderr();
        assert!(told.contains(says) && told.contains("sidecar.toml"), "{config}: {told}");
    }
}

#[test]
fn a_second_sidecar_and_an_address_that_is_taken_are_told_with_the_setting() {
    let sidecar = Sidecar::swarm(&[]);
    let ended = sidecar.program.run(&["sidecar"]);
    assert_eq!(ended.code(), 69, "{}", ended.stderr());
    assert!(ended.stderr().contains("SIDECAR_LISTEN="), "{}", ended.stderr());
    let mut second = Sidecar::with(SWARM, &[]);
    second.program.set("DATA_DIR", &sidecar.program.path("data"));
    let ended = second.program.run(&["sidecar"]);
    assert_eq!(ended.code(), 69, "{}", ended.stderr());
    assert!(ended.stderr().contains("SIDECAR_DB"), "{}", ended.stderr());
}

#[test]
fn on_a_full_disk_the_sidecar_says_that_it_is_unwell_and_loses_nothing() {
    let mut sidecar = Sidecar::with(SWARM, &[]);
    let data = sidecar.program.path("data");
    let _disk = SmallDisk::mount(Path::new(&data), 4);
    sidecar.begin();
    sidecar.says("INFO", "🐝 Joining round: 1");
    sidecar.until("the log is read", |it| it["round"] == 1);
    let ballast = format!("{data}/ballast");
    let mut file = fs::File::create(&ballast).expect("a file");
    while file.write_all(&[7; 4096]).is_ok() {}
    drop(file);
    // The database keeps some room of its own, which each question uses.
    eventually("the sidecar is unwell", PATIENCE * 2, || {
        (sidecar.ask("/health").status == 503).then_some(())
    });
    sidecar.says("INFO", "🐝 Joining round: 2");
    fs::remove_file(&ballast).expect("it is there");
    let one = sidecar.until("the line of meanwhile is read", |it| it["round"] == 2);
    assert_eq!(one["sources"]["log swarm"]["gaps"], 0, "{one:#}");
    eventually("it is well", PATIENCE, || (sidecar.ask("/health").status == 200).then_some(()));
}

#[test]
fn a_file_that_is_no_database_is_refused_with_the_remedy() {
    let mut sidecar = Sidecar::with(SWARM, &[]);
    let broken = sidecar.program.write("broken.db", &"no database at all ".repeat(100));
    sidecar.program.set("SIDECAR_DB", &broken);
    let ended = sidecar.program.run(&["sidecar"]);
    assert_eq!(ended.code(), 69, "{}", ended.stderr());
    let told = ended.stderr();
    assert!(told.contains("broken.db") && told.contains("move it away"), "{told}");

    let fifo = sidecar.program.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    sidecar.program.set("SIDECAR_DB", &fifo);
    let told = sidecar.program.run(&["sidecar"]).stderr();
    assert!(told.contains("no regular file"), "{told}");
}

#[test]
fn check_says_what_would_keep_a_profile_from_being_used() {
    let sidecar = Sidecar::with(SWARM, &[]);
    let head = "name = \"own\"\nabout = \"Mine.\"\n";
    let port = "[[port]]\nname = \"main\"\nport = \"{port}\"\n";
    for (variables, says) in [("a = \"{b}\"\nb = \"{a}\"\nport = 1", "a"), ("port = 99999", "port")]
    {
        let file =
            sidecar.program.write("own.toml", &format!("{head}[variables]\n{variables}\n{port}"));
        let ended = sidecar.program.run(&["sidecar", "check", &file]);
        assert_eq!(ended.code(), 64, "{}", ended.both());
        assert!(
            ended.stderr().contains("own") && ended.stderr().contains(says),
            "{}",
            ended.stderr()
        );
    }
}

#[test]
fn a_page_of_another_site_whose_name_leads_here_reads_nothing() {
    let mut sidecar = Sidecar::with(SWARM, &[]);
    sidecar.begin();
    let says = |host: &str| {
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            &format!("Host:{host}"),
        ]);
        let said = command.arg(format!("http://{}/api/programs", sidecar.at)).output();
        String::from_utf8(said.expect("curl runs").stdout).expect("a number")
    };
    for host in ["evil.example", "evil.example:8080", "203.0.113.1", "localhost.evil.example"] {
        assert_eq!(says(host), "421", "{host}");
    }
    // Without any, too: such a client is no browser.
    for host in ["localhost", "127.0.0.1:8080", "[::1]", ""] {
        assert_eq!(says(host), "200", "{host}");
    }
}
