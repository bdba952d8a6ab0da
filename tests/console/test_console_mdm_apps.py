"""The tenant's apps: a package streamed into the service, the wizard, what became of it."""

import secrets
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lxml import html
from mdm_console import Browser, main_text, text, world

from app_content import win32_package
from mdm_world import Mdm, TestDevice
from memory import peak_memory
from tandem.console.areas.mdm import packages
from tandem.console.areas.mdm.app_wizard import check_line
from tandem.console.kit import Problem
from tandem.infra.database import Database
from tandem.protocols.syncml import Command, Item

LINE = 'CCMSETUPCMD="CCMHOSTNAME=GW.CONTOSO.COM/CCM_Proxy_MutualAuth/1 SMSSITECODE=P01"'
SOURCE = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="11111111-2222-3333-4444-55555555555a" Name="Client Setup" Language="1033"
           Version="1.2.3" Manufacturer="Contoso"
           UpgradeCode="21111111-2222-3333-4444-555555555555">
    <Package InstallerVersion="500" Compressed="yes" InstallScope="{scope}"/>
    <Media Id="1" Cabinet="files.cab" EmbedCab="yes"/>
    <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="INSTALLDIR" Name="Thing">
      <Component Id="c" Guid="31111111-2222-3333-4444-555555555555">
        <File Id="a.txt" Name="a.txt" Source="a.txt" KeyPath="yes"/>
      </Component></Directory></Directory>
    <Feature Id="f" Level="1"><ComponentRef Id="c"/></Feature>
  </Product>
</Wix>
"""


def build(folder: Path, scope: str = "perMachine", size: int = 5000, allusers: str = "") -> bytes:
    (folder / "a.txt").write_bytes(secrets.token_bytes(size))
    source = SOURCE.format(scope=scope)
    if allusers:
        source = source.replace(f'InstallScope="{scope}"', "").replace(
            "<Media ", f'<Property Id="ALLUSERS" Value="{allusers}"/><Media ', 1
        )
    (folder / "a.wxs").write_text(source, encoding="utf-8")
    subprocess.run(["wixl", "-o", "a.msi", "a.wxs"], cwd=folder, check=True)
    return (folder / "a.msi").read_bytes()


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build(tmp_path_factory.mktemp("msi"))


@pytest.fixture
async def both(tenant_db: Database, tmp_path: Path) -> AsyncIterator[tuple[Mdm, Browser]]:
    async with world(tenant_db, tmp_path) as made, made[0].working():
        yield made


@pytest.fixture
def mdm(both: tuple[Mdm, Browser]) -> Mdm:
    return both[0]


@pytest.fixture
def browser(both: tuple[Mdm, Browser]) -> Browser:
    return both[1]


async def send(browser: Browser, draft: str, name: str, data: bytes) -> str:
    """Send a package to a draft's first step; where that leads."""
    address = "/console/apps/packages/" + draft.rpartition("/")[2]
    return await browser.goes(address, files={"package": (name, data)})


INFORMATION = {
    "name": "Client of the site",
    "description": "Configuration Manager client",
    "publisher": "Contoso",
    "command_line": LINE,
    "ignore_version": "1",
    "owner": "Ada",
}


async def created(browser: Browser, package: bytes, **assigned: Any) -> str:
    """An app made by the wizard; the address of its page."""
    draft = await browser.begin("app")
    await send(browser, draft, "ccmsetup.msi", package)
    assert (await browser.goes(f"{draft}/package")).endswith("/information")
    assert (await browser.goes(f"{draft}/information", INFORMATION)).endswith("/assignments")
    assert (await browser.goes(f"{draft}/assignments", assigned)).endswith("/summary")
    return await browser.goes(f"{draft}/finish")


# ------------------------------------------------------------------ the package


