"""Gateways at the site: their pages and wizards, site system roles, the way in, ports, and the site
about itself."""

from typing import Any

from starlette.routing import BaseRoute

from tandem.console.areas.gateways import (
    content,
    create,
    health,
    pages,
    roles,
    settings,
    traffic,
)
from tandem.console.kit import N_, ROOT, Area, Console, Place


def _routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        *pages.routes(console),
        *settings.routes(console),
        *traffic.routes(console),
        *content.routes(console),
        *roles.routes(console),
        *health.routes(console),
    ]


AREA = Area(
    name="gateways",
    places=(
        Place(f"{ROOT}/health", N_("Chain health"), "pulse", N_("Monitoring")),
        Place(f"{ROOT}/gateways", N_("Cloud management gateway"), "cloud_link", N_("Cloud")),
        Place(f"{ROOT}/site-systems", N_("Site system roles"), "server", N_("Administration")),
        Place(f"{ROOT}/ports", N_("Ports and endpoints"), "plug_connected", N_("Administration")),
        Place(f"{ROOT}/about", N_("About and health"), "info", N_("Administration")),
    ),
    routes=_routes,
    wizards=(create.WIZARD, roles.WIZARD),
    search=(pages.search,),
    notices=(pages.notices,),
)
