"""Signing in to the tenant's pages at the tenant's own token service.

begin    state and PKCE verifier into the database, the browser to /authorize
finish   code → token of Graph, kept sealed; the browser gets a session id and nothing else
a page   Graph with the signed-in person's token, so with exactly that person's rights
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from tandem.console import labels, store
from tandem.console.model import Begun, NotAllowed, NotSignedIn, Session
from tandem.infra.clock import Clock
from tandem.infra.config import Settings
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import SecretBox
from tandem.tenant import directory, licensing, oidc

NAME = "Tandem console"
DONE = "/console/sign-in/done"
# What the pages may be used for; what each person may do besides, their directory roles say.
SCOPES = (
    "User.Read",
    "User.ReadWrite.All",
    "User.RevokeSessions.All",
    "User.DeleteRestore.All",
    "Group.ReadWrite.All",
    "GroupMember.ReadWrite.All",
    "Device.Read.All",
    "Directory.Read.All",
    "Directory.AccessAsUser.All",
    "Organization.Read.All",
    "LicenseAssignment.ReadWrite.All",
    "Application.ReadWrite.All",
    "AppRoleAssignment.ReadWrite.All",
    "DelegatedPermissionGrant.ReadWrite.All",
    "RoleManagement.ReadWrite.Directory",
    "Directory.ReadWrite.All",
    "Policy.Read.All",
    "Policy.ReadWrite.MobilityManagement",
    "AuditLog.Read.All",
    "Domain.ReadWrite.All",
    "DeviceManagementManagedDevices.ReadWrite.All",
    "DeviceManagementManagedDevices.PrivilegedOperations.All",
    "DeviceManagementConfiguration.ReadWrite.All",
    "DeviceManagementApps.ReadWrite.All",
    "DeviceManagementServiceConfig.ReadWrite.All",
)
SIGN_IN_MINUTES = 10
# So long before a token ends another one is fetched: a page's requests outlive no token.
EARLY = timedelta(minutes=5)
TOKEN, VERIFIER = "console-session", "console-sign-in"  # Contexts of the seals.


class ConsoleSettings(Settings, frozen=True):
    # A working day: after that the browser has to sign in again, whatever it does meanwhile.
    session_hours: float = 10.0


class Tokens(msgspec.Struct, frozen=True):
    """What a session has of the token service: sealed in the database, nowhere else."""

    access: str
    ends_at: datetime
    signed_in_at: datetime
    refresh: str = ""


class SignInFailed(AppError):
    kind, code = Kind.UNAUTHENTICATED, "console.sign-in-failed"


class GraphRefused(AppError):
    kind, code = Kind.UNAVAILABLE, "console.graph-refused"


async def establish(tx: Tx, public_url: str, now: datetime) -> str:
    """The console's registration in the tenant, made or brought up to date; its client id."""
    redirect = public_url.rstrip("/") + DONE
    known = [item for item in await oidc.applications.applications(tx) if item.display_name == NAME]
    if known:
        app = known[0]
        if app.public_redirect_uris != (redirect,):
            app = await oidc.applications.update_application(
                tx, app.id, public_redirect_uris=(redirect,)
            )
        # A newer console may read more than the one that registered it.
        await oidc.applications.grant(tx, app.app_id, oidc.GRAPH, SCOPES)
        return app.app_id
    app = await oidc.applications.create_application(
        tx, NAME, now, public_redirect_uris=(redirect,)
    )
    principal = await oidc.applications.create_principal(tx, app.app_id, now)
    await oidc.applications.grant(tx, principal.id, oidc.GRAPH, SCOPES)
    return app.app_id


