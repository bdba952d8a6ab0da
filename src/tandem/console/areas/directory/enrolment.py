"""Automatic enrolment: MDM authority, user scopes, the three addresses, and who gets them."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.directory import asking, forms, words
from tandem.console.areas.directory.asking import GRAPH
from tandem.console.kit import (
    CHANGED,
    N_,
    ROOT,
    Console,
    Field,
    NotSignedIn,
    Page,
    Problem,
    drawn,
    field,
)
from tandem.infra.errors import AppError, Kind

ENROLMENT = f"{ROOT}/enrolment"
MDM = f"{GRAPH}/policies/mobileDeviceManagementPolicies"
MAM = f"{GRAPH}/policies/mobileAppManagementPolicies"
URLS = ("termsOfUseUrl", "discoveryUrl", "complianceUrl")
_SCOPES = (
    ("none", N_("None"), N_("Nobody's devices enrol by themselves.")),
    (
        "selected",
        N_("Some"),
        N_("Those of the members of the groups below, and of groups in them."),
    ),
    ("all", N_("All"), N_("Everybody's.")),
)
FIELDS: tuple[Field, ...] = (
    field("scope", N_("MDM user scope"), "radio", required=True, options=_SCOPES),
    field(
        "groups", N_("Groups of the MDM user scope"), "picker", several=True, options=asking.groups
    ),
    field("termsOfUseUrl", N_("MDM terms of use URL"), "url", limit=1024),
    field("discoveryUrl", N_("MDM discovery URL"), "url", limit=1024),
    field("complianceUrl", N_("MDM compliance URL"), "url", limit=1024),
    field(
        "mam",
        N_("MAM user scope"),
        "radio",
        required=True,
        options=tuple((name, title) for name, title, _ in _SCOPES),
        hint=N_(
            "Whose apps are managed on devices that are not enrolled. It is kept for tools that ask "
            "Graph for it: this tenant manages enrolled devices, so leave it at None."
        ),
    ),
    field(
        "mam_groups",
        N_("Groups of the MAM user scope"),
        "picker",
        several=True,
        options=asking.groups,
    ),
)
_WHO = (
    field(
        "user",
        N_("User"),
        required=True,
        limit=113,
        hint=N_("A user name such as adele@contoso.com."),
        autocomplete="off",
    ),
)


async def _policy(
    page: Page[Any], path: str, more: str = ""
) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
    (first,) = (await page.api.get(path))["value"]
    answer = await page.api.ask(
        "GET",
        f"{path}/{first['id']}",
        query={"$select": f"id,appliesTo,{','.join(URLS)}{more}"},
    )
    groups = await asking.all_of(page, f"{path}/{first['id']}/includedGroups")
    return answer.json, answer.etag, groups


async def enrolment(page: Page[Any]) -> Response:
    """Everything of 2.10 on one page; saving sends only what is different."""
    mdm, mdm_etag, groups = await _policy(page, MDM, ",defaultUrls")
    mam, mam_etag, mam_groups = await _policy(page, MAM)
    values: dict[str, Any] = {
        "scope": mdm["appliesTo"],
        "groups": [item["id"] for item in groups],
        "mam": mam["appliesTo"],
        "mam_groups": [item["id"] for item in mam_groups],
        **{name: mdm[name] for name in URLS},
        "groups--names": {item["id"]: item["displayName"] for item in groups},
        "mam_groups--names": {item["id"]: item["displayName"] for item in mam_groups},
    }
    names = {name: values[name] for name in ("groups--names", "mam_groups--names")}
    problems: dict[str, AppError] = {}
    general: AppError | None = None
    warning, status, searching = "", 200, False
    if page.request.method == "POST":
        typed, problems, searching = await forms.answers(page, FIELDS)
        before, values = values, {**typed, **names}
        restore = "restore" in page.form_values
        if restore:
            values |= mdm["defaultUrls"]
            problems = {k: v for k, v in problems.items() if k not in URLS}
        for scope, which in (("scope", "groups"), ("mam", "mam_groups")):
            if values[scope] == "selected" and not values[which] and not searching and not restore:
                problems.setdefault(which, Problem(which, N_("Choose at least one group.")))
        status = 422 if problems else 200
        if not problems and not searching and not restore:
            try:
                await _save(page, before, values, mdm, mam, mdm_etag, mam_etag)
                return page.to(
                    ENROLMENT, N_("The settings were saved. They count at the next join.")
                )
            except NotSignedIn:
                raise
            except AppError as error:
                status = forms.status_of(error)
                if error.code == CHANGED:
                    warning = forms.CHANGED_MEANWHILE
                else:
                    at = forms.placed(error, FIELDS)
                    problems, general = ({at: error}, None) if at else ({}, error)
    return await _render(page, values, problems, mdm, mdm_etag, mam_etag, general, warning, status)


async def _save(
    page: Page[Any],
    before: Mapping[str, Any],
    values: Mapping[str, Any],
    mdm: Mapping[str, Any],
    mam: Mapping[str, Any],
    mdm_etag: str,
    mam_etag: str,
) -> None:
    change: dict[str, Any] = _scope_change(before, values, "scope", "groups")
    for name in URLS:
        wanted = values[name] or mdm["defaultUrls"][name]
        if wanted != before[name]:
            # The usual address is not written down, so that it moves with the tenant.
            change[name] = None if wanted == mdm["defaultUrls"][name] else wanted
    if change:
        await page.api.patch(
            f"{MDM}/{mdm['id']}", change, version=page.form_values.get("version", mdm_etag)
        )
    change = _scope_change(before, values, "mam", "mam_groups")
    if change:
        await page.api.patch(
            f"{MAM}/{mam['id']}", change, version=page.form_values.get("mam_version", mam_etag)
        )


def _scope_change(
    before: Mapping[str, Any], values: Mapping[str, Any], scope: str, groups: str
) -> dict[str, Any]:
    some = values[scope] == "selected"
    same = values[scope] == before[scope] and (
        not some or set(values[groups]) == set(before[groups])
    )
    if same:
        return {}
    change: dict[str, Any] = {"appliesTo": values[scope]}
    if some:
        change["includedGroups@odata.bind"] = [
            f"https://graph.microsoft.com/v1.0/groups/{one}" for one in values[groups]
        ]
    return change


async def _render(
    page: Page[Any],
    values: Mapping[str, Any],
    problems: Mapping[str, AppError],
    mdm: Mapping[str, Any],
    mdm_etag: str,
    mam_etag: str,
    general: AppError | None,
    warning: str,
    status: int,
    checked: Mapping[str, Any] | None = None,
    who: str = "",
    who_problem: AppError | None = None,
) -> Response:
    (here,) = (await page.api.get(f"{GRAPH}/organization"))["value"]
    shown = await drawn(
        page,
        FIELDS,
        values,
        problems,
        options_url=forms.PICK,
        lists=page.form_lists,
        form=page.form_values,
    )
    asked = await drawn(page, _WHO, {"user": who}, {"user": who_problem} if who_problem else {})
    return page.render(
        "directory/enrolment.html",
        status,
        fields=shown,
        who=asked,
        checked=checked,
        mdm=mdm,
        etag=mdm_etag,
        mam_etag=mam_etag,
        tenant=here,
        domains=[item["name"] for item in here["verifiedDomains"]],
        host=str(mdm["defaultUrls"]["discoveryUrl"]).partition("//")[2].partition("/")[0],
        general=general,
        warning=warning,
        rights=await asking.rights(page),
        words=words,
    )


async def check(page: Page[Any]) -> Response:
    """Who gets the MDM addresses: one user, yes or no, and why."""
    mdm, mdm_etag, groups = await _policy(page, MDM, ",defaultUrls")
    mam, mam_etag, mam_groups = await _policy(page, MAM)
    values: dict[str, Any] = {
        "scope": mdm["appliesTo"],
        "groups": [item["id"] for item in groups],
        "mam": mam["appliesTo"],
        "mam_groups": [item["id"] for item in mam_groups],
        **{name: mdm[name] for name in URLS},
        "groups--names": {item["id"]: item["displayName"] for item in groups},
        "mam_groups--names": {item["id"]: item["displayName"] for item in mam_groups},
    }
    who = asking.query(page, "user", 113)
    found: Mapping[str, Any] | None = None
    problem: AppError | None = None
    if who:
        try:
            found = await page.api.post(f"{GRAPH}/tandem/enrollmentCheck", {"user": who})
        except NotSignedIn:
            raise
        except AppError as error:
            problem = (
                Problem("user", N_("There is no user %(name)s."), name=who)
                if error.kind is Kind.NOT_FOUND
                else error
            )
    return await _render(
        page,
        values,
        {},
        mdm,
        mdm_etag,
        mam_etag,
        None,
        "",
        422 if problem else 200,
        found,
        who,
        problem,
    )


async def authority(page: Page[Any]) -> Response:
    """Set once; it stays."""
    form = await page.form()
    text = page.language.text
    if form.get("confirmed") != "1":
        return page.confirm(
            text("Make the MDM service the authority?"),
            text(
                "All devices of the tenant are managed by it from then on. It is set once and cannot "
                "be taken back."
            ),
            text("Set the MDM authority"),
            back=ENROLMENT,
            danger=False,
        )
    (here,) = (await page.api.get(f"{GRAPH}/organization"))["value"]
    await page.api.post(f"{GRAPH}/organization/{here['id']}/setMobileDeviceManagementAuthority", {})
    return page.to(ENROLMENT, N_("The MDM authority is set."))


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(ENROLMENT, enrolment),
        console.route(ENROLMENT, enrolment, post=True),
        console.route(f"{ENROLMENT}/check", check),
        console.route(f"{ENROLMENT}/authority", authority, post=True),
    ]
