"""Users: the list, one user's page, and what is done to users."""

import secrets
from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.directory import asking, forms, words
from tandem.console.areas.directory.asking import GRAPH, key
from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Draft,
    Hit,
    NotSignedIn,
    Option,
    Page,
    UnknownPage,
    Values,
    csv,
    field,
)
from tandem.infra.errors import AppError, Kind

USERS = f"{ROOT}/users"
PLACE = (USERS, N_("Users"))
TABS = {
    "": N_("Overview"),
    "groups": N_("Groups"),
    "licences": N_("Licences"),
    "devices": N_("Devices"),
    "roles": N_("Roles"),
    "sign-ins": N_("Sign-ins"),
}
SORTS = {
    "name": "displayName",
    "upn": "userPrincipalName",
    "department": "department",
    "created": "createdDateTime",
}
_LISTED = (
    "id,displayName,userPrincipalName,department,usageLocation,accountEnabled,createdDateTime,"
    "assignedLicenses"
)
_WHOLE = (
    "id,displayName,userPrincipalName,givenName,surname,jobTitle,department,companyName,"
    "officeLocation,mail,mobilePhone,usageLocation,accountEnabled,createdDateTime,"
    "lastPasswordChangeDateTime,userType,employeeId,preferredLanguage,assignedLicenses,"
    "licenseAssignmentStates,securityIdentifier"
)
_PROFILE = (
    field("displayName", N_("Display name"), required=True, limit=256),
    field("givenName", N_("First name"), limit=64),
    field("surname", N_("Last name"), limit=64),
    field("jobTitle", N_("Job title"), limit=128),
    field("department", N_("Department"), limit=64),
    field("mobilePhone", N_("Mobile phone"), limit=64),
    field(
        "usageLocation",
        N_("Usage location"),
        limit=2,
        hint=N_("A country's code of two letters. Without it no licence can be assigned."),
        check=asking.location_is_known,
    ),
)


async def _domains(page: Page[Any], draft: Draft | None, text: str = "") -> list[Option]:
    found = (await page.api.get(f"{GRAPH}/domains"))["value"]
    return [(item["id"], item["id"]) for item in found if item["isVerified"]]


_PASSWORD = (
    field(
        "password",
        N_("Password"),
        "password",
        secret=True,
        limit=256,
        hint=N_(
            "Leave it empty, and one is made. Of your own: at least 8 characters, of three kinds out "
            "of small, capital, digit and sign."
        ),
    ),
    field(
        "change",
        N_("It has to be changed at the next sign-in"),
        "checkbox",
        default=True,
    ),
)
CREATE = (
    field(
        "name",
        N_("User name"),
        required=True,
        limit=64,
        hint=N_("What comes before the @."),
    ),
    field("domain", N_("Domain"), "select", required=True, options=_domains),
    *_PROFILE,
    *_PASSWORD,
    field("enabled", N_("The account is enabled"), "checkbox", default=True),
)
EDIT = (
    field("userPrincipalName", N_("User name"), required=True, limit=113),
    *_PROFILE,
)
_NAMES = {"userPrincipalName": "name", "passwordProfile": "password", "mailNickname": "name"}


async def _products(page: Page[Any]) -> dict[str, str]:
    """The names of products by id; nothing when they may not be read."""
    try:
        found = (await page.api.get(f"{GRAPH}/subscribedSkus"))["value"]
    except AppError as error:
        if error.kind is not Kind.FORBIDDEN:
            raise
        return {}
    return {item["skuId"]: item["skuPartNumber"] for item in found}


def _where(page: Page[Any]) -> list[str]:
    where = []
    if text := asking.query(page, "search"):
        where.append(asking.like(("displayName", "userPrincipalName", "mail"), text))
    if department := asking.query(page, "department"):
        where.append(f"startswith(department,{asking.literal(department)})")
    enabled = asking.query(page, "enabled")
    if enabled in ("yes", "no"):
        where.append(f"accountEnabled eq {'true' if enabled == 'yes' else 'false'}")
    licence = asking.query(page, "licence")
    if licence == "nowhere":
        where.append("usageLocation eq null")
    elif licence and all(c in "0123456789abcdefABCDEF-" for c in licence):
        where.append(f"assignedLicenses/any(x:x/skuId eq {licence})")
    return where


