"""How long a workload takes to change hands.

With both authorities: the lab with 25 devices, as processes; an administrator's command moves a workload
to the MDM service, and back. Timed from the command until the site has every device's report of its new
owner and the tenant says the same of every managed device.

With many devices: 5,000 registered devices hold a request on the notification channel through the
gateway. `checkin_client.c` plays them: when the channel tells one to look at its policy, it asks for it
and reports the owner that the policy names. Timed from the commit of the switch until the site counts
every device as moved. The clients do not apply anything, and the MDM service is not in it.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench.figures import Figure, Outcome, machine
from bench.registered import STATE, Registered
from tandem.infra.database import Database
from tandem.protocols import ccm
from tandem.site import comanagement
from tandem.workloads import Position, Workload

DEVICES, LAB_DEVICES, ROUNDS = 5_000, 25, 3
_WORKLOAD = Workload.OFFICE_CLICK_TO_RUN
_LONGEST_SECONDS = 300.0


def run() -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder:
        both = _with_both(Path(folder))
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        site = Registered(Path(folder), stack, DEVICES)
        site.prepare()
        site.serve()
        seconds, spent = _many(site)
    return Outcome(
        machine(),
        f"{LAB_DEVICES} devices of the lab; {DEVICES:,} on the notification channel of one site process,"
        " embedded PostgreSQL, one gateway worker",
        [
            Figure(
                f"{LAB_DEVICES} online devices, until both authorities agree, worst of {2 * ROUNDS}",
                max(both),
                "s",
                reach="<= 10",
            ),
            Figure(
                f"{DEVICES:,} online devices, until all have moved", seconds, "s", reach="<= 60"
            ),
            *(
                Figure(f"{name}, CPU for each of them", round(1000 * used / DEVICES, 2), "ms")
                for name, used in spent.items()
            ),
        ],
    )


# Both authorities


def _with_both(folder: Path) -> list[float]:
    tandem = str(Path(sys.executable).with_name("tandem"))
    state = folder / "lab"
    line = [tandem, "lab", "--devices", str(LAB_DEVICES), "--state", str(state)]
    process = subprocess.Popen(
        [*line, "--until", "6.4", "--serve"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _until(lambda: _is_there(state / "lab.json", process))
        profile = os.environ | {"TANDEM_PROFILE": str(state / "settings" / "profile.toml")}

        def tell(*words: str) -> Any:
            done = subprocess.run(
                [tandem, *words, "--json"], env=profile, capture_output=True, check=False
            )
            if done.returncode:
                raise SystemExit(f"`tandem {' '.join(words)}` failed: {done.stderr.decode()[:800]}")
            return json.loads(done.stdout)

        # One more device is with the MDM service alone, and not counted.
        devices = tell("comanagement", "status")["co_managed"]
        return [
            _moved(tell, position, devices if position == "mdm" else 0)
            for position in ("mdm", "site") * ROUNDS
        ]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _is_there(file: Path, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise SystemExit("the lab did not start")
    return file.exists()


def _moved(tell: Callable[..., Any], position: str, expected: int) -> float:
    """Seconds until both say that so many devices have the workload with the MDM service. Of them
    up to one are what the two questions take."""
    begun = time.monotonic()
    tell("comanagement", "switch", _WORKLOAD.value, position, "--yes")

    def agreed() -> bool:
        moves = tell("comanagement", "status")["moves"]
        move = next(one for one in moves if one["workload"] == _WORKLOAD.value)
        features = [
            one["configurationManagerClientEnabledFeatures"] or {}
            for one in tell("managed-device", "list")
        ]
        seen = sum(bool(one.get("officeApps")) for one in features)
        return bool(move["done"]) and move["with_mdm"] == expected == seen

    _until(agreed)
    return round(time.monotonic() - begun, 1)


def _until(good: Callable[[], bool], check: Callable[[], None] = lambda: None) -> None:
    until = time.monotonic() + _LONGEST_SECONDS
    while not good():
        check()
        if time.monotonic() > until:
            raise SystemExit(f"not within {_LONGEST_SECONDS:.0f} s")
        time.sleep(0.1)


# Many devices


def _many(site: Registered) -> tuple[float, dict[str, float]]:
    flags = STATE["flags"] | _WORKLOAD.bits
    moved = STATE | {"flags": flags, "workloads": STATE["workloads"] | {_WORKLOAD.value: "mdm"}}
    said = {"id": "@ID", "topic": ccm.COMANAGEMENT_TOPIC, "state": 100, "at": "@AT", "data": moved}
    report, channel = site.folder / "moved.json", site.folder / "channel.json"
    report.write_text(json.dumps({"messages": [said]}))
    channel.write_text('{"wait_seconds": 120}')
    kinds = [
        f"channel:POST:/bgb:0:{channel}",
        "policy:GET:/SMS_MP/.sms_pol:0",
        f"state:POST:/ccm_incoming:0:{report}",
    ]
    with site.following(kinds, DEVICES, 2 * _LONGEST_SECONDS) as check:
        waiting = "SELECT count(*) FROM notifications_channel"
        _until(lambda: _count(site, waiting) == DEVICES, check)
        time.sleep(5)
        before = site.cpu()
        begun = time.monotonic()
        asyncio.run(_switch(site))
        _until(lambda: asyncio.run(_all_moved(site)), check)
        took = time.monotonic() - begun
        spent = {name: used - before[name] for name, used in site.cpu().items()}
    return round(took, 1), spent


def _count(site: Registered, query: str) -> int:
    with psycopg.connect(site.dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


async def _switch(site: Registered) -> None:
    database = await Database.open(site.dsn)
    try:
        async with database.transaction() as tx:
            await comanagement.switch(
                tx, _WORKLOAD, Position.MDM, actor="bench", now=datetime.now(UTC)
            )
    finally:
        await database.close()


async def _all_moved(site: Registered) -> bool:
    """What the dashboard says."""
    await asyncio.sleep(0.4)
    database = await Database.open(site.dsn)
    try:
        async with database.transaction() as tx:
            found = await comanagement.status(tx)
    finally:
        await database.close()
    move = next(one for one in found.moves if one.workload is _WORKLOAD)
    return move.with_mdm == DEVICES
