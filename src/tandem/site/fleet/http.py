"""Devices and the dashboard, of the admin API."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.errors import AppError, Invalid
from tandem.site import collections, comanagement, deployments, settings, software_updates
from tandem.site.administrators import Require
from tandem.site.collections import as_dict
from tandem.site.fleet import graph, model, resultant, service, stories
from tandem.site.fleet.model import BadFilter, Device, Filter, Reading, Sort
from tandem.site.fleet.resultant import Resultant
from tandem.site.fleet.service import Collaborators, Detail, Proof, Reach, Selection
from tandem.workloads import Authority, Workload, effective, owners

_MOST_ROWS = 1000


class _Asked(msgspec.Struct, frozen=True):
    """What of a list's query is not its filter."""

    sort: Sort = Sort.NAME
    descending: bool = False
    limit: int = 50
    offset: int = 0
    after: str = ""
    counted: bool = True


class _Acknowledgement(msgspec.Struct, frozen=True):
    """`seen` is how many findings there were when somebody looked."""

    reason: str
    seen: int


class _ToCollection(Selection, frozen=True):
    collection: str = ""


def routes(
    db: Database,
    others: Collaborators,
    require: Require,
    now: Clock,
    approval_above: int = 100,
) -> list[BaseRoute]:
    uses = (
        settings.used_for,
        deployments.used_for,
        comanagement.used_for,
        software_updates.used_for,
    )
    guard = collections.Guard(uses, approval_above)

    async def listed(request: Request) -> Response:
        await require(request)
        wanted, asked = read_query(request.query_params)
        async with db.transaction() as tx:
            reading = await service.look(tx, now())
            part = await service.listing(
                tx,
                wanted,
                sort=asked.sort,
                descending=asked.descending,
                limit=asked.limit,
                offset=asked.offset,
                after=asked.after,
                counted=asked.counted,
            )
        return http.reply(
            {
                "devices": [shape(device) for device in part.devices],
                "total": part.total,
                "after": part.after,
                "tenant": _told(reading),
            }
        )

    async def shown(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            reading = await service.look(tx, now())
            found = await service.detail(tx, _text(request.path_params["id"]))
        happened, silent = await _happened(others, found.device.mdm_id)
        return http.reply(
            {
                **_detail(found),
                "tenant_timeline": as_dict(happened),
                "tenant": _told(reading),
                "without_timeline": silent,
            }
        )

    async def timeline(request: Request) -> Response:
        """One story for each cause; `?trace=` only that one."""
        await require(request)
        wanted = _text(request.query_params.get("trace", ""))
        async with db.transaction() as tx:
            reading = await service.look(tx, now())
            device, told = await service.recorded(tx, _text(request.path_params["id"]))
        told, silence = await _with_mdm(others, device, told)
        found = [one for one in stories.stories(told) if wanted in ("", one.trace)]
        return http.reply(
            {
                "device": {"id": device.id, "name": device.name},
                "stories": [_story(one) for one in found],
                "tenant": _told(reading),
                "without_timeline": silence,
            }
        )

    async def of_both(request: Request) -> Response:
        """The settings of a device over both authorities: in force, whose, and who lost."""
        await require(request)
        async with db.transaction() as tx:
            reading = await service.look(tx, now())
            known = await service.known_settings(tx, _text(request.path_params["id"]))
        offered, silence = await _offered(others, known.device.mdm_id)
        found = resultant.resultants(
            known.applied,
            known.deployed,
            offered,
            known.written,
            known.owners,
            failed=known.failed,
            hidden=known.hidden,
            of_user=known.of_user,
            user=known.user,
        )
        return http.reply(
            {
                "device": {"id": known.device.id, "name": known.device.name},
                "user": known.user,
                "settings": [_resultant(one) for one in found],
                "tenant": _told(reading),
                "without_tenant": silence,
            }
        )

    async def ledger(request: Request) -> Response:
        """Whether a device's ledger proves what it is for; `?check=true` checks all of it again."""
        await require(request)
        async with db.transaction() as tx:
            await service.look(tx, now())
            found = await service.ledger(
                tx,
                _text(request.path_params["id"]),
                check=request.query_params.get("check") == "true",
            )
        return http.reply(_ledger(found))

    async def acknowledge(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, _Acknowledgement)
        async with db.transaction() as tx:
            await service.look(tx, now())
            found = await service.acknowledge(
                tx,
                _text(request.path_params["id"]),
                seen=wanted.seen,
                reason=wanted.reason,
                actor=who.name,
                now=now(),
            )
        return http.reply(_ledger(found))

    async def dashboard(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            reading = await service.look(tx, now())
            return http.reply(as_dict(await service.figures(tx, reading)))

    async def selection(request: Request) -> Response:
        """What an action would touch. It changes nothing."""
        await require(request)
        wanted = await http.decode(request, Selection)
        _check(wanted)
        async with db.transaction() as tx:
            return http.reply(_reach(await service.reach(tx, wanted)))

    async def block(request: Request) -> Response:
        return await _set_blocked(request, True)

    async def unblock(request: Request) -> Response:
        return await _set_blocked(request, False)

    async def _set_blocked(request: Request, blocked: bool) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Selection)
        _check(wanted)
        async with db.transaction() as tx:
            found, changed = await service.set_blocked(
                tx, wanted, blocked, actor=who.name, now=now()
            )
        return http.reply({**_reach(found), "changed": changed})

    async def to_collection(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, _ToCollection)
        _check(wanted)
        if not wanted.collection:
            raise Invalid("No collection is named.", field="collection")
        named = _text(wanted.collection)
        async with db.transaction() as tx, collections.guarded(tx, named, guard):
            found, added = await service.add_to_collection(
                tx, wanted, named, actor=who.name, now=now()
            )
        return http.reply({**_reach(found), "changed": added})

    base = "/api/v1/devices"
    return [
        Route(base, listed, methods=["GET"]),
        Route(f"{base}/selection", selection, methods=["POST"]),
        Route(f"{base}/block", block, methods=["POST"]),
        Route(f"{base}/unblock", unblock, methods=["POST"]),
        Route(f"{base}/add-to-collection", to_collection, methods=["POST"]),
        Route(f"{base}/{{id}}", shown, methods=["GET"]),
        Route(f"{base}/{{id}}/ledger", ledger, methods=["GET"]),
        Route(f"{base}/{{id}}/settings", of_both, methods=["GET"]),
        Route(f"{base}/{{id}}/ledger/acknowledge", acknowledge, methods=["POST"]),
        Route(f"{base}/{{id}}/timeline", timeline, methods=["GET"]),
        Route("/api/v1/comanagement/dashboard", dashboard, methods=["GET"]),
    ]


def read_query(query: Mapping[str, str]) -> tuple[Filter, _Asked]:
    """A list's filter, and what part of it is asked for. Raises BadFilter."""
    given = {name: value for name, value in query.items() if value != ""}
    parts = set(_Asked.__struct_fields__)
    filters = {name: value for name, value in given.items() if name not in parts}
    try:
        wanted = msgspec.convert(filters, Filter, strict=False)
        asked = msgspec.convert(
            {name: value for name, value in given.items() if name in parts}, _Asked, strict=False
        )
    except msgspec.ValidationError as error:
        raise BadFilter(
            f"The list cannot be filtered like this: {error}.",
            cure="`tandem device list --help` names what can be asked.",
        ) from None
    if not 1 <= asked.limit <= _MOST_ROWS or not 0 <= asked.offset < 10**9:
        raise BadFilter(f"limit is from 1 to {_MOST_ROWS}, offset 0 or more.", field="limit")
    _bounded(wanted)
    _text(asked.after)
    return wanted, asked


def _check(wanted: Selection) -> None:
    if wanted.filter is not None:
        _bounded(wanted.filter)
    for device in wanted.devices:
        _text(device)


def _bounded(wanted: Filter) -> None:
    if len(wanted.search) > 256 or "\0" in wanted.search:
        raise BadFilter("A search has at most 256 characters.", field="search")
    if wanted.error is not None and not 0 <= wanted.error < 2**32:
        raise BadFilter("An error code is a number of 32 bits.", field="error")


def _text(value: str) -> str:
    if "\0" in value:
        raise Invalid("A NUL character is in no name and no id.")
    return value


def shape(device: Device) -> dict[str, Any]:
    reached = model.last_stage(device)
    return {
        **as_dict(device),
        "co_managed": device.co_managed,
        "management": device.management.value,
        "stage": reached.value if reached else None,
    }


def _told(reading: Reading) -> dict[str, Any]:
    return {"read_at": reading.read_at, "silence": service.silence(reading)}


def _reach(found: Reach) -> dict[str, Any]:
    return {
        "devices": found.devices,
        "names": found.names,
        "clients": len(found.clients),
        "without_client": found.devices - len(found.clients),
        "blocked": found.blocked,
    }


def _detail(found: Detail) -> dict[str, Any]:
    device = found.device
    reported = owners(effective(device.flags, device.mdm_enrolled))
    decided = found.decided if found.decided is not None and device.mdm_enrolled else {}
    return {
        "device": {
            **shape(device),
            "stages": [s.value for s in model.Stage if s in model.stages(device)],
        },
        "directory": as_dict(found.tenant.directory) if found.tenant.directory else None,
        "mdm": as_dict(found.tenant.mdm) if found.tenant.mdm else None,
        "client": as_dict(found.client) if found.client else None,
        "resource_id": found.resource_id,
        "owners": [
            {
                "workload": workload.value,
                "reported": reported[workload].value,
                "decided": decided.get(workload, Authority.SITE).value,
            }
            for workload in Workload
        ],
        "decided_known": found.decided is not None,
        "settings": found.settings,
        "settings_from": found.settings_from,
        "policies": found.policies,
        "configurations": found.configurations,
        "collections": found.collections,
        "timeline": as_dict(found.timeline),
    }


def _ledger(proof: Proof) -> dict[str, Any]:
    found, account = proof.ledger, proof.ledger.account
    return {
        "device": {"id": proof.device.id, "name": proof.device.name},
        "holds": not any(one.breaks for one in proof.findings),
        "checked": proof.checked,
        "findings": [
            {
                "flaw": one.flaw.value,
                "breaks": one.flaw.breaks,
                "number": one.number,
                "text": one.text,
                "acknowledged_at": one.acknowledged_at,
                "acknowledged_by": one.acknowledged_by,
                "reason": one.reason,
            }
            for one in proof.findings
        ],
        # What a check found only now is not kept, and cannot be acknowledged.
        "findings_kept": len(found.findings),
        "entries_total": account.number,
        "kept_from": found.kept_from,
        "digest": account.digest,
        "began_at": found.began_at,
        "received_at": found.received_at,
        "key": {"thumbprint": found.thumbprint, "jwk": found.key},
        "other_ledgers": found.others,
        "owners": [
            {"workload": workload.value, **as_dict(account.owners[workload.value])}
            for workload in Workload
            if workload.value in account.owners
        ],
        "settings": [
            {"setting": setting, **as_dict(written)}
            for setting, written in sorted(account.settings.items())
        ],
        "entries": [
            {
                **one.said,
                "number": one.number,
                "digest": one.digest,
                "received_at": one.received_at,
                "text": one.text,
            }
            for one in proof.entries
        ],
    }


def _resultant(one: Resultant) -> dict[str, Any]:
    return {
        "setting": one.setting,
        "workload": one.workload.value,
        "owner": one.owner.value,
        "state": one.state.value,
        "value": one.value,
        "source": one.source.value if one.source else None,
        "user": one.user,
        "written_by": one.written_by.value if one.written_by else None,
        "written_at": one.written_at,
        "entry": one.entry or None,
        "contenders": [
            {
                "authority": item.authority.value,
                "name": item.name,
                "value": item.value,
                "role": item.role.value,
                "why": item.why,
                "user": item.user,
            }
            for item in one.contenders
        ],
    }


async def _offered(others: Collaborators, mdm_id: str) -> tuple[list[graph.Offered], str]:
    """What the tenant has for a device, and why that is missing when it is."""
    if not mdm_id:
        return [], ""
    try:
        return await graph.offered(await others.graph(), mdm_id), ""
    except AppError as error:
        return [], error.message


def _story(found: stories.Story) -> dict[str, Any]:
    return {**as_dict(found), "waiting": bool(found.gaps) and found.state == "under way"}


async def _with_mdm(
    others: Collaborators, device: Device, told: stories.Told
) -> tuple[stories.Told, str]:
    """With what the MDM service recorded, and why that is missing when it is."""
    if not device.mdm_id:
        return replace(told, happened=()), ""
    try:
        tenant = await others.graph()
        happened = await graph.timeline(tenant, device.mdm_id)
        pending = await graph.pending(tenant, device.mdm_id)
    except AppError as error:
        return told, error.message
    return replace(told, happened=happened, pending=pending), ""


async def _happened(others: Collaborators, mdm_id: str) -> tuple[list[graph.Happening], str]:
    """The MDM service's own timeline of a device, and why it is missing when it is."""
    if not mdm_id:
        return [], ""
    try:
        return await graph.timeline(await others.graph(), mdm_id), ""
    except AppError as error:
        return [], error.message
