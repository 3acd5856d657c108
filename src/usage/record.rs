//! The record of a job's final figures that the node signs beside its receipt, as EIP-712 typed data.
//!
//! In JSON the record is the typed-data document itself plus the signature, so that any EIP-712 library can check it
//! without knowing this program. Invariants: a figure that is not known is 0 in the record and its bit in `known` is
//! clear; a record that says otherwise is refused.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::figures::{FIGURES, Usage};
use super::totals::EnergyMethod;
use crate::ids::eip712::{self, Domain, Word};
use crate::ids::{Address, Hash, Signature};

/// The struct's type, as EIP-712 encodes it.
const KIND: &str = "Usage(bytes32 receiptDigest,address node,uint64 cpuUs,uint64 memoryPeakBytes,\
    uint64 ioReadBytes,uint64 ioWriteBytes,uint64 netRxBytes,uint64 netTxBytes,uint64 gpuMs,\
    uint64 energyMj,uint8 energyMethod,uint32 samples,bytes32 seriesHead,uint32 known)";

/// The members with their types, in the order of [`KIND`].
const MEMBERS: [(&str, &str); 14] = [
    ("receiptDigest", "bytes32"),
    ("node", "address"),
    ("cpuUs", "uint64"),
    ("memoryPeakBytes", "uint64"),
    ("ioReadBytes", "uint64"),
    ("ioWriteBytes", "uint64"),
    ("netRxBytes", "uint64"),
    ("netTxBytes", "uint64"),
    ("gpuMs", "uint64"),
    ("energyMj", "uint64"),
    ("energyMethod", "uint8"),
    ("samples", "uint32"),
    ("seriesHead", "bytes32"),
    ("known", "uint32"),
];

/// The content of the record, which is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Digest of the receipt of the same run.
    pub receipt_digest: Hash,
    /// The node that ran the job.
    pub node: Address,
    /// See [`Usage::cpu_us`]; bit 0 of `known`.
    pub cpu_us: u64,
    /// See [`Usage::memory_peak_bytes`]; bit 1 of `known`.
    pub memory_peak_bytes: u64,
    /// See [`Usage::io_read_bytes`]; bit 2 of `known`.
    pub io_read_bytes: u64,
    /// See [`Usage::io_write_bytes`]; bit 3 of `known`.
    pub io_write_bytes: u64,
    /// See [`Usage::net_rx_bytes`]; bit 4 of `known`.
    pub net_rx_bytes: u64,
    /// See [`Usage::net_tx_bytes`]; bit 5 of `known`.
    pub net_tx_bytes: u64,
    /// See [`Usage::gpu_ms`]; bit 6 of `known`.
    pub gpu_ms: u64,
    /// See [`Usage::energy_mj`]; bit 7 of `known`.
    pub energy_mj: u64,
    /// 0: the energy is not known; 1: by the cards' counters; 2: summed up from their power.
    pub energy_method: u8,
    /// See [`Usage::samples`].
    pub samples: u32,
    /// See [`Usage::series_head`].
    pub series_head: Hash,
    /// Which figures are known: bit 0 is `cpuUs`, and so on in the struct's order to bit 7, `energyMj`.
    pub known: u32,
}

impl Record {
    /// The record of `node` about the run with this receipt.
    pub fn new(receipt_digest: Hash, node: Address, usage: &Usage) -> Self {
        let figures = usage.figures();
        let known = (0..).zip(&figures).filter(|(_, figure)| figure.is_ok());
        let known = known.fold(0, |known, (bit, _)| known | 1 << bit);
        let [cpu, memory, io_read, io_write, net_rx, net_tx, gpu, energy] =
            figures.map(Result::unwrap_or_default);
        Self {
            receipt_digest,
            node,
            cpu_us: cpu,
            memory_peak_bytes: memory,
            io_read_bytes: io_read,
            io_write_bytes: io_write,
            net_rx_bytes: net_rx,
            net_tx_bytes: net_tx,
            gpu_ms: gpu,
            energy_mj: energy,
            energy_method: match usage.energy_method {
                EnergyMethod::Unknown => 0,
                EnergyMethod::Counter => 1,
                EnergyMethod::Integrated => 2,
            },
            samples: usage.samples,
            series_head: usage.series_head,
            known,
        }
    }

