//! One key, one host: instances with the same key find each other on `jobs.control.<address>`
//! (docs/adr/0011).
//!
//! Before this process takes a job or sends a transaction, it says hello and listens for two
//! seconds, or less if the server reports that nobody hears it. It says hello again after each
//! reconnect, when it hears another's hello, and at intervals. An instance at work answers every
//! hello but its own. Anybody on the server can publish there, so:
//!
//! - hello and answer are signed with the node's own key, in a domain of their own that needs no
//!   chain; a hello without that signature is answered and otherwise ignored;
//! - an answer is bound to its hello, so that an old one proves nothing;
//! - a hello alone stops this process only until its own goes unanswered: an old one costs two
//!   seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::Deserialize;
use serde_json::json;

use super::instance::Instance;
use super::sole::{Conflict, Sole};
use crate::agent::jobs::holds;
use crate::agent::link::Link;
use crate::bus::{self, Bus};
use crate::chain::{Key, key};
use crate::clock::Clock;
use crate::ids::{Address, Domain, JobId, Signature};
use crate::supervise::Failure;

/// How long another instance has to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The same if the server reported a moment ago that nobody listens: then only an instance that
/// starts at this very moment can be there.
const AT_ONCE: Duration = Duration::from_millis(200);
/// How often an instance that answered is asked again; each answer restarts the quiet time.
const AGAIN: Duration = Duration::from_secs(10);
/// How often an instance that was asked to leave is polled.
const POLL: Duration = Duration::from_secs(1);
/// The largest accepted difference between a signed request's time and this node's clock.
const FRESH: Duration = Duration::from_mins(1);
/// The number of other instances remembered. Only the key's own users can add one.
const OTHERS_MAX: usize = 64;

/// The fields besides `action` of a request between instances.
#[derive(Debug, Deserialize)]
pub(in crate::agent) struct Greeting {
    /// The instance that asks.
    instance: Instance,
    /// The instance that is meant by a `leave`.
    #[serde(default)]
    to: Option<Instance>,
    /// Whether the asking instance is at work already.
    #[serde(default)]
    running: bool,
    #[serde(default)]
    issued_at_ms: u64,
    #[serde(default)]
    signature: Option<Signature>,
}

/// The answer to a hello.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::agent) enum Reply {
    /// The hello gets no answer.
    Silence,
    /// An unsigned answer: an instance is here.
    Here,
    /// A signed answer, for another instance of this key.
    Proof(Signature),
}

/// This instance, and the others of its key that it has heard.
#[derive(Debug, Clone)]
pub struct Greeter<C> {
    /// Whether the key is used elsewhere, as far as this instance has found out.
    pub sole: Sole,
    me: Instance,
    key: Arc<Key>,
    take_over: Option<Duration>,
    clock: C,
    others: Arc<Mutex<BTreeMap<Instance, u64>>>,
}

/// Another instance answers: this one must not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "the key of {node} is in use: another node answers with it on this NATS server (instance \
     {other}). Stop that one first, or start with --take-over, which asks it to end"
)]
pub struct InUse {
    node: Address,
    other: Instance,
}

/// Another instance was asked to end, but did not.
#[derive(Debug, thiserror::Error)]
#[error(
    "the key of {node} is in use: the other node (instance {other}) was asked to end, but still \
     answers after {waited_s} s. Stop it, then start this one again"
)]
pub struct Stays {
    node: Address,
    other: Instance,
    waited_s: u64,
}

impl<C: Clock + Clone> Greeter<C> {
    /// A new instance that reports to `sole`. With `take_over` it asks an instance that uses the
    /// key to end, and waits that long for it.
    pub fn new(key: Arc<Key>, sole: Sole, take_over: Option<Duration>, clock: C) -> Self {
        Self { sole, me: Instance::random(), key, take_over, clock, others: Arc::default() }
    }

    /// The id of this instance.
    pub(in crate::agent) fn me(&self) -> &Instance {
        &self.me
    }

    fn sign(&self, action: &str, said: &str, at_ms: u64) -> Signature {
        let digest = Domain::OWN.control_digest(action, said, self.key.address(), at_ms);
        Signature(self.key.sign_digest(&digest.0))
    }

    /// Signs the answer to an agent that asks whether this node has a job: it does, and goes on for
    /// `for_ms` without hearing from the server.
    pub(in crate::agent) fn holds(&self, job: &JobId, for_ms: u64, asked_at_ms: u64) -> Signature {
        self.sign(holds::ACTION, &holds::said(job, for_ms), asked_at_ms)
    }

