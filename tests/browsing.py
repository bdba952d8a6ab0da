"""A browser without scripts for the pages of a site: by visible text and by the names of fields."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from lxml import html

from tandem.console.kit import ROOT
from tandem.console.pages import SESSION_COOKIE


class Browser:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.answer: httpx.Response = httpx.Response(200)
        self.page: Any = None
        self.url = ""

    @property
    def text(self) -> str:
        return " ".join(self.page.text_content().split())

    @property
    def main(self) -> str:
        return " ".join(self.page.xpath("//main")[0].text_content().split())

    async def open(self, url: str) -> "Browser":
        return await self._take(await self.client.get(url))

    async def _take(self, answer: httpx.Response) -> "Browser":
        for _ in range(6):
            if not answer.has_redirect_location:
                break
            answer = await self.client.get(answer.headers["location"])
        self.answer, self.url = answer, str(answer.request.url.path)
        self.page = html.fromstring(answer.content) if answer.content else None
        return self

    def link(self, text: str) -> str:
        found = [a for a in self.page.xpath("//a[@href]") if text in " ".join(a.itertext())]
        assert found, f"no link {text!r} in {self.text}"
        return str(found[0].get("href"))

    async def follow(self, text: str) -> "Browser":
        return await self.open(self.link(text))

    def form(self, button: str) -> tuple[Any, Any]:
        """The form with a button of this text, and the button."""
        for form in self.page.xpath("//main//form"):
            for one in form.xpath(".//button"):
                if button in " ".join(one.text_content().split()):
                    return form, one
        raise AssertionError(f"no button {button!r} in {self.main}")

    async def press(
        self, button: str, files: dict[str, tuple[str, bytes]] | None = None, **values: Any
    ) -> "Browser":
        """Send the form with its fields as they are, some of them filled in; None unchecks."""
        form, pressed = self.form(button)
        sent: dict[str, Any] = {}
        for name, value in form.form_values():
            sent.setdefault(name, []).append(value)
        for name, value in values.items():
            assert form.xpath(f".//*[@name='{name}']"), f"no field {name} in {self.main}"
            sent[name] = value
        if pressed.get("name"):
            sent[pressed.get("name")] = pressed.get("value", "")
        sent = {name: value for name, value in sent.items() if value is not None}
        target = pressed.get("formaction") or form.get("action")
        return await self._take(await self.client.post(target, data=sent, files=files))

    def said(self, field: str) -> str:
        found = self.page.xpath(f"//*[@id='{field}-said']")
        return " ".join(found[0].text_content().split()) if found else ""

    @property
    def alert(self) -> str:
        return " ".join(
            " ".join(one.text_content().split())
            for one in self.page.xpath("//main//*[@role='alert']")
        )

    def facts(self) -> dict[str, str]:
        return {
            " ".join(one.xpath("./dt")[0].text_content().split()): " ".join(
                one.xpath("./dd")[0].text_content().split()
            )
            for one in self.page.xpath("//dl/div")
        }

    def value(self, field: str) -> str:
        return str(self.page.xpath(f"//*[@name='{field}']/@value")[0])


@asynccontextmanager
async def browsing(
    app: Any, user: str, password: str, language: str = "en"
) -> AsyncIterator[Browser]:
    """A browser that has signed in to the site's console."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as client:
        browser = Browser(client)
        client.cookies.set("tandem-language", language)
        await browser.open(f"{ROOT}/sign-in")
        form = browser.page.xpath("//form[.//input[@name='password']]")[0]
        fields = dict(form.form_values()) | {"user": user, "password": password}
        await browser._take(await client.post(form.get("action"), data=fields))
        # The page behind the sign-in is another module's; that there is a session is what counts.
        assert client.cookies.get(SESSION_COOKIE), browser.text
        yield browser
