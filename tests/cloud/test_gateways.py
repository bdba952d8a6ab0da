"""Tutorial step 3: gateways are processes of this machine that outlive the site."""

import asyncio
import os
import signal
from typing import Any

import psutil
import pytest

from site_world import NAME, PFX_PASSWORD, Site, admin, connect, create, pfx, ready, shown, until
from tandem.infra.clock import utc_now
from tandem.infra.errors import AppError
from tandem.site import administrators
from tandem.site.cloud_services import GatewayExists, GatewayInstance, NameTaken
from tenant_world import World


@pytest.fixture
async def gateway(site: Site) -> dict[str, Any]:
    await create(site, instances=2)
    return await until(site, ready)


async def test_the_wizard_fills_in_names_and_the_state_goes_to_ready(
    contoso: tuple[Site, World],
) -> None:
    site, world = contoso
    await connect(site)
    file = site.folder / "cmg.pfx"
    file.write_bytes(pfx(NAME, "localhost"))
    found = await site.run(
        *("gateway", "create", "--pfx", file, "--password-file", site.secret("p", PFX_PASSWORD)),
        *("--instances", "2", "--resource-group", "cmg", *admin(site)),
    )
    assert found["state"] == "Ready"
    assert found["service_name"] == NAME
    assert found["deployment_name"] == "mycmg.cloudapp.example"
    assert (found["region"], found["resource_group"]) == ("Local", "cmg")
    assert found["tenant_id"] == world.tenant.id
    assert found["check_revocation"]
    assert [node["host"] for node in found["nodes"]] == ["127.0.0.11", "127.0.0.12"]
    assert found["notes"] == []
    assert "Service mycmg.contoso.com is Ready" in site.log("CloudMgr")


async def test_a_gateway_without_a_connected_tenant_is_refused(contoso: tuple[Site, World]) -> None:
    site, _ = contoso
    file = site.folder / "cmg.pfx"
    file.write_bytes(pfx(NAME))
    refused = await site.refusal(
        *("gateway", "create", "--pfx", file, "--password-file", site.secret("p", PFX_PASSWORD)),
        *admin(site),
    )
    assert refused.code == "azure-service.not-found"


async def test_what_cannot_become_a_gateway_is_refused(site: Site) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"password": "wrong"}, "does not open this PFX"),
        ({"pfx": b"PNG"}, "not a PFX"),
        ({"pfx": pfx(NAME, whole=False)}, "lacks the certificate of CN=Public CA"),
        ({"instances": 17}, "1 to 16 instances"),
        ({"instances": 3}, "free addresses for 2 instances"),
        ({"region": "Mars"}, "no region 'Mars'"),
        ({"pfx": pfx("*.contoso.com")}, "a wildcard"),
        ({"pfx": pfx("my-cmg.contoso.com")}, "can be a service name"),
        ({"service_name": "other.contoso.com"}, "not for other.contoso.com"),
        ({"pfx": pfx(NAME, usages=["client"])}, "not for servers"),
        ({"pfx": pfx(NAME, begins=1)}, "valid only from"),
        ({"pfx": pfx(NAME, begins=-60)}, "expired"),
    ]
    for changes, says in cases:
        with pytest.raises(AppError) as refused:
            await create(site, **changes)
        assert says in refused.value.message
    assert await site.run("gateway", "list") == []


async def test_a_wildcard_certificate_serves_a_named_service_and_mixed_case_is_said(
    contoso: tuple[Site, World],
) -> None:
    site, _ = contoso
    await connect(site)
    file = site.folder / "wildcard.pfx"
    file.write_bytes(pfx("*.contoso.com"))
    words = ("gateway", "create", "--pfx", file, "--no-wait", *admin(site))
    words += ("--password-file", site.secret("p", PFX_PASSWORD))
    made = await site.run(*words, "--service-name", "MyCMG.Contoso.com")
    assert made["service_name"] == NAME
    assert made["notes"] == ["MyCMG.Contoso.com is written mycmg.contoso.com."]


