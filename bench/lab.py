"""The lab as a newcomer meets it: from the command to co-managed devices, the second start, memory.

The lab runs from the installed package with 25 devices in an empty folder, ends, starts again on
the same folder, is left alone until it is at rest, and then the proportional set size of all server
processes is read: PostgreSQL, tenant, site, two gateway instances of one worker and two connection
points. Devices and lab aids (DNS, public CA, the lab itself) are not servers and not counted.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, Outcome, machine
from tandem.cli.lab.supervisor import memory_bytes

DEVICES = 25
SERVERS = {"postgresql", "tenant", "site", "gateway", "connector"}
AT_REST_SECONDS = 20


def run() -> Outcome:
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder:
        first, report = _first(Path(folder))
        second, memory = _second(Path(folder))
    co_managed = report["devices"]["co_managed"]
    if co_managed != DEVICES or not report["ok"]:
        raise SystemExit(f"the lab did not hold: {co_managed} of {DEVICES} devices co-managed")
    return Outcome(
        machine(),
        f"{DEVICES} devices, lab cadence, all on one machine, load average {before:.1f} before",
        [
            Figure("from `tandem lab` to 25 devices co-managed", first, "s", reach="<= 30"),
            Figure("second start to serving", second, "s", reach="<= 8"),
            Figure(
                "all server processes at rest with 25 devices, PSS", memory, "MB", reach="<= 800"
            ),
        ],
    )


def _first(folder: Path) -> tuple[float, dict[str, object]]:
    """Seconds to the end of step 6.4, when all devices are co-managed, and the report."""
    file = folder / "report.json"
    begun = time.monotonic()
    process = subprocess.Popen(
        [*_lab(folder), "--until", "6.4", "--exit", "--json", str(file)],
        stdout=subprocess.DEVNULL,
    )
    try:
        process.wait(600)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(60)
    ended = time.monotonic() - begun
    if not file.exists():
        raise SystemExit("the lab wrote no report")
    report = json.loads(file.read_text())
    return round(report["co_managed_after_seconds"] or ended, 1), report


def _second(folder: Path) -> tuple[float, float]:
    contract = folder / "lab" / "lab.json"
    contract.unlink(missing_ok=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        [*_lab(folder), "--until", "6.4", "--serve"], stdout=subprocess.DEVNULL
    )
    try:
        while not contract.exists():
            if process.poll() is not None or time.monotonic() > begun + 120:
                raise SystemExit("the lab did not start a second time")
            time.sleep(0.02)
        serving = time.monotonic() - begun
        time.sleep(AT_REST_SECONDS)
        processes = json.loads(contract.read_text())["processes"]
        pids = [item["pid"] for item in processes if item["role"].split("-")[0] in SERVERS]
        return round(serving, 1), round(memory_bytes(pids) / 1e6, 0)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _lab(folder: Path) -> list[str]:
    tandem = Path(sys.executable).with_name("tandem")
    state = str(folder / "lab")
    return [str(tandem), "lab", "--devices", str(DEVICES), "--state", state]
