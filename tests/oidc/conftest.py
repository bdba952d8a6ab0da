from collections.abc import AsyncIterator
from typing import Any

import pytest

from tandem.infra.database import Database
from tenant_world import World, make_world


@pytest.fixture
async def world(tenant_db: Database, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A tenant; `@pytest.mark.parametrize("world", [{…}], indirect=True)` changes its settings."""
    changes: dict[str, Any] = getattr(request, "param", {})
    made = await make_world(tenant_db, authority=changes)
    yield made
    await made.client.aclose()
