import asyncio
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from one_site import PACKAGE, TENANT, Site, log, renamed
from tandem import pki
from tandem.agent import Bootstrap, Client, Machine
from tandem.agent.folder import Folder
from tandem.agent.spool import Spool
from tandem.protocols import ccm


async def setup(machine: Machine, command_line: str):
    return await Bootstrap(machine, command_line).run(asyncio.Event())


async def test_the_command_line_alone_installs_the_client(site: Site, machine: Machine) -> None:
    result = await setup(machine, site.command_line)
    assert (result.code, result.state, result.version) == (0, 400, "0.1.0")
    assert (machine.state / "CCM" / "client" / "client.whl").read_bytes() == PACKAGE
    assert machine.mdm.info.setup == 400
    said = log(machine, "ccmsetup")
    service = site.host.split("/")[0]
    base = f"https://{service}/CCM_Proxy_ServerAuth/72057594037927941"
    for line in (
        f"Getting AAD info from CMG '{service}'",
        "Getting AAD (device) token with: ClientId = app, ResourceUrl = "
        "https://ConfigMgrService, AccountId = LAB-001",
        f"Getting CCM Token from {base}/CCM_STS",
        "CCMSETUP bootstrap from Internet: 1",
        f"Found a valid online MP '{base}'.",
    ):
        assert line in said
    assert any(line.startswith("Cached encrypted token for 'S-1-5-18'.") for line in said)


async def test_a_second_run_finds_the_client_installed(site: Site, installed: Machine) -> None:
    site.seen.clear()
    result = await setup(installed, site.command_line)
    assert result.code == 0
    assert site.seen == []


async def test_a_setup_anew_leaves_the_clients_messages_to_the_client(
    site: Site, installed: Machine
) -> None:
    """A set-up does not say whose it is: the site would take what the client says, and not act."""
    client = Client(installed)
    await client.step()
    client._report(ccm.HEARTBEAT_TOPIC, 1, {})
    again = site.command_line.replace('="', '="/forceinstall ', 1)
    assert (await setup(installed, again)).code == 0
    waiting = Spool(Folder(installed.state / "CCM").below("spool")).oldest(100)
    assert ccm.HEARTBEAT_TOPIC in [one.topic for one in waiting]


async def test_the_users_token_stands_in_for_the_devices(site: Site, machine: Machine) -> None:
    machine.directory.device_tokens = False
    assert (await setup(machine, site.command_line)).code == 0
    assert any("Falling back to get user" in line for line in log(machine, "ccmsetup"))


async def test_without_any_token_the_setup_ends_and_says_so(site: Site, machine: Machine) -> None:
    machine.directory.device_tokens = machine.directory.user_tokens = False
    result = await setup(machine, site.command_line)
    assert (result.code, result.state) == (6, 301)
    assert "Nobody is signed in" in result.message
    assert "Nobody is signed in" in machine.mdm.info.log


async def test_a_device_that_is_not_joined_is_told_to_join(site: Site, machine: Machine) -> None:
    machine.directory.device = None
    result = await setup(machine, site.command_line)
    assert result.code == 6
    assert "not joined" in result.message
    assert "Join the device" in result.cure


async def test_a_tenant_that_is_not_onboarded_ends_the_setup(site: Site, machine: Machine) -> None:
    site.onboarded = False
    result = await setup(machine, site.command_line)
    assert (result.code, result.state) == (6, 322)
    assert TENANT in result.message
    assert "Azure Services" in result.cure


async def test_an_unknown_site_code_names_the_right_one(site: Site, machine: Machine) -> None:
    site.site_code = "XYZ"
    result = await setup(machine, site.command_line)
    assert (result.code, result.state) == (6, 602)
    assert "XYZ" in result.message
    assert "SMSSITECODE=CM1" in result.cure
    assert machine.mdm.info.setup == 602


async def test_a_broken_download_goes_on_where_it_stopped(site: Site, machine: Machine) -> None:
    site.cut_downloads = 2
    assert (await setup(machine, site.command_line)).code == 0
    ranges = [
        r.headers.get("range") for r in site.seen if r.url.path.endswith(site.manifest.sha256)
    ]
    assert ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert (machine.state / "CCM" / "client" / "client.whl").read_bytes() == PACKAGE


async def test_a_killed_setup_keeps_what_it_downloaded(site: Site, machine: Machine) -> None:
    part = machine.state / "ccmsetup" / f"{site.manifest.sha256}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(PACKAGE[:300_000])
    assert (await setup(machine, site.command_line)).code == 0
    assert [
        r.headers.get("range") for r in site.seen if r.url.path.endswith(site.manifest.sha256)
    ] == ["bytes=300000-"]


