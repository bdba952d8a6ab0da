"""tandem device: the devices of both authorities, as the site knows them."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Refused, Yes, confirm, emit, named, site_client, table

app = typer.Typer(help="The devices of both authorities.", no_args_is_help=True)

_PATH = "/api/v1/devices"
_MOST = 1000
_COLUMNS = {
    "name": "Device",
    "user": "User",
    "os_version": "Windows",
    "management": "Managed by",
    "stage": "Reached",
    "client_version": "Client",
    "last_seen_at": "Last seen",
    "id": "Id",
}

Search = Annotated[str, typer.Option(help="How a name or user begins; *text: anywhere in it.")]
Management = Annotated[str, typer.Option(help="co-managed, mdm, site or nobody.")]
Stage = Annotated[
    str,
    typer.Option(
        help="Has reached: licensed, enrolled, app-offered, msi-installed, registered, policy or"
        " co-managed."
    ),
]
Missing = Annotated[str, typer.Option(help="Has not reached: a stage.")]
Failed = Annotated[bool, typer.Option(help="Whose enrolment was refused.")]
Blocked = Annotated[bool, typer.Option(help="That the site has blocked.")]
Unlicensed = Annotated[bool, typer.Option(help="Co-managed, of users without a licence.")]
Devices = Annotated[list[str] | None, typer.Argument(help="Ids of devices.")]
All = Annotated[bool, typer.Option("--all", help="Every device that the filter matches.")]


def _filter(**given: Any) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value not in ("", False)}


@app.command("list")
def list_devices(
    search: Search = "",
    management: Management = "",
    stage: Stage = "",
    missing: Missing = "",
    failed: Failed = False,
    blocked: Blocked = False,
    unlicensed: Unlicensed = False,
    sort: Annotated[
        str, typer.Option(help="name, user, os, management, stage, client or seen.")
    ] = "name",
    descending: Annotated[bool, typer.Option(help="The last ones first.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=_MOST)] = 100,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    json: Json = False,
) -> None:
    """List devices, and say how many match."""
    wanted = _filter(
        search=search,
        management=management,
        stage=stage,
        missing=missing,
        failed=failed,
        blocked=blocked,
        unlicensed=unlicensed,
    )
    found = site_client().get(
        _PATH,
        **{name: "true" if value is True else value for name, value in wanted.items()},
        sort=sort,
        descending="true" if descending else "false",
        limit=limit,
        offset=offset,
    )
    emit(found, _listed, json)


def _listed(found: dict[str, Any]) -> str:
    lines = [table(found["devices"], _COLUMNS), "", f"{found['total']} devices match."]
    if found["tenant"]["silence"]:
        read = found["tenant"]["read_at"] or "never"
        lines.append(f"What the tenant knows was read {read}: {found['tenant']['silence']}")
    return "\n".join(lines)


@app.command()
def show(device: Annotated[str, typer.Argument(help="Id or name.")], json: Json = False) -> None:
    """Show what both authorities know of a device, and what each wants of it."""
    emit(_of_device(device), _shown, json)


def _shown(found: dict[str, Any]) -> str:
    device = found["device"]
    lines = [
        f"{device['name']}  {device['user']}  {device['management']}",
        f"Reached: {', '.join(device['stages'])}",
    ]
    if device["blocked"]:
        lines.append("The site has blocked its client.")
    lines += [
        "",
        table(
            found["owners"],
            {
                "workload": "Workload",
                "reported": "Owner, as reported",
                "decided": "Owner, as decided",
            },
        ),
    ]
    state = (found["client"] or {}).get("state") or {}
    if state.get("enacted"):
        rows = [{"setting": name, **one} for name, one in state["enacted"].items()]
        columns = {"setting": "Setting", "source": "By", "code": "Effect", "text": "What happened"}
        lines += ["", table(rows, columns)]
    if state.get("facts"):
        lines += ["", *(f"{name}: {value}" for name, value in state["facts"].items())]
    lines += ["", "Collections: " + ", ".join(item["name"] for item in found["collections"])]
    return "\n".join(lines)


@app.command()
def ledger(
    device: Annotated[str, typer.Argument(help="Id or name.")],
    check: Annotated[bool, typer.Option(help="Check every signature again.")] = False,
    acknowledge: Annotated[
        str, typer.Option(metavar="REASON", help="Take note of what breaks the proof, and say why.")
    ] = "",
    json: Json = False,
) -> None:
    """Show who owned each workload of a device and who wrote what, and whether its proof holds.

    What was found stays with the ledger. With --acknowledge it breaks the proof no longer: it holds
    for what comes then.
    """
    found = _of_device(device, "ledger", **({"check": "true"} if check else {}))
    if acknowledge:
        seen = {"reason": acknowledge, "seen": found["findings_kept"]}
        path = f"{_PATH}/{quote(found['device']['id'], safe='')}/ledger/acknowledge"
        found = site_client().post(path, seen)
    emit(found, _proof, json)


@app.command()
def settings(
    device: Annotated[str, typer.Argument(help="Id or name.")], json: Json = False
) -> None:
    """Show the settings of a device over both authorities: what is in force, whose it is, who wrote
    it last by the device's ledger, and who lost and why."""
    emit(_of_device(device, "settings"), _settings, json)