    /// The EIP-712 digest that the node signs.
    pub fn digest(&self, domain: &Domain) -> Hash {
        domain.digest_of(
            KIND,
            &[
                Word::bytes32(self.receipt_digest),
                Word::address(self.node),
                Word::number(self.cpu_us),
                Word::number(self.memory_peak_bytes),
                Word::number(self.io_read_bytes),
                Word::number(self.io_write_bytes),
                Word::number(self.net_rx_bytes),
                Word::number(self.net_tx_bytes),
                Word::number(self.gpu_ms),
                Word::number(self.energy_mj),
                Word::number(self.energy_method.into()),
                Word::number(self.samples.into()),
                Word::bytes32(self.series_head),
                Word::number(self.known.into()),
            ],
        )
    }

    /// The figures by their members' names; `None` where one is not known.
    pub fn figures(&self) -> [(&'static str, Option<u64>); FIGURES] {
        let mut bit = 0;
        self.numbers().map(|(name, number)| {
            let is_known = self.known >> bit & 1 == 1;
            bit += 1;
            (name, is_known.then_some(number))
        })
    }

    const fn numbers(&self) -> [(&'static str, u64); FIGURES] {
        [
            ("cpuUs", self.cpu_us),
            ("memoryPeakBytes", self.memory_peak_bytes),
            ("ioReadBytes", self.io_read_bytes),
            ("ioWriteBytes", self.io_write_bytes),
            ("netRxBytes", self.net_rx_bytes),
            ("netTxBytes", self.net_tx_bytes),
            ("gpuMs", self.gpu_ms),
            ("energyMj", self.energy_mj),
        ]
    }

    /// What in it contradicts itself.
    fn contradiction(&self) -> Option<String> {
        let figures = self.figures().into_iter().zip(self.numbers());
        for ((name, figure), (_, number)) in figures {
            if figure.is_none() && number != 0 {
                return Some(format!("`{name}` is said to be unknown and is not 0"));
            }
        }
        let is_energy_known = self.known >> (FIGURES - 1) & 1 == 1;
        if self.known >> FIGURES != 0 {
            Some("`known` has a bit without a member".to_owned())
        } else if self.energy_method > 2 || is_energy_known != (self.energy_method != 0) {
            Some("`energyMethod` does not fit `energyMj`".to_owned())
        } else {
            None
        }
    }
}

/// A record with its signature, as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedUsage {
    /// The EIP-712 domain in which it was signed: that of the receipt.
    pub domain: Domain,
    /// The signed content.
    pub record: Record,
    /// Signature of [`Record::digest`] by the node's key.
    pub signature: Signature,
}

/// A document that is not a signed usage record of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a signed usage record: {0}")]
pub struct InvalidUsage(String);

impl SignedUsage {
    /// The typed-data document plus the signature.
    pub fn to_json(&self) -> Value {
        eip712::document("Usage", &MEMBERS, &self.domain, &self.record, &self.signature)
    }

