"""What every list of our own APIs is asked with, and the version that a change must be of."""

from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tandem.infra import http


async def listed(request: Request) -> Response:
    return http.reply(http.listing(request, ("name", "id"), limit=50, most=200))


async def change(request: Request) -> Response:
    version = http.version_of({"name": "Pilot"})
    http.check_version(request, version)
    return http.reply({}, headers={"ETag": version})


@pytest.fixture
async def web() -> Any:
    routes = [Route("/list", listed), Route("/thing", change, methods=["PATCH"])]
    transport = httpx.ASGITransport(http.application(routes, role="test"))
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as client:
        yield client


async def test_a_list_is_asked_for_in_parts(web: httpx.AsyncClient) -> None:
    plain = (await web.get("/list")).json()
    assert plain == {"search": "", "order": ["name", False], "limit": 50, "offset": 0}
    asked = (await web.get("/list?search=%20lab%20&sort=-id&limit=7&offset=14")).json()
    assert asked == {"search": "lab", "order": ["id", True], "limit": 7, "offset": 14}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("sort=password", "sort"),
        ("sort=name;drop", "sort"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("offset=1e3", "offset"),
        ("offset=٣", "offset"),
        ("offset=99999999999", "offset"),
        ("search=" + "x" * 257, "search"),
        ("search=a%00b", "search"),
    ],
)
async def test_a_list_that_cannot_be_is_refused_by_its_field(
    web: httpx.AsyncClient, query: str, field: str
) -> None:
    answer = await web.get(f"/list?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field


async def test_a_change_of_another_version_is_refused(web: httpx.AsyncClient) -> None:
    version = (await web.patch("/thing")).headers["etag"]
    for right in (version, "*", f'"other", {version}'):
        assert (await web.patch("/thing", headers={"If-Match": right})).status_code == 200
    answer = await web.patch("/thing", headers={"If-Match": '"other"'})
    assert answer.status_code == 412
    error = answer.json()["error"]
    assert error["code"] == "request.changed"
    assert error["cure"]
