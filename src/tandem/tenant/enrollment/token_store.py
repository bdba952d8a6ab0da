"""The SQL of enrolment tokens and of the tenant's choices."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.infra.listing import Row, Source
from tandem.tenant.enrollment.ways import Options, Token, Way

# Those that an administrator issued, and what an API may list and filter by.
TOKENS = Source(
    "(SELECT * FROM enrollment_token WHERE way = 'programmatic') t",
    {
        "id": "t.id",
        "user_id": "t.user_id",
        "user_principal_name": "t.upn",
        "device_name": "t.device_name",
        "issued_by": "t.issued_by",
        "created_date_time": "t.issued_at",
        "expiration_date_time": "t.expires_at",
        "used_date_time": "t.used_at",
        "managed_device_id": "nullif(t.device_id, '')",
    },
)
_COLUMNS = (
    "id::text AS id, way, user_id, upn, device_name, issued_by, issued_at, expires_at,"
    " terms_sha256, used_at, windows_id, device_id"
)


async def options(tx: Tx) -> Options:
    found = await tx.execute(
        "SELECT password_enrollment, terms_en, terms_fr, maintenance, refusal_text"
        " FROM enrollment_options"
    )
    row = await found.fetchone()
    return Options(**row) if row else Options()


async def save_options(tx: Tx, chosen: Options) -> None:
    await tx.execute(
        "INSERT INTO enrollment_options"
        " (password_enrollment, terms_en, terms_fr, maintenance, refusal_text)"
        " VALUES (%(password_enrollment)s, %(terms_en)s, %(terms_fr)s, %(maintenance)s,"
        " %(refusal_text)s) ON CONFLICT (single) DO UPDATE SET"
        " password_enrollment = excluded.password_enrollment, terms_en = excluded.terms_en,"
        " terms_fr = excluded.terms_fr, maintenance = excluded.maintenance,"
        " refusal_text = excluded.refusal_text",
        asdict(chosen),
    )


async def insert(tx: Tx, token: Token, sha256: bytes) -> bool:
    """False when there is one with this hash already."""
    values: dict[str, Any] = asdict(token)
    columns = ", ".join(values)
    places = ", ".join(f"%({name})s" for name in values)
    done = await tx.execute(
        f"INSERT INTO enrollment_token ({columns}, token_sha256)"  # noqa: S608
        f" VALUES ({places}, %(sha256)s) ON CONFLICT DO NOTHING",
        {**values, "sha256": sha256},
    )
    return done.rowcount == 1


async def token(tx: Tx, sha256: bytes, *, lock: bool = False) -> Token | None:
    """`lock`: until the transaction ends nobody else spends it."""
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM enrollment_token WHERE token_sha256 = %s"  # noqa: S608
        + (" FOR UPDATE" if lock else ""),
        (sha256,),
    )
    row = await found.fetchone()
    return _token(row) if row else None


def _token(row: Row) -> Token:
    return Token(**{**row, "way": Way(row["way"])})


async def use(tx: Tx, id: str, now: datetime, windows_id: str, device_id: str) -> None:
    await tx.execute(
        "UPDATE enrollment_token SET used_at = %s, windows_id = %s, device_id = %s WHERE id = %s",
        (now, windows_id, device_id, id),
    )


async def issued(tx: Tx, id: str) -> Token | None:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM enrollment_token WHERE id = %s AND way = 'programmatic'",  # noqa: S608
        (id,),
    )
    row = await found.fetchone()
    return _token(row) if row else None


async def delete(tx: Tx, id: str) -> None:
    await tx.execute("DELETE FROM enrollment_token WHERE id = %s", (id,))


async def delete_expired(tx: Tx, before: datetime) -> None:
    await tx.execute("DELETE FROM enrollment_token WHERE expires_at < %s", (before,))
