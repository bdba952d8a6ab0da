"""App registrations, their service principals and secrets, and what they were consented to."""

import secrets as random
import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from tandem import pki
from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.oidc import catalogue, deletion, scopes, store
from tandem.tenant.oidc.model import (
    Application,
    BadCredential,
    BuiltInApplication,
    Certificate,
    Expiring,
    Grant,
    RoleAssignment,
    Secret,
    ServicePrincipal,
    UnknownApplication,
    UnknownPermission,
    UriTaken,
)

SECRET_DAYS = 730


async def establish_applications(tx: Tx, mdm_app_id_uri: str, base: str, now: datetime) -> None:
    """Make the built-in applications, or bring them to what this version knows."""
    here = await directory.tenant(tx)
    for item in catalogue.built_in(mdm_app_id_uri, here.default_domain, base):
        known = await store.application(tx, app_id=item.app_id)
        wanted = Application(
            id=known.id if known else str(uuid.uuid4()),
            app_id=item.app_id,
            display_name=item.name,
            built_in=True,
            token_version=1,
            identifier_uris=item.identifier_uris,
            public_redirect_uris=item.public_redirect_uris,
            web_redirect_uris=(),
            scopes=item.scopes,
            app_roles=item.app_roles,
            required_access=(),
            properties={},
            created_at=known.created_at if known else now,
        )
        if wanted != known:
            await store.save_application(tx, wanted)
        if known is None:
            await create_principal(tx, item.app_id, now)


async def create_application(
    tx: Tx, display_name: str, now: datetime, **values: Any
) -> Application:
    """A registration. `values` are fields of Application by name.

    One with an App ID URI and no scopes gets `user_impersonation`, so that it can be asked for
    on a user's behalf. The service principal is a step of its own.
    """
    if not display_name.strip():
        raise UnknownApplication("An application needs a display name.", cure="Give one.")
    made = Application(
        id=str(uuid.uuid4()),
        app_id=str(uuid.uuid4()),
        display_name=display_name.strip(),
        built_in=False,
        token_version=1,
        identifier_uris=(),
        public_redirect_uris=(),
        web_redirect_uris=(),
        scopes=(),
        app_roles=(),
        required_access=(),
        properties={},
        created_at=now,
    )
    return await _save(tx, replace(made, **values))


async def update_application(tx: Tx, object_id: str, **values: Any) -> Application:
    known = await application(tx, object_id)
    if known.built_in:
        raise BuiltInApplication(
            f"{known.display_name} belongs to every tenant and cannot be changed.",
            cure="Register an application of your own.",
        )
    return await _save(tx, replace(known, **values))


async def _save(tx: Tx, item: Application) -> Application:
    for uri in item.identifier_uris:
        scopes.check_identifier_uri(uri)
    for uri in (*item.public_redirect_uris, *item.web_redirect_uris):
        scopes.check_redirect_uri(uri)
    taken = await store.uris_of_others(tx, item.id, item.identifier_uris)
    if taken:
        raise UriTaken(
            f"Another object with the same value for property identifierUris exists: {taken[0]}.",
            cure="Use another App ID URI, or delete the other application.",
            target="identifierUris",
        )
    if item.identifier_uris and not item.scopes:
        item = replace(
            item,
            scopes=(catalogue.permission_scope("user_impersonation", by_user=True),),
        )
    await store.save_application(tx, item)
    return item


async def application(tx: Tx, id_or_app_id: str) -> Application:
    """By object id, app id or App ID URI. Raises UnknownApplication."""
    found = await store.application(tx, app_id=id_or_app_id, object_id=id_or_app_id)
    found = found or await store.application_of_uri(tx, id_or_app_id)
    if found is None:
        raise UnknownApplication(
            f"There is no application '{id_or_app_id}'.", cure="Check the id, or list them."
        )
    return found


async def applications(tx: Tx) -> list[Application]:
    """All registrations of this tenant's own."""
    return [item for item in await store.applications(tx) if not item.built_in]


async def every_application(tx: Tx) -> list[Application]:
    """With the built-in ones."""
    return await store.applications(tx)


async def delete_application(tx: Tx, object_id: str, now: datetime) -> None:
    """Soft: nobody signs in to it or by it from now on, and it can be restored for 30 days."""
    known = await application(tx, object_id)
    if known.built_in:
        raise BuiltInApplication(
            f"{known.display_name} belongs to every tenant and cannot be deleted.",
            cure="Leave it.",
        )
    await deletion.delete(tx, known, now)


async def restore_application(tx: Tx, object_id: str) -> None:
    """With its service principal, secrets, consent and roles. Raises UriTaken."""
    await deletion.restore(tx, object_id)


# ---------------------------------------------------------------------------------- principals