async def test_a_name_in_mixed_case_in_the_certificate_is_folded_and_said(
    contoso: tuple[Site, World],
) -> None:
    site, _ = contoso
    await connect(site)
    file = site.folder / "mixed.pfx"
    file.write_bytes(pfx("MyCMG.contoso.com"))
    made = await site.run(
        *("gateway", "create", "--pfx", file, "--no-wait", *admin(site)),
        *("--password-file", site.secret("p", PFX_PASSWORD)),
    )
    assert made["service_name"] == NAME
    assert made["notes"] == ["MyCMG.contoso.com is written mycmg.contoso.com."]


async def test_an_instance_that_cannot_start_fails_the_gateway_with_its_words(
    site: Site,
) -> None:
    (site.folder / "gateways" / NAME).mkdir(parents=True)
    refuse = site.folder / "gateways" / NAME / "refuse"
    refuse.touch()
    await create(site)
    found = await until(site, lambda seen: seen["state"] == "Failed")
    assert "The port is in use by somebody else." in found["reason"]
    refuse.unlink()
    assert (await site.run("gateway", "start", NAME))["state"] == "Ready"


async def test_a_killed_instance_is_started_again(site: Site, gateway: dict[str, Any]) -> None:
    first, second = (node["pid"] for node in gateway["nodes"])
    os.kill(first, signal.SIGKILL)
    for _ in range(100):
        await site.cloud.gateways.tend()
        nodes = (await shown(site))["nodes"]
        if nodes[0]["pid"] != first and all(node["state"] == "running" for node in nodes):
            break
        await asyncio.sleep(0.05)
    assert [node["state"] for node in nodes] == ["running", "running"]
    assert nodes[0]["pid"] != first
    assert nodes[1]["pid"] == second
    assert "is gone; starting it" in site.log("CloudMgr")


async def test_an_instance_that_hangs_is_ended_and_started_again(
    site: Site, gateway: dict[str, Any]
) -> None:
    first = gateway["nodes"][0]["pid"]
    os.kill(first, signal.SIGSTOP)
    here = site.cloud.gateways
    here.answer_seconds = 0.2
    for _ in range(3):
        await here.tend()
        assert (await shown(site))["nodes"][0]["pid"] == first
    assert "does not answer" in (await shown(site))["reason"]
    asyncio.get_running_loop().call_later(0.2, os.kill, first, signal.SIGCONT)
    await here.tend()
    assert (await shown(site))["nodes"][0]["pid"] != first
    here.answer_seconds = 2.0
    for _ in range(100):
        await here.tend()
        if (await shown(site))["reason"] == "":
            break
        await asyncio.sleep(0.05)
    assert (await shown(site))["nodes"][0]["state"] == "running"


async def test_a_site_that_starts_again_takes_its_gateways_over(
    site: Site, gateway: dict[str, Any]
) -> None:
    """The processes are found again by id and start time: none is started twice."""
    pids = [node["pid"] for node in gateway["nodes"]]
    again = _another_site(site)
    await again.resume()
    await again.tend()
    assert [node["pid"] for node in (await shown(site))["nodes"]] == pids
    assert all(psutil.pid_exists(pid) for pid in pids)


async def test_a_process_that_merely_has_the_number_is_not_taken_for_an_instance(
    site: Site, gateway: dict[str, Any]
) -> None:
    from tandem.site.cloud_services import providers

    node = gateway["nodes"][0]
    values = {name: node[name] for name in GatewayInstance.__dataclass_fields__}
    assert providers.process_of(GatewayInstance(**values)) is not None
    stranger = {**values, "pid": os.getpid()}
    assert providers.process_of(GatewayInstance(**stranger)) is None


