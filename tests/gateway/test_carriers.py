"""How a tunnel comes to the gateway: the better way, the other one, and a real web proxy between."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem.gateway.connector import Connector
from tandem.gateway.model import BadProxy, ConnectorSettings
from tandem.protocols import tunnel

from .conftest import BASE, CONNECTION_ID, NAME, Rig, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]


def settings(rig: Rig, state: Path, name: str, **changes: Any) -> ConnectorSettings:
    return ConnectorSettings(
        connection_point=name,
        management_point_url=f"https://127.0.0.1:{rig.site_port}",
        certificate=rig.folder / f"{name}.pem",
        key=rig.folder / f"{name}.key",
        site_root=rig.folder / "site.pem",
        gateway_ca_file=rig.folder / "public.pem",
        state=state,
        logs=state / "logs",
        retry_seconds=0.05,
        retry_most_seconds=0.2,
        **changes,
    )


@asynccontextmanager
async def connecting(
    rig: Rig, state: Path, name: str = "CP02", **changes: Any
) -> AsyncIterator[Connector]:
    """Another connection point, in this process."""
    if not (rig.folder / f"{name}.pem").exists():
        rig.role(name)
    made = Connector(settings(rig, state, name, **changes))
    stop = asyncio.Event()
    main = asyncio.create_task(made.main(stop))
    try:
        yield made
    finally:
        stop.set()
        await main
        rig.cut_off.pop(name, None)
        await rig.until(lambda facts: name not in facts["connection_points"])


async def state_of(
    made: Connector, holds: Callable[[tunnel.ConnectionState], bool]
) -> tunnel.ConnectionState:
    async with asyncio.timeout(20):
        while True:
            for link in made._links.values():
                if holds(link.state):
                    return link.state
            await asyncio.sleep(0.01)


def connected(state: tunnel.ConnectionState) -> bool:
    return state.state == "connected"


def blocked(rig: Rig, tunnel_port: int, name: str = "CP02", **changes: Any) -> None:
    """What the site says to this connection point, where the tunnel's port is another one."""
    told = rig.connector_configuration(name)
    (target,) = told.gateways
    instance = tunnel.Instance(1, "127.0.0.1", rig.port, tunnel_port)
    target = msgspec.structs.replace(target, instances=[instance])
    rig.cut_off[name] = msgspec.structs.replace(told, gateways=[target], **changes)


def passed(rig: Rig, made: Connector) -> int:
    """How many requests have gone through it, reported or not yet."""
    told = [
        traffic.requests
        for report in rig.reports
        if report.connection_point == made.settings.connection_point
        for traffic in report.traffic
    ]
    return sum(told) + sum(tally.requests for tally in made.traffic.tallies.values())


