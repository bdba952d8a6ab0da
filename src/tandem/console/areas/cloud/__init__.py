"""The site's cloud: gateway certificates, Azure services, site properties, what expires."""

from typing import Any

from starlette.routing import BaseRoute

from tandem.console.areas.cloud import calendar, certificates, properties, services, sign_in
from tandem.console.kit import Area, Console

__all__ = ["AREA"]


def _routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        *sign_in.routes(console),
        *certificates.routes(console),
        *services.routes(console),
        *properties.routes(console),
        *calendar.routes(console),
    ]


AREA = Area(
    name="cloud",
    places=(services.PLACE, certificates.PLACE, properties.PLACE, calendar.PLACE),
    routes=_routes,
    wizards=(
        certificates.WIZARD,
        services.WIZARD,
        services.RENEW_WIZARD,
        services.UPDATE_WIZARD,
        services.CONSENT_WIZARD,
    ),
    notices=(services.notices, properties.notices, calendar.notices),
)
