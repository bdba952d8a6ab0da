"""What a benchmark writes: bench/out/<name>.json, with the machine and the load beside the figures."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import msgspec

OUT = Path(__file__).parent / "out"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


class Figure(msgspec.Struct):
    """One measured number. `reach` says what it must be: "<= 30" or ">= 1.5"; empty: no demand.

    `ratio` is value / peer_value where a peer was measured in the same run; the demand is on the
    ratio then.
    """

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    reach: str | None = None
    ok: bool | None = None

    def __post_init__(self) -> None:
        if self.peer_value:
            self.ratio = round(self.value / self.peer_value, 3)
        if self.reach is not None:
            sign, limit = self.reach.split()
            judged = self.ratio if self.ratio is not None else self.value
            self.ok = judged <= float(limit) if sign == "<=" else judged >= float(limit)


class Outcome(msgspec.Struct):
    machine: str
    load: str
    figures: list[Figure]


def machine() -> str:
    """The processor, its cores, the memory, the system and the Python that measured."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return (
        f"{model}, {cores} cores, {memory:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}"
    )


def table(outcome: Outcome) -> str:
    """The figures as a table for a document, with when and where they were measured."""
    lines = [
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {outcome.load}. {outcome.machine}.",
        "",
        "| figure | measured | must be | |",
        "| --- | --- | --- | --- |",
    ]
    for item in outcome.figures:
        against = f", {item.ratio:g} × {item.peer}" if item.ratio is not None else ""
        mark = {True: "reached", False: "**missed**", None: ""}[item.ok]
        reach = (item.reach or "").replace("<=", "≤").replace(">=", "≥")
        lines.append(f"| {item.name} | {item.value:g} {item.unit}{against} | {reach} | {mark} |")
    return "\n".join(lines)


def document(name: str, outcome: Outcome) -> None:
    """Bring the table of docs/performance.md up to date, between its two marks."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = PAGE.read_text("utf-8")
    if begin in text and end in text:
        head, _, rest = text.partition(begin)
        tail = rest.partition(end)[2]
        PAGE.write_text(f"{head}{begin}\n{table(outcome)}\n{end}{tail}", "utf-8")


def write(name: str, outcome: Outcome) -> Path:
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n")
    return path
