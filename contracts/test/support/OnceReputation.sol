// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {PlainReputation} from "./PlainReputation.sol";

/// @dev What the deployed contract may be as well: a node registers once and never again.
contract OnceReputation is PlainReputation {
    function registerNode(string calldata gpuModel, uint256 vram) public override {
        require(!providers[msg.sender].isRegistered, "Node already registered");
        super.registerNode(gpuModel, vram);
    }
}
