"""Packages of a gateway: listed, distributed again, removed; and what its stores say."""

from typing import Any

import pytest

from site_world import NAME, Site, create, ready, until
from tandem import audit
from tandem.infra.clock import utc_now
from tandem.protocols import tunnel
from tandem.site.cloud_services import content_store, contents, store
from tandem.site.cloud_services.model import Alerts

ONE, OTHER = "a1" * 32, "b2" * 32


@pytest.fixture
async def served(site: Site) -> Site:
    """A gateway that is ready, and two packages that devices asked it for."""
    await create(site, instances=2)
    await until(site, ready)
    async with site.db.transaction() as tx:
        for sha256, name in ((ONE, "client.whl"), (OTHER, "older.whl")):
            made = content_store.Distributed(
                NAME, sha256, name, "0.1.0", 2_000_000, 1, False, utc_now()
            )
            sealed = site.box.seal(bytes(32), "cloud.content-key")
            await content_store.insert(tx, made, sealed)
    return site


async def says(site: Site, instance: int, *copies: tunnel.Copy, **more: Any) -> None:
    used = sum(copy.stored_bytes for copy in copies)
    state = tunnel.ContentState(instance, list(copies), used, 10**10, **more)
    async with site.db.transaction() as tx:
        await content_store.save_state(tx, NAME, state, utc_now())


async def told(site: Site) -> tunnel.ContentService:
    async with site.db.transaction() as tx:
        gateway = await store.gateway(tx, NAME)
        assert gateway is not None
        found = await contents.service(tx, gateway)
    assert found is not None
    return found


async def states(site: Site) -> dict[str, str]:
    found = await site.run("gateway", "content")
    return {one["name"]: one["state"] for one in found["contents"]}


async def test_packages_are_listed_with_where_they_are(served: Site) -> None:
    assert await states(served) == {"client.whl": "waiting", "older.whl": "waiting"}
    await says(served, 1, tunnel.Copy(ONE, 1, 2_000_100, True), tunnel.Copy(OTHER, 1, 500, False))
    await says(served, 2, tunnel.Copy(ONE, 1, 2_000_100, True))
    found = await served.run("gateway", "content", NAME)
    rows = {one["name"]: one for one in found["contents"]}
    assert rows["client.whl"]["state"] == "stored"
    assert rows["client.whl"]["instances"] == [1, 2]
    assert rows["client.whl"]["size_bytes"] == 2_000_000
    assert rows["older.whl"]["state"] == "pulling"
    assert [one["used_bytes"] for one in found["stores"]] == [2_000_600, 2_000_100]
    assert "key" not in str(found)


async def test_a_package_that_is_distributed_again_has_another_key(served: Site) -> None:
    await says(served, 1, tunnel.Copy(ONE, 1, 2_000_100, True))
    async with served.db.transaction() as tx:
        before = await content_store.find(tx, NAME, ONE)
    await served.run("gateway", "redistribute-content", ONE[:12])
    async with served.db.transaction() as tx:
        after = await content_store.find(tx, NAME, ONE)
    assert before is not None
    assert after is not None
    assert (before[0].distribution, after[0].distribution) == (1, 2)
    assert before[1] != after[1]
    assert (await told(served)).dropped == {ONE: 1}
    # What is stored is of the one before.
    assert (await states(served))["client.whl"] == "waiting"


async def test_a_removed_package_is_dropped_until_it_is_distributed_again(served: Site) -> None:
    await served.run("gateway", "remove-content", "CLIENT.WHL")
    assert (await told(served)).dropped == {ONE: 1}
    assert (await states(served))["client.whl"] == "removed"
    await served.run("gateway", "remove-content", "client.whl")  # Twice is once.
    await served.run("gateway", "redistribute-content", "client.whl")
    assert (await states(served))["client.whl"] == "waiting"
    assert (await told(served)).dropped == {ONE: 1}
    async with served.db.transaction() as tx:
        entries = [one.action for one in await audit.entries(tx) if "content" in one.action]
    assert sorted(entries) == ["gateway.redistribute-content", "gateway.remove-content"]


async def test_what_was_never_there_is_refused_by_name(served: Site) -> None:
    refused = await served.refusal("gateway", "remove-content", "nothing.whl")
    assert "nothing.whl" in str(refused)


async def test_a_store_is_watched_and_limited(served: Site) -> None:
    assert (await told(served)).quota_bytes == 0
    await served.run("gateway", "set", "--storage-gb", "4")
    # Of each instance its share.
    assert (await told(served)).quota_bytes == 2 * 10**9
    levels = []
    for used in (2 * 10**9, 3_200_000_000, 3_700_000_000):
        await says(served, 1, tunnel.Copy(ONE, 1, used, True))
        found = await served.run("gateway", "alerts")
        levels.append(found["storage_level"])
    assert levels == ["good", "warning", "critical"]
    await says(served, 1, full=True, problem="The store for content takes nothing: full")
    found = await served.run("gateway", "alerts")
    assert (found["storage_level"], found["storage_problem"]) == (
        "critical",
        "The store for content takes nothing: full",
    )


def test_without_a_threshold_no_storage_is_judged() -> None:
    assert Alerts().storage_level(10**15) == "off"
    assert Alerts(storage_gb=1).storage_level(749_999_999) == "good"
    assert Alerts(storage_gb=1).storage_level(750_000_000) == "warning"
    assert Alerts(storage_gb=1).storage_level(900_000_000) == "critical"
