"""Licences: products and their seats, who has them, who should and does not, and the wizard."""

import shlex
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.directory import asking, forms, words
from tandem.console.areas.directory.asking import GRAPH
from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Draft,
    Fact,
    Notice,
    NotSignedIn,
    Option,
    Outcome,
    Page,
    Problem,
    Step,
    UnknownPage,
    Values,
    Wizard,
    field,
)
from tandem.infra.errors import AppError, Kind

LICENCES = f"{ROOT}/licences"
PLACE = (LICENCES, N_("Licences"))
TABS = {"": N_("Users"), "groups": N_("Groups"), "errors": N_("Errors"), "plans": N_("Plans")}
WIZARD = "assign-licence"
UNLIMITED = 1_000_000
REFRESH_SECONDS = 2
IDLE_SECONDS = 30

_SUBSCRIBE = (
    field(
        "sku",
        N_("Product"),
        "select",
        required=True,
        options=tuple((name, title) for name, title in words.PRODUCT.items()),
    ),
    field(
        "seats",
        N_("Seats"),
        "number",
        least=1,
        most=10_000_000,
        hint=N_("Leave it empty for as many as are needed."),
    ),
)


async def _skus(page: Page[Any]) -> list[dict[str, Any]]:
    return list((await page.api.get(f"{GRAPH}/subscribedSkus"))["value"])


async def _licensing(page: Page[Any]) -> dict[str, Any]:
    return dict(await page.api.get(f"{GRAPH}/tandem/licensing"))


async def _sku(page: Page[Any]) -> dict[str, Any]:
    wanted = page.request.path_params["id"]
    for item in await _skus(page):
        if item["skuId"] == wanted:
            return item
    raise UnknownPage(
        N_("The tenant has no such product."), cure=N_("Choose one from the list of licences.")
    )


async def products(page: Page[Any]) -> Response:
    known = await _licensing(page)
    failures: dict[str, int] = {}
    for item in known["failures"]:
        failures[item["skuId"]] = failures.get(item["skuId"], 0) + 1
    rows = []
    for item in await _skus(page):
        seats = item["prepaidUnits"]["enabled"]
        rows.append(
            {
                **item,
                "seats": None if seats == UNLIMITED else seats,
                "free": None if seats == UNLIMITED else max(0, seats - item["consumedUnits"]),
                "errors": failures.get(item["skuId"], 0),
            }
        )
    return page.render(
        "directory/licences.html",
        rows=rows,
        required=known["licenceRequired"],
        rights=await asking.rights(page),
        words=words,
    )


async def product(page: Page[Any]) -> Response:
    tab = page.request.path_params.get("tab", "")
    if tab not in TABS:
        raise UnknownPage(N_("There is no such page."))
    found = await _sku(page)
    plans = {plan["servicePlanId"]: plan["servicePlanName"] for plan in found["servicePlans"]}
    more: dict[str, Any] = {"rows": [], "failures": [], "shown": None}
    if tab == "":
        more["shown"] = await asking.listed(
            page,
            f"{GRAPH}/users",
            select="id,displayName,userPrincipalName,licenseAssignmentStates",
            where=[f"assignedLicenses/any(x:x/skuId eq {found['skuId']})"],
            sorts={"name": "displayName", "upn": "userPrincipalName"},
        )
    elif tab == "groups":
        more["rows"] = await _groups(page, found, plans)
    elif tab == "errors":
        more["failures"] = await _failures(page, found)
    base = f"{LICENCES}/{found['skuId']}"
    return page.render(
        "directory/licence.html",
        product=found,
        plans=plans,
        tab=tab,
        tabs=[
            (base + (f"/{one}" if one else ""), title, one == tab) for one, title in TABS.items()
        ],
        rights=await asking.rights(page),
        words=words,
        **more,
    )


