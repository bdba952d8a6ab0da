"""Tutorial step 4: connection points, and what a gateway publishes of the management point."""

import asyncio
import ssl
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from site_world import NAME, Site, create, ready, until
from tandem import pki
from tandem.infra import config
from tandem.infra.clock import utc_now
from tandem.protocols import cmtrace, tunnel
from tandem.site import properties
from tandem.site.cloud_services import store, traffic


@pytest.fixture
async def point(site: Site) -> dict[str, Any]:
    """A connection point of a gateway that is ready, with its files on its server."""
    await create(site, instances=2)
    await until(site, ready)
    made: dict[str, Any] = await site.run(
        "connection-point", "add", "CP01", "--folder", site.folder / "cp01"
    )
    return made


def web(site: Site, folder: str = "cp01") -> httpx.AsyncClient:
    """HTTP as the connection point does it: with its role certificate."""
    tls = ssl.create_default_context(cafile=str(site.folder / "site-root.pem"))
    where = site.folder / folder
    if where.exists():
        tls.load_cert_chain(where / "certificate.pem", where / "key.pem")
    return httpx.AsyncClient(base_url=site.url, verify=tls, trust_env=False, timeout=10)


async def configuration(site: Site) -> tunnel.ConnectorConfiguration:
    async with web(site) as client:
        answer = await client.get("/SMS_CMG/connector/configuration")
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=tunnel.ConnectorConfiguration)


async def test_the_role_gets_settings_and_a_certificate_of_the_sites_root(
    site: Site, point: dict[str, Any]
) -> None:
    from tandem.gateway import ConnectorSettings

    settings = config.load(site.folder / "cp01" / "connector.toml", ConnectorSettings)
    assert settings.connection_point == "CP01"
    assert settings.management_point_url == site.url
    assert point["settings"] == str(site.folder / "cp01" / "connector.toml")
    assert settings.key.stat().st_mode & 0o077 == 0
    (certificate,) = pki.read_certificates(settings.certificate.read_bytes())
    async with site.db.transaction() as tx:
        root = await properties.root_certificate(tx)
    certificate.verify_directly_issued_by(root)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]


async def test_the_connection_point_learns_every_instance_and_nothing_is_published_yet(
    site: Site, point: dict[str, Any]
) -> None:
    found = await configuration(site)
    (gateway,) = found.gateways
    assert (gateway.service_name, gateway.server_name) == (NAME, NAME)
    here = site.cloud.gateways.settings.gateway
    assert gateway.instances == [
        tunnel.Instance(1, "127.0.0.11", here.port, here.tunnel_port),
        tunnel.Instance(2, "127.0.0.12", here.port, here.tunnel_port + 1),
    ]
    assert gateway.configuration.endpoints == []
    assert gateway.configuration.check_revocation
    # The gateway itself may ask for the content that it serves.
    assert gateway.configuration.content == tunnel.ContentService()
    assert [item.prefix for item in found.map] == [tunnel.ORIGIN]
    assert found.map[0].url == f"{site.url}{tunnel.ORIGIN}/{NAME}"
    await site.run("gateway", "set", "--no-serve-content")
    found = await configuration(site)
    assert found.gateways[0].configuration.content is None
    assert found.map == []


