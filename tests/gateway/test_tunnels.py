"""The tunnel between gateway and connection point: several of them, silent ones, dishonest ones."""

import asyncio
import signal
import ssl
import time

import msgspec
import psutil
import pytest

from tandem import pki
from tandem.protocols import cmtrace, tunnel

from .conftest import BASE, NAME, Rig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]


async def second_connector(rig: Rig, **changes: float) -> None:
    rig.role("CP02")
    rig.start_connector("CP02", **changes)
    await rig.until(lambda facts: facts["connection_points"] == ["CP01", "CP02"])


def by_point(rig: Rig) -> dict[str, int]:
    """How many requests each connection point says it passed on."""
    counts: dict[str, int] = {}
    for report in rig.reports:
        for traffic in report.traffic:
            told = counts.get(report.connection_point, 0)
            counts[report.connection_point] = told + traffic.requests
    return counts


async def test_connection_points_take_turns_and_stand_in_for_each_other(rig: Rig) -> None:
    await second_connector(rig)
    for _ in range(10):
        assert (await rig.ask("GET", f"{BASE}/echo", rig.token())).status_code == 200
    deadline = time.monotonic() + 15
    while by_point(rig) != {"CP01": 5, "CP02": 5}:
        assert time.monotonic() < deadline, by_point(rig)
        await asyncio.sleep(0.05)
    # Under load, one of them dies: whoever asked is answered by the other.
    stop = asyncio.Event()
    answers: list[int] = []

    async def ask() -> None:
        async with rig.client() as client:
            headers = {"Authorization": f"Bearer {rig.token()}"}
            while not stop.is_set():
                answer = await client.get(f"{BASE}/echo", headers=headers)
                answers.append(answer.status_code)

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    await asyncio.sleep(0.2)
    await asyncio.to_thread(rig.stop, "CP02", signal.SIGKILL)
    await rig.until(lambda facts: facts["connection_points"] == ["CP01"])
    stop.set()
    await asyncio.gather(*asking)
    assert set(answers) == {200}


async def test_an_answer_of_which_only_the_head_came_is_asked_for_again(rig: Rig) -> None:
    """The client has seen nothing of it yet, so another connection point can answer."""
    asking = asyncio.create_task(rig.ask("GET", f"{BASE}/halting", rig.token(), timeout=60))
    while rig.begun == 0:
        assert not asking.done(), asking.result().text
        await asyncio.sleep(0.02)
    await second_connector(rig)
    await asyncio.to_thread(rig.stop, "connector", signal.SIGKILL)
    answer = await asking
    assert (answer.status_code, answer.text, rig.begun) == (200, "whole", 2)


async def test_a_connection_point_that_fell_silent_gets_no_more_requests(rig: Rig) -> None:
    """A machine that lost its power says no goodbye."""
    await rig.news(silence=1.0)
    await asyncio.to_thread(rig.stop, "connector")
    rig.start_connector(ping_seconds=0.2)
    await second_connector(rig, ping_seconds=0.2)
    rig.processes["CP02"].send_signal(signal.SIGSTOP)
    try:
        await rig.until(lambda facts: facts["connection_points"] == ["CP01"], 10)
        for _ in range(4):
            assert (await rig.ask("GET", f"{BASE}/echo", rig.token())).status_code == 200
    finally:
        rig.processes["CP02"].send_signal(signal.SIGCONT)
    await rig.until(lambda facts: facts["tunnels"] == 2)


async def test_a_gateway_that_fell_silent_is_named_and_dialled_again(rig: Rig) -> None:
    await asyncio.to_thread(rig.stop, "connector")
    rig.start_connector(ping_seconds=0.2)
    await rig.until(lambda facts: facts["tunnels"] == 1)
    rig.processes["gateway"].send_signal(signal.SIGSTOP)
    try:
        (lost,) = await rig.reported(lambda states: states[0].state == "disconnected")
        assert "no sign of life" in lost.reason
    finally:
        rig.processes["gateway"].send_signal(signal.SIGCONT)
    await rig.until(lambda facts: facts["tunnels"] == 1)
    await rig.reported(lambda states: states[0].state == "connected")


