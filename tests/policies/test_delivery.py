"""Settings of policies on their way to devices, over Graph on one side and OMA-DM on the other."""

from base64 import b64encode
from datetime import timedelta
from typing import Any

import pytest
from test_policy_objects import Beta

from mdm_world import Mdm, TestDevice
from tandem.protocols.syncml import Command
from tandem.tenant import directory
from tandem.workloads import Workload, capabilities

DM = "deviceManagement"
GRAPH = "#microsoft.graph."
LOCK = "./Device/Vendor/MSFT/Policy/Config/DeviceLock/MaxInactivityTimeDeviceLock"
FIREWALL = "./Vendor/MSFT/Firewall/MdmStore/PublicProfile/EnableFirewall"


@pytest.fixture
async def beta(mdm: Mdm) -> Beta:
    return Beta(mdm, await mdm.world.bearer())


def oma(uri: str, value: Any, type: str = "Integer") -> dict[str, Any]:
    kind = f"{GRAPH}omaSetting{type}"
    return {"@odata.type": kind, "displayName": uri, "omaUri": uri, "value": value}


async def profile(
    beta: Beta, name: str, *settings: dict[str, Any], groups: tuple[str, ...] = (), **more: Any
) -> str:
    body = {
        "@odata.type": f"{GRAPH}windows10CustomConfiguration",
        "displayName": name,
        "omaSettings": list(settings),
        **more,
    }
    made = await beta.made(f"{DM}/deviceConfigurations", body)
    await give(beta, f"{DM}/deviceConfigurations/{made['id']}", *groups)
    return str(made["id"])


async def give(beta: Beta, path: str, *groups: str) -> None:
    targets = [
        {"target": {"@odata.type": f"{GRAPH}groupAssignmentTarget", "groupId": group}}
        for group in groups
    ]
    answer = await beta("POST", f"{path}/assign", {"assignments": targets})
    assert answer.status_code == 200, answer.text


def said(commands: list[Command]) -> list[tuple[str, str, str, str | None]]:
    return [
        (one.name, one.items[0].target, one.items[0].format, one.items[0].data) for one in commands
    ]


async def outcomes(beta: Beta, device: TestDevice) -> dict[str, str]:
    found = await beta.got(f"{DM}/managedDevices/{device.id}/settings")
    return {one["setting"]: one["outcome"] for one in found["value"]}


