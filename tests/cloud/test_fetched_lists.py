"""Revocation lists that the site fetches from where they are published."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_analyzer import Authority, web

from site_world import Site, create, ready, until
from tandem import pki
from tandem.infra.clock import utc_now
from tandem.site import cloud_services


class Clock:
    def __init__(self) -> None:
        self.later = timedelta()

    def __call__(self) -> Any:
        return utc_now() + self.later


@pytest.fixture
async def published(site: Site) -> AsyncIterator[Authority]:
    made = Authority(pki.new_root(pki.name("Clients' root"), now=utc_now()))
    async with web(made):
        root = site.folder / "clients.pem"
        root.write_bytes(pki.pem(made.issuing.certificate))
        await create(site)
        await until(site, ready)
        await site.run("management-point", "trust-root", root)
        yield made


def fetching(site: Site, *urls: str) -> tuple[cloud_services.Lists, Clock]:
    settings = msgspec.structs.replace(site.cloud.connections.settings, crl_urls=urls)
    clock = Clock()
    made = cloud_services.Lists(site.db, settings, now=clock, changed=site.cloud.news.tell)
    object.__setattr__(site.cloud, "lists", made)
    return made, clock


async def alarms(site: Site) -> list[str]:
    return [one["name"] for one in (await site.run("gateway", "show"))["alarms"]]


async def test_a_list_is_fetched_again_before_it_ends_and_its_alarms_come_and_go(
    site: Site, published: Authority
) -> None:
    lists, clock = fetching(site, published.url)
    assert await alarms(site) == ["CMGService_Crl_Missing"]
    await lists.tend()  # Nothing lies there yet.
    assert await alarms(site) == ["CMGService_Crl_Missing"]
    (source,) = (await site.run("management-point", "trusted"))["sources"]
    assert source["url"] == published.url
    assert "the answer is 404" in source["reason"]
    published.published = published.list(hours=24 * 9)
    clock.later += timedelta(minutes=2)
    await lists.tend()
    assert await alarms(site) == []
    (source,) = (await site.run("management-point", "trusted"))["sources"]
    assert source["fetched_at"]
    assert not source["reason"]
    # What lies there is not looked at again before its time.
    published.published = b"<html>"
    clock.later += timedelta(minutes=5)
    await lists.tend()
    assert not (await site.run("management-point", "trusted"))["sources"][0]["reason"]
    clock.later += timedelta(minutes=15)
    await lists.tend()
    assert "not a certificate revocation list" in lists.sources[0].reason
    # The list in hand counts on: nobody is refused because a web server is away.
    assert await alarms(site) == []
    async with site.db.transaction() as tx:
        found = await tx.execute("SELECT actor FROM audit_entry WHERE action = 'gateway.add-crl'")
        assert [row["actor"] for row in await found.fetchall()] == ["revocation lists"]


async def test_a_list_of_nobody_that_was_uploaded_is_not_taken(
    site: Site, published: Authority
) -> None:
    lists, _ = fetching(site, published.url)
    published.published = Authority().list()
    await lists.tend()
    assert "is of no uploaded authority" in lists.sources[0].reason
    published.published = Authority(pki.new_root(pki.name("Clients' root"), now=utc_now())).list()
    lists, _ = fetching(site, published.url)
    await lists.tend()
    assert "is of no uploaded authority" in lists.sources[0].reason
    assert (await site.run("management-point", "trusted"))["crls"] == []


async def test_an_uploaded_authority_names_its_issuers_list_itself(
    site: Site, published: Authority, tmp_path: Path
) -> None:
    key = pki.generate_key()
    between = published.issuing.issue(
        key.public_key(), pki.name("Clients' issuing"), now=utc_now(), days=90, ca=True,
        crl_url=published.url,
    )  # fmt: skip
    file = tmp_path / "between.pem"
    file.write_bytes(pki.pem(between))
    await site.run("management-point", "trust-root", file)
    published.published = published.list(hours=24 * 9)
    lists, _ = fetching(site)
    await lists.tend()
    (crl,) = (await site.run("management-point", "trusted"))["crls"]
    assert crl["issuer"] == "CN=Clients' root"
    # An uploaded newer list stays.
    newer = published.issuing.crl(
        [], now=utc_now(), next_update=utc_now() + timedelta(days=11), number=2
    )
    (tmp_path / "newer.crl").write_bytes(newer)
    await site.run("management-point", "add-crl", tmp_path / "newer.crl")
    lists, _ = fetching(site)
    await lists.tend()
    assert not lists.sources[0].reason
    (kept,) = (await site.run("management-point", "trusted"))["crls"]
    assert kept["next_update_at"] > crl["next_update_at"]
