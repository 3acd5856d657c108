"""Reads the last job of one agent from the STATUS stream, with an independent NATS client.

usage: last_job.py NATS_URL AGENT_ADDRESS RECEIPT_FILE

Prints shell assignments (job_id, status, output_cid, signature) and writes the receipt's EIP-712
document to RECEIPT_FILE.
"""

import asyncio
import json
import shlex
import sys

import nats


async def last_status(url: str, address: str) -> dict:
    """Returns the last status under the agent's subject."""
    client = await nats.connect(url, allow_reconnect=False, connect_timeout=5)
    try:
        stream = client.jetstream()
        message = await stream.get_last_msg("STATUS", f"jobs.status.{address}.*")
        return json.loads(message.data)
    finally:
        await client.close()


def main() -> None:
    url, address, receipt_file = sys.argv[1:]
    status = asyncio.run(last_status(url, address))
    receipt = status.get("receipt", {})
    signature = receipt.pop("signature", "")
    with open(receipt_file, "w", encoding="utf-8") as file:
        json.dump(receipt, file)
    found = {
        "job_id": status["job_id"],
        "status": status["status"],
        "output_cid": status.get("output_cid", ""),
        "signature": signature,
    }
    for name, value in found.items():
        print(f"{name}={shlex.quote(value)}")


main()
