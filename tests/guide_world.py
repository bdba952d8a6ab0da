"""A site with its guide, beside its real tenant."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import site_world
import tenant_world
from site_api import CHEAP
from tandem.infra.clock import utc_now
from tandem.infra.database import Database
from tandem.site import (
    administrators,
    clients,
    collections,
    comanagement,
    deployments,
    fleet,
    guide,
    properties,
    settings,
)


@dataclass
class Guided:
    """A site beside its real tenant, and the admin API that the guide is a part of."""

    site: site_world.Site
    tenant: tenant_world.World
    web: httpx.AsyncClient

    async def steps(self) -> dict[str, dict[str, Any]]:
        answer = await self.web.get("/api/v1/guide")
        assert answer.status_code == 200, answer.text
        return {step["id"]: step for part in answer.json()["parts"] for step in part["steps"]}

    async def do(self, id: str) -> None:
        """What the guide offers for a step."""
        way = (await self.steps())[id]["do"]
        answer = await self.web.request(way["method"], way["path"], json=way["body"])
        assert answer.status_code < 300, answer.text

    async def story(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.web.get("/api/v1/guide/story")).json()
        return found


@pytest.fixture
async def guided(site_db: Database, tenant_db: Database, tmp_path: Path) -> AsyncIterator[Guided]:
    (tmp_path / "tenant").mkdir()
    often = {"device_code_interval_seconds": 1}
    async with tenant_world.live(tenant_db, tmp_path / "tenant", often) as (world, root):
        base = world.tokens.settings.base
        async with site_world.site(site_db, tmp_path, base, root) as site:
            app = application(site)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="https://site.test") as web:
                given = {"name": "siteadmin", "password": site_world.PASSWORD}
                token = (await web.post("/api/v1/sign-in", json=given)).json()["token"]
                web.headers["Authorization"] = f"Bearer {token}"
                yield Guided(site, world, web)


def application(site: site_world.Site) -> Any:
    """The site's own, with what the guide asks for besides."""
    cloud, db = site.cloud, site.db
    gate = administrators.Gate(db, utc_now, CHEAP)

    async def graph() -> fleet.Graph:
        async with db.transaction() as tx:
            return await cloud.tenants.graph(tx, await cloud.tenants.service(tx))

    others = comanagement.Collaborators(
        cloud.connections.gateway_host,
        cloud.tenants.tenant_id,
        cloud.tenants.check_mdm_authority,
        cloud.sign_ins.token,
    )
    mine = guide.Collaborators(cloud, site.discovery, others)
    site.app.router.routes[:0] = [
        *properties.routes(db, gate),
        *collections.routes(db, gate, utc_now, (deployments.used_for, comanagement.used_for)),
        *settings.routes(db, gate, utc_now),
        *deployments.routes(db, gate, utc_now),
        *clients.admin_routes(db, require=gate, now=utc_now),
        *comanagement.routes(db, others, gate, utc_now),
        *fleet.routes(db, fleet.Collaborators(cloud.tenants.tenant_id, graph), gate, utc_now),
        *guide.routes(db, mine, gate, utc_now),
    ]
    return site.app
