//! An HTTP proxy before an anvil that misbehaves on command. It runs on threads of its own, so that
//! a test can be blocking or not.
//!
//! One request a connection: what the weather is when a request comes in is what it gets.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The call that most of this is about.
pub(crate) const SEND: &str = "eth_sendRawTransaction";

/// More than a client of ours may read of one answer.
const HUGE_BYTES: usize = 5 * 1024 * 1024;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Weather {
    /// It is forwarded, and the answer brought back.
    Clear,
    /// The connection is reset. Nothing is forwarded.
    Down,
    /// It is forwarded; the answer comes after this, or as soon as the weather changes.
    Slow(Duration),
    /// This HTTP status with a page of HTML, and perhaps `Retry-After`. Nothing is forwarded.
    Status(u16, Option<String>),
    /// JSON-RPC's -32005. Nothing is forwarded.
    Throttled,
    /// A refusal with this code and these words. Nothing is forwarded.
    Refuses(i64, &'static str),
    /// An answer that makes no sense. Nothing is forwarded.
    Garbage(Garbage),
    /// `eth_chainId` answers this; all else is forwarded.
    WrongChain(u64),
    /// The head stays where it was when this was set, and with it, where `nonces`, what
    /// `eth_getTransactionCount` says.
    StaleHead { nonces: bool },
    /// Transactions are answered with their hash and dropped; all else is forwarded.
    DropSends,
    /// Receipts are forwarded with another price in them: a millionth of a gwei.
    CheapReceipts,
    /// `eth_estimateGas` says so little that what is sent fails in its block.
    LowEstimates,
    /// `eth_call` of this selector runs out of gas; all else is forwarded.
    OutOfGas(&'static str),
    /// Transactions are forwarded, and the connection cut before the answer; all else is forwarded.
    LoseAnswers,
}

/// Kinds of answers that make no sense.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Garbage {
    Html,
    CutJson,
    Huge,
    WrongType,
}

/// At which end of a forwarded request [`RpcProxy::hold`] stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Before it is forwarded. The weather is that of its release.
    Request,
    /// After it was forwarded, before the answer goes back.
    Answer,
}

/// The proxy; its connections are cut when it is dropped.
#[derive(Debug)]
pub(crate) struct RpcProxy {
    url: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// Holds every request of one method until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    method: String,
    at: Hold,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Host and port of the anvil.
    upstream: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    of_method: HashMap<String, Weather>,
    queued: HashMap<String, VecDeque<Weather>>,
    held: Vec<(String, Hold)>,
    /// The block of a stale head.
    frozen: Value,
    requests: Vec<(String, Value)>,
    connections: usize,
    /// Counts the changes of the weather.
    version: u64,
    is_over: bool,
}

/// What goes back over the connection: bytes, or nothing but its end.
enum Reply {
    Bytes(Vec<u8>),
    Cut,
}

impl RpcProxy {
    /// Stands before the node at `upstream`, on a free port; the weather is clear.
    pub(crate) fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let state = State {
            weather: Weather::Clear,
            of_method: HashMap::new(),
            queued: HashMap::new(),
            held: Vec::new(),
            frozen: Value::Null,
            requests: Vec::new(),
            connections: 0,
            version: 0,
            is_over: false,
        };
        let shared = Arc::new(Shared { upstream, state: state.into(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accepting.accept(&listener));
        Self { url, shared, acceptor: Some(acceptor) }
    }

    /// Where to send requests.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The weather from now on, for all methods that have none of their own.
    pub(crate) fn set(&self, weather: Weather) {
        self.shared.freeze_for(&weather);
        self.shared.change(|state| state.weather = weather);
    }

    /// The weather from now on for one method.
    pub(crate) fn set_for(&self, method: &str, weather: Weather) {
        self.shared.freeze_for(&weather);
        self.shared.change(|state| drop(state.of_method.insert(method.to_owned(), weather)));
    }

    /// The weather of the next requests of one method, one each; after them it is as it was.
    pub(crate) fn queue(&self, method: &str, weathers: &[Weather]) {
        for weather in weathers {
            self.shared.freeze_for(weather);
        }
        self.shared.change(|state| {
            state.queued.entry(method.to_owned()).or_default().extend(weathers.iter().cloned());
        });
    }

    /// Clear for all methods, with nothing queued.
    pub(crate) fn clear(&self) {
        self.shared.change(|state| {
            state.weather = Weather::Clear;
            state.of_method.clear();
            state.queued.clear();
        });
    }

    /// Holds the requests of one method until the answer is dropped.
    pub(crate) fn hold(&self, method: &str, at: Hold) -> Held {
        self.shared.change(|state| state.held.push((method.to_owned(), at)));
        Held { method: method.to_owned(), at, shared: Arc::clone(&self.shared) }
    }

    /// The parameters of all requests of this method so far, also of those that were not forwarded.
    pub(crate) fn seen(&self, method: &str) -> Vec<Value> {
        let state = self.shared.lock();
        let of_method = state.requests.iter().filter(|(name, _)| name == method);
        of_method.map(|(_, params)| params.clone()).collect()
    }

    /// The methods of all requests so far, in order.
    pub(crate) fn methods(&self) -> Vec<String> {
        self.shared.lock().requests.iter().map(|(method, _)| method.clone()).collect()
    }

    /// All connections so far, also those that were reset before a request was read.
    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().connections
    }
}

