"""Co-management of the admin API."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Invalid
from tandem.site import collections
from tandem.site.administrators import Administrator, Require
from tandem.site.approvals import Safeguards
from tandem.site.collections import ALL_SYSTEMS, as_dict
from tandem.site.comanagement import approvals, leaving_http, rollout_http, service, steps
from tandem.site.comanagement.model import (
    AutoEnroll,
    NewCollection,
    Settings,
    Slider,
    Step,
    Wish,
    read_workload,
)
from tandem.site.comanagement.model import Request as Waiting
from tandem.site.comanagement.service import Collaborators
from tandem.workloads import (
    CATALOGUE,
    ENROLMENT_ERRORS,
    Authority,
    Entry,
    Position,
    Workload,
    decode,
    owner_of,
    owners,
)


class Switch(msgspec.Struct):
    """`collection` is the pilot's first one; `collections` are all that it is to have."""

    position: str
    collection: str = ""
    collections: list[str] = []
    reason: str = ""

    def wish(self, name: str) -> Wish:
        """Raises Invalid."""
        pilots = tuple(self.collections) or ((self.collection,) if self.collection else ())
        if len(pilots) > _MOST_COLLECTIONS:
            raise Invalid(
                f"A pilot has at most {_MOST_COLLECTIONS} collections.",
                cure="Make one collection that includes the others.",
                field=name,
            )
        return Wish(_read(Position, self.position, name), pilots, bool(self.collections))


class Staging(msgspec.Struct):
    """`pilot`: the collections of every workload at Pilot that names none of its own. `exclusions`:
    those whose devices are kept out of co-management."""

    pilot: list[str] | None = None
    exclusions: list[str] | None = None


class Approval(msgspec.Struct):
    devices: int
    # As the list of what waits has it.
    seen: str


class EnrollNow(msgspec.Struct):
    devices: list[str] = []
    collection: str = ""


class BackTo(msgspec.Struct, forbid_unknown_fields=True):
    step: int


class NewPilot(msgspec.Struct):
    name: str
    query: str = ""
    devices: list[str] = []
    limiting: str = ALL_SYSTEMS
    comment: str = ""


class Configure(msgspec.Struct):
    """By a tenant's administrator: `tenant_sign_in` is a sign-in that was begun at the site,
    `access_token` of one elsewhere, for this one request. Co-management that is enabled needs
    neither. What is not named stays as it is."""

    automatic_enrollment: str = ""
    access_token: str = ""
    tenant_sign_in: str = ""
    collection: str = ""
    workloads: dict[str, Switch] = {}
    new_collections: list[NewPilot] = []
    staging: Staging = msgspec.field(default_factory=Staging)
    spread_minutes: int | None = None
    # For who may have to approve it.
    reason: str = ""

    def settings(self) -> Settings:
        """Raises Invalid, UnknownWorkload."""
        how = self.automatic_enrollment
        return Settings(
            _read(AutoEnroll, how, "automatic_enrollment") if how else None,
            self.collection,
            {read_workload(name): item.wish(name) for name, item in self.workloads.items()},
            tuple(
                NewCollection(n.name, n.query, tuple(n.devices), n.limiting, n.comment)
                for n in self.new_collections
            ),
            _few(self.staging.pilot or (), "pilot"),
            None if (out := self.staging.exclusions) is None else _few(out, "exclusions"),
            self.spread_minutes,
        )


_BODY_LIMIT = 1_000_000
_MOST_COLLECTIONS = 50
_MOST_DEVICES = 10_000
_INTEGER = re.compile(r"[0-9]{1,9}")
_KEY = re.compile(r"[\x21-\x7e]{1,128}")