    /// Whether this node's own key signed this.
    fn is_ours(&self, action: &str, said: &str, at_ms: u64, signature: &Signature) -> bool {
        let node = self.key.address();
        let digest = Domain::OWN.control_digest(action, said, node, at_ms);
        key::recover(&digest.0, &signature.0) == Ok(node)
    }

    fn is_fresh(&self, at_ms: u64) -> bool {
        self.clock.now().unix_ms().abs_diff(at_ms) <= u64::try_from(FRESH.as_millis()).unwrap_or(0)
    }

    /// Handles a hello: raises the alarm if another instance of this key sent it, and returns the
    /// answer.
    pub(in crate::agent) fn hears(&self, said: &Greeting) -> Reply {
        if said.instance == self.me {
            return Reply::Silence;
        }
        let (other, at_ms) = (&said.instance, said.issued_at_ms);
        let is_ours = |signature| self.is_ours("hello", other.as_str(), at_ms, signature);
        if !said.signature.as_ref().is_some_and(is_ours) {
            return Reply::Here;
        }
        let is_new = self.is_new(other, at_ms);
        if !self.sole.is_sole() {
            // Of two that start at once the one with the smaller id stays; the other asks again.
            if !said.running && self.me < *other {
                return Reply::Proof(self.proof(other, at_ms));
            }
            if is_new && self.is_fresh(at_ms) {
                self.sole.hears();
            }
            return Reply::Silence;
        }
        if is_new {
            if self.is_fresh(at_ms) {
                self.sole.conflict(self.clock.now(), Conflict::Hello { instance: other.clone() });
            }
            self.sole.hears();
        }
        Reply::Proof(self.proof(other, at_ms))
    }

    /// Signs an answer that counts for this one hello only.
    fn proof(&self, asker: &Instance, asked_at_ms: u64) -> Signature {
        self.sign("hello-answer", &format!("{}/{asker}", self.me), asked_at_ms)
    }

