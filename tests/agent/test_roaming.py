"""Where a device says it is: by whom it reaches, again when its network changes, and told to the site."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from starlette.responses import Response

from one_site import Moment, Site, log
from tandem.agent import Bootstrap, Client, Machine
from tandem.agent.roaming import network_state
from tandem.site import notifications


def at(site: Site, port: int = 0) -> str:
    return f"SMSMP=https://localhost:{port or site.port}"


async def installed(machine: Machine, line: str) -> Client:
    result = await Bootstrap(machine, line).run(asyncio.Event())
    assert result.code == 0, result
    return Client(machine)


def with_(site: Site, *words: str) -> str:
    return " ".join([site.command_line.split('"')[1], *words])


async def told(site: Site, client: Client) -> notifications.ChannelState:
    async with site.db.transaction() as tx:
        return await notifications.channel_of(tx, client.client_id, now=site.now())


async def test_who_reaches_the_management_point_inside_is_on_the_intranet(
    site: Site, machine: Machine
) -> None:
    """The test's management point answers below the gateway's prefix and without it."""
    client = await installed(machine, with_(site, at(site)))
    await client.step()
    site.seen.clear()
    client.wake()
    await client.step()
    paths = {request.url.path for request in site.seen}
    assert "/SMS_MP/.sms_pol" in paths
    assert not [path for path in paths if "CCM_Proxy" in path]
    assert "Currently intranet" in log(machine, "LocationServices")
    found = await told(site, client)
    assert found.location.network == "intranet"
    assert found.location.reason == f"https://localhost:{site.port} answers."


async def test_a_change_of_the_network_is_noticed_and_explained(
    site: Site, machine: Machine, moment: Moment
) -> None:
    network = ["office"]
    here = replace(machine, network=lambda: network[0])
    client = await installed(here, with_(site, at(site)))
    await client.step()
    site.relay = lambda r: Response(status_code=503) if "CCM_Proxy" not in r.url.path else None
    asked = len(site.seen)
    await client.step()
    assert not [r for r in site.seen[asked:] if "MPLIST" in r.url.query]
    network[0] = "hotel"
    moment.passes(minutes=5)
    client.wake()
    await client.step()
    found = await told(site, client)
    assert found.location.network == "internet"
    assert found.location.since == moment()
    assert found.location.reason.endswith("does not answer: it answers 503.")
    assert "Currently Internet" in log(machine, "LocationServices")
    # What was decided is there after a restart, too.
    assert Client(here)._roaming.location == found.location


async def test_a_clock_that_is_put_back_puts_off_no_look(
    site: Site, machine: Machine, moment: Moment
) -> None:
    own = Moment()
    own.at = moment()
    own.passes(minutes=4)
    client = await installed(replace(machine, now=own), with_(site, at(site)))
    await client.step()
    own.passes(minutes=-8)
    asked = len(site.seen)
    await client.step()
    assert [r for r in site.seen[asked:] if "MPLIST" in r.url.query]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>Welcome to the hotel", "what answers there is no management point."),
        (msgspec.json.encode({"site_code": "XYZ", "management_points": []}), "one of site XYZ."),
    ],
)
async def test_whatever_else_answers_there_is_not_the_intranet(
    site: Site, machine: Machine, answer: bytes, reason: str
) -> None:
    site.relay = lambda r: Response(answer) if "CCM_Proxy" not in r.url.path else None
    client = await installed(machine, with_(site, at(site)))
    await client.step()
    found = await told(site, client)
    assert found.location.network == "internet"
    assert found.location.reason.endswith(reason)


async def test_nobody_there_is_the_internet(site: Site, machine: Machine) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        client = await installed(machine, with_(site, at(site, port)))
        await client.step()
    found = await told(site, client)
    assert found.location.network == "internet"
    assert "does not answer" in found.location.reason


@pytest.mark.parametrize(
    ("word", "line", "reason"),
    [
        ("CCMALWAYSINF=1", "Always Internet", "CCMALWAYSINF=1"),
        ("", "Currently Internet", "SMSMP names none"),
    ],
)
async def test_the_override_and_the_default_ask_nobody(
    site: Site, machine: Machine, word: str, line: str, reason: str
) -> None:
    words = [at(site), word] if word else []
    client = await installed(machine, with_(site, *words))
    site.seen.clear()
    await client.step()
    assert not [r for r in site.seen if "CCM_Proxy" not in r.url.path]
    assert line in log(machine, "LocationServices")
    assert reason in (await told(site, client)).location.reason


async def test_asked_for_by_an_administrator_it_is_decided_again(
    site: Site, machine: Machine
) -> None:
    client = await installed(machine, with_(site, at(site)))
    await client.step()
    async with site.db.transaction() as tx:
        made = await notifications.create(
            tx, "evaluate-location", client=client.client_id, actor="a", now=site.now()
        )
    client.wake()
    await client.step()
    async with site.db.transaction() as tx:
        (found,) = await notifications.results(tx, made.id, now=site.now())
    assert found.state == "done"
    assert found.text.startswith("This device is on the intranet: https://localhost")


def test_the_state_of_the_network_changes_with_routes_and_not_with_traffic(tmp_path: Path) -> None:
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    route, resolver = tmp_path / "route", tmp_path / "resolv.conf"
    route.write_text(head + "eth0 00000000 0102A8C0 0003 0 0 100 00000000 0 0 0\n")
    resolver.write_text("# a comment\nnameserver 192.0.2.1\n")
    before = network_state(tmp_path, resolver)
    route.write_text(head + "eth0 00000000 0102A8C0 0003 7 99 100 00000000 0 0 0\n")
    resolver.write_text("# another comment\nnameserver 192.0.2.1\n")
    assert network_state(tmp_path, resolver) == before
    route.write_text(head + "wlan0 00000000 0100000A 0003 0 0 100 00000000 0 0 0\n")
    assert network_state(tmp_path, resolver) != before
    assert network_state(tmp_path / "none", tmp_path / "none") == ""
