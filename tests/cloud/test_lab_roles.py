"""The lab's own DNS and public CA, as a lab meets them: over the network."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import dns.rcode
import httpx
import pytest
from cryptography import x509

from site_world import free_ports
from tandem import pki
from tandem.infra.net import DnsUnavailable, NameNotResolved, Resolver
from tandem.roles import lab_ca, lab_dns


@asynccontextmanager
async def running(main: Callable[[asyncio.Event], Awaitable[None]], url: str) -> Any:
    stop = asyncio.Event()
    task = asyncio.ensure_future(main(stop))
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for _ in range(100):
            try:
                await client.get("/readyz")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
        yield client
    stop.set()
    await task


@asynccontextmanager
async def dns_server(folder: Path) -> Any:
    port = free_ports(2)
    settings = lab_dns.LabDnsSettings(state=folder / "dns", port=port, control_port=port + 1)
    url = f"http://127.0.0.1:{port + 1}"
    async with running(lambda stop: lab_dns._main(settings, stop), url) as control:
        yield control, Resolver(f"127.0.0.1:{port}"), port


async def test_names_of_the_lab_resolve_as_records_say(tmp_path: Path) -> None:
    async with dns_server(tmp_path) as (control, resolver, port):
        with pytest.raises(NameNotResolved):
            await resolver.addresses("mycmg.contoso.com")
        hosts = ["127.0.0.11", "127.0.0.12"]
        deployed = "mycmg.cloudapp.example"
        await control.put(f"/records/{deployed}", json={"kind": "A", "values": hosts})
        alias = {"kind": "CNAME", "values": [deployed]}
        await control.put("/records/mycmg.contoso.com", json=alias)
        assert await resolver.cname("MyCMG.contoso.com") == deployed
        assert sorted(await resolver.addresses("mycmg.contoso.com")) == hosts
        query = dns.message.make_query("mycmg.contoso.com", "A")
        answer = await dns.asyncquery.tcp(query, "127.0.0.1", port=port, timeout=5)
        assert len(answer.answer) == 2
        nobody = dns.message.make_query("nobody.contoso.com", "A")
        answer = await dns.asyncquery.udp(nobody, "127.0.0.1", port=port, timeout=5)
        assert answer.rcode() == dns.rcode.NXDOMAIN
    # A second start knows them still.
    async with dns_server(tmp_path) as (control, resolver, _):
        assert await resolver.cname("mycmg.contoso.com") == deployed
        await control.delete("/records/mycmg.contoso.com")
        assert await resolver.cname("mycmg.contoso.com") is None


async def test_a_dns_server_that_is_away_is_not_taken_for_a_missing_record() -> None:
    resolver = Resolver(f"127.0.0.1:{free_ports()}")
    resolver.patience = 0.3
    for asked in (resolver.addresses, resolver.cname):
        with pytest.raises(DnsUnavailable) as refused:
            await asked("mycmg.contoso.com")
        assert refused.value.cure


async def test_the_public_ca_answers_a_request_with_the_whole_path(tmp_path: Path) -> None:
    port = free_ports()
    settings = lab_ca.LabCaSettings(
        state=tmp_path / "ca", port=port, addresses=["127.0.0.11", "127.0.0.12"]
    )
    name = "mycmg.contoso.com"
    key = pki.generate_key("rsa2048")
    request = pki.certificate_request(key, pki.name(name, country="US"), [name])
    url = f"http://127.0.0.1:{port}"
    for _ in range(2):  # The authority is the same after a second start.
        async with running(lambda stop: lab_ca._main(settings, stop), url) as client:
            answer = await client.post("/certificates", content=request)
            assert answer.status_code == 201
            root = pki.read_certificates((await client.get("/root.pem")).content)
            refused = await client.post("/certificates", content=b"not a request")
            assert refused.status_code == 400
        leaf, *path = pki.read_certificates(answer.content)
        assert pki.build_path(leaf, path).complete
        assert path[-1] == root[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        # lab.json promises https://localhost and 127.0.0.x.
        assert names.get_values_for_type(x509.DNSName) == [name, "localhost"]
        addresses = [str(item) for item in names.get_values_for_type(x509.IPAddress)]
        assert addresses == ["127.0.0.11", "127.0.0.12"]
