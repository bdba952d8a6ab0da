"""What the site is made of and how it is: versions, database, jobs, time, where it writes."""

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tandem import __version__
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.site import properties
from tandem.site.health import store
from tandem.site.health.model import SitePlaces


@dataclass(frozen=True)
class About:
    places: SitePlaces
    now: Clock

    async def describe(self, tx: Tx) -> dict[str, Any]:
        now = self.now()
        site = await properties.site(tx)
        database = await store.database(tx)
        started = self.places.started_at
        return {
            "site_code": site.code,
            "site_name": site.name,
            "versions": {
                "tandem": __version__,
                "python": platform.python_version(),
                "postgresql": database.pop("version"),
                "system": f"{platform.system()} {platform.release()}",
            },
            "database": {
                **database,
                "kind": self.places.database or "external",
                # Ahead of ours means that the database's clock is ahead.
                "clock_seconds": round((database.pop("now") - now).total_seconds(), 1),
            },
            "jobs": await store.jobs(tx),
            "time": now,
            "started_at": started,
            "uptime_seconds": round((now - started).total_seconds()) if started else None,
            "memory_bytes": psutil.Process().memory_info().rss,
            "disk_free_bytes": _free(self.places.state),
            "logs": self.places.logs,
            "state": self.places.state,
        }


def _free(folder: str) -> int | None:
    try:
        return shutil.disk_usage(Path(folder)).free if folder else None
    except OSError:
        return None
