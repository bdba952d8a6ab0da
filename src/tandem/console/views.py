"""The routes of each authority's console: its areas, what the shell asks of them, and the sign-in."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from tandem.console import wizards
from tandem.console.areas import (
    clients,
    cloud,
    collections,
    comgmt,
    directory,
    fleet,
    gateways,
    mdm,
    notify,
    updates,
)
from tandem.console.kit import Area, Hit, Notice
from tandem.console.labels import N_, Place
from tandem.console.language import Language
from tandem.console.model import Session, SiteReads, TenantReads
from tandem.console.pages import (
    FORM_COOKIE,
    ROOT,
    SESSION_COOKIE,
    Backend,
    Console,
    Elsewhere,
    Page,
    local_path,
    nowhere,
    set_cookie,
)
from tandem.infra.clock import Clock
from tandem.infra.errors import AppError, Kind

# In the order of the navigation, which shows the groups in this order too.
SITE_GROUPS = (
    N_("Monitoring"),
    N_("Assets and compliance"),
    N_("Cloud"),
    N_("Administration"),
)
TENANT_GROUPS = (N_("Devices"), N_("Apps"), N_("Directory"), N_("Administration"))
SITE_AREAS: tuple[Area, ...] = (
    fleet.AREA,
    clients.AREA,
    cloud.AREA,
    # Before the gateways, whose site systems are found by any name.
    updates.AREA,
    gateways.AREA,
    collections.AREA,
    comgmt.AREA,
    notify.AREA,
)
TENANT_AREAS: tuple[Area, ...] = (mdm.AREA, directory.AREA)
# Where somebody without a role comes to.
OWN = f"{ROOT}/my-apps"
# A page that is looked at asks for its news this often, and gets no body when there is none.
REFRESH_SECONDS = 5


# Site


async def site_sign_in_page(page: Page[SiteReads]) -> Response:
    """In place of a page that needs a session; the address stays, to go on to afterwards."""
    own = page.request.url.path == f"{ROOT}/sign-in"
    back = page.request.query_params.get("return_to", "") if own else page.back
    status = 200 if own else 401
    return page.render("sign_in.html", status, error=None, user="", return_to=back)


async def site_sign_in(page: Page[SiteReads]) -> Response:
    fields = await page.form()
    back = local_path(fields.get("return_to", ""))
    user = fields.get("user", "")[:200]
    try:
        session = await page.reads.sign_in(user, fields.get("password", ""))
    except AppError as error:
        if error.kind not in (Kind.UNAUTHENTICATED, Kind.RATE_LIMITED, Kind.INVALID):
            raise
        status = 429 if error.kind is Kind.RATE_LIMITED else 401
        return page.render("sign_in.html", status, error=error, user=user, return_to=back)
    return _signed_in(session, back)


def _signed_in(session: Session, back: str) -> Response:
    answer = RedirectResponse(back, 303)
    set_cookie(answer, SESSION_COOKIE, session.token)
    answer.delete_cookie(FORM_COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return answer


def site_routes(
    reads: SiteReads,
    *,
    now: Clock,
    languages: Callable[[str], Language] = Language,
    backend: Backend,
    elsewhere: Callable[[], Awaitable[Elsewhere | None]] = nowhere,
    areas: Sequence[Area] = SITE_AREAS,
) -> list[BaseRoute]:
    """The site's pages, all under /console; `/` leads there. Put them after the role's own routes."""
    console = Console(
        reads,
        area=N_("Site"),
        navigation=navigation("site"),
        sign_in=site_sign_in_page,
        now=now,
        languages=languages,
        backend=backend,
        elsewhere=elsewhere,
    )
    return [
        Route("/", _home),
        Route(ROOT, _home),
        *_area_routes(console, areas),
        console.route(f"{ROOT}/sign-in", site_sign_in_page),
        console.route(f"{ROOT}/sign-in", site_sign_in, post=True),
        *console.shared(),
    ]


def navigation(area: str) -> tuple[Place, ...]:
    """The places of one authority's console, group by group."""
    areas, groups = (SITE_AREAS, SITE_GROUPS) if area == "site" else (TENANT_AREAS, TENANT_GROUPS)
    places = [place for one in areas for place in one.places]
    return tuple(sorted(places, key=lambda place: groups.index(place.group)))


