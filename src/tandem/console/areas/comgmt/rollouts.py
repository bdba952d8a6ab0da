"""Roll-outs of workloads: plan, gap analysis, rings with their gates, live progress, the way back."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.comgmt.settings import REFRESH_SECONDS, collections, tabs
from tandem.console.areas.comgmt.words import API, PATH, POSITION, WORKLOADS, locked, title
from tandem.console.kit import (
    N_,
    Console,
    Draft,
    Fact,
    Notice,
    Page,
    Values,
    drawn,
    field,
    read,
)
from tandem.infra.errors import AppError, Kind

ROLLOUTS = f"{PATH}/rollouts"
STEPS_OF = f"{PATH}/workloads"
_URL = f"{API}/rollouts"
_ALL = "SMS00001"
_DEVICES_SHOWN = 50
_RINGS = ("pilot", "second", "third", "fourth")
STATES = {
    "planned": ("plain", N_("Planned")),
    "running": ("waiting", N_("Under way")),
    "paused": ("waiting", N_("Paused")),
    "halted": ("bad", N_("Halted")),
    "finished": ("good", N_("Finished")),
    "cancelled": ("plain", N_("Cancelled")),
    "returned": ("plain", N_("Switched back")),
    # Of rings.
    "waiting": ("plain", N_("Waits")),
    "passed": ("good", N_("Passed")),
    "failed": ("bad", N_("Failed")),
    "stopped": ("plain", N_("Stopped")),
}
STANDINGS = {
    "done": ("good", N_("Done")),
    "pending": ("waiting", N_("Pending")),
    "offline": ("waiting", N_("Offline")),
    "failed": ("bad", N_("Failed")),
    "waiting": ("plain", N_("Waits for its ring")),
    "left": ("plain", N_("Left the site")),
}
GAPS = {
    "lost": ("bad", N_("Would be lost")),
    "changes": ("waiting", N_("Would change")),
    "unknown": ("waiting", N_("Nobody knows")),
    "gains": ("plain", N_("Would be new")),
    "same": ("good", N_("Stays as it is")),
}
SUBJECTS = {
    "setting": N_("Setting"),
    "app": N_("App"),
    "compliance": N_("Compliance rule"),
}
ACTIONS = {
    "rollout.plan": N_("Planned"),
    "rollout.analyse": N_("Gap analysis begun again"),
    "rollout.approve": N_("Approved"),
    "rollout.start": N_("Started"),
    "rollout.ring": N_("Ring %(ring)s began: %(collection)s, %(devices)s devices"),
    "rollout.pass": N_("Ring %(ring)s passed its gate: %(done)s devices done"),
    "rollout.pause": N_("Paused"),
    "rollout.resume": N_("Resumed"),
    "rollout.halt": N_("Halted"),
    "rollout.back": N_("Switched back: %(devices)s devices follow"),
    "rollout.cancel": N_("Cancelled"),
    "rollout.finish": N_("Finished"),
}


async def _collections(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    return [one for one in await collections(page) if one[0] != _ALL]


FIELDS = (
    field("workload", N_("Workload"), "select", required=True, options=tuple(WORKLOADS.items())),
    field(
        "pilot",
        N_("First ring: the pilot"),
        "select",
        required=True,
        options=_collections,
        hint=N_("The devices of this collection move first; the others wait until they are well."),
    ),
    field("second", N_("Second ring"), "select", options=_collections),
    field("third", N_("Third ring"), "select", options=_collections),
    field("fourth", N_("Fourth ring"), "select", options=_collections),
    field("everybody", N_("At the end all devices (All Systems)"), "checkbox", default=False),
    field(
        "minutes",
        N_("Minutes that a ring has"),
        "number",
        default=120,
        least=1,
        most=129600,
        hint=N_("A policy poll of an hour, a report within a quarter, and a session of the MDM."),
    ),
    field(
        "done_percent",
        N_("Percent of its devices that have to be done by then"),
        "number",
        default=90,
        least=1,
        most=100,
        hint=N_("Devices that nobody hears from count as not done."),
    ),
    field(
        "failed_percent",
        N_("Percent of its devices that may fail"),
        "number",
        default=5,
        least=0,
        most=100,
        hint=N_("One more, and the roll-out halts at once."),
    ),
    field(
        "soak_minutes",
        N_("Minutes that a ring is watched at least"),
        "number",
        default=15,
        least=0,
        most=129600,
    ),
    field(
        "automatic_back",
        N_("Switch back automatically when a gate fails"),
        "checkbox",
        default=False,
        hint=N_("Never for Windows Update and Office: what they installed stays."),
    ),
    field(
        "second_approval",
        N_("Another administrator has to approve it"),
        "checkbox",
        default=False,
        hint=N_("One that reaches many devices waits for another administrator in any case."),
    ),
    field(
        "reason",
        N_("Reason"),
        hint=N_("For whoever may have to approve it."),
    ),
)


async def listed(page: Page[Any]) -> Response:
    found = await page.api.get(_URL, limit=200)
    return page.render(
        "comgmt/rollouts.html",
        tabs=tabs(page),
        rollouts=found["items"],
        titles=WORKLOADS,
        states=STATES,
        new=f"{ROLLOUTS}/new",
        path_of=ROLLOUTS,
        steps_of=STEPS_OF,
        locked=locked(page),
        refresh_seconds=REFRESH_SECONDS,
    )


async def new(
    page: Page[Any], values: Values | None = None, problems: dict[str, AppError] | None = None
) -> Response:
    if values is None:
        asked = page.request.query_params.get("workload", "")
        values = {one.name: one.default for one in FIELDS}
        values["workload"] = asked if asked in WORKLOADS else ""
    return page.render(
        "comgmt/rollout_plan.html",
        422 if problems else 200,
        tabs=tabs(page),
        fields=await drawn(page, FIELDS, values, problems),
        general=(problems or {}).get(""),
        action=f"{ROLLOUTS}/new",
        locked=locked(page),
    )


async def plan(page: Page[Any]) -> Response:
    values, problems = read(FIELDS, await page.form())
    if not problems:
        gate = {
            name: values[name]
            for name in ("minutes", "soak_minutes", "done_percent", "failed_percent")
        }
        rings = [values[name] for name in _RINGS if values[name]]
        rings += [_ALL] if values["everybody"] else []
        wanted = {
            "workload": values["workload"],
            "rings": [{"collection": one, **gate} for one in rings],
            "automatic_back": bool(values["automatic_back"]),
            "second_approval": bool(values["second_approval"]),
            "reason": values["reason"] or "",
        }
        try:
            made = await page.api.post(_URL, wanted)
        except AppError as error:
            if error.kind not in (Kind.INVALID, Kind.CONFLICT, Kind.NOT_FOUND):
                raise
            problems[_at(error)] = error
        else:
            return page.to(
                f"{ROLLOUTS}/{made['id']}",
                N_("Planned. Nothing has moved: first see what the devices would lose."),
            )
    return await new(page, values, problems)


def _at(error: AppError) -> str:
    place = str(error.details.get("field", ""))
    return place if place in {one.name for one in FIELDS} else ""


async def show(page: Page[Any]) -> Response:
    return await _show(page)


async def _show(page: Page[Any], error: AppError | None = None) -> Response:
    id = page.request.path_params["id"]
    asked = page.request.query_params
    days = _number(asked.get("offline_days", ""), 0)
    known = {"offline_days": days} if 0 < days <= 3650 else {}
    found = await page.api.get(f"{_URL}/{quote(id, safe='')}", **known)
    standing = asked.get("standing", "")
    gap = asked.get("gap", "")
    number = max(1, _number(asked.get("page", ""), 1))
    wanted = {
        "standing": standing if standing in STANDINGS else "",
        "limit": _DEVICES_SHOWN,
        "offset": (number - 1) * _DEVICES_SHOWN,
    }
    if gap.isascii() and gap.isdigit():
        wanted["gap"] = int(gap[:6])
    devices = await page.api.get(f"{_URL}/{quote(id, safe='')}/devices", **wanted)
    return page.render(
        "comgmt/rollout.html",
        409 if error else 200,
        tabs=tabs(page),
        found=found,
        devices=devices,
        of_page=number,
        pages=max(1, -(-devices["total"] // _DEVICES_SHOWN)),
        chosen=wanted["standing"],
        history=_history(page, found["history"]),
        error=error,
        titles=WORKLOADS,
        states=STATES,
        standings=STANDINGS,
        kinds=GAPS,
        subjects=SUBJECTS,
        reach=_reach(found["reach"]),
        steps=f"{STEPS_OF}/{found['workload']}/steps",
        gaps=sorted(found["gaps"], key=lambda one: list(GAPS).index(one["kind"])),
        locked=locked(page),
        at=f"{ROLLOUTS}/{id}",
        path_of=ROLLOUTS,
        refresh_seconds=REFRESH_SECONDS,
    )


def _number(text: str, otherwise: int) -> int:
    return int(text[:6]) if text.isascii() and text.isdigit() else otherwise


def _reach(reach: Mapping[str, Any] | None) -> list[Fact]:
    if reach is None:
        return []
    return [
        Fact(N_("Devices"), reach["devices"]),
        Fact(N_("Their users"), reach["users"]),
        Fact(N_("Devices of no user"), reach["without_user"]),
        *(
            Fact(_OFFLINE[one["days"]], one["devices"])
            for one in reach["offline"]
            if one["days"] in _OFFLINE
        ),
    ]


_OFFLINE = {
    1: N_("Not heard of for more than a day"),
    7: N_("Not heard of for more than a week"),
    30: N_("Not heard of for more than 30 days"),
}


def _history(
    page: Page[Any], entries: list[dict[str, Any]]
) -> list[tuple[datetime, str, str, bool]]:
    text = page.language.text
    told = []
    for one in entries:
        name = ACTIONS.get(one["action"], one["action"])
        told.append(
            (
                msgspec.convert(one["at"], datetime),
                text(N_("by itself")) if one["actor"] == "roll-out" else one["actor"],
                text(name, **_words(one["details"])),
                one["action"] == "rollout.halt",
            )
        )
    return told


def _words(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: details.get(name, "") for name in ("ring", "collection", "devices", "done")}


async def start(page: Page[Any]) -> Response:
    """Asks how many devices, and whether the gaps may be, where the site wants to know."""
    form = await page.form()
    id = page.request.path_params["id"]
    url = f"{_URL}/{quote(id, safe='')}"
    typed = form.get("confirm", "").strip()
    problem: AppError | None = None
    if "confirmed" in form:
        wanted = {
            "confirm": int(typed)
            if typed.isascii() and typed.isdigit() and len(typed) < 10
            else None,
            "accept_gaps": "accept_gaps" in form,
        }
        try:
            await page.api.post(f"{url}/start", wanted)
        except AppError as error:
            if error.kind not in (Kind.INVALID, Kind.CONFLICT):
                raise
            problem = error
        else:
            return page.to(
                f"{ROLLOUTS}/{id}",
                N_("Started. The devices of the first ring are asked to follow."),
            )
    found = await page.api.get(url)
    weighty = [one for one in found["gaps"] if one["kind"] in ("lost", "changes", "unknown")]
    return page.render(
        "comgmt/rollout_start.html",
        422 if problem else 200,
        found=found,
        name=title(page, found["workload"]),
        along=[title(page, one) for one in found["moves_along"]],
        weighty=weighty,
        reach=_reach(found["reach"]),
        error=problem,
        typed=typed,
        kinds=GAPS,
        back=f"{ROLLOUTS}/{id}",
    )


_SAID = {
    "analyse": N_("The gap analysis has begun again."),
    "approve": N_("Approved."),
    "pause": N_("Paused. Devices that were asked go on following."),
    "resume": N_("It goes on."),
    "cancel": N_("Cancelled. Devices stay where they are."),
    "back": N_("Switched back. Every device that had moved follows at its next policy poll."),
}


def _action(name: str) -> Any:
    async def act(page: Page[Any]) -> Response:
        form = await page.form()
        id = page.request.path_params["id"]
        ring = _number(form.get("ring", ""), 0)
        body: dict[str, Any] = {"ring": ring} if name == "back" and ring else {}
        if name == "approve":
            body = {"devices": _number(form.get("devices", ""), 0), "seen": form.get("seen", "")}
        try:
            await page.api.post(f"{_URL}/{quote(id, safe='')}/{name}", body)
        except AppError as error:
            if error.kind not in (Kind.CONFLICT, Kind.INVALID):
                raise
            return await _show(page, error)
        return page.to(f"{ROLLOUTS}/{id}", _SAID[name])

    return act


async def steps(page: Page[Any], error: AppError | None = None) -> Response:
    """Where a workload stood; each line is one click away."""
    workload = page.request.path_params["workload"]
    found = await page.api.get(f"{API}/workloads/{quote(workload, safe='')}/steps")
    return page.render(
        "comgmt/steps.html",
        409 if error else 200,
        tabs=tabs(page),
        found=found,
        titles=WORKLOADS,
        positions=POSITION,
        error=error,
        locked=locked(page),
        at=f"{STEPS_OF}/{found['workload']}/steps",
        path_of=ROLLOUTS,
        refresh_seconds=REFRESH_SECONDS,
    )


async def step_back(page: Page[Any]) -> Response:
    form = await page.form()
    workload = page.request.path_params["workload"]
    url = f"{API}/workloads/{quote(workload, safe='')}"
    try:
        await page.api.post(f"{url}/back", {"step": _number(form.get("step", ""), 0)})
    except AppError as error:
        if error.kind not in (Kind.CONFLICT, Kind.NOT_FOUND):
            raise
        return await steps(page, error)
    return page.to(f"{STEPS_OF}/{workload}/steps", _SAID["back"])


async def notices(page: Page[Any]) -> list[Notice]:
    """Roll-outs under way; one that has halted is an alarm until somebody does something."""
    told = []
    for one in (await page.api.get(_URL, limit=50))["items"]:
        url = f"{ROLLOUTS}/{one['id']}"
        named = {"workload": title(page, one["workload"])}
        by_itself = one["state"] == "returned" and one["ended_by"] == "roll-out"
        if one["state"] == "halted" or (by_itself and not one["settled_at"]):
            told.append(
                Notice(
                    title=N_("%(workload)s: the roll-out has halted")
                    if one["state"] == "halted"
                    else N_("%(workload)s: the roll-out has halted, and is switched back"),
                    values=named,
                    text=page.language.said(one["cause"]["text"]),
                    state="bad",
                    url=url,
                )
            )
        elif one["needs_approval"]:
            told.append(
                Notice(
                    title=N_("%(workload)s: a roll-out waits for a second administrator"),
                    values=named,
                    text=one["reason"],
                    url=url,
                )
            )
        elif one["state"] in ("running", "paused"):
            counts, ring = one["counts"], one["rings"][one["ring"] - 1]
            all_of_it = sum(counts.values()) - counts["left"]
            told.append(
                Notice(
                    title=N_("%(workload)s is rolled out: ring %(ring)s, %(done)s of %(all)s done"),
                    values={
                        **named,
                        "ring": page.language.number(ring["place"]),
                        "done": page.language.number(counts["done"]),
                        "all": page.language.number(all_of_it),
                    },
                    progress=counts["done"] / all_of_it if all_of_it else None,
                    url=url,
                )
            )
    return told


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{ROLLOUTS}/{{id}}"
    return [
        console.route(ROLLOUTS, listed),
        console.route(f"{STEPS_OF}/{{workload}}/steps", steps),
        console.route(f"{STEPS_OF}/{{workload}}/steps/back", step_back, post=True),
        console.route(f"{ROLLOUTS}/new", new),
        console.route(f"{ROLLOUTS}/new", plan, post=True),
        console.route(one, show),
        console.route(f"{one}/start", start, post=True),
        *(console.route(f"{one}/{name}", _action(name), post=True) for name in _SAID),
    ]