async def create_principal(
    tx: Tx, app_id: str, now: datetime, properties: dict[str, Any] | None = None
) -> ServicePrincipal:
    """Raises UriTaken when the application already has one."""
    known = await application(tx, app_id)
    if await store.principal(tx, app_id=known.app_id) is not None:
        raise UriTaken(
            f"The service principal cannot be created because the application {known.app_id} "
            "already has one.",
            cure="Use the one there is.",
            target="appId",
        )
    made = ServicePrincipal(str(uuid.uuid4()), known.app_id, True, properties or {}, now)
    await directory.add_object(tx, made.id, "servicePrincipal")
    await store.insert_principal(tx, made)
    return made


async def principal(tx: Tx, id_or_app_id: str) -> ServicePrincipal:
    found = await store.principal(tx, app_id=id_or_app_id, object_id=id_or_app_id)
    if found is None:
        raise UnknownApplication(
            f"There is no service principal '{id_or_app_id}'.",
            cure="Create it: POST /servicePrincipals with the application's appId.",
        )
    return found


async def is_enabled(tx: Tx, principal_id: str) -> bool:
    """Whether the service principal is there and may sign in."""
    found = await store.principal(tx, object_id=principal_id)
    return found is not None and found.account_enabled


async def principals(tx: Tx) -> list[ServicePrincipal]:
    return await store.principals(tx)


async def update_principal(tx: Tx, object_id: str, **values: Any) -> ServicePrincipal:
    changed = replace(await principal(tx, object_id), **values)
    await store.save_principal(tx, changed)
    return changed


async def delete_principal(tx: Tx, object_id: str) -> None:
    known = await principal(tx, object_id)
    if (await application(tx, known.app_id)).built_in:
        raise BuiltInApplication(
            "The service principal of a built-in application cannot be deleted.", cure="Leave it."
        )
    await directory.remove_object(tx, known.id)


# ---------------------------------------------------------------------------------- secrets


async def add_secret(
    tx: Tx,
    object_id: str,
    now: datetime,
    *,
    display_name: str | None = None,
    ends_at: datetime | None = None,
) -> tuple[Secret, str]:
    """A new client secret and its text, which is not kept and cannot be shown again."""
    known = await application(tx, object_id)
    if known.built_in:
        raise BuiltInApplication(
            f"{known.display_name} is a public client and has no secrets.",
            cure="Register an application of your own.",
        )
    text = random.token_urlsafe(32)
    made = Secret(
        key_id=str(uuid.uuid4()),
        application_id=known.id,
        display_name=display_name,
        hint=text[:3],
        starts_at=now,
        ends_at=ends_at or now + timedelta(days=SECRET_DAYS),
    )
    await store.insert_secret(tx, made, text)
    return made, text


async def secrets(tx: Tx, object_ids: Iterable[str]) -> list[Secret]:
    return await store.secrets(tx, list(object_ids))


async def remove_secret(tx: Tx, object_id: str, key_id: str) -> None:
    if not await store.delete_secret(tx, object_id, key_id):
        raise UnknownApplication(
            f"No credentials found to be removed with the id {key_id}.",
            cure="List the application's passwordCredentials.",
        )


async def add_certificate(
    tx: Tx,
    object_id: str,
    der: bytes,
    *,
    display_name: str | None = None,
    key_id: str = "",
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
) -> Certificate:
    """Let the application sign its assertions with this certificate's RSA key. It is trusted
    because it is registered, whoever issued it, and no longer than it is valid itself."""
    known = await application(tx, object_id)
    if known.built_in:
        raise BuiltInApplication(
            f"{known.display_name} is a public client and has no certificates.",
            cure="Register an application of your own.",
        )
    try:
        read = x509.load_der_x509_certificate(der)
        public = read.public_key()
    except pki.UNREADABLE:
        raise BadCredential(
            "The certificate cannot be read.", cure="Send one in DER.", target="keyCredentials"
        ) from None
    if not isinstance(public, rsa.RSAPublicKey) or not 2048 <= public.key_size <= 8192:
        raise BadCredential(
            "The certificate's key is not RSA with 2048 to 8192 bits.",
            cure="Make a certificate with an RSA key.",
            target="keyCredentials",
        )
    made = Certificate(
        key_id=key_id or str(uuid.uuid4()),
        application_id=known.id,
        display_name=display_name or read.subject.rfc4514_string()[:256] or None,
        der=der,
        sha1=read.fingerprint(hashes.SHA1()),  # noqa: S303
        starts_at=max(starts_at or read.not_valid_before_utc, read.not_valid_before_utc),
        ends_at=min(ends_at or read.not_valid_after_utc, read.not_valid_after_utc),
    )
    if not await store.insert_certificate(tx, made):
        raise UriTaken(
            "The application has this certificate already.",
            cure="Nothing is left to do.",
            target="keyCredentials",
        )
    return made


async def certificates(tx: Tx, object_ids: Iterable[str]) -> list[Certificate]:
    return await store.certificates(tx, list(object_ids))


async def remove_certificate(tx: Tx, object_id: str, key_id: str) -> None:
    if not await store.delete_certificate(tx, object_id, key_id):
        raise UnknownApplication(
            f"No credentials found to be removed with the id {key_id}.",
            cure="List the application's keyCredentials.",
        )


