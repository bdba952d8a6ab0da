"""The query language: classes that are joined, selects in brackets, and refusals that say what was meant."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import site_api
from site_api import Api, add_device
from tandem.site import clients, collections
from tandem.site.collections import BadQuery, Resource, compile_query

STATE = (
    "select SMS_R_System.Name, SMS_R_System.ResourceType from SMS_R_System"
    " inner join SMS_Client_ComanagementState"
    " on SMS_Client_ComanagementState.ResourceId = SMS_R_System.ResourceId where "
)


async def fleet(api: Api) -> None:
    """One device whose client is co-managed, one that is only enrolled, one that said nothing."""
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001", flags=8195, enrolled=True, policy=True)
        await add_device(tx, "LAB-002", flags=0, enrolled=True, policy=False)
        silent = Resource("GUID:LAB-003", "LAB-003", os_name="Windows", client_version="0.1.0")
        await collections.upsert_resource(tx, silent, site_api.NOW)


async def found(api: Api, query: str, type: str = "device") -> list[str]:
    rule = {"kind": "query", "query": query}
    asked = {"rules": [rule], "type": type}
    answer = await api.web.post("/api/v1/collections/preview", json=asked)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    assert shown["members"] == len(shown["first"])
    return [item["name"][-1] for item in shown["first"]]


async def test_queries_read_what_clients_say_of_themselves(api: Api) -> None:
    await fleet(api)
    # The field's own example of a query for co-managed devices.
    comanaged = "ComgmtPolicyPresent = 1 and MDMEnrolled = 1 and MDMProvisioned = 1"
    where = "where ResourceId {} (select ResourceID from SMS_Client_ComanagementState {})"
    for query, wanted in {
        STATE + comanaged: ["1"],
        STATE + "MDMEnrolled = true": ["1", "2"],
        STATE + "not MDMProvisioned = 1": ["2"],
        STATE + "MDMProvisioned <> 1": ["2"],
        STATE + "WorkloadFlags >= 8193 or Name like '%2'": ["1", "2"],
        STATE + "(MDMEnrolled = 1 and Name in ('lab-001', 'LAB-003'))": ["1"],
        # A attribute that nobody reported is neither equal nor unequal to anything.
        STATE + "SMS_Client_ComanagementState.UPN is null": ["1", "2"],
        STATE + "UPN like '%@contoso.com'": [],
        f"select * from SMS_R_System {where.format('in', '')}": ["1", "2"],
        f"select * from SMS_R_System {where.format('not in', 'where MDMProvisioned = 1')}": [
            "2",
            "3",
        ],
        "select * from SMS_R_System as s inner join SMS_Client_ComanagementState c"
        " on c.ResourceID = s.ResourceID and c.ClientVersion = s.ClientVersion": [],
    }.items():
        assert await found(api, query) == wanted, query


async def test_a_newer_word_of_a_client_counts_at_once_and_an_older_one_never(api: Api) -> None:
    await fleet(api)
    query = STATE + "MDMProvisioned = 1"
    state = site_api.ccm.ComanagementState
    async with api.db.transaction() as tx:
        id = clients.ClientId("GUID:LAB-002")
        await clients.keep_state(tx, id, state(8195, True, True, 8195), site_api.NOW)
        late = site_api.NOW - site_api.timedelta(hours=1)
        await clients.keep_state(tx, id, state(0, False, False, 0), late)
    assert await found(api, query) == ["1", "2"]


async def test_classes_are_listed_with_their_attributes(api: Api) -> None:
    listed = await api.get("/api/v1/collections/classes")
    names = [item["name"] for item in listed]
    assert names[:2] == ["SMS_R_System", "SMS_Client_ComanagementState"]
    people = [names.pop(), names.pop()]
    assert people == ["SMS_R_UserGroup", "SMS_R_User"]
    assert names[2:] == [item.name for item in collections.HARDWARE]
    assert {"name": "MDMEnrolled", "type": "number"} in listed[1]["attributes"]
    for item in listed:
        for one in item["attributes"]:
            joined = STATE.replace("SMS_Client_ComanagementState", item["name"])
            alone = f"select * from {item['name']} where "
            query = alone if item["resource"] else joined
            type = "user" if item["name"] in people else "device"
            assert await found(api, query + f"{item['name']}.{one['name']} = '7'", type) == []


_MANY = """
WITH made AS (
    INSERT INTO collections_resource (client_id, name, tenant_id, device_id, os_name, os_version,
        client_version, discovered_at)
    SELECT 'GUID:' || g, 'M' || g, 't', g::text, 'Linux', '6', '1', now()
    FROM generate_series(1, 3000) g RETURNING id, device_id)
