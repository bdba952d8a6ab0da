"""Sign-in for doors of this tenant's own that speak no OAuth: MDM enrolment.

A page of ours is a public client like any other, with PKCE, except that it redeems its code here
instead of by a request to ourselves, and gets the user instead of tokens. A protocol that brings a
password has it checked under the same limits, by the same conditions and into the same log as the
sign-in page.
"""

import asyncio
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from urllib.parse import urlencode

from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.tenant import directory
from tandem.tenant.oidc import grants, passwords, sign_ins
from tandem.tenant.oidc.conditions import Result
from tandem.tenant.oidc.consent import client_of, resource_of
from tandem.tenant.oidc.model import Peer
from tandem.tenant.oidc.refusals import OAuthError, spoken
from tandem.tenant.oidc.scopes import parse_scope
from tandem.tenant.oidc.tokens import Tokens

# Hashing is slow on purpose, holds a connection, and shares both with the sign-in page.
_CHECKS, _WAITING = 2, 32


def sign_in_url(
    tokens: Tokens,
    tenant_id: str,
    *,
    client_id: str,
    redirect_uri: str,
    scope: str,
    state: str,
    verifier: str,
    login_hint: str = "",
) -> str:
    """Where a browser signs in for one of our pages. Somebody who is signed in already says by a
    click that it is this account."""
    digest = sha256(verifier.encode()).digest()
    query = {
        "client_id": client_id,
        "response_type": "code",
        "response_mode": "query",
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": state,
        "code_challenge": urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        "prompt": "select_account",
    }
    if login_hint:
        query["login_hint"] = login_hint
    return f"{tokens.settings.base}/{tenant_id}/oauth2/v2.0/authorize?{urlencode(query)}"


async def signed_in(
    database: Database,
    tokens: Tokens,
    *,
    client_id: str,
    redirect_uri: str,
    code: str,
    verifier: str,
    peer: Peer,
    now: datetime,
) -> directory.User:
    """Who signed in. Raises OAuthError."""
    form = {"code_verifier": verifier, "redirect_uri": redirect_uri}
    unused = directory.DirectorySettings()
    ask = grants.asking(tokens, form, None, peer, now, unused, v1=False)
    async with database.transaction() as tx:
        client, _ = await client_of(tx, client_id)
        held = await grants.code_held(tx, ask, client, code)
        if not isinstance(held, grants.Denied):
            wrong = await grants.use_code(tx, ask, held, code)
            if wrong is None:
                return await grants.user_of(tx, held)
            held = wrong
    raise held.error


class PasswordDoor:
    """Passwords that come by another protocol than ours."""

    def __init__(
        self,
        database: Database,
        tokens: Tokens,
        settings: directory.DirectorySettings,
        *,
        client_id: str,
        resource_id: str,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._settings = settings
        self._client_id = client_id
        self._resource_id = resource_id
        self._checks = asyncio.Semaphore(_CHECKS)
        self._waiting = 0

    async def check(self, login: str, password: str, peer: Peer, now: datetime) -> directory.User:
        """Whose password it is. Raises OAuthError, in transactions of its own: what a wrong one
        counted stays."""
        if self._waiting >= _WAITING:
            raise OAuthError(90033, "Too many people are signing in.", cure="Try again.")
        self._waiting += 1
        try:
            async with self._checks, self._database.transaction() as tx:
                found = await self._found(tx, login, password, peer, now)
        finally:
            self._waiting -= 1
        if isinstance(found, AppError):
            raise spoken(found)
        return found

    async def _found(
        self, tx: Tx, login: str, password: str, peer: Peer, now: datetime
    ) -> directory.User | AppError:
        client, _ = await client_of(tx, self._client_id)
        resource, _ = await resource_of(tx, parse_scope(f"{self._resource_id}/.default"))
        name = await directory.upn_of_account(tx, login) or login
        settings = self._tokens.settings
        found = await passwords.check(
            tx, name, password, peer.address, now, settings, self._settings
        )
        if isinstance(found, directory.User) and found.must_change_password:
            found = OAuthError(
                50055,
                "The password has to be changed before it can be used here.",
                cure="Sign in with a browser once, and choose a new one.",
            )
        entry = sign_ins.entry(
            "password",
            client.app_id,
            peer,
            now,
            app_name=client.display_name,
            resource_id=resource.app_id,
            resource_name=resource.display_name,
            upn=name.replace("\0", "")[:320],
        )
        if isinstance(found, directory.User):
            user = found
            decision = await grants.decide(
                tx, self._tokens, user, client, resource, peer, "password", now
            )
            entry = replace(
                entry,
                upn=user.user_principal_name,
                user_id=user.id,
                user_name=user.display_name,
                conditions="success" if self._tokens.conditions.any else "notApplied",
            )
            if decision.result is not Result.GRANT:
                found = decision.refusal()
                entry = replace(entry, conditions="failure")
        if isinstance(found, AppError):
            refusal = spoken(found)
            entry = replace(entry, number=refusal.number, reason=refusal.message[:500])
        await sign_ins.record(tx, entry)
        return found
