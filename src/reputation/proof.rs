//! A receipt with its Merkle proof up to a root that a heartbeat committed, as a document that anybody
//! can check (docs/protocol.md, section 3).
//!
//! Must hold: a [`Proof`] that was parsed leads to its root, and the redundant members of its document
//! agree. The receipt's signer and the presence of the root on the chain are not checked here.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::merkle;
use crate::ids::{Address, Hash};
use crate::job::receipt::{InvalidReceipt, Signed};

/// The proof that a receipt is under a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The receipt that is proved.
    pub receipt: Signed,
    /// The sibling nodes on the path from the receipt's leaf to the root, from the leaf up.
    pub siblings: Vec<Hash>,
    /// The root that the heartbeat committed.
    pub root: Hash,
    /// The hash of the heartbeat's transaction.
    pub tx_hash: Hash,
    /// The number of that transaction's block.
    pub block: u64,
}

/// Why a document is not a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProof {
    /// The document contains no valid receipt.
    #[error(transparent)]
    Receipt(#[from] InvalidReceipt),
    /// This member is missing, or has the wrong form.
    #[error("not a proof: its {0} is missing or has another form")]
    Form(&'static str),
    /// The path has more than [`merkle::PROOF_MAX`] steps, which no tree of this protocol has.
    #[error("not a proof: it has more than {} steps", merkle::PROOF_MAX)]
    TooLong,
    /// This member contradicts the receipt.
    #[error("the proof's {0} is not that of its receipt")]
    Differs(&'static str),
    /// The path does not end at the document's root.
    #[error("the proof does not lead from its receipt to its root")]
    Elsewhere,
}

impl Proof {
    /// The receipt's EIP-712 digest.
    pub fn digest(&self) -> Hash {
        self.receipt.receipt.digest(&self.receipt.domain)
    }

    /// The document. Its digest, leaf, chain id and contract follow from the receipt; they are included
    /// for checks by hand.
    pub fn to_json(&self) -> Value {
        let digest = self.digest();
        json!({
            "receipt": self.receipt.to_json(),
            "digest": digest,
            "leaf": merkle::leaf(digest),
            "proof": self.siblings,
            "root": self.root,
            "chain_id": self.receipt.domain.chain_id,
            "contract": self.receipt.domain.contract,
            "tx_hash": self.tx_hash,
            "block": self.block,
        })
    }

    /// Parses a document, and verifies the path to its root and its redundant members.
    pub fn from_json(document: &Value) -> Result<Self, InvalidProof> {
        let receipt = Signed::from_json(document.get("receipt").unwrap_or(&Value::Null))?;
        let siblings: Vec<Hash> = member(document, "proof")?;
        if siblings.len() > merkle::PROOF_MAX {
            return Err(InvalidProof::TooLong);
        }
        let proof = Self {
            receipt,
            siblings,
            root: member(document, "root")?,
            tx_hash: member(document, "tx_hash")?,
            block: member(document, "block")?,
        };
        let (domain, digest) = (proof.receipt.domain, proof.digest());
        same("digest", document, &digest)?;
        same("leaf", document, &merkle::leaf(digest))?;
        same("chain_id", document, &domain.chain_id)?;
        same::<Address>("contract", document, &domain.contract)?;
        if merkle::verify(digest, &proof.siblings, proof.root) {
            Ok(proof)
        } else {
            Err(InvalidProof::Elsewhere)
        }
    }
}

fn member<T: DeserializeOwned>(document: &Value, key: &'static str) -> Result<T, InvalidProof> {
    let value = document.get(key).ok_or(InvalidProof::Form(key))?;
    T::deserialize(value).map_err(|_| InvalidProof::Form(key))
}

fn same<T: DeserializeOwned + PartialEq>(
    key: &'static str,
    document: &Value,
    expected: &T,
) -> Result<(), InvalidProof> {
    let said: T = member(document, key)?;
    if said == *expected { Ok(()) } else { Err(InvalidProof::Differs(key)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Domain, Signature};
    use crate::job::Receipt;

    fn proof() -> Proof {
        let receipt = Receipt {
            job_id: "job-1".parse().unwrap(),
            node: Address::new([0x11; 20]),
            spec_hash: Hash([0x22; 32]),
            image_digest: "sha256:ab".to_owned(),
            gpu_uuids: String::new(),
            input_cid: String::new(),
            output_cid: "bafy".to_owned(),
            exit_code: 0,
            started_at: 1_700_000_000_000,
            finished_at: 1_700_000_005_000,
        };
        let domain = Domain { chain_id: 5611, contract: Address::new([0x33; 20]) };
        let digests = [Hash([1; 32]), receipt.digest(&domain), Hash([2; 32])];
        Proof {
            receipt: Signed { domain, receipt, signature: Signature([7; 65]) },
            siblings: merkle::proof(&digests, 1).unwrap(),
            root: merkle::root(&digests).unwrap(),
            tx_hash: Hash([9; 32]),
            block: 42,
        }
    }

    #[test]
    fn a_proof_survives_its_document() {
        assert_eq!(Proof::from_json(&proof().to_json()), Ok(proof()));
    }

    #[test]
    fn whatever_is_changed_in_it_is_named() {
        use InvalidProof::{Differs, Elsewhere, Form, TooLong};
        let other = Hash([0xee; 32]).to_string();
        let cases = [
            ("digest", json!(other), Differs("digest")),
            ("leaf", json!(other), Differs("leaf")),
            ("chain_id", json!(1), Differs("chain_id")),
            ("contract", json!(Address::new([4; 20])), Differs("contract")),
            ("root", json!(other), Elsewhere),
            ("proof", json!([]), Elsewhere),
            ("proof", json!([other]), Elsewhere),
            ("proof", json!(vec![other; 33]), TooLong),
            ("proof", json!("none"), Form("proof")),
            ("tx_hash", json!("0x12"), Form("tx_hash")),
            ("block", json!(-1), Form("block")),
        ];
        for (key, value, expected) in cases {
            let mut document = proof().to_json();
            document[key] = value;
            assert_eq!(Proof::from_json(&document), Err(expected), "{key}");
        }
        for key in ["digest", "leaf", "proof", "root", "chain_id", "contract", "tx_hash", "block"] {
            let mut document = proof().to_json();
            document.as_object_mut().unwrap().remove(key);
            assert_eq!(Proof::from_json(&document), Err(Form(key)));
        }
        let mut document = proof().to_json();
        document["receipt"]["message"]["exitCode"] = 1.into();
        assert_eq!(Proof::from_json(&document), Err(Differs("digest")));
        assert!(matches!(Proof::from_json(&Value::Null), Err(InvalidProof::Receipt(_))));
    }
}
