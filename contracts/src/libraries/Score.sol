// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title One number for a node, from what the chain knows of it.
/// @dev Integers alone, each division rounds down, so that every implementation gets the same
/// number; `test/vectors/score.json` holds them to it.
///
///     uptime = 10000 * onTime    / (onTime + missed + 288)
///     work   = 10000 * confirmed / (confirmed + failed + 10)
///     score  = uptime * (2000 + 8000 * work / 10000) / 10000
///
/// A new node starts at 0 and earns trust: a day's slots (288) count as missed beforehand, and ten
/// jobs as not confirmed. Beats are cheap, so beats alone give less than 2000 of 10000; a node
/// that is gone loses what its jobs earned. docs/reputation.md says what this can't prove.
library Score {
    /// @notice The best score. It is approached, never reached.
    uint256 internal constant WHOLE = 10_000;

    /// @dev A day of slots.
    uint256 private constant _SLOTS_TO_PROVE = 288;

    uint256 private constant _JOBS_TO_PROVE = 10;

    /// @dev What uptime earns without any confirmed job.
    uint256 private constant _UPTIME_ALONE = 2_000;

    /// @dev Jobs beyond this many change nothing, and nothing overflows.
    uint256 private constant _JOBS_MAX = type(uint40).max;

    /// @param onTime Slots with a beat.
    /// @param missed Slots without one.
    /// @param confirmed Jobs that the owner confirmed.
    /// @param failed Jobs that the node says have failed.
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
        // Both factors are at most 10000, and so is the score.
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint16(uptime * share / WHOLE);
    }
}
