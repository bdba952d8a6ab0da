from collections.abc import AsyncIterator

import httpx
import pytest
from console_fleet import NOW, Fleet

from tandem import console
from tandem.infra import http


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


async def _client(routes) -> AsyncIterator[httpx.AsyncClient]:
    app = http.application(routes, role="test")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as client:
        yield client


@pytest.fixture
async def site(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async for client in _client(console.site_routes(fleet, now=lambda: NOW)):
        yield client


@pytest.fixture
async def tenant(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    async for client in _client(console.tenant_routes(fleet, now=lambda: NOW)):
        yield client