def _by(one: dict[str, Any]) -> str:
    return f"{one['source']}, for {one['user']}" if one["user"] else one["source"] or "–"


def _settings(found: dict[str, Any]) -> str:
    columns = {
        "setting": "Setting",
        "value": "Value",
        "state": "State",
        "source": "In force by",
        "owner": "Owner",
        "written": "Written by",
        "others": "Lost",
    }
    rows = [
        {
            **one,
            "value": "–" if one["value"] is None else one["value"][:60],
            "source": _by(one),
            "written": f"{one['written_by']} (entry {one['entry']})" if one["written_by"] else "–",
            "others": "; ".join(
                f"{item['name']} ({item['user'] or item['authority']}): {item['why']}"
                for item in one["contenders"]
                if item["role"] == "loses"
            ),
        }
        for one in found["settings"]
    ]
    lines = [found["device"]["name"], "", table(rows, columns)]
    if found["user"]:
        lines += ["", f"It has the policy of {found['user']}, after its own."]
    if found["without_tenant"]:
        lines += ["", f"What the tenant has for it is missing: {found['without_tenant']}"]
    return "\n".join(lines)


@app.command()
def timeline(
    device: Annotated[str, typer.Argument(help="Id or name.")],
    trace: Annotated[str, typer.Option(help="Only the story with this trace id.")] = "",
    json: Json = False,
) -> None:
    """Tell what happened on a device as one story for each cause, and what is waited for."""
    emit(_of_device(device, "timeline", **({"trace": trace} if trace else {})), _stories, json)


def _stories(found: dict[str, Any]) -> str:
    lines = [found["device"]["name"]]
    for story in found["stories"]:
        lines += ["", f"{story['state']}  trace {story['trace']}"]
        lines += [f"  {_step(step)}" for step in story["steps"]]
        lines += [f"  also: {_step(step)}" for step in story["also"]]
    if not found["stories"]:
        lines += ["", "Nothing has been recorded with a trace yet."]
    if found["without_timeline"]:
        lines += ["", f"The MDM service's part is missing: {found['without_timeline']}"]
    return "\n".join(lines)


def _step(step: dict[str, Any]) -> str:
    at = step["at"] or f"since {step['since']}"
    text = step["text"] + (f" ({', '.join(step['workloads'])})" if step["workloads"] else "")
    who = step["who"] or {"site": "site", "device": "device", "mdm": "MDM service"}[step["source"]]
    return f"{'..' if step['at'] is None else '  '} {at}  {who}: {text}"


def _of_device(device: str, part: str = "", **asked: str) -> dict[str, Any]:
    """What the site knows of a device, or a part of it, by its id or name."""
    site = site_client()
    below = f"/{part}" if part else ""
    try:
        found: dict[str, Any] = site.get(f"{_PATH}/{quote(device, safe='')}{below}", **asked)
    except Refused as error:
        if error.remote != "fleet.no-such-device":
            raise
        listed = site.get(_PATH, search=device, limit=_MOST)["devices"]
        cure = "`tandem device list` shows all of them."
        id = named(listed, device, kind="device", cure=cure, key="name")["id"]
        found = site.get(f"{_PATH}/{quote(id, safe='')}{below}", **asked)
    return found


