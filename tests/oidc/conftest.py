from collections.abc import AsyncIterator
from typing import Any

import pytest

from tandem.infra.database import Database
from tandem.tenant import graph
from tenant_world import CHEAP, World, make_world


@pytest.fixture
async def world(tenant_db: Database, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A tenant; `@pytest.mark.parametrize("world", [{…}], indirect=True)` changes its settings."""
    changes: dict[str, Any] = getattr(request, "param", {})
    made = await make_world(tenant_db, authority=changes)
    yield made
    await made.client.aclose()


@pytest.fixture
async def with_graph(tenant_db: Database) -> AsyncIterator[World]:
    """A tenant whose Graph is served beside its authority."""

    def routes(here: World) -> Any:
        parts = graph.directory_parts(CHEAP)
        return graph.routes(here.database, here.tokens, here.now, parts=parts)

    made = await make_world(tenant_db, routes)
    yield made
    await made.client.aclose()
