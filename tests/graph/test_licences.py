"""Licences through Graph: what is refused, what is done for groups, and how far it is."""

import asyncio
import time
from typing import Any

from graph_caller import Graph, group_body, ref
from tandem.infra.jobs import Jobs
from tandem.tenant import graph, licensing
from tenant_world import CHEAP, World, make_world

PLANS = {plan.name: plan.id for item in licensing.CATALOGUE for plan in item.plans}


def sku(name: str) -> str:
    return licensing.product(name).sku_id


def change(*add: str, remove: tuple[str, ...] = (), off: tuple[str, ...] = ()) -> dict[str, Any]:
    added = [{"skuId": sku(name), "disabledPlans": [PLANS[plan] for plan in off]} for name in add]
    return {"addLicenses": added, "removeLicenses": [sku(name) for name in remove]}


async def plans(caller: Graph, user_id: str) -> set[str]:
    names = {plan_id: name for name, plan_id in PLANS.items()}
    found = await caller.get(f"users/{user_id}?$select=assignedPlans")
    return {names[item["servicePlanId"]] for item in found["assignedPlans"]}


async def test_a_suite_is_assigned_switched_off_in_parts_and_downgraded(admin: Graph) -> None:
    for name in ("EMS", "INTUNE_SUITE", "INTUNE_EDU"):
        await admin.post("tandem/subscribe", {"sku": name, "seats": 5}, status=200)
    alex = await admin.world.user("alex")
    at = f"users/{alex.id}/assignLicense"
    alone = await admin.post(at, change("INTUNE_SUITE"), status=400)
    assert "depend on INTUNE_A" in alone["error"]["message"]
    await admin.post(at, change("EMSPREMIUM", "INTUNE_SUITE"), status=200)
    assert {"INTUNE_A", "AAD_PREMIUM_P2", "REMOTE_HELP"} <= await plans(admin, alex.id)
    conflict = await admin.post(at, change("INTUNE_EDU"), status=400)
    assert "conflict" in conflict["error"]["message"]
    off = await admin.post(at, change("EMSPREMIUM", off=("INTUNE_A",)), status=400)
    assert "INTUNE_SUITE depend on INTUNE_A" in off["error"]["message"]
    lost = await admin.post(at, change(remove=("EMSPREMIUM",)), status=400)
    assert "depend" in lost["error"]["message"]
    both = change("EMS", remove=("EMS",))
    await admin.post(at, both, status=400)
    await admin.post(at, change("EMS", remove=("EMSPREMIUM",)), status=200)
    assert "AAD_PREMIUM_P2" not in await plans(admin, alex.id)
    assert "REMOTE_HELP" in await plans(admin, alex.id), "the smaller suite has what it needs"
    await admin.post(at, change("EMS", off=("MFA_PREMIUM",)), status=200)
    (licence, *_) = sorted(
        (await admin.get(f"users/{alex.id}/licenseDetails"))["value"],
        key=lambda item: item["skuPartNumber"],
    )
    states = {
        item["servicePlanName"]: item["provisioningStatus"] for item in licence["servicePlans"]
    }
    assert states["MFA_PREMIUM"] == "Disabled"
    used = {
        item["skuPartNumber"]: item["consumedUnits"]
        for item in (await admin.get("subscribedSkus"))["value"]
    }
    assert used == {"EMSPREMIUM": 0, "EMS": 1, "INTUNE_SUITE": 1, "INTUNE_EDU": 0}


