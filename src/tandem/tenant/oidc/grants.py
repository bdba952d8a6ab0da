"""The token endpoint: who may have which token, decided here and nowhere else.

authorization_code · refresh_token · device_code      tokens for a user
password                                              the same, behind a switch
client_credentials                                    a token for the application itself
jwt-bearer                                            a token for a joined device, by its key
mdm-certificate                                       the same for one that is enrolled but not
                                                      joined; only where connections are mutual TLS
"""

import hmac
import secrets
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec

from tandem import audit
from tandem.infra.database import Tx
from tandem.infra.errors import AppError
from tandem.tenant import directory
from tandem.tenant.oidc import (
    catalogue,
    client_auth,
    grant_store,
    passwords,
    sign_ins,
    store,
)
from tandem.tenant.oidc.authorize import need
from tandem.tenant.oidc.conditions import Attempt, Decision, Result
from tandem.tenant.oidc.consent import client_of, consented, resource_of
from tandem.tenant.oidc.device_proof import device_of
from tandem.tenant.oidc.grant_store import Handed
from tandem.tenant.oidc.model import Application, Peer, ServicePrincipal
from tandem.tenant.oidc.refusals import OAuthError, spoken
from tandem.tenant.oidc.scopes import GRAPH_RESOURCE, Scope, parse_scope
from tandem.tenant.oidc.session_store import SignIn
from tandem.tenant.oidc.tokens import Tokens, pairwise

Form = dict[str, str]
# Whose connection it is. Raises AppError.
Holder = Callable[[Tx], Awaitable[directory.Device]]

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# Ours: the field's devices prove themselves to their own directory by their join alone.
CERTIFICATE_GRANT = "urn:tandem:params:oauth:grant-type:mdm-certificate"
MDM_CERTIFICATE = "mdm_cert"
DEVICE_CODE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True, slots=True)
class Asking:
    """A token request. `form` has Basic credentials and v1's `resource` already folded in."""

    tokens: Tokens
    form: Form
    peer: Peer
    now: datetime
    passwords: directory.DirectorySettings
    v1: bool = False


class Denied(msgspec.Struct, frozen=True):
    """A refusal whose transaction has to be kept: it counted or revoked something."""

    error: OAuthError
    entry: SignIn | None = None  # What the log gets to say about it, when more is known.


class Issued(msgspec.Struct, frozen=True):
    """The answer, and the log's line about it."""

    answer: dict[str, Any]
    entry: SignIn


Outcome = Issued | Denied


def asking(
    tokens: Tokens,
    form: Form,
    basic: tuple[str, str] | None,
    peer: Peer,
    now: datetime,
    passwords: directory.DirectorySettings,
    *,
    v1: bool,
) -> Asking:
    if basic is not None:
        form = {**form, "client_id": basic[0], "client_secret": basic[1]}
    if form.get("resource") and (v1 or "scope" not in form):
        openid = " openid offline_access" if form.get("grant_type") != "client_credentials" else ""
        form = {**form, "scope": form["resource"].rstrip("/") + "/.default" + openid}
    return Asking(tokens, form, peer, now, passwords, v1)


async def app_token(tx: Tx, ask: Asking) -> Issued | None:
    """The usual request of a script, in one statement that reads. None: go the careful way."""
    form, tokens = ask.form, ask.tokens
    if (
        form.get("grant_type") != "client_credentials"
        or not form.get("client_secret")
        or form.get("client_assertion")
        or tokens.conditions.any
    ):
        return None
    try:
        client_id = uuid.UUID(form.get("client_id", ""))
        scope = parse_scope(form.get("scope", ""))
    except (ValueError, OAuthError):
        return None
    if scope.names != (".default",):
        return None
    found = await store.app_sign_in(tx, client_id, form["client_secret"], scope.resource, ask.now)
    return await _app_answer(tx, ask, found, client_auth.SECRET) if found else None


async def _app_answer(tx: Tx, ask: Asking, found: store.AppSignIn, proof: str) -> Issued:
    access = await ask.tokens.app_token(tx, found, ask.now, proof)
    entry = sign_ins.entry(
        "app",
        found.app_id,
        ask.peer,
        ask.now,
        app_name=found.app_name,
        resource_id=found.resource_id,
        resource_name=found.resource_name,
        conditions="success" if ask.tokens.conditions.any else "notApplied",
    )
    return Issued(_answer(ask.tokens, access), entry)


