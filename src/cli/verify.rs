//! `verify`: checks a signed receipt or a job's signed end offline, as anybody can. With a chain, also checks
//! that the node committed the root above the receipt there.
//!
//! `--json`: `valid`. If it is false, `problem`; otherwise `signer`, `job_id`, `chain_id`, `contract`,
//! `digest`, for an end without a receipt `stage`, for a status with a receipt `status_signed`, for one that says
//! what the job used `usage` and `series_checked`, for a proof `root`, and with `--rpc` `committed`: `tx_hash`, `block`, `time`, `blocks_above`, `completed`, `failed`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::logging::Audience;
use super::receipt_check::{self, Expected, UNSIGNED, Verdict};
use super::submit::describe;
use super::{Misused, load, out, usage_check};
use crate::chain::{Commitment, Config, Depth, Error, Reader};
use crate::clock::Timestamp;
use crate::config::{Signing, parse_rpc_urls};
use crate::ids::{Address, Domain, Hash, JobId};
use crate::job::Status;
use crate::job::receipt::Signed;
use crate::reputation::Proof;
use crate::text::utf8;
use crate::usage::SignedUsage;

/// Upper bound on the input. A status or a proof has some kilobytes, but may be part of a whole output of
/// `watch --json`.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Upper bound on a series: two months of one sample a second.
const SERIES_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A receipt, a status that ends a job, a proof, or the output of `watch --json`; `-` reads standard
    /// input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Ask this JSON-RPC endpoint, or one of a comma list, for the root that the proof leads to
    #[arg(long, value_name = "URL", visible_alias = "rpc-url")]
    rpc: Option<String>,
    /// The contract that it must be signed for
    #[arg(long, value_name = "ADDRESS")]
    contract: Option<Address>,
    /// Also check these samples of what the job used, as `usage --series` writes them
    #[arg(long, value_name = "FILE")]
    series: Option<PathBuf>,
    /// One JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// The document was checked and is not valid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotValid(String);

/// What was found to be valid.
enum Holds {
    Receipt(Box<Held>),
    End(Box<Status>, Hash),
}

/// A valid receipt.
struct Held {
    signed: Signed,
    /// If it came in a status: whether the status is signed too.
    status_signed: Option<bool>,
    /// The record of what the job used, if the status has one.
    usage: Option<Box<SignedUsage>>,
    /// Whether the samples that it rests on were checked.
    has_series: bool,
    proof: Option<Proof>,
    committed: Option<(Commitment, Depth)>,
}

/// A document that may be checked.
#[derive(Debug)]
enum Document {
    Receipt(Box<Signed>, Option<bool>, Option<Box<SignedUsage>>),
    Proof(Box<Proof>),
    /// An end without a receipt, and the digest that its signature covers.
    End(Box<Status>, Hash),
}

