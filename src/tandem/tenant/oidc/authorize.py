"""Authorization requests: what a client may ask of the sign-in pages, and what it gets back."""

import re
import secrets
import uuid
from datetime import datetime, timedelta

from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.oidc import grant_store
from tandem.tenant.oidc.consent import client_of, resource_of
from tandem.tenant.oidc.model import Application, Request
from tandem.tenant.oidc.refusals import OAuthError
from tandem.tenant.oidc.scopes import parse_scope, redirect_matches
from tandem.tenant.oidc.tokens import Tokens

Form = dict[str, str]

PROMPTS = frozenset({"login", "none", "consent", "select_account"})
RESPONSE_TYPES = ("code", "id_token", "code id_token")
_MODES = ("query", "fragment", "form_post")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_LONGEST = {"state": 8192, "nonce": 2048, "login_hint": 320, "scope": 4096}


def need(form: Form, name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise OAuthError(
            900144,
            f"The request body must contain the following parameter: '{name}'.",
            cure="Send it.",
        )
    return value


async def check_client(tx: Tx, query: Form) -> tuple[Request, Application]:
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
    for name, most in _LONGEST.items():
        if len(query.get(name, "")) > most:
            raise OAuthError(
                90100, f"The parameter '{name}' is longer than {most} characters.", cure="Shorten."
            )
    response_type = " ".join(sorted(query.get("response_type", "").split()))
    mode = query.get("response_mode", "").lower()
    if mode not in _MODES or ("id_token" in response_type and mode == "query"):
        # An id_token never goes into a query, where logs and Referer headers keep it.
        mode = "fragment" if "id_token" in response_type else "query"
    request = Request(
        app_id=client.app_id,
        redirect_uri=given,
        scope=_scope(query),
        public=public,
        state=query.get("state", ""),
        nonce=query.get("nonce", ""),
        challenge=query.get("code_challenge", ""),
        response_type=response_type,
        response_mode=mode,
        prompt=" ".join(query.get("prompt", "").split()),
        login_hint=query.get("login_hint", "").strip(),
        max_age=_age(query.get("max_age", "")),
        client_info=query.get("client_info") == "1",
    )
    return request, client


def _scope(query: Form) -> str:
    """v1 names a resource beside the scopes, which are OpenID's only."""
    scope = query.get("scope", "")
    resource = query.get("resource", "")
    if resource:
        scope = f"{scope or 'openid'} offline_access {resource.rstrip('/')}/.default"
    return scope


def _age(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


async def check_request(tx: Tx, client: Application, request: Request, query: Form) -> None:
    """The rest of it. Refusals go to the redirect URI."""
    kinds = request.response_type
    if kinds not in RESPONSE_TYPES:
        raise OAuthError(
            700054 if "token" in kinds.split() else 90100,
            "The response_type is not supported.",
            cure="Use response_type=code, with PKCE.",
        )
    if "id_token" in kinds:
        if not client.id_token_issuance:
            raise OAuthError(
                700054,
                "response_type 'id_token' is not enabled for the application.",
                cure="Use response_type=code, or enable the issuance of id_tokens for it.",
            )
        if not request.nonce:
            raise OAuthError(
                900144,
                "The request must contain the following parameter: 'nonce'.",
                cure="Send it.",
            )
    for given in ("request", "request_uri"):
        if given in query:
            raise OAuthError(90100, f"The parameter '{given}' is not supported.", cure="Omit it.")
    method = query.get("code_challenge_method", "plain" if request.challenge else "")
    if "code" in kinds and request.public and not request.challenge:
        raise OAuthError(
            90100,
            "Proof Key for Code Exchange is required for public clients.",
            cure="Send code_challenge and code_challenge_method=S256.",
        )
    if request.challenge and (method != "S256" or not _CHALLENGE.fullmatch(request.challenge)):
        raise OAuthError(
            90100,
            "The code_challenge is not one of the method S256.",
            cure="Send base64url(SHA-256(verifier)) and code_challenge_method=S256.",
        )
    if not request.scope.strip():
        raise OAuthError(
            900144,
            "The request must contain the following parameter: 'scope'.",
            cure="Ask for openid, or for <App ID URI>/.default.",
        )
    prompts = frozenset(request.prompt.split())
    if prompts - PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise OAuthError(
            90023,
            f"Unsupported 'prompt' value '{request.prompt[:80]}'.",
            cure="Use login, select_account, consent, or none alone.",
        )
    await resource_of(tx, parse_scope(request.scope))


async def issue_code(
    tx: Tx,
    tokens: Tokens,
    request: Request,
    user: directory.User,
    session_id: str,
    signed_in_at: datetime,
    now: datetime,
) -> str:
    code = secrets.token_urlsafe(32)
    expires_at = now + timedelta(seconds=tokens.settings.code_seconds)
    family = str(uuid.uuid4())
    await grant_store.insert_code(
        tx, code, family, request, user.id, session_id, signed_in_at, expires_at
    )
    return code


# ---------------------------------------------------------------------------------- device codes

# No vowels, so that no word appears; no digits, so that nobody mistakes O for 0.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_USER_CODE_LENGTH = 9


async def begin_device(
    tx: Tx, tokens: Tokens, client: Application, scope: str, now: datetime
) -> tuple[str, str]:
    """The device code and the user code of a sign-in for another device."""
    if not scope.strip():
        raise OAuthError(
            900144,
            "The request body must contain the following parameter: 'scope'.",
            cure="Ask for openid, or for <App ID URI>/.default.",
        )
    if not client.public:
        raise OAuthError(
            7000218,
            f"The application '{client.app_id}' is not a public client.",
            cure="Allow public client flows in its registration, or sign in with a browser.",
        )
    await resource_of(tx, parse_scope(scope))
    device_code = secrets.token_urlsafe(48)
    until = now + timedelta(seconds=tokens.settings.device_code_seconds)
    while True:
        user_code = "".join(secrets.choice(_LETTERS) for _ in range(_USER_CODE_LENGTH))
        if await grant_store.insert_device_code(
            tx, device_code, user_code, client.app_id, scope, until
        ):
            return device_code, user_code


async def device_request(tx: Tx, user_code: str, now: datetime) -> Request:
    """The request behind a user code, as somebody typed it. Raises OAuthError."""
    typed = re.sub(r"[^A-Z]", "", user_code.upper())
    found = await grant_store.device_code_of_user(tx, typed)
    if found is None or found.state != "pending" or found.expires_at <= now:
        raise OAuthError(
            70018,
            "That code is not valid, or has expired.",
            cure="Check the code on your device, or have it show a new one.",
        )
    return Request(
        app_id=found.app_id,
        redirect_uri="",
        scope=found.scope,
        public=True,
        prompt="select_account",
        device=found.user_code,
    )
