"""App registrations, service principals, and what they were consented to."""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive, parse_time
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Created,
    Field,
    Navigation,
    Part,
    Ref,
    Resource,
    Value,
    missing,
)
from tandem.tenant.oidc import Application, Certificate, Secret, applications

# Properties that are kept and given back, and mean nothing here.
_KEPT = ("description", "notes", "tags", "signInAudience")


async def _application_rows(call: Call) -> Sequence[Row]:
    return [_application_row(item) for item in await applications.applications(call.tx)]


def _application_row(item: Application) -> Row:
    return {
        "id": item.id,
        "app_id": item.app_id,
        "display_name": item.display_name,
        "identifier_uris": list(item.identifier_uris),
        "created_date_time": item.created_at,
        "web": {
            "homePageUrl": item.properties.get("homePageUrl"),
            "redirectUris": list(item.web_redirect_uris),
            "logoutUrl": item.properties.get("logoutUrl"),
            "implicitGrantSettings": {
                "enableIdTokenIssuance": item.id_token_issuance,
                "enableAccessTokenIssuance": False,
            },
        },
        "public_client": {"redirectUris": list(item.public_redirect_uris)},
        "api": {
            "requestedAccessTokenVersion": 2 if item.token_version == 2 else None,
            "oauth2PermissionScopes": list(item.scopes),
            "preAuthorizedApplications": [],
            "knownClientApplications": [],
            "acceptMappedClaims": None,
        },
        "app_roles": list(item.app_roles),
        "required_resource_access": list(item.required_access),
        "is_fallback_public_client": item.public,
        **{name: item.properties.get(name) for name in _KEPT},
    }


def _values(body: Body, known: Application | None) -> dict[str, Any]:
    """Fields of Application from a body of Graph."""
    values: dict[str, Any] = {}
    properties = dict(known.properties) if known else {}
    if "displayName" in body and known is not None:
        values["display_name"] = body["displayName"]
    if "identifierUris" in body:
        values["identifier_uris"] = tuple(body["identifierUris"])
    if "publicClient" in body:
        values["public_redirect_uris"] = _uris(body["publicClient"], "publicClient")
    if "web" in body:
        values["web_redirect_uris"] = _uris(body["web"], "web")
        web = body["web"] or {}
        properties["homePageUrl"] = web.get("homePageUrl")
        properties["logoutUrl"] = _logout(web)
        implicit = web.get("implicitGrantSettings") or {}
        properties["enableIdTokenIssuance"] = implicit.get("enableIdTokenIssuance") is True
    if "isFallbackPublicClient" in body:
        properties["isFallbackPublicClient"] = body["isFallbackPublicClient"] is True
    if "api" in body:
        api = body["api"] or {}
        version = api.get("requestedAccessTokenVersion")
        if version not in (None, 1, 2):
            raise _wrong("api", "requestedAccessTokenVersion has to be null, 1 or 2")
        values["token_version"] = 2 if version == 2 else 1
        if "oauth2PermissionScopes" in api:
            values["scopes"] = _described(api["oauth2PermissionScopes"], "oauth2PermissionScopes")
    if "appRoles" in body:
        values["app_roles"] = _described(body["appRoles"], "appRoles")
    if "requiredResourceAccess" in body:
        values["required_access"] = _needed(body["requiredResourceAccess"])
    properties |= {name: body[name] for name in _KEPT if name in body}
    values["properties"] = properties
    return values


def _logout(web: Mapping[str, Any]) -> str | None:
    url = web.get("logoutUrl")
    if url is not None and (not isinstance(url, str) or not url.startswith("https://")):
        raise _wrong("web", "logoutUrl has to be an https address")
    return url


def _uris(value: Any, name: str) -> tuple[str, ...]:
    found = (value or {}).get("redirectUris") or []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise _wrong(name, "redirectUris has to be a list of strings")
    return tuple(found)


def _described(items: Any, name: str) -> tuple[dict[str, Any], ...]:
    """Permissions that the application declares: each needs an id and a value."""
    if not isinstance(items, list):
        raise _wrong(name, "it has to be a list")
    for item in items:
        if not isinstance(item, dict) or not item.get("id") or not item.get("value"):
            raise _wrong(name, "every item needs id and value")
    return tuple({"isEnabled": True, **item, "id": str(item["id"]).lower()} for item in items)


