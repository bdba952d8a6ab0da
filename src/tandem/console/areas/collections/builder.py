"""The collection builder: rules with a live preview of who they bring, in a wizard.

The conditions below the query are a pen: they write the query, which is what is kept.
"""

import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Draft,
    Fact,
    Field,
    NotSignedIn,
    Option,
    Outcome,
    Page,
    Problem,
    Step,
    Wizard,
    field,
)
from tandem.infra.errors import AppError

PATH = f"{ROOT}/collections"
API = "/api/v1/collections"
ALL_SYSTEMS = "SMS00001"
ALL_USERS = "SMS00004"
KEY, ADD_KEY = "collection", "collection-rules"
USER_KEY, USER_ADD_KEY = "user-collection", "user-collection-rules"

# Pen ------------------------------------------------------------------------------------

ATTRIBUTES = {
    "Name": N_("Name"),
    "ClientVersion": N_("Client version"),
    "OperatingSystemNameandVersion": N_("Operating system and version"),
    "Build": N_("Build of the operating system"),
    "SMSUniqueIdentifier": N_("Client id"),
    "AADDeviceID": N_("Device id in the tenant"),
    "AADTenantID": N_("Tenant id"),
}
USER_ATTRIBUTES = {
    "UserPrincipalName": N_("Sign-in name"),
    "FullUserName": N_("Name"),
    "Mail": N_("Mail"),
    "FullDomainName": N_("Domain"),
    "DistinguishedName": N_("Distinguished name"),
    "AADUserID": N_("User id in the tenant"),
    "AADTenantID": N_("Tenant id"),
}
OPERATORS = {
    "begins": N_("begins with"),
    "contains": N_("contains"),
    "ends": N_("ends with"),
    "is": N_("is"),
    "not": N_("is not"),
    "least": N_("is at least"),
    "below": N_("is below"),
    "empty": N_("is empty"),
    "filled": N_("is not empty"),
}
_PATTERNS = {"begins": "{}%", "contains": "%{}%", "ends": "%{}"}
_COMPARISONS = {"is": "=", "not": "<>", "least": ">=", "below": "<"}
_ROWS = 4


def conditions(form: Mapping[str, str]) -> list[dict[str, str]]:
    """The rows of the builder, as they were sent."""
    return [
        {
            "attribute": form.get(f"attribute{row}", ""),
            "operator": form.get(f"operator{row}", ""),
            "value": form.get(f"value{row}", "")[:200],
        }
        for row in range(1, _ROWS + 1)
    ]


def written(rows: list[dict[str, str]], *, any_of: bool, users: bool = False) -> str:
    """The query that the conditions come to; empty without one. Raises Problem."""
    known = USER_ATTRIBUTES if users else ATTRIBUTES
    parts = [_condition(row) for row in rows if _is_filled(row, known)]
    if not parts:
        raise Problem("query", N_("Fill a condition in first: an attribute, and a value."))
    word = " or " if any_of else " and "
    of = "SMS_R_User" if users else "SMS_R_System"
    return f"select * from {of} where {word.join(parts)}"  # noqa: S608


def _is_filled(row: dict[str, str], attributes: Mapping[str, str]) -> bool:
    known = row["attribute"] in attributes and row["operator"] in OPERATORS
    return known and (bool(row["value"].strip()) or row["operator"] in ("empty", "filled"))


def _condition(row: dict[str, str]) -> str:
    attribute, operator, value = row["attribute"], row["operator"], row["value"].strip()
    if operator in ("empty", "filled"):
        return f"{attribute} is {'not ' if operator == 'filled' else ''}null"
    if "\0" in value or ("'" in value and '"' in value):
        raise Problem(
            "query", N_("A value cannot hold both kinds of quotation marks: %(value)s"), value=value
        )
    mark = '"' if "'" in value else "'"
    if operator in _COMPARISONS:
        return f"{attribute} {_COMPARISONS[operator]} {mark}{value}{mark}"
    if "%" in value or "[" in value:
        raise Problem(
            "query",
            N_("%% and [ stand for other characters here: write the query yourself for %(value)s"),
            value=value,
        )
    pattern = _PATTERNS[operator].format(value.replace("_", "[_]"))
    return f"{attribute} like {mark}{pattern}{mark}"


