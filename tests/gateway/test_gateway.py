"""The gateway and the connection point, from outside: real processes, real TLS."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import pytest
from joserfc.jwk import RSAKey

from tandem import pki
from tandem.gateway import GatewaySettings
from tandem.infra import config

from .conftest import BASE, MUTUAL, NAME, TENANT, Rig, code, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]


async def test_a_request_reaches_the_management_point_with_its_path_unchanged(shared: Rig) -> None:
    path = f"{BASE}/echo/.sms_aut?MPLIST&x=%C3%A9"
    answer = await shared.ask(
        "POST",
        path,
        shared.token(),
        content=b"hello",
        headers={"X-Own": "kept", "CMG-Client-Identity": "forged", "TE": "trailers"},
    )
    assert (answer.status_code, answer.text) == (200, "POST 5")
    (seen,) = shared.seen
    assert seen["target"] == b"/echo/.sms_aut?MPLIST&x=%C3%A9"
    assert seen["body"] == b"hello"
    assert seen["headers"]["x-own"] == "kept"
    assert seen["headers"]["cmg-client-identity"] == "d1"
    assert seen["headers"]["authorization"].startswith("Bearer ")
    assert "te" not in seen["headers"]


async def test_tokens_of_the_tenant_and_of_the_site_pass_and_others_do_not(shared: Rig) -> None:
    for token in (shared.token(), shared.site_token()):
        assert (await shared.ask("GET", f"{BASE}/echo", token)).status_code == 200
    stranger = RSAKey.generate_key(2048, {"kid": "t1"}, private=True)
    for token in (
        "",
        "nonsense",
        shared.token(key=stranger),
        shared.token(aud="https://other"),
        shared.token(iss="https://evil/"),
        shared.token(tid="00000000-0000-0000-0000-000000000000"),
        shared.token(nbf=4_000_000_000),
        shared.site_token(iss="urn:sccm:site:XYZ"),
        shared.site_token(aud="else"),
        shared.token()[:-4] + "AAAA",
        "a" * 20_000,
    ):
        answer = await shared.ask("GET", f"{BASE}/echo", token)
        assert answer.status_code == 401, token[:40]
        assert code(answer).startswith("CMGService_")
    expired = await shared.ask("GET", f"{BASE}/echo", shared.token(seconds=-5))
    assert (expired.status_code, code(expired)) == (401, "CMGService_Invalid_Token")
    assert "expired" in expired.json()["error"]["message"]
    assert not shared.seen[2:]


UNPUBLISHED = [
    "/",
    "/api/v1/clients",
    f"{BASE}/",
    f"{BASE}/secret",
    f"{BASE}/echoes",
    f"{BASE}/echo/../secret",
    f"{BASE}/echo/%2e%2e/secret",
    f"{BASE}/echo%2f..%2fsecret",
    f"{BASE}//echo",
    f"{BASE}/echo/\\..\\secret",
    "/CCM_Proxy_ServerAuth/1/echo",
]


async def test_nothing_but_published_addresses_is_reached(shared: Rig) -> None:
    for path in UNPUBLISHED:
        reader, writer = await asyncio.open_connection(
            "localhost", shared.port, ssl=shared.context()
        )
        request = (
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.token()}\r\n\r\n"
        )
        writer.write(request.encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.split()[1] in {b"403", b"400"}, path
        assert b"CMGService_" in answer, path
        writer.close()
    assert shared.seen == []


async def test_methods_and_bodies_are_held_to_what_is_published(shared: Rig) -> None:
    token = shared.token()
    assert (await shared.ask("DELETE", f"{BASE}/echo", token)).status_code == 405
    large = await shared.ask("POST", f"{BASE}/echo", token, content=b"x" * 100_001)
    assert (large.status_code, code(large)) == (413, "CMGService_Content_Length")

    async def endless() -> object:
        while True:
            yield b"x" * 10_000

    try:
        answer = await shared.ask("POST", f"{BASE}/echo", token, content=endless())
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # Refused while it was still sending.
    whole = await shared.ask("POST", f"{BASE}/echo", token, content=b"x" * 100_000)
    assert whole.text == "POST 100000"
    # As large as anything that the site publishes, and larger than what may be under way at once.
    largest = await shared.ask("POST", f"{BASE}/large", token, content=b"x" * 512 * 1024)
    assert (largest.status_code, largest.text) == (200, "POST 524288")
    assert [len(item["body"]) for item in shared.seen] == [100_000, 524_288]


UNCLEAN = [
    b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /p HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET /p HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer other\r\n\r\n",
    b"GET /p HTTP/1.1\r\n\r\n",
    b"GET /p HTTP/1.1\r\nHost : x\r\n\r\n",
    b"\x16\x03\x01 nonsense\r\n\r\n",
    b"GET /p HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 60_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
]


async def test_what_is_not_clean_http_is_refused_and_the_connection_closed(shared: Rig) -> None:
    token = shared.token().encode()
    for number, raw in enumerate(UNCLEAN):
        raw = raw.replace(b"/p ", BASE.encode() + b"/echo ", 1)
        raw = raw.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer " + token + b"\r\n\r\n", 1)
        reader, writer = await asyncio.open_connection(
            "localhost", shared.port, ssl=shared.context()
        )
        writer.write(raw)
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer == b"" or answer.split()[1] in {b"400", b"414", b"431"}, number
        writer.close()
    assert shared.seen == []


async def test_the_edge_tells_a_device_about_its_tenant_and_nobody_else(shared: Rig) -> None:
    for entry in ("/CCM_Proxy_ServerAuth", "/CCM_PROXY_MUTUALAUTH"):
        known = await shared.ask("GET", f"{entry}/AADAuthInfo?TenantID={TENANT}")
        assert known.json()["clientAppId"] == "client-app"
        assert known.json()["resourceUri"] == "https://ConfigMgrService"
        unknown = await shared.ask("GET", f"{entry}/AADAuthInfo?TenantID=someone")
        assert (unknown.status_code, unknown.content) == (204, b"")
        metadata = await shared.ask("GET", f"{entry}/ServiceMetadata")
        assert metadata.json()["serviceName"] == NAME
    assert shared.seen == []


async def test_a_client_with_a_certificate_needs_a_root_and_its_revocation_list(rig: Rig) -> None:
    good = rig.client_certificate("good")
    bad = rig.client_certificate("bad")
    for certificate in ("", "good"):
        async with rig.client(certificate) as client:
            nothing = await client.get(f"{MUTUAL}/echo")
        assert nothing.status_code == 403
        assert "no trusted root" in nothing.json()["error"]["message"]
        assert "(CRL) was uploaded" in nothing.json()["error"]["message"]
    assert (await rig.ask("GET", f"{BASE}/echo", rig.token())).status_code == 200
    await rig.news(roots=[pki.pem(rig.clients_root.certificate).decode()])
    async with rig.client("good") as client:
        missing = await client.get(f"{MUTUAL}/echo")
    assert code(missing) == "CMGService_Crl_Missing"
    assert "Clients' root" in missing.json()["error"]["message"]
    assert (await rig.ask("GET", f"{BASE}/echo", rig.token())).status_code == 200
    await rig.news(crls=[rig.crl([(bad.serial_number, rig.now)])])
    async with rig.client("good") as client:
        assert (await client.get(f"{MUTUAL}/echo")).status_code == 200
        assert rig.seen[-1]["headers"]["cmg-client-identity"]
        async with rig.client("bad") as revoked:
            assert code(await revoked.get(f"{MUTUAL}/echo")) == "CMGService_Certificate_Revoked"
        # The open connection of a client that is revoked now does not outlive the list.
        await rig.news(crls=[rig.crl([(good.serial_number, rig.now)])])
        assert code(await client.get(f"{MUTUAL}/echo")) == "CMGService_Certificate_Revoked"
    await rig.news(crls=[rig.crl(days=-1)])
    async with rig.client("good") as client:
        expired = await client.get(f"{MUTUAL}/echo")
        assert code(expired) == "CMGService_Crl_Expired"
        assert "Clients' root" in expired.json()["error"]["message"]
    await rig.news(check_revocation=False, crls=[])
    async with rig.client("good") as client:
        assert (await client.get(f"{MUTUAL}/echo")).status_code == 200


async def test_a_certificate_of_somebody_else_does_not_pass(rig: Rig) -> None:
    await rig.news(roots=[pki.pem(rig.clients_root.certificate).decode()], check_revocation=False)
    rig.client_certificate("stranger", pki.new_root(pki.name("Clients' root"), now=rig.now))
    async with rig.client("stranger") as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"{MUTUAL}/echo")
    rig.server_certificate("not-a-client")
    async with rig.client("not-a-client") as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"{MUTUAL}/echo")
    assert rig.seen == []


async def test_a_resumed_session_of_a_revoked_client_is_refused(rig: Rig) -> None:
    """OpenSSL consults no list when a session is resumed (TLS 1.2 and 1.3): the gate has to."""
    victim = rig.client_certificate("victim")
    await rig.news(
        roots=[pki.pem(rig.clients_root.certificate).decode()],
        crls=[rig.crl()],
    )
    context = rig.context("victim")

    def ask(session: ssl.SSLSession | None) -> tuple[bytes, bool | None, ssl.SSLSession]:
        with (
            socket.create_connection(("localhost", rig.port), 10) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(f"GET {MUTUAL}/echo HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = tls.recv(65536)
            kept = tls.session
            assert kept is not None
            return answer, tls.session_reused, kept

    first, _, session = await asyncio.to_thread(ask, None)
    assert first.startswith(b"HTTP/1.1 200")
    again, reused, _ = await asyncio.to_thread(ask, session)
    assert (again.split()[1], reused) == (b"200", True)
    await rig.news(crls=[rig.crl([(victim.serial_number, rig.now)])])
    refused, reused, _ = await asyncio.to_thread(ask, session)
    assert reused
    assert b"403" in refused.split(b"\r\n")[0]
    assert b"CMGService_Certificate_Revoked" in refused


async def test_large_answers_stream_with_and_without_a_length(shared: Rig) -> None:
    for query in ("mb=20&sized=1", "mb=20"):
        answer = await shared.ask("GET", f"{BASE}/big?{query}", shared.token(), timeout=30)
        assert len(answer.content) == 20_000_000
        assert answer.content[5_000_000] == 5


async def test_a_client_that_does_not_read_holds_up_nobody(shared: Rig) -> None:
    context = ssl.create_default_context(cafile=shared.folder / "public.pem")
    reader, writer = await asyncio.open_connection(
        "localhost", shared.port, ssl=context, limit=1024
    )
    request = f"GET {BASE}/big?mb=200 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.token()}\r\n\r\n"
    writer.write(request.encode())
    await reader.readline()
    for _ in range(5):
        answer = await shared.ask("GET", f"{BASE}/echo", shared.token())
        assert answer.status_code == 200
    writer.transport.abort()


async def test_a_broken_tunnel_is_repaired(rig: Rig) -> None:
    await asyncio.to_thread(rig.stop, "connector", signal.SIGKILL)
    await rig.until(lambda facts: facts["tunnels"] == 0)
    alone = await rig.ask("GET", f"{BASE}/echo", rig.token())
    assert (alone.status_code, code(alone)) == (503, "CMGService_No_Connection_Point")
    rig.start_connector()
    await rig.until(lambda facts: facts["tunnels"] == 1)
    assert (await rig.ask("GET", f"{BASE}/echo", rig.token())).status_code == 200


async def test_a_killed_gateway_comes_back_with_what_it_knew(rig: Rig) -> None:
    await asyncio.to_thread(rig.stop, "gateway", signal.SIGKILL)
    await asyncio.to_thread(rig.stop, "connector")
    rig.start_gateway()
    facts = await rig.until(lambda facts: facts["version"] == 1)
    assert facts["tunnels"] == 0
    known = await rig.ask("GET", f"/CCM_Proxy_ServerAuth/AADAuthInfo?TenantID={TENANT}")
    assert known.status_code == 200
    rig.start_connector()
    await rig.until(lambda facts: facts["tunnels"] == 1)


async def test_a_silent_or_missing_management_point_is_named(rig: Rig) -> None:
    late = await rig.ask("GET", f"{BASE}/slow", rig.token(), timeout=20)
    assert (late.status_code, code(late)) == (504, "CMGConnector_Timeout")
    rig.site_port = 1  # Nothing listens there.
    await rig.news()
    gone = await rig.ask("GET", f"{BASE}/echo", rig.token(), timeout=20)
    assert (gone.status_code, code(gone)) == (502, "CMGConnector_Management_Point_Unreachable")
    rig.site_port = (
        rig.port
    )  # Somebody else answers there, with a certificate of another authority.
    await rig.news()
    other = await rig.ask("GET", f"{BASE}/echo", rig.token(), timeout=20)
    assert (other.status_code, code(other)) == (403, "CMGConnector_Forbidden")
    assert other.reason_phrase == "CMGConnector_Forbidden"


async def test_the_connection_point_reports_connections_and_traffic(rig: Rig) -> None:
    for _ in range(3):
        await rig.ask("GET", f"{BASE}/echo", rig.token())

    def told() -> int:
        return sum(t.requests for r in rig.reports for t in r.traffic if t.endpoint == "echo")

    for _ in range(200):
        if told() >= 3:
            break
        await asyncio.sleep(0.05)
    assert told() == 3
    assert rig.reports[-1].connections[0].state == "connected"


async def test_only_who_has_certificate_and_connection_id_opens_a_tunnel(shared: Rig) -> None:
    context = ssl.create_default_context(cafile=shared.folder / "public.pem")
    shared.client_certificate("stranger")
    for name in ("", "stranger"):
        if name:
            context.load_cert_chain(shared.folder / f"{name}.pem", shared.folder / f"{name}.key")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            reader, _ = await asyncio.open_connection("localhost", shared.tunnel_port, ssl=context)
            if await reader.read(1) == b"":
                raise ConnectionError
    from tandem.protocols import tunnel

    context = ssl.create_default_context(cafile=shared.folder / "public.pem")
    context.load_cert_chain(shared.folder / "CP01.pem", shared.folder / "CP01.key")
    reader, writer = await asyncio.open_connection("localhost", shared.tunnel_port, ssl=context)
    hello = json.dumps({"connection_id": "wrong", "connection_point": "CP99"}).encode()
    writer.write(tunnel.encode(tunnel.Type.HELLO, 0, hello))
    assert await reader.read() == b""
    assert (await shared.health())["connection_points"] == ["CP01"]


async def test_no_token_stands_in_a_log(shared: Rig) -> None:
    token = shared.token()
    await shared.ask("GET", f"{BASE}/echo?x=geheim", token)
    await asyncio.sleep(0.2)
    logs = b"".join(path.read_bytes() for path in (shared.folder / "logs").iterdir())
    assert b"/echo" in logs
    assert token.encode() not in logs
    assert token.split(".")[2].encode() not in logs


async def test_every_worker_gets_a_tunnel_and_a_dead_one_is_replaced(rig: Rig) -> None:
    await asyncio.to_thread(rig.stop, "gateway")
    rig.workers = 2
    rig.start_gateway()

    async def connected() -> set[str]:
        for _ in range(300):
            if rig.reports and len(rig.reports[-1].connections) == 2:
                states = rig.reports[-1].connections
                if all(state.state == "connected" for state in states):
                    return {state.worker for state in states}
            await asyncio.sleep(0.05)
        raise AssertionError(rig.reports[-1])

    workers = await connected()
    assert len(workers) == 2
    victim = next(iter(workers))
    os.kill(int(victim.split("-")[1]), signal.SIGKILL)
    rig.reports.clear()
    for _ in range(300):
        await asyncio.sleep(0.05)
        if rig.reports and victim not in {s.worker for s in rig.reports[-1].connections}:
            break
    assert len(await connected()) == 2
    for _ in range(6):
        assert (await rig.ask("GET", f"{BASE}/echo", rig.token())).status_code == 200
    # With fewer workers than before, nobody goes on dialling those that are gone.
    await asyncio.to_thread(rig.stop, "gateway")
    rig.workers = 1
    rig.start_gateway()
    await rig.until(lambda facts: facts["tunnels"] == 1)
    await rig.reported(lambda states: [state.state for state in states] == ["connected"])


async def test_without_the_fast_transport_everything_still_works(tmp_path: Path) -> None:
    """The switch for a machine on which aiofastnet does not: TLS is uvloop's then."""
    made = Rig(tmp_path)
    made.fast_tls = False
    made.roots = [pki.pem(made.clients_root.certificate).decode()]
    made.crls = [made.crl()]
    made.client_certificate("good")
    async with serving(made):
        answer = await made.ask("POST", f"{BASE}/large", made.token(), content=b"x" * 500_000)
        assert answer.text == "POST 500000"
        big = await made.ask("GET", f"{BASE}/big?mb=5", made.token(), timeout=30)
        assert len(big.content) == 5_000_000
        async with made.client("good") as client:
            assert (await client.get(f"{MUTUAL}/echo")).status_code == 200
        await made.news(crls=[])
        async with made.client("good") as client:
            assert code(await client.get(f"{MUTUAL}/echo")) == "CMGService_Crl_Missing"


async def test_a_gateway_that_cannot_start_says_why(shared: Rig) -> None:
    async def started(**changes: object) -> str:
        settings = config.load(shared.folder / "gateway.toml", GatewaySettings)
        file = shared.folder / "second.toml"
        file.write_text(
            config.dump(
                msgspec.structs.replace(settings, state=shared.folder / "second", **changes)
            )
        )
        words = [sys.executable, "-m", "tandem.cli", "gateway", "run", "--config", str(file)]
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return done.stderr

    assert f"127.0.0.1:{shared.port} cannot be listened on" in " ".join((await started()).split())
    wrong = shared.folder / "wrong.password"
    wrong.write_text("wrong")
    assert "password" in await started(pfx_password_file=wrong)
    assert "cannot be read" in await started(pfx=shared.folder / "nowhere.pfx")
