//! Whose word on a job's end counts.
//!
//! Anybody on the NATS server can say anything of any job under any name. What must hold: an end is
//! believed only where the node that it names signed it, and where that node has the job: because
//! the user says so, or in a pool because it holds the job's claim and is a node of the network at
//! all, as far as a chain is set to ask.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::claim::{self, Expected, Verdict};
use crate::bus::{self, Bus, PoolName, Search, Target};
use crate::chain::Reader;
use crate::config::Signing;
use crate::job::claim::State;
use crate::job::status::Stage;
use crate::job::{Domain, JobId, Status};
use crate::node::Address;

/// A message leaves the queue soon after its refusal is said, and a node that has just registered is
/// active once that is in a block.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 10;

/// Where an end was not believed, the true one may be right behind it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Decides whether an end is believed.
#[derive(Debug)]
pub(super) struct Authority {
    bus: Bus,
    named: Vec<Address>,
    pool: Option<PoolName>,
    domain: Option<Domain>,
    chain: Option<Reader>,
}

impl Authority {
    /// These nodes are believed, and whichever has the job in the pool. `domain`: where they must
    /// sign, as far as it is known.
    pub(super) fn new(
        bus: &Bus,
        named: Vec<Address>,
        pool: Option<PoolName>,
        domain: Option<Domain>,
        signing: &Signing,
    ) -> anyhow::Result<Self> {
        // Only a pool's nodes are unknown, so only for them the chain is asked.
        let config = pool.is_some().then(|| signing.chain()).flatten();
        let chain = config.map(Reader::new).transpose()?;
        Ok(Self { bus: bus.clone(), named, pool, domain, chain })
    }

    /// Why the end that a status tells of is not to be believed. An error where that can't be found
    /// out.
    pub(super) async fn doubt(
        &self,
        status: &Status,
        body: &Value,
    ) -> anyhow::Result<Option<String>> {
        if let Some(fault) = claim::forged(status, body, self.domain) {
            return Ok(Some(fault.to_owned()));
        }
        let agent = status.agent_address;
        if self.named.contains(&agent) {
            return Ok(None);
        }
        let Some(pool) = &self.pool else {
            return Ok(Some(if self.named.is_empty() {
                format!("nothing says that {agent} has the job: name its --agent or its --pool")
            } else {
                format!("{agent} is another node than was asked")
            }));
        };
        if let Some(doubt) = self.doubt_in_pool(pool, status).await? {
            return Ok(Some(doubt));
        }
        self.doubt_on_chain(agent).await
    }

    /// As [`Authority::doubt`], and why the status's receipt does not hold.
    pub(super) async fn fault(
        &self,
        status: &Status,
        body: &Value,
    ) -> anyhow::Result<Option<String>> {
        let doubt = self.doubt(status, body).await?;
        let expected = Expected { spec_hash: None, agent: None, domain: self.domain };
        Ok(doubt.or_else(|| match claim::check(status, &expected) {
            Verdict::Invalid(why) => Some(format!("receipt: {why}")),
            Verdict::Valid(_) | Verdict::Absent => None,
        }))
    }

    /// Why the node has not the job in the pool. A refusal needs no claim, but then the job is gone
    /// for everybody.
    async fn doubt_in_pool(
        &self,
        pool: &PoolName,
        status: &Status,
    ) -> anyhow::Result<Option<String>> {
        let (agent, job) = (status.agent_address, &status.job_id);
        for _ in 0..TRIES {
            match self.bus.claim(pool, job).await {
                Ok(Some(found)) if found.claim.state != State::Refused => {
                    let holder = found.claim.agent;
                    return Ok((holder != agent)
                        .then(|| format!("{holder} has the job in the pool, not {agent}")));
                }
                Ok(_) if status.stage == Stage::Rejected => {
                    if self.is_gone(pool, job).await? {
                        return Ok(None);
                    }
                }
                Ok(_) => return Ok(Some(format!("{agent} has not claimed the job"))),
                Err(bus::Error::NoClaims) => {
                    let text = "without JetStream nobody claims jobs: name the node with --signer";
                    return Ok(Some(text.to_owned()));
                }
                Err(err) if err.is_transient() => {}
                Err(err) => return Err(err).context("nobody can tell who has the job"),
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(Some(format!("{agent} has not claimed the job, which is still in the queue")))
    }

    async fn is_gone(&self, pool: &PoolName, job: &JobId) -> anyhow::Result<bool> {
        match self.bus.find_job(&Target::Pool(pool.clone()), job).await {
            Ok(found) => Ok(found == Search::Absent),
            Err(err) if err.is_transient() => Ok(false),
            Err(err) => Err(err).context("nobody can tell whether the job is still in the queue"),
        }
    }

    /// Why the contract does not know the node.
    async fn doubt_on_chain(&self, agent: Address) -> anyhow::Result<Option<String>> {
        let Some(chain) = &self.chain else { return Ok(None) };
        let contract = chain.contract();
        let mut doubt = Ok(None);
        for _ in 0..TRIES {
            doubt = match chain.provider(agent).await {
                Ok(Some(provider)) if provider.active => return Ok(None),
                Ok(_) => Ok(Some(format!("{agent} is no active node for the contract {contract}"))),
                Err(err) => Err(err),
            };
            tokio::time::sleep(AGAIN).await;
        }
        doubt.context("the chain could not be asked whether the node may speak for the pool")
    }
}

/// How long an end that can be believed is still waited for.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Instant>);

impl Patience {
    /// An end was not believed.
    pub(super) fn begin(&mut self) {
        self.0.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// Returns when it is over; never, where it has not begun.
    pub(super) async fn over(&self) {
        match self.0 {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    }
}
