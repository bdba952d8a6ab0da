"""The sign-in log: who got, or was refused, a token for what, from where, and why."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.logs import get_logger
from tandem.tenant.oidc import session_store as store
from tandem.tenant.oidc.model import Peer
from tandem.tenant.oidc.session_store import SignIn

log = get_logger("oidc")

# Refused sign-ins from one address in a minute; those beyond are not logged.
_MOST_FAILURES = 60
_MOST_WAITING = 10_000


def entry(sort: str, app_id: str, peer: Peer, now: datetime, **values: Any) -> SignIn:
    """A line of the log; successful unless `values` say otherwise."""
    return SignIn(
        id=str(uuid.uuid4()),
        at=now,
        sort=sort,
        app_id=app_id,
        address=peer.address,
        client=peer.client,
        correlation_id=peer.correlation_id,
        **values,
    )


def changed(item: SignIn, values: dict[str, Any]) -> SignIn:
    return replace(item, **values)


async def record(tx: Tx, item: SignIn) -> None:
    if item.number == 0:
        await store.insert_sign_ins(tx, [item])
        return
    await store.insert_failure(tx, item, item.at - timedelta(minutes=1), _MOST_FAILURES)


async def sign_ins(
    tx: Tx,
    *,
    user_id: str | None = None,
    app_id: str | None = None,
    sign_in_id: str | None = None,
    failed: bool | None = None,
    since: datetime | None = None,
    limit: int = 1000,
) -> Sequence[SignIn]:
    """The newest first."""
    where = ["true"]
    if user_id is not None:
        where.append("user_id::text = %(user_id)s")
    if app_id is not None:
        where.append("app_id = %(app_id)s")
    if sign_in_id is not None:
        where.append("id::text = %(sign_in_id)s")
    if failed is not None:
        where.append("number <> 0" if failed else "number = 0")
    if since is not None:
        where.append("at >= %(since)s")
    values = {"user_id": user_id, "app_id": app_id, "sign_in_id": sign_in_id, "since": since}
    return await store.sign_ins(tx, " AND ".join(where), values, limit)


class Waiting:
    """Successful sign-ins of applications, written together a moment later: a script that asks
    a thousand times costs a few statements. What waits is lost when the process is killed."""

    def __init__(self) -> None:
        self._items: list[SignIn] = []

    def add(self, item: SignIn) -> bool:
        """Whether it is the first, so that somebody has to see to the writing."""
        if len(self._items) < _MOST_WAITING:
            self._items.append(item)
        return len(self._items) == 1

    async def write(self, database: Database) -> None:
        items, self._items = self._items, []
        if not items:
            return
        try:
            async with database.transaction() as tx:
                await store.insert_sign_ins(tx, items)
        except AppError as error:
            log.warning("sign-ins not logged", reason=error.message, count=len(items))
