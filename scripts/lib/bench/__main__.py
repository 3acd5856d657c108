"""Measures the cost of a job through the agent and without it, in one run.

usage: python bench [--quick] [--only PART]... [--json FILE] [--fakes FILE] FOLDER

Expects an agent's settings, DEMO_IMAGE and LAMDA_NODE in the environment. scripts/bench calls it;
docs/performance.md describes the rows.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import latency
import neighbour
import networks
import pipeline
from agent import Agent, Dispatcher, pin
from engine import Engine, docker_run
from report import summary, table

IMAGE = os.environ["DEMO_IMAGE"]
GATEWAY = os.environ["IPFS_GATEWAYS"].split(",")[0].rstrip("/")
COPY = ["/bin/sh", "-c", "cat /input/input > /output/output"]
# The extra first byte shifts all blocks, so that the store has none of the output's blocks yet.
SHIFT = ["/bin/sh", "-c", "{ echo; cat /input/input; } > /output/output"]


@dataclass(frozen=True)
class Scale:
    """The number of repetitions, and the sizes."""

    rounds: int
    warm_up: int
    jobs_a_level: int
    idle_s: int
    large_mib: int
    fetches: int
    latencies: int
    restarts: int
    pipelined: int


FULL = Scale(rounds=100, warm_up=10, jobs_a_level=48, idle_s=60, large_mib=1024, fetches=6,
             latencies=100, restarts=10, pipelined=20)
QUICK = Scale(rounds=10, warm_up=2, jobs_a_level=8, idle_s=5, large_mib=64, fetches=1,
              latencies=10, restarts=3, pipelined=5)


def say(text: str) -> None:
    """Prints progress, set off from the results."""
    print(f"   {text}", flush=True)


def tiny_job(number: int) -> dict:
    """A no-op job with a unique input, so that no cache has its input or output."""
    data = f"input {number} {time.time_ns()}\n".encode()
    return {"image_name": IMAGE, "command": COPY, "input_file_cid": pin(data, len(data))}


def tiny_binds(folder: Path) -> list[str]:
    """Binds with the same input and output, for the runs without the agent."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    (folder / "in/input").write_text("input\n", encoding="utf-8")
    return [f"{folder}/in:/input:ro", f"{folder}/out:/output"]


def timed(call: object, *arguments: object) -> float:
    """Makes a call and returns its duration in ms."""
    started = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - started) * 1000


async def noop(scale: Scale, dispatcher: Dispatcher, folder: Path) -> dict:
    """No-op jobs of the three kinds in turn, so that a noisy minute affects all of them."""
    engine, binds = Engine(), tiny_binds(folder)
    times: dict[str, list[float]] = {"docker_run_none": [], "engine": [], "agent": []}
    for number in range(scale.warm_up + scale.rounds):
        job = tiny_job(number)
        took = {
            "docker_run_none": timed(docker_run, IMAGE, COPY, binds),
            "engine": timed(engine.run, IMAGE, COPY, binds),
            "agent": (await dispatcher.run(job)).took_ms,
        }
        if number >= scale.warm_up:
            for kind, value in took.items():
                times[kind].append(value)
        if number % 10 == 9:
            say(f"{number + 1} of {scale.warm_up + scale.rounds} rounds")
    pairs = [agent - bare for agent, bare in zip(times["agent"], times["engine"])]
    return {"noop_ms": {kind: summary(values) for kind, values in times.items()},
            "agent_minus_engine_ms": summary(pairs, (50, 95))}


async def agent_rate(dispatcher: Dispatcher, jobs: list[dict], at_a_time: int) -> float:
    """Jobs a second through the agent, `at_a_time` in flight."""
    left = iter(jobs)

    async def worker() -> None:
        for job in left:
            await dispatcher.run(job)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_a_time)))
    return len(jobs) / (time.perf_counter() - started)


