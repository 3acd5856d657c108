// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title A registry of GPU nodes with their heartbeats and confirmed jobs.
/// @notice Identical to the interface of the contract that is already deployed, so clients work
/// with either. Ownership and its errors are those of OpenZeppelin's `Ownable`.
interface INodeReputation {
    /// @notice A node's own description, and the time of its last call.
    /// @param gpuModel The driver's name of the largest card, such as `NVIDIA H100 80GB HBM3`.
    /// @param vram That card's memory in MiB; 0 for a node without a GPU.
    /// @param lastSeen The Unix second of the last registration or heartbeat.
    /// @param isRegistered Whether the node ever registered.
    struct ProviderInfo {
        string gpuModel;
        uint256 vram;
        uint256 lastSeen;
        bool isRegistered;
    }

    /// @notice A node registered, or replaced its registration.
    event NodeRegistered(address indexed provider, string gpuModel, uint256 vram);

    /// @notice A node sent a heartbeat at the Unix second `timestamp`.
    event NodeHeartbeat(address indexed provider, uint256 timestamp);

    /// @notice The owner confirmed another job of a node, its `newCount`th.
    event JobCountIncremented(address indexed provider, uint256 newCount);

    /// @notice Registers the caller, or replaces its registration and keeps its confirmed jobs.
    /// Registering sets `lastSeen`; registering again also counts as a heartbeat.
    /// @dev Reverts if the model is empty or longer than 128 bytes.
    function registerNode(string calldata gpuModel, uint256 vram) external;

    /// @notice Records that the caller is active.
    /// @dev Reverts if the caller is not registered.
    function sendHeartbeat() external;

    /// @notice Confirms another successful job of `provider`. Only the owner may call it.
    /// @dev Reverts if `provider` is not registered.
    function incrementJobs(address provider) external;

    /// @notice A node's record and its confirmed jobs; all zero if it never registered.
    function getProviderInfo(address provider)
        external
        view
        returns (ProviderInfo memory providerInfo, uint256 jobCount);

    /// @notice A node's record; all zero if it never registered.
    function providers(address provider)
        external
        view
        returns (string memory gpuModel, uint256 vram, uint256 lastSeen, bool isRegistered);

    /// @notice Whether `provider` is registered and was last seen at most 15 minutes ago (three
    /// heartbeats of five minutes).
    function isProviderActive(address provider) external view returns (bool);

    /// @notice The number of jobs of `provider` that the owner confirmed.
    function successfulJobsCount(address provider) external view returns (uint256);

    /// @notice The number of nodes that ever registered.
    function totalProviders() external view returns (uint256);

    /// @notice The number of active nodes.
    /// @dev Meant for `eth_call` only, since it reads every node's record (about 4,500 gas each).
    /// The usual cap of 50 million gas suffices for some ten thousand nodes. No transaction
    /// depends on this function, so a long list of nodes can't block the contract.
    function getActiveProvidersCount() external view returns (uint256 count);
}
