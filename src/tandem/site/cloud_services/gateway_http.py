"""Gateways of the admin API: what can be made, changed and watched of them."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.database import Tx
from tandem.infra.errors import Invalid
from tandem.site.administrators import Gate
from tandem.site.cloud_services import certificates, contents, traffic, trust
from tandem.site.cloud_services.model import Gateway
from tandem.site.collections import as_dict

if TYPE_CHECKING:
    from tandem.site.cloud_services.http import CloudServices

_FILE_LIMIT = 1_000_000
_MOST_DAYS = 366
# What a change may be of: its version is of these, so becoming Ready is no conflict.
_CHANGEABLE = (
    "description",
    "instances",
    "check_revocation",
    "serve_content",
    "alerts",
    "acme",
    "edge_answers",
    "expires_at",
)


class Check(msgspec.Struct):
    """`certificate` is the id of one in the site's store; `data` a PFX in base64."""

    access_token: str = ""
    tenant_sign_in: str = ""
    data: str = ""
    password: str = ""
    certificate: str = ""
    service_name: str = ""
    environment: str = ""
    region: str = ""
    resource_group: str = ""


class ProviderTest(msgspec.Struct):
    """Of one environment, the first when none is named; of its free hosts, or those of a region."""

    environment: str = ""
    region: str = ""


class Redeployment(msgspec.Struct, forbid_unknown_fields=True):
    """Where to; what is not named stays as it is."""

    environment: str | None = None
    region: str | None = None
    resource_group: str | None = None


class Change(msgspec.Struct, forbid_unknown_fields=True):
    description: str | None = None
    instances: int | None = None
    check_revocation: bool | None = None
    serve_content: bool | None = None
    alerts: dict[str, Any] | None = None
    acme: bool | None = None
    edge_answers: bool | None = None
    data: str = ""
    password: str = ""
    certificate: str = ""


class PointChange(msgspec.Struct):
    """What is left out stays. A password is taken and never told."""

    gateway: str | None = None
    web_proxy: str | None = None
    web_proxy_user: str | None = None
    web_proxy_password: str | None = None


async def pfx_of(
    cloud: "CloudServices", tx: Tx, data: bytes | None, password: str, certificate: str
) -> tuple[bytes | None, str]:
    """The PFX that was uploaded, or one of the site's own store with a password of the moment."""
    if certificate:
        once = secrets.token_urlsafe(24)
        _, made = await certificates.pfx_of(tx, cloud.box, certificate, once)
        return made, once
    return data, password


async def gateway_shape(cloud: "CloudServices", tx: Tx, item: Gateway) -> dict[str, Any]:
    instances = await cloud.gateways.instances(tx, item.service_name)
    points = [
        point.name
        for point in await cloud.connections.connection_points(tx)
        if point.service_name == item.service_name
    ]
    return {
        **as_dict(item),
        "nodes": [as_dict(instance) for instance in instances],
        "connection_points": points,
        "alarms": await alarms_shape(cloud, tx, item),
    }


async def alarms_shape(cloud: "CloudServices", tx: Tx, item: Gateway) -> list[dict[str, Any]]:
    """What is wrong with the revocation lists that this gateway asks."""
    return [
        {
            "name": str(one.alarm),
            "authority": one.authority,
            "at": one.at,
            "text": one.text,
            "cure": one.cure,
        }
        for one in await trust.alarms(tx, item, cloud.now())
    ]


async def contents_shape(tx: Tx, gateway: Gateway) -> dict[str, Any]:
    found, said = await contents.shown(tx, gateway)
    return {
        "service_name": gateway.service_name,
        "serve_content": gateway.serve_content,
        "contents": [
            {
                "sha256": one.content.sha256,
                "name": one.content.name,
                "version": one.content.version,
                "size_bytes": one.content.size_bytes,
                "distribution": one.content.distribution,
                "state": one.state,
                "stored_bytes": one.stored_bytes,
                "instances": one.instances,
                "changed_at": one.content.changed_at,
            }
            for one in found
        ],
        "stores": [
            {
                "instance": one.state.instance,
                "used_bytes": one.state.used_bytes,
                "free_bytes": one.state.free_bytes,
                "full": one.state.full,
                "problem": one.state.problem,
                "reported_at": one.reported_at,
            }
            for one in said
        ],
    }


def version(shape: dict[str, Any]) -> str:
    return http.version_of({name: shape[name] for name in _CHANGEABLE})


