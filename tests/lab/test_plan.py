"""What a lab does with steps that hold, that do not, and that were done before."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tandem.cli.lab import plan
from tandem.cli.lab.report import Observer, Screen, StepReport
from tandem.cli.main import build
from tandem.infra.errors import AppError, Kind


class Refused(AppError):
    kind, code = Kind.CONFLICT, "test.refused"


async def good(lab: list[str], see: Observer) -> None:
    lab.append("good")
    see.check("it holds", True, "seen")


async def bad(lab: list[str], see: Observer) -> None:
    lab.append("bad")
    see.check("it holds", False, "something else")
    lab.append("not reached")


async def silent(lab: list[str], see: Observer) -> None:
    lab.append("silent")


async def refused(lab: list[str], see: Observer) -> None:
    raise Refused("The name is taken.", cure="Take another.")


async def broken(lab: list[str], see: Observer) -> None:
    raise KeyError("a defect of ours")


def steps(*performed: object) -> list[plan.Step[list[str]]]:
    return [plan.Step(f"0.{n}", "title", one) for n, one in enumerate(performed, 1)]  # type: ignore[arg-type]


async def perform(
    lab: list[str], wanted: list[plan.Step[list[str]]], done: list[StepReport]
) -> bool:
    return await plan.perform(lab, wanted, done, Screen(quiet=True), lambda: None)


async def test_a_check_that_does_not_hold_ends_the_step_and_the_lab() -> None:
    lab: list[str] = []
    done: list[StepReport] = []
    assert not await perform(lab, steps(good, bad, good), done)
    assert lab == ["good", "bad"]
    assert [(report.id, report.ok) for report in done] == [("0.1", True), ("0.2", False)]
    assert done[1].checks[0].seen == "something else"


async def test_it_goes_on_behind_the_last_step_that_held() -> None:
    lab: list[str] = []
    done: list[StepReport] = []
    await perform(lab, steps(good, bad), done)
    assert await perform(lab, steps(good, good), done)
    assert lab == ["good", "bad", "good"]
    assert [(report.id, report.ok) for report in done] == [("0.1", True), ("0.2", True)]


@pytest.mark.parametrize(
    ("step", "words"),
    [(silent, None), (refused, "The name is taken. Take another."), (broken, "KeyError")],
)
async def test_a_step_that_asserts_nothing_or_breaks_does_not_hold(
    step: object, words: str | None
) -> None:
    done: list[StepReport] = []
    assert not await perform([], steps(step), done)
    assert not done[0].ok
    assert words is None or words in done[0].checks[-1].seen


def run(*words: str) -> tuple[int, str]:
    found = CliRunner().invoke(build(), ["lab", *words])
    return found.exit_code, found.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--until", "9.9"], "The tutorial has no step 9.9."),
        (["--serve", "--exit"], "--serve and --exit cannot both be"),
        (["--cadence", "fast"], "--cadence is lab or real"),
        (["--devices", "0"], "--devices"),
        (["continue"], "No lab serves from"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(
    words: list[str], said: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    code, output = run(*words, "--state", str(state))
    assert code != 0
    assert said in " ".join(output.replace("│", " ").split()), output
    assert "Traceback" not in output
    assert not state.exists()


def test_another_lab_in_the_folder_is_not_taken_over(tmp_path: Path) -> None:
    progress = {"devices": 7, "cadence": "lab", "instances": 2}
    (tmp_path / "progress.json").write_text(json.dumps(progress))
    code, output = run("--devices", "3", "--exit", "--state", str(tmp_path))
    assert code == 1
    assert "holds a lab of 7 devices" in output
    assert "--state" in output