async def test_a_connection_point_without_news_does_not_turn_the_gateway_back(rig: Rig) -> None:
    """It comes back while the site is away, with what it kept: others have brought newer rules."""
    rig.cut_off["CP02"] = rig.connector_configuration("CP02")
    await rig.news()
    await second_connector(rig)
    for _ in range(2):
        assert (await rig.ask("GET", f"{BASE}/echo", rig.token())).status_code == 200
    assert (await rig.health())["version"] == 2
    # A site that was restored from a backup counts anew, and is believed by the same way as before.
    await asyncio.to_thread(rig.stop, "CP02")
    rig.version = 1
    await rig.until(lambda facts: facts["version"] == 1)


async def test_the_connection_point_listens_nowhere(rig: Rig) -> None:
    process = psutil.Process(rig.processes["connector"].pid)
    connections = process.net_connections("all")
    assert [c for c in connections if c.status == psutil.CONN_LISTEN] == []
    dialled = {c.raddr.port for c in connections if c.status == psutil.CONN_ESTABLISHED}
    assert rig.tunnel_port in dialled
    # The gateway is another matter, or this test would see nothing.
    gateway = psutil.Process(rig.processes["gateway"].pid)
    heard = {c.laddr.port for c in gateway.net_connections("inet") if c.status == "LISTEN"}
    assert heard >= {rig.port, rig.tunnel_port}


SMUGGLED = b"GET /secret HTTP/1.1\r\nhost: x\r\n\r\n"
OPEN = b"POST " + BASE.encode() + b"/echo HTTP/1.1\r\n"
DISHONEST = {
    "a second request for a body": OPEN + b"host: x\r\n\r\n" + SMUGGLED,
    "a length that is too short": OPEN + b"content-length: 0\r\n\r\n" + SMUGGLED,
    "two lengths": OPEN + b"content-length: 0\r\ncontent-length: 35\r\n\r\n" + SMUGGLED,
    "chunks that end early": OPEN + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a bare line feed": OPEN + b"x: y\n\nGET /secret HTTP/1.1\r\nhost: x\r\n\r\n",
    "a bare carriage return": OPEN + b"x: y\r\rGET /secret HTTP/1.1\r\nhost: x\r\n\r\n",
    "a folded line": OPEN + b"x: y\r\n transfer-encoding: chunked\r\n\r\n" + SMUGGLED,
    "no end": OPEN + b"host: x\r\n" + SMUGGLED.strip(),
    "an upgrade": OPEN + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n" + SMUGGLED,
    "a way up": OPEN.replace(b"/echo", b"/echo/../secret") + b"host: x\r\n\r\n",
    "an encoded way up": OPEN.replace(b"/echo", b"/echo/%2e%2e/secret") + b"host: x\r\n\r\n",
    "an address of its own": b"GET /secret HTTP/1.1\r\nhost: x\r\n\r\n",
    "an absolute address": b"GET https://127.0.0.1/secret HTTP/1.1\r\nhost: x\r\n\r\n",
    "no request": b"\x00",
    "two words": b"GET /\r\n\r\n",
}


