"""The tenant's console over its real Graph and sign-in, as a browser of one person sees it."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from lxml import html

from tandem import console
from tandem.console import tenant_pages
from tandem.console.language import Language
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox
from tandem.tenant import directory, graph
from tenant_world import ADMIN, BASE, CHEAP, PASSWORD, World, make_world

BOX = SecretBox(bytes(32))


class _Inside:
    """The HTTP client with which the console reaches its own tenant; it holds no cookies."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def post(self, url: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._world.app)
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.post(url, **options)


@asynccontextmanager
async def tenant_console(
    database: Database, languages: Callable[[str], Language] = Language, **parts: Any
) -> AsyncIterator[World]:
    made: dict[str, Any] = {}

    def routes(here: World) -> list[Any]:
        reads = tenant_pages.TenantPages(
            here.database,
            here.tokens,
            BOX,
            _Inside(here),  # type: ignore[arg-type]
            client_id="",
            public_url=BASE,
            now=here.now,
        )
        behind = console.Backend(
            console.Transport(BASE), reads.bearer, console.Drafts(here.database, BOX, here.now)
        )
        made.update(reads=reads, behind=behind)
        return [
            *graph.routes(
                here.database, here.tokens, here.now, parts=graph.directory_parts(CHEAP, **parts)
            ),
            *console.tenant_routes(reads, now=here.now, backend=behind, languages=languages),
        ]

    world = await make_world(database, routes)
    made["behind"].transport.app = world.app
    async with database.transaction() as tx:
        made["reads"]._client_id = await tenant_pages.establish(tx, BASE, world.at)
    yield world
    await world.client.aclose()


class Browser:
    """One person at the console: pages by their address, forms by their fields."""

    def __init__(self, world: World, language: str = "en") -> None:
        self.world = world
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(world.app, raise_app_exceptions=True),
            base_url=BASE,
            headers={"Accept-Language": language},
        )

    async def sign_in(self, upn: str = ADMIN) -> "Browser":
        begun = await self.client.get("/console/sign-in/begin?return_to=/console/users")
        page = await self.client.get(begun.headers["location"])
        if page.status_code == 200:
            action, fields = _form(page.text)
            fields |= {"login": upn, "passwd": PASSWORD}
            page = await self.client.post(action, data=fields)
        done = await self.client.get(page.headers["location"])
        assert done.status_code == 303, done.text
        return self

    async def open(self, path: str, status: int = 200) -> str:
        """The text of a page."""
        answer = await self.client.get(path)
        assert answer.status_code == status, (path, answer.status_code, text_of(answer.text))
        self.html = html.fromstring(answer.content)
        return text_of(answer.text)

    async def send(self, path: str, fields: dict[str, Any] | None = None, **options: Any) -> Any:
        """A form of the page that was opened last, sent to this address."""
        token = self.html.xpath("//input[@name='form_token']/@value")[0]
        versions = self.html.xpath("//input[@name='version']/@value")
        data = {"form_token": token, **(fields or {})}
        if versions:
            data.setdefault("version", versions[0])
        answer = await self.client.post(path, data=data, **options)
        if answer.status_code != 303:
            self.html = html.fromstring(answer.content)
        return answer

    async def follow(self, path: str, fields: dict[str, Any] | None = None) -> str:
        """Send a form that is accepted; the text of the page that follows."""
        answer = await self.send(path, fields)
        assert answer.status_code == 303, (answer.status_code, text_of(answer.text))
        return await self.open(answer.headers["location"])


def text_of(content: str) -> str:
    page = html.fromstring(content)
    main = page.xpath("//main")
    return " ".join(" ".join((main[0] if main else page).itertext()).split())


def _form(content: str) -> tuple[str, dict[str, str]]:
    form = html.fromstring(content).forms[0]
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', content)
    return str(form.action), dict(hidden)


async def administrator(world: World, name: str, *roles: str) -> Browser:
    """A signed-in person who holds these roles."""
    made = await world.user(name)
    async with world.database.transaction() as tx:
        for role in roles:
            await directory.grant_role(tx, role, made.id)
    return await Browser(world).sign_in(made.user_principal_name)
