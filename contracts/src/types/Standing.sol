// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title The totals of a node's heartbeats and claims, packed into one storage slot.
/// @dev From the lowest bit:
///
/// | bits    | width | field     | bound |
/// |---------|-------|-----------|-------|
/// | 0-39    | 40    | lastSeen  | Unix second; saturates in the year 36812 |
/// | 40-71   | 32    | onTime    | at most 2^40 / 300 slots, below 2^32: can't overflow |
/// | 72-103  | 32    | missed    | together with onTime at most 2^40 / 300: can't overflow |
/// | 104-135 | 32    | streak    | at most onTime |
/// | 136-175 | 40    | completed | saturates |
/// | 176-215 | 40    | failed    | saturates |
/// | 216-255 | 40    | since     | Unix second of the first registration, written once |
///
/// Zero means that the node never registered, since no chain's clock is at 0. So a heartbeat reads
/// and writes one storage slot only. Arithmetic is unchecked because of the bounds above.
type Standing is uint256;

using StandingLib for Standing global;

/// @dev Time is divided into slots of 300 s, counted from Unix second 0. A heartbeat in the slot of
/// the previous one counts nothing. One in a later slot counts as one slot on time, and the slots
/// in between count as missed.
library StandingLib {
    uint256 internal constant SLOT_SECONDS = 300;

    uint256 private constant _MASK_32 = type(uint32).max;
    uint256 private constant _MASK_40 = type(uint40).max;

    uint256 private constant _ON_TIME = 40;
    uint256 private constant _MISSED = 72;
    uint256 private constant _STREAK = 104;
    uint256 private constant _COMPLETED = 136;
    uint256 private constant _FAILED = 176;
    uint256 private constant _SINCE = 216;

    /// @dev Adds 1 to onTime and 1 to streak.
    // forge-lint: disable-next-line(incorrect-shift)
    uint256 private constant _ONE_BEAT = (1 << _ON_TIME) + (1 << _STREAK);

    /// @dev The standing of a node that registers at this Unix second.
    function begun(uint256 time) internal pure returns (Standing) {
        uint256 second = _bounded(time);
        return Standing.wrap(second << _SINCE | second);
    }

    /// @dev The standing after a heartbeat at this Unix second. A time that is not after the last
    /// heartbeat changes nothing.
    function beat(Standing standing, uint256 time) internal pure returns (Standing) {
        uint256 packed = Standing.unwrap(standing);
        uint256 second = _bounded(time);
        uint256 last = packed & _MASK_40;
        if (second <= last) return standing;
        unchecked {
            uint256 passed = second / SLOT_SECONDS - last / SLOT_SECONDS;
            packed += second - last;
            if (passed == 1) {
                packed += _ONE_BEAT;
            } else if (passed != 0) {
                packed &= ~(_MASK_32 << _STREAK);
                packed += _ONE_BEAT + (passed - 1 << _MISSED);
            }
        }
        return Standing.wrap(packed);
    }

    /// @dev The standing after a claim of `more` completed and `moreFailed` failed jobs.
    function claim(Standing standing, uint32 more, uint32 moreFailed)
        internal
        pure
        returns (Standing)
    {
        uint256 packed = Standing.unwrap(standing);
        unchecked {
            uint256 room = _MASK_40 - (packed >> _COMPLETED & _MASK_40);
            packed += (more < room ? more : room) << _COMPLETED;
            room = _MASK_40 - (packed >> _FAILED & _MASK_40);
            packed += (moreFailed < room ? moreFailed : room) << _FAILED;
        }
        return Standing.wrap(packed);
    }

    /// @dev The standing at this Unix second: whole slots without a heartbeat count as missed and
    /// end the streak. The next heartbeat stores the same, and then counts itself.
    function asOf(Standing standing, uint256 time) internal pure returns (Standing) {
        uint256 packed = Standing.unwrap(standing);
        uint256 slot = _bounded(time) / SLOT_SECONDS;
        uint256 lastSlot = (packed & _MASK_40) / SLOT_SECONDS;
        if (packed == 0 || slot <= lastSlot + 1) return standing;
        unchecked {
            packed &= ~(_MASK_32 << _STREAK);
            packed += slot - lastSlot - 1 << _MISSED;
        }
        return Standing.wrap(packed);
    }

    function isRegistered(Standing standing) internal pure returns (bool) {
        return Standing.unwrap(standing) != 0;
    }

    // Each cast truncates to the field's width on purpose.
    // forge-lint: disable-start(unsafe-typecast)

    function lastSeen(Standing standing) internal pure returns (uint40) {
        return uint40(Standing.unwrap(standing));
    }

    function onTime(Standing standing) internal pure returns (uint32) {
        return uint32(Standing.unwrap(standing) >> _ON_TIME);
    }

    function missed(Standing standing) internal pure returns (uint32) {
        return uint32(Standing.unwrap(standing) >> _MISSED);
    }

    function streak(Standing standing) internal pure returns (uint32) {
        return uint32(Standing.unwrap(standing) >> _STREAK);
    }

    function completed(Standing standing) internal pure returns (uint40) {
        return uint40(Standing.unwrap(standing) >> _COMPLETED);
    }

    function failed(Standing standing) internal pure returns (uint40) {
        return uint40(Standing.unwrap(standing) >> _FAILED);
    }

    function since(Standing standing) internal pure returns (uint40) {
        return uint40(Standing.unwrap(standing) >> _SINCE);
    }

    // forge-lint: disable-end(unsafe-typecast)

    function _bounded(uint256 time) private pure returns (uint256) {
        return time < _MASK_40 ? time : _MASK_40;
    }
}
