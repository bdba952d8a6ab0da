"""Enrolment restrictions: which devices a user may enrol, and how many, judged when one asks."""

import asyncio
from typing import Any

import httpx
import pytest

from mdm_world import Mdm, certificate_request, new_id, request_token, said, subcode
from tandem import pki
from tandem.tenant import directory, enrollment
from tandem.tenant.enrollment import restrictions
from tenant_world import Joined

PATH = "deviceManagement/deviceEnrollmentConfigurations"
KEY = pki.generate_key("rsa2048")
PERSONAL = 4


async def someone(
    mdm: Mdm, name: str = "alex", join_type: int = 0
) -> tuple[directory.User, Joined]:
    user = await mdm.world.user(name)
    return user, await mdm.world.joined(user.user_principal_name, join_type=join_type)


async def asks(mdm: Mdm, joined: Joined, key: pki.PrivateKey = KEY, **items: str) -> httpx.Response:
    message = request_token(await mdm.mdm_token(joined), certificate_request(key), **items)
    return await mdm.soap("Enrollment", message)


def verdict(answer: httpx.Response) -> str:
    """The detail of a refusal; empty for an enrollment."""
    return said(answer).get("ErrorType", subcode(answer))


async def made(mdm: Mdm, type: str, name: str, *groups: directory.Group, **values: Any) -> str:
    answer = await mdm.graph(
        "POST", PATH, {"@odata.type": f"#microsoft.graph.{type}", "displayName": name, **values}
    )
    assert answer.status_code == 201, answer.text
    id = str(answer.json()["id"])
    given = [
        {"target": {"@odata.type": "#microsoft.graph.groupAssignmentTarget", "groupId": group.id}}
        for group in groups
    ]
    body = {"enrollmentConfigurationAssignments": given}
    assert (await mdm.graph("POST", f"{PATH}/{id}/assign", body)).status_code == 200
    return id


async def platform(mdm: Mdm, name: str, *groups: directory.Group, **values: Any) -> str:
    return await made(
        mdm,
        restrictions.PLATFORM,
        name,
        *groups,
        platformType="windows",
        platformRestriction=values,
    )


async def change_default(mdm: Mdm, name: str, **values: Any) -> None:
    found = (await mdm.graph("GET", PATH)).json()["value"]
    (item,) = [one for one in found if one["id"].endswith(name)]
    body = {"@odata.type": item["@odata.type"], **values}
    answer = await mdm.graph("PATCH", f"{PATH}/{item['id']}", body)
    assert answer.status_code == 200, answer.text


async def test_without_restrictions_everybodys_windows_enrols(mdm: Mdm) -> None:
    _, joined = await someone(mdm)
    assert verdict(await asks(mdm, joined)) == ""


async def test_a_blocked_platform_is_refused_and_listed(mdm: Mdm) -> None:
    await change_default(
        mdm, "DefaultPlatformRestrictions", windowsRestriction={"platformBlocked": True}
    )
    _, joined = await someone(mdm)
    answer = await asks(mdm, joined)
    assert (subcode(answer), verdict(answer)) == ("s:Authorization", "DeviceNotSupported")
    async with mdm.database.transaction() as tx:
        (failure,) = await enrollment.timeline(tx, kind="refused")
    assert failure.code == "0x80180014"
    assert "Windows devices are blocked" in failure.text


@pytest.mark.parametrize(
    ("low", "high", "allowed"),
    [
        ("10.0.22631", "", True),
        ("10.0.22631.2", "", False),
        ("", "10.0.22631", True),
        ("", "10.0.19045.9999", False),
        ("10.0.9999", "10.0.22631.1", True),
        ("", "", True),
    ],
)
async def test_versions_are_compared_as_numbers(
    mdm: Mdm, low: str, high: str, allowed: bool
) -> None:
    user, joined = await someone(mdm)
    group = await mdm.group("Staff", user.id)
    await platform(mdm, "Versions", group, osMinimumVersion=low, osMaximumVersion=high)
    assert (verdict(await asks(mdm, joined)) == "") is allowed
    if low or high:
        unknown = await asks(mdm, joined, OSVersion="ten", ApplicationVersion="")
        assert verdict(unknown) == "DeviceNotSupported"


async def test_the_first_that_is_assigned_counts_whole_and_the_default_last(mdm: Mdm) -> None:
    """Restrictions are not merged; the order is the administrator's."""
    await change_default(
        mdm, "DefaultPlatformRestrictions", windowsRestriction={"platformBlocked": True}
    )
    (user, joined), (_, other) = await someone(mdm), await someone(mdm, "sam")
    group = await mdm.group("Pilots", user.id)
    blocks = await platform(mdm, "Blocks", group, platformBlocked=True)
    allows = await platform(mdm, "Allows", group)
    assert verdict(await asks(mdm, joined)) == "DeviceNotSupported"
    moved = await mdm.graph("POST", f"{PATH}/{allows}/setPriority", {"priority": 1})
    assert moved.status_code == 200
    assert verdict(await asks(mdm, joined)) == ""
    assert verdict(await asks(mdm, other)) == "DeviceNotSupported", "the default is for the rest"
    await mdm.graph("DELETE", f"{PATH}/{blocks}")


