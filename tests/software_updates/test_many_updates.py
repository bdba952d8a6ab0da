"""What pages say of many updates on many devices is what each device is offered."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import site_api
from site_api import NOW, Api
from tandem.infra.database import Database, Tx
from tandem.site import software_updates

DEVICES, COLLECTIONS, UPDATES = 6, 4, 8
STATES = ("required", "installed", "not-applicable", "failed")


@pytest.fixture
async def api(site_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with site_api.site_api(site_db, tmp_path) as made:
        await made.sign_in()
        await _prepare(made)
        yield made


async def _prepare(api: Api) -> None:
    async with api.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO clients_client (id, tenant_id, device_id, thumbprint, name, os_name,"
            " os_version, client_version, approval, registered_at, last_seen_at)"
            " SELECT 'GUID:' || g, 't', 'd' || g, 't' || g, 'PC-' || g, 'Linux', '12', '0.1', 3,"
            " %(now)s, %(now)s FROM generate_series(1, %(n)s) g",
            {"now": NOW, "n": DEVICES},
        )
        await tx.execute(
            "INSERT INTO collections_resource (client_id, name, tenant_id, device_id, os_name,"
            " os_version, client_version, discovered_at) SELECT 'GUID:' || g, 'PC-' || g, 't',"
            " 'd' || g, 'Linux', '12', '0.1', %s FROM generate_series(1, %s) g",
            (NOW, DEVICES),
        )
        await tx.execute(
            "INSERT INTO collections_collection (id, name, comment, limiting_id, created_at)"
            " SELECT 'MANY000' || g, 'Many ' || g, '', 'SMS00001', %s FROM generate_series(1, %s) g",
            (NOW, COLLECTIONS),
        )


async def _update(tx: Tx, number: int, after: int) -> None:
    """`after` takes its place, when that is a later one."""
    successor = f"CVE-2026-{after}" if after > number else ""
    await tx.execute(
        "INSERT INTO software_updates_update (id, name, package, source, fixed_version, release,"
        " classification, severity, article, superseded_by, url, sha256, created_at, created_by,"
        " changed_at) VALUES (%s, %s, 'tree', false, '1', '', 'security', 'low', %s, %s, '', '', %s,"
        " 'a', %s)",
        (f"{number:x}", f"Update {number}", f"cve-2026-{number}", successor, NOW, NOW),
    )


_MEMBERS = st.sets(st.tuples(st.integers(1, COLLECTIONS), st.integers(1, DEVICES)))
_AFTER = st.lists(st.integers(0, UPDATES), min_size=UPDATES, max_size=UPDATES)
_DECISIONS = st.dictionaries(
    st.tuples(st.integers(1, UPDATES), st.integers(1, COLLECTIONS)),
    # Mostly approved, now and then declined.
    st.sampled_from(["approved", "approved", "approved", "declined"]),
    min_size=3,
)
_SAID = st.dictionaries(
    st.tuples(st.integers(1, DEVICES), st.integers(1, UPDATES)), st.sampled_from(STATES)
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_MEMBERS, _AFTER, _DECISIONS, _SAID)
async def test_counts_are_of_what_each_device_is_offered(
    api: Api,
    members: set[tuple[int, int]],
    after: list[int],
    decisions: dict[tuple[int, int], str],
    said: dict[tuple[int, int], str],
) -> None:
    async with api.db.transaction() as tx:
        await tx.execute("DELETE FROM software_updates_update")
        await tx.execute("DELETE FROM collections_rule")
        for place, successor in enumerate(after):
            await _update(tx, place + 1, successor)
        for collection, device in members:
            await tx.execute(
                "INSERT INTO collections_rule (collection_id, kind, name, query, resource_id) SELECT %s,"
                " 'direct', name, '', id FROM collections_resource WHERE client_id = %s",
                (f"MANY000{collection}", f"GUID:{device}"),
            )
        for (update, collection), decision in decisions.items():
            await tx.execute(
                "INSERT INTO software_updates_decision VALUES (%s, %s, %s, NULL, %s, 'a')",
                (f"{update:x}", f"MANY000{collection}", decision, NOW),
            )
        for (device, update), state in said.items():
            await tx.execute(
                "INSERT INTO software_updates_state VALUES (%s, %s, %s, '', '', '', %s, '', 1)",
                (f"GUID:{device}", f"{update:x}", state, NOW),
            )
        # What a device is told, which takes another way than the pages.
        offered = {
            device: {one.id for one in await software_updates.offered(tx, f"GUID:{device}")}
            for device in range(1, DEVICES + 1)
        }
    stands = {
        (device, update): said.get((device, int(update, 16)), "unknown")
        for device, updates in offered.items()
        for update in updates
    }

    listed = (await api.get("/api/v1/software-updates"))["updates"]
    for one in listed:
        assert _counts(one["counts"]) == _of(stands, update=one["id"])
    # A page of some says the same of them, whatever the rest is.
    few = (await api.get("/api/v1/software-updates", limit="2", offset="3"))["updates"]
    assert few == listed[3:5]
    for update in {update for update, _ in decisions}:
        shown = await api.get(f"/api/v1/software-updates/{update:x}")
        assert _counts(shown["counts"]) == _of(stands, update=f"{update:x}")
        assert _lines(shown["devices"], "client_id", "state") == sorted(
            (f"GUID:{device}", state)
            for (device, id), state in stands.items()
            if id == f"{update:x}"
        )
    every = (await api.get("/api/v1/software-updates/devices"))["devices"]
    assert {one["client_id"]: _counts(one) for one in every} == {
        f"GUID:{device}": _of(stands, device=device) for device, ids in offered.items() if ids
    }
    failed = (await api.get("/api/v1/software-updates/devices", state="failed"))["devices"]
    assert failed == [one for one in every if one["failed"]]
    of_one = await api.get("/api/v1/software-updates/devices/PC-1")
    assert _counts(of_one["counts"]) == _of(stands, device=1)
    assert {one["update"]["id"] for one in of_one["updates"]} == offered[1]


def _counts(told: dict[str, Any]) -> Counter[str]:
    return Counter({state: told[state.replace("-", "_")] for state in (*STATES, "unknown")})


def _of(stands: dict[tuple[int, str], str], *, update: str = "", device: int = 0) -> Counter[str]:
    return Counter(
        state
        for (client, id), state in stands.items()
        if update in ("", id) and device in (0, client)
    )


def _lines(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in names) for row in rows)
