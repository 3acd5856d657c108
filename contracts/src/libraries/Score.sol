// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title A node's score, computed from its record on the chain.
/// @dev Uses integers only, and each division rounds down, so that all implementations agree;
/// `test/vectors/score.json` tests that.
///
///     uptime = 10000 * onTime    / (onTime + missed + 288)
///     work   = 10000 * confirmed / (confirmed + failed + 10)
///     score  = uptime * (2000 + 8000 * work / 10000) / 10000
///
/// A new node starts at 0: a day's slots (288) count as missed in advance, and ten jobs as not
/// confirmed. Heartbeats are cheap, so they alone give less than 2000 of 10000. A node that stops
/// sending them also loses what its jobs earned. docs/reputation.md states what this can't prove.
library Score {
    /// @notice The upper bound of the score, which no score reaches.
    uint256 internal constant WHOLE = 10_000;

    /// @dev The slots of one day.
    uint256 private constant _SLOTS_TO_PROVE = 288;

    uint256 private constant _JOBS_TO_PROVE = 10;

    /// @dev The score of perfect uptime without any confirmed job.
    uint256 private constant _UPTIME_ALONE = 2_000;

    /// @dev Larger numbers of jobs are capped at this, so that nothing overflows.
    uint256 private constant _JOBS_MAX = type(uint40).max;

    /// @notice Computes the score.
    /// @param onTime Slots with a heartbeat.
    /// @param missed Slots without one.
    /// @param confirmed Jobs that the owner confirmed.
    /// @param failed Jobs that the node reported as failed.
    function rate(uint256 onTime, uint256 missed, uint256 confirmed, uint256 failed)
        internal
        pure
        returns (uint16)
    {
        if (confirmed > _JOBS_MAX) confirmed = _JOBS_MAX;
        if (failed > _JOBS_MAX) failed = _JOBS_MAX;
        uint256 uptime = WHOLE * onTime / (onTime + missed + _SLOTS_TO_PROVE);
        uint256 work = WHOLE * confirmed / (confirmed + failed + _JOBS_TO_PROVE);
        uint256 share = _UPTIME_ALONE + (WHOLE - _UPTIME_ALONE) * work / WHOLE;
        // Both factors are at most 10000, so the score fits into 16 bits.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint16(uptime * share / WHOLE);
    }
}
