// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {NodeReputation} from "../src/NodeReputation.sol";
import {Test} from "./support/Test.sol";

/// @dev Acts as a few nodes, the owner and strangers, and keeps the expected state of each node,
/// counted in another way than the contract counts.
contract Handler is Test {
    uint256 private constant _NODES = 8;

    /// @dev The actions on a node, and the state that follows from them.
    struct Ghost {
        uint256 since;
        uint256 lastSeen;
        uint256 beats;
        uint256 slotsHeard;
        uint256 completed;
        uint256 failed;
        uint256 jobs;
    }

    NodeReputation public immutable REPUTATION;
    uint256 public registered;
    uint256 public confirmed;
    bool public strangerConfirmed;

    mapping(address node => Ghost) public ghosts;
    mapping(address node => mapping(uint256 slot => bool)) private _heard;

    /// @dev The current time. Forge resets `warp` between the calls of a run.
    uint256 public present = 1_700_000_000;

    constructor() {
        REPUTATION = new NodeReputation();
    }

    function register(uint256 seed, uint256 vram) external {
        address who = node(seed % _NODES);
        _passTime(seed);
        vm.prank(who);
        REPUTATION.registerNode("NVIDIA A10", vram);
        Ghost storage ghost = ghosts[who];
        if (ghost.since == 0) {
            ++registered;
            ghost.since = present;
            ghost.lastSeen = present;
            // No heartbeat counts in the slot of the first registration.
            _heard[who][present / 300] = true;
        } else {
            _noteBeat(who);
        }
    }

    function beat(uint256 seed) external {
        address who = node(seed % _NODES);
        if (ghosts[who].since == 0) return;
        _passTime(seed);
        vm.prank(who);
        REPUTATION.sendHeartbeat();
        _noteBeat(who);
    }

    function beatWithReceipts(uint256 seed, uint32 completed, uint32 failed) external {
        address who = node(seed % _NODES);
        if (ghosts[who].since == 0 || completed | failed == 0) return;
        _passTime(seed);
        vm.prank(who);
        REPUTATION.sendHeartbeatWithReceipts(keccak256(abi.encode(seed)), completed, failed);
        _noteBeat(who);
        ghosts[who].completed += completed;
        ghosts[who].failed += failed;
    }

    function confirm(uint256 seed) external {
        address who = node(seed % _NODES);
        if (ghosts[who].since == 0) return;
        REPUTATION.incrementJobs(who);
        ++confirmed;
        ++ghosts[who].jobs;
    }

    function confirmAsAStranger(uint256 seed, address caller) external {
        if (caller == address(this)) return;
        vm.prank(caller);
        try REPUTATION.incrementJobs(node(seed % _NODES)) {
            strangerConfirmed = true;
        } catch {}
    }

    function node(uint256 index) public pure returns (address) {
        // With a handful of nodes, the sum fits 160 bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        return address(uint160(0x1000 + index));
    }

    function count() external pure returns (uint256) {
        return _NODES;
    }

    /// @dev The slots between the node's registration and the present slot without a heartbeat.
    function missed(address who) external view returns (uint256) {
        Ghost memory ghost = ghosts[who];
        if (ghost.since == 0) return 0;
        uint256 over = present / 300 - ghost.since / 300;
        bool presentIsOpen = !_heard[who][present / 300];
        return over - ghost.slotsHeard - (presentIsOpen ? 1 : 0);
    }

    function _noteBeat(address who) private {
        Ghost storage ghost = ghosts[who];
        ++ghost.beats;
        ghost.lastSeen = present;
        if (!_heard[who][present / 300]) {
            _heard[who][present / 300] = true;
            ++ghost.slotsHeard;
        }
    }

    function _passTime(uint256 seed) private {
        present += _bound(seed >> 8, 0, 10 minutes);
        vm.warp(present);
    }
}

contract NodeReputationInvariantTest is Test {
    Handler private _handler;
    NodeReputation private _reputation;

    function setUp() external {
        _handler = new Handler();
        _reputation = _handler.REPUTATION();
    }

    /// @dev Forge reads the contracts to call from this function.
    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    function invariant_OnlyTheOwnerConfirmsJobs() external view {
        vm.assertFalse(_handler.strangerConfirmed(), "a stranger confirmed a job");
        uint256 sum;
        for (uint256 i = 0; i < _handler.count(); ++i) {
            sum += _reputation.successfulJobsCount(_handler.node(i));
        }
        vm.assertEq(sum, _handler.confirmed(), "jobs of all nodes");
    }

    function invariant_EveryNodeIsCountedOnce() external view {
        vm.assertEq(_reputation.totalProviders(), _handler.registered(), "total");
        (address[] memory page,) = _reputation.providersPage(0, 100);
        vm.assertEq(page.length, _handler.registered(), "listed");
    }

    function invariant_UptimeNeverExceedsTheBeatsSent() external {
        vm.warp(_handler.present());
        for (uint256 i = 0; i < _handler.count(); ++i) {
            address node = _handler.node(i);
            (,, uint256 beats, uint256 slotsHeard,,,) = _handler.ghosts(node);
            (,, uint32 onTime, uint32 missed, uint32 streak,,,,) = _reputation.reputationOf(node);
            vm.assertLt(onTime, beats + 1, "on time");
            vm.assertEq(onTime, slotsHeard, "slots");
            vm.assertEq(missed, _handler.missed(node), "missed");
            vm.assertLt(streak, uint256(onTime) + 1, "streak");
        }
    }

    /// @dev Each node's counts are the sums of its own actions; no action shows in another node.
    function invariant_CountsAreTheSumsOfOutcomes() external {
        vm.warp(_handler.present());
        for (uint256 i = 0; i < _handler.count(); ++i) {
            address node = _handler.node(i);
            (uint256 since, uint256 lastSeen,,, uint256 completed, uint256 failed, uint256 jobs) =
                _handler.ghosts(node);
            (uint40 told, uint40 seen,,,, uint40 claimed, uint40 claimedFailed, uint256 owned,) =
                _reputation.reputationOf(node);
            vm.assertEq(told, since, "since");
            vm.assertEq(seen, lastSeen, "last seen");
            vm.assertEq(claimed, completed, "completed");
            vm.assertEq(claimedFailed, failed, "failed");
            vm.assertEq(owned, jobs, "confirmed");
        }
    }

    function invariant_TheActiveCountIsTheNumberOfActiveNodes() external {
        vm.warp(_handler.present());
        uint256 active;
        for (uint256 i = 0; i < _handler.count(); ++i) {
            if (_reputation.isProviderActive(_handler.node(i))) ++active;
        }
        vm.assertEq(_reputation.getActiveProvidersCount(), active, "active");
    }
}
