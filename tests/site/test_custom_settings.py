"""Custom client settings: what an administrator does with them, and what results of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import site_api
from site_api import NOW, Api, CommandFailed, add_device
from tandem.site import collections, settings
from tandem.site.collections import CollectionId, MemberType

API = "/api/v1/client-settings"
CUSTOM = f"{API}/custom"
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"


@pytest.fixture
async def fleet(api: Api) -> Api:
    """LAB-001 is in Pilot and in Ring 1; LAB-002 in neither."""
    async with api.db.transaction() as tx:
        for number in (1, 2):
            await add_device(tx, f"LAB-00{number}")
    for name in ("Pilot", "Ring 1"):
        await made(api, "/api/v1/collections", {"name": name})
        await made(api, f"/api/v1/collections/{name}/members", {"devices": ["LAB-001"]})
    return api


async def made(api: Api, path: str, wanted: dict[str, Any]) -> Any:
    answer = await api.web.post(path, json=wanted)
    assert answer.status_code < 300, answer.text
    return answer.json()


async def custom(api: Api, name: str, to: str = "", **values: Any) -> Any:
    found = await made(api, CUSTOM, {"name": name, "settings": values})
    if to:
        found = await made(api, f"{CUSTOM}/{found['id']}/deployments", {"collection": to})
    return found


async def resultant(api: Api, device: str) -> dict[str, dict[str, Any]]:
    found = await api.get(f"{API}/resultant/{device}")
    return {item["name"]: item for item in found["settings"]}


async def order(api: Api) -> list[tuple[int, str]]:
    return [(item["priority"], item["name"]) for item in await api.get(CUSTOM)]


async def test_the_lowest_number_wins_and_the_losers_are_said(fleet: Api) -> None:
    """Each with its value, its priority and the collection by which it came."""
    await custom(fleet, "Busy", "Pilot", policy_polling_minutes=5)
    await custom(fleet, "Quiet", "Ring 1", policy_polling_minutes=240, state_reporting_minutes=60)
    found = await resultant(fleet, "LAB-001")
    polling = found["policy_polling_minutes"]
    assert (polling["value"], polling["source"]) == (5, "Busy")
    winner = polling["winner"]
    assert (winner["priority"], [c["name"] for c in winner["collections"]]) == (1, ["Pilot"])
    assert [(one["name"], one["priority"], one["value"]) for one in polling["losers"]] == [
        ("Quiet", 2, 240),
        ("Default Client Settings", 10_000, 60),
    ]
    # A group that only one of them has is not touched by the other.
    assert found["state_reporting_minutes"]["source"] == "Quiet"
    assert found["allow_cloud_distribution_point"]["source"] == "Default Client Settings"
    other = await resultant(fleet, "LAB-002")
    assert {item["source"] for item in other.values()} == {"Default Client Settings"}
    assert not any(item["losers"] for item in other.values())


async def test_a_chosen_group_is_said_whole_as_it_is_by_default_then(fleet: Api) -> None:
    """As in the field: what is changed in the default settings later does not reach it."""
    await fleet.web.patch(API, json={"policy_polling_minutes": 30})
    found = await made(fleet, CUSTOM, {"name": "Pinned", "groups": ["client policy"]})
    assert found["groups"] == ["Client policy"]
    values = {item["name"]: item["value"] for item in found["settings"]}
    assert values == {
        "policy_polling_minutes": 30,
        "enable_user_policy": True,
        "enable_user_policy_from_internet": False,
    }
    await made(fleet, f"{CUSTOM}/Pinned/deployments", {"collection": "Pilot"})
    await fleet.web.patch(API, json={"policy_polling_minutes": 90})
    assert (await resultant(fleet, "LAB-001"))["policy_polling_minutes"]["value"] == 30
    assert (await resultant(fleet, "LAB-002"))["policy_polling_minutes"]["value"] == 90
    answer = await fleet.web.patch(f"{CUSTOM}/Pinned", json={"groups": ["State messaging"]})
    assert answer.json()["groups"] == ["State messaging"]
    assert (await resultant(fleet, "LAB-001"))["policy_polling_minutes"]["value"] == 90


async def test_priorities_are_one_to_as_many_as_there_are(fleet: Api) -> None:
    for name in ("A", "B", "C"):
        await custom(fleet, name, state_reporting_minutes=5)
    answer = await fleet.web.patch(f"{CUSTOM}/C", json={"priority": 1})
    assert answer.json()["priority"] == 1
    last = (10_000, "Default Client Settings")
    assert await order(fleet) == [(1, "C"), (2, "A"), (3, "B"), last]
    await fleet.web.patch(f"{CUSTOM}/C", json={"priority": 2})
    assert await order(fleet) == [(1, "A"), (2, "C"), (3, "B"), last]
    for wrong in (0, -1, 4, 10_000):
        _, error = await fleet.refusal("PATCH", f"{CUSTOM}/C", {"priority": wrong})
        assert error["details"]["field"] == "priority"
    assert (await fleet.web.delete(f"{CUSTOM}/A")).status_code == 204
    assert await order(fleet) == [(1, "C"), (2, "B"), last]
    log = [item["action"] for item in await fleet.get("/api/v1/site/audit")]
    assert log.count("client-settings.prioritize") == 2
    assert "client-settings.delete" in log


async def test_what_is_taken_back_or_deleted_holds_no_more(fleet: Api) -> None:
    found = await custom(fleet, "Busy", "Pilot", policy_polling_minutes=5)
    pilot = found["deployments"][0]["collection_id"]
    assert found["deployments"][0]["members"] == 1
    status, error = await fleet.refusal("DELETE", f"/api/v1/collections/{pilot}")
    assert (status, error["code"]) == (409, "collection.in-use")
    assert "the client settings Busy" in error["message"]
    answer = await fleet.web.delete(f"{CUSTOM}/Busy/deployments/{pilot}")
    assert answer.json()["deployments"] == []
    assert (await resultant(fleet, "LAB-001"))["policy_polling_minutes"]["value"] == 60
    status, error = await fleet.refusal("DELETE", f"{CUSTOM}/Busy/deployments/{pilot}")
    assert (status, error["code"]) == (404, "client-settings.not-deployed")
    await made(fleet, f"{CUSTOM}/Busy/deployments", {"collection": "Pilot"})
    await made(fleet, f"{CUSTOM}/Busy/deployments", {"collection": "Pilot"})
    assert (await resultant(fleet, "LAB-001"))["policy_polling_minutes"]["value"] == 5
    await fleet.web.delete(f"{CUSTOM}/Busy")
    assert (await resultant(fleet, "LAB-001"))["policy_polling_minutes"]["value"] == 60
    assert (await fleet.web.get(f"{CUSTOM}/Busy")).status_code == 404
    assert (await fleet.web.delete(f"/api/v1/collections/{pilot}")).status_code == 204


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"name": ""}, "client-settings.bad-object"),
        ({"name": "x" * 257}, "client-settings.bad-object"),
        ({"name": "a\nb"}, "client-settings.bad-object"),
        ({"name": "A"}, "client-settings.bad-object"),
        ({"name": "A", "groups": ["Power"]}, "client-settings.bad-object"),
        ({"name": "A", "groups": ["Cloud services"], "type": "user"}, "client-settings.bad-object"),
        ({"name": "A", "settings": {"policy_polling_minutes": 5}, "type": "user"},
         "client-settings.bad-object"),
        ({"name": "A", "settings": {"no_such": 5}}, "client-settings.unknown"),
        ({"name": "A", "settings": {"policy_polling_minutes": 2}}, "client-settings.bad-value"),
        ({"name": "A", "groups": ["State messaging"], "description": "d" * 1025},
         "client-settings.bad-object"),
        ({"name": "default client settings", "groups": ["State messaging"]},
         "client-settings.name-taken"),
        ({"name": "TAKEN", "groups": ["State messaging"]}, "client-settings.name-taken"),
        ({"name": "A", "type": "group"}, "request.invalid"),
        ({"name": "A", "groups": "State messaging"}, "request.invalid"),
    ],
)  # fmt: skip
async def test_settings_that_cannot_be_are_refused(
    api: Api, wanted: dict[str, Any], code: str
) -> None:
    await custom(api, "Taken", state_reporting_minutes=5)
    status, error = await api.refusal("POST", CUSTOM, wanted)
    assert status in (400, 409)
    assert error["code"] == code
    assert len(await order(api)) == 2


async def test_settings_of_devices_go_to_collections_of_devices(fleet: Api) -> None:
    await custom(fleet, "Busy", policy_polling_minutes=5)
    await made(fleet, CUSTOM, {"name": "People", "type": "user", "groups": ["Client policy"]})
    for name, to in (("Busy", "SMS00002"), ("People", "Pilot")):
        status, error = await fleet.refusal(
            "POST", f"{CUSTOM}/{name}/deployments", {"collection": to}
        )
        assert (status, error["details"]["field"]) == (409, "collection")
    status, error = await fleet.refusal(
        "POST", f"{CUSTOM}/Busy/deployments", {"collection": "Nowhere"}
    )
    assert (status, error["details"]["field"]) == (404, "collection")


async def test_who_reads_an_old_version_does_not_overwrite(api: Api) -> None:
    await custom(api, "Busy", policy_polling_minutes=5)
    read = await api.web.get(f"{CUSTOM}/Busy")
    version = {"If-Match": read.headers["etag"]}
    wanted = {"settings": {"policy_polling_minutes": 6}}
    answer = await api.web.patch(f"{CUSTOM}/Busy", json=wanted, headers=version)
    assert answer.status_code == 200
    for method, path in (("PATCH", f"{CUSTOM}/Busy"), ("DELETE", f"{CUSTOM}/Busy")):
        late = await api.web.request(method, path, json=wanted, headers=version)
        assert late.status_code == 412
    # The same again changes nothing, and so nobody's version.
    now = answer.headers["etag"]
    again = await api.web.patch(f"{CUSTOM}/Busy", json=wanted, headers={"If-Match": now})
    assert again.headers["etag"] == now


async def test_how_far_a_deployment_would_reach_is_said_before(fleet: Api) -> None:
    """And that it takes the gateway away from devices that may have no other way home."""
    await custom(fleet, "Off", enable_cloud_management_gateway=False)
    found = await fleet.get(f"{CUSTOM}/Off/reach", collection="Pilot")
    assert (found["members"], found["leave_the_gateway"]) == (1, True)
    found = await fleet.get(f"{CUSTOM}/Off/reach", collection="SMS00001")
    assert found["members"] == 2


async def test_a_user_gets_what_settings_of_users_say(fleet: Api) -> None:
    async with fleet.db.transaction() as tx:
        for upn in ("anna@contoso.com", "ben@contoso.com"):
            user = collections.UserResource(TENANT, f"o-{upn[0]}", upn, upn)
            await collections.upsert_user(tx, user, NOW)
    people = {"name": "People", "type": "user"}
    await made(fleet, "/api/v1/collections", people)
    rule = {"rules": [{"kind": "direct", "user": "anna@contoso.com"}]}
    await made(fleet, "/api/v1/collections/People/rules", rule)
    await made(
        fleet,
        CUSTOM,
        {"name": "None", "type": "user", "settings": {"enable_user_policy": "no"}},
    )
    await made(fleet, f"{CUSTOM}/None/deployments", {"collection": "People"})
    found = await fleet.get(f"{API}/resultant-user/anna@contoso.com")
    assert found["user"] == "anna@contoso.com"
    by_name = {item["name"]: item for item in found["settings"]}
    assert set(by_name) == {"enable_user_policy", "enable_user_policy_from_internet"}
    assert by_name["enable_user_policy"]["value"] is False
    assert by_name["enable_user_policy"]["winner"]["collections"][0]["name"] == "People"
    assert (await fleet.get(f"{API}/resultant-user/BEN@contoso.com"))["settings"] == []
    status, error = await fleet.refusal("GET", f"{API}/resultant-user/nobody")
    assert (status, error["code"]) == (404, "resource.not-found")
    # They say nothing of a device.
    values = {item["source"] for item in (await resultant(fleet, "LAB-001")).values()}
    assert values == {"Default Client Settings"}


async def test_the_commands(fleet: Api, tmp_path: Path) -> None:
    async with site_api.commands(fleet, tmp_path) as commands:
        run = commands.run
        made = await run(
            *("client-settings", "create", "Busy", "--set", "policy_polling_minutes=5"),
            *("--description", "Devices that are looked at.", "--deploy-to", "Pilot"),
        )
        assert [one["collection"] for one in made["deployments"]] == ["Pilot"]
        await run("client-settings", "create", "Quiet", "--group", "State messaging")
        listed = await run("client-settings", "move", "Quiet", "up")
        assert [item["name"] for item in listed][:2] == ["Quiet", "Busy"]
        await run("client-settings", "change", "Busy", "--set", "policy_polling_minutes=6")
        shown = await run("client-settings", "resultant", "LAB-001")
        polling = next(i for i in shown["settings"] if i["name"] == "policy_polling_minutes")
        assert (polling["value"], polling["winner"]["priority"]) == (6, 2)
        await run("client-settings", "deploy", "Quiet", "--collection", "Ring 1")
        await run("client-settings", "withdraw", "Quiet", "--collection", "Ring 1")
        await run("client-settings", "delete", "Quiet", "--yes")
        with pytest.raises(CommandFailed) as refused:
            await run("client-settings", "custom", "Quiet")
        assert "client-settings list" in refused.value.cure


# ------------------------------------------------------------------------ the rule itself

_NAMES = list(settings.CATALOGUE)
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_COLLECTIONS = [CollectionId(f"CM10000{n}") for n in range(4)]
_VALUES = st.dictionaries(st.sampled_from(_NAMES), st.integers(0, 99), max_size=5)


@st.composite
def _every_settings(draw: st.DrawFn) -> list[settings.CustomSettings]:
    found = []
    for place in range(draw(st.integers(0, 5))):
        to = draw(st.lists(st.sampled_from(_COLLECTIONS), unique=True))
        found.append(
            settings.CustomSettings(
                settings.SettingsId(f"s{place}"),
                f"S{place}",
                "",
                MemberType.DEVICE,
                place + 1,
                draw(_VALUES),
                _AT,
                "a",
                _AT,
                "a",
                tuple(to),
            )
        )
    return draw(st.permutations(found))


@given(custom=_every_settings(), of=st.sets(st.sampled_from(_COLLECTIONS)))
def test_of_those_that_hold_the_first_wins_whatever_order_they_come_in(
    custom: list[settings.CustomSettings], of: set[CollectionId]
) -> None:
    default = dict.fromkeys(_NAMES, -1)
    found = settings.merge(default, custom, of)
    assert [item.setting.name for item in found] == _NAMES
    for item in found:
        # The rule as the field has it: from the last priority to the first, each writes over.
        name, value = item.setting.name, default[item.setting.name]
        holding = [one for one in custom if of & set(one.deployed_to) and name in one.values]
        for one in sorted(holding, key=lambda one: -one.priority):
            value = one.values[name]
        assert item.value == value
        priorities = [say.priority for say in item.says]
        assert priorities == sorted(priorities)
        assert len(item.says) == len(holding) + 1
        assert item.says[-1].priority == settings.DEFAULT_PRIORITY
        for say in item.says[:-1]:
            assert say.collections
            assert set(say.collections) <= of
    values, by = settings.resulting(default, custom, of)
    assert values == {item.setting.name: item.value for item in found}
    assert by == {id for item in found for id in item.winner.collections}


@given(custom=_every_settings(), of=st.sets(st.sampled_from(_COLLECTIONS)))
def test_settings_that_are_for_nobody_here_change_nothing(
    custom: list[settings.CustomSettings], of: set[CollectionId]
) -> None:
    default = dict.fromkeys(_NAMES, -1)
    here = [item for item in custom if of & set(item.deployed_to)]
    assert settings.merge(default, custom, of) == settings.merge(default, here, of)
