#!/usr/bin/env python3
"""Creates the streams, the bucket of claims and the consumers of nodes and pools on a NATS server.

For servers on which nodes may not create them (deploy/nats/nats-server.conf). Requires nats-py.
Leaves existing streams and consumers alone, so it can be run again for each new node or pool.
"""

import argparse
import asyncio
import json
import pathlib

import nats

DAY_NS = 24 * 60 * 60 * 10**9
GIB = 1 << 30
ALREADY = {10058, 10013, 10148, 10105}  # stream or consumer exists, perhaps with another configuration


def streams():
    """The streams with the configuration that the program also uses: src/bus/streams.rs."""
    common = {"storage": "file", "num_replicas": 1, "max_age": 30 * DAY_NS, "max_bytes": -1,
              "max_msgs": -1, "max_consumers": -1, "retention": "limits", "discard": "old",
              "max_msgs_per_subject": -1, "max_msg_size": -1}
    return [
        common | {"name": "JOBS", "subjects": ["jobs.dispatch.*", "jobs.pool.*"],
                  "retention": "workqueue", "discard": "new", "max_age": 7 * DAY_NS,
                  "max_bytes": GIB},
        common | {"name": "STATUS", "subjects": ["jobs.status.*.*"], "max_bytes": GIB},
        common | {"name": "DEAD", "subjects": ["jobs.dead.*"]},
        common | {"name": "EVENTS", "subjects": ["events.*.*.*"], "max_age": 7 * DAY_NS,
                  "max_bytes": GIB},
        common | {"name": "USAGE", "subjects": ["usage.*.*"], "max_age": 7 * DAY_NS, "max_bytes": GIB},
        common | {"name": "RESULTS", "subjects": ["jobs.results.*.*"], "max_bytes": GIB},
        common | {"name": "KV_JOB_CLAIMS", "subjects": ["$KV.JOB_CLAIMS.>"],
                  "max_msgs_per_subject": 1, "max_bytes": 2 * GIB, "allow_direct": True,
                  "allow_rollup_hdrs": True, "deny_delete": True},
        common | {"name": "KV_NODES", "subjects": ["$KV.NODES.>"], "storage": "memory",
                  "max_age": 60 * 10**9, "max_msgs_per_subject": 1, "max_bytes": GIB // 16,
                  "allow_direct": True, "allow_rollup_hdrs": True, "deny_delete": True},
    ]


def consumer(name, filters, ack_wait_s, max_waiting):
    filtered = {"filter_subject": filters[0]} if len(filters) == 1 else {"filter_subjects": filters}
    return filtered | {"durable_name": name, "name": name, "ack_policy": "explicit",
                       "deliver_policy": "all", "replay_policy": "instant", "max_deliver": -1,
                       "ack_wait": ack_wait_s * 10**9, "max_ack_pending": 10_000,
                       "max_waiting": max_waiting}


def consumers(nodes, pools):
    for node in nodes:
        filters = list(dict.fromkeys([f"jobs.dispatch.{node}", f"jobs.dispatch.{node.lower()}"]))
        yield consumer(f"agent-{node.lower()}", filters, 30, 512)
    for pool in pools:
        yield consumer(f"pool-{pool}", [f"jobs.pool.{pool}"], 120, 10_000)


async def make(nc, subject, body, what):
    answer = json.loads((await nc.request(subject, json.dumps(body).encode(), timeout=10)).data)
    error = answer.get("error")
    if error and error.get("err_code") not in ALREADY:
        raise SystemExit(f"{what}: {error.get('description')}")
    print(f"{what}: {'exists already' if error else 'created'}")


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--user")
    parser.add_argument("--password-file", type=pathlib.Path)
    parser.add_argument("--node", action="append", default=[], help="its address in EIP-55")
    parser.add_argument("--pool", action="append", default=[])
    args = parser.parse_args()
    who = {}
    if args.user:
        who = {"user": args.user, "password": args.password_file.read_text().splitlines()[0]}
    nc = await nats.connect(args.url, **who)
    for stream in streams():
        name = stream["name"]
        await make(nc, f"$JS.API.STREAM.CREATE.{name}", stream, f"stream {name}")
    for config in consumers(args.node, args.pool):
        name = config["name"]
        subject = f"$JS.API.CONSUMER.CREATE.JOBS.{name}"
        if "filter_subject" in config:
            subject += f".{config['filter_subject']}"
        body = {"stream_name": "JOBS", "config": config, "action": "create"}
        await make(nc, subject, body, f"consumer {name}")
    await nc.close()


if __name__ == "__main__":
    asyncio.run(main())
