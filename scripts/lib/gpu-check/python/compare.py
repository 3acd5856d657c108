"""What the node says of the cards against what nvidia-smi says of them.

A value that a card does not have is "[N/A]" there, and absent with a reason here: that is equal, too.
"""

import json
import subprocess
import time
from collections.abc import Callable

# Two readings of a moment are never of the same one.
BUSY_POINTS = 15
MEMORY_MIB = 64
PROCESS_MIB = 16
CELSIUS = 3
POWER_W = 30
SHARE = 0.15
# A card that computes all the time shows at least so much.
BUSY_LEAST = 50
ROUNDS = 3


def smi(*fields: str) -> list[dict]:
    """One row a card, by the fields' names."""
    text = subprocess.run(["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"],
                          capture_output=True, text=True, timeout=30, check=True).stdout
    rows = [[value.strip() for value in line.split(",")] for line in text.splitlines() if line.strip()]
    return [dict(zip(fields, row)) for row in rows]


def known(reading: object) -> object:
    """The value of a reading, or None."""
    return reading.get("Ok") if isinstance(reading, dict) else reading


def number(text: str) -> float | None:
    """A number of nvidia-smi's, or None where it has none."""
    try:
        return float(text)
    except ValueError:
        return None


def on(text: str) -> bool | None:
    """A mode of nvidia-smi's, or None where the card has no such mode."""
    return {"Enabled": True, "Disabled": False}.get(text)


# The fact here, the field there, and how the latter is read.
FACTS: list[tuple[str, str, Callable[[str], object]]] = [
    ("pci", "pci.bus_id", str.lower),
    ("compute_capability", "compute_cap", str),
    ("power_limit_mw", "enforced.power.limit", lambda text: round(1000 * value) if (value := number(text)) else None),
    ("ecc", "ecc.mode.current", on),
    ("mig", "mig.mode.current", on),
    ("persistence", "persistence_mode", on),
]


def facts(path: str) -> int:
    """Compares each fact of each card; prints one line at the end."""
    theirs = {row["uuid"]: row for row in smi("uuid", "name", "memory.total", *(field for _, field, _ in FACTS))}
    with open(path, encoding="utf-8") as file:
        ours = {card["uuid"]: card for card in map(json.loads, file) if card.get("here")}
    wrong, equal = [], 0
    if set(ours) != set(theirs):
        wrong.append(f"other cards: {sorted(ours)} against {sorted(theirs)}")
    for uuid in set(ours) & set(theirs):
        card, row = ours[uuid], theirs[uuid]
        pairs = [("model", card["model"], row["name"]), ("vram_mib", card["vram_mib"], number(row["memory.total"]))]
        for fact, field, read in FACTS:
            value = known((card.get("facts") or {}).get(fact))
            pairs.append((fact, value.lower() if isinstance(value, str) else value, read(row[field])))
        for name, here, there in pairs:
            print(f"{name}: {here} against {there}")
            equal += here == there
            wrong += [] if here == there else [f"{name} is {here} against {there}"]
        if card["health"] != "healthy":
            wrong.append(f"it is {card['health']}: {card['why']}")
    print("; ".join(wrong) if wrong else f"{equal} facts of {len(ours)} cards equal")
    return 1 if wrong or not ours else 0


def doctor(path: str) -> int:
    """Whether doctor's line on the cards has what nvidia-smi says of each."""
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if line.split(":")[0].split()[-1:] == ["gpu"]]
    line = lines[0] if lines else ""
    missing = []
    for row in smi("uuid", "name", "memory.total", *(field for _, field, _ in FACTS)):
        watts, ecc, mig = number(row["enforced.power.limit"]), on(row["ecc.mode.current"]), on(row["mig.mode.current"])
        words = [row["uuid"], row["name"], row["memory.total"] + " MiB", "compute " + row["compute_cap"],
                 "at " + row["pci.bus_id"]]
        words += [f"at most {int(watts)} W"] if watts else []
        words += [f"{name} {'on' if mode else 'off'}" for name, mode in (("ECC", ecc), ("MIG", mig)) if mode is not None]
        missing += [word for word in words if word.lower() not in line.lower()]
    print(f"doctor's line on the cards lacks: {', '.join(missing)}" if missing else "doctor's line agrees")
    return 1 if missing or not line else 0


