"""A gateway's properties: what can be changed while it runs, what is refused, and its alerts."""

import asyncio
from base64 import b64encode
from typing import Any

import psutil
import pytest
from msgspec.structs import replace

from site_world import NAME, PFX_PASSWORD, Site, admin, connect, create, pfx, ready, shown, until
from tandem import audit, pki
from tandem.cli.context import site_client
from tandem.infra.clock import utc_now
from tandem.infra.errors import AppError
from tandem.protocols import cmtrace, tunnel
from tandem.site.cloud_services import GatewayInstance
from tenant_world import World

GB = 10**9


@pytest.fixture
async def gateway(site: Site) -> dict[str, Any]:
    await create(site)
    return await until(site, ready)


async def _nodes(site: Site, count: int) -> list[dict[str, Any]]:
    found = await until(
        site,
        lambda seen: (
            len(seen["nodes"]) == count and all(n["state"] == "running" for n in seen["nodes"])
        ),
    )
    nodes: list[dict[str, Any]] = found["nodes"]
    return nodes


async def test_a_gateway_grows_and_shrinks_while_it_runs(
    site: Site, gateway: dict[str, Any]
) -> None:
    first = gateway["nodes"][0]["pid"]
    changed = await site.run("gateway", "set", "--instances", 2, "--description", "For Lyon")
    assert (changed["instances"], changed["description"]) == (2, "For Lyon")
    nodes = await _nodes(site, 2)
    assert nodes[0]["pid"] == first, "who has a device on it goes on"
    assert nodes[1]["host"] == "127.0.0.12"
    assert (await shown(site))["state"] == "Ready"
    await site.run("gateway", "set", "--instances", 1)
    assert [node["pid"] for node in await _nodes(site, 1)] == [first]
    assert not psutil.pid_exists(nodes[1]["pid"])
    refused = await site.refusal("gateway", "set", "--instances", 3)
    assert "free addresses for 2 instances" in refused.message


async def test_another_certificate_of_the_same_name_takes_the_place_of_the_old(
    site: Site, gateway: dict[str, Any]
) -> None:
    """While the instance runs. Letter case is no difference, and a wildcard is as good."""
    before = gateway["nodes"][0]["pid"]
    file = site.folder / "new.pfx"
    words = ("gateway", "set", "--pfx", file, "--password-file", site.secret("p", PFX_PASSWORD))
    for name in (NAME, "MyCMG.contoso.com", "*.contoso.com", NAME):
        file.write_bytes(pfx(name))
        await site.run(*words)
        wanted = pki.sha256_fingerprint(pki.pfx_open(file.read_bytes(), PFX_PASSWORD).certificate)
        node = gateway["nodes"][0]
        async with asyncio.timeout(10):
            while await _shows(site, node) != wanted:
                await asyncio.sleep(0.05)
        found = await shown(site)
        assert (found["state"], found["nodes"][0]["pid"]) == ("Ready", before)
    kept = (site.folder / "gateways" / NAME / "server.pfx").read_bytes()
    assert kept == file.read_bytes()
    for name in ("other.contoso.com", "*.fabrikam.com"):
        file.write_bytes(pfx(name))
        refused = await site.refusal(*words)
        assert refused.code == "gateway.another-common-name"
        assert f"existing common name is {NAME}, the new one is {name}" in refused.message
    file.write_bytes(pfx(NAME, "www.contoso.com", dns=["www.contoso.com"]))
    refused = await site.refusal(*words)
    assert "clients would not believe that it is mycmg.contoso.com" in refused.message
    file.write_bytes(pfx(NAME, begins=-60))
    assert "expired" in (await site.refusal(*words)).message


async def test_an_instance_that_does_not_take_its_certificate_is_started_anew(
    site: Site, gateway: dict[str, Any]
) -> None:
    here = site.cloud.gateways
    here.settings = replace(here.settings, gateway=replace(here.settings.gateway, start_seconds=1))
    (site.folder / "gateways" / NAME / "deaf").touch()
    before = gateway["nodes"][0]["pid"]
    file = site.folder / "new.pfx"
    file.write_bytes(pfx(NAME))
    await site.run(
        *("gateway", "set", "--pfx", file, "--password-file", site.secret("p", PFX_PASSWORD))
    )
    await until(site, lambda seen: ready(seen) and seen["nodes"][0]["pid"] not in {before, None})
    assert "did not show its new certificate" in site.log("CloudMgr")


