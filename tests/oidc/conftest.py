from collections.abc import AsyncIterator

import pytest

from tandem.infra.database import Database
from tenant_world import World, make_world


@pytest.fixture
async def world(tenant_db: Database) -> AsyncIterator[World]:
    made = await make_world(tenant_db)
    yield made
    await made.client.aclose()
