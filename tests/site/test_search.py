"""One search over every kind, each by its index and only so many."""

from pathlib import Path
from typing import Any

import pytest

import site_api
from site_api import NOW, TENANT, Api, add_device
from tandem.site import collections


@pytest.fixture
async def full(api: Api) -> Api:
    async with api.db.transaction() as tx:
        for place in range(8):
            await add_device(tx, f"CONT-{place}")
        await collections.upsert_user(
            tx, collections.UserResource(TENANT, "o-1", "conny@contoso.com", "Conny <b>X</b>"), NOW
        )
    await api.keeper.settle_all()
    await api.web.post("/api/v1/collections", json={"name": "Contractors"})
    return api


async def kinds(api: Api, text: str, **more: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in (await api.get("/api/v1/search", q=text, **more))["results"]:
        found.setdefault(item["kind"], []).append(item["title"])
    return found


async def test_what_begins_so_is_found_by_kind_and_capped(full: Api) -> None:
    found = await kinds(full, "CONT")
    assert found["device"] == [f"CONT-{place}" for place in range(5)]
    assert found["collection"] == ["Contractors"]
    assert found["gateway"] == ["cmg.contoso.com"]
    assert found["app"] == ["Contoso client"]
    assert len((await kinds(full, "cont", limit=50))["device"]) == 8
    assert (await kinds(full, "conny"))["user"] == ["Conny <b>X</b>"]
    assert await kinds(full, "%") == {}
    assert await kinds(full, "*") == {}
    assert await kinds(full, "' OR 1=1 --") == {}


async def test_without_the_tenant_the_rest_is_found_and_the_lack_is_said(full: Api) -> None:
    full.cloud.tenant = ""
    answer = await full.get("/api/v1/search", q="cont")
    assert {item["kind"] for item in answer["results"]} == {"device", "collection", "gateway"}
    assert answer["missing"] == ["The tenant does not answer."]


@pytest.mark.parametrize("query", ["", "q=", "q=%20", "q=%00", "q=" + "x" * 300, "q=a&limit=0"])
async def test_a_search_for_nothing_is_refused(full: Api, query: str) -> None:
    assert (await full.refusal("GET", f"/api/v1/search?{query}"))[0] == 400


async def test_the_command_searches_too(full: Api, tmp_path: Path) -> None:
    async with site_api.commands(full, tmp_path) as commands:
        found = await commands.run("search", "Contr")
        assert [item["title"] for item in found["results"]] == ["Contractors"]
