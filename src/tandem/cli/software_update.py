"""tandem software-update: which updates are approved for whom, and how they stand on devices."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tandem.cli.context import Json, Refused, Yes, confirm, emit, site_client, table
from tandem.cli.waiting import Reason, add_commands, asked

app = typer.Typer(
    help="Software updates: approve, decline, and see how they stand on devices (Linux).",
    no_args_is_help=True,
)
_URL = "/api/v1/software-updates"
_STATES = ("required", "installed", "not-applicable", "failed", "unknown")

Which = Annotated[
    str, typer.Argument(help="Id of the update, or its article where only one has it.")
]
Updates = Annotated[list[str], typer.Argument(help="Ids of updates, or their articles.")]
Collection = Annotated[str, typer.Option(help="Id or name of the collection of devices.")]


class Format(StrEnum):
    CSV = "csv"
    DEBIAN_TRACKER = "debian-tracker"


@app.command("list")
def list_(
    search: Annotated[str, typer.Option(help="Part of a name, a package or an article.")] = "",
    release: Annotated[str, typer.Option(help="Code name of a release, like bookworm.")] = "",
    decision: Annotated[str, typer.Option(help="approved, declined or none.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    json: Json = False,
) -> None:
    """List updates with what is decided about them and how they stand."""
    found = site_client().get(_URL, search=search, release=release, decision=decision, limit=limit)
    emit(found, _listed, json)


def _listed(value: dict[str, Any]) -> str:
    columns = {
        "article": "Article",
        "package": "Package",
        "fixed_version": "Fixed in",
        "release": "Release",
        "severity": "Severity",
        "decided": "Decided",
        "stands": "Devices",
    }
    rows = [{**one, "decided": _decided(one), "stands": _stands(one)} for one in value["updates"]]
    return f"{table(rows, columns)}\n{len(rows)} of {value['total']}"


def _decided(one: dict[str, Any]) -> str:
    return ", ".join(f"{d['decision']} for {d['collection']}" for d in one["decisions"]) or "-"


def _stands(one: dict[str, Any]) -> str:
    counts = one["counts"]
    told = [
        f"{state} {counts[state.replace('-', '_')]}"
        for state in _STATES
        if counts[state.replace("-", "_")]
    ]
    return ", ".join(told) or "-"


@app.command()
def show(
    which: Which,
    state: Annotated[
        str, typer.Option(help=f"Only devices where it is {', '.join(_STATES)}.")
    ] = "",
    limit: Annotated[int, typer.Option(help="At most so many devices.")] = 200,
    json: Json = False,
) -> None:
    """Show an update, and how it stands on each device."""
    found = site_client().get(f"{_URL}/{quote(which, safe='')}", state=state, limit=limit)
    emit(found, _one, json)


def _one(value: dict[str, Any]) -> str:
    columns = {"device": "Device", "state": "State", "version": "Version", "text": "Why"}
    lines = [
        f"{value['name']} ({value['id']})",
        f"  {'Source package' if value['source'] else 'Package'} {value['package']},"
        f" fixed in {value['fixed_version']}",
        f"  Release {value['release'] or 'all'}; {value['classification']}, {value['severity']}",
        f"  Superseded by {value['superseded_by'] or '-'}",
        f"  Content {value['url'] or 'from the archives of each device'}",
    ]
    for one in value["decisions"]:
        deadline = f", deadline {one['deadline']}" if one["deadline"] else ""
        lines.append(
            f"  {one['decision'].capitalize()} for {one['collection']}{deadline}, by {one['decided_by']}"
        )
    lines.append(f"  Devices: {_stands(value)}")
    return "\n".join(lines) + (f"\n{table(value['devices'], columns)}" if value["devices"] else "")


@app.command()
def create(
    package: Annotated[str, typer.Argument(help="Name of the Debian package.")],
    fixed_version: Annotated[str, typer.Argument(help="The version that has the fix.")],
    article: Annotated[str, typer.Argument(help="What it is known by, like a CVE.")],
    name: Annotated[str, typer.Option(help="A sentence for people.")] = "",
    source: Annotated[bool, typer.Option("--source", help="It is a source package.")] = False,
    release: Annotated[str, typer.Option(help="Only for this release, like bookworm.")] = "",
    classification: Annotated[
        str, typer.Option(help="critical, security, update or feature.")
    ] = "security",
    severity: Annotated[
        str, typer.Option(help="none, low, moderate, important or critical.")
    ] = "none",
    superseded_by: Annotated[str, typer.Option(help="Article that takes its place.")] = "",
    url: Annotated[str, typer.Option(help="Its content; without: each device's archives.")] = "",
    sha256: Annotated[str, typer.Option(help="Of the content, in hexadecimal digits.")] = "",
    json: Json = False,
) -> None:
    """Describe one update. It reaches nobody before it is approved."""
    wanted = {
        "package": package,
        "fixed_version": fixed_version,
        "article": article,
        "name": name,
        "source": source,
        "release": release,
        "classification": classification,
        "severity": severity,
        "superseded_by": superseded_by,
        "url": url,
        "sha256": sha256,
    }
    made = site_client().post(_URL, wanted)
    emit(made, lambda v: f"{v['name']}: {v['id']}", json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="The file.", exists=True, dir_okay=False)],
    format: Annotated[Format, typer.Option(help="csv, or JSON as the Debian security tracker's.")],
    release: Annotated[str, typer.Option(help="Only what is for this release.")] = "",
    json: Json = False,
) -> None:
    """Take all updates of a file, or none: what is wrong is refused with its position."""
    try:
        content = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(
            f"{file} is no UTF-8 text: byte {error.start} is none.", cure="Save it as UTF-8."
        ) from None
    wanted = {"format": format.value, "content": content, "release": release}
    made = site_client().post(f"{_URL}/import", wanted)
    emit(
        made,
        lambda v: f"{v['created']} new, {v['changed']} changed, {v['same']} as they were.",
        json,
    )


@app.command()
def approve(
    updates: Updates,
    collection: Collection,
    deadline: Annotated[
        str, typer.Option(help="When it is installed, like 2026-12-01T18:00:00Z; without: never.")
    ] = "",
    reason: Reason = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Approve updates for a collection."""
    body = {
        "updates": updates,
        "collection": collection,
        "decision": "approved",
        "reason": reason,
    }
    if deadline:
        body["deadline"] = _moment(deadline)
        reach = site_client().get(f"{_URL}/reach", collection=collection)
        confirm(
            f"{len(updates)} updates are installed on {reach['devices']} devices of"
            f" {reach['collection']} from {deadline} on. Go on?",
            yes,
            json,
        )
    emit(site_client().post(f"{_URL}/decisions", body), _decisions, json)