async def test_an_instance_whose_number_was_not_written_down_is_found(
    site: Site, gateway: dict[str, Any]
) -> None:
    """The site was killed between starting a process and recording it."""
    pids = [node["pid"] for node in gateway["nodes"]]
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_instance SET pid = NULL, started = NULL")
    await _another_site(site).tend()
    assert [node["pid"] for node in (await shown(site))["nodes"]] == pids


async def test_a_second_gateway_gets_addresses_that_are_free(site: Site) -> None:
    other = "second.contoso.com"
    await create(site)
    await until(site, ready)
    with pytest.raises(AppError) as refused:
        await create(site, pfx=pfx(other), instances=2)
    assert "free addresses for 1 instances" in refused.value.message
    await create(site, pfx=pfx(other))
    (node,) = (await until(site, ready, other))["nodes"]
    assert node["host"] == "127.0.0.12"


async def test_what_a_site_had_begun_when_it_ended_is_gone_on_with(site: Site) -> None:
    """The site was killed between recording the gateway and starting it; the job is lost too."""
    async with site.db.transaction() as tx:
        await site.cloud.gateways.create(
            tx, pfx=pfx(NAME), password=PFX_PASSWORD, tenant_id="t1", actor="siteadmin"
        )
        await tx.execute("DELETE FROM procrastinate_jobs WHERE status = 'todo'")
    assert (await shown(site))["state"] == "Provisioning"
    await _another_site(site).resume()
    assert (await shown(site))["state"] == "Ready"


def _another_site(site: Site) -> Any:
    from tandem.infra.jobs import Jobs
    from tandem.site import cloud_services

    here = site.cloud.gateways
    return cloud_services.Gateways(
        site.db,
        here.settings,
        site.box,
        Jobs(site.db.dsn),
        resolver=site.names,
        now=utc_now,
        command=here._command,
    )


async def test_a_stopped_gateway_stays_stopped_until_it_is_started(
    site: Site, gateway: dict[str, Any]
) -> None:
    assert (await site.run("gateway", "stop", NAME))["state"] == "Stopped"
    await site.cloud.gateways.tend()
    assert not any(psutil.pid_exists(node["pid"]) for node in gateway["nodes"])
    assert (await site.run("gateway", "start", NAME))["state"] == "Ready"


def _hold(site: Site) -> Any:
    """Instances start and answer nothing until the returned file is removed."""
    folder = site.folder / "gateways" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hold").touch()
    return folder / "hold"


async def test_a_gateway_deleted_while_it_is_being_made_is_deleted(site: Site) -> None:
    """What was acknowledged is done: becoming Ready does not undo it."""
    hold = _hold(site)
    await create(site)
    seen = await until(site, lambda found: bool(found["nodes"] and found["nodes"][0]["pid"]))
    assert seen["state"] == "Starting"
    await site.run("gateway", "delete", NAME, "--no-wait")
    hold.unlink()
    for _ in range(100):
        if await site.run("gateway", "list") == []:
            break
        await asyncio.sleep(0.05)
    assert await site.run("gateway", "list") == []
    assert not psutil.pid_exists(seen["nodes"][0]["pid"])


async def test_a_gateway_stopped_while_it_is_being_made_stays_stopped(site: Site) -> None:
    hold = _hold(site)
    await create(site)
    seen = await until(site, lambda found: bool(found["nodes"] and found["nodes"][0]["pid"]))
    assert (await site.run("gateway", "stop", NAME))["state"] == "Stopped"
    hold.unlink()
    assert not psutil.pid_exists(seen["nodes"][0]["pid"])
    await site.cloud.gateways.tend()
    assert (await shown(site))["state"] == "Stopped"
    assert (await site.run("gateway", "start", NAME))["state"] == "Ready"