class TenantPages:
    """Implements TenantReads. `http` reaches the tenant's own public address."""

    def __init__(
        self,
        db: Database,
        tokens: oidc.Tokens,
        box: SecretBox,
        http: httpx.AsyncClient,
        *,
        client_id: str,
        public_url: str,
        now: Clock,
        settings: ConsoleSettings | None = None,
    ) -> None:
        self._db = db
        self._tokens = tokens
        self._box = box
        self._http = http
        self._client_id = client_id
        self._base = public_url.rstrip("/")
        self._now = now
        self._hours = timedelta(hours=(settings or ConsoleSettings()).session_hours)

    async def begin(self, return_to: str) -> Begun:
        secret, state, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        now = self._now()
        async with self._db.transaction() as tx:
            here = await directory.tenant(tx)
            sealed = self._box.seal(verifier.encode(), VERIFIER)
            until = now + timedelta(minutes=SIGN_IN_MINUTES)
            await store.begin(tx, secret, store.Begun(state, sealed, return_to), now, until)
        challenge = hashlib.sha256(verifier.encode()).digest()
        query = {
            "client_id": self._client_id,
            "response_type": "code",
            "response_mode": "query",
            "redirect_uri": self._base + DONE,
            "scope": " ".join(
                [
                    "openid",
                    "profile",
                    "offline_access",
                    *(f"{oidc.GRAPH_URI}/{name}" for name in SCOPES),
                ]
            ),
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            # Who signed out sees who would be signed in again.
            "prompt": "select_account",
        }
        return Begun(f"{self._base}/{here.id}/oauth2/v2.0/authorize?{urlencode(query)}", secret)

    async def finish(self, secret: str, query: Mapping[str, str]) -> tuple[Session, str]:
        now = self._now()
        async with self._db.transaction() as tx:
            begun = await store.take(tx, secret, now)
            here = await directory.tenant(tx)
        if begun is None or not hmac.compare_digest(query.get("state", ""), begun.state):
            raise SignInFailed(labels.SIGN_IN_LOST, cure=labels.SIGN_IN_AGAIN)
        if "code" not in query:
            reason = query.get("error_description") or query.get("error", "")
            raise SignInFailed(reason[:300], cure=labels.SIGN_IN_AGAIN)
        verifier = self._box.unseal(begun.verifier, VERIFIER).decode()
        said = await self._token(
            here.id,
            grant_type="authorization_code",
            code=query["code"],
            redirect_uri=self._base + DONE,
            code_verifier=verifier,
        )
        return await self._open(said, now), begun.return_to

    async def _token(self, tenant_id: str, **form: str) -> dict[str, Any]:
        """Raises SignInFailed with the service's own words, GraphRefused when it is not there."""
        try:
            answer = await self._http.post(
                f"{self._base}/{tenant_id}/oauth2/v2.0/token",
                data={"client_id": self._client_id, **form},
            )
            said: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError):
            raise GraphRefused(labels.NO_TOKEN_SERVICE, cure=labels.NO_TOKEN_SERVICE_CURE) from None
        if answer.status_code in (429, 503):
            raise GraphRefused(labels.NO_TOKEN_SERVICE, cure=labels.NO_TOKEN_SERVICE_CURE)
        if answer.status_code != 200:
            reason = str(said.get("error_description", answer.status_code))
            raise SignInFailed(reason[:300], cure=labels.SIGN_IN_AGAIN)
        return said

    async def _open(self, said: Mapping[str, Any], now: datetime) -> Session:
        token = str(said["access_token"])
        async with self._db.transaction() as tx:
            claims = await self._tokens.verify_graph(tx, token, now)
            held_roles = await directory.roles_of(tx, claims.object_id)
            await _recognize(tx, claims.object_id, held_roles)
            session = _session(secrets.token_urlsafe(32), claims.upn, held_roles)
            held = Tokens(
                token,
                datetime.fromtimestamp(claims.expires_at, UTC),
                now,
                str(said.get("refresh_token", "")),
            )
            kept = store.Kept(claims.object_id, claims.upn, self._sealed(held), now + self._hours)
            await store.keep(tx, session.token, kept)
        return session

    async def session(self, token: str) -> Session | None:
        """Asked anew each time: who loses the role keeps what is everybody's, who is disabled or
        signed out keeps nothing."""
        async with self._db.transaction() as tx:
            kept = await store.kept(tx, token, self._now())
            if kept is None:
                return None
            held = self._opened(kept)
            roles = await directory.standing(tx, kept.user_id, held.signed_in_at)
            return None if roles is None else _session(token, kept.upn, roles)

    async def sign_out(self, session: Session) -> None:
        async with self._db.transaction() as tx:
            await store.forget(tx, session.token)

    async def bearer(self, session: Session) -> str:
        """The Graph token of who is signed in, another one when it is about to end.

        Raises NotSignedIn when the session is over, or the token service gives no more.
        """
        now = self._now()
        async with self._db.transaction() as tx:
            kept = await store.kept(tx, session.token, now)
            here = await directory.tenant(tx)
        if kept is None:
            raise NotSignedIn(labels.SIGN_IN_LOST, cure=labels.SIGN_IN_AGAIN)
        held = self._opened(kept)
        if now < held.ends_at - EARLY or not held.refresh:
            return held.access
        try:
            # Two requests at once both get one: the service takes a used token again for seconds.
            said = await self._token(
                here.id, grant_type="refresh_token", refresh_token=held.refresh
            )
        except GraphRefused:
            if now < held.ends_at:
                return held.access
            raise
        except SignInFailed:
            async with self._db.transaction() as tx:
                await store.forget(tx, session.token)
            raise NotSignedIn(labels.SIGN_IN_LOST, cure=labels.SIGN_IN_AGAIN) from None
        fresh = Tokens(
            str(said["access_token"]),
            now + timedelta(seconds=int(said["expires_in"])),
            held.signed_in_at,
            str(said.get("refresh_token") or held.refresh),
        )
        async with self._db.transaction() as tx:
            await store.renew(tx, session.token, self._sealed(fresh))
        return fresh.access

    def _sealed(self, tokens: Tokens) -> bytes:
        return self._box.seal(msgspec.json.encode(tokens), TOKEN)

    def _opened(self, kept: store.Kept) -> Tokens:
        try:
            return msgspec.json.decode(self._box.unseal(kept.token, TOKEN), type=Tokens)
        except msgspec.DecodeError:  # Of a console before this one, which kept the token alone.
            raise NotSignedIn(labels.SIGN_IN_LOST, cure=labels.SIGN_IN_AGAIN) from None


def _session(token: str, upn: str, held: frozenset[str]) -> Session:
    """Called by the widest of the roles. Which pages and buttons there are, Graph says: any
    directory role may come in, and who has none sees what is their own."""
    for role in directory.ROLES:
        if role in held and role != directory.DEVICE_LOCAL_ADMINISTRATOR:
            return Session(token, upn, directory.role_name(role))
    return Session(token, upn, labels.USER, own=True)


# Who gives licences must be able to come in without one.
_GIVE_LICENCES = {
    directory.GLOBAL_ADMINISTRATOR,
    directory.USER_ADMINISTRATOR,
    directory.LICENSE_ADMINISTRATOR,
}


async def _recognize(tx: Tx, user_id: str, held: frozenset[str]) -> None:
    """Who manages devices needs a licence of the MDM service, where licences are asked for."""
    if directory.INTUNE_ADMINISTRATOR not in held or held & _GIVE_LICENCES:
        return
    try:
        await licensing.check_mdm_licence(tx, user_id)
    except licensing.NoMdmLicence:
        raise NotAllowed(labels.NOT_RECOGNIZED, cure=labels.NOT_RECOGNIZED_CURE) from None