async def token(tx: Tx, ask: Asking) -> Outcome:
    """The answer of the token endpoint. Raises OAuthError."""
    grant = need(ask.form, "grant_type")
    client, principal = await client_of(tx, need(ask.form, "client_id"))
    match grant:
        case "authorization_code":
            return await _redeem_code(tx, ask, client)
        case "refresh_token":
            return await _refresh(tx, ask, client)
        case "client_credentials":
            return await _client_credentials(tx, ask, client, principal)
        case "device_code" | "urn:ietf:params:oauth:grant-type:device_code":
            return await _redeem_device_code(tx, ask, client)
        case "password" if ask.tokens.settings.password_grant:
            return await _password(tx, ask, client)
        case _ if grant == DEVICE_GRANT:
            return await _device(tx, ask, client)
    raise OAuthError(
        70003,
        f"The app requested an unsupported grant type '{grant[:80]}'.",
        cure="Use authorization_code, device_code, refresh_token, client_credentials or jwt-bearer.",
    )


async def _client_credentials(
    tx: Tx, ask: Asking, client: Application, principal: ServicePrincipal | None
) -> Outcome:
    proof = await client_auth.authenticate(tx, ask.tokens, client, ask.form, ask.peer, ask.now)
    scope = parse_scope(need(ask.form, "scope"))
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
    attempt = Attempt(
        subject="app",
        object_id=principal.id,
        app_id=client.app_id,
        resource_id=resource.app_id,
        address=ask.peer.address,
        sort="app",
        at=ask.now,
    )
    decision = await ask.tokens.conditions.decide(tx, attempt)
    if decision.result is not Result.GRANT:
        raise decision.refusal()
    held = await store.role_assignments(tx, principal_id=principal.id, resource_id=there.id)
    names = {item["id"]: item["value"] for item in resource.app_roles}
    found = store.AppSignIn(
        tenant_id=(await directory.tenant(tx)).id,
        app_id=client.app_id,
        app_name=client.display_name,
        principal_id=principal.id,
        resource_id=resource.app_id,
        resource_name=resource.display_name,
        resource_audience=resource.audience,
        token_version=resource.token_version,
        roles=tuple(sorted(names[item.role_id] for item in held if item.role_id in names)),
        wids=tuple(sorted(await directory.roles_of(tx, principal.id))),
    )
    return await _app_answer(tx, ask, found, proof)


# ---------------------------------------------------------------------------------- users


async def _redeem_code(tx: Tx, ask: Asking, client: Application) -> Outcome:
    text = need(ask.form, "code")
    held = await code_held(tx, ask, client, text)
    if isinstance(held, Denied):
        return held
    proof = "0"
    if not held.public:
        proof = await client_auth.authenticate(tx, ask.tokens, client, ask.form, ask.peer, ask.now)
    wrong = await use_code(tx, ask, held, text)
    if wrong is not None:
        return wrong
    scope = parse_scope(held.scope)
    return await _for_user(tx, ask, client, held, scope, "interactive", proof)


async def code_held(tx: Tx, ask: Asking, client: Application, text: str) -> Handed | Denied:
    """What an authorization code stands for. Raises OAuthError."""
    held = await grant_store.code(tx, text)
    if held is None or held.app_id != client.app_id:
        raise OAuthError(70000, "The authorization code is not valid.", cure="Sign in again.")
    if held.used_at is not None:
        # Somebody else has it too: nobody keeps what came from it (RFC 6749, 4.1.2).
        await ask.tokens.revoke(tx, held.family, ask.now)
        return Denied(
            OAuthError(
                54005, "OAuth2 Authorization code was already redeemed.", cure="Sign in again."
            )
        )
    if held.expires_at <= ask.now:
        raise OAuthError(70008, "The authorization code has expired.", cure="Sign in again.")
    if ask.form.get("redirect_uri", held.redirect_uri) != held.redirect_uri:
        raise OAuthError(
            50011, "The redirect URI is not that of the authorization request.", cure="Send it."
        )
    return held


async def use_code(tx: Tx, ask: Asking, held: Handed, text: str) -> Denied | None:
    """Once, whether the verifier is right or not."""
    await grant_store.use_code(tx, text, ask.now)
    if _verifies(ask.form.get("code_verifier", ""), held.challenge):
        return None
    return Denied(
        OAuthError(
            501481,
            "The Code_Verifier does not match the code_challenge supplied in the "
            "authorization request.",
            cure="Sign in again with a new verifier.",
        )
    )


