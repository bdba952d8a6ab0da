"""tandem rollout: move a workload ring by ring, with a gate after each, and put it back."""

import time
from typing import Annotated, Any

import typer

from tandem.cli.context import Api, Json, Refused, Yes, confirm, emit, progress, site_client, table
from tandem.cli.waiting import Reason

app = typer.Typer(help="Move a workload to the MDM service ring by ring.", no_args_is_help=True)

_URL = "/api/v1/comanagement/rollouts"
_WAIT_SECONDS = 3600.0
_MOVING = ("running", "paused")
_GATE = {
    "minutes": "minutes",
    "soak": "soak_minutes",
    "done": "done_percent",
    "failed": "failed_percent",
}

Which = Annotated[str, typer.Argument(help="A roll-out by its id, or the newest of a workload.")]


@app.command()
def plan(
    workload: Annotated[str, typer.Argument(help="Like device-configuration.")],
    ring: Annotated[
        list[str],
        typer.Option(
            "--ring",
            help="COLLECTION or COLLECTION:minutes=120,soak=15,done=90,failed=5: in this order, the"
            " pilot first; All Systems only last. Done and failed are percents of its devices.",
        ),
    ],
    automatic_back: Annotated[
        bool, typer.Option("--automatic-back", help="A failed gate also switches back.")
    ] = False,
    second_approval: Annotated[
        bool, typer.Option("--second-approval", help="Another administrator has to approve it.")
    ] = False,
    offline_minutes: Annotated[
        float | None, typer.Option(help="Without a word for so long, a device counts as offline.")
    ] = None,
    reason: Reason = "",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the gap analysis.")
    ] = True,
    json: Json = False,
) -> None:
    """Say who moves when, and compare what the site delivers with what the tenant has. Nothing
    moves by it. One that reaches many devices needs a reason, and waits for another administrator."""
    api = site_client()
    wanted = {
        "workload": workload,
        "rings": [_ring(item) for item in ring],
        "automatic_back": automatic_back,
        "second_approval": second_approval,
        "offline_minutes": offline_minutes,
        "reason": reason,
    }
    found = api.post(_URL, wanted)
    if wait:
        found = _wait_for_analysis(api, found, json)
    emit(found, _text, json)


def _ring(text: str) -> dict[str, Any]:
    name, _, gate = text.partition(":")
    found: dict[str, Any] = {"collection": name.strip()}
    for item in filter(None, gate.split(",")):
        key, _, value = item.partition("=")
        try:
            found[_GATE[key.strip()]] = float(value)
        except (KeyError, ValueError):
            raise typer.BadParameter(
                f"{item!r} is not one of minutes=, soak=, done=, failed= with a number."
            ) from None
    return found


@app.command("list")
def list_rollouts(json: Json = False) -> None:
    """List roll-outs, the newest first."""
    columns = {
        "title": "Workload",
        "state": "State",
        "at": "Ring",
        "done": "Done",
        "pending": "Pending",
        "offline": "Offline",
        "failed": "Failed",
        "created_by": "Planned by",
        "id": "Id",
    }
    found = site_client().get(_URL, limit=200)["items"]
    rows = [
        {**one, **one["counts"], "at": f"{one['ring']} of {len(one['rings'])}"} for one in found
    ]
    emit(found, lambda _: table(rows, columns), json)


@app.command()
def show(
    which: Which,
    offline_days: Annotated[
        int, typer.Option(help="Of a plan: who was not heard of for more days than that.")
    ] = 7,
    json: Json = False,
) -> None:
    """Show one: whom it reaches, its rings and gates, its gaps, and what was done with it."""
    emit(_find(site_client(), which, offline_days=offline_days), _text, json)


