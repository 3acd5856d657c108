"""Measures what networks made ahead save: the engine alone, and no-op jobs through the agent."""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable

from agent import Agent, Dispatcher
from engine import Engine, docker_run
from report import summary

AT_ONCE = 20
NOTHING = ["/bin/sh", "-c", "true"]
# A job that leaves nothing has failed.
WRITE = ["/bin/sh", "-c", "echo done > /output/output"]
# As the agent's own containers (`src/container/policy`), without its folders.
HARDENED = {
    "CapDrop": ["ALL"],
    "CapAdd": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"],
    "SecurityOpt": ["no-new-privileges"], "IpcMode": "private", "Init": True,
    "Memory": 64 << 20, "MemorySwap": 64 << 20, "PidsLimit": 4096, "NanoCpus": 10**9,
    "ShmSize": 64 << 20, "OomScoreAdj": 500,
    "Ulimits": [{"Name": name, "Soft": most, "Hard": most}
                for name, most in (("core", 0), ("nofile", 16384), ("nproc", 16384))],
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "256m", "max-file": "2"}},
}
TOOL = "lamda-node/probe"


def tool_image(engine: Engine) -> str:
    """The tool image, which an agent has imported at its start."""
    for image in engine.call("GET", "/images/json"):
        for tag in image["RepoTags"] or []:
            if tag.startswith(f"{TOOL}:"):
                return tag
    raise SystemExit(f"bench: the engine has no {TOOL}")


def hold(engine: Engine, image: str) -> str:
    """Starts a holder and returns its id."""
    created = engine.call("POST", "/containers/create", {
        "Image": image, "Cmd": ["/lamda-probe", "hold"], "HostConfig": {"NetworkMode": "none"}})
    engine.call("POST", f"/containers/{created['Id']}/start")
    return created["Id"]


def to_exit(engine: Engine, image: str, network: str, sandbox: dict | None = None) -> float:
    """Runs a container from create to exit, hardened unless told otherwise; returns the ms."""
    sandbox = HARDENED if sandbox is None else sandbox
    started = time.perf_counter()
    created = engine.call("POST", "/containers/create", {
        "Image": image, "Cmd": NOTHING, "HostConfig": sandbox | {"NetworkMode": network}})
    path = f"/containers/{created['Id']}"
    engine.call("POST", f"{path}/start")
    engine.call("POST", f"{path}/wait")
    took = (time.perf_counter() - started) * 1000
    engine.call("DELETE", f"{path}?v=1")
    return took


def joined(engine: Engine, image: str, tool: str) -> float:
    """The same in a network that was made before."""
    holder = hold(engine, tool)
    took = to_exit(engine, image, f"container:{holder}")
    engine.call("DELETE", f"/containers/{holder}?force=1")
    return took


def at_once(run: Callable[[int], object]) -> float:
    """Runs that many at once; returns the ms until all are done."""
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, range(AT_ONCE)))
    return (time.perf_counter() - started) * 1000


def engine_alone(image: str, rounds: int) -> dict:
    """The engine with and without a network made before, in turn."""
    engine = Engine()
    tool = tool_image(engine)
    times: dict[str, list[float]] = {"plain": [], "none": [], "joined": []}
    for number in range(rounds):
        # Who goes first changes, since the second of two finds a warmer engine.
        for kind in ("plain", "none") if number % 2 else ("none", "plain"):
            sandbox = {} if kind == "plain" else None
            times[kind].append(to_exit(engine, image, "none", sandbox))
        times["joined"].append(joined(engine, image, tool))
    holders = [hold(engine, tool) for _ in range(AT_ONCE)]
    burst = {
        "none": at_once(lambda _: to_exit(Engine(), image, "none")),
        "joined": at_once(lambda at: to_exit(Engine(), image, f"container:{holders[at]}")),
    }
    for holder in holders:
        engine.call("DELETE", f"/containers/{holder}?force=1")
    more = [hardened - plain for hardened, plain in zip(times["none"], times["plain"])]
    return {"sandbox_ms": summary(more, (50, 95)),
            "engine_ms": {kind: summary(found) for kind, found in times.items()},
            "engine_burst_ms": {kind: round(found) for kind, found in burst.items()}}


async def made_ahead(count: int) -> None:
    """Waits until the agent has that many networks ready."""
    engine = Engine()
    for _ in range(600):
        listed = engine.call("GET", '/containers/json?filters={"label":["lamda.network"]}')
        names = [one["Names"][0] for one in listed]
        if sum(not name.endswith("-new") for name in names) == count:
            return
        await asyncio.sleep(0.1)
    raise SystemExit("bench: the agent makes no networks ahead")


async def measure(image: str, rounds: int, log: str, say: Callable[[str], None]) -> dict:
    """No-op jobs by `docker run` and through agents with and without networks made ahead, in turn."""
    times: dict[str, list[float]] = {"docker_run": [], "cold": [], "warm": [], "internet": []}
    bursts: dict[str, float] = {}
    found: dict = {}
    for kind, spare in (("cold", 0), ("warm", AT_ONCE)):
        settings = {"JOB_WARM_NETWORKS": str(spare), "JOB_NETWORK": "internet"}
        with Agent(AT_ONCE, log, settings):
            dispatcher = await Dispatcher.connect()
            job = {"image_name": image, "command": WRITE}
            await dispatcher.run(job)
            for number in range(rounds):
                await made_ahead(2 * spare)
                times[kind].append((await dispatcher.run(job)).took_ms)
                if spare:
                    await made_ahead(2 * spare)
                    wide = job | {"network": "internet"}
                    times["internet"].append((await dispatcher.run(wide)).took_ms)
                    await made_ahead(2 * spare)
                    started = time.perf_counter()
                    docker_run(image, NOTHING, [])
                    times["docker_run"].append((time.perf_counter() - started) * 1000)
                if number % 10 == 9:
                    say(f"{kind}: {number + 1} of {rounds}")
            await made_ahead(2 * spare)
            started = time.perf_counter()
            await asyncio.gather(*(dispatcher.run(job) for _ in range(AT_ONCE)))
            bursts[kind] = (time.perf_counter() - started) * 1000
            if spare:
                await made_ahead(2 * spare)
                bursts["docker_run"] = at_once(lambda _: docker_run(image, NOTHING, []))
                found = engine_alone(image, rounds)
            await dispatcher.close()
    return {"networks": found | {
        "jobs_ms": {kind: summary(took) for kind, took in times.items()},
        "burst_ms": {kind: round(took) for kind, took in bursts.items()}}}
