"""What the management point does: tokens, registration, policy, messages."""

import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tandem import audit, pki
from tandem.infra import events
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.logs import LogFile, get_logger
from tandem.infra.secrets import SecretBox
from tandem.protocols import ccm, cmtrace
from tandem.site import administrators, collections, ledgers
from tandem.site.clients import (
    conflicts,
    inventory,
    narrowing,
    registration_tokens,
    store,
    tokens,
)
from tandem.site.clients.model import (
    APPROVED,
    APPROVED_BY_DIRECTORY,
    REGISTERED,
    REGISTERED_AGAIN,
    SITE_TOPIC,
    USER_POLICY_DELIVERED,
    BadCertificate,
    BadToken,
    BlockedClient,
    Client,
    ClientId,
    ClientsSettings,
    ClientSummary,
    Credential,
    DeviceFacts,
    DeviceUnnamed,
    EnrollmentProgress,
    FailedEffect,
    InForce,
    Milestone,
    NewKeyNeeded,
    NoPackage,
    NoSuchClient,
    Package,
    Replayed,
    Reported,
    SetupState,
    StillBlocked,
    TenantIdentity,
    TimelineEntry,
    TokenHolder,
    Traced,
    UnknownClient,
    UnknownSiteCode,
    UserPolicyOff,
    describe,
)

log = get_logger("clients")

# A message that a client sends over and over must not fill the answer to the next.
MAX_MESSAGES = 200
# Of all that devices reported lately; a story of one page needs no more.
_MOST_MILESTONES = 5000
_SEEN_EVERY = timedelta(seconds=30)
# Names of devices are made in this space, of the keys that they have.
_DEVICES = UUID("5b1f3f0e-2c53-4d0f-9a1c-0c9b0f7c5a54")
# An entry of the audit names so many of the clients that it is about; more are counted.
_NAMED_IN_AUDIT = 1000


async def nothing_deployed(tx: Tx, client: Client, user: TokenHolder) -> list[ccm.Configuration]:
    """For a site that deploys nothing to users."""
    return []


async def nothing_set(tx: Tx, user: TokenHolder) -> dict[str, bool | int]:
    """For a site whose settings are all of devices."""
    return {}


async def nobody_asked(tx: Tx, client: Client, message: ccm.Message) -> None:
    """For messages that are kept in the timeline and nothing else."""


async def no_update_points(tx: Tx) -> list[ccm.UpdatePoint]:
    """For a site without the role."""
    return []


async def keep_resource(tx: Tx, client: Client, now: datetime) -> None:
    """The device of this client as a resource, which collections are made of."""
    resource = collections.Resource(
        client_id=client.id,
        name=client.name,
        tenant_id=client.tenant_id,
        device_id=client.device_id,
        os_name=client.os_name,
        os_version=client.os_version,
        client_version=client.client_version,
    )
    await collections.upsert_resource(tx, resource, now)


async def keep_state(tx: Tx, id: ClientId, state: ccm.ComanagementState, at: datetime) -> None:
    """The client's own account of where it stands, unless a newer one is known; collections ask
    for it as SMS_Client_ComanagementState."""
    if not await store.save_state(tx, id, state, at):
        return
    said: dict[str, str | int] = {
        "ComgmtPolicyPresent": int(state.policy_present),
        "MDMEnrolled": int(state.mdm_enrolled),
        # Enrolled, and told which workloads are whose.
        "MDMProvisioned": int(state.mdm_enrolled and state.flags > 0),
        "WorkloadFlags": state.flags,
        "ClientVersion": state.client_version,
        "UPN": state.upn,
        "MDMProvider": state.provider,
    }
    await collections.report(tx, id, collections.COMANAGEMENT_STATE, [said], at)


async def _no_certificates(tx: Tx, leaf: x509.Certificate) -> None:
    raise BadCertificate("This site takes no client certificates.", cure="Use a token.")


async def no_trace(
    tx: Tx, client: Client, content: ccm.PolicyContent, digest: str, now: datetime
) -> Traced:
    return Traced()


async def everybody(tx: Tx, tenant_id: str, device_id: str) -> None:
    pass


@dataclass(frozen=True)
class Collaborators:
    """What other modules know, handed in by `roles/`.

    `verify_token` says whom a tenant's access token speaks for, or raises AppError. `policy` is
    what the site wants of a client. `resource` is told of each registration and heartbeat,
    `ordered` of what became of an order to a client, `updates` of what it says of software updates.
    `update_points` is where it finds the role. `user_policy` is what is deployed to a user,
    `user_settings` the client settings that are a user's own.
    `manifest` and `package` are the client to install. `trace` says what a policy follows;
    it is asked when a policy is given. `admit` refuses a device of a tenant that may not register.
    """

    verify_token: Callable[[Tx, str], Awaitable[TenantIdentity]]
    policy: Callable[[Tx, Client], Awaitable[ccm.PolicyContent]]
    signing: Callable[[Tx], Awaitable[ccm.SigningIdentity]]
    management_points: Callable[[Tx], Awaitable[list[ccm.ManagementPoint]]]
    manifest: Callable[[Tx], Awaitable[ccm.ClientManifest | None]]
    package: Callable[[str], Awaitable[Package | None]]
    resource: Callable[[Tx, Client, datetime], Awaitable[None]] = keep_resource
    # Raises AppError for a certificate that does not speak for a client.
    verify_certificate: Callable[[Tx, x509.Certificate], Awaitable[None]] = _no_certificates
    user_policy: Callable[[Tx, Client, TokenHolder], Awaitable[list[ccm.Configuration]]] = (
        nothing_deployed
    )
    user_settings: Callable[[Tx, TokenHolder], Awaitable[dict[str, bool | int]]] = nothing_set
    ordered: Callable[[Tx, Client, ccm.Message], Awaitable[None]] = nobody_asked
    updates: Callable[[Tx, Client, ccm.Message], Awaitable[None]] = nobody_asked
    update_points: Callable[[Tx], Awaitable[list[ccm.UpdatePoint]]] = no_update_points
    trace: Callable[[Tx, Client, ccm.PolicyContent, str, datetime], Awaitable[Traced]] = no_trace
    admit: Callable[[Tx, str, str], Awaitable[None]] = everybody


