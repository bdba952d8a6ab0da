"""The tenant's API under load: 100,000 users, 100,000 devices and 2,000 groups in PostgreSQL.

The tenant runs as its own process, as installed, on the embedded PostgreSQL; requests come over
TLS on kept connections. CPU is that of the tenant and of PostgreSQL together, for each request.
Rows are loaded by SQL before the tenant starts. The peer for token issue is npm's `oidc-provider`
with its in-memory adapter, asked for the same thing: an RS256 JWT by client credentials; the two
are measured in turns, and the medians are compared.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench.figures import Figure, Outcome, machine
from bench.processes import HERE, cpu_seconds, free_port, load, start
from tandem import pki
from tandem.infra.database import Database, Embedded, migrate
from tandem.infra.secrets import SecretBox, private_folder, write_private
from tandem.tenant import directory, licensing, oidc

USERS, DEVICES, GROUPS, LICENSED = 100_000, 100_000, 2_000, 10_000
SECONDS, ROUNDS = 4.0, 3
PAGE = (
    "/v1.0/deviceManagement/managedDevices"
    "?$filter=operatingSystem%20eq%20'Windows'%20and%20startswith(deviceName,'PC-05')&$top=1000"
)
_ROLES = (
    "Directory.ReadWrite.All",
    "LicenseAssignment.ReadWrite.All",
    "DeviceManagementManagedDevices.Read.All",
)


def run() -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        bench = _Bench(Path(folder), stack)
        bench.prepare()
        bench.serve()
        figures = [
            *bench.page(),
            bench.single_get(),
            bench.batch(),
            *bench.tokens(),
        ]
        rate, licences = bench.rate(), bench.licences()
    page_wall, page_cpu, get, batch, token, ratio = figures
    return Outcome(
        machine(),
        f"{USERS:,} users, {DEVICES:,} devices, {GROUPS:,} groups, embedded PostgreSQL",
        [page_wall, page_cpu, get, batch, token, rate, licences, ratio],
    )


class _Bench:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.port, self.peer_port = free_port(), free_port()
        self.group_id = self.user_id = ""
        self.app_id = self.secret = self.tenant_id = ""
        self.pids: list[int] = []

    # ------------------------------------------------------------------ setting up

    def prepare(self) -> None:
        private_folder(self.folder / "state")
        now = datetime.now(UTC)
        root = pki.new_root(pki.name("Bench root"), now=now)
        key = pki.generate_key("p256")
        name = pki.name("localhost")
        issued = root.issue(
            key.public_key(), name, now=now, days=2, dns=["localhost"], usages=["server"]
        )
        write_private(self.folder / "server.key", pki.key_pem(key))
        write_private(self.folder / "server.pem", pki.pem(issued))
        write_private(self.folder / "root.pem", pki.pem(root.certificate))
        embedded = Embedded.start(self.folder / "pg")
        self.stack.callback(embedded.stop)
        assert embedded.pid is not None
        self.pids.append(embedded.pid)
        self.dsn = embedded.dsn("tenant")
        migrate(self.dsn, "tenant")
        asyncio.run(self._tenant(now))
        with psycopg.connect(self.dsn) as connection:
            self._rows(connection)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    async def _tenant(self, now: datetime) -> None:
        box = SecretBox.open(private_folder(self.folder / "state" / "secrets") / "box.key")
        tokens = oidc.Tokens(oidc.OidcSettings(public_url=f"https://localhost:{self.port}"), box)
        database = await Database.open(self.dsn)
        try:
            async with database.transaction() as tx:
                here = await directory.create_tenant(
                    tx,
                    name="Contoso",
                    domain="contoso.com",
                    administrator_upn="admin@contoso.com",
                    password="Only-For-The-Bench-1",
                    now=now,
                )
                await licensing.establish(tx, now)
                await oidc.establish(tx, tokens, now)
                await directory.set_mdm_authority(tx, now)
                await licensing.subscribe(tx, "EMSPREMIUM", LICENSED + 10, now)
                wanted = await self._application(tx, now)
            self.tenant_id, (self.app_id, self.secret) = here.id, wanted
        finally:
            await database.close()
        write_private(self.folder / "secret", self.secret.encode())

    async def _application(self, tx: Any, now: datetime) -> tuple[str, str]:
        graph = await oidc.applications.application(tx, oidc.GRAPH)
        made = await oidc.applications.create_application(tx, "Bench", now)
        principal = await oidc.applications.create_principal(tx, made.app_id, now)
        resource = await oidc.applications.principal(tx, oidc.GRAPH)
        for role in graph.app_roles:
            if role["value"] in _ROLES:
                await oidc.applications.assign_role(tx, role["id"], principal.id, resource.id, now)
        _, secret = await oidc.applications.add_secret(tx, made.id, now)
        return made.app_id, secret

    def _rows(self, connection: psycopg.Connection[Any]) -> None:
        for statement in _LOAD.split(";\n"):
            if statement.strip():
                connection.execute(
                    statement.encode(),
                    {"users": USERS, "devices": DEVICES, "groups": GROUPS, "licensed": LICENSED},
                )
        found = connection.execute(
            "SELECT (SELECT id::text FROM directory_group WHERE display_name = 'Group 1'),"
            " (SELECT id::text FROM directory_user"
            " WHERE user_principal_name = 'user500@contoso.com')"
        ).fetchone()
        assert found is not None
        self.group_id, self.user_id = found

    def serve(self) -> None:
        settings = {
            "state": str(self.folder / "state"),
            "dsn": self.dsn,
            "public_url": f"https://localhost:{self.port}",
            "management_url": "https://localhost:1/ManagementServer/MDM.svc",
            "certificate": str(self.folder / "server.pem"),
            "key": str(self.folder / "server.key"),
            "host": "127.0.0.1",
            "port": self.port,
            "management_port": free_port(),
            "health_port": free_port(),
            "logs": str(private_folder(self.folder / "logs")),
        }
        file = self.folder / "tenant.toml"
        lines = (f"{name} = {json.dumps(value)}" for name, value in settings.items())
        file.write_text("\n".join(lines) + "\n")
        command = [str(Path(sys.executable).with_name("tandem")), "tenant", "run"]
        self._start([*command, "--config", str(file)], self.port, "tenant")
        self.web = self.stack.enter_context(
            httpx.Client(
                verify=str(self.folder / "root.pem"),
                base_url=f"https://localhost:{self.port}",
                timeout=60,
            )
        )
        answer = self.web.post(f"/{self.tenant_id}/oauth2/v2.0/token", data=self._form())
        answer.raise_for_status()
        self.bearer = f"Bearer {answer.json()['access_token']}"
        self.web.headers["Authorization"] = self.bearer

    def _start(self, command: list[str], port: int, name: str) -> None:
        process = start(command, port, self.folder / f"{name}.log")
        self.stack.callback(process.wait, 30)
        self.stack.callback(process.terminate)
        if name == "tenant":
            self.pids.append(process.pid)
        else:
            self.peer_pid = process.pid

    def _form(self) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "client_id": self.app_id,
            "client_secret": self.secret,
            "scope": "https://graph.microsoft.com/.default",
        }

    # ------------------------------------------------------------------ figures

    def page(self) -> list[Figure]:
        """The first page, one request after the other: wall-clock and CPU of each."""
        count = 12
        self._page()
        walls, before = [], cpu_seconds(self.pids)
        for _ in range(count):
            begun = time.perf_counter()
            self._page()
            walls.append((time.perf_counter() - begun) * 1000)
        spent = (cpu_seconds(self.pids) - before) / count * 1000
        wall = round(statistics.median(walls), 1)
        return [
            Figure("first page of 1,000 filtered devices", wall, "ms", reach="<= 100"),
            Figure("the same, CPU", round(spent, 1), "ms", reach="<= 60"),
        ]

    def _page(self) -> None:
        answer = self.web.get(PAGE)
        answer.raise_for_status()
        assert len(answer.json()["value"]) >= 999, answer.text[:500]

    def single_get(self) -> Figure:
        request = self._request("GET", f"/v1.0/users/{self.user_id}")
        return Figure(
            "single GET, CPU", self._cpu(self.pids, self.port, request, 8), "ms", reach="<= 0.8"
        )

    def batch(self) -> Figure:
        """Twenty users in one POST: the median wall-clock time."""
        items = [
            {"id": str(n), "method": "GET", "url": f"/users/user{n + 1}@contoso.com"}
            for n in range(20)
        ]
        walls = []
        for _ in range(40):
            begun = time.perf_counter()
            answer = self.web.post("/v1.0/$batch", json={"requests": items})
            walls.append((time.perf_counter() - begun) * 1000)
            assert all(item["status"] == 200 for item in answer.json()["responses"])
        wall = round(statistics.median(walls), 1)
        return Figure("$batch of 20", wall, "ms", reach="<= 25")

    def tokens(self) -> list[Figure]:
        """Client credentials here and at the peer, in turns; medians of the CPU for one token."""
        self._peer()
        ours, peers = [], []
        here = self._post("ours", f"/{self.tenant_id}/oauth2/v2.0/token", self._form())
        form = {**self._form(), "client_id": "bench"}
        form.pop("scope")
        there = self._post("peer", "/token", form)
        for _ in range(ROUNDS):
            ours.append(self._cpu(self.pids, self.port, here, 8))
            peers.append(self._cpu([self.peer_pid], self.peer_port, there, 8))
        mine, other = statistics.median(ours), statistics.median(peers)
        return [
            Figure("client-credentials token, CPU", mine, "ms", reach="<= 1.5"),
            Figure(
                "client-credentials token, CPU beside oidc-provider",
                mine,
                "ms",
                peer="oidc-provider (npm, in memory)",
                peer_value=other,
                reach="<= 2.0",
            ),
        ]

    def _peer(self) -> None:
        folder = HERE / "peers" / "oidc-provider"
        if not (folder / "node_modules").exists():
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True
            )
        files = [str(self.folder / name) for name in ("server.pem", "server.key")]
        command = ["node", str(folder / "server.mjs"), str(self.peer_port), *files, "bench"]
        self._start([*command, str(self.folder / "secret")], self.peer_port, "peer")

    def rate(self) -> Figure:
        request = self._request("GET", f"/v1.0/users/{self.user_id}?$select=id,displayName")
        rates = []
        for _ in range(ROUNDS):
            result = load(self.port, request, seconds=SECONDS, connections=32)
            rates.append(result["n"] / result["secs"])
        rate = round(statistics.median(rates))
        return Figure("small requests, load client beside", rate, "1/s", reach=">= 1200")

    def licences(self) -> Figure:
        """From the assignment to a group until each of its 10,000 members has a seat."""
        sku = next(
            item["skuId"]
            for item in self.web.get("/v1.0/subscribedSkus").json()["value"]
            if item["skuPartNumber"] == "EMSPREMIUM"
        )
        body = {"addLicenses": [{"skuId": sku, "disabledPlans": []}], "removeLicenses": []}
        begun = time.perf_counter()
        answer = self.web.post(f"/v1.0/groups/{self.group_id}/assignLicense", json=body)
        answer.raise_for_status()
        used = 0
        while used < LICENSED and time.perf_counter() - begun < 120:
            skus = self.web.get("/v1.0/subscribedSkus").json()["value"]
            used = next(item["consumedUnits"] for item in skus if item["skuId"] == sku)
            time.sleep(0.05)
        took = round(time.perf_counter() - begun, 1)
        if used < LICENSED:
            raise SystemExit(f"only {used} of {LICENSED} members got a seat")
        return Figure("licence by group for 10,000 users", took, "s", reach="<= 10")

    # ------------------------------------------------------------------ measuring

    def _cpu(self, pids: list[int], port: int, request: Path, connections: int) -> float:
        """Milliseconds of CPU for each request, after a short warm-up."""
        load(port, request, seconds=1, connections=connections)
        before = cpu_seconds(pids)
        result = load(port, request, seconds=SECONDS, connections=connections)
        return round((cpu_seconds(pids) - before) / result["n"] * 1000, 3)

    def _request(self, method: str, target: str) -> Path:
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Authorization: {self.bearer}"]
        return self._file("get", "\r\n".join([*lines, "Accept: application/json", "", ""]))

    def _post(self, name: str, target: str, form: dict[str, str]) -> Path:
        body = str(httpx.QueryParams(form))
        lines = [
            f"POST {target} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
        ]
        return self._file(name, "\r\n".join([*lines, "", body]))

    def _file(self, name: str, text: str) -> Path:
        file = self.folder / f"{name}.http"
        write_private(file, text.encode())
        return file


_LOAD = """
CREATE TEMP TABLE made AS
    SELECT n, gen_random_uuid() AS id FROM generate_series(1, %(users)s) n;
