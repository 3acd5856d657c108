//! What the node attests about a job whose container was started, as EIP-712 typed data.
//!
//! In JSON it is the typed-data document itself plus the signature, so that any EIP-712 library can check
//! it without knowing this program (docs/protocol.md, section 3).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::ids::eip712::{self, Domain, Word};
use crate::ids::{Address, Cid, Hash, JobId, Signature};
use crate::node::GpuUuid;

/// The struct's type, as EIP-712 encodes it.
const KIND: &str = "Receipt(string jobId,address node,bytes32 specHash,string imageDigest,\
    string gpuUuids,string inputCid,string outputCid,int32 exitCode,uint64 startedAt,uint64 finishedAt)";

/// The members with their types, in the order of [`KIND`].
const MEMBERS: [(&str, &str); 10] = [
    ("jobId", "string"),
    ("node", "address"),
    ("specHash", "bytes32"),
    ("imageDigest", "string"),
    ("gpuUuids", "string"),
    ("inputCid", "string"),
    ("outputCid", "string"),
    ("exitCode", "int32"),
    ("startedAt", "uint64"),
    ("finishedAt", "uint64"),
];

/// The content of a receipt, which is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Id of the job that ran.
    pub job_id: JobId,
    /// The node that ran it.
    pub node: Address,
    /// Canonical hash of the request.
    pub spec_hash: Hash,
    /// The digest of the image's manifest, or `image-id:sha256:…` if it has none.
    pub image_digest: String,
    /// The cards' UUIDs, separated by commas; empty for a CPU job.
    pub gpu_uuids: String,
    /// The job's `input_file_cid`, or empty.
    pub input_cid: String,
    /// CID of the output, or empty.
    pub output_cid: String,
    /// Exit code of the container's first process.
    pub exit_code: i32,
    /// In Unix milliseconds, by the engine's clock.
    pub started_at: u64,
    /// In Unix milliseconds, by the engine's clock.
    pub finished_at: u64,
}

/// The facts about a run from which a receipt is made.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// See [`Receipt::image_digest`].
    pub image_digest: &'a str,
    /// The cards that the container had.
    pub gpus: &'a [GpuUuid],
    /// The job's first input.
    pub input: Option<&'a Cid>,
    /// The published output.
    pub output: Option<&'a Cid>,
    /// The container's exit code.
    pub exit_code: i32,
    /// When it was started and when it ended.
    pub ran: (Timestamp, Timestamp),
}

/// A receipt with its signature, as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The EIP-712 domain in which it was signed.
    pub domain: Domain,
    /// The signed content.
    pub receipt: Receipt,
    /// Signature of [`Receipt::digest`] by the node's key.
    pub signature: Signature,
}

impl Receipt {
    /// The receipt of `node` for a job.
    pub fn new(job_id: JobId, node: Address, spec_hash: Hash, facts: Facts<'_>) -> Self {
        let uuids: Vec<&str> = facts.gpus.iter().map(GpuUuid::as_str).collect();
        let text = |cid: Option<&Cid>| cid.map(ToString::to_string).unwrap_or_default();
        Self {
            job_id,
            node,
            spec_hash,
            image_digest: facts.image_digest.to_owned(),
            gpu_uuids: uuids.join(","),
            input_cid: text(facts.input),
            output_cid: text(facts.output),
            exit_code: facts.exit_code,
            started_at: facts.ran.0.unix_ms(),
            finished_at: facts.ran.1.unix_ms(),
        }
    }

    /// The EIP-712 digest that the node signs.
    pub fn digest(&self, domain: &Domain) -> Hash {
        domain.digest_of(
            KIND,
            &[
                Word::text(self.job_id.as_str()),
                Word::address(self.node),
                Word::bytes32(self.spec_hash),
                Word::text(&self.image_digest),
                Word::text(&self.gpu_uuids),
                Word::text(&self.input_cid),
                Word::text(&self.output_cid),
                Word::signed(self.exit_code),
                Word::number(self.started_at),
                Word::number(self.finished_at),
            ],
        )
    }
}

/// A document that is not a signed receipt of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a signed receipt: {0}")]
pub struct InvalidReceipt(String);

impl Signed {
    /// The typed-data document plus the signature.
    pub fn to_json(&self) -> Value {
        eip712::document("Receipt", &MEMBERS, &self.domain, &self.receipt, &self.signature)
    }

    /// Parses a document. Only the exact types of this protocol are accepted, so that what is shown and
    /// what was signed can't differ.
    pub fn from_json(document: &Value) -> Result<Self, InvalidReceipt> {
        let (domain, receipt, signature) = eip712::parts(document).map_err(InvalidReceipt)?;
        let signed = Self { domain, receipt, signature };
        if signed.to_json() == *document {
            Ok(signed)
        } else {
            Err(InvalidReceipt("its types or domain are not this protocol's".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> Signed {
        let receipt = Receipt {
            job_id: "job-1".parse().unwrap(),
            node: Address::new([0x11; 20]),
            spec_hash: Hash([0x22; 32]),
            image_digest: "sha256:ab".to_owned(),
            gpu_uuids: "GPU-1,GPU-2".to_owned(),
            input_cid: String::new(),
            output_cid: "bafy".to_owned(),
            exit_code: -1,
            started_at: 1_700_000_000_000,
            finished_at: 1_700_000_005_000,
        };
        let domain = Domain { chain_id: 5611, contract: Address::new([0x33; 20]) };
        Signed { domain, receipt, signature: Signature([7; 65]) }
    }

    #[test]
    fn a_receipt_survives_its_document() {
        assert_eq!(Signed::from_json(&signed().to_json()), Ok(signed()));
    }

    #[test]
    fn a_document_with_other_types_is_refused() {
        let mut document = signed().to_json();
        document["types"]["Receipt"][7]["type"] = "uint256".into();
        assert!(Signed::from_json(&document).is_err());
        assert!(Signed::from_json(&Value::Null).is_err());
    }

    #[test]
    fn every_member_is_signed() {
        let Signed { domain, receipt, .. } = signed();
        let message = serde_json::to_value(&receipt).unwrap();
        for (name, _) in MEMBERS {
            let mut other = message.clone();
            other[name] = match &other[name] {
                Value::Number(n) => (n.as_i64().unwrap() + 1).into(),
                _ if name == "node" => Address::new([9; 20]).to_string().into(),
                _ if name == "specHash" => Hash([9; 32]).to_string().into(),
                _ => "other".into(),
            };
            let other: Receipt = serde_json::from_value(other).unwrap();
            assert_ne!(other.digest(&domain), receipt.digest(&domain), "{name}");
        }
    }
}
