"""The MDM service under load: 100,000 enrolled devices in PostgreSQL, sessions over mutual TLS.

The tenant runs as its own process, as installed, on the embedded PostgreSQL. CPU is that of the tenant
and of PostgreSQL together. Devices that take part have certificates of the tenant's device CA on one
P-256 key. An idle session is what most sessions are: the device says hello, the service asks what the
site's client says of itself, the device answers as it did before, and nothing is to do.
"""

import asyncio
import json
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg

from bench.figures import Figure, Outcome, machine
from bench.processes import HERE, OUT, cpu_seconds
from bench.tenant import DEVICES, USERS, Tenant
from tandem import pki
from tandem.infra.database import Database
from tandem.infra.secrets import SecretBox, write_private
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Results, Status
from tandem.tenant import enrollment, oidc
from tandem.tenant.enrollment import CONFIG_INFO_URI
from tandem.workloads import BASE, Workload

SAMPLE, CONNECTIONS, SECONDS, ROUNDS = 1_000, 16, 6.0, 3
PROFILES, MOVED, MOVED_PROFILES, TEAMS = 100, 30_000, 40, 5
# What an idle device's agent says; the service has heard it before.
_FLAGS = BASE | Workload.DEVICE_CONFIGURATION.bits
AGENT = f"flags={_FLAGS};agent=1.0;client=GUID:00000000-0000-0000-0000-000000000000;policy=1"
_PATH = "/ManagementServer/MDM.svc?mode=Maintenance&Platform=WoA"
_POLICY = "./Device/Vendor/MSFT/Policy/Config/"


def run() -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        bench = _Bench(Path(folder), stack)
        bench.prepare()
        bench.serve()
        figures = [*bench.idle(), *bench.changed(), *bench.moved(), bench.memory()]
    return Outcome(
        machine(),
        f"{USERS:,} users, {DEVICES:,} enrolled devices, embedded PostgreSQL, one tenant process",
        figures,
    )


