"""Apps on the pages: what a device's page says of each and why, and what people choose themselves."""

import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mdm_console import Browser, main_text, served, text, world

from app_content import publish
from mdm_world import Mdm, TestDevice
from tandem.infra.database import Database
from tandem.tenant import assignments, directory, mobile_apps
from tandem.tenant.assignments import New, Target, TargetKind

SOURCE = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="11111111-2222-3333-4444-555555555550" Name="Editor" Language="1033"
           Version="2.0.1" Manufacturer="Contoso"
           UpgradeCode="21111111-2222-3333-4444-555555555555">
    <Package InstallerVersion="500" Compressed="yes" InstallScope="perMachine"/>
    <Directory Id="TARGETDIR" Name="SourceDir"/><Feature Id="f" Level="1"/>
  </Product>
</Wix>
"""


@pytest.fixture
async def both(tenant_db: Database, tmp_path: Path) -> AsyncIterator[tuple[Mdm, Browser]]:
    async with world(tenant_db, tmp_path) as made:
        yield made


async def offered(mdm: Mdm, folder: Path, device: TestDevice, **groups: str) -> str:
    """An app, its id; `groups` are the intents and the groups for them."""
    (folder / "a.wxs").write_text(SOURCE, encoding="utf-8")
    subprocess.run(["wixl", "-o", "a.msi", "a.wxs"], cwd=folder, check=True)
    async with mdm.database.transaction() as tx:
        app = await mobile_apps.create(
            tx,
            name="Editor",
            description="Writes texts",
            publisher="Contoso",
            command_line="",
            file_name="a.msi",
            now=mdm.world.at,
        )
    package = (folder / "a.msi").read_bytes()
    await publish(mdm.database, mdm.content.blobs, app.id, package, mdm.world.now)
    async with mdm.database.transaction() as tx:
        given = [
            New(Target(TargetKind.GROUP, group), {"intent": intent, "settings": None})
            for intent, group in groups.items()
        ]
        await assignments.replace(tx, mobile_apps.OWNER, app.id, given)
    return app.id


async def test_a_devices_page_says_what_assignments_come_to_and_why(
    both: tuple[Mdm, Browser], tmp_path: Path
) -> None:
    mdm, browser = both
    device = await mdm.enrolled()
    users = await mdm.group("Users", device.user.id)
    others = await mdm.group("Others", device.user.id)
    app = await offered(mdm, tmp_path, device, available=users.id, required=others.id)
    base = f"/console/devices/{device.id}"
    shown = main_text(await browser.get(f"{base}/apps"))
    assert "Required and available" in shown
    assert "Available, by the user: Users counts" in shown
    assert "Required, by the user: Others counts" in shown
    assert "requiredAndAvailable" not in shown
    to = await browser.goes(f"{base}/apps/{app}/request")
    assert "installed at the device's next check-in" in await browser.text(to)
    browser.client.cookies.set("tandem-language", "fr")
    shown = main_text(await browser.get(f"{base}/apps"))
    assert "Obligatoire et disponible" in shown
    assert "Disponible, par l’utilisateur: Users compte" in shown


async def test_somebody_chooses_an_app_for_their_own_device_and_for_no_other(
    both: tuple[Mdm, Browser], tmp_path: Path
) -> None:
    mdm, _ = both
    device = await mdm.enrolled()
    bob = await mdm.enrolled("bob", f"{2:032X}")
    users = await mdm.group("Users", device.user.id, bob.user.id)
    app = await offered(mdm, tmp_path, device, available=users.id)
    async with served(mdm, device.user.user_principal_name) as mine:
        page = await mine.get("/console/my-apps")
        mine._token = str(page.xpath("//input[@name='form_token']/@value")[0])
        shown = main_text(page)
        assert "PC-Alex" in shown
        assert "Editor" in shown
        assert "Writes texts" in shown
        assert "PC-bob" not in shown
        choice = {"device": device.id, "app": app}
        assert await mine.goes("/console/my-apps/request", choice) == "/console/my-apps"
        assert "Waits for the next check-in" in await mine.text("/console/my-apps")
        assert [command.name for command in await device.check_in()] == ["Add", "Exec"]
        answer = await mine.post("/console/my-apps/request", {"device": bob.id, "app": app})
        assert (answer.status_code, "none of your devices" in answer.text) == (404, True)
    assert await bob.check_in() == []


async def test_without_a_role_nothing_but_ones_own_apps_opens(
    both: tuple[Mdm, Browser], tmp_path: Path
) -> None:
    """Every page that the console has, with every form of it: closed, unless it is named here."""
    mdm, _ = both
    device = await mdm.enrolled()
    bob = await mdm.enrolled("bob", f"{2:032X}")
    everybody = await mdm.group("Everybody", device.user.id, bob.user.id)
    app = await offered(mdm, tmp_path, device, available=everybody.id)
    own = {
        "/console",
        "/console/",
        "/console/my-apps",
        "/console/my-apps/request",
        "/console/my-apps/withdraw",
        "/console/sign-in",
        "/console/sign-in/begin",
        "/console/sign-in/done",
        "/console/sign-out",
        "/console/preferences",
        "/console/static/{digest}/{name:path}",
    }
    async with served(mdm, device.user.user_principal_name) as mine:
        page = await mine.get("/console/my-apps")
        mine._token = str(page.xpath("//input[@name='form_token']/@value")[0])
        shown = text(page)
        assert "alex@contoso.comUser" in shown
        assert [text(one) for one in page.xpath("//nav[@id='navigation']//a")] == ["My apps"]
        assert not page.xpath("//*[@id='bell'] | //form[@role='search']")
        home = await mine.client.get("/console/")
        assert home.headers["location"] == "/console/my-apps"
        filled = {"device_id": device.id, "app_id": app, "id": bob.user.id, "path": "x"}
        closed = 0
        for route in mine.routes:
            if route.path in own:
                continue
            assert route.path.startswith("/console/"), route.path
            path = re.sub(r"\{(\w+)(:path)?\}", lambda name: filled.get(name[1], "1"), route.path)
            if "POST" in route.methods:
                answer = await mine.post(path, {"confirmed": "1"})
            else:
                answer = await mine.client.get(path)
            assert answer.status_code == 403, f"{route.methods} {path}: {answer.status_code}"
            assert "no role that may use this console" in answer.text
            assert "PC-bob" not in answer.text
            closed += 1
        assert closed > 150
        part = await mine.client.get("/console/devices", headers={"hx-request": "true"})
        assert part.status_code == 403


async def test_who_loses_the_role_keeps_their_own_apps(both: tuple[Mdm, Browser]) -> None:
    mdm, _ = both
    device = await mdm.enrolled()
    async with mdm.database.transaction() as tx:
        await directory.grant_role(tx, directory.GLOBAL_READER, device.user.id)
    async with served(mdm, device.user.user_principal_name) as mine:
        assert "PC-Alex" in await mine.text("/console/devices")
        async with mdm.database.transaction() as tx:
            await directory.revoke_role(tx, directory.GLOBAL_READER, device.user.id)
        await mine.get("/console/devices", 403)
        assert "PC-Alex" in await mine.text("/console/my-apps")
