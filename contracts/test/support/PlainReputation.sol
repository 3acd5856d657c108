// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {INodeReputation} from "../../src/interfaces/INodeReputation.sol";

/// @dev A plausible version of the deployed contract: only its interface. No uptime, no receipts,
/// no ERC-165, and other revert messages.
contract PlainReputation is INodeReputation, Ownable {
    mapping(address provider => ProviderInfo) public override providers;
    mapping(address provider => uint256) public override successfulJobsCount;
    address[] private _list;

    constructor() Ownable(msg.sender) {}

    function registerNode(string calldata gpuModel, uint256 vram) public virtual {
        if (!providers[msg.sender].isRegistered) _list.push(msg.sender);
        providers[msg.sender] = ProviderInfo(gpuModel, vram, block.timestamp, true);
        emit NodeRegistered(msg.sender, gpuModel, vram);
    }

    function sendHeartbeat() external {
        require(providers[msg.sender].isRegistered, "Node not registered");
        providers[msg.sender].lastSeen = block.timestamp;
        emit NodeHeartbeat(msg.sender, block.timestamp);
    }

    function incrementJobs(address provider) external onlyOwner {
        require(providers[provider].isRegistered, "Node not registered");
        successfulJobsCount[provider] += 1;
        emit JobCountIncremented(provider, successfulJobsCount[provider]);
    }

    function getProviderInfo(address provider)
        external
        view
        returns (ProviderInfo memory providerInfo, uint256 jobCount)
    {
        return (providers[provider], successfulJobsCount[provider]);
    }

    function isProviderActive(address provider) public view returns (bool) {
        ProviderInfo storage info = providers[provider];
        return info.isRegistered && block.timestamp <= info.lastSeen + 15 minutes;
    }

    function totalProviders() external view returns (uint256) {
        return _list.length;
    }

    function getActiveProvidersCount() external view returns (uint256 count) {
        for (uint256 i = 0; i < _list.length; ++i) {
            if (isProviderActive(_list[i])) ++count;
        }
    }
}