async def _shows(site: Site, node: dict[str, Any]) -> str:
    """The fingerprint that an instance says it shows."""
    found = await site.cloud.gateways.providers["Tandem"].look(GatewayInstance(**_own(node)), 2.0)
    return found.certificate


def _own(node: dict[str, Any]) -> dict[str, Any]:
    return {name: node[name] for name in GatewayInstance.__dataclass_fields__}


async def test_two_administrators_do_not_undo_each_other(
    site: Site, gateway: dict[str, Any]
) -> None:
    """The version is of what can be changed: that an instance died meanwhile is no conflict."""
    api, path = site_client(), f"/api/v1/gateways/{NAME}"

    def change(etag: str, text: str) -> Any:
        return api.call("PATCH", path, json={"description": text}, headers={"If-Match": etag})

    def etag() -> str:
        return str(api._client.get(path).headers["etag"])

    read = await asyncio.to_thread(etag)
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_gateway SET reason = 'Instance 1: gone.'")
    await asyncio.to_thread(change, read, "one")
    with pytest.raises(AppError) as refused:
        await asyncio.to_thread(change, read, "two")
    assert "Somebody else changed it" in refused.value.message
    assert (await shown(site))["description"] == "one"


async def test_what_is_no_alert_is_refused_and_names_the_field(
    site: Site, gateway: dict[str, Any]
) -> None:
    cases = (
        (("--alert-gb", 0), "from 1 to"),
        (("--warning-percent", 95), "The warning comes before"),
        (("--critical-percent", 101), "from 1 to 100 percent"),
        (("--stop-when-critical",), "only for a threshold that is set"),
    )
    for words, says in cases:
        refused = await site.refusal("gateway", "set", *words)
        assert (refused.code, says in refused.message) == ("gateway.bad-alerts", True), words


async def _sent(site: Site, much: int) -> None:
    """Outbound traffic as a connection point tells of it."""
    told = tunnel.ConnectorReport(
        "CP01", [], [tunnel.Traffic(NAME, "/CCM_Proxy_ServerAuth/7/SMS_MP", 2, 0, 10, much, 5.0)]
    )
    async with site.db.transaction() as tx:
        point = await site.cloud.connections.connection_point(tx, "CP01")
        await site.cloud.connections.report(tx, point, told)


async def test_a_gateway_that_sends_too_much_warns_and_is_stopped_when_that_is_wanted(
    site: Site, gateway: dict[str, Any]
) -> None:
    await site.run("connection-point", "add", "CP01")
    assert (await site.run("gateway", "alerts"))["level"] == "off"
    await site.run("gateway", "set", "--alert-gb", 100, "--stop-when-critical")
    for much, level in ((70, "good"), (10, "warning")):
        await _sent(site, much * GB)
        alerts = await site.run("gateway", "alerts")
        names = [one["name"] for one in alerts["raised"]]
        assert (alerts["level"], names) == (
            level,
            ["CMG_Outbound_Warning"] if level == "warning" else [],
        )
        for _ in range(2):
            await site.cloud.gateways.tend()
        assert (await shown(site))["state"] == "Ready"
    await _sent(site, 10 * GB)
    alerts = await site.run("gateway", "alerts")
    assert (alerts["level"], alerts["percent"], alerts["outbound_bytes"]) == (
        "critical",
        90.0,
        90 * GB,
    )
    await site.cloud.gateways.tend()
    stopped = await shown(site)
    assert stopped["state"] == "Stopped"
    assert "reached the critical threshold" in stopped["reason"]
    log = [cmtrace.message_of(line) or "" for line in site.log("CloudMgr").splitlines()]
    said = [line for line in log if "CMG_Outbound" in line]
    assert sorted(line.split(": ")[1] for line in said) == [
        "CMG_Outbound_Critical",
        "CMG_Outbound_Warning",
        "CMG_Outbound_Warning is over",
    ]
    async with site.db.transaction() as tx:
        found = await audit.entries(tx, target=NAME)
    (entry,) = [one for one in found if one.action == "gateway.stop"]
    assert entry.actor == "site"
    assert not psutil.pid_exists(gateway["nodes"][0]["pid"])
    refused = await site.refusal("gateway", "start")
    assert refused.code == "gateway.transfer-exceeded"
    await site.run("gateway", "set", "--no-stop-when-critical")
    assert (await site.run("gateway", "start"))["state"] == "Ready"
    # The transfer of 14 days counts, and what was before does not.
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_traffic SET day = day - 14")
    assert (await site.run("gateway", "alerts"))["level"] == "good"


