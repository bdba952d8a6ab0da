"""What the site has to give to devices: the package of its own client."""

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import ROOT, Console, NotSignedIn, Page
from tandem.infra.errors import AppError

PATH = f"{ROOT}/content"


async def show(page: Page[Any]) -> Response:
    package, wrong = None, None
    try:
        package = await page.api.get("/api/v1/client-package")
    except NotSignedIn:
        raise
    except AppError as error:
        wrong = error
    return page.render("collections/content.html", package=package, wrong=wrong)


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [console.route(PATH, show)]
