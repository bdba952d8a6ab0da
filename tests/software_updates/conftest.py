"""One Linux device in a folder, its management point with a software update point, over real TLS."""

import asyncio
import hashlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from one_site import UPDATES_ID, Bridge, Broker, Moment, Site, enrolled
from tandem.agent import Bootstrap, Client, Machine
from tandem.infra import net
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.site import clients
from tandem.workloads import Workload, capabilities

URL = "/api/v1/software-updates"


def deb(folder: Path, name: str, version: str, *, source: str = "", broken: str = "") -> bytes:
    """A real Debian package, which leaves /opt/NAME with its version. `broken`: the script that
    fails."""
    made = folder / f"{name}-{version}"
    (made / "DEBIAN").mkdir(parents=True)
    (made / "opt").mkdir()
    (made / "opt" / name).write_text(version)
    origin = f"Source: {source}\n" if source else ""
    (made / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\n{origin}Architecture: all\n"
        "Maintainer: Lab <lab@example.org>\nDescription: a test\n"
    )
    if broken:
        (made / "DEBIAN" / broken).write_text("#!/bin/sh\nexit 3\n")
        (made / "DEBIAN" / broken).chmod(0o755)
    target = folder / f"{name}_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(made), str(target)],
        check=True,
        capture_output=True,
    )
    return target.read_bytes()


class Device:
    """A device, and the administrator who looks at it."""

    def __init__(
        self, site: Site, machine: Machine, client: Client, web: httpx.AsyncClient
    ) -> None:
        self.site, self.machine, self.client, self.web = site, machine, client, web
        self.moved: tuple[Workload, ...] = ()
        self.served: dict[str, bytes] = {}
        self.folder = machine.state.parent
        site.relay = self._serve

    def _serve(self, request: Any) -> Response | None:
        found = self.served.get(request.url.path)
        return Response(found) if found is not None else None

    @property
    def root(self) -> Path:
        assert self.machine.root is not None
        return self.machine.root

    async def api(self, method: str, path: str = "", body: Any = None, status: int = 0) -> Any:
        """What the admin API answers; an error with its `status` when one is expected."""
        url = f"https://localhost:{self.site.port}{URL}{path}"
        answer = await self.web.request(method, url, json=body)
        assert answer.status_code == status or (not status and answer.is_success), answer.text
        return answer.json() if answer.content else None

    async def update(self, **values: Any) -> str:
        """A new update; its id."""
        wanted = {"package": "lab", "fixed_version": "2.0", "article": "CVE-2026-1", **values}
        return str((await self.api("POST", "", wanted))["id"])

    async def approve(self, *ids: str, due: bool = True, collection: str = "SMS00001") -> None:
        deadline = self.site.now().isoformat() if due else None
        await self.api(
            "POST",
            "/decisions",
            {
                "updates": ids,
                "collection": collection,
                "decision": "approved",
                "deadline": deadline,
            },
        )

    async def decline(self, *ids: str, collection: str = "SMS00001") -> None:
        body = {"updates": ids, "collection": collection, "decision": "declined"}
        await self.api("POST", "/decisions", body)

    async def step(self) -> None:
        """The client asks for policy and for updates, acts, and says what it found."""
        policy = ccm.ConfigurationPolicy(
            "p", "Prod", 1, "production", True, False, capabilities(self.moved)
        )
        self.site.content = ccm.PolicyContent(configuration_policies=[policy])
        self.site.now.passes(seconds=2)
        self.client.wake()
        await self.client.step()

    async def again(self) -> None:
        """The agent is started anew."""
        self.client = Client(self.machine)

    async def stands(self) -> dict[str, Any]:
        """What the site knows of this device: article → (state, version)."""
        found = await self.api("GET", f"/devices/{self.client.client_id}")
        return {
            one["update"]["article"]: (one["state"], one["version"]) for one in found["updates"]
        }

    async def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.api("GET", f"/devices/{self.client.client_id}")
        return found

    async def told(self, *topics: int) -> list[tuple[int, int]]:
        """Topics and states of what came of updates, oldest first."""
        wanted = topics or (500, 402, 501)
        async with self.site.db.transaction() as tx:
            entries = await clients.timeline(tx, *await self._of(tx), limit=1000)
        return [(one.topic, one.state) for one in entries if one.topic in wanted]

    async def _of(self, tx: Any) -> tuple[str, str]:
        client = await clients.find(tx, self.client.client_id)
        return client.tenant_id, client.device_id

    def offers(self, name: str, version: str, **more: Any) -> dict[str, str]:
        """A package on a web server, and where: for an update with content of its own."""
        data = deb(self.folder, name, version, **more)
        path = f"/content/{name}_{version}.deb"
        self.served[path] = data
        digest = hashlib.sha256(data).hexdigest()
        return {"url": f"https://localhost:{self.site.port}{path}", "sha256": digest}

    def installs(self, name: str, version: str, **more: Any) -> None:
        """Somebody installs a package by hand."""
        deb(self.folder, name, version, **more)
        file = self.folder / f"{name}_{version}_all.deb"
        subprocess.run(
            ["dpkg", f"--root={self.root}", "--install", str(file)],
            check=True,
            capture_output=True,
            env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def has(self, name: str) -> str:
        """The version of a package that dpkg itself says is there."""
        done = subprocess.run(
            ["dpkg-query", f"--admindir={self.root}/var/lib/dpkg", "-W", "-f=${Version}", name],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout


@pytest.fixture
def moment() -> Moment:
    # TLS looks at the real clock, so the test's starts there.
    clock = Moment()
    clock.at = datetime.now(UTC).replace(microsecond=0)
    return clock


@pytest.fixture
async def site(site_db: Database, tmp_path: Path, moment: Moment) -> AsyncIterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Site(site_db, tmp_path, moment, port)
    made.update_points = [
        ccm.UpdatePoint(f"localhost:{port}/CCM_Proxy_MutualAuth/{UPDATES_ID}", "Internet")
    ]
    async with made.serving():
        yield made


@pytest.fixture
async def web(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with net.client(ca_file=site.folder / "ca.pem", timeout=5) as client:
        yield client


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small system: a package database, and what says which release it is."""
    made = tmp_path / "root"
    for folder in ("etc/apt", "opt", "var/lib/dpkg/updates", "var/lib/dpkg/info"):
        (made / folder).mkdir(parents=True)
    (made / "var/lib/dpkg/triggers").mkdir()
    for name in ("status", "available"):
        (made / "var/lib/dpkg" / name).touch()
    (made / "etc/os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    return made


@pytest.fixture
async def device(site: Site, web: httpx.AsyncClient, tmp_path: Path, root: Path) -> Device:
    """Registered, enrolled, and with policy."""
    machine = Machine(
        state=tmp_path / "device",
        name="LAB-001",
        mdm=Bridge(),
        directory=Broker(),
        http=web,
        trusted_root=site.root.certificate,
        minute_seconds=0.02,
        now=site.now,
        root=root,
    )
    enrolled(machine)
    result = await Bootstrap(machine, site.command_line).run(asyncio.Event())
    assert result.code == 0, result
    client = Client(replace(machine))
    await client.step()
    made = Device(site, machine, client, web)
    return made