def _proof(found: dict[str, Any]) -> str:
    verdict = "holds" if found["holds"] else "DOES NOT HOLD"
    lines = [
        f"{found['device']['name']}: the proof {verdict}. {found['entries_total']} entries, the last"
        f" one received {found['received_at']}.",
    ]
    if found["checked"]:
        lines.append("Every signature was checked again just now.")
    if found["kept_from"] > 1:
        lines.append(
            f"The site keeps the entries from {found['kept_from']} on; what came before is in the"
            " device's signature there."
        )
    for one in found["findings"]:
        told = f"  {'broken' if one['breaks'] else 'doubt'}: {one['text']}"
        if one["acknowledged_at"]:
            told += f" (acknowledged by {one['acknowledged_by']}: {one['reason']})"
        lines.append(told)
    owners = [{**one, "state": _state(one)} for one in found["owners"]]
    columns = {"workload": "Workload", "owner": "Owner", "since": "Since", "state": "State"}
    lines += ["", table(owners, columns)]
    columns = {"setting": "Setting", "authority": "Set by", "at": "At", "number": "Entry"}
    lines += ["", table(found["settings"], columns)] if found["settings"] else []
    columns = {
        "number": "Entry",
        "at": "At",
        "kind": "What",
        "workload": "Workload",
        "authority": "Authority",
        "setting": "Setting",
        "reason": "Reason",
    }
    return "\n".join([*lines, "", table(found["entries"][:20], columns)])


def _state(held: dict[str, Any]) -> str:
    if held["overdue"]:
        return "hand-over overdue"
    return "being handed over" if held["handing"] else "settled"


def _selection(devices: list[str] | None, every: bool, wanted: dict[str, Any]) -> dict[str, Any]:
    return {"filter": wanted} if every or (wanted and not devices) else {"devices": devices or []}


def _act(
    action: str, question: str, selection: dict[str, Any], yes: bool, json: bool, **more: Any
) -> None:
    """Ask how far it reaches, ask a person, and do it to exactly so many."""
    site = site_client()
    reach = site.post(f"{_PATH}/selection", selection)
    number, rest = reach["clients"], reach["without_client"]
    left = f" ({rest} more are not clients of the site)" if rest else ""
    confirm(question.format(number=f"{number} devices{left}"), yes, json)
    done = site.post(f"{_PATH}/{action}", {**selection, **more, "expected": reach["devices"]})
    emit(done, lambda value: f"{value['changed']} of {value['clients']} clients changed.", json)


@app.command()
def block(
    devices: Devices = None,
    every: All = False,
    search: Search = "",
    management: Management = "",
    stage: Stage = "",
    missing: Missing = "",
    failed: Failed = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Block the clients of devices: the site takes nothing from them any more."""
    wanted = _filter(
        search=search, management=management, stage=stage, missing=missing, failed=failed
    )
    _act("block", "Block {number}?", _selection(devices, every, wanted), yes, json)


@app.command()
def unblock(
    devices: Devices = None,
    every: All = False,
    search: Search = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Unblock the clients of devices; with --all those of all blocked devices."""
    wanted = _filter(search=search, blocked=every)
    _act("unblock", "Unblock {number}?", _selection(devices, every, wanted), yes, json)


@app.command("add-to-collection")
def add_to_collection(
    collection: Annotated[str, typer.Argument(help="Id or name of the collection.")],
    devices: Devices = None,
    every: All = False,
    search: Search = "",
    management: Management = "",
    stage: Stage = "",
    missing: Missing = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Give a collection a direct rule for each of these devices."""
    wanted = _filter(search=search, management=management, stage=stage, missing=missing)
    _act(
        "add-to-collection",
        f"Add {{number}} to {collection}?",
        _selection(devices, every, wanted),
        yes,
        json,
        collection=collection,
    )
