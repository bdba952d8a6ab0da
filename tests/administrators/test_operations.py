"""Every operation of the admin API, asked by every role: the matrix comes from the router."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import site_api
from site_api import PASSWORD, Api
from tandem.infra import http
from tandem.roles import site
from tandem.site import (
    administrators,
    cloud_services,
    content,
    discovery,
    guide,
    health,
    properties,
)
from tandem.site.administrators import PERMISSIONS, Role

ROLES = {
    "full": Role.FULL_ADMINISTRATOR,
    "build": Role.INFRASTRUCTURE_ADMINISTRATOR,
    "operate": Role.OPERATIONS_ADMINISTRATOR,
    "read": Role.READ_ONLY_ANALYST,
}


@asynccontextmanager
async def person(api: Api, name: str, role: str, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A signed-in administrator beside the one of `api`."""
    wanted = {"name": name, "role": role, "password": PASSWORD, **limits}
    answer = await api.web.post("/api/v1/administrators", json=wanted)
    assert answer.status_code == 201, answer.text
    transport = httpx.ASGITransport(app=api.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as web:
        given = {"name": name, "password": PASSWORD}
        token = (await web.post("/api/v1/sign-in", json=given)).json()["token"]
        web.headers["Authorization"] = f"Bearer {token}"
        yield web


def path_of(operation: str) -> tuple[str, str]:
    method, _, path = operation.partition(" ")
    return method, re.sub(r"\{[^}]*\}", "1", path)


def gates(api: Api) -> httpx.AsyncClient:
    """The operations of the router with nothing behind the gate: 204 is what the gate lets in."""
    gate = administrators.Gate(api.db, lambda: api.clock[0], site_api.CHEAP)

    async def let_in(request: Request) -> Response:
        await gate(request)
        return Response(status_code=204)

    routes = [
        Route(one.path, let_in, methods=list(one.methods or ()))
        for one in api.app.routes
        if isinstance(one, Route) and one.path.startswith("/api/v1/")
    ]
    app = http.application(routes, role="site")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="https://site.test")


@pytest.fixture
async def whole(api: Api) -> Api:
    """The admin API with the routes of every module. No request gets past the gate in these tests,
    so the cloud behind some of them is nobody."""
    gate = administrators.Gate(api.db, lambda: api.clock[0], site_api.CHEAP)
    nobody = MagicMock()
    api.app.router.routes += [
        *properties.routes(api.db, gate),
        *content.routes(api.db, gate, nobody),
        *discovery.routes(api.db, nobody, gate),
        *cloud_services.routes(nobody, gate),
        *guide.routes(api.db, nobody, gate, lambda: api.clock[0]),
        *health.routes(nobody, gate),
    ]
    return api


def operations(api: Api) -> list[str]:
    found = set(administrators.operations(api.app.routes))
    assert set(PERMISSIONS) <= found, "lines without a route"
    return sorted(one for one in found if one in PERMISSIONS and "/me/password" not in one)


async def test_every_operation_says_who_may_call_it_and_none_else_does(whole: Api) -> None:
    assert administrators.undeclared(whole.app.routes) == []
    assert len(operations(whole)) > 140


def test_every_module_with_routes_is_in_the_matrix() -> None:
    """The role serves what is listed in `whole`: a new module of routes has to be added there."""
    here = Path(__file__).read_text() + Path(site_api.__file__).read_text()
    served = re.findall(r"\*(\w+)\.(?:admin_|identity_)?routes\(", Path(site.__file__).read_text())
    missing = {name for name in served if f"*{name}." not in here}
    assert len(served) >= 16
    assert missing == set()