    /// Parses a document. Only the exact types of this protocol are accepted, so that what is shown and what was signed
    /// can't differ.
    pub fn from_json(document: &Value) -> Result<Self, InvalidUsage> {
        let (domain, record, signature) =
            eip712::parts::<Record>(document).map_err(InvalidUsage)?;
        if let Some(what) = record.contradiction() {
            return Err(InvalidUsage(what));
        }
        let signed = Self { domain, record, signature };
        if signed.to_json() == *document {
            Ok(signed)
        } else {
            Err(InvalidUsage("its types or domain are not this protocol's".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::sample::Unknown;

    fn usage() -> Usage {
        Usage {
            cpu_us: Ok(1_500_000),
            memory_peak_bytes: Ok(1 << 30),
            io_read_bytes: Ok(0),
            io_write_bytes: Err(Unknown::NotSupported),
            net_rx_bytes: Err(Unknown::Off),
            net_tx_bytes: Ok(u64::MAX),
            gpu_ms: Ok(700),
            energy_mj: Ok(12_345),
            energy_method: EnergyMethod::Integrated,
            samples: 9,
            series_head: Hash([0x44; 32]),
        }
    }

    fn signed() -> SignedUsage {
        let record = Record::new(Hash([0x22; 32]), Address::new([0x11; 20]), &usage());
        let domain = Domain { chain_id: 5611, contract: Address::new([0x33; 20]) };
        SignedUsage { domain, record, signature: Signature([7; 65]) }
    }

    #[test]
    fn a_record_has_a_bit_for_each_known_figure_and_zero_for_each_other() {
        let record = signed().record;
        assert_eq!(record.known, 0b1110_0111);
        assert_eq!((record.io_read_bytes, record.io_write_bytes), (0, 0));
        assert_eq!(record.figures()[2], ("ioReadBytes", Some(0)));
        assert_eq!(record.figures()[3], ("ioWriteBytes", None));
        assert_eq!(record.figures()[7], ("energyMj", Some(12_345)));
        let nothing = Record::new(Hash([0; 32]), record.node, &Usage::unknown(Unknown::Missed));
        assert_eq!((nothing.known, nothing.energy_method), (0, 0));
    }

    #[test]
    fn a_record_survives_its_document() {
        assert_eq!(SignedUsage::from_json(&signed().to_json()), Ok(signed()));
    }

    #[test]
    fn a_document_with_other_types_is_refused() {
        let mut document = signed().to_json();
        document["types"]["Usage"][7]["type"] = "uint256".into();
        assert!(SignedUsage::from_json(&document).is_err());
        let mut document = signed().to_json();
        document["primaryType"] = "Receipt".into();
        assert!(SignedUsage::from_json(&document).is_err());
        assert!(SignedUsage::from_json(&Value::Null).is_err());
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        for (name, value, says) in [
            ("ioWriteBytes", 5, "`ioWriteBytes` is said to be unknown"),
            ("known", 0b1_1110_0111, "`known` has a bit"),
            ("energyMethod", 3, "`energyMethod`"),
            ("energyMethod", 0, "`energyMethod`"),
            ("energyMethod", 256, "message"),
        ] {
            let mut document = signed().to_json();
            document["message"][name] = value.into();
            let refusal = SignedUsage::from_json(&document).unwrap_err().to_string();
            assert!(refusal.contains(says), "{name}: {refusal}");
        }
    }

    #[test]
    fn every_member_is_signed() {
        let SignedUsage { domain, record, .. } = signed();
        let message = serde_json::to_value(record).unwrap();
        assert_eq!(message.as_object().unwrap().len(), MEMBERS.len());
        for (name, _) in MEMBERS {
            let mut other = message.clone();
            other[name] = match &other[name] {
                Value::Number(n) => (n.as_u64().unwrap() ^ 1).into(),
                _ if name == "node" => Address::new([9; 20]).to_string().into(),
                _ => Hash([9; 32]).to_string().into(),
            };
            let other: Record = serde_json::from_value(other).unwrap();
            assert_ne!(other.digest(&domain), record.digest(&domain), "{name}");
        }
    }

    /// Computed by a program of its own from the text of EIP-712.
    #[test]
    fn another_program_computes_the_same_digest() {
        let SignedUsage { domain, record, .. } = signed();
        assert_eq!(
            record.digest(&domain).to_string(),
            "0xde027037b889ba3ae059908a416e6cf9c7f815a70c9ab6d85a835a35f87a6354"
        );
    }

    #[test]
    fn the_encoded_type_is_that_of_the_members() {
        let members: Vec<String> =
            MEMBERS.iter().map(|(name, kind)| format!("{kind} {name}")).collect();
        assert_eq!(KIND, format!("Usage({})", members.join(",")));
    }
}
