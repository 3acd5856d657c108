// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title What is read of a swarm's coordinator, which is somebody else's contract.
/// @dev The sidecar's bindings (`abi/SwarmCoordinator.json`) come from here. Versions differ: some know rounds only,
/// without stages. Whatever a version lacks is unknown to the reader, not zero.
interface ISwarmCoordinator {
    /// @notice An account submitted a peer's reward for a stage of a round; a reward may be negative.
    event RewardSubmitted(
        address indexed account,
        uint256 indexed roundNumber,
        uint256 indexed stageNumber,
        int256 reward,
        string peerId
    );

    /// @notice The same, in versions without stages.
    event RewardSubmitted(
        address indexed account, uint256 indexed roundNumber, int256 reward, string peerId
    );

    /// @notice The sum of a peer's rewards after a submission.
    event CumulativeRewardsUpdated(address indexed account, string peerId, int256 totalRewards);

    /// @notice A peer voted for the winners of a round.
    event WinnerSubmitted(
        address indexed account, string peerId, uint256 indexed roundNumber, string[] winners
    );

    /// @notice A peer id belongs to an account from now on.
    event PeerRegistered(address indexed eoa, string peerId);

    /// @notice A round began.
    event RoundAdvanced(uint256 indexed newRoundNumber);

    /// @notice A stage of a round began.
    event StageAdvanced(uint256 indexed roundNumber, uint256 newStage);

    /// @notice The round has not begun, or is over.
    error InvalidRoundNumber();
    /// @notice The stage is not the present one.
    error InvalidStageNumber();
    /// @notice The peer's reward of this round and stage is there already.
    error RewardAlreadySubmitted();
    /// @notice The peer voted in this round before.
    error WinnerAlreadyVoted();
    /// @notice The peer id belongs to an account already.
    error PeerIdAlreadyRegistered();
    /// @notice The peer id belongs to another account, or to none.
    error InvalidVoterPeerId();
    /// @notice A vote names a winner twice.
    error InvalidVote();
    /// @notice There is no such stage.
    error StageOutOfBounds();
    /// @notice There is no such bootnode.
    error InvalidBootnodeIndex();
    /// @notice Only the owner may do that.
    error OnlyOwner();
    /// @notice Only the account that moves stages may do that.
    error OnlyStageManager();
    /// @notice Only the account that moves rounds may do that.
    error OnlyRoundManager();
    /// @notice Only the account that keeps the bootnodes may do that.
    error OnlyBootnodeManager();

    /// @notice The present round.
    function currentRound() external view returns (uint256);

    /// @notice The present stage of the round; absent in versions without stages.
    function currentStage() external view returns (uint256);

    /// @notice The multiaddresses at which the swarm's DHT is joined.
    function getBootnodes() external view returns (string[] memory);

    /// @notice The sum of the rewards of each of these peers.
    function getTotalRewards(string[] calldata peerIds) external view returns (int256[] memory);

    /// @notice The account of each of these peers; zero if it is not registered.
    function getEoa(string[] calldata peerIds) external view returns (address[] memory);

    /// @notice How often others voted for this peer.
    function getTotalWins(string calldata peerId) external view returns (uint256);

    /// @notice In how many rounds this peer voted.
    function getVoterVoteCount(string calldata peerId) external view returns (uint256);
}
