"""Whose request it is: the one credential of a Security header, and its use (sections 4 and 9)."""

import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Protocol

from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.protocols import soap
from tandem.tenant import directory, oidc
from tandem.tenant.enrollment import token_store as store
from tandem.tenant.enrollment.ways import (
    LONGEST_REFUSAL,
    LONGEST_TERMS,
    BadCredential,
    BadOption,
    NoSuchToken,
    Options,
    Proof,
    Token,
    TooBusy,
    Way,
    new_token,
    read_jwt,
    read_token,
)

_TOKENS = {soap.JWT_TYPE, soap.USER_TOKEN_TYPE}
# The directory's tokens are good for one enrollment too, but a device whose answer was lost sends
# the same again, by itself and at once.
_SENT_AGAIN = timedelta(seconds=60)
_KEPT = timedelta(days=30)
_NOBODY = "The credential is not valid, was used, or is too old."
_WRONG = "The user name or the password is not right, or too many tries were made."
LONGEST_LIFE = timedelta(days=1)


class VerifiesTokens(Protocol):
    async def verify_mdm(self, tx: Tx, token: str, now: datetime) -> oidc.Claims: ...


class ChecksPasswords(Protocol):
    async def check(
        self, login: str, password: str, peer: oidc.Peer, now: datetime
    ) -> directory.User: ...


