"""What the documentation names must exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from tandem.cli.lab.steps import STEPS
from tandem.cli.main import build

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "guide" / "tutorial.md"


def rows() -> list[list[str]]:
    lines = TUTORIAL.read_text("utf-8").splitlines()
    table = [line for line in lines if re.match(r"^\| \d\.\d \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_tutorial_page_has_each_step_of_the_lab_once_and_in_order() -> None:
    asserted = [row[4].strip("`") for row in rows() if row[4]]
    assert asserted == [step.id for step in STEPS]
    assert all(row[0] == row[4].strip("`") for row in rows() if row[4])


def test_a_step_that_the_lab_does_not_perform_says_why() -> None:
    unasserted = [row for row in rows() if not row[4]]
    assert [row[0] for row in unasserted] == ["7.3"]
    assert all("not in this version" in " ".join(row) for row in unasserted)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/guide/tutorial.md", "docs/guide/first-windows-machine.md"]
)
def test_every_command_that_a_page_names_exists(page: str) -> None:
    tree: Any = typer.main.get_command(build())
    named = re.findall(r"tandem ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", (ROOT / page).read_text())
    assert named
    for noun, verb in named:
        command = tree.get_command(None, noun)
        assert command is not None, f"{page}: tandem {noun}"
        if verb and getattr(command, "commands", None):
            assert verb in command.commands, f"{page}: tandem {noun} {verb}"


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=str)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
