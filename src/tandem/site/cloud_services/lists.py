"""Revocation lists, fetched from where a certificate or an administrator says that they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tandem import pki
from tandem.infra import net
from tandem.infra.clock import Clock
from tandem.infra.database import Database
from tandem.infra.errors import AppError, Kind
from tandem.infra.logs import get_logger
from tandem.site.cloud_services import store, trust
from tandem.site.cloud_services.model import CloudSettings

log = get_logger("cloud")

# Whom the audit log names for a list that was fetched.
FETCHED_BY = "revocation lists"

# An authority of a million revoked certificates has a list of 40 MB.
_MOST_BYTES = 48 * 1024 * 1024


class ListUnavailable(AppError):
    """Nothing, or something else, lies where the list should be."""

    kind, code = Kind.UNAVAILABLE, "trust.list-unavailable"


async def fetch(url: str, *, seconds: float = 5.0) -> x509.CertificateRevocationList:
    """The list at this address, whoever signed it. Raises ListUnavailable, BadCertificate."""
    data = bytearray()
    try:
        async with net.plain_client(timeout=seconds) as web, web.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise _unavailable(url, f"the answer is {answer.status_code}")
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) > _MOST_BYTES:
                    raise _unavailable(url, "what lies there is too large")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unavailable(url, str(error) or type(error).__name__) from None
    return pki.read_crl(bytes(data))


def _unavailable(url: str, why: str) -> ListUnavailable:
    return ListUnavailable(
        f"{url} gives no revocation list: {why[:200]}.",
        cure="Look whether the authority publishes it there, and whether a firewall is between.",
    )


@dataclass(frozen=True, slots=True)
class Source:
    """An address of a list, and how the last look there went."""

    url: str
    fetched_at: datetime | None = None
    reason: str = ""
    # Of the list that lay there.
    begins: datetime | None = None
    ends: datetime | None = None
    looked_at: datetime | None = None


class Lists:
    """Fetches the lists of clients' authorities from where they are published, before they end.

    What it finds goes the way of an uploaded one: gateways have it within seconds. A source that is away
    changes nothing; that the list in hand ends is told by its alarm.
    """

    def __init__(
        self,
        db: Database,
        settings: CloudSettings,
        *,
        now: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._db = db
        self._settings = settings
        self._now = now
        self._changed = changed
        self._sources: dict[str, Source] = {}

    @property
    def sources(self) -> list[Source]:
        return list(self._sources.values())

    async def tend(self) -> None:
        """One look: at every source whose time has come."""
        async with self._db.transaction() as tx:
            roots = [x509.load_der_x509_certificate(der) for der in await store.trust(tx, "root")]
        named = [url for root in roots for url in pki.crl_urls(root)]
        wanted = dict.fromkeys([*self._settings.crl_urls, *named]) if roots else {}
        self._sources = {url: self._sources.get(url, Source(url)) for url in wanted}
        for source in self.sources:
            if self._due(source):
                self._sources[source.url] = await self._look(source, roots)

    def _due(self, source: Source) -> bool:
        if source.looked_at is None:
            return True
        waited = (self._now() - source.looked_at).total_seconds()
        # One that is away, or whose list ends soon, is looked at oftener.
        hurry = bool(source.reason) or (
            source.begins is not None
            and source.ends is not None
            and source.ends - self._now() < (source.ends - source.begins) / 4
        )
        return waited >= self._settings.crl_seconds / (10 if hurry else 1)

    async def _look(self, source: Source, roots: Sequence[x509.Certificate]) -> Source:
        now = self._now()
        try:
            crl = await fetch(source.url)
            if not any(pki.signed_by(crl, root) for root in roots):
                raise _unavailable(source.url, "the list there is of no uploaded authority")
            await self._take(crl)
        except AppError as error:
            if error.message != source.reason:
                log.warning("list not fetched", url=source.url, reason=error.message)
            return replace(source, reason=error.message, looked_at=now)
        return Source(source.url, now, "", crl.last_update_utc, crl.next_update_utc, now)

    async def _take(self, crl: x509.CertificateRevocationList) -> None:
        der = crl.public_bytes(Encoding.DER)
        async with self._db.transaction() as tx:
            if der in await store.trust(tx, "crl"):
                return
            try:
                issuer = await trust.add_crl(tx, der, actor=FETCHED_BY, now=self._now())
            except trust.OlderList:
                return  # Somebody uploaded a newer one.
        log.info("list fetched", issuer=issuer, until=crl.next_update_utc)
        self._changed()