async def users(page: Page[Any]) -> Response:
    rights = await asking.rights(page)
    shown = await asking.listed(
        page, f"{GRAPH}/users", select=_LISTED, where=_where(page), sorts=SORTS
    )
    products = {key: words.PRODUCT.get(name, name) for key, name in (await _products(page)).items()}
    return page.render(
        "directory/users.html",
        shown=shown,
        rights=rights,
        products=products,
        licences=[*products.items(), ("nowhere", N_("None can be had: no usage location"))],
        words=words,
        asked={
            name: asking.query(page, name)
            for name in ("search", "department", "enabled", "licence")
        },
    )


async def export(page: Page[Any]) -> Response:
    products, where, text = await _products(page), _where(page), page.language.text
    asked = {
        "$select": _LISTED,
        "$filter": " and ".join(f"({item})" for item in where),
        "$count": "true",
        "$orderby": "displayName",
        "$top": 999,
    }
    # The first part is asked for here, so that a refusal is a page and no half of a file.
    rows = asking.every(page, f"{GRAPH}/users", **asked)

    async def lines() -> AsyncIterator[Iterable[Any]]:
        async for item in rows:
            yield (
                item["displayName"],
                item["userPrincipalName"],
                item["department"] or "",
                item["usageLocation"] or "",
                text("Enabled") if item["accountEnabled"] else text("Disabled"),
                ", ".join(products.get(one["skuId"], "") for one in item["assignedLicenses"]),
                item["createdDateTime"],
            )

    titles = ("Name", "User name", "Department", "Usage location", "State", "Licences", "Created")
    return csv("users", [text(one) for one in titles], lines())


async def bulk(page: Page[Any]) -> Response:
    """One thing done to the users that are marked, after a page that says to how many."""
    form = await page.form()
    chosen = list(page.form_lists.get("chosen", ()))[: asking.PAGE]
    what = form.get("what", "")
    if not chosen or what not in _BULK:
        return page.to(USERS, N_("Mark users first, then choose what to do."))
    title, label, danger = _BULK[what]
    if form.get("confirmed") != "1":
        names = [await _name(page, one) for one in chosen]
        return page.render(
            "directory/bulk.html",
            heading=page.language.text(title),
            label=page.language.text(label),
            danger=danger,
            items=names,
            chosen=chosen,
            what=what,
            back=USERS,
            number_of=len(chosen),
        )
    done, refused = 0, ""
    for one in chosen:
        try:
            await _BULK_DO[what](page, one)
            done += 1
        except NotSignedIn:
            raise
        except AppError as error:
            refused = page.language.problem(error)
    if refused:
        return page.to(
            USERS,
            N_("%(done)s of %(all)s done. The last refusal: %(reason)s"),
            done=done,
            all=len(chosen),
            reason=refused[:200],
        )
    return page.to(USERS, N_("Done for %(done)s users."), done=done)


async def _name(page: Page[Any], user_id: str) -> str:
    found = await page.api.get(f"{GRAPH}/users/{asking.safe(user_id)}")
    return f"{found['displayName']} ({found['userPrincipalName']})"


async def _enable(page: Page[Any], user_id: str) -> None:
    await page.api.patch(f"{GRAPH}/users/{asking.safe(user_id)}", {"accountEnabled": True})


async def _disable(page: Page[Any], user_id: str) -> None:
    await page.api.patch(f"{GRAPH}/users/{asking.safe(user_id)}", {"accountEnabled": False})


async def _delete(page: Page[Any], user_id: str) -> None:
    await page.api.delete(f"{GRAPH}/users/{asking.safe(user_id)}")


_BULK = {
    "enable": (N_("Enable these users?"), N_("Enable"), False),
    "disable": (N_("Disable these users?"), N_("Disable"), True),
    "delete": (N_("Delete these users?"), N_("Delete"), True),
}
_BULK_DO = {"enable": _enable, "disable": _disable, "delete": _delete}

# ---------------------------------------------------------------------------------- one user


