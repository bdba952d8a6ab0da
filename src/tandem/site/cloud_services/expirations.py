"""Everything of the site that ends on a day: certificates and secrets, the next one first."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from tandem import audit, pki
from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import SecretBox
from tandem.site import properties
from tandem.site.cloud_services import store

# Days before the end at which somebody is warned, louder each time.
LEVELS = (7, 30, 60)
_ROLE = "role:"
_POINT = "connection-point:"
_FIXED = {"issuing-root", "site-server-signing"}


class CannotRenew(AppError):
    kind, code = Kind.CONFLICT, "expiration.cannot-renew"


@dataclass(frozen=True, slots=True)
class Expiration:
    """`level` is expired, 7, 30, 60 or ok. `renewal` is here (the site does it at once), sign-in
    (by a tenant's administrator), request (a new one from the CA), or none; then `cure` says how."""

    id: str
    kind: str  # certificate or secret
    subject: str
    holder: str
    expires_at: datetime
    level: str
    days: int
    renewal: str
    cure: str = ""
    of: str = ""  # The thing it belongs to: a certificate's, a service's or a gateway's id.


def level_of(expires_at: datetime, now: datetime) -> str:
    if expires_at <= now:
        return "expired"
    left = expires_at - now
    return next((str(days) for days in LEVELS if left <= timedelta(days=days)), "ok")


async def expirations(tx: Tx, now: datetime) -> list[Expiration]:
    """The next end first."""
    found: list[Expiration] = []

    def add(
        id: str,
        kind: str,
        subject: str,
        holder: str,
        ends: datetime,
        renewal: str,
        *,
        cure: str = "",
        of: str = "",
    ) -> None:
        days = (ends - now).days
        level = level_of(ends, now)
        found.append(Expiration(id, kind, subject, holder, ends, level, days, renewal, cure, of))

    for role, ends in await properties.role_ends(tx):
        if role.startswith(_POINT):
            name = role.removeprefix(_POINT)
            add(
                f"{_ROLE}{role}",
                "certificate",
                name,
                "connection point",
                ends,
                "none",
                cure="Fetch its files again on its server: `tandem connection-point install`.",
            )
        elif role in _FIXED:
            add(
                f"{_ROLE}{role}",
                "certificate",
                role,
                "site",
                ends,
                "none",
                cure="It lasts for years; install clients anew before it ends.",
            )
        else:
            add(f"{_ROLE}{role}", "certificate", role, "site system", ends, "here")
    for gateway in await store.gateways(tx):
        add(
            f"gateway:{gateway.service_name}",
            "certificate",
            gateway.service_name,
            "gateway",
            gateway.expires_at,
            "request",
            of=gateway.service_name,
        )
    for item in await store.requests(tx):
        if item.certificate is not None:
            leaf = x509.load_der_x509_certificate(item.certificate)
            add(
                f"copy:{item.id}",
                "certificate",
                item.service_name,
                "working copy",
                leaf.not_valid_after_utc,
                "request",
                of=item.id,
            )
    services = {service.id: service for service in await store.services(tx)}
    for app in await store.apps(tx):
        if app.secret_expires_at is not None:
            add(
                f"secret:{app.service_id}",
                "secret",
                app.name or app.app_id,
                services[app.service_id].name,
                app.secret_expires_at,
                "sign-in",
                of=app.service_id,
            )
    for row in await store.trusted(tx, "root"):
        root = x509.load_der_x509_certificate(bytes(row["der"]))
        add(
            f"root:{row['id']}",
            "certificate",
            root.subject.rfc4514_string(),
            "trusted root",
            root.not_valid_after_utc,
            "none",
            cure="Add the CA's new root, and remove this one when no client needs it.",
        )
    return sorted(found, key=lambda item: (item.expires_at, item.id))


async def renew(tx: Tx, box: SecretBox, id: str, *, actor: str, now: datetime) -> Expiration:
    """What the site can renew by itself. Raises CannotRenew, NotRenewable."""
    item = next((one for one in await expirations(tx, now) if one.id == id), None)
    if item is None:
        raise CannotRenew("There is nothing of this name that ends.", cure="Read the list again.")
    if item.renewal != "here":
        cures = {
            "sign-in": "A global administrator renews it: `tandem azure-service renew-secret`.",
            "request": "Request a new one: `tandem certificate request`.",
        }
        raise CannotRenew(
            f"The site cannot renew {item.subject} by itself.",
            cure=item.cure or cures[item.renewal],
        )
    made = await properties.renew_role(tx, box, id.removeprefix(_ROLE), now)
    await audit.record(
        tx,
        actor=actor,
        action="certificate.renew",
        target=item.subject,
        now=now,
        details={"sha256": pki.sha256_fingerprint(made.certificate)},
    )
    return next(one for one in await expirations(tx, now) if one.id == id)