INSERT INTO collections_inventory (resource_id, class, instance, properties, folded, reported_at)
SELECT id, class, 1, said, said, now() FROM made, LATERAL (VALUES
    ('sms_g_system_computer_system', jsonb_build_object('model', 'm' || device_id)),
    ('sms_g_system_logical_disk', jsonb_build_object('size', device_id::bigint * 1000000))
) of (class, said)
"""


async def test_each_attribute_of_the_inventory_has_an_index(api: Api) -> None:
    """What migrations made, and what queries ask for, word for word."""
    async with api.db.transaction() as tx:
        rows = await tx.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname LIKE 'inventory_%'"
        )
        made = [row["indexdef"] async for row in rows]
        for of in collections.HARDWARE:
            for attribute in of.attributes[1:]:
                named = f"collections_inventory_{of.key.removeprefix('sms_g_system_')} "
                assert any(named in i and f"'{attribute.key}'::text" in i for i in made), attribute
        # Of an empty table every way is the same to the planner.
        await tx.execute(_MANY)
        await tx.execute("ANALYZE collections_resource, collections_inventory")
        for of, condition in (
            ("COMPUTER_SYSTEM", "Model = 'T14'"),
            ("COMPUTER_SYSTEM", "Model like 'T1%'"),
            ("LOGICAL_DISK", "Size = 1000"),
        ):
            query = (
                f"select * from SMS_R_System inner join SMS_G_System_{of} as c"
                f" on c.ResourceID = SMS_R_System.ResourceID where c.{condition}"
            )
            built = compile_query(query)
            plan = await tx.execute(
                f"EXPLAIN SELECT id FROM collections_resource r WHERE {built.sql}".encode(),
                built.values,
            )
            said = "\n".join([row["QUERY PLAN"] async for row in plan])
            assert f"inventory_{of.lower()}_{condition.split()[0].lower()}" in said, said


@pytest.mark.parametrize(
    ("query", "wrong", "suggestion"),
    [
        ("select * from SMS_R_System wher Name = 'x'", "Name", "where"),
        ("slect * from SMS_R_System", "slect", "select"),
        ("select * from SMS_R_System where Name lke 'x'", "lke", "like"),
        ("select * from SMS_R_Systm where Name = 'x'", "SMS_R_Systm", "SMS_R_System"),
        ("select * from SMS_R_System where ClientVersoin = 'x'", "ClientVersoin", "ClientVersion"),
        (STATE + "MDMEnroled = 1", "MDMEnroled", "MDMEnrolled"),
        (STATE + "SMS_Client_Comanagment.UPN = 'x'", "SMS_Client_Comanagment.", "SMS_Client_ComanagementState"),
        (STATE.replace("join SMS_Client_", "join Other_") + "UPN = 'x'", "Other_", "SMS_Client_ComanagementState"),
        (STATE + "ResourceId = 1", "ResourceId = 1", None),
        (STATE.replace("= SMS_R_System.ResourceId", "= SMS_R_System.Name") + "UPN = 'x'", "SMS_Client_ComanagementState.", None),
        (STATE + "MDMEnrolled = 'x'", "'x'", None),
        ("select * from SMS_R_System where ResourceId in (select Client from SMS_X)", "SMS_X", None),
        ("select * from SMS_R_System where ResourceId in (select Name from SMS_R_System)", "Name", None),
        ("select * from SMS_Client_ComanagementState", "SMS_Client_ComanagementState", "SMS_R_System"),
    ],
)  # fmt: skip
async def test_a_refusal_says_where_and_what_was_meant(
    api: Api, query: str, wrong: str, suggestion: str | None
) -> None:
    rule = {"kind": "query", "query": query}
    _, error = await api.refusal("POST", "/api/v1/collections/preview", {"rules": [rule]})
    assert error["code"] == "collection.bad-query"
    assert query[error["details"]["at"] - 1 :].startswith(wrong), error
    assert error["details"].get("suggestion") == suggestion, error
    assert error["cure"]
    if suggestion:
        assert suggestion in error["cure"]


_WORDS = (
    *("select", "*", "from", "SMS_R_System", "SMS_Client_ComanagementState", "where", "inner"),
    *("join", "on", "Name", "ResourceID", "MDMEnrolled", "=", "like", "in", "not", "is", "null"),
    *("and", "or", "(", ")", ",", ".", "'", "'x'", "1", "as", "j1", "r"),
)


@given(st.lists(st.sampled_from(_WORDS), max_size=30))
def test_words_in_any_order_are_a_query_or_refused(words: list[str]) -> None:
    """And what is read has a value for each place, and no word of the query in its SQL."""
    try:
        condition = compile_query("select * from SMS_R_System where " + " ".join(words))
    except BadQuery:
        return
    assert condition.sql.count("%s") == len(condition.values)
    assert "'x'" not in condition.sql
