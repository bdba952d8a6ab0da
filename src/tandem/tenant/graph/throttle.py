"""How many requests an application, and the whole tenant, may make: in memory, for each process."""

import math

from tandem.infra.config import Settings
from tandem.infra.errors import AppError, Kind


class GraphSettings(Settings, frozen=True):
    # Requests a second that one application, and all together, may make in the long run. Less
    # protects other callers better; more lets one script finish sooner.
    app_requests_per_second: float = 2_000
    tenant_requests_per_second: float = 5_000
    # For so long may be called at once what would be allowed in that time.
    burst_seconds: float = 10


class TooManyRequests(AppError):
    kind, code = Kind.RATE_LIMITED, "graph.too-many-requests"


class Throttle:
    """The generic cell rate algorithm: of each caller one number, when it will be even again."""

    MOST = 10_000

    def __init__(self, settings: GraphSettings) -> None:
        self._settings = settings
        self._even_at: dict[str, float] = {}

    def take(self, app_id: str, now: float) -> None:
        """Count one request. Raises TooManyRequests, which says in how many seconds to come back."""
        settings = self._settings
        waits = [
            self._wait("", 1 / settings.tenant_requests_per_second, now),
            self._wait(app_id, 1 / settings.app_requests_per_second, now),
        ]
        wait = max(waits)
        if wait > 0:
            raise TooManyRequests(
                "Too many requests.",
                cure=f"Wait {math.ceil(wait)} seconds, then send them more slowly.",
                retry_after_seconds=math.ceil(wait),
            )
        self._even_at[""] = max(self._even_at.get("", now), now) + (
            1 / settings.tenant_requests_per_second
        )
        self._even_at[app_id] = max(self._even_at.get(app_id, now), now) + (
            1 / settings.app_requests_per_second
        )

    def _wait(self, name: str, seconds: float, now: float) -> float:
        if len(self._even_at) > self.MOST:
            self._even_at = {key: at for key, at in self._even_at.items() if at > now}
        return max(self._even_at.get(name, now), now) + seconds - now - self._settings.burst_seconds