def docker_rate(count: int, binds: list[str], at_a_time: int) -> float:
    """Jobs a second by `docker run`, `at_a_time` in parallel."""
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
        list(pool.map(lambda _: docker_run(IMAGE, COPY, binds), range(count)))
    return count / (time.perf_counter() - started)


async def rates(scale: Scale, dispatcher: Dispatcher, folder: Path) -> dict:
    """Jobs a second at each level, in two halves, each by `docker run` and then by the agent."""
    binds = tiny_binds(folder)
    found: dict[str, dict[str, float]] = {"docker_run_none": {}, "agent": {}}
    for at_a_time in (1, 2, 4, 8):
        half = scale.jobs_a_level // 2
        docker, agent = [], []
        for _ in range(2):
            jobs = [tiny_job(number) for number in range(half)]
            docker.append(docker_rate(half, binds, at_a_time))
            agent.append(await agent_rate(dispatcher, jobs, at_a_time))
        # Equal amounts of work: the harmonic mean is the rate over both halves.
        found["docker_run_none"][str(at_a_time)] = round(statistics.harmonic_mean(docker), 2)
        found["agent"][str(at_a_time)] = round(statistics.harmonic_mean(agent), 2)
        say(f"{at_a_time} at a time: done")
    return {"jobs_per_s": found}


async def idle(scale: Scale, agent: Agent) -> dict:
    """Memory and CPU time of the idle agent, after the jobs before."""
    await asyncio.sleep(3)
    before, started = agent.cpu_s(), time.perf_counter()
    await asyncio.sleep(scale.idle_s)
    used = (agent.cpu_s() - before) / (time.perf_counter() - started)
    return {"idle": {"rss_mib": round(agent.rss_mib(), 1), "cpu_percent": round(100 * used, 3)}}


def large_file(path: Path, mib: int) -> None:
    """Writes random bytes, which can be neither compressed nor deduplicated."""
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))


def change(path: Path, number: int) -> str:
    """Changes the file's beginning and pins it under its new CID, which the agent has not cached."""
    with open(path, "r+b") as file:
        file.write(f"variant {number} {time.time_ns()}".encode())
    with open(path, "rb") as file:
        return pin(file, path.stat().st_size)


def curl(folder: Path, cid: str, hashed: bool) -> float:
    """The seconds that curl takes to fetch the same bytes."""
    url, path = f"{GATEWAY}/ipfs/{cid}", folder / "fetched"
    how = f"curl -sSf {url} | sha256sum" if hashed else f"curl -sSf -o {path} {url}"
    took = timed(lambda: subprocess.run(
        ["bash", "-o", "pipefail", "-c", how], check=True, stdout=subprocess.DEVNULL))
    path.unlink(missing_ok=True)
    return took / 1000


async def large(scale: Scale, dispatcher: Dispatcher, agent: Agent, folder: Path) -> dict:
    """Fetch speed of a large file, in turn with curl, and the agent's peak memory meanwhile."""
    path, mib = folder / "large", scale.large_mib
    large_file(path, mib)
    peak = 0.0
    seconds: dict[str, list[float]] = {"agent": [], "curl": [], "curl_sha256sum": []}
    for number in range(scale.fetches):
        cid = change(path, number)

        async def agent_fetches() -> float:
            nonlocal peak
            agent.forget_peak()
            job = {"image_name": IMAGE, "command": SHIFT, "input_file_cid": cid, "disk_mib": 4 * mib}
            done = await dispatcher.run(job, limit_s=900)
            peak = max(peak, agent.peak_rss_mib())
            return done.status["duration_ms"]["input"] / 1000

        kinds = list(seconds)
        # The order rotates, since later fetches of a round find a busier disk.
        for kind in kinds[number % 3:] + kinds[:number % 3]:
            os.sync()
            if kind == "agent":
                seconds[kind].append(await agent_fetches())
            else:
                seconds[kind].append(curl(folder, cid, hashed=kind == "curl_sha256sum"))
        took = ", ".join(f"{kind} {times[-1]:.2f} s" for kind, times in seconds.items())
        say(f"{mib} MiB in and out: {number + 1} of {scale.fetches}: {took}")
    path.unlink()
    speeds = {kind: round(mib / statistics.median(took), 1) for kind, took in seconds.items()}
    return {"peak_rss_mib": round(peak, 1), "fetch_mib_s": speeds}


