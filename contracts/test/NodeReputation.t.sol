// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {INodeReputation} from "../src/interfaces/INodeReputation.sol";
import {NodeReputation} from "../src/NodeReputation.sol";
import {Test} from "./support/Test.sol";

/// @dev The deployed interface, as nodes and readers use it.
contract NodeReputationTest is Test {
    bytes private constant _NOT_REGISTERED =
        abi.encodeWithSignature("Error(string)", "NodeReputation: the node is not registered");
    bytes private constant _BAD_MODEL = abi.encodeWithSignature(
        "Error(string)", "NodeReputation: the GPU model must be 1 to 128 bytes"
    );
    address private constant _NODE = address(0xA11CE);
    string private constant _H100 = "NVIDIA H100 80GB HBM3";

    NodeReputation private _reputation;

    function setUp() external {
        vm.warp(1_700_000_000);
        _reputation = new NodeReputation();
    }

    function test_SelectorsAreTheDeployedOnes() external pure {
        _isSelector(NodeReputation.registerNode.selector, 0xf3ef747f);
        _isSelector(NodeReputation.sendHeartbeat.selector, 0x34f167a9);
        _isSelector(NodeReputation.getProviderInfo.selector, 0x7583902f);
        _isSelector(NodeReputation.providers.selector, 0x0787bc27);
        _isSelector(NodeReputation.isProviderActive.selector, 0x696724cb);
        _isSelector(NodeReputation.successfulJobsCount.selector, 0x3c097e3e);
        _isSelector(NodeReputation.totalProviders.selector, 0x96616b1f);
        _isSelector(NodeReputation.getActiveProvidersCount.selector, 0x13c3e4b3);
        _isSelector(NodeReputation.incrementJobs.selector, 0x7ebcd727);
    }

    function test_TopicsAreTheDeployedOnes() external pure {
        vm.assertEq(
            INodeReputation.NodeRegistered.selector,
            0x6f3c990a2f665f94ed1db0af40275bedd4d3d025f541e2c77112281fbee63600,
            "NodeRegistered"
        );
        vm.assertEq(
            INodeReputation.NodeHeartbeat.selector,
            0x0f1ef8be219b2bb5e8b630cb970a8ac2b44c0f8a3a3db371d8a653e50af49a11,
            "NodeHeartbeat"
        );
        vm.assertEq(
            INodeReputation.JobCountIncremented.selector,
            0xf0b433b19371a783f4bfbaf7c118079db6c086603cd0c6ba2b6478c955b8b963,
            "JobCountIncremented"
        );
    }

    function test_RegistrationIsEmittedAndReadable() external {
        vm.expectEmit(address(_reputation));
        emit INodeReputation.NodeRegistered(_NODE, _H100, 81_559);
        _register(_NODE, _H100, 81_559);

        (INodeReputation.ProviderInfo memory info, uint256 jobs) =
            _reputation.getProviderInfo(_NODE);
        vm.assertEq(info.gpuModel, _H100, "model");
        vm.assertEq(info.vram, 81_559, "vram");
        vm.assertEq(info.lastSeen, block.timestamp, "last seen");
        vm.assertTrue(info.isRegistered, "registered");
        vm.assertEq(jobs, 0, "jobs");
        vm.assertEq(_reputation.totalProviders(), 1, "total");
    }

    function test_BothGettersTellTheSame() external {
        _register(_NODE, _H100, 81_559);
        (INodeReputation.ProviderInfo memory info,) = _reputation.getProviderInfo(_NODE);
        (string memory model, uint256 vram, uint256 lastSeen, bool isRegistered) =
            _reputation.providers(_NODE);
        vm.assertEq(
            abi.encode(model, vram, lastSeen, isRegistered),
            abi.encode(info.gpuModel, info.vram, info.lastSeen, info.isRegistered),
            "providers"
        );
    }

    function test_RegisteringAgainReplacesTheRecordAndKeepsTheJobs() external {
        _register(_NODE, _H100, 81_559);
        _reputation.incrementJobs(_NODE);
        vm.warp(block.timestamp + 1 hours);
        _register(_NODE, "NVIDIA A10", 24_576);

        (INodeReputation.ProviderInfo memory info, uint256 jobs) =
            _reputation.getProviderInfo(_NODE);
        vm.assertEq(info.gpuModel, "NVIDIA A10", "model");
        vm.assertEq(info.vram, 24_576, "vram");
        vm.assertEq(info.lastSeen, block.timestamp, "last seen");
        vm.assertEq(jobs, 1, "jobs");
        vm.assertEq(_reputation.totalProviders(), 1, "counted once");
    }

    function test_HeartbeatMovesLastSeenAndIsEmitted() external {
        _register(_NODE, _H100, 81_559);
        vm.warp(block.timestamp + 5 minutes);
        vm.expectEmit(address(_reputation));
        emit INodeReputation.NodeHeartbeat(_NODE, block.timestamp);
        vm.prank(_NODE);
        _reputation.sendHeartbeat();
        (,, uint256 lastSeen,) = _reputation.providers(_NODE);
        vm.assertEq(lastSeen, block.timestamp, "last seen");
    }

    function test_ANodeIsActiveForFifteenMinutesAfterItsLastBeat() external {
        _register(_NODE, _H100, 81_559);
        vm.warp(block.timestamp + 15 minutes);
        vm.assertTrue(_reputation.isProviderActive(_NODE), "the third beat's moment");
        vm.assertEq(_reputation.getActiveProvidersCount(), 1, "counted");

        vm.warp(block.timestamp + 1);
        vm.assertFalse(_reputation.isProviderActive(_NODE), "a second later");
        vm.assertEq(_reputation.getActiveProvidersCount(), 0, "not counted");
        vm.assertEq(_reputation.totalProviders(), 1, "still known");

        vm.prank(_NODE);
        _reputation.sendHeartbeat();
        vm.assertTrue(_reputation.isProviderActive(_NODE), "back again");
    }

    function test_AStrangerHasAnEmptyRecord() external {
        // Even on a chain so young that `lastSeen` of 0 lies within the active window.
        vm.warp(60);
        (INodeReputation.ProviderInfo memory info, uint256 jobs) =
            _reputation.getProviderInfo(_NODE);
        vm.assertEq(info.gpuModel, "", "model");
        vm.assertFalse(info.isRegistered, "registered");
        vm.assertEq(jobs, 0, "jobs");
        vm.assertFalse(_reputation.isProviderActive(_NODE), "active");
    }

    function test_RevertWhen_AHeartbeatComesBeforeRegistration() external {
        vm.expectRevert(_NOT_REGISTERED);
        vm.prank(_NODE);
        _reputation.sendHeartbeat();
    }

    function test_RevertWhen_TheModelIsEmpty() external {
        vm.expectRevert(_BAD_MODEL);
        _register(_NODE, "", 81_559);
    }

    function test_RevertWhen_TheModelIsTooLong() external {
        _register(_NODE, string(new bytes(128)), 81_559);
        vm.expectRevert(_BAD_MODEL);
        _register(_NODE, string(new bytes(129)), 81_559);
    }

    function testFuzz_AnyRegistrationReadsBackAsItWasGiven(
        address node,
        bytes calldata text,
        uint256 vram
    ) external {
        bytes memory model = text.length == 0 || text.length > 128 ? bytes(_H100) : text;
        _register(node, string(model), vram);
        (string memory gpuModel, uint256 readVram,, bool isRegistered) = _reputation.providers(node);
        vm.assertEq(bytes(gpuModel), model, "model");
        vm.assertEq(readVram, vram, "vram");
        vm.assertTrue(isRegistered, "registered");
    }

    function testFuzz_ActivityEndsWithTheWindow(uint256 silence) external {
        silence = _bound(silence, 0, 30 minutes);
        _register(_NODE, _H100, 81_559);
        vm.warp(block.timestamp + silence);
        bool active = silence <= 15 minutes;
        vm.assertTrue(_reputation.isProviderActive(_NODE) == active, "active");
        vm.assertEq(_reputation.getActiveProvidersCount(), active ? 1 : 0, "counted");
    }

    function _register(address node, string memory gpuModel, uint256 vram) private {
        vm.prank(node);
        _reputation.registerNode(gpuModel, vram);
    }

    function _isSelector(bytes4 actual, bytes4 expected) private pure {
        vm.assertEq(bytes32(actual), bytes32(expected), "selector");
    }
}
