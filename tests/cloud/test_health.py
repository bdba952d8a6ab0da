"""The way in, hop by hop; the analyzer; what listens where; the site about itself."""

import asyncio
from datetime import timedelta
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from site_world import NAME, Site, create, ready, until
from tandem.cli.main import build
from tandem.infra.clock import utc_now
from tandem.protocols import tunnel
from tandem.site import properties
from tandem.site.health import CAUSES, CHECKS


async def _hops(site: Site) -> dict[str, dict[str, Any]]:
    site_health = await site.run("health", "show")
    return {hop["id"]: hop for hop in site_health["hops"]}


async def _report(site: Site, state: str, reason: str = "") -> None:
    line = tunnel.ConnectionState(NAME, 1, state, "1", 1_700_000_000.0, reason)  # type: ignore[arg-type]
    async with site.db.transaction() as tx:
        point = await site.cloud.connections.connection_point(tx, "CP01")
        await site.cloud.connections.report(tx, point, tunnel.ConnectorReport("CP01", [line]))


async def test_every_hop_has_a_state_and_what_is_wrong_has_a_cause_and_a_cure(site: Site) -> None:
    assert (await _hops(site))["tenant"]["cause"] == "tenant.not-connected"
    await create(site)
    await until(site, ready)
    hops = await _hops(site)
    assert hops[f"instance:{NAME}:1"]["state"] == "good"
    assert hops[f"tunnel:{NAME}:1"]["cause"] == "tunnel.no-point"
    assert hops[f"dns:{NAME}"]["cause"] == "dns.no-record"
    assert f"{NAME}. CNAME mycmg.cloudapp.example." in hops[f"dns:{NAME}"]["cure"]
    assert hops["management-point"]["cause"] == "management-point.closed"
    await site.run("connection-point", "add", "CP01")
    hops = await _hops(site)
    assert hops["point:CP01"]["cause"] == "point.never"
    assert hops[f"tunnel:{NAME}:1:CP01"]["state"] == "waiting"
    for reason, cause in (
        ("Nothing listens on 127.0.0.11:10140.", "tunnel.refused"),
        ("The certificate of 127.0.0.11 is not trusted: no.", "tunnel.untrusted"),
        ("127.0.0.11 does not answer.", "tunnel.no-answer"),
        ("The gateway closed the connection.", "tunnel.lost"),
    ):
        await _report(site, "disconnected", reason)
        hop = (await _hops(site))[f"tunnel:{NAME}:1:CP01:1"]
        assert (hop["state"], hop["cause"]) == ("bad", cause)
        assert reason in hop["text"]
        assert hop["cure"]
    await _report(site, "connected")
    await site.run("management-point", "set", "--allow-gateway-traffic")
    hops = await _hops(site)
    good = {id for id, hop in hops.items() if hop["state"] == "good"}
    tunnels = {f"tunnel:{NAME}:1:CP01:1", "point:CP01", "management-point"}
    assert tunnels | {f"instance:{NAME}:1"} <= good
    async with site.db.transaction() as tx:
        await tx.execute(
            "UPDATE cloud_connection_point SET reported_at = %s", (utc_now() - timedelta(hours=1),)
        )
    hops = await _hops(site)
    assert hops["point:CP01"]["cause"] == "point.silent"
    assert hops[f"tunnel:{NAME}:1:CP01:1"]["cause"] == "point.silent"
    await site.run("gateway", "stop")
    assert (await _hops(site))[f"instance:{NAME}:1"]["cause"] == "gateway.stopped"


@pytest.mark.parametrize(
    ("days", "state", "cause"),
    [(-1, "bad", "gateway.certificate-expired"), (5, "waiting", "gateway.certificate-ends")],
)
async def test_a_certificate_that_ends_is_told_of_in_time(
    site: Site, days: int, state: str, cause: str
) -> None:
    await create(site)
    await until(site, ready)
    async with site.db.transaction() as tx:
        await tx.execute(
            "UPDATE cloud_gateway SET expires_at = %s", (utc_now() + timedelta(days=days),)
        )
    hop = (await _hops(site))[f"instance:{NAME}:1"]
    assert (hop["state"], hop["cause"]) == (state, cause)


