"""Every Python block of docs/guide/your-tools.md is run as it is written."""

import asyncio
import contextlib
import io
import re
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from browsing import Person
from clients_served import Served

pytestmark = [
    pytest.mark.slow,
    # The clients leave their connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "your-tools.md"
# The parts that need the authority alone. Others have their own tests.
PARTS = ("MSAL", "azure-identity")


def blocks() -> list[tuple[str, str]]:
    text = PAGE.read_text("utf-8")
    found = []
    for part in PARTS:
        section = re.search(rf"^## {part}$(.*?)(?=^## |\Z)", text, re.M | re.S)
        assert section, part
        found += [
            (part, code) for code in re.findall(r"^```python\n(.*?)^```", section[1], re.M | re.S)
        ]
    return found


class Screen(io.StringIO):
    """What a person sees of the program: when it tells him to enter a code, he does."""

    def __init__(self, person: Person) -> None:
        super().__init__()
        self._person = person

    def write(self, text: str) -> int:
        told = re.search(r"open the page (\S+) and enter the code (\S+)", text)
        if told:
            self._person.sign_in(told[1], otc=told[2])
        return super().write(text)


async def test_every_block_works_as_it_is_written(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person(served.root, served.upn, served.password)
    monkeypatch.setattr(webbrowser, "get", lambda *_: person)
    monkeypatch.setattr(webbrowser, "open", person.open)
    for name, value in {
        "TENANT_URL": served.base,
        "TENANT_ID": served.tenant_id,
        "TENANT_CA": str(served.root),
        "CLIENT_ID": served.app_id,
        "CLIENT_SECRET": served.secret,
        "CERTIFICATE": str(served.pem()),
    }.items():
        monkeypatch.setenv(name, value)
    found = blocks()
    assert len(found) == 9
    for part, code in found:
        screen = Screen(person)

        def run(code: str = code, screen: Any = screen) -> None:
            with contextlib.redirect_stdout(screen):
                exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})

        await asyncio.to_thread(run)
        said = screen.getvalue()
        assert "eyJ" in said or f"Signed in as {served.upn}" in said, (part, code, said)
