"""What benchmarks share: a load client in C, processes under measurement, and their CPU time."""

import contextlib
import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
OUT = HERE / "out"


def load_client() -> Path:
    """The compiled load client; `tools/packages.sh gcc libc6-dev libssl-dev` brings the compiler."""
    source, program = HERE / "load_client.c", OUT / "load_client"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        OUT.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["gcc", "-O2", "-w", "-o", str(program), str(source), "-lssl", "-lcrypto"], check=True
        )
    return program


def load(port: int, request: Path, *, seconds: float, connections: int) -> dict[str, Any]:
    """Send one request again and again over TLS with keep-alive; counts, latencies in µs."""
    line = [str(load_client()), "-m", "ka", "-s", "-p", str(port), "-c", str(connections)]
    done = subprocess.run(
        [*line, "-d", str(seconds), "-r", str(request)], check=True, capture_output=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if result["err"] or not result["n"]:
        raise SystemExit(f"the load client was refused: {done.stderr.decode()[:500]}")
    return result


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time so far of these processes, their children, and those that ended."""
    total = 0.0
    for root in roots:
        process = psutil.Process(root)
        for one in (process, *process.children(recursive=True)):
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
            total += times.children_user + times.children_system if one.pid == root else 0.0
    return total


def free_port() -> int:
    """Below those that the system gives to clients: what starts again finds its port free."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start(
    command: Sequence[str], port: int, log: Path, seconds: float = 60
) -> subprocess.Popen[bytes]:
    """Start a server and wait until it accepts connections."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=os.environ.copy())
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process
    process.kill()
    raise SystemExit(f"{command[0]} does not serve:\n{log.read_text(errors='replace')[-2000:]}")