    /// Whether this is later than all that was heard from that instance before. A replayed message
    /// is not.
    fn is_new(&self, other: &Instance, at_ms: u64) -> bool {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = others.get(other).is_none_or(|known| *known < at_ms);
        if is_new {
            others.insert(other.clone(), at_ms);
        }
        if others.len() > OTHERS_MAX
            && let Some(oldest) = others.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone())
        {
            others.remove(&oldest);
        }
        is_new
    }

    /// Handles a request to end. Returns whether this instance ends; `None` if another one is
    /// meant.
    pub(in crate::agent) fn hears_leave(&self, said: &Greeting) -> Option<bool> {
        if said.to.as_ref() != Some(&self.me) {
            return None;
        }
        let (text, at_ms) = (format!("{}/{}", said.instance, self.me), said.issued_at_ms);
        let is_ours = |signature| self.is_ours("leave", &text, at_ms, signature);
        let leaves = self.is_fresh(at_ms) && said.signature.as_ref().is_some_and(is_ours);
        if leaves {
            tracing::warn!("another node ({}) takes over: ending", said.instance);
            self.sole.leave();
        }
        Some(leaves)
    }

    /// The body of a hello sent at `at_ms`.
    fn hello(&self, at_ms: u64) -> Bytes {
        let hello = json!({
            "action": "hello", "instance": self.me, "running": self.sole.is_sole(),
            "issued_at_ms": at_ms, "signature": self.sign("hello", self.me.as_str(), at_ms),
        });
        hello.to_string().into()
    }

    /// Whether the server knows of nobody who would hear a hello. To be called before this instance
    /// itself listens.
    async fn is_unheard(&self, bus: &Bus) -> Result<bool, bus::Error> {
        let hello = self.hello(self.clock.now().unix_ms());
        match bus.control(self.key.address(), hello, ANSWER).await {
            Err(bus::Error::NoAgent { .. }) => Ok(true),
            // `ask` finds out who it is: there an answer has to prove it.
            Ok(_) | Err(bus::Error::Timeout { .. }) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Says hello and returns the first other instance that proves within `wait` that it is there.
    /// An error if the connection was interrupted, since then the hello may not have been heard.
    async fn ask(&self, bus: &Bus, wait: Duration) -> Result<Option<Instance>, bus::Error> {
        let (at_ms, connection) = (self.clock.now().unix_ms(), bus.connection_number());
        let mut answers = bus.ask_all(self.key.address(), self.hello(at_ms)).await?;
        let proved = async {
            loop {
                if let Some(other) = self.proved(&answers.next().await?, at_ms) {
                    return Ok(Some(other));
                }
            }
        };
        tokio::select! {
            other = proved => other,
            () = self.clock.sleep(wait) => {
                let heard = bus.is_connected() && bus.connection_number() == connection;
                if heard { Ok(None) } else { Err(bus::Error::Timeout { what: "say hello" }) }
            }
        }
    }

    /// The instance that answered, if it is another one with this key and it answers this hello.
    fn proved(&self, answer: &Bytes, asked_at_ms: u64) -> Option<Instance> {
        #[derive(Deserialize)]
        struct Answer {
            instance: Instance,
            signature: Signature,
        }
        let answer: Answer = serde_json::from_slice(answer).ok()?;
        let text = format!("{}/{}", answer.instance, self.me);
        let proves = answer.instance != self.me
            && self.is_ours("hello-answer", &text, asked_at_ms, &answer.signature);
        proves.then_some(answer.instance)
    }

    /// Returns once no other instance answers. With `take_over` one that answers is asked to end,
    /// without it the error is fatal.
    async fn start(&self, bus: &Bus, unheard: bool) -> Result<(), Failure> {
        let (node, began) = (self.key.address(), self.clock.now());
        let mut wait = if unheard { AT_ONCE } else { ANSWER };
        loop {
            let other = self.ask(bus, wait).await.map_err(again)?;
            wait = ANSWER;
            let Some(other) = other else {
                // Another instance that started meanwhile may be the one that stays.
                if self.sole.heard().now_or_never().is_none() {
                    return Ok(());
                }
                continue;
            };
            let Some(patience) = self.take_over else {
                return Err(Failure::Fatal(InUse { node, other }.into()));
            };
            let waited = self.clock.now().since(began);
            if waited > patience {
                let waited_s = waited.as_secs();
                return Err(Failure::Fatal(Stays { node, other, waited_s }.into()));
            }
            self.ask_to_leave(bus, &other).await;
            self.clock.sleep(POLL).await;
        }
    }

    async fn ask_to_leave(&self, bus: &Bus, other: &Instance) {
        let at_ms = self.clock.now().unix_ms();
        let leave = json!({
            "action": "leave", "instance": self.me, "to": other, "issued_at_ms": at_ms,
            "signature": self.sign("leave", &format!("{}/{other}", self.me), at_ms),
        });
        tracing::info!("waiting for the other node ({other}) to end");
        match bus.control(self.key.address(), leave.to_string().into(), ANSWER).await {
            Ok(answer) => {
                let answer = String::from_utf8_lossy(&answer);
                tracing::debug!("it answers: {}", answer.escape_debug());
            }
            Err(err) => tracing::debug!("it does not answer: {err}"),
        }
    }

    /// Asks for other instances while this one is at work, and updates the alarm; returns whether
    /// one answered.
    async fn look(&self, bus: &Bus) -> Result<bool, bus::Error> {
        let other = self.ask(bus, ANSWER).await?;
        let answered = other.is_some();
        match other {
            Some(instance) => {
                self.sole.conflict(self.clock.now(), Conflict::Answer { instance });
            }
            None => self.sole.unanswered(),
        }
        Ok(answered)
    }
}

fn again(err: bus::Error) -> Failure {
    Failure::Again(err.into())
}

/// Says hello at the start and then whenever there is a reason to; a service that ends once another
/// instance takes over.
pub async fn run<C: Clock + Clone>(greeter: Greeter<C>, link: Link) -> Result<(), Failure> {
    let bus = link.bus().await;
    let sole = greeter.sole.clone();
    let unheard = !sole.is_sole() && greeter.is_unheard(&bus).await.map_err(again)?;
    sole.asks();
    sole.listening().await;
    loop {
        let connection = bus.connection_number();
        let mut answered = false;
        if sole.is_sole() {
            answered = greeter.look(&bus).await.map_err(again)?;
        } else {
            greeter.start(&bus, unheard).await?;
            sole.mark_sole();
        }
        // A split cluster may have merged without cutting our connection, so ask at intervals too.
        let wait = if answered { AGAIN } else { (sole.quiet() / 3).max(AGAIN) };
        tokio::select! {
            () = sole.left() => return Ok(()),
            // Two that know of each other would answer each other's hellos with hellos.
            () = sole.heard(), if !answered => {}
            met = bus.connected_again(connection) => met.map_err(again)?,
            () = greeter.clock.sleep(wait) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn greeter(key: &Key) -> Greeter<SystemClock> {
        let sole = Sole::new(Duration::from_mins(1));
        sole.mark_sole();
        Greeter::new(Arc::new(key.clone()), sole, None, SystemClock)
    }

    fn alarm(greeter: &Greeter<SystemClock>) -> Option<Conflict> {
        greeter.sole.alarm(SystemClock.now())
    }

    /// A hello as it comes over the wire.
    fn hello(from: &Greeter<SystemClock>, at_ms: u64) -> Greeting {
        let signature = Some(from.sign("hello", from.me.as_str(), at_ms));
        let (instance, to, running) = (from.me.clone(), None, false);
        Greeting { instance, to, running, issued_at_ms: at_ms, signature }
    }

    fn now_ms() -> u64 {
        SystemClock.now().unix_ms()
    }

    #[test]
    fn another_instance_of_our_key_raises_the_alarm_and_gets_a_proof_for_its_question_alone() {
        let key = Key::random();
        let (ours, other) = (greeter(&key), greeter(&key));
        let at_ms = now_ms();
        let Reply::Proof(signature) = ours.hears(&hello(&other, at_ms)) else {
            panic!("an answer with a proof");
        };
        assert_eq!(alarm(&ours), Some(Conflict::Hello { instance: other.me.clone() }));
        let answer = json!({"ok": true, "instance": ours.me, "signature": signature});
        let answer = Bytes::from(answer.to_string());
        assert_eq!(other.proved(&answer, at_ms), Some(ours.me.clone()));
        assert_eq!(other.proved(&answer, at_ms + 1), None, "another question");
        assert_eq!(greeter(&key).proved(&answer, at_ms), None, "another asker");
    }

    #[test]
    fn what_a_stranger_says_or_repeats_raises_no_alarm() {
        let key = Key::random();
        let (ours, other) = (greeter(&key), greeter(&key));
        let unsigned = Greeting { signature: None, ..hello(&other, now_ms()) };
        assert_eq!(ours.hears(&unsigned), Reply::Here);
        assert_eq!(ours.hears(&hello(&greeter(&Key::random()), now_ms())), Reply::Here);
        let at_ms = now_ms();
        let renamed = Greeting { instance: Instance::random(), ..hello(&other, at_ms) };
        assert_eq!(ours.hears(&renamed), Reply::Here);
        assert_eq!(ours.hears(&hello(&ours, at_ms)), Reply::Silence, "our own");
        assert_eq!(alarm(&ours), None);
        ours.hears(&hello(&other, at_ms));
        ours.sole.unanswered();
        ours.hears(&hello(&other, at_ms));
        ours.hears(&hello(&other, at_ms - 1000));
        assert_eq!(alarm(&ours), None, "heard before");
        ours.hears(&hello(&greeter(&key), at_ms - 61_000));
        assert_eq!(alarm(&ours), None, "too old");
    }

    #[test]
    fn of_two_that_start_at_once_one_answers_and_the_other_asks_again() {
        let key = Arc::new(Key::random());
        let new = || Greeter::new(key.clone(), Sole::new(Duration::ZERO), None, SystemClock);
        let (mut first, mut second) = (new(), new());
        if second.me < first.me {
            std::mem::swap(&mut first, &mut second);
        }
        assert!(matches!(first.hears(&hello(&second, now_ms())), Reply::Proof(_)));
        let said = hello(&first, now_ms());
        for asks_again in [true, false] {
            assert_eq!(second.hears(&said), Reply::Silence);
            // A stranger that replays what it heard must not hold up the start.
            assert_eq!(second.sole.heard().now_or_never().is_some(), asks_again);
        }
        assert_eq!((alarm(&first), alarm(&second)), (None, None));
    }

    #[test]
    fn only_the_instance_that_is_meant_leaves_and_only_for_its_own_key() {
        let key = Key::random();
        let (ours, other) = (greeter(&key), greeter(&key));
        let leave = |from: &Greeter<SystemClock>, to: &Instance, at_ms| {
            let signature = Some(from.sign("leave", &format!("{}/{to}", from.me), at_ms));
            let (instance, to) = (from.me.clone(), Some(to.clone()));
            Greeting { instance, to, running: false, issued_at_ms: at_ms, signature }
        };
        assert_eq!(ours.hears_leave(&leave(&other, &other.me, now_ms())), None);
        let stranger = greeter(&Key::random());
        assert_eq!(ours.hears_leave(&leave(&stranger, &ours.me, now_ms())), Some(false));
        assert_eq!(ours.hears_leave(&leave(&other, &ours.me, now_ms() - 61_000)), Some(false));
        assert!(ours.sole.left().now_or_never().is_none());
        assert_eq!(ours.hears_leave(&leave(&other, &ours.me, now_ms())), Some(true));
        assert!(ours.sole.left().now_or_never().is_some());
    }

    #[test]
    fn an_instance_is_a_uuid_of_the_fourth_version() {
        let text = Instance::random().to_string();
        assert_eq!((text.len(), &text[14..15]), (36, "4"), "{text}");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
        assert!(serde_json::from_value::<Instance>(json!(text)).is_ok());
        assert!(serde_json::from_value::<Instance>(json!("x".repeat(36))).is_err());
    }
}
