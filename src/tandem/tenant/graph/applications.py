"""App registrations, service principals, and what they were consented to."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive, parse_time
from tandem.tenant import directory
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Created,
    Field,
    Forbidden,
    Navigation,
    Part,
    Ref,
    Resource,
    Value,
    missing,
)
from tandem.tenant.graph.users import member_of, transitive_member_of
from tandem.tenant.oidc import Application, Certificate, Secret, applications

# Properties that are kept and given back, and mean nothing here.
_KEPT = (
    "description",
    "notes",
    "tags",
    "signInAudience",
    "uniqueName",
    "groupMembershipClaims",
    "optionalClaims",
    "info",
    "parentalControlSettings",
    "defaultRedirectUri",
    "samlMetadataUrl",
    "serviceManagementReference",
    "tokenEncryptionKeyId",
)
_KEPT_OF_API = ("preAuthorizedApplications", "knownClientApplications", "acceptMappedClaims")
_LONGEST_KEPT = 8192
_PROOF_AUDIENCE = "00000002-0000-0000-c000-000000000000"
_PROOF_SECONDS = 600


async def _application_rows(call: Call) -> Sequence[Row]:
    return [_application_row(item) for item in await applications.applications(call.tx)]


def _application_row(item: Application) -> Row:
    spa = list(item.properties.get("spaRedirectUris") or ())
    api = item.properties.get("api") or {}
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
        "public_client": {
            "redirectUris": [uri for uri in item.public_redirect_uris if uri not in spa]
        },
        "spa": {"redirectUris": spa},
        "api": {
            "requestedAccessTokenVersion": 2 if item.token_version == 2 else None,
            "oauth2PermissionScopes": list(item.scopes),
            "preAuthorizedApplications": api.get("preAuthorizedApplications") or [],
            "knownClientApplications": api.get("knownClientApplications") or [],
            "acceptMappedClaims": api.get("acceptMappedClaims"),
        },
        "app_roles": list(item.app_roles),
        "required_resource_access": list(item.required_access),
        "is_fallback_public_client": item.public,
        **{f"kept_{name}": item.properties.get(name) for name in _KEPT},
        "version": repr(item),
    }


def _values(body: Body, known: Application | None) -> dict[str, Any]:
    """Fields of Application from a body of Graph."""
    values: dict[str, Any] = {}
    properties = dict(known.properties) if known else {}
    if "displayName" in body and known is not None:
        values["display_name"] = body["displayName"]
    if "identifierUris" in body:
        values["identifier_uris"] = tuple(body["identifierUris"])
    if "publicClient" in body or "spa" in body:
        before = list(properties.get("spaRedirectUris") or ())
        spa = _uris(body["spa"], "spa") if "spa" in body else before
        public = [uri for uri in known.public_redirect_uris if uri not in before] if known else []
        if "publicClient" in body:
            public = list(_uris(body["publicClient"], "publicClient"))
        # A page's script is a public client like any other: it proves itself by PKCE.
        properties["spaRedirectUris"] = list(spa)
        values["public_redirect_uris"] = tuple(dict.fromkeys([*public, *spa]))
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
        kept = {name: api[name] for name in _KEPT_OF_API if name in api}
        properties["api"] = {**(properties.get("api") or {}), **_short("api", kept)}
    if "appRoles" in body:
        values["app_roles"] = _described(body["appRoles"], "appRoles")
    if "requiredResourceAccess" in body:
        values["required_access"] = _needed(body["requiredResourceAccess"])
    properties |= {name: _short(name, body[name]) for name in _KEPT if name in body}
    values["properties"] = properties
    return values


def _logout(web: Mapping[str, Any]) -> str | None:
    url = web.get("logoutUrl")
    if url is not None and (not isinstance(url, str) or not url.startswith("https://")):
        raise _wrong("web", "logoutUrl has to be an https address")
    return url


def _short(name: str, value: Any) -> Any:
    if value is not None and len(str(value)) > _LONGEST_KEPT:
        raise _wrong(name, "it is too long")
    return value


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
        if directory.as_guid(str(item["id"])) is None or not isinstance(item["value"], str):
            raise _wrong(name, "the id of every item is a GUID, and its value a text")
        members = item.get("allowedMemberTypes", ["User"])
        if not isinstance(members, list) or not set(members) <= {"User", "Application"}:
            raise _wrong(name, "allowedMemberTypes has User, Application or both")
    found = tuple(
        {"isEnabled": True, **_short(name, item), "id": str(item["id"]).lower()} for item in items
    )
    for key in ("id", "value"):
        if len({str(item[key]).lower() for item in found}) < len(found):
            raise _wrong(name, f"two items have the same {key}")
    return found


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
    if call.caller.sort == "user":
        await directory.add_owner(call.tx, made.id, call.caller.object_id)
    if body.get("keyCredentials"):
        await _set_keys(call, made.id, body["keyCredentials"])
    return Created(made.id)


async def _update(call: Call, key: str, body: Body) -> None:
    known = await applications.application(call.tx, key)
    if body.keys() - {"keyCredentials"}:
        await applications.update_application(call.tx, key, **_values(body, known))
    if "keyCredentials" in body:
        await _set_keys(call, key, body["keyCredentials"])


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


def _shown_key(item: Certificate, *, with_key: bool) -> dict[str, Any]:
    return {
        "keyId": item.key_id,
        "type": "AsymmetricX509Cert",
        "usage": "Verify",
        "displayName": item.display_name,
        "customKeyIdentifier": b64encode(item.sha1).decode(),
        "key": b64encode(item.der).decode() if with_key else None,
        "startDateTime": item.starts_at,
        "endDateTime": item.ends_at,
    }


async def _keys(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    """With the certificates themselves only when $select asks for them."""
    asked = "keycredentials" in {name.lower() for name in call.query.select}
    found: dict[str, Any] = {}
    for item in await applications.certificates(call.tx, [str(row["id"]) for row in rows]):
        found.setdefault(item.application_id, []).append(_shown_key(item, with_key=asked))
    return found


async def _set_keys(call: Call, key: str, wanted: Sequence[dict[str, Any]]) -> None:
    """The list replaces the one there is: what is named by its keyId stays as it was."""
    known = {item.key_id for item in await applications.certificates(call.tx, [key])}
    kept = {str(item.get("keyId") or "").lower() for item in wanted} & known
    for key_id in sorted(known - kept):
        await applications.remove_certificate(call.tx, key, key_id)
    for item in wanted:
        if str(item.get("keyId") or "").lower() not in known:
            await _add_certificate(call, key, item)


async def _add_certificate(call: Call, key: str, item: Mapping[str, Any]) -> Certificate:
    if item.get("type", "AsymmetricX509Cert") != "AsymmetricX509Cert":
        raise _wrong("keyCredentials", "type has to be AsymmetricX509Cert")
    if item.get("usage", "Verify") != "Verify":
        raise _wrong("keyCredentials", "usage has to be Verify")
    key_id = item.get("keyId")
    if key_id is not None and directory.as_guid(str(key_id)) is None:
        raise _wrong("keyCredentials", "keyId has to be a GUID")
    try:
        der = b64decode(str(item.get("key") or ""), validate=True)
        if b"-----BEGIN" in der:  # Scripts send the base64 of a PEM file as well.
            der = b64decode(b"".join(der.split(b"-----")[2].split()))
    except (ValueError, IndexError):
        raise _wrong("keyCredentials", "key has to be a certificate in base64") from None
    name = item.get("displayName")
    return await applications.add_certificate(
        call.tx,
        key,
        der,
        display_name=str(name)[:256] if name else None,
        key_id=str(key_id).lower() if key_id else "",
        starts_at=_moment(item, "startDateTime"),
        ends_at=_moment(item, "endDateTime"),
    )


def _moment(item: Mapping[str, Any], name: str) -> datetime | None:
    given = item.get(name)
    moment = parse_time(str(given)) if given else None
    if given and moment is None:
        raise _wrong("keyCredentials", f"{name} has to be a time")
    return moment


async def _prove(call: Call, key: str, proof: str) -> None:
    """Whoever rolls a key shows that it holds one: a JWT signed by a certificate of this
    application, for the directory, no older than ten minutes."""
    for item in await applications.certificates(call.tx, [key]):
        if not item.starts_at <= call.now < item.ends_at:
            continue
        public = x509.load_der_x509_certificate(item.der).public_key()
        assert isinstance(public, RSAPublicKey)
        try:
            claims = jwt.decode(proof, RSAKey.import_key(public), algorithms=["RS256"]).claims
            begins, ends = float(claims["nbf"]), float(claims["exp"])
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        moment = call.now.timestamp()
        fresh = begins - 60 <= moment < ends and ends - begins <= _PROOF_SECONDS
        if fresh and claims.get("aud") == _PROOF_AUDIENCE and claims.get("iss") == key:
            return
    raise Forbidden(
        "The proof is not signed by a valid certificate of this application, or not for this use.",
        cure=f"Sign a JWT with aud {_PROOF_AUDIENCE}, iss the application's object id, and nbf and "
        "exp at most ten minutes apart; or PATCH keyCredentials as an administrator.",
    )


async def _add_key(call: Call, body: Body) -> Answer:
    key = call.keys["application"]
    await _prove(call, key, body["proof"])
    made = await _add_certificate(call, key, body.get("keyCredential") or {})
    call.note(activity="Update application - Certificates and secrets management")
    return Value(_shown_key(made, with_key=False))


async def _remove_key(call: Call, body: Body) -> Answer:
    key = call.keys["application"]
    await _prove(call, key, body["proof"])
    await applications.remove_certificate(call.tx, key, body["keyId"])
    call.note(activity="Update application - Certificates and secrets management")
    return None


async def _owners(call: Call, key: str) -> Sequence[Ref]:
    return [Ref(item.sort, item.id) for item in await directory.owners(call.tx, key)]


async def _add_owner(call: Call, key: str, owner: str) -> None:
    await directory.add_owner(call.tx, key, owner)


async def _remove_owner(call: Call, key: str, owner: str) -> None:
    await directory.remove_owner(call.tx, key, owner)


_OWNERS = Navigation(
    "owners",
    _owners,
    permissions.APPLICATIONS_READ,
    permissions.APPLICATIONS_WRITE,
    _add_owner,
    _remove_owner,
    binds=True,
)


async def _publisher(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    here = await directory.tenant(call.tx)
    return {str(row["id"]): here.default_domain for row in rows}


def _kept(name: str, primitive: Primitive = Primitive.STRING, **more: Any) -> Field:
    return Field(name, primitive, writable=True, column=f"kept_{name}", **more)


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
    etag="version",
    tells_etag=False,
    fields=(
        Field("id", Primitive.GUID),
        Field("appId", Primitive.GUID),
        Field("displayName", writable=True, required=True),
        Field("identifierUris", collection=True, writable=True),
        _kept("signInAudience", initial="AzureADMyOrg"),
        Field("web", Primitive.COMPLEX, writable=True),
        Field("publicClient", Primitive.COMPLEX, writable=True),
        Field("spa", Primitive.COMPLEX, writable=True),
        Field("isFallbackPublicClient", Primitive.BOOLEAN, writable=True),
        Field("api", Primitive.COMPLEX, writable=True),
        Field("appRoles", Primitive.COMPLEX, collection=True, writable=True),
        Field("requiredResourceAccess", Primitive.COMPLEX, collection=True, writable=True),
        Field("passwordCredentials", Primitive.COMPLEX, collection=True, load=_secrets),
        Field("keyCredentials", Primitive.COMPLEX, collection=True, writable=True, load=_keys),
        Field("createdDateTime", Primitive.TIME),
        Field("deletedDateTime", Primitive.TIME, value=lambda _: None),
        Field("publisherDomain", load=_publisher),
        _kept("description"),
        _kept("notes"),
        _kept("tags", collection=True),
        _kept("uniqueName"),
        _kept("groupMembershipClaims"),
        _kept("optionalClaims", Primitive.COMPLEX),
        _kept("info", Primitive.COMPLEX),
        _kept("parentalControlSettings", Primitive.COMPLEX),
        _kept("defaultRedirectUri"),
        _kept("samlMetadataUrl"),
        _kept("serviceManagementReference"),
        _kept("tokenEncryptionKeyId"),
        Field("verifiedPublisher", Primitive.COMPLEX, value=lambda _: None),
        Field("certification", Primitive.COMPLEX, value=lambda _: None),
        Field("disabledByMicrosoftStatus", value=lambda _: None),
        Field("addIns", Primitive.COMPLEX, collection=True, value=lambda _: []),
    ),
    navigations=(_OWNERS,),
)


async def _application_here(call: Call) -> str:
    """The application of the path, or the one whose service principal the path names."""
    if "application" in call.keys:
        return (await applications.application(call.tx, call.keys["application"])).id
    principal = await applications.principal(call.tx, call.keys["servicePrincipal"])
    return (await applications.application(call.tx, principal.app_id)).id


async def _add_password(call: Call, body: Body) -> Answer:
    call.note(activity="Update application - Certificates and secrets management")
    asked = body.get("passwordCredential") or {}
    ends_at = None
    if asked.get("endDateTime"):
        ends_at = parse_time(str(asked["endDateTime"]))
        if ends_at is None or ends_at <= call.now:
            raise _wrong("passwordCredential", "endDateTime has to be a time to come")
    secret, text = await applications.add_secret(
        call.tx,
        await _application_here(call),
        call.now,
        display_name=str(asked["displayName"])[:256] if asked.get("displayName") else None,
        ends_at=ends_at,
    )
    return Value({**_shown(secret), "secretText": text})


async def _remove_password(call: Call, body: Body) -> Answer:
    call.note(activity="Update application - Certificates and secrets management")
    await applications.remove_secret(call.tx, await _application_here(call), body["keyId"])
    return None


# ---------------------------------------------------------------------------------- principals


_KEPT_OF_PRINCIPALS = (
    "tags",
    "alternativeNames",
    "appRoleAssignmentRequired",
    "description",
    "loginUrl",
    "notes",
    "notificationEmailAddresses",
    "preferredSingleSignOnMode",
    "samlSingleSignOnSettings",
    "tokenEncryptionKeyId",
)


async def _principal_rows(call: Call) -> Sequence[Row]:
    here = await directory.tenant(call.tx)
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
                "logout_url": application.properties.get("logoutUrl"),
                "sign_in_audience": application.properties.get("signInAudience") or "AzureADMyOrg",
                "application_id": application.id,
                "owner_organization": None if application.built_in else here.id,
                **{f"kept_{name}": item.properties.get(name) for name in _KEPT_OF_PRINCIPALS},
                "created_date_time": item.created_at,
            }
        )
    return rows


async def _create_principal(call: Call, body: Body) -> Created:
    kept = {name: _short(name, body[name]) for name in _KEPT_OF_PRINCIPALS if name in body}
    made = await applications.create_principal(call.tx, body["appId"], call.now, kept)
    if body.get("accountEnabled") is False:
        await applications.update_principal(call.tx, made.id, account_enabled=False)
    return Created(made.id)


async def _update_principal(call: Call, key: str, body: Body) -> None:
    known = await applications.principal(call.tx, key)
    values: dict[str, Any] = {}
    if body.get("accountEnabled") is not None:
        values["account_enabled"] = body["accountEnabled"]
    kept = {name: _short(name, body[name]) for name in _KEPT_OF_PRINCIPALS if name in body}
    if kept:
        values["properties"] = {**known.properties, **kept}
    await applications.update_principal(call.tx, key, **values)


async def _delete_principal(call: Call, key: str) -> None:
    await applications.delete_principal(call.tx, key)


async def _of_applications(
    call: Call, rows: Sequence[Row], load: Callable[[Call, Sequence[Row]], Any]
) -> Mapping[str, Any]:
    """What is loaded for applications, by the ids of their service principals."""
    mine = {str(row["id"]): str(row["application_id"]) for row in rows if "application_id" in row}
    found = await load(call, [{"id": item} for item in mine.values()])
    return {key: found[item] for key, item in mine.items() if item in found}


async def _principal_secrets(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    return await _of_applications(call, rows, _secrets)


async def _principal_keys(call: Call, rows: Sequence[Row]) -> Mapping[str, Any]:
    return await _of_applications(call, rows, _keys)


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
        _kept("appRoleAssignmentRequired", Primitive.BOOLEAN, initial=False),
        Field("appOwnerOrganizationId", Primitive.GUID, column="owner_organization"),
        Field("signInAudience"),
        Field("logoutUrl"),
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
        _kept("tags", collection=True),
        _kept("alternativeNames", collection=True),
        _kept("notificationEmailAddresses", collection=True),
        *(
            _kept(name)
            for name in (
                "description",
                "loginUrl",
                "notes",
                "preferredSingleSignOnMode",
                "tokenEncryptionKeyId",
            )
        ),
        _kept("samlSingleSignOnSettings", Primitive.COMPLEX),
        Field("passwordCredentials", Primitive.COMPLEX, collection=True, load=_principal_secrets),
        Field("keyCredentials", Primitive.COMPLEX, collection=True, load=_principal_keys),
        Field("createdDateTime", Primitive.TIME),
        Field("deletedDateTime", Primitive.TIME, value=lambda _: None),
        Field("info", Primitive.COMPLEX, value=lambda _: None),
        Field("verifiedPublisher", Primitive.COMPLEX, value=lambda _: None),
        Field("disabledByMicrosoftStatus", value=lambda _: None),
        Field("addIns", Primitive.COMPLEX, collection=True, value=lambda _: []),
        Field(
            "resourceSpecificApplicationPermissions",
            Primitive.COMPLEX,
            collection=True,
            value=lambda _: [],
        ),
    ),
    navigations=(
        _OWNERS,
        Navigation("memberOf", member_of, permissions.APPLICATIONS_READ),
        Navigation("transitiveMemberOf", transitive_member_of, permissions.APPLICATIONS_READ),
    ),
)

# ---------------------------------------------------------------------------------- consent


async def _grant_rows(call: Call) -> Sequence[Row]:
    client, user = call.keys.get("servicePrincipal"), call.keys.get("user")
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
        if user is None or item.user_id == user
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
    assigned = await applications.role_assignments(call.tx, **query)
    sorts = {
        item.id: item.sort
        for item in await directory.sorts(call.tx, [item.principal_id for item in assigned])
    }
    for item in assigned:
        if sorts.get(item.principal_id) == "user":
            names[item.principal_id] = (
                await directory.user(call.tx, item.principal_id)
            ).display_name
        elif sorts.get(item.principal_id) == "group":
            names[item.principal_id] = (
                await directory.group(call.tx, item.principal_id)
            ).display_name
    return [
        {
            "id": item.id,
            "app_role_id": item.role_id,
            "principal_id": item.principal_id,
            "principal_display_name": names.get(item.principal_id),
            "resource_id": item.resource_id,
            "resource_display_name": names.get(item.resource_id),
            "created_date_time": item.created_at,
            "sort": sorts.get(item.principal_id, ""),
        }
        for item in assigned
        if item.principal_id in sorts
    ]


def _holder(call: Call) -> str:
    return next(
        call.keys[sort] for sort in ("servicePrincipal", "user", "group") if sort in call.keys
    )


async def _held(call: Call) -> Sequence[Row]:
    return await _assignment_rows(call, principal_id=_holder(call))


async def _given(call: Call) -> Sequence[Row]:
    return await _assignment_rows(call, resource_id=call.keys["servicePrincipal"])


async def _create_assignment(call: Call, body: Body) -> Created:
    here = _holder(call)
    if here not in (body["principalId"], body["resourceId"]):
        raise missing(here)
    made = await applications.assign_role(
        call.tx, body["appRoleId"], body["principalId"], body["resourceId"], call.now
    )
    return Created(made.id)


async def _delete_assignment(call: Call, key: str) -> None:
    await applications.remove_role_assignment(call.tx, key)


def _principal_type(row: Row) -> str:
    return {"user": "User", "group": "Group"}.get(row["sort"], "ServicePrincipal")


_ASSIGNMENT_FIELDS = (
    Field("id", Primitive.GUID),
    Field("appRoleId", Primitive.GUID, writable=True, required=True),
    Field("principalId", Primitive.GUID, writable=True, required=True),
    Field("principalType", value=_principal_type, needs=("sort",)),
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


_OF_PEOPLE = tuple(
    replace(ROLES_HELD, path=f"{path}/appRoleAssignments", type=f"{sort}AppRoleAssignment")
    for sort, path in (("user", "users/{user}"), ("group", "groups/{group}"))
)
USER_GRANTS = replace(
    PRINCIPAL_GRANTS, path="users/{user}/oauth2PermissionGrants", type="userGrant"
)
_PASSWORD = (Field("passwordCredential", Primitive.COMPLEX, writable=True),)
_KEY_ID = Field("keyId", Primitive.GUID, writable=True, required=True)
_PROOF = Field("proof", writable=True, required=True)


def application_parts() -> Part:
    return Part(
        (
            APPLICATIONS,
            PRINCIPALS,
            GRANTS,
            PRINCIPAL_GRANTS,
            USER_GRANTS,
            ROLES_HELD,
            ROLES_GIVEN,
            *_OF_PEOPLE,
        ),
        (
            Action(
                "applications/{application}/addKey",
                _add_key,
                permissions.APPLICATIONS_WRITE,
                body=(
                    Field("keyCredential", Primitive.COMPLEX, writable=True, required=True),
                    Field("passwordCredential", Primitive.COMPLEX, writable=True),
                    _PROOF,
                ),
            ),
            Action(
                "applications/{application}/removeKey",
                _remove_key,
                permissions.APPLICATIONS_WRITE,
                body=(_KEY_ID, _PROOF),
            ),
            Action(
                "servicePrincipals/{servicePrincipal}/addPassword",
                _add_password,
                permissions.APPLICATIONS_WRITE,
                body=_PASSWORD,
            ),
            Action(
                "servicePrincipals/{servicePrincipal}/removePassword",
                _remove_password,
                permissions.APPLICATIONS_WRITE,
                body=(_KEY_ID,),
            ),
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
        ),
    )