impl Drop for RpcProxy {
    fn drop(&mut self) {
        self.shared.change(|state| state.is_over = true);
        // The acceptor looks once more.
        TcpStream::connect(self.url.trim_start_matches("http://")).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let ours = (self.method.clone(), self.at);
        self.shared.change(|state| {
            if let Some(place) = state.held.iter().position(|held| *held == ours) {
                state.held.remove(place);
            }
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.version += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until `is_done`, or until `limit` is over, or the proxy.
    fn wait(&self, limit: Duration, is_done: impl Fn(&State) -> bool) {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        while !state.is_over && !is_done(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let mut state = self.lock();
            if state.is_over {
                return;
            }
            state.connections += 1;
            // Dropped with a request unread, a connection is reset.
            let is_general = state.queued.is_empty() && state.of_method.is_empty();
            let is_down = matches!(state.weather, Weather::Down) && is_general;
            drop(state);
            if let Ok(stream) = stream
                && !is_down
            {
                let shared = Arc::clone(&self);
                std::thread::spawn(move || shared.serve(stream));
            }
        }
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let (_, body) = read_http(&mut stream)?;
        let request: Value = serde_json::from_slice(&body).ok()?;
        let method = request["method"].as_str()?.to_owned();
        self.change(|state| state.requests.push((method.clone(), request["params"].clone())));
        self.pass_holds(&method, Hold::Request);
        let (weather, version) = self.weather_of(&method);
        let reply = self.reply(&request, &method, &weather, version)?;
        self.pass_holds(&method, Hold::Answer);
        if let Reply::Bytes(bytes) = reply {
            stream.write_all(&bytes).ok()?;
            // Closing before the client has read all would cut the answer.
            stream.shutdown(Shutdown::Write).ok()?;
            stream.read_to_end(&mut Vec::new()).ok()?;
        }
        Some(())
    }

    fn weather_of(&self, method: &str) -> (Weather, u64) {
        let mut state = self.lock();
        let queued = state.queued.get_mut(method).and_then(VecDeque::pop_front);
        state.queued.retain(|_, left| !left.is_empty());
        let weather = queued.or_else(|| state.of_method.get(method).cloned());
        (weather.unwrap_or_else(|| state.weather.clone()), state.version)
    }

    fn pass_holds(&self, method: &str, at: Hold) {
        let is_held =
            |state: &State| state.held.iter().any(|(held, end)| held == method && *end == at);
        self.wait(Duration::from_mins(10), |state| !is_held(state));
    }

    fn reply(&self, request: &Value, method: &str, weather: &Weather, seen: u64) -> Option<Reply> {
        let is_send = method == SEND;
        let params = &request["params"];
        let result = match weather {
            Weather::Down => return Some(Reply::Cut),
            Weather::Status(status, rest) => return Some(page(*status, rest.as_deref())),
            Weather::Garbage(garbage) => return Some(nonsense(*garbage, request)),
            Weather::Throttled => return Some(refusal(request, -32005, "request limit reached")),
            Weather::Refuses(code, words) => return Some(refusal(request, *code, words)),
            Weather::Slow(span) => {
                let reply = self.forward(request)?;
                self.wait(*span, |state| state.version != seen);
                return Some(reply);
            }
            Weather::LoseAnswers if is_send => {
                self.forward(request)?;
                return Some(Reply::Cut);
            }
            Weather::DropSends if is_send => {
                let raw = alloy::hex::decode(params[0].as_str()?).ok()?;
                json!(alloy::primitives::keccak256(raw))
            }
            Weather::CheapReceipts if method == "eth_getTransactionReceipt" => {
                let Reply::Bytes(answer) = self.forward(request)? else { return None };
                let (_, body) = read_http(&mut answer.as_slice())?;
                let mut receipt: Value = serde_json::from_slice(&body).ok()?;
                if receipt["result"].is_object() {
                    receipt["result"]["effectiveGasPrice"] = json!("0x3e8");
                }
                receipt["result"].take()
            }
            // A call with data costs 21,000 before it does anything.
            Weather::LowEstimates if method == "eth_estimateGas" => json!("0x5a00"),
            Weather::OutOfGas(selector)
                if method == "eth_call"
                    && ["data", "input"].iter().any(|key| {
                        params[0][key].as_str().is_some_and(|data| data.starts_with(selector))
                    }) =>
            {
                return Some(refusal(request, -32000, "out of gas"));
            }
            Weather::WrongChain(id) if method == "eth_chainId" => json!(format!("{id:#x}")),
            Weather::StaleHead { nonces } => match (method, params[0].as_str()) {
                ("eth_blockNumber", _) => self.frozen()["number"].clone(),
                ("eth_getBlockByNumber", Some("latest" | "pending")) => self.frozen(),
                ("eth_getTransactionCount", _) if *nonces => {
                    let mut request = request.clone();
                    request["params"][1] = self.frozen()["number"].clone();
                    return self.forward(&request);
                }
                _ => return self.forward(request),
            },
            _ => return self.forward(request),
        };
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        Some(http(200, "", answer.to_string().as_bytes()))
    }

    fn forward(&self, request: &Value) -> Option<Reply> {
        let body = request.to_string();
        let mut stream = TcpStream::connect(&self.upstream).ok()?;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            self.upstream,
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        let (_, answer) = read_http(&mut stream)?;
        Some(http(200, "", &answer))
    }

    fn freeze_for(&self, weather: &Weather) {
        if !matches!(weather, Weather::StaleHead { .. }) {
            return;
        }
        let params = json!(["latest", false]);
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber",
                             "params": params});
        let Some(Reply::Bytes(answer)) = self.forward(&request) else {
            panic!("the node behind the proxy shows its head")
        };
        let (_, body) = read_http(&mut answer.as_slice()).expect("what we made ourselves");
        let answer: Value = serde_json::from_slice(&body).expect("an answer");
        self.change(|state| state.frozen = answer["result"].clone());
    }

    fn frozen(&self) -> Value {
        self.lock().frozen.clone()
    }
}

/// Head and body of one HTTP message that says its length.
fn read_http(stream: &mut impl std::io::Read) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
        let length: usize = length.trim().parse().ok()?;
        let body = &bytes[end + 4..];
        if body.len() >= length {
            return Some((head, body[..length].to_vec()));
        }
    }
}

