"""How a job went, from the JSON lines of `submit --json --follow`."""

import json
from collections.abc import Iterator

RESULT = ("job_id", "status", "reason_code", "error", "exit_code", "output_cid")


def lines(path: str) -> Iterator[dict]:
    """The objects of a file that may still be written."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def told(path: str) -> None:
    """Prints one object about the job."""
    found: dict = {}
    stages, attempts = [], set()
    for event in lines(path):
        if event.get("event") == "result":
            found.update({key: event.get(key) for key in RESULT})
        elif event.get("event") == "status":
            status = event["status"]
            stages.append(status.get("stage"))
            attempts.add(status.get("attempt"))
            found["duration_ms"] = status.get("duration_ms")
        elif event.get("event") == "receipt":
            receipt = event.get("receipt") or {}
            found["receipt_valid"] = event.get("valid")
            found["gpu_uuids"] = receipt.get("message", receipt).get("gpuUuids")
    found.update(stages=stages, attempts=sorted(attempt for attempt in attempts if attempt is not None))
    print(json.dumps(found))


def field(path: str, key: str) -> None:
    """Prints one value of what `told` printed."""
    with open(path, encoding="utf-8") as file:
        value = json.load(file).get(key)
    print("" if value is None else value if isinstance(value, str) else json.dumps(value))


def said(path: str, text: str) -> int:
    """Whether the job's log had this text."""
    logged = (event.get("line") for event in lines(path) if event.get("event") == "log")
    return 0 if any(text in str(line) for line in logged) else 1
