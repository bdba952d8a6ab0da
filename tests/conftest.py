"""Real PostgreSQL for every test that wants one: the embedded server, once a run."""

import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, settings
from psycopg import sql

from tandem.infra.database import Database, Embedded, Lineage, Tx, migrate

# How fast examples come says how busy the machine is, and nothing of the code.
settings.register_profile("tests", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
# `make fuzz` runs what `make test` runs, for long.
settings.register_profile("fuzz", max_examples=50_000, deadline=None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a worker that ends with one of them lets the others wait."""
    items.sort(
        key=lambda item: (
            item.get_closest_marker("walk") is None,
            item.get_closest_marker("e2e") is None,
        )
    )


class _Named(Embedded):
    """A server that somebody else runs, named by TANDEM_TEST_POSTGRES (a DSN without database)."""

    def __init__(self, address: str) -> None:
        self._address = address

    def _uri(self, database: str) -> str:
        return f"{self._address} dbname={database}"


@pytest.fixture(scope="session", autouse=True)
def rsa_keys() -> Iterator[None]:
    """Real RSA keys, but not one made for each test: they are used again after so many others that
    none meets itself within a test."""
    made, kept, turns = rsa.generate_private_key, [], itertools.cycle(range(64))

    def generate(public_exponent: int, key_size: int, backend: Any = None) -> rsa.RSAPrivateKey:
        if (public_exponent, key_size) != (65537, 2048):
            return made(public_exponent, key_size, backend)
        place = next(turns)
        if place == len(kept):
            kept.append(made(public_exponent, key_size, backend))
        return kept[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rsa, "generate_private_key", generate)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Embedded]:
    """One server for this test process, in a short path (its socket lies beside its data)."""
    if named := os.environ.get("TANDEM_TEST_POSTGRES"):
        yield _Named(named)
        return
    folder = _memory() or "/tmp"
    with tempfile.TemporaryDirectory(prefix="tdm", dir=folder, ignore_cleanup_errors=True) as top:
        os.chmod(top, 0o755)
        server = Embedded.start(Path(top) / "pg")
        _forget_the_disk(server)
        yield server
        server.stop()


def _memory() -> str | None:
    """A folder in memory with room, where there is one: each test makes and drops a database of
    hundreds of files."""
    folder = "/dev/shm"
    if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < 2 << 30:
        return None
    return folder


def _forget_the_disk(server: Embedded) -> None:
    """Each test makes and drops a database, which waits for the disk. Nobody needs these after
    a crash, so it need not."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            admin.execute(f"ALTER SYSTEM SET {name} = off")
        admin.execute("SELECT pg_reload_conf()")


def _template(postgres: Embedded, lineage: Lineage) -> str:
    name = f"template_{lineage}_{uuid.uuid4().hex[:8]}"
    migrate(postgres.dsn(name), lineage)
    return name


@pytest.fixture(scope="session")
def tenant_template(postgres: Embedded) -> str:
    return _template(postgres, "tenant")


@pytest.fixture(scope="session")
def site_template(postgres: Embedded) -> str:
    return _template(postgres, "site")


@asynccontextmanager
async def _copy(postgres: Embedded, template: str) -> AsyncIterator[Database]:
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    database = await Database.open(postgres.dsn(name))
    try:
        yield database
    finally:
        await database.close()
        with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@asynccontextmanager
async def _rolled_back(dsn: str) -> AsyncIterator[Tx]:
    from psycopg.rows import dict_row

    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
        yield connection
        await connection.rollback()


@pytest.fixture
async def tenant_db(postgres: Embedded, tenant_template: str) -> AsyncIterator[Database]:
    """A tenant database of this test's own."""
    async with _copy(postgres, tenant_template) as database:
        yield database


@pytest.fixture
def site_copies(
    postgres: Embedded, site_template: str
) -> Callable[[], AbstractAsyncContextManager[Database]]:
    """Site databases, for a test that makes one for each of its examples."""
    return lambda: _copy(postgres, site_template)


@pytest.fixture
async def site_db(postgres: Embedded, site_template: str) -> AsyncIterator[Database]:
    """A site database of this test's own."""
    async with _copy(postgres, site_template) as database:
        yield database


@pytest.fixture
async def tenant_tx(postgres: Embedded, tenant_template: str) -> AsyncIterator[Tx]:
    """A transaction in the tenant's schema that is rolled back."""
    async with _rolled_back(postgres.dsn(tenant_template)) as tx:
        yield tx


@pytest.fixture
async def site_tx(postgres: Embedded, site_template: str) -> AsyncIterator[Tx]:
    """A transaction in the site's schema that is rolled back."""
    async with _rolled_back(postgres.dsn(site_template)) as tx:
        yield tx


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of wire samples; tests that read it are skipped where it is not present."""
    named = os.environ.get("TANDEM_SAMPLES")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "samples"
    if not folder.is_dir():
        pytest.skip("no wire samples beside this checkout (TANDEM_SAMPLES names the folder)")
    return folder