def _needed(items: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(items, list):
        raise _wrong("requiredResourceAccess", "it has to be a list")
    found = []
    for item in items:
        access = item.get("resourceAccess") if isinstance(item, dict) else None
        if not isinstance(access, list) or not isinstance(item.get("resourceAppId"), str):
            raise _wrong("requiredResourceAccess", "items need resourceAppId and resourceAccess")
        for entry in access:
            known = isinstance(entry, dict) and isinstance(entry.get("id"), str)
            if not known or entry.get("type") not in ("Role", "Scope"):
                raise _wrong("requiredResourceAccess", "each access needs id and type Role/Scope")
        found.append(
            {
                "resourceAppId": item["resourceAppId"].lower(),
                "resourceAccess": [
                    {"id": entry["id"].lower(), "type": entry["type"]} for entry in access
                ],
            }
        )
    return tuple(found)


def _wrong(name: str, reason: str) -> BadProperty:
    return BadProperty(
        f"Invalid value specified for property '{name}': {reason}.",
        cure="Correct it and send it again.",
        target=name,
    )


async def _create(call: Call, body: Body) -> Created:
    made = await applications.create_application(
        call.tx, body["displayName"], call.now, **_values(body, None)
    )
    if body.get("keyCredentials"):
        await _set_keys(call, made.id, body["keyCredentials"])
    return Created(made.id)


async def _update(call: Call, key: str, body: Body) -> None:
    known = await applications.application(call.tx, key)
    await applications.update_application(call.tx, key, **_values(body, known))
    if "keyCredentials" in body:
        await _set_keys(call, key, body["keyCredentials"] or [])


async def _set_keys(call: Call, key: str, items: Any) -> None:
    """The application's certificates become these. One that is there already is named by keyId."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _wrong("keyCredentials", "it has to be a list of key credentials")
    kept = {str(item.get("keyId") or "").lower() for item in items}
    for held in await applications.certificates(call.tx, [key]):
        if held.key_id not in kept:
            await applications.remove_certificate(call.tx, key, held.key_id)
    held_ids = {held.key_id for held in await applications.certificates(call.tx, [key])}
    for item in items:
        if str(item.get("keyId") or "").lower() not in held_ids:
            await _add_certificate(call, key, item)


async def _add_certificate(call: Call, key: str, item: Mapping[str, Any]) -> Certificate:
    if item.get("type", "AsymmetricX509Cert") != "AsymmetricX509Cert":
        raise _wrong("keyCredentials", "type has to be AsymmetricX509Cert")
    if item.get("usage", "Verify") != "Verify":
        raise _wrong("keyCredentials", "usage has to be Verify")
    try:
        der = b64decode(str(item.get("key") or ""), validate=True)
    except ValueError:
        raise _wrong("keyCredentials", "key has to be base64") from None
    if der.startswith(b"-----BEGIN CERTIFICATE-----"):  # Some tools encode the PEM once more.
        der = b64decode("".join(der.decode("ascii", "replace").splitlines()[1:-1]))
    name = item.get("displayName")
    return await applications.add_certificate(
        call.tx, key, der, display_name=str(name)[:256] if name else None
    )


def _shown_key(held: Certificate) -> dict[str, Any]:
    return {
        "keyId": held.key_id,
        "displayName": held.display_name,
        "type": "AsymmetricX509Cert",
        "usage": "Verify",
        "key": None,
        "startDateTime": held.starts_at,
        "endDateTime": held.ends_at,
        "customKeyIdentifier": b64encode(held.sha1).decode(),
    }


async def _keys(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for held in await applications.certificates(call.tx, [str(row["id"]) for row in rows]):
        found.setdefault(held.application_id, []).append(_shown_key(held))
    return found


async def _delete(call: Call, key: str) -> None:
    await applications.delete_application(call.tx, key, call.now)


def _shown(secret: Secret) -> dict[str, Any]:
    return {
        "keyId": secret.key_id,
        "displayName": secret.display_name,
        "hint": secret.hint,
        "secretText": None,
        "startDateTime": secret.starts_at,
        "endDateTime": secret.ends_at,
        "customKeyIdentifier": None,
    }


async def _secrets(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for secret in await applications.secrets(call.tx, [str(row["id"]) for row in rows]):
        found.setdefault(secret.application_id, []).append(_shown(secret))
    return found


async def _no_refs(call: Call, key: str) -> Sequence[Ref]:
    return []


APPLICATIONS = Resource(
    path="applications",
    type="application",
    rows=_application_rows,
    read=permissions.APPLICATIONS_READ,
    write=permissions.APPLICATIONS_WRITE,
    create=_create,
    update=_update,
    delete=_delete,
    alternate_keys={"appId": "app_id"},
    fields=(
        Field("id", Primitive.GUID),
        Field("appId", Primitive.GUID),
        Field("displayName", writable=True, required=True),
        Field("identifierUris", collection=True, writable=True),
        Field("signInAudience", writable=True, column="signInAudience", initial="AzureADMyOrg"),
        Field("web", Primitive.COMPLEX, writable=True),
        Field("publicClient", Primitive.COMPLEX, writable=True),
        Field("spa", Primitive.COMPLEX, value=lambda _: {"redirectUris": []}),
        Field("isFallbackPublicClient", Primitive.BOOLEAN, writable=True),
        Field("api", Primitive.COMPLEX, writable=True),
        Field("appRoles", Primitive.COMPLEX, collection=True, writable=True),
        Field("requiredResourceAccess", Primitive.COMPLEX, collection=True, writable=True),
        Field("passwordCredentials", Primitive.COMPLEX, collection=True, load=_secrets),
        Field("keyCredentials", Primitive.COMPLEX, collection=True, load=_keys, writable=True),
        Field("createdDateTime", Primitive.TIME),
        Field("description", writable=True),
        Field("notes", writable=True),
        Field("tags", collection=True, writable=True),
    ),
    navigations=(Navigation("owners", _no_refs, permissions.APPLICATIONS_READ),),
)


async def _add_password(call: Call, body: Body) -> Answer:
    asked = body.get("passwordCredential") or {}
    ends_at = None
    if asked.get("endDateTime"):
        ends_at = parse_time(str(asked["endDateTime"]))
        if ends_at is None or ends_at <= call.now:
            raise _wrong("passwordCredential", "endDateTime has to be a time to come")
    secret, text = await applications.add_secret(
        call.tx,
        call.keys["application"],
        call.now,
        display_name=asked.get("displayName"),
        ends_at=ends_at,
    )
    return Value({**_shown(secret), "secretText": text})


async def _remove_password(call: Call, body: Body) -> Answer:
    await applications.remove_secret(call.tx, call.keys["application"], body["keyId"])
    return None


async def _add_key(call: Call, body: Body) -> Answer:
    return Value(
        _shown_key(
            await _add_certificate(call, call.keys["application"], body["keyCredential"] or {})
        )
    )


async def _remove_key(call: Call, body: Body) -> Answer:
    await applications.remove_certificate(call.tx, call.keys["application"], body["keyId"])
    return None


async def _admin_consent(call: Call, body: Body) -> Answer:
    granted = await applications.admin_consent(call.tx, call.keys["application"], call.now)
    return Value({"granted": granted})


# ---------------------------------------------------------------------------------- principals


async def _principal_rows(call: Call) -> Sequence[Row]:
    known = {item.app_id: item for item in await applications.every_application(call.tx)}
    rows = []
    for item in await applications.principals(call.tx):
        application = known[item.app_id]
        redirects = [*application.web_redirect_uris, *application.public_redirect_uris]
        rows.append(
            {
                "id": item.id,
                "app_id": item.app_id,
                "display_name": application.display_name,
                "account_enabled": item.account_enabled,
                "app_roles": list(application.app_roles),
                "oauth2_permission_scopes": list(application.scopes),
                "service_principal_names": [item.app_id, *application.identifier_uris],
                "reply_urls": redirects,
                "homepage": application.properties.get("homePageUrl"),
                "tags": item.properties.get("tags", []),
                "created_date_time": item.created_at,
            }
        )
    return rows


async def _create_principal(call: Call, body: Body) -> Created:
    made = await applications.create_principal(
        call.tx, body["appId"], call.now, {"tags": body.get("tags", [])}
    )
    return Created(made.id)


async def _update_principal(call: Call, key: str, body: Body) -> None:
    known = await applications.principal(call.tx, key)
    values: dict[str, Any] = {}
    if "accountEnabled" in body:
        values["account_enabled"] = body["accountEnabled"]
    if "tags" in body:
        values["properties"] = {**known.properties, "tags": body["tags"]}
    await applications.update_principal(call.tx, key, **values)


async def _delete_principal(call: Call, key: str) -> None:
    await applications.delete_principal(call.tx, key)


PRINCIPALS = Resource(
    path="servicePrincipals",
    type="servicePrincipal",
    rows=_principal_rows,
    read=permissions.APPLICATIONS_READ,
    write=permissions.APPLICATIONS_WRITE,
    create=_create_principal,
    update=_update_principal,
    delete=_delete_principal,
    alternate_keys={"appId": "app_id"},
    fields=(
        Field("id", Primitive.GUID),
        Field("appId", Primitive.GUID, writable=True, required=True),
        Field("displayName"),
        Field("appDisplayName", column="display_name"),
        Field("accountEnabled", Primitive.BOOLEAN, writable=True),
        Field("servicePrincipalType", value=lambda _: "Application"),
        Field("appRoleAssignmentRequired", Primitive.BOOLEAN, value=lambda _: False),
        Field("appRoles", Primitive.COMPLEX, collection=True),
        Field(
            "oauth2PermissionScopes",
            Primitive.COMPLEX,
            collection=True,
            column="oauth2_permission_scopes",
        ),
        Field("servicePrincipalNames", collection=True),
        Field("replyUrls", collection=True),
        Field("homepage"),
        Field("tags", collection=True, writable=True),
        Field("createdDateTime", Primitive.TIME),
    ),
    navigations=(Navigation("owners", _no_refs, permissions.APPLICATIONS_READ),),
)

# ---------------------------------------------------------------------------------- consent


async def _grant_rows(call: Call) -> Sequence[Row]:
    client = call.keys.get("servicePrincipal")
    return [
        {
            "id": item.id,
            "client_id": item.client_id,
            "resource_id": item.resource_id,
            "principal_id": item.user_id,
            "consent_type": "Principal" if item.user_id else "AllPrincipals",
            "scope": " ".join(item.scopes),
        }
        for item in await applications.grants(call.tx, client)
    ]


async def _create_grant(call: Call, body: Body) -> Created:
    everybody = body["consentType"] == "AllPrincipals"
    if everybody == bool(body.get("principalId")):
        raise _wrong("principalId", "it goes with consentType Principal, and only with it")
    grant_id = await applications.grant(
        call.tx,
        body["clientId"],
        body["resourceId"],
        str(body.get("scope") or "").split(),
        body.get("principalId"),
    )
    return Created(grant_id)


async def _update_grant(call: Call, key: str, body: Body) -> None:
    if "scope" in body:
        await applications.set_grant(call.tx, key, str(body["scope"] or "").split())


async def _delete_grant(call: Call, key: str) -> None:
    await applications.remove_grant(call.tx, key)


_GRANT_FIELDS = (
    Field("id", Primitive.GUID),
    Field("clientId", Primitive.GUID, writable=True, required=True),
    Field("consentType", writable=True, required=True, choices=("AllPrincipals", "Principal")),
    Field("principalId", Primitive.GUID, writable=True),
    Field("resourceId", Primitive.GUID, writable=True, required=True),
    Field("scope", writable=True),
)

GRANTS = Resource(
    path="oauth2PermissionGrants",
    type="oAuth2PermissionGrant",
    rows=_grant_rows,
    read=permissions.GRANTS_READ,
    write=permissions.GRANTS_WRITE,
    create=_create_grant,
    update=_update_grant,
    delete=_delete_grant,
    fields=_GRANT_FIELDS,
)

PRINCIPAL_GRANTS = Resource(
    path="servicePrincipals/{servicePrincipal}/oauth2PermissionGrants",
    type="principalGrant",
    rows=_grant_rows,
    read=permissions.GRANTS_READ,
    fields=_GRANT_FIELDS,
)


async def _assignment_rows(call: Call, **query: str) -> Sequence[Row]:
    known = {item.app_id: item for item in await applications.every_application(call.tx)}
    names = {
        item.id: known[item.app_id].display_name for item in await applications.principals(call.tx)
    }
    return [
        {
            "id": item.id,
            "app_role_id": item.role_id,
            "principal_id": item.principal_id,
            "principal_display_name": names.get(item.principal_id),
            "resource_id": item.resource_id,
            "resource_display_name": names.get(item.resource_id),
            "created_date_time": item.created_at,
        }
        for item in await applications.role_assignments(call.tx, **query)
    ]


async def _held(call: Call) -> Sequence[Row]:
    return await _assignment_rows(call, principal_id=call.keys["servicePrincipal"])


async def _given(call: Call) -> Sequence[Row]:
    return await _assignment_rows(call, resource_id=call.keys["servicePrincipal"])


async def _create_assignment(call: Call, body: Body) -> Created:
    here = call.keys["servicePrincipal"]
    if here not in (body["principalId"], body["resourceId"]):
        raise missing(here)
    made = await applications.assign_role(
        call.tx, body["appRoleId"], body["principalId"], body["resourceId"], call.now
    )
    return Created(made.id)


async def _delete_assignment(call: Call, key: str) -> None:
    await applications.remove_role_assignment(call.tx, key)


_ASSIGNMENT_FIELDS = (
    Field("id", Primitive.GUID),
    Field("appRoleId", Primitive.GUID, writable=True, required=True),
    Field("principalId", Primitive.GUID, writable=True, required=True),
    Field("principalType", value=lambda _: "ServicePrincipal"),
    Field("principalDisplayName"),
    Field("resourceId", Primitive.GUID, writable=True, required=True),
    Field("resourceDisplayName"),
    Field("createdDateTime", Primitive.TIME),
)

ROLES_HELD = Resource(
    path="servicePrincipals/{servicePrincipal}/appRoleAssignments",
    type="appRoleAssignment",
    rows=_held,
    read=permissions.APPLICATIONS_READ,
    write=permissions.ROLE_ASSIGNMENTS_WRITE,
    create=_create_assignment,
    delete=_delete_assignment,
    fields=_ASSIGNMENT_FIELDS,
)

ROLES_GIVEN = Resource(
    path="servicePrincipals/{servicePrincipal}/appRoleAssignedTo",
    type="appRoleAssignedTo",
    rows=_given,
    read=permissions.APPLICATIONS_READ,
    write=permissions.ROLE_ASSIGNMENTS_WRITE,
    create=_create_assignment,
    delete=_delete_assignment,
    fields=_ASSIGNMENT_FIELDS,
)


def application_parts() -> Part:
    return Part(
        (APPLICATIONS, PRINCIPALS, GRANTS, PRINCIPAL_GRANTS, ROLES_HELD, ROLES_GIVEN),
        (
            Action(
                "applications/{application}/addPassword",
                _add_password,
                permissions.APPLICATIONS_WRITE,
                body=(Field("passwordCredential", Primitive.COMPLEX, writable=True),),
            ),
            Action(
                "applications/{application}/removePassword",
                _remove_password,
                permissions.APPLICATIONS_WRITE,
                body=(Field("keyId", Primitive.GUID, writable=True, required=True),),
            ),
            # The proof of an earlier key is not asked for: who may write applications may replace
            # their keys by PATCH as well.
            Action(
                "applications/{application}/addKey",
                _add_key,
                permissions.APPLICATIONS_WRITE,
                body=(
                    Field("keyCredential", Primitive.COMPLEX, writable=True, required=True),
                    Field("passwordCredential", Primitive.COMPLEX, writable=True),
                    Field("proof", writable=True),
                ),
            ),
            Action(
                "applications/{application}/removeKey",
                _remove_key,
                permissions.APPLICATIONS_WRITE,
                body=(
                    Field("keyId", Primitive.GUID, writable=True, required=True),
                    Field("proof", writable=True),
                ),
            ),
            # Not Graph's: the portal's button "Grant admin consent" as one call.
            Action(
                "applications/{application}/grantAdminConsent",
                _admin_consent,
                permissions.ROLE_ASSIGNMENTS_WRITE,
                open=True,
            ),
        ),
    )
