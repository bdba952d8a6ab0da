"""How much one client may ask for: counts by identity and by address, of one worker."""

from collections import defaultdict

from tandem.gateway.model import Refusal
from tandem.gateway.statuses import refusal
from tandem.protocols.tunnel import Limits

# Requests are counted in windows of this length: one number for each client, and no clock at each
# request. Who is at the limit gets twice as much at a window's edge, at most.
WINDOW_SECONDS = 10
# So many different clients in one window are counted; the next one begins the count anew.
_MOST = 100_000


class Guard:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._asked: dict[str, int] = {}
        self._unknown: dict[str, int] = {}
        self._under_way: defaultdict[str, int] = defaultdict(int)
        self._connections: defaultdict[str, int] = defaultdict(int)

    def turn(self) -> None:
        """A new window."""
        self._asked.clear()
        self._unknown.clear()

    # -------------------------------------------------------------- connections

    def connected(self, address: str) -> bool:
        """Whether this address may have another connection. Counts it in any case."""
        self._connections[address] += 1
        most = self.limits.connections_per_address
        return not most or self._connections[address] <= most

    def disconnected(self, address: str) -> None:
        self._connections[address] -= 1
        if self._connections[address] <= 0:
            del self._connections[address]

    # -------------------------------------------------------------- requests

    def begun(self, client: str) -> Refusal | None:
        """A request of a client that is known. When it may go on, `ended` has to be called."""
        limits = self.limits
        most = limits.requests_per_client
        if most:
            count = self._asked.get(client, 0) + 1
            if len(self._asked) >= _MOST:
                self._asked.clear()
            self._asked[client] = count
            if count > most:
                return _RATE
        most = limits.under_way_per_client
        if most and self._under_way[client] >= most:
            return _UNDER_WAY
        self._under_way[client] += 1
        return None

    def ended(self, client: str) -> None:
        left = self._under_way[client] - 1
        if left > 0:
            self._under_way[client] = left
        else:
            del self._under_way[client]

    def unknown(self, address: str) -> Refusal | None:
        """A request of whoever it is: refused, or answered here for anybody."""
        most = self.limits.unknown_requests_per_address
        if not most:
            return None
        if len(self._unknown) >= _MOST:
            self._unknown.clear()
        count = self._unknown[address] = self._unknown.get(address, 0) + 1
        return _UNKNOWN_RATE if count > most else None


_RATE = refusal("CMGService_Rate_Limit")
_UNDER_WAY = refusal(
    "CMGService_Rate_Limit", "This client has too many requests under way at once."
)
_UNKNOWN_RATE = refusal(
    "CMGService_Rate_Limit", "Too many requests without a valid token come from this address."
)
TOO_MANY_CONNECTIONS = refusal("CMGService_Connections")