def days_of(request: Request) -> int:
    days = http.number_of(request, "days", 14)
    if not 1 <= days <= _MOST_DAYS:
        raise Invalid(f"days is a number from 1 to {_MOST_DAYS}.", field="days")
    return days


@dataclass(frozen=True)
class GatewayApi:
    """`token` finds the tenant's administrator behind a request, `content` reads a file of it."""

    cloud: "CloudServices"
    require: Gate
    token: Callable[..., Awaitable[str]]
    content: Callable[[str], bytes]

    def routes(self) -> list[BaseRoute]:
        one = "/api/v1/gateways/{name}"
        return [
            Route("/api/v1/gateways/check", self.check, methods=["POST"]),
            Route("/api/v1/gateways/provider", self.provider, methods=["GET"]),
            Route("/api/v1/gateways/provider/test", self.test_provider, methods=["POST"]),
            Route(one, self.change, methods=["PATCH"]),
            Route(f"{one}/synchronize", self.synchronize, methods=["POST"]),
            Route(f"{one}/redeploy", self.redeploy, methods=["POST"]),
            Route(f"{one}/alerts", self.alerts, methods=["GET"]),
            Route(f"{one}/content", self.contents, methods=["GET"]),
            Route(f"{one}/content/{{content}}", self.remove_content, methods=["DELETE"]),
            Route(f"{one}/content/{{content}}/redistribute", self.redistribute, methods=["POST"]),
            Route(f"{one}/traffic", self.traffic, methods=["GET"]),
            Route("/api/v1/connection-points/{name}", self.change_point, methods=["PATCH"]),
            Route("/api/v1/trust", self.trust, methods=["GET"]),
        ]

    async def provider(self, request: Request) -> Response:
        """What there is to make a gateway of. The tenant is not asked."""
        await self.require(request)
        async with self.cloud.db.transaction() as tx:
            found = await self.cloud.gateways.check(
                tx,
                tenant_id="",
                pfx=None,
                password="",
                environment=request.query_params.get("environment", ""),
            )
        return http.reply(as_dict(found))

    async def test_provider(self, request: Request) -> Response:
        """Every free host, tried: the wizard's first page is left when each has what it needs."""
        await self.require(request)
        given = await http.decode(request, ProviderTest)
        checks = await self.cloud.gateways.test(given.environment, given.region)
        shape = {"ok": all(item.ok for item in checks), "checks": [as_dict(c) for c in checks]}
        return http.reply(shape, headers={"Cache-Control": "no-store"})

    async def check(self, request: Request) -> Response:
        """What the wizard's "Next" asks: can the provider carry this gateway?"""
        who = await self.require(request)
        given = await http.decode(request, Check, _FILE_LIMIT)
        cloud = self.cloud
        data = self.content(given.data) if given.data else None
        async with cloud.db.transaction() as tx:
            token = await self.token(tx, who, given)
            tenant_id = await cloud.tenants.check_subscription(tx, token)
            pfx, password = await pfx_of(cloud, tx, data, given.password, given.certificate)
            found = await cloud.gateways.check(
                tx,
                tenant_id=tenant_id,
                pfx=pfx,
                password=password,
                service_name=given.service_name,
                environment=given.environment,
            )
            if given.resource_group:
                await cloud.gateways.check_group(
                    tx, given.resource_group, given.region or found.regions[0]
                )
            name = None
            if found.service_name:
                name = await certificates.check_name(
                    tx,
                    found.service_name,
                    deployment_domain=cloud.gateways.settings.gateway.deployment_domain,
                    resolver=cloud.resolver,
                )
        shape = {**as_dict(found), "name_check": as_dict(name) if name else None}
        return http.reply(shape, headers={"Cache-Control": "no-store"})

    async def change(self, request: Request) -> Response:
        who = await self.require(request)
        wanted = await http.decode(request, Change, _FILE_LIMIT)
        cloud, name = self.cloud, _name(request)
        data = self.content(wanted.data) if wanted.data else None
        async with cloud.db.transaction() as tx:
            before = await gateway_shape(cloud, tx, await cloud.gateways.gateway(tx, name))
            http.check_version(request, version(before))
            pfx, password = await pfx_of(cloud, tx, data, wanted.password, wanted.certificate)
            made = await cloud.gateways.change(
                tx,
                name,
                description=wanted.description,
                instances=wanted.instances,
                check_revocation=wanted.check_revocation,
                serve_content=wanted.serve_content,
                alerts=wanted.alerts,
                acme=wanted.acme,
                edge_answers=wanted.edge_answers,
                pfx=pfx,
                password=password,
                actor=who.name,
            )
            shape = await gateway_shape(cloud, tx, made)
        cloud.news.tell()
        return http.reply(shape, headers={"ETag": version(shape)})

    async def synchronize(self, request: Request) -> Response:
        who = await self.require(request)
        cloud = self.cloud
        async with cloud.db.transaction() as tx:
            found = await cloud.gateways.synchronize(tx, _name(request), actor=who.name)
            shape = await gateway_shape(cloud, tx, found)
        cloud.news.tell()
        return http.reply(shape, 202)

    async def redeploy(self, request: Request) -> Response:
        who = await self.require(request)
        wanted = await http.decode(request, Redeployment)
        cloud = self.cloud
        async with cloud.db.transaction() as tx:
            found = await cloud.gateways.redeploy(
                tx,
                _name(request),
                environment=wanted.environment,
                region=wanted.region,
                resource_group=wanted.resource_group,
                actor=who.name,
            )
            shape = await gateway_shape(cloud, tx, found)
        cloud.news.tell()
        return http.reply(shape, 202)

    async def alerts(self, request: Request) -> Response:
        await self.require(request)
        cloud = self.cloud
        async with cloud.db.transaction() as tx:
            found = await cloud.gateways.gateway(tx, _name(request))
            state = await cloud.gateways.alert_state(tx, found)
            alarms = await alarms_shape(cloud, tx, found)
        shape = {"service_name": found.service_name, **found.alerts, **state, "alarms": alarms}
        return http.reply(shape)

    async def traffic(self, request: Request) -> Response:
        """By endpoint, day, hour and connection point, and who is online."""
        await self.require(request)
        days = days_of(request)
        cloud = self.cloud
        async with cloud.db.transaction() as tx:
            found = await cloud.gateways.gateway(tx, _name(request))
            shape = await traffic.shape(tx, found, cloud.now(), days)
        return http.reply(shape)

    async def contents(self, request: Request) -> Response:
        """Per package what is served, and per instance how its store is."""
        await self.require(request)
        async with self.cloud.db.transaction() as tx:
            gateway = await self.cloud.gateways.gateway(tx, _name(request))
            return http.reply(await contents_shape(tx, gateway))

    async def redistribute(self, request: Request) -> Response:
        who = await self.require(request)
        cloud = self.cloud
        async with cloud.db.transaction() as tx:
            gateway = await cloud.gateways.gateway(tx, _name(request))
            await contents.redistribute(
                tx, cloud.box, gateway, _content(request), actor=who.name, now=cloud.now
            )
            shape = await contents_shape(tx, gateway)
        cloud.news.tell()
        return http.reply(shape)

    async def remove_content(self, request: Request) -> Response:
        who = await self.require(request)
        cloud = self.cloud
        async with cloud.db.transaction() as tx:
            gateway = await cloud.gateways.gateway(tx, _name(request))
            await contents.remove(tx, gateway, _content(request), actor=who.name, now=cloud.now)
        cloud.news.tell()
        return Response(status_code=204)

    async def change_point(self, request: Request) -> Response:
        who = await self.require(request)
        wanted = await http.decode(request, PointChange)
        connections = self.cloud.connections
        async with self.cloud.db.transaction() as tx:
            before = await connections.connection_point(tx, _name(request))
            found = before
            if wanted.gateway is not None:
                found = await connections.change_gateway(
                    tx, before.name, wanted.gateway, actor=who.name
                )
            proxy = (wanted.web_proxy, wanted.web_proxy_user, wanted.web_proxy_password)
            if any(part is not None for part in proxy):
                found = await connections.set_web_proxy(tx, before.name, *proxy, actor=who.name)
            served = {point.service_name for point in await connections.connection_points(tx)}
        self.cloud.news.tell()
        # Clients that know only that one are answered by nobody once it is left.
        alone = "" if before.service_name in served else before.service_name
        return http.reply({**as_dict(found), "left_alone": alone})

    async def trust(self, request: Request) -> Response:
        """The roots of clients' certificates, and the revocation lists, that gateways are given."""
        await self.require(request)
        async with self.cloud.db.transaction() as tx:
            found = await trust.trusted(tx)
        sources = [
            {"url": one.url, "fetched_at": one.fetched_at, "reason": one.reason}
            for one in self.cloud.lists.sources
        ]
        return http.reply({**found, "sources": sources})


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    return "" if name == "-" else name


def _content(request: Request) -> str:
    content: str = request.path_params["content"]
    if "\0" in content:
        raise Invalid("A NUL character is in no name.")
    return content
