//! The profile `generic` on servers that everybody runs: nginx and Redis, by process, port and log.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::process::{PATIENCE, Sidecar};
use crate::support::tools::{Running, eventually, free_port, tool};

/// A real server, and by what it is found.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
    program: PathBuf,
    arguments: Vec<String>,
    /// A pattern of its command line.
    pattern: String,
    grammar: &'static str,
    running: Option<Running>,
}

impl Server {
    fn nginx() -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let at = folder.path().display().to_string();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = kinds.map(|kind| format!("{kind}_temp_path {at}/{kind};")).concat();
        let config = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/log notice; events {{}}\n\
             http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port}; }} }}\n"
        );
        fs::write(folder.path().join("nginx.conf"), config).expect("its configuration");
        let arguments = ["-p", &at, "-e", &format!("{at}/log"), "-c", &format!("{at}/nginx.conf")];
        Self {
            port,
            program: tool("nginx"),
            arguments: arguments.map(str::to_owned).to_vec(),
            pattern: format!("^nginx: master process .*{at}/nginx"),
            grammar: "nginx",
            running: None,
            folder,
        }
    }

    fn redis() -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let at = folder.path().display().to_string();
        let log = format!("{at}/log");
        let number = port.to_string();
        let arguments = ["--bind", "127.0.0.1", "--port", &number, "--logfile", &log, "--save", ""];
        Self {
            port,
            program: tool("redis-server"),
            arguments: arguments.map(str::to_owned).to_vec(),
            pattern: format!("redis-server 127.0.0.1:{port}"),
            grammar: "redis",
            running: None,
            folder,
        }
    }

    fn start(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(self.folder.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(Running::start(&mut command));
        eventually("it listens", PATIENCE, || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// Sends a signal to it and its workers, or to it alone.
    fn signal(&self, name: &str, to_all: bool) {
        let Some(running) = &self.running else { return };
        let id = format!("{}{}", if to_all { "-" } else { "" }, running.0.id());
        let sent = Command::new("kill").args(["-s", name, "--", &id]).status();
        assert!(sent.expect("kill runs").success(), "{name} to {id}");
    }

    /// Kills it and its workers, and waits until its port is free.
    fn kill(&mut self) {
        self.signal("KILL", true);
        self.running = None;
        eventually("its port is free", PATIENCE, || {
            TcpStream::connect(("127.0.0.1", self.port)).err()
        });
    }

    fn config(&self) -> String {
        format!(
            "[[watch]]\nname = \"one\"\nprofile = \"generic\"\nset = {{ command = '{}', port = {}, \
             log = \"{}/log\", grammar = \"{}\" }}\n",
            self.pattern,
            self.port,
            self.folder.path().display(),
            self.grammar
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("KILL", true);
    }
}

/// Whether each of its three sources says that it is there.
fn is_well(one: &Value) -> bool {
    let sources = one["sources"].to_string();
    one["alive"] == "yes" && one["troubles"] == json!([]) && sources.contains("\"open\":true")
}

/// How often its log said that it started.
fn starts(sidecar: &Sidecar) -> usize {
    let all = sidecar.observations();
    all.iter().filter(|it| it["meaning"]["kind"] == "start").count()
}

/// Has a server seen by its process, its port and its log, killed, missed, started again and well again.
fn is_watched(server: &mut Server) -> Sidecar {
    let mut sidecar = Sidecar::with(&server.config(), &[]);
    sidecar.begin();
    server.start();
    sidecar.until("it is seen", is_well);
    eventually("its start is read", PATIENCE, || (starts(&sidecar) == 1).then_some(()));
    server.kill();
    sidecar.until("its port is closed", |it| {
        it["sources"].to_string().contains("\"open\":false") && it["alive"] != "yes"
    });
    eventually("it is missed", PATIENCE * 3, || {
        Some(sidecar.one()).filter(|it| it["alive"] == "no" && it["troubles"] == json!(["down"]))
    });
    server.start();
    sidecar.until("it is well again", is_well);
    eventually("its second start is read", PATIENCE, || (starts(&sidecar) == 2).then_some(()));
    sidecar
}

#[test]
fn nginx_is_watched_and_its_log_is_read_on_when_it_opens_another() {
    let mut server = Server::nginx();
    let sidecar = is_watched(&mut server);
    let lines = |one: &Value| one["sources"]["log main"]["lines"].as_u64();
    let log = server.folder.path().join("log");
    fs::rename(&log, server.folder.path().join("log.1")).expect("it is rotated");
    server.signal("USR1", false);
    eventually("it opens its log again", PATIENCE, || log.exists().then_some(()));
    server.signal("HUP", false);
    eventually("the new log says something", PATIENCE, || {
        Some(fs::read_to_string(&log).ok()?.lines().count()).filter(|count| *count >= 2)
    });
    let written = || {
        let files = ["log", "log.1"].map(|name| fs::read_to_string(log.with_file_name(name)));
        files.iter().flatten().map(|text| text.lines().count() as u64).sum()
    };
    let one = sidecar.until("all of it is read", |it| lines(it) == Some(written()));
    assert_eq!(one["sources"]["log main"]["gaps"], 0, "{one:#}");
}

#[test]
fn redis_is_watched() {
    is_watched(&mut Server::redis());
}
