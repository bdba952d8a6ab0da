"""Signing and verifying: keys, access tokens, and what resource servers ask."""

import secrets
import uuid
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import sha1, sha256
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from tandem import pki
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.tenant import directory
from tandem.tenant.oidc import catalogue, grant_store, store
from tandem.tenant.oidc.conditions import Conditions
from tandem.tenant.oidc.model import (
    Application,
    BadToken,
    Claims,
    KeyElsewhere,
    OidcSettings,
)
from tandem.tenant.oidc.sign_ins import Waiting
from tandem.tenant.oidc.signers import ALGORITHM, KeyKeeper, Signer, SoftwareKeys

_JOIN_CONTEXT = "oidc.join-key"
_SKEW_SECONDS = 300
_KEY_DAYS = 3650
# How long another process may take to notice that keys were rotated, or a sign-in revoked.
_READ_AGAIN = timedelta(seconds=30)
_REVOKED_AGAIN = timedelta(seconds=5)


class Tokens:
    """The tenant's signing keys and what is done with them. Keys are kept in memory once read."""

    def __init__(
        self,
        settings: OidcSettings,
        box: SecretBox,
        *,
        keeper: KeyKeeper | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self.settings = settings
        self.box = box
        self.conditions = conditions or Conditions()
        self.waiting = Waiting()
        self._keeper: KeyKeeper = keeper or SoftwareKeys(box)
        self._stored: list[store.StoredKey] = []
        self._read_at: datetime | None = None
        self._signers: dict[str, Signer] = {}
        self._public: dict[str, RSAKey] = {}
        self._headers: dict[tuple[str, bool], bytes] = {}
        self._join: pki.Authority | None = None
        self._revoked: frozenset[str] = frozenset()
        self._revoked_at: datetime | None = None

    # ------------------------------------------------------------------ keys

    async def establish_keys(self, tx: Tx, now: datetime) -> None:
        """Make the keys that are missing."""
        await tx.execute("SELECT pg_advisory_xact_lock(4120773)")
        if not await store.keys(tx, "token"):
            await self._make_key(tx, now, now)
        if not await store.keys(tx, "join"):
            subject = pki.name("Device join authority", organization="Tandem")
            root = pki.new_root(subject, now=now, days=_KEY_DAYS * 2)
            sealed = self.box.seal(pki.key_pem(root.key), _JOIN_CONTEXT)
            der = root.certificate.public_bytes(Encoding.DER)
            await store.insert_key(
                tx, "join", store.StoredKey(uuid.uuid4().hex, der, sealed, now), now
            )

    async def rotate_when_due(self, tx: Tx, now: datetime) -> None:
        await self._retire(tx, now)
        newest = (await store.keys(tx, "token"))[0]
        if newest.active_from + timedelta(days=self.settings.key_days) <= now:
            await self.rotate(tx, now)

    async def rotate(self, tx: Tx, now: datetime, *, at_once: bool = False) -> str:
        """Announce a new signing key. `at_once`, after a key was lost: it signs from now on, and
        the others are not published any more, so that all their tokens are void."""
        if at_once:
            await store.delete_keys(tx, [key.kid for key in await store.keys(tx, "token")])
            return await self._make_key(tx, now, now)
        await self._retire(tx, now)
        announce = timedelta(hours=self.settings.key_announce_hours)
        return await self._make_key(tx, now, now + announce)

    async def _retire(self, tx: Tx, now: datetime) -> None:
        """Drop keys whose last token has expired: those before the one that signs now."""
        active = [key for key in await store.keys(tx, "token") if key.active_from <= now]
        lifetime = timedelta(seconds=self.settings.access_token_seconds + _SKEW_SECONDS)
        if active and active[0].active_from + lifetime < now:
            await store.delete_keys(tx, [key.kid for key in active[1:]])
            self._read_at = None

    async def _make_key(self, tx: Tx, now: datetime, active_from: datetime) -> str:
        subject = pki.name("Token signing", organization="Tandem")
        made = self._keeper.make(subject, now, _KEY_DAYS)
        kid = _b64(sha1(made.certificate, usedforsecurity=False).digest())
        stored = store.StoredKey(kid, made.certificate, made.handle, active_from, self._keeper.name)
        await store.insert_key(tx, "token", stored, now)
        self._read_at = None
        return kid

    async def jwks(self, tx: Tx) -> dict[str, Any]:
        """The published keys, those to come included."""
        keys = []
        for stored in await store.keys(tx, "token"):
            der = bytes(stored.certificate)
            public = x509.load_der_x509_certificate(der).public_key()
            keys.append(
                {
                    "use": "sig",
                    "alg": "RS256",
                    "kid": stored.kid,
                    "x5t": _b64(sha1(der, usedforsecurity=False).digest()),
                    "x5c": [b64encode(der).decode()],
                    **pki.public_jwk(public),  # type: ignore[arg-type]
                }
            )
        return {"keys": keys}

    async def join_authority(self, tx: Tx) -> pki.Authority:
        if self._join is None:
            stored = (await store.keys(tx, "join"))[0]
            key = pki.load_key(self.box.unseal(stored.sealed, _JOIN_CONTEXT))
            certificate = x509.load_der_x509_certificate(bytes(stored.certificate))
            self._join = pki.Authority(certificate, key)
        return self._join

    async def _keys(self, tx: Tx, now: datetime) -> list[store.StoredKey]:
        """The stored keys, read again every few seconds: others may rotate them."""
        if self._read_at is None or not timedelta() <= now - self._read_at < _READ_AGAIN:
            self._stored = await store.keys(tx, "token")
            self._read_at = now
            self._public = {
                key.kid: RSAKey.import_key(
                    x509.load_der_x509_certificate(bytes(key.certificate)).public_key()  # type: ignore[arg-type]
                )
                for key in self._stored
            }
        return self._stored

    async def _signing(self, tx: Tx, now: datetime) -> tuple[str, Signer]:
        stored = next(key for key in await self._keys(tx, now) if key.active_from <= now)
        if stored.kid not in self._signers:
            if stored.keeper != self._keeper.name:
                raise KeyElsewhere(
                    f"The signing key is kept by '{stored.keeper}', and this process uses "
                    f"'{self._keeper.name}'.",
                    cure="Configure the keeper that made the key, or rotate the keys at once.",
                )
            opened = self._keeper.open(bytes(stored.sealed), bytes(stored.certificate))
            self._signers[stored.kid] = opened
        return stored.kid, self._signers[stored.kid]

    async def _verifying(self, tx: Tx, kid: str, now: datetime) -> RSAKey | None:
        await self._keys(tx, now)
        if kid not in self._public:
            self._read_at = None
            await self._keys(tx, now)
        return self._public.get(kid)

    # ------------------------------------------------------------------ revocation

    async def revoke(self, tx: Tx, family: str, now: datetime) -> None:
        """End a sign-in: its refresh tokens at once, its access tokens at this tenant's own
        services at once here, and after a few seconds in other processes."""
        lifetime = timedelta(seconds=self.settings.access_token_seconds + _SKEW_SECONDS)
        await grant_store.revoke_family(tx, family, now + lifetime)
        self._revoked = self._revoked | {family}

    async def is_revoked(self, tx: Tx, family: str, now: datetime) -> bool:
        if self._revoked_at is None or not timedelta() <= now - self._revoked_at < _REVOKED_AGAIN:
            self._revoked = await grant_store.revoked_families(tx, now)
            self._revoked_at = now
        return family in self._revoked

    # ------------------------------------------------------------------ addresses

    def issuer(self, tenant_id: str, version: int) -> str:
        suffix = "/v2.0" if version == 2 else "/"
        return f"{self.settings.base}/{tenant_id}{suffix}"

    def mdm_app_id_uri(self, domain: str) -> str:
        return self.settings.mdm_app_id_uri or f"https://{domain}/mdm"

    # ------------------------------------------------------------------ issuing

    async def sign(self, tx: Tx, claims: dict[str, Any], now: datetime, *, x5t: bool) -> str:
        """A compact JWS (RFC 7515, 7.1). The header of a key never changes, so it is kept."""
        kid, signer = await self._signing(tx, now)
        head = self._headers.get((kid, x5t))
        if head is None:
            header = {"typ": "JWT", "alg": ALGORITHM, "kid": kid} | ({"x5t": kid} if x5t else {})
            head = self._headers[kid, x5t] = urlsafe_b64encode(msgspec.json.encode(header)).rstrip(
                b"="
            )
        data = head + b"." + urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=")
        signature = urlsafe_b64encode(await signer.sign(data)).rstrip(b"=")
        return (data + b"." + signature).decode()

    async def access_token(
        self,
        tx: Tx,
        tenant_id: str,
        audience: str,
        version: int,
        client: tuple[str, str],
        now: datetime,
        *,
        proof: str,
        **claims: Any,
    ) -> str:
        """A token in this version; `client` is its app id and name, `proof` how it showed who it
        is ("0" not at all, "1" secret, "2" certificate), `claims` are those of the subject."""
        issued = int(now.timestamp())
        body = {
            "aud": audience,
            "iss": self.issuer(tenant_id, version),
            "iat": issued,
            "nbf": issued,
            "exp": issued + self.settings.access_token_seconds,
            "azp" if version == 2 else "appid": client[0],
            "azpacr" if version == 2 else "appidacr": proof,
            "tid": tenant_id,
            "uti": secrets.token_hex(16),
            "ver": "2.0" if version == 2 else "1.0",
            **claims,
        }
        if version == 1:
            body["app_displayname"] = client[1]
        return await self.sign(tx, body, now, x5t=version == 1)

    async def user_token(
        self,
        tx: Tx,
        tenant_id: str,
        resource: Application,
        client: Application,
        user: directory.User,
        scopes: Iterable[str],
        now: datetime,
        *,
        proof: str,
        family: str,
        device_id: str = "",
    ) -> str:
        claims: dict[str, Any] = {
            "idtyp": "user",
            "oid": user.id,
            "sub": pairwise(user.id, resource.app_id),
            "sid": family,
            "name": user.display_name,
            "preferred_username": user.user_principal_name,
            "scp": " ".join(sorted(scopes)),
            "amr": ["pwd"],
            "acct": 0,
            "wids": sorted(await directory.roles_of(tx, user.id)),
        }
        if resource.token_version == 1:
            claims |= {"upn": user.user_principal_name, "unique_name": user.user_principal_name}
        if device_id:
            claims["deviceid"] = device_id
        if any("User" in role.get("allowedMemberTypes", ()) for role in resource.app_roles):
            holders = [user.id, *await directory.groups_of(tx, user.id)]
            roles = await store.role_values(tx, holders, resource.app_id)
            if roles:
                claims["roles"] = roles
        return await self.access_token(
            tx,
            tenant_id,
            resource.audience,
            resource.token_version,
            (client.app_id, client.display_name),
            now,
            proof=proof,
            **claims,
        )

    async def app_token(self, tx: Tx, found: store.AppSignIn, now: datetime, proof: str) -> str:
        return await self.access_token(
            tx,
            found.tenant_id,
            found.resource_audience,
            found.token_version,
            (found.app_id, found.app_name),
            now,
            proof=proof,
            idtyp="app",
            oid=found.principal_id,
            sub=found.principal_id,
            roles=found.roles,
            wids=found.wids,
        )

    async def device_token(
        self,
        tx: Tx,
        resource: Application,
        client: Application,
        device: directory.Device,
        now: datetime,
        *,
        methods: Sequence[str] = (),
    ) -> str:
        """`methods` (amr, RFC 8176) tells how the device proved itself; a joined one says none."""
        here = await directory.tenant(tx)
        how = {"amr": list(methods)} if methods else {}
        return await self.access_token(
            tx,
            here.id,
            resource.audience,
            resource.token_version,
            (client.app_id, client.display_name),
            now,
            proof="0",
            idtyp="device",
            oid=device.id,
            sub=device.id,
            deviceid=device.device_id,
            **how,
        )

    # ------------------------------------------------------------------ verifying

    async def read(self, tx: Tx, token: str, now: datetime) -> dict[str, Any]:
        """What a token of ours says, of any sort and age. Raises BadToken unless we signed it."""
        try:
            kid = jwt_header(token).get("kid", "")
            key = await self._verifying(tx, str(kid), now)
            if key is None:
                raise _bad("it is signed with an unknown key")
            return jwt.decode(token, key, algorithms=["RS256"]).claims
        except (JoseError, ValueError, TypeError):
            raise _bad("its signature is not valid") from None

    async def verify(
        self,
        tx: Tx,
        token: str,
        now: datetime,
        audiences: Iterable[str],
        *,
        late_seconds: int = 0,
    ) -> Claims:
        """What the token says. Raises BadToken unless we signed it, it is valid now (or was so many
        seconds ago), and it is meant for one of the audiences (App ID URIs or app ids, compared
        without case)."""
        body = await self.read(tx, token, now)
        here = await directory.tenant(tx)
        issued = int(now.timestamp())
        if body.get("iss") not in (self.issuer(here.id, 1), self.issuer(here.id, 2)):
            raise _bad("another authority issued it")
        if str(body.get("tid", "")).strip().lower() != here.id:
            raise _bad("it is of another tenant")
        if not body.get("nbf", 0) - _SKEW_SECONDS <= issued:
            raise _bad("it is not valid yet")
        if issued > body.get("exp", 0) + late_seconds:
            raise _bad("Lifetime validation failed, the token is expired")
        if body.get("idtyp") not in ("user", "app", "device"):
            raise _bad("it is no access token")
        if body.get("sid") and await self.is_revoked(tx, body["sid"], now):
            raise _bad("it was revoked")
        allowed = {item.rstrip("/").lower() for item in audiences}
        if str(body.get("aud", "")).rstrip("/").lower() not in allowed:
            raise _bad("Invalid audience")
        return Claims(
            sort=body["idtyp"],
            tenant_id=body["tid"],
            object_id=body["oid"],
            app_id=body.get("appid") or body.get("azp") or "",
            audience=body["aud"],
            upn=body.get("upn") or body.get("preferred_username", ""),
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
        device proved itself, device_id. Raises BadToken. The clock of a new machine is nobody's
        fault: five minutes late is in time (windows-mdm, 9)."""
        here = await directory.tenant(tx)
        audiences = (self.mdm_app_id_uri(here.default_domain), catalogue.MDM_APP)
        claims = await self.verify(tx, token, now, audiences, late_seconds=_SKEW_SECONDS)
        if claims.sort != "user" or "mdm_delegation" not in claims.scopes or not claims.upn:
            raise _bad("it is not a user's token with the permission mdm_delegation")
        return claims

    async def verify_mdm_device(self, tx: Tx, token: str, now: datetime) -> Claims:
        """A device's own token for the MDM service, with its device_id. Raises BadToken."""
        here = await directory.tenant(tx)
        audiences = (self.mdm_app_id_uri(here.default_domain), catalogue.MDM_APP)
        claims = await self.verify(tx, token, now, audiences)
        if claims.sort != "device" or not claims.device_id:
            raise _bad("it is not a device's token")
        return claims


def pairwise(object_id: str, app_id: str) -> str:
    """The same user is somebody else for each resource."""
    return _b64(sha256(f"{object_id}|{app_id}".encode()).digest())


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


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
