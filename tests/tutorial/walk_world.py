"""The lab's own parts, started to where nothing of the tutorial has been done yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tandem.cli.lab.lab import Lab
from tandem.cli.lab.report import Observer, Screen, StepReport
from tandem.cli.lab.steps import STEPS

BY_NUMBER = {step.id: step for step in STEPS}


@asynccontextmanager
async def untouched(folder: Path, devices: int) -> AsyncIterator[Lab]:
    """Tenant, site, public CA and DNS, with devices that nobody has enrolled; ended afterwards."""
    with pytest.MonkeyPatch.context() as environment:
        # The lab names its profile there, and never takes it back.
        environment.setenv("TANDEM_PROFILE", "")
        lab = Lab(folder, devices, "lab", 2, Screen(quiet=True))
        try:
            await lab.begin()
            yield lab
        finally:
            await lab.end()


async def by_commands(lab: Lab, number: str) -> None:
    """A step of the tutorial as the lab performs it, by commands."""
    step = BY_NUMBER[number]
    await step.perform(lab, Observer(StepReport(step.id, step.title), lambda text: None))


async def settle(lab: Lab) -> None:
    """Until the devices' processes take orders."""
    await asyncio.wait_for(lab.devices_up(), 60)
