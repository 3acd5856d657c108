// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {INodeReputation} from "./interfaces/INodeReputation.sol";
import {INodeReputationExtension} from "./interfaces/INodeReputationExtension.sol";
import {Score} from "./libraries/Score.sol";
import {Standing, StandingLib} from "./types/Standing.sol";

/// @title The reputation of compute nodes.
/// @dev The deployed interface declares no errors, so its functions revert with strings. Those of
/// the extension revert with custom errors.
contract NodeReputation is INodeReputation, INodeReputationExtension, IERC165, Ownable {
    // ---------------------------------------------------------------- storage

    /// @dev The record of a node. A heartbeat reads and writes only the first slot.
    struct Node {
        Standing standing;
        string gpuModel;
        uint256 vram;
        uint256 confirmedJobs;
    }

    /// @dev Three heartbeats of five minutes.
    uint256 private constant _ACTIVE_WINDOW = 15 minutes;

    uint256 private constant _MODEL_BYTES_MAX = 128;

    uint256 private constant _PAGE_MAX = 500;

    // Slot 0 is `_owner` of `Ownable`.

    /// @dev Slot 1.
    mapping(address provider => Node) private _nodes;

    /// @dev Slot 2. Each node once, in the order of first registration. Never shrinks.
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

        Node storage node = _nodes[msg.sender];
        Standing standing = node.standing;
        if (standing.isRegistered()) {
            // Otherwise registering again would erase the slots missed since the last heartbeat.
            node.standing = standing.beat(block.timestamp);
        } else {
            node.standing = StandingLib.begun(block.timestamp);
            _providers.push(msg.sender);
        }
        node.gpuModel = gpuModel;
        node.vram = vram;
        emit NodeRegistered(msg.sender, gpuModel, vram);
    }

    /// @inheritdoc INodeReputation
    function sendHeartbeat() external {
        (Node storage node, Standing standing) = _registered(msg.sender);
        node.standing = standing.beat(block.timestamp);
        emit NodeHeartbeat(msg.sender, block.timestamp);
    }

    /// @inheritdoc INodeReputationExtension
    function sendHeartbeatWithReceipts(bytes32 receiptsRoot, uint32 completed, uint32 failed)
        external
    {
        if (receiptsRoot == 0) revert ReceiptsRootMissing();
        if (completed | failed == 0) revert ReceiptsMissing();
        Node storage node = _nodes[msg.sender];
        Standing standing = node.standing;
        if (!standing.isRegistered()) revert NodeNotRegistered(msg.sender);

        node.standing = standing.beat(block.timestamp).claim(completed, failed);
        emit NodeHeartbeat(msg.sender, block.timestamp);
        emit ReceiptsCommitted(msg.sender, receiptsRoot, completed, failed);
    }

    /// @inheritdoc INodeReputation
    function incrementJobs(address provider) external onlyOwner {
        (Node storage node,) = _registered(provider);
        uint256 newCount = ++node.confirmedJobs;
        emit JobCountIncremented(provider, newCount);
    }

    /// @inheritdoc INodeReputation
    function getProviderInfo(address provider)
        external
        view
        returns (ProviderInfo memory providerInfo, uint256 jobCount)
    {
        return (_record(provider), _nodes[provider].confirmedJobs);
    }

    /// @inheritdoc INodeReputation
    function providers(address provider)
        external
        view
        returns (string memory gpuModel, uint256 vram, uint256 lastSeen, bool isRegistered)
    {
        ProviderInfo memory record = _record(provider);
        return (record.gpuModel, record.vram, record.lastSeen, record.isRegistered);
    }

    /// @inheritdoc INodeReputation
    function isProviderActive(address provider) external view returns (bool) {
        return _isActive(provider);
    }

    /// @inheritdoc INodeReputation
    function successfulJobsCount(address provider) external view returns (uint256) {
        return _nodes[provider].confirmedJobs;
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

    /// @inheritdoc INodeReputationExtension
    function reputationOf(address provider)
        external
        view
        returns (
            uint40 since,
            uint40 lastSeen,
            uint32 onTime,
            uint32 missed,
            uint32 streak,
            uint40 completedClaimed,
            uint40 failedClaimed,
            uint256 confirmed,
            uint16 score
        )
    {
        Standing standing = _nodes[provider].standing.asOf(block.timestamp);
        since = standing.since();
        lastSeen = standing.lastSeen();
        onTime = standing.onTime();
        missed = standing.missed();
        streak = standing.streak();
        completedClaimed = standing.completed();
        failedClaimed = standing.failed();
        confirmed = _nodes[provider].confirmedJobs;
        score = Score.rate(onTime, missed, confirmed, failedClaimed);
    }

    /// @inheritdoc INodeReputationExtension
    function providersPage(uint256 offset, uint256 limit)
        external
        view
        returns (address[] memory page, uint256 total)
    {
        total = _providers.length;
        uint256 size = offset < total ? total - offset : 0;
        if (size > limit) size = limit;
        if (size > _PAGE_MAX) size = _PAGE_MAX;
        page = new address[](size);
        for (uint256 i = 0; i < size; ++i) {
            page[i] = _providers[offset + i];
        }
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(INodeReputationExtension).interfaceId
            || interfaceId == type(IERC165).interfaceId;
    }

    // --------------------------------------------------------------- internal

    function _registered(address provider)
        private
        view
        returns (Node storage node, Standing standing)
    {
        node = _nodes[provider];
        standing = node.standing;
        require(standing.isRegistered(), "NodeReputation: the node is not registered");
    }

    function _record(address provider) private view returns (ProviderInfo memory) {
        Node storage node = _nodes[provider];
        return ProviderInfo({
            gpuModel: node.gpuModel,
            vram: node.vram,
            lastSeen: node.standing.lastSeen(),
            isRegistered: node.standing.isRegistered()
        });
    }

    function _isActive(address provider) private view returns (bool) {
        Standing standing = _nodes[provider].standing;
        // Adds instead of subtracting, so that a clock before `lastSeen` does not revert.
        return standing.isRegistered() && block.timestamp <= standing.lastSeen() + _ACTIVE_WINDOW;
    }
}
