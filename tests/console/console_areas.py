"""A site with its admin API and its console, and a Graph that a test writes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from lxml import html

import site_api
from site_world import free_ports
from tandem import console, pki
from tandem.console.language import Language
from tandem.console.site_pages import SitePages
from tandem.infra import http
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox

ELSEWHERE = console.Elsewhere("Tenant", "https://tenant.test", ())


def text(element: html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


def token(page: html.HtmlElement) -> str:
    return str(page.xpath("//input[@name='form_token']/@value")[0])


@dataclass
class Browser:
    """A signed-in administrator's browser, on one replica."""

    web: httpx.AsyncClient

    async def page(self, path: str, **headers: str) -> html.HtmlElement:
        answer = await self.web.get(path, headers=headers)
        assert answer.status_code == 200, (answer.status_code, answer.text[:2000])
        return html.fromstring(answer.content)

    async def said(self, path: str, **headers: str) -> str:
        return text(await self.page(path, **headers))

    async def post(self, path: str, fields: dict[str, Any], *, on: str) -> httpx.Response:
        """A form of the page `on`, sent with its token."""
        form = token(await self.page(on))
        return await self.web.post(path, data={"form_token": form, **fields})

    async def sign_in(self, user: str = "siteadmin", password: str = site_api.PASSWORD) -> None:
        page = html.fromstring((await self.web.get("/console/sign-in")).content)
        fields = {"form_token": token(page), "user": user, "password": password, "return_to": ""}
        assert (await self.web.post("/console/sign-in", data=fields)).status_code == 303


def replica(
    db: Database,
    api: site_api.Api,
    elsewhere: bool = True,
    languages: Callable[[str], Language] = Language,
) -> Any:
    """The application of one replica: the API's own routes and the console's."""

    async def token_itself(session: console.Session) -> str:
        return session.token

    async def there() -> console.Elsewhere | None:
        return ELSEWHERE if elsewhere else None

    def now() -> Any:
        return api.clock[0]

    behind = console.Backend(
        console.Transport("https://site"),
        token_itself,
        console.Drafts(db, SecretBox(b"k" * 32), now),
    )
    pages = SitePages(db, now=now, settings=site_api.CHEAP)
    app = http.application(
        [
            *site_api.api_routes(db, api.cloud, now, api.folder),
            *console.site_routes(
                pages, now=now, backend=behind, elsewhere=there, languages=languages
            ),
        ],
        role="site",
    )
    behind.transport.app = app
    return app


@asynccontextmanager
async def browser(app: Any) -> AsyncIterator[Browser]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as web:
        yield Browser(web)


@asynccontextmanager
async def over_tls(app: Any, folder: Path) -> AsyncIterator[str]:
    """The address at which a real browser finds an application."""
    now = datetime.now(UTC)
    root = pki.new_root(pki.name("Test root"), now=now, days=2)
    key = pki.generate_key("p256")
    leaf = root.issue(
        key.public_key(),
        pki.name("localhost"),
        dns=["localhost"],
        usages=["server"],
        now=now,
        days=1,
    )
    certificate, private = folder / "tls.pem", folder / "tls.key"
    certificate.write_bytes(pki.pem(leaf, root.certificate))
    private.write_bytes(pki.key_pem(key))
    port, stop = free_ports(), asyncio.Event()
    listener = http.Listener(app, "127.0.0.1", port, http.TLS(certificate, private))
    serving = asyncio.create_task(http.serve([listener], stop, drain_seconds=1))
    try:
        yield f"https://localhost:{port}"
    finally:
        stop.set()
        await serving
