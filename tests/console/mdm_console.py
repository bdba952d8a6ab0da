"""The tenant's console over a real tenant with its MDM service, and a browser that is signed in."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from lxml import html
from starlette.routing import BaseRoute, Route

from mdm_world import Mdm, mdm_service
from tandem import console
from tandem.console import tenant_pages
from tandem.infra import http
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox
from tenant_world import ADMIN, BASE, PASSWORD

BOX = SecretBox(b"c" * 32)


class Browser:
    """Reads pages by their visible text, and sends their forms."""

    def __init__(self, client: httpx.AsyncClient, routes: Sequence[BaseRoute] = ()) -> None:
        self.client = client
        self.routes = [one for one in routes if isinstance(one, Route) and one.path[1:]]
        self._token = ""

    async def get(self, path: str, status: int = 200, **headers: str) -> html.HtmlElement:
        answer = await self.client.get(path, headers=headers)
        assert answer.status_code == status, (
            f"{path}: {answer.status_code} {text(html.fromstring(answer.content))[-400:]}"
        )
        return html.fromstring(answer.content)

    async def text(self, path: str, status: int = 200, **headers: str) -> str:
        return text(await self.get(path, status, **headers))

    async def token(self) -> str:
        """The same for every form of a session."""
        if self._token:
            return self._token
        page = await self.get("/console/apps")
        self._token = str(page.xpath("//input[@name='form_token']/@value")[0])
        return self._token

    async def post(
        self, path: str, values: dict[str, Any] | None = None, **more: Any
    ) -> httpx.Response:
        data = {"form_token": await self.token(), **(values or {})}
        return await self.client.post(path, data=data, **more)

    async def goes(self, path: str, values: dict[str, Any] | None = None, **more: Any) -> str:
        """Where a form leads to: it was accepted."""
        answer = await self.post(path, values, **more)
        assert answer.status_code == 303, text(html.fromstring(answer.content))
        return str(answer.headers["location"])

    async def begin(self, wizard: str) -> str:
        """The address of a new draft, without its step."""
        answer = await self.client.get(f"/console/wizards/{wizard}")
        if answer.status_code == 200:
            answer = await self.post(f"/console/wizards/{wizard}")
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"]).rpartition("/")[0]


def text(page: html.HtmlElement) -> str:
    return " ".join(page.text_content().split())


def main_text(page: html.HtmlElement) -> str:
    return text(page.xpath("//main")[0])


@asynccontextmanager
async def served(mdm: Mdm, upn: str = ADMIN) -> AsyncIterator[Browser]:
    """The console of this tenant, as one of its people sees it."""
    database: Database = mdm.database
    async with database.transaction() as tx:
        client_id = await tenant_pages.establish(tx, BASE, mdm.world.at)
    inside = httpx.AsyncClient(transport=httpx.ASGITransport(mdm.world.app))
    reads = tenant_pages.TenantPages(
        database,
        mdm.world.tokens,
        BOX,
        inside,
        client_id=client_id,
        public_url=BASE,
        now=mdm.world.now,
    )
    behind = console.Backend(
        console.Transport(BASE), reads.bearer, console.Drafts(database, BOX, mdm.world.now)
    )
    behind.transport.app = mdm.world.app
    routes = console.tenant_routes(reads, now=mdm.world.now, backend=behind)
    app = http.application(routes, role="tenant")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        begun = await client.get("/console/sign-in/begin?return_to=/console/apps")
        mdm.world.client.cookies.clear()
        page = await mdm.world.client.get(begun.headers["location"])
        page = await mdm.world.submit(page, login=upn, passwd=PASSWORD)
        assert page.status_code == 302, page.text
        done = await client.get(page.headers["location"])
        assert done.status_code == 303, done.text
        yield Browser(client, routes)
    await inside.aclose()


@asynccontextmanager
async def world(database: Database, folder: Path) -> AsyncIterator[tuple[Mdm, Browser]]:
    async with mdm_service(database, folder) as mdm, served(mdm) as browser:
        yield mdm, browser