async def test_traffic_is_told_by_day_and_by_connection_point_and_role(
    site: Site, gateway: dict[str, Any]
) -> None:
    for name in ("CP01", "CP02"):
        await site.run("connection-point", "add", name)
    await _sent(site, 100)
    await _sent(site, 200)
    api = site_client()
    by_point = await asyncio.to_thread(api.get, "/api/v1/traffic", by="connection-point")
    assert [(r["connection_point"], r["role"], r["requests"]) for r in by_point] == [
        ("CP01", "management-point", 4)
    ]
    (day,) = await asyncio.to_thread(api.get, "/api/v1/traffic", by="day", days=1)
    assert (day["service_name"], day["response_bytes"]) == (NAME, 300)
    (whole,) = await asyncio.to_thread(api.get, "/api/v1/traffic")
    assert (whole["endpoint"], whole["requests"]) == ("/CCM_Proxy_ServerAuth/7/SMS_MP", 4)


async def test_a_connection_point_changes_its_gateway(site: Site, gateway: dict[str, Any]) -> None:
    await site.run("connection-point", "add", "CP01")
    await create(site, pfx=pfx("second.contoso.com"))
    found = await site.run("connection-point", "set", "CP01", "--gateway", "second.contoso.com")
    assert found["service_name"] == "second.contoso.com"
    assert found["left_alone"] == NAME
    refused = await site.refusal("connection-point", "set", "CP01", "--gateway", "x.contoso.com")
    assert refused.code == "gateway.not-found"


async def test_a_second_gateway_has_a_name_of_its_own_and_may_be_for_content_alone(
    site: Site, gateway: dict[str, Any]
) -> None:
    await site.run("management-point", "set", "--allow-gateway-traffic")
    for taken, says in (
        (NAME, f"There is a gateway {NAME} already: its common name is in use."),
        ("mycmg.fabrikam.com", f"mycmg.cloudapp.example is in use by the gateway {NAME}"),
    ):
        with pytest.raises(AppError) as refused:
            await create(site, pfx=pfx(taken))
        assert says in refused.value.message
        assert refused.value.details["field"] == "service_name"
    with pytest.raises(AppError, match="A gateway for content alone serves content"):
        await create(site, pfx=pfx("files.contoso.com"), content_only=True, serve_content=False)
    await create(site, pfx=pfx("files.contoso.com"), content_only=True)
    await until(site, ready, "files.contoso.com")
    async with site.db.transaction() as tx:
        connections = site.cloud.connections
        host = await connections.gateway_host(tx)
        points = [
            await connections.add(tx, name, served, actor="siteadmin")
            for name, served in (("CP01", NAME), ("CP02", "files.contoso.com"))
        ]
        told = [await connections.connector_configuration(tx, point) for point in points]
    assert host is not None
    assert host.startswith(NAME), "clients find the management point at the other one"
    published = [len(one.gateways[0].configuration.endpoints) for one in told]
    assert published[0] > 0
    assert published[1] == 0


async def test_gateways_are_found_by_their_labels_whatever_the_letter_case(
    site: Site, gateway: dict[str, Any]
) -> None:
    assert gateway["environment"] == "Tandem"
    for words, found in (
        (("--environment", "TANDEM"), [NAME]),
        (("--region", "local", "--resource-group", "mycmg-GROUP"), [NAME]),
        (("--region", "Paris"), []),
    ):
        listed = await site.run("gateway", "list", *words)
        assert [item["service_name"] for item in listed] == found
    refused = await site.refusal("gateway", "redeploy", "--resource-group", "my new group")
    assert refused.code == "gateway.invalid"
    assert refused.cure.endswith(": my-new-group")
    refused = await site.refusal("gateway", "redeploy", "--environment", "Moon")
    assert (refused.message, refused.cure) == (
        "There is no environment 'Moon'.",
        "Take one of: Tandem.",
    )


async def test_a_redeployed_gateway_has_new_instances_and_another_connection_id(
    site: Site, gateway: dict[str, Any]
) -> None:
    await site.run("connection-point", "add", "CP01")
    async with site.db.transaction() as tx:
        before = (await site.cloud.gateways.gateway(tx, NAME)).connection_id
    made = await site.run("gateway", "redeploy", "--resource-group", "other")
    assert (made["state"], made["resource_group"]) == ("Ready", "other")
    assert made["nodes"][0]["pid"] != gateway["nodes"][0]["pid"]
    assert not psutil.pid_exists(gateway["nodes"][0]["pid"])
    assert made["connection_points"] == ["CP01"]
    async with site.db.transaction() as tx:
        assert (await site.cloud.gateways.gateway(tx, NAME)).connection_id != before


