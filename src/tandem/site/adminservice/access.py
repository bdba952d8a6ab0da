"""Who asks the AdminService, and how much that counts for.

Three credentials, each of them whole in every request: the bearer token of a session of the site,
Basic over TLS, and a token of the tenant for the server app. A tenant's token of an app that is
published through the gateway counts for what was published, wherever it comes from: a gateway that
was broken into has seen it (docs/adr/0016-adminservice.md).
"""

import binascii
from base64 import b64decode
from dataclasses import dataclass

from starlette.requests import Request

from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.site import administrators, cloud_services
from tandem.site.administrators import Administrator, NotAllowed, NotSignedIn, Role
from tandem.site.adminservice.model import Collaborators


@dataclass(frozen=True, slots=True)
class Asker:
    """`app` is set when a token of a published app was used: then `writes` may be withheld."""

    who: Administrator
    way: str  # "session", "basic" or "tenant"
    app: cloud_services.AdminServiceApp | None = None

    def require(self, role: Role, *, changes: bool) -> None:
        """Raises NotAllowed."""
        if changes and self.app is not None and not self.app.writes:
            raise NotAllowed(
                "Tokens of this app are let through the gateway for reading only.",
                cure="A full administrator can allow writing: `tandem management-point"
                " publish-adminservice APP --allow-writes`.",
            )
        administrators.allow(self.who, role)


@dataclass(frozen=True)
class Access:
    db: Database
    gate: administrators.Gate
    now: Clock
    others: Collaborators

    async def asker(self, request: Request, *, basic: bool = True) -> Asker:
        """On the site's own network. Raises NotSignedIn, SignInFailed, TooManyAttempts, and
        NotAllowed for an account of the tenant that is no administrator here."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        scheme, value = scheme.lower(), value.strip()
        if scheme == "bearer" and value.count(".") == 2:
            return await self._tenant(value, gateway=False)
        if scheme == "bearer":
            async with self.db.transaction() as tx:
                who = await administrators.session(tx, value, self.now(), self.gate.settings)
            return Asker(who, "session")
        if scheme == "basic" and basic:
            return await self._basic(request, value)
        raise _nobody()

    async def from_gateway(self, request: Request) -> Asker:
        """What came through a gateway: a token of the tenant of a published app, nothing else."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or value.strip().count(".") != 2:
            raise _nobody()
        return await self._tenant(value.strip(), gateway=True)

    async def _basic(self, request: Request, value: str) -> Asker:
        if request.url.scheme != "https":
            raise NotSignedIn(
                "A password is taken over TLS only.", cure="Use the https address of the site."
            )
        try:
            name, colon, password = b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise _nobody() from None
        if not colon or "\x00" in name or len(name) > 256 or len(password) > 1024:
            raise _nobody()
        who = await administrators.authenticate(
            self.db, name, password, self.now(), self.gate.settings
        )
        return Asker(who, "basic")

    async def _tenant(self, token: str, *, gateway: bool) -> Asker:
        async with self.db.transaction() as tx:
            said = await self.others.account(tx, token)
            app = await self.others.app(tx, said.app_id)
            who = await administrators.find_external(tx, said.tenant_id, said.object_id)
        if who is None:
            raise NotAllowed(
                f"{said.upn or 'This account'} is not an administrator of this site.",
                cure="A full administrator of the site can add this account.",
            )
        if (app is not None or gateway) and not (app is not None and app.published):
            raise NotAllowed(
                "The AdminService is not published through the gateway for this app.",
                cure="Use an app that a full administrator published, or an account of the site on"
                " its own network.",
            )
        return Asker(who, "tenant", app)


def _nobody() -> NotSignedIn:
    return NotSignedIn(
        "The AdminService needs a credential.",
        cure="Send a bearer token of the site or of its tenant, or a name and a password (Basic).",
    )
