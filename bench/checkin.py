"""Check-ins of 50,000 registered devices, through the gateway.

A check-in is a signed request for policy with the ETag that the device was told last. The load client
(`checkin_client.c`, one process beside the others on the same cores) plays the devices in turn, each with its
own key and token, on kept TLS connections to the gateway. CPU is user and system time of the site and of
PostgreSQL together; that of gateway and connection point is told apart. What a check-in causes later
(the last contact in the database, the row in the device list) is in it: the processes are looked at
again once all is written.
"""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, Outcome, machine
from bench.registered import DEVICES, Registered

CONNECTIONS, SECONDS = 16, 8.0
_POLICY = "policy:GET:/SMS_MP/.sms_pol:{rate}"


def run() -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        site = Registered(Path(folder), stack)
        site.prepare()
        site.serve()
        figures = measure(site)
    return Outcome(
        machine(),
        f"{DEVICES:,} registered devices, one site process, embedded PostgreSQL, one gateway worker",
        figures,
    )


def measure(site: Registered) -> list[Figure]:
    """First each device gets its policy, which is news; then none has any."""
    news = _each(site, 2 * SECONDS)
    again = _each(site, 60.0, whole=True)
    quiet = _each(site, 2 * SECONDS)
    return [
        Figure("check-in without news, CPU at the site", quiet["site"], "ms", reach="<= 0.3"),
        Figure("check-in with news, CPU at the site", news["site"], "ms", reach="<= 2"),
        Figure("gateway and connection point", quiet["edge"], "ms"),
        Figure("check-ins without news, load client beside", quiet["rate"], "1/s"),
        Figure("x", again["site"], "ms"),
    ]


def _each(site: Registered, seconds: float, whole: bool = False) -> dict[str, float]:
    found = site.load([_POLICY.format(rate=0)], seconds, "-c", str(CONNECTIONS))
    before = site.cpu()
    time.sleep(7)
    site._settled()
    after = site.cpu()
    kind = found["kinds"]["policy"]
    spent = {name: found["spent"][name] + after[name] - before[name] for name in after}
    n = kind["n"]
    print(found, spent, {k: round(v / n * 1000, 3) for k, v in spent.items()})
    return {
        "site": round((spent["site"] + spent["postgres"]) / n * 1000, 3),
        "edge": round((spent["gateway"] + spent["connector"]) / n * 1000, 3),
        "rate": round(n / found["secs"]),
    }
