"""The gateway beside its peers: processor time, latency and memory of the data plane.

What is compared, each started anew in each of three rounds, in turns:

ours      gateway (one worker) and connection point, with everything on: client certificates and their
          revocation list of 2,000 entries, the site's list of what is published, limits, logs, metrics
nginx     as a plain reverse proxy with client certificates and the same list, two workers
ssh -R    the same nginx before a port that `ssh -R` holds on OpenSSH's server: how a relay that is
          dialled from inside is built from ready parts

Content at the edge is a file of 64 MB on nginx's disk, and on the gateway's shelf, encrypted, for a signed
request with a token. All else is relayed to one nginx with an answer of 1 KB and a file, over plain HTTP. `load_client.c` asks, on the
same cores. Processor time is user and system time of all processes of a part, for each request.
"""

import base64
import getpass
import hashlib
import json
import os
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey

from bench.figures import Figure, Outcome, machine
from bench.processes import cpu_seconds, free_port, load_client, start
from tandem import pki
from tandem.infra import config
from tandem.infra.secrets import private_folder, write_private
from tandem.protocols import ccm, tunnel

ROUNDS = 3
_SECONDS = 3.0
_IDLE = 5_000
_STALLED = 4
_REVOKED = 2_000
_FILE_BYTES, _LARGE_BYTES = 32 << 20, 100 << 20
# More than a worker keeps decrypted: each chunk is read and decrypted for each client.
_CONTENT_BYTES = 64 << 20
_NAME = "bench.example.org"
_MP, _FILES = "/CCM_Proxy_MutualAuth/mp", "/CCM_Proxy_MutualAuth/files"
_ROLE = (
    "import sys; from pathlib import Path; from tandem.roles import gateway, connector;"
    " {'gateway': gateway, 'connector': connector}[sys.argv[1]].run(Path(sys.argv[2]))"
)
OURS, NGINX, SSH = "ours", "nginx", "nginx + ssh -R"

