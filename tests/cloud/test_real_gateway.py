"""The real gateway and the real connection point, as the site provisions and configures them."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import site_world
import tenant_world
from scripts_world import REDIRECT, SCOPE, add_ada, register
from site_world import NAME, PFX_PASSWORD, Site, admin, connect, pfx
from tandem.infra.database import Database
from tandem.site.cloud_services.gateways import INSTANCE

pytestmark = pytest.mark.slow


@pytest.fixture
async def contoso(
    site_db: Database, tenant_db: Database, tmp_path: Path
) -> AsyncIterator[tuple[Site, tenant_world.World]]:
    (tmp_path / "tenant").mkdir()
    async with tenant_world.live(tenant_db, tmp_path / "tenant") as (world, root):
        base = world.tokens.settings.base
        async with site_world.site(site_db, tmp_path, base, root, INSTANCE) as made:
            yield made, world


async def test_a_client_on_the_internet_reaches_what_is_published_and_nothing_else(
    contoso: tuple[Site, tenant_world.World],
) -> None:
    site, world = contoso
    await connect(site)
    file, public_root = site.folder / "cmg.pfx", site.folder / "public.pem"
    file.write_bytes(pfx(NAME, "localhost", root_file=public_root))
    made = await site.run(
        *("gateway", "create", "--pfx", file, "--password-file", site.secret("p", PFX_PASSWORD)),
        *admin(site),
    )
    assert made["state"] == "Ready"
    point = await site.run(
        *("connection-point", "add", "CP01", "--folder", site.folder / "cp01"),
        *("--gateway-ca-file", public_root, "--report-seconds", "0.2"),
    )
    # In the test the management point's certificate is of a root of its own.
    (site.folder / "cp01" / "root.pem").write_bytes((site.folder / "site-root.pem").read_bytes())
    connector = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tandem.cli", "connector", "run", "--config", point["settings"])
    )
    try:
        await _connected(site)
        role = (await site.run("management-point", "set", "--allow-gateway-traffic"))["role_id"]
        await _look(site, world, made["nodes"][0], public_root, role)
        await _updates(site, made["nodes"][0], public_root, role)
        await _analyzed(site, made["nodes"][0])
        await _scripts(site, world, made["nodes"][0], public_root, role)
    finally:
        connector.terminate()
        await connector.wait()


async def _connected(site: Site) -> None:
    for _ in range(100):
        shown = await site.run("connection-point", "show")
        if shown["connected"]:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(shown)


async def _look(
    site: Site, world: tenant_world.World, node: dict[str, Any], root: Path, role: str
) -> None:
    tls = ssl.create_default_context(cafile=str(root))
    base = f"https://{node['host']}:{node['port']}"
    named = {"extensions": {"sni_hostname": NAME}, "headers": {"Host": NAME}}
    async with httpx.AsyncClient(base_url=base, verify=tls, trust_env=False) as client:
        where = f"/CCM_Proxy_ServerAuth/AADAuthInfo?TenantID={world.tenant.id}"
        info = (await client.get(where, **named)).json()  # type: ignore[arg-type]
        assert info["resourceUri"] == "https://ConfigMgrService"
        server = f"/CCM_Proxy_ServerAuth/{role}"
        for _ in range(50):  # The news of the published endpoints is on its way.
            answer = await client.get(f"{server}/SMS_MP/.sms_aut?MPLIST", **named)  # type: ignore[arg-type]
            if answer.status_code == 401:
                break
            await asyncio.sleep(0.1)
        assert answer.status_code == 401, answer.text  # Published, but not for the nameless.
        hidden = await client.get(f"{server}/SMS_CMG/connector/configuration", **named)  # type: ignore[arg-type]
        assert hidden.status_code in {403, 404}, hidden.text


async def _updates(site: Site, node: dict[str, Any], root: Path, management: str) -> None:
    """The software update point is published and withdrawn by itself, under its own number; who
    keeps a connection open is refused on it like everybody else."""
    tls = ssl.create_default_context(cafile=str(root))
    base = f"https://{node['host']}:{node['port']}"
    named: dict[str, Any] = {"extensions": {"sni_hostname": NAME}, "headers": {"Host": NAME}}
    role = (await site.run("software-update-point", "show"))["role_id"]
    path = f"/CCM_Proxy_ServerAuth/{role}/SMS_SUP/.sms_upd"
    web = httpx.AsyncClient(base_url=base, verify=tls, trust_env=False)
    kept = httpx.AsyncClient(
        base_url=base, verify=tls, trust_env=False, limits=httpx.Limits(max_connections=1)
    )

    async def known() -> tuple[int, Any]:
        """The gateway's configuration, and the connection that this was asked on."""
        answer = await kept.get("/CCM_Proxy_ServerAuth/ServiceMetadata", **named)
        at = answer.extensions["network_stream"].get_extra_info("client_addr")
        return answer.json()["configurationVersion"], at

    async with web, kept:
        closed = await web.get(path, **named)
        assert (closed.status_code, closed.json()["error"]["code"]) == (
            403,
            "CMGService_Not_Published",
        )
        shown = await site.run("software-update-point", "set", "--allow-gateway-traffic")
        assert shown["gateway_host"] == f"{NAME}:{node['port']}/CCM_Proxy_MutualAuth/{role}"
        assert [one["prefix"] for one in shown["endpoints"]] == [
            f"/CCM_Proxy_{entry}/{role}/SMS_SUP" for entry in ("ServerAuth", "MutualAuth")
        ]
        for _ in range(50):  # The news is on its way.
            answer = await web.get(path, **named)
            if answer.status_code == 401:
                break
            await asyncio.sleep(0.1)
        assert answer.status_code == 401, answer.text  # Published, but not for the nameless.
        for other in (f"{role}/SMS_MP/.sms_pol", f"{management}/SMS_SUP/.sms_upd"):
            answer = await web.get(f"/CCM_Proxy_ServerAuth/{other}", **named)
            assert answer.status_code == 403, answer.text
        before, at = await known()
        await site.run("software-update-point", "set", "--no-allow-gateway-traffic")
        for _ in range(50):
            if (await known()) != (before, at):
                break
            await asyncio.sleep(0.1)
        assert await known() == (before + 1, at)
        closed = await kept.get(path, **named)
        assert closed.status_code == 403, closed.text
        assert closed.json()["error"]["code"] == "CMGService_Not_Published"
        assert "software update point" in closed.json()["error"]["cure"]


