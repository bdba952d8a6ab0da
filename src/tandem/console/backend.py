"""What a page acts through: the role's own API, in process, with the rights of who is signed in.

So there is one place for each rule, permission, audit entry and ETag, and the console can do
nothing that a script cannot.
"""

from collections.abc import AsyncIterable, Mapping
from functools import cache
from typing import Any

import httpx
import msgspec
import structlog

from tandem.infra.errors import AppError, Kind

_KINDS = {
    400: Kind.INVALID,
    401: Kind.UNAUTHENTICATED,
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    405: Kind.NOT_FOUND,
    409: Kind.CONFLICT,
    410: Kind.GONE,
    412: Kind.CONFLICT,
    413: Kind.TOO_LARGE,
    422: Kind.INVALID,
    429: Kind.RATE_LIMITED,
    501: Kind.UNSUPPORTED,
    503: Kind.UNAVAILABLE,
}
CHANGED = "console.changed"


class Refused(AppError):
    """What the API refused, in its own words. `details["field"]` names the field, where it says."""

    @property
    def changed(self) -> bool:
        """Somebody else changed the thing in the meantime (its ETag is another one)."""
        return self.code == CHANGED


class Answer(msgspec.Struct, frozen=True):
    status: int
    etag: str
    content: bytes
    media_type: str = ""

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.content) if self.content else None


class Transport:
    """The ASGI application of a role. It is set when that is made: the console is a part of it."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.app: Any = None

    def client(self) -> httpx.AsyncClient:
        # A bug inside is answered as 500 there and logged; it must not look like one of the page's.
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        # In process nothing has to be waited for that the API does not bound itself.
        return httpx.AsyncClient(transport=transport, base_url=self.base_url, timeout=600)


class Api:
    """Calls with one person's token. Each raises an AppError in the API's own words."""

    def __init__(self, transport: Transport, token: str) -> None:
        self._transport = transport
        self._token = token

    async def get(self, path: str, **query: Any) -> Any:
        return (await self.ask("GET", path, query=query)).json

    async def post(self, path: str, value: Any = None, *, version: str = "") -> Any:
        return (await self.ask("POST", path, value, version=version)).json

    async def put(self, path: str, value: Any = None, *, version: str = "") -> Any:
        return (await self.ask("PUT", path, value, version=version)).json

    async def patch(self, path: str, value: Any = None, *, version: str = "") -> Any:
        return (await self.ask("PATCH", path, value, version=version)).json

    async def delete(self, path: str, *, version: str = "") -> Any:
        return (await self.ask("DELETE", path, version=version)).json

    async def ask(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        version: str = "",
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
    ) -> Answer:
        """`query` leaves out what is None or empty; `version` is the ETag that must still hold."""
        sent = {"Authorization": f"Bearer {self._token}", **(headers or {})}
        if version:
            sent["If-Match"] = version
        correlation = structlog.contextvars.get_contextvars().get("correlation", "")
        if correlation:
            sent["X-Correlation-Id"] = str(correlation)
        if value is not None:
            content = msgspec.json.encode(value)
            sent.setdefault("Content-Type", "application/json")
        wanted = {k: str(v) for k, v in (query or {}).items() if v is not None and v != ""}
        async with self._transport.client() as client:
            got = await client.request(
                method, path, params=wanted or None, headers=sent, content=content
            )
        if got.status_code >= 400:
            raise refusal(got.status_code, got.content)
        return Answer(
            got.status_code,
            got.headers.get("etag", ""),
            got.content,
            got.headers.get("content-type", ""),
        )


def refusal(status: int, content: bytes) -> Refused:
    """The API's error document, of our own shape or of Graph's, as an error."""
    try:
        error = msgspec.json.decode(content)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        error, code, message = {}, f"http.{status}", f"The server answered {status}."
    inner = error.get("innerError")
    if isinstance(inner, dict) and "said" in inner:
        # Graph's own document: its code is one of few, ours says what it is.
        code, message = str(inner.get("code") or code), str(inner["said"])
        error["cure"] = inner.get("cure")
    details = _details(error.get("details"))
    if "field" not in details and isinstance(error.get("target"), str):
        details = {**details, "field": error["target"]}
    if status == 412:
        code = CHANGED
    kind = _KINDS.get(status, Kind.UNAVAILABLE)
    cure = str(error.get("cure") or "")
    return _type(kind, code)(message, cure=cure, **{str(k): v for k, v in details.items()})


def _details(given: Any) -> dict[str, Any]:
    """Of our own document a table; of Graph's a list, whose first target is the field."""
    if isinstance(given, list):
        targets = [item.get("target") for item in given if isinstance(item, dict)]
        return {"field": targets[0]} if targets and targets[0] else {}
    return given if isinstance(given, dict) else {}


@cache
def _type(kind: Kind, code: str) -> type[Refused]:
    return type("Refused", (Refused,), {"kind": kind, "code": code})