def _area_routes(console: Console[Any], areas: Sequence[Area]) -> list[BaseRoute]:
    """Every area's pages and wizards, and what the shell asks all of them."""

    async def search(page: Page[Any]) -> Response:
        query = page.request.query_params.get("q", "")[:200].replace("\0", "").strip()
        asked = [one(page, query) for area in areas for one in area.search] if query else []
        answers, missing = await _all(page, asked)
        hits = [hit for answer in answers for hit in answer]
        groups: dict[str, list[Hit]] = {}
        for hit in hits:
            groups.setdefault(hit.kind, []).append(hit)
        return page.render(
            "search.html", query=query, hits=hits, groups=list(groups.items()), missing=missing
        )

    async def told(page: Page[Any]) -> list[Notice]:
        asked = [one(page) for area in areas for one in area.notices]
        answers, _ = await _all(page, asked)
        order = {"bad": 0, "waiting": 1}
        found = [notice for answer in answers for notice in answer]
        return sorted(found, key=lambda notice: order.get(notice.state, 2))

    async def notifications(page: Page[Any]) -> Response:
        return page.render(
            "notifications.html", notices=await told(page), refresh_seconds=REFRESH_SECONDS
        )

    async def count(page: Page[Any]) -> Response:
        wanting = sum(notice.state != "good" for notice in await told(page))
        return page.render("_count.html", count=wanting)

    return [
        console.route(f"{ROOT}/search", search),
        console.route(f"{ROOT}/notifications", notifications),
        console.route(f"{ROOT}/notifications/count", count),
        *(route for area in areas for route in area.routes(console)),
        *(
            route
            for area in areas
            for one in area.wizards
            for route in wizards.routes(console, one)
        ),
    ]


async def _all(page: Page[Any], asked: list[Awaitable[Any]]) -> tuple[list[Any], list[str]]:
    """The answers of those that could answer, and why the others could not."""
    _ = page.session
    answers = await asyncio.gather(*asked, return_exceptions=True)
    missing = []
    for answer in answers:
        if isinstance(answer, AppError):
            missing.append(answer.message)
        elif isinstance(answer, BaseException):
            raise answer
    return [one for one in answers if not isinstance(one, BaseException)], missing


async def _home(_: object) -> Response:
    return RedirectResponse(f"{ROOT}/", 307)


# Tenant


async def tenant_sign_in_page(page: Page[TenantReads]) -> Response:
    own = page.request.url.path == f"{ROOT}/sign-in"
    back = page.back
    if own:
        back = local_path(page.request.query_params.get("return_to", ""))
    begin = f"{ROOT}/sign-in/begin?{urlencode({'return_to': back})}"
    return page.render("signed_out.html", 200 if own else 401, error=None, begin=begin)


async def tenant_begin(page: Page[TenantReads]) -> Response:
    begun = await page.reads.begin(local_path(page.request.query_params.get("return_to", "")))
    answer = RedirectResponse(begun.url, 303)
    set_cookie(answer, FORM_COOKIE, begun.secret, max_age=600)
    return answer


async def tenant_finish(page: Page[TenantReads]) -> Response:
    secret = page.request.cookies.get(FORM_COOKIE, "")
    try:
        session, back = await page.reads.finish(secret, page.request.query_params)
    except AppError as error:
        begin = f"{ROOT}/sign-in/begin"
        return page.render("signed_out.html", 401, error=error, begin=begin)
    return _signed_in(session, OWN if session.own else local_path(back))


async def tenant_home(page: Page[TenantReads]) -> Response:
    own = page.signed_in and page.session.own
    return RedirectResponse(OWN if own else f"{ROOT}/devices", 303)


def tenant_routes(
    reads: TenantReads,
    *,
    now: Clock,
    languages: Callable[[str], Language] = Language,
    backend: Backend,
    elsewhere: Callable[[], Awaitable[Elsewhere | None]] = nowhere,
    areas: Sequence[Area] = TENANT_AREAS,
) -> list[BaseRoute]:
    """The tenant's pages, all under /console; `/` leads there. Put them after the role's own routes."""
    console = Console(
        reads,
        area=N_("Tenant"),
        navigation=navigation("tenant"),
        sign_in=tenant_sign_in_page,
        now=now,
        languages=languages,
        backend=backend,
        elsewhere=elsewhere,
    )
    return [
        Route("/", _home),
        Route(ROOT, _home),
        *_area_routes(console, areas),
        console.route(f"{ROOT}/", tenant_home, own=True),
        console.route(f"{ROOT}/sign-in", tenant_sign_in_page, own=True),
        console.route(f"{ROOT}/sign-in/begin", tenant_begin, own=True),
        console.route(f"{ROOT}/sign-in/done", tenant_finish, own=True),
        *console.shared(),
    ]
