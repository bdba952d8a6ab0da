"""What the documentation names must exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

import task_guides
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


def _named(path: Path) -> list[str]:
    """Commands as a text quotes them: between backticks, or as a line of their own."""
    code = path.suffix == ".py"
    pattern = r"`tandem ([a-z][^`\n]*)`" + ("" if code else r"|^ {0,4}tandem ([a-z][^\n]*)")
    found = re.findall(pattern, path.read_text("utf-8"), flags=re.MULTILINE)
    return [one if isinstance(one, str) else "".join(one) for one in found]


def _texts() -> list[Path]:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("changelog.d/*.md")]
    return sorted([*pages, *ROOT.glob("src/tandem/**/*.py")])


def test_every_command_that_a_page_or_a_sentence_names_exists() -> None:
    """Noun, verb and options, in documents and in what people are told to do next."""
    wrong = []
    for path in _texts():
        for text in _named(path):
            command: Any = typer.main.get_command(build())
            # Alternatives, placeholders and what the program fills in are not looked into.
            words = re.split(r"[|,…{]| and ", text)[0].split()
            while words and hasattr(command, "get_command"):
                inner = command.get_command(None, words[0])
                if inner is None:
                    break
                command, words = inner, words[1:]
            options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
            unknown = [word for word in words if word.startswith("--") and word not in options]
            noun_or_verb = hasattr(command, "get_command") and words and words[0][0] != "-"
            if noun_or_verb or set(unknown) - {"--help"}:
                wrong.append(f"{path.relative_to(ROOT)}: tandem {text}")
    assert wrong == []


def test_commands_are_found_in_documents_and_in_sentences() -> None:
    assert "managed-device list" in _named(ROOT / "docs/guide/first-windows-machine.md")
    assert "enrollment-token list" in _named(ROOT / "src/tandem/tenant/enrollment/credentials.py")


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=str)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_each_command_of_a_task_guide_is_run_somewhere() -> None:
    """Those of `task_guides.SHOWS` are run in the lab, by tests/lab/test_lab.py."""
    assert task_guides.pages() == set(task_guides.SHOWS) | task_guides.ELSEWHERE
    for page, shown in task_guides.SHOWS.items():
        assert task_guides.commands(page) == list(shown), page