# Rules ----------------------------------------------------------------------------------


def rules_of(values: Mapping[str, Any]) -> list[dict[str, str]]:
    """The API's rules of a draft's answers, with the field that each comes from."""
    query = str(values.get("query") or "").strip()
    return [
        *(
            {"kind": "direct", "device": item, "from": "devices"}
            for item in _list(values, "devices")
        ),
        *({"kind": "direct", "user": item, "from": "users"} for item in _list(values, "users")),
        *([{"kind": "query", "query": query, "from": "query"}] if query else []),
        *(
            {"kind": kind, "collection": item, "from": kind}
            for kind in ("include", "exclude")
            for item in _list(values, kind)
        ),
    ]


def _list(values: Mapping[str, Any], name: str) -> list[str]:
    found = values.get(name) or []
    return [str(item) for item in found] if isinstance(found, list) else []


def _sent(rules: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in rule.items() if name != "from"} for rule in rules]


async def preview(page: Page[Any], values: Mapping[str, Any], type: str) -> dict[str, Any]:
    """What a template shows beside the rules: who they bring, or what is wrong with them."""
    rules = rules_of(values)
    asked = {
        "type": type,
        "limiting": str(values.get("limiting") or ""),
        "rules": _sent(rules),
        "collection": str(values.get("collection") or ""),
    }
    shown: dict[str, Any] = {
        "type": type,
        "previewed": None,
        "wrong": None,
        "where": None,
        "any_rule": bool(rules),
    }
    try:
        shown["previewed"] = await page.api.post(f"{API}/preview", asked)
    except NotSignedIn:
        raise
    except AppError as error:
        shown["wrong"] = error
        shown["where"] = where(str(values.get("query") or "").strip(), error)
    return shown


def where(query: str, error: AppError) -> tuple[str, str, str] | None:
    """The query around the place that is wrong, which is the second part."""
    at = error.details.get("at")
    if not isinstance(at, int) or not query:
        return None
    place = max(0, min(at - 1, len(query)))
    end = place
    while end < len(query) and end - place < 40 and not query[end].isspace():
        end += 1
    return query[:place], query[place : max(end, place + 1)], query[max(end, place + 1) :]


async def show_preview(page: Page[Any]) -> Response:
    """The preview alone, while somebody changes the rules."""
    form = await page.form(2_000_000)
    values = {
        "limiting": form.get("limiting", ""),
        "collection": form.get("collection", ""),
        "query": form.get("query", "")[:8192].replace("\0", ""),
        **{
            name: list(page.form_lists.get(name, ()))
            for name in ("devices", "users", "include", "exclude")
        },
    }
    type = "user" if form.get("type") == "user" else "device"
    return page.render("collections/_preview.html", **await preview(page, values, type))


async def _devices(page: Page[Any], draft: Draft | None, query: str) -> list[Option]:
    found = await page.api.get("/api/v1/resources", search=query, limit=20)
    return [(str(item["id"]), item["name"], item["client_id"]) for item in found["items"]]


async def _users(page: Page[Any], draft: Draft | None, query: str) -> list[Option]:
    found = await page.api.get("/api/v1/users", search=query, limit=20)
    groups = await page.api.get("/api/v1/user-groups", search=query, limit=20)
    group = page.language.text(N_("Group"))
    return [
        *((str(item["id"]), item["upn"], item["name"]) for item in found["items"]),
        *((str(item["id"]), item["name"], group) for item in groups["items"]),
    ]


async def _of(page: Page[Any], query: str, type: str) -> list[Option]:
    found = await page.api.get(API, search=query, limit=20, sort="name", count="false", type=type)
    return [(item["id"], item["name"], item["id"]) for item in found["items"]]


async def collections(page: Page[Any], draft: Draft | None, query: str) -> list[Option]:
    return await _of(page, query, "device")


async def user_collections(page: Page[Any], draft: Draft | None, query: str) -> list[Option]:
    return await _of(page, query, "user")


