//! The chain's endpoints behind one door: a call goes to the first that is well.
//!
//! [`health`] decides whom to ask and who rests, [`endpoint`] speaks HTTP, this file joins the two.
//!
//! What must hold: an endpoint is asked nothing before it was seen to be on the right chain, with a
//! head that is not stale; an answer is never asked for twice, and of refusals those are answers that
//! judge the call (see [`Verdict`]) or that every endpoint gives; every call ends, after one try of
//! each endpoint, one wait and one more try at most; a change for the worse or the better is said once.

mod answer;
mod endpoint;
mod health;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy::primitives::{U64, U128};
use futures_util::future::join_all;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Error;
use crate::clock::{Clock as _, SystemClock};

pub(super) use answer::{Failure, Refusal, Verdict, words};
use endpoint::{Endpoint, Trouble};
pub use health::EndpointLimits;
pub(super) use health::Head;
use health::{Fault, Kind, Roster, Vetting};

/// No further endpoint is tried once a call took as long as this many answers may take.
const TIMEOUTS_MAX: u32 = 2;

/// What a call waits for the head of an endpoint that it does not need.
const LOOK_ASIDE_MAX: Duration = Duration::from_secs(3);

const CHAIN_ID: &str = "eth_chainId";
const BLOCK: &str = "eth_getBlockByNumber";
const SEND: &str = "eth_sendRawTransaction";

/// The chain's endpoints, in the order of preference.
///
/// A call that fails at one of them is made at the next. That can't double anything: every call is
/// a read, or sends signed bytes that the chain takes once at most, whoever brings them how often.
pub(super) struct Rpc {
    endpoints: Vec<Endpoint>,
    roster: Mutex<Roster>,
    patience: Duration,
}

/// How one endpoint was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointState {
    /// Redacted.
    pub url: String,
    /// What keeps it from being used, in words; `None` where nothing does.
    pub trouble: Option<String>,
}

/// One call on its way from endpoint to endpoint.
struct Round {
    began: Instant,
    tried: Vec<usize>,
    has_waited: bool,
    /// The first failure; of a transaction, the first after which it may have been taken.
    failure: Option<(usize, Fault)>,
    /// Refusals that judge not the call. They are the endpoint's fault where another one answers.
    refusals: Vec<(usize, Refusal, Instant)>,
}

/// What an endpoint is asked, with what makes an answer to it good.
enum Question<'a> {
    ChainId,
    Head,
    Call { method: &'static str, params: &'a Value },
}

