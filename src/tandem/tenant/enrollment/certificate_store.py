from collections.abc import Sequence
from datetime import datetime

from tandem.infra.database import Tx
from tandem.tenant.enrollment.certificate_model import (
    Certificate,
    CertificateProfile,
    CertificateState,
)
from tandem.tenant.enrollment.model import Device
from tandem.tenant.enrollment.store import DEVICE_COLUMNS

_COLUMNS = (
    "fingerprint, serial, device_id, key_sha256, not_before, not_after, renewal_days, state,"
    " reason, changed_at"
)
_ENDED = "state IN ('superseded', 'revoked')"


async def insert(tx: Tx, made: Certificate) -> None:
    await tx.execute(
        f"INSERT INTO enrollment_certificate ({_COLUMNS})"  # noqa: S608
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            made.fingerprint,
            made.serial,
            made.device_id,
            made.key_sha256,
            made.not_before,
            made.not_after,
            made.renewal_days,
            made.state,
            made.reason,
            made.changed_at,
        ),
    )


async def holder(tx: Tx, fingerprint: str) -> tuple[Device, Certificate] | None:
    """A certificate, whatever its state, and the enrollment that it was issued for."""
    device = ", ".join(f"d.{name}" for name in DEVICE_COLUMNS)
    certificate = ", ".join(f"c.{name} AS c_{name}" for name in _COLUMNS.split(", "))
    row = await (
        await tx.execute(
            f"SELECT {device}, {certificate} FROM enrollment_certificate c"  # noqa: S608
            " JOIN enrollment_device d ON d.id = c.device_id WHERE c.fingerprint = %s",
            (fingerprint,),
        )
    ).fetchone()
    if row is None:
        return None
    return (
        Device(**{name: row[name] for name in DEVICE_COLUMNS}),
        Certificate(**{name: row[f"c_{name}"] for name in _COLUMNS.split(", ")}),
    )


async def of(tx: Tx, device_ids: Sequence[str]) -> list[Certificate]:
    """The newest first."""
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM enrollment_certificate WHERE device_id = ANY(%s)"  # noqa: S608
        " ORDER BY not_before DESC, changed_at DESC, fingerprint",
        (list(device_ids),),
    )
    return [Certificate(**row) async for row in found]


async def key_is_known(tx: Tx, key_sha256: str) -> list[Certificate]:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM enrollment_certificate WHERE key_sha256 = %s",  # noqa: S608
        (key_sha256,),
    )
    return [Certificate(**row) async for row in found]


async def end(
    tx: Tx,
    device_id: str,
    state: CertificateState,
    reason: str,
    now: datetime,
    *,
    only: Sequence[str] = (),
    but: str = "",
    among: Sequence[str] = ("issued", "active"),
) -> int:
    """Certificates of a device come to their end: all, `only` these, or all `but` one."""
    done = await tx.execute(
        "UPDATE enrollment_certificate SET state = %(state)s, reason = %(reason)s,"
        " changed_at = %(now)s WHERE device_id = %(device)s AND state = ANY(%(among)s)"
        " AND fingerprint <> %(but)s"
        " AND (cardinality(%(only)s::text[]) = 0 OR fingerprint = ANY(%(only)s))",
        {
            "state": state,
            "reason": reason,
            "now": now,
            "device": device_id,
            "among": list(among),
            "but": but,
            "only": list(only),
        },
    )
    return done.rowcount


async def use(tx: Tx, device_id: str, fingerprint: str, not_after: datetime, now: datetime) -> None:
    """The certificate of the device's sessions from now on."""
    await tx.execute(
        "WITH used AS (UPDATE enrollment_certificate SET state = 'active', changed_at = %(now)s"
        " WHERE fingerprint = %(fingerprint)s AND state = 'issued')"
        " UPDATE enrollment_device SET fingerprint = %(fingerprint)s,"
        " certificate_ends_at = %(ends)s WHERE id = %(device)s",
        {"fingerprint": fingerprint, "ends": not_after, "device": device_id, "now": now},
    )


async def disuse(tx: Tx, device_id: str, fingerprint: str) -> None:
    """No session finds the device by this certificate any more."""
    await tx.execute(
        "UPDATE enrollment_device SET fingerprint = 'revoked:' || fingerprint"
        " WHERE id = %s AND fingerprint = %s",
        (device_id, fingerprint),
    )


async def lock_device(tx: Tx, device_id: str) -> None:
    """One renewal or revocation of a device at a time, until the transaction ends."""
    await tx.execute("SELECT FROM enrollment_device WHERE id = %s FOR UPDATE", (device_id,))


# ---------------------------------------------------------------------------------- profile


async def profile(tx: Tx) -> CertificateProfile | None:
    row = await (
        await tx.execute(
            "SELECT validity_days, renewal_days, retry_days, key_bits, providers"
            " FROM enrollment_profile"
        )
    ).fetchone()
    return CertificateProfile(**{**row, "providers": tuple(row["providers"])}) if row else None


async def set_profile(tx: Tx, wanted: CertificateProfile) -> None:
    await tx.execute(
        "INSERT INTO enrollment_profile"
        " (validity_days, renewal_days, retry_days, key_bits, providers)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (singleton) DO UPDATE SET"
        " validity_days = excluded.validity_days, renewal_days = excluded.renewal_days,"
        " retry_days = excluded.retry_days, key_bits = excluded.key_bits,"
        " providers = excluded.providers",
        (
            wanted.validity_days,
            wanted.renewal_days,
            wanted.retry_days,
            wanted.key_bits,
            list(wanted.providers),
        ),
    )


# ---------------------------------------------------------------------------------- revocation list


async def revocation_list(tx: Tx) -> tuple[bytes, int, datetime] | None:
    row = await (
        await tx.execute("SELECT content, number, made_at FROM enrollment_revocation_list")
    ).fetchone()
    return (bytes(row["content"]), row["number"], row["made_at"]) if row else None


async def last_end(tx: Tx) -> datetime | None:
    row = await (
        await tx.execute(
            f"SELECT max(changed_at) AS at FROM enrollment_certificate WHERE {_ENDED}"  # noqa: S608
        )
    ).fetchone()
    return row["at"] if row else None


async def ended(tx: Tx, now: datetime) -> list[tuple[int, datetime, str]]:
    """(serial number, since when, why) of certificates that ended before their time."""
    found = await tx.execute(
        f"SELECT serial, changed_at, reason FROM enrollment_certificate WHERE {_ENDED}"  # noqa: S608
        " AND serial <> '' AND not_after > %s ORDER BY changed_at, serial",
        (now,),
    )
    return [(int(row["serial"], 16), row["changed_at"], row["reason"]) async for row in found]


async def save_revocation_list(tx: Tx, content: bytes, number: int, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO enrollment_revocation_list (number, content, made_at) VALUES (%s, %s, %s)"
        " ON CONFLICT (singleton) DO UPDATE SET number = excluded.number,"
        " content = excluded.content, made_at = excluded.made_at",
        (number, content, now),
    )


async def lock_revocation_list(tx: Tx) -> None:
    await tx.execute("SELECT pg_advisory_xact_lock(hashtext('mdm-revocation-list'))")
