"""Every route of the cloud services with what nobody should send: refused in words, never broken."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from site_world import NAME, Site, create, pfx, ready, until
from tandem.cli import context

NUL = "A\x00B"
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from([NUL, "%00", "' OR 1=1 --", "x" * 3000, "../..", NAME, "a.b.c", "e30.e30."])
    | st.binary(max_size=60).map(lambda data: b64encode(data).decode()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=4,
)
_FIELDS = (
    *("service_name", "organization", "organizational_unit", "locality", "state", "country"),
    *("data", "password", "access_token", "name", "description", "app_id_uri", "home_page"),
    *(
        "reply_url",
        "secret_years",
        "tenant_sign_in",
        "client_id",
        "tenant_id",
        "secret",
        "secret_expires_at",
    ),
    *("enabled", "region", "resource_group", "instances", "check_revocation", "alerts", "gateway"),
    *("allow_gateway_traffic", "connection_point", "connections", "traffic", "role", "upn"),
)
_USUAL: dict[str, Any] = {
    **dict.fromkeys(_FIELDS, "x"),
    "service_name": NAME,
    "data": b64encode(b"PNG").decode(),
    "access_token": "e30.eyJ0aWQiOiJ0MSIsIndpZHMiOltdfQ.x",
    "country": "US",
    "secret_years": 1,
    "secret_expires_at": "2099-01-01T00:00:00Z",
    "instances": 1,
    "enabled": True,
    "check_revocation": True,
    "allow_gateway_traffic": True,
    "alerts": {},
    "connections": [],
    "traffic": [],
}


class Web:
    def __init__(self, site: Site) -> None:
        token = context.load_session("site").token
        self.site = site
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(site.app),
            base_url=site.url,
            headers={"Authorization": f"Bearer {token}"},
        )

    def routes(self) -> Iterator[tuple[str, str]]:
        for route in self.site.app.routes:
            if route.path == "/" or route.path.startswith("/console"):
                continue  # Pages answer in pages.
            if isinstance(route, Route) and not route.path.endswith(("/sign-in", "/sign-out")):
                for method in sorted((route.methods or set()) - {"HEAD"}):
                    yield method, route.path

    async def ask(self, method: str, path: str, **options: Any) -> None:
        answer = await self.client.request(method, path, **options)
        # 503 is a word, too: here the tenant is away.
        assert answer.status_code < 500 or answer.status_code == 503, (
            method,
            path,
            options,
            answer.text,
        )
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert error["message"]
            assert error["code"] != "internal"
            assert not any(word in answer.text for word in ("Traceback", "psycopg", "Error("))


def filled(path: str, value: str) -> str:
    while "{" in path:
        before, _, rest = path.partition("{")
        name, _, after = rest.partition("}")
        path = before + ("7" if name.endswith(":int") else value) + after
    return path


@pytest.fixture
async def web(site: Site) -> AsyncIterator[Web]:
    """With an Azure service and a request that waits, so that routes get beyond "not found"."""
    await site.run("azure-service", "create", "x")
    await site.run("certificate", "request", NAME, "-o", site.folder / "r.csr")
    made = Web(site)
    yield made
    await made.client.aclose()


@pytest.mark.parametrize("value", ["%00", "-", "%F0%9F%98%80", NAME])
async def test_paths(web: Web, value: str) -> None:
    for method, path in web.routes():
        if "{" in path:
            await web.ask(method, filled(path, value), json={})


@pytest.mark.parametrize("body", [b"", b"null", b"\xff\xfe", b"[" * 5000])
async def test_bodies_that_are_no_objects(web: Web, body: bytes) -> None:
    for method, path in web.routes():
        if method in ("POST", "PUT", "PATCH"):
            await web.ask(method, filled(path, "x"), content=body)


@pytest.mark.parametrize("value", [NUL, "x" * 100_000, 2**70])
async def test_one_field_that_cannot_be(web: Web, value: Any) -> None:
    changes = [("POST", path) for method, path in web.routes() if method == "POST"]
    for number, field in enumerate(_FIELDS):
        # Each field meets every third route, and each route a third of the fields.
        for method, path in changes[number % 3 :: 3]:
            where = path.replace("{kind}", "server")
            await web.ask(method, filled(where, "x"), json={**_USUAL, field: value})


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=6))
async def test_anything_in_the_fields(web: Web, body: dict[str, Any]) -> None:
    content = msgspec.json.encode({**_USUAL, **body})
    for method, path in web.routes():
        if method in ("POST", "PUT", "PATCH"):
            where = path.replace("{kind}", "client")
            await web.ask(method, filled(where, "x"), content=content)


async def test_files_cut_off_anywhere(web: Web) -> None:
    whole = pfx(NAME)
    for length in range(0, len(whole), 211):
        file = {"data": b64encode(whole[:length]).decode(), "password": "x"}
        for path in ("certificates/import", "certificates/import-pfx", "trust/roots", "trust/crls"):
            await web.ask("POST", f"/api/v1/{path}", json=file)


async def test_two_who_create_the_same_gateway_get_one(site: Site) -> None:
    made = await asyncio.gather(*(create(site) for _ in range(3)), return_exceptions=True)
    refused = [item for item in made if isinstance(item, Exception)]
    assert {getattr(item, "code", repr(item)) for item in refused} == {"gateway.exists"}
    assert len(refused) == 2
    assert len((await until(site, ready))["nodes"]) == 1
