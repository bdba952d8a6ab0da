"""The site itself, and the tenants that it is connected to."""

import uuid
from importlib import metadata

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.site import properties
from tandem.site.adminservice.model import Body, Call, Class, Key, Method, Property

_INTEGER, _BOOLEAN, _TIME = Primitive.INTEGER, Primitive.BOOLEAN, Primitive.TIME
_PRIMARY, _ACTIVE = 2, 1


async def _site(call: Call) -> list[Row]:
    here = await properties.site(call.tx)
    return [
        {
            "SiteCode": here.code,
            "SiteName": here.name,
            "ServerName": call.others.server,
            "Version": metadata.version("tandem"),
            "Type": _PRIMARY,
            "ReportingSiteCode": "",
            "Status": _ACTIVE,
        }
    ]


async def _site_id(call: Call) -> str:
    """The same for as long as the site is, and no other site's."""
    here = await properties.site(call.tx)
    made = uuid.uuid5(uuid.NAMESPACE_OID, f"{here.code}:{here.management_point_id}")
    return f"{{{str(made).upper()}}}"


async def _identification(call: Call) -> list[Row]:
    here = await properties.site(call.tx)
    return [
        {
            "ThisSiteCode": here.code,
            "ThisSiteName": here.name,
            "SiteID": await _site_id(call),
        }
    ]


async def _get_site_id(call: Call, _: Key, __: Body) -> Body:
    return {"SiteID": await _site_id(call)}


async def _azure_services(call: Call) -> list[Row]:
    found = []
    for service, apps in await call.others.azure_services(call.tx):
        by_kind = {app.kind: app for app in apps}
        server, client = by_kind.get("server"), by_kind.get("client")
        found.append(
            {
                "ServiceID": service.id,
                "Name": service.name,
                "Description": service.description,
                "Environment": service.environment,
                "AADTenantID": service.tenant_id,
                "TenantName": service.tenant_name,
                "IsDiscoveryEnabled": service.discovery_enabled,
                "ServerAppID": server.app_id if server else "",
                "ServerAppName": server.name if server else "",
                "ServerAppIDURI": server.app_id_uri if server else "",
                "ServerAppSecretExpiry": server.secret_expires_at if server else None,
                "ClientAppID": client.app_id if client else "",
                "ClientAppName": client.name if client else "",
                "CreatedDate": service.created_at,
            }
        )
    return found


CLASSES = (
    Class(
        surface="wmi",
        name="SMS_Site",
        key=("SiteCode",),
        properties=(
            Property("SiteCode"),
            Property("SiteName"),
            Property("ServerName"),
            Property("Version"),
            Property("Type", _INTEGER),
            Property("ReportingSiteCode"),
            Property("Status", _INTEGER),
        ),
        read=_site,
        narrowed=True,
    ),
    Class(
        surface="wmi",
        name="SMS_Identification",
        key=("ThisSiteCode",),
        properties=(Property("ThisSiteCode"), Property("ThisSiteName"), Property("SiteID")),
        read=_identification,
        narrowed=True,
        methods=(Method("GetSiteId", _get_site_id, static=True, asks=True),),
    ),
    Class(
        surface="wmi",
        name="SMS_AzureService",
        key=("ServiceID",),
        properties=(
            Property("ServiceID"),
            Property("Name"),
            Property("Description"),
            Property("Environment"),
            Property("AADTenantID"),
            Property("TenantName"),
            Property("IsDiscoveryEnabled", _BOOLEAN),
            Property("ServerAppID"),
            Property("ServerAppName"),
            Property("ServerAppIDURI"),
            Property("ServerAppSecretExpiry", _TIME),
            Property("ClientAppID"),
            Property("ClientAppName"),
            Property("CreatedDate", _TIME),
        ),
        read=_azure_services,
    ),
)