async def why(beta: Beta, device: TestDevice, setting: str) -> dict[str, Any]:
    answer = await beta("POST", f"tandem/managedDevices/{device.id}/why", {"setting": setting})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_every_node_is_set_in_its_own_format(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    xml = '<?xml version="1.0"?><WLANProfile><name>Café</name></WLANProfile>'
    await profile(
        beta,
        "Custom",
        oma(LOCK, "15", "String"),  # known to take a number
        oma("./Vendor/MSFT/Firewall/MdmStore/PublicProfile/DisableStealthMode", 1),
        oma("./Vendor/MSFT/WiFi/Profile/My Café/WlanXml", b64encode(xml.encode()).decode(),
            "StringXml"),
        oma("./Device/Vendor/MSFT/Unknown/{A}/Text", "15", "String"),
        oma("./Device/Vendor/MSFT/Unknown/Number", 7),
        oma("./Device/Vendor/MSFT/Unknown/Switch", True, "Boolean"),
        oma("./Device/Vendor/MSFT/Unknown/Part", 1.5, "FloatingPoint"),
        oma("./Device/Vendor/MSFT/Unknown/Day", "2026-11-26T10:00:00Z", "DateTime"),
        oma("./Device/Vendor/MSFT/Unknown/Bytes", "QUI=", "Base64"),
        groups=(group.id,),
    )  # fmt: skip
    base = "./Device/Vendor/MSFT"
    assert said(await device.check_in()) == [
        ("Replace", LOCK, "int", "15"),
        ("Replace", f"{base}/Firewall/MdmStore/PublicProfile/DisableStealthMode", "bool", "true"),
        ("Replace", f"{base}/WiFi/Profile/My%20Café/WlanXml", "xml",
         "<WLANProfile><name>Café</name></WLANProfile>"),
        ("Replace", f"{base}/Unknown/%7BA%7D/Text", "chr", "15"),
        ("Replace", f"{base}/Unknown/Number", "int", "7"),
        ("Replace", f"{base}/Unknown/Switch", "bool", "true"),
        ("Replace", f"{base}/Unknown/Part", "float", "1.5"),
        ("Replace", f"{base}/Unknown/Day", "chr", "2026-11-26T10:00:00Z"),
        ("Replace", f"{base}/Unknown/Bytes", "b64", "QUI="),
    ]  # fmt: skip
    assert await device.check_in() == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (oma("Device/Vendor/MSFT/X", 1), "is not the OMA-URI"),
        (oma("./Device/../X/Y", 1), "is not the OMA-URI"),
        (oma("./Device/Vendor/MSFT/X/Y?z", 1), "is not the OMA-URI"),
        (oma("./Device/Vendor/MSFT/X/Y", "much", "Integer"), "does not fit its type"),
        (oma("./Device/Vendor/MSFT/X/Y", "maybe", "Boolean"), "does not fit its type"),
        (oma("./Device/Vendor/MSFT/X/Y", "%%%", "Base64"), "does not fit its type"),
        (oma("./Device/Vendor/MSFT/X/Y", "a\x01b", "String"), "XML cannot carry"),
        (oma("./Device/Vendor/MSFT/X/Y", "<" * 70_000, "String"), "more than 240 KiB"),
        (oma("./Device/Vendor/MSFT/X/Y", "1", "Surprise"), "is not known"),
    ],
)
async def test_what_no_device_could_be_given_is_refused_at_once(
    beta: Beta, setting: dict[str, Any], words: str
) -> None:
    body = {
        "@odata.type": f"{GRAPH}windows10CustomConfiguration",
        "displayName": "Bad",
        "omaSettings": [setting],
    }
    answer = await beta("POST", f"{DM}/deviceConfigurations", body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_a_value_with_markup_stays_one_value(mdm: Mdm, beta: Beta) -> None:
    """Whatever an administrator writes, no command is smuggled in (section 20)."""
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    evil = "</Data></Item></Replace><Exec><CmdID>1</CmdID></Exec>]]>&amp;"
    node = "./Device/Vendor/MSFT/Unknown/A&B"
    await profile(beta, "Evil", oma(node, evil, "String"), groups=(group.id,))
    assert said(await device.check_in()) == [("Replace", node, "chr", evil)]


def choice(name: str, value: Any, children: Any = ()) -> dict[str, Any]:
    return {
        "@odata.type": f"{GRAPH}deviceManagementConfigurationSetting",
        "settingInstance": {
            "@odata.type": f"{GRAPH}deviceManagementConfigurationChoiceSettingInstance",
            "settingDefinitionId": name,
            "choiceSettingValue": {"value": f"{name}_{value}", "children": list(children)},
        },
    }


def simple(name: str, value: Any) -> dict[str, Any]:
    return {
        "settingInstance": {
            "@odata.type": f"{GRAPH}deviceManagementConfigurationSimpleSettingInstance",
            "settingDefinitionId": name,
            "simpleSettingValue": {
                "@odata.type": f"{GRAPH}deviceManagementConfigurationIntegerSettingValue",
                "value": value,
            },
        }
    }


POLICY = "device_vendor_msft_policy_config"
RULE = "vendor_msft_firewall_mdmstore_firewallrules_{firewallrulename}"


async def test_a_catalogue_policy_becomes_the_settings_that_it_says(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    many = {
        "settingInstance": {
            "settingDefinitionId": f"{POLICY}_defender_excludedextensions",
            "simpleSettingCollectionValue": [{"value": "iso"}, {"value": "vhd"}],
        }
    }
    rules = {
        "settingInstance": {
            "settingDefinitionId": RULE,
            "groupSettingCollectionValue": [
                {
                    "children": [
                        simple(f"{RULE}_name", "Web")["settingInstance"],
                        simple(f"{RULE}_protocol", 6)["settingInstance"],
                    ]
                }
            ],
        }
    }
    admx = choice(
        f"{POLICY}_power_standbytimeoutonbattery",
        1,
        [simple(f"{POLICY}_power_standbytimeoutonbattery_entervideodcstandbytimeout", 600)[
            "settingInstance"]],
    )  # fmt: skip
    made = await beta.made(
        f"{DM}/configurationPolicies",
        {
            "name": "Catalogue",
            "platforms": "windows10",
            "technologies": "mdm",
            "settings": [
                choice(f"{POLICY}_defender_puaprotection", 1),
                choice("vendor_msft_firewall_mdmstore_publicprofile_enablefirewall", "true"),
                simple(f"{POLICY}_devicelock_maxinactivitytimedevicelock", 10),
                many,
                rules,
                admx,
                choice("device_vendor_msft_policy_config_nobody_knows", 1),
            ],
        },
    )
    path = f"{DM}/configurationPolicies/{made['id']}"
    await give(beta, path, group.id)
    base = "./Device/Vendor/MSFT"
    assert said(await device.check_in()) == [
        ("Replace", f"{base}/Policy/Config/Defender/PUAProtection", "int", "1"),
        ("Replace", f"{base}/Firewall/MdmStore/PublicProfile/EnableFirewall", "bool", "true"),
        ("Replace", LOCK, "int", "10"),
        ("Replace", f"{base}/Policy/Config/Defender/ExcludedExtensions", "chr", "iso|vhd"),
        ("Replace", f"{base}/Firewall/MdmStore/FirewallRules/Web/Name", "chr", "Web"),
        ("Replace", f"{base}/Firewall/MdmStore/FirewallRules/Web/Protocol", "int", "6"),
        ("Replace", f"{base}/Policy/Config/Power/StandbyTimeoutOnBattery", "chr",
         '<enabled/><data id="entervideodcstandbytimeout" value="600"/>'),
    ]  # fmt: skip
    report = await beta.got(f"{path}/settingStatuses")
    assert [one["counts"]["success"] for one in report["settings"]] == [1] * 7
    assert report["problems"] == [
        {
            "setting": "device_vendor_msft_policy_config_nobody_knows",
            "reason": "The catalogue does not know it.",
        }
    ]


@pytest.mark.parametrize(
    "setting",
    [
        choice(f"{POLICY}_defender_puaprotection", 9),
        simple(f"{POLICY}_devicelock_maxinactivitytimedevicelock", 1000),
        simple(f"{POLICY}_devicelock_maxinactivitytimedevicelock", "soon"),
    ],
)
async def test_a_value_that_a_setting_does_not_take_is_refused(
    beta: Beta, setting: dict[str, Any]
) -> None:
    answer = await beta("POST", f"{DM}/configurationPolicies", {"name": "x", "settings": [setting]})
    assert answer.status_code == 400
    assert "It takes" in answer.json()["error"]["message"]


async def test_two_policies_that_disagree_leave_the_last_good_value(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    first = await profile(beta, "First", oma(LOCK, 10), groups=(group.id,))
    assert [one[3] for one in said(await device.check_in())] == ["10"]
    mdm.world.at += timedelta(seconds=1)
    second = await profile(beta, "Second", oma(LOCK, 20), groups=(group.id,))
    assert await device.check_in() == []
    assert set((await outcomes(beta, device)).values()) == {"conflict"}
    found = await why(beta, device, LOCK)
    assert (found["outcome"], found["wanted"]) == ("conflict", None)
    assert [(one["policyName"], one["role"]) for one in found["policies"]] == [
        ("First", "conflicts"),
        ("Second", "conflicts"),
    ]
    assert found["lastOutcome"]["value"] == "10"
    for id in (first, second):
        report = await beta.got(f"{DM}/deviceConfigurations/{id}/settingStatuses")
        assert report["settings"][0]["counts"] == {
            "success": 0, "error": 0, "notApplicable": 0, "conflict": 1, "pending": 0,
            "withheld": 0,
        }  # fmt: skip
    states = await beta.got(f"{DM}/managedDevices/{device.id}/deviceConfigurationStates")
    assert {one["state"] for one in states["value"]} == {"conflict"}
    await give(beta, f"{DM}/deviceConfigurations/{first}")
    assert [one[3] for one in said(await device.check_in())] == ["20"]


async def test_why_names_the_way_through_nested_groups(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    inner = await mdm.group("Inner", device.user.id)
    outer = await mdm.group("Outer", inner.id)
    other = await mdm.group("Other")
    await profile(beta, "Won", oma(LOCK, 10), groups=(outer.id,))
    mdm.world.at += timedelta(seconds=1)
    await profile(beta, "Same", oma(LOCK, 10), groups=(outer.id,))
    await profile(beta, "Elsewhere", oma(LOCK, 30), groups=(other.id,))
    await device.check_in()
    found = await why(beta, device, "DeviceLock/MaxInactivityTimeDeviceLock")
    assert (found["outcome"], found["wanted"], found["workloadOwner"]) == ("success", "10", "mdm")
    roles = {one["policyName"]: one["role"] for one in found["policies"]}
    assert roles == {"Won": "winner", "Same": "agrees", "Elsewhere": "notMeant"}
    (way,) = found["policies"][0]["path"]
    assert (way["member"], [one["displayName"] for one in way["groups"]]) == (
        "user",
        ["Inner", "Outer"],
    )
    by_id = await why(beta, device, f"{POLICY}_devicelock_maxinactivitytimedevicelock")
    assert by_id["setting"] == found["setting"]
    nothing = await why(beta, device, "Update/ActiveHoursEnd")
    assert (nothing["outcome"], nothing["policies"]) == ("notAssigned", [])


async def test_an_exclusion_and_a_filter_say_why_nothing_came(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    group, out = await mdm.group("All", device.user.id), await mdm.group("Out", device.user.id)
    id = await profile(beta, "Excluded", oma(LOCK, 10))
    kinds = (("groupAssignmentTarget", group), ("exclusionGroupAssignmentTarget", out))
    given = [{"target": {"@odata.type": GRAPH + kind, "groupId": one.id}} for kind, one in kinds]
    await beta("POST", f"{DM}/deviceConfigurations/{id}/assign", {"assignments": given})
    other = await profile(beta, "Filtered", oma(LOCK, 10))
    rule = {"displayName": "f", "platform": "windows10AndLater", "rule": "(device.x -eq 1)"}
    made = await beta.made(f"{DM}/assignmentFilters", rule)
    target = {
        "@odata.type": f"{GRAPH}groupAssignmentTarget",
        "groupId": group.id,
        "deviceAndAppManagementAssignmentFilterId": made["id"],
        "deviceAndAppManagementAssignmentFilterType": "include",
    }
    path = f"{DM}/deviceConfigurations/{other}/assign"
    await beta("POST", path, {"assignments": [{"target": target}]})
    assert await device.check_in() == []
    found = await why(beta, device, LOCK)
    effects = {
        one["policyName"]: {way["effect"] for way in one["path"]} for one in found["policies"]
    }
    assert effects == {"Excluded": {"included", "excluded"}, "Filtered": {"filtered"}}


async def test_a_setting_of_a_workload_of_the_site_is_withheld_and_says_so(
    mdm: Mdm, beta: Beta
) -> None:
    """The catalogue says whose part a setting is: the firewall waits, the lock is set."""
    device = await mdm.enrolled()
    flags = capabilities([Workload.WINDOWS_UPDATE])
    device.agent(f"flags={flags};agent=1.0;client=GUID:1;policy=1")
    group = await mdm.group("All", device.user.id)
    update = "./Device/Vendor/MSFT/Policy/Config/Update/ActiveHoursEnd"
    id = await profile(beta, "P", oma(FIREWALL, 1), oma(update, 18), groups=(group.id,))
    assert said(await device.check_in()) == [("Replace", update, "int", "18")]
    found = await why(beta, device, FIREWALL)
    assert (found["outcome"], found["workload"], found["workloadOwner"]) == (
        "withheld",
        "endpoint-protection",
        "site",
    )
    report = await beta.got(f"{DM}/deviceConfigurations/{id}/settingStatuses")
    assert [one["counts"]["withheld"] for one in report["settings"]] == [1, 0]
    device.agent(
        f"flags={capabilities([Workload.DEVICE_CONFIGURATION])};agent=1.0;client=GUID:1;policy=1"
    )
    assert [one[1] for one in said(await device.check_in())] == [
        "./Device/Vendor/MSFT/Firewall/MdmStore/PublicProfile/EnableFirewall"
    ]


async def test_windows_that_is_too_old_is_not_asked(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    device.nodes["./DevDetail/SwV"] = "10.0.19045.4598"
    group = await mdm.group("All", device.user.id)
    uri = "./Device/Vendor/MSFT/LAPS/Policies/PassphraseLength"
    id = await profile(beta, "P", oma(uri, 6), groups=(group.id,))
    assert await device.check_in() == []
    assert await outcomes(beta, device) == {uri: "notApplicable"}
    report = await beta.got(f"{DM}/deviceConfigurations/{id}/settingStatuses")
    assert report["settings"][0]["counts"]["notApplicable"] == 1


async def test_a_refusal_has_its_words_and_is_asked_again_a_day_later(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    await profile(beta, "P", oma(LOCK, 10), groups=(group.id,))
    device.codes["Replace"] = 500
    assert len(await device.check_in()) == 1
    found = await why(beta, device, LOCK)
    assert (found["outcome"], found["lastOutcome"]["status"]) == ("error", 500)
    assert found["reason"] == "The device failed to set it."
    assert await device.check_in() == []
    mdm.world.at += timedelta(hours=25)
    del device.codes["Replace"]
    assert len(await device.check_in()) == 1
    beta.headers = await mdm.world.bearer()
    assert (await why(beta, device, LOCK))["outcome"] == "success"


async def test_a_node_that_is_not_there_is_added_once(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    uri = "./Device/Vendor/MSFT/Unknown/New"
    await profile(beta, "P", oma(uri, "x", "String"), groups=(group.id,))
    device.codes["Replace"] = 404
    assert [one[0] for one in said(await device.check_in())] == ["Replace", "Add"]
    assert await outcomes(beta, device) == {uri: "success"}


async def test_a_policy_that_goes_takes_its_settings_along(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    id = await profile(beta, "P", oma(FIREWALL, 1), groups=(group.id,))
    await device.check_in()
    assert (await beta("DELETE", f"{DM}/deviceConfigurations/{id}")).status_code == 200
    assert set((await outcomes(beta, device)).values()) == {"removing"}
    node = "./Device/Vendor/MSFT/Firewall/MdmStore/PublicProfile/EnableFirewall"
    assert [one[:2] for one in said(await device.check_in())] == [("Delete", node)]
    assert await outcomes(beta, device) == {}


@pytest.mark.parametrize("value", ["hunter2-but-longer", "x" * 300])
async def test_a_secret_reaches_its_device_and_nobody_else(
    mdm: Mdm, beta: Beta, value: str
) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    secret = "./Device/Vendor/MSFT/Accounts/Users/helper/Password"
    switch = "./Device/Vendor/MSFT/X/AllowPassword"
    await profile(beta, "P", oma(secret, value, "String"), oma(switch, 1), groups=(group.id,))
    (first, _) = await device.check_in()
    assert first.items[0].data == value
    assert await device.check_in() == []
    assert await outcomes(beta, device) == {secret: "success", switch: "success"}
    base = f"{DM}/managedDevices/{device.id}"
    shown = [
        str(await beta.got(f"{base}/settings")),
        str(await beta.got(f"{base}/timeline")),
        str(await beta.got(f"{base}/deviceConfigurationStates")),
        str(await why(beta, device, secret)),
    ]
    for text in shown:
        assert value not in text
    assert f"{secret} set to ********" in shown[1]
    assert f"{switch} set to 1" in shown[1], "a switch of that name is none"
    async with mdm.database.transaction() as tx:
        found = await tx.execute(
            "SELECT value || (SELECT string_agg(sent::text, '') FROM sessions_session) AS kept"
            " FROM sessions_delivery"
        )
        kept = [row["kept"] async for row in found]
    assert len(kept) == 2
    assert not any(value in text for text in kept)


async def test_settings_of_users_wait_for_a_user(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All", device.user.id)
    uri = "./User/Vendor/MSFT/Policy/Config/Education/PreventAddingNewPrinters"
    await profile(beta, "P", oma(uri, 1), groups=(group.id,))
    assert await device.check_in() == []
    assert await outcomes(beta, device) == {uri: "pending"}


async def test_a_change_of_membership_counts_at_the_next_session(mdm: Mdm, beta: Beta) -> None:
    device = await mdm.enrolled()
    group = await mdm.group("All")
    await profile(beta, "P", oma(LOCK, 10), groups=(group.id,))
    assert await device.check_in() == []
    async with mdm.database.transaction() as tx:
        await directory.add_member(tx, group.id, device.user.id)
    assert len(await device.check_in()) == 1
