//! Debian's alertmanager-irc-relay, a foreign receiver of Alertmanager's webhooks, with a stand-in for an IRC server
//! that keeps what it says.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::tools::{Running, eventually, free_port, tool};

const READY: Duration = Duration::from_secs(30);

/// The relay and the server; both end on drop.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    said: Arc<Mutex<Vec<String>>>,
    _running: Running,
    _dir: TempDir,
}

impl Relay {
    /// Starts both, and waits until the relay is in its channel.
    pub(crate) fn start() -> Self {
        let (irc, said) = serve();
        let (port, dir) = (free_port(), tempfile::tempdir().expect("a folder"));
        let config = format!(
            "http_host: 127.0.0.1\nhttp_port: {port}\nirc_host: 127.0.0.1\nirc_port: {irc}\n\
             irc_use_ssl: no\nirc_nickname: relay\nirc_channels:\n  - name: \"#ops\"\n\
             msg_template: \"{{{{ .Status }}}} {{{{ .Labels.alertname }}}} \
             {{{{ .Labels.node }}}} {{{{ .Labels.severity }}}} {{{{ .Annotations.summary }}}} \
             {{{{ .Fingerprint }}}}\"\n"
        );
        let path = dir.path().join("relay.yml");
        std::fs::write(&path, config).expect("a file of the test's own");
        let mut command = Command::new(tool("alertmanager-irc-relay"));
        let running = Running::start(command.arg("--config").arg(&path).stderr(Stdio::null()));
        let relay = Self { port, said, _running: running, _dir: dir };
        eventually("the relay is in its channel", READY, || {
            relay.all().iter().any(|line| line.starts_with("JOIN")).then_some(())
        });
        eventually("the relay listens", READY, || TcpStream::connect(("127.0.0.1", port)).ok());
        relay
    }

    /// Where its webhook is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/ops", self.port)
    }

    /// What it said in its channel.
    pub(crate) fn said(&self) -> Vec<String> {
        let said = self.all().into_iter().filter_map(|line| {
            let text = line.strip_prefix("NOTICE #ops :").or(line.strip_prefix("PRIVMSG #ops :"));
            text.map(str::to_owned)
        });
        said.collect()
    }

    fn all(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Just enough of an IRC server for one client.
fn serve() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let said = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&said);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut answers = stream.try_clone().expect("a second handle");
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let answer = match line.split_once(' ') {
                    Some(("USER", _)) => ":irc 001 relay :welcome\r\n".to_owned(),
                    Some(("PING", what)) => format!(":irc PONG irc {what}\r\n"),
                    Some(("JOIN", what)) => {
                        let channel = what.split(' ').next().unwrap_or_default();
                        format!(
                            ":relay!relay@host JOIN {channel}\r\n:irc 353 relay = {channel} :relay\r\n\
                             :irc 366 relay {channel} :end\r\n"
                        )
                    }
                    _ => String::new(),
                };
                answers.write_all(answer.as_bytes()).ok();
                into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        }
    });
    (port, said)
}
