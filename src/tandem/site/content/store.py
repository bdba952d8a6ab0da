from tandem.infra.database import Tx
from tandem.site.content.model import ClientPackage

_COLUMNS = (
    "version, site_code, root_sha256, runtime_sha256, product_code, msi_sha256, msi_size_bytes,"
    " file_name, sha256, size_bytes, built_at"
)


async def find(
    tx: Tx, version: str, site_code: str, root_sha256: str, runtime_sha256: str
) -> ClientPackage | None:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM content_client_package"  # noqa: S608 - a constant
        " WHERE version = %s AND site_code = %s AND root_sha256 = %s AND runtime_sha256 = %s",
        (version, site_code, root_sha256, runtime_sha256),
    )
    row = await found.fetchone()
    return ClientPackage(**row) if row else None


async def find_by_hash(tx: Tx, sha256: str) -> ClientPackage | None:
    found = await tx.execute(
        f"SELECT {_COLUMNS} FROM content_client_package"  # noqa: S608 - a constant
        " WHERE sha256 = %s ORDER BY built_at DESC LIMIT 1",
        (sha256,),
    )
    row = await found.fetchone()
    return ClientPackage(**row) if row else None


async def insert(tx: Tx, made: ClientPackage) -> bool:
    """False when another process was first."""
    found = await tx.execute(
        f"INSERT INTO content_client_package ({_COLUMNS})"  # noqa: S608 - a constant
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            made.version,
            made.site_code,
            made.root_sha256,
            made.runtime_sha256,
            made.product_code,
            made.msi_sha256,
            made.msi_size_bytes,
            made.file_name,
            made.sha256,
            made.size_bytes,
            made.built_at,
        ),
    )
    return found.rowcount == 1
