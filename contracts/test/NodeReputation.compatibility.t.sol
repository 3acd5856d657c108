// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {INodeReputation} from "../src/interfaces/INodeReputation.sol";
import {NodeReputation} from "../src/NodeReputation.sol";
import {OnceReputation} from "./support/OnceReputation.sol";
import {PlainReputation} from "./support/PlainReputation.sol";
import {Test} from "./support/Test.sol";

/// @dev The behaviour that clients of the deployed interface rely on: the same cases for this
/// project's contract and for plausible versions of the deployed one.
abstract contract CompatibilityTest is Test {
    address private constant _NODE = address(0xA11CE);
    address private constant _OTHER = address(0xB0B);
    string private constant _H100 = "NVIDIA H100 80GB HBM3";
    uint256 private constant _START = 1_700_000_000;

    INodeReputation private _reputation;

    function _deploy() internal virtual returns (address);

    /// @dev Whether a node may change what it registered.
    function _mayRegisterAgain() internal pure virtual returns (bool);

    /// @dev Whether the contract reports the extension by ERC-165.
    function _hasExtension() internal pure virtual returns (bool);

    function setUp() external {
        vm.warp(_START);
        _reputation = INodeReputation(_deploy());
    }

    function test_ItStartsEmpty() external view {
        vm.assertEq(_reputation.totalProviders(), 0, "total");
        vm.assertEq(_reputation.getActiveProvidersCount(), 0, "active");
        _isRecord(_NODE, "", 0, 0, false, 0);
    }

    function test_CalldataIsWhatDeployedClientsSend() external {
        // Spelled out word by word, independent of the compiler's encoder.
        bytes memory call = abi.encodePacked(
            bytes4(0xf3ef747f),
            uint256(0x40),
            uint256(81_559),
            uint256(21),
            bytes32(0x4e5649444941204831303020383047422048424d330000000000000000000000)
        );
        vm.prank(_NODE);
        (bool ok,) = address(_reputation).call(call);
        vm.assertTrue(ok, "registerNode");
        vm.prank(_NODE);
        (ok,) = address(_reputation).call(hex"34f167a9");
        vm.assertTrue(ok, "sendHeartbeat");
        _isRecord(_NODE, _H100, 81_559, _START, true, 0);
    }

    function test_AnswersHaveTheDeployedForm() external {
        _register(_NODE, _H100, 81_559);
        (bool ok, bytes memory answer) =
            address(_reputation).staticcall(abi.encodePacked(bytes4(0x7583902f), abi.encode(_NODE)));
        vm.assertTrue(ok, "getProviderInfo");
        bytes memory wanted = abi.encode(
            INodeReputation.ProviderInfo(_H100, 81_559, block.timestamp, true), uint256(0)
        );
        vm.assertEq(answer, wanted, "getProviderInfo");

        (ok, answer) = address(_reputation)
            .staticcall(abi.encodePacked(bytes4(0x0787bc27), abi.encode(_NODE)));
        vm.assertTrue(ok, "providers");
        vm.assertEq(answer, abi.encode(_H100, 81_559, block.timestamp, true), "providers");
    }

    function test_RegistrationsBeatsAndConfirmationsAreEmitted() external {
        vm.expectEmit(address(_reputation));
        emit INodeReputation.NodeRegistered(_NODE, _H100, 81_559);
        _register(_NODE, _H100, 81_559);

        vm.warp(_START + 300);
        vm.expectEmit(address(_reputation));
        emit INodeReputation.NodeHeartbeat(_NODE, _START + 300);
        vm.prank(_NODE);
        _reputation.sendHeartbeat();

        vm.expectEmit(address(_reputation));
        emit INodeReputation.JobCountIncremented(_NODE, 1);
        _reputation.incrementJobs(_NODE);
        _isRecord(_NODE, _H100, 81_559, _START + 300, true, 1);
    }

    function test_OneNodeIsNotAnother() external {
        _register(_NODE, _H100, 81_559);
        _register(_OTHER, "NVIDIA A10", 24_576);
        vm.warp(_START + 300);
        vm.prank(_OTHER);
        _reputation.sendHeartbeat();
        _reputation.incrementJobs(_OTHER);
        _isRecord(_NODE, _H100, 81_559, _START, true, 0);
        _isRecord(_OTHER, "NVIDIA A10", 24_576, _START + 300, true, 1);
        vm.assertEq(_reputation.totalProviders(), 2, "total");
    }

    function test_ANodeIsActiveForThreeIntervals() external {
        _register(_NODE, _H100, 81_559);
        vm.warp(_START + 15 minutes);
        vm.assertTrue(_reputation.isProviderActive(_NODE), "active");
        vm.assertEq(_reputation.getActiveProvidersCount(), 1, "counted");
        vm.warp(_START + 15 minutes + 1);
        vm.assertFalse(_reputation.isProviderActive(_NODE), "silent");
        vm.assertEq(_reputation.getActiveProvidersCount(), 0, "not counted");
    }

    function test_WhoRegistersAgainIsNoNewNode() external {
        _register(_NODE, _H100, 81_559);
        vm.prank(_NODE);
        try _reputation.registerNode("NVIDIA A10", 24_576) {
            vm.assertTrue(_mayRegisterAgain(), "it should be refused");
            _isRecord(_NODE, "NVIDIA A10", 24_576, _START, true, 0);
        } catch {
            vm.assertFalse(_mayRegisterAgain(), "it should be taken");
            _isRecord(_NODE, _H100, 81_559, _START, true, 0);
        }
        vm.assertEq(_reputation.totalProviders(), 1, "total");
    }

    function test_WhoIsNotRegisteredIsRefused() external {
        vm.prank(_NODE);
        try _reputation.sendHeartbeat() {
            vm.assertTrue(false, "a beat was taken");
        } catch {}
        try _reputation.incrementJobs(_NODE) {
            vm.assertTrue(false, "a job was confirmed");
        } catch {}
        _isRecord(_NODE, "", 0, 0, false, 0);
    }

    function test_OnlyTheOwnerConfirms() external {
        _register(_NODE, _H100, 81_559);
        vm.prank(_NODE);
        try _reputation.incrementJobs(_NODE) {
            vm.assertTrue(false, "the node confirmed its own job");
        } catch {}
        vm.assertEq(_reputation.successfulJobsCount(_NODE), 0, "jobs");
    }

    /// @dev Asks as the agent does: no answer, a revert or any answer but `true` means no.
    function test_TheExtensionIsFoundWhereItIs() external view {
        bytes memory question = abi.encodeWithSelector(bytes4(0x01ffc9a7), bytes4(0x8cc8a900));
        (bool ok, bytes memory answer) = address(_reputation).staticcall(question);
        bool found = ok && answer.length == 32 && abi.decode(answer, (uint256)) == 1;
        vm.assertTrue(found == _hasExtension(), "the extension");
    }

    function _register(address node, string memory model, uint256 vram) private {
        vm.prank(node);
        _reputation.registerNode(model, vram);
    }

    function _isRecord(
        address node,
        string memory model,
        uint256 vram,
        uint256 lastSeen,
        bool isRegistered,
        uint256 jobs
    ) private view {
        (INodeReputation.ProviderInfo memory info, uint256 count) =
            _reputation.getProviderInfo(node);
        vm.assertEq(info.gpuModel, model, "model");
        vm.assertEq(info.vram, vram, "vram");
        vm.assertEq(info.lastSeen, lastSeen, "last seen");
        vm.assertTrue(info.isRegistered == isRegistered, "registered");
        vm.assertEq(count, jobs, "jobs");
        vm.assertEq(_reputation.successfulJobsCount(node), jobs, "jobs by themselves");
    }
}

contract NodeReputationCompatibilityTest is CompatibilityTest {
    function _deploy() internal override returns (address) {
        return address(new NodeReputation());
    }

    function _mayRegisterAgain() internal pure override returns (bool) {
        return true;
    }

    function _hasExtension() internal pure override returns (bool) {
        return true;
    }
}

contract PlainReputationCompatibilityTest is CompatibilityTest {
    function _deploy() internal override returns (address) {
        return address(new PlainReputation());
    }

    function _mayRegisterAgain() internal pure override returns (bool) {
        return true;
    }

    function _hasExtension() internal pure override returns (bool) {
        return false;
    }
}

contract OnceReputationCompatibilityTest is CompatibilityTest {
    function _deploy() internal override returns (address) {
        return address(new OnceReputation());
    }

    function _mayRegisterAgain() internal pure override returns (bool) {
        return false;
    }

    function _hasExtension() internal pure override returns (bool) {
        return false;
    }
}
