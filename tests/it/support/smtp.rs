//! A real SMTP server, aiosmtpd, which keeps the mails that it takes.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::nats_py;
use super::tools::{Running, free_port};

/// Who may send, with which password.
pub(crate) const USER: &str = "hub";
pub(crate) const PASSWORD: &str = "hunter2";

/// Prints each mail as a line of JSON, as Python's own mail package reads it. The arguments: the port, and the answers
/// to the first mails.
const SERVER: &str = r#"
import asyncio, email, email.policy, json, sys
from aiosmtpd.smtp import SMTP, AuthResult
port, answers = int(sys.argv[1]), sys.argv[2:]

class Handler:
    async def handle_DATA(self, server, session, envelope):
        answer = answers.pop(0) if answers else '250 kept as number 1'
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        print(json.dumps({
            'answer': answer,
            'user': session.auth_data,
            'from': envelope.mail_from,
            'to': envelope.rcpt_tos,
            'headers': {name.lower(): str(value) for name, value in mail.items()},
            'count': len(mail.items()),
            'text': mail.get_content(),
        }), flush=True)
        return answer

def login(server, session, envelope, mechanism, data):
    good = (data.login, data.password) == (b'hub', b'hunter2')
    return AuthResult(success=good, handled=good, auth_data=data.login.decode() if good else None)

class Server(SMTP):
    async def handle_exception(self, error):
        print(repr(error), file=sys.stderr)
        return '500 broken'

async def main():
    make = lambda: Server(Handler(), authenticator=login, auth_required=True,
                          auth_require_tls=False, hostname='stand-in')
    server = await asyncio.get_running_loop().create_server(make, '127.0.0.1', port)
    print('ready', flush=True)
    await server.serve_forever()

asyncio.run(main())
"#;

/// The server; killed on drop.
#[derive(Debug)]
pub(crate) struct Smtp {
    port: u16,
    mails: Arc<Mutex<Vec<Value>>>,
    _running: Running,
}

impl Smtp {
    /// A server that answers the first mails so, and then takes all.
    pub(crate) fn start(port: u16, answers: &[&str]) -> Self {
        let python = nats_py::interpreter();
        let asked = Command::new(&python).args(["-c", "import aiosmtpd"]).status();
        assert!(
            asked.expect("python runs").success(),
            "aiosmtpd is missing: scripts/test installs it"
        );
        let mut command = Command::new(python);
        command.args(["-W", "ignore", "-u", "-c", SERVER, &port.to_string()]).args(answers);
        let mut running = Running::start(
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()),
        );
        let mut lines = BufReader::new(running.0.stdout.take().expect("it is piped")).lines();
        assert_eq!(lines.next().expect("a first line").expect("UTF-8"), "ready");
        let mails = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&mails);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mail = serde_json::from_str(&line).expect("a line of JSON");
                into.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
            }
        });
        Self { port, mails, _running: running }
    }

    /// A port for a server that is started later.
    pub(crate) fn port() -> u16 {
        free_port()
    }

    /// Where clients connect, with this password.
    pub(crate) fn url(&self, password: &str) -> String {
        url(self.port, password)
    }

    /// The mails so far, refused ones too.
    pub(crate) fn mails(&self) -> Vec<Value> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where clients of a server on this port connect.
pub(crate) fn url(port: u16, password: &str) -> String {
    format!("smtp://{USER}:{password}@127.0.0.1:{port}")
}
