"""tandem comanagement: enable it, move workloads, see how far devices are."""

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Yes, confirm, emit, progress, site_client, table
from tandem.cli.sign_in import TenantAdmin, TenantPassword, administrator_token
from tandem.workloads import enrolment_error

app = typer.Typer(help="Co-management of devices by site and MDM service.", no_args_is_help=True)

_WAIT_SECONDS = 3600.0
_POSITIONS = {"site": "Configuration Manager", "pilot": "Pilot Intune", "mdm": "Intune"}


Workloads = Annotated[
    list[str] | None,
    typer.Option(
        "--workload",
        help="NAME=POSITION, any number: windows-update=pilot:Pilot devices, client-apps=mdm.",
    ),
]
NewPilots = Annotated[
    list[str] | None,
    typer.Option(
        "--new-collection",
        help="NAME=QUERY: a pilot collection that is made with it; NAME alone has no members yet.",
    ),
]


Reason = Annotated[str, typer.Option(help="Why, for whoever may have to approve it.")]


@app.command()
def enable(
    automatic_enrollment: Annotated[
        str | None,
        typer.Option(help="Enrol existing clients: pilot (the first time), all or none."),
    ] = None,
    collection: Annotated[
        str, typer.Option(help="Collection whose clients are enrolled, when it is pilot.")
    ] = "",
    workload: Workloads = None,
    new_collection: NewPilots = None,
    pilot: Annotated[
        list[str] | None,
        typer.Option(
            help="A collection of every workload at Pilot that names none of its own; any number."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="A collection whose devices are kept out; any number, and no others."),
    ] = None,
    exclude_nobody: Annotated[
        bool, typer.Option("--exclude-nobody", help="No device is kept out any more.")
    ] = False,
    spread_minutes: Annotated[
        int | None,
        typer.Option(help="Spread of a first enrolment; it grows with the number of clients."),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Say what would change, and change nothing.")
    ] = False,
    reason: Reason = "",
    tenant_admin: TenantAdmin = None,
    tenant_password_file: TenantPassword = None,
    json: Json = False,
) -> None:
    """Enable co-management, or change all of it at once.

    Enabling it needs a sign-in to the tenant, which is used for this step and kept nowhere; what is
    enabled is changed without one.
    """
    api = site_client()
    enabled = api.get("/api/v1/comanagement")["enabled"]
    wanted = {
        "automatic_enrollment": automatic_enrollment or ("" if enabled else "pilot"),
        "collection": collection,
        "workloads": dict(_workload(item) for item in workload or ()),
        "new_collections": [
            dict(zip(("name", "query"), _parts(item, "="), strict=True))
            for item in new_collection or ()
        ],
        "staging": {
            "pilot": pilot or None,
            "exclusions": exclude or ([] if exclude_nobody else None),
        },
        "spread_minutes": spread_minutes,
    }
    if preview:
        emit(api.post("/api/v1/comanagement/preview", wanted), _preview, json)
        return
    token = ""
    if tenant_admin or not enabled:
        token = administrator_token(tenant_admin, tenant_password_file)
    asked = {**wanted, "access_token": token, "reason": reason}
    made = api.put("/api/v1/comanagement", asked)
    emit(made, _waits if made.get("state") == "approval" else _text, json)


def _waits(value: dict[str, Any]) -> str:
    return (
        f"This reaches {value['reaches']} devices: it waits until another administrator has"
        f" approved it: `tandem comanagement approve {value['id']}`."
    )


def _parts(text: str, separator: str) -> tuple[str, str]:
    first, _, second = text.partition(separator)
    return first.strip(), second.strip()


def _workload(text: str) -> tuple[str, dict[str, str]]:
    name, wanted = _parts(text, "=")
    if not wanted:
        raise typer.BadParameter(f"{text!r} is not NAME=POSITION.")
    position, collection = _parts(wanted, ":")
    return name, {"position": position, "collection": collection}


def _preview(value: dict[str, Any]) -> str:
    rows = [item for item in value["changes"] if item["to_mdm"] or item["to_site"]]
    lines = [f"{value['co_managed']} of {value['devices']} clients are co-managed."]
    lines.append(f"Clients that the site would enrol into MDM: {value['enrols']}")
    for name, members in value["collections"].items():
        lines.append(f"New collection {name}: {members} devices")
    for word, key in (("New", "creates"), ("Changed", "alters"), ("Removed", "removes")):
        if value[key]:
            lines.append(f"{word} policies: {', '.join(value[key])}")
    if not rows:
        return "\n".join([*lines, "No device changes owner."])
    columns = {"title": "Workload", "to_mdm": "To the MDM service", "to_site": "To the site"}
    return "\n".join([*lines, "", table(rows, columns)])


