"""A site with 50,000 registered devices behind a gateway, as processes, as installed.

Devices are loaded by SQL into the embedded PostgreSQL: each with a P-256 key and a CCM token of its
own, a resource, seven classes of hardware inventory and a co-management state. Co-management is on,
one workload is with the MDM service, another at Pilot for a collection with a query, and five
configurations are deployed to four collections. The gateway and the connection point have the
configuration that the site would give them; the connection point presents a role certificate.
"""

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import psycopg
from cryptography.hazmat.primitives.asymmetric import ec

from bench.processes import HERE, OUT, cpu_seconds, free_port, start
from tandem import pki
from tandem.infra import config
from tandem.infra.database import Database, Embedded, Tx, migrate
from tandem.infra.secrets import SecretBox, private_folder, write_private
from tandem.protocols import tunnel
from tandem.site import clients, collections, comanagement, deployments, properties
from tandem.site.clients import tokens
from tandem.workloads import Position, Workload

DEVICES = 50_000
_OPENING_SECONDS = 30.0
NAME, TENANT, CONNECTION_ID = "gateway.contoso.com", "contoso", "the-connection-id"
ASKED = "/CCM_Proxy_EdgeAnswers"
ROLE_COMMAND = (
    "import sys; from pathlib import Path; from tandem.roles import gateway, connector;"
    " {'gateway': gateway, 'connector': connector}[sys.argv[1]].run(Path(sys.argv[2]))"
)
_COLLECTIONS = {
    "Pilot": "select * from SMS_R_System where Name like 'PC-0%7'",
    "Model 12": "select * from SMS_R_System inner join SMS_G_System_COMPUTER_SYSTEM on"
    " SMS_G_System_COMPUTER_SYSTEM.ResourceID = SMS_R_System.ResourceId where Model = 'Model 12'",
    "Much memory": "select * from SMS_R_System where ResourceId in (select ResourceID from"
    " SMS_G_System_X86_PC_MEMORY where TotalPhysicalMemory > 10000000)",
}
# One of twenty models, a name, a firmware and a system; 22 attributes in all.
_LOAD = """
INSERT INTO clients_client (id, tenant_id, device_id, thumbprint, name, os_name, os_version,
        client_version, approval, registered_at, last_seen_at, state_at, state)
    SELECT client_id, 'contoso', device_id, thumbprint, 'PC-' || lpad(n::text, 6, '0'), 'Linux',
        '6.12.9', '0.1.0', 3, now() - interval '30 days', now() - interval '1 hour', now(),
        %(state)s::jsonb FROM made;
INSERT INTO collections_resource (client_id, name, tenant_id, device_id, os_name, os_version,
        client_version, discovered_at)
    SELECT client_id, 'PC-' || lpad(n::text, 6, '0'), 'contoso', device_id, 'Linux', '6.12.9',
        '0.1.0', now() FROM made;
INSERT INTO collections_inventory (resource_id, class, instance, properties, folded, reported_at)
    SELECT r.id, c.class, 1, c.said, lower(c.said::text)::jsonb, now()
    FROM collections_resource r JOIN made m USING (client_id), LATERAL (VALUES
        ('sms_g_system_operating_system', jsonb_build_object('Caption', 'Debian GNU/Linux 13',
            'Version', '13', 'BuildNumber', '6.12.' || m.n %% 50,
            'TotalVisibleMemorySize', 8000000 + m.n %% 7 * 1000000)),
        ('sms_g_system_computer_system', jsonb_build_object('Name', r.name, 'Manufacturer',
            'Maker ' || m.n %% 9, 'Model', 'Model ' || m.n %% 20, 'NumberOfProcessors', 1)),
        ('sms_g_system_processor', jsonb_build_object('DeviceID', 'CPU0', 'Name', 'Processor '
            || m.n %% 40, 'Manufacturer', 'GenuineIntel', 'NumberOfCores', 4,
            'NumberOfLogicalProcessors', 8)),
        ('sms_g_system_x86_pc_memory', jsonb_build_object('TotalPhysicalMemory',
            8000000 + m.n %% 7 * 1000000)),
        ('sms_g_system_pc_bios', jsonb_build_object('Manufacturer', 'Maker ' || m.n %% 9,
            'SMBIOSBIOSVersion', 'B' || m.n %% 30, 'ReleaseDate', '01/01/2026', 'SerialNumber',
            'S' || m.n)),
        ('sms_g_system_logical_disk', jsonb_build_object('DeviceID', '/', 'FileSystem', 'ext4',
            'Size', 100000 + m.n %% 50)),
        ('sms_g_system_network_adapter', jsonb_build_object('Name', 'enp1s0', 'MACAddress',
            md5(m.n::text))),
        ('sms_client_comanagementstate', jsonb_build_object('ComgmtPolicyPresent', 1, 'MDMEnrolled',
            1, 'MDMProvisioned', 1, 'WorkloadFlags', 8195, 'ClientVersion', '0.1.0', 'UPN',
            'user@contoso.com'))
    ) c (class, said)
"""
# The gateway as the site has it, so that it may ask.
_GATEWAY = """
INSERT INTO cloud_gateway (service_name, deployment_name, tenant_id, region, resource_group,
    description, instances, check_revocation, serve_content, alerts, state, reason, connection_id,
    created_at, changed_at, expires_at, sealed_pfx, sealed_password)
VALUES (%(name)s, %(name)s, 'contoso', 'Local', 'bench', '', 1, false, false, '{}', 'Stopped', '',
    %(id)s, %(now)s, %(now)s, %(now)s, '', '')
"""
# Of what a device reports, and of its 30 days in the timeline.
STATE: dict[str, Any] = {
    "flags": 8193 | 2,
    "mdm_enrolled": True,
    "policy_present": True,
    "capabilities": 12543,
    "provider": "TandemMDM",
    "upn": "user@contoso.com",
    "client_version": "0.1.0",
    "policy_version": 3,
    "workloads": {
        item.value: "mdm" if item is Workload.COMPLIANCE_POLICIES else "site" for item in Workload
    },
    "applied": {
        f"Demo/Setting{n}": {"value": str(n), "source": "site", "workload": "device-configuration"}
        for n in range(5)
    },
    "effects": {"policy_polling_minutes": "in force"},
}