class Credentials:
    """Credentials of one tenant. Without `passwords` none is taken, whatever was chosen."""

    def __init__(
        self, tokens: VerifiesTokens, now: Clock, passwords: ChecksPasswords | None = None
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._passwords = passwords

    async def proof(
        self, database: Database, credential: soap.Credential, peer: oidc.Peer
    ) -> Proof:
        """Who stands behind a request. Raises BadCredential, BadToken."""
        if credential.kind == "password":
            return await self._of_password(database, credential, peer)
        async with database.transaction() as tx:
            return replace(await self.of_token(tx, credential), address=peer.address)

    async def of_token(self, tx: Tx, credential: soap.Credential) -> Proof:
        """A token says by its value what it is; its type only says by which way it came."""
        if credential.kind != "token" or credential.value_type not in _TOKENS:
            raise _nobody()
        sha = read_token(credential.value)
        if sha is not None:
            held = await store.token(tx, sha)
            self._check(held)
            assert held is not None
            proof = Proof(held.way, held.user_id, held.upn, "", sha, held.expires_at)
        else:
            text = read_jwt(credential.value)
            claims = await self._tokens.verify_mdm(tx, text, self._now())
            expires_at = self._now() + LONGEST_LIFE
            digest = sha256(text.encode()).digest()
            proof = Proof(
                Way.DIRECTORY, claims.object_id, claims.upn, claims.device_id, digest, expires_at
            )
        return await self._somebody(tx, proof)

    async def _somebody(self, tx: Tx, proof: Proof) -> Proof:
        """User and device as the directory knows them now, which may be another than when it was
        issued."""
        user = await directory.find_user(tx, proof.object_id)
        if user is None or not user.account_enabled:
            raise _nobody()
        if proof.device_id:
            device = await directory.find_device(tx, proof.device_id)
            if device is None or not device.account_enabled:
                raise _nobody()
        return replace(proof, upn=user.user_principal_name)

    async def _of_password(
        self, database: Database, credential: soap.Credential, peer: oidc.Peer
    ) -> Proof:
        """One answer for a wrong password, an unknown user and a door that is locked."""
        async with database.transaction() as tx:
            chosen = await store.options(tx)
        if self._passwords is None or not chosen.passwords:
            raise BadCredential(
                "Devices do not enrol here with a password.",
                cure="Sign in on the page that the device shows, or join it to the directory.",
            )
        if credential.value_type != soap.PASSWORD_TEXT or not credential.user_name:
            raise _nobody()
        password = credential.value.decode()
        try:
            user = await self._passwords.check(credential.user_name, password, peer, self._now())
        except oidc.OAuthError as error:
            if error.status >= 500:
                raise TooBusy(error.message, cure=error.cure) from None
            raise BadCredential(_WRONG, cure="Check both, or wait some minutes.") from None
        return Proof(Way.PASSWORD, user.id, user.user_principal_name, address=peer.address)

    def _check(self, held: Token | None) -> None:
        if held is None or held.used_at is not None or held.expires_at <= self._now():
            raise _nobody()

    async def spend(self, tx: Tx, proof: Proof, asked: soap.RequestToken, device_id: str) -> None:
        """The credential is used up when this transaction is committed. Raises BadCredential."""
        if not proof.sha256:
            return
        now, windows_id = self._now(), asked.item("DeviceID")
        if proof.way is Way.DIRECTORY:
            await self._spend_jwt(tx, proof, windows_id, device_id)
            return
        held = await store.token(tx, proof.sha256, lock=True)
        self._check(held)
        assert held is not None
        wanted = held.device_name.casefold()
        if wanted and wanted != asked.item("DeviceName").casefold():
            raise BadCredential(
                "This token is for a device of another name.", cure="Have one issued for this one."
            )
        await store.use(tx, held.id, now, windows_id, device_id)

    async def _spend_jwt(self, tx: Tx, proof: Proof, windows_id: str, device_id: str) -> None:
        now = self._now()
        fresh = Token(
            id=str(uuid.uuid4()),
            way=Way.DIRECTORY,
            user_id=proof.object_id,
            upn=proof.upn,
            device_name="",
            issued_by="",
            issued_at=now,
            expires_at=proof.expires_at or now,
            used_at=now,
            windows_id=windows_id,
            device_id=device_id,
        )
        if await store.insert(tx, fresh, proof.sha256):
            return
        held = await store.token(tx, proof.sha256, lock=True)
        again = (
            held is not None
            and held.used_at is not None
            and held.windows_id == windows_id
            and now - held.used_at <= _SENT_AGAIN
        )
        if not again:
            raise _nobody()

    # -------------------------------------------------------------- tokens for devices

    async def issue(
        self,
        tx: Tx,
        way: Way,
        user: directory.User,
        *,
        lifetime: timedelta,
        issued_by: str,
        device_name: str = "",
        terms_sha256: str = "",
    ) -> tuple[Token, str]:
        """A token, and its text, which nobody can read afterwards. Raises BadOption."""
        if not timedelta(minutes=1) <= lifetime <= LONGEST_LIFE:
            raise BadOption(
                "A token lives from a minute to a day.", cure="Choose 1 to 1,440 minutes."
            )
        if not user.account_enabled:
            raise BadOption(
                f"The account of {user.user_principal_name} is disabled.", cure="Enable it first."
            )
        if len(device_name) > 64:
            raise BadOption("A device's name has at most 64 characters.", cure="Shorten it.")
        now = self._now()
        text, sha = new_token()
        made = Token(
            id=str(uuid.uuid4()),
            way=way,
            user_id=user.id,
            upn=user.user_principal_name,
            device_name=device_name,
            issued_by=issued_by,
            issued_at=now,
            expires_at=now + lifetime,
            terms_sha256=terms_sha256,
        )
        await store.insert(tx, made, sha)
        return made, text

    async def terms_of(self, tx: Tx, proof: Proof) -> str:
        """The terms that came to be accepted before the token was issued (see Options)."""
        held = await store.token(tx, proof.sha256) if proof.sha256 else None
        return held.terms_sha256 if held else ""


async def revoke(tx: Tx, id: str) -> Token:
    """Raises NoSuchToken."""
    try:
        found = await store.issued(tx, str(uuid.UUID(id)))
    except ValueError:
        found = None
    if found is None:
        raise NoSuchToken(
            "There is no such enrolment token.", cure="List them: `tandem enrollment-token list`."
        )
    await store.delete(tx, found.id)
    return found


async def options(tx: Tx) -> Options:
    return await store.options(tx)


async def choose(tx: Tx, chosen: Options) -> None:
    """Raises BadOption."""
    for text in (chosen.terms_en, chosen.terms_fr):
        if len(text) > LONGEST_TERMS:
            raise BadOption(
                f"Terms of use have at most {LONGEST_TERMS:,} characters.", cure="Shorten them."
            )
    if len(chosen.refusal_text) > LONGEST_REFUSAL:
        raise BadOption(
            f"The text for refused users has at most {LONGEST_REFUSAL} characters.",
            cure="Shorten it.",
        )
    await store.save_options(tx, chosen)


async def tend(tx: Tx, now: datetime) -> None:
    """Upkeep: tokens that expired long ago go."""
    await store.delete_expired(tx, now - _KEPT)


def _nobody() -> BadCredential:
    return BadCredential(_NOBODY, cure="Sign in again on the device, or have a new one issued.")
