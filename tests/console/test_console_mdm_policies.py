"""Policies of the MDM service and the settings of co-management, by the tenant's console."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lxml import html
from mdm_console import Browser, main_text, text, world

from mdm_world import Mdm
from tandem.console.areas.mdm.policies import settings
from tandem.console.kit import Problem
from tandem.infra.database import Database
from tandem.tenant import directory

LINE = 'CCMSETUPCMD="CCMHOSTNAME=GW.CONTOSO.COM/CCM_Proxy_MutualAuth/1 SMSSITECODE=P01"'
SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"


@pytest.fixture
async def both(tenant_db: Database, tmp_path: Path) -> AsyncIterator[tuple[Mdm, Browser]]:
    async with world(tenant_db, tmp_path) as made:
        yield made


@pytest.fixture
def mdm(both: tuple[Mdm, Browser]) -> Mdm:
    return both[0]


@pytest.fixture
def browser(both: tuple[Mdm, Browser]) -> Browser:
    return both[1]


async def profile(browser: Browser, **assigned: Any) -> str:
    draft = await browser.begin("configuration-profile")
    await browser.goes(f"{draft}/basics", {"name": "Lock"})
    values = {"workload": "device-configuration", "settings": f"{SETTING} = 15"}
    await browser.goes(f"{draft}/settings", values)
    await browser.goes(f"{draft}/assignments", assigned)
    shown = await browser.text(f"{draft}/summary")
    assert (
        f"tandem device-configuration create Lock --workload device-configuration --set {SETTING}=15"
        in shown
    )
    return await browser.goes(f"{draft}/finish")


async def test_a_profile_is_made_and_devices_receive_it(mdm: Mdm, browser: Browser) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("Pilot", device.user.id)
    to = await profile(browser, required=[group.id])
    shown = await browser.text(to)
    assert "Lock was created" in shown
    assert "Devices receive it" in shown
    assert SETTING in shown
    assert [item.name for item in await device.check_in()] == ["Replace"]
    assert "In force" in await browser.text(f"/console/devices/{device.id}/configuration")
    page = await browser.get(f"{to}/edit")
    version = page.xpath("//input[@name='version']/@value")[0]
    values = {
        "version": version,
        "name": "Lock",
        "workload": "device-configuration",
        "settings": f"{SETTING} = 5",
    }
    assert await browser.goes(f"{to}/edit", values) == to
    answer = await browser.post(f"{to}/edit", {**values, "settings": f"{SETTING} = 99"})
    assert answer.status_code == 409
    assert f"{SETTING} = 99" in answer.text
    answer = await browser.post(f"{to}/edit", {**values, "settings": "nonsense"})
    assert answer.status_code == 422
    assert "Line 1 is no setting" in answer.text
    assert "2" in await browser.text(f"{to}/history")
    shown = await browser.text(f"{to}/delete")
    assert "It is meant for 1 enrolled device." in shown
    await browser.goes(f"{to}/delete", {"confirmed": "1"})
    assert "There is no such policy" in await browser.text("/console/policies?kind=profiles")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "at least one"),
        ("no setting", "Line %(number)s"),
        ("A/B = 1\n\nA/B = 2", "second time"),
        ("A/B =", "Line %(number)s"),
    ],
)
def test_lines_that_are_no_settings_are_named(lines: str, said: str) -> None:
    with pytest.raises(Problem) as refused:
        settings(lines)
    assert said in refused.value.message


def test_a_line_may_name_any_node_its_type_and_a_value_of_many_lines() -> None:
    lines = (
        "Area/Name = a = b\n./Device/Vendor/MSFT/X/A b (Integer) = 7\n"
        './Vendor/MSFT/WiFi/Profile/G/WlanXml (xml) = "<a>\\n</a>"'
    )
    assert [(one.name, one.type, one.value) for one in settings(lines)] == [
        ("Area/Name", "omaSettingString", "a = b"),
        ("./Device/Vendor/MSFT/X/A b", "omaSettingInteger", "7"),
        ("./Vendor/MSFT/WiFi/Profile/G/WlanXml", "omaSettingStringXml", "<a>\n</a>"),
    ]


async def version_of(browser: Browser, path: str) -> str:
    return str((await browser.get(path)).xpath("//input[@name='version']/@value")[0])


async def test_a_catalogue_policy_is_made_of_typed_settings(mdm: Mdm, browser: Browser) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("Pilot", device.user.id)
    to = await browser.goes("/console/policies/new-catalogue", {"name": "Guard"})
    page = await browser.get(f"{to}?search=idle+minutes+lock")
    assert "Minutes until the device locks" in text(page)
    french = await browser.text(f"{to}?search=verrouillage", **{"accept-language": "fr"})
    assert "Minutes avant le verrouillage" in french
    (form,) = page.xpath("//a[contains(@href, 'maxinactivitytimedevicelock')]/@href")
    shown = await browser.text(form)
    assert "Device configuration" in shown
    version = await version_of(browser, form)
    for value in ("1000", "soon", ""):
        answer = await browser.post(form, {"version": version, "value": value})
        assert answer.status_code == 422, value
    assert await browser.goes(form, {"version": version, "value": "10"}) == to
    answer = await browser.post(form, {"version": version, "value": "20"})
    assert answer.status_code == 409
    enum = f"{to}/device_vendor_msft_policy_config_defender_puaprotection"
    await browser.goes(enum, {"version": await version_of(browser, enum), "value": "1"})
    assert "Block" in await browser.text(to)
    policy = to.removesuffix("/settings")
    data = {"version": await version_of(browser, f"{policy}/assignments"), "required": [group.id]}
    await browser.goes(f"{policy}/assignments", data)
    assert sorted(str(item.items[0].data) for item in await device.check_in()) == ["1", "10"]
    shown = await browser.text(f"{policy}/status")
    assert "DeviceLock/MaxInactivityTimeDeviceLock" in shown
    await browser.goes(f"{enum}/remove")
    assert [item.name for item in await device.check_in()] == ["Delete"]


async def test_a_custom_profile_takes_any_node_by_its_own_form(mdm: Mdm, browser: Browser) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("Pilot", device.user.id)
    to = await profile(browser, required=[group.id])
    form = f"{to}/oma/new"
    values = {
        "version": await version_of(browser, form),
        "omaUri": "./Vendor/MSFT/WiFi/Profile/Guest/WlanXml",
        "type": "omaSettingStringXml",
        "value": "<WLANProfile>\r\n</WLANProfile>",
    }
    answer = await browser.post(form, {**values, "omaUri": "Device/x"})
    assert answer.status_code == 422
    answer = await browser.post(form, {**values, "omaUri": "./Device/../x"})
    assert "is not the OMA-URI of a node" in text(html.fromstring(answer.content))
    assert await browser.goes(form, values) == to
    assert "<WLANProfile>" in await browser.text(f"{to}/oma/1")
    assert {item.items[0].format for item in await device.check_in()} == {"int", "xml"}
    edit = await browser.get(f"{to}/edit")
    lines = edit.xpath("//textarea[@name='settings']")[0].text
    version = await version_of(browser, f"{to}/edit")
    data = {"version": version, "name": "Lock", "workload": "", "settings": lines.strip()}
    await browser.goes(f"{to}/edit", data)
    assert await device.check_in() == [], "what was not changed is what it was"
    await browser.goes(f"{to}/oma/1/remove")
    assert [item.name for item in await device.check_in()] == ["Delete"]
    await browser.get(f"{to}/oma/7", 404)


async def test_a_page_says_why_a_device_has_a_setting(mdm: Mdm, browser: Browser) -> None:
    device = await mdm.enrolled()
    inner = await mdm.group("Inner", device.user.id)
    outer = await mdm.group("Outer", inner.id)
    await profile(browser, required=[outer.id])
    await device.check_in()
    page = await browser.get(f"/console/devices/{device.id}/configuration")
    (link,) = page.xpath("//a[contains(@href, 'configuration/why')]/@href")
    shown = main_text(await browser.get(link))
    assert "In force" in shown
    assert "Included: the device's user → Inner → Outer" in shown
    shown = main_text(await browser.get(link, **{"accept-language": "fr"}))
    assert "L’appareil l’a." in shown
    nothing = f"/console/devices/{device.id}/configuration/why?setting=Update/ActiveHoursEnd"
    assert "No policy names this setting." in main_text(await browser.get(nothing))


async def test_every_kind_is_listed_and_says_whether_devices_receive_it(
    mdm: Mdm, browser: Browser
) -> None:
    for path, body in (
        (
            "deviceManagement/deviceCompliancePolicies",
            {
                "@odata.type": "#microsoft.graph.windows10CompliancePolicy",
                "displayName": "Passwords",
                "passwordMinimumLength": 12,
                "scheduledActionsForRule": [
                    {
                        "ruleName": "r",
                        "scheduledActionConfigurations": [
                            {"actionType": "block", "gracePeriodHours": 24}
                        ],
                    }
                ],
            },
        ),
        (
            "deviceManagement/configurationPolicies",
            {
                "name": "<script>Catalogue",
                "platforms": "windows10",
                "technologies": "mdm",
                "settings": [
                    {
                        "settingInstance": {
                            "@odata.type": "#microsoft.graph.x",
                            "settingDefinitionId": "device_lock",
                            "choiceSettingValue": {
                                "value": "device_lock_1",
                                "children": [
                                    {
                                        "settingDefinitionId": "device_inner",
                                        "simpleSettingValue": {"value": 7},
                                    }
                                ],
                            },
                        }
                    }
                ],
            },
        ),
        (
            "deviceManagement/deviceManagementScripts",
            {"displayName": "Script", "fileName": "a.ps1", "scriptContent": "V3JpdGUtSG9zdCBoaQ=="},
        ),
    ):
        answer = await mdm.graph("POST", path, body)
        assert answer.status_code == 201, answer.text
    page = await browser.get("/console/policies")
    shown = text(page)
    assert "Stored, not delivered in this version" in shown
    assert "All users and all devices" in shown, "the defaults of enrolment are among them"
    assert not page.xpath("//table//script")
    found: dict[str, str] = {}
    for link in page.xpath("//tbody/tr/th/a"):
        found[text(link)] = await browser.text(link.get("href"))
    assert "Password minimum length12" in found["Passwords"]
    assert "Block: after 24 hours" in found["Passwords"]
    assert "device_inner7" in found["<script>Catalogue"]
    assert "Write-Host hi" in found["Script"]
    await browser.get("/console/policies/nothing/x", 404)
    await browser.get("/console/policies/profiles/nothing", 404)


async def test_assignments_of_any_kind_are_changed_by_pickers(mdm: Mdm, browser: Browser) -> None:
    group = await mdm.group("Pilot")
    made = await mdm.graph(
        "POST",
        "deviceManagement/deviceManagementScripts",
        {"displayName": "Script", "fileName": "a.ps1", "scriptContent": "aGk="},
    )
    to = f"/console/policies/scripts/{made.json()['id']}"
    page = await browser.get(f"{to}/assignments")
    version = page.xpath("//input[@name='version']/@value")[0]
    values = {"version": version, "required": [group.id], "required_everybody": ["devices"]}
    assert await browser.goes(f"{to}/assignments", values) == to
    page = await browser.get(f"{to}/assignments")
    assert "Pilot" in text(page.xpath("//ul[@class='chosen']")[0])
    answer = await browser.post(f"{to}/assignments", values)
    assert answer.status_code == 409
    answer = await browser.post(f"{to}/assignments", {**values, "required_excluded": [group.id]})
    assert answer.status_code == 422


async def test_settings_of_comanagement_are_made_ordered_changed_and_deleted(
    mdm: Mdm, browser: Browser
) -> None:
    device = await mdm.enrolled()
    async with mdm.database.transaction() as tx:
        devices = await directory.create_group(tx, "New devices", mdm.world.at)
        known = await directory.find_device(tx, device.joined.device_id)
        assert known is not None
        await directory.add_member(tx, devices.id, known.id)
    users = await mdm.group("People", device.user.id)
    for name in ("First", "Second"):
        draft = await browser.begin("comanagement-settings")
        await browser.goes(f"{draft}/basics", {"name": name})
        answer = await browser.post(f"{draft}/settings", {"install": "1", "command_line": ""})
        assert answer.status_code == 422
        assert "cannot be installed without its parameters" in answer.text
        answer = await browser.post(f"{draft}/settings", {"command_line": "x" * 1025})
        assert answer.status_code == 422
        await browser.goes(f"{draft}/settings", {"install": "1", "command_line": LINE})
        await browser.goes(f"{draft}/advanced", {"override": "1"})
        answer = await browser.post(f"{draft}/assignments", {"required": [users.id]})
        assert answer.status_code == 422
        assert "for groups of devices" in answer.text
        await browser.goes(f"{draft}/assignments", {"required": [devices.id]})
        shown = await browser.text(f"{draft}/summary")
        assert "Do not change this once devices are provisioned" in shown
        assert f"tandem comanagement-settings create {name} --install" in shown
        to = await browser.goes(f"{draft}/finish")
    page = await browser.get(to)
    assert [text(item) for item in page.xpath("//tbody/tr/th")] == ["First", "Second"]
    assert "New devices" in main_text(page)
    assert "Stored, not delivered" in main_text(page)
    second = page.xpath("//tbody/tr[2]//a/@href")[0]
    await browser.goes(f"{second}/priority", {"priority": "1"})
    page = await browser.get(to)
    assert [text(item) for item in page.xpath("//tbody/tr/th")] == ["Second", "First"]
    page = await browser.get(second)
    version = page.xpath("//input[@name='version']/@value")[0]
    values = {"version": version, "name": "Third", "required": [devices.id]}
    await browser.goes(second, values)
    assert "Third" in await browser.text(to)
    answer = await browser.post(second, values)
    assert answer.status_code == 409
    assert html.fromstring(answer.content).xpath("//input[@id='name']/@value") == ["Third"]
    assert "It is assigned to: New devices" in await browser.text(f"{second}/delete")
    await browser.goes(f"{second}/delete", {"confirmed": "1"})
    page = await browser.get(to)
    assert [text(item) for item in page.xpath("//tbody/tr/th")] == ["First"]


async def test_enrolment_restrictions_are_made_ordered_changed_and_deleted(
    mdm: Mdm, browser: Browser
) -> None:
    user = await mdm.world.user("alex")
    staff = await mdm.group("Staff", user.id)
    base = "/console/enrolment-restrictions"
    page = await browser.get(base)
    assert [text(item) for item in page.xpath("//tbody/tr/th")] == ["All users", "All users"]
    assert "At most 15 personal devices" in main_text(page)
    for name, rules in (("First", {"blocked": "1"}), ("Second", {"minimum": "10.0.22631"})):
        draft = await browser.begin("platform-restriction")
        await browser.goes(f"{draft}/basics", {"name": name})
        await browser.goes(f"{draft}/settings", rules)
        await browser.goes(f"{draft}/assignments", {"required": [staff.id]})
        shown = await browser.text(f"{draft}/summary")
        assert f"tandem enrollment-restriction create-platform {name}" in shown
        await browser.goes(f"{draft}/finish")
    draft = await browser.begin("device-limit")
    await browser.goes(f"{draft}/basics", {"name": "Two"})
    assert (await browser.post(f"{draft}/settings", {"limit": "16"})).status_code == 422
    await browser.goes(f"{draft}/settings", {"limit": "2"})
    await browser.goes(f"{draft}/assignments", {"required": [staff.id]})
    await browser.goes(f"{draft}/finish")
    page = await browser.get(base)
    rows = [text(item) for item in page.xpath("//tbody/tr/th")]
    assert rows == ["First", "Second", "All users", "Two", "All users"]
    assert "from version 10.0.22631" in main_text(page)
    assert "Staff" in main_text(page)
    second, default = (page.xpath(f"//tbody/tr[{n}]//a/@href")[0] for n in (2, 3))
    await browser.goes(f"{second}/priority", {"priority": "1"})
    page = await browser.get(second)
    version = page.xpath("//input[@name='version']/@value")[0]
    values = {"version": version, "name": "Newer", "required": [staff.id]}
    answer = await browser.post(second, {**values, "minimum": "eleven"})
    assert answer.status_code == 422
    assert "no version of an operating system" in answer.text
    await browser.goes(second, {**values, "minimum": "10.0.26100"})
    assert (await browser.post(second, {**values, "minimum": "10.0.1"})).status_code == 409
    page = await browser.get(default)
    assert not page.xpath("//input[@name='name']")
    version = page.xpath("//input[@name='version']/@value")[0]
    await browser.goes(default, {"version": version, "personal_blocked": "1"})
    page = await browser.get(base)
    assert "no personal devices" in main_text(page)
    assert [text(item) for item in page.xpath("//tbody/tr/th")][:2] == ["Newer", "First"]
    await browser.goes(f"{second}/delete", {"confirmed": "1"})
    page = await browser.get(base)
    assert [text(item) for item in page.xpath("//tbody/tr/th")][:2] == ["First", "All users"]


async def test_a_device_shows_its_certificates(mdm: Mdm, browser: Browser) -> None:
    device = await mdm.enrolled()
    shown = await browser.text(f"/console/devices/{device.id}")
    assert "Management certificates" in shown
    assert "In use" in shown
