"""What a client may ask for: its registration, the resource, and who agreed to what."""

from dataclasses import dataclass
from datetime import datetime

from tandem import audit
from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.oidc import catalogue, store
from tandem.tenant.oidc.applications import create_principal
from tandem.tenant.oidc.model import Application, Request, ServicePrincipal
from tandem.tenant.oidc.refusals import OAuthError
from tandem.tenant.oidc.scopes import Scope, parse_scope


@dataclass(frozen=True, slots=True)
class Consent:
    """What a client asks for and does not have: `admin` when only an administrator may agree."""

    client: Application
    resource: Application
    missing: tuple[str, ...]
    admin: bool


async def client_of(tx: Tx, client_id: str) -> tuple[Application, ServicePrincipal | None]:
    found = await store.application(tx, app_id=client_id)
    if found is None:
        here = await directory.tenant(tx)
        raise OAuthError(
            700016,
            f"Application with identifier '{client_id[:80]}' was not found in the directory "
            f"'{here.display_name}'.",
            cure="Register the application in this tenant, or check the client id.",
        )
    principal = await store.principal(tx, app_id=found.app_id)
    if principal is not None and not principal.account_enabled:
        raise OAuthError(
            7000112,
            f"Application '{found.app_id}'({found.display_name}) is disabled.",
            cure="Enable its service principal.",
        )
    return found, principal


async def resource_of(tx: Tx, scope: Scope) -> tuple[Application, ServicePrincipal]:
    name = scope.resource or catalogue.GRAPH_URI
    found = await store.application(tx, app_id=name) or await store.application_of_uri(tx, name)
    principal = await store.principal(tx, app_id=found.app_id) if found else None
    if found is None or principal is None:
        here = await directory.tenant(tx)
        raise OAuthError(
            500011,
            f"The resource principal named {name[:120]} was not found in the tenant named "
            f"{here.display_name}.",
            cure="Register the resource in this tenant with that App ID URI, and create its "
            "service principal.",
        )
    return found, principal


async def consent_needed(
    tx: Tx, request: Request, user: directory.User, *, again: bool = False
) -> Consent | None:
    """What still has to be agreed to; `again` asks for what was agreed to as well. Built-in
    clients are trusted."""
    client, principal = await client_of(tx, request.app_id)
    if client.built_in:
        return None
    scope = parse_scope(request.scope)
    resource, there = await resource_of(tx, scope)
    wanted = wanted_of(client, resource, scope) - catalogue.OPENID_SCOPES
    check_defined(resource, wanted)
    held: frozenset[str] = frozenset()
    if principal is not None:
        held = await store.granted(tx, principal.id, there.id, user.id)
    missing = tuple(sorted(wanted if again else wanted - held))
    if not missing:
        return None
    by_user = {item["value"] for item in resource.scopes if item.get("type") == "User"}
    return Consent(client, resource, missing, admin=not set(missing) <= by_user)


def may_consent(consent: Consent, roles: frozenset[str]) -> bool:
    allowed = {directory.GLOBAL_ADMINISTRATOR, directory.APPLICATION_ADMINISTRATOR}
    return not consent.admin or bool(roles & allowed)


async def accept(
    tx: Tx, consent: Consent, user: directory.User, now: datetime, *, everybody: bool
) -> None:
    """Record the user's consent, or the organization's when an administrator chose so."""
    roles = await directory.roles_of(tx, user.id)
    allowed = may_consent(consent, roles)
    if everybody:
        allowed = directory.GLOBAL_ADMINISTRATOR in roles
    if not allowed:
        raise OAuthError(
            90094,
            "The grant requires administrator permission.",
            cure="Ask a Global Administrator to consent for the organization.",
        )
    client = await store.principal(tx, app_id=consent.client.app_id)
    if client is None:
        client = await create_principal(tx, consent.client.app_id, now)
    there = await store.principal(tx, app_id=consent.resource.app_id)
    assert there is not None
    await store.add_grant(tx, client.id, there.id, None if everybody else user.id, consent.missing)
    await audit.record(
        tx,
        actor=f"user:{user.user_principal_name}",
        action="consent to application",
        target=consent.client.app_id,
        details={"scopes": list(consent.missing), "everybody": everybody},
        now=now,
    )


def wanted_of(client: Application, resource: Application, scope: Scope) -> frozenset[str]:
    """The permission names that the scope means; `.default` is all that the client declares, or
    for a built-in client all that the resource has."""
    if not scope.resource and not scope.names:
        return frozenset()  # Only OpenID scopes.
    if not scope.default:
        return frozenset(scope.names)
    if client.built_in:
        return frozenset(resource.scope_names)
    declared = {
        access["id"].lower()
        for needed in client.required_access
        if needed["resourceAppId"] == resource.app_id
        for access in needed.get("resourceAccess", ())
        if access["type"] == "Scope"
    }
    return frozenset(item["value"] for item in resource.scopes if item["id"].lower() in declared)


def check_defined(resource: Application, wanted: frozenset[str]) -> None:
    unknown = wanted - set(resource.scope_names) - catalogue.OPENID_SCOPES
    if unknown:
        raise OAuthError(
            70011,
            f"The scope '{', '.join(sorted(unknown))[:200]}' does not exist on the resource "
            f"{resource.display_name}.",
            cure="Ask for one of: " + ", ".join(resource.scope_names[:20]) + ".",
        )


async def consented(
    tx: Tx,
    client: Application,
    resource: Application,
    there: ServicePrincipal,
    user_id: str,
    scope: Scope,
) -> list[str]:
    """The permissions that a token for the user gets. Raises OAuthError 65001."""
    wanted = wanted_of(client, resource, scope) - catalogue.OPENID_SCOPES
    check_defined(resource, wanted)
    if client.built_in:
        return sorted(wanted)
    principal = await store.principal(tx, app_id=client.app_id)
    granted: frozenset[str] = frozenset()
    if principal is not None:
        granted = await store.granted(tx, principal.id, there.id, user_id)
    if not wanted <= granted:
        raise OAuthError(
            65001,
            "The user or administrator has not consented to use the application with ID "
            f"'{client.app_id}' named '{client.display_name}': "
            f"{', '.join(sorted(wanted - granted))}.",
            cure="Send an interactive authorization request for this user and resource, or "
            "grant admin consent.",
            suberror="consent_required",
        )
    return sorted((granted if scope.default else wanted) - catalogue.OPENID_SCOPES)
