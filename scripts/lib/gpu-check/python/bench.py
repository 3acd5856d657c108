"""What a job with a card costs through the agent, against the engine alone: create, start, wait, remove."""

import asyncio
import json
import os
import statistics
import time

import engine
import measure

NOOP = ["/bin/sh", "-c", "echo x >/output/output"]
BARE_NOOP = ["/bin/sh", "-c", "echo x >/tmp/output"]
CONTEXT = ["/bin/gpujob", "ctx"]
WARM_UP = 2
# A context takes long: a quarter of the rounds.
CONTEXT_EACH = 4
JOB_S = 60


class Agent:
    """The agent from outside: publishes jobs and waits for their terminal statuses."""

    def __init__(self, image: str) -> None:
        self.image, self.address = image, os.environ["AGENT_ADDRESS"]
        self.waiting: dict[str, asyncio.Future] = {}
        self.count, self.prefix = 0, f"bench-{time.time_ns():x}"

    async def connect(self) -> None:
        """Listens for statuses."""
        import nats

        self.client = await nats.connect(os.environ["NATS_URL"])
        await self.client.subscribe(f"jobs.status.{self.address}.*", cb=self.received)
        await self.client.flush()

    async def received(self, message: object) -> None:
        """Notes a terminal status with its time."""
        ended = time.time_ns()
        status = json.loads(message.data)
        future = self.waiting.get(status["job_id"])
        if status["status"] != "processing" and future and not future.done():
            future.set_result((ended, status))

    async def job(self, gpus: int, command: list[str]) -> float:
        """From publish to terminal status, in milliseconds."""
        self.count += 1
        job_id = f"{self.prefix}-{self.count}"
        future = self.waiting[job_id] = asyncio.get_running_loop().create_future()
        body = {"job_id": job_id, "image_name": self.image, "gpus": gpus, "command": command}
        published = time.time_ns()
        await self.client.publish(f"jobs.dispatch.{self.address}", json.dumps(body).encode())
        await self.client.flush()
        ended, status = await asyncio.wait_for(future, JOB_S)
        if status["status"] != "completed":
            raise RuntimeError(f"{status['status']} {status.get('reason_code')} {status.get('error')}")
        return (ended - published) / 1e6


async def rounds(kinds: dict, count: int, until: float) -> tuple[dict, dict]:
    """Runs all kinds in turn, as long as there is time. One that failed is not repeated."""
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    failed: dict[str, str] = {}
    for number in range(-WARM_UP, count):
        if time.time() > until:
            break
        # Who goes first changes: the card is awake for whoever follows a context.
        order = list(kinds.items())
        if number // CONTEXT_EACH % 2:
            order.reverse()
        for kind, run in order:
            if kind in failed or (kind.endswith("context") and number % CONTEXT_EACH):
                continue
            try:
                took = await run()
            except Exception as err:  # a kind that fails is told of, the others go on
                failed[kind] = f"{type(err).__name__}: {err}"[:300]
                continue
            if number >= 0:
                times[kind].append(took)
    return times, failed


async def measured(out: str, image: str, uuid: str, agent_pid: int, count: int, budget_s: float) -> int:
    """Runs the rounds and writes what they took."""
    agent, kept = Agent(image), engine.Engine()
    await agent.connect()

    def alone(command: list[str], card: str | None) -> float:
        began = time.perf_counter()
        try:
            code, _ = kept.run(image, command, card, keep_log=False)
        except Exception:
            kept.close()
            raise
        if code != 0:
            raise RuntimeError(f"exit {code}")
        return (time.perf_counter() - began) * 1000

    kinds = {
        "agent GPU no-op": lambda: agent.job(1, NOOP),
        "agent CPU no-op": lambda: agent.job(0, NOOP),
        "engine GPU no-op": lambda: asyncio.to_thread(alone, BARE_NOOP, uuid),
        "engine CPU no-op": lambda: asyncio.to_thread(alone, BARE_NOOP, None),
        "agent context": lambda: agent.job(1, CONTEXT),
        "engine context": lambda: asyncio.to_thread(alone, CONTEXT, uuid),
    }
    before = measure.cpu_seconds(agent_pid)
    times, failed = await rounds(kinds, count, time.time() + budget_s)
    cpu = (measure.cpu_seconds(agent_pid) - before) / max(1, agent.count)
    await agent.client.close()
    found = {kind: measure.summary(values) for kind, values in times.items()}
    with open(out, "w", encoding="utf-8") as file:
        json.dump({**found, "agent_cpu_s_per_job": round(cpu, 5), "failed": failed, "raw": times}, file, indent=1)
    if failed or not all(times.values()):
        print(f"failed: {failed or 'no time for a round'}")
        return 1
    pairs = [f"{kind} {statistics.median(times[f'agent {kind}']):.0f} / {statistics.median(times[f'engine {kind}']):.0f}"
             for kind in ("GPU no-op", "CPU no-op", "context")]
    print(f"p50 ms, agent / engine alone: {', '.join(pairs)} (n {len(times['agent GPU no-op'])}, contexts "
          f"{len(times['agent context'])}); {cpu * 1000:.1f} ms of CPU a job, RSS {measure.rss_mib(agent_pid):.0f} MiB")
    return 0


def main(out: str, image: str, uuid: str, agent_pid: str, count: str, budget_s: str) -> int:
    """The command."""
    return asyncio.run(measured(out, image, uuid, int(agent_pid), int(count), float(budget_s)))
