// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @dev The forge cheatcodes that these tests use; a failed assertion reverts the test.
interface Vm {
    function prank(address sender) external;
    function warp(uint256 timestamp) external;
    function expectRevert(bytes calldata data) external;
    function expectEmit(address emitter) external;
    function snapshotGasLastCall(string calldata group, string calldata name)
        external
        returns (uint256 gas);
    function assertLt(uint256 left, uint256 right, string calldata what) external pure;
    function readFile(string calldata path) external view returns (string memory);
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
    function parseJsonUint(string calldata json, string calldata key)
        external
        pure
        returns (uint256);
    function parseJsonString(string calldata json, string calldata key)
        external
        pure
        returns (string memory);
    function toString(uint256 value) external pure returns (string memory);
    function assertTrue(bool condition, string calldata what) external pure;
    function assertFalse(bool condition, string calldata what) external pure;
    function assertEq(uint256 left, uint256 right, string calldata what) external pure;
    function assertEq(address left, address right, string calldata what) external pure;
    function assertEq(bytes32 left, bytes32 right, string calldata what) external pure;
    function assertEq(string calldata left, string calldata right, string calldata what)
        external
        pure;
    function assertEq(bytes calldata left, bytes calldata right, string calldata what) external pure;
}

/// @dev The base of every test contract.
abstract contract Test {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    /// @dev forge runs a contract as a test only if it has this flag.
    bool public constant IS_TEST = true;

    function _bound(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + value % (high - low + 1);
    }
}
