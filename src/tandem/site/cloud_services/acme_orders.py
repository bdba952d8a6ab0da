"""Gateway certificates by ACME (RFC 8555), proved in DNS (dns-01, 8.4), and renewed before they end.

site ── order, for a key that never leaves it ──▶ authority
site ── TXT _acme-challenge.NAME, by update (RFC 2136) with a TSIG (RFC 8945) ──▶ DNS server of the zone
authority ── asks DNS ──▶ finds it, and issues

The proof is in DNS because nothing of the organisation need answer for it: a gateway is not there yet
when its first certificate is ordered, and the site listens to nobody outside.
"""

import asyncio
import binascii
import contextlib
import stat
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.exception
import dns.name
import dns.rcode
import dns.tsig
import dns.update
import requests
from acme import challenges, client, errors, messages
from josepy import errors as jose_errors
from josepy import jwa, jwk

from tandem import audit, pki
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.jobs import Jobs
from tandem.infra.logs import get_logger
from tandem.infra.net import Resolver
from tandem.infra.secrets import SecretBox
from tandem.site.cloud_services import certificates, store
from tandem.site.cloud_services.gateways import Gateways
from tandem.site.cloud_services.model import (
    AcmeFault,
    AcmeOff,
    AcmeSettings,
    CertificateRequest,
    Gateway,
    GatewayState,
    wildcard_of,
)

log = get_logger("gateways")

_ORDER = "cloud.order-certificate"
_CONTEXT = "cloud.acme-account"
_LOOK_SECONDS = 0.5
_ALGORITHMS = {
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}


