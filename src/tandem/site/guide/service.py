"""Gather what is known of each step from the site's modules and, over Graph, from the tenant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.site import (
    clients,
    cloud_services,
    collections,
    comanagement,
    discovery,
    fleet,
    properties,
    settings,
)
from tandem.site.cloud_services import ConsentMissing
from tandem.site.guide import story
from tandem.site.guide.findings import FINDINGS, PLANS, Facts, Tenant, may_do
from tandem.site.guide.model import STEPS, Happened, Standing, State
from tandem.workloads import Position

# What is asked for the story: enough for a day of work, little enough for one page.
_ENTRIES = 200
_MOST_APPS = 20


@dataclass(frozen=True)
class Collaborators:
    """The modules that own what the steps are about, made in `roles/`."""

    cloud: cloud_services.CloudServices
    discovery: discovery.Discovery
    comanagement: comanagement.Collaborators


async def standings(tx: Tx, others: Collaborators, now: datetime) -> list[Standing]:
    """Every step with where it stands now, in the tutorial's order."""
    known = await facts(tx, others, now)
    found = []
    for id, step in STEPS.items():
        finding = FINDINGS[id](known)
        open_ = finding.state in (State.NOT_YET, State.PARTLY)
        again = id == "2.6" and finding.state is State.DONE
        do = step.do if (open_ or again) and may_do(id, known) else None
        found.append(Standing(step, finding, do))
    return found


async def facts(tx: Tx, others: Collaborators, now: datetime) -> Facts:
    values: dict[str, Any] = {}
    values |= await _of_site(tx)
    values |= await _of_connection(tx, others)
    values |= await _of_gateway(tx, others.cloud)
    values |= await _of_comanagement(tx, others.comanagement)
    return Facts(**values, tenant=await _of_tenant(tx, others, now))


async def _of_site(tx: Tx) -> dict[str, Any]:
    done = await audit.entries(tx, limit=_ENTRIES)
    return {
        "enhanced_http": await properties.enhanced_http(tx),
        "settings": await settings.default(tx),
        "exported": sum(entry.action == "certificate.export" for entry in done),
    }


async def _of_connection(tx: Tx, others: Collaborators) -> dict[str, Any]:
    values: dict[str, Any] = {}
    services = await others.cloud.tenants.services(tx)
    if services:
        first = services[0]
        apps = {app.kind: app for app in await others.cloud.tenants.apps(tx, first.id)}
        values = {
            "service": first.name,
            "server_app": apps["server"].name if "server" in apps else "",
            "client_app": apps["client"].name if "client" in apps else "",
            "discovery_enabled": first.discovery_enabled,
        }
    runs = await others.discovery.runs(tx, 1)
    if runs:
        values |= {
            "run_state": runs[0].state,
            "run_users": runs[0].users,
            "run_reason": runs[0].reason,
        }
    return values


async def _of_gateway(tx: Tx, cloud: cloud_services.CloudServices) -> dict[str, Any]:
    held = await cloud_services.certificate_requests(tx)
    values: dict[str, Any] = {
        "requests": len(held),
        "complete": sum(item.state == "complete" for item in held),
        "traffic": await cloud.connections.allowed(tx),
    }
    gateways = await cloud.gateways.gateways(tx)
    if gateways:
        first = gateways[0]
        values |= {
            "gateway": first.service_name,
            "gateway_state": first.state.value,
            "gateway_reason": first.reason,
        }
        values |= await _of_dns(tx, cloud, first.service_name)
    points = await cloud.connections.connection_points(tx)
    values["points"] = len(points)
    values["connected"] = sum([await cloud.connections.connected(tx, item) for item in points])
    return values


async def _of_dns(tx: Tx, cloud: cloud_services.CloudServices, name: str) -> dict[str, Any]:
    try:
        found = await cloud.gateways.check_dns(tx, name)
    except AppError as error:
        return {"dns_ok": None, "dns_problem": error.message}
    return {
        "dns_ok": found["ok"],
        "dns_problem": found["problem"],
        "dns_record": found["record"],
    }


