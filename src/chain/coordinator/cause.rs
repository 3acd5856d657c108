//! Why the coordinator refused something, in words.

use alloy::sol_types::SolInterface as _;

use super::bindings::SwarmCoordinator::SwarmCoordinatorErrors as Errors;

/// An error of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// Its name in the contract, such as `InvalidRoundNumber`.
    pub name: &'static str,
    /// What it says, as the end of a sentence about the caller.
    pub meaning: &'static str,
}

/// The coordinator's error in the data of a revert, of which the first four bytes suffice; `None` if it is none of
/// the known ones.
pub fn cause_of_revert(data: &[u8]) -> Option<Cause> {
    let selector = data.first_chunk::<4>()?;
    let (name, meaning) = match Errors::abi_decode_raw(*selector, &[]).ok()? {
        Errors::InvalidRoundNumber(_) => {
            ("InvalidRoundNumber", "the round that it names is over, or has not begun")
        }
        Errors::InvalidStageNumber(_) => {
            ("InvalidStageNumber", "the stage that it names is not the present one")
        }
        Errors::RewardAlreadySubmitted(_) => (
            "RewardAlreadySubmitted",
            "the peer's reward of this round and stage is there already; does another node run with its key?",
        ),
        Errors::WinnerAlreadyVoted(_) => (
            "WinnerAlreadyVoted",
            "the peer voted in this round before; does another node run with its key?",
        ),
        Errors::PeerIdAlreadyRegistered(_) => {
            ("PeerIdAlreadyRegistered", "the peer id belongs to an account already")
        }
        Errors::InvalidVoterPeerId(_) => {
            ("InvalidVoterPeerId", "the peer id belongs to another account, or to none")
        }
        Errors::InvalidVote(_) => ("InvalidVote", "the vote names a winner twice"),
        Errors::StageOutOfBounds(_) => ("StageOutOfBounds", "there is no such stage"),
        Errors::InvalidBootnodeIndex(_) => ("InvalidBootnodeIndex", "there is no such bootnode"),
        Errors::OnlyOwner(_) => ("OnlyOwner", "only the contract's owner may do that"),
        Errors::OnlyStageManager(_) => ("OnlyStageManager", "only the stage manager may do that"),
        Errors::OnlyRoundManager(_) => ("OnlyRoundManager", "only the round manager may do that"),
        Errors::OnlyBootnodeManager(_) => {
            ("OnlyBootnodeManager", "only the bootnode manager may do that")
        }
    };
    Some(Cause { name, meaning })
}

#[cfg(test)]
mod tests {
    use alloy::hex;
    use alloy::primitives::keccak256;

    use super::*;

    #[test]
    fn the_contracts_errors_are_known_by_their_selectors() {
        for name in [
            "InvalidRoundNumber",
            "InvalidStageNumber",
            "RewardAlreadySubmitted",
            "WinnerAlreadyVoted",
            "PeerIdAlreadyRegistered",
            "InvalidVoterPeerId",
            "InvalidVote",
        ] {
            let hash = keccak256(format!("{name}()"));
            assert_eq!(cause_of_revert(&hash[..4]).unwrap().name, name);
            assert_eq!(cause_of_revert(&hash[..]).unwrap().name, name, "more data does no harm");
        }
        for other in [&hex!("deadbeef")[..], &hex!("08c379a0"), &[0; 3], &[]] {
            assert_eq!(cause_of_revert(other), None);
        }
    }
}
