"""The agent's latency: from publish to create, from exit to status, from restart to first pull."""

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

# Exits by itself and leaves neither output nor log to upload.
NOTHING = ["/bin/sh", "-c", "sleep 0.2; exit 3"]
# Runs throughout all restarts of the agent.
LONG = ["/bin/sh", "-c", "sleep 600"]


async def start_and_end(rounds: int, warm_up: int, image: str, dispatcher: Dispatcher) -> dict:
    """Measures publish to the engine's create, and exit to the terminal status received."""
    watch = Watch()
    job = {"image_name": image, "command": NOTHING}
    create, finished, told = [], [], []
    for number in range(warm_up + rounds):
        done = await dispatcher.run(job, expected="failed")
        created_ns, ended_ns = await asyncio.to_thread(watch.of, done.job_id)
        if number >= warm_up:
            create.append((created_ns - done.published_ns) / 1e6)
            # The receipt has the engine's `FinishedAt` in whole milliseconds.
            finished_ms = int(done.status["receipt"]["message"]["finishedAt"])
            finished.append(done.ended_ns / 1e6 - finished_ms)
            told.append((done.ended_ns - ended_ns) / 1e6)
    return {"publish_to_create_ms": summary(create), "exit_to_status_ms": summary(finished),
            "told_to_status_ms": summary(told)}


async def first_pull(pulls: object, **how: object) -> tuple[Agent, float]:
    """Starts an agent; returns it with the time to its first pull in ms."""
    # Drops the pulls of the previous agent.
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
    """The address of a new plain key, which needs no time to open, and the settings with it."""
    settings = {"AGENT_KEYSTORE": None, "AGENT_KEYSTORE_PASSPHRASE_FILE": None,
                "AGENT_PRIVATE_KEY": secrets.token_hex(32)}
    given = {key: value for key, value in (os.environ | settings).items() if value is not None}
    address = subprocess.run([os.environ["LAMDA_NODE"], "key", "address"], env=given, check=True,
                             capture_output=True, text=True).stdout
    return address.strip(), settings


async def restart(rounds: int, image: str, folder: Path) -> dict:
    """Measures process start to first pull after a SIGKILL, with an empty journal and with four jobs
    whose containers run."""
    address, settings = plain_key()
    settings["DATA_DIR"] = str(folder / "restarted")
    how = {"slots": 4, "log": str(folder / "agent.log"), "settings": settings}
    with Agent(**how):
        # The first run creates streams and consumer, so that no restart has to.
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
    # The journal must have them as running.
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
