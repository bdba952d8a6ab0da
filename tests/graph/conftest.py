from collections.abc import AsyncIterator

import pytest

from graph_caller import Graph
from tandem.infra.database import Database
from tandem.tenant import graph
from tenant_world import CHEAP, World, make_world


@pytest.fixture
async def world(tenant_db: Database) -> AsyncIterator[World]:
    made = await make_world(
        tenant_db,
        lambda here: graph.routes(
            here.database, here.tokens, here.now, parts=graph.directory_parts(CHEAP)
        ),
    )
    yield made
    await made.client.aclose()


@pytest.fixture
async def admin(world: World) -> Graph:
    return Graph(world, await world.bearer())