async def test_allowing_gateway_traffic_publishes_the_endpoints_and_nothing_else(
    site: Site, point: dict[str, Any]
) -> None:
    before = await configuration(site)
    shown = await site.run("management-point", "set", "--allow-gateway-traffic")
    role = shown["role_id"]
    assert int(role) > 2**56
    port = site.cloud.gateways.settings.gateway.port
    assert shown["gateway_host"] == f"{NAME}:{port}/CCM_Proxy_MutualAuth/{role}"
    after = await configuration(site)
    published = after.gateways[0].configuration
    assert published.version == before.gateways[0].configuration.version + 1
    for endpoint in published.endpoints:
        entry, number, path = endpoint.prefix[1:].split("/")
        assert number == role
        wanted = {"CCM_Proxy_ServerAuth": ["token"], "CCM_Proxy_MutualAuth": ["certificate"]}
        assert endpoint.auth == wanted[entry]
        assert endpoint.methods
        # The connection point forwards exactly these; its own documents are not among them.
        inside = {item.prefix: item.url for item in after.map}
        assert inside[endpoint.prefix] == f"{site.url}/{path}"
    # Two more lead to where gateways ask themselves, and are none of a client's.
    own = inside.keys() - {endpoint.prefix for endpoint in published.endpoints}
    assert own == {"/CCM_Proxy_EdgeAnswers", tunnel.ORIGIN}
    assert inside["/CCM_Proxy_EdgeAnswers"] == f"{site.url}/EdgeAnswers/{NAME}"
    assert not any("SMS_CMG" in item.url for item in after.map)
    await site.run("management-point", "set", "--no-allow-gateway-traffic")
    assert [item.prefix for item in (await configuration(site)).map] == [tunnel.ORIGIN]
    assert (await site.run("management-point", "show"))["gateway_host"] == ""


async def test_a_gateway_answers_check_ins_itself_until_it_is_told_not_to(
    site: Site, point: dict[str, Any]
) -> None:
    assert (await configuration(site)).gateways[0].configuration.answers is None
    role = (await site.run("management-point", "set", "--allow-gateway-traffic"))["role_id"]
    wanted = (await configuration(site)).gateways[0].configuration.answers
    assert wanted is not None
    assert wanted.targets == [
        f"/CCM_Proxy_{entry}/{role}/SMS_MP/.sms_pol" for entry in ("ServerAuth", "MutualAuth")
    ]
    assert not (await site.run("gateway", "set", "--no-edge-answers"))["edge_answers"]
    found = await configuration(site)
    assert found.gateways[0].configuration.answers is None
    assert not any("EdgeAnswers" in item.url for item in found.map)
    assert (await site.run("gateway", "set", "--edge-answers"))["edge_answers"]
    assert (await configuration(site)).gateways[0].configuration.answers == wanted


async def test_a_version_grows_only_when_the_configuration_changes(
    site: Site, point: dict[str, Any]
) -> None:
    versions = [(await configuration(site)).gateways[0].configuration.version for _ in range(3)]
    assert len(set(versions)) == 1


async def test_who_waits_for_news_is_answered_when_they_come(
    site: Site, point: dict[str, Any]
) -> None:
    path = "/SMS_CMG/connector/configuration"
    async with web(site) as client:
        tag = (await client.get(path)).headers["etag"]
        same = await client.get(path, headers={"If-None-Match": tag})
        assert (same.status_code, same.content) == (304, b"")
        waiting = asyncio.create_task(client.get(f"{path}?wait=9", headers={"If-None-Match": tag}))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await site.run("management-point", "set", "--allow-gateway-traffic")
        news = await asyncio.wait_for(waiting, 3)
    assert news.status_code == 200
    assert news.headers["etag"] != tag


async def test_nobody_but_a_connection_point_is_answered(site: Site, point: dict[str, Any]) -> None:
    async with web(site, "nowhere") as client:
        answer = await client.get("/SMS_CMG/connector/configuration")
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "connection-point.unknown"
        told = await client.post("/SMS_CMG/connector/report", json={"connection_point": "CP01"})
        assert told.status_code == 401
    await site.run("connection-point", "remove", "CP01")
    async with web(site) as client:
        assert (await client.get("/SMS_CMG/connector/configuration")).status_code == 401