async def test_who_failed_by_group_is_told_why_and_what_to_do_and_reprocessed(
    admin: Graph,
) -> None:
    await admin.post("tandem/subscribe", {"sku": "INTUNE_SUITE", "seats": 5}, status=200)
    alex = await admin.world.user("alex")
    group = await admin.post("groups", group_body("Helped"))
    await admin.post(f"groups/{group['id']}/members/$ref", ref(alex.id), status=204)
    await admin.post(f"groups/{group['id']}/assignLicense", change("INTUNE_SUITE"), status=202)
    select = "$select=licenseAssignmentStates"
    (state,) = (await admin.get(f"users/{alex.id}?{select}"))["licenseAssignmentStates"]
    assert (state["state"], state["error"]) == ("Error", "DependencyViolation")
    assert state["assignedByGroup"] == group["id"]
    (failure,) = (await admin.get("tandem/licensing"))["failures"]
    assert "needs another plan" in failure["reason"]
    assert "reprocess" in failure["cure"]
    shown = await admin.get(
        f"groups/{group['id']}?$select=licenseProcessingState,hasMembersWithLicenseErrors"
    )
    assert shown["licenseProcessingState"] == {"state": "ProcessingComplete"}
    assert shown["hasMembersWithLicenseErrors"] is True
    await admin.post(f"users/{alex.id}/assignLicense", change("EMSPREMIUM"), status=200)
    done = await admin.post(f"users/{alex.id}/reprocessLicenseAssignment", {}, status=200)
    assert done["id"] == alex.id
    states = (await admin.get(f"users/{alex.id}?{select}"))["licenseAssignmentStates"]
    assert {item["state"] for item in states} == {"Active"}
    direct = await admin.post(
        f"users/{alex.id}/assignLicense", change(remove=("INTUNE_SUITE",)), status=400
    )
    assert "corresponding license" in direct["error"]["message"]


async def test_ten_thousand_users_are_licensed_by_a_job_that_shows_progress(
    tenant_db: Any,
) -> None:
    """As the role runs it: 202 at once, a worker, and progress to watch until it is done."""
    jobs, stop = Jobs(tenant_db.dsn), asyncio.Event()

    def served(here: World) -> Any:
        runs = licensing.Runs(here.database, jobs, here.now)
        parts = graph.directory_parts(CHEAP, later=runs.later)
        return graph.routes(here.database, here.tokens, here.now, parts=parts)

    world = await make_world(tenant_db, served)
    admin = Graph(world, await world.bearer())
    group = await admin.post("groups", group_body("Everybody"))
    async with tenant_db.transaction() as tx:
        await tx.execute(
            """WITH made AS (
                INSERT INTO directory_object (id, sort)
                SELECT gen_random_uuid(), 'user' FROM generate_series(1, 10000) RETURNING id),
            people AS (
                INSERT INTO directory_user (id, user_principal_name, display_name, mail_nickname,
                    usage_location, created_at, password_hash, password_changed_at,
                    sessions_valid_from)
                SELECT id, id || '@contoso.com', 'U', 'u', 'DE', now(), '', now(), now() FROM made)
            INSERT INTO directory_member (group_id, member_id) SELECT %s::uuid, id FROM made""",
            (group["id"],),
        )
    working = asyncio.create_task(jobs.run(stop, concurrency=1))
    started, seen = time.perf_counter(), set()
    await admin.post(f"groups/{group['id']}/assignLicense", change("EMSPREMIUM"), status=202)
    asked = time.perf_counter() - started
    while True:
        run = await admin.get(f"tandem/licenseRuns/{group['id']}")
        state = (await admin.get(f"groups/{group['id']}?$select=licenseProcessingState"))[
            "licenseProcessingState"
        ]["state"]
        seen.add(run["done"])
        if run["state"] == "done":
            break
        assert time.perf_counter() - started < 60
        await asyncio.sleep(0.05)
    seconds = time.perf_counter() - started
    stop.set()
    await working
    assert (run["total"], run["done"], run["failed"]) == (10_000, 10_000, 0)
    assert state == "ProcessingComplete"
    assert (await admin.get("subscribedSkus"))["value"][0]["consumedUnits"] == 10_000
    assert len(seen) > 2, "progress was there to be seen"
    print(f"\n10,000 users: answered after {asked:.2f} s, done after {seconds:.2f} s")
    assert seconds < 10
    await world.client.aclose()
