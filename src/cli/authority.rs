//! Whose word on a job's end counts.
//!
//! Anybody on the NATS server can say anything of any job under any name. What must hold: an end is
//! believed only where the node that it names signed it, and where that node has the job: because
//! the user says so, or in a pool because it holds the job's claim and is a node of the network at
//! all, as far as a chain is set to ask.

use serde_json::Value;

use super::claim::{self, Expected, Verdict};
use super::out;
use crate::bus::{self, Bus, PoolName, Search, Target};
use crate::chain::Reader;
use crate::config::Signing;
use crate::ids::{Address, Domain, JobId};
use crate::job::Status;
use crate::job::claim::State;
use crate::job::status::Stage;

/// Decides whether an end is believed.
#[derive(Debug)]
pub(super) struct Authority {
    bus: Bus,
    named: Vec<Address>,
    pool: Option<PoolName>,
    domain: Option<Domain>,
    chain: Option<Reader>,
}

/// What an end is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// It counts.
    Believed,
    /// It does not, and why.
    Doubted(String),
    /// It does not yet, and why: it may once more is known.
    NotYet(String),
    /// Nobody can tell now, and why.
    Unknown(String),
    /// It was not looked into this time.
    Unasked,
}

/// What a look at a pool's job told, whoever spoke of it.
#[derive(Debug)]
pub(super) struct Seen {
    holder: Holder,
    /// Whether its message has left the queue; asked only where nobody holds it.
    gone: Result<bool, String>,
    /// A node, and whether the contract knows it as active.
    active: Option<(Address, Result<bool, String>)>,
}

/// Who has a pool's job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    Agent(Address),
    Nobody,
    /// There are no claims here.
    NoClaims,
    Unknown(String),
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

    /// What an end is worth as far as that can be told without asking anybody; `None` where it
    /// can't.
    pub(super) fn at_once(&self, status: &Status, body: &Value) -> Option<Word> {
        if let Some(fault) = claim::forged(status, body, self.domain) {
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

    /// Whether no better word can come than one of this agent's, so that waiting for it is of no
    /// use where its own is not believed.
    pub(super) fn is_the_one(&self, agent: Address) -> bool {
        self.named.contains(&agent) || (self.named.is_empty() && self.pool.is_none())
    }

    /// Why the receipt of an end that is believed does not hold.
    pub(super) fn receipt_fault(&self, status: &Status) -> Option<String> {
        let expected = Expected { spec_hash: None, agent: None, domain: self.domain };
        match claim::check(status, &expected) {
            Verdict::Invalid(why) => Some(format!("receipt: {why}")),
            Verdict::Valid(_) | Verdict::Absent => None,
        }
    }

    /// Looks who has the job. Of `speakers`, the first that may speak for the pool so far is looked
    /// for on the chain: one at a time, so that a crowd of strangers holds up nobody.
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

    /// What an end that this agent told is worth by what was seen.
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
    /// Whether this agent holds the job.
    pub(super) fn is_held_by(&self, agent: Address) -> bool {
        self.holder == Holder::Agent(agent)
    }

    /// What an agent's word is worth by claim and queue; `None` where they do not speak against it.
    /// A refusal needs no claim, but then the job is gone for everybody.
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

/// Whether the contract knows the node as active.
async fn is_active(chain: &Reader, agent: Address) -> Result<bool, String> {
    let provider = chain.provider(agent).await.map_err(chain_of)?;
    Ok(provider.is_some_and(|provider| provider.active))
}

fn chain_of(err: impl Into<anyhow::Error>) -> String {
    out::chain(&err.into())
}