async def test_the_state_of_each_connection_is_shown(site: Site, point: dict[str, Any]) -> None:
    assert not (await site.run("connection-point", "show"))["connected"]

    async def report(*states: str) -> dict[str, Any]:
        told = tunnel.ConnectorReport(
            "CP01",
            [
                tunnel.ConnectionState(NAME, number, state, "1", 1_700_000_000.0)  # type: ignore[arg-type]
                for number, state in enumerate(states, 1)
            ],
            [tunnel.Traffic(NAME, "/CCM_Proxy_ServerAuth/1/SMS_MP", 3, 1, 100, 200, 12.5)],
        )
        async with web(site) as client:
            answer = await client.post(
                "/SMS_CMG/connector/report", content=msgspec.json.encode(told)
            )
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = await site.run("connection-point", "show", "CP01")
        return shown

    assert (await report("connected", "connected"))["connected"]
    shown = await report("connected", "disconnected")
    assert not shown["connected"]
    assert [item["state"] for item in shown["connections"]] == ["connected", "disconnected"]
    # One of two instances is not enough: clients reach either.
    assert not (await report("connected"))["connected"]
    async with site.db.transaction() as tx:
        (traffic,) = await site.cloud.connections.traffic(tx)
    assert (traffic["requests"], traffic["failures"]) == (9, 3)


def _telling(sequence: int, *counts: tunnel.Counted, run: str = "r1") -> tunnel.ConnectorReport:
    telling = tunnel.Telling(run, sequence, counts=list(counts), connections=7, online=3)
    return tunnel.ConnectorReport("CP01", tellings=[tunnel.GatewayTelling(NAME, 1, telling)])


async def test_what_a_gateway_tells_counts_once_and_is_shown_by_endpoint_day_and_point(
    site: Site, point: dict[str, Any]
) -> None:
    async def report(told: tunnel.ConnectorReport) -> tunnel.ReportAnswer:
        async with web(site) as client:
            answer = await client.post(
                "/SMS_CMG/connector/report", content=msgspec.json.encode(told)
            )
        return msgspec.json.decode(answer.content, type=tunnel.ReportAnswer)

    first = _telling(
        1,
        tunnel.Counted("/CCM_Proxy_ServerAuth/7/SMS_MP", "CP01", 4, 1, 100, 5_000_000, 80.0),
        tunnel.Counted("/CCM_Proxy_MutualAuth/7/sms_mp", "CP01", 1, 0, 10, 1_000_000, 20.0),
        tunnel.Counted("/CCM_Proxy_ServerAuth/9/SMS_SUP", "CP01", 2, 0, 0, 50, 4.0),
        tunnel.Counted("refused", "", 6, 0, 0, 600, 0.0),
        # A gateway that lies makes no rows of its own.
        *(tunnel.Counted(f"/made/up/{n}", f"CP{n}", 1, 0, -5, 2**70, 0.0) for n in range(2, 40)),
    )
    for _ in range(2):
        assert (await report(first)).told == [tunnel.Told("r1", 1)]
    for lie in (_telling(2**80), _telling(-1), _telling(9, run="a\0b"), _telling(9, run="")):
        assert (await report(lie)).told == []
    await report(_telling(2, tunnel.Counted("edge", "", 3, 0, 0, 300, 1.0)))
    # Another process of the same instance counts anew.
    await report(_telling(1, tunnel.Counted("edge", "", 2, 0, 0, 200, 1.0), run="r2"))
    found = await site.run("gateway", "traffic")
    ends = {
        one["endpoint"]: (one["role"], one["sums"][0]["requests"], one["sums"][1]["requests"])
        for one in found["endpoints"]
    }
    assert ends == {
        "SMS_MP": ("management-point", 5, 5),
        "SMS_SUP": ("software-update-point", 2, 2),
        "edge": ("gateway", 5, 5),
        "other": ("gateway", 38, 38),
        "refused": ("gateway", 6, 6),
    }
    assert [(one["days"], one["requests"]) for one in found["sums"]] == [(14, 56), (30, 56)]
    (day,) = [one for one in found["by_day"] if one["endpoint"] == "SMS_MP"]
    assert (day["failures"], day["request_bytes"], day["response_bytes"], day["elapsed_ms"]) == (
        1,
        110,
        6_000_000,
        100.0,
    )
    assert {(one["connection_point"], one["endpoint"]) for one in found["by_point"]} == {
        ("CP01", "SMS_MP"),
        ("CP01", "SMS_SUP"),
        ("", "edge"),
        ("", "other"),
        ("", "refused"),
    }
    assert found["online"]["clients"] == 3
    assert found["online"]["connections"] == 7
    # Old days are in the longer sum alone, and their hours become one.
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_gateway_traffic SET hour = hour - interval '20 days'")
    found = await site.run("gateway", "traffic", "--by", "day")
    assert [one["requests"] for one in found["sums"]] == [0, 56]
    async with site.db.transaction() as tx:
        await tx.execute(
            "UPDATE cloud_gateway_traffic SET hour = date_trunc('day', hour - interval '20 days')"
            " + interval '5 hours'"
        )
        await store.fold_gateway_traffic(tx, (site.cloud.now() - timedelta(days=35)).date())
        rows = await (
            await tx.execute("SELECT requests, hour FROM cloud_gateway_traffic ORDER BY 1")
        ).fetchall()
    assert [row["requests"] for row in rows] == [2, 5, 5, 6, 38]
    assert {row["hour"].hour for row in rows} == {0}


