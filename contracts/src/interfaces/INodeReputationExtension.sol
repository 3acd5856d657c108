// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title What this contract tells beyond the deployed interface: receipts, uptime, a score.
/// @notice Found by ERC-165 as `0x8cc8a900`.
interface INodeReputationExtension {
    /// @notice A node claims `completed` and `failed` jobs, and binds itself to their receipts:
    /// `receiptsRoot` is the Merkle root over them.
    event ReceiptsCommitted(
        address indexed provider, bytes32 indexed receiptsRoot, uint32 completed, uint32 failed
    );

    /// @notice The caller never registered.
    error NodeNotRegistered(address provider);

    /// @notice A root of zero is no root.
    error ReceiptsRootMissing();

    /// @notice A root over no receipts: completed and failed are both 0.
    error ReceiptsMissing();

    /// @notice Says that the caller is there, as `sendHeartbeat` does, and claims the jobs that
    /// ended since it last did so.
    /// @dev The claims are the node's word: the contract sees no receipts and doesn't remember
    /// roots, so that committing one twice counts twice. Whoever holds the receipts sees it.
    /// @param receiptsRoot The Merkle root over the receipts; not zero.
    /// @param completed How many of them are of completed jobs.
    /// @param failed How many of them are not. Both together are the number of leaves, at least 1.
    function sendHeartbeatWithReceipts(bytes32 receiptsRoot, uint32 completed, uint32 failed)
        external;

    /// @notice What is known of `provider` now; all zero where it never registered.
    /// @dev Whole slots of 300 s that passed in silence until now count as missed, also before
    /// the next beat stores them.
    /// @return since The Unix second of its first registration.
    /// @return lastSeen The Unix second of its last registration or heartbeat.
    /// @return onTime Slots in which it was heard of, the one of its first registration not among
    /// them.
    /// @return missed Slots in which it was not.
    /// @return streak Slots on time since it last missed one.
    /// @return completedClaimed Jobs that it says it completed.
    /// @return failedClaimed Jobs that it says it did not.
    /// @return confirmed Jobs that the owner confirmed.
    /// @return score 0 to 10000, by the rule of `Score`.
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
        );

    /// @notice Nodes in the order of their first registration, from the `offset`th on. The order
    /// never changes and nobody leaves, so pages read one after the other hold each node once.
    /// @param offset How many to leave out; beyond the last one the page is empty.
    /// @param limit How many to give; more than 500 are never given.
    /// @return page The nodes.
    /// @return total How many there are in all.
    function providersPage(uint256 offset, uint256 limit)
        external
        view
        returns (address[] memory page, uint256 total);
}
