// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {INodeReputation} from "../src/interfaces/INodeReputation.sol";
import {INodeReputationExtension} from "../src/interfaces/INodeReputationExtension.sol";
import {NodeReputation} from "../src/NodeReputation.sol";
import {Test} from "./support/Test.sol";

/// @dev The functions beyond the deployed interface.
contract NodeReputationExtensionTest is Test {
    address private constant _NODE = address(0xA11CE);
    bytes32 private constant _ROOT = keccak256("receipts");

    /// @dev The first second of a slot.
    uint256 private constant _NOON = 1_700_000_100;

    NodeReputation private _reputation;

    struct Reputation {
        uint40 since;
        uint40 lastSeen;
        uint32 onTime;
        uint32 missed;
        uint32 streak;
        uint40 completedClaimed;
        uint40 failedClaimed;
        uint256 confirmed;
        uint16 score;
    }

    function setUp() external {
        vm.warp(_NOON);
        _reputation = new NodeReputation();
        vm.prank(_NODE);
        _reputation.registerNode("NVIDIA A10", 24_576);
    }

    function test_TheInterfaceIsFoundByItsId() external view {
        bytes4 id = NodeReputation.sendHeartbeatWithReceipts.selector
            ^ NodeReputation.reputationOf.selector ^ NodeReputation.providersPage.selector;
        vm.assertEq(bytes32(id), bytes32(bytes4(0x8cc8a900)), "the XOR of its functions");
        vm.assertEq(
            bytes32(type(INodeReputationExtension).interfaceId), bytes32(id), "and no others"
        );
        vm.assertTrue(_reputation.supportsInterface(0x8cc8a900), "the extension");
        vm.assertTrue(_reputation.supportsInterface(0x01ffc9a7), "ERC-165");
        vm.assertFalse(_reputation.supportsInterface(0xffffffff), "never");
        vm.assertFalse(_reputation.supportsInterface(0), "nothing");
    }

    function test_SelectorsAndTopicsAreThePublishedOnes() external pure {
        _isSelector(NodeReputation.sendHeartbeatWithReceipts.selector, 0x67f01e8f);
        _isSelector(NodeReputation.reputationOf.selector, 0xdb89c044);
        _isSelector(NodeReputation.providersPage.selector, 0x30b177cb);
        _isSelector(NodeReputation.supportsInterface.selector, 0x01ffc9a7);
        vm.assertEq(
            INodeReputationExtension.ReceiptsCommitted.selector,
            keccak256("ReceiptsCommitted(address,bytes32,uint32,uint32)"),
            "ReceiptsCommitted"
        );
    }

    function test_ABeatWithReceiptsIsABeatAndAClaim() external {
        vm.warp(_NOON + 300);
        vm.expectEmit(address(_reputation));
        emit INodeReputation.NodeHeartbeat(_NODE, block.timestamp);
        vm.expectEmit(address(_reputation));
        emit INodeReputationExtension.ReceiptsCommitted(_NODE, _ROOT, 3, 2);
        _beat(3, 2);

        Reputation memory told = _told(_NODE);
        vm.assertEq(told.since, _NOON, "since");
        vm.assertEq(told.lastSeen, _NOON + 300, "last seen");
        vm.assertEq(told.onTime, 1, "on time");
        vm.assertEq(told.streak, 1, "streak");
        vm.assertEq(told.completedClaimed, 3, "completed");
        vm.assertEq(told.failedClaimed, 2, "failed");
        vm.assertTrue(_reputation.isProviderActive(_NODE), "active");
        (,, uint256 lastSeen,) = _reputation.providers(_NODE);
        vm.assertEq(lastSeen, _NOON + 300, "the deployed view tells the same");
    }

    function test_ClaimsAddUpWithinOneSlotToo() external {
        _beat(3, 0);
        _beat(0, 2);
        _beat(1, 1);
        Reputation memory told = _told(_NODE);
        vm.assertEq(told.completedClaimed, 4, "completed");
        vm.assertEq(told.failedClaimed, 3, "failed");
        vm.assertEq(told.onTime, 0, "all in the slot of the registration");
    }

    function test_SilenceCountsBeforeTheNextBeat() external {
        vm.warp(_NOON + 300);
        _beat(1, 0);
        vm.warp(_NOON + 1500);
        Reputation memory told = _told(_NODE);
        vm.assertEq(told.missed, 3, "missed");
        vm.assertEq(told.streak, 0, "streak");

        _beat(1, 0);
        told = _told(_NODE);
        vm.assertEq(told.missed, 3, "the beat stores what was told");
        vm.assertEq(told.onTime, 2, "on time");
        vm.assertEq(told.streak, 1, "a new streak");
    }

    function test_RegisteringAgainHidesNoSilence() external {
        vm.warp(_NOON + 1500);
        vm.prank(_NODE);
        _reputation.registerNode("NVIDIA A10", 24_576);
        Reputation memory told = _told(_NODE);
        vm.assertEq(told.since, _NOON, "since");
        vm.assertEq(told.missed, 4, "missed");
        vm.assertEq(told.onTime, 1, "on time");
    }

    function test_TheScoreFollowsTheRule() external {
        for (uint256 slot = 1; slot <= 288; ++slot) {
            vm.warp(_NOON + 300 * slot);
            vm.prank(_NODE);
            _reputation.sendHeartbeat();
        }
        vm.assertEq(_told(_NODE).score, 1000, "a day of beats");
        for (uint256 job = 0; job < 10; ++job) {
            _reputation.incrementJobs(_NODE);
        }
        vm.assertEq(_told(_NODE).confirmed, 10, "confirmed");
        vm.assertEq(_told(_NODE).score, 3000, "and ten jobs");
        _beat(90, 0);
        vm.assertEq(_told(_NODE).score, 3000, "claims earn nothing");
        _beat(0, 20);
        vm.assertEq(_told(_NODE).score, 2000, "failures cost");
    }

    function test_AStrangerHasNoReputation() external view {
        Reputation memory nothing;
        vm.assertEq(abi.encode(_told(address(0xDEAD))), abi.encode(nothing), "a stranger");
    }

    function test_PagesHoldEveryNodeOnceInOrder() external {
        for (uint160 i = 1; i <= 6; ++i) {
            _register(address(i));
        }
        (address[] memory all, uint256 total) = _reputation.providersPage(0, 100);
        vm.assertEq(total, 7, "total");
        vm.assertEq(all.length, 7, "all on one page");
        vm.assertEq(all[0], _NODE, "the first to register");
        for (uint256 offset = 0; offset < 7; offset += 3) {
            (address[] memory page,) = _reputation.providersPage(offset, 3);
            vm.assertEq(page.length, offset == 6 ? 1 : 3, "a page");
            for (uint256 i = 0; i < page.length; ++i) {
                vm.assertEq(page[i], all[offset + i], "in order");
            }
        }
    }

    function test_PastTheEndThePageIsEmpty() external view {
        _isEmptyPage(1, 10);
        _isEmptyPage(type(uint256).max, type(uint256).max);
        _isEmptyPage(0, 0);
    }

    function test_APageIsBounded() external {
        for (uint160 i = 1; i <= 501; ++i) {
            _register(address(i));
        }
        (address[] memory page, uint256 total) = _reputation.providersPage(0, type(uint256).max);
        vm.assertEq(total, 502, "total");
        vm.assertEq(page.length, 500, "page");
        (page,) = _reputation.providersPage(500, type(uint256).max);
        vm.assertEq(page.length, 2, "the rest");
    }

    function test_RevertWhen_TheRootIsMissing() external {
        vm.expectRevert(abi.encodePacked(INodeReputationExtension.ReceiptsRootMissing.selector));
        vm.prank(_NODE);
        _reputation.sendHeartbeatWithReceipts(0, 1, 0);
    }

    function test_RevertWhen_ThereAreNoReceipts() external {
        vm.expectRevert(abi.encodePacked(INodeReputationExtension.ReceiptsMissing.selector));
        _beat(0, 0);
    }

    function test_RevertWhen_AStrangerCommitsReceipts() external {
        vm.expectRevert(
            abi.encodeWithSelector(INodeReputationExtension.NodeNotRegistered.selector, 0xDEAD)
        );
        vm.prank(address(0xDEAD));
        _reputation.sendHeartbeatWithReceipts(_ROOT, 1, 0);
    }

    function testFuzz_ClaimsNeverTouchTheRest(uint32 completed, uint32 failed) external {
        if (completed | failed == 0) completed = 1;
        vm.warp(_NOON + 300);
        Reputation memory before = _told(_NODE);
        for (uint256 i = 0; i < 3; ++i) {
            _beat(completed, failed);
        }
        Reputation memory told = _told(_NODE);
        vm.assertEq(told.completedClaimed, 3 * uint256(completed), "completed");
        vm.assertEq(told.failedClaimed, 3 * uint256(failed), "failed");
        vm.assertEq(told.since, before.since, "since");
        vm.assertEq(told.onTime, 1, "on time");
        vm.assertEq(told.missed, 0, "missed");
    }

    function _beat(uint32 completed, uint32 failed) private {
        vm.prank(_NODE);
        _reputation.sendHeartbeatWithReceipts(_ROOT, completed, failed);
    }

    function _register(address node) private {
        vm.prank(node);
        _reputation.registerNode("NVIDIA A10", 24_576);
    }

    function _told(address node) private view returns (Reputation memory told) {
        (bool ok, bytes memory answer) =
            address(_reputation).staticcall(abi.encodeCall(_reputation.reputationOf, (node)));
        vm.assertTrue(ok, "reputationOf");
        return abi.decode(answer, (Reputation));
    }

    function _isEmptyPage(uint256 offset, uint256 limit) private view {
        (address[] memory page, uint256 total) = _reputation.providersPage(offset, limit);
        vm.assertEq(page.length, 0, "page");
        vm.assertEq(total, 1, "total");
    }

    function _isSelector(bytes4 actual, bytes4 expected) private pure {
        vm.assertEq(bytes32(actual), bytes32(expected), "selector");
    }
}
