"""tandem audit: who did what in the tenant or at the site, and the proof that nobody rewrote it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import typer

from tandem import audit
from tandem.cli.context import (
    Json,
    Refused,
    emit,
    graph_client,
    profile_path,
    progress,
    site_client,
    table,
)
from tandem.infra.secrets import write_private

app = typer.Typer(help="The audit logs of tenant and site, and their proof.", no_args_is_help=True)


class Of(StrEnum):
    TENANT = "tenant"
    SITE = "site"


Whose = Annotated[Of, typer.Option("--of", help="Whose log: tenant or site.")]


@app.command("list")
def list_entries(
    target: Annotated[str | None, typer.Option(help="Only about the object with this id.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this sign-in name.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this time on (UTC).")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only actions that begin so (of the site's log).")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only before this time (of the site's log).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=999)] = 50,
    of: Whose = Of.TENANT,
    json: Json = False,
) -> None:
    """List who did what, the newest first."""
    columns = {"at": "When", "who": "Who", "did": "Did", "to": "To", "changed": "Changed"}
    if of is Of.SITE:
        asked = {"actor": actor, "action": action, "target": target, "from": since, "to": until}
        found = site_client().get("/api/v1/audit", limit=limit, **asked)["items"]
        emit(found, lambda items: table([_site_row(item) for item in items], columns), json)
        return
    if action or until:
        raise typer.BadParameter("--action and --until are for --of site.")
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


def _site_row(item: dict[str, Any]) -> dict[str, Any]:
    changed = item["details"].get("changed") or []
    return {
        "at": item["at"][:19],
        "who": item["actor"],
        "did": item["action"],
        "to": item["details"].get("name") or item["target"],
        "changed": ", ".join(str(each["name"]) for each in changed),
    }


@app.command()
def check(of: Whose = Of.SITE, json: Json = False) -> None:
    """Have the site or the tenant verify its own log where it is. An export proves more."""
    if of is Of.TENANT:
        found = graph_client().post("/v1.0/tandem/verifyAudit", {})
        answer = {name: found[name] for name in ("whole", "entries", "problems")}
    else:
        answer = site_client().post("/api/v1/audit/verification")["verification"]
    said = f"{answer['entries']} entries, each follows from the one before."
    wrong = "\n".join(["The log is not whole:", *(f"  {p['text']}" for p in answer["problems"])])
    emit(answer, lambda value: said if value["whole"] else wrong, json)
    if not answer["whole"]:
        raise typer.Exit(1)


@app.command()
def key(
    output: Annotated[Path | None, typer.Option(help="Write the public key to this file.")] = None,
    of: Whose = Of.TENANT,
    json: Json = False,
) -> None:
    """Show the public key that the log's heads are signed with. Keep it where the log is not."""
    pem = _source(of).key()[0]
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
    of: Whose = Of.TENANT,
    json: Json = False,
) -> None:
    """Export every entry with the signed heads, and verify what was exported.

    The key and the newest head are remembered on this computer, beside the profile: the next
    export has to agree with them. Keep `head.json` somewhere else too.
    """
    source = _source(of)
    pem, last = source.key()
    trusted = _remembered(of, "pem")
    if trusted.exists() and trusted.read_text("ascii") != pem and not trust_new_key:
        raise Refused(
            "The log is signed with another key than the one that this computer remembers.",
            cure="Find out who changed it. If it was changed on purpose: --trust-new-key.",
        )
    with progress("Reading the log", json) as said:
        count = audit.write_export(folder, _entries(source, last, said), source.heads(), pem)
    keys = [audit.read_public_key(pem.encode())]
    if trust_new_key and trusted.exists():
        keys.append(audit.read_public_key(trusted.read_bytes()))
    exported = audit.read_export(folder)
    problems = audit.inspect(exported, keys, _remembered_heads(of))
    if not problems:
        write_private(trusted, pem.encode())
        if exported.heads:
            write_private(_remembered(of, "head.json"), msgspec.json.encode(exported.heads[-1]))
    _answer(folder, count, problems, json)


