//! EIP-712 typed data, as far as this protocol signs it: flat structs in one domain.
//!
//! Invariant: any EIP-712 library computes the same digests (tests compare with one). See
//! <https://eips.ethereum.org/EIPS/eip-712>.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::hash::keccak256;
use super::{Address, Hash, Signature};

/// The domain in which everything in this protocol is signed: `LamdaNode`, version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain {
    /// EIP-155 id of the chain that holds the contract.
    pub chain_id: u64,
    /// The reputation contract.
    pub contract: Address,
}

impl Domain {
    /// The domain of signatures for which no chain needs to be known: chain 0, no contract. Such a
    /// signature is valid on no chain.
    pub const OWN: Self = Self { chain_id: 0, contract: Address::new([0; 20]) };

    /// `hashStruct(eip712Domain)`.
    fn separator(&self) -> Hash {
        let kind =
            "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
        hash_struct(
            kind,
            &[
                Word::text("LamdaNode"),
                Word::text("1"),
                Word::number(self.chain_id),
                Word::address(self.contract),
            ],
        )
    }

    /// The digest that is signed for a struct with this hash.
    fn digest(&self, struct_hash: Hash) -> Hash {
        let mut bytes = [0_u8; 66];
        bytes[..2].copy_from_slice(&[0x19, 0x01]);
        bytes[2..34].copy_from_slice(&self.separator().0);
        bytes[34..].copy_from_slice(&struct_hash.0);
        keccak256(&bytes)
    }

    /// The digest of `Job(string target,bytes32 specHash)`.
    pub fn job_digest(&self, target: &str, spec_hash: Hash) -> Hash {
        let kind = "Job(string target,bytes32 specHash)";
        self.digest(hash_struct(kind, &[Word::text(target), Word(spec_hash.0)]))
    }

    /// The digest of `Control(string action,string jobId,address agent,uint64 issuedAtMs)`.
    pub fn control_digest(&self, action: &str, job_id: &str, agent: Address, at_ms: u64) -> Hash {
        let kind = "Control(string action,string jobId,address agent,uint64 issuedAtMs)";
        self.digest(hash_struct(
            kind,
            &[Word::text(action), Word::text(job_id), Word::address(agent), Word::number(at_ms)],
        ))
    }

    /// The digest of a struct of the type `kind` with these members.
    pub(crate) fn digest_of(&self, kind: &str, words: &[Word]) -> Hash {
        self.digest(hash_struct(kind, words))
    }

    /// The `domain` of a typed-data document.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": "LamdaNode", "version": "1",
            "chainId": self.chain_id, "verifyingContract": self.contract,
        })
    }

    /// The type `EIP712Domain` of a typed-data document.
    pub(crate) fn json_type() -> Value {
        json!([
            {"name": "name", "type": "string"}, {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"},
        ])
    }
}

/// The typed-data document of a signed struct: any EIP-712 library can check it without knowing this program.
pub(crate) fn document(
    kind: &str,
    members: &[(&str, &str)],
    domain: &Domain,
    message: &impl Serialize,
    signature: &Signature,
) -> Value {
    let members: Vec<Value> =
        members.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect();
    json!({
        "types": {"EIP712Domain": Domain::json_type(), kind: members},
        "primaryType": kind,
        "domain": domain.json(),
        "message": message,
        "signature": signature,
    })
}

/// The parts of such a document; an error is a clause about it. Whoever reads one writes it again and compares, so that
/// what is shown and what was signed can't differ.
pub(crate) fn parts<T: DeserializeOwned>(
    document: &Value,
) -> Result<(Domain, T, Signature), String> {
    let read = |value: &Value, key: &str| value.get(key).cloned().unwrap_or_default();
    let domain = read(document, "domain");
    let chain_id = domain.get("chainId").and_then(Value::as_u64);
    let contract = serde_json::from_value(read(&domain, "verifyingContract"));
    let (Some(chain_id), Ok(contract)) = (chain_id, contract) else {
        return Err("its domain has no chainId or verifyingContract".to_owned());
    };
    let message = serde_json::from_value(read(document, "message"));
    let message = message.map_err(|err| format!("its message: {err}"))?;
    let signature = serde_json::from_value(read(document, "signature"));
    let signature = signature.map_err(|err| format!("its signature: {err}"))?;
    Ok((Domain { chain_id, contract }, message, signature))
}

/// One member of a struct, encoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word([u8; 32]);

impl Word {
    pub(crate) fn text(text: &str) -> Self {
        Self(keccak256(text.as_bytes()).0)
    }

    pub(crate) fn bytes32(hash: Hash) -> Self {
        Self(hash.0)
    }

    pub(crate) fn number(number: u64) -> Self {
        let mut word = [0; 32];
        word[24..].copy_from_slice(&number.to_be_bytes());
        Self(word)
    }

    /// Two's complement, sign-extended.
    pub(crate) fn signed(number: i32) -> Self {
        let mut word = if number < 0 { [0xff; 32] } else { [0; 32] };
        word[28..].copy_from_slice(&number.to_be_bytes());
        Self(word)
    }

    pub(crate) fn address(address: Address) -> Self {
        let mut word = [0; 32];
        word[12..].copy_from_slice(address.as_bytes());
        Self(word)
    }
}

fn hash_struct(kind: &str, words: &[Word]) -> Hash {
    let mut bytes = keccak256(kind.as_bytes()).0.to_vec();
    for word in words {
        bytes.extend_from_slice(&word.0);
    }
    keccak256(&bytes)
}
