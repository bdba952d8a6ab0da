"""The site's audit log through its API: who did what, and the proof of it."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import site_api
from site_api import Api
from tandem import audit


async def changes(api: Api) -> None:
    for name in ("Lab", "Pilot 100%", "=cmd()"):
        made = await api.web.post("/api/v1/collections", json={"name": name})
        assert made.status_code == 201
    api.wait(minutes=50)
    await api.web.patch("/api/v1/collections/Lab", json={"name": "Laboratory", "comment": "x"})


async def listed(api: Api, **query: Any) -> list[dict[str, Any]]:
    found = await api.get("/api/v1/audit", **query)
    assert found["total"] >= len(found["items"])
    items: list[dict[str, Any]] = found["items"]
    return items


async def rewrite(api: Api, statement: str) -> None:
    """As somebody does who owns the database."""
    async with api.db.transaction() as tx:
        await tx.execute("ALTER TABLE audit_entry DISABLE TRIGGER ALL")
        await tx.execute(statement.encode())
        await tx.execute("ALTER TABLE audit_entry ENABLE TRIGGER ALL")


async def test_who_did_what_is_filtered_and_paged(api: Api) -> None:
    await changes(api)
    first = (await listed(api, limit=1))[0]
    assert (first["actor"], first["action"]) == ("siteadmin", "collection.change")
    assert first["details"]["changed"] == [
        {"name": "name", "old": "Lab", "new": "Laboratory"},
        {"name": "comment", "old": "", "new": "x"},
    ]
    assert [e["details"]["name"] for e in await listed(api, action="Collection.Create")] == [
        "=cmd()", "Pilot 100%", "Lab",
    ]  # fmt: skip
    assert [e["action"] for e in await listed(api, target="pilot 100%")] == ["collection.create"]
    assert await listed(api, target="pilot_") == []
    by_id = await listed(api, target=first["target"], sort="id")
    assert [e["action"] for e in by_id] == ["collection.create", "collection.change"]
    assert await listed(api, actor="%") == []
    assert len(await listed(api, **{"from": "2026-11-24T09:30"})) == 1
    before = await listed(api, to="2026-11-24T09:30:00Z", action="collection")
    assert len(before) == 3
    page = await api.get("/api/v1/audit", action="collection", limit=2, offset=3)
    assert (page["total"], len(page["items"])) == (4, 1)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("actor=" + "x" * 300, "actor"),
        ("actor=%00", "actor"),
        ("outcome=perhaps", "outcome"),
        ("sort=details", "sort"),
    ],
)
async def test_a_filter_that_cannot_be_is_refused_by_its_field(
    api: Api, query: str, field: str
) -> None:
    code, error = await api.refusal("GET", f"/api/v1/audit?{query}")
    assert (code, error["details"]["field"]) == (400, field)


async def test_the_log_is_for_who_is_signed_in(api: Api) -> None:
    del api.web.headers["Authorization"]
    for path in ("audit", "audit/entries", "audit/heads", "audit/key", "audit/verification"):
        assert (await api.refusal("GET", f"/api/v1/{path}"))[0] == 401


async def test_a_whole_log_is_verified_up_to_its_newest_entry(api: Api) -> None:
    await changes(api)
    assert (await api.get("/api/v1/audit/verification"))["verification"] is None
    made = await api.post("/api/v1/audit/verification", {})
    found = made["verification"]
    assert found["whole"]
    assert found["entries"] == found["signed"] == made["entries"]
    assert datetime.fromisoformat(found["at"]) == api.clock[0]
    await api.web.post("/api/v1/collections", json={"name": "Later"})
    after = await api.get("/api/v1/audit/verification")
    assert (after["entries"], after["verification"]["entries"]) == (
        made["entries"] + 1, made["entries"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "entry"),
    [
        ("UPDATE audit_entry SET actor = 'mallory' WHERE id = 2", 2),
        ("DELETE FROM audit_entry WHERE id = 2", 3),
        ("UPDATE audit_entry SET details = '{}' WHERE id = 4", 4),
    ],
)
async def test_a_rewritten_log_says_where_it_breaks(api: Api, statement: str, entry: int) -> None:
    await changes(api)
    await rewrite(api, statement)
    found = (await api.post("/api/v1/audit/verification", {}))["verification"]
    assert not found["whole"]
    assert found["problems"][0]["entry"] == entry
    kept = (await api.get("/api/v1/audit/verification"))["verification"]
    assert kept == found


async def test_an_export_is_verified_offline_and_a_rewritten_one_is_not(
    api: Api, tmp_path: Path
) -> None:
    await changes(api)
    async with site_api.commands(api, tmp_path) as commands:
        run = commands.run
        assert len(await run("audit", "list", "--of", "site", "--action", "collection")) == 4
        key = tmp_path / "key.pem"
        await run("audit", "key", "--of", "site", "--output", key)
        made = await run("audit", "export", tmp_path / "log", "--of", "site")
        assert made["whole"]
        assert made["entries"] == (await api.get("/api/v1/audit"))["total"]
        assert (await run("audit", "verify", tmp_path / "log", "--public-key", key))["whole"]
        assert (await run("audit", "check"))["whole"]
        lines = (tmp_path / "log" / "entries.jsonl").read_text()
        (tmp_path / "log" / "entries.jsonl").write_text(lines.replace("siteadmin", "mallory", 1))
        problems = audit.inspect(
            audit.read_export(tmp_path / "log"), [audit.read_public_key(key.read_bytes())]
        )
        assert problems[0].kind == "entry-changed"
        # Whoever owns the database and computes the chain anew is found by the remembered head.
        await rewrite(api, "DELETE FROM audit_entry WHERE id > 3")
        await commands.refusal("audit", "export", tmp_path / "again", "--of", "site")