def routes(
    db: Database,
    others: Collaborators,
    require: Require,
    now: Clock,
    safeguards: Safeguards | None = None,
) -> list[BaseRoute]:
    guards = safeguards or Safeguards()

    async def asked(
        tx: Tx, who: Administrator, wanted: Configure, token: str = ""
    ) -> Response | None:
        """The answer to a change that reaches too far for one administrator; None: it does not."""
        settings = wanted.settings()
        found = await approvals.reaches_far(tx, others, settings, guards, actor=who.name, now=now())
        if found is None:
            return None
        plain = msgspec.structs.replace(wanted, access_token="", tenant_sign_in="", reason="")
        made = await approvals.ask(
            tx,
            others,
            found,
            msgspec.to_builtins(plain),
            access_token=token,
            reason=wanted.reason,
            guards=guards,
            actor=who.name,
            now=now(),
        )
        return http.reply({**_waiting(made), "reaches": found.reaches, "state": "approval"}, 202)

    async def show(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            return await _answer(tx, others)

    async def configure(request: Request) -> Response:
        """Enablement, workloads and pilot collections at once; If-Match and Idempotency-Key."""
        who = await require(request)
        wanted = await http.decode(request, Configure, _BODY_LIMIT)
        settings = wanted.settings()
        key = request.headers.get("idempotency-key", "")
        if key and not _KEY.fullmatch(key):
            raise Invalid("An Idempotency-Key has 1 to 128 visible characters.")
        unsigned = msgspec.structs.replace(wanted, access_token="", tenant_sign_in="")
        plain = msgspec.json.encode([who.name, unsigned])
        digest = sha256(plain).digest()
        async with db.transaction() as tx:
            await service.hold(tx)
            if not (key and await service.applied_before(tx, key, digest)):
                http.check_version(request, await service.version(tx))
                token = wanted.access_token
                if wanted.tenant_sign_in:
                    token = await others.administrator_token(tx, wanted.tenant_sign_in, who.name)
                if (waits := await asked(tx, who, wanted, token)) is not None:
                    return waits
                await service.configure(
                    tx,
                    others,
                    settings,
                    access_token=token,
                    actor=who.name,
                    now=now(),
                )
                if key:
                    await service.note_applied(tx, key, digest, now())
            return await _answer(tx, others)

    async def preview(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Configure, _BODY_LIMIT)
        async with db.transaction() as tx:
            found = await service.preview(tx, others, wanted.settings(), actor=who.name, now=now())
        changes = [{**as_dict(item), "title": item.workload.title} for item in found.changes]
        far = found.reaches > guards.approval_above
        return http.reply({**as_dict(found), "changes": changes, "needs_approval": far})

    async def waiting(request: Request) -> Response:
        """Changes that wait for a second administrator, with whom they would reach by now, or why
        that cannot be done any more."""
        await require(request)
        shown = []
        async with db.transaction() as tx:
            for item in await approvals.waiting(tx, now()):
                settings = msgspec.convert(item.wanted, Configure).settings()
                reaches, seen, problem = 0, "", ""
                try:
                    found = await service.preview(
                        tx, others, settings, actor=item.asked_by, now=now()
                    )
                    reaches, seen = found.reaches, found.seen
                except AppError as error:
                    problem = f"{error.message} {error.cure}".strip()
                told = {"reaches": reaches, "seen": seen, "problem": problem}
                shown.append({**_waiting(item), **told})
        return http.reply(shown)

    async def approve(request: Request) -> Response:
        who = await require(request)
        known = await http.decode(request, Approval)
        async with db.transaction() as tx:
            await service.hold(tx)
            found = await approvals.find(tx, request.path_params["id"], now())
            settings = msgspec.convert(found.wanted, Configure).settings()
            await approvals.approve(
                tx,
                others,
                found,
                settings,
                devices=known.devices,
                seen=known.seen,
                actor=who.name,
                now=now(),
            )
            return await _answer(tx, others)

    async def cancel(request: Request) -> Response:
        who = await require(request)
        async with db.transaction() as tx:
            await approvals.cancel(tx, request.path_params["id"], actor=who.name, now=now())
        return Response(status_code=204)

    async def prerequisites(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            checks = await service.prerequisites(tx, others)
            ok = all(check.ok for check in checks)
            line = await service.command_line_now(tx, others) if ok else ""
        value = {"ok": ok, "command_line": line, "checks": [as_dict(item) for item in checks]}
        return http.reply(value)

    async def policies(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.deployed(tx)
        value = [
            {
                **as_dict(item.policy),
                "collection": item.collection,
                "members": item.members,
                "applied": item.applied,
                "workloads": [
                    workload.value
                    for workload, who in owners(item.policy.capabilities).items()
                    if who is Authority.MDM
                ],
            }
            for item in found
        ]
        return http.reply(value)

    async def switch(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, Switch)
        async with db.transaction() as tx:
            await service.hold(tx)
            http.check_version(request, await service.version(tx))
            wish = wanted.wish("position")
            workload = read_workload(request.path_params["workload"])
            await service.required(tx)
            plain = msgspec.structs.replace(wanted, reason="")
            one = Configure(workloads={workload.value: plain}, reason=wanted.reason)
            if (waits := await asked(tx, who, one)) is not None:
                return waits
            slider = await service.switch(
                tx,
                workload,
                wish.position,
                collection=wanted.collection,
                pilots=wish.pilots if wish.exact else (),
                actor=who.name,
                now=now(),
            )
            tag = await service.version(tx)
            return http.reply(await _slider(tx, slider), headers={"ETag": tag})

    async def status(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await service.status(tx)
        moves = [
            {
                **{k: v for k, v in as_dict(move).items() if k != "begun"},
                "title": move.workload.title,
                "devices": move.devices,
                "changed": move.changed,
                "done": move.done,
                "moving": move.moving,
                "followed": move.followed,
                "began_at": move.begun.began_at if move.begun else None,
                "began_by": move.begun.began_by if move.begun else "",
            }
            for move in found.moves
        ]
        return http.reply({**as_dict(found), "moves": moves})

    async def catalogue(request: Request) -> Response:
        await require(request)
        return http.reply([_entry(entry) for entry in CATALOGUE.values()])

    async def workload(request: Request) -> Response:
        """One entry of the catalogue, with where its slider stands."""
        await require(request)
        wanted = read_workload(request.path_params["workload"])
        async with db.transaction() as tx:
            slider = (await service.sliders(tx))[wanted]
            return http.reply({**_entry(CATALOGUE[wanted]), **await _slider(tx, slider)})

    async def stood(request: Request) -> Response:
        """Every place where a workload stood, the newest first."""
        await require(request)
        wanted = read_workload(request.path_params["workload"])
        async with db.transaction() as tx:
            found = await steps.steps(tx, wanted)
            names: dict[str, str] = {
                item.id: item.name for item in await collections.collections(tx)
            }
        places = [_step(item, found, names) for item in found]
        entry = CATALOGUE[wanted]
        return http.reply(
            {"workload": wanted.value, "title": wanted.title, "back": entry.back, "items": places}
        )

    async def back(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, BackTo)
        async with db.transaction() as tx:
            slider = await steps.back(
                tx,
                read_workload(request.path_params["workload"]),
                wanted.step,
                actor=who.name,
                now=now(),
            )
            tag = await service.version(tx)
            return http.reply(await _slider(tx, slider), headers={"ETag": tag})

    async def capabilities(request: Request) -> Response:
        """What an integer of capabilities says, in either encoding."""
        await require(request)
        text = request.path_params["value"]
        if not _INTEGER.fullmatch(text):
            raise Invalid(
                "Capabilities are an integer of at most nine digits.",
                cure="Take the number from the policy or from the registry (CoManagementFlags).",
            )
        found = decode(int(text))
        return http.reply(
            {
                "value": found.value,
                "encoding": found.encoding.value,
                "configured": found.configured,
                "unknown": found.unknown,
                "workloads": [
                    {
                        "workload": one.value,
                        "title": one.title,
                        "owner": owner_of(one, found.value).value,
                    }
                    for one in Workload
                ],
            }
        )

    async def enrollments(request: Request) -> Response:
        """Clients that wait for their enrolment, with the moment that each has planned."""
        await require(request)
        async with db.transaction() as tx:
            found = await service.planned(tx)
        return http.reply([as_dict(one) for one in found])

    async def enroll_now(request: Request) -> Response:
        who = await require(request)
        wanted = await http.decode(request, EnrollNow, _BODY_LIMIT)
        if len(wanted.devices) > _MOST_DEVICES or not (wanted.devices or wanted.collection):
            raise Invalid(f"Name a collection, or 1 to {_MOST_DEVICES:,} devices.", field="devices")
        async with db.transaction() as tx:
            count = await service.enroll_now(
                tx, wanted.devices, wanted.collection, actor=who.name, now=now()
            )
        return http.reply({"devices": count}, 202)

    async def enrollment_errors(request: Request) -> Response:
        """The codes of failed enrolments that are known, with what each asks for."""
        await require(request)
        return http.reply([as_dict(one) for one in ENROLMENT_ERRORS.values()])

    async def command_line(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            await service.required(tx)
            return http.reply({"command_line": await service.command_line_now(tx, others)})

    return [
        Route("/api/v1/comanagement", show, methods=["GET"]),
        Route("/api/v1/comanagement", configure, methods=["PUT"]),
        Route("/api/v1/comanagement/preview", preview, methods=["POST"]),
        Route("/api/v1/comanagement/waiting", waiting, methods=["GET"]),
        Route("/api/v1/comanagement/waiting/{id}/approve", approve, methods=["POST"]),
        Route("/api/v1/comanagement/waiting/{id}", cancel, methods=["DELETE"]),
        Route("/api/v1/comanagement/prerequisites", prerequisites, methods=["GET"]),
        Route("/api/v1/comanagement/policies", policies, methods=["GET"]),
        Route("/api/v1/comanagement/status", status, methods=["GET"]),
        Route("/api/v1/comanagement/command-line", command_line, methods=["GET"]),
        Route("/api/v1/comanagement/enrollments", enrollments, methods=["GET"]),
        Route("/api/v1/comanagement/enrollment-errors", enrollment_errors, methods=["GET"]),
        Route("/api/v1/comanagement/enroll-now", enroll_now, methods=["POST"]),
        Route("/api/v1/comanagement/capabilities/{value}", capabilities, methods=["GET"]),
        Route("/api/v1/comanagement/workloads", catalogue, methods=["GET"]),
        Route("/api/v1/comanagement/workloads/{workload}", workload, methods=["GET"]),
        Route("/api/v1/comanagement/workloads/{workload}", switch, methods=["PUT"]),
        Route("/api/v1/comanagement/workloads/{workload}/steps", stood, methods=["GET"]),
        Route("/api/v1/comanagement/workloads/{workload}/back", back, methods=["POST"]),
        *rollout_http.routes(db, require, now, guards),
        *leaving_http.routes(db, others, require, now),
    ]


async def _answer(tx: Tx, others: Collaborators) -> Response:
    return http.reply(await _shape(tx, others), headers={"ETag": await service.version(tx)})


async def _shape(tx: Tx, others: Collaborators) -> dict[str, Any]:
    enablement = await service.enablement(tx)
    try:
        line, missing = await service.command_line_now(tx, others), ""
    except AppError as error:
        line, missing = "", f"{error.message} {error.cure}"
    return {
        "enabled": enablement is not None,
        "enablement": as_dict(enablement) if enablement else None,
        "command_line": line if enablement else "",
        "missing": missing,
        "workloads": [await _slider(tx, item) for item in (await service.sliders(tx)).values()],
        "exclusions": [{"id": id, "name": name} for id, name in await service.exclusions(tx)],
        "policies": [as_dict(policy) for policy in await service.policies(tx)],
    }


def _waiting(item: Waiting) -> dict[str, Any]:
    """A change that waits, with what it is in words."""
    wanted = msgspec.convert(item.wanted, Configure)
    said = []
    if wanted.automatic_enrollment:
        whom = f" {wanted.collection}" if wanted.collection else ""
        said.append(f"automatic enrolment: {wanted.automatic_enrollment}{whom}")
    for name, wish in wanted.workloads.items():
        pilots = ", ".join(wish.collections or filter(None, [wish.collection]))
        said.append(f"{name}: {wish.position}{f' {pilots}' if pilots else ''}")
    if wanted.staging.exclusions is not None:
        said.append(f"kept out: {', '.join(wanted.staging.exclusions) or 'nobody'}")
    told = {name: value for name, value in as_dict(item).items() if name != "wanted"}
    return {**told, "changes": said}


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "workload": entry.workload.value,
        "title": entry.workload.title,
        "bits": entry.workload.bits,
        "covers": entry.covers,
        "component": entry.component,
        "moves_along": [item.value for item in entry.workload.moves_along],
        "has_effect": entry.has_effect,
        "moves": entry.moves,
        "rolls_back": entry.rolls_back,
        "back": entry.back,
        "policies": [as_dict(policy) for policy in entry.policies],
    }


def _step(one: Step, every: Sequence[Step], names: Mapping[str, str]) -> dict[str, Any]:
    """`gone`: a collection of its pilot was deleted, so nobody can go back there."""
    wanted = (one.collection_id, *one.also) if one.position is Position.PILOT else ()
    return {
        **as_dict(one),
        "now": one.id == every[0].id,
        "same": one.place == every[0].place,
        "collections": [names.get(id, id) for id in wanted if id],
        "gone": any(id not in names for id in wanted if id),
    }


async def _slider(tx: Tx, slider: Slider) -> dict[str, Any]:
    name = ""
    if slider.collection_id:
        name = (await collections.collection(tx, slider.collection_id)).name
    return {
        **as_dict(slider),
        "title": slider.workload.title,
        "bits": slider.workload.bits,
        "moves_along": [item.value for item in slider.workload.moves_along],
        "collection": name,
        "pilots": [
            {"id": id, "name": (await collections.collection(tx, id)).name}
            for id in (slider.collection_id, *slider.also)
            if id
        ],
        "moves": CATALOGUE[slider.workload].moves,
        "has_effect": CATALOGUE[slider.workload].has_effect,
        "rolls_back": CATALOGUE[slider.workload].rolls_back,
    }


def _few(named: Sequence[str], field: str) -> tuple[str, ...]:
    if len(named) > _MOST_COLLECTIONS:
        raise Invalid(
            f"At most {_MOST_COLLECTIONS} collections.",
            cure="Make one collection that includes the others.",
            field=field,
        )
    return tuple(named)


def _read(wanted: Any, name: str, field: str) -> Any:
    try:
        return wanted(name.strip().lower())
    except ValueError:
        names = ", ".join(item.value for item in wanted)
        raise Invalid(
            f"{name[:64]!r} is not one of: {names}.", cure="Take one of them.", field=field
        ) from None