async def _groups(
    page: Page[Any], found: dict[str, Any], plans: dict[str, str]
) -> list[dict[str, Any]]:
    runs = {
        item["id"]: item for item in (await page.api.get(f"{GRAPH}/tandem/licenseRuns"))["value"]
    }
    rows = []
    async for item in asking.every(
        page, f"{GRAPH}/groups", **{"$select": "id,displayName,assignedLicenses", "$top": 999}
    ):
        for one in item["assignedLicenses"]:
            if one["skuId"] == found["skuId"]:
                off = [plans.get(plan, plan) for plan in one["disabledPlans"]]
                rows.append({**item, "off": off, "run": runs.get(item["id"])})
    return rows


async def _failures(
    page: Page[Any], found: dict[str, Any], groups: frozenset[str] | None = None
) -> list[dict[str, Any]]:
    """Who should have the product and has not, with who they are and by which group."""
    failures = [
        item
        for item in (await _licensing(page))["failures"]
        if item["skuId"] == found["skuId"] and (groups is None or item["groupId"] in groups)
    ]
    named: dict[str, dict[str, Any]] = {}
    for item in failures[:500]:
        for sort in ("user", "group"):
            one = item[f"{sort}Id"]
            if one and one not in named:
                named[one] = await page.api.get(
                    f"{GRAPH}/{sort}s/{one}", **{"$select": "id,displayName"}
                )
    return [
        {
            **item,
            "product": found["skuPartNumber"],
            "user": named.get(item["userId"], {}),
            "group": named.get(item["groupId"] or "", {}),
        }
        for item in failures
    ]


async def subscribe(page: Page[Any]) -> Response:
    initial: Values = {item.name: item.initial() for item in _SUBSCRIBE}
    initial["sku"] = asking.query(page, "sku") or initial["sku"]

    async def work(values: Values) -> Response:
        body = {"sku": values["sku"], "seats": values["seats"] or None}
        await page.api.post(f"{GRAPH}/tandem/subscribe", body)
        return page.to(LICENCES, N_("The subscription was changed."))

    return await forms.filled(
        page,
        _SUBSCRIBE,
        initial,
        work,
        title=page.language.text("Product and seats"),
        label=page.language.text("Save"),
        back=LICENCES,
        place=PLACE,
    )


async def require(page: Page[Any]) -> Response:
    """Whether an enrolment asks for a licence."""
    form = await page.form()
    wanted = form.get("required") == "1"
    await page.api.patch(f"{GRAPH}/tandem/licensing", {"licenceRequired": wanted})
    if wanted:
        return page.to(LICENCES, N_("Enrolments ask for a licence from now on."))
    return page.to(LICENCES, N_("Enrolments ask for no licence from now on."))


async def remove(page: Page[Any]) -> Response:
    """Take the product from a user or a group, after a page that says how many lose it."""
    form = await page.form()
    found = await _sku(page)
    sort = form.get("sort", "")
    if sort not in ("users", "groups"):
        raise UnknownPage(N_("There is no such page."))
    path = f"{GRAPH}/{sort}/{asking.safe(form.get('holder', ''))}"
    holder = await page.api.get(path)
    back = f"{ROOT}/{sort}/{holder['id']}/licences"
    text = page.language.text
    name = text(words.PRODUCT.get(found["skuPartNumber"], found["skuPartNumber"]))
    if form.get("confirmed") != "1":
        losers = 1
        if sort == "groups":
            losers = (await asking.listed(page, f"{path}/transitiveMembers", size=1)).total
        return page.confirm(
            text("Take %(product)s from %(name)s?", product=name, name=holder["displayName"]),
            page.language.plural(
                "%(number)s user loses it, unless it comes from elsewhere too. Devices that are "
                "enrolled stay so; new enrolments may be refused with 0x80180018.",
                "%(number)s users lose it, unless it comes from elsewhere too. Devices that are "
                "enrolled stay so; new enrolments may be refused with 0x80180018.",
                losers,
            ),
            text("Remove"),
            back=back,
            fields={"holder": holder["id"], "sort": sort},
        )
    await page.api.post(
        f"{path}/assignLicense", {"addLicenses": [], "removeLicenses": [found["skuId"]]}
    )
    return page.to(
        back, N_("%(product)s was taken from %(name)s."), product=name, name=holder["displayName"]
    )


# ---------------------------------------------------------------------------------- the wizard


