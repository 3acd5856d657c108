//! What becomes of one request in each weather.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answers::{Reply, http, nonsense, page, refusal};
use super::{Hold, SEND, Shared, State, Weather};
use crate::support::http::{post, read_http};

impl Shared {
    pub(super) fn accept(self: &Arc<Self>, stream: TcpStream) {
        let mut state = self.lock();
        state.connections += 1;
        let is_general = state.queued.is_empty() && state.of_method.is_empty();
        let is_down = matches!(state.weather, Weather::Down) && is_general;
        drop(state);
        // A connection that is dropped with its request unread is reset.
        if !is_down {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.serve(stream));
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
            // Closing before the client has read everything could cut off the answer.
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
            // A transaction costs 21,000 gas before it does anything, so 23,040 is too little.
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
        post(&mut stream, &self.upstream, &body).ok()?;
        let (_, answer) = read_http(&mut stream)?;
        Some(http(200, "", &answer))
    }

    pub(super) fn freeze_for(&self, weather: &Weather) {
        if !matches!(weather, Weather::StaleHead { .. }) {
            return;
        }
        let params = json!(["latest", false]);
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber",
                             "params": params});
        let Some(Reply::Bytes(answer)) = self.forward(&request) else {
            panic!("the node behind the proxy shows its head")
        };
        let (_, body) = read_http(&mut answer.as_slice()).expect("the proxy's own answer");
        let answer: Value = serde_json::from_slice(&body).expect("an answer");
        self.change(|state| state.frozen = answer["result"].clone());
    }

    fn frozen(&self) -> Value {
        self.lock().frozen.clone()
    }
}
