"""Members that are kept: what makes them anew, what it costs, and that they are those of the rules."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from site_api import NOW, Api, add_device, report
from tandem.site import clients, collections

LAB = "select * from SMS_R_System where Name like 'LAB-%'"
STATE = (
    "select * from SMS_R_System inner join SMS_Client_ComanagementState as s"
    " on s.ResourceID = SMS_R_System.ResourceID where s.MDMProvisioned = 1"
)


async def devices(api: Api, *names: str, flags: int = 0) -> None:
    async with api.db.transaction() as tx:
        for name in names:
            await add_device(tx, name, flags=flags)


async def made(api: Api, name: str, *rules: dict[str, str], **more: Any) -> str:
    wanted = {"name": name, "rules": list(rules), **more}
    answer = await api.web.post("/api/v1/collections", json=wanted)
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


async def kept(api: Api, id: str) -> Any:
    return (await api.get(f"/api/v1/collections/{id}"))["evaluation"]


async def names(api: Api) -> dict[str, set[str]]:
    """The members that are kept, and that they are those whom the rules name; also of what is built
    in, whose names are not among those that are returned."""
    async with api.db.transaction() as tx:
        every = {item.id: item for item in await collections.collections(tx) if item.limiting_id}
        rows = await (
            await tx.execute(
                "SELECT collection_id, name FROM collections_member"
                " JOIN collections_resource r ON r.id = resource_id"
                " UNION ALL SELECT collection_id, upn FROM collections_user_member"
                " JOIN collections_user r ON r.id = resource_id"
            )
        ).fetchall()
        found: dict[str, set[str]] = {id: set() for id in every}
        for row in rows:
            found[row["collection_id"]].add(row["name"])
        evaluated = await tx.execute("SELECT collection_id FROM collections_evaluation")
        done = {row["collection_id"] async for row in evaluated}
        for id, members in found.items():
            if id not in done:
                continue  # Nobody has asked for it yet, and the test's clock has not come to it.
            if every[id].type is collections.MemberType.DEVICE:
                named = {item.name for item in await collections.members(tx, id)}
            else:
                named = {item.upn for item in await collections.user_members(tx, id)}
            assert named == members, every[id].name
    return {id: members for id, members in found.items() if not every[id].built_in}


async def test_a_changed_device_is_looked_at_for_all_collections(api: Api) -> None:
    await devices(api, "LAB-001", "DEV-001")
    lab = await made(api, "Lab", {"kind": "query", "query": LAB})
    state = await made(api, "Provisioned", {"kind": "query", "query": STATE})
    await api.evaluator.tend()
    assert await names(api) == {lab: {"LAB-001"}, state: set()}
    assert (await kept(api, lab))["incremental_runs"] == 0

    api.wait(minutes=1)
    await devices(api, "LAB-002", flags=8195)
    async with api.db.transaction() as tx:
        await report(tx, clients.ClientId("GUID:DEV-001"), flags=8195)
    waiting = await api.get("/api/v1/collections/waiting")
    assert waiting == {"resources": 2, "collections": 0}
    await api.evaluator.tend()
    assert await names(api) == {lab: {"LAB-001", "LAB-002"}, state: {"DEV-001", "LAB-002"}}
    found = await kept(api, state)
    assert (found["members"], found["incremental_runs"], found["before"]) == (2, 1, None)
    assert found["incremental_total_ms"] == found["incremental_ms"] > 0
    assert found["changed_at"] == found["incremental_at"] == "2026-11-24T09:01:00Z"
    assert found["at"] == "2026-11-24T09:00:00Z"

    # What is no news is looked at by nobody: a heartbeat, the same report once more.
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-002", flags=8195)
    await api.evaluator.tend()
    assert (await kept(api, state))["incremental_runs"] == 1


async def test_a_changed_rule_is_followed_by_all_that_depend_on_it(api: Api) -> None:
    await devices(api, "LAB-001", "LAB-002", "DEV-001")
    lab = await made(api, "Lab", {"kind": "query", "query": LAB})
    limited = await made(
        api, "Limited", {"kind": "direct", "device": "DEV-001"}, {"kind": "direct", "device": "LAB-002"},
        limiting="Lab",
    )  # fmt: skip
    out = await made(
        api, "Out", {"kind": "include", "collection": "SMS00001"}, {"kind": "exclude", "collection": "Limited"}
    )  # fmt: skip
    apart = await made(api, "Apart", {"kind": "direct", "device": "DEV-001"})
    await api.evaluator.tend()
    before = await names(api)
    assert before == {
        lab: {"LAB-001", "LAB-002"},
        limited: {"LAB-002"},
        out: {"LAB-001", "DEV-001"},
        apart: {"DEV-001"},
    }
    api.wait(minutes=1)
    rules = {"rules": [{"kind": "query", "query": LAB.replace("LAB-%", "DEV-%")}]}
    assert (await api.web.patch(f"/api/v1/collections/{lab}", json=rules)).status_code == 200
    await api.evaluator.tend()
    assert await names(api) == {
        lab: {"DEV-001"},
        limited: {"DEV-001"},
        out: {"LAB-001", "LAB-002"},
        apart: {"DEV-001"},
    }
    assert (await kept(api, out))["at"] == "2026-11-24T09:01:00Z"
    assert (await kept(api, out))["before"] == 2
    assert (await kept(api, apart))["at"] == "2026-11-24T09:00:00Z"
    # Limits, deleted devices and deleted collections likewise.
    await api.web.patch(f"/api/v1/collections/{limited}", json={"limiting": "SMS00001"})
    async with api.db.transaction() as tx:
        device = await collections.resource(tx, "LAB-002")
        await clients.forget(tx, device.id, actor="a", now=NOW)
    await api.web.delete(f"/api/v1/collections/{apart}")
    await api.evaluator.tend()
    assert await names(api) == {lab: {"DEV-001"}, limited: {"DEV-001"}, out: {"LAB-001"}}
    assert (await kept(api, limited))["members"] == 1


async def test_without_incremental_updates_members_wait_for_the_schedule(api: Api) -> None:
    id = await made(
        api, "Lab", {"kind": "query", "query": LAB}, incremental=False, full_every_minutes=60
    )
    await api.evaluator.tend()
    await devices(api, "LAB-001")
    api.wait(minutes=59)
    await api.evaluator.tend()
    assert (await kept(api, id))["members"] == 0
    shown = await api.get(f"/api/v1/collections/{id}")
    # Whoever asks the rules knows it already, and so does the device.
    assert (shown["members"], shown["full_due_at"]) == (1, "2026-11-24T10:00:00Z")
    api.wait(minutes=1)
    await api.evaluator.tend()
    assert (await kept(api, id))["members"] == 1
    assert (await api.get(f"/api/v1/collections/{id}"))["full_due_at"] == "2026-11-24T11:00:00Z"
    # Never by itself, then incremental from now on: what was missed is found.
    for change in ({"full_every_minutes": 0}, {"incremental": True}):
        await devices(api, f"LAB-{len(change)}{len(str(change))}")
        await api.evaluator.tend()
        answer = await api.web.patch(f"/api/v1/collections/{id}", json=change)
        assert answer.status_code == 200, answer.text
    await api.evaluator.tend()
    assert len((await names(api))[id]) == 3
    assert (await api.get(f"/api/v1/collections/{id}"))["full_due_at"] is None


async def test_evaluating_by_hand_is_a_full_evaluation(api: Api) -> None:
    id = await made(api, "Lab", {"kind": "query", "query": LAB}, incremental=False)
    await devices(api, "LAB-001")
    found = await api.post(f"/api/v1/collections/{id}/evaluate", {})
    assert (found["members"], found["before"]) == (1, None)
    assert (await names(api))[id] == {"LAB-001"}
    every = await api.post("/api/v1/collections/SMS00001/evaluate", {})
    assert every["members"] == 1


@pytest.mark.parametrize("minutes", [-1, 527_041, 10**30])
async def test_a_schedule_that_cannot_be_is_refused(api: Api, minutes: int) -> None:
    wanted = {"name": "X", "full_every_minutes": minutes}
    code, error = await api.refusal("POST", "/api/v1/collections", wanted)
    assert code == 400
    assert error["message"]


async def test_a_query_that_fails_keeps_no_other_from_being_evaluated(api: Api) -> None:
    """What the database refuses for one collection (here by a trigger) fails for that one alone: it
    says so, is left old, and is tried again."""
    await devices(api, "LAB-001")
    lab = await made(api, "Lab", {"kind": "query", "query": LAB})
    bad = await made(api, "Bad", {"kind": "query", "query": LAB})
    await api.evaluator.tend()
    async with api.db.transaction() as tx:
        await tx.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RAISE division_by_zero; END'"
        )
        await tx.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON collections_member FOR EACH ROW"
            f" WHEN (NEW.collection_id = '{bad}') EXECUTE FUNCTION refuse()"
        )
    await devices(api, "LAB-002")
    await api.evaluator.tend()
    shown = await api.get(f"/api/v1/collections/{bad}")
    assert "division" in shown["trouble"]
    assert shown["full_due_at"] == "2026-11-24T10:00:00Z"
    assert (await kept(api, lab))["members"] == 2
    listed = await api.get("/api/v1/collections", sort="-cost", count="false")
    assert {item["id"]: bool(item["trouble"]) for item in listed["items"]}[bad]
    async with api.db.transaction() as tx:
        await tx.execute("DROP TRIGGER refuse ON collections_member")
        await tx.execute("DROP FUNCTION refuse")
    api.wait(hours=1)
    await api.sign_in()
    await api.evaluator.tend()
    assert (await api.get(f"/api/v1/collections/{bad}"))["trouble"] == ""
    assert set((await names(api))[bad]) == {"LAB-001", "LAB-002"}


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["state", "rename", "add", "rule", "unrule", "limit", "tend"]),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    min_size=5,
    max_size=20,
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_STEPS)
async def test_kept_members_are_those_of_the_rules_whatever_happens(
    api: Api, steps: list[tuple[str, int, int]]
) -> None:
    """Any order of changes to devices, rules and limits, with evaluations between them."""
    async with api.db.transaction() as tx:
        await tx.execute("DELETE FROM collections_rule")
        mine = "id NOT IN (SELECT unnest(%s::text[]))"
        built_in = (list(collections.BUILT_IN),)
        await tx.execute(
            f"UPDATE collections_collection SET limiting_id = 'SMS00001' WHERE {mine}", built_in
        )
        await tx.execute(f"DELETE FROM collections_collection WHERE {mine}", built_in)
        await tx.execute("DELETE FROM collections_resource")
        await tx.execute("DELETE FROM clients_client")
    await devices(api, "LAB-0", "LAB-1", "DEV-2")
    for place, query in enumerate((LAB, STATE, "", "")):
        await made(api, f"C{place}", *([{"kind": "query", "query": query}] if query else []))
    for what, one, other in steps:
        path = f"/api/v1/collections/C{one}"
        if what == "tend":
            await api.evaluator.tend()
        elif what == "state":
            await devices(api, f"LAB-{one}", flags=8195 if other % 2 else 0)
        elif what in ("rename", "add"):
            name = f"{'LAB' if other % 2 else 'DEV'}-{one}"
            async with api.db.transaction() as tx:
                resource = collections.Resource(f"GUID:LAB-{one}", name)
                await collections.upsert_resource(tx, resource, NOW)
        elif what == "rule":
            kind = ("include", "exclude")[(one + other) % 2]
            rule = {"kind": kind, "collection": f"C{other}"}
            await api.web.post(f"{path}/rules", json={"rules": [rule]})
        elif what == "unrule":
            await api.web.patch(path, json={"rules": []})
        else:
            await api.web.patch(path, json={"limiting": f"C{other}"})
    await api.evaluator.tend()
    await names(api)
