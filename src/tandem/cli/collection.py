"""tandem collection: collections of devices and of users, their rules and their members."""

from typing import Annotated, Any, Literal
from urllib.parse import quote as _quote

import typer

from tandem.cli.context import Json, Yes, confirm, emit, site_client, table


def quote(name: str) -> str:
    """A name as one step of a path."""
    return _quote(name, safe="")


app = typer.Typer(help="Collections of devices and of users.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="Id or name of the collection.")]
Query = Annotated[str, typer.Option(help="select * from SMS_R_System where Name like 'LAB-%'")]

Of = Annotated[Literal["device", "user"], typer.Option("--type", help="What it has members of.")]
_USERS = {"id": "Resource", "kind": "Kind", "upn": "User", "name": "Name", "mail": "Mail"}
_DEVICES = {
    "id": "Resource",
    "name": "Device",
    "os_version": "Windows",
    "client_version": "Client",
    "client_id": "Client id",
}


Members = Annotated[
    list[str] | None, typer.Option("--member", help="Name, number or client id; repeatable.")
]
Includes = Annotated[
    list[str] | None,
    typer.Option("--include", help="Collection whose members are members too; repeatable."),
]
Excludes = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Collection whose members are never members; repeatable."),
]


Users = Annotated[
    list[str] | None,
    typer.Option("--user", help="Sign-in name, number or object id of a user; repeatable."),
]
Limiting = Annotated[
    str, typer.Option(help="Id or name of the collection that members come from; empty: all.")
]


def _type(users: list[str] | None, type: str) -> str:
    """Who names users means a collection of users."""
    return "user" if users else type


def _rules(
    query: str = "",
    members: list[str] | None = None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    users: list[str] | None = None,
) -> list[dict[str, str]]:
    return [
        *([{"kind": "query", "query": query}] if query else []),
        *({"kind": "direct", "device": item} for item in members or ()),
        *({"kind": "direct", "user": item} for item in users or ()),
        *({"kind": "include", "collection": item} for item in include or ()),
        *({"kind": "exclude", "collection": item} for item in exclude or ()),
    ]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the collection.")],
    limiting: Limiting = "",
    query: Query = "",
    member: Members = None,
    user: Users = None,
    type: Of = "device",
    include: Includes = None,
    exclude: Excludes = None,
    comment: Annotated[str, typer.Option()] = "",
    incremental: Annotated[bool, typer.Option(help="Look at devices as they change.")] = True,
    full_every: Annotated[
        int, typer.Option(help="Minutes between full evaluations; 0: never by itself.")
    ] = 10080,
    json: Json = False,
) -> None:
    """Make a collection of devices or of users, empty or with rules."""
    wanted = {
        "name": name,
        "type": _type(user, type),
        "limiting": limiting,
        "query": query,
        "comment": comment,
        "rules": _rules("", member, include, exclude, user),
        "incremental": incremental,
        "full_every_minutes": full_every,
    }
    emit(site_client().post("/api/v1/collections", wanted), _one, json)


def _one(value: dict[str, Any]) -> str:
    return f"{value['id']}  {value['name']}: {_many(value['members'])}."


def _many(count: int) -> str:
    return f"{count} member{'' if count == 1 else 's'}"


@app.command()
def preview(
    limiting: Limiting = "",
    query: Query = "",
    member: Members = None,
    user: Users = None,
    type: Of = "device",
    include: Includes = None,
    exclude: Excludes = None,
    json: Json = False,
) -> None:
    """Show who would be a member of a collection with these rules, without making it."""
    rules = _rules(query, member, include, exclude, user)
    wanted = {"type": _type(user, type), "limiting": limiting, "rules": rules}
    emit(site_client().post("/api/v1/collections/preview", wanted), _previewed, json)


def _previewed(value: dict[str, Any]) -> str:
    lines = [f"{_many(value['members'])}, found in {value['took_ms']} ms."]
    lines += [
        f"  {rule['kind']:<7}  {rule['query'] or rule['name']}: {rule['members']}"
        for rule in value["rules"]
    ]
    if value["first"]:
        lines += ["", _members(value["first"])]
    return "\n".join(lines)


@app.command()
def edit(
    collection: Which,
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    comment: Annotated[str | None, typer.Option(help="New comment.")] = None,
    limiting: Annotated[str | None, typer.Option(help="New limiting collection.")] = None,
    incremental: Annotated[
        bool | None, typer.Option(help="Look at devices as they change.")
    ] = None,
    full_every: Annotated[
        int | None, typer.Option(help="Minutes between full evaluations; 0: never by itself.")
    ] = None,
    json: Json = False,
) -> None:
    """Change a collection's name, comment, limiting collection or updates."""
    asked = {
        "name": name,
        "comment": comment,
        "limiting": limiting,
        "incremental": incremental,
        "full_every_minutes": full_every,
    }
    wanted = {key: value for key, value in asked.items() if value is not None}
    if not wanted:
        raise typer.BadParameter(
            "Say what to change: --name, --comment, --limiting, --incremental or --full-every."
        )
    emit(site_client().patch(f"/api/v1/collections/{quote(collection)}", wanted), _one, json)


