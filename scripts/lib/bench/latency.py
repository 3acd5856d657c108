"""How soon the agent acts: on a job that came, on a container that exited, after a restart."""

import asyncio
import contextlib
import os
import secrets
import subprocess
import time
from pathlib import Path

import nats.errors

from agent import Agent, Dispatcher
from engine import Watch
from report import summary

# Ends by itself and leaves nothing to upload: neither output nor log.
NOTHING = ["/bin/sh", "-c", "sleep 0.2; exit 3"]
# Restarted over and over while these run.
LONG = ["/bin/sh", "-c", "sleep 600"]


async def start_and_end(rounds: int, warm_up: int, image: str, dispatcher: Dispatcher) -> dict:
    """Publish to the engine's create, and exit to the terminal status received."""
    watch = Watch()
    job = {"image_name": image, "command": NOTHING}
    create, finished, told = [], [], []
    for number in range(warm_up + rounds):
        done = await dispatcher.run(job, expected="failed")
        created_ns, ended_ns = await asyncio.to_thread(watch.of, done.job_id)
        if number >= warm_up:
            create.append((created_ns - done.published_ns) / 1e6)
            # The engine's clock in whole milliseconds, as the receipt has it.
            finished_ms = int(done.status["receipt"]["message"]["finishedAt"])
            finished.append(done.ended_ns / 1e6 - finished_ms)
            told.append((done.ended_ns - ended_ns) / 1e6)
    return {"publish_to_create_ms": summary(create), "exit_to_status_ms": summary(finished),
            "told_to_status_ms": summary(told)}


async def first_pull(pulls: object, **how: object) -> tuple[Agent, float]:
    """Starts an agent; how long it took to ask for its first job, in ms."""
    # What the agent before this one had asked for.
    with contextlib.suppress(nats.errors.TimeoutError):
        while True:
            await pulls.next_msg(timeout=0.3)
    agent = Agent(**how)
    try:
        await pulls.next_msg(timeout=60)
    except nats.errors.TimeoutError:
        raise SystemExit(f"bench: no pull within 60 s; the agent's log is {agent.log}") from None
    return agent, (time.time_ns() - agent.started_ns) / 1e6


def plain_key() -> tuple[str, dict[str, str | None]]:
    """A fresh key that opens at once, as settings; and its address."""
    settings = {"AGENT_KEYSTORE": None, "AGENT_KEYSTORE_PASSPHRASE_FILE": None,
                "AGENT_PRIVATE_KEY": secrets.token_hex(32)}
    given = {key: value for key, value in (os.environ | settings).items() if value is not None}
    address = subprocess.run([os.environ["LAMDA_NODE"], "key", "address"], env=given, check=True,
                             capture_output=True, text=True).stdout
    return address.strip(), settings


async def restart(rounds: int, image: str, folder: Path) -> dict:
    """From the process's start to its first pull: with nothing to go on with, and with jobs whose
    containers run on. The agent is ended by SIGKILL in between."""
    address, settings = plain_key()
    settings["DATA_DIR"] = str(folder / "restarted")
    how = {"slots": 4, "log": str(folder / "agent.log"), "settings": settings}
    with Agent(**how):
        # Streams and consumer are made.
        dispatcher = await Dispatcher.connect(address)
        await dispatcher.run({"image_name": image, "command": NOTHING}, expected="failed")
    pulls = await dispatcher.pulls()
    empty, busy = [], []
    for _ in range(rounds):
        agent, took = await first_pull(pulls, **how)
        agent.kill()
        empty.append(took)
    watch, jobs = Watch(), [f"restart-{time.time_ns()}-{number}" for number in range(4)]
    agent = Agent(**how)
    for job_id in jobs:
        await dispatcher.publish(job_id, {"image_name": image, "command": LONG})
    while any(job_id not in watch.created_ns for job_id in jobs):
        await asyncio.sleep(0.05)
    # Until they are known to run.
    await asyncio.sleep(2)
    agent.kill()
    for number in range(rounds):
        agent, took = await first_pull(pulls, **how)
        busy.append(took)
        if number < rounds - 1:
            agent.kill()
    with agent:
        for job_id in jobs:
            await dispatcher.cancel(job_id)
    await dispatcher.close()
    return {"restart_to_pull_ms": {"empty": summary(empty, (50, 95)),
                                   "four_running": summary(busy, (50, 95))}}