async def test_a_package_tells_what_it_is_and_a_draft_keeps_it(
    browser: Browser, package: bytes
) -> None:
    draft = await browser.begin("app")
    assert await send(browser, draft, "C:\\x\\ccmsetup.msi", package) == f"{draft}/package"
    shown = await browser.text(f"{draft}/package")
    for said in ("Client Setup", "1.2.3", "{11111111-2222-3333-4444-55555555555A}", "ccmsetup.msi"):
        assert said in shown
    # The draft is gone on with later; its fields are filled in from the package.
    await browser.goes(f"{draft}/package")
    page = await browser.get(f"{draft}/information")
    assert page.xpath("//input[@id='name']/@value") == ["Client Setup"]
    assert page.xpath("//input[@id='publisher']/@value") == ["Contoso"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("setup.exe", b"MZ" * 100, "An app is made of an MSI"),
        ("wrong.msi", b"MZ" * 5000, "not a Windows Installer package that can be read"),
        ("empty.msi", b"", "This file is empty"),
        ("wrong.intunewin", b"PK" * 5000, "not a Win32 package that can be read"),
        ("cut.msi", None, "not a Windows Installer package that can be read"),
    ],
)
async def test_a_wrong_package_is_refused_in_plain_words(
    browser: Browser, package: bytes, name: str, data: bytes | None, said: str
) -> None:
    draft = await browser.begin("app")
    content = package[: len(package) // 3] if data is None else data
    assert await send(browser, draft, name, content) == f"{draft}/package"
    page = await browser.get(f"{draft}/package")
    (alert,) = page.xpath("//main//*[@role='alert']")
    assert said in text(alert)
    answer = await browser.post(f"{draft}/package")
    assert answer.status_code == 422
    assert "Choose a package first" in answer.text
    assert "There is no app yet" in await browser.text("/console/apps"), "nothing is left behind"


SIGNED_IN = Command(
    "Alert", "8", (Item(data="user", type="com.microsoft/MDM/LoginStatus", format="chr"),), "1224"
)


async def for_users(
    mdm: Mdm, browser: Browser, data: bytes, **chosen: str
) -> tuple[TestDevice, str]:
    """An app of this package that a group of users has to have; a device of it, and the summary."""
    device = await mdm.enrolled()
    users = await mdm.group("Users", device.user.id)
    draft = await browser.begin("app")
    await send(browser, draft, "one.msi", data)
    assert (await browser.goes(f"{draft}/package")).endswith("/information")
    values = {**INFORMATION, "command_line": "", **chosen}
    assert (await browser.goes(f"{draft}/information", values)).endswith("/assignments")
    summary = await browser.goes(f"{draft}/assignments", {"required": [users.id]})
    said = await browser.text(summary)
    await browser.goes(f"{draft}/finish")
    return device, said


async def test_an_msi_for_one_user_is_installed_once_somebody_is_signed_in(
    mdm: Mdm, browser: Browser, tmp_path: Path
) -> None:
    device, said = await for_users(mdm, browser, build(tmp_path, "perUser"))
    assert "User: it is installed once somebody is signed in" in said
    assert await device.check_in() == []
    (add, _) = await device.check_in(SIGNED_IN)
    assert add.items[0].target.startswith("./User/Vendor/MSFT/EnterpriseDesktopAppManagement/")


@pytest.mark.parametrize("context", ["device", "user"])
async def test_an_msi_for_both_installs_as_it_is_chosen(
    mdm: Mdm, browser: Browser, tmp_path: Path, context: str
) -> None:
    both = build(tmp_path, "perMachine", allusers="2")
    device, said = await for_users(mdm, browser, both, install_context=context)
    assert ("--for-users" in said) == (context == "user")
    assert ("once somebody is signed in" in said) == (context == "user")
    (add, _) = await device.check_in(SIGNED_IN)
    assert add.items[0].target.startswith(f"./{context.title()}/Vendor/")


async def test_the_sites_client_is_not_installed_for_one_user(
    browser: Browser, tmp_path: Path
) -> None:
    draft = await browser.begin("app")
    await send(browser, draft, "one.msi", build(tmp_path, "perUser"))
    shown = await browser.text(f"{draft}/package")
    assert "once somebody is signed in" in shown
    await browser.goes(f"{draft}/package")
    answer = await browser.post(f"{draft}/information", INFORMATION)
    assert answer.status_code == 422
    assert "the client is for the machine" in answer.text


async def test_a_huge_package_is_refused_before_it_is_read(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "MOST_BYTES", 1000)
    draft = await browser.begin("app")
    await send(browser, draft, "big.msi", b"x" * 200_000)
    assert "larger than the 8 GB" in await browser.text(f"{draft}/package")


async def test_a_sending_that_is_called_back_leaves_nothing(
    browser: Browser, package: bytes
) -> None:
    draft = await browser.begin("app")
    token = await browser.token()
    began = (
        f'--b\r\nContent-Disposition: form-data; name="form_token"\r\n\r\n{token}\r\n--b\r\n'
        'Content-Disposition: form-data; name="package"; filename="a.msi"\r\n\r\n'
    ).encode()

    async def cut() -> AsyncIterator[bytes]:
        yield began + package[:1000]

    address = "/console/apps/packages/" + draft.rpartition("/")[2]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await browser.client.post(address, content=cut(), headers=headers)
    assert answer.status_code in (303, 400)
    assert "There is no app yet" in await browser.text("/console/apps")


async def test_another_sites_form_sends_nothing(browser: Browser, package: bytes) -> None:
    draft = await browser.begin("app")
    address = "/console/apps/packages/" + draft.rpartition("/")[2]
    answer = await browser.client.post(
        address, data={"form_token": "0" * 64}, files={"package": ("a.msi", package)}
    )
    assert answer.status_code == 403
    assert "no longer valid" in answer.text


# ------------------------------------------------------------------ the wizard


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x" * 1025, "at most"),
        ("A=1\nB=2", "one line"),
        ("msiexec /i ccmsetup.msi A=1", "take %(word)s out"),
        ("/x {1}", "take %(word)s out"),
        ('CCMSETUPCMD="CCMHOSTNAME=gw', "quotation mark"),
        ("SMSSITECODE=P01", "CCMSETUPCMD"),
        ('CCMSETUPCMD="SMSSITECODE=P01"', "CCMHOSTNAME"),
        ('CCMSETUPCMD="CCMHOSTNAME=gw SMSSITECODE=P0"', "SMSSITECODE"),
    ],
)
def test_a_command_line_that_would_fail_on_devices_is_refused(line: str, said: str) -> None:
    with pytest.raises(Problem) as refused:
        check_line(line, {"file": "ccmsetup.msi"})
    assert said in refused.value.message


