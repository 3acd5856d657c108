"""Measures what hostile jobs take from a neighbour: a CPU-bound job's run time alone and beside them, in turn."""

import asyncio
import statistics
from collections.abc import Callable

from agent import Agent, Dispatcher

# So many slots, and the shares of the jobs, that all of them fit on two cores with some room for the engine.
SLOTS = 8
# Half a core, and work for some seconds of it.
COUNT = ('i=0; while [ "$i" -lt 1500000 ]; do i=$((i+1)); done; echo done > /output/output')
NEIGHBOUR = {"command": ["/bin/sh", "-c", COUNT], "cpus": 0.5, "memory_mib": 64, "disk_mib": 64}
# What each of them goes on with until it is cancelled. A bomb that forks into its memory limit is no part of it: the
# engine takes minutes to end hundreds of processes that each wait for the kernel's memory killer, and the row would
# measure that.
HOSTILE = {
    "forks": "while :; do i=0; while [ $i -lt 100 ]; do i=$((i+1)); true & done; wait; done",
    "memory": "while :; do tail /dev/zero; done",
    "disk": "while :; do dd if=/dev/zero of=/tmp/x bs=1M count=24; done",
    "files": "cd /tmp; while :; do i=0; while [ $i -lt 999 ]; do i=$((i+1)); : > $i; done; rm -f *; done",
    "log": "yes 'a line of a flood'",
}
LIMITS = {"cpus": 0.2, "memory_mib": 64, "disk_mib": 64, "timeout_s": 600}


async def hostile(dispatcher: Dispatcher, image: str, script: str, stop: asyncio.Event) -> None:
    """Keeps such a job running until `stop`: one that meets a limit of its own is followed by another."""
    job = LIMITS | {"image_name": image, "command": ["/bin/sh", "-c", script]}
    while not stop.is_set():
        job_id, ended = await dispatcher.begin(job)
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not ended.done():
            await dispatcher.cancel(job_id)
            await ended


async def run_ms(dispatcher: Dispatcher, image: str) -> int:
    """The neighbour's run time by the engine's clock."""
    done = await dispatcher.run(NEIGHBOUR | {"image_name": image}, limit_s=300)
    return done.status["duration_ms"]["run"]


async def measure(image: str, rounds: int, log: str, say: Callable[[str], None]) -> dict:
    """The neighbour alone, then beside one hostile job of each kind, in turn."""
    times: dict[str, list[int]] = {"alone": [], "beside": []}
    with Agent(SLOTS, log, {"JOB_STOP_GRACE_S": "1"}):
        dispatcher = await Dispatcher.connect()
        await run_ms(dispatcher, image)
        for number in range(rounds):
            times["alone"].append(await run_ms(dispatcher, image))
            stop = asyncio.Event()
            attacks = [asyncio.ensure_future(hostile(dispatcher, image, script, stop))
                       for script in HOSTILE.values()]
            # They have to be there before it begins.
            await asyncio.sleep(5)
            times["beside"].append(await run_ms(dispatcher, image))
            stop.set()
            await asyncio.gather(*attacks)
            say(f"{number + 1} of {rounds}: alone {times['alone'][-1]} ms, "
                f"beside {len(HOSTILE)} hostile jobs {times['beside'][-1]} ms")
        await dispatcher.close()
    medians = {kind: statistics.median(found) for kind, found in times.items()}
    return {"neighbour": {"run_ms": medians, "hostile": len(HOSTILE),
                          "ratio": round(medians["beside"] / medians["alone"], 3)}}