_BACKEND = """daemon off; worker_processes 1; pid {folder}/backend.pid; error_log stderr warn;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h; sendfile on; tcp_nodelay on;
 {temp}
 server {{ listen 127.0.0.1:{port} backlog=4096;
  location ~ ^(/CCM_Proxy_MutualAuth)?/mp/ {{ default_type application/json; return 200 '{answer}'; }}
  location /files/ {{ alias {folder}/www/; }}
  location /CCM_Proxy_MutualAuth/files/ {{ alias {folder}/www/; }}
  location = /CMG_Content/key {{ default_type application/json; return 200 '{key}'; }}
  location /CMG_Content/ {{ alias {folder}/www/; }} }} }}
"""
_FRONT = """daemon off; worker_processes 2; pid {folder}/front.pid; error_log stderr warn;
worker_rlimit_nofile 20000; {user}
events {{ worker_connections 9000; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h; sendfile on; tcp_nodelay on;
 {temp}
 upstream up {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000;
  keepalive_timeout 1h; }}
 server {{ listen 127.0.0.1:{port} ssl reuseport backlog=4096; server_name localhost;
  ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
  ssl_protocols TLSv1.2 TLSv1.3; ssl_verify_client on; ssl_client_certificate {folder}/clients.pem;
  ssl_crl {folder}/clients.crl; ssl_session_cache shared:S:10m;
  location /CCM_Content/ {{ alias {folder}/www/; }}
  location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
   proxy_set_header X-Client-Fingerprint $ssl_client_fingerprint; proxy_buffering on; }} }} }}
"""
_SSHD = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
AllowTcpForwarding yes
MaxSessions 100
"""


def run() -> Outcome:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
            bench = _Bench(Path(folder), stack)
            for number in range(ROUNDS):
                for name in (OURS, NGINX, SSH):
                    with bench.serving(name) as parts:
                        for figure, value in bench.measured(name, parts).items():
                            seen[name][figure].append(value)
                    _say(number, name, {f: v[-1] for f, v in seen[name].items()})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = {
        name: {figure: statistics.median(values) for figure, values in every.items()}
        for name, every in seen.items()
    }
    return Outcome(
        machine(),
        f"one gateway worker and one connection point, load average {os.getloadavg()[0]:.1f}"
        f" at the end, medians of {ROUNDS} rounds in turns",
        list(_figures(found)),
    )


def _say(number: int, name: str, values: dict[str, float]) -> None:
    told = ", ".join(f"{figure} {value:.4g}" for figure, value in values.items())
    sys.stderr.write(f"round {number + 1}, {name}: {told}\n")


def _figures(found: dict[str, dict[str, float]]) -> Iterator[Figure]:
    ours, nginx, ssh = found[OURS], found[NGINX], found[SSH]
    relay = "nginx + ssh -R"
    for name, value, unit, peer, of, reach in (
        ("gateway, CPU of a small request", "front", "ms", "nginx", nginx, "<= 1.3"),
        ("gateway and connection point, the same", "all", "ms", relay, ssh, "<= 0.7"),
        ("small requests, 64 connections", "rate", "1/s", relay, ssh, ">= 2.5"),
        ("p99 of 64 connections", "p99", "ms", "nginx", nginx, "<= 2.5"),
        ("p50 of one connection", "p50", "ms", relay, ssh, "<= 1.0"),
        ("full handshake with revocation, CPU", "handshake", "ms", "nginx", nginx, "<= 1.3"),
        ("resumed handshake, CPU", "resumed", "ms", "nginx", nginx, "<= 1.8"),
        ("file through the tunnel", "speed", "MB/s", relay, ssh, ">= 1.3"),
        ("the same, CPU of all parts", "gigabyte", "s/GB", relay, ssh, "<= 0.7"),
        ("content at the edge, CPU", "content", "s/GB", "nginx", nginx, "<= 1.2"),
        ("p50 beside 4 downloads", "beside", "ms", relay, ssh, "<= 1.0"),
    ):
        yield Figure(name, round(ours[value], 4), unit, peer, of[value], reach=reach)
    yield Figure("the same alone", round(ours["beside"], 2), "ms", reach="<= 8")
    yield Figure("memory of an idle TLS connection", round(ours["idle"], 1), "KB", reach="<= 48")
    yield Figure(
        f"{_STALLED} clients that do not read 100 MB: gateway's growth for each",
        round(ours["stalled"], 2),
        "MB",
        reach="<= 0.5",
    )
    yield Figure(
        "requests of others beside them", round(ours["others"], 2), "of before", reach=">= 0.75"
    )


class _Bench:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.port = folder, free_port()
        # nginx runs its workers as another user when root starts it.
        folder.chmod(0o755)
        self._certificates()
        self._requests()
        self.backend = free_port()
        answer = json.dumps({"ok": True, "policies": ["0123456789abcdef"] * 50})[:1023] + "}"
        temp = " ".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self._temp = temp
        self._nginx(
            stack,
            "backend",
            _BACKEND.format(
                folder=folder, port=self.backend, answer=answer, temp=temp, key=self._key
            ),
            self.backend,
        )

    def _certificates(self) -> None:
        now, folder = datetime.now(UTC), self.folder
        public = pki.new_root(pki.name("Bench root"), now=now)
        site = pki.new_root(pki.name("Bench site"), now=now)
        clients = pki.new_root(pki.name("Bench clients"), now=now)

        def issued(authority: Any, name: str, usage: str) -> tuple[Any, x509.Certificate]:
            key = pki.generate_key()
            dns = [name, "localhost"]
            leaf = authority.issue(
                key.public_key(), pki.name(name), now=now, days=2, dns=dns, usages=[usage]
            )
            return key, leaf

        key, leaf = issued(public, _NAME, "server")
        pfx = pki.pfx_export(key, leaf, [public.certificate], "secret", _NAME)
        write_private(folder / "gateway.pfx", pfx)
        write_private(folder / "gateway.password", b"secret")
        write_private(folder / "server.key", pki.key_pem(key))
        (folder / "server.pem").write_bytes(pki.pem(leaf, public.certificate))
        (folder / "public.pem").write_bytes(pki.pem(public.certificate))
        key, leaf = issued(site, "CP01", "client")
        write_private(folder / "CP01.key", pki.key_pem(key))
        (folder / "CP01.pem").write_bytes(pki.pem(leaf))
        (folder / "site.pem").write_bytes(pki.pem(site.certificate))
        key, leaf = issued(clients, "PC-1", "client")
        write_private(folder / "client.key", pki.key_pem(key))
        (folder / "client.pem").write_bytes(pki.pem(leaf))
        (folder / "clients.pem").write_bytes(pki.pem(clients.certificate))
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(clients.certificate.subject)
            .last_update(now - timedelta(hours=1))
            .next_update(now + timedelta(days=2))
        )
        for number in range(_REVOKED):
            revoked = x509.RevokedCertificateBuilder()
            revoked = revoked.serial_number(number + 1000).revocation_date(now)
            made = made.add_revoked_certificate(revoked.build())
        self.crl = made.sign(clients.key, hashes.SHA256())
        (folder / "clients.crl").write_bytes(self.crl.public_bytes(Encoding.PEM))
        self.clients = clients.certificate

    def _requests(self) -> None:
        www = self.folder / "www"
        www.mkdir()
        with (www / "file").open("wb") as file:
            file.write(os.urandom(1 << 20) * (_FILE_BYTES >> 20))
        with (www / "large").open("wb") as file:
            file.truncate(_LARGE_BYTES)
        with (www / "content").open("wb") as file:
            for _ in range(_CONTENT_BYTES >> 20):
                file.write(os.urandom(1 << 20))
        with (www / "content").open("rb") as file:
            self._content = hashlib.file_digest(file, "sha256").hexdigest()
        (www / "content").rename(www / self._content)
        made = tunnel.ContentKey(self._content, 1, _CONTENT_BYTES, os.urandom(32).hex())
        self._key = msgspec.json.encode(made).decode()
        self._token_key = ECKey.generate_key("P-256", {"kid": "bench"}, private=True)
        self._device = pki.generate_key("p256")
        agent = "User-Agent: ccm\r\nAccept: */*\r\nX-Padding: 0123456789abcdef0123456789abcdef\r\n"
        for name, path, close in (
            ("small", f"{_MP}/policy", ""),
            ("close", f"{_MP}/policy", "Connection: close\r\n"),
            ("file", f"{_FILES}/file", ""),
        ):
            text = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{agent}{close}\r\n"
            (self.folder / f"{name}.request").write_text(text)

    def _content_request(self) -> None:
        """With a token and a signature, which is good for five minutes."""
        now = datetime.now(UTC)
        claims = {
            "iss": "urn:sccm:site:CM1",
            "aud": ccm.CONTENT_AUDIENCE,
            "sub": self._content,
            "size": _CONTENT_BYTES,
            "gateway": _NAME,
            "dist": 1,
            "deviceid": "PC-1",
            "nbf": int(now.timestamp()) - 5,
            "exp": int(now.timestamp()) + 3600,
            "cnf": {"jwk": pki.public_jwk(self._device.public_key())},
        }
        path = f"{tunnel.CONTENT}/{self._content}"
        token = jwt.encode({"alg": "ES256", "kid": "bench"}, claims, self._token_key)
        signed = ccm.sign_request(
            self._device, method="GET", target=path, body=b"", client_id="", now=now, nonce="n" * 24
        )
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}"]
        lines += [f"{name}: {value}" for name, value in signed.items()]
        (self.folder / "content.request").write_text("\r\n".join(lines) + "\r\n\r\n")

    # ------------------------------------------------------------------ processes

    def _nginx(self, stack: ExitStack, name: str, text: str, port: int) -> int:
        file = self.folder / f"{name}.conf"
        file.write_text(text)
        line = ["nginx", "-c", str(file), "-p", str(self.folder), "-e", "stderr"]
        return self._begin(stack, name, line, port)

    def _begin(self, stack: ExitStack, name: str, line: Sequence[str], port: int) -> int:
        process = start(line, port, self.folder / f"{name}.out")
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
        return process.pid

    @contextmanager
    def serving(self, name: str) -> Iterator[dict[str, list[int]]]:
        """The processes of a candidate: of what stands on the internet, and of the rest."""
        with ExitStack() as stack:
            self.port = free_port()
            if name == OURS:
                yield self._ours(stack)
                return
            upstream, rest = self.backend, []
            if name == SSH:
                upstream, rest = self._ssh(stack)
            user = "user root;" if os.geteuid() == 0 else ""
            text = _FRONT.format(
                folder=self.folder, port=self.port, upstream=upstream, temp=self._temp, user=user
            )
            yield {"front": [self._nginx(stack, "front", text, self.port)], "rest": rest}

    def _ours(self, stack: ExitStack) -> dict[str, list[int]]:
        folder, tunnel_port, health = self.folder, free_port(), free_port()
        state = private_folder(folder / f"gateway-{self.port}")
        gateway = {
            "service_name": _NAME,
            "host": "127.0.0.1",
            "port": self.port,
            "tunnel_port": tunnel_port,
            "health": f"127.0.0.1:{health}",
            "pfx": str(folder / "gateway.pfx"),
            "pfx_password_file": str(folder / "gateway.password"),
            "connector_ca": str(folder / "site.pem"),
            "connection_id": "bench",
            "state": str(state),
            "logs": str(private_folder(folder / "logs")),
        }
        known = private_folder(folder / f"connector-{self.port}")
        inside = f"http://127.0.0.1:{self.backend}"
        limits = tunnel.Limits(idle_seconds=3600)
        crl = base64.b64encode(self.crl.public_bytes(Encoding.DER)).decode()
        told = tunnel.Configuration(
            1,
            _NAME,
            "CM1",
            trusted_roots=[pki.pem(self.clients).decode()],
            crls=[crl],
            site_token_keys={"keys": [self._token_key.as_dict(private=False)]},
            content=tunnel.ContentService(),
            endpoints=[
                tunnel.Endpoint(prefix, ["GET"], 65_536, ["certificate"])
                for prefix in (_MP, _FILES)
            ],
            limits=limits,
        )
        instance = tunnel.Instance(1, "127.0.0.1", self.port, tunnel_port)
        target = tunnel.GatewayTarget(_NAME, _NAME, "bench", [instance], told)
        mappings = [
            tunnel.Mapping(_MP, f"{inside}/mp"),
            tunnel.Mapping(_FILES, f"{inside}/files"),
            tunnel.Mapping(tunnel.ORIGIN, f"{inside}{tunnel.ORIGIN}"),
        ]
        wanted = tunnel.ConnectorConfiguration("CP01", [target], mappings)
        write_private(known / "configuration.json", msgspec.json.encode(wanted))
        connector = {
            "connection_point": "CP01",
            "management_point_url": f"https://localhost:{free_port()}",
            "certificate": str(folder / "CP01.pem"),
            "key": str(folder / "CP01.key"),
            "site_root": str(folder / "site.pem"),
            "state": str(known),
            "gateway_ca_file": str(folder / "public.pem"),
            "logs": str(folder / "logs"),
            "health": f"127.0.0.1:{free_port()}",
        }
        found = {}
        for name, settings, port in (
            ("gateway", gateway, self.port),
            ("connector", connector, int(str(connector["health"]).rpartition(":")[2])),
        ):
            file = folder / f"{name}.toml"
            file.write_text(config.toml(settings))
            line = [sys.executable, "-c", _ROLE, name, str(file)]
            found[name] = self._begin(stack, name, line, port)
        self._answers()
        return {"front": [found["gateway"]], "rest": [found["connector"]]}

    def _answers(self, seconds: float = 60) -> None:
        """The way through is open."""
        until = time.monotonic() + seconds
        request = (self.folder / "small.request").read_bytes()
        while time.monotonic() < until:
            try:
                with self._connect() as wire:
                    wire.sendall(request)
                    if wire.recv(4096).startswith(b"HTTP/1.1 200"):
                        return
            except OSError:
                pass
            time.sleep(0.2)
        raise SystemExit("the gateway does not relay")

    def _connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.folder / "public.pem")
        context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        wire = socket.create_connection(("127.0.0.1", self.port), 10)
        return context.wrap_socket(wire, server_hostname="localhost")

    def _ssh(self, stack: ExitStack) -> tuple[int, list[int]]:
        folder, port, upstream = self.folder, free_port(), free_port()
        if not (folder / "host_key").exists():
            for name in ("host_key", "user_key"):
                line = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
                subprocess.run(line, check=True)
            known = (folder / "user_key.pub").read_text()
            (folder / "authorized_keys").write_text(known)
        file = folder / "sshd.conf"
        file.write_text(_SSHD.format(folder=folder, port=port))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        server = self._begin(stack, "sshd", ["/usr/sbin/sshd", "-D", "-f", str(file)], port)
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        line = ["ssh", "-N", "-F", "none", "-i", str(folder / "user_key"), "-p", str(port)]
        line += [word for option in options for word in ("-o", option)]
        line += ["-R", f"127.0.0.1:{upstream}:127.0.0.1:{self.backend}"]
        line += [f"{getpass.getuser()}@127.0.0.1"]
        return upstream, [server, self._begin(stack, "ssh", line, upstream)]

    # ------------------------------------------------------------------ loads

    def measured(self, name: str, parts: dict[str, list[int]]) -> dict[str, float]:
        self._load("ka", "small", 64, 1)  # Warm.
        found: dict[str, float] = {}
        every = [pid for pids in parts.values() for pid in pids]
        front, all_ = cpu_seconds(parts["front"]), cpu_seconds(every)
        small = self._load("ka", "small", 64, _SECONDS)
        found["front"] = (cpu_seconds(parts["front"]) - front) / small["n"] * 1000
        found["all"] = (cpu_seconds(every) - all_) / small["n"] * 1000
        found["rate"] = small["n"] / small["secs"]
        found["p99"] = small["p99"] / 1000
        found["p50"] = self._load("ka", "small", 1, 2)["p50"] / 1000
        for figure, options in (("handshake", ()), ("resumed", ("-R",))):
            front = cpu_seconds(parts["front"])
            shaken = self._load("hs", "close", 64, _SECONDS, *options)
            found[figure] = (cpu_seconds(parts["front"]) - front) / shaken["n"] * 1000
            if figure == "resumed" and shaken["resumed"] < shaken["hs"] * 0.9:
                raise SystemExit(f"{name}: sessions were not resumed")
        all_ = cpu_seconds(every)
        files = self._load("dl", "file", 4, _SECONDS)
        found["speed"] = files["bytes"] / files["secs"] / 1e6
        found["gigabyte"] = (cpu_seconds(every) - all_) / files["bytes"] * 1e9
        if name != SSH:
            self._content_request()
            self._pull()
            front = cpu_seconds(parts["front"])
            files = self._load("dl", "content", 4, _SECONDS)
            found["content"] = (cpu_seconds(parts["front"]) - front) / files["bytes"] * 1e9
        beside = self._process("dl", "file", 4, _SECONDS + 1)
        time.sleep(0.5)
        found["beside"] = self._load("ka", "small", 1, 2)["p50"] / 1000
        self._outcome(beside)
        if name == OURS:
            found |= self._memory(parts["front"], small["n"] / small["secs"])
        return found

    def _pull(self) -> None:
        """Once through, so that it lies on the gateway's shelf."""
        with self._connect() as wire:
            wire.settimeout(120)
            wire.sendall((self.folder / "content.request").read_bytes())
            left = _CONTENT_BYTES
            while left > 0:
                piece = wire.recv(1 << 20)
                if not piece:
                    raise SystemExit("the content does not come")
                left -= len(piece)

    def _memory(self, pids: list[int], rate: float) -> dict[str, float]:
        before = _pss(pids)
        held = self._process("idle", "small", _IDLE, 60, stdin=subprocess.PIPE)
        assert held.stdout is not None
        count = json.loads(held.stdout.readline())["idle"]
        time.sleep(1.5)
        idle = (_pss(pids) - before) / count / 1024
        assert held.stdin is not None
        held.stdin.close()
        held.wait(30)
        time.sleep(1)
        before = _pss(pids)
        wires = [self._connect() for _ in range(_STALLED)]
        for wire in wires:
            text = f"GET {_FILES}/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
            wire.sendall(text.encode())
        time.sleep(2)
        grown = (_pss(pids) - before) / _STALLED / 1e6
        others = self._load("ka", "small", 64, 2)
        for wire in wires:
            wire.close()
        return {"idle": idle, "stalled": grown, "others": others["n"] / others["secs"] / rate}

    def _process(
        self, mode: str, request: str, connections: int, seconds: float, *more: str, **how: Any
    ) -> subprocess.Popen[str]:
        line = [str(load_client()), "-m", mode, "-s", "-p", str(self.port)]
        line += ["-C", str(self.folder / "client.pem"), "-K", str(self.folder / "client.key")]
        line += ["-c", str(connections), "-d", str(seconds), *more]
        line += ["-r", str(self.folder / f"{request}.request")]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        return subprocess.Popen(line, text=True, **pipes)

    def _load(
        self, mode: str, request: str, connections: int, seconds: float, *more: str
    ) -> dict[str, Any]:
        return self._outcome(self._process(mode, request, connections, seconds, *more))

    def _outcome(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        said, trouble = process.communicate(timeout=120)
        result: dict[str, Any] = json.loads(said or "{}")
        if result.get("err") or not result.get("n"):
            raise SystemExit(f"the load client was refused: {trouble[:500]} {said[:200]}")
        return result


def _pss(roots: Sequence[int]) -> float:
    """Bytes of these processes and their children, what they share counted once."""
    total = 0
    for root in roots:
        process = psutil.Process(root)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    return float(total)
