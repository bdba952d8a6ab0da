"""The SQL of applications, consent, codes and refresh tokens."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from psycopg.types.json import Jsonb

from tandem.infra.database import Tx
from tandem.tenant.oidc.model import (
    Application,
    Grant,
    Request,
    RoleAssignment,
    Secret,
    ServicePrincipal,
)

_APPLICATION = """a.id::text AS id, a.app_id::text AS app_id, a.display_name, a.built_in,
    a.token_version, a.identifier_uris, a.public_redirect_uris, a.web_redirect_uris, a.scopes,
    a.app_roles, a.required_access, a.properties, a.created_at"""
_PRINCIPAL = """p.id::text AS id, p.app_id::text AS app_id, p.account_enabled, p.properties,
    p.created_at"""
_CREDENTIAL = """s.key_id::text AS key_id, s.application_id::text AS application_id, s.display_name,
    s.hint, s.starts_at, s.ends_at"""
_GRANT = """g.id::text AS id, g.client_id::text AS client_id, g.resource_id::text AS resource_id,
    g.user_id::text AS user_id, g.scopes"""
_ROLE = """r.id::text AS id, r.role_id::text AS role_id, r.principal_id::text AS principal_id,
    r.resource_id::text AS resource_id, r.created_at"""


def _hash(text: str) -> bytes:
    return sha256(text.encode()).digest()


# ---------------------------------------------------------------------------------- keys


@dataclass(frozen=True, slots=True)
class StoredKey:
    kid: str
    certificate: bytes
    sealed: bytes
    active_from: datetime


async def keys(tx: Tx, purpose: str) -> list[StoredKey]:
    """The newest first."""
    cursor = await tx.execute(
        "SELECT kid, certificate, sealed, active_from FROM oidc_key WHERE purpose = %s"
        " ORDER BY active_from DESC, kid",
        (purpose,),
    )
    return [StoredKey(**row) for row in await cursor.fetchall()]


async def insert_key(tx: Tx, purpose: str, key: StoredKey, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO oidc_key (kid, purpose, certificate, sealed, created_at, active_from)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (key.kid, purpose, key.certificate, key.sealed, now, key.active_from),
    )


async def delete_keys(tx: Tx, kids: Sequence[str]) -> None:
    await tx.execute("DELETE FROM oidc_key WHERE kid = ANY(%s)", (list(kids),))


# ---------------------------------------------------------------------------------- applications


def _application(row: dict[str, Any]) -> Application:
    lists = (
        "identifier_uris",
        "public_redirect_uris",
        "web_redirect_uris",
        "scopes",
        "app_roles",
        "required_access",
    )
    return Application(**{**row, **{name: tuple(row[name]) for name in lists}})


async def application(tx: Tx, *, app_id: str = "", object_id: str = "") -> Application | None:
    cursor = await tx.execute(
        f"SELECT {_APPLICATION} FROM oidc_application a"  # noqa: S608
        " WHERE a.app_id::text = %s OR a.id::text = %s",
        (app_id.lower(), object_id.lower()),
    )
    row = await cursor.fetchone()
    return _application(row) if row else None


async def application_of_uri(tx: Tx, uri: str) -> Application | None:
    cursor = await tx.execute(
        f"SELECT {_APPLICATION} FROM oidc_application a"  # noqa: S608
        " JOIN oidc_identifier_uri u ON u.application_id = a.id WHERE u.uri = ANY(%s)",
        ([uri.lower(), uri.lower() + "/"],),
    )
    row = await cursor.fetchone()
    return _application(row) if row else None


async def applications(tx: Tx) -> list[Application]:
    cursor = await tx.execute(
        f"SELECT {_APPLICATION} FROM oidc_application a ORDER BY lower(a.display_name), a.id"  # noqa: S608
    )
    return [_application(row) for row in await cursor.fetchall()]


async def save_application(tx: Tx, item: Application) -> None:
    await tx.execute(
        """INSERT INTO oidc_application (id, app_id, display_name, built_in, token_version,
            identifier_uris, public_redirect_uris, web_redirect_uris, scopes, app_roles,
            required_access, properties, created_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (id) DO UPDATE SET display_name = EXCLUDED.display_name,
            token_version = EXCLUDED.token_version, identifier_uris = EXCLUDED.identifier_uris,
            public_redirect_uris = EXCLUDED.public_redirect_uris,
            web_redirect_uris = EXCLUDED.web_redirect_uris, scopes = EXCLUDED.scopes,
            app_roles = EXCLUDED.app_roles, required_access = EXCLUDED.required_access,
            properties = EXCLUDED.properties""",
        (
            item.id,
            item.app_id,
            item.display_name,
            item.built_in,
            item.token_version,
            list(item.identifier_uris),
            list(item.public_redirect_uris),
            list(item.web_redirect_uris),
            Jsonb(list(item.scopes)),
            Jsonb(list(item.app_roles)),
            Jsonb(list(item.required_access)),
            Jsonb(item.properties),
            item.created_at,
        ),
    )
    await tx.execute("DELETE FROM oidc_identifier_uri WHERE application_id = %s", (item.id,))
    await tx.execute(
        "INSERT INTO oidc_identifier_uri (uri, application_id)"
        " SELECT DISTINCT lower(u), %s::uuid FROM unnest(%s::text[]) u",
        (item.id, list(item.identifier_uris)),
    )


async def uris_of_others(tx: Tx, object_id: str, uris: Sequence[str]) -> list[str]:
    cursor = await tx.execute(
        "SELECT uri FROM oidc_identifier_uri WHERE uri = ANY(%s) AND application_id <> %s",
        ([uri.lower() for uri in uris], object_id),
    )
    return [row["uri"] for row in await cursor.fetchall()]


async def delete_application(tx: Tx, object_id: str) -> None:
    await tx.execute("DELETE FROM oidc_application WHERE id = %s", (object_id,))


# ---------------------------------------------------------------------------------- principals


async def insert_principal(tx: Tx, item: ServicePrincipal) -> None:
    await tx.execute(
        "INSERT INTO oidc_service_principal (id, app_id, account_enabled, properties, created_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        (item.id, item.app_id, item.account_enabled, Jsonb(item.properties), item.created_at),
    )


async def save_principal(tx: Tx, item: ServicePrincipal) -> None:
    await tx.execute(
        "UPDATE oidc_service_principal SET account_enabled = %s, properties = %s WHERE id = %s",
        (item.account_enabled, Jsonb(item.properties), item.id),
    )


async def principal(tx: Tx, *, app_id: str = "", object_id: str = "") -> ServicePrincipal | None:
    cursor = await tx.execute(
        f"SELECT {_PRINCIPAL} FROM oidc_service_principal p"  # noqa: S608
        " WHERE p.app_id::text = %s OR p.id::text = %s",
        (app_id.lower(), object_id.lower()),
    )
    row = await cursor.fetchone()
    return ServicePrincipal(**row) if row else None


async def principals(tx: Tx) -> list[ServicePrincipal]:
    cursor = await tx.execute(
        f"SELECT {_PRINCIPAL} FROM oidc_service_principal p ORDER BY p.id"  # noqa: S608
    )
    return [ServicePrincipal(**row) for row in await cursor.fetchall()]


# ---------------------------------------------------------------------------------- secrets


async def insert_secret(tx: Tx, item: Secret, text: str) -> None:
    await tx.execute(
        """INSERT INTO oidc_secret (key_id, application_id, display_name, hint, sha256, starts_at,
            ends_at) VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (
            item.key_id,
            item.application_id,
            item.display_name,
            item.hint,
            _hash(text),
            item.starts_at,
            item.ends_at,
        ),
    )