def _verifies(verifier: str, challenge: str) -> bool:
    """A verifier without a challenge means that somebody took the challenge out on the way."""
    if not challenge:
        return not verifier
    digest = sha256(verifier.encode()).digest()
    made = urlsafe_b64encode(digest).rstrip(b"=").decode()
    return hmac.compare_digest(made, challenge)


async def _refresh(tx: Tx, ask: Asking, client: Application) -> Outcome:
    text = need(ask.form, "refresh_token")
    held = await grant_store.refresh_token(tx, text)
    if held is None or held.app_id != client.app_id:
        raise OAuthError(
            70000,
            "The provided refresh token is not valid.",
            cure="Sign in again.",
            suberror="bad_token",
        )
    if held.expires_at <= ask.now:
        raise OAuthError(
            700082,
            "The refresh token has expired due to inactivity.",
            cure="Sign in again.",
            suberror="bad_token",
        )
    proof = "0"
    if not held.public:
        proof = await client_auth.authenticate(tx, ask.tokens, client, ask.form, ask.peer, ask.now)
    grace = timedelta(seconds=ask.tokens.settings.refresh_grace_seconds)
    if held.used_at is not None and held.used_at + grace < ask.now:
        await ask.tokens.revoke(tx, held.family, ask.now)
        await audit.record(
            tx,
            actor=f"application:{client.app_id}",
            action="reuse a refresh token",
            target=held.user_id,
            outcome="refused",
            now=ask.now,
        )
        return Denied(
            OAuthError(
                70000,
                "The refresh token was already used; all tokens of that sign-in are revoked.",
                cure="Sign in again, and find out who else holds the token.",
                suberror="bad_token",
            )
        )
    await grant_store.use_refresh_token(tx, text, ask.now)
    scope = parse_scope(ask.form.get("scope") or held.scope)
    return await _for_user(tx, ask, client, held, scope, "refresh", proof)


async def _redeem_device_code(tx: Tx, ask: Asking, client: Application) -> Outcome:
    text = ask.form.get("device_code") or need(ask.form, "code")
    held = await grant_store.device_code(tx, text)
    if held is None or held.app_id != client.app_id or held.state == "used":
        raise OAuthError(70018, "The device code is not valid.", cure="Begin again.")
    if held.state == "declined":
        raise OAuthError(
            70020, "The user declined to sign in on the other device.", cure="Begin again."
        )
    if held.expires_at <= ask.now:
        raise OAuthError(70019, "The device code has expired.", cure="Begin again.")
    if held.user_id is None or held.signed_in_at is None:
        # A second of tolerance: clients count their interval from the answer.
        wait = timedelta(seconds=ask.tokens.settings.device_code_interval_seconds - 1)
        early = held.polled_at is not None and ask.now - held.polled_at < wait
        await grant_store.poll_device_code(tx, text, ask.now)
        number = 70021 if early else 70016
        said = "You are polling too fast." if early else "Authorization is pending."
        return Denied(OAuthError(number, said, cure="Continue polling at the interval given."))
    await grant_store.use_device_code(tx, text)
    source = Handed(
        family=str(uuid.uuid4()),
        app_id=client.app_id,
        user_id=held.user_id,
        scope=held.scope,
        public=True,
        signed_in_at=held.signed_in_at,
        expires_at=held.expires_at,
        used_at=None,
    )
    return await _for_user(tx, ask, client, source, parse_scope(held.scope), "device-code", "0")


async def _password(tx: Tx, ask: Asking, client: Application) -> Outcome:
    proof = "0"
    if not client.public:
        proof = await client_auth.authenticate(tx, ask.tokens, client, ask.form, ask.peer, ask.now)
    upn, password = need(ask.form, "username"), need(ask.form, "password")
    scope = parse_scope(need(ask.form, "scope"))
    user = await passwords.check(
        tx, upn, password, ask.peer.address, ask.now, ask.tokens.settings, ask.passwords
    )
    if isinstance(user, AppError):
        return Denied(spoken(user))
    if user.must_change_password:
        raise OAuthError(
            50055,
            "The password has to be changed before it can be used here.",
            cure="Sign in with a browser once, and choose a new one.",
            suberror="user_password_expired",
        )
    source = Handed(
        family=str(uuid.uuid4()),
        app_id=client.app_id,
        user_id=user.id,
        scope=" ".join(scope.asked),
        public=proof == "0",
        signed_in_at=ask.now,
        expires_at=ask.now,
        used_at=None,
    )
    return await _for_user(tx, ask, client, source, scope, "password", proof)


