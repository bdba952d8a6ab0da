"""Groups: by hand or by rule, their members, licences, and where they are used."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.directory import asking, forms, words
from tandem.console.areas.directory.asking import GRAPH, key
from tandem.console.kit import (
    CHANGED,
    N_,
    ROOT,
    Console,
    Draft,
    Field,
    Hit,
    NotSignedIn,
    Page,
    Problem,
    UnknownPage,
    csv,
    drawn,
    field,
)
from tandem.infra.errors import AppError, Kind

GROUPS = f"{ROOT}/groups"
PLACE = (GROUPS, N_("Groups"))
TABS = {
    "": N_("Overview"),
    "members": N_("Members"),
    "licences": N_("Licences"),
    "used": N_("Where it is used"),
}
SORTS = {"name": "displayName", "created": "createdDateTime"}
_LISTED = "id,displayName,description,groupTypes,membershipRule,isAssignableToRole,createdDateTime"
_WHOLE = (
    _LISTED + ",membershipRuleProcessingState,mailNickname,securityEnabled,assignedLicenses,"
    "licenseProcessingState,hasMembersWithLicenseErrors"
)
_MODES = (
    ("assigned", N_("By hand"), N_("Members are added and removed by hand.")),
    ("rule", N_("By rule"), N_("Members are those that meet a rule, at every change of them.")),
)


async def _rule_is_right(page: Page[Any], draft: Draft | None, value: Any) -> None:
    await page.api.post(f"{GRAPH}/tandem/membershipRule", {"membershipRule": value})


_NAME = field("displayName", N_("Name"), required=True, limit=256)
_DESCRIPTION = field("description", N_("Description"), "textarea", limit=1024, rows=2)
_RULE = field(
    "membershipRule",
    N_("Membership rule"),
    "textarea",
    limit=3072,
    hint=N_('For example: user.department -eq "Sales". With -and, -or, -not and brackets.'),
    check=_rule_is_right,
)
CREATE: tuple[Field, ...] = (
    _NAME,
    _DESCRIPTION,
    field("mode", N_("Membership"), "radio", default="assigned", options=_MODES),
    _RULE,
    field(
        "members",
        N_("Members"),
        "picker",
        several=True,
        options=asking.members,
        hint=N_("Users, devices and groups; not with a rule."),
    ),
    field(
        "isAssignableToRole",
        N_("The group can hold directory roles"),
        "checkbox",
        hint=N_("Decided for good now. Only a global administrator changes its members then."),
    ),
)


def _where(page: Page[Any]) -> list[str]:
    where = []
    if text := asking.query(page, "search"):
        where.append(asking.like(("displayName", "description"), text))
    mode = asking.query(page, "mode")
    if mode == "rule":
        where.append("groupTypes/any(t:t eq 'DynamicMembership')")
    elif mode == "assigned":
        where.append("not groupTypes/any(t:t eq 'DynamicMembership')")
    return where


async def groups(page: Page[Any]) -> Response:
    shown = await asking.listed(
        page, f"{GRAPH}/groups", select=_LISTED, where=_where(page), sorts=SORTS
    )
    return page.render(
        "directory/groups.html",
        shown=shown,
        rights=await asking.rights(page),
        modes=[mode[:2] for mode in _MODES],
        asked={name: asking.query(page, name) for name in ("search", "mode")},
    )


async def export(page: Page[Any]) -> Response:
    text = page.language.text
    rows = asking.every(
        page,
        f"{GRAPH}/groups",
        **{
            "$select": _LISTED,
            "$filter": " and ".join(f"({item})" for item in _where(page)),
            "$count": "true",
            "$orderby": "displayName",
            "$top": 999,
        },
    )

    async def lines() -> AsyncIterator[Iterable[Any]]:
        async for item in rows:
            yield (
                item["displayName"],
                item["description"] or "",
                text("By rule") if item["groupTypes"] else text("By hand"),
                item["membershipRule"] or "",
                item["createdDateTime"],
            )

    titles = (N_("Name"), N_("Description"), N_("Membership"), N_("Membership rule"), N_("Created"))
    return csv("groups", [text(title) for title in titles], lines())


async def group(page: Page[Any]) -> Response:
    tab = page.request.path_params.get("tab", "")
    if tab not in TABS:
        raise UnknownPage(N_("There is no such page."))
    path = f"{GRAPH}/groups/{key(page)}"
    answer = await page.api.ask("GET", path, query={"$select": _WHOLE})
    found = answer.json
    more: dict[str, Any] = {"rows": [], "nested": asking.query(page, "nested") == "1"}
    if tab == "members":
        name = "transitiveMembers" if more["nested"] else "members"
        more["shown"] = await asking.listed(page, f"{path}/{name}")
        more["values"], more["problems"] = {"members": []}, {}
        more["fields"] = await drawn(page, (_ADD,), {"members": []}, {}, options_url=forms.PICK)
    elif tab == "licences":
        more |= await _licences(page, found, path)
    elif tab == "used":
        more["rows"] = await _used(page, found["id"])
    base = f"{GROUPS}/{found['id']}"
    return page.render(
        "directory/group.html",
        group=found,
        tab=tab,
        tabs=[
            (base + (f"/{one}" if one else ""), title, one == tab) for one, title in TABS.items()
        ],
        rights=await asking.rights(page),
        words=words,
        **more,
    )


_ADD = field(
    "members", N_("Add members"), "picker", several=True, required=True, options=asking.members
)


async def _licences(page: Page[Any], found: dict[str, Any], path: str) -> dict[str, Any]:
    skus = {
        item["skuId"]: item for item in (await page.api.get(f"{GRAPH}/subscribedSkus"))["value"]
    }
    runs = {
        item["id"]: item for item in (await page.api.get(f"{GRAPH}/tandem/licenseRuns"))["value"]
    }
    failures = [
        item
        for item in (await page.api.get(f"{GRAPH}/tandem/licensing"))["failures"]
        if item["groupId"] == found["id"]
    ]
    people = {
        item["id"]: item for item in await asking.all_of(page, f"{path}/membersWithLicenseErrors")
    }
    return {
        "rows": [
            {
                **item,
                "product": skus.get(item["skuId"], {}).get("skuPartNumber", item["skuId"]),
                "plans": [
                    (plan["servicePlanName"], plan["servicePlanId"] not in item["disabledPlans"])
                    for plan in skus.get(item["skuId"], {}).get("servicePlans", [])
                ],
            }
            for item in found["assignedLicenses"]
        ],
        "run": runs.get(found["id"]),
        "failures": [
            {
                **item,
                "user": people.get(item["userId"], {}),
                "product": skus.get(item["skuId"], {}).get("skuPartNumber", item["skuId"]),
            }
            for item in failures
        ],
    }


async def _used(page: Page[Any], group_id: str) -> list[tuple[str, str, str]]:
    """(kind, name, page) of everything that is given to the group."""
    found: list[tuple[str, str, str]] = []
    for kind, path, title, to in (
        ("assignments", "deviceAppManagement/mobileApps", N_("App"), f"{ROOT}/apps/"),
        ("assignments", "deviceManagement/deviceConfigurations", N_("Policy"), ""),
    ):
        try:
            items = await asking.all_of(page, f"{GRAPH}/{path}", **{"$expand": kind})
        except NotSignedIn:
            raise
        except AppError as error:
            if error.kind not in (Kind.FORBIDDEN, Kind.NOT_FOUND, Kind.INVALID, Kind.UNSUPPORTED):
                raise
            continue
        for item in items:
            targets = [one.get("target", {}) for one in item.get("assignments") or ()]
            for target in targets:
                if target.get("groupId") == group_id:
                    out = "exclusion" in str(target.get("@odata.type", ""))
                    name = item.get("displayName") or item["id"]
                    found.append(
                        (N_("Excluded from an app") if out else title, name, to and to + item["id"])
                    )
    for path, title in (
        ("mobileDeviceManagementPolicies", N_("MDM user scope")),
        ("mobileAppManagementPolicies", N_("MAM user scope")),
    ):
        try:
            (policy,) = (await page.api.get(f"{GRAPH}/policies/{path}"))["value"]
            named = await asking.all_of(
                page, f"{GRAPH}/policies/{path}/{policy['id']}/includedGroups"
            )
        except NotSignedIn:
            raise
        except AppError as error:
            if error.kind is not Kind.FORBIDDEN:
                raise
            continue
        if any(item["id"] == group_id for item in named):
            found.append((title, policy["displayName"], f"{ROOT}/enrolment"))
    return found


async def create(page: Page[Any]) -> Response:
    values: dict[str, Any] = {item.name: item.initial() for item in CREATE}
    problems: dict[str, AppError] = {}
    general: AppError | None = None
    preview: dict[str, Any] | None = None
    status = 200
    if page.request.method == "POST":
        values, problems, searching = await forms.answers(page, CREATE)
        by_rule = values["mode"] == "rule"
        if by_rule and not values["membershipRule"] and not searching:
            problems["membershipRule"] = Problem(
                "membershipRule", N_("A group by rule needs its rule.")
            )
        trying = "try" in page.form_values
        if trying and values["membershipRule"] and "membershipRule" not in problems:
            preview = await page.api.post(
                f"{GRAPH}/tandem/membershipRule", {"membershipRule": values["membershipRule"]}
            )
        if problems:
            status = 422
        elif not searching and not trying:
            try:
                made = await page.api.post(f"{GRAPH}/groups", _body(values, by_rule))
                return page.to(
                    f"{GROUPS}/{made['id']}", N_("%(name)s was created."), name=made["displayName"]
                )
            except NotSignedIn:
                raise
            except AppError as error:
                at, status = forms.placed(error, CREATE), forms.status_of(error)
                problems, general = ({at: error}, None) if at else ({}, error)
    return await forms.show(
        page,
        CREATE,
        values,
        problems,
        title=page.language.text("Create a group"),
        label=page.language.text("Create"),
        back=GROUPS,
        place=PLACE,
        general=general,
        status=status,
        template="directory/group_form.html",
        preview=preview,
    )


def _body(values: dict[str, Any], by_rule: bool) -> dict[str, Any]:
    plain = "".join(c for c in values["displayName"] if c.isascii() and c.isalnum())
    body: dict[str, Any] = {
        "displayName": values["displayName"],
        "description": values["description"] or None,
        "mailEnabled": False,
        "mailNickname": plain[:64] or "group",
        "securityEnabled": True,
        "isAssignableToRole": values["isAssignableToRole"],
    }
    if by_rule:
        body |= {"groupTypes": ["DynamicMembership"], "membershipRule": values["membershipRule"]}
    elif values["members"]:
        body["members@odata.bind"] = [
            f"https://graph.microsoft.com/v1.0/directoryObjects/{one}" for one in values["members"]
        ]
    return body


async def edit(page: Page[Any]) -> Response:
    path = f"{GRAPH}/groups/{key(page)}"
    answer = await page.api.ask("GET", path, query={"$select": _WHOLE})
    found, version = answer.json, answer.etag
    here = f"{GROUPS}/{found['id']}"
    shown: tuple[Field, ...] = (_NAME, _DESCRIPTION)
    if found["membershipRule"]:
        shown = (*shown, _RULE)
    values: dict[str, Any] = {item.name: found[item.name] or "" for item in shown}
    problems: dict[str, AppError] = {}
    general: AppError | None = None
    preview: dict[str, Any] | None = None
    warning, status = "", 200
    if page.request.method == "POST":
        values, problems, _ = await forms.answers(page, shown)
        status = 422 if problems else 200
        version_read = page.form_values.get("version", "")
        if not problems and "try" in page.form_values:
            version = version_read or version
            preview = await page.api.post(
                f"{GRAPH}/tandem/membershipRule", {"membershipRule": values["membershipRule"]}
            )
        elif not problems:
            changes = {k: v or None for k, v in values.items() if (v or None) != (found[k] or None)}
            try:
                if changes:
                    await page.api.patch(path, changes, version=version_read)
                return page.to(here, N_("%(name)s was changed."), name=values["displayName"])
            except NotSignedIn:
                raise
            except AppError as error:
                status = forms.status_of(error)
                if error.code == CHANGED:
                    warning = forms.CHANGED_MEANWHILE
                else:
                    at = forms.placed(error, shown)
                    problems, general = ({at: error}, None) if at else ({}, error)
                    version = version_read or version
    return await forms.show(
        page,
        shown,
        values,
        problems,
        title=page.language.text("Edit %(name)s", name=found["displayName"]),
        label=page.language.text("Save"),
        back=here,
        place=PLACE,
        version=version,
        general=general,
        warning=warning,
        status=status,
        template="directory/group_form.html",
        preview=preview,
    )


async def add(page: Page[Any]) -> Response:
    """Members by picker; those that are in it already are no reason to stop."""
    path = f"{GRAPH}/groups/{key(page)}"
    found = await page.api.get(path)
    here = f"{GROUPS}/{found['id']}/members"
    values, problems, searching = await forms.answers(page, (_ADD,))
    added = 0
    general: AppError | None = None
    if not searching and not problems:
        for one in values["members"]:
            try:
                await page.api.post(f"{path}/members/$ref", asking.ref(one))
                added += 1
            except NotSignedIn:
                raise
            except AppError as error:
                if "already exist" not in error.message:
                    general = error
                    break
        if general is None:
            return page.to(here, N_("Added to the group: %(number)s."), number=added)
    return await forms.show(
        page,
        (_ADD,),
        values,
        problems,
        title=page.language.text("Add members to %(name)s", name=found["displayName"]),
        label=page.language.text("Add"),
        back=here,
        place=PLACE,
        general=general,
        status=422 if problems or general else 200,
    )


async def act(page: Page[Any]) -> Response:
    form = await page.form()
    path = f"{GRAPH}/groups/{key(page)}"
    found = await page.api.get(path)
    here, name, text = f"{GROUPS}/{found['id']}", found["displayName"], page.language.text
    match page.request.path_params["what"]:
        case "remove":
            member = asking.safe(form.get("member", ""))
            await page.api.delete(f"{path}/members/{member}/$ref")
            return page.to(f"{here}/members", N_("The member was removed."))
        case "pause" | "follow" as what:
            state = "Paused" if what == "pause" else "On"
            await page.api.patch(path, {"membershipRuleProcessingState": state})
            said = (
                N_("The rule is paused.") if what == "pause" else N_("The rule is followed again.")
            )
            return page.to(here, said)
        case "delete" if form.get("confirmed") != "1":
            members = await asking.listed(page, f"{path}/transitiveMembers", size=1)
            return page.confirm(
                text("Delete %(name)s?", name=name),
                page.language.plural(
                    "%(number)s member loses the licences, apps and policies that come from this "
                    "group. For 30 days it can be restored from the deleted items.",
                    "%(number)s members lose the licences, apps and policies that come from this "
                    "group. For 30 days it can be restored from the deleted items.",
                    members.total,
                ),
                text("Delete"),
                back=here,
            )
        case "delete":
            await page.api.delete(path)
            return page.to(
                GROUPS, N_("%(name)s was deleted, and can be restored for 30 days."), name=name
            )
    raise UnknownPage(N_("There is no such page."))


async def search(page: Page[Any], text: str) -> list[Hit]:
    return [
        Hit(N_("Groups"), name, description, f"{GROUPS}/{group_id}")
        for group_id, name, description in await asking.groups(page, None, text)
    ]


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(GROUPS, groups),
        console.route(f"{GROUPS}.csv", export),
        console.route(f"{GROUPS}/new", create),
        console.route(f"{GROUPS}/new", create, post=True),
        console.route(f"{GROUPS}/{{id}}/edit", edit),
        console.route(f"{GROUPS}/{{id}}/edit", edit, post=True),
        console.route(f"{GROUPS}/{{id}}/members", add, post=True),
        console.route(f"{GROUPS}/{{id}}/do/{{what}}", act, post=True),
        console.route(f"{GROUPS}/{{id}}", group),
        console.route(f"{GROUPS}/{{id}}/{{tab}}", group),
    ]
