"""Every Python and shell block of docs/guide/your-tools.md is run as it is written."""

import asyncio
import contextlib
import io
import json
import re
import subprocess
import sys
import webbrowser
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from clients_served import Served
from graph_sdk import CO_MANAGED, EVERYTHING, intunewin, register
from person_browsing import Person

from mdm_world import Mdm, live_mdm
from tandem.infra.database import Database

pytestmark = [
    pytest.mark.slow,
    # The clients leave their connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "your-tools.md"


def blocks(part: str, language: str = "python") -> list[tuple[str, str]]:
    section = re.search(rf"^## {part}$(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S)
    assert section, part
    codes = re.findall(rf"^```{language}\n(.*?)^```", section[1], re.M | re.S)
    return [(part, code) for code in codes]


def test_no_block_is_left_out() -> None:
    written = re.findall(r"^```(\w+)\n", PAGE.read_text("utf-8"), re.M)
    run = [*blocks("MSAL"), *blocks("azure-identity"), *blocks("msgraph-sdk")]
    assert len(written) == len(run) + len(blocks("REST with curl", "sh"))


def execute(code: str, screen: io.StringIO) -> None:
    with contextlib.redirect_stdout(screen):
        exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})


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
    found = [*blocks("MSAL"), *blocks("azure-identity")]
    assert len(found) == 9
    for part, code in found:
        screen = Screen(person)
        await asyncio.to_thread(execute, code, screen)
        said = screen.getvalue()
        assert "eyJ" in said or f"Signed in as {served.upn}" in said, (part, code, said)


@pytest.fixture
async def script(
    tenant_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Mdm, Path]]:
    """A tenant with devices, and an empty folder with the settings for a script in it."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with live_mdm(tenant_db, tmp_path) as (mdm, root, _):
        app_id, secret = await register(mdm, "Script", *EVERYTHING)
        folder = tmp_path / "script"
        folder.mkdir()
        (folder / "tool.intunewin").write_bytes(intunewin("setup.exe", b"tool" * 50_000))
        for name, value in {
            "TENANT_URL": mdm.world.tokens.settings.base,
            "TENANT_ID": mdm.world.tenant.id,
            "TENANT_CA": str(root),
            "CLIENT_ID": app_id,
            "CLIENT_SECRET": secret,
            "GROUP_ID": (await mdm.group("Pilot")).id,
            "PACKAGE": str(folder / "tool.intunewin"),
        }.items():
            monkeypatch.setenv(name, value)
        device = await mdm.enrolled()
        device.agent(CO_MANAGED)
        await device.check_in()
        yield mdm, folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_sdk_s_blocks_work_as_they_are_written(
    script: tuple[Mdm, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = script
    (_, connection), *found = blocks("msgraph-sdk")
    (folder / "connection.py").write_text(connection, "utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "connection", raising=False)
    said = []
    for _, code in found:
        screen = io.StringIO()
        await asyncio.to_thread(execute, code, screen)
        # The tenant in this process logs to the same screen.
        lines = screen.getvalue().splitlines()
        said.append([line for line in lines if " [info " not in line])
    devices, assigned, published = said
    assert devices == ["PC-Alex apps by MDM", "1 managed by both"]
    assert assigned[0] == "Assigned Lock"
    assert assigned[1].startswith("404 ResourceNotFound ")
    assert published == ["published"]


async def test_curl_s_blocks_work_as_they_are_written(script: tuple[Mdm, Path]) -> None:
    mdm, folder = script
    said = []
    for _, code in blocks("REST with curl", "sh"):
        process = await asyncio.create_subprocess_exec(
            "sh", "-eu", "-c", code, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, wrong = await process.communicate()
        assert (process.returncode, wrong) == (0, b""), wrong.decode()
        said.append(out.decode())
    nothing, devices, batch, documents = said
    assert nothing == ""
    assert (folder / "token.header").stat().st_mode & 0o77 == 0
    (device,) = json.loads(devices)["value"]
    assert device["managementAgent"] == "configurationManagerClientMdm"
    answers = {item["id"]: item for item in json.loads(batch)["responses"]}
    assert answers["1"]["body"]["value"][0]["displayName"] == "Contoso"
    assert answers["2"]["body"]["dualEnrolledDeviceCount"] == 1
    at, decoder = documents.index("}{") + 1, json.loads
    assert decoder(documents[:at])["issuer"].endswith(f"{mdm.world.tenant.id}/v2.0")
    assert decoder(documents[at:])["microsoftGraphResourceId"]
