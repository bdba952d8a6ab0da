"""Roll-outs of the admin API."""

from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import Invalid
from tandem.site.administrators import Require, Role
from tandem.site.approvals import Safeguards
from tandem.site.comanagement import rollout_model as model
from tandem.site.comanagement import rollout_store as rows
from tandem.site.comanagement import rollouts
from tandem.site.comanagement.model import read_workload
from tandem.site.comanagement.rollout_model import (
    Gate,
    Member,
    RingWish,
    Rollout,
    Standing,
    State,
)

_URL = "/api/v1/comanagement/rollouts"
_FULL = Role.FULL_ADMINISTRATOR


class NewRing(msgspec.Struct, forbid_unknown_fields=True):
    """Minutes and percents that are left out are the usual ones of `Gate`."""

    collection: str
    minutes: float = Gate().minutes
    soak_minutes: float = Gate().soak_minutes
    done_percent: float = Gate().done_percent
    failed_percent: float = Gate().failed_percent


class NewRollout(msgspec.Struct, forbid_unknown_fields=True):
    """`automatic_back`: a failed gate also switches back. `offline_minutes`: after how long without
    a word a device counts as offline; left out: the policy poll and a state cycle."""

    workload: str
    rings: list[NewRing]
    automatic_back: bool = False
    second_approval: bool = False
    offline_minutes: float | None = None
    # Why, for a second administrator who may have to approve it.
    reason: str = ""


class Back(msgspec.Struct, forbid_unknown_fields=True):
    """`ring`: it and those before it keep what they have; 0 for none."""

    ring: int = 0


class Analyse(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = ""


class Approve(msgspec.Struct, forbid_unknown_fields=True):
    """As the roll-out was shown: how many devices it moves, and its `seen`."""

    devices: int | None = None
    seen: str = ""


class Start(msgspec.Struct, forbid_unknown_fields=True):
    """`confirm`: how many devices, where their number has to be typed."""

    confirm: int | None = None
    accept_gaps: bool = False


def routes(
    db: Database, require: Require, now: Clock, guards: Safeguards = Safeguards()
) -> list[BaseRoute]:
    async def listed(request: Request) -> Response:
        await require(request)
        part = http.listing(request, ("created_at",), limit=50)
        async with db.transaction() as tx:
            found = await rows.rollouts(tx, part.limit, part.offset)
            items = [_brief(item, guards) for item in found]
            value = {"items": items, "total": await rows.how_many(tx)}
        return http.reply(value)

    async def plan(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, NewRollout)
        async with db.transaction() as tx:
            made = await rollouts.plan(
                tx,
                read_workload(wanted.workload),
                [
                    RingWish(
                        one.collection,
                        Gate(one.minutes, one.soak_minutes, one.done_percent, one.failed_percent),
                    )
                    for one in wanted.rings
                ],
                automatic_back=wanted.automatic_back,
                second_approval=wanted.second_approval,
                offline_minutes=wanted.offline_minutes,
                reason=wanted.reason,
                guards=guards,
                actor=who.name,
                now=now(),
            )
            value = await _shape(tx, made, guards, now())
        return http.reply(value, 201, {"Location": f"{_URL}/{made.id}"})

    async def show(request: Request) -> Response:
        """`?offline_days=`: how many devices were not heard of for so long, of a plan."""
        await require(request)
        days = _days(request.query_params.get("offline_days", ""))
        async with db.transaction() as tx:
            found = await rollouts.find(tx, _id(request))
            return http.reply(await _shape(tx, found, guards, now(), days))

    async def devices(request: Request) -> Response:
        await require(request)
        part = http.listing(request, ("name",))
        standing = request.query_params.get("standing", "")
        if standing and standing not in {item.value for item in Standing}:
            names = ", ".join(item.value for item in Standing)
            raise Invalid(f"{standing[:64]!r} is not one of: {names}.", field="standing")
        gap = http.number_of(request, "gap", 0) if "gap" in request.query_params else None
        async with db.transaction() as tx:
            rollout = await rollouts.find(tx, _id(request))
            found, total = await rows.some_members(
                tx,
                rollout.id,
                standing,
                http.number_of(request, "ring", 0),
                gap,
                part.limit,
                part.offset,
            )
        items = [_device(rollout, one) for one in found]
        return http.reply({"items": items, "total": total})

    async def start(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Start)
        async with db.transaction() as tx:
            found = await rollouts.start(
                tx,
                _id(request),
                confirm=wanted.confirm,
                accept_gaps=wanted.accept_gaps,
                guards=guards,
                actor=who.name,
                now=now(),
            )
            return http.reply(await _shape(tx, found, guards, now()))

    async def analyse(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Analyse)
        async with db.transaction() as tx:
            found = await rollouts.analyse(
                tx, _id(request), reason=wanted.reason, guards=guards, actor=who.name, now=now()
            )
            return http.reply(await _shape(tx, found, guards, now()))

    async def approve(request: Request) -> Response:
        who = await require(request)
        known = await http.decode(request, Approve)
        async with db.transaction() as tx:
            found = await rollouts.approve(
                tx,
                _id(request),
                devices=known.devices,
                shown=known.seen,
                guards=guards,
                actor=who.name,
                now=now(),
            )
            return http.reply(await _shape(tx, found, guards, now()))

    async def back(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Back)
        async with db.transaction() as tx:
            found = await rollouts.back(
                tx, _id(request), ring=wanted.ring, actor=who.name, now=now()
            )
            return http.reply(await _shape(tx, found, guards, now()))

    def action(change: Any) -> Any:
        async def act(request: Request) -> Response:
            who = await require(request)
            async with db.transaction() as tx:
                found = await change(tx, _id(request), actor=who.name, now=now())
                return http.reply(await _shape(tx, found, guards, now()))

        return act

    return [
        Route(_URL, listed, methods=["GET"]),
        Route(_URL, plan, methods=["POST"]),
        Route(f"{_URL}/{{id}}", show, methods=["GET"]),
        Route(f"{_URL}/{{id}}/devices", devices, methods=["GET"]),
        Route(f"{_URL}/{{id}}/analyse", analyse, methods=["POST"]),
        Route(f"{_URL}/{{id}}/approve", approve, methods=["POST"]),
        Route(f"{_URL}/{{id}}/start", start, methods=["POST"]),
        Route(f"{_URL}/{{id}}/back", back, methods=["POST"]),
        *(
            Route(f"{_URL}/{{id}}/{name}", action(change), methods=["POST"])
            for name, change in (
                ("pause", rollouts.pause),
                ("resume", rollouts.resume),
                ("cancel", rollouts.cancel),
            )
        ),
    ]


def _id(request: Request) -> str:
    return str(request.path_params["id"])[:64]


def _days(text: str) -> float:
    if not text:
        return rollouts.OFFLINE_DAYS
    if not (text.isascii() and text.isdigit() and 0 < int(text[:5]) <= 3650):
        raise Invalid("offline_days is a number of days from 1 to 3650.", field="offline_days")
    return int(text[:5])


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, builtin_types=())


