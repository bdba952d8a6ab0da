from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import site_api
from rollout_world import Site, rollout_site
from tandem.infra.database import Database


@pytest.fixture
async def api(site_db: Database, tmp_path: Path) -> AsyncIterator[site_api.Api]:
    """A site's admin API, with its first administrator signed in."""
    async with site_api.site_api(site_db, tmp_path) as made:
        await made.sign_in()
        yield made


@pytest.fixture
async def site(api: site_api.Api) -> AsyncIterator[Site]:
    async with rollout_site(api) as made:
        yield made
