"""Batches, and how much one caller may ask."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from graph_caller import Graph
from tandem.infra.database import Database
from tandem.tenant import graph
from tenant_world import CHEAP, World, make_world

FEW = graph.GraphSettings(app_requests_per_second=1, burst_seconds=3)


@pytest.fixture
async def narrow(tenant_db: Database) -> AsyncIterator[World]:
    made = await make_world(
        tenant_db,
        lambda here: graph.routes(
            here.database, here.tokens, here.now, graph.directory_parts(CHEAP), FEW
        ),
    )
    yield made
    await made.client.aclose()


async def test_who_asks_too_often_is_told_when_to_come_back(narrow: World) -> None:
    caller = Graph(narrow, await narrow.bearer())
    for _ in range(3):
        await caller.get("me")
    refused = await caller.raw("GET", "me")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "TooManyRequests"
    assert refused.headers["retry-after"] == "1"
    narrow.wait(seconds=int(refused.headers["retry-after"]))
    await caller.get("me")
    narrow.wait(seconds=60)
    items = [{"id": n, "method": "GET", "url": "me"} for n in range(5)]
    responses = await batch(caller, items)
    assert [item["status"] for item in responses] == [200, 200, 429, 429, 429]
    assert responses[-1]["headers"]["Retry-After"].isdigit()


async def batch(caller: Graph, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answer = await caller.post("$batch", {"requests": items}, status=200)
    return list(answer["responses"])


async def test_requests_of_a_batch_wait_for_those_they_depend_on(admin: Graph) -> None:
    items: list[dict[str, Any]] = [
        {"id": "last", "method": "GET", "url": "me", "dependsOn": ["no", "yes"]},
        {"id": "yes", "method": "GET", "url": "me?$select=id", "dependsOn": ["first"]},
        {"id": "no", "method": "GET", "url": "users/nobody"},
        {"id": "first", "method": "GET", "url": "/me", "depends_on": "whatever"},
    ]
    responses = await batch(admin, items)
    status = {item["id"]: item["status"] for item in responses}
    assert status == {"first": 200, "yes": 200, "no": 404, "last": 424}
    order = [item["id"] for item in responses]
    assert order.index("first") < order.index("yes")
    assert all(isinstance(item["headers"]["Content-Type"], str) for item in responses)


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"id": 1, "method": "GET", "url": "me"}, {"id": "1", "method": "GET", "url": "me"}],
        [{"id": "1", "method": "GET", "url": "me", "dependsOn": ["1"]}],
        [{"id": "1", "method": "GET", "url": "me", "dependsOn": ["2"]}],
        [{"id": str(n), "method": "GET", "url": "me"} for n in range(21)],
        [{"id": "1", "method": "GET"}],
    ],
)
async def test_batches_that_make_no_sense_are_refused(
    admin: Graph, items: list[dict[str, Any]]
) -> None:
    await admin.post("$batch", {"requests": items}, status=400)


async def test_a_batch_without_a_good_token_is_refused_as_a_whole(world: World) -> None:
    items = {"requests": [{"id": "1", "method": "GET", "url": "me"}]}
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        answer = await world.client.post("/v1.0/$batch", json=items, headers=headers)
        assert answer.status_code == 401


async def test_odd_requests_of_a_batch_fail_alone(admin: Graph) -> None:
    items: list[dict[str, Any]] = [
        {"id": "1", "method": "GET", "url": "https://graph.microsoft.com/beta/me?$select=id"},
        {"id": "2", "method": "POST", "url": "/$batch", "body": {"requests": []}},
        {"id": "3", "method": "PATCH", "url": "/me", "body": "text"},
        {"id": "4", "method": "GET", "url": "users?$filter=displayName eq 'Größe & co'"},
        {"id": "5", "method": "NONSENSE", "url": "me"},
        {"id": "6", "method": "GET", "url": "http://[x/v1.0/nonsense"},
        {"id": "7", "method": "GET", "url": "users?$filter=startswith(displayName,'A')&$top=1"},
    ]
    status = {item["id"]: item["status"] for item in await batch(admin, items)}
    assert status == {"1": 200, "2": 400, "3": 400, "4": 400, "5": 405, "6": 400, "7": 200}


async def test_long_addresses_and_bodies_are_refused(admin: Graph) -> None:
    await admin.get(f"users?$filter=displayName eq '{'x' * 17_000}'", status=400)
    await admin.post("users", {"displayName": "x" * 5_000_000}, status=413)
