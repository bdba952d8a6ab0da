"""Gateways on a host that the site reaches by SSH: Debian's sshd and systemd, and real instances."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from cryptography import x509
from msgspec.structs import replace

import site_world
from site_world import NAME, PFX_PASSWORD, Site, create, pfx, ready, shown
from systemd_host import ACCOUNT, PROGRAM, Host, systemd_host
from tandem import pki
from tandem.infra.database import Database
from tandem.site.cloud_services import SshHost, SshSettings
from tandem.site.cloud_services.ssh_provider import Ssh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

UNIT = "tandem-gateway-mycmg-1.service"
FOLDER = "/var/lib/tandem-gateway/tandem-gateway-mycmg-1"


async def until(site: Site, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """A host starts Python like everybody else: on a busy machine that takes its time."""
    async with asyncio.timeout(90):
        while not met(found := await shown(site)):
            await asyncio.sleep(0.1)
    return found


def environment(host: Host) -> SshSettings:
    there = SshHost(
        address=host.address,
        region="Paris",
        host_key=host.host_key,
        ssh_host=host.address,
        port=host.port,
    )
    return SshSettings(
        environment="Datacentre",
        key=host.key,
        hosts=(there,),
        program=PROGRAM,
        account=ACCOUNT,
        seconds=60,
    )


@pytest.fixture
async def placed(site_db: Database, tmp_path: Path) -> AsyncIterator[tuple[Site, Host]]:
    """A site and a host of its environment Datacentre, both in a network of their own."""
    with systemd_host(tmp_path / "host") as host:
        async with site_world.site(site_db, tmp_path, ssh=(environment(host),)) as site:
            here = site.cloud.gateways
            patient = replace(here.settings.gateway, start_seconds=60.0)
            here.settings = replace(here.settings, gateway=patient)
            yield site, host
            async with site.db.transaction() as tx:
                every = await site.cloud.gateways.gateways(tx)
            for item in every:
                await site.cloud.gateways.stop(item.service_name, actor="test")
        # Last, as the site looks after its instances to its end.
        for provider in site.cloud.gateways.providers.values():
            if isinstance(provider, Ssh):
                await provider.aclose()


async def test_an_instance_lives_and_ends_as_a_hardened_service(
    placed: tuple[Site, Host],
) -> None:
    site, host = placed
    found = await site.run("gateway", "check-provider", "--environment", "datacentre")
    assert found["ok"], found
    await create(site, environment="Datacentre", resource_group="cmg-group")
    made = await until(site, lambda seen: seen["state"] in {"Ready", "Failed"})
    assert made["state"] == "Ready", made["reason"]
    assert (made["environment"], made["region"]) == ("Datacentre", "Paris")
    node = made["nodes"][0]
    assert (node["host"], node["state"], node["environment"]) == (
        host.address,
        "running",
        "Datacentre",
    )
    _hardened(host)
    await _secret(site, host, node)
    await _renewed(site, host, node)
    await _gone_and_back(site, host)
    # Nobody is let go while it is used, and nothing of it is left afterwards.
    await site.run("gateway", "stop", NAME)
    assert _active(host) == "inactive"
    assert (await site.run("gateway", "start", NAME))["state"] == "Ready"
    assert _active(host) == "active"
    await site.run("gateway", "delete", NAME)
    assert host.run("ls", "/var/lib/tandem-gateway") == ""
    assert UNIT not in host.run("systemctl", "list-unit-files", "--no-pager")
    assert await site.run("gateway", "list") == []


def _active(host: Host) -> str:
    return host.run("systemctl", "is-active", UNIT, check=False).strip()


def _hardened(host: Host) -> None:
    """systemd understands every line, and thinks well of it; it runs as its account, in its group."""
    assert host.run("systemd-analyze", "verify", "--man=no", UNIT) == ""
    said = host.run("systemd-analyze", "security", "--no-pager", UNIT)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) < 2.0, said
    shown = host.run("systemctl", "show", "-p", "User", "-p", "Slice", "-p", "NRestarts", UNIT)
    assert set(shown.split()) == {
        f"User={ACCOUNT}",
        "Slice=tandem-cmg_group.slice",
        "NRestarts=0",
    }


async def _secret(site: Site, host: Host, node: dict[str, Any]) -> None:
    """Files of the account alone; nothing secret in an argument or in a log."""
    listed = host.run("stat", "-c", "%U %a %n", *(f"{FOLDER}/{name}" for name in (
        "server.pfx", "server.password", "instance.toml", "connector-ca.pem", "state",
    )))  # fmt: skip
    modes = {line.rpartition("/")[2]: line.split()[:2] for line in listed.splitlines()}
    assert modes.pop("state") == [ACCOUNT, "700"]
    assert set(map(tuple, modes.values())) == {(ACCOUNT, "600")}, modes
    async with site.db.transaction() as tx:
        connection_id = (await site.cloud.gateways.gateway(tx, NAME)).connection_id
    log = site.log("CloudMgr") + host.run("journalctl", "--no-pager")
    arguments = host.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    for secret in (PFX_PASSWORD, connection_id):
        assert secret not in log
        assert secret not in arguments


async def _leaf(node: dict[str, Any]) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(
        node["host"], node["port"], ssl=context, server_hostname=NAME
    )
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return pki.sha256_fingerprint(x509.load_der_x509_certificate(der))


async def _leaf_again(node: dict[str, Any]) -> str:
    """Whoever dials in the moment of the change may have to dial again."""
    try:
        return await _leaf(node)
    except ConnectionResetError:
        return ""


async def _renewed(site: Site, host: Host, node: dict[str, Any]) -> None:
    """Another certificate is shown by the process that runs."""
    before = host.run("systemctl", "show", "-p", "MainPID", UNIT)
    file = site.folder / "new.pfx"
    file.write_bytes(pfx(NAME))
    wanted = pki.sha256_fingerprint(pki.pfx_open(file.read_bytes(), PFX_PASSWORD).certificate)
    assert await _leaf(node) != wanted
    await site.run(
        *("gateway", "set", "--pfx", file, "--password-file", site.secret("p", PFX_PASSWORD))
    )
    async with asyncio.timeout(60):
        while await _leaf_again(node) != wanted:
            await asyncio.sleep(0.05)
    assert host.run("systemctl", "show", "-p", "MainPID", UNIT) == before


async def _gone_and_back(site: Site, host: Host) -> None:
    """Somebody stopped it by hand: it is started again, and the reason was said meanwhile."""
    async with asyncio.timeout(60):
        while "configuration is applied" not in site.log("CloudMgr"):
            await asyncio.sleep(0.05)
    host.run("systemctl", "stop", UNIT)
    await site.cloud.gateways.tend()
    await until(site, lambda seen: _active(host) == "active" and seen["state"] == "Ready")
    assert "is gone; starting it" in site.log("CloudMgr")


async def test_a_gateway_moves_to_another_environment_with_a_connection_id_of_its_own(
    placed: tuple[Site, Host],
) -> None:
    site, host = placed
    await create(site)
    before = await until(site, ready)
    async with site.db.transaction() as tx:
        old = (await site.cloud.gateways.gateway(tx, NAME)).connection_id
    moved = await site.run("gateway", "redeploy", "--environment", "Datacentre")
    assert (moved["state"], moved["environment"], moved["region"]) == (
        "Ready",
        "Datacentre",
        "Paris",
    )
    assert [node["host"] for node in moved["nodes"]] == [host.address]
    async with site.db.transaction() as tx:
        assert (await site.cloud.gateways.gateway(tx, NAME)).connection_id != old
    assert before["resource_group"] == moved["resource_group"]
    assert [g["service_name"] for g in await site.run("gateway", "list", "--region", "PARIS")] == [
        NAME
    ]
    assert await site.run("gateway", "list", "--environment", "Tandem") == []
    # Back again, though the host is off: it must not keep the gateway.
    host.run("systemctl", "stop", UNIT)
    host.run("systemctl", "stop", "ssh.service")
    for provider in site.cloud.gateways.providers.values():
        if isinstance(provider, Ssh):
            await provider.aclose()
    again = await site.run("gateway", "redeploy", "--environment", "Tandem")
    assert (again["state"], again["environment"], again["region"]) == ("Ready", "Tandem", "Local")
    assert "was left behind on 127.0.0.21" in site.log("CloudMgr")


async def test_what_is_missing_on_a_host_is_said_before_anything_is_made(
    placed: tuple[Site, Host], tmp_path: Path
) -> None:
    site, host = placed
    right = environment(host)
    there = right.hosts[0]
    other = asyncssh.generate_private_key("ssh-ed25519")
    other.write_private_key(tmp_path / "other_key")
    (tmp_path / "other_key").chmod(0o600)
    (tmp_path / "open_key").write_bytes(host.key.read_bytes())
    (tmp_path / "open_key").chmod(0o644)
    public = other.export_public_key().decode()
    cases: list[tuple[SshSettings, str]] = [
        (replace(right, hosts=(replace(there, host_key=public),)), "shows another host key"),
        (replace(right, hosts=(replace(there, host_key="ssh-ed25519 x"),)), "cannot be read"),
        (replace(right, key=tmp_path / "other_key"), "does not let root in"),
        (replace(right, key=tmp_path / "open_key"), "Others can read the key"),
        (replace(right, key=tmp_path / "no_key"), "cannot be read: No such file"),
        (replace(right, hosts=(replace(there, port=1),)), "is not reached by SSH on port 1"),
        (replace(right, hosts=(replace(there, user="daemon"),)), "does not let daemon in"),
        (replace(right, program="/opt/none/bin/tandem"), "/opt/none/bin/tandem cannot be run"),
        (replace(right, account="nobody-here"), "has no account nobody-here"),
    ]
    gateways = site.cloud.gateways
    for settings, says in cases:
        provider = Ssh(settings, gateways.settings.gateway)
        gateways.providers["Datacentre"] = provider
        refused = await site.refusal("gateway", "check-provider", "--environment", "Datacentre")
        assert refused.code == "gateway.provider"
        assert says in refused.message, (says, refused.message)
        assert refused.cure
        await provider.aclose()
    # Who does not ask first is told by the gateway.
    gateways.providers["Datacentre"] = provider = Ssh(cases[0][0], gateways.settings.gateway)
    await create(site, environment="Datacentre")
    failed = await until(site, lambda seen: seen["state"] == "Failed")
    assert "shows another host key than the one in the settings" in failed["reason"]
    await provider.aclose()


async def test_an_instance_that_cannot_start_leaves_its_words(placed: tuple[Site, Host]) -> None:
    site, host = placed
    port = site.cloud.gateways.settings.gateway.tunnel_port
    taken = await asyncio.start_server(lambda *_: None, host.address, port)
    await create(site, environment="Datacentre")
    failed = await until(site, lambda seen: seen["state"] == "Failed")
    assert "cannot be listened on" in failed["reason"], failed["reason"]
    taken.close()
    await taken.wait_closed()
    assert (await site.run("gateway", "start", NAME))["state"] == "Ready"
    assert (await shown(site))["reason"] == ""