async def _query_is_right(page: Page[Any], draft: Draft | None, query: Any) -> None:
    rule = {"kind": "query", "query": str(query).strip()}
    await page.api.post(f"{API}/preview", {"rules": [rule], "first": 0})


async def _user_query_is_right(page: Page[Any], draft: Draft | None, query: Any) -> None:
    rule = {"kind": "query", "query": str(query).strip()}
    await page.api.post(f"{API}/preview", {"rules": [rule], "first": 0, "type": "user"})


async def name_is_free(page: Page[Any], draft: Draft | None, name: Any) -> None:
    found = await page.api.get(API, search=str(name)[:200], limit=100, count="false")
    for item in found["items"]:
        if item["name"].casefold() == str(name).strip().casefold():
            raise Problem(
                "name",
                N_("There is a collection %(name)s already."),
                cure=N_("Take another name."),
                name=item["name"],
            )


RULES = (
    field(
        "devices",
        N_("Devices"),
        "picker",
        several=True,
        options=_devices,
        hint=N_("Devices that are members by name. Search by how the name begins."),
    ),
    field(
        "include",
        N_("Collections to include"),
        "picker",
        several=True,
        options=collections,
        hint=N_("Their members are members too."),
    ),
    field(
        "exclude",
        N_("Collections to exclude"),
        "picker",
        several=True,
        options=collections,
        hint=N_("Their members are never members, whatever other rule names them."),
    ),
    field(
        "query",
        N_("Query"),
        "textarea",
        limit=4096,
        rows=3,
        check=_query_is_right,
        placeholder="select * from SMS_R_System where Name like 'LAB-%'",
        hint=N_(
            "Whoever fits is a member, today and later. The conditions below write it for you."
        ),
    ),
)
LIMITING = field(
    "limiting",
    N_("Limiting collection"),
    "picker",
    required=True,
    default=ALL_SYSTEMS,
    options=collections,
    hint=N_("Members come from this collection alone."),
)


USER_RULES = (
    field(
        "users",
        N_("Users"),
        "picker",
        several=True,
        options=_users,
        hint=N_(
            "Users that are members by name. Search by how the sign-in name or the name begins."
        ),
    ),
    field(
        "include",
        N_("Collections to include"),
        "picker",
        several=True,
        options=user_collections,
        hint=N_("Their members are members too."),
    ),
    field(
        "exclude",
        N_("Collections to exclude"),
        "picker",
        several=True,
        options=user_collections,
        hint=N_("Their members are never members, whatever other rule names them."),
    ),
    field(
        "query",
        N_("Query"),
        "textarea",
        limit=4096,
        rows=3,
        check=_user_query_is_right,
        placeholder="select * from SMS_R_User where Mail like '%@contoso.com'",
        hint=N_(
            "Whoever fits is a member, today and later. The conditions below write it for you."
        ),
    ),
)
USER_LIMITING = field(
    "limiting",
    N_("Limiting collection"),
    "picker",
    required=True,
    default=ALL_USERS,
    options=user_collections,
    hint=N_("Members come from this collection alone."),
)


async def load(page: Page[Any], draft: Draft) -> dict[str, Any]:
    return await _load(page, draft, "device")


async def load_users(page: Page[Any], draft: Draft) -> dict[str, Any]:
    return await _load(page, draft, "user")


async def _load(page: Page[Any], draft: Draft, type: str) -> dict[str, Any]:
    users = type == "user"
    form = page.form_values
    rows, pen_wrong = conditions(form), None
    if "pen--search" in form:
        try:
            any_of = form.get("match") == "any"
            draft.values["query"] = written(rows, any_of=any_of, users=users)
        except Problem as problem:
            pen_wrong = problem
    return {
        "rows": rows,
        "match": form.get("match", "all"),
        "attributes": USER_ATTRIBUTES if users else ATTRIBUTES,
        "operators": OPERATORS,
        "pen_wrong": pen_wrong,
        "classes": [
            item
            for item in await page.api.get(f"{API}/classes")
            if (item["name"] == "SMS_R_User") is users
        ],
        "limiting": str(draft.values.get("limiting") or (ALL_USERS if users else ALL_SYSTEMS)),
        **await preview(page, draft.values, type),
    }


