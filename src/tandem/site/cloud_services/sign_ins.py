"""A tenant's administrator signs in for the site's console, without a password passing through it.

    browser → site      begin: the site asks the tenant for a code (RFC 8628, section 3.1)
    site → browser      the user code, and the tenant's page where it is typed
    browser → tenant    the administrator signs in there, with whatever the tenant asks for
    browser → site      "and now?": the site asks the tenant's token endpoint (3.4), no more often
                        than the tenant allows
    site                keeps the access token sealed, for the one administrator of the site who
                        began and for half an hour at most, and then forgets it

No token and no device code ever leaves the site. Who asks names the sign-in by its id.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from tandem import audit
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.secrets import SecretBox
from tandem.site.cloud_services import store
from tandem.site.cloud_services.model import (
    COMMAND_LINE_APP,
    NoEnvironment,
    NoSuchSignIn,
    SignInNotDone,
    SignInOver,
    TenantRefuses,
    TenantSignIn,
    TenantUnreachable,
)
from tandem.site.cloud_services.tenants import (
    GLOBAL_ADMINISTRATOR,
    Graph,
    Tenants,
    claims_of,
    read_json,
)

_SCOPE = "https://graph.microsoft.com/.default openid profile"
_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
# RFC 8628, section 3.2: what counts when the tenant does not say how often it may be asked.
_INTERVAL_SECONDS = 5
_MOST_SECONDS = 3600
# Long enough for a wizard that creates both apps and grants consent, short for what it may do.
_KEPT = timedelta(minutes=30)
# Tabs that an administrator left open; the oldest gives way.
_MOST_AT_ONCE = 8
# Directory roles by the ids of their templates, which are the same in every tenant.
_ROLES = {
    GLOBAL_ADMINISTRATOR: "Global Administrator",
    "3a2c62db-5318-420d-8d74-23affee5d9d5": "Intune Administrator",
    "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3": "Application Administrator",
    "158c047a-c907-4556-b7ef-446551a6b5f7": "Cloud Application Administrator",
    "e8611ab8-c189-46e8-94e1-60213ab1f814": "Privileged Role Administrator",
    "fe930be7-5e62-47db-91af-98c3a49a38b1": "User Administrator",
    "4d6ac14f-3453-41d0-bef9-a3e0c569773a": "License Administrator",
    "f2ef992c-3afb-46b9-b7cf-a126ee74c451": "Global Reader",
}
_MDM_PLAN = "INTUNE_A"
_AGAIN = "Begin the sign-in again."


@dataclass(frozen=True)
class SignIns:
    db: Database
    tenants: Tenants
    box: SecretBox
    now: Clock

    async def begin(self, actor: str) -> TenantSignIn:
        """Ask the tenant for a code. Raises NoEnvironment, TenantRefuses, TenantUnreachable."""
        environment = self.tenants.environment
        if not environment.authority or not environment.graph:
            raise NoEnvironment(
                "The site's settings name no cloud environment to sign in to.",
                cure="Set authority and graph under [cloud.environment], and start the site again.",
            )
        answer = await self.tenants.send(
            "POST",
            f"{environment.authority}/organizations/oauth2/v2.0/devicecode",
            data={"client_id": COMMAND_LINE_APP, "scope": _SCOPE},
        )
        value = read_json(answer)
        if answer.status_code != 200:
            raise TenantRefuses(
                f"The tenant gives no code to sign in with: {_said(value)}",
                cure="Check the environment in the site's settings.",
            )
        now = self.now()
        id = secrets.token_hex(24)  # No word of a command line begins with a dash by chance.
        made = TenantSignIn(
            id=id,
            administrator=actor,
            state="pending",
            environment=environment.name,
            user_code=str(value.get("user_code", ""))[:64],
            verification_uri=_page(value),
            interval_seconds=_number(value.get("interval"), _INTERVAL_SECONDS),
            began_at=now,
            expires_at=now + timedelta(seconds=_number(value.get("expires_in"), 900)),
        )
        code = str(value.get("device_code", ""))
        if not code or not made.user_code:
            raise TenantUnreachable(
                "The tenant's answer holds no code to sign in with.",
                cure="Check the environment in the site's settings.",
            )
        async with self.db.transaction() as tx:
            await self.forget_old(tx)
            await store.insert_sign_in(tx, made, self._seal(id, code))
            await store.keep_newest_sign_ins(tx, actor, _MOST_AT_ONCE)
            await _audit(tx, actor, "tenant-sign-in.begin", environment.name, now)
        return made

    async def look(self, id: str, actor: str) -> TenantSignIn:
        """How far it is; the tenant is asked when it may be asked again. Raises NoSuchSignIn."""
        now = self.now()
        async with self.db.transaction() as tx:
            found = await self._mine(tx, id, actor)
            if found.state == "done" and found.expires_at <= now:
                await store.delete_sign_in(tx, id)
                found = replace(found, state="expired", reason="It was kept for long enough.")
            if found.state != "pending":
                return found
            # Who takes the turn asks alone: a code is good for one token.
            if not await store.take_turn(tx, id, now):
                return found
            code = self._unseal(id, await store.sealed_sign_in(tx, id))
        return await self._ask(found, code)

    async def _ask(self, found: TenantSignIn, code: str) -> TenantSignIn:
        authority = self.tenants.environment.authority
        try:
            answer = await self.tenants.send(
                "POST",
                f"{authority}/organizations/oauth2/v2.0/token",
                data={"grant_type": _GRANT, "client_id": COMMAND_LINE_APP, "device_code": code},
            )
            value = read_json(answer)
        except TenantUnreachable as error:
            # It may be back before the code has expired.
            return replace(found, reason=error.message, cure=error.cure)
        if answer.status_code == 200:
            return await self._signed_in(found, str(value.get("access_token", "")))
        said = str(value.get("error", ""))
        if said == "authorization_pending" and found.expires_at > self.now():
            return found
        if said == "slow_down":
            async with self.db.transaction() as tx:
                await store.slow_down(tx, found.id, _INTERVAL_SECONDS)
            return found
        return await self._ended(found, said, value)

    async def _ended(
        self, found: TenantSignIn, said: str, value: Mapping[str, Any]
    ) -> TenantSignIn:
        if said in {"expired_token", "authorization_pending"} or found.expires_at <= self.now():
            over = replace(
                found, state="expired", reason="The code was not used in time.", cure=_AGAIN
            )
        elif said in {"authorization_declined", "access_denied"}:
            over = replace(
                found,
                state="refused",
                reason="The sign-in was declined on the tenant's page.",
                cure=_AGAIN,
            )
        else:
            over = replace(found, state="refused", reason=_said(value), cure=_AGAIN)
        async with self.db.transaction() as tx:
            await store.save_sign_in(tx, over, None)
            await _audit(tx, found.administrator, "tenant-sign-in.end", over.state, self.now())
        return over

    async def _signed_in(self, found: TenantSignIn, token: str) -> TenantSignIn:
        now = self.now()
        try:
            claims = claims_of(token)
        except ValueError:
            return await self._ended(found, "", {"error_description": "The token is unreadable."})
        graph = Graph(self.tenants.http, self.tenants.environment.graph, token)
        name, licensed = "", None
        try:
            name = str((await graph.get("/organization"))["value"][0]["displayName"])
            licensed = await _licensed(graph)
        except (AppError, LookupError, TypeError):
            # Who may not read it is told so by the step that needs it; the token is good.
            name = name or str(claims.get("tid", ""))
        ends = datetime.fromtimestamp(float(claims.get("exp", 0)), now.tzinfo)
        done = replace(
            found,
            state="done",
            tenant_id=str(claims.get("tid", "")),
            tenant_name=name,
            upn=str(claims.get("upn") or claims.get("preferred_username") or ""),
            roles=tuple(
                sorted(_ROLES[wid] for wid in claims.get("wids", []) if _ROLES.get(str(wid)))
            ),
            mdm_licence=licensed,
            expires_at=min(ends, now + _KEPT),
        )
        async with self.db.transaction() as tx:
            await store.save_sign_in(tx, done, self._seal(found.id, token))
            await _audit(tx, found.administrator, "tenant-sign-in.done", done.upn, now)
        return done

    async def token(self, tx: Tx, id: str, actor: str) -> str:
        """The access token, for one request. Raises NoSuchSignIn, SignInNotDone, SignInOver."""
        found = await self._mine(tx, id, actor)
        if found.state == "pending":
            raise SignInNotDone(
                "You have not signed in to the tenant yet.",
                cure=f"Enter the code {found.user_code} at {found.verification_uri}.",
            )
        if found.state != "done" or found.expires_at <= self.now():
            raise SignInOver("The sign-in to the tenant is over.", cure="Sign in to it again.")
        return self._unseal(id, await store.sealed_sign_in(tx, id))

    async def forget(self, tx: Tx, id: str, actor: str) -> None:
        """The token is gone at once. Raises NoSuchSignIn."""
        await self._mine(tx, id, actor)
        await store.delete_sign_in(tx, id)

    async def forget_old(self, tx: Tx) -> None:
        """What nobody can use any more. It is told for an hour why a sign-in came to nothing."""
        await store.delete_old_sign_ins(tx, self.now())

    async def _mine(self, tx: Tx, id: str, actor: str) -> TenantSignIn:
        found = await store.sign_in(tx, id)
        # Somebody else's is not told from one that never was.
        if found is None or found.administrator != actor:
            raise NoSuchSignIn(
                "There is no such sign-in to the tenant, or no longer.", cure="Sign in to it again."
            )
        return found

    def _seal(self, id: str, text: str) -> bytes:
        return self.box.seal(text.encode(), f"cloud.tenant-sign-in.{id}")

    def _unseal(self, id: str, sealed: bytes) -> str:
        return self.box.unseal(sealed, f"cloud.tenant-sign-in.{id}").decode()


async def _licensed(graph: Graph) -> bool | None:
    """Whether the account holds a licence of the MDM service; None when it cannot be read."""
    try:
        details = (await graph.get("/me/licenseDetails"))["value"]
    except (AppError, LookupError):
        return None
    plans = [plan for item in details for plan in item.get("servicePlans", [])]
    return any(
        plan.get("servicePlanName") == _MDM_PLAN and plan.get("provisioningStatus") != "Disabled"
        for plan in plans
    )


def _page(value: Mapping[str, Any]) -> str:
    page = str(value.get("verification_uri") or value.get("verification_url") or "")
    if urlsplit(page).scheme not in {"https", "http"} or len(page) > 1024:
        raise TenantUnreachable(
            "The tenant names no page to sign in at.",
            cure="Check the environment in the site's settings.",
        )
    return page


def _number(value: object, default: int) -> int:
    try:
        return min(max(int(str(value)), 1), _MOST_SECONDS)
    except ValueError:
        return default


def _said(value: Mapping[str, Any]) -> str:
    return str(value.get("error_description") or value.get("error") or "no reason is given")[:300]


async def _audit(tx: Tx, actor: str, action: str, target: str, now: datetime) -> None:
    await audit.record(tx, actor=actor, action=action, target=target, now=now)