async def _product_options(page: Page[Any], draft: Draft | None, text: str = "") -> list[Option]:
    found: list[Option] = []
    for item in await _skus(page):
        seats, used = item["prepaidUnits"]["enabled"], item["consumedUnits"]
        name = page.language.text(words.PRODUCT.get(item["skuPartNumber"], item["skuPartNumber"]))
        free = (
            page.language.text("as many seats as are needed")
            if seats == UNLIMITED
            else page.language.text(
                "%(free)s of %(all)s seats free",
                free=page.language.number(max(0, seats - used)),
                all=page.language.number(seats),
            )
        )
        found.append((item["skuId"], name, free))
    return found


async def _chosen(page: Page[Any], draft: Draft) -> dict[str, Any]:
    for item in await _skus(page):
        if item["skuId"] == draft.values.get("sku"):
            return item
    raise Problem("sku", N_("Choose a product that the tenant has."))


async def _plan_options(page: Page[Any], draft: Draft | None, text: str = "") -> list[Option]:
    if draft is None:
        return []
    found = await _chosen(page, draft)
    return [
        (
            plan["servicePlanId"],
            words.PLAN.get(plan["servicePlanName"], plan["servicePlanName"]),
            plan["servicePlanName"],
        )
        for plan in found["servicePlans"]
    ]


async def _names_known(page: Page[Any], draft: Draft) -> dict[str, Any]:
    """Who came with the link that began the wizard is shown by name."""
    for sort in ("users", "groups"):
        known = dict(draft.values.get(f"{sort}--names") or {})
        for one in draft.values.get(sort) or ():
            if one not in known:
                try:
                    item = await page.api.get(
                        f"{GRAPH}/{sort}/{asking.safe(one)}",
                        **{"$select": "id,displayName"},
                    )
                    known[one] = item["displayName"]
                except NotSignedIn:
                    raise
                except AppError:
                    continue
        draft.values[f"{sort}--names"] = known
    return {}


async def _somebody(page: Page[Any], draft: Draft) -> None:
    await _names_known(page, draft)
    if not draft.values.get("users") and not draft.values.get("groups"):
        raise Problem("users", N_("Choose at least one user or group."))
    missing = []
    for one in draft.values.get("users") or ():
        item = await page.api.get(
            f"{GRAPH}/users/{asking.safe(one)}",
            **{"$select": "id,displayName,usageLocation"},
        )
        if not item["usageLocation"]:
            missing.append(item["displayName"])
    if missing and not draft.values.get("location"):
        raise Problem(
            "location",
            N_("These users have no usage location, and none can be licensed without: %(names)s."),
            cure=N_("Give one for them here, or take them out."),
            names=", ".join(missing)[:300],
        )


async def _plans_on(page: Page[Any], draft: Draft) -> dict[str, Any]:
    """Every plan of the product is on at first."""
    if draft.values.get("plans_of") != draft.values.get("sku"):
        found = await _chosen(page, draft)
        draft.values["plans"] = [plan["servicePlanId"] for plan in found["servicePlans"]]
    return {}


async def _some_plan(page: Page[Any], draft: Draft) -> None:
    if not draft.values.get("plans"):
        raise Problem("plans", N_("A product without a plan gives nothing: leave one on."))
    draft.values["plans_of"] = draft.values["sku"]


async def _off(page: Page[Any], draft: Draft) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    found = await _chosen(page, draft)
    on = set(draft.values.get("plans") or ())
    return found, [plan for plan in found["servicePlans"] if plan["servicePlanId"] not in on]


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    await _names_known(page, draft)
    found, off = await _off(page, draft)
    text = page.language.text
    users, groups = draft.values.get("users") or [], draft.values.get("groups") or []
    members = 0
    for one in groups:
        path = f"{GRAPH}/groups/{asking.safe(one)}/transitiveMembers"
        members += (await asking.listed(page, path, size=1)).total
    names = {**draft.values["users--names"], **draft.values["groups--names"]}
    facts = [
        Fact(
            N_("Product"), text(words.PRODUCT.get(found["skuPartNumber"], found["skuPartNumber"]))
        ),
        Fact(N_("Users"), ", ".join(names.get(one, one) for one in users)),
        Fact(N_("Groups"), ", ".join(names.get(one, one) for one in groups)),
        Fact(N_("Members of the groups"), members),
        Fact(
            N_("Service plans that are off"),
            ", ".join(
                text(words.PLAN.get(p["servicePlanName"], p["servicePlanName"])) for p in off
            ),
        ),
    ]
    if draft.values.get("location"):
        facts.append(Fact(N_("Usage location for who has none"), draft.values["location"].upper()))
    return facts


