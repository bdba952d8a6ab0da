"""Authorization and token requests: who may have which token, decided here and nowhere else."""

import hmac
import secrets
import uuid
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from tandem import audit, pki
from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.oidc import catalogue, store
from tandem.tenant.oidc.applications import create_principal
from tandem.tenant.oidc.model import (
    Application,
    OAuthError,
    Request,
    Scope,
    ServicePrincipal,
    parse_scope,
    redirect_matches,
)
from tandem.tenant.oidc.tokens import Tokens, jwt_header, pairwise

Form = dict[str, str]

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_SECONDS = 300
_SKEW_SECONDS = 60
# OpenID scopes that a user may consent to, and those that are not worth asking about.
_SILENT = catalogue.OPENID_SCOPES


@dataclass(frozen=True, slots=True)
class Consent:
    """What a client asks for and does not have: `admin` when only an administrator may agree."""

    client: Application
    resource: Application
    missing: tuple[str, ...]
    admin: bool


class Denied(msgspec.Struct, frozen=True):
    """An answer whose transaction has to be kept although it is a refusal."""

    error: OAuthError


def need(form: Form, name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise OAuthError(
            900144,
            f"The request body must contain the following parameter: '{name}'.",
            cure="Send it.",
        )
    return value


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


# ---------------------------------------------------------------------------------- authorize


async def check_client(tx: Tx, query: Form) -> Request:
    """The request as far as it decides where answers may go. Refusals become a page, never a
    redirect: the address is not trusted yet."""
    client, _ = await client_of(tx, need(query, "client_id"))
    given = need(query, "redirect_uri")
    public = any(redirect_matches(given, uri) for uri in client.public_redirect_uris)
    if not public and given not in client.web_redirect_uris:
        raise OAuthError(
            50011,
            f"The redirect URI '{given[:200]}' specified in the request does not match the "
            f"redirect URIs configured for the application '{client.app_id}'.",
            cure="Add it to the app registration, exactly as it is sent.",
        )
    mode = query.get("response_mode", "query").lower()
    return Request(
        app_id=client.app_id,
        redirect_uri=given,
        scope=query.get("scope", ""),
        public=public,
        state=query.get("state", "")[:4000],
        nonce=query.get("nonce", "")[:500],
        challenge=query.get("code_challenge", ""),
        response_mode=mode if mode in ("query", "fragment", "form_post") else "query",
        prompt=query.get("prompt", ""),
        login_hint=query.get("login_hint", "")[:200],
        client_info=query.get("client_info") == "1",
    )


async def check_request(tx: Tx, request: Request, query: Form) -> None:
    """The rest of it. Refusals go to the redirect URI."""
    if query.get("response_type") != "code":
        raise OAuthError(
            90100,
            "The response_type is not supported.",
            cure="Use response_type=code, with PKCE.",
        )
    method = query.get("code_challenge_method", "plain" if request.challenge else "")
    if request.public and not request.challenge:
        raise OAuthError(
            90100,
            "Proof Key for Code Exchange is required for public clients.",
            cure="Send code_challenge and code_challenge_method=S256.",
        )
    if request.challenge and method != "S256":
        raise OAuthError(90100, "The code_challenge_method is not S256.", cure="Use S256.")
    if not request.scope.strip():
        raise OAuthError(
            900144,
            "The request must contain the following parameter: 'scope'.",
            cure="Ask for openid, or for <App ID URI>/.default.",
        )
    scope = parse_scope(request.scope)
    await resource_of(tx, scope)
    if "none" in request.prompt.split():
        raise OAuthError(
            50058,
            "A silent sign-in request was sent but no user is signed in.",
            cure="Send the user to sign in without prompt=none.",
        )


async def consent_needed(tx: Tx, request: Request, user: directory.User) -> Consent | None:
    """What still has to be agreed to. Built-in clients are trusted."""
    client, principal = await client_of(tx, request.app_id)
    if client.built_in:
        return None
    scope = parse_scope(request.scope)
    resource, there = await resource_of(tx, scope)
    wanted = _wanted(client, resource, scope)
    _check_defined(resource, wanted)
    held: frozenset[str] = frozenset()
    if principal is not None:
        held = await store.granted(tx, principal.id, there.id, user.id)
    missing = tuple(sorted(wanted - held))
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


async def issue_code(
    tx: Tx,
    tokens: Tokens,
    request: Request,
    user: directory.User,
    signed_in_at: datetime,
    now: datetime,
) -> str:
    code = secrets.token_urlsafe(32)
    expires_at = now + timedelta(seconds=tokens.settings.code_seconds)
    family = str(uuid.uuid4())
    await store.insert_code(tx, code, family, request, user.id, signed_in_at, expires_at)
    return code


# ---------------------------------------------------------------------------------- token


async def token(
    tx: Tx, tokens: Tokens, form: Form, basic: tuple[str, str] | None, now: datetime
) -> dict[str, Any] | Denied:
    """The answer of the token endpoint. Raises OAuthError, or returns Denied when what the
    refusal recorded has to be kept."""
    if basic is not None:
        form = {**form, "client_id": basic[0], "client_secret": basic[1]}
    if "resource" in form and "scope" not in form:  # The v1 endpoint's way to name a resource.
        form = {**form, "scope": form["resource"].rstrip("/") + "/.default"}
    grant = need(form, "grant_type")
    client, principal = await client_of(tx, need(form, "client_id"))
    match grant:
        case "authorization_code":
            return await _redeem_code(tx, tokens, client, form, now)
        case "refresh_token":
            return await _refresh(tx, tokens, client, form, now)
        case "client_credentials":
            return await _client_credentials(tx, tokens, client, principal, form, now)
        case _ if grant == DEVICE_GRANT:
            return await _device(tx, tokens, client, form, now)
    raise OAuthError(
        70003,
        f"The app requested an unsupported grant type '{grant[:80]}'.",
        cure="Use authorization_code, refresh_token, client_credentials or jwt-bearer.",
    )


async def _check_secret(tx: Tx, client: Application, form: Form, now: datetime) -> None:
    text = form.get("client_secret", "")
    if not text:
        raise OAuthError(
            7000218,
            "The request body must contain the following parameter: 'client_secret'.",
            cure="Send the application's secret.",
        )
    held = await store.secret(tx, client.id, text)
    if held is None:
        raise OAuthError(
            7000215,
            f"Invalid client secret provided for app '{client.app_id}'. Ensure the secret being "
            "sent is the client secret value, not the client secret ID.",
            cure="Add a new secret to the app registration and use it.",
        )
    if held.ends_at <= now:
        raise OAuthError(
            7000222,
            f"The provided client secret keys for app '{client.app_id}' are expired.",
            cure="Add a new secret to the app registration and use it.",
        )


async def _client_credentials(
    tx: Tx,
    tokens: Tokens,
    client: Application,
    principal: ServicePrincipal | None,
    form: Form,
    now: datetime,
) -> dict[str, Any]:
    await _check_secret(tx, client, form, now)
    scope = parse_scope(need(form, "scope"))
    if scope.names != (".default",):
        raise OAuthError(
            70011,
            "The scope of client credentials has to be the resource followed by /.default.",
            cure="Write <App ID URI>/.default.",
        )
    resource, there = await resource_of(tx, scope)
    if principal is None:
        raise OAuthError(
            7000112,
            f"Application '{client.app_id}' has no service principal in this tenant.",
            cure="Create it, or grant admin consent.",
        )
    held = await store.role_assignments(tx, principal_id=principal.id, resource_id=there.id)
    names = {item["id"]: item["value"] for item in resource.app_roles}
    roles = [names[item.role_id] for item in held if item.role_id in names]
    access = await tokens.app_token(tx, resource, client, principal, roles, now)
    return _answer(tokens, access)


async def _redeem_code(
    tx: Tx, tokens: Tokens, client: Application, form: Form, now: datetime
) -> dict[str, Any] | Denied:
    text = need(form, "code")
    held = await store.code(tx, text)
    if held is None or held.app_id != client.app_id:
        raise OAuthError(70000, "The authorization code is not valid.", cure="Sign in again.")
    if held.used_at is not None:
        # Somebody else has it too: nobody keeps what came from it (RFC 6749, 4.1.2).
        await store.delete_family(tx, held.family)
        return Denied(
            OAuthError(
                54005, "OAuth2 Authorization code was already redeemed.", cure="Sign in again."
            )
        )
    if held.expires_at <= now:
        raise OAuthError(70008, "The authorization code has expired.", cure="Sign in again.")
    if form.get("redirect_uri", held.redirect_uri) != held.redirect_uri:
        raise OAuthError(
            50011, "The redirect URI is not that of the authorization request.", cure="Send it."
        )
    if held.challenge:
        digest = sha256(form.get("code_verifier", "").encode()).digest()
        made = urlsafe_b64encode(digest).rstrip(b"=").decode()
        if not hmac.compare_digest(made, held.challenge):
            await store.use_code(tx, text, now)
            return Denied(
                OAuthError(
                    501481,
                    "The Code_Verifier does not match the code_challenge supplied in the "
                    "authorization request.",
                    cure="Sign in again with a new verifier.",
                )
            )
    if not held.public:
        await _check_secret(tx, client, form, now)
    await store.use_code(tx, text, now)
    scope = parse_scope(held.scope)
    return await _for_user(tx, tokens, client, held, scope, form, now)


async def _refresh(
    tx: Tx, tokens: Tokens, client: Application, form: Form, now: datetime
) -> dict[str, Any] | Denied:
    text = need(form, "refresh_token")
    held = await store.refresh_token(tx, text)
    if held is None or held.app_id != client.app_id:
        raise OAuthError(70000, "The provided refresh token is not valid.", cure="Sign in again.")
    if held.expires_at <= now:
        raise OAuthError(
            700082,
            "The refresh token has expired due to inactivity.",
            cure="Sign in again.",
            suberror="bad_token",
        )
    grace = timedelta(seconds=tokens.settings.refresh_grace_seconds)
    if held.used_at is not None and held.used_at + grace < now:
        await store.delete_family(tx, held.family)
        await audit.record(
            tx,
            actor=f"application:{client.app_id}",
            action="reuse a refresh token",
            target=held.user_id,
            outcome="refused",
            now=now,
        )
        return Denied(
            OAuthError(
                70000,
                "The refresh token was already used; all tokens of that sign-in are revoked.",
                cure="Sign in again, and find out who else holds the token.",
                suberror="bad_token",
            )
        )
    if not held.public:
        await _check_secret(tx, client, form, now)
    await store.use_refresh_token(tx, text, now)
    scope = parse_scope(form.get("scope") or held.scope)
    return await _for_user(tx, tokens, client, held, scope, form, now)


async def _for_user(
    tx: Tx,
    tokens: Tokens,
    client: Application,
    held: store.Handed,
    scope: Scope,
    form: Form,
    now: datetime,
) -> dict[str, Any]:
    """Tokens for the user who signed in, as far as the client was consented to."""
    user = await directory.find_user(tx, held.user_id)
    if user is None:
        raise OAuthError(50034, "The user account does not exist any more.", cure="Sign in again.")
    if not user.account_enabled:
        raise OAuthError(50057, "The user account is disabled.", cure="Ask an administrator.")
    if held.signed_in_at < user.sessions_valid_from:
        raise OAuthError(
            50173,
            "The provided grant has expired due to it being revoked: the password was changed.",
            cure="Sign in again.",
            suberror="bad_token",
        )
    resource, there = await resource_of(tx, scope)
    wanted = _wanted(client, resource, scope)
    _check_defined(resource, wanted)
    if not client.built_in:
        principal = await store.principal(tx, app_id=client.app_id)
        granted = (
            await store.granted(tx, principal.id, there.id, user.id) if principal else frozenset()
        )
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
        if scope.default:
            wanted = granted
    device_id = ""
    if form.get("device_assertion"):
        device = await _device_of(tx, tokens, form["device_assertion"], now)
        device_id = device.device_id
    names = sorted(wanted - _SILENT)
    access = await tokens.user_token(
        tx, resource, client, user, names, now, secret=not held.public, device_id=device_id
    )
    answer = _answer(tokens, access)
    prefix = "" if resource.app_id == catalogue.GRAPH and not scope.resource else resource.uri + "/"
    answer["scope"] = " ".join(dict.fromkeys([*scope.asked, *(prefix + name for name in names)]))
    if "offline_access" in scope.openid or client.built_in or "refresh_token" in form:
        text = secrets.token_urlsafe(48)
        expires_at = now + timedelta(days=tokens.settings.refresh_token_days)
        await store.insert_refresh_token(tx, text, held, " ".join(scope.asked), expires_at)
        answer["refresh_token"] = text
    here = await directory.tenant(tx)
    if "openid" in scope.openid:
        answer["id_token"] = await _id_token(tx, tokens, client, user, held, here.id, now)
    if form.get("client_info") == "1":
        info = msgspec.json.encode({"uid": user.id, "utid": here.id})
        answer["client_info"] = urlsafe_b64encode(info).rstrip(b"=").decode()
    return answer


async def _id_token(
    tx: Tx,
    tokens: Tokens,
    client: Application,
    user: directory.User,
    held: store.Handed,
    tenant_id: str,
    now: datetime,
) -> str:
    issued = int(now.timestamp())
    claims = {
        "aud": client.app_id,
        "iss": tokens.issuer(tenant_id, 2),
        "iat": issued,
        "nbf": issued,
        "exp": issued + tokens.settings.access_token_seconds,
        "sub": pairwise(user.id, client.app_id),
        "oid": user.id,
        "tid": tenant_id,
        "name": user.display_name,
        "preferred_username": user.user_principal_name,
        "auth_time": int(held.signed_in_at.timestamp()),
        "ver": "2.0",
    }
    if held.nonce:
        claims["nonce"] = held.nonce
    return await tokens.sign(tx, claims, now, x5t=False)


def _wanted(client: Application, resource: Application, scope: Scope) -> frozenset[str]:
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


def _check_defined(resource: Application, wanted: frozenset[str]) -> None:
    unknown = wanted - set(resource.scope_names) - catalogue.OPENID_SCOPES
    if unknown:
        raise OAuthError(
            70011,
            f"The scope '{', '.join(sorted(unknown))[:200]}' does not exist on the resource "
            f"{resource.display_name}.",
            cure="Ask for one of: " + ", ".join(resource.scope_names[:20]) + ".",
        )


def _answer(tokens: Tokens, access: str) -> dict[str, Any]:
    seconds = tokens.settings.access_token_seconds
    return {
        "token_type": "Bearer",
        "expires_in": seconds,
        "ext_expires_in": seconds,
        "access_token": access,
    }


# ---------------------------------------------------------------------------------- devices


async def _device(
    tx: Tx, tokens: Tokens, client: Application, form: Form, now: datetime
) -> dict[str, Any]:
    """A token for the device itself, which shows that it holds the key it joined with."""
    if client.built_in:
        raise OAuthError(
            7000112,
            f"{client.display_name} cannot ask for tokens of devices.",
            cure="Use the client application that the site registered.",
        )
    resource, _ = await resource_of(tx, parse_scope(need(form, "scope")))
    device = await _device_of(tx, tokens, need(form, "assertion"), now)
    await directory.mark_device_sign_in(tx, device.id, now)
    return _answer(tokens, await tokens.device_token(tx, resource, client, device, now))


class _Assertions(JWSRegistry):
    # The certificate in x5c alone is longer than the library's limit for headers.
    max_header_length = 8192


async def _device_of(tx: Tx, tokens: Tokens, assertion: str, now: datetime) -> directory.Device:
    """The joined, enabled device whose key signed the assertion. Raises OAuthError."""
    try:
        header = jwt_header(assertion)
        der = b64decode(header["x5c"][0], validate=True)
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by((await tokens.join_authority(tx)).certificate)
        public = certificate.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise ValueError("the key is no P-256 key")
        key = ECKey.import_key(public)
        claims = jwt.decode(assertion, key, registry=_Assertions(algorithms=["ES256"])).claims
        issued, expires = float(claims["iat"]), float(claims["exp"])
        device_id, identity = str(claims["sub"]), str(claims["jti"])
        audience = str(claims["aud"])
    except (JoseError, InvalidSignature, ValueError, TypeError, KeyError, IndexError):
        raise OAuthError(
            50013,
            "The assertion failed signature validation: it is not signed by a key that joined "
            "this tenant.",
            cure="Join the device again.",
        ) from None
    moment = now.timestamp()
    if not issued - _SKEW_SECONDS <= moment < expires + _SKEW_SECONDS:
        raise OAuthError(
            50013, "The assertion is not valid at this time.", cure="Check the device's clock."
        )
    if expires - issued > _ASSERTION_SECONDS:
        raise OAuthError(
            50013,
            f"The assertion is valid for more than {_ASSERTION_SECONDS} seconds.",
            cure="Make a new one for each request.",
        )
    if not await _is_token_endpoint(tx, tokens, audience):
        raise OAuthError(50013, "The assertion is for another audience.", cure="Use the token URL.")
    if claims.get("iss") != device_id or not identity:
        raise OAuthError(50013, "The assertion lacks iss, sub or jti.", cure="Send them.")
    device = await directory.find_device(tx, device_id)
    if device is None or device.key_thumbprint != pki.jwk_thumbprint(public):
        raise OAuthError(
            70043,
            f"The device {device_id[:40]} does not exist in this tenant.",
            cure="Join it again.",
        )
    if not device.account_enabled:
        raise OAuthError(
            135011,
            "The device used during the authentication is disabled.",
            cure="Enable it in the tenant's device list.",
        )
    kept = datetime.fromtimestamp(expires + 2 * _SKEW_SECONDS, UTC)
    if not await store.use_assertion(tx, f"{device_id}|{identity}", kept):
        raise OAuthError(
            50013, "The assertion was used before.", cure="Make a new one for each request."
        )
    return device


async def _is_token_endpoint(tx: Tx, tokens: Tokens, audience: str) -> bool:
    here = await directory.tenant(tx)
    base = tokens.settings.base.lower()
    names = [here.id, *here.domains, "common", "organizations"]
    return audience.lower() in {f"{base}/{name}/oauth2/v2.0/token" for name in names}
