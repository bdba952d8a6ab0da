"""How clients come to be known to the site: bulk registration tokens, and clients that are not one
machine each."""

from typing import Any

from starlette.routing import BaseRoute

from tandem.console.areas.clients import conflicts, tokens
from tandem.console.kit import Area, Console


def _routes(console: Console[Any]) -> list[BaseRoute]:
    return [*tokens.routes(console), *conflicts.routes(console)]


AREA = Area(
    name="clients",
    places=(conflicts.PLACE, tokens.PLACE),
    routes=_routes,
    notices=(conflicts.notices,),
)
