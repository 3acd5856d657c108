// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Score} from "../src/libraries/Score.sol";
import {Test} from "./support/Test.sol";

/// @dev The rule of the score. The agent's tests check its Rust version against the same file.
contract ScoreTest is Test {
    uint256 private constant _JOBS = 1 << 40;
    uint256 private constant _SLOTS = 1 << 31;

    function test_EveryVectorHolds() external view {
        string memory file = vm.readFile("test/vectors/score.json");
        uint256 count;
        for (string memory it = _entry(0); vm.keyExistsJson(file, it); it = _entry(++count)) {
            uint256 score = Score.rate(
                vm.parseJsonUint(file, string.concat(it, ".onTime")),
                vm.parseJsonUint(file, string.concat(it, ".missed")),
                vm.parseJsonUint(file, string.concat(it, ".confirmed")),
                vm.parseJsonUint(file, string.concat(it, ".failed"))
            );
            string memory why = vm.parseJsonString(file, string.concat(it, ".why"));
            vm.assertEq(score, vm.parseJsonUint(file, string.concat(it, ".score")), why);
        }
        vm.assertLt(25, count, "the file was read to its end");
    }

    function testFuzz_NothingOverflowsAndNothingIsPerfect(
        uint32 onTime,
        uint32 missed,
        uint256 confirmed,
        uint256 failed
    ) external pure {
        vm.assertLt(Score.rate(onTime, missed, confirmed, failed), Score.WHOLE, "score");
    }

    function testFuzz_MoreOfTheGoodNeverLowersIt(
        uint256 onTime,
        uint256 missed,
        uint256 confirmed,
        uint256 failed
    ) external pure {
        (onTime, missed) = (onTime % _SLOTS, missed % _SLOTS);
        (confirmed, failed) = (confirmed % _JOBS, failed % _JOBS);
        uint256 score = Score.rate(onTime, missed, confirmed, failed);
        _atLeast(Score.rate(onTime + 1, missed, confirmed, failed), score, "a beat more");
        _atLeast(Score.rate(onTime, missed, confirmed + 1, failed), score, "a job more");
        _atLeast(score, Score.rate(onTime, missed + 1, confirmed, failed), "a slot missed");
        _atLeast(score, Score.rate(onTime, missed, confirmed, failed + 1), "a job failed");
    }

    function testFuzz_BeatsAloneEarnLessThanAFifth(uint32 onTime, uint256 failed) external pure {
        vm.assertLt(Score.rate(onTime, 0, 0, failed), Score.WHOLE / 5, "score");
    }

    function _atLeast(uint256 high, uint256 low, string memory what) private pure {
        vm.assertLt(low, high + 1, what);
    }

    function _entry(uint256 index) private pure returns (string memory) {
        return string.concat(".vectors[", vm.toString(index), "]");
    }
}
