// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Test} from "./support/Test.sol";

/// @dev The cheatcodes for reading a file of vectors.
interface Json {
    function readFile(string calldata path) external view returns (string memory data);
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
    function parseJsonBytes32(string calldata json, string calldata key)
        external
        pure
        returns (bytes32);
    function parseJsonBytes32Array(string calldata json, string calldata key)
        external
        pure
        returns (bytes32[] memory);
    function toString(uint256 value) external pure returns (string memory);
}

/// @dev Checks OpenZeppelin's library against the vectors that the agent's trees are tested with.
contract MerkleProofTest is Test {
    Json private constant _JSON = Json(address(vm));

    function test_OpenZeppelinAcceptsEveryProof() external view {
        string memory json = _JSON.readFile("./test/vectors/receipts.json");
        uint256 count;
        for (; _JSON.keyExistsJson(json, _case(count)); ++count) {
            _accepts(json, _case(count));
        }
        vm.assertTrue(count > 0, "no case");
    }

    function _accepts(string memory json, string memory path) private pure {
        bytes32 root = _JSON.parseJsonBytes32(json, string.concat(path, ".root"));
        bytes32[] memory digests =
            _JSON.parseJsonBytes32Array(json, string.concat(path, ".digests"));
        for (uint256 i; i < digests.length; ++i) {
            string memory key = string.concat(path, ".proofs[", _JSON.toString(i), "]");
            bytes32[] memory proof = _JSON.parseJsonBytes32Array(json, key);
            bytes32 leaf = keccak256(abi.encode(digests[i]));
            vm.assertTrue(MerkleProof.verify(proof, root, leaf), key);

            bytes32 stranger = keccak256(abi.encode(leaf));
            vm.assertFalse(MerkleProof.verify(proof, root, stranger), key);
        }
    }

    function _case(uint256 index) private pure returns (string memory) {
        return string.concat(".cases[", _JSON.toString(index), "]");
    }
}
