"""`/AdminService/wmi/SMS_R_System` and `SMS_Collection`, read-only."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tandem.infra import http
from tandem.infra.database import Database
from tandem.site import collections
from tandem.site.administrators import Require


def routes(db: Database, require: Require) -> list[BaseRoute]:
    async def systems(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            found = await collections.resources(tx, 1000, collections.offset_of(request))
        return _answer(
            "SMS_R_System",
            [
                {
                    "ResourceId": item.id,
                    "Name": item.name,
                    "NetbiosName": item.name,
                    "SMSUniqueIdentifier": item.client_id,
                    "ClientVersion": item.client_version,
                    "OperatingSystemNameandVersion": f"{item.os_name} {item.os_version}".strip(),
                    "AADDeviceID": item.device_id,
                    "AADTenantID": item.tenant_id,
                    "Client": 1,
                }
                for item in found
            ],
        )

    async def every(request: Request) -> Response:
        await require(request)
        async with db.transaction() as tx:
            rows = [
                {
                    "CollectionID": item.id,
                    "Name": item.name,
                    "Comment": item.comment,
                    "LimitToCollectionID": item.limiting_id,
                    "CollectionType": 2,
                    "MemberCount": await collections.count(tx, item.id),
                }
                for item in await collections.collections(tx)
            ]
        return _answer("SMS_Collection", rows)

    return [
        Route("/AdminService/wmi/SMS_R_System", systems, methods=["GET"]),
        Route("/AdminService/wmi/SMS_Collection", every, methods=["GET"]),
    ]


def _answer(name: str, rows: list[dict[str, Any]]) -> Response:
    return http.reply({"@odata.context": f"/AdminService/wmi/$metadata#{name}", "value": rows})
