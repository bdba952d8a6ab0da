"""What a gateway counts reaches the site once: not twice, not less, whoever dies between."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tandem.gateway.counts import EDGE, REFUSED, Ledger, Teller, by_endpoint
from tandem.gateway.service_log import ServiceLog
from tandem.infra import http
from tandem.protocols import cmtrace, tunnel

from .conftest import BASE, Rig, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

Sums = dict[tuple[str, str], tunnel.Counted]


def told(rig: Rig) -> Sums:
    """By connection point and endpoint, each word of a gateway taken once."""
    words: dict[tuple[str, int], list[tunnel.Counted]] = {}
    for report in rig.reports:
        for item in report.tellings:
            key = (item.telling.run, item.telling.sequence)
            assert words.setdefault(key, item.telling.counts) == item.telling.counts
    sums: Sums = {}
    for counts in words.values():
        for one in counts:
            known = sums.get((one.connection_point, one.endpoint))
            if known is not None:
                one = msgspec.structs.replace(
                    one,
                    **{
                        name: getattr(one, name) + getattr(known, name)
                        for name in ("requests", "failures", "request_bytes", "response_bytes")
                    },
                )
            sums[one.connection_point, one.endpoint] = one
    return sums


def requests(rig: Rig, endpoint: str) -> int:
    return sum(one.requests for (_, name), one in told(rig).items() if name == endpoint)


def most_often(rig: Rig) -> int:
    """How often the same word was said."""
    said = [
        (item.telling.run, item.telling.sequence)
        for report in rig.reports
        for item in report.tellings
    ]
    return max(map(said.count, said), default=0)


async def until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what()
        await asyncio.sleep(0.05)


async def ask(rig: Rig, count: int) -> None:
    for _ in range(count):
        answer = await rig.ask("POST", f"{BASE}/echo", rig.token(), content=b"hello", timeout=60)
        assert answer.status_code == 200


async def test_each_request_is_counted_once_whoever_dies_meanwhile(tmp_path: Path) -> None:
    async with serving(Rig(tmp_path, tell_seconds=0.2)) as rig:
        rig.role("CP02")
        rig.start_connector("CP02")
        await rig.until(lambda facts: facts["connection_points"] == ["CP01", "CP02"])
        await ask(rig, 10)
        assert (await rig.ask("GET", f"{BASE}/echo")).status_code == 401
        edge = await rig.ask("GET", "/CCM_Proxy_ServerAuth/ServiceMetadata")
        assert edge.status_code == 200
        await asyncio.to_thread(rig.stop, "CP02", signal.SIGKILL)
        await rig.until(lambda facts: facts["connection_points"] == ["CP01"])
        await ask(rig, 4)
        # What it counted last it tells before it ends.
        assert await asyncio.to_thread(rig.stop, "gateway") == 0
        await until(lambda: requests(rig, f"{BASE}/echo") == 14, lambda: told(rig))
        found = told(rig)
        assert found["CP02", f"{BASE}/echo"].requests == 5
        first = found["CP01", f"{BASE}/echo"]
        assert (first.requests, first.failures, first.request_bytes) == (9, 0, 45)
        # Bodies of six bytes, and a head to each.
        assert first.response_bytes > 9 * (6 + len("HTTP/1.1 200 OK"))
        assert first.elapsed_ms > 0
        assert (found["", REFUSED].requests, found["", EDGE].requests) == (1, 1)


async def test_a_site_that_is_away_is_told_later_and_once(tmp_path: Path) -> None:
    async with serving(Rig(tmp_path, tell_seconds=0.2)) as rig:
        await ask(rig, 3)
        await until(lambda: requests(rig, f"{BASE}/echo") == 3, lambda: told(rig))
        # The report arrives, and its answer does not.
        rig.report_status = 503
        await ask(rig, 2)
        await until(lambda: most_often(rig) > 3, lambda: most_often(rig))
        await ask(rig, 1)
        rig.report_status = 200
        await until(lambda: requests(rig, f"{BASE}/echo") == 6, lambda: told(rig))
        assert len({item.telling.run for report in rig.reports for item in report.tellings}) == 1

        # The connection point's own counts are told in the same way.
        def passed() -> int:
            taken = {report.sequence: report.traffic for report in rig.reports}
            return sum(one.requests for counts in taken.values() for one in counts)

        await until(lambda: passed() == 6, passed)


async def test_a_site_of_the_release_before_takes_nothing_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, tell_seconds=0.2, site_before=True)
    async with serving(rig):
        await ask(rig, 2)
        await until(lambda: most_often(rig) > 2, lambda: most_often(rig))
        await ask(rig, 1)
        rig.site_before = False
        await until(lambda: requests(rig, f"{BASE}/echo") == 3, lambda: told(rig))


async def test_devices_that_wait_for_news_are_online(tmp_path: Path) -> None:
    async with serving(Rig(tmp_path, tell_seconds=0.2)) as rig:

        def online() -> int:
            found = [item.telling for report in rig.reports for item in report.tellings]
            return found[-1].online if found else -1

        async with rig.client(timeout=60) as client:
            headers = {"Authorization": f"Bearer {rig.token()}"}
            waiting = asyncio.create_task(client.get(f"{BASE}/held", headers=headers))
            await until(lambda: online() == 1, online)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: online() == 0, online)


async def test_what_is_counted_while_a_telling_is_under_way_waits_for_the_next() -> None:
    ledger = Ledger()
    teller = Teller("run", lambda: {"worker": 2})
    ledger.of("CP01")["/a"].requests += 1
    teller.add(ledger.take())
    first = teller.telling()
    ledger.of("CP01")["/a"].requests += 2
    ledger.own["/a"].failures += 1
    taken = ledger.take()
    assert [(name, count.requests, count.failures) for name, count in by_endpoint(taken)] == [
        ("/a", 2, 1)
    ]
    teller.add(taken)
    assert teller.telling() == first
    read = msgspec.json.decode(first, type=tunnel.Telling)
    assert (read.run, read.sequence, read.worker) == ("run", 1, 2)
    assert not teller.told(tunnel.Told("other", 1))
    assert not teller.told(tunnel.Told("run", 2))
    assert teller.told(tunnel.Told("run", 1))
    assert not teller.told(tunnel.Told("run", 1))
    assert not teller.idle
    second = msgspec.json.decode(teller.telling(), type=tunnel.Telling)
    assert second.sequence == 2
    assert {(one.connection_point, one.requests) for one in second.counts} == {
        ("CP01", 2),
        ("", 0),
    }
    assert ledger.take() == {}


async def test_a_telling_fits_into_its_frame_and_what_does_not_follows() -> None:
    ledger, teller = Ledger(), Teller("r" * 16, dict)
    for number in range(400):
        count = ledger.of("p" * 128)[f"/CCM_Proxy_ServerAuth/{number:0100d}"]
        count.requests = count.response_bytes = 2**52
        count.seconds = 12345.678901
    teller.add(ledger.take())
    sequence, seen = 0, 0
    while not teller.idle:
        telling = teller.telling()
        frames = tunnel.Decoder(greeted=True).feed(tunnel.encode(tunnel.Type.TELL, 0, telling))
        assert len(frames) == 1
        sequence += 1
        seen += len(msgspec.json.decode(telling, type=tunnel.Telling).counts)
        assert teller.told(tunnel.Told("r" * 16, sequence))
    assert (sequence, seen) == (3, 400)


class RealEdge(Rig):
    """The management point behind the edge that every role of ours has, with its log."""

    def site(self) -> Starlette:
        return http.application(super().site().routes, role="management-point")


async def test_one_id_is_in_the_logs_of_gateway_connection_point_and_management_point(
    tmp_path: Path,
) -> None:
    """Also when the client brought none; and what the gateway refuses has one."""
    with capture_logs(processors=[merge_contextvars]) as inside:
        async with serving(RealEdge(tmp_path)) as rig:
            own = await rig.ask(
                "GET", f"{BASE}/echo", rig.token(), headers={"X-Correlation-Id": "mine-1"}
            )
            given = await rig.ask("GET", f"{BASE}/echo", rig.token())
            refused = await rig.ask("GET", f"{BASE}/echo", "nonsense")
            assert (own.status_code, given.status_code, refused.status_code) == (200, 200, 401)
    ids = [answer.headers["x-correlation-id"] for answer in (own, given, refused)]
    assert ids[0] == "mine-1"
    lines = (tmp_path / "logs" / "gateway-1.jsonl").read_text().splitlines()
    gateway = [json.loads(line) for line in lines]
    passed = [line["correlation"] for line in gateway if line["event"] == "request"]
    assert sorted(passed) == sorted(ids[:2])
    (turned,) = [line for line in gateway if line["event"] == "refused"]
    assert turned["correlation"] == ids[2]
    point = (tmp_path / "logs" / "SMS_Cloud_ProxyConnector.log").read_text()
    told = [cmtrace.message_of(line) or "" for line in point.splitlines()]
    said = [line.split()[1] for line in told if line.startswith("MessageID: ")]
    assert sorted(said) == sorted(ids[:2])
    asked = [line["correlation"] for line in inside if line.get("path") == "/echo"]
    assert sorted(asked) == sorted(ids[:2])


async def test_lines_of_the_log_go_to_the_site_and_sums_are_scraped(tmp_path: Path) -> None:
    async with serving(Rig(tmp_path, tell_seconds=0.2)) as rig:
        await ask(rig, 3)

        def lines() -> list[str]:
            words = {
                (item.telling.run, item.telling.sequence): item.telling.lines
                for report in rig.reports
                for item in report.tellings
            }
            return [line.text for said in words.values() for line in said]

        def counted() -> int:
            found = [line for line in lines() if line.startswith(f"RequestUri: {BASE}/echo ")]
            return sum(int(line.split("RequestCount: ")[1].split()[0]) for line in found)

        await until(lambda: counted() == 3, lines)
        async with httpx.AsyncClient(trust_env=False) as client:
            scraped = (await client.get(f"http://127.0.0.1:{rig.health_port}/metrics")).text
        assert 'gateway_endpoint_requests_total{endpoint="echo"} 3.0' in scraped
        assert 'gateway_endpoint_received_bytes_total{endpoint="echo"} 15.0' in scraped
        assert "gateway_tunnels 1.0" in scraped
        assert "gateway_online_clients 0.0" in scraped


async def test_a_line_holds_no_secret_and_too_many_are_left_out(tmp_path: Path) -> None:
    log = ServiceLog(tmp_path, "mycmg.contoso.com", 2, 1)
    log.say("Authorization: Bearer abc.def; password=geheim; token: t0p\nsecond", cmtrace.WARNING)
    (line,) = log.take()
    assert line.severity == cmtrace.WARNING
    assert not any(word in line.text for word in ("abc.def", "geheim", "t0p", "\n"))
    written = (tmp_path / "CMG-mycmg.contoso.com-2-CMGService.log").read_text()
    assert "second" in written
    assert "geheim" not in written
    log.say_all(f"line {number}" for number in range(1100))
    first = log.take()
    assert first[0].text.startswith("100 lines were left out")
    assert first[1].text == "line 100"
    rest = []
    while more := log.take():
        assert len(more) <= 101
        rest += more
    assert rest[-1].text == "line 1099"