async def user_of(tx: Tx, held: Handed) -> directory.User:
    """The user who signed in, if the sign-in still counts. Raises OAuthError."""
    user = await directory.find_user(tx, held.user_id)
    if user is None:
        raise OAuthError(50034, "The user account does not exist any more.", cure="Sign in again.")
    if not user.account_enabled:
        raise OAuthError(50057, "The user account is disabled.", cure="Ask an administrator.")
    if held.signed_in_at < user.sessions_valid_from:
        raise OAuthError(
            50173,
            "The provided grant has expired due to it being revoked: the password was changed, or "
            "the user's sessions were ended.",
            cure="Sign in again.",
            suberror="bad_token",
        )
    return user


async def decide(
    tx: Tx,
    tokens: Tokens,
    user: directory.User,
    client: Application,
    resource: Application,
    peer: Peer,
    sort: str,
    now: datetime,
    device: directory.Device | None = None,
) -> Decision:
    attempt = Attempt(
        subject="user",
        object_id=user.id,
        app_id=client.app_id,
        resource_id=resource.app_id,
        address=peer.address,
        sort=sort,
        at=now,
        upn=user.user_principal_name,
        device_id=device.device_id if device else "",
        device_compliant=device.is_compliant if device else None,
        methods=("pwd",),
    )
    return await tokens.conditions.decide(tx, attempt)


async def _for_user(
    tx: Tx,
    ask: Asking,
    client: Application,
    held: Handed,
    scope: Scope,
    sort: str,
    proof: str,
) -> Outcome:
    """Tokens for the user who signed in, as far as the client was consented to."""
    tokens, form, now = ask.tokens, ask.form, ask.now
    user = await user_of(tx, held)
    resource, there = await resource_of(tx, scope)
    names = await consented(tx, client, resource, there, user.id, scope)
    device = None
    if form.get("device_assertion"):
        device = await device_of(tx, tokens, form["device_assertion"], ask.peer, now)
    decision = await decide(tx, tokens, user, client, resource, ask.peer, sort, now, device)
    entry = sign_ins.entry(
        sort,
        client.app_id,
        ask.peer,
        now,
        user_id=user.id,
        upn=user.user_principal_name,
        user_name=user.display_name,
        app_name=client.display_name,
        resource_id=resource.app_id,
        resource_name=resource.display_name,
        device_id=device.device_id if device else "",
        conditions="success" if tokens.conditions.any else "notApplied",
    )
    if decision.result is not Result.GRANT:
        return Denied(decision.refusal(), replace(entry, conditions="failure"))
    here = await directory.tenant(tx)
    access = await tokens.user_token(
        tx,
        here.id,
        resource,
        client,
        user,
        names,
        now,
        proof=proof,
        family=held.family,
        device_id=device.device_id if device else "",
    )
    answer = _answer(tokens, access)
    answer["scope"] = _scope_of_answer(scope, resource, names)
    if "offline_access" in scope.openid or client.built_in or "refresh_token" in form:
        text = secrets.token_urlsafe(48)
        expires_at = now + timedelta(days=tokens.settings.refresh_token_days)
        await grant_store.insert_refresh_token(tx, text, held, " ".join(scope.asked), expires_at)
        answer["refresh_token"] = text
    if "openid" in scope.openid:
        version = 1 if ask.v1 else 2
        answer["id_token"] = await id_token(
            tx, tokens, here.id, client, user, held.signed_in_at, now, held.nonce,
            version=version, session_id=held.session_id,
        )  # fmt: skip
    if form.get("client_info") == "1":
        answer["client_info"] = client_info(user.id, here.id)
    return Issued(answer, entry)


def _scope_of_answer(scope: Scope, resource: Application, names: list[str]) -> str:
    """In the spelling that the client asked in: MSAL looks its scopes up in it."""
    bare = resource.app_id == catalogue.GRAPH and scope.resource in ("", GRAPH_RESOURCE)
    asked_bare = bare and not any("/" in item for item in scope.asked)
    prefix = "" if asked_bare else (scope.resource or resource.uri) + "/"
    return " ".join(dict.fromkeys([*scope.asked, *(prefix + name for name in names)]))


