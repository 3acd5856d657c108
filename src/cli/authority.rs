//! Decides whose status about a job's end is believed. Anybody on the NATS server can publish a status about
//! any job under any name.
//!
//! Invariant: an end is believed only if the node that it names signed it and that node has the job: because
//! the user named the node, or, in a pool, because the node holds the job's claim and, if a chain is
//! configured, is registered there as an active node.

use serde_json::Value;

use super::out;
use super::receipt_check::{self, Expected, Verdict};
use crate::bus::{self, Bus, PoolName, Search, Target};
use crate::chain::Reader;
use crate::config::Signing;
use crate::ids::{Address, Domain, JobId};
use crate::job::Status;
use crate::job::claim::State;
use crate::job::status::Stage;

/// Decides whether an end of a job is believed.
#[derive(Debug)]
pub(super) struct Authority {
    bus: Bus,
    named: Vec<Address>,
    pool: Option<PoolName>,
    domain: Option<Domain>,
    chain: Option<Reader>,
}

/// Whether an end is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// It is believed.
    Believed,
    /// It is not believed, and why.
    Doubted(String),
    /// It is not believed yet, and why. A later look may change that.
    NotYet(String),
    /// It can't be decided at present, and why.
    Unknown(String),
    /// This look did not cover it.
    Unasked,
}

/// The result of one look at a pool's job: claim, queue and chain.
#[derive(Debug)]
pub(super) struct Seen {
    holder: Holder,
    /// Whether its message has left the queue. Only looked up if nobody holds the job and a node refused it.
    gone: Result<bool, String>,
    /// The node that was looked up on the chain, and whether the contract lists it as active.
    active: Option<(Address, Result<bool, String>)>,
}

/// The holder of a pool's job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    Agent(Address),
    Nobody,
    /// The server has no bucket of claims.
    NoClaims,
    Unknown(String),
}

impl Authority {
    /// Believes the nodes in `named` and the holder of the job in `pool`. `domain` is the chain and contract
    /// that they must sign for, as far as known.
    pub(super) fn new(
        bus: &Bus,
        named: Vec<Address>,
        pool: Option<PoolName>,
        domain: Option<Domain>,
        signing: &Signing,
    ) -> anyhow::Result<Self> {
        // Only the nodes of a pool are unknown, so only a pool needs the chain.
        let config = pool.is_some().then(|| signing.chain()).flatten();
        let chain = config.map(Reader::new).transpose()?;
        Ok(Self { bus: bus.clone(), named, pool, domain, chain })
    }

    /// Judges an end without asking anybody; `None` if the claim and the chain must be looked up.
    pub(super) fn at_once(&self, status: &Status, body: &Value) -> Option<Word> {
        if let Some(fault) = receipt_check::forged(status, body, self.domain) {
            return Some(Word::Doubted(fault.to_owned()));
        }
        let agent = status.agent_address;
        if self.named.contains(&agent) {
            return Some(Word::Believed);
        }
        if self.pool.is_some() {
            return None;
        }
        Some(Word::Doubted(if self.named.is_empty() {
            format!("nothing says that {agent} has the job: name its --agent or its --pool")
        } else {
            format!("{agent} is another node than was asked")
        }))
    }

    /// Whether no other agent's word could count more than this agent's. Then waiting is useless once its own
    /// is not believed.
    pub(super) fn is_the_one(&self, agent: Address) -> bool {
        self.named.contains(&agent) || (self.named.is_empty() && self.pool.is_none())
    }

    /// The fault of the receipt of a believed end, if it is invalid.
    pub(super) fn receipt_fault(&self, status: &Status) -> Option<String> {
        let expected = Expected { spec_hash: None, agent: None, domain: self.domain };
        match receipt_check::check(status, &expected) {
            Verdict::Invalid(why) => Some(format!("receipt: {why}")),
            Verdict::Valid(_) | Verdict::Absent => None,
        }
    }

