"""Collections: who is a member, computed when asked."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.infra.database import Tx
from tandem.site import collections
from tandem.site.collections import Resource

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


async def device(tx: Tx, name: str, version: str = "0.1.0", os: str = "10.0.22631.1") -> int:
    resource = Resource(f"GUID:{name}", name, "t", f"d-{name}", "Windows", os, version)
    return await collections.upsert_resource(tx, resource, NOW)


async def make(tx: Tx, name: str, **options: str) -> collections.Collection:
    return await collections.create(tx, "CM1", name, actor="test", now=NOW, **options)


async def names(tx: Tx, wanted: str) -> list[str]:
    return [item.name for item in await collections.members(tx, wanted)]


async def test_every_device_is_in_all_systems(site_tx: Tx) -> None:
    await device(site_tx, "LAB-001")
    await device(site_tx, "LAB-002")
    assert await names(site_tx, "SMS00001") == ["LAB-001", "LAB-002"]
    assert await names(site_tx, "all systems") == ["LAB-001", "LAB-002"]


async def test_a_device_that_registers_again_keeps_its_number(site_tx: Tx) -> None:
    first = await device(site_tx, "LAB-001")
    assert await device(site_tx, "LAB-001", version="0.2.0") == first
    assert (await collections.resource(site_tx, "lab-001")).client_version == "0.2.0"


async def test_a_direct_rule_names_one_device(site_tx: Tx) -> None:
    await device(site_tx, "LAB-001")
    await device(site_tx, "LAB-002")
    made = await make(site_tx, "Pilot")
    assert made.id.startswith("CM1000")
    for _ in range(2):
        await collections.add_members(site_tx, "Pilot", ["LAB-002"], actor="test", now=NOW)
    assert await names(site_tx, made.id) == ["LAB-002"]
    with pytest.raises(collections.NoSuchResource) as refused:
        await collections.add_members(site_tx, "Pilot", ["LAB-009"], actor="test", now=NOW)
    assert refused.value.cure


async def test_a_query_rule_follows_the_devices(site_tx: Tx) -> None:
    await make(site_tx, "New", query="select * from SMS_R_System where ClientVersion >= '0.2'")
    await device(site_tx, "LAB-001", version="0.1.0")
    assert await names(site_tx, "New") == []
    await device(site_tx, "LAB-001", version="0.2.0")
    assert await names(site_tx, "New") == ["LAB-001"]


async def test_the_limiting_collection_limits(site_tx: Tx) -> None:
    for name in ("LAB-001", "LAB-002", "DEV-001"):
        await device(site_tx, name)
    lab = "select * from SMS_R_System where Name like 'lab-%'"
    ones = "select * from SMS_R_System where Name like '%001'"
    await make(site_tx, "Lab", query=lab)
    await make(site_tx, "Ones in the lab", limiting="Lab", query=ones)
    assert await names(site_tx, "Ones in the lab") == ["LAB-001"]
    with pytest.raises(collections.InUse):
        await collections.delete(site_tx, "Lab", actor="test", now=NOW)


async def test_a_collection_without_rules_has_no_member(site_tx: Tx) -> None:
    await device(site_tx, "LAB-001")
    await make(site_tx, "Empty")
    assert await names(site_tx, "Empty") == []


async def test_a_name_is_taken_once(site_tx: Tx) -> None:
    await make(site_tx, "Pilot")
    with pytest.raises(collections.NameTaken):
        await make(site_tx, "pilot")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select * from SMS_R_System", ["A", "B", "C"]),
        ("select Name from sms_r_system where Name = 'a'", ["A"]),
        ("select SMS_R_System.ResourceId from SMS_R_System where SMS_R_System.Name <> 'A'", ["B", "C"]),
        ("select * from SMS_R_System where Name in ('A', \"c\")", ["A", "C"]),
        ("select * from SMS_R_System where not Name like '_'", []),
        ("select * from SMS_R_System where Name = 'A' or Name = 'B' and Client = 0", ["A"]),
        ("select * from SMS_R_System where (Name = 'A' or Name = 'B') and Client = 1", ["A", "B"]),
        ("select * from SMS_R_System where OperatingSystemNameandVersion like '%26100%'", ["C"]),
        ("select * from SMS_R_System where AADDeviceID is null", []),
        ("select * from SMS_R_System where AADTenantID is not null and ClientVersion > '0'", ["A", "B", "C"]),
    ],
)  # fmt: skip
async def test_what_a_query_means(site_tx: Tx, query: str, expected: list[str]) -> None:
    await device(site_tx, "A")
    await device(site_tx, "B")
    await device(site_tx, "C", os="10.0.26100.1")
    made = await make(site_tx, "Q", query=query)
    assert await names(site_tx, made.id) == expected


@pytest.mark.parametrize(
    "query",
    [
        "",
        "drop table x",
        "select * from SMS_R_User",
        "select * from SMS_R_System where Password = 'x'",
        "select * from SMS_R_System where Name = 'x' ; select 1",
        "select * from SMS_R_System where Name = 'x",
        "select * from SMS_R_System where ResourceId = 'x'",
        "select * from SMS_R_System where " + "(" * 100 + "Name = 'x'" + ")" * 100,
        "select * from SMS_R_System where Name = '" + "x" * 5000 + "'",
    ],
)
def test_a_query_that_cannot_be_read_is_refused_in_words(query: str) -> None:
    with pytest.raises(collections.BadQuery) as refused:
        collections.compile_query(query)
    assert "Traceback" not in refused.value.message


@given(st.text(st.characters(exclude_characters="\x00["), max_size=60))
def test_a_value_never_becomes_sql(value: str) -> None:
    quoted = value.replace("'", "").replace('"', "")
    condition = collections.compile_query(
        f"select * from SMS_R_System where Name = '{quoted}' and NetbiosName like '{quoted}'"
    )
    assert condition.sql == "(lower(r.name) = %s AND lower(r.name) LIKE %s)"
    assert condition.values[0] == quoted.lower()