@contextlib.asynccontextmanager
async def connected(slots: int | None, folder: Path) -> object:
    """A warm agent with `slots` slots (None: the agent's default), and a client."""
    with Agent(slots, str(folder / "agent.log")) as agent:
        dispatcher = await Dispatcher.connect()
        try:
            await dispatcher.run(tiny_job(0))
            yield agent, dispatcher
        finally:
            await dispatcher.close()


async def default_slots(scale: Scale, folder: Path) -> dict:
    """The rows of one agent with default slots: no-op jobs, idle, and the large file."""
    results: dict = {}
    async with connected(None, folder) as (agent, dispatcher):
        say(f"no-op jobs, {scale.rounds} of each kind in turn")
        results |= await noop(scale, dispatcher, folder)
        say(f"idle for {scale.idle_s} s")
        results |= await idle(scale, agent)
        say(f"{scale.large_mib} MiB in and out")
        results |= await large(scale, dispatcher, agent, folder)
    return results


async def eight_slots(scale: Scale, folder: Path) -> dict:
    """The rows of jobs a second, on an agent with eight slots."""
    async with connected(8, folder) as (_, dispatcher):
        say("jobs a second")
        return await rates(scale, dispatcher, folder)


async def latencies(scale: Scale, folder: Path) -> dict:
    """The rows of start and end of a job, one job at a time, and of restarts."""
    async with connected(None, folder) as (_, dispatcher):
        say(f"start and end of a job, {scale.latencies} times")
        results = await latency.start_and_end(
            scale.latencies, scale.warm_up, IMAGE, dispatcher)
    say(f"restart, {scale.restarts} times without and with jobs")
    return results | await latency.restart(scale.restarts, IMAGE, folder)


async def pipelined(scale: Scale, folder: Path) -> dict:
    """The rows of the pipeline."""
    say(f"{scale.pipelined} jobs with a slow store, on one slot")
    return await pipeline.measure(IMAGE, tiny_binds(folder), scale.pipelined, folder, say)


async def made_ahead(scale: Scale, folder: Path) -> dict:
    """The rows of networks made ahead."""
    say("jobs in networks made ahead")
    return await networks.measure(IMAGE, max(scale.rounds // 5, 3), str(folder / "agent.log"), say)


async def beside_hostile_jobs(scale: Scale, folder: Path) -> dict:
    """The row of a neighbour of hostile jobs."""
    say("a CPU-bound job alone and beside hostile ones")
    return await neighbour.measure(IMAGE, max(scale.rounds // 10, 3), str(folder / "agent.log"), say)


PARTS = {"jobs": default_slots, "rates": eight_slots, "latency": latencies, "pipeline": pipelined,
         "networks": made_ahead, "neighbour": beside_hostile_jobs}


async def measure(parts: list[str], scale: Scale, folder: Path) -> dict:
    """Measures these parts and returns their figures by key."""
    results: dict = {}
    for part in parts:
        results |= await PARTS[part](scale, folder)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=[*PARTS, "fakes"], action="append")
    parser.add_argument("--fakes", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    # Unwinds, as ctrl-C does, so that the agent is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scale = QUICK if options.quick else FULL
    parts = [part for part in PARTS if not options.only or part in options.only]
    results = asyncio.run(measure(parts, scale, options.folder))
    if options.fakes:
        results["fakes"] = json.loads(options.fakes.read_text(encoding="utf-8"))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\n{table(results)}")


main()