async def _rules_are_right(page: Page[Any], draft: Draft) -> None:
    await _check_rules(page, draft, "device")


async def _user_rules_are_right(page: Page[Any], draft: Draft) -> None:
    await _check_rules(page, draft, "user")


async def _check_rules(page: Page[Any], draft: Draft, type: str) -> None:
    rules = rules_of(draft.values)
    asked = {
        "type": type,
        "limiting": str(draft.values.get("limiting") or ""),
        "collection": str(draft.values.get("collection") or ""),
        "rules": _sent(rules),
        "first": 0,
    }
    try:
        await page.api.post(f"{API}/preview", asked)
    except NotSignedIn:
        raise
    except AppError as error:
        place = error.details.get("rule")
        if isinstance(place, int) and place < len(rules):
            error.details["field"] = rules[place]["from"]
        raise


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    return await _facts(page, draft, "device", ALL_SYSTEMS)


async def _user_summary(page: Page[Any], draft: Draft) -> list[Fact]:
    return await _facts(page, draft, "user", ALL_USERS)


async def _facts(page: Page[Any], draft: Draft, type: str, root: str) -> list[Fact]:
    values = draft.values
    shown = (await preview(page, values, type))["previewed"]
    named = dict(values.get("limiting--names") or {})
    limiting = str(values.get("limiting") or root)
    return [
        Fact(N_("Name"), str(values["name"])),
        Fact(N_("Comment"), str(values.get("comment") or "")),
        Fact(N_("Limiting collection"), str(named.get(limiting, limiting))),
        *_rule_facts(values, type),
        Fact(N_("Members today"), shown["members"] if shown else None),
    ]


def _rule_facts(values: Mapping[str, Any], type: str = "device") -> list[Fact]:
    def said(name: str) -> str:
        named = dict(values.get(f"{name}--names") or {})
        return ", ".join(str(named.get(item, item)) for item in _list(values, name))

    return [
        Fact(N_("Users"), said("users"))
        if type == "user"
        else Fact(N_("Devices"), said("devices")),
        Fact(N_("Query"), str(values.get("query") or "").strip()),
        Fact(N_("Collections to include"), said("include")),
        Fact(N_("Collections to exclude"), said("exclude")),
    ]


async def _command(page: Page[Any], draft: Draft) -> str:
    values = draft.values
    words = ["tandem", "collection", "create", str(values["name"])]
    if draft.kind == USER_KEY:
        words += ["--type", "user"]
    if values.get("limiting") not in (None, "", ALL_SYSTEMS, ALL_USERS):
        words += ["--limiting", str(values["limiting"])]
    if values.get("comment"):
        words += ["--comment", str(values["comment"])]
    return shlex.join([*words, *_rule_words(values, "--member")])


def _rule_words(values: Mapping[str, Any], member: str) -> list[str]:
    words = []
    for rule in rules_of(values):
        option = member if rule["kind"] == "direct" else f"--{rule['kind']}"
        option = "--user" if "user" in rule else option
        named = ("device", "user", "query", "collection")
        words += [option, next(rule[name] for name in named if name in rule)]
    return words


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    values = draft.values
    made = await page.api.post(
        API,
        {
            "name": values["name"],
            "comment": values.get("comment") or "",
            "limiting": values.get("limiting") or "",
            "type": "user" if draft.kind == USER_KEY else "device",
            "rules": _sent(rules_of(values)),
        },
    )
    said = N_("The collection %(name)s was created. Members: %(members)s.")
    return Outcome(
        said,
        f"{PATH}/{quote(made['id'], safe='')}",
        {"name": made["name"], "members": made["members"]},
    )


async def _add_summary(page: Page[Any], draft: Draft) -> list[Fact]:
    named = dict(draft.values.get("collection--names") or {})
    chosen = str(draft.values["collection"])
    type = "user" if draft.kind == USER_ADD_KEY else "device"
    facts = _rule_facts(draft.values, type)
    return [Fact(N_("Collection"), str(named.get(chosen, chosen))), *facts]