async def test_altered_bytes_end_the_setup_with_code_10(site: Site, machine: Machine) -> None:
    site.package = PACKAGE[:-1] + b"!"
    result = await setup(machine, site.command_line)
    assert (result.code, result.state) == (10, 325)
    assert not (machine.state / "CCM" / "client.json").exists()
    assert list((machine.state / "ccmsetup").glob("*.part")) == []


async def test_a_manifest_of_another_signer_ends_the_setup(site: Site, machine: Machine) -> None:
    impostor = pki.new_root(pki.name("SMS Issuing"), now=site.now())
    key = pki.generate_key()
    leaf = impostor.issue(
        key.public_key(), pki.name("Site Server Signing"), now=site.now(), days=9, usages=["code"]
    )
    forged = ccm.seal(
        "manifest", site.manifest, ccm.SigningIdentity(key, leaf, impostor.certificate)
    )
    site.relay = lambda r: Response(forged) if r.url.path.endswith("/manifest") else None
    result = await setup(machine, site.command_line)
    assert (result.code, result.state) == (10, 314)
    assert "not by the site that this device trusts" in result.message


async def test_a_rebuilt_site_is_not_trusted(site: Site, machine: Machine, tmp_path: Path) -> None:
    other = pki.new_root(pki.name("SMS Issuing"), now=site.now()).certificate
    result = await setup(renamed(machine, tmp_path / "d2", trusted_root=other), site.command_line)
    assert (result.code, result.state) == (6, 605)


async def test_a_gateway_that_is_down_is_waited_for(site: Site, machine: Machine) -> None:
    answers = [Response(status_code=503), Response(status_code=503)]
    site.relay = lambda r: answers.pop() if answers else None
    result = await setup(machine, site.command_line)
    assert result.code == 0
    assert "Next retry in 10 minute(s)..." in log(machine, "ccmsetup")


async def test_the_wait_ends_after_downloadtimeout(site: Site, machine: Machine) -> None:
    site.relay = lambda r: Response(status_code=503)
    line = site.command_line.replace('"CCM', '"/downloadtimeout:30 /retry:10 CCM')
    result = await setup(machine, line)
    assert (result.code, result.state) == (6, 308)


async def test_two_setups_at_once_are_one_too_many(site: Site, machine: Machine) -> None:
    one, two = await asyncio.gather(
        setup(machine, site.command_line), setup(machine, site.command_line)
    )
    assert sorted([one.code, two.code]) == [0, 8]


async def test_setup_steps_reach_the_site_before_registration(site: Site, machine: Machine) -> None:
    site.package = PACKAGE[:-1] + b"!"
    await setup(machine, site.command_line)
    async with site.db.transaction() as tx:
        from tandem.site import clients

        (state,) = await clients.setup_states(tx)
    assert (state.device_id, state.state) == ("d1", 325)
    assert state.data["code"] == "setup.wrong-hash"


async def test_an_untrusted_gateway_certificate_is_named_by_its_flag(
    site: Site, machine: Machine, tmp_path: Path
) -> None:
    from tandem.infra import net

    other = tmp_path / "other.pem"
    other.write_bytes(pki.pem(pki.new_root(pki.name("Other"), now=site.now()).certificate))
    async with net.client(ca_file=other) as web:
        line = site.command_line.replace('"CCM', '"/downloadtimeout:1 /retry:1 CCM')
        result = await setup(renamed(machine, tmp_path / "d2", http=web), line)
    assert "WINHTTP_CALLBACK_STATUS_FLAG_INVALID_CA" in result.message


async def test_a_token_that_is_refused_during_the_download_is_replaced(
    site: Site, machine: Machine
) -> None:
    refusals = [Response(status_code=401)]

    def relay(request: Request) -> Response | None:
        wanted = request.url.path.endswith(site.manifest.sha256)
        return refusals.pop() if wanted and refusals else None

    site.relay = relay
    assert (await setup(machine, site.command_line)).code == 0
    assert [r.url.path.rsplit("/", 1)[1] for r in site.seen].count("CCM_STS") == 2


async def test_the_log_sizes_of_the_command_line_hold_for_setup_and_client(
    site: Site, machine: Machine
) -> None:
    line = site.command_line.replace('"CCM', '"CCMLOGMAXSIZE=10000 CCMLOGMAXHISTORY=2 CCM')
    assert (await setup(machine, line)).code == 0
    client = Client(machine)
    for _ in range(150):
        client.wake()
        await client.step()
    files = sorted(machine.logs.glob("PolicyAgent*"))
    assert len(files) == 3
    assert all(file.stat().st_size <= 10_000 for file in files)


async def test_uninstalling_leaves_no_client(site: Site, installed: Machine) -> None:
    assert (await setup(installed, 'CCMSETUPCMD="/uninstall"')).code == 0
    with pytest.raises(Exception, match="not installed"):
        Client(installed)