async def test_a_route_without_a_line_starts_no_role_and_is_for_full_over_all(api: Api) -> None:
    gate = administrators.Gate(api.db, lambda: api.clock[0], site_api.CHEAP)

    async def new(request: Any) -> Any:
        await gate(request)
        raise AssertionError("behind the gate")

    route = Route("/api/v1/brand-new", new, methods=["GET"])
    with pytest.raises(Exception, match="GET /api/v1/brand-new"):
        administrators.check_declared([route])
    api.app.router.routes.append(route)
    async with person(api, "Ola", "operations-administrator") as web:
        assert (await web.get("/api/v1/brand-new")).status_code == 403


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_may_what_its_permissions_say(whole: Api, role: str) -> None:
    """Over all, and with a scope and a collection: the answer is the table's, and the same that
    the API says of what this administrator may do."""
    api = whole
    await api.web.post("/api/v1/scopes", json={"name": "Paris"})
    made = await api.web.post("/api/v1/collections", json={"name": "Paris"})
    name = ROLES[role].value
    limits = {"scopes": ["Paris"], "collections": [made.json()["id"]]}
    for who, given in (("Wide", {}), ("Narrow", limits)):
        async with person(api, who, name, **given) as web, gates(api) as gate:
            gate.headers["Authorization"] = web.headers["Authorization"]
            mine = (await web.get("/api/v1/me/permissions")).json()["operations"]
            for item in mine:
                method, path = path_of(item["operation"])
                answer = await gate.request(method, path, json={})
                codes = {204, 404} if item["allowed"] else {403}
                assert answer.status_code in codes, f"{item['operation']} by {who} {role}"
            allowed = {item["operation"] for item in mine if item["allowed"]}
            assert {item["operation"] for item in mine} == set(PERMISSIONS)
            assert allowed == {
                operation
                for operation, needed in PERMISSIONS.items()
                if (
                    ROLES["full"] is ROLES[role] or set(needed.roles) & {ROLES[role], ROLES["read"]}
                )
                and (who == "Wide" or needed.reach.value != "all")
            }


async def test_what_the_gate_refuses_the_operation_itself_refuses(api: Api) -> None:
    """By the real handlers: an analyst who changes things, and a limited one who asks for all."""
    await api.web.post("/api/v1/scopes", json={"name": "Paris"})
    async with person(api, "Ann", "read-only-analyst", scopes=["Paris"]) as web:
        for operation in administrators.operations(api.app.routes):
            if operation not in PERMISSIONS:
                continue
            needed = PERMISSIONS[operation]
            if Role.READ_ONLY_ANALYST in needed.roles and needed.reach.value != "all":
                continue
            method, path = path_of(operation)
            answer = await web.request(method, path, json={})
            code = answer.json()["error"]["code"]
            assert (answer.status_code, code) == (403, "site.not-allowed"), operation


async def test_nobody_calls_anything_without_a_session(whole: Api) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=whole.app), base_url="https://site.test"
    ) as web:
        for operation in operations(whole):
            method, path = path_of(operation)
            assert (await web.request(method, path, json={})).status_code == 401, operation


async def test_sliders_need_a_full_administrator_over_all_and_say_so(api: Api) -> None:
    await api.web.post("/api/v1/scopes", json={"name": "Paris"})
    moved = {"position": "mdm"}
    slider = "/api/v1/comanagement/workloads/client-apps"
    for role, limits in (
        ("operations-administrator", {}),
        ("infrastructure-administrator", {}),
        ("full-administrator", {"scopes": ["Paris"]}),
        ("full-administrator", {"collections": ["SMS00001"]}),
    ):
        name = " ".join([role, *limits])
        async with person(api, name, role, **limits) as web:
            for method, path in (
                ("PUT", slider),
                ("PUT", "/api/v1/comanagement"),
                ("POST", "/api/v1/comanagement/rollouts"),
                ("POST", "/api/v1/comanagement/rollouts/x/start"),
            ):
                answer = await web.request(method, path, json=moved)
                error = answer.json()["error"]
                assert (answer.status_code, error["code"]) == (403, "site.not-allowed")
                assert "Full Administrator over All" in error["message"], error
                assert "full administrator" in error["cure"]