async def test_the_log_of_an_instance_on_another_host_is_kept_at_the_site(
    site: Site, point: dict[str, Any]
) -> None:
    """Under the field's name. Instances of this machine write theirs there themselves."""
    kept = site.folder / "logs" / f"CMG-{NAME}-1-CMGService.log"

    def told(sequence: int, *lines: tunnel.LogLine) -> tunnel.GatewayTelling:
        return tunnel.GatewayTelling(NAME, 1, tunnel.Telling("r", sequence, lines=list(lines)))

    async def report(*tellings: tunnel.GatewayTelling) -> None:
        async with site.db.transaction() as tx:
            found = await site.cloud.connections.connection_point(tx, "CP01")
            said = tunnel.ConnectorReport("CP01", tellings=list(tellings))
            await site.cloud.connections.report(tx, found, said)

    line = tunnel.LogLine(1_700_000_000.0, cmtrace.WARNING, "CMGService_Crl_Expired: text")
    before = kept.read_text() if kept.exists() else ""
    await report(told(1, line))
    assert (kept.read_text() if kept.exists() else "") == before
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_gateway SET environment = 'dmz'")
    try:
        odd = tunnel.LogLine(1e300, 77, "a\r\nb" + "x" * 5000)
        again = told(2, line, odd)
        await report(again)
        await report(again)
        said = [cmtrace.message_of(one) or "" for one in kept.read_text().splitlines()]
        assert said == ["CMGService_Crl_Expired: text", "a  b" + "x" * 396]
        assert 'date="11-14-2023" component="CMGService" context="" type="2"' in kept.read_text()
    finally:
        async with site.db.transaction() as tx:
            await tx.execute("UPDATE cloud_gateway SET environment = ''")


async def test_a_connection_point_that_says_the_same_again_is_counted_once(
    site: Site, point: dict[str, Any]
) -> None:
    counted = [tunnel.Traffic(NAME, "SMS_MP", 3, 0, 10, 400, 5.0)]
    told = tunnel.ConnectorReport("CP01", [], counted, "run", 1)
    for again in (told, told, msgspec.structs.replace(told, sequence=2)):
        async with site.db.transaction() as tx:
            found = await site.cloud.connections.connection_point(tx, "CP01")
            await site.cloud.connections.report(tx, found, again)
    async with site.db.transaction() as tx:
        (traffic,) = await site.cloud.connections.traffic(tx)
    assert traffic["requests"] == 6
    # The gateway counted less, or is of the release before: the connection point's count is shown.
    shown = await site.run("gateway", "traffic")
    assert [(one["endpoint"], one["sums"][0]["response_bytes"]) for one in shown["endpoints"]] == [
        ("SMS_MP", 800)
    ]


