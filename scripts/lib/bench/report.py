"""Percentiles, the JSON of the results, and the table that docs/performance.md shows."""

import math


def percentile(values: list[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least this share do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(values: list[float], shares: tuple[int, ...] = (50, 95, 99)) -> dict[str, float]:
    """The percentiles of values in ms by name: `p50`, `p95`, `p99`."""
    return {f"p{share}": round(percentile(values, share / 100), 1) for share in shares}


def verdict(good: bool) -> str:
    """The last cell of a row with a target."""
    return "met" if good else "**missed**"


def table(results: dict) -> str:
    """The results as a Markdown table, each row with its target."""
    parts = {"noop_ms": latency, "jobs_per_s": throughput, "idle": footprint, "fetch_mib_s": fetch,
             "publish_to_create_ms": reaction, "restart_to_pull_ms": restart, "pipeline": pipeline,
             "networks": networks, "neighbour": neighbour, "fakes": fakes}
    rows = [row for key, part in parts.items() if key in results for row in part(results)]
    lines = ["| what | figure | target | |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def percentiles(figures: dict) -> str:
    """A summary as `p50 / p95 / p99 ms`."""
    return " / ".join(f"{value:.1f}" for value in figures.values()) + " ms"


def reaction(results: dict) -> list[tuple[str, ...]]:
    """The rows of publish to create and of exit to terminal status."""
    create, told = results["publish_to_create_ms"], results["told_to_status_ms"]
    return [
        ("publish to container create, p50 / p95 / p99", percentiles(create), "p50 at most 15 ms",
         verdict(create["p50"] <= 15)),
        ("exit to terminal status, nothing to upload, from the engine's answer to a wait, "
         "p50 / p95 / p99", percentiles(told), "p50 at most 15 ms", verdict(told["p50"] <= 15)),
        ("… from the engine's `FinishedAt`, its own clearing away included",
         percentiles(results["exit_to_status_ms"]), "", ""),
    ]


def restart(results: dict) -> list[tuple[str, ...]]:
    """The rows of restart to first pull."""
    words = {"empty": "an empty journal", "four_running": "four jobs that run"}
    return [(f"restart to first pull, {words[kind]}, p50 / p95", percentiles(figures),
             "p50 under 300 ms", verdict(figures["p50"] < 300))
            for kind, figures in results["restart_to_pull_ms"].items()]


def pipeline(results: dict) -> list[tuple[str, ...]]:
    """The rows of the pipeline on the engine."""
    found = results["pipeline"]
    return [
        (f"{found['jobs']} jobs of 1 s fetch, `sleep 1`, 1 s upload on one slot: one by one",
         f"{found['serial_s']:.1f} s", "", ""),
        ("… all at once", f"{found['together_s']:.1f} s",
         f"at most 1.05 × (2 s + {found['jobs']} × {found['engine_sleep_1_s']:.2f} s) = "
         f"{found['limit_s']:.1f} s", verdict(found["together_s"] <= found["limit_s"])),
    ]


def networks(results: dict) -> list[tuple[str, ...]]:
    """The rows of networks made ahead."""
    found = results["networks"]
    jobs, burst = found["jobs_ms"], found["burst_ms"]
    engine, engine_burst = found["engine_ms"], found["engine_burst_ms"]
    words = {"docker_run": "`docker run --rm --network none`", "cold": "agent, no network made ahead",
             "warm": "agent, networks made ahead", "internet": "the same with `internet`"}
    share = jobs["warm"]["p50"] / jobs["docker_run"]["p50"]
    more = jobs["internet"]["p50"] - jobs["warm"]["p50"]
    ends = {"warm": (f"p50 at most 0.6 of docker run (is {share:.2f})", verdict(share <= 0.6)),
            "internet": (f"p50 at most 10 ms more (is {more:.0f})", verdict(more <= 10))}
    rows = [(f"no-op without input, p50 / p95 / p99: {words[kind]}", percentiles(jobs[kind]),
             *ends.get(kind, ("", ""))) for kind in words]
    share = burst["warm"] / burst["docker_run"]
    rows.append(("20 at once, until all are done: docker run, agent cold, agent warm",
                 f"{burst['docker_run']}, {burst['cold']}, {burst['warm']} ms",
                 f"at most 0.6 of docker run (is {share:.2f})", verdict(share <= 0.6)))
    rows.append(("engine alone, hardened, create to exit, p50: none, joined",
                 f"{engine['none']['p50']:.0f}, {engine['joined']['p50']:.0f} ms", "", ""))
    more = found["sandbox_ms"]
    rows.append(("engine alone, what the sandbox adds to a plain container, pair by pair, p50 / p95",
                 percentiles(more), "p50 at most 10 ms", verdict(more["p50"] <= 10)))
    rows.append(("… 20 at once: none, joined",
                 f"{engine_burst['none']}, {engine_burst['joined']} ms", "", ""))
    return rows


def neighbour(results: dict) -> list[tuple[str, ...]]:
    """The row of a CPU-bound job beside hostile ones."""
    found = results["neighbour"]
    alone, beside = found["run_ms"]["alone"], found["run_ms"]["beside"]
    return [(f"run time of a CPU-bound job: alone, beside {found['hostile']} hostile ones, p50",
             f"{alone:.0f}, {beside:.0f} ms", f"changes by less than a tenth (is {found['ratio']:.2f})",
             verdict(0.9 < found["ratio"] < 1.1))]


def fakes(results: dict) -> list[tuple[str, ...]]:
    """The rows of `cargo bench --bench jobs`."""
    found = results["fakes"]
    piped, adopted, line = found["pipeline"], found["adoption"], found["line"]
    return [
        (f"on fakes: {line['cards']} cards given out among {line['jobs']:,} waiting jobs, p50: the decision, "
         "with every waiting task woken", f"{line['decision_ms']:.2f}, {line['board_ms']:.1f} ms",
         "the decision under 1 ms", verdict(line["decision_ms"] < 1)),
        ("on fakes: jobs a second through plan and journal", f"{found['jobs_per_s']:.0f}",
         "at least 1,500", verdict(found["jobs_per_s"] >= 1500)),
        (f"on fakes: {piped['jobs']} jobs of 1 s fetch, run and upload on one slot, all at once "
         f"({piped['serial_jobs']} one by one)",
         f"{piped['together_s']:.2f} s ({piped['serial_s']:.1f} s)",
         f"at most {piped['limit_s']:.1f} s", verdict(piped["together_s"] <= piped["limit_s"])),
        (f"on fakes: {adopted['containers']} running containers adopted",
         f"{adopted['ms']:.0f} ms", "under 1 s", verdict(adopted["ms"] < 1000)),
        (f"on fakes: an output of {found['folder']['files']:,} small files, sealed, uploaded and stored: "
         "in all, of processor time",
         f"{found['folder']['seal_and_publish_s']:.1f} s, {found['folder']['cpu_s']:.1f} s",
         "under 5 s", verdict(found["folder"]["seal_and_publish_s"] < 5)),
        *year(found["year"]),
    ]


def year(found: dict) -> list[tuple[str, ...]]:
    """The rows about a journal of millions of jobs."""
    name = f"journal of {found['jobs']:,} jobs"
    (empty, full), (little, much) = found["commit_p99_ms"], found["resident_mib"]
    forget, statuses, flat = found["forget"], found["statuses_at_100_ms"], found["flat"]
    first, last = flat["resident_mib"][1], flat["resident_mib"][-1]
    return [
        (f"{name}: bytes a job that is done, receipt and indexes included",
         f"{found['bytes_a_job']:.0f}", "under 2,048", verdict(found["bytes_a_job"] < 2048)),
        (f"{name}: commit p99, empty, full", f"{empty:.2f}, {full:.2f} ms",
         "at most twice the empty one's", verdict(full <= 2 * empty)),
        (f"{name}: resident, empty, full", f"{little:.1f}, {much:.1f} MiB", "within 10 %",
         verdict(much <= 1.1 * little)),
        (f"{name}: longest wait of another while {forget['rows']:,} are forgotten",
         f"{forget['longest_wait_ms']:.1f} ms (p99 {forget['wait_p99_ms']:.1f})", "under 20 ms",
         verdict(forget["longest_wait_ms"] < 20)),
        ("on fakes: statuses a second, the server 100 ms away", f"{statuses['a_second']:.0f}",
         "at least 500", verdict(statuses["a_second"] >= 500)),
        ("on fakes: resident after 2,000 jobs and after 4,000", f"{first:.1f}, {last:.1f} MiB",
         "within 5 %", verdict(last <= 1.05 * first)),
    ]


def latency(results: dict) -> list[tuple[str, ...]]:
    """The rows of the no-op job."""
    names = {"docker_run_none": "`docker run --rm --network none`",
             "engine": "Engine API, one kept connection", "agent": "agent, publish to status"}
    noop, minus = results["noop_ms"], results["agent_minus_engine_ms"]
    def cell(figures: dict) -> str:
        return " / ".join(f"{value:.0f}" for value in figures.values()) + " ms"
    agent, engine = noop["agent"]["p50"], noop["engine"]["p50"]
    is_good = agent <= 1.15 * engine and agent < noop["docker_run_none"]["p50"]
    rows = [(f"no-op job, p50 / p95 / p99: {names[kind]}", cell(noop[kind]), "", "")
            for kind in ("docker_run_none", "engine")]
    return rows + [
        (f"no-op job, p50 / p95 / p99: {names['agent']}", cell(noop["agent"]),
         f"p50 at most 1.15 of the engine's ({1.15 * engine:.0f} ms), below docker run",
         verdict(is_good)),
        ("agent minus engine, pair by pair, p50 / p95", cell(minus), "at most 30 / 60 ms",
         verdict(minus["p50"] <= 30 and minus["p95"] <= 60)),
    ]


def throughput(results: dict) -> list[tuple[str, ...]]:
    """The rows of jobs a second."""
    rows = []
    rates = results["jobs_per_s"]
    for at_a_time, docker in rates["docker_run_none"].items():
        agent = rates["agent"][at_a_time]
        held = at_a_time in ("4", "8")
        rows.append((
            f"jobs a second, {at_a_time} at a time: agent, docker run", f"{agent:.2f}, {docker:.2f}",
            "at least 0.95 of docker run" if held else "",
            verdict(agent >= 0.95 * docker) if held else ""))
    return rows


def footprint(results: dict) -> list[tuple[str, ...]]:
    """The rows of idle and peak memory."""
    idle, peak = results["idle"], results["peak_rss_mib"]
    return [
        ("agent idle, resident", f"{idle['rss_mib']:.1f} MiB", "at most 25 MiB",
         verdict(idle["rss_mib"] <= 25)),
        ("agent idle, of one core", f"{idle['cpu_percent']:.2f} %", "at most 0.2 %",
         verdict(idle["cpu_percent"] <= 0.2)),
        ("agent, peak resident while the large file goes in and out", f"{peak:.1f} MiB",
         "at most 96 MiB", verdict(peak <= 96)),
    ]


def fetch(results: dict) -> list[tuple[str, ...]]:
    """The rows of fetch speed."""
    rates = results["fetch_mib_s"]
    agent, plain, hashed = rates["agent"], rates["curl"], rates["curl_sha256sum"]
    return [
        ("fetch to disk: `curl -o`", f"{plain:.0f} MiB/s", "", ""),
        ("fetch: `curl` into `sha256sum`", f"{hashed:.0f} MiB/s", "", ""),
        ("fetch to disk, every block verified: agent", f"{agent:.0f} MiB/s",
         f"0.8 of `curl -o` ({0.8 * plain:.0f}), twice sha256sum ({2 * hashed:.0f})",
         verdict(agent >= 0.8 * plain and agent >= 2 * hashed)),
    ]