async def secret(tx: Tx, application_id: str, text: str) -> Secret | None:
    """The application's secret with this text. The texts are random, so their hash suffices."""
    cursor = await tx.execute(
        f"SELECT {_CREDENTIAL} FROM oidc_secret s WHERE s.application_id = %s AND s.sha256 = %s",  # noqa: S608
        (application_id, _hash(text)),
    )
    row = await cursor.fetchone()
    return Secret(**row) if row else None


async def secrets(tx: Tx, application_ids: Sequence[str]) -> list[Secret]:
    cursor = await tx.execute(
        f"SELECT {_CREDENTIAL} FROM oidc_secret s WHERE s.application_id = ANY(%s::uuid[])"  # noqa: S608
        " ORDER BY s.starts_at, s.key_id",
        (list(application_ids),),
    )
    return [Secret(**row) for row in await cursor.fetchall()]


async def delete_secret(tx: Tx, application_id: str, key_id: str) -> bool:
    cursor = await tx.execute(
        "DELETE FROM oidc_secret WHERE application_id = %s AND key_id::text = %s",
        (application_id, key_id.lower()),
    )
    return cursor.rowcount == 1


# ---------------------------------------------------------------------------------- consent


async def add_grant(
    tx: Tx, client_id: str, resource_id: str, user_id: str | None, scopes: Sequence[str]
) -> str:
    """Add to what the client has; returns the grant's id."""
    cursor = await tx.execute(
        """SELECT id::text AS id FROM oidc_grant WHERE client_id = %s AND resource_id = %s
        AND user_id IS NOT DISTINCT FROM %s FOR UPDATE""",
        (client_id, resource_id, user_id),
    )
    row = await cursor.fetchone()
    if row is None:
        grant_id = str(uuid.uuid4())
        await tx.execute(
            "INSERT INTO oidc_grant (id, client_id, resource_id, user_id, scopes)"
            " VALUES (%s, %s, %s, %s, %s)",
            (grant_id, client_id, resource_id, user_id, sorted(set(scopes))),
        )
        return grant_id
    await tx.execute(
        "UPDATE oidc_grant SET scopes = ARRAY(SELECT DISTINCT s FROM unnest(scopes || %s::text[])"
        " s ORDER BY s) WHERE id = %s",
        (list(scopes), row["id"]),
    )
    found: str = row["id"]
    return found


