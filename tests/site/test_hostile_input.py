"""Every route of the site's admin API with what nobody should send: refused in words, never broken."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from site_api import Api, add_device

NUL = "A\x00B"
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from([NUL, "%00", "' OR 1=1 --", "\ud7ff", "x" * 3000, "../..", "SMS00001"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
_FIELDS = (
    *("name", "role", "password", "upn", "tenant_id", "limiting", "query", "comment", "devices"),
    *("rule", "setting", "value", "collection", "workload", "position", "automatic_enrollment"),
    *("access_token", "enable_user_policy", "policy_polling_minutes"),
)


def routes(api: Api) -> Iterator[tuple[str, str]]:
    for route in api.app.routes:
        if isinstance(route, Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, route.path


def filled(path: str, value: str) -> str:
    while "{" in path:
        before, _, rest = path.partition("{")
        name, _, after = rest.partition("}")
        path = before + ("7" if name.endswith(":int") else value) + after
    return path


async def ask(api: Api, method: str, path: str, **options: Any) -> None:
    answer = await api.web.request(method, path, **options)
    assert answer.status_code < 500, (method, path, options, answer.text)
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error["message"]
        assert "Traceback" not in answer.text
        assert "psycopg" not in answer.text


@pytest.mark.parametrize("value", ["%00", "x", "1", "%F0%9F%98%80", "GUID:%00", "9" * 40, "a%2Fb"])
async def test_paths(api: Api, value: str) -> None:
    for method, path in routes(api):
        if "{" in path:
            await ask(api, method, filled(path, value), json={})


async def test_options(api: Api) -> None:
    for method, path in routes(api):
        if method == "GET":
            for value in ("%00", "-1", "x", "9" * 40):
                address = filled(path, "SMS_R_System")
                await ask(api, method, f"{address}?offset={value}&limit={value}&target={value}")
                await ask(api, method, f"{address}?$top={value}&$skip={value}")
                await ask(api, method, f"{address}?$filter=Name eq '{value}'&$orderby={value}")


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 5000])
async def test_bodies_that_are_no_objects(api: Api, body: bytes) -> None:
    for method, path in routes(api):
        if method in ("POST", "PUT", "PATCH"):
            await ask(api, method, filled(path, "SMS00001"), content=body)


async def test_a_nul_in_every_field(api: Api) -> None:
    """PostgreSQL's text cannot hold one."""
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001")
    usual = dict.fromkeys(_FIELDS, "SMS00001") | {"devices": ["LAB-001"], "password": "x" * 20}
    for field in _FIELDS:
        for method, path in routes(api):
            if method in ("POST", "PUT", "PATCH"):
                value = [NUL] if field == "devices" else NUL
                await ask(api, method, filled(path, "SMS00001"), json={**usual, field: value})


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=6))
async def test_anything_in_the_fields(api: Api, body: dict[str, Any]) -> None:
    content = msgspec.json.encode(body)
    for method, path in routes(api):
        if method in ("POST", "PUT", "PATCH") and "sign" not in path:
            await ask(api, method, filled(path, "SMS00001"), content=content)
