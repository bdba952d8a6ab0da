"""The web proxy of a connection point, set at the site: by command, by API and in the console."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from browsing import Browser, browsing
from site_world import PASSWORD, Site, create, ready, until
from tandem.protocols import tunnel

SECRET = "Proxy-Secret-7"
PAGE = "/console/site-systems/CP01"


@pytest.fixture
async def point(site: Site) -> Site:
    await create(site)
    await until(site, ready)
    await site.run("connection-point", "add", "CP01")
    return site


@pytest.fixture
async def browser(point: Site) -> AsyncIterator[Browser]:
    async with browsing(point.app, "siteadmin", PASSWORD) as made:
        yield made


async def told(site: Site) -> tunnel.WebProxy | None:
    """What the connection point gets."""
    async with site.db.transaction() as tx:
        connections = site.cloud.connections
        found = await connections.connection_point(tx, "CP01")
        return (await connections.connector_configuration(tx, found)).web_proxy


async def stored(site: Site) -> dict[str, Any]:
    async with site.db.transaction() as tx:
        row = await (await tx.execute("SELECT * FROM cloud_connection_point")).fetchone()
    assert row is not None
    return row


async def test_a_proxy_is_set_and_its_password_is_told_to_the_connection_point_alone(
    point: Site,
) -> None:
    site = point
    assert await told(site) is None
    file = site.secret("proxy-password", SECRET)
    shown = await site.run(
        *("connection-point", "set", "CP01", "--web-proxy", "proxy.corp:8080"),
        *("--web-proxy-user", "cp", "--web-proxy-password-file", file),
    )
    assert (shown["web_proxy"], shown["web_proxy_user"]) == ("proxy.corp:8080", "cp")
    assert shown["web_proxy_password_kept"] is True
    assert await told(site) == tunnel.WebProxy("proxy.corp", 8080, "cp", SECRET)
    assert SECRET.encode() not in bytes((await stored(site))["sealed_web_proxy_password"])
    for words in (("list",), ("show", "CP01")):
        assert SECRET not in str(await site.run("connection-point", *words))
    async with site.db.transaction() as tx:
        audit = str(await (await tx.execute("SELECT * FROM audit_entry")).fetchall())
    assert "connection-point.set-web-proxy" in audit
    assert SECRET not in audit
    # What is not named stays.
    await site.run("connection-point", "set", "CP01", "--web-proxy", "proxy.corp:8080")
    assert await told(site) == tunnel.WebProxy("proxy.corp", 8080, "cp", SECRET)


async def test_a_password_does_not_go_to_another_address_or_account(point: Site) -> None:
    site = point
    file = site.secret("proxy-password", SECRET)
    everything = ("--web-proxy-user", "cp", "--web-proxy-password-file", file)
    for change in (("--web-proxy", "elsewhere.corp:8080"), ("--web-proxy-user", "other")):
        await site.run(
            "connection-point", "set", "CP01", "--web-proxy", "proxy.corp:8080", *everything
        )
        shown = await site.run("connection-point", "set", "CP01", *change)
        assert shown["web_proxy_password_kept"] is False
        proxy = await told(site)
        assert proxy is not None
        assert proxy.password == ""
    await site.run("connection-point", "set", "CP01", "--web-proxy", "[2001:db8::7]:3128")
    proxy = await told(site)
    assert proxy is not None
    assert (proxy.host, proxy.port) == ("2001:db8::7", 3128)
    await site.run("connection-point", "set", "CP01", "--web-proxy", "")
    assert await told(site) is None
    assert msgspec.to_builtins((await stored(site))["sealed_web_proxy_password"]) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--web-proxy", "http://proxy.corp:8080"), "host:port"),
        (("--web-proxy", "proxy.corp"), "host:port"),
        (("--web-proxy", "proxy.corp:0"), "host:port"),
        (("--web-proxy", "proxy.corp:8080", "--web-proxy-user", "a:b"), "no colon"),
        ((), "Nothing is to be changed"),
    ],
)
async def test_what_is_no_proxy_is_refused(point: Site, words: tuple[str, ...], said: str) -> None:
    refused = await point.refusal("connection-point", "set", "CP01", *words)
    assert said in refused.message
    assert refused.cure
    assert await told(point) is None


async def test_the_page_of_a_connection_point_sets_it(point: Site, browser: Browser) -> None:
    await browser.open(PAGE)
    await browser.press("Save the proxy", web_proxy="proxy.corp")
    assert "host:port" in browser.said("web_proxy")
    await browser.press(
        "Save the proxy",
        web_proxy="proxy.corp:8080",
        web_proxy_user="cp",
        web_proxy_password=SECRET,
    )
    assert "The web proxy of CP01 is saved." in browser.main
    assert "A password is kept for it." in browser.main
    assert SECRET not in browser.answer.text
    # An empty password keeps the one that is kept.
    await browser.press("Save the proxy", web_proxy="proxy.corp:8080", web_proxy_user="cp")
    assert await told(point) == tunnel.WebProxy("proxy.corp", 8080, "cp", SECRET)
    await browser.press("Save the proxy", web_proxy="", web_proxy_user="")
    assert await told(point) is None


async def test_the_page_speaks_french(point: Site) -> None:
    async with browsing(point.app, "siteadmin", PASSWORD, "fr") as french:
        await french.open(PAGE)
        assert "Proxy web" in french.main
        await french.press("Enregistrer le proxy", web_proxy="proxy.corp:8080")
        assert "Le proxy web de CP01 est enregistré." in french.main
