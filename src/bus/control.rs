//! Control messages: a request to one agent and its answer, over core NATS.
//!
//! Must hold: an answer goes to a requester's inbox and nowhere else. The requester chooses the reply
//! subject, and this program may publish where the requester may not: jobs, claims, acks.

use std::time::Duration;

use async_nats::{Message, Request, RequestErrorKind, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, select_all};

use super::{Bus, Error, subjects};
use crate::ids::Address;

/// The requests that reach an agent.
#[derive(Debug)]
pub struct ControlRequests {
    bus: Bus,
    questions: SelectAll<Subscriber>,
}

/// One request. Anyone on the server can send it: the caller has to authenticate its content.
#[derive(Debug)]
pub struct ControlRequest {
    /// The body of the request, unparsed.
    pub body: Bytes,
    /// Whether it came on the subject on which agents ask the holders of pools' jobs.
    pub is_to_holder: bool,
    bus: Bus,
    reply: Option<Subject>,
}

/// The answers of all listeners to one request.
#[derive(Debug)]
pub struct ControlAnswers(Subscriber);

impl Bus {
    /// Listens for control messages to this agent and for other agents' questions to it as a holder, in
    /// both spellings of its address.
    pub async fn control_requests(&self, agent: Address) -> Result<ControlRequests, Error> {
        let subjects = [subjects::controls(agent), subjects::all_holds(agent)].concat();
        let questions = self.subscribe_all(subjects).await?;
        Ok(ControlRequests { bus: self.clone(), questions })
    }

    /// Sends a control message to an agent and waits up to `limit` for its answer.
    pub async fn control(
        &self,
        agent: Address,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, Error> {
        self.ask((subjects::control(agent), agent), body, limit).await
    }

    /// [`Bus::control`] on the subject on which agents ask the holder of a pool's job.
    pub async fn ask_holder(
        &self,
        agent: Address,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, Error> {
        self.ask((subjects::holds(agent), agent), body, limit).await
    }

    async fn ask(
        &self,
        (subject, agent): (String, Address),
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, Error> {
        const WHAT: &str = "ask the agent";
        self.online()?;
        let request = Request::new().payload(body).timeout(Some(limit));
        match self.client().send_request(subject, request).await {
            Ok(answer) => Ok(answer.payload),
            Err(err) => Err(match err.kind() {
                RequestErrorKind::NoResponders => Error::NoAgent { agent },
                RequestErrorKind::TimedOut => Error::Timeout { what: WHAT },
                _ => Error::Refused { what: WHAT, source: Box::new(err) },
            }),
        }
    }

    /// Asks every program that listens to an agent's control messages: several may share its key, and
    /// this one may be among them.
    pub async fn ask_all(&self, agent: Address, body: Bytes) -> Result<ControlAnswers, Error> {
        self.online()?;
        let inbox = self.client().new_inbox();
        let answers = self.subscribe(inbox.clone()).await?;
        let asked = self.client().publish_with_reply(subjects::control(agent), inbox, body).await;
        asked.map_err(|err| Error::Refused { what: "ask the agent", source: Box::new(err) })?;
        self.flush().await?;
        Ok(ControlAnswers(answers))
    }

    /// The number of the current connection: how many have been made.
    pub fn connection_number(&self) -> u64 {
        self.connection()
    }

    /// Waits for a connection later than the one with number `after`.
    pub async fn connected_again(&self, after: u64) -> Result<(), Error> {
        self.lost(after).await?;
        self.connected().await
    }

    /// Several subjects as one stream of messages, which survives a reconnect.
    pub(super) async fn subscribe_all(
        &self,
        subjects: Vec<String>,
    ) -> Result<SelectAll<Subscriber>, Error> {
        self.online()?;
        let mut subscribers = Vec::with_capacity(subjects.len());
        for subject in subjects {
            subscribers.push(self.subscribe(subject).await?);
        }
        // A subscription counts only once the server has it; until then it may wait in a buffer.
        self.flush().await?;
        Ok(select_all(subscribers))
    }

    pub(super) async fn subscribe(&self, subject: String) -> Result<Subscriber, Error> {
        let subscribed = self.client().subscribe(subject).await;
        subscribed.map_err(|err| Error::Refused { what: "subscribe", source: Box::new(err) })
    }
}

impl ControlRequests {
    /// The next request. Cancel-safe: can be dropped and called again.
    pub async fn next(&mut self) -> Result<ControlRequest, Error> {
        let Message { subject, payload: body, reply, .. } =
            self.questions.next().await.ok_or(Error::Closed)?;
        let is_to_holder = subjects::is_to_holder(&subject);
        Ok(ControlRequest { body, is_to_holder, bus: self.bus.clone(), reply })
    }
}

impl ControlAnswers {
    /// The next answer. Waits without limit: the caller has to set one. Cancel-safe: can be dropped and
    /// called again.
    pub async fn next(&mut self) -> Result<Bytes, Error> {
        loop {
            let answer = self.0.next().await.ok_or(Error::Closed)?;
            // With a status it is the server's own message that nobody listens.
            if answer.status.is_none() {
                return Ok(answer.payload);
            }
        }
    }
}

impl ControlRequest {
    /// Sends the answer; does nothing if none was requested or the reply subject is not an inbox.
    pub async fn respond(self, body: Bytes) -> Result<(), Error> {
        let Some(reply) = self.reply else { return Ok(()) };
        if !subjects::is_inbox(&reply) {
            tracing::debug!(subject = %reply, "an answer was asked for to what is no inbox");
            return Ok(());
        }
        self.bus.online()?;
        self.bus.publish_plain(reply.to_string(), body).await?;
        self.bus.flush().await
    }
}