async def _of_comanagement(tx: Tx, others: comanagement.Collaborators) -> dict[str, Any]:
    enabled = await comanagement.enablement(tx)
    sliders = (await comanagement.sliders(tx)).values()
    deployed = await comanagement.deployed(tx)
    status = await comanagement.status(tx)
    missing = [item for item in await comanagement.prerequisites(tx, others) if not item.ok]
    under_way = [move for move in status.moves if not move.done]
    production = next((item for item in deployed if item.policy.kind == "production"), None)
    return {
        "enabled": enabled.auto_enroll.value if enabled else "",
        "missing": missing[0].text if missing else "",
        "moved": sum(slider.position is Position.MDM for slider in sliders),
        "switched": any(slider.changed_at is not None for slider in sliders),
        "piloted": sum(slider.position is Position.PILOT for slider in sliders),
        "policies": len(deployed),
        "applied": production.applied if production else 0,
        "policy_members": production.members if production else 0,
        "line": "" if missing else await comanagement.command_line_now(tx, others),
        "clients": status.clients,
        "co_managed": status.co_managed,
        "moving": sum(move.moving for move in under_way),
        "followed": sum(move.followed for move in under_way),
    }


# ---------------------------------------------------------------------- the tenant


async def _of_tenant(tx: Tx, others: Collaborators, now: datetime) -> Tenant:
    """As far as the site's own application may read; each part that it may not is left unknown."""
    try:
        service = await others.cloud.tenants.service(tx)
        graph = await others.cloud.tenants.graph(tx, service)
    except AppError as error:
        return Tenant(without=error.message)
    values: dict[str, Any] = {}
    try:
        values["users"] = bool((await graph.get("/users?$top=1&$select=id"))["value"])
        values["reads"] = True
        values |= await _of_directory(graph)
    except ConsentMissing as error:
        values |= {"without": error.message, "no_consent": error.message}
    except AppError as error:
        values["without"] = error.message
    if values.get("without"):
        return Tenant(**values)
    values |= await _of_apps(graph)
    return Tenant(**values, **await _of_devices(tx, now))


async def _of_directory(graph: cloud_services.Graph) -> dict[str, Any]:
    organization = (await graph.get("/organization"))["value"][0]
    groups = await graph.get("/groups?$top=1&$select=id")
    products = {}
    for item in (await graph.get("/subscribedSkus"))["value"]:
        plans = frozenset(str(plan.get("servicePlanName")) for plan in item["servicePlans"])
        free = int(item["prepaidUnits"]["enabled"]) - int(item["consumedUnits"])
        if plans & set(PLANS):
            products[str(item["skuPartNumber"])] = (free, plans)
    return {
        "domains": tuple(str(item["name"]) for item in organization.get("verifiedDomains") or ()),
        "mdm_authority": str(organization.get("mobileDeviceManagementAuthority") or ""),
        "groups": bool(groups["value"]),
        "products": products,
    }


async def _of_apps(graph: cloud_services.Graph) -> dict[str, Any]:
    """The apps that bring the site's client, by the command line that they carry."""
    try:
        found: dict[str, tuple[int, int, str]] = {}
        for item in await graph.pages("/deviceAppManagement/mobileApps"):
            line = str(item.get("commandLine") or "")
            if "CCMHOSTNAME" in line and len(found) < _MOST_APPS:
                path = f"/deviceAppManagement/mobileApps/{item['id']}/assignments"
                targets = [entry.get("target") or {} for entry in await graph.pages(path)]
                excluded = sum(_excludes(target) for target in targets)
                name = str(item.get("displayName") or item["id"])
                found[name] = (len(targets) - excluded, excluded, line)
    except AppError as error:
        return {"apps": None, "no_apps": error.message}
    return {"apps": found}


def _excludes(target: Mapping[str, Any]) -> bool:
    return "exclusion" in str(target.get("@odata.type", "")).casefold()


async def _of_devices(tx: Tx, now: datetime) -> dict[str, Any]:
    """By the fleet's table, which holds what the tenant said of its devices lately."""
    reading = await fleet.look(tx, now)
    if fleet.silence(reading):
        return {}
    figures = await fleet.figures(tx, reading)
    return {
        "devices_known": True,
        "enrolled": figures.stages[fleet.Stage.ENROLLED.value],
        "unlicensed": figures.unlicensed_users,
        "co_managed": figures.stages[fleet.Stage.CO_MANAGED.value],
    }


# ---------------------------------------------------------------------- the story


async def happened(tx: Tx, limit: int) -> Sequence[Happened]:
    """What administrators did and what devices did then, the newest first."""
    entries = await audit.entries(tx, limit=_ENTRIES)
    news = await clients.milestones(tx)
    names = {str(item.id): item.name for item in await collections.collections(tx)}
    return story.told(entries, news, names)[:limit]
