"""Properties of co-management (CoMgmtSettingsProd): workloads, enablement, staging, policies.

Whatever is changed here is first shown with the devices that it concerns, and followed afterwards.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.comgmt.words import (
    API,
    COVERS,
    ENROLS,
    PATH,
    POSITION,
    POSITIONS,
    WIZARD,
    WORKLOADS,
    locked,
    moving,
    reach,
    title,
)
from tandem.console.kit import CHANGED, N_, Console, Notice, Page
from tandem.infra.errors import AppError

# A switch is watched: its numbers are asked for often, and come only when they are others.
REFRESH_SECONDS = 2
_MOST_COLLECTIONS = 500
_MOST_PLANNED = 200
TABS = (
    (PATH, N_("Workloads")),
    (f"{PATH}/enablement", N_("Enablement")),
    (f"{PATH}/staging", N_("Staging")),
    (f"{PATH}/policies", N_("Policies")),
    (f"{PATH}/rollouts", N_("Roll-outs")),
)


def tabs(page: Page[Any]) -> list[tuple[str, str, bool]]:
    here = page.request.url.path
    return [
        (path, name, here == path or (path != PATH and here.startswith(f"{path}/")))
        for path, name in TABS
    ]


async def collections(page: Page[Any], type: str = "device") -> list[tuple[str, str]]:
    """For a list to choose from: id, and name with how many devices, or users, it has."""
    found = await page.api.get("/api/v1/collections", limit=_MOST_COLLECTIONS, type=type)
    return [
        (
            item["id"],
            item["name"]
            # A list that took too long to count says nothing of those that were never evaluated.
            + (
                f" ({page.language.number(item['members'])})" if item["members"] is not None else ""
            ),
        )
        for item in found["items"]
    ]


async def _render(
    page: Page[Any],
    template: str,
    *,
    typed: Mapping[str, str] | None = None,
    error: AppError | None = None,
    **more: Any,
) -> Response:
    """The page as it stands, or as it was typed when that was refused."""
    answer = await page.api.ask("GET", API)
    found = answer.json
    changed = error is not None and error.code == CHANGED
    status = 200 if error is None else 409 if changed else 422
    return page.render(
        template,
        status,
        tabs=tabs(page),
        found=found,
        etag=answer.etag,
        typed=dict(typed or {}),
        error=None if changed else error,
        conflict=changed,
        at=str(error.details.get("field", "")) if error else "",
        titles=WORKLOADS,
        covers=COVERS,
        positions=POSITIONS,
        position=POSITION,
        enrols=ENROLS,
        locked=locked(page),
        wizard=WIZARD,
        path_of=PATH,
        refresh_seconds=REFRESH_SECONDS,
        **more,
    )


async def workloads(
    page: Page[Any], typed: Mapping[str, str] | None = None, error: AppError | None = None
) -> Response:
    fleet = await page.api.get(f"{API}/status")
    return await _render(
        page,
        "comgmt/workloads.html",
        typed=typed,
        error=error,
        fleet=fleet,
        moves={move["workload"]: move for move in fleet["moves"]},
        waiting=[] if page.partial else await page.api.get(f"{API}/waiting"),
        collections=[] if page.partial else await collections(page),
    )


async def workload(page: Page[Any]) -> Response:
    """What one workload covers, what moves here today, and how far its devices have followed."""
    name = page.request.path_params["workload"]
    found = await page.api.get(f"{API}/workloads/{quote(name, safe='')}")
    fleet = await page.api.get(f"{API}/status")
    return page.render(
        "comgmt/workload.html",
        found=found,
        move=next(one for one in fleet["moves"] if one["workload"] == found["workload"]),
        titles=WORKLOADS,
        position=POSITION,
        policies_path=f"{PATH}/policies",
        path_of=PATH,
    )


async def save_workloads(page: Page[Any]) -> Response:
    form = await page.form()
    wanted = {
        name: {"position": form[name], "collection": form.get(f"pilot-{name}", "")}
        for name in WORKLOADS
        if name in form
    }
    return await _save(page, form, {"workloads": wanted}, workloads, PATH)


async def enablement(
    page: Page[Any], typed: Mapping[str, str] | None = None, error: AppError | None = None
) -> Response:
    return await _render(
        page,
        "comgmt/enablement.html",
        typed=typed,
        error=error,
        prerequisites=await page.api.get(f"{API}/prerequisites"),
        collections=await collections(page),
        planned=await page.api.get(f"{API}/enrollments"),
        planned_most=_MOST_PLANNED,
    )


async def save_enablement(page: Page[Any]) -> Response:
    form = await page.form()
    wanted: dict[str, Any] = {
        "automatic_enrollment": form.get("automatic_enrollment", ""),
        "collection": form.get("collection", ""),
    }
    spread = form.get("spread_minutes", "").strip()
    if spread:
        wanted["spread_minutes"] = int(spread) if spread.isascii() and spread.isdigit() else -1
    return await _save(page, form, wanted, enablement, f"{PATH}/enablement")


async def enroll_now(page: Page[Any]) -> Response:
    """Devices that wait for their enrolment do not wait any longer: one, or all that are listed."""
    form = await page.form()
    if form.get("device"):
        names = [form["device"]]
    else:
        names = [one["name"] for one in await page.api.get(f"{API}/enrollments")]
    try:
        await page.api.post(f"{API}/enroll-now", {"devices": names})
    except AppError as error:
        if error.kind.value not in ("invalid", "conflict", "not-found"):
            raise
        return await enablement(page, None, error)
    return page.to(
        f"{PATH}/enablement",
        N_("Ordered. Devices enrol when they next get their policy."),
    )


async def staging(
    page: Page[Any], typed: Mapping[str, str] | None = None, error: AppError | None = None
) -> Response:
    return await _render(
        page,
        "comgmt/staging.html",
        typed=typed,
        error=error,
        collections=await collections(page),
    )


async def save_staging(page: Page[Any]) -> Response:
    """The collections of workloads that are in a pilot, and those whose devices are kept out."""
    form = await page.form()
    found = await page.api.get(API)
    wanted = {
        item["workload"]: {"position": "pilot", "collections": _chosen(form, item["workload"])}
        for item in found["workloads"]
        if item["position"] == "pilot" and form.get(f"pilot-{item['workload']}")
    }
    staged = {"exclusions": _chosen(form, "out")}
    return await _save(
        page, form, {"workloads": wanted, "staging": staged}, staging, f"{PATH}/staging"
    )


def _chosen(form: Mapping[str, str], of: str) -> list[str]:
    """The first collection, those of the others that stay ticked, and one more."""
    kept = [name.removeprefix(f"keep-{of}--") for name in form if name.startswith(f"keep-{of}--")]
    named = [form.get(f"pilot-{of}", ""), *kept, form.get(f"add-{of}", "")]
    return list(dict.fromkeys(one for one in named if one))


async def _save(
    page: Page[Any], form: Mapping[str, str], wanted: Mapping[str, Any], again: Any, back: str
) -> Response:
    """First what would happen, then, when that is confirmed, the change itself."""
    version = form.get("version", "")
    try:
        if "confirmed" not in form:
            current = await page.api.ask("GET", API)
            if version and current.etag != version:
                # The API's own refusal, before anybody has read a preview of something else.
                await page.api.put(API, wanted, version=version)
            preview = await page.api.post(f"{API}/preview", wanted)
            return _confirm(page, form, preview, back)
        asked = {**wanted, "reason": form.get("reason", "")}
        made = await page.api.put(API, asked, version=version)
    except AppError as error:
        if (
            error.code != CHANGED
            and "field" not in error.details
            and error.kind.value
            not in (
                "invalid",
                "conflict",
                "not-found",
            )
        ):
            raise
        answer: Response = await again(page, form, error)
        return answer
    if made.get("state") == "approval":
        return page.to(
            PATH,
            N_("This reaches %(count)s devices: a second administrator has to approve it."),
            count=page.language.number(made["reaches"]),
        )
    return page.to(
        PATH if back.endswith("staging") else back,
        N_(
            "Saved. Devices follow at their next policy poll; the numbers here say how far they are."
        ),
    )


def _confirm(
    page: Page[Any], form: Mapping[str, str], preview: Mapping[str, Any], back: str
) -> Response:
    text = page.language.text
    count = moving(preview)
    if count:
        said = page.language.plural(
            "%(number)s device changes owner.", "%(number)s devices change owner.", count
        )
    else:
        said = text(N_("No device changes owner by this."))
    waits = bool(preview["needs_approval"])
    if waits:
        said += " " + text(
            N_("It reaches %(count)s devices: a second administrator has to approve it."),
            count=page.language.number(preview["reaches"]),
        )
    return page.confirm(
        text(N_("What this will do")),
        said,
        text(N_("Ask for approval") if waits else N_("Save")),
        back=back,
        fields={k: v for k, v in form.items() if k not in ("form_token", "reason")},
        items=reach(page, preview),
        danger=False,
        reason=text(N_("Reason, for who approves it")) if waits else "",
    )


async def approve(page: Page[Any]) -> Response:
    """Let happen what somebody else asked for, after it was said how far that reaches."""
    form = await page.form()
    seen, id = form.get("devices", ""), page.request.path_params["id"]
    if "confirmed" not in form:
        text = page.language.text
        return page.confirm(
            text(N_("Approve a change of co-management")),
            text(
                N_("It reaches %(count)s devices. They follow at their next policy poll."),
                count=seen[:12],
            ),
            text(N_("Approve")),
            back=PATH,
            fields={"devices": seen[:12], "seen": form.get("seen", "")[:64]},
        )
    known = form.get("seen", "")[:64]
    number = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 12 else -1
    path = f"{API}/waiting/{quote(id, safe='')}/approve"
    try:
        await page.api.post(path, {"devices": number, "seen": known})
    except AppError as error:
        if error.kind.value not in ("invalid", "conflict", "not-found", "forbidden"):
            raise
        return await workloads(page, None, error)
    return page.to(
        PATH,
        N_(
            "Saved. Devices follow at their next policy poll; the numbers here say how far they are."
        ),
    )


async def cancel(page: Page[Any]) -> Response:
    await page.form()
    await page.api.delete(f"{API}/waiting/{quote(page.request.path_params['id'], safe='')}")
    return page.to(PATH, N_("It was cancelled: nothing was changed."))


async def policies(page: Page[Any]) -> Response:
    found = await page.api.get(f"{API}/policies")
    return page.render(
        "comgmt/policies.html",
        tabs=tabs(page),
        policies=found,
        configurations=await page.api.get("/api/v1/configurations"),
        titles=WORKLOADS,
        remove=False,
        refresh_seconds=5,
    )


# ---------------------------------------------------------------------- notices


async def notices(page: Page[Any]) -> list[Notice]:
    """Moves of workloads under way; the fleet is counted only when one was begun."""
    found = await page.api.get(API)
    if not any(item["changed_at"] for item in found["workloads"]):
        return []
    told = []
    for move in (await page.api.get(f"{API}/status"))["moves"]:
        if move["done"] or not move["began_at"]:
            continue
        told.append(
            Notice(
                title=N_(
                    "%(workload)s is moving: %(followed)s of %(moving)s devices have followed"
                ),
                values={
                    "workload": title(page, move["workload"]),
                    "followed": page.language.number(move["followed"]),
                    "moving": page.language.number(move["moving"]),
                },
                progress=move["followed"] / move["moving"] if move["moving"] else None,
                url=PATH,
            )
        )
    return told


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, workloads),
        console.route(PATH, save_workloads, post=True),
        console.route(f"{PATH}/workloads/{{workload}}", workload),
        console.route(f"{PATH}/waiting/{{id}}/approve", approve, post=True),
        console.route(f"{PATH}/waiting/{{id}}/cancel", cancel, post=True),
        console.route(f"{PATH}/enablement", enablement),
        console.route(f"{PATH}/enablement", save_enablement, post=True),
        console.route(f"{PATH}/enablement/enroll-now", enroll_now, post=True),
        console.route(f"{PATH}/staging", staging),
        console.route(f"{PATH}/staging", save_staging, post=True),
        console.route(f"{PATH}/policies", policies),
    ]