fn http(status: u16, further: &str, body: &[u8]) -> Reply {
    let head = format!(
        "HTTP/1.1 {status} Weather\r\ncontent-type: application/json\r\n{further}\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Reply::Bytes([head.as_bytes(), body].concat())
}

fn page(status: u16, retry_after: Option<&str>) -> Reply {
    let rest = retry_after.map(|rest| format!("retry-after: {rest}\r\n")).unwrap_or_default();
    http(status, &rest, b"<html>not now</html>")
}

fn refusal(request: &Value, code: i64, words: &str) -> Reply {
    let error = json!({"code": code, "message": words});
    let answer = json!({"jsonrpc": "2.0", "id": request["id"], "error": error});
    http(200, "", answer.to_string().as_bytes())
}

fn nonsense(garbage: Garbage, request: &Value) -> Reply {
    let id = &request["id"];
    let body = match garbage {
        Garbage::Html => "<html>Welcome</html>".to_owned(),
        Garbage::CutJson => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"0x"#),
        Garbage::WrongType => json!({"jsonrpc": "2.0", "id": id, "result": [{}]}).to_string(),
        Garbage::Huge => {
            let padding = "x".repeat(HUGE_BYTES);
            json!({"jsonrpc": "2.0", "id": id, "padding": padding, "result": "0x1"}).to_string()
        }
    };
    http(200, "", body.as_bytes())
}