async def _add_command(page: Page[Any], draft: Draft) -> str:
    chosen = str(draft.values["collection"])
    lines = []
    devices = _list(draft.values, "devices")
    if devices:
        lines.append(shlex.join(["tandem", "collection", "add-member", chosen, *devices]))
    others = _rule_words({**draft.values, "devices": []}, "")
    if others:
        lines.append(shlex.join(["tandem", "collection", "add-rule", chosen, *others]))
    return "\n".join(lines)


async def _add_finish(page: Page[Any], draft: Draft) -> Outcome:
    chosen = quote(str(draft.values["collection"]), safe="")
    made = await page.api.post(f"{API}/{chosen}/rules", {"rules": _sent(rules_of(draft.values))})
    return Outcome(
        N_("The rules of %(name)s were added. Members: %(members)s."),
        f"{PATH}/{chosen}/rules",
        {"name": made["name"], "members": made["members"]},
    )


async def _some_rule(page: Page[Any], draft: Draft) -> None:
    if not rules_of(draft.values):
        raise Problem("query", N_("Add a device, a collection or a query."))
    await _within(page, draft, "device")


async def _some_user_rule(page: Page[Any], draft: Draft) -> None:
    if not rules_of(draft.values):
        raise Problem("query", N_("Add a user, a collection or a query."))
    await _within(page, draft, "user")


async def _within(page: Page[Any], draft: Draft, type: str) -> None:
    found = await page.api.get(f"{API}/{quote(str(draft.values['collection']), safe='')}")
    draft.values["limiting"] = found["limiting_id"] or ""
    await _check_rules(page, draft, type)


def _wizards(
    create: tuple[str, str],
    add: str,
    *,
    limiting: Field,
    rules: tuple[Field, ...],
    choose: Any,
    load: Any,
    check: Any,
    check_added: Any,
    summary: Any,
) -> tuple[Wizard, Wizard]:
    """To create a collection of a type, and to add rules to one. `create` is key and title."""
    key, title = create
    return (
        Wizard(
            key=key,
            title=title,
            back=PATH,
            finish_label=N_("Create"),
            steps=(
                Step(
                    key="general",
                    title=N_("General"),
                    fields=(
                        field("name", N_("Name"), required=True, limit=256, check=name_is_free),
                        field("comment", N_("Comment"), "textarea", limit=1024, rows=2),
                        limiting,
                    ),
                ),
                Step(
                    key="rules",
                    title=N_("Membership rules"),
                    intro=N_(
                        "Beside the rules you see who would be a member now. Nothing is kept yet."
                    ),
                    fields=rules,
                    template="collections/rules_step.html",
                    load=load,
                    check=check,
                ),
            ),
            summary=summary,
            command=_command,
            finish=_finish,
        ),
        Wizard(
            key=add,
            title=N_("Add membership rules"),
            back=PATH,
            finish_label=N_("Add"),
            steps=(
                Step(
                    key="rules",
                    title=N_("Membership rules"),
                    intro=N_("Beside the rules you see who they would bring. Nothing is kept yet."),
                    fields=(
                        field(
                            "collection",
                            N_("Collection"),
                            "picker",
                            required=True,
                            options=choose,
                        ),
                        *rules,
                    ),
                    template="collections/rules_step.html",
                    load=load,
                    check=check_added,
                ),
            ),
            summary=_add_summary,
            command=_add_command,
            finish=_add_finish,
        ),
    )


WIZARDS = (
    *_wizards(
        (KEY, N_("Create a collection")),
        ADD_KEY,
        limiting=LIMITING,
        rules=RULES,
        choose=collections,
        load=load,
        check=_rules_are_right,
        check_added=_some_rule,
        summary=_summary,
    ),
    *_wizards(
        (USER_KEY, N_("Create a collection of users")),
        USER_ADD_KEY,
        limiting=USER_LIMITING,
        rules=USER_RULES,
        choose=user_collections,
        load=load_users,
        check=_user_rules_are_right,
        check_added=_some_user_rule,
        summary=_user_summary,
    ),
)


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [console.route(f"{PATH}/preview", show_preview, post=True)]
