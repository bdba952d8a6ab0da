"""A tenant under measurement: 100,000 users, 100,000 devices and 2,000 groups in PostgreSQL.

It runs as its own process, as installed, on the embedded PostgreSQL. Rows are loaded by SQL before
it starts.
"""

import asyncio
import json
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench.processes import free_port, start
from tandem import pki
from tandem.infra.database import Database, Embedded, migrate
from tandem.infra.secrets import SecretBox, private_folder, write_private
from tandem.tenant import directory, licensing, oidc

USERS, DEVICES, GROUPS, LICENSED = 100_000, 100_000, 2_000, 10_000
_ROLES = (
    "Directory.ReadWrite.All",
    "LicenseAssignment.ReadWrite.All",
    "DeviceManagementManagedDevices.Read.All",
    "DeviceManagementConfiguration.ReadWrite.All",
    "Group.ReadWrite.All",
    "GroupMember.ReadWrite.All",
)


class Tenant:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.port, self.peer_port = free_port(), free_port()
        self.management_port = free_port()
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
            "management_port": self.management_port,
            "health_port": free_port(),
            "logs": str(private_folder(self.folder / "logs")),
        }
        file = self.folder / "tenant.toml"
        lines = (f"{name} = {json.dumps(value)}" for name, value in settings.items())
        file.write_text("\n".join(lines) + "\n")
        command = [str(Path(sys.executable).with_name("tandem")), "tenant", "run"]
        self.start([*command, "--config", str(file)], self.port, "tenant")
        self.web = self.stack.enter_context(
            httpx.Client(
                verify=str(self.folder / "root.pem"),
                base_url=f"https://localhost:{self.port}",
                timeout=60,
            )
        )
        answer = self.web.post(f"/{self.tenant_id}/oauth2/v2.0/token", data=self.form())
        answer.raise_for_status()
        self.bearer = f"Bearer {answer.json()['access_token']}"
        self.web.headers["Authorization"] = self.bearer

    def start(self, command: list[str], port: int, name: str) -> None:
        process = start(command, port, self.folder / f"{name}.log")
        self.stack.callback(process.wait, 30)
        self.stack.callback(process.terminate)
        if name == "tenant":
            self.pids.append(process.pid)
        else:
            self.peer_pid = process.pid

    def form(self) -> dict[str, str]:
        return {
            "grant_type": "client_credentials",
            "client_id": self.app_id,
            "client_secret": self.secret,
            "scope": "https://graph.microsoft.com/.default",
        }


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