@app.command()
def devices(
    which: Which,
    standing: Annotated[
        str, typer.Option(help="waiting, pending, done, offline, failed or left.")
    ] = "",
    ring: Annotated[int, typer.Option(help="Only this ring.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    json: Json = False,
) -> None:
    """List its devices, each with where it is and why, and what it would lose."""
    api = site_client()
    id = _find(api, which)["id"]
    found = api.get(f"{_URL}/{id}/devices", standing=standing, ring=ring, limit=limit)
    columns = {
        "name": "Device",
        "ring": "Ring",
        "standing": "Standing",
        "why": "Why",
        "lost": "Lost",
        "changes": "Changes",
    }
    rows = [
        {
            **one,
            "why": one["cause"]["text"],
            "lost": ", ".join(g["setting"] for g in one["gaps"] if g["kind"] == "lost"),
            "changes": ", ".join(g["setting"] for g in one["gaps"] if g["kind"] == "changes"),
        }
        for one in found["items"]
    ]
    emit(found["items"], lambda _: f"{found['total']} devices\n\n" + table(rows, columns), json)


@app.command()
def analyse(which: Which, reason: Reason = "", json: Json = False) -> None:
    """Do the gap analysis of a plan again, for the devices that its rings have now."""
    api = site_client()
    found = api.post(f"{_URL}/{_find(api, which)['id']}/analyse", {"reason": reason})
    emit(_wait_for_analysis(api, found, json), _text, json)


@app.command()
def approve(which: Which, yes: Yes = False, json: Json = False) -> None:
    """Agree to a plan of somebody else that waits for it, as it is shown now."""
    found = _find(site_client(), which)
    if not json:
        emit(found, _text, json)
    because = f", because: {found['reason']}" if found["reason"] else ""
    confirm(
        f"{found['created_by']} plans to move {found['title']} of {found['devices']} devices"
        f"{because}. Approve?",
        yes,
        json,
    )
    body = {"devices": found["devices"], "seen": found["seen"]}
    made = site_client().post(f"{_URL}/{found['id']}/approve", body)
    emit(made, lambda _: "Approved: whoever planned it can start it.", json)


@app.command()
def start(
    which: Which,
    number: Annotated[
        int | None,
        typer.Option("--confirm", help="How many devices it moves, where that has to be typed."),
    ] = None,
    accept_gaps: Annotated[
        bool, typer.Option("--accept-gaps", help="The gap analysis was read, and may be so.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until it has ended or halted.")
    ] = False,
    json: Json = False,
) -> None:
    """Begin the first ring."""
    api = site_client()
    id = _find(api, which)["id"]
    found = api.post(f"{_URL}/{id}/start", {"confirm": number, "accept_gaps": accept_gaps})
    if wait:
        found = _wait(api, found, json)
    emit(found, _text, json)


@app.command()
def pause(which: Which, json: Json = False) -> None:
    """Judge no gate and begin no ring; devices that were asked go on."""
    _act(which, "pause", json)


@app.command()
def resume(which: Which, json: Json = False) -> None:
    """Go on after a pause, or once more after a gate has failed."""
    _act(which, "resume", json)


@app.command()
def cancel(which: Which, json: Json = False) -> None:
    """Begin no further ring. Devices stay where they are."""
    _act(which, "cancel", json)


@app.command()
def back(
    which: Which,
    ring: Annotated[
        int, typer.Option(help="This ring and those before it keep what they have; 0 for none.")
    ] = 0,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Put the workload where it was before, or where it was when a ring had moved."""
    of = f"after ring {ring}" if ring else "of this roll-out"
    confirm(f"Switch the workload back on every device {of}?", yes, json)
    _act(which, "back", json, {"ring": ring})


def _act(which: str, action: str, json: bool, body: dict[str, Any] | None = None) -> None:
    api = site_client()
    emit(api.post(f"{_URL}/{_find(api, which)['id']}/{action}", body or {}), _text, json)


def _find(api: Api, which: str, **asked: Any) -> dict[str, Any]:
    rows = api.get(_URL, limit=200)["items"]
    of = [one for one in rows if which in (one["workload"], one["title"])]
    found: dict[str, Any] = api.get(f"{_URL}/{of[0]['id'] if of else _plain(which)}", **asked)
    return found


def _plain(id: str) -> str:
    if not id.replace("-", "").isalnum():
        raise Refused("There is no such roll-out.", cure="List them: `tandem rollout list`.")
    return id


def _wait_for_analysis(api: Api, found: dict[str, Any], json: bool) -> dict[str, Any]:
    until = time.monotonic() + _WAIT_SECONDS
    with progress("Comparing what both authorities have…", json) as say:
        while not found["analysed_at"] and time.monotonic() < until:
            say(f"Compared {found['analysed']} of {found['devices']} devices")
            time.sleep(0.5)
            found = api.get(f"{_URL}/{found['id']}")
    return found


def _wait(api: Api, found: dict[str, Any], json: bool) -> dict[str, Any]:
    until = time.monotonic() + _WAIT_SECONDS
    with progress(f"{found['title']}…", json) as say:
        while found["state"] in _MOVING and time.monotonic() < until:
            counts = found["counts"]
            say(f"Ring {found['ring']} of {len(found['rings'])}: {counts['done']} devices done")
            time.sleep(0.5)
            found = api.get(f"{_URL}/{found['id']}")
    return found


def _text(value: dict[str, Any]) -> str:
    lines = [
        f"{value['title']}: {value['state']}, ring {value['ring']} of {len(value['rings'])}",
        f"Id: {value['id']}",
    ]
    if value["needs_approval"]:
        lines.append(
            f"Waits for a second administrator, {value['devices']} devices, planned by"
            f" {value['created_by']}: {value['reason'] or 'no reason given'}"
            f" (`tandem rollout approve {value['id']}`)"
        )
    elif value["approved_by"]:
        lines.append(f"Approved by {value['approved_by']}.")
    if value["cause"]["text"]:
        lines.append(f"Why: {value['cause']['text']}")
    rings = [
        {
            **ring,
            **ring["gate"],
            **ring["counts"],
            "gate": f"{ring['gate']['done_percent']:g} % done in {ring['gate']['minutes']:g} min,"
            f" at most {ring['gate']['failed_percent']:g} % failed,"
            f" watched {ring['gate']['soak_minutes']:g} min",
        }
        for ring in value["rings"]
    ]
    columns = {
        "place": "Ring",
        "collection": "Collection",
        "state": "State",
        "waiting": "Waiting",
        "pending": "Pending",
        "done": "Done",
        "offline": "Offline",
        "failed": "Failed",
        "gate": "Gate",
    }
    lines += ["", table(rings, columns)]
    if value["reach"]:
        lines += ["", *_reach(value["reach"])]
    lines += ["", _gaps(value)]
    lines += ["", "What nobody can know:", *(f"  {line}" for line in value["not_known"])]
    return "\n".join(lines)


def _reach(reach: dict[str, Any]) -> list[str]:
    """Whom it moves, in lines."""
    nobody = f", and {reach['without_user']} of nobody" if reach["without_user"] else ""
    offline = ", ".join(
        f"{one['devices']} for more than {one['days']} days" for one in reach["offline"]
    )
    columns = {
        "place": "Ring",
        "collection": "Collection",
        "members": "Devices of it",
        "moves": "Move",
        "silent": f"Silent > {reach['days']:g} days",
    }
    silent = ", ".join(reach["names"])
    return [
        f"It moves {reach['devices']} devices of {reach['users']} users{nobody}.",
        f"Not heard of: {offline}." + (f" {silent}" if silent else ""),
        "",
        table(reach["rings"], columns),
    ]


_KINDS = {
    "lost": "lost",
    "changes": "changes",
    "unknown": "nobody knows",
    "gains": "new",
    "same": "stays as it is",
}


def _gaps(value: dict[str, Any]) -> str:
    if not value["analysed_at"]:
        return f"Gap analysis: {value['analysed']} of {value['devices']} devices so far."
    if not value["gaps"]:
        return f"Gap analysis: {value['devices']} devices, and no setting of this workload."
    rows = [
        {
            **gap,
            "setting": gap["setting"]
            or ("(no compliance policy)" if gap["subject"] == "compliance" else ""),
            "site_value": gap["site_value"] + (" (its user's)" if gap["of_user"] else ""),
            "what": _KINDS[gap["kind"]],
            "on": ", ".join(gap["names"][:5]) + (" …" if gap["devices"] > 5 else ""),
        }
        for gap in sorted(value["gaps"], key=lambda gap: list(_KINDS).index(gap["kind"]))
    ]
    columns = {
        "what": "Gap",
        "setting": "Setting",
        "site_value": "At the site",
        "value": "In the tenant",
        "policy": "Policy",
        "devices": "Devices",
        "on": "On",
    }
    return table(rows, columns)