@dataclass(frozen=True)
class Caller:
    """Who sent a signed request. `client` is None before registration."""

    holder: TokenHolder
    client: Client | None


def _subject(leaf: x509.Certificate) -> str:
    """On one line, whatever is in it."""
    found = leaf.subject.rfc4514_string()[:256]
    return "".join(c if c.isprintable() else "?" for c in found)


def _by_key(key: ec.EllipticCurvePublicKey) -> TenantIdentity:
    """Who a device is that no directory knows: always the same while it has this key."""
    device = str(uuid5(_DEVICES, pki.jwk_thumbprint(key)))
    return TenantIdentity("", device, "device", device)


_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def _in_time(message: ccm.Message, now: datetime) -> ccm.Message:
    """A message from the future happened before it arrived, and before all that has a right time;
    one from before all others did not happen earlier than there were computers."""
    if _EARLIEST <= message.at <= now + ccm.SKEW:
        return message
    data = {**message.data, "device_time": message.at.isoformat()}
    at = _EARLIEST if message.at < _EARLIEST else now - ccm.SKEW
    return msgspec.structs.replace(message, at=at, data=data)


def _refuse_blocked(client: Client) -> None:
    if client.blocked:
        raise BlockedClient(
            f"The client {client.name} is blocked.",
            cure="An administrator of the site can unblock it.",
        )


class SealedPolicy(msgspec.Struct, frozen=True):
    """`document` is None when the client has this policy already. From `etag_ends` on the same
    content has another ETag."""

    etag: str
    etag_ends: float
    document: str | None


def log_files(folder: Path) -> dict[str, LogFile]:
    """The management point's logs, by the names that administrators know."""
    return {name: LogFile(folder / f"{name}.log") for name in ("CCM_STS", "MP_RegistrationManager")}


def replayed() -> Replayed:
    return Replayed(
        "This request was received before.",
        cure="Sign a new request; whoever sends one twice is not answered twice.",
    )