class Orders:
    """Certificates that an ACME authority issues to this site's requests."""

    def __init__(
        self,
        db: Database,
        settings: AcmeSettings,
        box: SecretBox,
        jobs: Jobs,
        gateways: Gateways,
        *,
        resolver: Resolver,
        now: Clock,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self.settings = settings
        self._box = box
        self._jobs = jobs
        self._gateways = gateways
        self._resolver = resolver
        self._now = now
        self._changed = changed
        jobs.register(_ORDER, self.order)

    # -------------------------------------------------------------- what an administrator does

    async def request(
        self, tx: Tx, service_name: str, subject: Mapping[str, str], *, actor: str
    ) -> CertificateRequest:
        """Make a key and its request here, and order the certificate in the background. Raises
        AcmeOff, BadServiceName, BadSubject."""
        self._check_on()
        made = await certificates.request(
            tx, self._box, service_name, subject, actor=actor, now=self._now()
        )
        await store.set_acme(tx, made.id)
        await self._defer(tx, made)
        return replace(made, acme=True)

    async def again(self, tx: Tx, wanted: str, *, actor: str) -> CertificateRequest:
        """Order once more what was refused. Raises AcmeOff, NoSuchCertificate."""
        self._check_on()
        item = await certificates.certificate(tx, wanted)
        if item.certificate is None and item.request is not None:
            await store.set_acme(tx, item.id)
            await self._defer(tx, item)
            await audit.record(
                tx,
                actor=actor,
                action="certificate.order",
                target=item.service_name,
                now=self._now(),
            )
        return await certificates.certificate(tx, item.id)

    async def _defer(self, tx: Tx, item: CertificateRequest) -> None:
        await self._jobs.defer(tx, _ORDER, lock=f"acme:{item.service_name}", id=item.id)

    def _check_on(self) -> None:
        here = self.settings
        if not here.directory or not here.dns_server:
            raise AcmeOff(
                "The site's settings name no ACME authority, or no DNS server for its proofs.",
                cure="Set directory, dns_server and the TSIG under [cloud.acme], or send the request"
                " to your CA yourself.",
            )
        if not here.agree_to_terms:
            raise AcmeOff(
                "Nobody has agreed to the terms of the ACME authority.",
                cure="Read them, then set agree_to_terms = true under [cloud.acme].",
            )

    # -------------------------------------------------------------- an order

    async def order(self, id: str) -> None:
        """Get the certificate for a request that waits. A job; doing it again does no harm."""
        async with self._db.transaction() as tx:
            item = next((one for one in await store.requests(tx) if one.id == id), None)
            if item is None or item.certificate is not None or item.request is None:
                return
            account = await self._account(tx)
        try:
            chain = await self._issued(account, item)
            async with self._db.transaction() as tx:
                await certificates.import_certificate(
                    tx, self._box, chain, actor="site", now=self._now()
                )
                await store.set_problem(tx, id, "")
        except AppError as error:
            log.warning("certificate not issued", name=item.service_name, reason=error.message)
            async with self._db.transaction() as tx:
                await store.set_problem(tx, id, f"{error.message} {error.cure}".strip())

    async def _account(self, tx: Tx) -> bytes:
        """The key by which the authority knows this site, in PEM: made once for each authority."""
        sealed = await store.acme_account(tx, self.settings.directory)
        if sealed is not None:
            return self._box.unseal(sealed, _CONTEXT)
        made = pki.key_pem(pki.generate_key("p256"))
        await store.save_acme_account(
            tx, self.settings.directory, self._box.seal(made, _CONTEXT), self._now()
        )
        return made

    async def _issued(self, account: bytes, item: CertificateRequest) -> bytes:
        """The certificate and its path, in PEM. Raises AcmeFault."""
        assert item.request is not None
        authority = _Authority(self.settings, account)
        order = await asyncio.to_thread(authority.begin, item.request)
        records: list[tuple[str, str, str]] = []
        try:
            for name, value in authority.proofs(order):
                where = await self._place(name)
                zone = self._zone(item.service_name, name, where)
                records.append((zone, where, value))
                await self._update(zone, where, add=value)
            for _, where, value in records:
                await self._await_record(where, value)
            return await asyncio.to_thread(authority.finish, order)
        finally:
            for zone, where, _ in records:
                # A record that stays proves nothing to anybody: its value was for this order.
                with contextlib.suppress(AcmeFault):
                    await self._update(zone, where)

    async def _place(self, name: str) -> str:
        """Where the record belongs: an alias leads to a zone that is open to updates (8.4 follows
        it), so that the organisation's own need not be."""
        return await self._resolver.cname(name) or name

    def _zone(self, service_name: str, name: str, where: str) -> str:
        """The zone of the settings, or the one that names below a domain mostly are in."""
        if self.settings.zone:
            return self.settings.zone
        return (service_name if where == name else where).partition(".")[2]

    async def _update(self, zone: str, name: str, add: str | None = None) -> None:
        """Set, or without `add` remove, the TXT record. Raises AcmeFault."""
        here = self.settings
        key = None
        if here.tsig_key_file is not None:
            key = dns.tsig.Key(here.tsig_name, _secret(here.tsig_key_file), _algorithm(here))
        update = dns.update.UpdateMessage(zone, keyring=key)
        record = dns.name.from_text(f"{name}.")
        if add is None:
            update.delete(record, "TXT")
        else:
            update.add(record, here.ttl, "TXT", f'"{add}"')
        host, _, port = here.dns_server.rpartition(":")
        try:
            answer = await dns.asyncquery.tcp(update, host, timeout=10, port=int(port))
        except (dns.exception.DNSException, OSError) as error:
            raise AcmeFault(
                f"The DNS server {here.dns_server} took no update of {zone}: {_said(error)}",
                cure="Look whether it runs, and whether it knows the TSIG key of the settings.",
            ) from None
        if answer.rcode() != dns.rcode.NOERROR:
            raise AcmeFault(
                f"The DNS server {here.dns_server} refused to set {name} in {zone}:"
                f" {dns.rcode.to_text(answer.rcode())}.",
                cure="Allow this TSIG key updates of TXT records there, or name the right zone.",
            )

    async def _await_record(self, name: str, value: str) -> None:
        """The authority asks once: it is told when the world can see the record."""
        deadline = asyncio.get_running_loop().time() + self.settings.wait_seconds
        while value not in await self._resolver.texts(name):
            if asyncio.get_running_loop().time() > deadline:
                raise AcmeFault(
                    f"The record {name} was set, but is not seen in public DNS after"
                    f" {self.settings.wait_seconds:.0f} seconds.",
                    cure="Look whether dns_server is the one that the public zone comes from, and"
                    " how long its secondaries take (wait_seconds).",
                )
            await asyncio.sleep(_LOOK_SECONDS)

    # -------------------------------------------------------------- renewal

    async def tend(self) -> None:
        """Order anew what ends soon, and give a gateway what was issued for it."""
        async with self._db.transaction() as tx:
            due = [item for item in await store.gateways(tx) if item.acme and self._due(item)]
        for gateway in due:
            await self._renew(gateway)

    def _due(self, gateway: Gateway) -> bool:
        here, now = self.settings, self._now()
        tried = gateway.renewal_tried_at
        if gateway.state is GatewayState.DELETING or not here.directory:
            return False
        if gateway.expires_at - now > timedelta(days=here.renew_days):
            return False
        return tried is None or now - tried >= timedelta(seconds=here.retry_seconds)

    async def _renew(self, gateway: Gateway) -> None:
        """With a key of its own: a key that leaked is of no use after the next renewal."""
        name = gateway.service_name
        async with self._db.transaction() as tx:
            await store.set_renewal(tx, name, gateway.renewal_reason, self._now())
            kept = await self._gateways.certificate(tx, name)
            wanted = next(
                iter(
                    {name, wildcard_of(name)}
                    & set(certificates.certificate_names(kept.certificate))
                ),
                name,
            )
            made = await certificates.request(
                tx, self._box, wanted, {}, actor="site", now=self._now()
            )
            await store.set_acme(tx, made.id)
        await self.order(made.id)
        async with self._db.transaction() as tx:
            item = await certificates.certificate(tx, made.id)
            reason = item.problem
            if item.certificate is not None:
                try:
                    await self._give(tx, gateway, item)
                except AppError as error:
                    reason = f"{error.message} {error.cure}".strip()
            if reason:
                await store.delete_request(tx, made.id)
            await store.set_renewal(tx, name, reason, self._now())
        self._changed()

    async def _give(self, tx: Tx, gateway: Gateway, item: CertificateRequest) -> None:
        _, pfx = await certificates.pfx_of(tx, self._box, item.id, _ONCE)
        await self._gateways.change(tx, gateway.service_name, pfx=pfx, password=_ONCE, actor="site")
        # The working copies of before are of no use to anybody.
        for other in await store.requests(tx):
            if other.acme and other.service_name == item.service_name and other.id != item.id:
                await store.delete_request(tx, other.id)


# Inside the site a PFX is sealed as a whole: what it is called open with protects nothing more.
_ONCE = "renewed"


class _Authority:
    """The conversation with the authority: it blocks, so it is held in a thread."""

    def __init__(self, settings: AcmeSettings, account: bytes) -> None:
        self._settings = settings
        self._key = jwk.JWK.load(account)
        verify: Any = str(settings.ca_file) if settings.ca_file else True
        self._net = client.ClientNetwork(
            self._key, alg=jwa.ES256, verify_ssl=verify, user_agent="tandem", timeout=20
        )
        # Proxies and credentials of the environment are not used.
        self._net.session.trust_env = False

    def begin(self, csr: bytes) -> messages.OrderResource:
        with _understood(self._settings):
            directory = client.ClientV2.get_directory(self._settings.directory, self._net)
            self._client = client.ClientV2(directory, self._net)
            self._sign_in()
            return self._client.new_order(csr)

    def _sign_in(self) -> None:
        """The same key is the same account: an authority that forgot it makes it anew."""
        here = self._settings
        bound = None
        if here.external_account_id and here.external_account_key_file is not None:
            bound = messages.ExternalAccountBinding.from_data(
                account_public_key=self._key.public_key(),
                kid=here.external_account_id,
                hmac_key=here.external_account_key_file.read_text("ascii").strip(),
                directory=self._client.directory,
            )
        wanted = messages.NewRegistration.from_data(
            email=here.contact or None,
            terms_of_service_agreed=True,
            external_account_binding=bound,
        )
        try:
            self._client.new_account(wanted)
        except errors.ConflictError as known:
            self._net.account = messages.RegistrationResource(
                uri=known.location, body=messages.Registration()
            )

    def proofs(self, order: messages.OrderResource) -> list[tuple[str, str]]:
        """Names and values of the TXT records that the authority wants to see. Raises AcmeFault."""
        found = []
        self._answers = []
        for authorization in order.authorizations:
            if authorization.body.status == messages.STATUS_VALID:
                continue
            offered = [
                one
                for one in authorization.body.challenges
                if isinstance(one.chall, challenges.DNS01)
            ]
            if not offered:
                raise AcmeFault(
                    f"The authority takes no proof in DNS for {authorization.body.identifier.value}.",
                    cure="Take an authority that offers dns-01.",
                )
            response, value = offered[0].response_and_validation(self._key)
            self._answers.append((offered[0], response))
            name = offered[0].chall.validation_domain_name(authorization.body.identifier.value)
            found.append((name, value))
        return found

    def finish(self, order: messages.OrderResource) -> bytes:
        with _understood(self._settings):
            for challenge, response in self._answers:
                self._client.answer_challenge(challenge, response)
            # The library compares with a clock without a zone.
            until = datetime.now() + timedelta(seconds=self._settings.wait_seconds)  # noqa: DTZ005
            done = self._client.poll_and_finalize(order, until)
        whole: str = done.fullchain_pem
        return whole.encode()


@contextlib.contextmanager
def _understood(settings: AcmeSettings) -> Any:
    """What the library raises, as AcmeFault in words that say who refused what."""
    host = settings.directory
    try:
        yield
    except errors.ValidationError as error:
        said = "; ".join(
            f"{one.body.identifier.value}: {challenge.error.detail}"
            for one in error.failed_authzrs
            for challenge in one.body.challenges
            if challenge.error is not None
        )
        raise AcmeFault(
            f"The authority did not find the proof: {said[:400]}",
            cure="Look whether dns_server is the one that the public zone comes from.",
        ) from None
    except messages.Error as error:
        raise AcmeFault(
            f"The authority refused the order ({error.code or 'error'}): {str(error.detail)[:400]}",
            cure="Do what it says; it is tried again.",
        ) from None
    except errors.TimeoutError:
        raise AcmeFault(
            f"The authority did not decide in {settings.wait_seconds:.0f} seconds.",
            cure="It is tried again; give it more time (wait_seconds) when that lasts.",
        ) from None
    except (
        requests.RequestException,
        errors.Error,
        OSError,
        ValueError,
        jose_errors.Error,
    ) as error:
        raise AcmeFault(
            f"The authority at {host} cannot be spoken with: {_said(error)}",
            cure="Look at directory and ca_file under [cloud.acme], and at the way out to it.",
        ) from None


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _algorithm(settings: AcmeSettings) -> dns.name.Name:
    try:
        return _ALGORITHMS[settings.tsig_algorithm]
    except KeyError:
        raise AcmeFault(
            f"There is no TSIG algorithm {settings.tsig_algorithm!r} here.",
            cure=f"Take one of: {', '.join(_ALGORITHMS)}.",
        ) from None


def _secret(path: Path) -> bytes:
    """A TSIG key: base64, in a file that only its owner reads. Raises AcmeFault."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise AcmeFault(
                f"Others can read the TSIG key {path}: it is not used.", cure=f"chmod 600 {path}"
            )
        return b64decode(path.read_bytes(), validate=False)
    except (OSError, binascii.Error) as error:
        raise AcmeFault(
            f"The TSIG key {path} cannot be read: {_said(error)}",
            cure="Check tsig_key_file under [cloud.acme]: base64, as tsig-keygen writes it.",
        ) from None
