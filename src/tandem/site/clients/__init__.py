"""Clients of the site, and the management point that they talk to.

Owns the tables clients_token_key, clients_client, clients_timeline and clients_nonce. Knows nothing
of co-management: what a client's policy says is handed in (`Collaborators.policy`). `jobs` has the
clean-up of what replays need no longer.
"""

from tandem.site.clients.http import admin_routes, routes
from tandem.site.clients.jobs import FORGET_NONCES, register
from tandem.site.clients.model import (
    ENDPOINTS,
    BlockedClient,
    Client,
    ClientId,
    ClientsSettings,
    ClientSummary,
    EnrollmentProgress,
    Package,
    SetupState,
    StillBlocked,
    TenantIdentity,
    TimelineEntry,
    UnknownClient,
    UnknownSiteCode,
    describe,
)
from tandem.site.clients.service import (
    Collaborators,
    ManagementPointService,
    block,
    count,
    enrollment_progress,
    find,
    find_by_device,
    forget,
    keep_resource,
    list_clients,
    log_files,
    setup_states,
    timeline,
    token_keys,
    unblock,
)

__all__ = [
    "ENDPOINTS",
    "FORGET_NONCES",
    "BlockedClient",
    "Client",
    "ClientId",
    "ClientSummary",
    "ClientsSettings",
    "Collaborators",
    "Endpoint",
    "EnrollmentProgress",
    "ManagementPointService",
    "Package",
    "SetupState",
    "StillBlocked",
    "TenantIdentity",
    "TimelineEntry",
    "UnknownClient",
    "UnknownSiteCode",
    "admin_routes",
    "block",
    "count",
    "describe",
    "enrollment_progress",
    "find",
    "find_by_device",
    "forget",
    "keep_resource",
    "list_clients",
    "log_files",
    "register",
    "routes",
    "setup_states",
    "timeline",
    "token_keys",
    "unblock",
]