impl Rpc {
    /// Opens nothing yet. Fails where there is no URL, and on what is no `http` or `https` URL.
    /// `chain_id` is the chain that every endpoint must be on; where it is `None`, the first that
    /// answers says which.
    pub(super) fn new(
        urls: &[String],
        chain_id: Option<u64>,
        timeout: Duration,
        limits: EndpointLimits,
    ) -> Result<Self, Error> {
        // reqwest panics without a provider; a second install is refused and changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .proxy(reqwest::Proxy::custom(|url| crate::proxy::of(url.scheme(), url.host_str()?)))
            .build()
            .map_err(|err| Error::Unexpected { reason: err.without_url().to_string() })?;
        let endpoints = urls.iter().map(|url| Endpoint::new(url, client.clone()));
        let endpoints: Vec<Endpoint> = endpoints.collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::BadUrl);
        }
        let roster = Mutex::new(Roster::new(endpoints.len(), chain_id, limits));
        Ok(Self { endpoints, roster, patience: timeout.saturating_mul(TIMEOUTS_MAX) })
    }

    /// Calls `method` and reads its result.
    ///
    /// Of `eth_sendRawTransaction`, [`Error::Unreachable`] means that the transaction may have been
    /// taken; after a refusal or any other error it was not taken by this call.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, Failure> {
        self.put(&Question::Call { method, params: &params }).await
    }

    /// [`Rpc::call`] where a refusal is no answer that the caller could use.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, Error> {
        self.call(method, params).await.map_err(|failure| failure.unexpected(method))
    }

    /// Puts the call to every endpoint that is not at rest, whatever each of them says: where the
    /// first one took a transaction and kept it to itself, another one passes it on.
    pub(super) async fn spread(&self, method: &'static str, params: &Value) {
        let question = Question::Call { method, params };
        let well = self.roster().well(Instant::now());
        let told = well.into_iter().map(async |index| {
            tokio::time::timeout(LOOK_ASIDE_MAX, self.try_one(index, &question)).await.ok();
        });
        join_all(told).await;
    }

    /// The chain's id, asked anew. [`Error::WrongChain`] only where every endpoint is on another
    /// chain than was set.
    pub(super) async fn chain_id(&self) -> Result<u64, Error> {
        let id: Result<U64, Failure> = self.put(&Question::ChainId).await;
        id.map(|id| id.to()).map_err(|failure| failure.unexpected(CHAIN_ID))
    }

    /// The latest block, not stale.
    pub(super) async fn head(&self) -> Result<Head, Error> {
        let block: Result<Block, Failure> = self.put(&Question::Head).await;
        block.map(|block| block.head()).map_err(|failure| failure.unexpected(BLOCK))
    }

    /// Asks every endpoint for its chain, its head, and these, which each must serve; those at rest
    /// too. What judges the call serves it. Sets none aside.
    pub(super) async fn survey(&self, questions: &[(&str, Value)]) -> Vec<EndpointState> {
        join_all((0..self.endpoints.len()).map(async |index| {
            let looked = self.serves(index, questions).await;
            let trouble = looked.err().map(|trouble| match trouble {
                Trouble::Fault(fault) => fault.said,
                Trouble::Refused(refusal) => words(&refusal.message),
            });
            EndpointState { url: self.endpoints[index].shown.clone(), trouble }
        }))
        .await
    }

    async fn serves(&self, index: usize, questions: &[(&str, Value)]) -> Result<(), Trouble> {
        self.look_at(index, true).await?;
        for (method, params) in questions {
            match self.endpoints[index].call(method, params).await {
                Ok(_) => {}
                Err(Trouble::Refused(refusal)) if refusal.verdict().is_some() => {}
                Err(trouble) => return Err(trouble.of_method(method)),
            }
        }
        Ok(())
    }

    /// Carries a question from endpoint to endpoint until one answers it.
    async fn put<T: DeserializeOwned>(&self, question: &Question<'_>) -> Result<T, Failure> {
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
                Err(Trouble::Refused(refusal)) if refusal.verdict().is_some() => {
                    self.answered(index, question, began);
                    self.blame(question, &mut round);
                    return Err(self.refused(question, &round, refusal));
                }
                Err(Trouble::Refused(refusal)) => round.refusals.push((index, refusal, began)),
                Err(Trouble::Fault(fault)) => {
                    self.set_aside(index, fault.clone(), began);
                    round.failed(index, fault, question.is_send());
                }
            }
        }
        // Where nobody serves it, it is the call that is wrong, and nobody is set aside for it.
        if round.refusals.is_empty() {
            return Err(Failure::Other(self.given_up(round.failure, question.is_send())));
        }
        let (_, refusal, _) = round.refusals.swap_remove(0);
        Err(self.refused(question, &round, refusal))
    }

    /// Sets those aside that refused what another one answered.
    fn blame(&self, question: &Question<'_>, round: &mut Round) {
        let method = question.method();
        for (index, refusal, began) in round.refusals.drain(..) {
            let said = format!("{method} was refused: {}", words(&refusal.message));
            self.set_aside(index, Fault::new(Kind::Unwilling(method), said), began);
        }
    }

    /// The endpoint to try next; waits for one to be back, once a call. `None` ends the call.
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

    /// Asks one endpoint, after a look at its chain and its head where that is due.
    async fn try_one(&self, index: usize, question: &Question<'_>) -> Result<Value, Trouble> {
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
        }
    }

    /// Whatever goes wrong here, the question itself was not put.
    async fn vet(&self, index: usize, due: Vetting) -> Result<(), Trouble> {
        if due.chain_id {
            self.identify(index).await.map_err(Trouble::of_vetting)?;
        }
        if due.head {
            self.look(index).await.map_err(Trouble::of_vetting)?;
        }
        Ok(())
    }

    async fn identify(&self, index: usize) -> Result<Value, Trouble> {
        let answer = self.must_say(index, CHAIN_ID, json!([])).await?;
        let id: U64 = read(CHAIN_ID, answer.clone())?;
        self.roster().identify(index, id.to()).map_err(Trouble::Fault)?;
        Ok(answer)
    }

    /// Looks at the endpoint's head, and at that of another, so that one that fell behind is seen
    /// to be behind.
    async fn look(&self, index: usize) -> Result<Value, Trouble> {
        let other = self.roster().other_to_look_at(index, Instant::now());
        let (block, ()) = tokio::join!(self.latest(index), self.look_aside(other));
        let (answer, head) = block?;
        self.judge(index, head)?;
        Ok(answer)
    }

    /// A look at an endpoint that nobody waits for: it may be slow, and only its own name suffers.
    async fn look_aside(&self, other: Option<usize>) {
        let Some(index) = other else { return };
        let began = Instant::now();
        let Vetting { chain_id, .. } = self.roster().vetting(index, began);
        match tokio::time::timeout(LOOK_ASIDE_MAX, self.look_at(index, chain_id)).await {
            Ok(Ok(())) => self.answered(index, &Question::Head, began),
            Ok(Err(Trouble::Fault(fault))) => self.set_aside(index, fault, began),
            Ok(Err(Trouble::Refused(_))) | Err(_) => {}
        }
    }

    async fn look_at(&self, index: usize, chain_id: bool) -> Result<(), Trouble> {
        if chain_id {
            self.identify(index).await?;
        }
        let (_, head) = self.latest(index).await?;
        self.judge(index, head)
    }

    async fn latest(&self, index: usize) -> Result<(Value, Head), Trouble> {
        let answer = self.must_say(index, BLOCK, json!(["latest", false])).await?;
        let block: Block = read(BLOCK, answer.clone())?;
        Ok((answer, block.head()))
    }

    fn judge(&self, index: usize, head: Head) -> Result<(), Trouble> {
        let (now, today) = (Instant::now(), SystemClock.now());
        self.roster().judge(index, head, now, today).map_err(Trouble::Fault)
    }

    /// An endpoint that refuses these two is of no use: its key may have been withdrawn.
    async fn must_say(&self, index: usize, method: &str, params: Value) -> Result<Value, Trouble> {
        let answer = self.endpoints[index].call(method, &params).await;
        answer.map_err(|trouble| trouble.of_method(method))
    }

    fn answered(&self, index: usize, question: &Question<'_>, began: Instant) {
        if self.roster().answered(index, question.method(), began) {
            tracing::info!("{} is back", self.name(index));
        }
    }

    fn set_aside(&self, index: usize, fault: Fault, began: Instant) {
        let said = fault.said.clone();
        let times = (began, Instant::now());
        if let Some(rest) = self.roster().failed(index, fault, times, fastrand::f64()) {
            let seconds = rest.as_secs_f64().ceil();
            tracing::warn!("{} is left alone for {seconds} s: {said}", self.name(index));
        }
    }

    /// The endpoint in a log's line: two of one provider look alike without their keys.
    fn name(&self, index: usize) -> String {
        let (number, count) = (index + 1, self.endpoints.len());
        format!("the chain's endpoint {number} of {count}, {},", self.endpoints[index].shown)
    }

    /// A refusal is an answer. Only to a transaction that another endpoint may have taken before in
    /// this call it says nothing: "nonce too low" may be about that very transaction.
    fn refused(&self, question: &Question<'_>, round: &Round, refusal: Refusal) -> Failure {
        match &round.failure {
            Some((index, fault)) if question.is_send() && fault.perhaps_done => {
                let url = self.endpoints[*index].shown.clone();
                let said = words(&refusal.message);
                let source = format!("{}; after it another one said: {said}", fault.said).into();
                Failure::Other(Error::Unreachable { url, source })
            }
            _ => Failure::Refused(refusal),
        }
    }

    /// The error of a call that no endpoint answered, or that found all of them at rest.
    fn given_up(&self, failure: Option<(usize, Fault)>, is_send: bool) -> Error {
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
            let known = known.unwrap_or_else(|| Fault::new(Kind::Away, "no time was left"));
            let seconds = rest.as_secs_f64().ceil();
            let said = format!("{}; left alone for {seconds} s more", known.said);
            (index, Fault { said, perhaps_done: false, ..known })
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

impl Round {
    fn new() -> Self {
        let (began, tried, refusals) = (Instant::now(), Vec::new(), Vec::new());
        Self { began, tried, has_waited: false, failure: None, refusals }
    }

    fn failed(&mut self, index: usize, fault: Fault, is_send: bool) {
        let known = self.failure.as_ref();
        let is_graver =
            |known: &(usize, Fault)| is_send && fault.perhaps_done && !known.1.perhaps_done;
        if known.is_none_or(is_graver) {
            self.failure = Some((index, fault));
        }
    }
}

impl Question<'_> {
    fn method(&self) -> &'static str {
        match self {
            Self::ChainId => CHAIN_ID,
            Self::Head => BLOCK,
            Self::Call { method, .. } => method,
        }
    }

    fn is_send(&self) -> bool {
        self.method() == SEND
    }
}

/// What of a block is read here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    number: U64,
    timestamp: U64,
    base_fee_per_gas: Option<U128>,
}

fn read<T: DeserializeOwned>(method: &str, answer: Value) -> Result<T, Trouble> {
    let what = || format!("its result of {method} has another form");
    serde_json::from_value(answer).map_err(|_| Trouble::nonsense(what()))
}

impl Block {
    fn head(&self) -> Head {
        Head {
            number: self.number.to(),
            timestamp_s: self.timestamp.to(),
            base_fee: self.base_fee_per_gas.map(|fee| fee.to()),
        }
    }
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
        assert_eq!(shown, "Rpc([http://127.0.0.1:8545, https://rpc.example/v2/***])");
    }
}