async def _analyzed(site: Site, node: dict[str, Any]) -> None:
    """The connection analyzer walks a device's way to its end, and says where it is cut."""
    site.names.aliases[NAME] = "mycmg.cloudapp.example"
    site.names.hosts["mycmg.cloudapp.example"] = [node["host"]]
    found = await site.run("gateway", "analyze")
    assert found["ok"], found["checks"]
    assert {item["state"] for item in found["checks"]} == {"good"}
    stranger = site.folder / "stranger.pfx"
    stranger.write_bytes(pfx(NAME, usages=["client"]))
    words = ("--client-pfx", stranger, "--password-file", site.secret("p", PFX_PASSWORD))
    rows = {
        item["check"]: item
        for item in (await site.run("gateway", "analyze", *words))["checks"]
        if item["state"] == "bad"
    }
    assert set(rows) == {"identity", "management-point"}
    assert rows["management-point"]["cause"] == "probe.not-believed"
    assert "CMGService_" in rows["management-point"]["text"]
    assert (await site.run("health", "show"))["state"] == "good"


async def _scripts(
    site: Site, world: tenant_world.World, node: dict[str, Any], root: Path, role: str
) -> None:
    """The AdminService through both entries, for an administrator's token of a published app."""
    await add_ada(site, world)
    app_id = await register(world)
    tokens = await world.user_tokens(
        SCOPE, upn="ada@contoso.com", client_id=app_id, redirect=REDIRECT
    )
    headers = {"Host": NAME, "Authorization": f"Bearer {tokens['access_token']}"}
    tls = ssl.create_default_context(cafile=str(root))
    base = f"https://{node['host']}:{node['port']}"
    named: dict[str, Any] = {"extensions": {"sni_hostname": NAME}}
    paths = [f"/CCM_Proxy_{entry}/{role}/AdminService" for entry in ("MutualAuth", "ServerAuth")]
    async with httpx.AsyncClient(base_url=base, verify=tls, trust_env=False) as client:
        closed = await client.get(f"{paths[0]}/wmi/SMS_Site", headers=headers, **named)
        assert closed.status_code == 403
        assert "CMGService_Not_Published" in closed.text
        await site.run("management-point", "publish-adminservice", app_id)
        for path in paths:
            for _ in range(50):  # The news is on its way.
                answer = await client.get(
                    f"{path}/wmi/SMS_Site?$select=SiteCode", headers=headers, **named
                )
                if answer.status_code == 200:
                    break
                await asyncio.sleep(0.1)
            assert answer.status_code == 200, answer.text
            assert [item["SiteCode"] for item in answer.json()["value"]] == ["CM1"]
            outside = f"https://{NAME}:{node['port']}{path}/wmi/$metadata#SMS_Site"
            assert answer.json()["@odata.context"] == outside
        nameless = await client.get(f"{path}/wmi/SMS_Site", headers={"Host": NAME}, **named)
        assert nameless.status_code == 401
        written = await client.post(
            f"{path}/wmi/SMS_Collection", json={"Name": "x"}, headers=headers, **named
        )
        assert written.status_code == 405  # Reading was published, and nothing else.
