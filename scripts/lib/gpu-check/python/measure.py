"""The cost of the idle agent, of a CUDA context on a card that slept, and of each line of the sandbox."""

import glob
import json
import os
import re
import statistics
import subprocess
import time

import compare
import engine


def summary(values: list[float]) -> dict:
    """Median, 95th percentile and extremes, rounded to a tenth."""
    if not values:
        return {}
    ordered = sorted(values)
    return {"n": len(ordered), "p50": round(statistics.median(ordered), 1),
            "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 1),
            "min": round(ordered[0], 1), "max": round(ordered[-1], 1)}


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process with all its threads, those that ended included, in nanoseconds' precision: the
    kernel's clock of another process (clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def rss_mib(pid: int) -> float:
    """Resident memory."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def of_threads(pid: int) -> dict[str, float]:
    """The CPU seconds of each thread that lives, by its id and name."""
    found = {}
    for folder in glob.glob(f"/proc/{pid}/task/*"):
        try:
            with open(f"{folder}/comm", encoding="utf-8") as name, open(f"{folder}/schedstat", encoding="utf-8") as stat:
                found[f"{folder} {name.read().strip()}"] = int(stat.read().split()[0]) / 1e9
        except OSError:
            continue  # it ended meanwhile
    return found


def cpu(pid: str, seconds: str) -> None:
    """Prints the share of one core that a process used, and the parts of the thread that waits for the card's events
    and of the threads that ended meanwhile: each question to the card's driver has one of its own."""
    number = int(pid)
    threads, before, began = of_threads(number), cpu_seconds(number), time.monotonic()
    time.sleep(float(seconds))
    took, used = time.monotonic() - began, cpu_seconds(number) - before
    living = {key: now - threads.get(key, 0) for key, now in of_threads(number).items()}
    events = sum(part for key, part in living.items() if key.endswith(" nvml-events"))
    ended = max(0, used - sum(living.values()))
    print(f"{100 * used / took:.3f} % of a core over {took:.0f} s idle with sampling: {100 * events / took:.3f} by the "
          f"thread that waits for events, {100 * ended / took:.3f} by threads that ended, which ask the driver; "
          f"RSS {rss_mib(number):.0f} MiB")


def context_ms(job: str) -> float:
    """How long a new process takes to make a CUDA context."""
    words = subprocess.run([job, "ctx"], capture_output=True, text=True, timeout=30, check=True).stdout
    return float(re.search(r'"context_ms":([0-9.]+)', words).group(1))


def watts() -> float | None:
    """What the first card draws now."""
    return compare.number(compare.smi("power.draw")[0]["power.draw"])


def awake(job: str, pause_s: str, rounds: str) -> None:
    """Contexts on a card that slept, that was just used, and that another process keeps awake, in turn."""
    pause = float(pause_s)
    times: dict[str, list[float]] = {"slept": [], "just used": [], "kept awake": []}
    drawn: dict[str, list[float]] = {"asleep": [], "kept awake": []}
    context_ms(job)
    for _ in range(int(rounds)):
        time.sleep(pause)
        drawn["asleep"].append(watts() or 0)
        times["slept"].append(context_ms(job))
        times["just used"].append(context_ms(job))
        keeper = subprocess.Popen([job, "hold", "60"], stdout=subprocess.DEVNULL)
        time.sleep(pause)
        drawn["kept awake"].append(watts() or 0)
        times["kept awake"].append(context_ms(job))
        keeper.terminate()
        keeper.wait(10)
    contexts = ", ".join(f"{name} {statistics.median(values):.0f} ms ({min(values):.0f} to {max(values):.0f})"
                         for name, values in times.items())
    power = ", ".join(f"{name} {statistics.median(values):.0f} W" for name, values in drawn.items())
    print(f"a CUDA context on a card that {contexts}; n {rounds}, {pause:g} s between; it draws {power}")


def sandbox_cost(image: str, uuid: str, rounds: str, folder: str) -> None:
    """What each line of the container's limits costs a job that makes a CUDA context: variants in turn."""
    for name in ("in", "out"):
        os.makedirs(f"{folder}/cost-{name}", exist_ok=True)
    bind = {"Type": "bind", "BindOptions": {"Propagation": "private", "NonRecursive": True}}
    lines = {
        "memory": {"Memory": 4 << 30, "MemorySwap": 4 << 30},
        "cpus": {"NanoCpus": (os.cpu_count() or 1) * 10**9},
        "pids": {"PidsLimit": 4096},
        "shm": {"ShmSize": 1 << 30},
        "oom": {"OomScoreAdj": 500},
        "log": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "256m", "max-file": "2"}}},
        "mounts": {"Mounts": [{**bind, "Source": f"{folder}/cost-in", "Target": "/input", "ReadOnly": True},
                              {**bind, "Source": f"{folder}/cost-out", "Target": "/output"}]},
    }
    kinds = {"bare": {}, **lines, "all": {key: value for line in lines.values() for key, value in line.items()}}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    kept = engine.Engine()
    for number in range(-1, int(rounds)):
        for kind, more in kinds.items():
            began = time.perf_counter()
            code, _ = kept.run(image, ["/bin/gpujob", "ctx"], uuid, keep_log=False, more=more)
            if code != 0:
                raise SystemExit(f"{kind}: exit {code}")
            # The first round warms up.
            if number >= 0:
                times[kind].append((time.perf_counter() - began) * 1000)
    print(json.dumps({kind: summary(values) for kind, values in times.items()}))
    print("p50 ms of a CUDA context in a container: " +
          ", ".join(f"{kind} {statistics.median(values):.0f}" for kind, values in times.items()))
