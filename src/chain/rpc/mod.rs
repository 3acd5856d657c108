//! A client for several JSON-RPC endpoints: a call goes to the first one that works.
//!
//! [`health`] chooses endpoints and their rests, [`endpoint`] speaks HTTP, this file joins the two.
//!
//! Must hold: no call goes to an endpoint before its chain id matched and its head was not stale. A call
//! that got an answer is not repeated; a refusal is an answer if it judges the call (see [`Verdict`]) or
//! if every endpoint gives one. A call ends after at most one attempt per endpoint, one wait and one more
//! attempt. Each change of an endpoint's state is logged once, a flapping one's seldom.

mod answer;
mod batch;
mod block;
mod bulk;
mod endpoint;
mod health;
mod question;
mod survey;

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy::primitives::U64;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Error;
use crate::clock::{Clock as _, SystemClock};
use crate::http;

pub(super) use answer::{ErrorObject, LIMITED, RpcError, Verdict, words};
use batch::BatchSize;
pub(super) use batch::{Call, Item};
pub(super) use block::Block;
use endpoint::{CallError, Endpoint};
pub use health::EndpointLimits;
pub(super) use health::Head;
use health::{EndpointFault, Kind, Roster, Vetting};
use question::{Question, Round};
pub use survey::EndpointState;

/// A call tries no further endpoint after this many request timeouts have passed.
const TIMEOUTS_MAX: u32 = 2;

/// The time limit of requests to endpoints that a call does not depend on.
const LOOK_ASIDE_MAX: Duration = Duration::from_secs(3);

const CHAIN_ID: &str = "eth_chainId";
const BLOCK: &str = "eth_getBlockByNumber";
const SEND: &str = "eth_sendRawTransaction";

/// The chain's endpoints, in order of preference.
///
/// A call that fails at one endpoint moves on to the next. That duplicates nothing: every call is a
/// read, or sends signed bytes that the chain includes at most once, however often they are sent.
pub(super) struct Rpc {
    endpoints: Vec<Endpoint>,
    roster: Mutex<Roster>,
    patience: Duration,
    /// How many calls the endpoints take in one batch, as far as that was found out.
    batches: BatchSize,
}