@app.command("add-member")
def add_member(
    collection: Which,
    device: Annotated[list[str] | None, typer.Argument(help="Name, number or client id.")] = None,
    query: Query = "",
    json: Json = False,
) -> None:
    """Add direct rules for devices, or a query rule."""
    if bool(device) == bool(query):
        raise typer.BadParameter("Name devices, or give --query.")
    wanted = {"devices": device or [], "query": query}
    emit(site_client().post(f"/api/v1/collections/{quote(collection)}/members", wanted), _one, json)


@app.command("add-rule")
def add_rule(
    collection: Which,
    include: Includes = None,
    exclude: Excludes = None,
    query: Query = "",
    user: Users = None,
    name: Annotated[str, typer.Option(help="Name of the query rule.")] = "",
    json: Json = False,
) -> None:
    """Add rules: users, a query, or collections to include or exclude (exclude wins)."""
    rules = _rules(query, None, include, exclude, user)
    if not rules:
        raise typer.BadParameter("Give --include, --exclude, --user or --query.")
    if query:
        rules[0]["name"] = name
    path = f"/api/v1/collections/{quote(collection)}/rules"
    emit(site_client().post(path, {"rules": rules}), _one, json)


@app.command("remove-rule")
def remove_rule(
    collection: Which,
    rule: Annotated[str, typer.Argument(help="Name of the rule: the device, or the query.")],
    json: Json = False,
) -> None:
    """Remove a rule: a direct rule by its device's name, another by its own."""
    api = site_client()
    path = f"/api/v1/collections/{quote(collection)}/rules"
    found = _every(path, search=rule)
    known = [item for item in found if item["name"].casefold() == rule.casefold()]
    for item in known:
        api.delete(f"{path}/{item['id']}")
    said = f"Removed {len(known)} rule{'' if len(known) == 1 else 's'}."
    emit({"removed": [item["name"] for item in known]}, lambda _: said, json)


@app.command("list")
def list_collections(
    search: Annotated[str, typer.Option(help="Only with this in name, id or comment.")] = "",
    type: Annotated[
        Literal["device", "user"] | None, typer.Option(help="Only those of devices, or of users.")
    ] = None,
    json: Json = False,
) -> None:
    """List collections with the number of their members."""
    columns = {
        "id": "Collection",
        "name": "Name",
        "type": "Of",
        "limiting_name": "Limited by",
        "members": "Members",
        "comment": "Comment",
    }
    found = _every("/api/v1/collections", search=search or None, type=type)
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def show(collection: Which, json: Json = False) -> None:
    """Show a collection with its rules."""
    emit(site_client().get(f"/api/v1/collections/{quote(collection)}"), _with_rules, json)


def _with_rules(value: dict[str, Any]) -> str:
    lines = [_one(value), f"  Limited by  {value['limiting_name'] or '-'}"]
    lines += [f"  Built in    {value['rule_of_the_site']}"] if value["built_in"] else []
    lines += [f"  {rule['kind']:<7}  {rule['query'] or rule['name']}" for rule in value["rules"]]
    more = value["rule_count"] - len(value["rules"])
    lines += [f"  and {more} more"] if more else []
    lines += _evaluated(value)
    return "\n".join(lines)


def _evaluated(value: dict[str, Any]) -> list[str]:
    """What finding the members costs, and when it is done next."""
    found = value["evaluation"]
    lines = [f"  Cannot be evaluated: {value['trouble']}"] if value["trouble"] else []
    if found:
        lines.append(f"  Full update         {found['took_ms']} ms at {found['at']}")
        if found["incremental_runs"]:
            each = found["incremental_total_ms"] / found["incremental_runs"]
            lines.append(
                f"  Incremental update  {each:.1f} ms on average, {found['incremental_runs']} so far"
            )
    lines.append(f"  Next full update    {value['full_due_at'] or 'by hand'}")
    if not value["incremental"]:
        lines.append("  Incremental update  off")
    return lines


@app.command()
def costs(json: Json = False) -> None:
    """List collections by what evaluating them costs, the dearest first."""
    columns = {
        "id": "Collection",
        "name": "Name",
        "full_ms": "Full, ms",
        "incremental_ms": "Incremental, ms",
        "evaluated_members": "Members",
        "evaluated_at": "Evaluated",
    }
    found = _every("/api/v1/collections", sort="-cost", count="false")
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def classes(json: Json = False) -> None:
    """List the classes that queries read, with their attributes."""
    found = site_client().get("/api/v1/collections/classes")
    emit(found, _classes, json)