# The sample here with its divisor to the other's unit, the field there, and how far they may be apart.
SAMPLES = [
    ("busy_percent", 1, "utilization.gpu", lambda _: BUSY_POINTS),
    ("used_bytes", 1 << 20, "memory.used", lambda _: MEMORY_MIB),
    ("power_mw", 1000, "power.draw", lambda value: max(POWER_W, SHARE * value)),
    ("celsius", 1, "temperature.gpu", lambda _: CELSIUS),
    ("sm_mhz", 1, "clocks.sm", lambda value: SHARE * value),
    ("memory_mhz", 1, "clocks.mem", lambda value: SHARE * value),
]


def apps() -> dict[int, float | None]:
    """The processes with a context by nvidia-smi, and the MiB of each."""
    text = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
                          capture_output=True, text=True, timeout=30, check=True).stdout
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    return {int(row[0]): number(row[1]) for row in rows}


def load(out: str, least: str, pids: str, *gpus: str) -> int:
    """Compares samples of a busy card, each of ours between two of theirs: two of three rounds must agree.
    `least` is how busy it must be at least, `pids` are the job's, `gpus` is the command that tells ours."""
    wanted = int(least or BUSY_LEAST)
    rounds = []
    for _ in range(ROUNDS):
        rounds.append(one_round(out, wanted, {int(pid) for pid in pids.split()}, list(gpus)))
        time.sleep(1)
    good = [text for is_good, text in rounds if is_good]
    print(good[-1] if len(good) >= 2 else next(text for is_good, text in rounds if not is_good))
    return 0 if len(good) >= 2 else 1


def one_round(out: str, least: int, pids: set[int], gpus: list[str]) -> tuple[bool, str]:
    """One comparison: whether everything agreed, and what was seen."""
    fields = [field for _, _, field, _ in SAMPLES]
    before = smi("uuid", *fields)
    told = subprocess.run(gpus, capture_output=True, text=True, timeout=30, check=False).stdout
    after, processes = smi("uuid", *fields), apps()
    cards = [json.loads(line) for line in told.splitlines()]
    busy = next((card for card in cards if card.get("job_id")), None)
    if not busy:
        return False, f"no card is held by a job: {told[:300]}"
    with open(out, "w", encoding="utf-8") as file:
        json.dump(busy, file)
    low, high = (next(row for row in rows if row["uuid"] == busy["uuid"]) for rows in (before, after))
    now, wrong, shown = busy["now"] or {}, [], []
    for name, unit, field, apart in SAMPLES:
        ours, bounds = known(now.get(name)), [number(low[field]), number(high[field])]
        if ours is None or None in bounds:
            wrong += [f"{name}: {ours} against {bounds}"] if (ours is None) != (None in bounds) else []
            continue
        ours = ours / unit
        shown.append(f"{field} {ours:.0f} ({bounds[0]:.0f} to {bounds[1]:.0f})")
        if not min(bounds) - apart(min(bounds)) <= ours <= max(bounds) + apart(max(bounds)):
            wrong.append(f"{name}: {ours} against {bounds}")
    mine = {process["pid"]: known(process["bytes"]) for process in known(now.get("processes")) or []}
    if set(mine) != set(processes) or not set(mine) & pids:
        wrong.append(f"processes {sorted(mine)} against {sorted(processes)}; the job's are {sorted(pids)}")
    for pid in set(mine) & set(processes):
        if mine[pid] and processes[pid] and abs(mine[pid] / (1 << 20) - processes[pid]) > PROCESS_MIB:
            wrong.append(f"process {pid}: {mine[pid] >> 20} MiB against {processes[pid]}")
    if (known(now.get("busy_percent")) or 0) < least:
        wrong.append(f"only {known(now.get('busy_percent'))} % busy")
    text = "; ".join(wrong) if wrong else "ours (nvidia-smi's before and after): " + ", ".join(shown) + \
        f", {len(mine)} process"
    print(text)
    return not wrong, text
