"""What another implementation makes of this protocol's trees: keccak by eth-utils, the tree written
anew from docs/protocol.md, recursively and not level by level.

usage: merkle.py vectors | merkle.py verify, with a proof document on standard input

vectors  what contracts/test/vectors/receipts.json holds
verify   whether the proof leads from the receipt, whose digest eth-account computes, to the root
"""

import json
import sys

from eth_account.messages import encode_typed_data
from eth_utils import keccak

SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 11, 13]


def pair(a: bytes, b: bytes) -> bytes:
    return keccak(min(a, b) + max(a, b))


def half(count: int) -> int:
    """How many leaves hang under the left child: the largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    split = half(len(leaves))
    return pair(root(leaves[:split]), root(leaves[split:]))


def proof(leaves: list[bytes], index: int) -> list[bytes]:
    if len(leaves) == 1:
        return []
    split = half(len(leaves))
    left, right = leaves[:split], leaves[split:]
    if index < split:
        return [*proof(left, index), root(right)]
    return [*proof(right, index - split), root(left)]


def text(value: bytes) -> str:
    return "0x" + value.hex()


def case(size: int) -> dict:
    digests = [keccak(text=f"receipt {n} of {size}") for n in range(size)]
    leaves = [keccak(digest) for digest in digests]
    return {
        "digests": [text(digest) for digest in digests],
        "root": text(root(leaves)),
        "proofs": [[text(node) for node in proof(leaves, n)] for n in range(size)],
    }


def verify(document: dict) -> bool:
    typed = {key: value for key, value in document["receipt"].items() if key != "signature"}
    message = encode_typed_data(full_message=typed)
    digest = keccak(b"\x19" + message.version + message.header + message.body)
    node = keccak(digest)
    if (text(digest), text(node)) != (document["digest"], document["leaf"]):
        return False
    for sibling in document["proof"]:
        node = pair(node, bytes.fromhex(sibling.removeprefix("0x")))
    return text(node) == document["root"]


if sys.argv[1] == "vectors":
    print(json.dumps({"cases": [case(size) for size in SIZES]}, indent=1))
else:
    print("proved" if verify(json.load(sys.stdin)) else "not proved", end="")
