// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {NodeReputation} from "../src/NodeReputation.sol";
import {Test} from "./support/Test.sol";

/// @dev The gas of each call as a transaction of its own, including the base cost of 21,000 and the
/// calldata. `snapshots/` contains the figures; CI compares them.
/// forge-config: default.isolate = true
contract NodeReputationGasTest is Test {
    address private constant _NODE = address(0xA11CE);

    NodeReputation private _reputation;

    function setUp() external {
        vm.warp(1_700_000_100);
        _reputation = new NodeReputation();
        vm.prank(_NODE);
        _reputation.registerNode("NVIDIA H100 80GB HBM3", 81_559);
        // The node has sent heartbeats and claims before, so no field changes from zero.
        vm.warp(1_700_000_400);
        vm.prank(_NODE);
        _reputation.sendHeartbeatWithReceipts(keccak256("earlier"), 3, 1);
        vm.warp(1_700_000_700);
    }

    function test_ABeatStaysUnderItsBound() external {
        vm.prank(_NODE);
        _reputation.sendHeartbeat();
        vm.assertLt(vm.snapshotGasLastCall("NodeReputation", "sendHeartbeat"), 28_500, "gas");
    }

    function test_ABeatAfterMissedSlotsStaysUnderItsBound() external {
        vm.warp(1_700_004_000);
        vm.prank(_NODE);
        _reputation.sendHeartbeat();
        uint256 gas = vm.snapshotGasLastCall("NodeReputation", "sendHeartbeat, slots missed");
        vm.assertLt(gas, 28_500, "gas");
    }

    function test_ABeatWithReceiptsStaysUnderItsBound() external {
        vm.prank(_NODE);
        _reputation.sendHeartbeatWithReceipts(keccak256("receipts"), 2, 1);
        uint256 gas = vm.snapshotGasLastCall("NodeReputation", "sendHeartbeatWithReceipts");
        vm.assertLt(gas, 31_800, "gas");
    }

    function test_RegistrationsAreMeasured() external {
        vm.prank(address(0xB0B));
        _reputation.registerNode("NVIDIA H100 80GB HBM3", 81_559);
        vm.snapshotGasLastCall("NodeReputation", "registerNode");

        vm.prank(address(0xB0B));
        _reputation.registerNode("NVIDIA GeForce RTX 4090", 24_564);
        vm.snapshotGasLastCall("NodeReputation", "registerNode, changed");
    }

    function test_AConfirmationIsMeasured() external {
        _reputation.incrementJobs(_NODE);
        _reputation.incrementJobs(_NODE);
        vm.snapshotGasLastCall("NodeReputation", "incrementJobs");
    }
}
