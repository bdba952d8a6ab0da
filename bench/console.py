"""The site's console with 100,000 devices: pages as a browser asks for them.

The site runs as its own process, as installed, on the embedded PostgreSQL. Clients and what the
tenant said of each device are loaded by SQL; the site itself makes the rows of its device table of
that, which is timed. Pages come over TLS on a kept connection, signed in by the form; their times
are medians as the caller sees them, so what the server takes is less.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
from lxml import html

from bench.figures import Figure, Outcome, machine
from bench.processes import cpu_seconds, free_port, start
from tandem.infra.database import Embedded, migrate
from tandem.infra.secrets import private_folder, write_private

DEVICES, ROUNDS = 100_000, 15
PASSWORD = "Only-For-The-Bench-1"
PAGES = (
    ("device list, first page", "/console/devices"),
    ("device list, a filter", "/console/devices?management=co-managed&missing=msi-installed"),
    ("device list, a search", "/console/devices?search=pc-0500"),
    ("device list, a search within names", "/console/devices?search=*0500"),
    ("device list, the last page", f"/console/devices?page={DEVICES // 50}"),
    ("device list, by user", "/console/devices?sort=user"),
    (
        "device list, by user, page 1,000, the last first",
        "/console/devices?sort=user&descending=1&page=1000",
    ),
    ("one device", "/console/devices/d-050000"),
    ("dashboard", "/console/"),
)


def run() -> Outcome:
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        bench = _Bench(Path(folder), stack)
        bench.prepare()
        settled = bench.serve()
        pages = [figure for name, path in PAGES for figure in bench.page(name, path)]
        export = bench.export()
    return Outcome(
        machine(),
        f"{DEVICES:,} devices of both authorities, embedded PostgreSQL, one site process,"
        f" load average {busy:.1f} before",
        [*pages, settled, export],
    )


class _Bench:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.port = free_port()
        self.pids: list[int] = []

    def prepare(self) -> None:
        private_folder(self.folder / "state")
        write_private(self.folder / "password", PASSWORD.encode())
        embedded = Embedded.start(self.folder / "pg")
        self.stack.callback(embedded.stop)
        assert embedded.pid is not None
        self.pids.append(embedded.pid)
        self.dsn = embedded.dsn("site")
        migrate(self.dsn, "site")
        with psycopg.connect(self.dsn) as connection:
            for statement in _LOAD.split(";\n"):
                connection.execute(statement.encode(), {"devices": DEVICES})
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def serve(self) -> Figure:
        """Start the site, sign in, and wait until it has made its table."""
        settings = {
            "state": str(self.folder / "state"),
            "dsn": self.dsn,
            "site_code": "BEN",
            "port": self.port,
            "management_point_port": free_port(),
            "health_port": free_port(),
            "logs": str(private_folder(self.folder / "logs")),
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        first = ["[first]", 'administrator = "bench"', f'password_file = "{self.folder}/password"']
        (self.folder / "site.toml").write_text("\n".join([*lines, *first]) + "\n")
        command = [str(Path(sys.executable).with_name("tandem")), "site", "run", "--config"]
        begun = time.perf_counter()
        process = start(
            [*command, str(self.folder / "site.toml")], self.port, self.folder / "site.log"
        )
        self.stack.callback(process.wait, 30)
        self.stack.callback(process.terminate)
        self.pids.append(process.pid)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while connection.execute("SELECT 1 FROM fleet_changed LIMIT 1").fetchone():
                time.sleep(0.2)
            took = round(time.perf_counter() - begun, 1)
            connection.execute("VACUUM ANALYZE")
        self._sign_in()
        return Figure("the table of all devices made anew, from the start of the site", took, "s")

    def _sign_in(self) -> None:
        root = self.folder / "state" / "tls" / "site-root.pem"
        self.web = self.stack.enter_context(
            httpx.Client(verify=str(root), base_url=f"https://127.0.0.1:{self.port}", timeout=120)
        )
        page = html.fromstring(self.web.get("/console/sign-in").content)
        (token,) = page.xpath("//form[@action='/console/sign-in']/input[@name='form_token']/@value")
        fields = {"form_token": token, "user": "bench", "password": PASSWORD, "return_to": ""}
        answer = self.web.post("/console/sign-in", data=fields)
        assert answer.status_code == 303, answer.text[:500]

    def page(self, name: str, path: str) -> list[Figure]:
        """Wall-clock and CPU of one request, of the site and PostgreSQL together."""
        self._page(path)
        walls, before = [], cpu_seconds(self.pids)
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            self._page(path)
            walls.append((time.perf_counter() - begun) * 1000)
        spent = (cpu_seconds(self.pids) - before) / ROUNDS * 1000
        return [
            Figure(name, round(statistics.median(walls), 1), "ms", reach="<= 100"),
            Figure(f"{name}: CPU", round(spent, 1), "ms"),
        ]

    def _page(self, path: str) -> Any:
        answer = self.web.get(path)
        assert answer.status_code == 200, answer.text[:500]
        return answer

    def export(self) -> Figure:
        begun = time.perf_counter()
        answer = self._page("/console/devices.csv")
        took = round(time.perf_counter() - begun, 1)
        lines = answer.text.count("\n")
        assert lines == DEVICES + 1, lines
        return Figure("export of all devices as CSV", took, "s")


_LOAD = """
INSERT INTO clients_client (id, tenant_id, device_id, thumbprint, name, os_name, os_version,
        client_version, approval, registered_at, last_seen_at, state_at, state)
    SELECT 'GUID:' || lpad(n::text, 6, '0'), 't', 'd-' || lpad(n::text, 6, '0'), 't' || n,
        'PC-' || lpad((n * 7919 %% %(devices)s)::text, 6, '0'), 'Windows',
        '10.0.' || 19041 + n %% 4000 || '.1', '5.00.' || n %% 9, 3, now(),
        now() - make_interval(secs => n), now(),
        jsonb_build_object('flags', 8193 + 64 * (n %% 2), 'mdm_enrolled', true,
            'policy_present', n %% 10 <> 0, 'capabilities', 8193)
    FROM generate_series(1, %(devices)s) n;
INSERT INTO collections_resource (client_id, name, tenant_id, device_id, os_name, os_version,
        client_version, discovered_at)
    SELECT id, name, tenant_id, device_id, os_name, os_version, client_version, now()
    FROM clients_client;
INSERT INTO fleet_account (device_id, mdm, error)
    SELECT device_id, CASE WHEN n %% 20 <> 0 THEN jsonb_build_object('mdm_id', 'm-' || n, 'name', name,
        'user', 'user' || (n * 31 %% 60000) || '@contoso.com', 'licensed', n %% 50 <> 0,
        'app_offered', true, 'msi_installed', n %% 3 <> 0,
        'checked_in_at', to_char(now(), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) END,
        CASE WHEN n %% 40 = 0 THEN 2149056536 END
    FROM (SELECT *, row_number() OVER (ORDER BY device_id) AS n FROM clients_client) c
    WHERE n %% 20 <> 0 OR n %% 40 = 0;
UPDATE fleet_reading SET read_at = now()
"""
