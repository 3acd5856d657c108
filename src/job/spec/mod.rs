//! What a job asks for: the message of PROTOCOL 1 parsed once into types, or refused with a reason.
//!
//! What must hold: [`parse`] never panics and never copies more of a hostile message than its
//! limits; a [`JobSpec`] that exists is safe to put into paths, subjects, labels and variables.

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
use fields::Fields;
pub(super) use json::parse_object;

/// The largest message that is looked at.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// A job as it was asked for. Optional values are resolved against the node when it is placed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Its name, unique for this node.
    pub id: JobId,
    /// The image, as the requester wrote it.
    pub image: String,
    /// The input that is shown at `/input/input`.
    pub input: Option<Cid>,
    /// Further inputs, each at its own path under `/input/`.
    pub inputs: Vec<ExtraInput>,
    /// Where the job leaves its output; `None`: `/output/output`, else `/output`.
    pub output_path: Option<String>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Variables for the container; the node's own win.
    pub env: BTreeMap<String, String>,
    /// What it needs of the node.
    pub needs: Needs,
    /// How long its container may run; capped by the node.
    pub timeout: Duration,
    /// Finished by then, never started after.
    pub deadline: Option<Timestamp>,
    /// Higher goes first where several wait. -100 to 100.
    pub priority: i32,
    /// Who asks; must be the signer where the job is signed.
    pub requester: Option<Address>,
    /// EIP-712 signature of `Job(target, specHash)`.
    pub signature: Option<Signature>,
}

/// What a job needs of the node that runs it; `None` means the node's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Needs {
    /// Whole GPUs.
    pub gpus: Option<u32>,
    /// Words of the model's name.
    pub gpu_model: Option<String>,
    /// Memory that each GPU must have, in MiB.
    pub min_vram_mib: Option<u64>,
    /// Thousandths of a core.
    pub milli_cpus: Option<u64>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// The inputs together, and the output, on disk, in MiB.
    pub disk_mib: Option<u64>,
    /// `/dev/shm`, in MiB.
    pub shm_mib: u64,
    /// What it wants to reach.
    pub network: NetworkNeed,
}

/// The closed list of networks that a job can ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkNeed {
    /// Nothing.
    #[default]
    None,
    /// The public internet, but not the owner's network.
    Internet,
    /// Whatever the host can reach.
    Bridge,
}

/// One of the further inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraInput {
    /// Its content.
    pub cid: Cid,
    /// Where the job sees it: under `/input/`, not `/input/input`.
    pub path: String,
}

/// A message that is a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What it asks for.
    pub spec: JobSpec,
    /// keccak-256 of the object without `signature` in RFC 8785 form, as received.
    pub spec_hash: Hash,
}

/// A message that is no job this node can take: what the requester is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The job's own id where it has a usable one, else one made from the body.
    pub id: JobId,
    /// Tells two messages apart: the spec's hash where the message is a JSON object, else
    /// keccak-256 of the message.
    pub body_hash: Hash,
    /// For programs.
    pub reason: Reason,
    /// For people; holds at most 64 characters of the message's own text, escaped.
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
    /// A refusal of a message that has no id of its own to answer under.
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
