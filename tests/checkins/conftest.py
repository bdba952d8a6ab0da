from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from checkin_world import World, world_of

from tandem.infra.database import Database


@pytest.fixture
async def world(site_db: Database, tmp_path: Path) -> AsyncIterator[World]:
    async with world_of(site_db, tmp_path) as made:
        yield made
