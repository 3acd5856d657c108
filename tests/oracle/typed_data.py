"""What another implementation makes of this protocol's signatures: rfc8785 and eth-account.

usage: typed_data.py canonical | digest | signer SIGNATURE, with a JSON document on standard input

canonical  the document in RFC 8785
digest     the EIP-712 digest of a typed-data document
signer     who signed it
"""

import json
import sys

import rfc8785
from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from eth_utils import keccak


def digest(message: SignableMessage) -> str:
    """EIP-191's envelope around an EIP-712 hash."""
    return "0x" + keccak(b"\x19" + message.version + message.header + message.body).hex()


def main() -> None:
    what, *args = sys.argv[1:]
    document = json.load(sys.stdin)
    if what == "canonical":
        sys.stdout.buffer.write(rfc8785.dumps(document))
    elif what == "digest":
        print(digest(encode_typed_data(full_message=document)), end="")
    else:
        message = encode_typed_data(full_message=document)
        print(Account.recover_message(message, signature=args[0]), end="")


main()
