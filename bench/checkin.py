"""Check-ins of registered devices, through the gateway.

A check-in is a signed request for policy, with the ETag that the device was told last. The load client
(`checkin_client.c`, one process beside the others on the same cores) plays the devices in turn, each with
its own key and token, on kept TLS connections to the gateway. At its first check-in a device has no
policy, which is news; then nothing is new. CPU is user and system time of the site and of PostgreSQL
together, until all is written that check-ins leave behind: the last contact, the row in the device list.
That of gateway and connection point is told apart. Then the same with a gateway that answers check-ins without
news itself: what is left at the site are its questions, and last contacts.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, Outcome, machine
from bench.registered import Registered

DEVICES, CONNECTIONS, SECONDS = 10_000, 16, 10.0
# Who is answered at the gateway waits there for others, so few connections would not keep it busy.
MANY = 256
# The site writes last contacts every five seconds.
_WRITTEN_SECONDS = 7.0


def run() -> Outcome:
    figures = _measured(_measure) + _measured(_measure_at_the_edge, answers=True)
    return Outcome(
        machine(),
        f"{DEVICES:,} registered devices, one site process, embedded PostgreSQL, one gateway worker",
        figures,
    )


def _measured(measure: Callable[[Registered], list[Figure]], answers: bool = False) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        site = Registered(Path(folder), stack, DEVICES, answers)
        site.prepare()
        site.serve()
        return measure(site)


def _measure_at_the_edge(site: Registered) -> list[Figure]:
    """The same, with a gateway that answers who has its policy already."""
    _each(site, DEVICES)
    quiet = _each(site, connections=MANY)
    return [
        Figure("answered at the gateway, CPU at the site", quiet["both"], "ms"),
        Figure("answered at the gateway, CPU of the edge", quiet["edge"], "ms"),
        Figure("answered at the gateway, load client beside", quiet["rate"], "1/s"),
    ]


def _measure(site: Registered) -> list[Figure]:
    news = _each(site, DEVICES)
    quiet = _each(site)
    site_alone, edge = (
        "of it the site's process, the rest PostgreSQL",
        "gateway and connection point",
    )
    return [
        Figure("check-in without news, CPU at the site", quiet["both"], "ms", reach="<= 0.3"),
        Figure(site_alone, quiet["site"], "ms"),
        Figure(f"{edge}, CPU of the same", quiet["edge"], "ms"),
        Figure("check-ins without news, load client beside", quiet["rate"], "1/s"),
        Figure("check-in with news, CPU at the site", news["both"], "ms", reach="<= 2"),
        Figure(f"{site_alone} (news)", news["site"], "ms"),
        Figure("check-ins with news, load client beside", news["rate"], "1/s"),
        Figure("site process after all of it", round(site.memory("site")), "MB"),
    ]


def _each(site: Registered, count: int = 0, connections: int = CONNECTIONS) -> dict[str, float]:
    """What one check-in costs: of so many devices once, or of all again and again."""
    options = ["-c", str(connections)] + (["-m", str(count)] if count else [])
    begun, before = time.monotonic(), site.cpu()
    seconds = 240.0 if count else SECONDS
    found = site.load(["policy:GET:/SMS_MP/.sms_pol:0"], seconds, *options)
    time.sleep(_WRITTEN_SECONDS)
    site.rest()
    spent = {name: now - before[name] for name, now in site.cpu().items()}
    kind = found["kinds"]["policy"]
    if kind["ok" if count else "unchanged"] < 0.99 * kind["n"]:
        raise SystemExit(f"the answers are not those that were expected: {kind}")
    each = {name: seconds / kind["n"] * 1000 for name, seconds in spent.items()}
    return {
        "both": round(each["site"] + each["postgres"], 3),
        "site": round(each["site"], 3),
        "edge": round(each["gateway"] + each["connector"], 3),
        "rate": round(kind["n"] / found["secs"]),
        "took": time.monotonic() - begun,
    }