def _text(value: dict[str, Any]) -> str:
    if not value["enabled"]:
        return f"Co-management is not enabled. {value['missing']}".rstrip()
    enabled = value["enablement"]
    policies = {
        "name": "Policy",
        "kind": "Kind",
        "collection_id": "Collection",
        "auto_enroll": "Enrols",
        "capabilities": "Capabilities",
        "version": "Version",
    }
    return "\n".join(
        [
            f"Automatic enrolment: {enabled['auto_enroll']} {enabled['collection_id']}".rstrip(),
            f"Spread:              {enabled['spread_minutes']} minutes",
            f"Kept out:            {', '.join(o['name'] for o in value['exclusions']) or 'nobody'}",
            f"Command line:        {value['command_line'] or value['missing']}",
            "",
            _workloads(value["workloads"]),
            "",
            table(value["policies"], policies),
        ]
    )


@app.command()
def show(
    command_line: Annotated[
        bool, typer.Option("--command-line", help="The client's command line alone.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what is set, the policies that come of it, and the client's command line."""
    if command_line:
        found = site_client().get("/api/v1/comanagement/command-line")
        emit(found, lambda value: str(value["command_line"]), json)
    else:
        emit(site_client().get("/api/v1/comanagement"), _text, json)


@app.command()
def workloads(json: Json = False) -> None:
    """List the seven workloads, who has them, their capability bits, and what moves today."""
    emit(site_client().get("/api/v1/comanagement")["workloads"], _workloads, json)


@app.command()
def workload(
    name: Annotated[str, typer.Argument(help="Like device-configuration.")], json: Json = False
) -> None:
    """Show what a workload covers, what moves here today, and whether that rolls back."""
    found = site_client().get(f"/api/v1/comanagement/workloads/{quote(name, safe='')}")
    emit(found, _catalogued, json)


def _catalogued(found: dict[str, Any]) -> str:
    lines = [
        f"{found['title']} ({found['workload']}): {found['covers']}",
        f"Authority:  {_POSITIONS[found['position']]}",
        f"Today:      {found['moves']}",
        f"Back again: {found['back']}",
        f"Log:        {found['component']}.log",
    ]
    for policy in found["policies"]:
        mark = "effect on Linux" if policy["effect"] else "no effect on Linux"
        lines += ["", f"{policy['title']} ({mark})"]
        lines.append(f"  Site: {policy['site'] or 'nothing of the kind'}")
        lines.append(f"  MDM:  {policy['mdm'] or 'nothing of the kind'}")
        if policy["remark"]:
            lines.append(f"  {policy['remark']}")
    return "\n".join(lines)


@app.command()
def decode(
    capabilities: Annotated[int, typer.Argument(min=0, help="Like 12543, or 67 of an older site.")],
    json: Json = False,
) -> None:
    """Say what an integer of capabilities or workload flags means, in either encoding."""
    found = site_client().get(f"/api/v1/comanagement/capabilities/{capabilities}")
    emit(found, _decoded, json)


def _decoded(found: dict[str, Any]) -> str:
    since = "2111 and later" if found["encoding"] == "2111" else "2107 and earlier"
    lines = [f"{found['value']}: as sites of release {since} write it."]
    if not found["configured"]:
        lines.append("Its base is missing: no co-management policy wrote this.")
    if found["unknown"]:
        lines.append(f"Bits that belong to no workload: {found['unknown']}")
    columns = {"title": "Workload", "owner": "Owner", "workload": "Name"}
    return "\n".join([*lines, "", table(found["workloads"], columns)])


def _workloads(rows: list[dict[str, Any]]) -> str:
    columns = {
        "title": "Workload",
        "authority": "Authority",
        "collection": "Pilot collection",
        "bits": "Bits",
        "today": "Today",
        "workload": "Name",
    }
    shown = [
        {
            **row,
            "authority": _POSITIONS[row["position"]],
            "today": "effects on Linux" if row["has_effect"] else "moves the flag only",
        }
        for row in rows
    ]
    return table(shown, columns)


@app.command()
def steps(
    workload: Annotated[str, typer.Argument(help="Like device-configuration.")],
    json: Json = False,
) -> None:
    """List every place where a workload stood, the newest first: each can be gone back to."""
    found = site_client().get(f"/api/v1/comanagement/workloads/{workload}/steps")
    columns = {
        "id": "Step",
        "at": "Since",
        "position": "Position",
        "where": "Pilot",
        "by": "By",
        "why": "Why",
    }
    rows = [
        {**one, "where": ", ".join(one["collections"]), "why": _why(one)} for one in found["items"]
    ]
    emit(found["items"], lambda _: table(rows, columns) + f"\n\n{found['back']}", json)


def _why(step: dict[str, Any]) -> str:
    if step["back_to"]:
        return f"back to step {step['back_to']}"
    if step["ring"]:
        return f"ring {step['ring']} of roll-out {step['rollout_id']}"
    return f"roll-out {step['rollout_id']} switched back" if step["rollout_id"] else ""


@app.command()
def back(
    workload: Annotated[str, typer.Argument(help="Like device-configuration.")],
    step: Annotated[int, typer.Option(help="As `steps` lists them.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Put a workload back where it stood at a step, however many steps ago that is."""
    confirm(f"Put {workload} back where it stood at step {step}?", yes, json)
    url = f"/api/v1/comanagement/workloads/{workload}/back"
    made = site_client().post(url, {"step": step})
    emit(made, lambda value: f"{value['title']}: {value['position']}", json)


@app.command()
def switch(
    workload: Annotated[str, typer.Argument(help="Like device-configuration.")],
    position: Annotated[str, typer.Argument(help="site, pilot or mdm.")],
    collection: Annotated[
        str, typer.Option(help="Whom the pilot is for; the last one when left out.")
    ] = "",
    reason: Reason = "",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until every device has followed.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Move a workload: to the MDM service for a pilot or for all, or back to the site."""
    if position == "mdm":
        confirm(f"Hand {workload} of every co-managed device to the MDM service?", yes, json)
    api = site_client()
    made = api.put(
        f"/api/v1/comanagement/workloads/{workload}",
        {"position": position, "collection": collection, "reason": reason},
    )
    if made.get("state") == "approval":
        emit(made, _waits, json)
        return
    title = made["title"]
    move = _move(api.get("/api/v1/comanagement/status"), made["workload"])
    with progress(f"{title}: waiting for the devices…", json) as say:
        until = time.monotonic() + _WAIT_SECONDS
        while wait and not move["done"] and time.monotonic() < until:
            say(f"{title}: {move['changed']} of {move['devices']} devices")
            time.sleep(0.5)
            move = _move(api.get("/api/v1/comanagement/status"), made["workload"])
    said = (
        f"{title}: {_POSITIONS[made['position']]}. {move['changed']} of {move['devices']} co-managed"
        " devices have it where it is to be; the others follow at their next policy poll."
    )
    emit({**made, "move": move}, lambda _: said, json)


@app.command()
def waiting(json: Json = False) -> None:
    """List changes that wait for a second administrator."""
    columns = {
        "id": "Id",
        "what": "Change",
        "reaches": "Devices",
        "asked_by": "Asked by",
        "reason": "Because",
        "problem": "Cannot be done",
    }

    def said(rows: list[dict[str, Any]]) -> str:
        shown = [{**row, "what": "; ".join(row["changes"])} for row in rows]
        return table(shown, columns) if shown else "Nothing waits."

    emit(site_client().get("/api/v1/comanagement/waiting"), said, json)


Waiting = Annotated[str, typer.Argument(help="Id of what waits.")]


@app.command()
def approve(request: Waiting, yes: Yes = False, json: Json = False) -> None:
    """Let happen what another administrator asked for."""
    api = site_client()
    every = api.get("/api/v1/comanagement/waiting")
    found = next((item for item in every if item["id"] == request), None)
    seen, known = (found["reaches"], found["seen"]) if found else (0, "")
    if found:
        confirm(
            f"{found['asked_by']} wants {'; '.join(found['changes'])}, for {seen} devices,"
            f" because: {found['reason']}. Approve?",
            yes,
            json,
        )
    path = f"/api/v1/comanagement/waiting/{quote(request, safe='')}"
    emit(api.post(f"{path}/approve", {"devices": seen, "seen": known}), _text, json)


@app.command()
def cancel(request: Waiting, json: Json = False) -> None:
    """Let nothing come of what waits for a second administrator."""
    site_client().delete(f"/api/v1/comanagement/waiting/{quote(request, safe='')}")
    emit({"cancelled": request}, lambda _: "Cancelled: nothing was changed.", json)


def _move(status: dict[str, Any], workload: str) -> dict[str, Any]:
    return next(move for move in status["moves"] if move["workload"] == workload)


@app.command()
def status(json: Json = False) -> None:
    """Show how far the devices have followed, by their own account."""
    emit(site_client().get("/api/v1/comanagement/status"), _status, json)


def _status(value: dict[str, Any]) -> str:
    rows = [
        {
            **move,
            "authority": _POSITIONS[move["position"]],
            "mdm": f"{move['with_mdm']} of {move['to_mdm']}",
            "site": f"{move['with_site']} of {move['to_site']}",
            "followed": f"{move['followed']} of {move['moving']}" if move["moving"] else "",
        }
        for move in value["moves"]
    ]
    columns = {
        "workload": "Workload",
        "authority": "Set to",
        "mdm": "With the MDM service",
        "site": "With the site",
        "followed": "Followed the last change",
    }
    return (
        f"{value['clients']} clients, {value['policy_present']} with policy,"
        f" {value['mdm_enrolled']} enrolled in MDM, {value['co_managed']} co-managed\n\n"
        + table(rows, columns)
    )


@app.command()
def policies(json: Json = False) -> None:
    """List the production and pilot policies, and how many clients have applied each."""
    columns = {
        "name": "Policy",
        "kind": "Kind",
        "collection": "Collection",
        "members": "Clients",
        "applied": "Applied",
        "capabilities": "Capabilities",
        "version": "Version",
    }
    found = site_client().get("/api/v1/comanagement/policies")
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def dashboard(json: Json = False) -> None:
    """Show the figures of the co-management dashboard."""
    emit(site_client().get("/api/v1/comanagement/dashboard"), _dashboard, json)


@app.command()
def enrollments(json: Json = False) -> None:
    """List the clients that wait for their enrolment, with the moment that each has planned."""
    columns = {
        "name": "Device",
        "text": "State",
        "planned_at": "Planned for",
        "tries": "Tries",
        "error": "Error",
        "ordered_at": "Ordered",
    }
    found = site_client().get("/api/v1/comanagement/enrollments")
    rows = [{**one, "error": _error(one["code"]) if one["code"] else ""} for one in found]
    emit(found, lambda _: table(rows, columns), json)


@app.command("enroll-now")
def enroll_now(
    devices: Annotated[list[str] | None, typer.Argument(help="Devices by name or id.")] = None,
    collection: Annotated[str, typer.Option(help="All clients of a collection that wait.")] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Have clients enrol with the MDM service at their next policy, whatever moment they drew."""
    if collection:
        confirm(f"Enrol every waiting client of {collection} now?", yes, json)
    found = site_client().post(
        "/api/v1/comanagement/enroll-now", {"devices": devices or [], "collection": collection}
    )
    said = f"Ordered for {found['devices']} clients: they enrol when they next get their policy."
    emit(found, lambda _: said, json)


@app.command("enrollment-errors")
def enrollment_errors(json: Json = False) -> None:
    """List the codes of failed enrolments, and what each asks for."""
    found = site_client().get("/api/v1/comanagement/enrollment-errors")
    rows = [{**one, "code": f"0x{one['code']:08X}", "decimal": one["code"]} for one in found]
    columns = {"code": "Code", "decimal": "Decimal", "name": "Name", "text": "What it asks for"}
    emit(found, lambda _: table(rows, columns), json)


def _error(code: int) -> str:
    return f"0x{code:08X} {enrolment_error(code).text}"


_TILES = {
    "operating_systems": "Client OS distribution",
    "funnel": "Co-management status",
    "enrollment": "Co-management enrollment status",
    "workloads": "Workload transition",
    "errors": "Enrollment errors",
    "stages": "From enrolment to co-management",
}


def _dashboard(value: dict[str, Any]) -> str:
    lines = [f"{value['devices']} devices"]
    if value["without_tenant"]:
        lines.append(f"Without the tenant's half: {value['without_tenant']}")
    for key, title in _TILES.items():
        lines += ["", title]
        for name, count in value[key].items():
            shown = f"0x{int(name):08X}" if key == "errors" else name
            meant = f"  {enrolment_error(int(name)).text}" if key == "errors" else ""
            lines.append(f"  {shown:<24} {count:>6}{meant}")
    return "\n".join(lines)
