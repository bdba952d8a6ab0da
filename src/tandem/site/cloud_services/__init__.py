"""The site's side of the cloud: certificates, tenants, gateways, connection points.

Owns the tables cloud_…. A global administrator's token is used within the request that brings it
and is kept nowhere; of who signs in from the console (sign_ins) it is kept sealed for minutes.
Gateways are real processes that outlive the site and are found again.
"""

from tandem.site.cloud_services.acme_orders import Orders
from tandem.site.cloud_services.certificates import certificates as certificate_requests
from tandem.site.cloud_services.connection import ADMINSERVICE_DOOR, Connections, News
from tandem.site.cloud_services.content_http import content_routes
from tandem.site.cloud_services.edge_answers import EdgeAnswers
from tandem.site.cloud_services.gateways import Gateways
from tandem.site.cloud_services.http import CloudServices, connector_routes, routes
from tandem.site.cloud_services.lists import Lists, ListUnavailable
from tandem.site.cloud_services.lists import fetch as fetch_list
from tandem.site.cloud_services.model import (
    COMMAND_LINE_APP,
    AcmeSettings,
    AdminServiceApp,
    App,
    AzureService,
    BadServiceName,
    BadTenantToken,
    CloudEnvironment,
    CloudSettings,
    ConnectionPoint,
    ConsentMissing,
    ForeignCertificate,
    Gateway,
    GatewayExists,
    GatewayInstance,
    GatewaySettings,
    GatewayState,
    NameTaken,
    NoSuchService,
    NotGlobalAdministrator,
    NotPublished,
    SshHost,
    SshSettings,
    TenantRefuses,
    TenantUnreachable,
    fold_service_name,
)
from tandem.site.cloud_services.names import NameView
from tandem.site.cloud_services.sign_ins import SignIns
from tandem.site.cloud_services.tenants import Graph, Tenants
from tandem.site.cloud_services.trust import alarms as revocation_alarms
from tandem.site.cloud_services.trust import verify_client_certificate

__all__ = [
    "ADMINSERVICE_DOOR",
    "COMMAND_LINE_APP",
    "AcmeSettings",
    "AdminServiceApp",
    "App",
    "AzureService",
    "BadServiceName",
    "BadTenantToken",
    "CloudEnvironment",
    "CloudServices",
    "CloudSettings",
    "ConnectionPoint",
    "Connections",
    "ConsentMissing",
    "EdgeAnswers",
    "ForeignCertificate",
    "Gateway",
    "GatewayExists",
    "GatewayInstance",
    "GatewaySettings",
    "GatewayState",
    "Gateways",
    "Graph",
    "ListUnavailable",
    "Lists",
    "NameTaken",
    "NameView",
    "News",
    "NoSuchService",
    "NotGlobalAdministrator",
    "NotPublished",
    "Orders",
    "SignIns",
    "SshHost",
    "SshSettings",
    "TenantRefuses",
    "TenantUnreachable",
    "Tenants",
    "certificate_requests",
    "connector_routes",
    "content_routes",
    "fetch_list",
    "fold_service_name",
    "revocation_alarms",
    "routes",
    "verify_client_certificate",
]