async def test_a_gateway_that_is_being_deleted_is_neither_stopped_nor_started(site: Site) -> None:
    """Either would let its deletion be forgotten."""
    _hold(site)
    await create(site)
    await until(site, lambda found: bool(found["nodes"] and found["nodes"][0]["pid"]))
    async with site.db.transaction() as tx:
        await site.cloud.gateways.delete(tx, NAME, actor="siteadmin")
        await tx.execute("DELETE FROM procrastinate_jobs WHERE status = 'todo'")
    for verb in ("stop", "start"):
        refused = await site.refusal("gateway", verb, NAME)
        assert refused.code == "gateway.being-deleted"
        assert "being deleted" in refused.message
    await _another_site(site).resume()
    assert await site.run("gateway", "list") == []


async def test_starting_a_gateway_that_is_ready_changes_nothing(
    site: Site, gateway: dict[str, Any]
) -> None:
    again = await site.run("gateway", "start", NAME, "--no-wait")
    assert again["state"] == "Ready"
    assert [node["pid"] for node in again["nodes"]] == [node["pid"] for node in gateway["nodes"]]


async def test_a_site_killed_while_it_stopped_a_gateway_goes_on_with_it(
    site: Site, gateway: dict[str, Any]
) -> None:
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_gateway SET state = 'Stopped'")
    await _another_site(site).resume()
    assert not any(psutil.pid_exists(node["pid"]) for node in gateway["nodes"])
    assert [node["state"] for node in (await shown(site))["nodes"]] == ["stopped", "stopped"]


async def test_a_deleted_gateway_leaves_no_process_and_no_file(
    site: Site, gateway: dict[str, Any]
) -> None:
    async with site.db.transaction() as tx:
        await administrators.created(tx, "gateway", NAME, ["Default"])
    await site.run("gateway", "delete", NAME)
    assert await site.run("gateway", "list") == []
    # Another one by its name has the scopes of who makes it.
    async with site.db.transaction() as tx:
        assert await administrators.scopes_of(tx, "gateway") == {}
    assert not any(psutil.pid_exists(node["pid"]) for node in gateway["nodes"])
    assert not (site.folder / "gateways" / NAME).exists()


async def test_secrets_of_a_gateway_are_private_files(site: Site, gateway: dict[str, Any]) -> None:
    folder = site.folder / "gateways" / NAME
    for file in [folder, *folder.rglob("*")]:
        if file.suffix != ".out":
            assert file.stat().st_mode & 0o077 == 0, file
    command = psutil.Process(gateway["nodes"][0]["pid"]).cmdline()
    assert PFX_PASSWORD not in " ".join(command)


async def test_dns_says_what_is_missing(site: Site) -> None:
    await create(site)
    await until(site, ready)
    record = f"{NAME}. CNAME mycmg.cloudapp.example."
    refused = await site.refusal("gateway", "check-dns")
    assert "no CNAME record" in refused.message
    assert record in refused.cure
    site.names.aliases[NAME] = "elsewhere.example"
    assert "leads to elsewhere.example" in (await site.refusal("gateway", "check-dns")).message
    site.names.aliases[NAME] = "mycmg.cloudapp.example"
    refused = await site.refusal("gateway", "check-dns")
    assert "mycmg.cloudapp.example has no address" in refused.message
    assert "127.0.0.11" in refused.cure
    site.names.hosts["mycmg.cloudapp.example"] = ["127.0.0.11"]
    site.names.away = True
    assert (await site.refusal("gateway", "check-dns")).code == "net.dns-unavailable"
    site.names.away = False
    assert (await site.run("dns", "check"))["ok"]
    assert (await site.run("dns", "record"))["record"] == record


async def test_two_gateways_do_not_share_a_name(site: Site) -> None:
    await create(site)
    refused = await site.refusal("gateway", "check-name", NAME)
    assert "this site has a gateway" in refused.message
    assert NameTaken.code == refused.code
    for taken in (NAME, "mycmg.fabrikam.com"):  # The second would have the same deployment name.
        with pytest.raises(GatewayExists):
            await create(site, pfx=pfx(taken))
