//! Reads the extension that this project's contract adds to the deployed interface.
//!
//! Must hold: a contract without the extension is distinguished from a failing endpoint. Every answer
//! of a contract to the ERC-165 query except an exact `true` (a revert, no data, other data) means no.

use alloy::primitives::{Bytes, FixedBytes};
use alloy::sol_types::SolCall as _;

use super::bindings::NodeReputation as Contract;
use super::reader::word;
use super::{Error, Reader};
use crate::ids::Address;
use crate::reputation::standing::Standing;

/// The extension's ERC-165 id: the XOR of its functions' selectors.
const EXTENSION: FixedBytes<4> = FixedBytes::new([0x8c, 0xc8, 0xa9, 0x00]);

/// `true` in ABI encoding.
const YES: [u8; 32] = {
    let mut word = [0; 32];
    word[31] = 1;
    word
};

/// The contract's data about a node; docs/reputation.md explains what it proves.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reputation {
    /// Its record, as of the latest block.
    #[serde(flatten)]
    pub standing: Standing,
    /// The contract's score of the node, 0 to 10000.
    pub score: u16,
}

impl Reader {
    /// Whether the contract has the extension, which adds receipts, uptime and a score.
    pub async fn has_extension(&self) -> Result<bool, Error> {
        let question = Contract::supportsInterfaceCall { interfaceId: EXTENSION };
        match self.answer(&question.abi_encode()).await {
            Ok(answer) => Ok(is_yes(&answer)),
            Err(Error::Reverted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The contract's data about `provider`; `None` if it is not registered, or if the contract has no
    /// extension.
    pub async fn reputation(&self, provider: Address) -> Result<Option<Reputation>, Error> {
        if !self.has_extension().await? {
            return Ok(None);
        }
        let told = self.read(Contract::reputationOfCall { provider: word(provider) }).await?;
        let since_s: u64 = told.since.to();
        let standing = Standing {
            since_s,
            last_seen_s: told.lastSeen.to(),
            on_time: told.onTime,
            missed: told.missed,
            streak: told.streak,
            completed_claimed: told.completedClaimed.to(),
            failed_claimed: told.failedClaimed.to(),
            confirmed: told.confirmed.saturating_to(),
        };
        Ok((since_s != 0).then_some(Reputation { standing, score: told.score }))
    }
}

fn is_yes(answer: &Bytes) -> bool {
    answer.as_ref() == YES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        assert!(is_yes(&Bytes::from(YES.to_vec())));
        let two = [[0; 31].as_slice(), &[2]].concat();
        for answer in [vec![], vec![1], vec![0; 32], two, vec![0xff; 32], [YES, YES].concat()] {
            assert!(!is_yes(&Bytes::from(answer)));
        }
    }
}