class Registered:
    """One site under measurement."""

    def __init__(
        self, folder: Path, stack: ExitStack, devices: int = DEVICES, answers: bool = False
    ) -> None:
        """`answers`: check-ins without news are answered at the gateway."""
        self.answers = answers
        self.folder, self.stack, self.devices = folder, stack, devices
        self.port, self.tunnel_port = free_port(), free_port()
        self.management_port = free_port()
        self.gateway_health = free_port()
        self.health_port = free_port()
        self.pids: dict[str, list[int]] = {}
        self.file = folder / "devices"

    # ------------------------------------------------------------------ setting up

    def migrate(self) -> None:
        """A database without a row of the bench."""
        private_folder(self.folder / "state")
        embedded = Embedded.start(self.folder / "pg")
        self.stack.callback(embedded.stop)
        assert embedded.pid is not None
        self.pids["postgres"] = [embedded.pid]
        self.dsn = embedded.dsn("site")
        migrate(self.dsn, "site")

    def prepare(self) -> None:
        if not self.pids:
            self.migrate()
        asyncio.run(self._site(datetime.now(UTC)))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    async def _site(self, now: datetime) -> None:
        self.box = SecretBox.open(private_folder(self.folder / "state" / "secrets") / "box.key")
        database = await Database.open(self.dsn)
        try:
            async with database.transaction() as tx:
                await properties.establish(tx, self.box, code="CM1", name="Contoso", now=now)
                self.token_keys = await clients.token_keys(tx, self.box, now)
                self.signing = await tokens.TokenKeys(self.box).signing(tx, now)
                self.role_id = (await properties.site(tx)).management_point_id
                await tx.execute(_GATEWAY, {"name": NAME, "id": CONNECTION_ID, "now": now})
                await self._edge(tx, now)
                await self._load(tx, now)
            async with database.transaction() as tx:
                await self._wanted(tx, now)
        finally:
            await database.close()

    async def _edge(self, tx: Tx, now: datetime) -> None:
        """Certificates of the connection point and of the gateway."""
        root = await properties.root_certificate(tx)
        (self.folder / "site-root.pem").write_bytes(pki.pem(root))
        role = await properties.role_certificate(
            tx, self.box, "CP01", dns=["localhost"], usages=["client"], now=now
        )
        write_private(self.folder / "CP01.key", pki.key_pem(role.key))
        write_private(self.folder / "CP01.pem", pki.pem(role.certificate))
        public = pki.new_root(pki.name("Bench root"), now=now)
        key = pki.generate_key()
        leaf = public.issue(
            key.public_key(),
            pki.name(NAME),
            now=now,
            days=2,
            dns=[NAME, "localhost"],
            usages=["server"],
        )
        pfx = pki.pfx_export(key, leaf, [public.certificate], "secret", NAME)
        write_private(self.folder / "gateway.pfx", pfx)
        write_private(self.folder / "gateway.password", b"secret")
        (self.folder / "public.pem").write_bytes(pki.pem(public.certificate))

    async def _load(self, tx: Tx, now: datetime) -> None:
        await tx.execute(
            "CREATE TEMP TABLE made (n integer, client_id text, device_id text, thumbprint text)"
            " ON COMMIT DROP"
        )
        kid, signing = self.signing
        with self.file.open("w") as file:
            async with tx.cursor().copy("COPY made FROM STDIN") as rows:
                for n in range(self.devices):
                    key = ec.generate_private_key(ec.SECP256R1())
                    id, device = f"GUID:{n:08X}-BENCH", f"device-{n:08x}"
                    await rows.write_row((n, id, device, pki.jwk_thumbprint(key)))
                    token = tokens.issue(
                        kid,
                        signing,
                        "CM1",
                        clients.TenantIdentity(TENANT, device, "device", f"o-{n}"),
                        key.public_key(),
                        now=now,
                        life=timedelta(hours=24),
                        token_id=f"{n:032x}",
                    )
                    file.write(f"{id} {token} {key.private_numbers().private_value:064x}\n")
        for statement in _LOAD.split(";\n"):
            await tx.execute(statement.encode(), {"state": json.dumps(STATE)})

    async def _wanted(self, tx: Tx, now: datetime) -> None:
        """What an administrator has set up."""

        async def host(tx: Tx) -> str:
            return NAME

        async def tenant(tx: Tx) -> str:
            return TENANT

        async def agrees(tx: Tx, token: str) -> None:
            return None

        at: dict[str, Any] = {"actor": "bench", "now": now}
        made = {}
        for name, query in _COLLECTIONS.items():
            made[name] = (await collections.create(tx, "CM1", name, query=query, **at)).id
        await comanagement.enable(
            tx,
            comanagement.Collaborators(host, tenant, agrees),
            auto_enroll=comanagement.AutoEnroll.ALL,
            access_token="t",
            **at,
        )
        await comanagement.switch(tx, Workload.COMPLIANCE_POLICIES, Position.MDM, **at)
        pilot = {"collection": made["Pilot"], **at}
        await comanagement.switch(tx, Workload.DEVICE_CONFIGURATION, Position.PILOT, **pilot)
        targets = [*made.values(), collections.ALL_SYSTEMS]
        for n in range(5):
            target = targets[n % len(targets)]
            await deployments.create(
                tx,
                f"Setting {n}",
                setting=f"Demo/Setting{n}",
                value=str(n),
                collection=target,
                **at,
            )

    # ------------------------------------------------------------------ processes

    def serve(self) -> None:
        tandem = str(Path(sys.executable).with_name("tandem"))
        self._start("site", [tandem, "site", "run"], self.site_settings(), self.management_port)
        gateway = [sys.executable, "-c", ROLE_COMMAND, "gateway"]
        self._start("gateway", gateway, self.gateway_settings(), self.port)
        self._lives()  # A connection point that finds nobody comes back much later.
        # What the site would say; it is asked again only after the bench is over.
        kept = private_folder(self.folder / "connector") / "configuration.json"
        kept.write_bytes(msgspec.json.encode(self._configuration()))
        command = [sys.executable, "-c", ROLE_COMMAND, "connector"]
        self._start("connector", command, self.connector_settings(), self.health_port)
        self._connected()
        self.rest()

    def site_settings(self) -> dict[str, Any]:
        write_private(self.folder / "password", secrets.token_urlsafe(12).encode())
        return {
            "state": str(self.folder / "state"),
            "site_code": "CM1",
            "dsn": self.dsn,
            "host": "127.0.0.1",
            "port": free_port(),
            "management_point_port": self.management_port,
            "health_port": free_port(),
            "logs": str(private_folder(self.folder / "logs")),
            "first": {"administrator": "admin", "password_file": str(self.folder / "password")},
        }

    def gateway_settings(self, **changes: Any) -> dict[str, Any]:
        return {
            "service_name": NAME,
            "host": "127.0.0.1",
            "port": self.port,
            "tunnel_port": self.tunnel_port,
            "health": f"127.0.0.1:{self.gateway_health}",
            "pfx": str(self.folder / "gateway.pfx"),
            "pfx_password_file": str(self.folder / "gateway.password"),
            "connector_ca": str(self.folder / "site-root.pem"),
            "connection_id": CONNECTION_ID,
            "state": str(self.folder / "gateway"),
            "logs": str(self.folder / "logs"),
            **changes,
        }

    def connector_settings(self, **changes: Any) -> dict[str, Any]:
        return {
            "connection_point": "CP01",
            "management_point_url": f"https://localhost:{self.management_port}",
            "certificate": str(self.folder / "CP01.pem"),
            "key": str(self.folder / "CP01.key"),
            "site_root": str(self.folder / "site-root.pem"),
            "state": str(self.folder / "connector"),
            "gateway_ca_file": str(self.folder / "public.pem"),
            "logs": str(self.folder / "logs"),
            "health": f"127.0.0.1:{self.health_port}",
            "retry_seconds": 900.0,
            **changes,
        }

    def _lives(self, seconds: float = 60) -> None:
        """The gateway's worker answers: its ports are open before it does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{self.gateway_health}/livez", trust_env=False)
                return
            time.sleep(0.1)
        raise SystemExit("the gateway did not start")

    def _connected(self, seconds: float = 60) -> None:
        """The gateway has its tunnel, and its configuration from it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            told = httpx.get(f"http://127.0.0.1:{self.gateway_health}/readyz", trust_env=False)
            if told.status_code == 200 and told.json().get("version") == 1:
                return
            time.sleep(0.2)
        raise SystemExit("the connection point did not reach the gateway")

    def _start(self, name: str, command: list[str], settings: dict[str, Any], port: int) -> None:
        file = self.folder / f"{name}.toml"
        file.write_text(config.toml(settings))
        given = ["--config", str(file)] if name == "site" else [str(file)]
        process = start([*command, *given], port, self.folder / f"{name}.out")
        self.stack.callback(process.wait, 30)
        self.stack.callback(process.terminate)
        self.pids[name] = [process.pid]

    def _configuration(self) -> tunnel.ConnectorConfiguration:
        base = f"/CCM_Proxy_ServerAuth/{self.role_id}"
        inside = f"https://localhost:{self.management_port}"
        endpoints = [
            tunnel.Endpoint(
                f"{base}/{one.path}",
                list(one.methods),
                one.max_body_bytes,
                ["token"],
                hold_seconds=one.hold_seconds,
            )
            for one in clients.ENDPOINTS
        ]
        # The devices have tokens of the site, given for a tenant that is connected.
        tenant = tunnel.Tenant(TENANT, "client", "https://ConfigMgrService", [], {"keys": []})
        told = tunnel.Configuration(
            1,
            NAME,
            "CM1",
            tenants=[tenant],
            site_token_keys=self.token_keys,
            endpoints=endpoints,
            answers=tunnel.EdgeAnswers(ASKED, [f"{base}{clients.POLICY_PATH}"])
            if self.answers
            else None,
        )
        instance = tunnel.Instance(1, "127.0.0.1", self.port, self.tunnel_port)
        target = tunnel.GatewayTarget(NAME, NAME, CONNECTION_ID, [instance], told)
        mappings = [
            tunnel.Mapping(f"{base}/{one.path}", f"{inside}/{one.path}", one.hold_seconds)
            for one in clients.ENDPOINTS
        ]
        mappings.append(tunnel.Mapping(ASKED, f"{inside}/{tunnel.ANSWERS_ENDPOINT}/{NAME}"))
        return tunnel.ConnectorConfiguration("CP01", [target], mappings)

    def rest(self, seconds: float = 300) -> None:
        """What the site does of itself after so much has changed is done."""
        until = time.monotonic() + seconds
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while time.monotonic() < until:
                row = connection.execute(
                    "SELECT EXISTS (SELECT FROM fleet_changed), EXISTS (SELECT FROM"
                    " collections_collection WHERE full_due_at <= now())"
                ).fetchone()
                if row == (False, False):
                    return
                time.sleep(0.5)
        raise SystemExit("the site did not come to rest")

    # ------------------------------------------------------------------ measuring

    def cpu(self) -> dict[str, float]:
        """Seconds so far: the site, PostgreSQL, and the two halves of the edge."""
        return {name: cpu_seconds(pids) for name, pids in self.pids.items()}

    def memory(self, name: str) -> float:
        """MB of one role, resident; PostgreSQL's processes share most of theirs."""
        total = 0.0
        for pid in self.pids[name]:
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                found = one.memory_full_info()
                total += found.pss if name == "postgres" else found.rss
        return total / 1e6

    def _client(self, file: Path, kinds: list[str], seconds: float, *options: str) -> list[str]:
        source, program = HERE / "checkin_client.c", OUT / "checkin_client"
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            OUT.mkdir(parents=True, exist_ok=True)
            line = ["gcc", "-O2", "-w", "-o", str(program), str(source), "-lssl", "-lcrypto"]
            subprocess.run(line, check=True)
        line = [str(program), "-p", str(self.port), "-f", str(file), "-d", str(seconds)]
        line += ["-P", f"/CCM_Proxy_ServerAuth/{self.role_id}", *options]
        for kind in kinds:
            line += ["-k", kind]
        return line

    @contextmanager
    def waiting(self, count: int, seconds: float) -> Iterator[None]:
        """So many devices hold a request on the notification channel, each asking again when it was
        answered; the last of them."""
        file, body = self.folder / "waiting", self.folder / "waiting.json"
        body.write_text('{"wait_seconds": 120}')
        file.write_text("\n".join(self.file.read_text().splitlines()[-count:]) + "\n")
        line = self._client(file, [f"channel:POST:/bgb:0:{body}"], seconds, "-c", str(count))
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(_OPENING_SECONDS)
        try:
            if process.poll() is not None:
                raise SystemExit(f"the channel is gone: {process.communicate()[1].decode()[:800]}")
            yield
            if process.poll() is not None:
                raise SystemExit(f"the channel is gone: {process.communicate()[1].decode()[:800]}")
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def following(
        self, kinds: list[str], count: int, seconds: float
    ) -> Iterator[Callable[[], None]]:
        """So many devices on a connection of their own, each asking the first kind again and again,
        and the others when it is told something. What is given ends the run when they are gone."""
        line = self._client(self.file, kinds, seconds, "-c", str(count), "-t")
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def check() -> None:
            if process.poll() is not None:
                raise SystemExit(f"the devices are gone: {process.communicate()[1].decode()[:800]}")

        try:
            yield check
            check()
        finally:
            process.kill()
            process.wait()

    def load(self, kinds: list[str], seconds: float, *options: str) -> dict[str, Any]:
        """What the load client found, and the CPU that each process took meanwhile."""
        line = self._client(self.file, kinds, seconds, *options)
        before = self.cpu()
        done = subprocess.run(line, check=False, capture_output=True)
        if done.returncode:
            raise SystemExit(f"the load client ended: {done.stderr.decode()[:800]}")
        found: dict[str, Any] = json.loads(done.stdout)
        found["spent"] = {name: spent - before[name] for name, spent in self.cpu().items()}
        wrong = sum(kind["err"] for kind in found["kinds"].values()) + found["lost"]
        if wrong:
            raise SystemExit(f"requests were refused: {done.stderr.decode()[:800]}")
        return found
