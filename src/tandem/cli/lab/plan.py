"""The tutorial's steps in order: each knows its number, its title and how it is done and asserted."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tandem.cli.lab.commands import CommandFailed
from tandem.cli.lab.report import Check, Observer, Screen, StepFailed, StepReport
from tandem.infra.errors import AppError, Kind
from tandem.infra.logs import get_logger

log = get_logger("lab")

L = TypeVar("L")


class NoSuchStep(AppError):
    kind, code = Kind.INVALID, "lab.no-such-step"


@dataclass(frozen=True, slots=True)
class Step(Generic[L]):
    id: str
    title: str
    perform: Callable[[L, Observer], Awaitable[None]]


def up_to(steps: Sequence[Step[L]], until: str | None) -> list[Step[L]]:
    """The steps up to and with `until` (all of them for None). Raises NoSuchStep."""
    if until is None:
        return list(steps)
    ids = [step.id for step in steps]
    if until not in ids:
        raise NoSuchStep(
            f"The tutorial has no step {until}.", cure=f"Name one of: {', '.join(ids)}."
        )
    return list(steps[: ids.index(until) + 1])


async def perform(
    lab: L,
    steps: Sequence[Step[L]],
    done: list[StepReport],
    screen: Screen,
    keep: Callable[[], None],
) -> bool:
    """Do what is not done yet, in order, and stop at the first step that does not hold.

    `done` grows by each step's report, and `keep` is called after each: a lab that is started
    again goes on behind the last step that held.
    """
    held = {report.id for report in done if report.ok}
    for step in steps:
        if step.id in held:
            continue
        done[:] = [report for report in done if report.id != step.id]
        report = StepReport(step.id, step.title)
        screen.step(report)
        begun = time.monotonic()
        observer = Observer(report, screen.line)
        try:
            await step.perform(lab, observer)
            report.ok = bool(report.checks) and all(check.ok for check in report.checks)
        except StepFailed:
            report.ok = False
        except (CommandFailed, AppError, AssertionError) as error:
            report.checks.append(Check("the step goes through", False, _words(error)))
            screen.failed(_words(error))
        except Exception as error:
            # A defect of ours ends the step like a check that does not hold; its trace is logged.
            log.exception("step failed", step=step.id)
            words = f"{type(error).__name__}: {error}"
            report.checks.append(Check("the step goes through", False, words))
            screen.failed(words)
        report.seconds = round(time.monotonic() - begun, 2)
        screen.done(report)
        done.append(report)
        keep()
        if not report.ok:
            return False
    return True


def _words(error: Exception) -> str:
    if isinstance(error, AppError):
        return f"{error.message} {error.cure}".strip()
    return str(error)