async def set_grant(tx: Tx, grant_id: str, scopes: Sequence[str]) -> None:
    await tx.execute(
        "UPDATE oidc_grant SET scopes = %s WHERE id::text = %s",
        (sorted(set(scopes)), grant_id.lower()),
    )


async def delete_grant(tx: Tx, grant_id: str) -> None:
    await tx.execute("DELETE FROM oidc_grant WHERE id::text = %s", (grant_id.lower(),))


async def grants(tx: Tx, client_id: str | None = None) -> list[Grant]:
    cursor = await tx.execute(
        f"SELECT {_GRANT} FROM oidc_grant g"  # noqa: S608
        " WHERE %(client)s::text IS NULL OR g.client_id::text = %(client)s ORDER BY g.id",
        {"client": client_id},
    )
    return [Grant(**{**row, "scopes": tuple(row["scopes"])}) for row in await cursor.fetchall()]


async def granted(tx: Tx, client_id: str, resource_id: str, user_id: str) -> frozenset[str]:
    cursor = await tx.execute(
        """SELECT unnest(scopes) AS scope FROM oidc_grant WHERE client_id = %s
        AND resource_id = %s AND (user_id IS NULL OR user_id = %s)""",
        (client_id, resource_id, user_id),
    )
    return frozenset(row["scope"] for row in await cursor.fetchall())