async def takes_its_turn(rig: Rig, made: Connector) -> None:
    """Of two requests, one goes through it and is answered."""
    before = passed(rig, made)
    answers = [await rig.ask("GET", f"{BASE}/echo", rig.token()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    async with asyncio.timeout(10):
        while passed(rig, made) != before + 1:
            await asyncio.sleep(0.01)


async def test_where_the_tunnels_port_is_closed_https_carries_it_and_then_the_better_way_again(
    shared: Rig, tmp_path: Path
) -> None:
    closed = free_port()
    blocked(shared, closed)
    async with connecting(shared, tmp_path, repair_seconds=0.1) as made:
        held = await state_of(made, connected)
        assert (held.carrier, held.through, held.reason) == ("https", "", "")
        (failed,) = held.failures
        assert (failed.carrier, failed.reason) == (
            "tls",
            f"Nothing listens on 127.0.0.1:{closed}.",
        )
        assert (await shared.health())["carriers"] == {"tls": 1, "https": 1}
        await takes_its_turn(shared, made)
        # Bulk, in both directions, byte for byte.
        both = [
            await shared.ask("GET", f"{BASE}/big?mb=3", shared.token(), timeout=30)
            for _ in range(2)
        ]
        expected = b"".join(bytes([number]) * 1_000_000 for number in range(3))
        assert [answer.content == expected for answer in both] == [True, True]
        for _ in range(2):
            sent = await shared.ask("POST", f"{BASE}/large", shared.token(), content=b"x" * 500_000)
            assert sent.text == "POST 500000"

        # The way is opened while requests go on: none of them notices.
        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner, outer = await asyncio.open_connection("127.0.0.1", shared.tunnel_port)
            await asyncio.gather(_copy(reader, outer), _copy(inner, writer))

        statuses: list[int] = []

        async def ask(done: asyncio.Event) -> None:
            async with shared.client() as client:
                headers = {"Authorization": f"Bearer {shared.token()}"}
                while not done.is_set():
                    answer = await client.post(f"{BASE}/echo", headers=headers)
                    statuses.append(answer.status_code)

        done = asyncio.Event()
        asking = asyncio.create_task(ask(done))
        async with await asyncio.start_server(forward, "127.0.0.1", closed):
            better = await state_of(made, lambda state: state.carrier == "tls")
            await shared.until(lambda facts: facts["carriers"] == {"tls": 2})
            done.set()
            await asking
            assert better.state == "connected"
            assert set(statuses) == {200}
            await _stop(made)


async def _stop(made: Connector) -> None:
    """Before what stands between is taken away."""
    for link in list(made._links.values()):
        link.stop("The test is over.")
    made._links.clear()
    while made._leaving:
        await asyncio.sleep(0.01)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("fast", [True, False])
async def test_https_carries_it_in_either_tls(shared: Rig, tmp_path: Path, fast: bool) -> None:
    async with connecting(shared, tmp_path, carriers=("https",), fast_tls=fast) as made:
        assert (await state_of(made, connected)).carrier == "https"
        await takes_its_turn(shared, made)


# ------------------------------------------------------------------ through a web proxy

SECRET = "geheim-5.x"


class Proxy:
    """tinyproxy, which asks for name and password and lets through to one port."""

    def __init__(self, folder: Path, allowed: int) -> None:
        self.port = free_port()
        self.log = folder / "tinyproxy.log"
        file = folder / "tinyproxy.conf"
        file.write_text(
            f'Port {self.port}\nListen 127.0.0.1\nTimeout 600\nLogFile "{self.log}"\nLogLevel Connect\n'
            f"MaxClients 20\nBasicAuth cp {SECRET}\nConnectPort {allowed}\n"
        )
        program = shutil.which("tinyproxy")
        assert program, "tools/packages.sh tinyproxy"
        self.process = subprocess.Popen(
            [program, "-d", "-c", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def proxy(shared: Rig, tmp_path: Path) -> Any:
    made = Proxy(tmp_path, shared.port)
    yield made
    made.stop()


async def test_a_tunnel_through_a_web_proxy_that_asks_for_name_and_password(
    shared: Rig, tmp_path: Path, proxy: Proxy
) -> None:
    """The site names the proxy; the way without it is closed."""
    account = tunnel.WebProxy("127.0.0.1", proxy.port, "cp", SECRET)
    blocked(shared, free_port(), web_proxy=account)
    async with connecting(shared, tmp_path / "s") as made:
        held = await state_of(made, connected)
        assert (held.carrier, held.through) == ("https", f"127.0.0.1:{proxy.port}")
        await takes_its_turn(shared, made)
        assert f"CONNECT 127.0.0.1:{shared.port}" in proxy.log.read_text()
        # The proxy dies: that is noticed at once, said, and mended when it is back.
        proxy.stop()
        lost = await state_of(made, lambda state: state.state == "disconnected")
        await state_of(made, lambda state: "cannot be reached" in state.reason)
        assert lost.failures[0].carrier == "https"
    told = "".join(
        path.read_text("utf-8", "replace") for path in (tmp_path / "s" / "logs").iterdir()
    )
    assert f"by HTTPS through 127.0.0.1:{proxy.port}" in told
    for hidden in (SECRET, b64encode(f"cp:{SECRET}".encode()).decode()):
        assert hidden not in told
    assert SECRET not in repr(account)


@pytest.mark.parametrize(
    ("user", "password", "port", "said"),
    [
        ("", "", 0, "wants name and password (407)"),
        ("cp", "wrong", 0, "does not take this name and password"),
        ("cp", SECRET, 1, "does not allow 127.0.0.1:"),
    ],
)
async def test_what_a_web_proxy_refuses_is_said_with_the_reason(
    shared: Rig, tmp_path: Path, proxy: Proxy, user: str, password: str, port: int, said: str
) -> None:
    file = tmp_path / "password"
    file.write_text(password + "\n")
    if port:
        told = shared.connector_configuration("CP02")
        (target,) = told.gateways
        other = tunnel.Instance(1, "127.0.0.1", free_port(), free_port())
        target = msgspec.structs.replace(target, instances=[other])
        shared.cut_off["CP02"] = msgspec.structs.replace(told, gateways=[target])
    # Said in the connection point's own settings, which count more than the site's word.
    async with connecting(
        shared,
        tmp_path / "s",
        carriers=("https",),
        web_proxy=f"127.0.0.1:{proxy.port}",
        web_proxy_user=user,
        web_proxy_password_file=file if password else None,
    ) as made:
        lost = await state_of(made, lambda state: state.state == "disconnected")
        assert f"The web proxy 127.0.0.1:{proxy.port} " in lost.reason
        assert said in lost.reason


async def test_what_is_no_web_proxy_is_named(shared: Rig, tmp_path: Path) -> None:
    async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.contoso.com ESMTP\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(mail, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connecting(
            shared, tmp_path, carriers=("https",), web_proxy=f"127.0.0.1:{port}"
        ) as made:
            lost = await state_of(made, lambda state: state.state == "disconnected")
            assert lost.reason == f"What answers at 127.0.0.1:{port} is no web proxy."


async def test_a_proxys_address_that_is_none_is_refused_at_the_start(
    shared: Rig, tmp_path: Path
) -> None:
    for bad in ("proxy", "proxy:", "proxy:0", ":8080", "http://proxy"):
        with pytest.raises(BadProxy):
            settings(shared, tmp_path, "CP01", web_proxy=bad).proxy()
    missing = settings(
        shared, tmp_path, "CP01", web_proxy="p:1", web_proxy_password_file=tmp_path / "none"
    )
    with pytest.raises(BadProxy, match="web proxy's password"):
        missing.proxy()


# ------------------------------------------------------------------ strangers


KNOCK = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "tandem-tunnel",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": "h2c"},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Protocol": "chat"},
        {"Connection": "keep-alive"},
    ],
)
async def test_who_asks_for_something_else_at_the_door_is_refused(
    shared: Rig, changes: dict[str, str]
) -> None:
    headers = {name: value for name, value in {**KNOCK, **changes}.items() if value}
    async with shared.client() as client:
        answer = await client.get("/CCM_Proxy_Tunnel", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "CMGService_Bad_Request"


async def inside(rig: Rig, certificate: str, first: bytes) -> bytes:
    """What the gateway says to who comes in with this certificate and these first bytes."""
    context = ssl.create_default_context(cafile=str(rig.folder / "public.pem"))
    if certificate:
        context.load_cert_chain(
            rig.folder / f"{certificate}.pem", rig.folder / f"{certificate}.key"
        )
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", rig.tunnel_port, ssl=context, server_hostname=NAME
    )
    try:
        writer.write(first)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def hello(connection_id: str, **versions: int) -> bytes:
    said = tunnel.Hello(connection_id, "CP01", **{"newest": 2, "oldest": 1, **versions})
    return tunnel.encode(tunnel.Type.HELLO, 0, msgspec.json.encode(said))


async def test_a_connection_id_alone_opens_no_tunnel_and_a_certificate_alone_neither(
    shared: Rig,
) -> None:
    shared.client_certificate("stranger")  # Of the clients' authority, not of the site's.
    for certificate in ("", "stranger"):
        answered = b""
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            answered = await inside(shared, certificate, hello(CONNECTION_ID))
        assert answered == b""
    refused = await inside(shared, "CP01", hello("stolen"))
    (away,) = tunnel.Decoder(greeted=True).feed(refused)
    assert (away.type, away.payload[4:]) == (
        tunnel.Type.GOAWAY,
        b"The connection id is not this gateway's.",
    )
    # By HTTPS, too, where anybody may knock.
    shared.role("CP03")
    context = shared.context()
    for first in (b"\x16\x03\x01garbage", hello(CONNECTION_ID), b""):
        answered = await _by_websocket(shared, context, first)
        assert tunnel.Type.HELLO not in answered[:5]
    assert (await shared.health())["connection_points"] == ["CP01"]


async def _by_websocket(rig: Rig, context: ssl.SSLContext, first: bytes) -> bytes:
    """A stranger's WebSocket, in which something else than TLS is said."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", rig.port, ssl=context, server_hostname=NAME
    )
    lines = "".join(f"{name}: {value}\r\n" for name, value in KNOCK.items())
    writer.write(f"GET /CCM_Proxy_Tunnel HTTP/1.1\r\nHost: {NAME}\r\n{lines}\r\n".encode())
    try:
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 101 ")
            mask = b"\0\0\0\0"
            if first:
                writer.write(b"\x82" + bytes([0x80 | 126]) + len(first).to_bytes(2) + mask + first)
            else:
                writer.write(b"\x81\x85" + mask + b"hello")  # Text, which no tunnel is.
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [({"newest": 1}, 1), ({}, 2), ({"newest": 7}, 3), ({"newest": 8, "oldest": 8}, None)],
)
async def test_both_speak_the_newest_version_that_both_know(
    shared: Rig, versions: dict[str, int], chosen: int | None
) -> None:
    """The peer of the version before is the one that was recorded: it says nothing of versions."""
    context = ssl.create_default_context(cafile=str(shared.folder / "public.pem"))
    context.load_cert_chain(shared.folder / "CP01.pem", shared.folder / "CP01.key")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", shared.tunnel_port, ssl=context, server_hostname=NAME
    )
    try:
        if versions == {"newest": 1}:
            old = {"connection_id": CONNECTION_ID, "connection_point": "OLD"}
            writer.write(tunnel.encode(tunnel.Type.HELLO, 0, msgspec.json.encode(old)))
        else:
            writer.write(hello(CONNECTION_ID, **versions))
        async with asyncio.timeout(10):
            header = await reader.readexactly(tunnel.HEADER_BYTES)
            payload = await reader.readexactly(int.from_bytes(header[:4]))
        if chosen is None:
            assert header[4] == tunnel.Type.GOAWAY
            assert b"speaks versions 1 to 3" in payload
        else:
            said = msgspec.json.decode(payload, type=tunnel.GatewayHello)
            assert (header[4], said.protocol) == (tunnel.Type.HELLO, chosen)
    finally:
        writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()
    await shared.until(lambda facts: facts["connection_points"] == ["CP01"])


async def test_a_crowd_at_the_door_keeps_nobody_from_being_served(shared: Rig) -> None:
    """More than a few who prove nothing are told to come again, and clients are served meanwhile."""
    context = shared.context()
    lines = "".join(f"{name}: {value}\r\n" for name, value in KNOCK.items())
    knock = f"GET /CCM_Proxy_Tunnel HTTP/1.1\r\nHost: {NAME}\r\n{lines}\r\n".encode()
    writers = []
    answers = []
    for _ in range(70):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", shared.port, ssl=context, server_hostname=NAME
        )
        writers.append(writer)
        writer.write(knock)
        async with asyncio.timeout(10):
            answers.append((await reader.readuntil(b"\r\n"))[9:12])
    assert answers == [b"101"] * 64 + [b"503"] * 6
    assert (await shared.ask("GET", f"{BASE}/echo", shared.token())).status_code == 200
    for writer in writers:
        writer.transport.abort()
