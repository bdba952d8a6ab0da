"""Finding things of every kind by how they begin, each kind by its index and only so many."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.site import administrators, cloud_services, collections, fleet
from tandem.site.administrators import Administrator

# A tenant that is slow must not make the search slow.
_TENANT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Found:
    kind: str  # device, user, collection, gateway or app.
    id: str
    title: str
    detail: str = ""


async def _none(tx: Tx) -> Sequence[tuple[str, str]]:
    return ()


async def _no_apps(text: str, limit: int) -> Sequence[Mapping[str, Any]]:
    return ()


@dataclass(frozen=True)
class Collaborators:
    """What the cloud's modules know: gateways with their state, and the tenant's apps whose name
    begins so, which raises when the tenant cannot be asked."""

    gateways: Callable[[Tx], Awaitable[Sequence[tuple[str, str]]]] = _none
    apps: Callable[[str, int], Awaitable[Sequence[Mapping[str, Any]]]] = _no_apps

    @classmethod
    def of(cls, db: Database, cloud: cloud_services.CloudServices) -> "Collaborators":
        async def gateways(tx: Tx) -> Sequence[tuple[str, str]]:
            found = await cloud.gateways.gateways(tx)
            return [(item.service_name, item.state.value) for item in found]

        async def apps(text: str, limit: int) -> Sequence[Mapping[str, Any]]:
            async with db.transaction() as tx:
                services = await cloud.tenants.services(tx)
                if not services:
                    return ()
                graph = await cloud.tenants.graph(tx, services[0])
            wanted = quote(text.replace("'", "''"), safe="")
            path = f"/deviceAppManagement/mobileApps?$filter=startswith(displayName,'{wanted}')"
            found = await graph.get(f"{path}&$select=id,displayName,publisher&$top={limit}")
            items: Sequence[Mapping[str, Any]] = found["value"]
            return items

        return cls(gateways, apps)


async def search(
    db: Database, others: Collaborators, who: Administrator, text: str, limit: int
) -> tuple[list[Found], list[str]]:
    """What was found of what an administrator may see, kind by kind, and why something could not be
    asked. Apps are the whole tenant's: who is limited does not find them."""
    everything = who.over_all
    asking = asyncio.create_task(_apps(others, text, limit) if everything else _nothing())
    try:
        async with db.transaction() as tx:
            found = [
                *await _devices(tx, text, limit),
                *await _users(tx, text, limit),
                *await _collections(tx, text, limit),
                *await _gateways(tx, others, who, text, limit),
            ]
        apps, missing = await asking
    finally:
        asking.cancel()
    return found + apps, missing


async def _devices(tx: Tx, text: str, limit: int) -> list[Found]:
    # A star would ask for what is in a name anywhere, which no index answers.
    wanted = fleet.Filter(search=text.lstrip("*"))
    if not wanted.search:
        return []
    found = await fleet.listing(tx, wanted, limit=limit, counted=False)
    return [Found("device", item.id, item.name, item.user) for item in found.devices]


async def _users(tx: Tx, text: str, limit: int) -> list[Found]:
    found = await collections.users(tx, limit, search=text)
    return [Found("user", item.upn, item.name or item.upn, item.upn) for item in found]


async def _collections(tx: Tx, text: str, limit: int) -> list[Found]:
    found, _ = await collections.listed(tx, text, ("name", False), limit, 0, counted=False)
    return [Found("collection", row["id"], row["name"], row["id"]) for row in found]


async def _gateways(
    tx: Tx, others: Collaborators, who: Administrator, text: str, limit: int
) -> list[Found]:
    every = await others.gateways(tx)
    seen = await administrators.visible(tx, who, "gateway", [name for name, _ in every])
    found = [
        Found("gateway", name, name, state)
        for name, state in every
        if name in seen and text.casefold() in name.casefold()
    ]
    return found[:limit]


async def _nothing() -> tuple[list[Found], list[str]]:
    return [], []


async def _apps(others: Collaborators, text: str, limit: int) -> tuple[list[Found], list[str]]:
    try:
        async with asyncio.timeout(_TENANT_SECONDS):
            found = await others.apps(text, limit)
    except AppError as error:
        return [], [f"{error.message} {error.cure}".strip()]
    except TimeoutError:
        return [], ["The tenant did not answer in time, so its apps are not searched."]
    return [
        Found(
            "app",
            str(item.get("id") or ""),
            str(item.get("displayName") or ""),
            str(item.get("publisher") or ""),
        )
        for item in found
    ], []
