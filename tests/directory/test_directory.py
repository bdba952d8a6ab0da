"""Users, groups, authority and licences, without HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.infra.database import Tx
from tandem.tenant import directory, licensing
from tandem.tenant.directory.model import lock_time
from tandem.tenant.licensing.model import CATALOGUE

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
CHEAP = directory.DirectorySettings(password_memory_kib=64, password_passes=1)
PASSWORD = "Correct-Horse-1"


@pytest.fixture
async def tenant(tenant_tx: Tx) -> directory.Tenant:
    made = await directory.create_tenant(
        tenant_tx,
        name="Contoso",
        domain="Contoso.com",
        administrator_upn="admin@contoso.com",
        password=PASSWORD,
        now=NOW,
        settings=CHEAP,
    )
    await licensing.establish(tenant_tx, NOW)
    return made


async def person(tx: Tx, name: str, location: str | None = "DE") -> directory.User:
    new = directory.NewUser(f"{name}@contoso.com", name, PASSWORD, usage_location=location)
    return await directory.create_user(tx, new, NOW, CHEAP)


async def test_a_database_holds_one_tenant(tenant_tx: Tx, tenant: directory.Tenant) -> None:
    with pytest.raises(directory.TenantExists):
        await directory.create_tenant(
            tenant_tx,
            name="Other",
            domain="other.com",
            administrator_upn="a@other.com",
            password=PASSWORD,
            now=NOW,
        )


async def test_the_first_user_is_global_administrator(
    tenant_tx: Tx, tenant: directory.Tenant
) -> None:
    admin = await directory.user(tenant_tx, "ADMIN@contoso.com")
    assert await directory.roles_of(tenant_tx, admin.id) == {directory.GLOBAL_ADMINISTRATOR}
    with pytest.raises(directory.LastAdministrator):
        await directory.delete_user(tenant_tx, admin.id, NOW)


async def test_without_an_mdm_authority_the_refusal_names_where_to_set_it(
    tenant_tx: Tx, tenant: directory.Tenant
) -> None:
    with pytest.raises(directory.NoMdmAuthority) as refused:
        await directory.require_mdm_authority(tenant_tx)
    assert "tandem mdm-authority set" in refused.value.cure
    await directory.set_mdm_authority(tenant_tx, NOW)
    await directory.require_mdm_authority(tenant_tx)
    with pytest.raises(directory.MdmAuthorityIsSet):
        await directory.set_mdm_authority(tenant_tx, NOW)


async def test_membership_counts_at_any_depth_even_in_a_circle(
    tenant_tx: Tx, tenant: directory.Tenant
) -> None:
    alex = await person(tenant_tx, "alex")
    inner = await directory.create_group(tenant_tx, "Inner", NOW)
    outer = await directory.create_group(tenant_tx, "Outer", NOW)
    await directory.add_member(tenant_tx, inner.id, alex.id)
    await directory.add_member(tenant_tx, outer.id, inner.id)
    await directory.add_member(tenant_tx, inner.id, outer.id)
    assert await directory.groups_of(tenant_tx, alex.id) == {inner.id, outer.id}
    everyone = {item.id for item in await directory.all_members(tenant_tx, outer.id)}
    assert alex.id in everyone


async def test_the_groups_of_a_user_and_of_a_device_are_told_apart(
    tenant_tx: Tx, tenant: directory.Tenant
) -> None:
    alex = await person(tenant_tx, "alex")
    laptop = await directory.join_device(
        tenant_tx,
        owner_id=alex.id,
        display_name="PC01",
        operating_system="Windows",
        operating_system_version="10",
        key_thumbprint="x",
        now=NOW,
    )
    names = ("People", "Laptops", "Both", "Round")
    people, laptops, both, around = [
        (await directory.create_group(tenant_tx, name, NOW)).id for name in names
    ]
    for group, member in (
        (people, alex.id),
        (laptops, laptop.id),
        (both, people),
        (both, laptops),
        (around, both),
        (people, around),
    ):
        await directory.add_member(tenant_tx, group, member)
    pair = await directory.groups_of_pair(tenant_tx, alex.id, laptop.device_id)
    everywhere = {people, both, around}
    assert pair == (everywhere, {laptops, *everywhere})
    assert await directory.groups_of_pair(tenant_tx, alex.id, "") == (everywhere, set())
    nobody = "22222222-2222-4222-8222-222222222222"
    assert await directory.groups_of_pair(tenant_tx, "", nobody) == (set(), set())


async def test_a_deleted_user_is_in_no_group(tenant_tx: Tx, tenant: directory.Tenant) -> None:
    alex = await person(tenant_tx, "alex")
    group = await directory.create_group(tenant_tx, "Pilot", NOW)
    await directory.add_member(tenant_tx, group.id, alex.id)
    await directory.delete_user(tenant_tx, alex.id, NOW)
    assert await directory.members(tenant_tx, group.id) == []


async def test_an_unknown_name_is_refused_like_a_wrong_password(
    tenant_tx: Tx, tenant: directory.Tenant
) -> None:
    unknown = await directory.authenticate(tenant_tx, "nobody@contoso.com", "x", NOW, CHEAP)
    wrong = await directory.authenticate(tenant_tx, "admin@contoso.com", "x", NOW, CHEAP)
    assert isinstance(unknown, directory.WrongPassword)
    assert isinstance(wrong, directory.WrongPassword)
    assert unknown.message == wrong.message


@given(st.integers(0, 5000))
def test_locks_get_longer_and_never_endless(failures: int) -> None:
    wait = lock_time(failures, CHEAP)
    assert (wait is None) == (failures < CHEAP.lock_after)
    assert wait is None or timedelta(0) < wait <= timedelta(hours=1)


async def test_a_new_tenant_asks_for_no_licence(tenant_tx: Tx, tenant: directory.Tenant) -> None:
    alex = await person(tenant_tx, "alex")
    await licensing.check_mdm_licence(tenant_tx, alex.id)
    (suite,) = await licensing.subscriptions(tenant_tx)
    assert (suite.product.part_number, suite.free) == ("EMSPREMIUM", None)


async def test_the_licence_gate_opens_for_users_with_the_plan(
    tenant_tx: Tx, tenant: directory.Tenant
) -> None:
    alex = await person(tenant_tx, "alex")
    await licensing.require_licence(tenant_tx, True)
    with pytest.raises(licensing.NoMdmLicence, match="0x80180018"):
        await licensing.check_mdm_licence(tenant_tx, alex.id)
    await licensing.assign(tenant_tx, "EMSPREMIUM", alex.id, NOW)
    await licensing.check_mdm_licence(tenant_tx, alex.id)
    assert await licensing.has_plan(tenant_tx, alex.id, licensing.AAD_PREMIUM)


async def test_a_disabled_plan_is_not_had(tenant_tx: Tx, tenant: directory.Tenant) -> None:
    alex = await person(tenant_tx, "alex")
    await licensing.assign(tenant_tx, "EMSPREMIUM", alex.id, NOW, [licensing.INTUNE_A.id])
    assert not await licensing.has_plan(tenant_tx, alex.id, "INTUNE_A")
    assert await licensing.has_plan(tenant_tx, alex.id, "AAD_PREMIUM")


async def test_seats_run_out_and_are_refused(tenant_tx: Tx, tenant: directory.Tenant) -> None:
    await licensing.subscribe(tenant_tx, "INTUNE_A", 1, NOW)
    first, second = await person(tenant_tx, "a"), await person(tenant_tx, "b")
    await licensing.assign(tenant_tx, "INTUNE_A", first.id, NOW)
    await licensing.assign(tenant_tx, "INTUNE_A", first.id, NOW)
    with pytest.raises(licensing.NoSeats, match="all 1 seats"):
        await licensing.assign(tenant_tx, "INTUNE_A", second.id, NOW)
    with pytest.raises(licensing.NotSubscribed):
        await licensing.assign(tenant_tx, "EMS", second.id, NOW)


async def test_fewer_seats_than_in_use_are_refused(tenant_tx: Tx, tenant: directory.Tenant) -> None:
    await licensing.subscribe(tenant_tx, "INTUNE_A", 2, NOW)
    for name in ("a", "b"):
        await licensing.assign(tenant_tx, "INTUNE_A", (await person(tenant_tx, name)).id, NOW)
    with pytest.raises(licensing.SeatsInUse):
        await licensing.subscribe(tenant_tx, "INTUNE_A", 1, NOW)


async def test_users_without_a_usage_location_get_no_seat_and_the_reason_is_kept(
    tenant_tx: Tx, tenant: directory.Tenant
) -> None:
    nowhere = await person(tenant_tx, "nowhere", None)
    with pytest.raises(licensing.NoUsageLocation):
        await licensing.assign(tenant_tx, "EMSPREMIUM", nowhere.id, NOW)
    group = await directory.create_group(tenant_tx, "Pilot", NOW)
    await directory.add_member(tenant_tx, group.id, nowhere.id)
    await licensing.assign(tenant_tx, "EMSPREMIUM", group.id, NOW)
    (seat,) = await licensing.seats(tenant_tx)
    assert seat.reason == "The user has no usage location."
    await directory.update_user(tenant_tx, nowhere.id, {"usage_location": "DE"}, NOW)
    await licensing.reconcile(tenant_tx, NOW)
    assert await licensing.has_plan(tenant_tx, nowhere.id, "INTUNE_A")


async def test_a_user_licensed_twice_takes_one_seat(
    tenant_tx: Tx, tenant: directory.Tenant
) -> None:
    await licensing.subscribe(tenant_tx, "INTUNE_A", 1, NOW)
    alex = await person(tenant_tx, "alex")
    group = await directory.create_group(tenant_tx, "Pilot", NOW)
    await directory.add_member(tenant_tx, group.id, alex.id)
    await licensing.assign(tenant_tx, "INTUNE_A", alex.id, NOW)
    await licensing.assign(tenant_tx, "INTUNE_A", group.id, NOW)
    assert all(seat.active for seat in await licensing.seats(tenant_tx))
    await licensing.unassign(tenant_tx, "INTUNE_A", alex.id, NOW)
    assert await licensing.has_plan(tenant_tx, alex.id, "INTUNE_A")


def test_the_suite_has_the_plans_of_both_single_products() -> None:
    by_name = {item.part_number: {plan.name for plan in item.plans} for item in CATALOGUE}
    assert {"INTUNE_A", "AAD_PREMIUM"} <= by_name["EMSPREMIUM"]
    assert {plan.name for item in CATALOGUE for plan in item.plans}


async def test_the_same_key_joins_one_device(tenant_tx: Tx, tenant: directory.Tenant) -> None:
    alex, other = await person(tenant_tx, "alex"), await person(tenant_tx, "other")
    join: dict[str, Any] = {
        "display_name": "LAB",
        "operating_system": "Windows",
        "operating_system_version": "10",
        "key_thumbprint": "k1",
        "now": NOW,
    }
    first = await directory.join_device(tenant_tx, owner_id=alex.id, **join)
    assert (await directory.join_device(tenant_tx, owner_id=alex.id, **join)).id == first.id
    with pytest.raises(directory.Taken):
        await directory.join_device(tenant_tx, owner_id=other.id, **join)
    small = directory.DirectorySettings(devices_per_user=1)
    with pytest.raises(directory.DeviceQuota):
        await directory.join_device(
            tenant_tx, owner_id=alex.id, settings=small, **{**join, "key_thumbprint": "k2"}
        )