async def insert_role_assignment(tx: Tx, item: RoleAssignment) -> bool:
    cursor = await tx.execute(
        """INSERT INTO oidc_role_assignment (id, role_id, principal_id, resource_id, created_at)
        VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
        (item.id, item.role_id, item.principal_id, item.resource_id, item.created_at),
    )
    return cursor.rowcount == 1


async def role_assignments(
    tx: Tx, *, principal_id: str | None = None, resource_id: str | None = None
) -> list[RoleAssignment]:
    cursor = await tx.execute(
        f"SELECT {_ROLE} FROM oidc_role_assignment r"  # noqa: S608
        " WHERE (%(principal)s::text IS NULL OR r.principal_id::text = %(principal)s)"
        " AND (%(resource)s::text IS NULL OR r.resource_id::text = %(resource)s)"
        " ORDER BY r.created_at, r.id",
        {"principal": principal_id, "resource": resource_id},
    )
    return [RoleAssignment(**row) for row in await cursor.fetchall()]


async def delete_role_assignment(tx: Tx, assignment_id: str) -> None:
    await tx.execute(
        "DELETE FROM oidc_role_assignment WHERE id::text = %s", (assignment_id.lower(),)
    )


# ---------------------------------------------------------------------------------- codes


@dataclass(frozen=True, slots=True)
class Handed:
    """A code or refresh token that was handed out."""

    family: str
    app_id: str
    user_id: str
    scope: str
    public: bool
    signed_in_at: datetime
    expires_at: datetime
    used_at: datetime | None
    redirect_uri: str = ""
    nonce: str = ""
    challenge: str = ""


_HANDED = """family::text AS family, app_id::text AS app_id, user_id::text AS user_id, scope,
    public, signed_in_at, expires_at, used_at"""


async def insert_code(
    tx: Tx,
    code: str,
    family: str,
    request: Request,
    user_id: str,
    signed_in_at: datetime,
    expires_at: datetime,
) -> None:
    await tx.execute(
        """INSERT INTO oidc_code (sha256, family, app_id, user_id, redirect_uri, scope, nonce,
            challenge, public, signed_in_at, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            _hash(code),
            family,
            request.app_id,
            user_id,
            request.redirect_uri,
            request.scope,
            request.nonce,
            request.challenge,
            request.public,
            signed_in_at,
            expires_at,
        ),
    )


async def code(tx: Tx, text: str) -> Handed | None:
    """Locked until the transaction ends, so that two requests cannot both use it."""
    cursor = await tx.execute(
        f"SELECT {_HANDED}, redirect_uri, nonce, challenge FROM oidc_code"  # noqa: S608
        " WHERE sha256 = %s FOR UPDATE",
        (_hash(text),),
    )
    row = await cursor.fetchone()
    return Handed(**row) if row else None


async def use_code(tx: Tx, text: str, now: datetime) -> None:
    await tx.execute("UPDATE oidc_code SET used_at = %s WHERE sha256 = %s", (now, _hash(text)))


async def insert_refresh_token(
    tx: Tx, text: str, source: Handed, scope: str, expires_at: datetime
) -> None:
    await tx.execute(
        """INSERT INTO oidc_refresh_token (sha256, family, app_id, user_id, scope, public,
            signed_in_at, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            _hash(text),
            source.family,
            source.app_id,
            source.user_id,
            scope,
            source.public,
            source.signed_in_at,
            expires_at,
        ),
    )


async def refresh_token(tx: Tx, text: str) -> Handed | None:
    cursor = await tx.execute(
        f"SELECT {_HANDED} FROM oidc_refresh_token WHERE sha256 = %s FOR UPDATE",  # noqa: S608
        (_hash(text),),
    )
    row = await cursor.fetchone()
    return Handed(**row) if row else None


async def use_refresh_token(tx: Tx, text: str, now: datetime) -> None:
    await tx.execute(
        "UPDATE oidc_refresh_token SET used_at = coalesce(used_at, %s) WHERE sha256 = %s",
        (now, _hash(text)),
    )


async def delete_family(tx: Tx, family: str) -> None:
    await tx.execute("DELETE FROM oidc_refresh_token WHERE family = %s", (family,))


async def use_assertion(tx: Tx, identity: str, expires_at: datetime) -> bool:
    """False when it was used before."""
    cursor = await tx.execute(
        "INSERT INTO oidc_assertion (sha256, expires_at) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (_hash(identity), expires_at),
    )
    return cursor.rowcount == 1


async def delete_expired(tx: Tx, now: datetime) -> None:
    await tx.execute("DELETE FROM oidc_assertion WHERE expires_at < %s", (now,))
    await tx.execute("DELETE FROM oidc_code WHERE expires_at < %s", (now,))
    await tx.execute("DELETE FROM oidc_refresh_token WHERE expires_at < %s", (now,))