async def test_synchronising_starts_what_is_gone(site: Site, gateway: dict[str, Any]) -> None:
    psutil.Process(gateway["nodes"][0]["pid"]).kill()
    await site.run("gateway", "synchronize")
    before = gateway["nodes"][0]["pid"]
    await until(
        site,
        lambda seen: seen["nodes"][0]["pid"] != before and seen["nodes"][0]["state"] == "running",
    )


async def test_without_a_certificate_of_the_management_point_nothing_is_allowed(site: Site) -> None:
    """The box is grey unless the management point has HTTPS or enhanced HTTP (spec 2.5)."""
    assert (await site.run("management-point", "show"))["can_allow_gateway_traffic"]
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM properties_credential WHERE role = 'site-systems'")
    assert not (await site.run("management-point", "show"))["can_allow_gateway_traffic"]
    refused = await site.refusal("management-point", "set", "--allow-gateway-traffic")
    assert refused.code == "management-point.insecure"
    assert "enhanced HTTP" in refused.cure


async def test_next_in_the_wizard_tests_the_provider_and_reads_the_certificate(
    contoso: tuple[Site, World],
) -> None:
    site, world = contoso
    await connect(site)
    token = await asyncio.to_thread(_token, site)
    api = site_client()

    async def check(**given: Any) -> Any:
        body = {"access_token": token, **given}
        return await asyncio.to_thread(api.post, "/api/v1/gateways/check", body)

    found = await check()
    assert found["tenant_id"] == world.tenant.id
    assert (found["hosts"], found["most_instances"], found["regions"]) == (2, 2, ["Local"])
    assert found["resource_groups"] == []
    data = b64encode(pfx(NAME)).decode()
    found = await check(data=data, password=PFX_PASSWORD)
    assert (found["service_name"], found["deployment_name"]) == (NAME, "mycmg.cloudapp.example")
    assert found["name_check"]["available"]
    wild = b64encode(pfx("*.contoso.com")).decode()
    found = await check(data=wild, password=PFX_PASSWORD)
    assert (found["wildcard"], found["service_name"]) == ("*.contoso.com", "")
    with pytest.raises(AppError, match="does not open this PFX"):
        await check(data=data, password="wrong")

    # From the site's own store: the certificate wizard's work is not exported to be uploaded.
    file = site.folder / "own.pfx"
    file.write_bytes(pfx(NAME))
    password = site.secret("p", PFX_PASSWORD)
    kept = await site.run("certificate", "import", file, "--password-file", password)
    assert (await check(certificate=kept["id"]))["service_name"] == NAME
    roots = site.folder / "clients.pem"
    roots.write_bytes(pki.pem(pki.new_root(pki.name("Contoso Clients"), now=utc_now()).certificate))
    words = ("gateway", "create", "--certificate", NAME, "--trusted-root", roots, *admin(site))
    made = await site.run(*words)
    trust = await asyncio.to_thread(api.get, "/api/v1/trust")
    assert [item["subject"] for item in trust["roots"]] == ["CN=Contoso Clients"]
    assert (made["state"], made["resource_group"]) == ("Ready", "mycmg-group")
    with pytest.raises(AppError, match=r"There is a gateway mycmg\.contoso\.com already"):
        await check(certificate=kept["id"])
    assert (await check())["resource_groups"] == [{"name": "mycmg-group", "region": "Local"}]


def _token(site: Site) -> str:
    from tandem.cli.sign_in import administrator_token

    words = admin(site)
    return administrator_token(str(words[1]), words[3])  # type: ignore[arg-type]


async def test_a_resource_group_is_in_one_region_and_has_a_usable_name(site: Site) -> None:
    gateways = site.cloud.gateways
    here = replace(gateways.settings.gateway, regions=("Local", "Paris"))
    gateways.settings = replace(gateways.settings, gateway=here)
    await create(site, resource_group="cmg")
    second: dict[str, Any] = {"pfx": pfx("second.contoso.com"), "region": "Paris"}
    for group, says in (("cmg", "in the region Local, not in Paris"), ("my group", "cannot be")):
        with pytest.raises(AppError) as refused:
            await create(site, **second, resource_group=group)
        assert says in refused.value.message
        assert refused.value.details["field"] == "resource_group"
