"""The SQL of keys, applications, their credentials, and consent."""

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
    Certificate,
    Expiring,
    Grant,
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
    keeper: str = "software"


async def keys(tx: Tx, purpose: str) -> list[StoredKey]:
    """The newest first."""
    cursor = await tx.execute(
        "SELECT kid, certificate, sealed, active_from, keeper FROM oidc_key WHERE purpose = %s"
        " ORDER BY active_from DESC, kid",
        (purpose,),
    )
    return [StoredKey(**row) for row in await cursor.fetchall()]


async def insert_key(tx: Tx, purpose: str, key: StoredKey, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO oidc_key (kid, purpose, certificate, sealed, created_at, active_from, keeper)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (key.kid, purpose, key.certificate, key.sealed, now, key.active_from, key.keeper),
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


# ---------------------------------------------------------------------------------- certificates

_CERTIFICATE = """c.key_id::text AS key_id, c.application_id::text AS application_id,
    c.display_name, c.certificate AS der, c.sha1, c.starts_at, c.ends_at"""


async def insert_certificate(tx: Tx, item: Certificate) -> bool:
    """False when the application has it already."""
    cursor = await tx.execute(
        """INSERT INTO oidc_certificate (key_id, application_id, display_name, certificate, sha1,
            sha256, starts_at, ends_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (application_id, sha256) DO NOTHING""",
        (
            item.key_id,
            item.application_id,
            item.display_name,
            item.der,
            item.sha1,
            sha256(item.der).digest(),
            item.starts_at,
            item.ends_at,
        ),
    )
    return cursor.rowcount == 1


async def certificates(tx: Tx, application_ids: Sequence[str]) -> list[Certificate]:
    cursor = await tx.execute(
        f"SELECT {_CERTIFICATE} FROM oidc_certificate c"  # noqa: S608
        " WHERE c.application_id = ANY(%s::uuid[]) ORDER BY c.starts_at, c.key_id",
        (list(application_ids),),
    )
    return [Certificate(**row) for row in await cursor.fetchall()]


async def certificate(
    tx: Tx, application_id: str, *, sha1: bytes = b"", sha256: bytes = b""
) -> Certificate | None:
    """The application's certificate with one of these thumbprints."""
    cursor = await tx.execute(
        f"SELECT {_CERTIFICATE} FROM oidc_certificate c"  # noqa: S608
        " WHERE c.application_id = %s AND (c.sha1 = %s OR c.sha256 = %s)",
        (application_id, sha1, sha256),
    )
    row = await cursor.fetchone()
    return Certificate(**row) if row else None


async def delete_certificate(tx: Tx, application_id: str, key_id: str) -> bool:
    cursor = await tx.execute(
        "DELETE FROM oidc_certificate WHERE application_id = %s AND key_id::text = %s",
        (application_id, key_id.lower()),
    )
    return cursor.rowcount == 1


async def expiring(tx: Tx, until: datetime) -> list[Expiring]:
    """Credentials that end before then, the first to end first."""
    cursor = await tx.execute(
        """SELECT c.sort, c.key_id::text AS key_id, a.app_id::text AS app_id,
            a.display_name AS app_name, c.display_name, c.ends_at
        FROM (
            SELECT 'secret' AS sort, key_id, application_id, display_name, ends_at
            FROM oidc_secret WHERE ends_at < %(until)s
            UNION ALL
            SELECT 'certificate', key_id, application_id, display_name, ends_at
            FROM oidc_certificate WHERE ends_at < %(until)s
        ) c JOIN oidc_application a ON a.id = c.application_id
        ORDER BY c.ends_at, c.key_id""",
        {"until": until},
    )
    return [Expiring(**row) for row in await cursor.fetchall()]


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


async def role_values(tx: Tx, holders: Sequence[str], resource_app_id: str) -> list[str]:
    """The app roles of this resource that the user has, himself or through groups."""
    cursor = await tx.execute(
        """SELECT DISTINCT role ->> 'value' AS value FROM oidc_role_assignment g
        JOIN oidc_service_principal p ON p.id = g.resource_id AND p.app_id::text = %(resource)s
        JOIN oidc_application a ON a.app_id = p.app_id
        JOIN jsonb_array_elements(a.app_roles) role ON role ->> 'id' = g.role_id::text
        WHERE g.principal_id = ANY(%(holders)s::uuid[])
            AND role -> 'allowedMemberTypes' ? 'User' ORDER BY 1""",
        {"resource": resource_app_id, "holders": list(holders)},
    )
    return [row["value"] for row in await cursor.fetchall()]


async def delete_role_assignment(tx: Tx, assignment_id: str) -> None:
    await tx.execute(
        "DELETE FROM oidc_role_assignment WHERE id::text = %s", (assignment_id.lower(),)
    )


# ---------------------------------------------------------------------------------- at once


@dataclass(frozen=True, slots=True)
class AppSignIn:
    """All that a token for an application with a secret is decided by."""

    tenant_id: str
    app_id: str
    app_name: str
    principal_id: str
    resource_id: str
    resource_name: str
    resource_audience: str
    token_version: int
    roles: tuple[str, ...]
    wids: tuple[str, ...]


# One round trip, because this is the request that scripts make most. `wids` is read from the
# directory's table for the same reason; only the directory writes it.
_APP_SIGN_IN = """
SELECT t.id::text AS tenant_id, a.app_id::text AS app_id, a.display_name AS app_name,
    p.id::text AS principal_id, r.app_id::text AS resource_id, r.display_name AS resource_name,
    CASE WHEN r.token_version = 2 OR cardinality(r.identifier_uris) = 0 THEN r.app_id::text
        ELSE r.identifier_uris[1] END AS resource_audience,
    r.token_version,
    ARRAY(SELECT role ->> 'value' FROM oidc_role_assignment g
        JOIN jsonb_array_elements(r.app_roles) role ON role ->> 'id' = g.role_id::text
        WHERE g.principal_id = p.id AND g.resource_id = there.id ORDER BY 1) AS roles,
    ARRAY(SELECT h.role_id::text FROM directory_role_holder h WHERE h.holder_id = p.id
        ORDER BY 1) AS wids
FROM oidc_application a
CROSS JOIN directory_tenant t
JOIN oidc_service_principal p ON p.app_id = a.app_id AND p.account_enabled
JOIN oidc_secret s ON s.application_id = a.id AND s.sha256 = %(secret)s AND s.ends_at > %(now)s
JOIN oidc_application r ON r.id = coalesce(
    (SELECT application_id FROM oidc_identifier_uri WHERE uri = ANY(%(uris)s) LIMIT 1),
    (SELECT id FROM oidc_application WHERE app_id = %(resource)s))
JOIN oidc_service_principal there ON there.app_id = r.app_id AND there.account_enabled
WHERE a.app_id = %(app)s"""


async def app_sign_in(
    tx: Tx, app_id: uuid.UUID, secret_text: str, resource: str, now: datetime
) -> AppSignIn | None:
    """None when anything is wrong; what it is, the careful way finds out."""
    name = resource.lower()
    try:
        guid = uuid.UUID(name)
    except ValueError:
        guid = None
    values = {
        "app": app_id,
        "secret": _hash(secret_text),
        "now": now,
        "uris": [name, name + "/"],
        "resource": guid,
    }
    cursor = await tx.execute(_APP_SIGN_IN, values)
    row = await cursor.fetchone()
    if row is None:
        return None
    return AppSignIn(**{**row, "roles": tuple(row["roles"]), "wids": tuple(row["wids"])})


async def redirect_is_registered(tx: Tx, uri: str, app_id: str = "") -> bool:
    """As a redirect URI of this application, or of any when none is named."""
    cursor = await tx.execute(
        """SELECT 1 FROM oidc_application
        WHERE (%(app)s = '' OR app_id::text = %(app)s) AND (%(uri)s = ANY(web_redirect_uris)
            OR %(uri)s = ANY(public_redirect_uris) OR properties ->> 'logoutUrl' = %(uri)s)
        LIMIT 1""",
        {"uri": uri, "app": app_id.lower()},
    )
    return await cursor.fetchone() is not None
