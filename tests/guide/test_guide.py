"""The checklist's states come of the real site and the real tenant."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from guide_world import Guided
from site_api import add_device
from site_world import NAME, connect, create, ready, until
from tandem import audit
from tandem.site import clients, guide
from tandem.site.guide import story
from tandem.site.guide.findings import FINDINGS, Facts, Tenant

LINE = 'CCMSETUPCMD="CCMHOSTNAME=cmg.contoso.com/CCM_Proxy_MutualAuth/1 SMSSITECODE=CM1"'


def states(steps: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {id: step["state"] for id, step in steps.items()}


async def test_a_new_site_has_everything_before_it(guided: Guided) -> None:
    steps = await guided.steps()
    assert list(steps) == list(guide.STEPS)
    found = states(steps)
    assert {found[id] for id in ("1.1", "2.1", "3.1", "4.1", "5.1", "6.4", "7.2")} == {"not-yet"}
    assert found["7.3"] == "not-in-this-version"
    # What only the tenant knows is not guessed.
    for id in ("0.1", "0.2", "6.1", "6.2", "6.3"):
        assert found[id] == "unknown"
        assert "no Azure service" in steps[id]["text"]
    for step in steps.values():
        assert step["title"]
        assert step["why"].endswith(".")
        assert step["text"]
    assert "not connected to a tenant" in steps["5.1"]["text"]
    answer = (await guided.web.get("/api/v1/guide")).json()
    open_ones = [id for id, state in found.items() if state in ("not-yet", "partly")]
    assert answer["next"] == open_ones[0]
    assert sum(answer["counts"].values()) == len(steps)


async def test_the_tutorial_fills_the_list(guided: Guided) -> None:
    site = guided.site
    await connect(site, consent=False)
    steps = await guided.steps()
    found = states(steps)
    assert (found["2.1"], found["2.2"], found["2.3"], found["2.4"]) == ("done",) * 4
    assert found["2.5"] == "not-yet"
    assert "Directory.Read.All" in steps["2.5"]["text"]
    assert steps["2.6"]["do"] is None  # Discovery would only fail.
    for app in await site.run("app-registration", "list"):
        await site.run("app-registration", "consent", app["appId"])
    steps = await guided.steps()
    found = states(steps)
    assert found["2.5"] == "done"
    assert found["0.2"] == "not-yet"
    await site.run("mdm-authority", "set")
    assert states(await guided.steps())["0.2"] == "partly"

    await guided.do("2.6")
    for _ in range(200):
        if states(await guided.steps())["2.6"] == "done":
            break
        await asyncio.sleep(0.05)
    assert states(await guided.steps())["2.6"] == "done"

    await create(site, tenant_id=guided.tenant.tenant.id)
    await until(site, ready)
    steps = await guided.steps()
    found = states(steps)
    assert {found[id] for id in ("1.1", "1.2", "1.3", "1.4", "3.1")} == {"done"}
    assert found["3.2"] == "not-yet"
    assert f"{NAME}. CNAME" in steps["3.2"]["text"]
    deployment = (await site.run("gateway", "show", NAME))["deployment_name"]
    site.names.aliases[NAME] = deployment
    site.names.hosts[deployment] = ["127.0.0.11"]
    assert states(await guided.steps())["3.2"] == "done"
    site.names.away = True
    assert states(await guided.steps())["3.2"] == "unknown"

    for id in ("4.2", "4.3"):
        assert states(await guided.steps())[id] == "not-yet" or id == "4.3"
        await guided.do(id)
        step = (await guided.steps())[id]
        assert (step["state"], step["do"]) == ("done", None)


async def test_the_story_tells_what_was_done_and_what_devices_did_then(guided: Guided) -> None:
    from psycopg.types.json import Jsonb

    async def entry(tx: Any, device: str, topic: int, state: int, at: str, **data: Any) -> None:
        await tx.execute(
            "INSERT INTO clients_timeline (tenant_id, device_id, message_id, topic, state, at,"
            " received_at, data) VALUES ('t', %s, gen_random_uuid()::text, %s, %s, now(),"
            f" now() + interval '{at}', %s)",
            (device, topic, state, Jsonb(data)),
        )

    both = {"mdm_enrolled": True, "policy_present": True}
    await guided.web.post("/api/v1/azure-services", json={"name": "Contoso"})
    async with guided.site.db.transaction() as tx:
        for device in ("d1", "d2"):
            await entry(tx, device, 9100, 1, "1 s")
            await entry(tx, device, 9100, 3, "2 s")
            await entry(tx, device, 810, 100, "3 s", **both)
        await entry(tx, "d3", 810, 100, "3 s", mdm_enrolled=False, policy_present=True)
        await add_device(tx, "LAB-001")
    told = [line["text"] for line in await guided.story()]
    assert told == [
        "2 devices became co-managed",
        "2 devices registered with the site",
        "siteadmin made the Azure service Contoso",
        "set-up made siteadmin an administrator",
    ]


def test_a_device_becomes_co_managed_once_and_follows_after_that() -> None:
    at = datetime(2026, 11, 26, 12, tzinfo=UTC)
    entry = audit.Entry(1, at, "alex", "discovery.run", "x", "done", {})
    news = [
        clients.Milestone(at + timedelta(minutes=minute), device, False, True)
        for minute in (-1, 1)
        for device in ("d1", "d2")
    ]
    assert [line.said.text for line in story.told([entry], news, {})] == [
        "2 devices reported who owns their workloads now",
        "alex ran full discovery",
        "2 devices became co-managed",
    ]


async def test_a_switch_is_told_in_words(guided: Guided) -> None:
    from tandem.infra.clock import utc_now

    async with guided.site.db.transaction() as tx:
        for to in ("pilot", "mdm", "site"):
            await audit.record(
                tx,
                actor="alex",
                action="comanagement.switch",
                target="windows-update",
                now=utc_now(),
                details={"to": to, "pilot": "SMS00001"},
            )
        await audit.record(tx, actor="alex", action="something.new", target="x", now=utc_now())
    assert [line["text"] for line in await guided.story()] == [
        "alex moved Windows Update policies back to the site",
        "alex moved Windows Update policies to the MDM service for all",
        "alex moved Windows Update policies to the MDM service for the pilot All Systems",
        "set-up made siteadmin an administrator",
    ]


async def test_who_is_not_signed_in_learns_nothing(guided: Guided) -> None:
    del guided.web.headers["Authorization"]
    for path in ("/api/v1/guide", "/api/v1/guide/story"):
        assert (await guided.web.get(path)).status_code == 401


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x"])
async def test_the_story_has_an_end(guided: Guided, query: str) -> None:
    assert (await guided.web.get(f"/api/v1/guide/story?{query}")).status_code == 400


def devices(**more: Any) -> Tenant:
    return Tenant(devices_known=True, **more)


@pytest.mark.parametrize(
    ("id", "facts", "state", "words"),
    [
        ("0.1", {"tenant": Tenant(domains=("contoso.com",))}, "partly", "no users"),
        (
            "0.1",
            {
                "tenant": Tenant(
                    domains=("contoso.com",),
                    users=True,
                    groups=True,
                    products={"INTUNE": (5, frozenset({"INTUNE_A"}))},
                )
            },
            "partly",
            "no product",
        ),
        (
            "0.1",
            {
                "tenant": Tenant(
                    domains=("contoso.com",),
                    users=True,
                    groups=True,
                    products={"EMS": (5, frozenset({"INTUNE_A", "AAD_PREMIUM"}))},
                )
            },
            "done",
            "5 free seats",
        ),
        ("0.2", {"tenant": devices(mdm_authority="intune", enrolled=3)}, "done", "3 devices"),
        ("2.6", {"run_state": "failed", "run_reason": "No consent."}, "partly", "No consent."),
        ("3.1", {"gateway": "g", "gateway_state": "Failed"}, "partly", "Failed"),
        ("4.1", {"points": 2, "connected": 1}, "partly", "1 of 2"),
        ("4.1", {"points": 2, "connected": 2}, "done", "2 connection points"),
        ("4.3", {"settings": {"enable_cloud_management_gateway": True}}, "partly", "1 of the four"),
        ("5.3", {"policies": 2, "applied": 3, "policy_members": 4}, "done", "3 of 4 clients"),
        ("6.1", {"tenant": Tenant(apps={})}, "not-yet", "No app"),
        (
            "6.1",
            {"tenant": Tenant(apps={"A": (0, 0, LINE)}), "line": "other"},
            "partly",
            "another command line",
        ),
        (
            "6.1",
            {"tenant": Tenant(apps={"A": (0, 0, LINE)}), "line": LINE},
            "done",
            "app A carries",
        ),
        ("6.2", {"tenant": Tenant(apps={"A": (0, 1, LINE)})}, "not-yet", "nobody"),
        ("6.2", {"tenant": Tenant(apps={"A": (2, 1, LINE)})}, "done", "2 groups, minus 1"),
        ("6.3", {"tenant": devices(enrolled=0)}, "unknown", "nobody"),
        ("6.3", {"tenant": devices(enrolled=3, unlicensed=1)}, "partly", "1 users"),
        ("6.3", {"tenant": devices(enrolled=3)}, "done", "all co-managed"),
        ("6.4", {"clients": 3, "co_managed": 2}, "partly", "2 of 3"),
        ("6.4", {"clients": 3, "co_managed": 3}, "done", "All 3"),
        ("7.1", {"co_managed": 3, "tenant": devices(co_managed=2)}, "partly", "the tenant 2"),
        ("7.1", {"co_managed": 3, "tenant": devices(co_managed=3)}, "done", "3 co-managed"),
        ("7.1", {"co_managed": 3, "tenant": Tenant(without="It is away.")}, "unknown", "away"),
        ("7.2", {"switched": True, "moving": 3, "followed": 1}, "partly", "1 of 3"),
        ("7.2", {"switched": True}, "done", "every device"),
    ],
)
def test_a_step_stands_where_its_facts_say(
    id: str, facts: dict[str, Any], state: str, words: str
) -> None:
    found = FINDINGS[id](Facts(enhanced_http=True, **facts))
    assert found.state.value == state
    assert words in found.said.text


async def test_the_commands_of_the_guide(guided: Guided) -> None:
    site = guided.site
    shown = await site.run("site", "guide")
    assert [part["part"] for part in shown["parts"]] == list("01234567")
    done = await site.run("site", "guide", "--do", "4.3")
    steps = {step["id"]: step for part in done["parts"] for step in part["steps"]}
    assert steps["4.3"]["state"] == "done"
    refused = await site.refusal("site", "guide", "--do", "3.1")
    assert "cannot be done from here" in refused.message
    told = await site.run("site", "story", "--limit", 1)
    assert told[0]["text"] == "siteadmin changed the default client settings"