pub(super) async fn execute(args: Args) -> anyhow::Result<ExitCode> {
    // Reads the logging settings only: a receipt is checked without any other.
    load(Audience::Client, |_| Ok(()))?;
    let text = read(&args.file, BYTES_MAX)?;
    match check(&text, &args).await {
        Ok(holds) => {
            let said = if args.json { out::json(&holds.json()) } else { out::line(&holds.text()) };
            said?;
            Ok(ExitCode::SUCCESS)
        }
        Err(err) => {
            let NotValid(problem) = err.downcast::<NotValid>()?;
            if args.json {
                out::json(&json!({"valid": false, "problem": problem}))?;
            } else {
                out::line(&format!("NOT VALID: {}", out::clean(&problem)))?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn read(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(bytes_max + 1).read_to_end(&mut text)
    } else {
        let file = std::fs::File::open(path);
        file.and_then(|file| file.take(bytes_max + 1).read_to_end(&mut text))
    };
    read.map_err(|err| Misused(format!("{} can't be read: {err}", path.display())))?;
    if text.len() as u64 > bytes_max {
        return Err(Misused(format!("{} has more than {bytes_max} bytes", path.display())).into());
    }
    match utf8(&text) {
        Ok(text) => Ok(text.into()),
        Err(what) => Err(Misused(format!("{} can't be read: {what}", path.display())).into()),
    }
}

async fn check(text: &[u8], args: &Args) -> anyhow::Result<Holds> {
    let document = parse(text)?;
    let (signed, status_signed, usage, proof) = match document {
        Document::Receipt(signed, status_signed, usage) => (*signed, status_signed, usage, None),
        Document::Proof(proof) => (proof.receipt.clone(), None, None, Some(*proof)),
        Document::End(status, digest) => {
            signed_for(status.signed_for.map(|it| it.contract), args.contract)?;
            return Ok(Holds::End(status, digest));
        }
    };
    if !receipt_check::is_signed(&signed) {
        return Err(NotValid(UNSIGNED.to_owned()).into());
    }
    signed_for(Some(signed.domain.contract), args.contract)?;
    let committed = match (&args.rpc, &proof) {
        (None, _) => None,
        (Some(url), Some(proof)) => Some(ask_chain(proof, url).await?),
        (Some(_), None) => {
            let text = format!(
                "the signature holds, but --rpc needs a proof: on the node, `lamda-node receipt \
                 proof {}` makes it",
                signed.receipt.job_id
            );
            return Err(Misused(text).into());
        }
    };
    let has_series = series_holds(args, usage.as_deref(), &signed.receipt.job_id)?;
    let held = Held { signed, status_signed, usage, has_series, proof, committed };
    Ok(Holds::Receipt(Box::new(held)))
}

/// Checks the series of samples, if one is given; `false` if none is.
fn series_holds(args: &Args, usage: Option<&SignedUsage>, job: &JobId) -> anyhow::Result<bool> {
    let Some(path) = &args.series else { return Ok(false) };
    let text =
        "--series needs a status with a usage record, as `watch --json` prints it".to_owned();
    let usage = usage.ok_or(Misused(text))?;
    let lines = read(path, SERIES_BYTES_MAX)?;
    let lines = utf8(&lines).map_err(|what| NotValid(format!("the series: {what}")))?;
    usage_check::check_series(usage, job, lines).map_err(NotValid)?;
    Ok(true)
}

/// Checks that a signature is for the wanted contract, if one is given.
fn signed_for(found: Option<Address>, wanted: Option<Address>) -> Result<(), NotValid> {
    match (found, wanted) {
        (Some(found), Some(wanted)) if found != wanted => {
            Err(NotValid(format!("it was signed for {found}, not for {wanted}")))
        }
        _ => Ok(()),
    }
}

/// Finds the only document that can be checked among the JSON values of the text.
fn parse(text: &[u8]) -> Result<Document, NotValid> {
    let mut found = None;
    let values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    for value in values {
        let value = value.map_err(|err| NotValid(format!("it is not JSON: {err}")))?;
        // A signed status has a stage and a signature; a bare receipt is typed data (EIP-712).
        let end = value.get("stage").is_some() && value.get("signature").is_some();
        let receipt = value.get("receipt").is_some() || value.get("primaryType").is_some();
        if (end || receipt) && found.replace(value).is_some() {
            return Err(NotValid("it holds more than one receipt; check them one by one".into()));
        }
    }
    let value = found.ok_or_else(|| NotValid("it holds no receipt".to_owned()))?;
    match value.get("receipt") {
        None if value.get("stage").is_some() => of_status(&value),
        None => receipt(&value),
        Some(_) if value.get("proof").is_some() => match Proof::from_json(&value) {
            Ok(proof) => Ok(Document::Proof(Box::new(proof))),
            Err(err) => Err(NotValid(err.to_string())),
        },
        Some(_) if value.get("stage").is_some() => of_status(&value),
        Some(document) => receipt(document),
    }
}

fn receipt(document: &Value) -> Result<Document, NotValid> {
    match Signed::from_json(document) {
        Ok(signed) => Ok(Document::Receipt(Box::new(signed), None, None)),
        Err(err) => Err(NotValid(err.to_string())),
    }
}

/// Checks a status, which says itself what its receipt must contain. A signed status must be valid as a
/// whole. Nodes of earlier versions did not sign statuses: of an unsigned one, only the receipt is checked.
fn of_status(value: &Value) -> Result<Document, NotValid> {
    let (status, body) = Status::read(value.to_string().as_bytes())
        .map_err(|err| NotValid(format!("not a status of this protocol: {err}")))?;
    let is_signed = status.signature.is_some();
    if let Some(fault) = receipt_check::forged(&status, &body, None).filter(|_| is_signed) {
        return Err(NotValid(format!("the status: {fault}")));
    }
    match receipt_check::check(&status, &Expected::default()) {
        Verdict::Valid(signed) => {
            let usage = status.usage.as_ref().and_then(|usage| SignedUsage::from_json(usage).ok());
            Ok(Document::Receipt(signed, Some(is_signed), usage.map(Box::new)))
        }
        Verdict::Invalid(problem) => Err(NotValid(problem)),
        Verdict::Absent => match status.digest(&body).filter(|_| is_signed) {
            Some(digest) => Ok(Document::End(Box::new(status), digest)),
            None => Err(NotValid("it holds no receipt".to_owned())),
        },
    }
}

/// Looks for the proof's root on the chain where the proof says it is.
async fn ask_chain(proof: &Proof, url: &str) -> anyhow::Result<(Commitment, Depth)> {
    let reader = Reader::new(chain(proof, url)?)?;
    let found = look_up(&reader, proof).await;
    let found = match found {
        Err(Error::WrongChain { expected, actual, .. }) => Err(NotValid(format!(
            "it was signed for chain {expected}, and the endpoint is on chain {actual}"
        )))?,
        Err(err @ Error::NoContract(_)) => Err(NotValid(err.to_string()))?,
        found => found.context("the chain could not be asked")?,
    };
    let found = found.map_err(NotValid)?;
    let depth = reader.depth(found.block).await.context("the chain could not be asked")?;
    Ok((found, depth))
}

/// The configuration of an endpoint that must serve the receipt's chain and contract.
fn chain(proof: &Proof, url: &str) -> anyhow::Result<Config> {
    let domain = proof.receipt.domain;
    let rpc_urls = parse_rpc_urls(url).map_err(|what| Misused(format!("--rpc: {what}")))?;
    let (chain_id, contract) = (Some(domain.chain_id), Some(domain.contract));
    let chain = Signing { rpc_urls, chain_id, contract }.chain();
    chain.context("the endpoint can't be used")
}

async fn look_up(reader: &Reader, proof: &Proof) -> Result<Result<Commitment, String>, Error> {
    let (node, root, tx_hash) = (proof.receipt.receipt.node, proof.root, proof.tx_hash);
    let of_proof = |found: &Commitment| (found.provider, found.root) == (node, root);
    let found = if let Some(all) = reader.committed_by(tx_hash).await? {
        let found = all.into_iter().find(of_proof);
        found.ok_or_else(|| format!("transaction {tx_hash} did not commit {node} to {root}"))
    } else {
        let found = reader.committed_in(proof.block, node, root).await?;
        found.filter(|found| found.tx_hash == tx_hash).ok_or_else(|| {
            let block = proof.block;
            format!(
                "the chain knows no transaction {tx_hash}, and {node} committed to no {root} in \
                 block {block}"
            )
        })
    };
    Ok(found.and_then(|found| fits(&found, proof).map_or(Ok(found), Err)))
}

/// How the commitment contradicts the proof, if it does.
fn fits(found: &Commitment, proof: &Proof) -> Option<String> {
    if found.block != proof.block {
        return Some(format!(
            "transaction {} is in block {}, not in {}",
            found.tx_hash, found.block, proof.block
        ));
    }
    // A proof with more steps than a tree of that many leaves has: the node counted fewer jobs than it
    // proves.
    let counted = u64::from(found.completed) + u64::from(found.failed);
    let steps_max = counted.next_power_of_two().trailing_zeros();
    (proof.siblings.len() > steps_max as usize).then(|| {
        format!("the proof has {} steps, but the root counts {counted} jobs", proof.siblings.len())
    })
}

impl Holds {
    fn json(&self) -> Value {
        match self {
            Self::Receipt(held) => held.json(),
            Self::End(status, digest) => {
                let signed_for = status.signed_for.map_or(Domain::OWN, Domain::from);
                json!({
                    "valid": true, "signer": status.agent_address, "job_id": status.job_id,
                    "stage": status.stage, "chain_id": signed_for.chain_id,
                    "contract": signed_for.contract, "digest": digest,
                })
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Receipt(held) => held.text(),
            Self::End(status, _) => format!(
                "valid: {} signed this end of job {}\n  {}",
                status.agent_address,
                status.job_id,
                describe(status)
            ),
        }
    }
}

impl Held {
    fn json(&self) -> Value {
        let Signed { domain, receipt, .. } = &self.signed;
        let mut object = json!({
            "valid": true, "signer": receipt.node, "job_id": receipt.job_id,
            "chain_id": domain.chain_id, "contract": domain.contract,
            "digest": receipt.digest(domain),
        });
        if let Some(is_signed) = self.status_signed {
            object["status_signed"] = json!(is_signed);
        }
        if let Some(usage) = &self.usage {
            object["usage"] = json!(usage.record);
            object["series_checked"] = json!(self.has_series);
        }
        if let Some(proof) = &self.proof {
            object["root"] = json!(proof.root);
        }
        if let Some((found, depth)) = &self.committed {
            object["committed"] = json!({
                "tx_hash": found.tx_hash, "block": found.block, "time": depth.at,
                "blocks_above": depth.above, "completed": found.completed, "failed": found.failed,
            });
        }
        object
    }

    fn text(&self) -> String {
        let receipt = &self.signed.receipt;
        let claim = receipt_check::describe(&self.signed);
        let output = if receipt.output_cid.is_empty() { "none" } else { &receipt.output_cid };
        let text = format!(
            "valid: {} signed it for job {}\n{claim}\n  ended {}, output {}",
            receipt.node,
            receipt.job_id,
            Timestamp::from_unix_ms(receipt.finished_at),
            out::clean(output)
        );
        let chain = match (&self.proof, &self.committed) {
            (_, Some((found, depth))) => format!(
                "\n  committed at {} in block {} ({} blocks lie on it) by transaction {}\n  root \
                 {} over {} completed jobs and {} others",
                depth.at,
                found.block,
                depth.above,
                found.tx_hash,
                found.root,
                found.completed,
                found.failed
            ),
            (Some(proof), None) => {
                format!("\n  leads to root {}; --rpc URL asks the chain for it", proof.root)
            }
            (None, None) => String::new(),
        };
        let status = match self.status_signed {
            Some(false) => "\n  the status around it is NOT SIGNED: only what is above holds",
            _ => "",
        };
        let usage = self.usage.as_ref().map_or_else(String::new, |usage| {
            let series = if self.has_series { "; its samples are all there" } else { "" };
            format!("\n  {}{series}", usage_check::describe(usage))
        });
        text + &usage + &chain + status
    }
}
