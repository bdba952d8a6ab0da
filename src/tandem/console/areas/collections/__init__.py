"""The site's collections and how they are built, discovered users, audit log, administrators, content."""

from typing import Any

from starlette.routing import BaseRoute

from tandem.console.areas.collections import builder, content, found, log, pages, people
from tandem.console.kit import N_, ROOT, Area, Console, Place

__all__ = ["AREA"]


def _routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        *builder.routes(console),
        *pages.routes(console),
        *people.routes(console),
        *log.routes(console),
        *content.routes(console),
    ]


AREA = Area(
    name="collections",
    places=(
        Place(f"{ROOT}/audit", N_("Audit log"), "history", N_("Monitoring")),
        Place(f"{ROOT}/collections", N_("Collections"), "people_team", N_("Assets and compliance")),
        Place(f"{ROOT}/users", N_("Users"), "people", N_("Assets and compliance")),
        Place(
            f"{ROOT}/content", N_("Applications and content"), "box", N_("Assets and compliance")
        ),
        Place(f"{ROOT}/discovery", N_("User discovery"), "search", N_("Administration")),
        Place(f"{ROOT}/administrators", N_("Administrators"), "person", N_("Administration")),
        Place(f"{ROOT}/scopes", N_("Security scopes"), "shield", N_("Administration")),
    ),
    routes=_routes,
    wizards=builder.WIZARDS,
    search=(found.search,),
    notices=(people.notices,),
)
