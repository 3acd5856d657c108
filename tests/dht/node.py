"""A swarm of real Hivemind DHT nodes on loopback, for the tests of src/dht.

usage: node.py NODES [PUBLISHERS [VALUE_BYTES]]

Starts NODES nodes (1 to 16) that know each other, and stores as the watched program does: under the keys
b"solver", b"proposer" and "7", one value for each of PUBLISHERS made-up peer ids (default 2), and the peer id
of the first node, as subkeys, with an expiration 600 s ahead. The values are pickle, which nobody may decode.
Prints one line of JSON: the addresses, the peer ids, the expiration in Unix seconds. Ends when its standard
input ends.
"""

import asyncio
import json
import multiprocessing.connection  # which Hivemind expects torch to have loaded
import os
import pickle
import sys
import types
from importlib.util import find_spec

LIFETIME_S = 600
NODES_MAX = 16
KEYS = [b"solver", b"proposer", "7"]


class Absent(type):
    """Stands for torch, two gigabytes that a DHT never uses: whatever is named in it is a class of nothing."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(name, (), {"__init__": lambda self, *args, **kwargs: None})


def import_hivemind():
    """Hivemind's DHT without the rest of Hivemind, which is for training."""
    sys.modules["torch"] = Absent("torch", (), {})
    hivemind = types.ModuleType("hivemind")
    hivemind.__path__ = find_spec("hivemind").submodule_search_locations
    sys.modules["hivemind"] = hivemind


async def start(known):
    from hivemind.dht.node import DHTNode

    return await DHTNode.create(
        initial_peers=known,
        host_maddrs=["/ip4/127.0.0.1/tcp/0"],
        use_auto_relay=False,
        use_relay=False,
        nat_port_map=False,
        use_ipfs=False,
        startup_timeout=60,
    )


async def main():
    from hivemind.utils.timed_storage import get_dht_time

    count = min(int(sys.argv[1]), NODES_MAX)
    publishers = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    value_bytes = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    first = await start([])
    known = [str(address) for address in await first.get_visible_maddrs()]
    nodes = [first] + [await start(known) for _ in range(count - 1)]
    peers = [str(first.peer_id)] + [f"QmMadeUp{n:038}" for n in range(publishers)]
    expires = get_dht_time() + LIFETIME_S
    # Whoever decodes a value of a stranger would run this.
    value = pickle.dumps((os.getcwd, "a stranger's value" + "." * value_bytes))
    for key in KEYS:
        for peer in peers:
            assert await nodes[-1].store(key, subkey=peer, value=value, expiration_time=expires), peer
    addresses = [str((await node.get_visible_maddrs())[0]) for node in nodes]
    print(json.dumps({"addresses": addresses, "peers": peers, "expires": expires}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.gather(*(node.shutdown() for node in nodes))
    await asyncio.gather(*(node.protocol.p2p.shutdown() for node in nodes))


if __name__ == "__main__":
    import_hivemind()
    asyncio.run(main())
