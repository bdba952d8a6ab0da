import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "agent"))

from one_site import Moment, Site
from one_tenant import Tenant, free_port

from tandem.infra.database import Database


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[Tenant]:
    made = Tenant(tmp_path, free_port(), free_port())
    async with made.serving():
        yield made


class RealTime(Moment):
    def __call__(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture
async def site(site_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(site_db, tmp_path, RealTime(), free_port())
    async with made.serving():
        yield made
