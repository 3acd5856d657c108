//! An HTTP proxy in front of an anvil that misbehaves on command. It runs on its own threads, so that a
//! test may block.
//!
//! Each connection carries one request, which gets the weather of the moment in which it comes in.

mod answers;
mod serve;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lamda_node::backoff::Backoff;
use lamda_node::chain::EndpointLimits;
use serde_json::Value;

use super::acceptor::Acceptor;

/// The call that sends a transaction.
pub(crate) const SEND: &str = "eth_sendRawTransaction";

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Weather {
    /// It is forwarded, and the answer brought back.
    Clear,
    /// The connection is reset. Nothing is forwarded.
    Down,
    /// It is forwarded; the answer is held back this long, or until the weather changes.
    Slow(Duration),
    /// This HTTP status with a page of HTML, and perhaps `Retry-After`. Nothing is forwarded.
    Status(u16, Option<String>),
    /// The JSON-RPC error -32005 (limit exceeded). Nothing is forwarded.
    Throttled,
    /// A JSON-RPC error with this code and message. Nothing is forwarded.
    Refuses(i64, &'static str),
    /// An invalid answer. Nothing is forwarded.
    Garbage(Garbage),
    /// `eth_chainId` answers this; all else is forwarded.
    WrongChain(u64),
    /// The head stays where it was when this was set. With `nonces`, so do the answers to
    /// `eth_getTransactionCount`.
    StaleHead { nonces: bool },
    /// Transactions are answered with their hash and dropped; all else is forwarded.
    DropSends,
    /// Receipts are forwarded with another gas price: 1,000 wei, a millionth of a gwei.
    CheapReceipts,
    /// `eth_estimateGas` answers so little that the transaction fails in its block.
    LowEstimates,
    /// `eth_call` of this selector runs out of gas; all else is forwarded.
    OutOfGas(&'static str),
    /// Transactions are forwarded, and the connection cut before the answer; all else is forwarded.
    LoseAnswers,
}

/// Kinds of invalid answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Garbage {
    Html,
    CutJson,
    Huge,
    WrongType,
}

/// The point at which [`RpcProxy::hold`] stops a forwarded request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Before it is forwarded. Its weather is that of the moment of its release.
    Request,
    /// After it was forwarded, before the answer goes back.
    Answer,
}

/// The proxy; its connections are cut when it is dropped.
#[derive(Debug)]
pub(crate) struct RpcProxy {
    url: String,
    shared: Arc<Shared>,
    _acceptor: Acceptor,
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

/// A failed endpoint rests longer than any test lasts, and no call waits for it.
pub(crate) fn long_rests() -> EndpointLimits {
    let hour = Duration::from_hours(1);
    let rest = Backoff::new(hour, hour);
    EndpointLimits { rest, wait_max: Duration::ZERO, ..EndpointLimits::default() }
}

impl RpcProxy {
    /// Listens on a free port for the node at `upstream`; the weather is clear.
    pub(crate) fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
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
        let acceptor = Acceptor::start(move |stream| accepting.accept(stream));
        Self { url: format!("http://{}", acceptor.address()), shared, _acceptor: acceptor }
    }

    /// Where to send requests.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sets the weather for all methods that have none of their own.
    pub(crate) fn set(&self, weather: Weather) {
        self.shared.freeze_for(&weather);
        self.shared.change(|state| state.weather = weather);
    }

    /// Sets the weather for one method.
    pub(crate) fn set_for(&self, method: &str, weather: Weather) {
        self.shared.freeze_for(&weather);
        self.shared.change(|state| drop(state.of_method.insert(method.to_owned(), weather)));
    }

    /// Queues weathers for the next requests of one method, one each.
    pub(crate) fn queue(&self, method: &str, weathers: &[Weather]) {
        for weather in weathers {
            self.shared.freeze_for(weather);
        }
        self.shared.change(|state| {
            state.queued.entry(method.to_owned()).or_default().extend(weathers.iter().cloned());
        });
    }

    /// Clears the weather for all methods, and empties the queues.
    pub(crate) fn clear(&self) {
        self.shared.change(|state| {
            state.weather = Weather::Clear;
            state.of_method.clear();
            state.queued.clear();
        });
    }

    /// Holds the requests of one method until the returned value is dropped.
    pub(crate) fn hold(&self, method: &str, at: Hold) -> Held {
        self.shared.change(|state| state.held.push((method.to_owned(), at)));
        Held { method: method.to_owned(), at, shared: Arc::clone(&self.shared) }
    }

    /// The parameters of all requests of this method so far, forwarded or not.
    pub(crate) fn seen(&self, method: &str) -> Vec<Value> {
        let state = self.shared.lock();
        let of_method = state.requests.iter().filter(|(name, _)| name == method);
        of_method.map(|(_, params)| params.clone()).collect()
    }

    /// The methods of all requests so far, in order.
    pub(crate) fn methods(&self) -> Vec<String> {
        self.shared.lock().requests.iter().map(|(method, _)| method.clone()).collect()
    }

    /// The number of connections so far, also of those that were reset before a request was read.
    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().connections
    }
}

impl Drop for RpcProxy {
    fn drop(&mut self) {
        self.shared.change(|state| state.is_over = true);
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

    /// Waits until `is_done`, at most for `limit`; the proxy's end also ends the wait.
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
}