async def test_connection_points_that_report_at_once_do_not_wait_for_each_other_for_ever(
    site: Site, point: dict[str, Any]
) -> None:
    """They say what they counted in any order, and the sums of a gateway are of both."""
    counted = [tunnel.Traffic(NAME, f"endpoint-{n}", 1, 0, 10, 400, 5.0) for n in range(30)]
    tellings = [
        tunnel.GatewayTelling(
            NAME, n, tunnel.Telling("run", 1, 1, [tunnel.Counted("/SMS_MP", "", 1, 0, 1, 1, 1.0)])
        )
        for n in range(1, 3)
    ]

    async def report(turn: int, name: str, step: int) -> None:
        told = [
            msgspec.structs.replace(
                one, telling=msgspec.structs.replace(one.telling, run=f"{name}x{turn}")
            )
            for one in tellings[::step]
        ]
        said = tunnel.ConnectorReport(name, [], counted[::step], f"{turn}", 1, told)
        async with site.db.transaction() as tx:
            found = await site.cloud.connections.connection_point(tx, name)
            await site.cloud.connections.report(tx, found, said)

    await site.run("connection-point", "add", "CP02", "--folder", site.folder / "cp02")
    for turn in range(1, 6):
        await asyncio.gather(report(turn, "CP01", 1), report(turn, "CP02", -1))
    async with site.db.transaction() as tx:
        traffic = await site.cloud.connections.traffic(tx)
    assert {one["requests"] for one in traffic} == {10}


async def test_a_gateway_with_connection_points_is_not_deleted(
    site: Site, point: dict[str, Any]
) -> None:
    refused = await site.refusal("gateway", "delete", NAME)
    assert "CP01" in refused.message
    await site.run("connection-point", "remove", "CP01")
    await site.run("gateway", "delete", NAME)


async def test_roots_and_revocation_lists_reach_the_gateway(
    site: Site, point: dict[str, Any]
) -> None:
    root = pki.new_root(pki.name("Contoso Clients"), now=utc_now())
    pem, crl = site.folder / "clients.pem", site.folder / "clients.crl"
    pem.write_bytes(pki.pem(root.certificate))
    next_update = utc_now() + timedelta(days=1)
    for number in (1, 2):
        crl.write_bytes(root.crl([], now=utc_now(), next_update=next_update, number=number))
        await site.run("management-point", "add-crl", crl)
    await site.run("management-point", "trust-root", pem)
    published = (await configuration(site)).gateways[0].configuration
    assert published.trusted_roots == [pki.pem(root.certificate).decode()]
    assert len(published.crls) == 1
    refused = await site.refusal("management-point", "add-crl", pem)
    assert "not a certificate revocation list" in refused.message


async def test_a_certificate_of_another_role_is_not_a_connection_points(
    site: Site, point: dict[str, Any]
) -> None:
    """It is known by its fingerprint: being issued by the site's root is not enough."""
    async with site.db.transaction() as tx:
        other = await properties.role_certificate(
            tx, site.box, "other", dns=["other.invalid"], usages=["client"], now=utc_now()
        )
        der = other.certificate.public_bytes(Encoding.DER)
        from tandem.infra.errors import AppError

        with pytest.raises(AppError):
            await site.cloud.connections.authenticate(tx, der)


@pytest.mark.parametrize(
    ("endpoint", "role"),
    [
        ("SMS_MP", "management-point"),
        ("CMG_Content", "distribution-point"),
        ("AdminService", "admin-service"),
        ("/CCM_Proxy_ServerAuth/1/AdminService", "admin-service"),
        ("sms_sup", "software-update-point"),
        ("/CCM_Proxy_ServerAuth/1/SMS_SUP", "software-update-point"),
        ("edge", "gateway"),
    ],
)
def test_a_name_and_a_path_are_of_the_same_role(endpoint: str, role: str) -> None:
    assert traffic.role_of(endpoint) == role
