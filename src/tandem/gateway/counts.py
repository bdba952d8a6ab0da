"""What a worker counts of its requests, and how that reaches the site exactly once.

    ledger.take()                every minute: what was counted since, for the log and for the site
    TELL {run, sequence, …} →    by one of the tunnels, when nothing else is on its way
                          ←      TOLD {run, sequence}: the site has written it down

What was not acknowledged is told again, with the same number and the same content, by whichever
tunnel there is then; the site takes each number of a run once. So a lost tunnel, a connection point
that dies and a site that is away lose nothing and count nothing twice. A worker that is killed takes
with it what it counted since it told last.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from tandem.protocols.tunnel import Counted, Telling, Told

# Of what the gateway answers itself: refused, asked without a device behind it, and content.
REFUSED, EDGE, CONTENT = "refused", "edge", "content"
# Counts of one telling, which has to fit into its frame; more wait for the next one.
_MOST = 150


@dataclass(slots=True)
class Count:
    """What clients asked of one endpoint. `response_bytes` are those of bodies."""

    requests: int = 0
    request_bytes: int = 0
    responses: int = 0
    failures: int = 0
    response_bytes: int = 0
    head_bytes: int = 0
    seconds: float = 0.0

    def add(self, other: "Count") -> None:
        self.requests += other.requests
        self.request_bytes += other.request_bytes
        self.responses += other.responses
        self.failures += other.failures
        self.response_bytes += other.response_bytes
        self.head_bytes += other.head_bytes
        self.seconds += other.seconds

    def line(self, endpoint: str) -> str:
        average = self.seconds * 1000 / max(1, self.requests)
        return (
            f"RequestUri: {endpoint} RequestCount: {self.requests}"
            f" RequestSize: {self.request_bytes} Bytes ResponseCount: {self.responses}"
            f" ResponseSize: {self.response_bytes} Bytes AverageElapsedTime: {average:.0f} ms"
        )


Counts = defaultdict[str, Count]
Key = tuple[str, str]  # Of a connection point and an endpoint.


class Ledger:
    """The counts of a worker since it looked last. Whoever counts adds to plain numbers."""

    def __init__(self) -> None:
        self._points: dict[str, Counts] = {}
        # Of requests that no connection point had; their endpoint, or one of the two below.
        self.own = self.of("")

    def of(self, connection_point: str) -> Counts:
        """The endpoints of what goes by this connection point; the same one each time."""
        return self._points.setdefault(connection_point, Counts(Count))

    def take(self) -> dict[Key, Count]:
        """What was counted since it was taken last."""
        taken = {
            (point, endpoint): count
            for point, counts in self._points.items()
            for endpoint, count in counts.items()
        }
        for counts in self._points.values():
            counts.clear()
        return taken


class _Counted(Collector):
    """Sums by endpoint for whoever scrapes, as new as the last look at the ledger."""

    def __init__(self) -> None:
        self._sums = Counts(Count)

    def add(self, taken: dict[Key, Count]) -> None:
        for (_, endpoint), count in taken.items():
            name = _PREFIX.sub("", endpoint).partition("/")[0]
            # As many series as there are names; a site that publishes more is no reason for more.
            known = name in self._sums or len(self._sums) < _MOST_NAMES
            self._sums[name if known else "other"].add(count)

    def collect(self) -> Iterable[Metric]:
        for name, text, of in _METRICS:
            family = CounterMetricFamily(f"gateway_endpoint_{name}", text, labels=["endpoint"])
            for endpoint, count in self._sums.items():
                family.add_metric([endpoint], of(count))
            yield family


_PREFIX = re.compile(r"^/(?:CCM_Proxy_\w+/\d+/)?")
_MOST_NAMES = 32
_METRICS: tuple[tuple[str, str, Callable[[Count], float]], ...] = (
    ("requests", "Requests that ended", lambda count: count.requests),
    ("failures", "Without a whole answer, or with a status from 500", lambda count: count.failures),
    ("received_bytes", "Bodies of requests", lambda count: count.request_bytes),
    ("sent_bytes", "Answers", lambda count: count.response_bytes + count.head_bytes),
    ("seconds", "From the first byte to the end of the answer", lambda count: count.seconds),
)
COUNTED = _Counted()
REGISTRY.register(COUNTED)


def by_endpoint(taken: dict[Key, Count]) -> Iterable[tuple[str, Count]]:
    sums = Counts(Count)
    for (_, endpoint), count in taken.items():
        sums[endpoint].add(count)
    return sorted(sums.items())


class Teller:
    """Tells the site what was counted: one telling at a time, until the site has it."""

    def __init__(self, run: str, describe: Callable[[], dict[str, Any]]) -> None:
        """`describe` says what else belongs into a telling: the worker, who is online."""
        self._run = run
        self._describe = describe
        self._sequence = 0
        self._waiting: dict[Key, Count] = {}
        self._under_way: bytes | None = None

    @property
    def idle(self) -> bool:
        """Whether the site has all."""
        return self._under_way is None and not self._waiting

    def add(self, taken: dict[Key, Count]) -> None:
        for key, count in taken.items():
            known = self._waiting.get(key)
            if known is None:
                self._waiting[key] = count
            else:
                known.add(count)

    def telling(self) -> bytes:
        """What has to be told now: what the site has not acknowledged, or what is new."""
        if self._under_way is None:
            keys = list(self._waiting)[:_MOST]
            counts = [_counted(key, self._waiting.pop(key)) for key in keys]
            self._sequence += 1
            made = Telling(self._run, self._sequence, counts=counts, **self._describe())
            self._under_way = msgspec.json.encode(made)
        return self._under_way

    def told(self, answer: Told) -> bool:
        """The site has it. Whether that is news."""
        if self._under_way is None or (answer.run, answer.sequence) != (self._run, self._sequence):
            return False
        self._under_way = None
        return True


def _counted(key: Key, count: Count) -> Counted:
    point, endpoint = key
    return Counted(
        endpoint,
        point,
        count.requests,
        count.failures,
        count.request_bytes,
        count.response_bytes + count.head_bytes,
        round(count.seconds * 1000, 3),
    )
