"""What the lab saw: the steps with their checks, as a live list and as a report."""

from collections.abc import Callable
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape


class Check(msgspec.Struct):
    """One "then" of the tutorial: what must hold, whether it did, and what was seen."""

    text: str
    ok: bool
    seen: str


class StepReport(msgspec.Struct):
    id: str
    title: str
    ok: bool = False
    seconds: float = 0.0
    checks: list[Check] = []


class ExpectedRefusal(msgspec.Struct):
    device: str
    code: str
    text: str
    cure: str


class Devices(msgspec.Struct):
    total: int = 0
    real: int = 0
    simulated: int = 0
    mdm_enrolled: int = 0
    client_registered: int = 0
    co_managed: int = 0
    expected_refusals: list[ExpectedRefusal] = []


class Report(msgspec.Struct):
    ok: bool = False
    seconds: float = 0.0
    co_managed_after_seconds: float | None = None  # From the command to the last device.
    timers: dict[str, Any] = {}
    devices: Devices = msgspec.field(default_factory=Devices)
    steps: list[StepReport] = []


class StepFailed(Exception):
    """A check of a step did not hold; the step's report says which."""


class Observer:
    """Collects a step's checks while it runs, and shows each as it is seen."""

    def __init__(self, step: StepReport, show: Callable[[str], None]) -> None:
        self._step = step
        self._show = show

    def check(self, text: str, ok: bool, seen: object) -> None:
        """Record one check. A check that does not hold ends the step."""
        said = str(seen)
        self._step.checks.append(Check(text, ok, said))
        mark = "[green]✓[/]" if ok else "[red]✗[/]"
        self._show(f"      {mark} {escape(text)}  [dim]{escape(said)}[/]")
        if not ok:
            raise StepFailed(f"{self._step.id} {text}: {said}")

    def say(self, text: str) -> None:
        self._show(f"        [dim]{escape(text)}[/]")


class Screen:
    """The terminal: plain lines that stay, so a log of the lab reads like the lab did."""

    def __init__(self, quiet: bool, also: Callable[[str], None] | None = None) -> None:
        self.console = Console(highlight=False, soft_wrap=True, quiet=quiet)
        self._also = also

    def line(self, text: str = "") -> None:
        """Print a line of rich markup."""
        self.console.print(text)
        if self._also is not None:
            self._also(text)

    def step(self, step: StepReport) -> None:
        self.line(f"  [bold]{step.id:>4}[/] {escape(step.title)}")

    def failed(self, words: str) -> None:
        self.line(f"      [red]✗ {escape(words)}[/]")

    def done(self, step: StepReport) -> None:
        mark = "[green]✓[/]" if step.ok else "[red]✗[/]"
        self.line(f"   {mark}   [dim]{step.seconds:.1f} s[/]")