def _classes(rows: list[dict[str, Any]]) -> str:
    named = [
        {"class": row["name"], "attributes": ", ".join(item["name"] for item in row["attributes"])}
        for row in rows
    ]
    return table(named, {"class": "Class", "attributes": "Attributes"})


@app.command()
def uses(collection: Which, json: Json = False) -> None:
    """Show what a collection is used for."""
    found = site_client().get(f"/api/v1/collections/{quote(collection)}/uses")
    columns = {"kind": "Used as", "name": "By", "detail": "Detail"}
    emit(
        found, lambda rows: table(rows, columns) if rows else "Nothing uses this collection.", json
    )


@app.command()
def graph(collection: Which, json: Json = False) -> None:
    """Show what a collection depends on, and what depends on it."""
    path = f"/api/v1/collections/{quote(collection)}"
    api = site_client()
    one = api.get(path)
    found = {"id": one["id"], "name": one["name"], **api.get(f"{path}/dependencies")}
    emit(found, _graph, json)


_HOW = {"limit": "limited by", "include": "includes", "exclude": "excludes"}


def _graph(value: dict[str, Any]) -> str:
    names = {item["id"]: item["name"] for item in (*value["needs"], *value["needed_by"])}
    names[value["id"]] = value["name"]
    rows = [
        {"of": names[edge["of"]], "how": _HOW[edge["how"]], "on": names[edge["on"]]}
        for edge in value["edges"]
    ]
    if not rows:
        return f"{value['name']} depends on nothing, and nothing depends on it."
    return table(rows, {"of": "Collection", "how": "", "on": "Collection"})


@app.command("update-membership")
def update_membership(collection: Which, json: Json = False) -> None:
    """Find the members among all devices now, and say how long it took."""
    found = site_client().post(f"/api/v1/collections/{quote(collection)}/evaluate")
    emit(found, lambda v: f"{_many(v['members'])}, found in {v['took_ms']} ms.", json)


@app.command()
def members(
    collection: Which,
    search: Annotated[str, typer.Option(help="Only members whose name begins so.")] = "",
    json: Json = False,
) -> None:
    """List the devices or the users that are members now."""
    path = f"/api/v1/collections/{quote(collection)}/members"
    emit(_every(path, search=search or None), _members, json)


@app.command()
def devices(
    search: Annotated[str, typer.Option(help="Only devices whose name begins so.")] = "",
    json: Json = False,
) -> None:
    """List every device that the site knows."""
    emit(_every("/api/v1/resources", search=search or None), _devices, json)


@app.command()
def users(
    search: Annotated[str, typer.Option(help="Only users whose name or mail begins so.")] = "",
    json: Json = False,
) -> None:
    """List the users that discovery found in the tenant."""
    columns = {"upn": "User", "name": "Name", "mail": "Mail", "discovered_at": "Discovered"}
    found = _every("/api/v1/users", search=search or None)
    emit(found, lambda rows: table(rows, columns), json)


@app.command("groups")
def user_groups(
    search: Annotated[str, typer.Option(help="Only groups whose name begins so.")] = "",
    members: Annotated[
        str, typer.Option(help="The users in this group, by number, object id or name.")
    ] = "",
    json: Json = False,
) -> None:
    """List the groups of users that discovery found in the tenant, or who is in one."""
    if members:
        path = f"/api/v1/user-groups/{quote(members)}/members"
        emit(_every(path, search=search or None), _members, json)
        return
    columns = {"id": "Resource", "name": "Group", "members": "Users", "discovered_at": "Discovered"}
    found = _every("/api/v1/user-groups", search=search or None)
    emit(found, lambda rows: table(rows, columns), json)


def _every(path: str, **query: Any) -> list[dict[str, Any]]:
    api = site_client()
    found: list[dict[str, Any]] = []
    while True:
        page = api.get(path, offset=len(found), limit=1000, **query)
        found += page["items"]
        if not page["items"] or len(found) >= page["total"]:
            return found


def _devices(rows: list[dict[str, Any]]) -> str:
    return table(rows, _DEVICES)


def _members(rows: list[dict[str, Any]]) -> str:
    return table(rows, _USERS if rows and "upn" in rows[0] else _DEVICES)


@app.command()
def limit(
    collection: Which,
    limiting: Annotated[str, typer.Argument(help="Id or name of the new limiting collection.")],
    json: Json = False,
) -> None:
    """Limit a collection by another one."""
    changed = site_client().patch(
        f"/api/v1/collections/{quote(collection)}", {"limiting": limiting}
    )
    emit(changed, _one, json)


@app.command()
def delete(collection: Which, yes: Yes = False, json: Json = False) -> None:
    """Delete a collection that nothing uses."""
    confirm(f"Delete the collection {collection}?", yes, json)
    site_client().delete(f"/api/v1/collections/{quote(collection)}")
    emit({"deleted": collection}, lambda _: f"Deleted {collection}.", json)
