from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import site_world
import tenant_world
from tandem.infra.database import Database


@pytest.fixture
async def site(site_db: Database, tmp_path: Path) -> AsyncIterator[site_world.Site]:
    """A site that knows no tenant."""
    async with site_world.site(site_db, tmp_path) as made:
        yield made


@pytest.fixture
async def contoso(
    site_db: Database, tenant_db: Database, tmp_path: Path
) -> AsyncIterator[tuple[site_world.Site, tenant_world.World]]:
    """A site, and the tenant that its settings name."""
    (tmp_path / "tenant").mkdir()
    async with tenant_world.live(tenant_db, tmp_path / "tenant") as (world, root):
        base = world.tokens.settings.base
        async with site_world.site(site_db, tmp_path, base, root) as made:
            yield made, world