# How many days before its end a credential is warned of, the most urgent last.
WARN_DAYS = (60, 30, 7)


async def expiring(tx: Tx, now: datetime, days: int = WARN_DAYS[0]) -> list[Expiring]:
    """Secrets and certificates that end within so many days or have ended; the first first."""
    return await store.expiring(tx, now + timedelta(days=days))


def urgency(item: Expiring, now: datetime) -> int | None:
    """The warning that applies: 60, 30 or 7 days, 0 when it has ended; None when none does."""
    left = item.ends_at - now
    if left <= timedelta():
        return 0
    fitting = [days for days in WARN_DAYS if left <= timedelta(days=days)]
    return fitting[-1] if fitting else None


# ---------------------------------------------------------------------------------- consent


async def grants(tx: Tx, client_id: str | None = None) -> list[Grant]:
    return await store.grants(tx, client_id)


async def grant(
    tx: Tx, client_id: str, resource_id: str, scopes: Iterable[str], user_id: str | None = None
) -> str:
    """Consent for a client's service principal to delegated permissions of a resource's: for one
    user, or (None) for everybody. Adds to what it has; returns the grant's id."""
    client, resource = await principal(tx, client_id), await principal(tx, resource_id)
    known = await application(tx, resource.app_id)
    wanted = list(scopes)
    allowed = {*known.scope_names, *catalogue.OPENID_SCOPES}
    unknown = [item for item in wanted if item not in allowed]
    if unknown:
        raise UnknownPermission(
            f"{known.display_name} has no delegated permission {', '.join(unknown)}.",
            cure="Check its spelling against the resource's oauth2PermissionScopes.",
        )
    return await store.add_grant(tx, client.id, resource.id, user_id, wanted)


async def set_grant(tx: Tx, grant_id: str, scopes: Iterable[str]) -> None:
    await store.set_grant(tx, grant_id, list(scopes))


async def remove_grant(tx: Tx, grant_id: str) -> None:
    await store.delete_grant(tx, grant_id)


async def assign_role(
    tx: Tx, role_id: str, principal_id: str, resource_id: str, now: datetime
) -> RoleAssignment:
    """Give an app role of a resource to a service principal, or to a user or group when the role
    is for users."""
    resource = await principal(tx, resource_id)
    sort = await directory.sort_of(tx, principal_id)
    person = sort in ("user", "group")
    holder_id = principal_id.lower() if person else (await principal(tx, principal_id)).id
    known = await application(tx, resource.app_id)
    member = "User" if person else "Application"
    offered = {
        item["id"]
        for item in known.app_roles
        if member in item.get("allowedMemberTypes", ("Application",))
    }
    if role_id.lower() not in offered:
        raise UnknownPermission(
            f"{known.display_name} has no application permission with the id {role_id}.",
            cure="Look it up in the resource's appRoles.",
        )
    made = RoleAssignment(str(uuid.uuid4()), role_id.lower(), holder_id, resource.id, now)
    if not await store.insert_role_assignment(tx, made):
        raise UriTaken(
            "Permission being assigned already exists on the object.",
            cure="Nothing is left to do.",
        )
    return made


async def role_assignments(
    tx: Tx, *, principal_id: str | None = None, resource_id: str | None = None
) -> list[RoleAssignment]:
    return await store.role_assignments(tx, principal_id=principal_id, resource_id=resource_id)


async def remove_role_assignment(tx: Tx, assignment_id: str) -> None:
    await store.delete_role_assignment(tx, assignment_id)


async def admin_consent(tx: Tx, id_or_app_id: str, now: datetime) -> list[str]:
    """Grant everything that the registration declares (requiredResourceAccess), for all users.

    Makes the service principal when it is missing. Returns the permissions, newly granted or not.
    """
    known = await application(tx, id_or_app_id)
    client = await store.principal(tx, app_id=known.app_id)
    client = client or await create_principal(tx, known.app_id, now)
    done = []
    for needed in known.required_access:
        resource = await application(tx, needed["resourceAppId"])
        there = await principal(tx, resource.app_id)
        held = await store.role_assignments(tx, principal_id=client.id, resource_id=there.id)
        roles = {item["id"]: item["value"] for item in resource.app_roles}
        scopes = {item["id"]: item["value"] for item in resource.scopes}
        delegated = []
        for access in needed.get("resourceAccess", ()):
            wanted = access["id"].lower()
            if access["type"] == "Role" and wanted in roles:
                if wanted not in {item.role_id for item in held}:
                    await assign_role(tx, wanted, client.id, there.id, now)
                done.append(roles[wanted])
            elif access["type"] == "Scope" and wanted in scopes:
                delegated.append(scopes[wanted])
        if delegated:
            await store.add_grant(tx, client.id, there.id, None, delegated)
            done += delegated
    return sorted(done)
