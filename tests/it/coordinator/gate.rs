//! A stand-in before a chain's endpoint that answers as a test says, also to batches. It records what is asked.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::support::acceptor::Acceptor;
use crate::support::http::{post, read_http};

/// What becomes of one request, which is a call or a batch of calls.
pub(super) enum Fate {
    /// It is forwarded, and the answer brought back.
    Forward,
    /// It is forwarded, and the answer changed.
    Change(fn(&Value, &mut Value)),
    /// This is the answer.
    Answer(Value),
    /// An HTTP status with further header lines and no body of use.
    Status(u16, &'static str),
}

type Rule = Box<dyn Fn(&Value) -> Fate + Send>;

/// The stand-in; it ends with this value.
pub(super) struct Gate {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Value>>>,
    rule: Arc<Mutex<Rule>>,
    _acceptor: Acceptor,
}

impl Gate {
    /// Forwards everything to this endpoint.
    pub(super) fn before(endpoint: &str) -> Self {
        let upstream = endpoint.trim_start_matches("http://").to_owned();
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| Fate::Forward)));
        let (asked, rules) = (Arc::clone(&seen), Arc::clone(&rule));
        let acceptor = Acceptor::start(move |mut stream| {
            let Some((_, body)) = read_http(&mut stream) else { return };
            let request: Value = serde_json::from_slice(&body).unwrap();
            lock(&asked).push(request.clone());
            let fate = lock(&rules)(&request);
            let (status, further, answer) = match fate {
                Fate::Forward => (200, "", forward(&upstream, &request)),
                Fate::Change(change) => {
                    let mut answer = forward(&upstream, &request);
                    change(&request, &mut answer);
                    (200, "", answer)
                }
                Fate::Answer(answer) => (200, "", answer),
                Fate::Status(status, further) => (status, further, Value::Null),
            };
            let body = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\n{further}\
                 connection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).ok();
            stream.write_all(body.as_bytes()).ok();
        });
        let url = format!("http://{}", acceptor.address());
        Self { url, seen, rule, _acceptor: acceptor }
    }

    /// What becomes of the requests from now on.
    pub(super) fn rule(&self, rule: impl Fn(&Value) -> Fate + Send + 'static) {
        *lock(&self.rule) = Box::new(rule);
    }

    /// Forwards everything again.
    pub(super) fn open(&self) {
        self.rule(|_| Fate::Forward);
    }

    /// The requests since this was last asked.
    pub(super) fn seen(&self) -> Vec<Value> {
        std::mem::take(&mut *lock(&self.seen))
    }
}

/// The methods of these requests; a batch is its number of calls.
pub(super) fn methods(requests: &[Value]) -> Vec<String> {
    let name = |request: &Value| match request.as_array() {
        Some(calls) => calls.len().to_string(),
        None => request["method"].as_str().unwrap().to_owned(),
    };
    requests.iter().map(name).collect()
}

/// A refusal of a request.
pub(super) fn refusal(request: &Value, code: i64, message: &str) -> Value {
    let error = json!({"code": code, "message": message});
    json!({"jsonrpc": "2.0", "id": request["id"], "error": error})
}

/// The first and the last block of a request for logs; `None` for other requests.
pub(super) fn range(request: &Value) -> Option<(u64, u64)> {
    let of = |field: &str| {
        let digits = request["params"][0][field].as_str().unwrap();
        u64::from_str_radix(digits.trim_start_matches("0x"), 16).unwrap()
    };
    (request["method"] == "eth_getLogs").then(|| (of("fromBlock"), of("toBlock")))
}

fn forward(upstream: &str, request: &Value) -> Value {
    let mut chain = TcpStream::connect(upstream).unwrap();
    post(&mut chain, upstream, &request.to_string()).unwrap();
    serde_json::from_slice(&read_http(&mut chain).unwrap().1).unwrap()
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
