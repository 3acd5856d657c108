//! A job's message (docs/protocol.md, section 1): parsed once into types, or refused with a reason.
//!
//! Invariants: [`parse`] never panics and never copies more of a hostile message than its limits; every
//! [`JobSpec`] is safe to use in paths, subjects, labels and environment variables.

mod fields;
mod json;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::reason::Reason;
use crate::clock::Timestamp;
use crate::ids::hash::keccak256;
use crate::ids::{Address, Cid, Hash, JobId, Signature};
use crate::usage::Profile;
use fields::Fields;
pub(super) use json::parse_object;

/// Largest message that is parsed, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// A job as requested. Missing values become the node's defaults when the job is placed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The job's id, unique on this node.
    pub id: JobId,
    /// The image, as the requester wrote it.
    pub image: String,
    /// The input that the job sees at `/input/input`.
    pub input: Option<Cid>,
    /// Further inputs, each at its own path under `/input/`.
    pub inputs: Vec<ExtraInput>,
    /// Where the job leaves its output; `None` means `/output/output`, or else `/output`.
    pub output_path: Option<String>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Environment variables for the container; the node's own take precedence.
    pub env: BTreeMap<String, String>,
    /// What it needs of the node.
    pub needs: Needs,
    /// How long its container may run; capped by the node.
    pub timeout: Duration,
    /// The job must have finished by then, and is never started after it.
    pub deadline: Option<Timestamp>,
    /// From -100 to 100; of several waiting jobs, the highest goes first.
    pub priority: i32,
    /// Who asks for the job; must be the signer if the job is signed.
    pub requester: Option<Address>,
    /// EIP-712 signature of `Job(target, specHash)`.
    pub signature: Option<Signature>,
}

/// What a job needs of the node that runs it; `None` means the node's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Needs {
    /// Number of whole GPUs.
    pub gpus: Option<u32>,
    /// Words of the GPU model's name.
    pub gpu_model: Option<String>,
    /// Memory that each GPU must have, in MiB.
    pub min_vram_mib: Option<u64>,
    /// Thousandths of a core.
    pub milli_cpus: Option<u64>,
    /// Main memory, in MiB.
    pub memory_mib: Option<u64>,
    /// Disk space in MiB: for all inputs together, and the same again for the output.
    pub disk_mib: Option<u64>,
    /// Size of `/dev/shm`, in MiB.
    pub shm_mib: u64,
    /// The network that it wants to reach.
    pub network: NetworkNeed,
    /// How far it wants to be closed in; the owner may force `strict`.
    #[serde(default)]
    pub sandbox: SandboxNeed,
    /// How closely it wants to be watched; `None` means the owner's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Profile>,
    /// Why what it says of its monitoring is not obeyed, in one sentence; it runs all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring_problem: Option<String>,
}

/// The sandboxes that a job can ask for (docs/adr/0010-sandbox.md).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxNeed {
    /// The image's user, with the capabilities that ordinary images need inside their container.
    #[default]
    Standard,
    /// No capability, an unprivileged user, a read-only root file system.
    Strict,
}

/// The closed list of networks that a job can ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkNeed {
    /// No network at all.
    #[default]
    None,
    /// The public internet, but not the owner's network.
    Internet,
    /// Whatever the host can reach.
    Bridge,
}

/// An input besides the first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraInput {
    /// CID of its content.
    pub cid: Cid,
    /// Where the job sees it: below `/input/`, but not at `/input/input`.
    pub path: String,
}

/// A valid job message.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The job that it asks for.
    pub spec: JobSpec,
    /// keccak-256 of the object without `signature` in RFC 8785 form, as received.
    pub spec_hash: Hash,
}

/// A message that this node refuses, with what its requester is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The job's own id if it has a usable one, otherwise one made from the body.
    pub id: JobId,
    /// Tells two messages apart: the spec's hash if the message is answered under its own id, otherwise
    /// keccak-256 of the message.
    pub body_hash: Hash,
    /// Machine-readable reason.
    pub reason: Reason,
    /// For people; quotes at most 64 characters of the message, escaped.
    pub error: String,
}

/// Parses a message. See docs/protocol.md for the keys, their aliases, defaults and limits.
pub fn parse(body: &[u8]) -> Result<Parsed, Refused> {
    if body.len() > BODY_BYTES_MAX {
        let error = format!("the message has {} bytes; {BODY_BYTES_MAX} are allowed", body.len());
        return Err(Refused::nameless(body, Reason::MessageTooLarge, error));
    }
    let map =
        parse_object(body).map_err(|error| Refused::nameless(body, Reason::Malformed, error))?;
    let fields = Fields(&map);
    let id = fields.id().map_err(|error| Refused::nameless(body, Reason::Malformed, error))?;
    let spec_hash = spec_hash(&map);
    match read(&fields, id.clone()) {
        Ok(spec) => Ok(Parsed { spec, spec_hash }),
        Err((reason, error)) => Err(Refused { id, body_hash: spec_hash, reason, error }),
    }
}

impl Refused {
    /// Refuses a message under an id made from its body, because it has no usable id of its own.
    pub fn nameless(body: &[u8], reason: Reason, error: String) -> Self {
        Self { id: JobId::of_invalid(body), body_hash: keccak256(body), reason, error }
    }
}

/// keccak-256 over the canonical form (RFC 8785) of the object without its `signature`.
pub fn spec_hash(object: &Map<String, Value>) -> Hash {
    let mut unsigned = object.clone();
    unsigned.remove("signature");
    // Strings, finite numbers and string keys: the canonical form of such a value always exists.
    let canonical = serde_json_canonicalizer::to_vec(&unsigned).unwrap_or_default();
    keccak256(&canonical)
}

fn read(fields: &Fields<'_>, id: JobId) -> Result<JobSpec, (Reason, String)> {
    let malformed = |error| (Reason::Malformed, error);
    let spec = JobSpec {
        id,
        image: fields.image()?,
        input: fields.input()?,
        inputs: fields.extra_inputs()?,
        output_path: fields.output_path().map_err(malformed)?,
        entrypoint: fields.arguments("entrypoint").map_err(malformed)?,
        command: fields.arguments("command").map_err(malformed)?,
        env: fields.env().map_err(malformed)?,
        needs: fields.needs().map_err(malformed)?,
        timeout: Duration::from_secs(
            fields.integer("timeout_s", 1, 365 * 86_400).map_err(malformed)?.unwrap_or(3600),
        ),
        deadline: fields.parsed("deadline").map_err(malformed)?,
        priority: fields.signed("priority", -100, 100).map_err(malformed)?.unwrap_or(0),
        requester: fields.parsed("requester").map_err(malformed)?,
        signature: fields.parsed("signature").map_err(malformed)?,
    };
    if spec.signature.is_some() && (spec.requester.is_none() || spec.deadline.is_none()) {
        let error = "a signed job must carry `requester` and `deadline`".to_owned();
        return Err((Reason::SignatureInvalid, error));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests;
