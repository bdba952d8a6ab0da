from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mdm_world import Mdm, mdm_service
from tandem.infra.database import Database


@pytest.fixture
async def mdm(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Mdm]:
    async with mdm_service(tenant_db, tmp_path) as made:
        yield made
