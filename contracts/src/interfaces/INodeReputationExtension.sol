// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Additions to the deployed interface: receipts, uptime and a score.
/// @notice Its ERC-165 interface id is `0x8cc8a900`.
interface INodeReputationExtension {
    /// @notice A node claims `completed` and `failed` jobs, and commits to their receipts by their
    /// Merkle root `receiptsRoot`.
    event ReceiptsCommitted(
        address indexed provider, bytes32 indexed receiptsRoot, uint32 completed, uint32 failed
    );

    /// @notice The caller never registered.
    error NodeNotRegistered(address provider);

    /// @notice The root is zero.
    error ReceiptsRootMissing();

    /// @notice Completed and failed are both 0, so the root covers no receipts.
    error ReceiptsMissing();

    /// @notice Records that the caller is active, as `sendHeartbeat` does, and claims the jobs that
    /// ended since its previous claim.
    /// @dev The claims are unverified: the contract sees no receipts and stores no roots, so a root
    /// that is committed twice counts twice. Anybody with the receipts can detect that.
    /// @param receiptsRoot The Merkle root over the receipts; not zero.
    /// @param completed The number of receipts of completed jobs.
    /// @param failed The number of other receipts. The sum of both is the number of leaves, at
    /// least 1.
    function sendHeartbeatWithReceipts(bytes32 receiptsRoot, uint32 completed, uint32 failed)
        external;

    /// @notice The standing of `provider` at the current block; all zero if it never registered.
    /// @dev Whole slots of 300 s without a heartbeat count as missed even before the next heartbeat
    /// stores them.
    /// @return since The Unix second of the first registration.
    /// @return lastSeen The Unix second of the last registration or heartbeat.
    /// @return onTime Slots with a heartbeat, except the slot of the first registration.
    /// @return missed Slots without one.
    /// @return streak Slots with a heartbeat since the last missed one.
    /// @return completedClaimed Jobs that the node claims to have completed.
    /// @return failedClaimed Jobs that the node claims to have ended otherwise.
    /// @return confirmed Jobs that the owner confirmed.
    /// @return score 0 to 10000, computed by `Score`.
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

    /// @notice One page of the nodes in the order of their first registration. The order never
    /// changes and no node is removed, so consecutive pages contain each node once.
    /// @param offset The number of nodes to skip; the page is empty if there are no more.
    /// @param limit The maximum length of the page; at most 500 are returned.
    /// @return page The nodes.
    /// @return total The number of all nodes.
    function providersPage(uint256 offset, uint256 limit)
        external
        view
        returns (address[] memory page, uint256 total);
}
