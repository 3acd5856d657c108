"""The host's cards and the driver's files, for the stand-in of NVIDIA's Container Toolkit."""

import glob
import json
import os
import re
import subprocess

# What the toolkit hands to a container that asks for "utility" and "compute".
LIBRARIES = re.compile(
    r"lib(cuda|cudadebugger|nvidia-(ml|ptxjitcompiler|nvvm|nvvm70|gpucomp|cfg|allocator|opencl|pkcs11|"
    r"pkcs11-openssl3|sandboxutils|tileiras))\.so(\.[0-9.]+)?$")
COMMON = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
FOLDER = "/usr/lib/x86_64-linux-gnu/"


def write(out: str, smi: str, folders: str, stand_in: str = "") -> None:
    """Writes cards by UUID with their device nodes, the common nodes, and the files. With `stand_in`, a UUID,
    there is no card: /dev/null plays it. `folders` is then not looked at."""
    if os.environ.get("FAKE"):
        found = [{"uuid": stand_in, "index": 0, "node": node("/dev/null", "/dev/nvidia0")}]
        common, files = [node("/dev/null", "/dev/nvidiactl")], []
    else:
        found = of_host(smi)
        common = [node(path) for path in COMMON if os.path.exists(path)]
        files = libraries(folders)
    files.append([os.path.realpath(smi), "/usr/bin/nvidia-smi"])
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"cards": found, "common": common, "files": files}, file, indent=1)
    print(json.dumps({"cards": found, "common": common, "files": len(files)}))


def node(path: str, shown: str | None = None) -> dict:
    """A device node with its numbers."""
    info = os.stat(path)
    return {"path": shown or path, "major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}


def of_host(smi: str) -> list[dict]:
    """The cards by nvidia-smi, each with the node of its minor number."""
    xml = subprocess.run([smi, "-q", "-x"], capture_output=True, text=True, timeout=60, check=True).stdout
    found = []
    for index, part in enumerate(re.findall(r"<gpu id=.*?</gpu>", xml, re.S)):
        uuid = re.search(r"<uuid>(GPU-[^<]*)</uuid>", part)
        minor = re.search(r"<minor_number>([0-9]+)</minor_number>", part)
        number = minor.group(1) if minor else index
        if uuid:
            found.append({"uuid": uuid.group(1), "index": index, "node": node(f"/dev/nvidia{number}")})
    return found


def libraries(folders: str) -> list[list[str]]:
    """The driver's libraries, each once, where they lie and where a container finds them."""
    files, seen = [], set()
    for folder in folders.split(":"):
        for path in sorted(glob.glob(folder + "/*.so*")):
            name = os.path.basename(path)
            if LIBRARIES.match(name) and name not in seen:
                seen.add(name)
                files.append([os.path.realpath(path), FOLDER + name])
    return files
