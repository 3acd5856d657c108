// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {INodeReputation} from "./interfaces/INodeReputation.sol";

/// @title The reputation of compute nodes.
/// @dev Reverts carry words, not custom errors: the interface is fixed and declares none.
contract NodeReputation is INodeReputation, Ownable {
    // ---------------------------------------------------------------- storage

    /// @dev Three heartbeats of five minutes.
    uint256 private constant _ACTIVE_WINDOW = 15 minutes;

    uint256 private constant _MODEL_BYTES_MAX = 128;

    mapping(address provider => ProviderInfo) private _records;

    mapping(address provider => uint256) private _confirmedJobs;

    /// @dev Every node once, in the order of its first registration. Only ever grows.
    address[] private _providers;

    // --------------------------------------------------------------- external

    constructor() Ownable(msg.sender) {}

    /// @inheritdoc INodeReputation
    function registerNode(string calldata gpuModel, uint256 vram) external {
        uint256 length = bytes(gpuModel).length;
        require(
            length != 0 && length <= _MODEL_BYTES_MAX,
            "NodeReputation: the GPU model must be 1 to 128 bytes"
        );

        ProviderInfo storage record = _records[msg.sender];
        if (!record.isRegistered) {
            record.isRegistered = true;
            _providers.push(msg.sender);
        }
        record.gpuModel = gpuModel;
        record.vram = vram;
        record.lastSeen = block.timestamp;
        emit NodeRegistered(msg.sender, gpuModel, vram);
    }

    /// @inheritdoc INodeReputation
    function sendHeartbeat() external {
        ProviderInfo storage record = _registered(msg.sender);
        record.lastSeen = block.timestamp;
        emit NodeHeartbeat(msg.sender, block.timestamp);
    }

    /// @inheritdoc INodeReputation
    function incrementJobs(address provider) external onlyOwner {
        _registered(provider);
        uint256 newCount = ++_confirmedJobs[provider];
        emit JobCountIncremented(provider, newCount);
    }

    /// @inheritdoc INodeReputation
    function getProviderInfo(address provider)
        external
        view
        returns (ProviderInfo memory providerInfo, uint256 jobCount)
    {
        return (_records[provider], _confirmedJobs[provider]);
    }

    /// @inheritdoc INodeReputation
    function providers(address provider)
        external
        view
        returns (string memory gpuModel, uint256 vram, uint256 lastSeen, bool isRegistered)
    {
        ProviderInfo storage record = _records[provider];
        return (record.gpuModel, record.vram, record.lastSeen, record.isRegistered);
    }

    /// @inheritdoc INodeReputation
    function isProviderActive(address provider) external view returns (bool) {
        return _isActive(provider);
    }

    /// @inheritdoc INodeReputation
    function successfulJobsCount(address provider) external view returns (uint256) {
        return _confirmedJobs[provider];
    }

    /// @inheritdoc INodeReputation
    function totalProviders() external view returns (uint256) {
        return _providers.length;
    }

    /// @inheritdoc INodeReputation
    function getActiveProvidersCount() external view returns (uint256 count) {
        uint256 length = _providers.length;
        for (uint256 i = 0; i < length; ++i) {
            if (_isActive(_providers[i])) ++count;
        }
    }

    // --------------------------------------------------------------- internal

    function _registered(address provider) private view returns (ProviderInfo storage record) {
        record = _records[provider];
        require(record.isRegistered, "NodeReputation: the node is not registered");
    }

    function _isActive(address provider) private view returns (bool) {
        ProviderInfo storage record = _records[provider];
        return record.isRegistered && block.timestamp - record.lastSeen <= _ACTIVE_WINDOW;
    }
}
