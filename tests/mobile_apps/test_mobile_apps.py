"""Apps from a real MSI: made, assigned, installed on devices, and what is said of them."""

import re
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from app_content import publish
from mdm_world import Mdm, TestDevice, mdm_service
from tandem.infra.database import Database
from tandem.protocols.syncml import Command, Item
from tandem.tenant import enrollment

APPS = "deviceAppManagement/mobileApps"
CODE = "{11111111-2222-3333-4444-55555555555A}"
NODE = (
    "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/"
    "%7B11111111-2222-3333-4444-55555555555A%7D"
)
LINE = 'CCMSETUPCMD="/mp:https://gw/CCM_Proxy_MutualAuth/1 SMSSITECODE=P01"'


async def made(mdm: Mdm, **values: Any) -> dict[str, Any]:
    body = {
        "@odata.type": "#microsoft.graph.windowsMobileMSI",
        "displayName": "",
        "fileName": "client.msi",
        "commandLine": LINE,
        **values,
    }
    answer = await mdm.graph("POST", APPS, body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def uploaded(mdm: Mdm, package: bytes, **values: Any) -> str:
    app = await made(mdm, **values)
    await publish(mdm.database, mdm.content.blobs, app["id"], package, mdm.world.now)
    return str(app["id"])


async def assigned(mdm: Mdm, app: str, *include: str, exclude: tuple[str, ...] = ()) -> Any:
    kinds = [("groupAssignmentTarget", group) for group in include]
    kinds += [("exclusionGroupAssignmentTarget", group) for group in exclude]
    targets = [
        {
            "intent": "required",
            "target": {"@odata.type": f"#microsoft.graph.{kind}", "groupId": group},
        }
        for kind, group in kinds
    ]
    return await mdm.graph("POST", f"{APPS}/{app}/assign", {"mobileAppAssignments": targets})


async def offered(mdm: Mdm, package: bytes, device: TestDevice, **values: Any) -> str:
    """An app that is required for the device's user."""
    app = await uploaded(mdm, package, **values)
    group = await mdm.group(f"Users of {app}", device.user.id)
    assert (await assigned(mdm, app, group.id)).status_code in {200, 204}
    return app


async def statuses(mdm: Mdm, app: str) -> list[dict[str, Any]]:
    answer = await mdm.graph("GET", f"{APPS}/{app}/deviceStatuses")
    return list(answer.json()["value"])


def finished(code: str) -> Command:
    item = Item(
        source=NODE.replace("%7B", "{").replace("%7D", "}") + "/DownloadInstall",
        type="Reversed-Domain-Name:com.microsoft.mdm.win32csp_install",
        data=code,
        format="int",
    )
    return Command("Alert", "3", (item,), "1226")


def link(work: list[Command]) -> str:
    found = re.search("<ContentURL>(.*?)</ContentURL>", work[1].items[0].data or "")
    assert found
    return unescape(found[1])


# ------------------------------------------------------------------ making one


async def test_name_and_product_are_read_from_the_file(mdm: Mdm, package: bytes) -> None:
    app = await uploaded(mdm, package)
    shown = (await mdm.graph("GET", f"{APPS}/{app}")).json()
    assert shown["displayName"] == "Client Setup"
    assert shown["productCode"] == CODE
    assert shown["productVersion"] == "1.2.3"
    assert shown["sha256"] == sha256(package).hexdigest()
    assert shown["size"] == len(package)
    assert shown["publishingState"] == "published"


async def test_an_app_is_not_assigned_while_it_is_processing(mdm: Mdm) -> None:
    app = await made(mdm)
    assert app["publishingState"] == "notPublished"
    group = await mdm.group("All")
    answer = await assigned(mdm, app["id"], group.id)
    assert answer.status_code == 409
    assert "still processing" in answer.json()["error"]["message"]


async def test_an_msi_app_is_of_an_msi(mdm: Mdm) -> None:
    answer = await mdm.graph("POST", APPS, {"displayName": "x", "fileName": "client.exe"})
    assert (answer.status_code, "not an MSI" in answer.text) == (400, True)


@pytest.mark.parametrize(
    ("line", "good"), [("x" * 1024, True), ("x" * 1025, False), ("a\nb", False)]
)
async def test_a_command_line_is_one_line_of_1024_characters(
    mdm: Mdm, line: str, good: bool
) -> None:
    body = {"displayName": "x", "fileName": "a.msi", "commandLine": line}
    assert (await mdm.graph("POST", APPS, body)).status_code == (201 if good else 400)


async def test_a_tenant_without_mdm_authority_takes_no_app(
    tenant_db: Database, tmp_path: Path
) -> None:
    async with mdm_service(tenant_db, tmp_path, authority=False) as mdm:
        answer = await mdm.graph("POST", APPS, {"displayName": "x", "fileName": "a.msi"})
    assert answer.status_code >= 400
    assert "MDM authority" in answer.json()["error"]["message"]


async def test_an_assignment_names_groups_that_exist_once(mdm: Mdm, package: bytes) -> None:
    app, group = await uploaded(mdm, package), await mdm.group("All")
    nowhere = "00000000-0000-0000-0000-00000000dead"
    assert (await assigned(mdm, app, nowhere)).status_code == 404
    assert (await assigned(mdm, app, group.id, exclude=(group.id,))).status_code == 400


async def test_an_ordinary_user_may_not_touch_apps(mdm: Mdm) -> None:
    await mdm.world.user("alex")
    headers = await mdm.world.bearer("alex@contoso.com")
    answer = await mdm.world.client.post(f"/v1.0/{APPS}", json={}, headers=headers)
    assert answer.status_code in {401, 403}


# ------------------------------------------------------------------ on a device


async def test_a_required_app_is_added_and_executed_in_one_message(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    await offered(mdm, package, device)
    add, execute = await device.check_in()
    assert (add.name, execute.name) == ("Add", "Exec")
    assert add.items[0].target == execute.items[0].target == f"{NODE}/DownloadInstall"
    assert execute.items[0].format == "xml"
    job = execute.items[0].data or ""
    assert f'id="{CODE}"' in job
    assert 'Version="1.2.3"' in job
    assert sha256(package).hexdigest().upper() in job
    assert f"/quiet {LINE}" in unescape(job)


async def test_the_order_is_built_like_the_documented_one(
    mdm: Mdm, package: bytes, samples: Path
) -> None:
    """Add, then Exec of the same node, and a job with every element in the schema's order."""
    theirs = etree.parse(str(samples / "mdm" / "s2d-msi-install-user.xml"))
    device = await mdm.enrolled()
    await offered(mdm, package, device)
    work = await device.check_in()
    body = theirs.find("{*}SyncBody")
    commands = [etree.QName(item).localname for item in body]
    assert [command.name for command in work] == commands[:-1]
    exec_item = theirs.find(".//{*}Exec/{*}Item")
    meta = exec_item.find("{*}Meta")
    assert [work[1].items[0].format, work[1].items[0].type] == [item.text for item in meta]
    job = exec_item.find("{*}Data/*")
    wanted = [etree.QName(item).localname for item in job.iter()]
    ours = etree.fromstring(work[1].items[0].data or "")
    assert [item.tag for item in ours.iter()] == list(dict.fromkeys(wanted))
    assert (ours.attrib.keys(), ours[0].attrib.keys()) == (job.attrib.keys(), job[0].attrib.keys())
    assert len(ours.findtext(".//FileHash") or "") == 64
    for name in ("TimeOut", "RetryCount", "RetryInterval"):
        assert 0 <= int(ours.findtext(f".//{name}") or "-1") <= 255


async def test_the_content_is_served_by_a_signed_link_with_ranges(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, package, device, fileName="my client & co.msi")
    url = link(await device.check_in())
    assert url.endswith("/my%20client%20%26%20co.msi")
    get = mdm.world.client.get
    head = await mdm.world.client.head(url)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(package)))
    assert head.headers["accept-ranges"] == "bytes"
    assert (await get(url)).content == package
    for wanted, part in (
        ("bytes=0-9", package[:10]),
        ("bytes=10-", package[10:]),
        ("bytes=-7", package[-7:]),
    ):
        answer = await get(url, headers={"range": wanted})
        assert (answer.status_code, answer.content) == (206, part)
        assert int(answer.headers["content-length"]) == len(part)
    beyond = await get(url, headers={"range": f"bytes={len(package)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(package)}")
    mdm.world.wait(hours=5)
    assert (await get(url)).status_code == 403
    mdm.world.wait(hours=-5)
    await mdm.graph("DELETE", f"{APPS}/{app}")
    assert (await get(url)).status_code == 404


async def test_a_link_does_not_get_into_the_log(
    mdm: Mdm, package: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    device = await mdm.enrolled()
    await offered(mdm, package, device)
    url = link(await device.check_in())
    assert (await mdm.world.client.get(url)).status_code == 200
    mdm.world.wait(hours=5)
    assert (await mdm.world.client.get(url)).status_code == 403
    logged = capsys.readouterr()
    assert "/content/…" in logged.out + logged.err
    assert url.split("/")[4] not in logged.out + logged.err


async def test_the_alert_tells_how_it_ended(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, package, device)
    device.codes["Exec"] = 202
    await device.check_in()
    assert (await statuses(mdm, app))[0]["installState"] == "installing"
    assert await device.check_in(finished("0")) == []
    assert (await statuses(mdm, app))[0]["installState"] == "installed"
    assert await device.check_in() == []


async def test_a_restart_to_come_is_no_failure(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, package, device)
    await device.check_in()
    await device.check_in(finished("3010"))
    assert (await statuses(mdm, app))[0]["installState"] == "installed"


async def test_a_failure_is_kept_with_its_code_and_tried_again_a_day_later(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, package, device)
    await device.check_in()
    assert await device.check_in(finished("-2147023293")) == []
    (status,) = await statuses(mdm, app)
    assert (status["installState"], status["errorCode"]) == ("failed", -2147023293)
    async with mdm.database.transaction() as tx:
        events = await enrollment.timeline(tx, device_id=device.id)
    assert events[0].code == "0x80070643"
    mdm.world.wait(hours=23)
    assert await device.check_in() == []
    mdm.world.wait(hours=2)
    assert [c.name for c in await device.check_in()] == ["Add", "Exec"]


async def test_a_lost_alert_is_made_up_for_by_asking(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, package, device)
    await device.check_in()
    device.nodes[f"{NODE}/Status"] = "50"
    await device.check_in()
    assert (await statuses(mdm, app))[0]["installState"] == "installing"
    device.nodes[f"{NODE}/Status"] = "70"
    await device.check_in()
    assert (await statuses(mdm, app))[0]["installState"] == "installed"


async def test_a_device_that_does_not_know_the_node_yet_is_asked_again(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    await offered(mdm, package, device)
    device.codes["Exec"] = 404
    assert len(await device.check_in()) == 2
    device.codes["Exec"] = 200
    assert len(await device.check_in()) == 2
    assert await device.check_in() == []


async def test_another_command_line_installs_again(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, package, device)
    await device.check_in()
    await device.check_in(finished("0"))
    answer = await mdm.graph("PATCH", f"{APPS}/{app}", {"commandLine": "OTHER=1"})
    assert answer.status_code < 300
    assert "OTHER=1" in ((await device.check_in())[1].items[0].data or "")


async def test_an_excluded_group_wins_and_is_named(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    app = await uploaded(mdm, package)
    all_, out = await mdm.group("All", device.user.id), await mdm.group("Pilot", device.user.id)
    assert (await assigned(mdm, app, all_.id, exclude=(out.id,))).status_code < 300
    assert await device.check_in() == []
    (status,) = await statuses(mdm, app)
    assert (status["installState"], status["excludedBy"]) == ("excluded", "Pilot")


async def test_a_device_that_enrols_anew_gets_its_apps_anew(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    await offered(mdm, package, device)
    await device.check_in()
    await device.check_in(finished("0"))
    again = await mdm.enroll(device.user, device.joined)
    assert len(await again.check_in()) == 2


# ------------------------------------------------------------------ the MSI and the client


async def test_the_msis_fate_and_the_clients_are_told_apart(mdm: Mdm, package: bytes) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, package, device)
    await device.check_in()
    await device.check_in(finished("0"))
    (status,) = await statuses(mdm, app)
    assert status["installState"] == "installed"
    assert status["client"]["stuckAt"] == "The client has not said anything yet."
    log = "No%20answer%20from%20the%20gateway"
    device.agent(f"flags=0;agent=1;client=;policy=0;setup=308;code=5;log={log}")
    await device.check_in()
    (status,) = await statuses(mdm, app)
    assert status["client"] == {
        "step": "308",
        "code": 5,
        "registered": False,
        "policyPresent": False,
        "stuckAt": "No answer from the gateway",
    }
    device.agent("flags=0;agent=1;client=GUID:1;policy=0")
    await device.check_in()
    (status,) = await statuses(mdm, app)
    assert status["client"]["registered"]
    assert status["client"]["stuckAt"] == "The client is registered and waits for its policy."
    device.agent("flags=1;agent=1;client=GUID:1;policy=1")
    await device.check_in()
    (status,) = await statuses(mdm, app)
    assert (status["client"]["registered"], status["client"]["policyPresent"]) == (True, True)
    assert status["client"]["stuckAt"] == ""


async def test_an_app_that_is_not_the_client_does_not_wait_for_one(
    mdm: Mdm, package: bytes
) -> None:
    device = await mdm.enrolled()
    app = await offered(mdm, package, device, commandLine="LANG=fr")
    await device.check_in()
    await device.check_in(finished("0"))
    (status,) = await statuses(mdm, app)
    assert (status["installState"], status["client"]["stuckAt"]) == ("installed", "")