def _brief(rollout: Rollout, guards: Safeguards) -> dict[str, Any]:
    """A roll-out in a list. `counts` are of all its rings. `needs_approval`: a second administrator
    has to agree, and has not."""
    told = {
        name: value
        for name, value in _plain(rollout).items()
        if name not in ("gaps", "before", "rings")
    }
    return {
        **told,
        "title": rollout.workload.title,
        "reaches_far": rollouts.reaches_two(rollout, guards),
        "needs_approval": rollouts.needs_approval(rollout, guards),
        "expires_at": rollouts.expires_at(rollout, guards)
        if rollouts.needs_approval(rollout, guards)
        else None,
        "rings": [_plain(ring) for ring in rollout.rings],
        "counts": {
            item.value: sum(getattr(ring.counts, item.value) for ring in rollout.rings)
            for item in Standing
        },
    }


async def _shape(
    tx: Tx,
    rollout: Rollout,
    guards: Safeguards,
    now: datetime,
    days: float = rollouts.OFFLINE_DAYS,
) -> dict[str, Any]:
    analysed, devices = await rows.analysed(tx, rollout.id)
    concerned = await rows.gap_counts(tx, rollout.id)
    gaps = [
        {**_plain(gap), "number": number, "devices": count, "names": names}
        for number, gap in enumerate(rollout.gaps)
        for count, names in [concerned.get(number, (0, []))]
        if count
    ]
    before = rollout.before
    reach = None
    if rollout.state is State.PLANNED:
        reach = _plain(await rollouts.reach(tx, rollout, days, now))
        reach["offline"] = [{"days": many, "devices": n} for many, n in reach["offline"]]
    return {
        **_brief(rollout, guards),
        "seen": await rollouts.seen(tx, rollout) if rollout.state is State.PLANNED else "",
        "reach": reach,
        "devices": devices,
        "analysed": analysed,
        "gaps": gaps,
        "not_known": model.not_known(rollout.workload),
        "moves_along": [item.value for item in rollout.workload.moves_along],
        "needs_confirmation": rollouts.reaches_far(rollout, devices),
        "before": {"position": before[0].value, "collection_id": before[1]} if before else None,
        "history": [
            {"at": one.at, "actor": one.actor, "action": one.action, "details": one.details}
            for one in await rollouts.history(tx, rollout.id)
        ],
    }


def _device(rollout: Rollout, one: Member) -> dict[str, Any]:
    return {
        "client_id": one.client_id,
        "device_id": one.device_id,
        "name": one.name,
        "ring": one.place,
        "standing": one.standing.value,
        "cause": _plain(one.cause),
        "at": one.at,
        "compliance": one.compliance,
        "gaps": [
            _plain(rollout.gaps[number]) for number in one.gaps or () if number < len(rollout.gaps)
        ],
    }