class _Bench(Tenant):
    names: dict[int, str]

    # ------------------------------------------------------------------ setting up

    def prepare(self) -> None:
        super().prepare()
        asyncio.run(self._certificates())

    async def _certificates(self) -> None:
        """The first devices of the table get certificates of the tenant's device CA."""
        box = SecretBox.open(self.folder / "state" / "secrets" / "box.key")
        tokens = oidc.Tokens(oidc.OidcSettings(public_url="https://localhost"), box)
        enrolling = enrollment.Enrollment(
            box, tokens, now=lambda: datetime.now(UTC), public_url="", management_url=""
        )
        database = await Database.open(self.dsn)
        try:
            async with database.transaction() as tx:
                await enrolling.establish(tx)
                authority = await enrolling.authority(tx)
        finally:
            await database.close()
        key = pki.generate_key("p256")
        self.certificates = self.folder / "devices"
        self.certificates.mkdir()
        now = datetime.now(UTC)
        with psycopg.connect(self.dsn) as connection:
            found = connection.execute(
                "SELECT id, windows_id FROM enrollment_device ORDER BY windows_id LIMIT %s",
                (SAMPLE,),
            ).fetchall()
            self.names = {}
            for number, (id, windows_id) in enumerate(found):
                made = authority.issue(
                    key.public_key(), pki.name(id), now=now, days=2, usages=["client"]
                )
                write_private(self._file_of(number), pki.pem(made) + pki.key_pem(key))
                self.names[number] = windows_id
                fingerprint, ends = pki.sha256_fingerprint(made), made.not_valid_after_utc
                connection.execute(
                    "INSERT INTO enrollment_certificate (fingerprint, serial, device_id, key_sha256,"
                    " not_before, not_after, renewal_days, state, changed_at)"
                    " VALUES (%s, %s, %s, '', %s, %s, 60, 'active', %s)",
                    (
                        fingerprint,
                        f"{made.serial_number:x}",
                        id,
                        made.not_valid_before_utc,
                        ends,
                        now,
                    ),
                )
                connection.execute(
                    "UPDATE enrollment_device SET fingerprint = %s, certificate_ends_at = %s"
                    " WHERE id = %s",
                    (fingerprint, ends, id),
                )

    def _file_of(self, number: int) -> Path:
        return self.certificates / f"{number}.pem"

    # ------------------------------------------------------------------ a device

    def _connect(self, number: int) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.folder / "root.pem"))
        context.load_cert_chain(self._file_of(number))
        plain = socket.create_connection(("127.0.0.1", self.management_port), 30)
        return context.wrap_socket(plain, server_hostname="localhost")

    def _session(
        self, number: int, wire: ssl.SSLSocket, session: str, keep: list[bytes] | None = None
    ) -> dict[str, str]:
        """One whole session; what it set, by LocURI. `keep` takes its requests."""
        device, taken = self.names[number], {}
        hello = (
            Command("Alert", "2", (), "1201"),
            Command(
                "Alert", "3", (Item(data="user", type="com.microsoft/MDM/LoginStatus"),), "1224"
            ),
            Command(
                "Replace",
                "4",
                tuple(
                    Item(source=f"./DevInfo/{name}", data=value)
                    for name, value in (
                        ("DevId", device),
                        ("Man", "Contoso"),
                        ("Mod", "Model 1"),
                        ("DmV", "1.3"),
                        ("Lang", "en-US"),
                    )
                ),
            ),
        )
        message = Message(session, 1, "https://localhost/", device, hello)
        while True:
            answer = self._post(wire, syncml.write(message), session, keep)
            work = [item for item in answer.commands if item.name in _LEAVES]
            for command in work:
                if command.name in {"Replace", "Add"}:
                    taken |= {item.target: item.data or "" for item in command.items}
                if command.name == "Delete":
                    taken |= {item.target: "" for item in command.items}
            if not work:
                return taken
            message = self._reply(session, answer, device)

    def _reply(self, session: str, answer: Message, device: str) -> Message:
        number = answer.number + 1
        statuses, results = [Status("1", str(answer.number), "0", "SyncHdr", 200)], []
        for command in answer.commands:
            nodes = [_value(item.target) for item in command.items]
            lost = command.name == "Get" and None in nodes
            id = str(len(statuses) + 1)
            statuses.append(
                Status(id, str(answer.number), command.id, command.name, 404 if lost else 200)
            )
            if command.name == "Get" and not lost:
                found = tuple(
                    Item(source=item.target, data=value)
                    for item, value in zip(command.items, nodes, strict=True)
                )
                results.append(Results(f"9{id}", str(answer.number), command.id, found))
        return Message(
            session, number, "https://localhost/", device, (), tuple(statuses), tuple(results)
        )

    def _post(
        self, wire: ssl.SSLSocket, body: bytes, session: str, keep: list[bytes] | None
    ) -> Message:
        head = (
            f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: MSFT OMA DM Client/1.2.0.1\r\n"
            "Content-Type: application/vnd.syncml.dm+xml; charset=utf-8\r\n"
            "Accept: application/vnd.syncml.dm+xml, application/octet-stream\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        if keep is not None:
            mark = f"<SessionID>{session}<".encode()
            assert mark in body
            keep.append(head + body.replace(mark, b"<SessionID>@SESSION<"))
        wire.sendall(head + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += wire.recv(1 << 16)
        top, _, rest = data.partition(b"\r\n\r\n")
        if not top.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"a session was refused: {top[:300].decode()}")
        length = next(
            int(line.partition(b":")[2])
            for line in top.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        while len(rest) < length:
            rest += wire.recv(1 << 16)
        return syncml.read(rest)

    # ------------------------------------------------------------------ idle sessions

    def idle(self) -> list[Figure]:
        """The CPU of a session on a kept connection, of a handshake, the rate and the latency."""
        scripts = self.folder / "scripts"
        scripts.mkdir()
        for number in range(CONNECTIONS):
            with self._connect(number) as wire:
                for n in range(3):  # What the first sessions of a device bring is not idle.
                    self._session(number, wire, f"{n:08x}")
                kept: list[bytes] = []
                taken = self._session(number, wire, "0badcafe", kept)
            if taken or len(kept) != 2:
                raise SystemExit(f"the device is not idle: {len(kept)} messages, {taken}")
            (scripts / f"{number}.pem").write_bytes(self._file_of(number).read_bytes())
            for step, request in enumerate(kept, 1):
                (scripts / f"{number}.{step}").write_bytes(request)
        cpu, rates = [], []
        self._load(scripts, 2, CONNECTIONS)
        for _ in range(ROUNDS):
            before = cpu_seconds(self.pids)
            result = self._load(scripts, SECONDS, CONNECTIONS)
            cpu.append((cpu_seconds(self.pids) - before) / result["n"] * 1000)
            rates.append(result["n"] / result["secs"])
        steady = [
            self._load(scripts, SECONDS, CONNECTIONS, 200)["p99"] / 1000 for _ in range(ROUNDS)
        ]
        # A handshake costs more than a session does, so it is counted apart, on many of them.
        count = 100
        before = cpu_seconds(self.pids)
        for number in range(count):
            self._connect(number).close()
        time.sleep(0.5)
        handshake = (cpu_seconds(self.pids) - before) / count * 1000
        return [
            Figure(
                "idle session (two POSTs) on a kept connection, CPU",
                round(statistics.median(cpu), 2),
                "ms",
                reach="<= 2",
            ),
            Figure("mutual TLS handshake, CPU", round(handshake, 2), "ms"),
            Figure(
                "idle sessions, load client beside",
                round(statistics.median(rates)),
                "1/s",
                reach=">= 400",
            ),
            Figure(
                "idle session at 200 a second, p99",
                round(statistics.median(steady), 1),
                "ms",
                reach="<= 100",
            ),
        ]

    def _load(self, scripts: Path, seconds: float, devices: int, rate: float = 0) -> dict[str, Any]:
        source, program = HERE / "session_client.c", OUT / "session_client"
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            OUT.mkdir(parents=True, exist_ok=True)
            line = ["gcc", "-O2", "-Wall", "-o", str(program), str(source), "-lssl", "-lcrypto"]
            subprocess.run(line, check=True)
        line = [str(program), "-p", str(self.management_port), "-D", str(scripts)]
        line += ["-n", str(devices), "-d", str(seconds), "-r", str(rate)]
        done = subprocess.run(line, check=True, capture_output=True)
        found: dict[str, Any] = json.loads(done.stdout)
        if found["err"] or not found["n"]:
            raise SystemExit(f"sessions were refused: {done.stderr.decode()[:500]}")
        return found

    # ------------------------------------------------------------------ changes

    def changed(self) -> list[Figure]:
        """A hundred profiles of one setting each, for all devices, get another value."""
        ids = [self._profile(f"Idle {n}", {f"Bench/Idle{n}": "1"}, "all") for n in range(PROFILES)]
        self._sessions(range(CONNECTIONS))
        written = self._written()
        begun = time.perf_counter()
        for n, id in enumerate(ids):
            self._patch(id, {f"Bench/Idle{n}": "2"})
        took = time.perf_counter() - begun
        rows = self._written() - written
        wanted = {f"{_POLICY}Bench/Idle{n}": "2" for n in range(PROFILES)}
        wrong = sum(found != wanted for found in self._sessions(range(CONNECTIONS))[0])
        for id in ids:
            self.web.delete(f"/beta/deviceManagement/deviceConfigurations/{id}").raise_for_status()
        self._sessions(range(CONNECTIONS))
        return [
            Figure(
                f"rows written to change {PROFILES} profiles of {DEVICES:,} devices",
                rows,
                "rows",
                reach="<= 999",
            ),
            Figure("the same, time", round(took, 2), "s"),
            Figure("devices that were wrong at their next session", wrong, "", reach="<= 0"),
        ]

    def moved(self) -> list[Figure]:
        """30,000 devices go from a group with 40 profiles to one with 40 others, as teams in it."""
        teams = self._teams()
        old, new = self._group("Old"), self._group("New")
        self._nest(old, teams)
        names = [f"Bench/Moved{n}" for n in range(MOVED_PROFILES)]
        for group, value in ((old, "old"), (new, "new")):
            for name in names:
                self._profile(f"{name} {value}", {name: value}, group)
        self._sessions(range(SAMPLE))
        written, begun = self._written(), time.perf_counter()
        self._nest(new, teams)
        self._leave(old, teams)
        took = time.perf_counter() - begun
        rows = self._written() - written
        found, cpu = self._sessions(range(SAMPLE))
        wanted = {f"{_POLICY}{name}": "new" for name in names}
        wrong = sum(one != wanted for one in found)
        return [
            Figure(
                f"{MOVED:,} devices × {MOVED_PROFILES} profiles, the move",
                round(took, 2),
                "s",
                reach="<= 2",
            ),
            Figure("the same, rows written", rows, "rows", reach="<= 100"),
            Figure(
                f"a session that delivers {MOVED_PROFILES} settings, CPU",
                round(cpu, 1),
                "ms",
                reach="<= 15",
            ),
            Figure(f"of {SAMPLE:,} sampled sessions, wrong", wrong, "", reach="<= 0"),
        ]

    def memory(self) -> Figure:
        process = psutil.Process(self.pids[-1])
        size = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
        return Figure("tenant process after all of it", round(size / 1e6), "MB", reach="<= 300")

    def _sessions(self, numbers: Sequence[int]) -> tuple[list[dict[str, str]], float]:
        """A session of each device: what each set, and the CPU of one without its handshake."""
        found: list[dict[str, str]] = []
        spent = 0.0
        session = f"{int(time.time() * 1000) % (1 << 32):08x}"
        for first in range(0, len(numbers), 50):
            part = numbers[first : first + 50]
            wires = {number: self._connect(number) for number in part}
            time.sleep(0.2)
            before = cpu_seconds(self.pids)
            found += [self._session(number, wire, session) for number, wire in wires.items()]
            spent += cpu_seconds(self.pids) - before
            for wire in wires.values():
                wire.close()
        return found, spent / len(numbers) * 1000

    def _written(self) -> int:
        """Rows written so far to any table."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            time.sleep(11)  # Idle sessions of the server report after ten seconds.
            found = connection.execute(
                "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables"
                " WHERE relname NOT IN ('oidc_sign_in')"
            ).fetchone()
        assert found is not None
        return int(found[0])

    # ------------------------------------------------------------------ through Graph

    def _profile(self, name: str, settings: dict[str, str], group: str) -> str:
        made = self.web.post(
            "/beta/deviceManagement/deviceConfigurations",
            json={
                "@odata.type": "#microsoft.graph.windows10CustomConfiguration",
                "displayName": name,
                "omaSettings": _oma(settings),
            },
        )
        made.raise_for_status()
        id: str = made.json()["id"]
        kind = "allDevicesAssignmentTarget" if group == "all" else "groupAssignmentTarget"
        target = {"@odata.type": f"#microsoft.graph.{kind}"}
        if group != "all":
            target["groupId"] = group
        self.web.post(
            f"/beta/deviceManagement/deviceConfigurations/{id}/assign",
            json={"assignments": [{"target": target}]},
        ).raise_for_status()
        return id

    def _patch(self, id: str, settings: dict[str, str]) -> None:
        self.web.patch(
            f"/beta/deviceManagement/deviceConfigurations/{id}",
            json={
                "@odata.type": "#microsoft.graph.windows10CustomConfiguration",
                "omaSettings": _oma(settings),
            },
        ).raise_for_status()

    def _group(self, name: str) -> str:
        made = self.web.post(
            "/v1.0/groups",
            json={
                "displayName": name,
                "mailNickname": name.lower(),
                "mailEnabled": False,
                "securityEnabled": True,
            },
        )
        made.raise_for_status()
        id: str = made.json()["id"]
        return id

    def _teams(self) -> list[str]:
        """Five groups of six thousand users each, in which the devices of the sample are."""
        made = [self._group(f"Team {n}") for n in range(TEAMS)]
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "INSERT INTO directory_member (group_id, member_id)"
                " SELECT (%(teams)s::uuid[])[1 + n / (%(moved)s / cardinality(%(teams)s::uuid[]))], user_id::uuid FROM"
                " (SELECT user_id, row_number() OVER (ORDER BY windows_id) - 1 AS n"
                "  FROM enrollment_device ORDER BY windows_id LIMIT %(moved)s) AS first",
                {"teams": made, "moved": MOVED},
            )
        return made

    def _nest(self, group: str, teams: Sequence[str]) -> None:
        self._batch(
            [
                {
                    "method": "POST",
                    "url": f"/groups/{group}/members/$ref",
                    "headers": {"Content-Type": "application/json"},
                    "body": {"@odata.id": f"https://graph.microsoft.com/v1.0/groups/{team}"},
                }
                for team in teams
            ]
        )

    def _leave(self, group: str, teams: Sequence[str]) -> None:
        self._batch(
            [{"method": "DELETE", "url": f"/groups/{group}/members/{team}/$ref"} for team in teams]
        )

    def _batch(self, requests: list[dict[str, Any]]) -> None:
        for first in range(0, len(requests), 20):
            part = [{**one, "id": str(n)} for n, one in enumerate(requests[first : first + 20])]
            answer = self.web.post("/v1.0/$batch", json={"requests": part})
            answer.raise_for_status()
            bad = [one for one in answer.json()["responses"] if one["status"] >= 300]
            if bad:
                raise SystemExit(f"a member was refused: {bad[0]}")


_LEAVES = {"Get", "Add", "Replace", "Delete", "Exec", "Atomic", "Sequence"}
_NODES = {
    CONFIG_INFO_URI: AGENT,
    "./DevDetail/SwV": "10.0.22631.1",
    "./DevDetail/OEM": "Contoso",
    "./DevDetail/Ext/Microsoft/SMBIOSSerialNumber": "SN1",
}
_VALUES = {syncml.normal(uri): value for uri, value in _NODES.items()}


def _value(uri: str) -> str | None:
    return _VALUES.get(syncml.normal(uri))


def _oma(settings: dict[str, str]) -> list[dict[str, str]]:
    return [
        {
            "@odata.type": "#microsoft.graph.omaSettingString",
            "displayName": name,
            "omaUri": f"{_POLICY}{name}",
            "value": value,
        }
        for name, value in settings.items()
    ]
