"""Rules and what limits what: twice, half-way, and by people who mean harm."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_api import NOW, Api, add_device
from tandem.infra.database import Embedded, Tx
from tandem.site import collections
from tandem.site.collections import ALL_SYSTEMS, BadQuery, Resource
from tandem.site.collections.query import Condition

QUERY = "select * from SMS_R_System where Name like '{}'"


async def make(tx: Tx, name: str, **options: str) -> collections.Collection:
    return await collections.create(tx, "CM1", name, actor="test", now=NOW, **options)


async def test_collections_cannot_limit_each_other_in_a_circle(site_tx: Tx) -> None:
    await make(site_tx, "A")
    await make(site_tx, "B", limiting="A")
    await make(site_tx, "C", limiting="B")
    for limiting in ("A", "B", "C"):
        with pytest.raises(collections.Circular) as refused:
            await collections.limit(site_tx, "A", limiting, actor="test", now=NOW)
        assert refused.value.cure
    moved = await collections.limit(site_tx, "C", "A", actor="test", now=NOW)
    assert moved.limiting_id == (await collections.collection(site_tx, "A")).id
    with pytest.raises(collections.BuiltIn):
        await collections.limit(site_tx, "All Systems", "A", actor="test", now=NOW)


async def test_a_new_limit_takes_effect_at_once(site_tx: Tx) -> None:
    await add_device(site_tx, "LAB-001")
    await make(site_tx, "Nobody")
    await make(site_tx, "Lab", query=QUERY.format("LAB-%"))
    assert len(await collections.members(site_tx, "Lab")) == 1
    await collections.limit(site_tx, "Lab", "Nobody", actor="test", now=NOW)
    assert await collections.members(site_tx, "Lab") == []


async def test_memberships_are_the_collections_that_list_the_device(site_tx: Tx) -> None:
    for name in ("LAB-001", "LAB-002", "DEV-001"):
        await add_device(site_tx, name)
    every = [
        await make(site_tx, "Lab", query=QUERY.format("LAB-%")),
        await make(site_tx, "Ones", query=QUERY.format("%1")),
        await make(site_tx, "Ones of the lab", limiting="Lab", query=QUERY.format("%1")),
        await make(site_tx, "Empty"),
        await collections.collection(site_tx, ALL_SYSTEMS),
    ]
    for device in await collections.resources(site_tx):
        found = await collections.memberships(site_tx, [item.id for item in every], device.id)
        listed = {
            item.id
            for item in every
            if device.id in [member.id for member in await collections.members(site_tx, item.id)]
        }
        assert found == listed
        assert await collections.memberships(site_tx, [], device.id) == set()
    assert await collections.memberships(site_tx, [ALL_SYSTEMS], 1) == set()


async def test_two_devices_of_one_name_are_two_members(site_tx: Tx) -> None:
    for number in ("1", "2"):
        resource = Resource(f"GUID:{number}", "LAB-001", "t", f"d{number}")
        await collections.upsert_resource(site_tx, resource, NOW)
    await make(site_tx, "Pilot")
    for number in ("1", "2", "2"):
        await collections.add_members(site_tx, "Pilot", [f"guid:{number}"], actor="test", now=NOW)
    found = await collections.members(site_tx, "Pilot")
    assert [item.client_id for item in found] == ["GUID:1", "GUID:2"]


async def test_devices_are_added_all_or_none(api: Api) -> None:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001")
        await make(tx, "Pilot")
    wanted = {"devices": ["LAB-001", "LAB-009"]}
    code, error = await api.refusal("POST", "/api/v1/collections/Pilot/members", wanted)
    assert (code, error["code"]) == (404, "resource.not-found")
    assert await api.get("/api/v1/collections/Pilot/members") == {"items": [], "total": 0}


async def test_a_query_rule_has_a_name_of_its_own(api: Api) -> None:
    await api.web.post("/api/v1/collections", json={"name": "Lab"})
    rule = {"rule": "lab", "query": QUERY.format("LAB-%")}
    assert (await api.web.post("/api/v1/collections/Lab/members", json=rule)).status_code == 200
    code, error = await api.refusal("POST", "/api/v1/collections/Lab/members", rule)
    assert (code, error["code"]) == (409, "collection.name-taken")
    (known,) = (await api.get("/api/v1/collections/Lab"))["rules"]
    assert (await api.web.delete(f"/api/v1/collections/Lab/rules/{known['id']}")).status_code == 204
    code, error = await api.refusal("DELETE", f"/api/v1/collections/Lab/rules/{known['id']}")
    assert (code, error["code"]) == (404, "collection.no-such-rule")


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"name": ""}, "collection.bad-name"),
        ({"name": "x" * 300}, "collection.bad-name"),
        ({"name": "A", "comment": "x" * 2000}, "collection.bad-name"),
        ({"name": "A", "limiting": "Nowhere"}, "collection.not-found"),
        ({"name": "all systems"}, "collection.name-taken"),
        ({"name": "A", "query": "select * from SMS_R_User"}, "collection.bad-query"),
        ({"name": ["A"]}, "request.invalid"),
        ({}, "request.invalid"),
    ],
)
async def test_a_collection_that_cannot_be_is_refused(
    api: Api, wanted: dict[str, object], code: str
) -> None:
    _, error = await api.refusal("POST", "/api/v1/collections", wanted)
    assert error["code"] == code
    assert error["message"]


async def test_all_systems_stays_as_it_is(api: Api) -> None:
    path = "/api/v1/collections/SMS00001"
    for method, body in (("DELETE", None), ("PATCH", {"limiting": "SMS00001"})):
        code, error = await api.refusal(method, path, body)
        assert (code, error["code"]) == (409, "collection.built-in")


@pytest.mark.parametrize("offset", ["-1", "x", "1e9", "99999999999"])
async def test_an_offset_that_is_no_number_is_refused(api: Api, offset: str) -> None:
    assert (await api.refusal("GET", f"/api/v1/resources?offset={offset}"))[0] == 400


# ------------------------------------------------------------------------ queries


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("lab-00[1-2]", ["LAB-001", "LAB-002"]),
        ("LAB-00[^1]", ["LAB-002", "LAB-003"]),
        ("%[13]", ["LAB-001", "LAB-003"]),
        ("LAB.00[1-3]", []),
        ("[a-z]%_00[3]", ["LAB-003"]),
        ("LAB+00[1]", []),
        ("LAB\\-00[1]", []),
    ],
)
async def test_sets_of_characters(site_tx: Tx, pattern: str, names: list[str]) -> None:
    for name in ("LAB-001", "LAB-002", "LAB-003"):
        await add_device(site_tx, name)
    await make(site_tx, "Q", query=QUERY.format(pattern))
    assert [item.name for item in await collections.members(site_tx, "Q")] == names
    await make(site_tx, "Not", query=QUERY.replace("like", "not like").format(pattern))
    others = {item.name for item in await collections.members(site_tx, "Not")}
    assert others == {"LAB-001", "LAB-002", "LAB-003"} - set(names)


@pytest.mark.parametrize(
    "pattern", ["[", "LAB-[", "[]", "[^]", "[a-]", "[(a+)+]", "[a", "[9-0]", "[Z-a]", "[[:alpha:]]"]
)
def test_half_a_set_is_refused(pattern: str) -> None:
    with pytest.raises(BadQuery) as refused:
        collections.compile_query(QUERY.format(pattern))
    assert "[0-9]" in refused.value.cure


_names = st.sampled_from(["Name", "NetbiosName", "ClientVersion", "Build", "AADDeviceID"])
_values = st.text(st.characters(codec="utf-8", exclude_characters="'\x00"), max_size=12) | st.text(
    "[]^-az09 %_\\(){}?+*|$", max_size=8
)


@st.composite
def _comparisons(draw: st.DrawFn) -> str:
    name, value = draw(_names), draw(_values)
    operator = draw(st.sampled_from(["=", "<>", "!=", "<", ">=", "like", "not like"]))
    return draw(
        st.sampled_from(
            [
                f"{name} {operator} '{value}'",
                f"SMS_R_System.{name} IN ('{value}', 'x')",
                f"{name} is not null",
                f"ResourceId {operator} 16777216",
                f"Client {operator} '{value}'",
            ]
        )
    )


_conditions = st.recursive(
    _comparisons(),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: f"({two[0]}) and {two[1]}"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} or {two[1]})"),
        inner.map(lambda one: f"not ({one})"),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def database(postgres: Embedded, site_template: str) -> Iterator[psycopg.Connection]:
    """A database of this file's own: nobody may be connected to the template."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE queries TEMPLATE {site_template}".encode())
        with psycopg.connect(postgres.dsn("queries"), autocommit=True) as connection:
            yield connection
        admin.execute("DROP DATABASE queries WITH (FORCE)")


