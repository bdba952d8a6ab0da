"""Co-management: enablement, policies, and what each client gets of them."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import site_api
from site_api import NOW, Api, Cloud, CommandFailed, add_device, report
from tandem.infra import events
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.site import clients, collections, comanagement, deployments, properties
from tandem.site.comanagement import AutoEnroll, Enablement, Slider
from tandem.site.comanagement.model import wanted_policies
from tandem.workloads import Authority, Position, Workload, capabilities, merge, owner_of

DEVICE_CONFIGURATION = Workload.DEVICE_CONFIGURATION
LINE = (
    'CCMSETUPCMD="CCMHOSTNAME=cmg.contoso.com/CCM_Proxy_MutualAuth/72057594037927941'
    ' SMSSITECODE=CM1"'
)


@pytest.fixture
async def tx(site_tx: Tx, tmp_path: Path) -> Tx:
    """A site with three devices, of which LAB-001 is in the collection Pilot."""
    box = SecretBox.open(tmp_path / "box" / "box.key")
    await properties.establish(site_tx, box, code="CM1", name="Contoso", now=NOW)
    for name in ("LAB-001", "LAB-002", "LAB-003"):
        await add_device(site_tx, name)
    await collections.create(site_tx, "CM1", "Pilot", actor="t", now=NOW)
    await collections.add_members(site_tx, "Pilot", ["LAB-001"], actor="t", now=NOW)
    return site_tx


async def enable(tx: Tx, how: AutoEnroll = AutoEnroll.ALL, collection: str = "") -> None:
    await comanagement.enable(
        tx,
        Cloud().others,
        auto_enroll=how,
        collection=collection,
        access_token="t",
        actor="alex",
        now=NOW,
    )


async def switch(tx: Tx, workload: Workload, position: Position, collection: str = "") -> Slider:
    return await comanagement.switch(
        tx, workload, position, collection=collection, actor="alex", now=NOW
    )


async def policies(tx: Tx) -> dict[str, comanagement.Policy]:
    return {policy.name: policy for policy in await comanagement.policies(tx)}


async def flags(tx: Tx, name: str) -> int:
    """What the device makes of the policy that it gets."""
    content = await comanagement.policy_content(tx, clients.ClientId(f"GUID:{name}"))
    return merge(content.configuration_policies).flags


# ---------------------------------------------------------------------------- enablement


async def test_for_all_there_is_one_policy_for_everybody(tx: Tx) -> None:
    await enable(tx)
    (policy,) = await comanagement.policies(tx)
    assert (policy.name, policy.kind, policy.collection_id) == (
        "CoMgmtSettingsProd",
        "production",
        "SMS00001",
    )
    assert (policy.allow, policy.auto_enroll, policy.capabilities) == (True, True, 8193)
    guid = "[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}"
    assert re.fullmatch(f"ScopeId_{guid}/ConfigurationPolicy_{guid}", policy.id)


async def test_a_pilot_of_automatic_enrolment_is_a_policy_for_its_collection(tx: Tx) -> None:
    await enable(tx, AutoEnroll.PILOT, "Pilot")
    found = await policies(tx)
    assert set(found) == {"CoMgmtSettingsProd", "CoMgmtSettingsPilotAutoEnroll"}
    pilot = await collections.collection(tx, "Pilot")
    assert found["CoMgmtSettingsPilotAutoEnroll"].collection_id == pilot.id
    for name, enrolled in (("LAB-001", True), ("LAB-002", False)):
        content = await comanagement.policy_content(tx, clients.ClientId(f"GUID:{name}"))
        assert merge(content.configuration_policies).auto_enroll is enrolled
        assert merge(content.configuration_policies).allow


async def test_enabling_again_changes_whom_it_is_for_and_nothing_else(tx: Tx) -> None:
    await enable(tx, AutoEnroll.PILOT, "Pilot")
    before = (await policies(tx))["CoMgmtSettingsProd"]
    await enable(tx, AutoEnroll.PILOT, "Pilot")
    assert (await policies(tx))["CoMgmtSettingsProd"] == before
    await enable(tx, AutoEnroll.ALL)
    (after,) = await comanagement.policies(tx)
    assert (after.id, after.version, after.auto_enroll) == (before.id, 2, True)


@pytest.mark.parametrize(
    ("without", "sentence"),
    [
        ({"tenant": ""}, "not connected to a tenant"),
        ({"gateway": None}, "No gateway is ready"),
        ({"mdm_authority": False}, "MDM authority is not set"),
    ],
)
async def test_what_is_missing_is_named(tx: Tx, without: dict[str, Any], sentence: str) -> None:
    with pytest.raises((comanagement.Prerequisites, site_api.NoMdmAuthority)) as refused:
        await comanagement.enable(
            tx,
            Cloud(**without).others,
            auto_enroll=AutoEnroll.ALL,
            access_token="t",
            actor="alex",
            now=NOW,
        )
    assert sentence in refused.value.message
    assert refused.value.cure
    assert await comanagement.enablement(tx) is None
    assert await comanagement.policies(tx) == []


async def test_a_missing_prerequisite_is_told_in_the_fields_sentence(tx: Tx) -> None:
    with pytest.raises(comanagement.Prerequisites) as refused:
        await comanagement.command_line_now(tx, Cloud(gateway=None).others)
    assert refused.value.message.startswith("Please ensure the proper prerequisites are installed.")


async def test_the_command_line_names_gateway_number_and_site(tx: Tx) -> None:
    assert await comanagement.command_line_now(tx, Cloud().others) == LINE
    long = Cloud(gateway="x" * 1000 + ".contoso.com")
    with pytest.raises(comanagement.TooLongCommandLine) as refused:
        await comanagement.command_line_now(tx, long.others)
    assert "1024" in refused.value.message


# ---------------------------------------------------------------------------- workloads


async def test_nothing_moves_before_co_management_is_enabled(tx: Tx) -> None:
    with pytest.raises(comanagement.NotEnabled) as refused:
        await switch(tx, DEVICE_CONFIGURATION, Position.MDM)
    assert "tandem comanagement enable" in refused.value.cure


async def test_a_pilot_moves_exactly_its_devices(tx: Tx) -> None:
    await enable(tx)
    await switch(tx, DEVICE_CONFIGURATION, Position.PILOT, "Pilot")
    assert await flags(tx, "LAB-001") == 12333  # With resource access and endpoint protection.
    assert await flags(tx, "LAB-002") == 8193
    found = await policies(tx)
    assert found["CoMgmtSettingsProd"].version == 1
    assert found["CoMgmtSettingsPilot_device-configuration"].kind == "pilot"


async def test_a_workload_goes_to_all_and_back(tx: Tx) -> None:
    await enable(tx)
    await switch(tx, DEVICE_CONFIGURATION, Position.PILOT, "Pilot")
    await switch(tx, DEVICE_CONFIGURATION, Position.MDM)
    assert [await flags(tx, name) for name in ("LAB-001", "LAB-002")] == [12333, 12333]
    assert set(await policies(tx)) == {"CoMgmtSettingsProd"}
    back = await switch(tx, DEVICE_CONFIGURATION, Position.SITE)
    assert [await flags(tx, name) for name in ("LAB-001", "LAB-002")] == [8193, 8193]
    assert (await policies(tx))["CoMgmtSettingsProd"].version == 3
    # The pilot collection is remembered, and taken again when none is named.
    again = await switch(tx, DEVICE_CONFIGURATION, Position.PILOT)
    assert again.collection_id == back.collection_id != ""


async def test_a_switch_made_twice_is_made_once(tx: Tx) -> None:
    await enable(tx)
    for _ in range(2):
        await switch(tx, Workload.CLIENT_APPS, Position.MDM)
    assert (await policies(tx))["CoMgmtSettingsProd"].version == 2
    news = [item for item in await events.since(tx, 0) if item.kind == "comanagement.switched"]
    assert [(item.subject, item.data["to"]) for item in news] == [("client-apps", "mdm")]


async def test_a_pilot_needs_a_collection(tx: Tx) -> None:
    await enable(tx)
    with pytest.raises(comanagement.NeedsCollection):
        await switch(tx, Workload.CLIENT_APPS, Position.PILOT)
    with pytest.raises(collections.NoSuchCollection):
        await switch(tx, Workload.CLIENT_APPS, Position.PILOT, "Nowhere")


async def test_a_pilot_collection_stays_while_the_pilot_lasts(tx: Tx) -> None:
    await enable(tx)
    await switch(tx, Workload.CLIENT_APPS, Position.PILOT, "Pilot")
    with pytest.raises(collections.InUse):
        await collections.delete(tx, "Pilot", actor="t", now=NOW)
    await switch(tx, Workload.CLIENT_APPS, Position.SITE)
    await collections.delete(tx, "Pilot", actor="t", now=NOW)
    assert (await comanagement.sliders(tx))[Workload.CLIENT_APPS].collection_id == ""


async def test_who_leaves_the_pilot_collection_goes_back_to_the_site(tx: Tx) -> None:
    await enable(tx)
    await switch(tx, Workload.CLIENT_APPS, Position.PILOT, "Pilot")
    assert await flags(tx, "LAB-001") == 8193 + 64
    pilot = await collections.collection(tx, "Pilot")
    (rule,) = await collections.rules(tx, pilot.id)
    await collections.remove_rule(tx, "Pilot", rule.id, actor="t", now=NOW)
    assert await flags(tx, "LAB-001") == 8193


async def test_a_policy_holds_settings_and_configurations_too(tx: Tx) -> None:
    await deployments.create(
        tx, "Lock", setting="DeviceLock/X", value="5", collection="Pilot", actor="t", now=NOW
    )
    content = await comanagement.policy_content(tx, clients.ClientId("GUID:LAB-001"))
    assert content.settings["policy_polling_minutes"] == 60
    assert content.configuration_policies == []
    assert [item.setting for item in content.configurations] == ["DeviceLock/X"]
    other = await comanagement.policy_content(tx, clients.ClientId("GUID:LAB-002"))
    assert other.configurations == []
    with pytest.raises(collections.NoSuchResource):
        await comanagement.policy_content(tx, clients.ClientId("GUID:NOBODY"))


async def test_status_counts_who_has_followed(tx: Tx) -> None:
    await enable(tx)
    await add_device(tx, "LAB-004", enrolled=False)
    for name in ("LAB-001", "LAB-002", "LAB-003"):
        await report(tx, clients.ClientId(f"GUID:{name}"), flags=8193)
    await switch(tx, Workload.CLIENT_APPS, Position.PILOT, "Pilot")

    async def move() -> comanagement.Move:
        found = await comanagement.status(tx)
        assert (found.clients, found.mdm_enrolled, found.co_managed) == (4, 3, 3)
        return next(one for one in found.moves if one.workload is Workload.CLIENT_APPS)

    before = await move()
    assert (before.to_mdm, before.with_mdm, before.to_site, before.with_site) == (1, 0, 2, 2)
    assert (before.changed, before.devices, before.done) == (2, 3, False)
    await report(tx, clients.ClientId("GUID:LAB-001"), flags=8193 + 64)
    assert (await move()).done
    decided = await comanagement.decided(tx, "GUID:LAB-001")
    assert decided[Workload.CLIENT_APPS] is Authority.MDM
    await switch(tx, Workload.CLIENT_APPS, Position.SITE)
    after = await move()
    assert (after.to_site, after.with_site, after.done) == (3, 2, False)


async def test_two_administrators_at_the_same_time_both_get_their_way(api: Api) -> None:
    async with api.db.transaction() as tx:
        await enable(tx)

    async def move(workload: Workload) -> None:
        async with api.db.transaction() as tx:
            await switch(tx, workload, Position.MDM)

    await asyncio.gather(*(move(workload) for workload in Workload))
    async with api.db.transaction() as tx:
        (policy,) = await comanagement.policies(tx)
    assert policy.capabilities == 12543


@given(
    st.fixed_dictionaries({workload: st.sampled_from(Position) for workload in Workload}),
    st.booleans(),
    st.sampled_from(AutoEnroll),
)
def test_policies_give_each_device_exactly_what_the_sliders_say(
    positions: dict[Workload, Position], in_pilot: bool, auto_enroll: AutoEnroll
) -> None:
    enabled = Enablement("t", auto_enroll, "PILOT", NOW, "alex")
    sliders = {w: Slider(w, position, "PILOT") for w, position in positions.items()}
    every = wanted_policies(enabled, sliders, collections.ALL_SYSTEMS)
    mine = [one for one in every if in_pilot or one.collection_id == collections.ALL_SYSTEMS]
    held = 0
    for one in mine:
        held |= one.capabilities
    moved = [
        w
        for w, position in positions.items()
        if position is Position.MDM or (in_pilot and position is Position.PILOT)
    ]
    assert held == capabilities(moved)
    assert all(owner_of(w, held) is Authority.MDM for w in moved)
    enrolls = auto_enroll is AutoEnroll.ALL or (auto_enroll is AutoEnroll.PILOT and in_pilot)
    assert any(one.auto_enroll for one in mine) is enrolls
    assert len({one.name for one in every}) == len(every)


# ---------------------------------------------------------------------------- API and commands


@pytest.mark.parametrize(
    ("path", "wanted", "status"),
    [
        ("", {"automatic_enrollment": "everybody", "access_token": "t"}, 400),
        ("", {"automatic_enrollment": "pilot", "access_token": "t"}, 400),
        ("", {"automatic_enrollment": "all"}, 400),
        ("/workloads/coffee", {"position": "mdm"}, 400),
        ("/workloads/client-apps", {"position": "cloud"}, 400),
        ("/workloads/client-apps", {"position": "mdm"}, 409),
        ("/workloads/client-apps", {}, 400),
    ],
)
async def test_bad_input_is_refused_in_words(
    api: Api, path: str, wanted: dict[str, str], status: int
) -> None:
    code, error = await api.refusal("PUT", f"/api/v1/comanagement{path}", wanted)
    assert code == status
    assert error["message"]


async def test_the_administrators_token_is_kept_nowhere(api: Api) -> None:
    secret = "eyJ-a-global-administrators-token"
    wanted = {"automatic_enrollment": "all", "access_token": secret}
    assert (await api.web.put("/api/v1/comanagement", json=wanted)).status_code == 200
    async with api.db.transaction() as tx:
        tables = await tx.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for row in await tables.fetchall():
            rows = await tx.execute(f'SELECT t::text FROM "{row["tablename"]}" t'.encode())
            assert all(secret not in item["t"] for item in await rows.fetchall())


async def test_the_commands_of_co_management(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tandem.cli import comanagement as command

    monkeypatch.setattr(command, "administrator_token", lambda upn, file: "token")
    async with api.db.transaction() as tx:
        one = await add_device(tx, "LAB-001", flags=8193)
        await add_device(tx, "LAB-002", flags=8193)
    async with site_api.commands(api, tmp_path) as commands:
        with pytest.raises(CommandFailed) as refused:
            await commands.run("comanagement", "show", "--command-line")
        assert "not enabled" in refused.value.message
        await commands.run("collection", "create", "Pilot")
        await commands.run("collection", "add-member", "Pilot", "LAB-001")
        await commands.run("comanagement", "enable", "--automatic-enrollment", "all")
        shown = await commands.run("comanagement", "show", "--command-line")
        assert shown == {"command_line": LINE}
        assert len(await commands.run("comanagement", "workloads")) == 7
        office = await commands.run("comanagement", "workload", "office-click-to-run")
        assert (office["has_effect"], office["rolls_back"]) == (False, False)
        assert office["moves"].startswith("Moves the flag only")
        decoded = await commands.run("comanagement", "decode", "67")
        assert decoded["encoding"] == "2107"
        assert [w["workload"] for w in decoded["workloads"] if w["owner"] == "mdm"] == [
            "compliance-policies",
            "client-apps",
        ]
        made = await commands.run(
            "comanagement", "switch", "client-apps", "pilot", "--collection", "Pilot"
        )
        assert (made["position"], made["move"]["to_mdm"], made["move"]["done"]) == (
            "pilot",
            1,
            False,
        )

        waiting = asyncio.create_task(
            commands.run("comanagement", "switch", "client-apps", "pilot", "--wait")
        )
        async with api.db.transaction() as tx:
            await report(tx, one, flags=8193 + 64)
        assert (await waiting)["move"]["done"]
        status = await commands.run("comanagement", "status")
        assert status["co_managed"] == 2
        api.cloud.gateway = None
        shown = await commands.run("comanagement", "show")
        assert "No gateway is ready" in shown["missing"]
