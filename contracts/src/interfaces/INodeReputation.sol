// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Who offers GPUs, whether they are there, and how many of their jobs were confirmed.
/// @notice The interface of the deployed contract, name by name: clients of either see no
/// difference. Ownership and its errors are OpenZeppelin's `Ownable`.
interface INodeReputation {
    /// @notice What a node says of itself, and when it was last heard of.
    /// @param gpuModel The driver's name of its largest card, such as `NVIDIA H100 80GB HBM3`.
    /// @param vram That card's memory in MiB; 0 for a node without a GPU.
    /// @param lastSeen The Unix second of its last registration or heartbeat.
    /// @param isRegistered Whether it ever registered.
    struct ProviderInfo {
        string gpuModel;
        uint256 vram;
        uint256 lastSeen;
        bool isRegistered;
    }

    /// @notice A node registered, or changed what it had registered.
    event NodeRegistered(address indexed provider, string gpuModel, uint256 vram);

    /// @notice A node said that it is there, at the Unix second `timestamp`.
    event NodeHeartbeat(address indexed provider, uint256 timestamp);

    /// @notice The owner confirmed one more job of a node.
    event JobCountIncremented(address indexed provider, uint256 newCount);

    /// @notice Registers the caller, or replaces what it registered before; its confirmed jobs
    /// stay. Registering counts as being seen, and registering again as a heartbeat.
    /// @dev Reverts where the model is empty or longer than 128 bytes.
    function registerNode(string calldata gpuModel, uint256 vram) external;

    /// @notice Says that the caller is there.
    /// @dev Reverts where the caller is not registered.
    function sendHeartbeat() external;

    /// @notice Confirms one more successful job of `provider`. For the owner alone.
    /// @dev Reverts where `provider` is not registered.
    function incrementJobs(address provider) external;

    /// @notice A node's record with its confirmed jobs; all zero where it never registered.
    function getProviderInfo(address provider)
        external
        view
        returns (ProviderInfo memory providerInfo, uint256 jobCount);

    /// @notice A node's record; all zero where it never registered.
    function providers(address provider)
        external
        view
        returns (string memory gpuModel, uint256 vram, uint256 lastSeen, bool isRegistered);

    /// @notice Whether `provider` is registered and was seen in the last 15 minutes: three
    /// heartbeats of five minutes, the moment of the third included.
    function isProviderActive(address provider) external view returns (bool);

    /// @notice How many jobs of `provider` the owner confirmed.
    function successfulJobsCount(address provider) external view returns (uint256);

    /// @notice How many nodes ever registered, each counted once.
    function totalProviders() external view returns (uint256);

    /// @notice How many nodes are active now.
    /// @dev Reads every node's record (about 4,500 gas each), so it is for `eth_call` alone: at
    /// the usual cap of 50 million gas it answers for some ten thousand nodes. No transaction
    /// depends on it, so a long list of nodes can't stop the contract.
    function getActiveProvidersCount() external view returns (uint256 count);
}
