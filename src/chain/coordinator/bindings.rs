//! The coordinator's calls, events and errors, generated from `abi/SwarmCoordinator.json`.

mod generated {
    alloy::sol! {
        #[derive(Debug, PartialEq, Eq)]
        SwarmCoordinator,
        "abi/SwarmCoordinator.json"
    }
}

pub(super) use generated::SwarmCoordinator;

#[cfg(test)]
mod tests {
    use alloy::primitives::hex;
    use alloy::sol_types::{SolCall as _, SolEvent as _};

    use super::SwarmCoordinator as Contract;

    #[test]
    fn selectors_and_topics_are_those_of_the_deployed_contract() {
        for (actual, known) in [
            (Contract::currentRoundCall::SELECTOR, hex!("8a19c8bc")),
            (Contract::currentStageCall::SELECTOR, hex!("5bf5d54c")),
            (Contract::getBootnodesCall::SELECTOR, hex!("6370ae4f")),
            (Contract::getTotalRewardsCall::SELECTOR, hex!("80c3d97f")),
            (Contract::getTotalWinsCall::SELECTOR, hex!("099c4002")),
            (Contract::getVoterVoteCountCall::SELECTOR, hex!("dfb3c7df")),
            (Contract::getEoaCall::SELECTOR, hex!("96bac35a")),
        ] {
            assert_eq!(actual, known);
        }
        assert_eq!(
            Contract::RewardSubmitted_0::SIGNATURE_HASH.0,
            hex!("3d9492e853616bfa85e7c758cbd89efdbe62254e78838c74c160192efa57f25f")
        );
        for (actual, head, tail) in [
            (Contract::CumulativeRewardsUpdated::SIGNATURE_HASH, "984ef3ae", "d410"),
            (Contract::WinnerSubmitted::SIGNATURE_HASH, "c49e95fe", "aa30"),
            (Contract::PeerRegistered::SIGNATURE_HASH, "13ff8565", "455c"),
            (Contract::RoundAdvanced::SIGNATURE_HASH, "023811fd", "4d97"),
            (Contract::StageAdvanced::SIGNATURE_HASH, "373b8383", "c577"),
        ] {
            let hex = hex::encode(actual);
            assert!(hex.starts_with(head) && hex.ends_with(tail), "{hex}");
        }
    }
}
