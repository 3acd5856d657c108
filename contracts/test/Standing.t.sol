// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Standing, StandingLib} from "../src/types/Standing.sol";
import {Test} from "./support/Test.sol";

/// @dev The packed slot: each field is where the layout has it, and none overflows into another.
contract StandingTest is Test {
    uint40 private constant _TIME_MAX = type(uint40).max;
    uint40 private constant _NOON = 1_700_000_100;

    function test_TheLayoutIsTheDocumentedOne() external pure {
        Standing standing = _packed(1, 2, 3, 4, 5, 6, 7);
        vm.assertEq(standing.lastSeen(), 1, "lastSeen");
        vm.assertEq(standing.onTime(), 2, "onTime");
        vm.assertEq(standing.missed(), 3, "missed");
        vm.assertEq(standing.streak(), 4, "streak");
        vm.assertEq(standing.completed(), 5, "completed");
        vm.assertEq(standing.failed(), 6, "failed");
        vm.assertEq(standing.since(), 7, "since");
    }

    function test_OnlyTheFirstBeatOfASlotCounts() external pure {
        // 1,700,000,100 is the first second of a slot.
        Standing standing = StandingLib.begun(_NOON);
        standing = standing.beat(_NOON + 299);
        _isUptime(standing, 0, 0, 0, "the slot of the registration");
        standing = standing.beat(_NOON + 300);
        _isUptime(standing, 1, 0, 1, "the next slot's first second");
        standing = standing.beat(_NOON + 301).beat(_NOON + 599);
        _isUptime(standing, 1, 0, 1, "more beats of that slot");
        vm.assertEq(standing.lastSeen(), _NOON + 599, "but it was seen");
    }

    function test_SlotsInSilenceAreMissedAndEndTheStreak() external pure {
        Standing standing = StandingLib.begun(_NOON).beat(_NOON + 300).beat(_NOON + 600);
        _isUptime(standing, 2, 0, 2, "two in a row");
        _isUptime(standing.asOf(_NOON + 1199), 2, 0, 2, "the present slot may still get its beat");
        _isUptime(standing.asOf(_NOON + 1200), 2, 1, 0, "one is over");
        standing = standing.beat(_NOON + 1500);
        _isUptime(standing, 3, 2, 1, "two were missed");
    }

    function test_ClaimsSaturate() external pure {
        uint40 top = type(uint40).max;
        Standing standing = _packed(1, 2, 3, 4, top - 1, top - 1, 7);
        standing = standing.claim(1, 1);
        _isSame(standing, _packed(1, 2, 3, 4, top, top, 7), "to the brim");
        standing = standing.claim(type(uint32).max, type(uint32).max);
        _isSame(standing, _packed(1, 2, 3, 4, top, top, 7), "and no further");
    }

    function test_TheClockStandsStillAtItsEnd() external pure {
        Standing standing = StandingLib.begun(_NOON).beat(type(uint256).max);
        vm.assertEq(standing.lastSeen(), _TIME_MAX, "lastSeen");
        vm.assertEq(standing.onTime(), 1, "onTime");
        uint256 slots = uint256(_TIME_MAX) / 300 - uint256(_NOON) / 300;
        vm.assertEq(standing.missed(), slots - 1, "missed");
        _isSame(standing.beat(type(uint256).max), standing, "once more");
        vm.assertEq(StandingLib.begun(type(uint256).max).since(), _TIME_MAX, "begun");
    }

    function test_WhoNeverRegisteredMissesNothing() external pure {
        Standing nobody = Standing.wrap(0);
        vm.assertFalse(nobody.isRegistered(), "registered");
        _isSame(nobody.asOf(_NOON), nobody, "nothing is counted");
    }

    function testFuzz_ABeatFromThePastChangesNothing(uint40 last, uint40 time) external pure {
        if (time > last) (last, time) = (time, last);
        Standing standing = _packed(last, 2, 3, 4, 5, 6, 7);
        _isSame(standing.beat(time), standing, "beat");
    }

    function testFuzz_ABeatTouchesUptimeAlone(
        uint40 last,
        uint40 time,
        uint40 completed,
        uint40 failed,
        uint40 since
    ) external pure {
        if (time < last) (last, time) = (time, last);
        uint256 passed = uint256(time / 300) - last / 300;
        // The largest number of slots that can precede `last`.
        uint256 missed = last / 300;
        Standing standing = _packed(last, 0, missed, 9, completed, failed, since).beat(time);
        uint256 streak = passed == 0 ? 9 : passed == 1 ? 10 : 1;
        uint256 more = passed == 0 ? 0 : passed - 1;
        _isSame(
            standing,
            _packed(time, passed == 0 ? 0 : 1, missed + more, streak, completed, failed, since),
            "beat"
        );
    }

    function testFuzz_AClaimTouchesClaimsAlone(
        uint256 packed,
        uint40 completed,
        uint40 failed,
        uint32 more,
        uint32 moreFailed
    ) external pure {
        uint256 others = packed & ~(uint256(type(uint80).max) << 136);
        Standing standing = Standing.wrap(others | _claims(completed, failed));
        standing = standing.claim(more, moreFailed);
        uint256 top = type(uint40).max;
        uint256 sum = uint256(completed) + more;
        uint256 sumFailed = uint256(failed) + moreFailed;
        vm.assertEq(
            Standing.unwrap(standing),
            others | _claims(sum < top ? sum : top, sumFailed < top ? sumFailed : top),
            "claim"
        );
    }

    function testFuzz_TheViewIsWhatTheNextBeatStores(uint40 last, uint40 time) external pure {
        if (time < last) (last, time) = (time, last);
        Standing standing = _packed(last, 5, 3, 4, 5, 6, 7);
        vm.assertEq(standing.asOf(time).missed(), standing.beat(time).missed(), "missed");
        vm.assertEq(standing.asOf(time).onTime(), 5, "onTime");
        vm.assertEq(standing.asOf(time).lastSeen(), last, "lastSeen");
    }

    function _packed(
        uint256 lastSeen,
        uint256 onTime,
        uint256 missed,
        uint256 streak,
        uint256 completed,
        uint256 failed,
        uint256 since
    ) private pure returns (Standing) {
        uint256 uptime = onTime << 40 | missed << 72 | streak << 104;
        return Standing.wrap(since << 216 | _claims(completed, failed) | uptime | lastSeen);
    }

    function _claims(uint256 completed, uint256 failed) private pure returns (uint256) {
        return completed << 136 | failed << 176;
    }

    function _isUptime(
        Standing standing,
        uint256 onTime,
        uint256 missed,
        uint256 streak,
        string memory what
    ) private pure {
        vm.assertEq(standing.onTime(), onTime, string.concat("on time: ", what));
        vm.assertEq(standing.missed(), missed, string.concat("missed: ", what));
        vm.assertEq(standing.streak(), streak, string.concat("streak: ", what));
    }

    function _isSame(Standing left, Standing right, string memory what) private pure {
        vm.assertEq(Standing.unwrap(left), Standing.unwrap(right), what);
    }
}