async def user(page: Page[Any]) -> Response:
    tab = page.request.path_params.get("tab", "")
    if tab not in TABS:
        raise UnknownPage(N_("There is no such page."))
    path = f"{GRAPH}/users/{key(page)}"
    answer = await page.api.ask("GET", path, query={"$select": _WHOLE})
    found = answer.json
    more: dict[str, Any] = {"rows": [], "products": {}}
    if tab == "groups":
        more["rows"] = await _groups(page, path)
    elif tab == "roles":
        more["rows"] = [
            item
            for item in await asking.all_of(page, f"{path}/memberOf")
            if item["@odata.type"].endswith("directoryRole")
        ]
    elif tab == "devices":
        more["rows"] = await asking.all_of(page, f"{path}/registeredDevices")
    elif tab == "sign-ins":
        more["rows"] = await _sign_ins(page, found["id"])
    elif tab == "licences":
        more = await _licences(page, found)
    return page.render(
        "directory/user.html",
        user=found,
        etag=answer.etag,
        tab=tab,
        tabs=[
            (f"{USERS}/{found['id']}" + (f"/{one}" if one else ""), title, one == tab)
            for one, title in TABS.items()
        ],
        rights=await asking.rights(page),
        words=words,
        **more,
    )


async def _groups(page: Page[Any], path: str) -> list[dict[str, Any]]:
    direct = {item["id"] for item in await asking.all_of(page, f"{path}/memberOf")}
    every = await asking.all_of(page, f"{path}/transitiveMemberOf")
    return [
        {**item, "direct": item["id"] in direct}
        for item in every
        if item["@odata.type"].endswith("group")
    ]


async def _sign_ins(page: Page[Any], user_id: str) -> list[dict[str, Any]]:
    try:
        found = await page.api.get(
            f"{GRAPH}/auditLogs/signIns", **{"$filter": f"userId eq '{user_id}'", "$top": 50}
        )
    except AppError as error:
        if error.kind is not Kind.FORBIDDEN:
            raise
        return []
    return list(found["value"])


async def _licences(page: Page[Any], found: dict[str, Any]) -> dict[str, Any]:
    skus = {
        item["skuId"]: item for item in (await page.api.get(f"{GRAPH}/subscribedSkus"))["value"]
    }
    groups = {}
    for state in found["licenseAssignmentStates"]:
        group_id = state["assignedByGroup"]
        if group_id and group_id not in groups:
            groups[group_id] = (await page.api.get(f"{GRAPH}/groups/{group_id}"))["displayName"]
    rows = [
        {
            **state,
            "product": skus.get(state["skuId"], {}).get("skuPartNumber", state["skuId"]),
            "group": groups.get(state["assignedByGroup"], ""),
            "plans": [
                (plan["servicePlanName"], plan["servicePlanId"] not in state["disabledPlans"])
                for plan in skus.get(state["skuId"], {}).get("servicePlans", [])
            ],
        }
        for state in found["licenseAssignmentStates"]
    ]
    return {"rows": rows, "products": {}}


async def create(page: Page[Any]) -> Response:
    """A new user; its password is on the answer and nowhere else."""

    async def work(values: Values) -> Response:
        password = _password(values)
        made = await page.api.post(f"{GRAPH}/users", _body(values, password))
        return page.render(
            "directory/password.html",
            heading=page.language.text("%(name)s was created.", name=made["displayName"]),
            user=made,
            password=password,
            place=PLACE,
        )

    return await forms.filled(
        page,
        CREATE,
        {item.name: item.initial() for item in CREATE},
        work,
        names=_NAMES,
        title=page.language.text("Create a user"),
        label=page.language.text("Create"),
        back=USERS,
        place=PLACE,
    )


def _body(values: dict[str, Any], password: str) -> dict[str, Any]:
    texts = {item.name: values[item.name] or None for item in _PROFILE}
    if texts["usageLocation"]:
        texts["usageLocation"] = texts["usageLocation"].upper()
    return {
        **texts,
        "userPrincipalName": f"{values['name']}@{values['domain']}",
        "mailNickname": values["name"],
        "accountEnabled": values["enabled"],
        "passwordProfile": {
            "password": password,
            "forceChangePasswordNextSignIn": values["change"],
        },
    }


def _password(values: dict[str, Any]) -> str:
    if values["password"]:
        return str(values["password"])
    # Of three kinds for certain, without signs that look alike.
    letters = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    return (
        "".join(secrets.choice(letters) for _ in range(16)) + "-" + str(secrets.randbelow(90) + 10)
    )


