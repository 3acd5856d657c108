//! The contract's calls, events and errors, generated from `abi/NodeReputation.json`. Code that does
//! not match that file fails to compile.

mod generated {
    alloy::sol! {
        #[derive(Debug, PartialEq, Eq)]
        NodeReputation,
        "abi/NodeReputation.json"
    }
}

pub(super) use generated::NodeReputation;

#[cfg(test)]
mod tests {
    use alloy::primitives::{U256, hex};
    use alloy::sol_types::{SolCall as _, SolError as _, SolEvent as _};

    use super::NodeReputation as Contract;

    #[test]
    fn a_registration_is_encoded_as_the_deployed_contract_reads_it() {
        let call = Contract::registerNodeCall {
            gpuModel: "NVIDIA H100 80GB HBM3".into(),
            vram: U256::from(81_559),
        };
        let words = [
            "0000000000000000000000000000000000000000000000000000000000000040",
            "0000000000000000000000000000000000000000000000000000000000013e97",
            "0000000000000000000000000000000000000000000000000000000000000015",
            "4e5649444941204831303020383047422048424d330000000000000000000000",
        ];
        assert_eq!(hex::encode(call.abi_encode()), format!("f3ef747f{}", words.concat()));
        assert_eq!(hex::encode(Contract::sendHeartbeatCall {}.abi_encode()), "34f167a9");
    }

    #[test]
    fn selectors_and_topics_are_the_deployed_ones() {
        assert_eq!(Contract::getProviderInfoCall::SELECTOR, hex!("7583902f"));
        assert_eq!(Contract::isProviderActiveCall::SELECTOR, hex!("696724cb"));
        assert_eq!(Contract::totalProvidersCall::SELECTOR, hex!("96616b1f"));
        assert_eq!(Contract::getActiveProvidersCountCall::SELECTOR, hex!("13c3e4b3"));
        assert_eq!(Contract::ownerCall::SELECTOR, hex!("8da5cb5b"));
        assert_eq!(Contract::OwnableUnauthorizedAccount::SELECTOR, hex!("118cdaa7"));
        assert_eq!(
            Contract::NodeRegistered::SIGNATURE_HASH.0,
            hex!("6f3c990a2f665f94ed1db0af40275bedd4d3d025f541e2c77112281fbee63600")
        );
    }

    #[test]
    fn the_extension_is_what_its_interface_id_says() {
        let selectors = [
            (Contract::sendHeartbeatWithReceiptsCall::SELECTOR, hex!("67f01e8f")),
            (Contract::reputationOfCall::SELECTOR, hex!("db89c044")),
            (Contract::providersPageCall::SELECTOR, hex!("30b177cb")),
        ];
        let mut id = [0_u8; 4];
        for (actual, expected) in selectors {
            assert_eq!(actual, expected);
            id.iter_mut().zip(actual).for_each(|(id, byte)| *id ^= byte);
        }
        assert_eq!(id, hex!("8cc8a900"));
        assert_eq!(Contract::supportsInterfaceCall::SELECTOR, hex!("01ffc9a7"));
        assert_eq!(
            Contract::ReceiptsCommitted::SIGNATURE_HASH.0,
            hex!("6b3f4fc747cb1b529413adafcc9eb7d2b26667bc5754ecad875f48f77e802f7d")
        );
        assert_eq!(
            Contract::NodeHeartbeat::SIGNATURE_HASH.0,
            hex!("0f1ef8be219b2bb5e8b630cb970a8ac2b44c0f8a3a3db371d8a653e50af49a11")
        );
        assert_eq!(
            Contract::JobCountIncremented::SIGNATURE_HASH.0,
            hex!("f0b433b19371a783f4bfbaf7c118079db6c086603cd0c6ba2b6478c955b8b963")
        );
    }
}
