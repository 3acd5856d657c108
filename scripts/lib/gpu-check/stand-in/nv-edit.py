"""A part of the stand-in for NVIDIA's Container Toolkit: puts the cards of NVIDIA_VISIBLE_DEVICES, and the driver's
files, into a container's configuration, and refuses unknown cards in the toolkit's words.

usage: nv-edit.py BUNDLE RUNC-ARGUMENT…
"""

import json
import sys

ROOM = "@ROOM@"


def fail(arguments: list[str], text: str) -> None:
    """Ends with an error where the engine looks for it: in the file of runc's --log."""
    text = "nvidia-container-cli: device error: " + text
    print(text, file=sys.stderr)
    for at, argument in enumerate(arguments):
        path = argument.removeprefix("--log=") if argument.startswith("--log=") else None
        if argument == "--log" and at + 1 < len(arguments):
            path = arguments[at + 1]
        if path:
            with open(path, "a", encoding="utf-8") as log:
                entry = {"level": "error", "msg": text, "time": "2026-01-01T00:00:00Z"}
                log.write(json.dumps(entry) + "\n")
    sys.exit(1)


def visible(config: dict) -> str:
    """The cards that the engine asked for: the last value of the variable."""
    value = ""
    for line in config["process"].get("env", []):
        name, _, text = line.partition("=")
        if name == "NVIDIA_VISIBLE_DEVICES":
            value = text
    return value


def main() -> None:
    bundle, arguments = sys.argv[1], sys.argv[2:]
    path = bundle + "/config.json"
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    with open(ROOM + "/gpu.json", encoding="utf-8") as file:
        host = json.load(file)
    wanted = visible(config)
    if wanted in ("", "none", "void"):
        return
    nodes = []
    for name in wanted.split(","):
        found = [card for card in host["cards"] if name in ("all", card["uuid"], str(card["index"]))]
        if not found:
            fail(arguments, name + ": unknown device")
        nodes += [card["node"] for card in found if card["node"] not in nodes]
    linux = config["linux"]
    for node in nodes + host["common"]:
        number = {"type": "c", "major": node["major"], "minor": node["minor"]}
        linux.setdefault("devices", []).append(
            {"path": node["path"], "fileMode": 0o666, "uid": 0, "gid": 0, **number})
        linux.setdefault("resources", {}).setdefault("devices", []).append(
            {"allow": True, "access": "rwm", **number})
    for source, target in host["files"]:
        config["mounts"].append({"destination": target, "type": "bind", "source": source,
                                 "options": ["ro", "rbind", "rprivate", "nosuid", "nodev"]})
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)


main()
