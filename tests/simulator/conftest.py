from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from one_management_point import Site
from one_tenant import Tenant, free_port

from tandem.infra.database import Database


@pytest.fixture
async def tenant(tmp_path: Path) -> AsyncIterator[Tenant]:
    made = Tenant(tmp_path, free_port(), free_port())
    async with made.serving():
        yield made


@pytest.fixture
async def site(site_db: Database, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(site_db, tmp_path)
    async with made.serving():
        yield made