@given(text=_conditions)
def test_what_the_grammar_takes_the_database_takes(database: psycopg.Connection, text: str) -> None:
    try:
        condition = collections.compile_query(f"select * from SMS_R_System where {text}")
    except BadQuery:
        return
    database.execute(
        f"SELECT count(*) FROM collections_resource r WHERE {condition.sql}".encode(),
        condition.values,
    )


@given(st.text(max_size=80) | _conditions.map(lambda text: f"select * from SMS_R_System {text}"))
def test_any_text_is_a_query_or_is_refused_in_words(text: str) -> None:
    refusal = ""
    try:
        assert isinstance(collections.compile_query(text), Condition)
    except BadQuery as refused:
        refusal = refused.message or "no words"
    assert refusal != "no words"
    assert "lark" not in refusal.lower()


async def test_what_a_query_compiles_to_runs(site_tx: Tx) -> None:
    """Examples of the whole grammar on a real database, hostile values among them."""
    await add_device(site_tx, "LAB-001")
    values = ["LAB-001", "%", "_", "\\", "\\'; drop table collections_resource --".replace("'", "")]
    texts = [
        f"{name} {operator} '{value}'"
        for name in ("Name", "Build", "AADTenantID", "OperatingSystemNameandVersion")
        for operator in ("=", "<", "like", "not like")
        for value in values
    ]
    texts += ["ResourceId > 0 and Client = 1", "not (Name is null) or ResourceID in (1, 2)"]
    for place, text in enumerate(texts):
        made = await make(site_tx, f"Q{place}", query=f"select * from SMS_R_System where {text}")
        assert await collections.count(site_tx, made.id) in (0, 1)
    assert len(await collections.resources(site_tx)) == 1