async def edit(page: Page[Any]) -> Response:
    """The profile, as it is now; a change of somebody else in between is told, nothing is lost."""
    path = f"{GRAPH}/users/{key(page)}"
    answer = await page.api.ask("GET", path, query={"$select": _WHOLE})
    found = answer.json
    here = f"{USERS}/{found['id']}"

    async def work(values: Values) -> Response:
        body = {name: value or None for name, value in values.items()}
        if body["usageLocation"]:
            body["usageLocation"] = body["usageLocation"].upper()
        changes = {k: v for k, v in body.items() if v != (found[k] or None)}
        if changes:
            await page.api.patch(path, changes, version=page.form_values.get("version", ""))
        return page.to(here, N_("%(name)s was changed."), name=values["displayName"])

    return await forms.filled(
        page,
        EDIT,
        {item.name: found[item.name] or "" for item in EDIT},
        work,
        version=answer.etag,
        title=page.language.text("Edit %(name)s", name=found["displayName"]),
        label=page.language.text("Save"),
        back=here,
        place=PLACE,
    )


async def reset(page: Page[Any]) -> Response:
    """Another password for the user, on the answer and nowhere else."""
    path = f"{GRAPH}/users/{key(page)}"
    found = await page.api.get(path)

    async def work(values: Values) -> Response:
        password = _password(values)
        body = {"password": password, "forceChangePasswordNextSignIn": values["change"]}
        await page.api.patch(path, {"passwordProfile": body})
        return page.render(
            "directory/password.html",
            heading=page.language.text(
                "The password of %(name)s was reset.", name=found["displayName"]
            ),
            user=found,
            password=password,
            place=PLACE,
        )

    return await forms.filled(
        page,
        _PASSWORD,
        {item.name: item.initial() for item in _PASSWORD},
        work,
        names=_NAMES,
        title=page.language.text("Reset the password of %(name)s", name=found["displayName"]),
        label=page.language.text("Reset password"),
        intro=page.language.text(
            "The password is shown once. All sessions of the user end, on every device."
        ),
        back=f"{USERS}/{found['id']}",
        place=PLACE,
    )


async def act(page: Page[Any]) -> Response:
    """Enable, disable, sign out everywhere, delete: asked before where it is not taken back."""
    form = await page.form()
    path = f"{GRAPH}/users/{key(page)}"
    found = await page.api.get(path)
    here, name, text = f"{USERS}/{found['id']}", found["displayName"], page.language.text
    match page.request.path_params["what"]:
        case "enable":
            await page.api.patch(path, {"accountEnabled": True})
            return page.to(here, N_("%(name)s was enabled."), name=name)
        case "disable":
            await page.api.patch(path, {"accountEnabled": False})
            return page.to(here, N_("%(name)s was disabled."), name=name)
        case "revoke":
            await page.api.post(f"{path}/revokeSignInSessions", {})
            return page.to(here, N_("All sessions of %(name)s were ended."), name=name)
        case "reprocess":
            await page.api.post(f"{path}/reprocessLicenseAssignment", {})
            return page.to(
                f"{here}/licences", N_("The licences of %(name)s were looked at again."), name=name
            )
        case "delete" if form.get("confirmed") != "1":
            return page.confirm(
                text("Delete %(name)s?", name=name),
                text(
                    "The user loses groups, roles and licences, and every device session. For 30 days "
                    "the user can be restored from the deleted items."
                ),
                text("Delete"),
                back=here,
            )
        case "delete":
            await page.api.delete(path)
            return page.to(
                USERS, N_("%(name)s was deleted, and can be restored for 30 days."), name=name
            )
    raise UnknownPage(N_("There is no such page."))


async def search(page: Page[Any], text: str) -> list[Hit]:
    return [
        Hit(N_("Users"), name, upn, f"{USERS}/{user_id}")
        for user_id, name, upn in await asking.users(page, None, text)
    ]


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(USERS, users),
        console.route(f"{USERS}.csv", export),
        console.route(f"{USERS}/bulk", bulk, post=True),
        console.route(f"{USERS}/new", create),
        console.route(f"{USERS}/new", create, post=True),
        console.route(f"{USERS}/{{id}}/edit", edit),
        console.route(f"{USERS}/{{id}}/edit", edit, post=True),
        console.route(f"{USERS}/{{id}}/password", reset),
        console.route(f"{USERS}/{{id}}/password", reset, post=True),
        console.route(f"{USERS}/{{id}}/do/{{what}}", act, post=True),
        console.route(f"{USERS}/{{id}}", user),
        console.route(f"{USERS}/{{id}}/{{tab}}", user),
    ]
