// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {PlainReputation} from "./PlainReputation.sol";

/// @dev Another plausible version of the deployed contract: a node can register only once.
contract OnceReputation is PlainReputation {
    function registerNode(string calldata gpuModel, uint256 vram) public override {
        require(!providers[msg.sender].isRegistered, "Node already registered");
        super.registerNode(gpuModel, vram);
    }
}