def test_the_sites_own_line_and_arguments_of_other_packages_are_taken() -> None:
    check_line(LINE, {"file": "ccmsetup.msi"})
    check_line('CCMSETUPCMD="/mp:https://gw/1 /nocrlcheck CCMHOSTNAME=gw SMSSITECODE=AUTO"')
    check_line('INSTALLDIR="C:\\Program Files\\x" ALLUSERS=1', {"file": "tool.msi"})
    check_line("", {"file": "tool.msi"})
    with pytest.raises(Problem, match=r"client\.msi"):
        check_line(LINE, {"file": "client.msi"})


async def test_an_app_is_made_assigned_and_installed(
    mdm: Mdm, browser: Browser, package: bytes
) -> None:
    device = await mdm.enrolled()
    left_out = await mdm.enrolled("eve", "1" * 32)
    users = await mdm.group("Pilot users", device.user.id, left_out.user.id)
    out = await mdm.group("Left out", left_out.user.id)
    draft = await browser.begin("app")
    await send(browser, draft, "ccmsetup.msi", package)
    await browser.goes(f"{draft}/package")
    answer = await browser.post(f"{draft}/information", {**INFORMATION, "description": ""})
    assert answer.status_code == 422
    page = html.fromstring(answer.content)
    assert page.xpath("//*[@autofocus]/@id") == ["description"]
    await browser.goes(f"{draft}/information", INFORMATION)
    assigned = {
        "required": [users.id],
        "required--name": [f"{users.id}\x1fPilot users"],
        "required_excluded": [out.id],
        "required_excluded--name": [f"{out.id}\x1fLeft out"],
    }
    summary = await browser.goes(f"{draft}/assignments", assigned)
    shown = await browser.text(summary)
    assert "Pilot users without Left out" in shown
    assert "tandem app upload ccmsetup.msi --name 'Client of the site'" in shown
    assert "tandem app assign 'Client of the site' --intent required --include" in shown
    to = await browser.goes(f"{draft}/finish")
    assert await browser.goes(f"{draft}/finish") == to, "a form that is sent twice makes one app"
    shown = await browser.text(to)
    assert "Client of the site was created." in shown
    assert "Published" in shown
    assert "It reaches 1 enrolled device, 1 user" in shown
    assert [item.name for item in await device.check_in()] == ["Add", "Exec"]
    assert await left_out.check_in() == []
    shown = await browser.text(f"{to}/devices")
    assert "Being installed" in shown
    assert "Left out by the group Left out" in shown
    assert "alex@contoso.com" in await browser.text(f"{to}/users")