async def test_a_stolen_gateway_reaches_nothing_but_the_published_endpoints(rig: Rig) -> None:
    """Someone has the gateway's certificate and connection id, and writes frames of their own."""
    await asyncio.to_thread(rig.stop, "gateway")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(rig.folder / "gateway/chain.pem", rig.folder / "gateway/server.key")
    answered: asyncio.Queue[tunnel.Frame] = asyncio.Queue()
    tunnels: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = tunnel.Decoder()
        while data := await reader.read(65536):
            for frame in decoder.feed(data):
                if frame.type is tunnel.Type.HELLO:
                    hello = tunnel.GatewayHello(1, "1-1", 1, 1)
                    told = msgspec.json.encode(hello)
                    writer.write(tunnel.encode(tunnel.Type.HELLO, 0, told))
                    tunnels.append(writer)
                elif frame.type in {tunnel.Type.HEAD, tunnel.Type.DATA, tunnel.Type.RESET}:
                    answered.put_nowait(frame)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", rig.tunnel_port, ssl=context):
        async with asyncio.timeout(20):
            while not tunnels:
                await asyncio.sleep(0.02)
        for stream, (name, raw) in enumerate(DISHONEST.items(), 1):
            tunnels[-1].write(tunnel.encode(tunnel.Type.OPEN, stream, raw, fin=True))
            async with asyncio.timeout(10):
                while True:
                    frame = await answered.get()
                    assert frame.stream == stream, name
                    if frame.fin or frame.type is tunnel.Type.RESET:
                        break
        assert len(tunnels) == 1
        # Nor does it fill the inside's memory.
        tunnels[-1].write(tunnel.encode(tunnel.Type.OPEN, 1000, OPEN + b"host: x\r\n\r\n"))
        piece = tunnel.encode(tunnel.Type.DATA, 1000, b"x" * tunnel.MAX_DATA)
        async with asyncio.timeout(20):
            while answered.empty():
                tunnels[-1].write(piece)
                await tunnels[-1].drain()
                await asyncio.sleep(0)
        assert (await answered.get()).stream == 1000
        tunnels[-1].close()
    asked = {item["target"].split(b"?")[0] for item in rig.seen}
    assert asked <= {b"/echo"}, asked
    assert all(len(item["body"]) <= 2 * len(SMUGGLED) for item in rig.seen)
    rig.start_gateway()
    await rig.until(lambda facts: facts["tunnels"] == 1)


async def test_the_log_files_have_the_lines_that_administrators_know(rig: Rig) -> None:
    for _ in range(3):
        answer = await rig.ask(
            "POST",
            f"{BASE}/echo/request?secret=geheim",
            rig.token(),
            content=b"hello",
            headers={"X-Correlation-Id": "c0ffee"},
        )
        assert answer.status_code == 200
    await asyncio.to_thread(rig.stop, "gateway")
    await asyncio.to_thread(rig.stop, "connector")

    def lines(name: str) -> list[str]:
        text = (rig.folder / "logs" / name).read_text()
        return [cmtrace.message_of(line) or "" for line in text.splitlines()]

    said = lines("SMS_Cloud_ProxyConnector.log")
    (passed, *others) = [line for line in said if line.startswith("MessageID: c0ffee ")]
    assert len(others) == 2
    assert f"RequestURI: {BASE}/echo/request EndpointName: echo " in passed
    assert "ResponseHeader: HTTP/1.1 200 OK" in passed
    assert "ElapsedTime: " in passed
    told = [line for line in said if line.startswith("ReportTrafficData - state message to send: ")]
    assert any(
        "<ProxyTrafficStateDetails " in line and "MaxConcurrentRequests=" in line for line in told
    )
    (counted,) = lines(f"CMG-{NAME}-1-CMGService.log")
    assert counted.startswith(f"RequestUri: {BASE}/echo RequestCount: 3 RequestSize: 15 Bytes ")
    assert "ResponseCount: 3 ResponseSize: 18 Bytes AverageElapsedTime: " in counted
    assert not any("geheim" in line for line in said)


async def test_a_link_that_is_given_up_before_it_is_greeted_leaves_no_connection(rig: Rig) -> None:
    """An instance may go, or have fewer workers, while it is being dialled."""
    await asyncio.to_thread(rig.stop, "gateway")
    key = pki.generate_key()
    leaf = rig.public.issue(
        key.public_key(), pki.name(NAME), now=rig.now, days=2, dns=[NAME], usages=["server"]
    )
    (rig.folder / "mute.pem").write_bytes(pki.pem(leaf))
    (rig.folder / "mute.key").write_bytes(pki.key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(rig.folder / "mute.pem", rig.folder / "mute.key")
    dialled, ended = asyncio.Event(), asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        await reader.read()
        ended.set()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", rig.tunnel_port, ssl=context)
    try:
        async with asyncio.timeout(15):
            await dialled.wait()
        rig.cut_off["CP01"] = tunnel.ConnectorConfiguration("CP01", [], [])
        rig.version += 1
        # Without a word it would be given up only after ten seconds.
        async with asyncio.timeout(5):
            await ended.wait()
    finally:
        server.close()
