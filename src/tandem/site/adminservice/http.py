"""One route: the path says which class, its options which objects and which of their properties."""

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.database import Database
from tandem.protocols import odata
from tandem.site.administrators import Require
from tandem.site.adminservice import service


def routes(db: Database, require: Require) -> list[BaseRoute]:
    async def read(request: Request) -> Response:
        await require(request)
        name, key = service.read_path(request.path_params["path"])
        query = odata.parse_query(request.query_params.multi_items())
        async with db.transaction() as tx:
            kind = service.kind(request.path_params["surface"], name)
            if key is not None:
                found = await service.one(tx, kind, key, query)
                context = f"{_base(request)}/$metadata#{kind.name}/$entity"
                # An object of wmi/ comes as a list of one; an object of v1.0/ comes plain.
                body = {"value": [found]} if kind.surface == "wmi" else found
                return http.reply({"@odata.context": context, **body})
            page = await service.page(tx, kind, query)
        answer: dict[str, object] = {"@odata.context": f"{_base(request)}/$metadata#{kind.name}"}
        if query.count:
            answer["@odata.count"] = page.total
        answer["value"] = page.rows
        if page.next_skip is not None:
            answer["@odata.nextLink"] = _next(request, page.next_skip)
        return http.reply(answer)

    return [Route("/AdminService/{surface}/{path:path}", read, methods=["GET"])]


def _base(request: Request) -> str:
    return str(request.base_url.replace(path=f"/AdminService/{request.path_params['surface']}"))


def _next(request: Request, skip: int) -> str:
    kept = [item for item in request.query_params.multi_items() if "skip" not in item[0].lower()]
    return str(request.url.replace(query=urlencode([*kept, ("$skip", str(skip))])))