@app.command()
def decline(updates: Updates, collection: Collection, json: Json = False) -> None:
    """Decline updates for a collection: nobody in it is offered them, whoever else approves."""
    body = {"updates": updates, "collection": collection, "decision": "declined"}
    emit(site_client().post(f"{_URL}/decisions", body), _decisions, json)


@app.command()
def withdraw(which: Which, collection: Collection, json: Json = False) -> None:
    """Take a decision back. What is installed stays installed."""
    path = f"{_URL}/{quote(which, safe='')}/decisions/{quote(collection, safe='')}"
    site_client().delete(path)
    said = {"update": which, "collection": collection, "withdrawn": True}
    emit(said, lambda _: f"Nothing is decided about {which} for {collection} any more.", json)


def _decisions(value: Any) -> str:
    return asked(value, "software-update approve-waiting") or table(
        value,
        {
            "update_id": "Update",
            "collection": "Collection",
            "decision": "Decision",
            "deadline": "Deadline",
        },
    )


def _moment(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("Write a deadline like 2026-12-01T18:00:00Z.") from None
    # The clock of whoever types it, where the text names no zone.
    return (found if found.tzinfo else found.astimezone()).isoformat()


def _waits(one: dict[str, Any]) -> str:
    articles = ", ".join(f"{of['article']} {of['package']}" for of in one["updates"])
    return f"{articles}, installed from {one['deadline']} on" if one["deadline"] else articles


add_commands(app, _URL, _waits, "-waiting")


@app.command()
def delete(which: Which, json: Json = False) -> None:
    """Delete an update. It is offered no more; what is installed stays installed."""
    site_client().delete(f"{_URL}/{quote(which, safe='')}")
    emit({"update": which, "deleted": True}, lambda _: f"{which} is deleted.", json)


@app.command()
def devices(
    state: Annotated[
        str, typer.Option(help=f"Only those with updates that are {', '.join(_STATES)}.")
    ] = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    json: Json = False,
) -> None:
    """List devices by how far they are, the least compliant first."""
    found = site_client().get(f"{_URL}/devices", state=state, limit=limit)
    columns = {
        "device": "Device",
        **{one.replace("-", "_"): one.capitalize() for one in _STATES},
        "asked_at": "Asked last",
    }
    emit(found, lambda v: table(v["devices"], columns), json)


@app.command()
def device(
    name: Annotated[str, typer.Argument(help="Name of the device, its number or its client's id.")],
    state: Annotated[str, typer.Option(help=f"Only updates that are {', '.join(_STATES)}.")] = "",
    json: Json = False,
) -> None:
    """Show what is approved for a device, and how it stands there."""
    found = site_client().get(f"{_URL}/devices/{quote(name, safe='')}", state=state)
    emit(found, _device, json)


def _device(value: dict[str, Any]) -> str:
    scan = value["scan"]
    lines = [f"{value['device']}: {_stands(value)}"]
    if scan is None:
        lines.append("It has never asked the software update point.")
    else:
        installs = "what is due is installed" if scan["installs"] else "nothing is installed"
        lines.append(f"Asked last at {scan['asked_at']}; {installs}. {scan['text']}".strip())
    rows = [
        {**one, "article": one["update"]["article"], "package": one["update"]["package"]}
        for one in value["updates"]
    ]
    columns = {
        "article": "Article",
        "package": "Package",
        "state": "State",
        "version": "Version",
        "deadline": "Deadline",
        "text": "Why",
    }
    return "\n".join(lines) + (f"\n{table(rows, columns)}" if rows else "")