INSERT INTO directory_object (id, sort) SELECT id, 'user' FROM made;
INSERT INTO directory_user (id, user_principal_name, display_name, mail_nickname, usage_location,
        created_at, password_hash, password_changed_at, sessions_valid_from)
    SELECT id, 'user' || n || '@contoso.com', 'User ' || n, 'user' || n, 'DE', now(), '', now(),
        now() FROM made;
CREATE TEMP TABLE machines AS
    SELECT n, gen_random_uuid() AS id, gen_random_uuid() AS device_id
    FROM generate_series(1, %(devices)s) n;
INSERT INTO directory_object (id, sort) SELECT id, 'device' FROM machines;
INSERT INTO directory_device (id, device_id, display_name, operating_system,
        operating_system_version, key_thumbprint, owner_id, is_managed, registered_at)
    SELECT d.id, d.device_id, 'PC-' || lpad(d.n::text, 6, '0'), 'Windows', '10.0.22631.1',
        d.n::text, u.id, true, now() FROM machines d JOIN made u USING (n);
INSERT INTO enrollment_device (id, windows_id, hardware_id, directory_device_id, user_id, upn, name,
        os_version, kind, state, fingerprint, enrolled_at, seen_at, inventory)
    SELECT gen_random_uuid()::text, 'W' || d.n, 'H' || d.n, d.device_id::text, u.id::text,
        'user' || d.n || '@contoso.com', 'PC-' || lpad(d.n::text, 6, '0'), '10.0.22631.1',
        'Device', 'enrolled', 'F' || d.n, now(), now(),
        jsonb_build_object('model', 'Model ' || d.n %% 20, 'manufacturer', 'Contoso',
            'serial_number', 'SN' || d.n)
    FROM machines d JOIN made u USING (n);
CREATE TEMP TABLE teams AS
    SELECT n, gen_random_uuid() AS id FROM generate_series(1, %(groups)s) n;
INSERT INTO directory_object (id, sort) SELECT id, 'group' FROM teams;
INSERT INTO directory_group (id, display_name, mail_nickname, created_at)
    SELECT id, 'Group ' || n, 'group' || n, now() FROM teams;
INSERT INTO directory_member (group_id, member_id)
    SELECT t.id, u.id FROM made u JOIN teams t ON t.n = 1 WHERE u.n <= %(licensed)s;
INSERT INTO directory_member (group_id, member_id)
    SELECT t.id, u.id FROM made u JOIN teams t ON t.n = 2 + u.n %% (%(groups)s - 1)
"""
