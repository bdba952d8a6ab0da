"""Many clients at one instance of the gateway, and restarts beside them.

One gateway worker with everything on, as in `bench/gateway.py`, and two connection points. Clients come
with certificates from 40 addresses; `load_client.c` plays them. Four runs, each on what the one before
left:

crowd     12,000 idle clients, and 1,000 requests a second beside them on 64 connections
restarts  the same load as POSTs; a connection point is told to stop every ten seconds, each in turn
silent    10,000 connections that send nothing, beside the same load
storm     the instance is restarted, and 12,000 clients come back at once, each until it was served

A request's time counts from when it was due, not from when a connection was free for it.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from bench.figures import Figure, Outcome, machine
from bench.gateway import _ROLE, OURS, _Bench, _pss
from bench.processes import free_port
from tandem.infra import config
from tandem.infra.secrets import private_folder, write_private
from tandem.protocols import tunnel

CROWD, SILENT, RATE = 12_000, 10_000, 1_000
_ON = 64
_SECONDS = 20.0
_RESTARTS_SECONDS, _EVERY_SECONDS = 120.0, 10.0
_STORM_SECONDS = 60.0


def run() -> Outcome:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CROWD + 2_000:
        raise SystemExit(f"{hard} file descriptors are too few for {CROWD:,} clients.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
            crowd = _Crowd(Path(folder), stack)
            with crowd.serving(OURS) as parts:
                crowd.second(stack)
                for name in ("alone", "crowd", "restarts", "silent", "storm"):
                    found[name] = getattr(crowd, name)(parts)
                    sys.stderr.write(f"{name}: {found[name]}\n")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return Outcome(
        machine(),
        f"one gateway worker and two connection points, load average {os.getloadavg()[0]:.1f} at the end",
        list(_figures(found)),
    )


def _figures(found: dict[str, Any]) -> Iterator[Figure]:
    crowd, restarts, silent, storm = (
        found[name] for name in ("crowd", "restarts", "silent", "storm")
    )
    yield Figure(f"p99 of {RATE:,} requests/s, alone", _ms(found["alone"]), "ms")
    yield Figure("idle clients with certificates", crowd["idle"], "", reach=f">= {CROWD}")
    yield Figure("the gateway's memory for each", round(crowd["kilobytes"], 1), "KB")
    yield Figure(f"p99 of {RATE:,} requests/s beside them", _ms(crowd), "ms", reach="<= 50")
    yield Figure("of these, answered", _answered(crowd), "%", reach=">= 100")
    yield Figure("connections that send nothing", silent["idle"], "", reach=f">= {SILENT}")
    yield Figure(f"p99 of {RATE:,} requests/s beside them", _ms(silent), "ms", reach="<= 50")
    yield Figure("restarts of a connection point in two minutes", restarts["restarts"], "")
    yield Figure("POSTs meanwhile", restarts["asked"], "")
    yield Figure("of these, refused with a status", restarts["refused"], "")
    yield Figure("of these, lost", restarts["lost"], "", reach="<= 0")
    yield Figure(
        f"restart until {CROWD:,} clients are served again", storm["secs"], "s", reach="<= 60"
    )
    yield Figure("of these, not served", storm["left"], "", reach="<= 0")


def _ms(load: dict[str, Any]) -> float:
    return round(float(load["p99"]) / 1000, 1)


def _answered(load: dict[str, Any]) -> float:
    return round(100 * float(load["n"]) / float(load["asked"]), 2)


class _Crowd(_Bench):
    def second(self, stack: ExitStack) -> None:
        """Another connection point, and POSTs that the site allows."""
        self.stack = stack
        self.points: dict[str, Path] = {"CP01": self.folder / "connector.toml"}
        settings = tomllib.loads(self.points["CP01"].read_text())
        kept = Path(settings["state"]) / "configuration.json"
        wanted = msgspec.json.decode(kept.read_bytes(), type=tunnel.ConnectorConfiguration)
        (target,) = wanted.gateways
        told = target.configuration
        endpoints = [
            msgspec.structs.replace(one, methods=["GET", "POST"]) for one in told.endpoints
        ]
        told = msgspec.structs.replace(told, version=2, endpoints=endpoints)
        target = msgspec.structs.replace(target, configuration=told)
        state = private_folder(self.folder / "CP02")
        for name, where in (("CP01", kept), ("CP02", state / "configuration.json")):
            mine = msgspec.structs.replace(wanted, connection_point=name, gateways=[target])
            write_private(where, msgspec.json.encode(mine))
        settings |= {"state": str(state), "connection_point": "CP02", "retry_seconds": 1.0}
        settings["health"] = f"127.0.0.1:{free_port()}"
        self.points["CP02"] = self.folder / "CP02.toml"
        self.points["CP02"].write_text(config.toml(settings))
        self.pids = {"CP02": self._role("connector", self.points["CP02"])}
        (self.pids["CP01"],) = _pids(self.points["CP01"])
        self._restart("CP01")  # It reads what it kept.
        small = (self.folder / "small.request").read_bytes().decode()
        head, _, _ = small.partition("\r\n\r\n")
        body = "x" * 200
        text = f"{head.replace('GET', 'POST', 1)}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        (self.folder / "post.request").write_bytes(text.encode())

    def _role(self, role: str, file: Path) -> int:
        """A role of its own settings, once it is ready."""
        line = [sys.executable, "-c", _ROLE, role, str(file)]
        health = tomllib.loads(file.read_text())["health"]
        pid = self._begin(self.stack, file.stem, line, int(health.rpartition(":")[2]))
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if httpx.get(f"http://{health}/readyz", trust_env=False).status_code == 200:
                    return pid
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise SystemExit(f"the {role} is not ready")

    def _restart(self, name: str) -> None:
        _end(self.pids[name])
        self.pids[name] = self._role("connector", self.points[name])

    def _paced(self, request: str, seconds: float) -> subprocess.Popen[str]:
        return self._process("ka", request, _ON, seconds, "-q", str(RATE))

    @contextmanager
    def _held(self, mode: str, count: int) -> Iterator[dict[str, Any]]:
        held = self._process(mode, "small", count, 180, stdin=subprocess.PIPE)
        assert held.stdout is not None
        try:
            yield json.loads(held.stdout.readline())
        finally:
            held.kill()
            held.communicate()

    def alone(self, parts: dict[str, list[int]]) -> dict[str, Any]:
        self._result(self._paced("small", 3))  # Warm.
        return self._result(self._paced("small", _SECONDS))

    def crowd(self, parts: dict[str, list[int]]) -> dict[str, Any]:
        before = _pss(parts["front"])
        with self._held("idle", CROWD) as held:
            time.sleep(2)
            grown = (_pss(parts["front"]) - before) / max(1, held["idle"]) / 1024
            load = self._result(self._paced("small", _SECONDS))
        return {**load, "idle": held["idle"], "kilobytes": grown}

    def restarts(self, parts: dict[str, list[int]]) -> dict[str, Any]:
        load = self._paced("post", _RESTARTS_SECONDS)
        begun, count = time.monotonic(), 0
        while time.monotonic() < begun + _RESTARTS_SECONDS - _EVERY_SECONDS:
            due = begun + (count + 1) * _EVERY_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
            self._restart(("CP01", "CP02")[count % 2])
            count += 1
        found = self._result(load)
        lost = found["asked"] - found["n"] - found["refused"]
        return {**found, "restarts": count, "lost": lost}

    def silent(self, parts: dict[str, list[int]]) -> dict[str, Any]:
        with self._held("mute", SILENT) as held:
            load = self._result(self._paced("small", _SECONDS))
        return {**load, "idle": held["idle"]}

    def storm(self, parts: dict[str, list[int]]) -> dict[str, Any]:
        file = self.folder / "gateway.toml"
        with self._held("idle", CROWD):
            _end(parts["front"][0])
        begun = time.monotonic()
        clients = self._process("storm", "small", CROWD, 2 * _STORM_SECONDS)
        line = [sys.executable, "-c", _ROLE, "gateway", str(file)]
        parts["front"] = [self._begin(self.stack, "gateway", line, self.port)]
        found = self._result(clients)
        found["secs"] = round(time.monotonic() - begun, 1)
        return {**found, "left": CROWD - found["n"]}

    def _result(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        said, trouble = process.communicate(timeout=_RESTARTS_SECONDS + 60)
        if trouble:
            sys.stderr.write(trouble[:500])
        found: dict[str, Any] = json.loads(said)
        return found


def _pids(file: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(file) in (process.info["cmdline"] or [])
    ]


def _end(pid: int) -> None:
    process = psutil.Process(pid)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
