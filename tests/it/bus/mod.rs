//! The bus against a real nats-server, with nats-py as the other client.

mod auth;
mod deliveries;
mod messages;
mod outages;
mod rights;
mod servers;
mod streams;

use std::time::Duration;

use lamda_node::bus::{
    AckHandle, Bus, Config, Credentials, Delivery, Intake, MessageIds, Settle, Source,
};
use lamda_node::ids::{Address, JobId};
use lamda_node::secret::Secret;
use tokio::time::timeout;

use crate::support;
use crate::support::bus::prepared;
use crate::support::nats::Nats;

const AGENT: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

/// Longer than any healthy step takes on a busy machine, and shorter than the silence (20 s) and the
/// ack wait (30 s), which would hide an unnoticed loss.
const LIMIT: Duration = Duration::from_secs(18);

/// Long enough for a message on its way to arrive.
const QUIET: Duration = Duration::from_millis(400);

const PUBLISH: &str = "for body in args[1:]: await js.publish(args[0], body.encode())";
const PENDING: &str = "print((await js.consumer_info('JOBS', args[0])).num_ack_pending)";
const STORED: &str = "print((await js.stream_info(args[0])).state.messages)";

fn agent() -> Address {
    AGENT.parse().expect("an address")
}

fn job(id: &str) -> JobId {
    id.parse().expect("a job's id")
}

fn ids() -> MessageIds {
    MessageIds::new(Secret::new("a key"))
}

fn source() -> Source {
    Source::Agent(agent())
}

fn dispatch() -> String {
    source().subject()
}

fn consumer() -> String {
    format!("agent-{}", AGENT.to_lowercase())
}

/// Settings without credentials for the server at `url`.
fn config(url: String) -> Config {
    support::bus::config(url, Credentials::None)
}

async fn with_intake(nats: &Nats) -> (Bus, Intake) {
    let bus = prepared(nats).await;
    let intake = bus.intake(&source()).await.expect("a consumer");
    (bus, intake)
}

async fn next(intake: &mut Intake, room: usize) -> Delivery {
    timeout(LIMIT, intake.next(room)).await.expect("a job comes").expect("no permanent error")
}

async fn ack(bus: &Bus, delivery: &Delivery) {
    settle_until_done(bus, delivery.ack.as_ref().expect("JetStream"), Settle::Ack).await;
}

/// Retries after transient errors, as the agent does.
async fn settle_until_done(bus: &Bus, ack: &AckHandle, how: Settle) {
    let settled = async {
        loop {
            match bus.settle(ack, how).await {
                Ok(()) => return,
                Err(err) if err.is_transient() => tokio::task::yield_now().await,
                Err(err) => panic!("{how:?}: {err}"),
            }
        }
    };
    timeout(LIMIT, settled).await.expect("the server takes the answer");
}
