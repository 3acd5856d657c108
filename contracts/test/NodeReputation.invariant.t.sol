// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {NodeReputation} from "../src/NodeReputation.sol";
import {Test} from "./support/Test.sol";

/// @dev Does what a few nodes, the owner and strangers do, and keeps the sums beside the contract.
contract Handler is Test {
    uint256 private constant _NODES = 8;

    NodeReputation public immutable REPUTATION;
    uint256 public registered;
    uint256 public confirmed;
    bool public strangerConfirmed;

    mapping(address node => bool) private _isRegistered;
    mapping(address node => uint256) public jobs;
    mapping(address node => uint256) public lastSeen;

    /// @dev Forge forgets `warp` between the calls of a run; the present is kept here.
    uint256 public present = 1_700_000_000;

    constructor() {
        REPUTATION = new NodeReputation();
    }

    function register(uint256 seed, uint256 vram) external {
        address who = node(seed % _NODES);
        _passTime(seed);
        vm.prank(who);
        REPUTATION.registerNode("NVIDIA A10", vram);
        if (!_isRegistered[who]) ++registered;
        _isRegistered[who] = true;
        lastSeen[who] = present;
    }

    function beat(uint256 seed) external {
        address who = node(seed % _NODES);
        if (!_isRegistered[who]) return;
        _passTime(seed);
        vm.prank(who);
        REPUTATION.sendHeartbeat();
        lastSeen[who] = present;
    }

    function confirm(uint256 seed) external {
        address who = node(seed % _NODES);
        if (!_isRegistered[who]) return;
        REPUTATION.incrementJobs(who);
        ++confirmed;
        ++jobs[who];
    }

    function confirmAsAStranger(uint256 seed, address caller) external {
        if (caller == address(this)) return;
        vm.prank(caller);
        try REPUTATION.incrementJobs(node(seed % _NODES)) {
            strangerConfirmed = true;
        } catch {}
    }

    function node(uint256 index) public pure returns (address) {
        // A handful of nodes: far from 160 bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        return address(uint160(0x1000 + index));
    }

    function count() external pure returns (uint256) {
        return _NODES;
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

    /// @dev Forge asks this which contracts to call.
    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    function invariant_OnlyTheOwnerConfirmsJobs() external view {
        vm.assertFalse(_handler.strangerConfirmed(), "a stranger confirmed a job");
        uint256 sum;
        for (uint256 i = 0; i < _handler.count(); ++i) {
            address node = _handler.node(i);
            uint256 jobs = _reputation.successfulJobsCount(node);
            vm.assertEq(jobs, _handler.jobs(node), "jobs of a node");
            sum += jobs;
        }
        vm.assertEq(sum, _handler.confirmed(), "jobs of all nodes");
    }

    function invariant_EveryNodeIsCountedOnce() external view {
        vm.assertEq(_reputation.totalProviders(), _handler.registered(), "total");
    }

    function invariant_TheActiveCountIsTheNumberOfActiveNodes() external {
        vm.warp(_handler.present());
        uint256 active;
        for (uint256 i = 0; i < _handler.count(); ++i) {
            address node = _handler.node(i);
            if (_reputation.isProviderActive(node)) ++active;
            (,, uint256 lastSeen,) = _reputation.providers(node);
            vm.assertEq(lastSeen, _handler.lastSeen(node), "last seen");
        }
        vm.assertEq(_reputation.getActiveProvidersCount(), active, "active");
    }
}
