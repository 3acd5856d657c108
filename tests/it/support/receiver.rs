//! A server that takes what a hub's channels send, and answers as it is told.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::acceptor::Acceptor;
use super::http::read_http;

/// The token of the only bot that [`Receiver::telegram`] knows, and the only chat.
pub(crate) const TOKEN: &str = "42:AAexampleexampleexample-hunter2_";
pub(crate) const CHAT: &str = "-1001";

/// What the server does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// This status with these further headers and this body.
    Answer(u16, &'static str, Value),
    /// Nothing, for as long as it lives.
    Hang,
    /// The first half of a good answer, after which the connection ends.
    Half,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// When.
    pub(crate) at: Instant,
    /// Request line and headers, in lower case.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Value,
    /// Whether the server took it.
    pub(crate) is_taken: bool,
}

/// The server; it ends on drop.
#[derive(Debug)]
pub(crate) struct Receiver {
    acceptor: Acceptor,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    script: VecDeque<Says>,
    requests: Vec<Request>,
    /// Connections that get no answer.
    hanging: Vec<TcpStream>,
}

impl Receiver {
    /// Takes everything, after it has answered so.
    pub(crate) fn start(script: impl IntoIterator<Item = Says>) -> Self {
        Self::judging(script, |_, _| Says::Answer(200, "", json!({})))
    }

    /// As Telegram's Bot API: knows one bot and one chat, and refuses HTML with other tags than it knows, or too
    /// long a text.
    pub(crate) fn telegram(script: impl IntoIterator<Item = Says>) -> Self {
        Self::judging(script, telegram)
    }

    fn judging(script: impl IntoIterator<Item = Says>, judge: fn(&str, &Value) -> Says) -> Self {
        let script = script.into_iter().collect();
        let shared = Arc::new(Mutex::new(Shared { script, ..Shared::default() }));
        let of_all = Arc::clone(&shared);
        let acceptor = Acceptor::start(move |stream| {
            serve(stream, &of_all, judge);
        });
        Self { acceptor, shared }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.acceptor.address())
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.shared).requests.clone()
    }

    /// The bodies of the requests that it took.
    pub(crate) fn taken(&self) -> Vec<Value> {
        let taken = self.requests().into_iter().filter(|request| request.is_taken);
        taken.map(|request| request.body).collect()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, shared: &Mutex<Shared>, judge: fn(&str, &Value) -> Says) {
    let Some((head, body)) = read_http(&mut stream) else { return };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut shared = lock(shared);
    let says = shared.script.pop_front().unwrap_or_else(|| judge(&head, &body));
    let is_taken = matches!(says, Says::Answer(200, ..));
    shared.requests.push(Request { at: Instant::now(), head, body, is_taken });
    let (status, headers, body) = match says {
        Says::Answer(status, headers, body) => (status, headers, body.to_string()),
        Says::Half => (200, "", r#"{"ok": true, "result": {"#.to_owned()),
        Says::Hang => {
            shared.hanging.push(stream);
            return;
        }
    };
    // The other half of a good answer never comes.
    let length = if body.ends_with("{") { 2 * body.len() } else { body.len() };
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         {headers}connection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).ok();
}

/// A refusal in the words of Telegram.
pub(crate) fn refusal(code: u16, description: &str) -> Says {
    Says::Answer(code, "", json!({"ok": false, "error_code": code, "description": description}))
}

/// A refusal by which Telegram asks to be left alone for so many seconds.
pub(crate) fn too_many(retry_after: u64) -> Says {
    let description = format!("Too Many Requests: retry after {retry_after}");
    let parameters = json!({"retry_after": retry_after});
    let body = json!({"ok": false, "error_code": 429, "description": description, "parameters": parameters});
    Says::Answer(429, "", body)
}

fn telegram(head: &str, body: &Value) -> Says {
    let own = format!("post /bot{}/", TOKEN.to_ascii_lowercase());
    let Some(method) = head.strip_prefix(&own) else { return refusal(401, "Unauthorized") };
    let good = |result: Value| Says::Answer(200, "", json!({"ok": true, "result": result}));
    if method.starts_with("getme ") {
        return good(json!({"id": 42, "is_bot": true, "username": "hub_bot"}));
    }
    if body["chat_id"] != CHAT {
        return refusal(400, "Bad Request: chat not found");
    }
    if method.starts_with("getchat ") {
        return good(json!({"id": -1001, "title": "the owners"}));
    }
    let mut text = body["text"].as_str().unwrap_or_default().to_owned();
    if body["parse_mode"] == "HTML" {
        for tag in ["<b>", "</b>", "<code>", "</code>"] {
            text = text.replace(tag, "");
        }
        if text.contains(['<', '>']) {
            return refusal(400, "Bad Request: can't parse entities: unsupported start tag");
        }
    }
    match text.encode_utf16().count() {
        0 => refusal(400, "Bad Request: message text is empty"),
        1..=4096 => good(json!({"message_id": 7})),
        _ => refusal(400, "Bad Request: message is too long"),
    }
}