async def test_two_apps_do_not_have_one_name(browser: Browser, package: bytes) -> None:
    await created(browser, package)
    draft = await browser.begin("app")
    await send(browser, draft, "ccmsetup.msi", package)
    await browser.goes(f"{draft}/package")
    answer = await browser.post(f"{draft}/information", INFORMATION)
    assert answer.status_code == 422
    assert "Another app is called so" in answer.text


async def test_an_included_group_counts_for_one_intent(
    mdm: Mdm, browser: Browser, package: bytes
) -> None:
    group = await mdm.group("Pilot")
    draft = await browser.begin("app")
    await send(browser, draft, "ccmsetup.msi", package)
    await browser.goes(f"{draft}/package")
    await browser.goes(f"{draft}/information", INFORMATION)
    for wrong, said in (
        ({"required": [group.id], "uninstall": [group.id]}, "two intents"),
        ({"required": [group.id], "required_excluded": [group.id]}, "included and excluded"),
        ({"required_excluded": [group.id]}, "nobody can be excluded"),
    ):
        answer = await browser.post(f"{draft}/assignments", wrong)
        assert answer.status_code == 422
        assert said in answer.text


async def test_a_win32_package_becomes_an_app_with_its_commands(mdm: Mdm, browser: Browser) -> None:
    draft = await browser.begin("app")
    await send(browser, draft, "tool.intunewin", win32_package(b"MZ setup" * 5000))
    await browser.goes(f"{draft}/package")
    values = {"name": "Tool", "description": "A tool", "publisher": "Contoso"}
    answer = await browser.post(f"{draft}/information", values)
    assert answer.status_code == 422
    values |= {"install_command": "setup.exe /s", "uninstall_command": "setup.exe /u"}
    answer = await browser.post(f"{draft}/information", values)
    assert "how the device finds out" in answer.text
    values["detect_file"] = "C:\\Tools\\tool.exe"
    await browser.goes(f"{draft}/information", values)
    await browser.goes(f"{draft}/assignments", {"available_everybody": ["users"]})
    shown = await browser.text(f"{draft}/summary")
    assert "--install 'setup.exe /s'" in shown
    to = await browser.goes(f"{draft}/finish")
    assert "Windows app (Win32)" in await browser.text(to)
    page = await browser.get(f"{to}/properties")
    assert page.xpath("//input[@id='detect_file']/@value") == ["C:\\Tools\\tool.exe"]


