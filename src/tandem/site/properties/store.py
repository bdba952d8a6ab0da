from datetime import datetime

from tandem.infra.database import Tx
from tandem.site.properties.model import Site


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
