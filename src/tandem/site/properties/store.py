from datetime import datetime

from tandem.infra.database import Tx
from tandem.site.properties.model import Answering, Communication, Site


async def site(tx: Tx) -> Site | None:
    found = await (
        await tx.execute(
            "SELECT code, name, management_point_id, established_at FROM properties_site"
        )
    ).fetchone()
    return Site(**found) if found else None


async def insert_site(tx: Tx, site: Site) -> None:
    await tx.execute(
        "INSERT INTO properties_site (code, name, management_point_id, established_at)"
        " VALUES (%s, %s, %s, %s)",
        (site.code, site.name, site.management_point_id, site.established_at),
    )


async def credential(tx: Tx, role: str) -> tuple[bytes, bytes] | None:
    """The sealed key and the certificate (DER) of a role."""
    found = await (
        await tx.execute(
            "SELECT sealed_key, certificate FROM properties_credential WHERE role = %s", (role,)
        )
    ).fetchone()
    return (found["sealed_key"], found["certificate"]) if found else None


async def save_credential(
    tx: Tx, role: str, sealed_key: bytes, certificate: bytes, expires_at: datetime
) -> None:
    await tx.execute(
        "INSERT INTO properties_credential (role, sealed_key, certificate, expires_at)"
        " VALUES (%s, %s, %s, %s) ON CONFLICT (role) DO UPDATE SET"
        " sealed_key = EXCLUDED.sealed_key, certificate = EXCLUDED.certificate,"
        " expires_at = EXCLUDED.expires_at",
        (role, sealed_key, certificate, expires_at),
    )


async def credentials(tx: Tx) -> list[tuple[str, datetime]]:
    """Every role that has a certificate, with its end."""
    found = await tx.execute("SELECT role, expires_at FROM properties_credential ORDER BY role")
    return [(row["role"], row["expires_at"]) async for row in found]


async def delete_credential(tx: Tx, role: str) -> None:
    await tx.execute("DELETE FROM properties_credential WHERE role = %s", (role,))


async def communication(tx: Tx) -> Communication:
    found = await tx.execute(
        "SELECT enhanced_http, pki_client_certificate, check_crl, changed_at, changed_by"
        " FROM properties_communication"
    )
    row = await found.fetchone()
    return Communication(**row) if row else Communication()


async def save_communication(tx: Tx, made: Communication) -> None:
    await tx.execute(
        "INSERT INTO properties_communication"
        " (enhanced_http, pki_client_certificate, check_crl, changed_at, changed_by)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (singleton) DO UPDATE SET"
        " enhanced_http = EXCLUDED.enhanced_http,"
        " pki_client_certificate = EXCLUDED.pki_client_certificate,"
        " check_crl = EXCLUDED.check_crl, changed_at = EXCLUDED.changed_at,"
        " changed_by = EXCLUDED.changed_by",
        (
            made.enhanced_http,
            made.pki_client_certificate,
            made.check_crl,
            made.changed_at,
            made.changed_by,
        ),
    )


async def answering(tx: Tx, role: str) -> Answering | None:
    found = await tx.execute(
        "SELECT fingerprint, since FROM properties_answering WHERE role = %s", (role,)
    )
    row = await found.fetchone()
    return Answering(**row) if row else None


async def save_answering(tx: Tx, role: str, fingerprint: str, now: datetime) -> None:
    await tx.execute(
        "INSERT INTO properties_answering (role, fingerprint, since) VALUES (%s, %s, %s)"
        " ON CONFLICT (role) DO UPDATE SET fingerprint = EXCLUDED.fingerprint,"
        " since = EXCLUDED.since WHERE properties_answering.fingerprint <> EXCLUDED.fingerprint",
        (role, fingerprint, now),
    )


async def delete_answering(tx: Tx, role: str) -> None:
    await tx.execute("DELETE FROM properties_answering WHERE role = %s", (role,))