class ManagementPointService:
    """The management point of one site. `logs` is where its CMTrace files go."""

    def __init__(
        self,
        site_code: str,
        box: SecretBox,
        collaborators: Collaborators,
        *,
        now: Clock,
        settings: ClientsSettings = ClientsSettings(),
        logs: Mapping[str, LogFile] | None = None,
    ) -> None:
        self.site_code = site_code
        self._keys = tokens.TokenKeys(box)
        self._with = collaborators
        self.now = now
        self._settings = settings
        self._logs = dict(logs or {})

    def _log(self, component: str, message: str, severity: int = cmtrace.INFORMATION) -> None:
        file = self._logs.get(component)
        if file is not None:
            file.write(cmtrace.line(message, component, self.now(), severity))

    async def exchange(
        self, tx: Tx, bearer: str | None, request: ccm.TokenRequest
    ) -> ccm.TokenReply:
        """A CCM token for who proves to hold the device's key, and shows besides one of these: a
        directory token, a bulk registration token, a client certificate, or the site's own token
        that is to be renewed."""
        now = self.now()
        if bearer is None:
            return await self._exchange_certificate(tx, request, now)
        if not tokens.names_a_site(bearer):
            return await self._exchange_directory(tx, bearer, request, now)
        id = await tokens.registration_token_id(self._keys, tx, bearer, self.site_code, now)
        if id is None:
            return await self._renew(tx, bearer, request, now)
        await registration_tokens.admit(tx, id)
        key = await self._proven(tx, request, bearer, now)
        self._log("CCM_STS", f"Validated bulk registration token. UniqueId: {id}")
        return await self._short(tx, _by_key(key), key, now, "bulk-token", id)

    async def _exchange_directory(
        self, tx: Tx, bearer: str, request: ccm.TokenRequest, now: datetime
    ) -> ccm.TokenReply:
        identity = await self._with.verify_token(tx, bearer)
        if not identity.device_id:
            raise DeviceUnnamed(
                "The directory's token names no device.",
                cure="Join the device to the directory; a registration is not enough.",
            )
        self._log(
            "CCM_STS",
            f"Validated AAD token. TokenType: {'UDA' if identity.kind == 'user' else 'DA'} "
            f"TenantId: {identity.tenant_id} UserId: {identity.object_id} "
            f"DeviceId: {identity.device_id}",
        )
        key = await self._proven(tx, request, bearer, now)
        return await self._short(tx, identity, key, now, "directory", "")

    async def _exchange_certificate(
        self, tx: Tx, request: ccm.TokenRequest, now: datetime
    ) -> ccm.TokenReply:
        try:
            der = b64decode(request.certificate, validate=True)
            leaf = x509.load_der_x509_certificate(der)
            holder = leaf.public_key()
        except pki.UNREADABLE:
            raise BadCertificate(
                "The client's certificate cannot be read.", cure="Send it as base64 of DER."
            ) from None
        if not isinstance(holder, rsa.RSAPublicKey) and not (
            isinstance(holder, ec.EllipticCurvePublicKey) and isinstance(holder.curve, ec.SECP256R1)
        ):
            raise BadCertificate(
                "The key of the client's certificate is neither RSA nor P-256.",
                cure="Issue a certificate for such a key.",
            )
        await self._with.verify_certificate(tx, leaf)
        key = await self._proven(tx, request, sha256(der).hexdigest(), now)
        thumbprint = pki.jwk_thumbprint(key)
        nonce = ccm.open_key_proof(request.possession, holder, thumbprint, now)
        await self._once(tx, pki.jwk_thumbprint(holder), nonce, now)
        self._log("CCM_STS", f"Validated client certificate. Subject: {_subject(leaf)}")
        return await self._short(tx, _by_key(key), key, now, "certificate", "")

    async def _proven(
        self, tx: Tx, request: ccm.TokenRequest, over: str, now: datetime
    ) -> ec.EllipticCurvePublicKey:
        """The key in the request, whose holder sent it, and sent it once."""
        key = ccm.public_key(request.key)
        nonce = ccm.open_key_proof(request.proof, key, over, now)
        await self._once(tx, pki.jwk_thumbprint(key), nonce, now)
        return key

    async def _short(
        self,
        tx: Tx,
        identity: TenantIdentity,
        key: ec.EllipticCurvePublicKey,
        now: datetime,
        by: Credential,
        registration_token: str,
        successor_of: str = "",
    ) -> ccm.TokenReply:
        life = timedelta(hours=self._settings.token_hours)
        kid, signing = await self._keys.signing(tx, now)
        token = tokens.issue(
            kid,
            signing,
            self.site_code,
            identity,
            key,
            now=now,
            life=life,
            token_id=uuid4().hex,
            by=by,
            registration_token=registration_token,
            successor_of=successor_of,
        )
        self._log("CCM_STS", "Return token to client")
        return ccm.TokenReply(token, int(life.total_seconds()))

    async def _renew(
        self, tx: Tx, bearer: str, request: ccm.TokenRequest, now: datetime
    ) -> ccm.TokenReply:
        """A site token anew. Its end may have passed: then the device's key alone speaks for it."""
        grace = timedelta(days=self._settings.site_token_grace_days)
        holder = await tokens.holder(self._keys, tx, bearer, self.site_code, now, grace)
        key = await self._proven(tx, request, bearer, now)
        thumbprint = pki.jwk_thumbprint(key)
        if thumbprint != holder.thumbprint and not request.possession:
            raise ccm.BadSignature("The site token is bound to another key.")
        client = await store.client_of_key(tx, holder.thumbprint)
        if client is None or client.registered_by != holder.by:
            raise UnknownClient(
                "The site does not know this client any more.",
                cure="Run ccmsetup again with a bulk registration token: /regtoken:<token>.",
            )
        _refuse_blocked(client)
        if thumbprint != holder.thumbprint:
            await self._hand_over(tx, holder, client, request, thumbprint, now)
            by, reg = holder.by, holder.registration_token
            return await self._short(tx, _by_key(key), key, now, by, reg, client.id)
        token, seconds = await self._lasting(tx, holder, now)
        self._log("CCM_STS", f"Renewed the site token of {client.id}")
        return ccm.TokenReply(token, seconds, "site")

    async def _hand_over(
        self,
        tx: Tx,
        holder: TokenHolder,
        client: Client,
        request: ccm.TokenRequest,
        thumbprint: str,
        now: datetime,
    ) -> None:
        """Whether the key of this client vouches for another one, and an administrator asked for it.
        A key alone makes no second client."""
        before = ccm.public_key(holder.key)
        nonce = ccm.open_key_proof(request.possession, before, thumbprint, now)
        await self._once(tx, holder.thumbprint, nonce, now)
        if not await store.decided(tx, client.id, conflicts.NEW_IDENTITY):
            raise ccm.BadSignature(
                "The site token is bound to another key, and nobody asked for a new identity.",
                cure="Run ccmsetup again with a bulk registration token: /regtoken:<token>.",
            )

    async def _lasting(self, tx: Tx, holder: TokenHolder, now: datetime) -> tuple[str, int]:
        life = timedelta(days=self._settings.site_token_days)
        kid, signing = await self._keys.signing(tx, now)
        token = tokens.issue(
            kid,
            signing,
            self.site_code,
            TenantIdentity(holder.tenant_id, holder.device_id, "device", holder.object_id),
            ccm.public_key(holder.key),
            now=now,
            life=life,
            token_id=uuid4().hex,
            by=holder.by,
            registration_token=holder.registration_token,
            lasting=True,
        )
        return token, int(life.total_seconds())

    async def content_token(
        self,
        tx: Tx,
        holder: TokenHolder,
        *,
        sha256: str,
        size_bytes: int,
        gateway: str,
        distribution: int,
        ends: datetime,
    ) -> str:
        """What a device shows a gateway to get this content."""
        now = self.now()
        kid, signing = await self._keys.signing(tx, now)
        return tokens.issue_content_token(
            kid,
            signing,
            self.site_code,
            holder,
            sha256=sha256,
            size_bytes=size_bytes,
            gateway=gateway,
            distribution=distribution,
            now=now,
            ends=ends,
        )

    async def _once(self, tx: Tx, thumbprint: str, nonce: str, now: datetime) -> None:
        if not await store.use_nonce(tx, thumbprint, nonce, now):
            raise replayed()

    async def authenticate(
        self,
        tx: Tx,
        bearer: str,
        headers: Mapping[str, str],
        method: str,
        target: str,
        body: bytes,
        *,
        note: bool = True,
    ) -> Caller:
        """Whose signed request this is. `note` writes that the client was heard of.

        Raises what it takes to know: a token of this site, a signature by the key that the token is
        bound to, a nonce that is new, and, once registered, a client that is not blocked.
        """
        now = self.now()
        holder = await tokens.holder(self._keys, tx, bearer, self.site_code, now)
        signed = ccm.read_signature(headers)
        ccm.verify_request(
            ccm.public_key(holder.key), signed, method=method, target=target, body=body, now=now
        )
        key, since = holder.thumbprint, now - _SEEN_EVERY
        if not signed.client_id:
            if (unnamed := await store.client_of_key(tx, key)) is not None:
                _refuse_blocked(unnamed)
            await self._once(tx, key, signed.nonce, now)
            return Caller(holder, None)
        found, fresh = await store.known_and_new(tx, signed.client_id, key, signed.nonce, now)
        client = self._speaks_for(holder, found)
        if not fresh:
            raise replayed()
        if client.obsolete:
            await conflicts.revive(tx, client, now)
        if note and client.last_seen_at < since:
            await store.mark_seen(tx, client.id, now, since)
        return Caller(holder, client)

    def _speaks_for(self, holder: TokenHolder, client: Client | None) -> Client:
        known = client is not None and client.thumbprint == holder.thumbprint
        # The site's own token ends when the device is known by something else, as by its directory.
        if client is None or not known or (holder.lasting and client.registered_by != holder.by):
            raise UnknownClient(
                "The site does not know this client, or not with this key.",
                cure="The client registers again by itself.",
            )
        _refuse_blocked(client)
        return client

    async def register(
        self, tx: Tx, holder: TokenHolder, request: ccm.RegistrationRequest
    ) -> ccm.RegistrationReply:
        """The record of this device, one however often it asks."""
        now = self.now()
        if request.site_code.upper() != self.site_code:
            raise UnknownSiteCode(
                f"There is no site {request.site_code!r} here: this site is {self.site_code}.",
                cure=f"Put SMSSITECODE={self.site_code} into the command line of the client.",
                site_code=self.site_code,
            )
        if pki.jwk_thumbprint(ccm.public_key(request.key)) != holder.thumbprint:
            raise ccm.BadSignature("The key to register is not the key that the token is bound to.")
        how = {"directory": "AAD", "certificate": "PKI", "bulk-token": "token"}[holder.by]
        self._log(
            "MP_RegistrationManager",
            f"Registering device using {how} auth: DeviceId='{holder.device_id}', "
            f"TenantId='{holder.tenant_id}'",
        )
        before = await store.client_of_device(tx, holder.tenant_id, holder.device_id)
        if before is not None:
            _refuse_blocked(before)
        elif holder.successor_of:
            # An administrator asked for this, whatever became of the token meanwhile.
            if not await store.decided(tx, holder.successor_of, conflicts.NEW_IDENTITY):
                raise ccm.BadSignature("The new identity that was asked for is there already.")
        elif holder.registration_token:
            # It may have been blocked since it was shown, or have ended long ago.
            ended = now - timedelta(hours=self._settings.token_hours)
            await registration_tokens.admit(tx, holder.registration_token, ended)
        await self._with.admit(tx, holder.tenant_id, holder.device_id)
        before = await self._settle_key(tx, holder, request, before) or before
        record = self._record(holder, request, now)
        if before is not None and holder.by != "directory":
            # Its place in the directory stays its place, whatever it shows today.
            record = msgspec.structs.replace(
                record, tenant_id=before.tenant_id, device_id=before.device_id
            )
        client = await store.save_client(tx, record)
        if before is None or before.thumbprint != client.thumbprint:
            state = REGISTERED if before is None else REGISTERED_AGAIN
            await self._enter(tx, client, state, {"client_id": client.id, "name": client.name})
            await events.record(tx, "client.registered", client.id, {"device": client.device_id})
        if before is None:
            await conflicts.supersede(tx, client, now)
        if holder.successor_of:
            await conflicts.settled(tx, holder.successor_of, now)
        await self._with.resource(tx, client, self.now())
        token, seconds = "", 0
        if holder.by == "bulk-token":
            # The others show their credential again, so whoever takes that away is obeyed.
            token, seconds = await self._lasting(tx, holder, now)
        return ccm.RegistrationReply(client.id, client.approval, self.site_code, token, seconds)

    async def _settle_key(
        self,
        tx: Tx,
        holder: TokenHolder,
        request: ccm.RegistrationRequest,
        before: Client | None,
    ) -> Client | None:
        """A device that left its directory and joined again has a new device id and its old key.
        Returns the client that this key spoke for, where that is the one that registers."""
        same_key = await store.client_of_key(tx, holder.thumbprint)
        if same_key is None or (before is not None and same_key.id == before.id):
            return None
        _refuse_blocked(same_key)
        elsewhere = request.hardware_id and same_key.hardware_id
        if elsewhere and request.hardware_id != same_key.hardware_id:
            raise NewKeyNeeded(
                f"This device has the key of another machine, {same_key.name}: its disk was copied.",
                cure="The client makes a key of its own, and registers with that.",
            )
        if before is not None:
            await store.retire_key(tx, same_key.id)
            return None
        if holder.by == "directory":
            await store.move_client(tx, same_key.id, holder.tenant_id, holder.device_id)
            await store.move_timeline(tx, same_key, holder.tenant_id, holder.device_id)
            return None
        return same_key

    def _record(
        self, holder: TokenHolder, request: ccm.RegistrationRequest, now: datetime
    ) -> Client:
        return Client(
            id=store.new_id(str(uuid4())),
            tenant_id=holder.tenant_id,
            device_id=holder.device_id,
            thumbprint=holder.thumbprint,
            name=request.name[:64],
            os_name=request.os_name[:64],
            os_version=request.os_version[:64],
            client_version=request.client_version[:64],
            approval=APPROVED_BY_DIRECTORY if holder.by == "directory" else APPROVED,
            blocked=False,
            registered_at=now,
            last_seen_at=now,
            policy_at=None,
            policy_version=0,
            state_at=None,
            state=None,
            registered_by=holder.by,
            registration_token=holder.registration_token,
            hardware_id=request.hardware_id,
        )

    async def _enter(self, tx: Tx, client: Client, state: int, data: dict[str, object]) -> None:
        now = self.now()
        entry = ccm.Message(f"site:{uuid4().hex}", SITE_TOPIC, state, now, data)
        await store.add_entry(tx, client.tenant_id, client.device_id, entry, now)

    async def policy(
        self,
        tx: Tx,
        client: Client,
        key: dict[str, str],
        have: str,
        user: TokenHolder | None = None,
    ) -> SealedPolicy:
        """The client's policy, or word that the one it has is still right.

        `key` is the device's, as a JWK: what is deployed is encrypted to it.

        The ETag changes with the content, and at half of the policy's life, so a client that is
        told "not modified" never holds a policy that is about to expire.
        """
        now = self.now()
        life = timedelta(days=self._settings.policy_days)
        user_id = user.object_id if user else ""
        content = await self._content(tx, client, user)
        digest = _digest(content)
        half_life = life.total_seconds() / 2
        half = int(now.timestamp() // half_life)
        ends = (half + 1) * half_life
        subject = f"{client.id}/{user_id}/{client.thumbprint}/{half}/{digest}"
        etag = f'"{sha256(subject.encode()).hexdigest()[:32]}"'
        if have == etag:
            return SealedPolicy(etag, ends, None)
        names = [f"{p.name} ({p.version})" for p in content.configuration_policies]
        version, traced = client.policy_version, Traced()
        if user:
            told = {"version": version, "policies": names}
            await self._enter(tx, client, USER_POLICY_DELIVERED, told)
        else:
            traced = await self._with.trace(tx, client, content, digest, now)
            told = {"policies": names, **traced.told}
            version = await store.deliver(tx, client, digest, f"site:{uuid4().hex}", told, now)
            data = {"device": client.device_id, "version": version}
            await events.record(tx, "client.policy-delivered", client.id, data)
        policy = ccm.Policy(
            client_id=client.id,
            site_code=self.site_code,
            version=version,
            issued_at=now,
            expires_at=now + life,
            settings=content.settings,
            configuration_policies=content.configuration_policies,
            configurations=[],
            user=user_id,
            enroll_now=content.enroll_now,
            hidden=ccm.hide(content.configurations, ccm.public_key(key)),
            trace=traced.id,
            leave=content.leave,
        )
        document = ccm.seal("policy", policy, await self._with.signing(tx))
        return SealedPolicy(etag, ends, document)

    async def _content(self, tx: Tx, client: Client, user: TokenHolder | None) -> ccm.PolicyContent:
        content = await self._with.policy(tx, client)
        if user is None:
            return content
        if (user.tenant_id, user.device_id) != (client.tenant_id, client.device_id):
            raise BadToken(
                "The user's token was given to another device.",
                cure="The user signs in on this device.",
            )
        allowed = msgspec.convert(content.settings, ccm.ClientSettings)
        if not (allowed.enable_user_policy and allowed.enable_user_policy_from_internet):
            raise UserPolicyOff(
                "The client settings do not let this device have policy of its user.",
                cure="Allow user policy, and its requests from the internet, in the client settings.",
            )
        own = await self._with.user_settings(tx, user)
        of_user = msgspec.convert({**content.settings, **own}, ccm.ClientSettings)
        if not (of_user.enable_user_policy and of_user.enable_user_policy_from_internet):
            raise UserPolicyOff(
                "The client settings do not let this user have policy.",
                cure="See which say so: `tandem client-settings resultant --user`.",
            )
        # What moves workloads is the device's alone.
        deployed = await self._with.user_policy(tx, client, user)
        return ccm.PolicyContent(settings={**content.settings, **own}, configurations=deployed)

    async def receive(
        self, tx: Tx, caller: Caller, request: ccm.IncomingRequest
    ) -> ccm.IncomingReply:
        """Take messages, each exactly once. Returns the ids that need not be sent again."""
        messages = request.messages
        now = self.now()
        client = caller.client
        whose = client or caller.holder
        ledger_next, noted = 0, conflicts.Noted()
        if client is not None:
            noted = await conflicts.note_batch(tx, client, request, now)
        for sent in messages:
            message = _in_time(sent, now)
            if message.topic == ccm.LEDGER_TOPIC:
                # A ledger counts its entries itself, and is shown in a place of its own.
                ledger_next = await self._take_ledger(tx, caller, message)
                continue
            if not await store.add_entry(tx, whose.tenant_id, whose.device_id, message, now):
                continue
            if client is not None:
                await self._act(tx, client, message)
        resync = noted.resync
        if client is not None and any(one.topic == ccm.INVENTORY_TOPIC for one in messages):
            resync = await store.inventory_wanted(tx, client.id)
        ids = [message.id for message in messages]
        return ccm.IncomingReply(ids, ledger_next, noted.sequence, resync, noted.leaves)

    async def _take_ledger(self, tx: Tx, caller: Caller, message: ccm.Message) -> int:
        if caller.client is None:
            return 0
        try:
            part = msgspec.convert(message.data, ccm.LedgerPart)
        except msgspec.ValidationError as error:
            log.warning("unreadable ledger", client=caller.client.id, reason=str(error))
            return 0
        holder = caller.holder
        return await ledgers.take(
            tx, caller.client.id, holder.thumbprint, holder.key, part, self.now()
        )

    async def _act(self, tx: Tx, client: Client, message: ccm.Message) -> None:
        if message.topic == ccm.HEARTBEAT_TOPIC:
            await self._with.resource(tx, client, self.now())
        elif message.topic == ccm.NOTIFICATION_TOPIC:
            await self._with.ordered(tx, client, message)
        elif message.topic in (ccm.DETECTION_TOPIC, ccm.ENFORCEMENT_TOPIC, ccm.SCAN_TOPIC):
            await self._with.updates(tx, client, message)
        elif message.topic == ccm.INVENTORY_TOPIC and message.state == 1:
            await inventory.take(tx, client.id, message, self.now())
        elif message.topic == ccm.COMANAGEMENT_TOPIC and message.state == 100:
            try:
                state = msgspec.convert(message.data, ccm.ComanagementState)
            except msgspec.ValidationError as error:
                # It is kept in the timeline; refusing it would make the client send it forever.
                log.warning("unreadable state", client=client.id, reason=str(error))
                return
            # A device whose clock is ahead must not outrank its own later reports.
            await keep_state(tx, client.id, state, min(message.at, self.now()))
            data = {
                "device": client.device_id,
                "tenant": client.tenant_id,
                "flags": state.flags,
                "mdm_enrolled": state.mdm_enrolled,
                "policy_present": state.policy_present,
            }
            await events.record(tx, "client.comanagement-state", client.id, data)

    async def signing_certificate(self, tx: Tx) -> ccm.SiteSigningCertificate:
        identity = await self._with.signing(tx)
        return ccm.SiteSigningCertificate(
            self.site_code,
            pki.pem(identity.certificate).decode(),
            pki.pem(identity.root).decode(),
        )

    async def management_points(self, tx: Tx) -> ccm.ManagementPointList:
        return ccm.ManagementPointList(self.site_code, await self._with.management_points(tx))

    async def update_points(self, tx: Tx) -> ccm.UpdatePointList:
        return ccm.UpdatePointList(self.site_code, await self._with.update_points(tx))

    async def manifest(self, tx: Tx) -> str:
        """The signed manifest. Raises NoPackage."""
        found = await self._with.manifest(tx)
        if found is None:
            raise NoPackage(
                "The site has no client package.",
                cure="Build it with `tandem client package`.",
            )
        return ccm.seal("manifest", found, await self._with.signing(tx))

    async def package(self, sha256_hex: str) -> Package:
        """Raises NoPackage."""
        found = await self._with.package(sha256_hex)
        if found is None:
            raise NoPackage(
                "There is no client package with this hash.",
                cure="Read the manifest again: the site may have a newer client.",
            )
        return found


def _digest(content: ccm.PolicyContent) -> str:
    """Of what the document says: by which collection a value came makes no other policy."""
    said = msgspec.structs.replace(content, settings_by=[])
    return sha256(msgspec.json.encode(said, order="sorted")).hexdigest()


async def was_given(tx: Tx, id: ClientId, content: ccm.PolicyContent) -> bool:
    """Whether the newest policy that this client fetched says this."""
    return await store.policy_digest(tx, id) == _digest(content)


async def token_keys(tx: Tx, box: SecretBox, now: datetime) -> dict[str, list[dict[str, str]]]:
    """The JWKS that a gateway verifies CCM tokens with. The first key is made when missing."""
    await tokens.TokenKeys(box).signing(tx, now)
    return {"keys": [row.public_jwk for row in await store.token_key_rows(tx)]}


async def list_clients(
    tx: Tx, search: str = "", limit: int | None = None, offset: int = 0, obsolete: bool = False
) -> list[ClientSummary]:
    """By name; all of them without a limit. `search` is part of a name, or a client or device id;
    `obsolete`: with those that another record of the same machine superseded."""
    within = await collections.visible_devices_sql(tx)
    found = await store.clients(tx, store.Wanted(search, obsolete), limit, offset, within)
    return [ClientSummary.of(client) for client in found]


class Activity(msgspec.Struct, frozen=True):
    """Clients by whether they were heard of since `since`."""

    since: datetime
    active: int
    inactive: int


class Listed(msgspec.Struct, frozen=True):
    """A part of a list of clients: how many there are in all, and the activity of those that the
    search and `obsolete` name."""

    clients: list[ClientSummary]
    total: int
    activity: Activity


async def listed(
    tx: Tx,
    search: str,
    obsolete: bool,
    active: bool | None,
    since: datetime,
    limit: int,
    offset: int,
) -> Listed:
    """`active`: only those that were heard of since then, or only the others."""
    wanted = store.Wanted(search, obsolete, active, since)
    within = await collections.visible_devices_sql(tx)
    found = await store.clients(tx, wanted, limit, offset, within)
    live = await store.count(tx, msgspec.structs.replace(wanted, active=True), within)
    still = await store.count(tx, msgspec.structs.replace(wanted, active=False), within)
    total = {None: live + still, True: live, False: still}[active]
    return Listed([ClientSummary.of(one) for one in found], total, Activity(since, live, still))


async def reported(tx: Tx) -> list[Reported]:
    """Every client's own account of where it stands, by name."""
    return await store.reported(tx)


async def milestones(tx: Tx) -> list[Milestone]:
    """What devices did lately that is worth telling, the newest first."""
    return await store.milestones(tx, _MOST_MILESTONES)


async def in_force(tx: Tx, setting: str) -> dict[str, InForce]:
    """Which value of a setting each client says is in force, by client id."""
    return await store.in_force(tx, setting)


async def signed_in(tx: Tx, client_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Tenant and object id of whose policy is in force on these clients, where it is anybody's."""
    return await store.signed_in(tx, list(client_ids))


async def failed_effects(tx: Tx, source: str) -> list[FailedEffect]:
    """What clients could not bring about of an authority's values ("site", "mdm")."""
    return await store.failed_effects(tx, source)


async def count(tx: Tx, search: str = "", obsolete: bool = False) -> int:
    within = await collections.visible_devices_sql(tx)
    return await store.count(tx, store.Wanted(search, obsolete), within)


async def find(tx: Tx, client_id: str) -> Client:
    """Raises NoSuchClient, also for one whose device who asks may not see."""
    found = await store.client(tx, client_id)
    return _known(found if await _seen(tx, client_id) else None, client_id)


async def _seen(tx: Tx, client_id: str) -> bool:
    if administrators.limit() is None:
        return True
    try:
        await collections.resource_of(tx, client_id)
    except collections.NoSuchResource:
        return False
    return True


def _known(client: Client | None, client_id: str) -> Client:
    if client is None:
        raise NoSuchClient(
            f"There is no client {client_id}.",
            cure="The device list of the console shows all clients.",
        )
    return client


async def find_by_device(tx: Tx, tenant_id: str, device_id: str) -> Client | None:
    return await store.client_of_device(tx, tenant_id, device_id)


async def seen_details(tx: Tx, details: Mapping[str, Any]) -> dict[str, Any]:
    """What was decided, as far as who asks may read it."""
    if administrators.sees_all():
        return dict(details)
    return narrowing.details(details, await collections.visible(tx))


async def timeline(tx: Tx, tenant_id: str, device_id: str, limit: int = 200) -> list[TimelineEntry]:
    """What a device reported and what the site did for it, oldest first. Who is limited reads no
    names of what they may not see."""
    rows = await store.entries(tx, tenant_id, device_id, limit)
    if not administrators.sees_all():
        only = await collections.visible(tx)
        rows = [{**row, "data": narrowing.data(row["data"], only)} for row in rows]
    return [
        TimelineEntry(
            row["at"],
            row["received_at"],
            row["topic"],
            row["state"],
            describe(row["topic"], row["state"]),
            row["data"],
        )
        for row in rows
    ]


async def said_farewell(tx: Tx, client: Client, since: datetime) -> bool:
    """Whether this client has said its last word since then."""
    return await store.has_entry(
        tx, client.tenant_id, client.device_id, ccm.COMANAGEMENT_TOPIC, ccm.LEFT, since
    )


async def facts(tx: Tx, device_ids: Sequence[str]) -> dict[str, DeviceFacts]:
    """What the site knows of these devices now; who is not in it is unknown to the site."""
    found = {
        c.device_id: ClientSummary.of(c) for c in await store.clients_of_devices(tx, device_ids)
    }
    setups = {
        row["device_id"]: SetupState(**row, text=describe(ccm.SETUP_TOPIC, row["state"]))
        for row in await store.newest_setup_of(tx, device_ids)
    }
    progress = {
        row["device_id"]: _progress(row) for row in await store.newest_enrollment_of(tx, device_ids)
    }
    return {
        id: DeviceFacts(found.get(id), setups.get(id), progress.get(id))
        for id in {*found, *setups, *progress}
    }


async def newest_of_topics(
    tx: Tx, tenant_id: str, device_id: str, topics: Sequence[int]
) -> dict[int, datetime]:
    """When a device last sent a message of each topic; who never did is not in it."""
    return await store.newest_of_topics(tx, tenant_id, device_id, topics)


async def setup_states(tx: Tx, limit: int = 10_000) -> list[SetupState]:
    """The newest bootstrap step of each device that reported one, registered or not."""
    rows = await store.newest_of_topic(tx, ccm.SETUP_TOPIC, limit)
    return [SetupState(**row, text=describe(ccm.SETUP_TOPIC, row["state"])) for row in rows]


async def enrollment_progress(tx: Tx) -> list[EnrollmentProgress]:
    """The newest step of automatic enrolment of each device that reported one."""
    return [_progress(row) for row in await store.newest_enrollment(tx)]


def _progress(row: Mapping[str, Any]) -> EnrollmentProgress:
    data = row["data"]
    tries = data.get("try")
    return EnrollmentProgress(
        row["device_id"],
        row["state"],
        row["at"],
        _error_code(data),
        describe(ccm.COMANAGEMENT_TOPIC, row["state"]),
        _moment(data.get("at")),
        tries if isinstance(tries, int) and not isinstance(tries, bool) and tries > 0 else 0,
    )


def _moment(told: object) -> datetime | None:
    """A point in time that a device named; None when it is none."""
    try:
        found = datetime.fromisoformat(told) if isinstance(told, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _error_code(data: Mapping[str, Any]) -> int | None:
    """The number of an error that a device reported: 2149056536, or "0x80180018"."""
    code = data.get("hresult", data.get("code"))
    if isinstance(code, str) and re.fullmatch("0x[0-9a-fA-F]{1,8}", code):
        return int(code, 16)
    known = isinstance(code, int) and not isinstance(code, bool) and 0 <= code < 2**32
    return code if known else None


async def block(tx: Tx, client_id: str, *, actor: str, now: datetime) -> Client:
    """From now on nothing this client says is taken. Raises NoSuchClient."""
    return await _set_blocked(tx, client_id, True, actor, now)


async def unblock(tx: Tx, client_id: str, *, actor: str, now: datetime) -> Client:
    """Raises NoSuchClient."""
    return await _set_blocked(tx, client_id, False, actor, now)


async def set_blocked(
    tx: Tx,
    client_ids: Sequence[str],
    blocked: bool,
    *,
    actor: str,
    now: datetime,
    details: Mapping[str, Any],
) -> list[str]:
    """Block or unblock many at once, told as one. Returns those that it changed."""
    changed = await store.set_blocked_all(tx, client_ids, blocked)
    action = "client.block-many" if blocked else "client.unblock-many"
    told = {**details, "changed": len(changed), "clients": sorted(changed)[:_NAMED_IN_AUDIT]}
    await audit.record(
        tx, actor=actor, action=action, target=f"{len(changed)} clients", details=told, now=now
    )
    return changed


async def _set_blocked(tx: Tx, client_id: str, blocked: bool, actor: str, now: datetime) -> Client:
    await find(tx, client_id)
    client = _known(await store.set_blocked(tx, client_id, blocked), client_id)
    action = "client.block" if blocked else "client.unblock"
    await audit.record(
        tx, actor=actor, action=action, target=client_id, outcome="done", details={}, now=now
    )
    return client


async def forget(tx: Tx, resource_id: int, *, actor: str, now: datetime) -> None:
    """Delete a device: its resource and the record of its client. A client that still runs
    registers again and becomes another resource.

    Raises NoSuchResource, and StillBlocked: deleting a blocked client would let it back in.
    """
    found = await collections.resource(tx, str(resource_id))
    client = await store.client(tx, found.client_id)
    if client is not None:
        _not_blocked(client)
    await store.delete_client(tx, found.client_id)
    await collections.forget(tx, found.id, actor=actor, now=now)


async def delete(tx: Tx, client_id: str, *, actor: str, now: datetime) -> None:
    """As `forget`, of the device that this client is; also of one that is no resource.

    Raises NoSuchClient, and StillBlocked.
    """
    client = await find(tx, client_id)
    try:
        found = await collections.resource_of(tx, client.id)
    except collections.NoSuchResource:
        _not_blocked(client)
        await store.delete_client(tx, client.id)
        await audit.record(
            tx,
            actor=actor,
            action="client.delete",
            target=client.id,
            details={"name": client.name},
            now=now,
        )
    else:
        await forget(tx, found.id, actor=actor, now=now)


def _not_blocked(client: Client) -> None:
    if client.blocked:
        raise StillBlocked(
            f"{client.name} is blocked; if it were deleted, it could register again.",
            cure="Unblock it first, or leave it blocked.",
        )


async def forget_obsolete(tx: Tx, now: datetime) -> int:
    """Delete what a newer record superseded and nobody has heard of for a week."""
    gone = await store.obsolete_since(tx, now - conflicts.KEEP_OBSOLETE)
    for client_id in gone:
        found = await store.client(tx, client_id)
        if found is None or found.blocked:
            continue
        await store.delete_client(tx, client_id)
        with suppress(collections.NoSuchResource):
            resource = await collections.resource_of(tx, client_id)
            await collections.forget(tx, resource.id, actor="site", now=now)
    return len(gone)


# So many go in one transaction.
_FORGET_AT_ONCE = 2000


async def forget_history(db: Database, before: datetime) -> int:
    """Drop what devices reported before, but the last word of each kind. Returns how much."""
    gone = 0
    async with db.transaction() as tx:
        topics = await store.topics(tx)
    for topic in topics:
        while True:
            async with db.transaction() as tx:
                done = await store.forget_entries(tx, topic, before, _FORGET_AT_ONCE)
            gone += done
            if done < _FORGET_AT_ONCE:
                break
    return gone


async def forget_nonces(tx: Tx, now: datetime) -> int:
    """Drop what no replay can need: a signature older than twice the skew is refused anyway."""
    return await store.forget_nonces(tx, now - timedelta(minutes=15))
