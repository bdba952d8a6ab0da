"""Signing and verifying: keys, access tokens, and what resource servers ask."""

import uuid
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from datetime import datetime, timedelta
from hashlib import sha1, sha256
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from tandem import pki
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.tenant import directory
from tandem.tenant.oidc import catalogue, store
from tandem.tenant.oidc.model import (
    Application,
    BadToken,
    Claims,
    OidcSettings,
    ServicePrincipal,
)

_KEY_CONTEXT = {"token": "oidc.signing-key", "join": "oidc.join-key"}
_SKEW_SECONDS = 300
_KEY_DAYS = 3650


class Tokens:
    """The tenant's signing keys and what is done with them. Keys are kept in memory once read."""

    def __init__(self, settings: OidcSettings, box: SecretBox) -> None:
        self.settings = settings
        self.box = box
        self._private: dict[str, RSAKey] = {}
        self._public: dict[str, RSAKey] = {}
        self._join: pki.Authority | None = None

    # ------------------------------------------------------------------ keys

    async def establish_keys(self, tx: Tx, now: datetime) -> None:
        """Make the keys that are missing."""
        await tx.execute("SELECT pg_advisory_xact_lock(4120773)")
        if not await store.keys(tx, "token"):
            await self._make_key(tx, now, now)
        if not await store.keys(tx, "join"):
            subject = pki.name("Device join authority", organization="Tandem")
            root = pki.new_root(subject, now=now, days=_KEY_DAYS * 2)
            await self._keep(tx, "join", root, uuid.uuid4().hex, now, now)

    async def rotate_when_due(self, tx: Tx, now: datetime) -> None:
        newest = (await store.keys(tx, "token"))[0]
        if newest.active_from + timedelta(days=self.settings.key_days) <= now:
            await self.rotate(tx, now)

    async def rotate(self, tx: Tx, now: datetime) -> str:
        """Announce a new signing key, and drop those whose tokens have all expired."""
        announce = timedelta(hours=self.settings.key_announce_hours)
        active = [key for key in await store.keys(tx, "token") if key.active_from <= now]
        lifetime = timedelta(seconds=self.settings.access_token_seconds + _SKEW_SECONDS)
        if active and active[0].active_from + lifetime < now:
            await store.delete_keys(tx, [key.kid for key in active[1:]])
        return await self._make_key(tx, now, now + announce)

    async def _make_key(self, tx: Tx, now: datetime, active_from: datetime) -> str:
        subject = pki.name("Token signing", organization="Tandem")
        made = pki.new_root(subject, now=now, days=_KEY_DAYS, key="rsa2048")
        thumb = made.certificate.fingerprint(hashes.SHA1())  # noqa: S303
        kid = urlsafe_b64encode(thumb).rstrip(b"=").decode()
        await self._keep(tx, "token", made, kid, now, active_from)
        return kid

    async def _keep(
        self,
        tx: Tx,
        purpose: str,
        made: pki.Authority,
        kid: str,
        now: datetime,
        active_from: datetime,
    ) -> None:
        sealed = self.box.seal(pki.key_pem(made.key), _KEY_CONTEXT[purpose])
        der = made.certificate.public_bytes(Encoding.DER)
        await store.insert_key(tx, purpose, store.StoredKey(kid, der, sealed, active_from), now)

    async def jwks(self, tx: Tx) -> dict[str, Any]:
        """The published keys, those to come included."""
        keys = []
        for stored in await store.keys(tx, "token"):
            der = bytes(stored.certificate)
            public = x509.load_der_x509_certificate(der).public_key()
            thumb = sha1(der, usedforsecurity=False).digest()
            keys.append(
                {
                    "use": "sig",
                    "alg": "RS256",
                    "kid": stored.kid,
                    "x5t": urlsafe_b64encode(thumb).rstrip(b"=").decode(),
                    "x5c": [b64encode(der).decode()],
                    **pki.public_jwk(public),  # type: ignore[arg-type]
                }
            )
        return {"keys": keys}

    async def join_authority(self, tx: Tx) -> pki.Authority:
        if self._join is None:
            stored = (await store.keys(tx, "join"))[0]
            key = pki.load_key(self.box.unseal(stored.sealed, _KEY_CONTEXT["join"]))
            certificate = x509.load_der_x509_certificate(bytes(stored.certificate))
            self._join = pki.Authority(certificate, key)
        return self._join

    async def _signing(self, tx: Tx, now: datetime) -> tuple[str, RSAKey]:
        active = [key for key in await store.keys(tx, "token") if key.active_from <= now]
        stored = active[0]
        if stored.kid not in self._private:
            pem = self.box.unseal(stored.sealed, _KEY_CONTEXT["token"])
            self._private[stored.kid] = RSAKey.import_key(pem.decode())
        return stored.kid, self._private[stored.kid]

    async def _verifying(self, tx: Tx, kid: str) -> RSAKey | None:
        if kid not in self._public:
            stored = await store.keys(tx, "token")
            self._public = {
                key.kid: RSAKey.import_key(
                    x509.load_der_x509_certificate(bytes(key.certificate)).public_key()  # type: ignore[arg-type]
                )
                for key in stored
            }
        return self._public.get(kid)

    # ------------------------------------------------------------------ addresses

    def issuer(self, tenant_id: str, version: int) -> str:
        suffix = "/v2.0" if version == 2 else "/"
        return f"{self.settings.base}/{tenant_id}{suffix}"

    def mdm_app_id_uri(self, domain: str) -> str:
        return self.settings.mdm_app_id_uri or f"https://{domain}/mdm"

    # ------------------------------------------------------------------ issuing

    async def sign(self, tx: Tx, claims: dict[str, Any], now: datetime, *, x5t: bool) -> str:
        kid, key = await self._signing(tx, now)
        header = {"typ": "JWT", "alg": "RS256", "kid": kid}
        if x5t:
            header["x5t"] = kid
        return jwt.encode(header, claims, key, algorithms=["RS256"])

    async def access_token(
        self,
        tx: Tx,
        resource: Application,
        client: Application,
        now: datetime,
        *,
        secret: bool,
        **claims: Any,
    ) -> str:
        """A token for this resource in its version; `claims` are those of the subject."""
        here = await directory.tenant(tx)
        version = resource.token_version
        suffix = ("azp", "azpacr") if version == 2 else ("appid", "appidacr")
        issued = int(now.timestamp())
        body = {
            "aud": resource.audience,
            "iss": self.issuer(here.id, version),
            "iat": issued,
            "nbf": issued,
            "exp": issued + self.settings.access_token_seconds,
            suffix[0]: client.app_id,
            suffix[1]: "1" if secret else "0",
            "app_displayname": client.display_name,
            "tid": here.id,
            "uti": uuid.uuid4().hex,
            "ver": "2.0" if version == 2 else "1.0",
            **claims,
        }
        return await self.sign(tx, body, now, x5t=version == 1)

    async def user_token(
        self,
        tx: Tx,
        resource: Application,
        client: Application,
        user: directory.User,
        scopes: Iterable[str],
        now: datetime,
        *,
        secret: bool,
        device_id: str = "",
    ) -> str:
        roles = await directory.roles_of(tx, user.id)
        claims: dict[str, Any] = {
            "idtyp": "user",
            "oid": user.id,
            "sub": pairwise(user.id, resource.app_id),
            "name": user.display_name,
            "upn": user.user_principal_name,
            "unique_name": user.user_principal_name,
            "preferred_username": user.user_principal_name,
            "scp": " ".join(sorted(scopes)),
            "amr": ["pwd"],
            "acct": 0,
            "wids": sorted(roles),
        }
        if device_id:
            claims["deviceid"] = device_id
        return await self.access_token(tx, resource, client, now, secret=secret, **claims)

    async def app_token(
        self,
        tx: Tx,
        resource: Application,
        client: Application,
        principal: ServicePrincipal,
        roles: Iterable[str],
        now: datetime,
    ) -> str:
        claims = {
            "idtyp": "app",
            "oid": principal.id,
            "sub": principal.id,
            "roles": sorted(roles),
            "wids": sorted(await directory.roles_of(tx, principal.id)),
        }
        return await self.access_token(tx, resource, client, now, secret=True, **claims)

    async def device_token(
        self,
        tx: Tx,
        resource: Application,
        client: Application,
        device: directory.Device,
        now: datetime,
    ) -> str:
        claims = {
            "idtyp": "device",
            "oid": device.id,
            "sub": device.id,
            "deviceid": device.device_id,
        }
        return await self.access_token(tx, resource, client, now, secret=False, **claims)

    # ------------------------------------------------------------------ verifying

    async def verify(self, tx: Tx, token: str, now: datetime, audiences: Iterable[str]) -> Claims:
        """What the token says. Raises BadToken unless we signed it, it is valid now, and it is
        meant for one of the audiences (App ID URIs or app ids, compared without case)."""
        try:
            kid = jwt_header(token).get("kid", "")
            key = await self._verifying(tx, str(kid))
            if key is None:
                raise _bad("it is signed with an unknown key")
            body = jwt.decode(token, key, algorithms=["RS256"]).claims
        except (JoseError, ValueError, TypeError):
            raise _bad("its signature is not valid") from None
        here = await directory.tenant(tx)
        issued = int(now.timestamp())
        if body.get("iss") not in (self.issuer(here.id, 1), self.issuer(here.id, 2)):
            raise _bad("another authority issued it")
        if not body.get("nbf", 0) - _SKEW_SECONDS <= issued:
            raise _bad("it is not valid yet")
        if issued > body.get("exp", 0):
            raise _bad("Lifetime validation failed, the token is expired")
        allowed = {item.rstrip("/").lower() for item in audiences}
        if str(body.get("aud", "")).rstrip("/").lower() not in allowed:
            raise _bad("Invalid audience")
        return Claims(
            sort=body["idtyp"],
            tenant_id=body["tid"],
            object_id=body["oid"],
            app_id=body.get("appid") or body.get("azp") or "",
            audience=body["aud"],
            upn=body.get("upn", ""),
            name=body.get("name") or body.get("app_displayname", ""),
            scopes=frozenset(body.get("scp", "").split()),
            roles=frozenset(body.get("roles", ())),
            device_id=body.get("deviceid", ""),
            expires_at=body["exp"],
            raw=body,
        )

    async def verify_graph(self, tx: Tx, token: str, now: datetime) -> Claims:
        return await self.verify(tx, token, now, (catalogue.GRAPH_URI, catalogue.GRAPH))

    async def verify_mdm(self, tx: Tx, token: str, now: datetime) -> Claims:
        """A user's token for the MDM service: claims upn, object_id, tenant_id and, when the
        device proved itself, device_id. Raises BadToken."""
        here = await directory.tenant(tx)
        audiences = (self.mdm_app_id_uri(here.default_domain), catalogue.MDM_APP)
        claims = await self.verify(tx, token, now, audiences)
        if claims.sort != "user" or "mdm_delegation" not in claims.scopes or not claims.upn:
            raise _bad("it is not a user's token with the permission mdm_delegation")
        return claims


def pairwise(object_id: str, app_id: str) -> str:
    """The same user is somebody else for each resource."""
    digest = sha256(f"{object_id}|{app_id}".encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def jwt_header(token: str) -> dict[str, Any]:
    """The unverified header. Raises ValueError."""
    first = token.partition(".")[0]
    try:
        raw = urlsafe_b64decode(first + "=" * (-len(first) % 4))
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def _bad(reason: str) -> BadToken:
    return BadToken(
        f"Access token validation failure: {reason}.", cure="Sign in again to get a new token."
    )
