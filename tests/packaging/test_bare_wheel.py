"""`pip install tandem` alone: agent and gateway run without any of the server's dependencies."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_world import edge_of, now
from one_site import joined
from tandem import pki
from tandem.agent import AgentSettings, MeetingPlace
from tandem.infra import config
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.site import clients

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

SERVER_ONLY = {"psycopg", "starlette", "uvicorn", "alembic", "procrastinate", "jinja2", "argon2"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its own dependencies, from the locked versions."""
    folder = tmp_path_factory.mktemp("bare")
    environment = {**os.environ, "TANDEM_NO_CONSOLE": "1"}
    _run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), "."],
        environment,
    )
    (wheel,) = folder.glob("tandem-*.whl")
    _run([sys.executable, "-m", "venv", str(folder / "venv")], environment)
    python = folder / "venv" / "bin" / "python"
    locked = folder / "constraints.txt"
    names = (ROOT / "requirements.lock").read_text().splitlines()
    locked.write_text("\n".join(line.split()[0] for line in names if "==" in line[:60]) + "\n")
    _run([str(python), "-m", "pip", "install", "-q", "-c", str(locked), str(wheel)], environment)
    return python


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_no_server_package_comes_along(bare: Path) -> None:
    listed = _run([str(bare), "-m", "pip", "list", "--format=freeze"], dict(os.environ))
    installed = {line.partition("==")[0].lower() for line in listed.splitlines()}
    assert not installed & SERVER_ONLY


@pytest.mark.parametrize("role", ["gateway", "connector", "agent", "simulator"])
def test_a_role_of_the_outside_starts_from_the_bare_wheel(bare: Path, role: str) -> None:
    """The role is imported whole, and refuses a missing settings file in its own words."""
    code = (
        "import sys; from pathlib import Path; from tandem.infra.errors import AppError\n"
        f"from tandem.roles import {role}\n"
        "try:\n"
        f"    {role}.run(Path('/nowhere.toml'))\n"
        "except AppError as error:\n"
        "    print(error.code)\n"
    )
    assert _run([str(bare), "-c", code], dict(os.environ)).strip() == "settings.invalid"


@pytest.mark.parametrize("words", [["--help"], ["agent", "--help"], ["gateway", "run", "--help"]])
def test_the_commands_of_agent_and_gateway_work_without_the_server(
    bare: Path, words: list[str]
) -> None:
    said = _run([str(bare.with_name("tandem")), *words], dict(os.environ))
    assert "Usage" in said


async def test_agent_and_gateway_run_from_the_bare_wheel(
    bare: Path, site_db: Database, tmp_path: Path
) -> None:
    """Gateway, connection point, setup and agent, each a process of that environment, from the
    command line of the MSI to a client that the site knows."""
    async with edge_of(site_db, tmp_path, now(), str(bare)) as edge, edge.point.serving():
        trust = tmp_path / "trust.pem"
        trust.write_bytes(
            b"".join((edge.folder / f"{n}.pem").read_bytes() for n in ("public", "site"))
        )
        settings = AgentSettings(
            state=tmp_path / "agent",
            name="BARE-001",
            meeting=tmp_path / "meeting",
            ca_file=trust,
            minute_seconds=0.02,
        )
        place = MeetingPlace(settings.meeting)
        place.joined(joined(edge.point, tmp_path))
        file, root = tmp_path / "agent.toml", tmp_path / "root.pem"
        file.write_text(config.dump(settings))
        root.write_bytes(pki.pem(edge.point.root.certificate))
        setup = await asyncio.create_subprocess_exec(
            bare.with_name("tandem-ccmsetup"), "--config", file, "--trusted-root", root,
            edge.command_line,
        )  # fmt: skip
        assert await setup.wait() == 0
        agent = await asyncio.create_subprocess_exec(
            bare.with_name("tandem"), "agent", "run", "--config", file
        )
        try:
            async with asyncio.timeout(30):
                while not ccm.ConfigInfo.read(place.config_info).client:
                    await asyncio.sleep(0.05)
        finally:
            agent.terminate()
            assert await agent.wait() == 0
        async with site_db.transaction() as tx:
            (client,) = await clients.list_clients(tx)
        assert client.name == "BARE-001"
