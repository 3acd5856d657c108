// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {INodeReputation} from "../src/interfaces/INodeReputation.sol";
import {NodeReputation} from "../src/NodeReputation.sol";
import {Test} from "./support/Test.sol";

/// @dev The functions that only the owner may call.
contract NodeReputationOwnerTest is Test {
    address private constant _NODE = address(0xA11CE);

    NodeReputation private _reputation;

    function setUp() external {
        _reputation = new NodeReputation();
        vm.prank(_NODE);
        _reputation.registerNode("NVIDIA A10", 24_576);
    }

    function test_OwnershipIsOpenZeppelins() external pure {
        vm.assertEq(bytes32(Ownable.owner.selector), bytes32(bytes4(0x8da5cb5b)), "owner");
        vm.assertEq(
            bytes32(Ownable.transferOwnership.selector), bytes32(bytes4(0xf2fde38b)), "transfer"
        );
        vm.assertEq(
            bytes32(Ownable.renounceOwnership.selector), bytes32(bytes4(0x715018a6)), "renounce"
        );
        vm.assertEq(
            bytes32(Ownable.OwnableInvalidOwner.selector), bytes32(bytes4(0x1e4fbdf7)), "invalid"
        );
        vm.assertEq(
            bytes32(Ownable.OwnableUnauthorizedAccount.selector),
            bytes32(bytes4(0x118cdaa7)),
            "unauthorized"
        );
        vm.assertEq(
            Ownable.OwnershipTransferred.selector,
            keccak256("OwnershipTransferred(address,address)"),
            "topic"
        );
    }

    function test_TheDeployerOwnsIt() external view {
        vm.assertEq(_reputation.owner(), address(this), "owner");
    }

    function test_ConfirmedJobsAreCountedAndEmitted() external {
        for (uint256 count = 1; count <= 3; ++count) {
            vm.expectEmit(address(_reputation));
            emit INodeReputation.JobCountIncremented(_NODE, count);
            _reputation.incrementJobs(_NODE);
        }
        vm.assertEq(_reputation.successfulJobsCount(_NODE), 3, "count");
        (, uint256 jobs) = _reputation.getProviderInfo(_NODE);
        vm.assertEq(jobs, 3, "in the record");
    }

    function test_ANewOwnerTakesOver() external {
        vm.expectEmit(address(_reputation));
        emit Ownable.OwnershipTransferred(address(this), address(0xB0B));
        _reputation.transferOwnership(address(0xB0B));
        vm.prank(address(0xB0B));
        _reputation.incrementJobs(_NODE);

        vm.expectRevert(_unauthorized(address(this)));
        _reputation.incrementJobs(_NODE);
    }

    function test_AnOwnerCanLeaveForGood() external {
        _reputation.renounceOwnership();
        vm.assertEq(_reputation.owner(), address(0), "owner");
        vm.expectRevert(_unauthorized(address(this)));
        _reputation.incrementJobs(_NODE);
    }

    function test_RevertWhen_JobsAreConfirmedForAStranger() external {
        vm.expectRevert(
            abi.encodeWithSignature("Error(string)", "NodeReputation: the node is not registered")
        );
        _reputation.incrementJobs(address(0xDEAD));
    }

    function test_RevertWhen_OwnershipGoesToNobody() external {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableInvalidOwner.selector, address(0)));
        _reputation.transferOwnership(address(0));
    }

    function testFuzz_RevertWhen_AnotherThanTheOwnerConfirmsJobs(address caller) external {
        if (caller == address(this)) return;
        vm.expectRevert(_unauthorized(caller));
        vm.prank(caller);
        _reputation.incrementJobs(_NODE);
    }

    function testFuzz_RevertWhen_AnotherThanTheOwnerGivesItAway(address caller) external {
        if (caller == address(this)) return;
        vm.expectRevert(_unauthorized(caller));
        vm.prank(caller);
        _reputation.transferOwnership(caller);
    }

    function _unauthorized(address account) private pure returns (bytes memory) {
        return abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, account);
    }
}