async def _command(page: Page[Any], draft: Draft) -> str:
    found, off = await _off(page, draft)
    words_of = ["tandem", "license", "assign", found["skuPartNumber"]]
    for one in draft.values.get("users") or ():
        item = await page.api.get(f"{GRAPH}/users/{asking.safe(one)}")
        words_of += ["--user", item["userPrincipalName"]]
    for one in draft.values.get("groups") or ():
        words_of += ["--group", draft.values["groups--names"].get(one, one)]
    for plan in off:
        words_of += ["--without", plan["servicePlanName"]]
    return shlex.join(words_of)


async def _assign(page: Page[Any], draft: Draft, sort: str, one: str) -> dict[str, Any]:
    """One assignment, and what came of it: a refusal of one is not the others'."""
    found, off = await _off(page, draft)
    path = f"{GRAPH}/{sort}/{asking.safe(one)}"
    result = {"id": one, "name": one, "reason": ""}
    try:
        holder = await page.api.get(
            path, **{"$select": "id,displayName" + (",usageLocation" if sort == "users" else "")}
        )
        result["name"] = holder["displayName"]
        if sort == "users" and not holder["usageLocation"] and draft.values.get("location"):
            await page.api.patch(path, {"usageLocation": draft.values["location"].upper()})
        body = {
            "addLicenses": [
                {
                    "skuId": found["skuId"],
                    "disabledPlans": [plan["servicePlanId"] for plan in off],
                }
            ],
            "removeLicenses": [],
        }
        await page.api.post(f"{path}/assignLicense", body)
    except NotSignedIn:
        raise
    except AppError as error:
        result["reason"], result["cure"] = error.message, error.cure
    return result


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    if not (await asking.rights(page)).write("licences"):
        # Named once and not for each of them.
        first = (draft.values.get("users") or draft.values.get("groups") or [""])[0]
        sort = "users" if draft.values.get("users") else "groups"
        await page.api.post(
            f"{GRAPH}/{sort}/{asking.safe(first)}/assignLicense",
            {"addLicenses": [], "removeLicenses": []},
        )
    done = {}
    for sort in ("users", "groups"):
        done[sort] = [await _assign(page, draft, sort, one) for one in draft.values.get(sort) or ()]
    draft.values["results"] = done
    await page.drafts.save(draft, page.session.token)
    return Outcome(
        N_("The licences were assigned: see below what came of it."), _results_url(draft)
    )


def _results_url(draft: Draft) -> str:
    return f"{LICENCES}/results/{draft.id}"


