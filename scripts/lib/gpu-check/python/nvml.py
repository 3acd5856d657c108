"""Everything that NVML tells of the first card, with the cost of each call, by NVIDIA's own binding (pynvml). What
the tests' vectors (tests/vectors) are made of: serial number and PDI are left out, the UUID is replaced at the end.
"""

import ctypes
import json
import re
import statistics
import time
from collections.abc import Callable

# What may hang or change something, or wants arguments that are not a card.
SKIPPED = re.compile(r"ByIndex|ByUUID|BySerial|ByPciBusId|Handle|GetCount|P2P|Topology|Instance|Vgpu|Field|Samples")
SECRET = ("nvmlDeviceGetSerial", "nvmlDeviceGetPdi")
# Getters with arguments, and those that are asked for.
ECC = [(errors, counter) for errors in (0, 1) for counter in (0, 1)]
WITH_ARGUMENTS = {
    "nvmlDeviceGetTotalEccErrors": ECC,
    "nvmlDeviceGetMemoryErrorCounter": [(*pair, place) for pair in ECC for place in (2, 7)],
    "nvmlDeviceGetRetiredPages": [(0,), (1,)],
    "nvmlDeviceGetClockInfo": [(0,), (1,), (2,)],
    "nvmlDeviceGetMaxClockInfo": [(0,), (1,), (2,)],
    "nvmlDeviceGetTemperature": [(0,)],
    "nvmlDeviceGetTemperatureThreshold": [(at,) for at in range(8)],
    "nvmlDeviceGetPcieThroughput": [(0,), (1,)],
    "nvmlDeviceGetNvLinkState": [(at,) for at in range(18)],
    "nvmlDeviceGetInforomVersion": [(0,), (1,), (2,)],
    "nvmlDeviceGetViolationStatus": [(at,) for at in range(7)],
}
FIELDS = 275
FIELDS_AT_ONCE = 25
VALUE_TYPES = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal"}
COST_ROUNDS = 50


def plain(value: object) -> object:
    """As JSON can hold it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, ctypes.Structure):
        return {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    if isinstance(value, (ctypes.Array, list, tuple)):
        return [plain(one) for one in value][:64]
    if isinstance(value, (int, float, str, bool)) or value is None:
        return value
    if hasattr(value, "__dict__"):
        return {name: plain(one) for name, one in vars(value).items()}
    return repr(value)


def ask(function: Callable, *arguments: object) -> dict:
    """What a call answers, or its error, with its time."""
    began = time.perf_counter()
    try:
        got = {"value": plain(function(*arguments))}
    except Exception as err:  # each error is an answer here
        got = {"error": f"{type(err).__name__}: {err}"[:200]}
    got["ms"] = round((time.perf_counter() - began) * 1000, 3)
    return got


def fields(library: object, handle: object) -> dict:
    """Every field value by its number, those that have one."""
    names = {getattr(library, name): name for name in dir(library)
             if name.startswith("NVML_FI_") and isinstance(getattr(library, name), int)}
    values, refused = {}, {}
    began = time.perf_counter()
    for at in range(1, FIELDS, FIELDS_AT_ONCE):
        try:
            answers = library.nvmlDeviceGetFieldValues(handle, list(range(at, at + FIELDS_AT_ONCE)))
        except Exception as err:  # an older library refuses numbers that it does not know
            refused[f"from {at}"] = str(err)
            continue
        for one in answers:
            if one.nvmlReturn != 0:
                refused.setdefault(str(one.nvmlReturn), []).append(one.fieldId)
                continue
            kind = VALUE_TYPES.get(one.valueType)
            value = getattr(one.value, kind, None) if kind else f"type {one.valueType}"
            values[f"{one.fieldId} {names.get(one.fieldId, '?')}"] = value
    return {"value": values, "refused": refused, "ms": round((time.perf_counter() - began) * 1000, 3)}


def events(library: object, handle: object) -> dict:
    """Which types of events the card supports, and whether they can be waited for."""
    bits = {name: getattr(library, name) for name in dir(library)
            if name.startswith("nvmlEventType") and isinstance(getattr(library, name), int)}
    supported = ask(library.nvmlDeviceGetSupportedEventTypes, handle)
    mask = supported.get("value") or 0
    supported["names"] = [name for name, bit in bits.items() if bit and mask & bit == bit]
    waited = library.nvmlEventSetCreate()
    found = {
        "supported": supported,
        "register": ask(library.nvmlDeviceRegisterEvents, handle, mask, waited),
        "wait_100ms": ask(library.nvmlEventSetWait_v2, waited, 100),
    }
    library.nvmlEventSetFree(waited)
    return found


def cost(function: Callable, *arguments: object) -> dict:
    """What one look costs when it is repeated."""
    times = [ask(function, *arguments)["ms"] for _ in range(COST_ROUNDS)]
    return {"p50_ms": round(statistics.median(times), 4), "max_ms": max(times)}


def dump(out: str) -> None:
    """Writes what is known after each part, since a call may hang."""
    import pynvml as library

    found: dict = {"pynvml": getattr(library, "__version__", "?"), "init": ask(library.nvmlInit)}
    device: dict = {}
    found["device"] = device

    def keep() -> None:
        with open(out, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)

    for name in ("nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion", "nvmlSystemGetCudaDriverVersion_v2",
                 "nvmlDeviceGetCount"):
        found[name] = ask(getattr(library, name))
    handle = library.nvmlDeviceGetHandleByIndex(0)
    for name, calls in WITH_ARGUMENTS.items():
        if hasattr(library, name):
            device[name + "()"] = {str(call): ask(getattr(library, name), handle, *call) for call in calls}
    keep()
    device["fields"] = fields(library, handle)
    device["events"] = events(library, handle)
    keep()
    sampled = {"memory": library.nvmlDeviceGetMemoryInfo, "utilization": library.nvmlDeviceGetUtilizationRates,
               "power": library.nvmlDeviceGetPowerUsage, "processes": library.nvmlDeviceGetComputeRunningProcesses}
    found["cost"] = {name: cost(function, handle) for name, function in sampled.items()}
    for name in dir(library):
        if name.startswith("nvmlDeviceGet") and not SKIPPED.search(name):
            # Those that want more than a card say so with a TypeError.
            device[name] = ask(getattr(library, name), handle)
            if name in SECRET and "value" in device[name]:
                device[name]["value"] = 0
            keep()
    found["shutdown"] = ask(library.nvmlShutdown)
    keep()
    answered = sum("value" in value for value in device.values())
    print(json.dumps({"init_ms": found["init"]["ms"], "answered": answered, "cost": found["cost"]}))