async def test_an_expired_certificate_of_the_management_point_is_told(site: Site) -> None:
    await site.run("management-point", "set", "--allow-gateway-traffic")
    assert (await _hops(site))["management-point"]["state"] == "good"
    long_ago = utc_now() - timedelta(days=400)
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM properties_credential WHERE role = 'site-systems'")
        await properties.role_certificate(
            tx, site.box, properties.SITE_SYSTEMS, dns=["localhost"], now=long_ago
        )
    hop = (await _hops(site))["management-point"]
    assert (hop["state"], hop["cause"]) == ("bad", "management-point.certificate-expired")


async def test_the_analyzer_says_where_a_devices_way_ends(site: Site) -> None:
    """The stand-in of an instance takes no TLS: the way ends at its door."""
    await create(site)
    await until(site, ready)
    found = await site.run("gateway", "analyze")
    rows = {item["check"]: item for item in found["checks"]}
    assert not found["ok"]
    # One DNS server answers for outside and inside here.
    assert set(rows) == set(CHECKS) - {"dns-internal"}
    assert found["broken"]["check"] == "dns"
    assert rows["service"]["state"] == rows["certificate"]["state"] == "good"
    assert rows["instance"]["cause"] == "probe.no-connection"
    assert rows["management-point"]["state"] == "skipped"
    assert rows["channel"]["cause"] == "tunnel.no-point"
    assert all(item["description"] for item in found["checks"])


async def test_words_of_causes_can_be_filled_in(site: Site) -> None:
    """Every cause has words and a cure; what one needs, its finding brings (tested above)."""
    for code, (text, cure) in CAUSES.items():
        assert text, code
        assert cure, code


async def test_ports_and_endpoints_are_those_of_the_live_configuration(site: Site) -> None:
    await create(site)
    await until(site, ready)
    await site.run("connection-point", "add", "CP01")
    found = await site.run("health", "ports")
    here = site.cloud.gateways.settings.gateway
    listens = {(x["role"], x["direction"], x["address"], x["port"]) for x in found["listeners"]}
    assert ("gateway", "in", "127.0.0.11", here.port) in listens
    assert ("gateway", "in", "127.0.0.11", here.tunnel_port) in listens
    assert ("connection-point", "out", "127.0.0.11", here.tunnel_port) in listens
    assert found["published"] == []
    node = (await site.run("gateway", "show"))["nodes"][0]
    for_people = await asyncio.to_thread(CliRunner().invoke, build(), ["gateway", "show"])
    assert f"(process {node['pid']})" in for_people.stdout
    sockets = psutil.Process(node["pid"]).net_connections("tcp")
    assert ("gateway", "in", *sockets[0].laddr) in listens, "the stand-in's health"
    await site.run("management-point", "set", "--allow-gateway-traffic")
    published = (await site.run("health", "ports"))["published"]
    assert any(item["prefix"].endswith("/SMS_MP") for item in published)


async def test_the_site_tells_of_itself(site: Site) -> None:
    found = await site.run("health", "about")
    assert found["site_code"] == "CM1"
    assert found["versions"]["postgresql"][:2].isdigit()
    assert found["database"]["migration"] >= "0021"
    assert found["jobs"]["failed"] == 0
    assert found["logs"] == str(site.folder / "logs")
    assert abs(found["database"]["clock_seconds"]) < 5
    async with site.db.transaction() as tx:
        await site.jobs.defer(tx, "cloud.provision-gateway", service_name="nobody.contoso.com")
        await tx.execute("UPDATE procrastinate_jobs SET status = 'failed' WHERE status = 'todo'")
    failed = (await site.run("health", "about"))["jobs"]
    assert failed["failed"] == 1
    assert failed["last_failed"][0]["name"] == "cloud.provision-gateway"
