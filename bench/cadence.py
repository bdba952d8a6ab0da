"""Five minutes of 50,000 registered devices at their cadence, through the gateway.

Each asks for policy every 60 minutes, says every 15 minutes where it stands, asks for the management points
every 24 hours, and sends a heartbeat and its hardware inventory every 7 days (specification 3.3 and F12).
All of them report, which is the most there can be, and each check-in is the first of its device, so it is
news. Every request comes on a TLS connection of its own; its time counts from when it was due until its
answer is whole. Token renewals (1.7 a second) are not in it: they need the tenant.
"""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.figures import Figure, Outcome, machine
from bench.registered import DEVICES, STATE, Registered
from tandem.protocols import ccm
from tandem.site import clients

SECONDS, WAITING = 300.0, 10_000
# The endpoint of the notification channel.
CHANNEL = any(one.path == "bgb" for one in clients.ENDPOINTS)
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_INVENTORY = {"classes": {"SMS_G_System_OPERATING_SYSTEM": [{"Caption": "Debian GNU/Linux 13"}]}}


def run() -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        site = Registered(Path(folder), stack)
        site.prepare()
        site.serve()
        figures = _measure(site)
    return Outcome(
        machine(),
        f"{DEVICES:,} registered devices, {WAITING if CHANNEL else 'none'} on the notification channel,"
        f" {SECONDS:.0f} s, one site process, embedded PostgreSQL, one gateway worker",
        figures,
    )


def _measure(site: Registered) -> list[Figure]:
    def message(name: str, topic: int, state: int, data: Any) -> str:
        found = {"id": "@ID", "topic": topic, "state": state, "at": "@AT", "data": data}
        (site.folder / name).write_text(json.dumps({"messages": [found]}))
        return str(site.folder / name)

    def kind(name: str, method: str, target: str, every: float, body: str = "") -> str:
        rate = f"{DEVICES / every:.4f}"
        return f"{name}:{method}:{target}:{rate}" + (f":{body}" if body else "")

    incoming = ("POST", "/ccm_incoming")
    state = message("state.json", ccm.COMANAGEMENT_TOPIC, 100, STATE)
    heartbeat = message("heartbeat.json", ccm.HEARTBEAT_TOPIC, 1, {})
    inventory = message("inventory.json", ccm.INVENTORY_TOPIC, 1, _INVENTORY)
    kinds = [
        kind("policy", "GET", "/SMS_MP/.sms_pol", _HOUR),
        kind("state", *incoming, 15 * _MINUTE, state),
        kind("location", "GET", "/SMS_MP/.sms_aut?MPLIST", _DAY),
        kind("heartbeat", *incoming, 7 * _DAY, heartbeat),
        kind("inventory", *incoming, 7 * _DAY, inventory),
    ]
    with ExitStack() as stack:
        if CHANNEL:
            stack.enter_context(site.waiting(WAITING, SECONDS + 120))
        found = site.load(kinds, SECONDS, "-n")
    spent, told = found["spent"], found["kinds"]
    return [
        Figure("requests", sum(one["n"] for one in told.values()), ""),
        *(
            Figure(f"{name}, p99", round(one["p99"] / 1000, 1), "ms", reach="<= 200")
            for name, one in told.items()
        ),
        Figure("the longest of all", round(max(k["most"] for k in told.values()) / 1000), "ms"),
        *(
            Figure(f"{name}, CPU", round(100 * seconds / found["secs"], 1), "% of a core")
            for name, seconds in spent.items()
        ),
        Figure("site process after all of it", round(site.memory("site")), "MB"),
        Figure("PostgreSQL after all of it, PSS", round(site.memory("postgres")), "MB"),
        Figure(
            "gateway and connection point",
            round(site.memory("gateway") + site.memory("connector")),
            "MB",
        ),
    ]
