"""tandem audit: who did what in the tenant, and the proof that nobody rewrote it."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from tandem import audit
from tandem.cli.context import Api, Json, Refused, emit, graph_client, profile_path, progress, table
from tandem.infra.secrets import write_private

app = typer.Typer(help="The tenant's audit log and its proof.", no_args_is_help=True)


@app.command("list")
def list_entries(
    target: Annotated[str | None, typer.Option(help="Only about the object with this id.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this sign-in name.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this time on (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=999)] = 50,
    json: Json = False,
) -> None:
    """List who did what, the newest first."""
    conditions = []
    if target:
        conditions.append(f"targetResources/any(t:t/id eq '{_quoted(target)}')")
    if actor:
        conditions.append(f"initiatedBy/user/userPrincipalName eq '{_quoted(actor)}'")
    if since:
        conditions.append(f"activityDateTime ge {since}")
    query: dict[str, Any] = {"$top": limit}
    if conditions:
        query["$filter"] = " and ".join(conditions)
    found = graph_client().get("/v1.0/auditLogs/directoryAudits", **query)["value"]
    columns = {"at": "When", "who": "Who", "did": "Did", "to": "To", "changed": "Changed"}
    emit(found, lambda items: table([_row(item) for item in items], columns), json)


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _row(item: dict[str, Any]) -> dict[str, Any]:
    by, (target, *_) = item["initiatedBy"], item["targetResources"]
    who = by["user"]["userPrincipalName"] if by["user"] else by["app"]["displayName"]
    return {
        "at": item["activityDateTime"][:19],
        "who": who,
        "did": item["activityDisplayName"],
        "to": target["displayName"] or target["id"],
        "changed": ", ".join(prop["displayName"] for prop in target["modifiedProperties"]),
    }


@app.command()
def key(
    output: Annotated[Path | None, typer.Option(help="Write the public key to this file.")] = None,
    json: Json = False,
) -> None:
    """Show the public key that the log's heads are signed with. Keep it where the log is not."""
    pem = graph_client().get("/v1.0/tandem/auditKey")["publicKey"]
    if output is not None:
        output.write_text(pem, "ascii")
    value = {"key_id": audit.key_id(audit.read_public_key(pem.encode())), "public_key": pem}
    emit(value, lambda _: f"{pem}Key id {value['key_id']}", json)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write; it is made.")],
    trust_new_key: Annotated[
        bool, typer.Option(help="The key was changed on purpose: remember the new one.")
    ] = False,
    json: Json = False,
) -> None:
    """Export every entry with the signed heads, and verify what was exported.

    The key and the newest head are remembered on this computer, beside the profile: the next
    export has to agree with them. Keep `head.json` somewhere else too.
    """
    graph = graph_client()
    pem = graph.get("/v1.0/tandem/auditKey")
    trusted = _remembered("pem")
    if trusted.exists() and trusted.read_text("ascii") != pem["publicKey"] and not trust_new_key:
        raise Refused(
            "The log is signed with another key than the one that this computer remembers.",
            cure="Find out who changed it. If it was changed on purpose: --trust-new-key.",
        )
    with progress("Reading the log", json) as said:
        count = audit.write_export(
            folder, _entries(graph, pem["entries"], said), _heads(graph), pem["publicKey"]
        )
    keys = [audit.read_public_key(pem["publicKey"].encode())]
    if trust_new_key and trusted.exists():
        keys.append(audit.read_public_key(trusted.read_bytes()))
    exported = audit.read_export(folder)
    problems = audit.inspect(exported, keys, _remembered_heads())
    if not problems:
        write_private(trusted, pem["publicKey"].encode())
        if exported.heads:
            write_private(_remembered("head.json"), msgspec.json.encode(exported.heads[-1]))
    _answer(folder, count, problems, json)


def _entries(graph: Api, last: int, said: Any) -> Any:
    after = 0
    while after < last:
        asked = {"$filter": f"id gt {after} and id le {last}", "$top": 999}
        page = graph.get("/v1.0/tandem/auditEntries", **asked)["value"]
        if not page:
            return
        for item in page:
            previous, digest = item.pop("previous"), item.pop("digest")
            yield audit.Stored(msgspec.convert(item, audit.Entry), previous, digest)
        after = page[-1]["id"]
        said(f"Reading the log: {after} of {last}")


def _heads(graph: Api) -> list[audit.Head]:
    names = {"keyId": "key_id"}
    return [
        msgspec.convert({names.get(name, name): value for name, value in item.items()}, audit.Head)
        for item in graph.every("/v1.0/tandem/auditHeads", **{"$top": 999})
    ]


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder that `audit export` wrote.")],
    public_key: Annotated[
        list[Path] | None, typer.Option(help="Key that you trust (PEM); repeatable.")
    ] = None,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(help="A head.json, heads.jsonl or older export from another place."),
    ] = None,
    json: Json = False,
) -> None:
    """Verify an exported log from files alone: nothing is asked of the tenant.

    Without --public-key the key that this computer remembers from its own export is used, never
    the one that lies in the folder: who can rewrite the log can replace that too.
    """
    paths = list(public_key or ())
    if not paths and _remembered("pem").exists():
        paths = [_remembered("pem")]
    if not paths:
        raise Refused(
            "There is no key to verify with.",
            cure="Give --public-key with the file that `tandem audit key --output` wrote.",
        )
    try:
        keys = [audit.read_public_key(path.read_bytes()) for path in paths]
    except OSError as error:
        raise Refused(
            f"The key cannot be read ({error.strerror}).", cure="Check the path."
        ) from None
    anchors = [head for path in anchor or () for head in audit.read_heads(path)]
    if not public_key:
        anchors += _remembered_heads()
    exported = audit.read_export(folder)
    count = exported.heads[-1].entries if exported.heads else 0
    _answer(folder, count, audit.inspect(exported, keys, anchors), json)


def _remembered(what: str) -> Path:
    return profile_path().with_name(f"{profile_path().stem}.audit.{what}")


def _remembered_heads() -> list[audit.Head]:
    path = _remembered("head.json")
    return audit.read_heads(path) if path.exists() else []


def _answer(folder: Path, count: int, problems: list[audit.Problem], json: bool) -> None:
    value = {"folder": folder, "entries": count, "whole": not problems, "problems": problems}
    said = f"{count} entries, each as it was signed. Nothing is missing."
    lines = [f"The log in {folder} is not what was signed:"]
    lines += [f"  {item.text}" for item in problems]
    emit(value, lambda _: "\n".join(lines) if problems else said, json)
    if problems:
        raise typer.Exit(1)
