"""The tenant's API under load: 100,000 users, 100,000 devices and 2,000 groups in PostgreSQL.

The tenant runs as its own process, as installed, on the embedded PostgreSQL; requests come over
TLS on kept connections. CPU is that of the tenant and of PostgreSQL together, for each request.
Rows are loaded by SQL before the tenant starts. The peer for token issue is npm's `oidc-provider`
with its in-memory adapter, asked for the same thing: an RS256 JWT by client credentials; the two
are measured in turns, and the medians are compared.
"""

import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from bench.figures import Figure, Outcome, machine
from bench.processes import HERE, cpu_seconds, load
from bench.tenant import DEVICES, GROUPS, LICENSED, USERS, Tenant
from tandem.infra.secrets import write_private

SECONDS, ROUNDS = 4.0, 3
PAGE = (
    "/v1.0/deviceManagement/managedDevices"
    "?$filter=operatingSystem%20eq%20'Windows'%20and%20startswith(deviceName,'PC-05')&$top=1000"
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


class _Bench(Tenant):
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
        here = self._post("ours", f"/{self.tenant_id}/oauth2/v2.0/token", self.form())
        form = {**self.form(), "client_id": "bench"}
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
        self.start([*command, str(self.folder / "secret")], self.peer_port, "peer")

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