def client_info(user_id: str, tenant_id: str) -> str:
    info = msgspec.json.encode({"uid": user_id, "utid": tenant_id})
    return urlsafe_b64encode(info).rstrip(b"=").decode()


async def id_token(
    tx: Tx,
    tokens: Tokens,
    tenant_id: str,
    client: Application,
    user: directory.User,
    signed_in_at: datetime,
    now: datetime,
    nonce: str,
    *,
    version: int = 2,
    session_id: str = "",
    code: str = "",
) -> str:
    issued = int(now.timestamp())
    claims = {
        "aud": client.app_id,
        "iss": tokens.issuer(tenant_id, version),
        "iat": issued,
        "nbf": issued,
        "exp": issued + tokens.settings.access_token_seconds,
        "sub": pairwise(user.id, client.app_id),
        "oid": user.id,
        "tid": tenant_id,
        "name": user.display_name,
        "auth_time": int(signed_in_at.timestamp()),
        "ver": "2.0" if version == 2 else "1.0",
    }
    if version == 2:
        claims["preferred_username"] = user.user_principal_name
    else:
        claims |= {"upn": user.user_principal_name, "unique_name": user.user_principal_name}
    if nonce:
        claims["nonce"] = nonce
    if session_id:
        claims["sid"] = session_id
    if code:
        digest = sha256(code.encode()).digest()[:16]  # OpenID Connect Core 3.3.2.11.
        claims["c_hash"] = urlsafe_b64encode(digest).rstrip(b"=").decode()
    return await tokens.sign(tx, claims, now, x5t=version == 1)


def _answer(tokens: Tokens, access: str) -> dict[str, Any]:
    seconds = tokens.settings.access_token_seconds
    return {
        "token_type": "Bearer",
        "expires_in": seconds,
        "ext_expires_in": seconds,
        "access_token": access,
    }


# ---------------------------------------------------------------------------------- devices


async def _device(tx: Tx, ask: Asking, client: Application) -> Outcome:
    """A token for the device itself, which shows that it holds the key it joined with."""
    resource = await _resource_for_device(tx, ask, client)
    device = await device_of(tx, ask.tokens, need(ask.form, "assertion"), ask.peer, ask.now)
    return await _issue_to_device(tx, ask, client, resource, device, ())


async def certificate_token(tx: Tx, ask: Asking, holder: Holder) -> Issued:
    """A token for the device whose MDM certificate the connection proved. Raises OAuthError.

    What it says is what a joined device's token says, and in `amr` how this one proved itself.
    """
    grant = need(ask.form, "grant_type")
    if grant != CERTIFICATE_GRANT:
        raise OAuthError(
            70003,
            f"The app requested an unsupported grant type '{grant[:80]}'.",
            cure=f"Use {CERTIFICATE_GRANT}; the tenant's token endpoint has the others.",
        )
    client, _ = await client_of(tx, need(ask.form, "client_id"))
    resource = await _resource_for_device(tx, ask, client)
    return await _issue_to_device(tx, ask, client, resource, await holder(tx), (MDM_CERTIFICATE,))


async def _resource_for_device(tx: Tx, ask: Asking, client: Application) -> Application:
    if client.built_in:
        raise OAuthError(
            7000112,
            f"{client.display_name} cannot ask for tokens of devices.",
            cure="Use the client application that the site registered.",
        )
    resource, _ = await resource_of(tx, parse_scope(need(ask.form, "scope")))
    return resource


async def _issue_to_device(
    tx: Tx,
    ask: Asking,
    client: Application,
    resource: Application,
    device: directory.Device,
    methods: Sequence[str],
) -> Issued:
    await directory.mark_device_sign_in(tx, device.id, ask.now)
    access = await ask.tokens.device_token(tx, resource, client, device, ask.now, methods=methods)
    entry = sign_ins.entry(
        "device",
        client.app_id,
        ask.peer,
        ask.now,
        app_name=client.display_name,
        resource_id=resource.app_id,
        resource_name=resource.display_name,
        device_id=device.device_id,
    )
    return Issued(_answer(ask.tokens, access), entry)
