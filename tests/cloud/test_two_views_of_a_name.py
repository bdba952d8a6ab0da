"""The public name of a gateway, asked outside and inside apart: two DNS servers of the test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import site_world
from site_world import NAME, Site, create, ready, until
from small_dns import SmallDns, small_dns
from tandem.infra.database import Database
from tandem.infra.net import Resolver

DEPLOYMENT = "mycmg.cloudapp.example"
RECORD = f"{NAME}. CNAME {DEPLOYMENT}."
HOSTS = ("127.0.0.11", "127.0.0.12")


@pytest.fixture
async def place(
    site_db: Database, tmp_path: Path
) -> AsyncIterator[tuple[Site, SmallDns, SmallDns]]:
    async with small_dns() as public, small_dns() as inside:
        views = {"public": Resolver(public.address), "inside": Resolver(inside.address)}
        async with site_world.site(site_db, tmp_path, **views) as site:  # type: ignore[arg-type]
            await create(site, instances=2)
            await until(site, ready)
            yield site, public, inside


async def test_each_server_is_asked_and_what_is_missing_where_is_said(
    place: tuple[Site, SmallDns, SmallDns],
) -> None:
    site, public, inside = place
    refused = await site.refusal("gateway", "check-dns")
    assert refused.message == f"Public DNS has no CNAME record for {NAME}."
    assert refused.cure == f"Add to your public DNS: {RECORD}"
    public.put(NAME, "CNAME", f"{DEPLOYMENT}.")
    refused = await site.refusal("gateway", "check-dns")
    assert f"The deployment name {DEPLOYMENT} has no address" in refused.message
    assert f"{DEPLOYMENT}. A 127.0.0.11, 127.0.0.12" in refused.cure
    public.put(DEPLOYMENT, "A", *HOSTS)
    # A zone of the same name inside, which nobody told: the gateway is found at home by nobody.
    refused = await site.refusal("gateway", "check-dns")
    assert "The internal DNS has no CNAME record" in refused.message
    assert "split-brain" in refused.message
    assert refused.cure == f"Add to your internal DNS: {RECORD}"
    inside.put(NAME, "A", *HOSTS)
    found = await site.run("gateway", "check-dns")
    assert (found["ok"], found["split_brain"]) == (True, True)
    assert [(v["view"], v["server"], v["target"], v["addresses"]) for v in found["views"]] == [
        ("public", public.address, DEPLOYMENT, list(HOSTS)),
        ("internal", inside.address, "", list(HOSTS)),
    ]
    inside.records = dict(public.records)
    assert not (await site.run("gateway", "check-dns"))["split_brain"]


async def test_addresses_are_as_good_as_an_alias_when_they_are_those_of_the_instances(
    place: tuple[Site, SmallDns, SmallDns],
) -> None:
    site, public, inside = place
    for server in (public, inside):
        server.put(NAME, "A", HOSTS[0])
    assert (await site.run("gateway", "check-dns"))["ok"]
    public.put(NAME, "AAAA", "2001:db8::9")
    refused = await site.refusal("gateway", "check-dns")
    assert f"{NAME} has the address 127.0.0.11, 2001:db8::9 in your public DNS" in refused.message
    assert refused.cure.endswith(RECORD)
    del public.records[NAME, "AAAA"]
    inside.put(NAME, "CNAME", "elsewhere.example.")
    refused = await site.refusal("gateway", "check-dns")
    assert "leads to elsewhere.example" in refused.message
    assert "your internal DNS" in refused.cure


async def test_a_server_that_does_not_answer_is_named(
    place: tuple[Site, SmallDns, SmallDns],
) -> None:
    site, public, inside = place
    for server in (public, inside):
        server.put(NAME, "CNAME", f"{DEPLOYMENT}.")
        server.put(DEPLOYMENT, "A", *HOSTS)
    here = site.cloud.gateways
    here._resolver = Resolver("127.0.0.1:1")
    here._resolver.patience = 0.3
    refused = await site.refusal("gateway", "check-dns")
    assert "The internal DNS does not answer (127.0.0.1:1)." in refused.message
    here._public = here._resolver
    assert (await site.refusal("gateway", "check-dns")).code == "net.dns-unavailable"
