"""What the checks of scripts/gpu-check do that a shell can't: python COMMAND ARGUMENT….

Standard library alone, but for NVIDIA's pynvml (`nvml`) and nats-py (`bench`), imported where they are used.
"""

import sys

import bench
import cards
import compare
import engine
import measure
import nvml
import outcome
import row

COMMANDS = {
    "ping": engine.ping,
    "version": engine.version,
    "import": engine.import_image,
    "container": engine.container,
    "containers": engine.containers,
    "pids": engine.pids,
    "starts": engine.starts,
    "remove": engine.remove,
    "untar": engine.untar,
    "cards": cards.write,
    "nvml": nvml.dump,
    "told": outcome.told,
    "field": outcome.field,
    "said": outcome.said,
    "compare-doctor": compare.doctor,
    "compare-facts": compare.facts,
    "compare-load": compare.load,
    "bench": bench.main,
    "cpu": measure.cpu,
    "awake": measure.awake,
    "sandbox-cost": measure.sandbox_cost,
    "row": row.main,
}

if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
    sys.exit(f"usage: COMMAND ARGUMENT…, of {' '.join(COMMANDS)}")
# A command ends with its text as an error, or with its number; nothing means success.
sys.exit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
