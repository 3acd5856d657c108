// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ISwarmCoordinator} from "../interfaces/ISwarmCoordinator.sol";

/// @title A swarm's coordinator for tests and demonstrations, not for a swarm.
/// @dev Anybody may move rounds and set bootnodes. What a peer may submit is checked as the real contract is known to
/// check it. A view can be told to revert ({refuse}), and a reward to be told as versions without stages tell it.
contract MockSwarmCoordinator is ISwarmCoordinator {
    uint256 private constant _STAGES = 3;

    uint256 private _round;
    uint256 private _stage;
    string[] private _bootnodes;
    mapping(string peerId => address) private _eoas;
    mapping(string peerId => int256) private _totals;
    mapping(string peerId => uint256) private _wins;
    mapping(string peerId => uint256) private _votes;
    mapping(uint256 round => mapping(uint256 stage => mapping(string peerId => bool))) private
        _isRewarded;
    mapping(uint256 round => mapping(string peerId => bool)) private _hasVoted;
    mapping(bytes4 selector => bool) private _isRefused;

    modifier willing() {
        require(!_isRefused[msg.sig], "not now");
        _;
    }

    /// @notice Makes a view revert, or answer again.
    function refuse(bytes4 selector, bool isRefused) external {
        _isRefused[selector] = isRefused;
    }

    /// @notice Moves to the next stage, and after the last one to the next round.
    function advance() external {
        _stage = (_stage + 1) % _STAGES;
        if (_stage == 0) {
            _round += 1;
            emit RoundAdvanced(_round);
        }
        emit StageAdvanced(_round, _stage);
    }

    /// @notice Makes a peer id the caller's.
    function registerPeer(string calldata peerId) external {
        if (_eoas[peerId] != address(0)) revert PeerIdAlreadyRegistered();
        _eoas[peerId] = msg.sender;
        emit PeerRegistered(msg.sender, peerId);
    }

    /// @notice Adds a reward to those of a peer of the caller's.
    function submitReward(uint256 round, uint256 stage, int256 reward, string calldata peerId)
        external
    {
        if (round > _round) revert InvalidRoundNumber();
        if (stage >= _STAGES) revert InvalidStageNumber();
        _reward(round, stage, reward, peerId);
        emit RewardSubmitted(msg.sender, round, stage, reward, peerId);
        emit CumulativeRewardsUpdated(msg.sender, peerId, _totals[peerId]);
    }

    /// @notice The same, told as versions without stages tell it.
    function submitReward(uint256 round, int256 reward, string calldata peerId) external {
        if (round > _round) revert InvalidRoundNumber();
        _reward(round, 0, reward, peerId);
        emit RewardSubmitted(msg.sender, round, reward, peerId);
        emit CumulativeRewardsUpdated(msg.sender, peerId, _totals[peerId]);
    }

    /// @notice Votes for the winners of a round.
    function submitWinners(uint256 round, string[] calldata winners, string calldata peerId)
        external
    {
        if (round > _round) revert InvalidRoundNumber();
        if (_hasVoted[round][peerId]) revert WinnerAlreadyVoted();
        if (_eoas[peerId] != msg.sender) revert InvalidVoterPeerId();
        _hasVoted[round][peerId] = true;
        _votes[peerId] += 1;
        for (uint256 i = 0; i < winners.length; ++i) {
            _wins[winners[i]] += 1;
        }
        emit WinnerSubmitted(msg.sender, peerId, round, winners);
    }

    /// @notice Adds bootnodes; neither their number nor their length is limited.
    function addBootnodes(string[] calldata bootnodes) external {
        for (uint256 i = 0; i < bootnodes.length; ++i) {
            _bootnodes.push(bootnodes[i]);
        }
    }

    function currentRound() external view willing returns (uint256) {
        return _round;
    }

    function currentStage() external view willing returns (uint256) {
        return _stage;
    }

    function getBootnodes() external view willing returns (string[] memory) {
        return _bootnodes;
    }

    function getTotalRewards(string[] calldata peerIds)
        external
        view
        willing
        returns (int256[] memory rewards)
    {
        rewards = new int256[](peerIds.length);
        for (uint256 i = 0; i < peerIds.length; ++i) {
            rewards[i] = _totals[peerIds[i]];
        }
    }

    function getEoa(string[] calldata peerIds)
        external
        view
        willing
        returns (address[] memory eoas)
    {
        eoas = new address[](peerIds.length);
        for (uint256 i = 0; i < peerIds.length; ++i) {
            eoas[i] = _eoas[peerIds[i]];
        }
    }

    function getTotalWins(string calldata peerId) external view willing returns (uint256) {
        return _wins[peerId];
    }

    function getVoterVoteCount(string calldata peerId) external view willing returns (uint256) {
        return _votes[peerId];
    }

    function _reward(uint256 round, uint256 stage, int256 reward, string calldata peerId) private {
        if (_isRewarded[round][stage][peerId]) revert RewardAlreadySubmitted();
        if (_eoas[peerId] != msg.sender) revert InvalidVoterPeerId();
        _isRewarded[round][stage][peerId] = true;
        _totals[peerId] += reward;
    }
}