class _Source(Protocol):
    """Where a log is read from."""

    def key(self) -> tuple[str, int]:
        """The public key, and the number of entries that the newest head covers."""

    def page(self, after: int, last: int) -> list[dict[str, Any]]:
        """Some entries with their digests, oldest first."""

    def heads(self) -> list[audit.Head]: ...


class _Tenant:
    def __init__(self) -> None:
        self._graph = graph_client()

    def key(self) -> tuple[str, int]:
        found = self._graph.get("/v1.0/tandem/auditKey")
        return found["publicKey"], found["entries"]

    def page(self, after: int, last: int) -> list[dict[str, Any]]:
        asked = {"$filter": f"id gt {after} and id le {last}", "$top": 999}
        found = self._graph.get("/v1.0/tandem/auditEntries", **asked)["value"]
        parts = ({**item} for item in found)
        return [
            {"previous": item.pop("previous"), "digest": item.pop("digest"), "entry": item}
            for item in parts
        ]

    def heads(self) -> list[audit.Head]:
        names = {"keyId": "key_id"}
        return [
            msgspec.convert(
                {names.get(name, name): value for name, value in item.items()}, audit.Head
            )
            for item in self._graph.every("/v1.0/tandem/auditHeads", **{"$top": 999})
        ]


class _Site:
    def __init__(self) -> None:
        self._api = site_client()

    def key(self) -> tuple[str, int]:
        found = self._api.get("/api/v1/audit/key")
        return found["public_key"], found["entries"]

    def page(self, after: int, last: int) -> list[dict[str, Any]]:
        found = self._api.get("/api/v1/audit/entries", after=after)
        return [item for item in found if item["entry"]["id"] <= last]

    def heads(self) -> list[audit.Head]:
        heads: list[audit.Head] = []
        while page := self._api.get("/api/v1/audit/heads", after=len(heads)):
            heads += [msgspec.convert(item, audit.Head) for item in page]
        return heads


def _source(of: Of) -> _Source:
    return _Site() if of is Of.SITE else _Tenant()


def _entries(source: _Source, last: int, said: Any) -> Any:
    after = 0
    while after < last:
        page = source.page(after, last)
        if not page:
            return
        for item in page:
            entry = msgspec.convert(item["entry"], audit.Entry)
            yield audit.Stored(entry, item["previous"], item["digest"])
        after = page[-1]["entry"]["id"]
        said(f"Reading the log: {after} of {last}")


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
    of: Whose = Of.TENANT,
    json: Json = False,
) -> None:
    """Verify an exported log from files alone: nothing is asked of tenant or site.

    Without --public-key the key that this computer remembers from its own export is used, never
    the one that lies in the folder: who can rewrite the log can replace that too.
    """
    paths = list(public_key or ())
    if not paths and _remembered(of, "pem").exists():
        paths = [_remembered(of, "pem")]
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
        anchors += _remembered_heads(of)
    exported = audit.read_export(folder)
    count = exported.heads[-1].entries if exported.heads else 0
    _answer(folder, count, audit.inspect(exported, keys, anchors), json)


def _remembered(of: Of, what: str) -> Path:
    whose = "audit" if of is Of.TENANT else "site-audit"
    return profile_path().with_name(f"{profile_path().stem}.{whose}.{what}")


def _remembered_heads(of: Of) -> list[audit.Head]:
    path = _remembered(of, "head.json")
    return audit.read_heads(path) if path.exists() else []


def _answer(folder: Path, count: int, problems: list[audit.Problem], json: bool) -> None:
    value = {"folder": folder, "entries": count, "whole": not problems, "problems": problems}
    said = f"{count} entries, each as it was signed. Nothing is missing."
    lines = [f"The log in {folder} is not what was signed:"]
    lines += [f"  {item.text}" for item in problems]
    emit(value, lambda _: "\n".join(lines) if problems else said, json)
    if problems:
        raise typer.Exit(1)