ASSIGN = Wizard(
    key=WIZARD,
    title=N_("Assign licences"),
    back=LICENCES,
    finish_label=N_("Assign"),
    steps=(
        Step(
            key="product",
            title=N_("Product"),
            fields=(field("sku", N_("Product"), "radio", required=True, options=_product_options),),
        ),
        Step(
            key="people",
            title=N_("Users and groups"),
            intro=N_(
                "Users are licensed at once. A group licenses its members, also those who come later."
            ),
            fields=(
                field("users", N_("Users"), "picker", several=True, options=asking.users),
                field("groups", N_("Groups"), "picker", several=True, options=asking.groups),
                field(
                    "location",
                    N_("Usage location for users who have none"),
                    limit=2,
                    hint=N_("A country's code of two letters. Users who have one keep it."),
                    check=asking.location_is_known,
                ),
            ),
            load=_names_known,
            check=_somebody,
        ),
        Step(
            key="plans",
            title=N_("Service plans"),
            intro=N_("Turn off what these users are not to have."),
            fields=(field("plans", N_("Service plans"), "checks", options=_plan_options),),
            load=_plans_on,
            check=_some_plan,
        ),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
)


async def results(page: Page[Any]) -> Response:
    """What came of an assignment: user by user, and the runs of groups while they go on."""
    draft = await page.drafts.get(page.request.path_params["draft"], WIZARD, page.session.user)
    done = draft.values.get("results")
    if not done:
        raise UnknownPage(N_("This assignment was not made."), cure=N_("Go on with the wizard."))
    found = await _chosen(page, draft)
    runs = {
        item["id"]: item for item in (await page.api.get(f"{GRAPH}/tandem/licenseRuns"))["value"]
    }
    groups = [{**item, "run": runs.get(item["id"])} for item in done["groups"]]
    moving = any(item["run"] and item["run"]["state"] != "done" for item in groups)
    return page.render(
        "directory/licence_results.html",
        product=found,
        users=done["users"],
        groups=groups,
        failures=await _failures(page, found, frozenset(item["id"] for item in groups)),
        retry=f"{_results_url(draft)}/retry",
        rights=await asking.rights(page),
        words=words,
        refresh_seconds=REFRESH_SECONDS if moving else IDLE_SECONDS,
    )


async def retry(page: Page[Any]) -> Response:
    """Once more for those who were refused."""
    await page.form()
    draft = await page.drafts.get(page.request.path_params["draft"], WIZARD, page.session.user)
    done = draft.values.get("results") or {}
    for sort in ("users", "groups"):
        done[sort] = [
            await _assign(page, draft, sort, item["id"]) if item["reason"] else item
            for item in done.get(sort, ())
        ]
    draft.values["results"] = done
    await page.drafts.save(draft, page.session.token)
    found = await _chosen(page, draft)
    named = frozenset(item["id"] for item in done["groups"])
    for failure in await _failures(page, found, named):
        await page.api.post(f"{GRAPH}/users/{failure['userId']}/reprocessLicenseAssignment", {})
    return page.to(_results_url(draft), N_("Tried once more."))


async def notices(page: Page[Any]) -> list[Notice]:
    """Runs that are under way, and users who should have a licence and do not."""
    try:
        runs = (await page.api.get(f"{GRAPH}/tandem/licenseRuns"))["value"]
        failures = (await _licensing(page))["failures"]
    except NotSignedIn:
        raise
    except AppError as error:
        if error.kind is not Kind.FORBIDDEN:
            raise
        return []
    found = []
    for run in runs:
        if run["state"] == "done":
            continue
        group = await page.api.get(f"{GRAPH}/groups/{run['id']}", **{"$select": "id,displayName"})
        found.append(
            Notice(
                title=N_("Licences of the group %(name)s: %(done)s of %(all)s members"),
                values={
                    "name": group["displayName"],
                    "done": page.language.number(run["done"]),
                    "all": page.language.number(run["total"]),
                },
                progress=run["done"] / run["total"] if run["total"] else None,
                url=f"{ROOT}/groups/{run['id']}/licences",
            )
        )
    if failures:
        first = failures[0]
        found.append(
            Notice(
                title=N_("Users without the licence they should have: %(number)s"),
                values={"number": page.language.number(len({f["userId"] for f in failures}))},
                state="bad",
                url=f"{LICENCES}/{first['skuId']}/errors",
            )
        )
    return found


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(LICENCES, products),
        console.route(f"{LICENCES}/subscribe", subscribe),
        console.route(f"{LICENCES}/subscribe", subscribe, post=True),
        console.route(f"{LICENCES}/require", require, post=True),
        console.route(f"{LICENCES}/results/{{draft}}", results),
        console.route(f"{LICENCES}/results/{{draft}}/retry", retry, post=True),
        console.route(f"{LICENCES}/{{id}}", product),
        console.route(f"{LICENCES}/{{id}}/remove", remove, post=True),
        console.route(f"{LICENCES}/{{id}}/{{tab}}", product),
    ]