async def test_a_large_package_is_never_held_in_memory(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("large")
    size = 160 * 1024 * 1024
    content = build(folder, size=size)
    assert len(content) > size
    draft = await browser.begin("app")
    token = await browser.token()
    began = (
        f'--b\r\nContent-Disposition: form-data; name="form_token"\r\n\r\n{token}\r\n--b\r\n'
        'Content-Disposition: form-data; name="package"; filename="large.msi"\r\n\r\n'
    ).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield began
        for at in range(0, len(content), 65536):
            yield content[at : at + 65536]
        yield b"\r\n--b--\r\n"

    address = "/console/apps/packages/" + draft.rpartition("/")[2]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    with peak_memory() as peak:
        answer = await browser.client.post(address, content=pieces(), headers=headers)
    assert answer.status_code == 303
    assert "large.msi" in await browser.text(f"{draft}/package")
    assert peak.bytes < size / 2, "a few blocks at most, and what the allocator keeps"


async def test_a_package_that_is_still_looked_at_says_so(
    tenant_db: Database, tmp_path: Path, package: bytes
) -> None:
    """No worker runs: nothing is verified."""
    async with world(tenant_db, tmp_path) as (_, browser):
        draft = await browser.begin("app")
        await send(browser, draft, "ccmsetup.msi", package)
        assert "still checking it" in await browser.text(f"{draft}/package")
        assert "its package is being checked" in await browser.text("/console/notifications")
        page = await browser.get("/console/apps")
        assert "Upload not finished" in text(page)
        to = page.xpath("//tbody/tr/th/a/@href")[0]
        assert "Content version 1 is being checked" in await browser.text(to)


# ------------------------------------------------------------------ afterwards


async def test_properties_are_changed_and_a_conflict_keeps_what_was_typed(
    mdm: Mdm, browser: Browser, package: bytes
) -> None:
    to = await created(browser, package)
    page = await browser.get(f"{to}/properties")
    version = page.xpath("//input[@name='version']/@value")[0]
    assert page.xpath("//input[@id='owner']/@value") == ["Ada"]
    mdm.world.wait(seconds=5)
    values = {**INFORMATION, "version": version, "owner": "Bob"}
    assert await browser.goes(f"{to}/properties", values) == to
    mdm.world.wait(seconds=5)
    answer = await browser.post(f"{to}/properties", {**values, "owner": "Carl"})
    assert answer.status_code == 409
    assert "Somebody else has changed this" in answer.text
    assert html.fromstring(answer.content).xpath("//input[@id='owner']/@value") == ["Carl"]
    answer = await browser.post(f"{to}/properties", {**values, "command_line": "/x"})
    assert answer.status_code == 422
    assert "take /x out" in answer.text
    assert "Bob" in await browser.text(to)


async def test_assignments_are_changed_with_their_reach_and_a_conflict_is_told(
    mdm: Mdm, browser: Browser, package: bytes
) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("Pilot", device.user.id)
    to = await created(browser, package)
    page = await browser.get(f"{to}/assignments")
    version = page.xpath("//input[@name='version']/@value")[0]
    values = {"version": version, "required_everybody": ["users"]}
    assert await browser.goes(f"{to}/assignments", values) == to
    assert "required on 1 enrolled devices" in await browser.text(to)
    answer = await browser.post(f"{to}/assignments", {"version": version, "required": [group.id]})
    assert answer.status_code == 409
    assert "Somebody else has changed this" in answer.text
    found = await browser.client.get(
        "/console/pickers/groups/required?required--query=Pil", headers={"HX-Request": "true"}
    )
    assert "Pilot" in found.text


async def test_a_failed_installation_says_what_to_do(
    mdm: Mdm, browser: Browser, package: bytes
) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("Pilot", device.user.id)
    to = await created(browser, package, required=[group.id])
    await device.check_in()
    node = (
        "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/"
        "{11111111-2222-3333-4444-55555555555A}/DownloadInstall"
    )
    from tandem.protocols.syncml import Command, Item

    failed = Item(
        source=node,
        data="25502",
        type="Reversed-Domain-Name:com.microsoft.mdm.win32csp_install",
        format="int",
    )
    await device.begins(Command("Alert", "3", (failed,), "1226"))
    shown = await browser.text(f"{to}/devices?state=failed")
    assert "Upload ccmsetup.msi in its place" in shown
    assert "0x0000639E" in shown
    assert await browser.goes(f"{to}/devices/{device.id}/again") == f"{to}/devices"
    assert "1 Failed" in await browser.text(to)
    file = await browser.client.get(f"{to}/devices.csv")
    assert file.headers["content-type"].startswith("text/csv")
    assert "PC-Alex" in file.text


async def test_a_package_is_replaced_and_an_app_deleted_with_its_reach(
    browser: Browser, package: bytes, tmp_path: Path
) -> None:
    to = await created(browser, package)
    folder = tmp_path / "new"
    folder.mkdir()
    answer = await browser.post(f"{to}/package", files={"package": ("wrong.msi", b"MZ" * 999)})
    assert answer.status_code == 422
    assert "not a Windows Installer package" in answer.text
    assert await browser.goes(f"{to}/package", files={"package": ("new.msi", build(folder))}) == to
    page = await browser.get(to)
    assert "Client of the site has its new package" in text(page)
    assert "Content version2" in main_text(page)
    shown = await browser.text(f"{to}/delete")
    assert "0 devices have it and keep it." in shown
    assert await browser.goes(f"{to}/delete", {"confirmed": "1"}) == "/console/apps"
    await browser.get(to, 404)


async def test_apps_are_found_and_listed_in_french(browser: Browser, package: bytes) -> None:
    await created(browser, package)
    assert "Client of the site" in await browser.text("/console/search?q=client")
    browser.client.cookies.set("tandem-language", "fr")
    shown = await browser.text("/console/apps")
    assert "Ajouter une application" in shown


async def test_who_may_only_read_is_told_which_permission_is_missing(
    mdm: Mdm, browser: Browser, package: bytes
) -> None:
    to = await created(browser, package)
    from mdm_console import served

    from tandem.tenant import directory

    ada = await mdm.world.user("ada")
    async with mdm.database.transaction() as tx:
        await directory.grant_role(tx, directory.GLOBAL_READER, ada.id)
    async with served(mdm, ada.user_principal_name) as reader:
        assert "Client of the site" in await reader.text("/console/apps")
        answer = await reader.post(f"{to}/delete", {"confirmed": "1"})
        assert answer.status_code == 403
