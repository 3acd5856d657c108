"""The row of docs/hardware.md, and the figures that go with it, from what the checks noted down."""

import datetime


def main(path: str) -> None:
    """Prints both; a figure that is not there was not measured, and a later one of a name counts."""
    figures: dict[str, str] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, _, value = line.rstrip("\n").partition("\t")
            figures[name] = value.replace("|", "/")

    def of(name: str) -> str:
        return figures.get(name, "?")

    toolkit = of("toolkit")
    if toolkit.startswith("stand-in"):
        toolkit = "**toolkit: stand-in**"
    day = datetime.date.today().isoformat()
    print("| " + " | ".join([
        f"{of('card')} ({of('machine')})", of("driver"), of("cuda"), f"{of('engine')}; {toolkit}",
        "`scripts/gpu-check`", f"{day}, {of('version')}", of("checks"),
    ]) + " |")
    print()
    for name in ("load", "idle", "freed", "hog", "xid", "bench", "awake", "sandbox"):
        if name in figures:
            print(f"- {figures[name]}")