    /// Looks up who has the job. Only the first of `speakers` that claim and queue don't rule out is looked
    /// up on the chain, one per look, so that a crowd of strangers delays nobody.
    pub(super) async fn look(&self, job: &JobId, speakers: &[(Address, Stage)]) -> Seen {
        let holder = self.holder(job).await;
        let refused = speakers.iter().any(|(_, stage)| *stage == Stage::Rejected);
        let gone =
            if holder == Holder::Nobody && refused { self.is_gone(job).await } else { Ok(false) };
        let mut seen = Seen { holder, gone, active: None };
        if let Some(chain) = &self.chain {
            let may_speak = |(agent, stage): &&(Address, Stage)| seen.of(*agent, *stage).is_none();
            if let Some((agent, _)) = speakers.iter().find(may_speak) {
                seen.active = Some((*agent, is_active(chain, *agent).await));
            }
        }
        seen
    }

    /// Judges an end reported by this agent by the result of a look.
    pub(super) fn weigh(&self, seen: &Seen, agent: Address, stage: Stage) -> Word {
        if let Some(word) = seen.of(agent, stage) {
            return word;
        }
        let Some(chain) = &self.chain else { return Word::Believed };
        match &seen.active {
            Some((asked, answer)) if *asked == agent => match answer {
                Ok(true) => Word::Believed,
                Ok(false) => {
                    let contract = chain.contract();
                    Word::NotYet(format!("{agent} is no active node for the contract {contract}"))
                }
                Err(why) => Word::Unknown(format!(
                    "the chain could not be asked whether {agent} may speak for the pool: {why}"
                )),
            },
            _ => Word::Unasked,
        }
    }

    async fn holder(&self, job: &JobId) -> Holder {
        let Some(pool) = &self.pool else { return Holder::NoClaims };
        match self.bus.claim(pool, job).await {
            Ok(Some(found)) if found.claim.state != State::Refused => {
                Holder::Agent(found.claim.agent)
            }
            Ok(_) => Holder::Nobody,
            Err(bus::Error::NoClaims) => Holder::NoClaims,
            Err(err) => Holder::Unknown(chain_of(err)),
        }
    }

    async fn is_gone(&self, job: &JobId) -> Result<bool, String> {
        let Some(pool) = &self.pool else { return Ok(false) };
        let found = self.bus.find_job(&Target::Pool(pool.clone()), job).await;
        match found.map_err(chain_of)? {
            Search::Absent => Ok(true),
            Search::Found(_) => Ok(false),
            Search::GivenUp => Err("it is too long to look through".to_owned()),
        }
    }
}

impl Seen {
    /// Whether this agent holds the job's claim.
    pub(super) fn is_held_by(&self, agent: Address) -> bool {
        self.holder == Holder::Agent(agent)
    }

    /// Judges an agent by claim and queue; `None` if they don't speak against it. A refusal needs no claim,
    /// but the job must have left the queue.
    fn of(&self, agent: Address, stage: Stage) -> Option<Word> {
        match &self.holder {
            Holder::Agent(holder) if *holder == agent => None,
            Holder::Agent(holder) => {
                Some(Word::Doubted(format!("{holder} has the job in the pool, not {agent}")))
            }
            Holder::NoClaims => Some(Word::Doubted(
                "without JetStream nobody claims jobs: name the node with --signer".to_owned(),
            )),
            Holder::Unknown(why) => {
                Some(Word::Unknown(format!("it cannot be found out who has the job: {why}")))
            }
            Holder::Nobody if stage == Stage::Rejected => match &self.gone {
                Ok(true) => None,
                Ok(false) => Some(Word::NotYet(format!(
                    "{agent} has not claimed the job, which is still in the queue"
                ))),
                Err(why) => Some(Word::Unknown(format!(
                    "{agent} has not claimed the job, and it cannot be found out whether that is \
                     still in the queue: {why}"
                ))),
            },
            Holder::Nobody => Some(Word::Doubted(format!("{agent} has not claimed the job"))),
        }
    }
}

/// Whether the contract lists the node as active.
async fn is_active(chain: &Reader, agent: Address) -> Result<bool, String> {
    let provider = chain.provider(agent).await.map_err(chain_of)?;
    Ok(provider.is_some_and(|provider| provider.active))
}

fn chain_of(err: impl Into<anyhow::Error>) -> String {
    out::chain(&err.into())
}