async def test_a_restriction_for_another_platform_says_nothing_of_windows(mdm: Mdm) -> None:
    user, joined = await someone(mdm)
    group = await mdm.group("Staff", user.id)
    await made(
        mdm,
        restrictions.PLATFORM,
        "No phones",
        group,
        platformType="ios",
        platformRestriction={"platformBlocked": True},
    )
    assert verdict(await asks(mdm, joined)) == ""


async def test_joined_devices_are_the_organisations_and_registered_ones_are_personal(
    mdm: Mdm,
) -> None:
    await change_default(
        mdm,
        "DefaultPlatformRestrictions",
        windowsRestriction={"personalDeviceEnrollmentBlocked": True},
    )
    (_, joined), (_, personal) = await someone(mdm), await someone(mdm, "sam", PERSONAL)
    assert verdict(await asks(mdm, joined)) == ""
    answer = await asks(mdm, personal, pki.generate_key("rsa2048"), DeviceID=new_id())
    assert verdict(answer) == "DeviceNotSupported"
    await change_default(mdm, "DefaultPlatformRestrictions", windowsRestriction={})
    answer = await asks(mdm, personal, pki.generate_key("rsa2048"), DeviceID=new_id())
    assert verdict(answer) == ""
    found = (await mdm.graph("GET", "deviceManagement/managedDevices")).json()["value"]
    owners = {item["userPrincipalName"]: item["managedDeviceOwnerType"] for item in found}
    assert owners == {"alex@contoso.com": "company", "sam@contoso.com": "personal"}


async def test_a_user_has_so_many_devices_of_their_own(mdm: Mdm) -> None:
    """Joined devices do not count; one that enrols again is not one more."""
    user = await mdm.world.user("alex")
    group = await mdm.group("Staff", user.id)
    await made(mdm, restrictions.LIMIT, "One each", group, limit=1)
    upn, first = user.user_principal_name, new_id()
    personal = [await mdm.world.joined(upn, f"OWN-{n}", join_type=PERSONAL) for n in range(2)]
    joined = await mdm.world.joined(upn, "WORK-1")
    keys = [pki.generate_key("rsa2048") for _ in range(3)]
    assert verdict(await asks(mdm, joined)) == ""
    assert verdict(await asks(mdm, personal[0], keys[0], DeviceID=first)) == ""
    answer = await asks(mdm, personal[1], keys[1], DeviceID=new_id())
    assert (subcode(answer), verdict(answer)) == ("s:Authorization", "DeviceCapReached")
    assert verdict(await asks(mdm, personal[0], keys[2], DeviceID=first)) == ""
    async with mdm.database.transaction() as tx:
        failures = await enrollment.timeline(tx, kind="refused")
    assert [item.code for item in failures] == ["0x80180013"]


async def test_two_at_once_do_not_pass_the_limit_together(mdm: Mdm) -> None:
    user = await mdm.world.user("alex")
    group = await mdm.group("Staff", user.id)
    await made(mdm, restrictions.LIMIT, "One each", group, limit=1)
    own = [
        await mdm.world.joined(user.user_principal_name, f"OWN-{n}", join_type=PERSONAL)
        for n in range(3)
    ]
    keys = [pki.generate_key("rsa2048") for _ in own]
    answers = await asyncio.gather(
        *(asks(mdm, one, key, DeviceID=new_id()) for one, key in zip(own, keys, strict=True))
    )
    assert sorted(verdict(answer) for answer in answers) == ["", *["DeviceCapReached"] * 2]


async def test_a_device_that_is_set_up_anew_is_not_one_more(mdm: Mdm) -> None:
    """Windows gives it another id then, and the directory's is the same."""
    user = await mdm.world.user("alex")
    group = await mdm.group("Staff", user.id)
    await made(mdm, restrictions.LIMIT, "One each", group, limit=1)
    own = await mdm.world.joined(user.user_principal_name, "OWN-1", join_type=PERSONAL)
    for key in (KEY, pki.generate_key("rsa2048")):
        assert verdict(await asks(mdm, own, key, DeviceID=new_id())) == ""
    async with mdm.database.transaction() as tx:
        assert len(await enrollment.devices_of(tx, user.id)) == 1


@pytest.mark.parametrize(
    ("type", "values"),
    [
        (restrictions.LIMIT, {"limit": 0}),
        (restrictions.LIMIT, {"limit": 16}),
        (restrictions.PLATFORM, {"platformRestriction": {"osMinimumVersion": "eleven"}}),
        (
            restrictions.PLATFORM,
            {"platformRestriction": {"osMinimumVersion": "10.1", "osMaximumVersion": "10.0"}},
        ),
    ],
)
async def test_a_restriction_that_judges_nothing_is_refused(
    mdm: Mdm, type: str, values: dict[str, Any]
) -> None:
    body = {"@odata.type": f"#microsoft.graph.{type}", "displayName": "x", **values}
    assert (await mdm.graph("POST", PATH, body)).status_code == 400