impl Rpc {
    /// Makes no connection yet. Fails without a URL, or if one is not an `http` or `https` URL.
    /// `chain_id` is the chain that every endpoint must be on; with `None`, the first endpoint to
    /// answer determines it.
    pub(super) fn new(
        urls: &[String],
        chain_id: Option<u64>,
        timeout: Duration,
        limits: EndpointLimits,
    ) -> Result<Self, Error> {
        let client = http::client()
            .timeout(timeout)
            .build()
            .map_err(|err| Error::Unexpected { reason: err.without_url().to_string() })?;
        let endpoints = urls.iter().map(|url| Endpoint::new(url, client.clone()));
        let endpoints: Vec<Endpoint> = endpoints.collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::BadUrl);
        }
        let roster = Mutex::new(Roster::new(endpoints.len(), chain_id, limits));
        let patience = timeout.saturating_mul(TIMEOUTS_MAX);
        Ok(Self { endpoints, roster, patience, batches: BatchSize::default() })
    }

    /// Calls `method` and reads its result.
    ///
    /// For `eth_sendRawTransaction`, [`Error::Unreachable`] means that the transaction may have been
    /// accepted; after a refusal or any other error, this call did not submit it.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, RpcError> {
        self.put(&Question::Call { method, params: &params }).await
    }

    /// [`Rpc::call`] for callers that can't use a refusal; it becomes an error.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, Error> {
        self.call(method, params).await.map_err(|failure| failure.unexpected(method))
    }

    /// Makes the call at every endpoint that is not resting, and ignores the answers. If the first one
    /// accepted a transaction without propagating it, another one will.
    pub(super) async fn spread(&self, method: &'static str, params: &Value) {
        let question = Question::Call { method, params };
        let well = self.roster().well(Instant::now());
        let told = well.into_iter().map(async |index| {
            tokio::time::timeout(LOOK_ASIDE_MAX, self.try_one(index, &question)).await.ok();
        });
        join_all(told).await;
    }

    /// The chain's id, requested anew. [`Error::WrongChain`] only if every endpoint is on another
    /// chain than the expected one.
    pub(super) async fn chain_id(&self) -> Result<u64, Error> {
        let id: Result<U64, RpcError> = self.put(&Question::ChainId).await;
        id.map(|id| id.to()).map_err(|failure| failure.unexpected(CHAIN_ID))
    }

    /// The latest block, from an endpoint whose head is not stale.
    pub(super) async fn head(&self) -> Result<Head, Error> {
        let block: Result<Block, RpcError> = self.put(&Question::Head).await;
        block.map(|block| block.head()).map_err(|failure| failure.unexpected(BLOCK))
    }

    /// Tries a request at one endpoint after the other until one answers it.
    async fn put<T: DeserializeOwned>(&self, question: &Question<'_>) -> Result<T, RpcError> {
        let mut round = Round::new();
        while let Some(index) = self.next(&mut round).await {
            let began = Instant::now();
            round.tried.push(index);
            let answer = self.try_one(index, question).await;
            match answer.and_then(|answer| read(question.method(), answer)) {
                Ok(answer) => {
                    self.answered(index, question, began);
                    self.blame(question, &mut round);
                    return Ok(answer);
                }
                Err(CallError::Refused(refusal)) if refusal.verdict().is_some() => {
                    self.answered(index, question, began);
                    self.blame(question, &mut round);
                    return Err(self.refused(question, &round, refusal));
                }
                Err(CallError::Refused(refusal)) => round.refusals.push((index, refusal, began)),
                Err(CallError::Fault(fault)) => {
                    self.set_aside(index, fault.clone(), began);
                    round.failed(index, fault, question.is_send());
                }
            }
        }
        // If no endpoint serves the call, the call is at fault, and no endpoint is set aside.
        if round.refusals.is_empty() {
            return Err(RpcError::Other(self.given_up(round.failure, question.is_send())));
        }
        let (_, refusal, _) = round.refusals.swap_remove(0);
        Err(self.refused(question, &round, refusal))
    }

    /// Sets aside the endpoints that refused what another one answered.
    fn blame(&self, question: &Question<'_>, round: &mut Round) {
        let method = question.method();
        for (index, refusal, began) in round.refusals.drain(..) {
            let said = format!("{method} was refused: {}", words(&refusal.message));
            self.set_aside(index, EndpointFault::new(Kind::Unwilling(method), said), began);
        }
    }

    /// The endpoint to try next; waits for the end of a rest at most once a call. `None` ends the call.
    async fn next(&self, round: &mut Round) -> Option<usize> {
        let now = Instant::now();
        if now.saturating_duration_since(round.began) >= self.patience {
            return None;
        }
        if let Some(index) = self.roster().choose(&round.tried, now) {
            return Some(index);
        }
        if std::mem::replace(&mut round.has_waited, true) {
            return None;
        }
        let refused: Vec<usize> = round.refusals.iter().map(|(index, ..)| *index).collect();
        let (index, rest) = self.roster().wait(&refused, now)?;
        tokio::time::sleep(rest).await;
        round.tried.retain(|tried| *tried != index);
        self.roster().choose(&round.tried, Instant::now())
    }

    /// Asks one endpoint, after the checks of its chain id and head that are due.
    async fn try_one(&self, index: usize, question: &Question<'_>) -> Result<Value, CallError> {
        let due = self.roster().vetting(index, Instant::now());
        match question {
            Question::ChainId => self.identify(index).await,
            Question::Head => {
                self.vet(index, Vetting { head: false, ..due }).await?;
                self.look(index).await
            }
            Question::Call { method, params } => {
                self.vet(index, due).await?;
                self.endpoints[index].call(method, params).await
            }
            Question::Batch { calls, is_refused } => {
                self.vet(index, due).await?;
                let answer = self.endpoints[index].batch(calls).await;
                if answer.as_ref().is_err_and(CallError::is_of_request) {
                    is_refused.store(true, Ordering::Relaxed);
                }
                answer
            }
        }
    }

    /// Makes the checks that are due. After a failure here, the request itself was not made.
    async fn vet(&self, index: usize, due: Vetting) -> Result<(), CallError> {
        if due.chain_id {
            self.identify(index).await.map_err(CallError::of_vetting)?;
        }
        if due.head {
            self.look(index).await.map_err(CallError::of_vetting)?;
        }
        Ok(())
    }

    async fn identify(&self, index: usize) -> Result<Value, CallError> {
        let answer = self.must_say(index, CHAIN_ID, json!([])).await?;
        let id: U64 = read(CHAIN_ID, answer.clone())?;
        self.roster().identify(index, id.to()).map_err(CallError::Fault)?;
        Ok(answer)
    }

    /// Checks the endpoint's head, and that of another one, so that an endpoint that fell behind is
    /// noticed.
    async fn look(&self, index: usize) -> Result<Value, CallError> {
        let other = self.roster().other_to_look_at(index, Instant::now());
        let (block, ()) = tokio::join!(self.latest(index), self.look_aside(other));
        let (answer, head) = block?;
        self.judge(index, head)?;
        Ok(answer)
    }

    /// Checks an endpoint that no call depends on: it may be slow, and a fault sets only itself aside.
    async fn look_aside(&self, other: Option<usize>) {
        let Some(index) = other else { return };
        let began = Instant::now();
        let Vetting { chain_id, .. } = self.roster().vetting(index, began);
        match tokio::time::timeout(LOOK_ASIDE_MAX, self.look_at(index, chain_id)).await {
            Ok(Ok(())) => self.answered(index, &Question::Head, began),
            Ok(Err(CallError::Fault(fault))) => self.set_aside(index, fault, began),
            Ok(Err(CallError::Refused(_))) | Err(_) => {}
        }
    }

    async fn look_at(&self, index: usize, chain_id: bool) -> Result<(), CallError> {
        if chain_id {
            self.identify(index).await?;
        }
        let (_, head) = self.latest(index).await?;
        self.judge(index, head)
    }

    async fn latest(&self, index: usize) -> Result<(Value, Head), CallError> {
        let answer = self.must_say(index, BLOCK, json!(["latest", false])).await?;
        let block: Block = read(BLOCK, answer.clone())?;
        Ok((answer, block.head()))
    }

    fn judge(&self, index: usize, head: Head) -> Result<(), CallError> {
        let (now, today) = (Instant::now(), SystemClock.now());
        self.roster().judge(index, head, now, today).map_err(CallError::Fault)
    }

    /// Makes a call whose refusal is the endpoint's fault, for example because of a revoked key.
    async fn must_say(
        &self,
        index: usize,
        method: &str,
        params: Value,
    ) -> Result<Value, CallError> {
        let answer = self.endpoints[index].call(method, &params).await;
        answer.map_err(|trouble| trouble.of_method(method))
    }

    fn answered(&self, index: usize, question: &Question<'_>, began: Instant) {
        if self.roster().answered(index, question.method(), began)
            && self.endpoints[index].is_back_news()
        {
            tracing::info!("{} is back", self.name(index));
        }
    }

    fn set_aside(&self, index: usize, fault: EndpointFault, began: Instant) {
        let said = fault.said.clone();
        let times = (began, Instant::now());
        let rest = self.roster().failed(index, fault, times, fastrand::f64());
        if let Some(rest) = rest
            && let Some(more) = self.endpoints[index].left_alone()
        {
            let (name, seconds) = (self.name(index), rest.as_secs_f64().ceil());
            tracing::warn!("{name} is left alone for {seconds} s: {said}{more}");
        }
    }

    /// The endpoint in log lines, numbered: two of one provider look alike without their keys.
    fn name(&self, index: usize) -> String {
        let (number, count) = (index + 1, self.endpoints.len());
        format!("the chain's endpoint {number} of {count}, {},", self.endpoints[index].shown)
    }

    /// The failure of a refused call. If another endpoint may have accepted the same transaction earlier
    /// in this call, the refusal proves nothing: "nonce too low" may be about that very transaction.
    fn refused(&self, question: &Question<'_>, round: &Round, refusal: ErrorObject) -> RpcError {
        match &round.failure {
            Some((index, fault)) if question.is_send() && fault.perhaps_done => {
                let url = self.endpoints[*index].shown.clone();
                let said = words(&refusal.message);
                let source = format!("{}; after it another one said: {said}", fault.said).into();
                RpcError::Other(Error::Unreachable { url, source })
            }
            _ => RpcError::Refused(refusal),
        }
    }

    /// The error of a call that no endpoint answered, or that found all of them resting.
    fn given_up(&self, failure: Option<(usize, EndpointFault)>, is_send: bool) -> Error {
        let roster = self.roster();
        let is_perhaps_sent =
            is_send && failure.as_ref().is_some_and(|(_, fault)| fault.perhaps_done);
        if let Some((expected, actual)) = roster.all_foreign().filter(|_| !is_perhaps_sent) {
            let url = self.endpoints[0].shown.clone();
            return Error::WrongChain { url, expected, actual };
        }
        let (index, fault) = failure.unwrap_or_else(|| {
            let (index, rest) = roster.first_back(Instant::now());
            let known = roster.fault(index).cloned();
            let known = known.unwrap_or_else(|| EndpointFault::new(Kind::Away, "no time was left"));
            let seconds = rest.as_secs_f64().ceil();
            let said = format!("{}; left alone for {seconds} s more", known.said);
            (index, EndpointFault { said, perhaps_done: false, ..known })
        });
        let url = self.endpoints[index].shown.clone();
        match fault.kind {
            _ if is_perhaps_sent => Error::Unreachable { url, source: fault.said.into() },
            Kind::Nonsense => Error::Unexpected { reason: fault.said },
            Kind::Stale | Kind::Unwilling(_) => {
                Error::Unexpected { reason: format!("{url}: {}", fault.said) }
            }
            Kind::Away | Kind::Throttled | Kind::Foreign(_) => {
                Error::Unreachable { url, source: fault.said.into() }
            }
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rpc({:?})", self.endpoints)
    }
}

fn read<T: DeserializeOwned>(method: &str, answer: Value) -> Result<T, CallError> {
    let what = || format!("its result of {method} has another form");
    serde_json::from_value(answer).map_err(|_| CallError::nonsense(what()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_are_taken_and_their_keys_stay_hidden() {
        let rpc = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
            Rpc::new(&urls, None, Duration::from_secs(1), EndpointLimits::default())
        };
        for url in ["", "127.0.0.1:8545", "ws://127.0.0.1:8545", "file:///etc/passwd"] {
            let refused = rpc(&["http://127.0.0.1:8545", url]);
            assert!(matches!(refused, Err(Error::BadUrl)), "{url}");
        }
        assert!(matches!(rpc(&[]), Err(Error::BadUrl)));
        let url = "https://u:p@rpc.example/v2/AbCdEf0123456789AbCdEf?k=1";
        let shown = format!("{:?}", rpc(&["http://127.0.0.1:8545", url]).unwrap());
        let known = "Rpc([http://127.0.0.1:8545, https://rpc.example/…";
        assert!(shown.starts_with(known) && !shown.contains("AbCdEf"), "{shown}");
    }
}
