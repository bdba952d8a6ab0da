"""Co-management at the site: guide, wizard, settings, policies, roll-outs, client settings, configurations."""

from typing import Any

from starlette.routing import BaseRoute

from tandem.console.areas.comgmt import (
    client_settings,
    configurations,
    custom_settings,
    guide,
    rollouts,
    settings,
    waiting,
    wizard,
)
from tandem.console.areas.comgmt.words import PATH
from tandem.console.kit import N_, Area, Console, Place

__all__ = ["AREA"]


def _routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        *guide.routes(console),
        *wizard.routes(console),
        *settings.routes(console),
        *rollouts.routes(console),
        *client_settings.routes(console),
        *custom_settings.routes(console),
        *configurations.routes(console),
        *waiting.routes(console),
    ]


AREA = Area(
    name="comgmt",
    places=(
        guide.PLACE,
        waiting.PLACE,
        Place(PATH, N_("Co-management settings"), "flow", N_("Cloud")),
        configurations.PLACE,
        client_settings.PLACE,
    ),
    routes=_routes,
    wizards=(wizard.WIZARD_OF_COMANAGEMENT, custom_settings.WIZARD),
    notices=(settings.notices, rollouts.notices),
)
