"""What changed since last time: `/users/delta` and its kin (graph-compat.md 4.7).

    GET users/delta            every object, by pages; at last a deltaLink
    GET …?$deltatoken=latest   nothing, and a deltaLink from now on
    GET the deltaLink          what was changed since, as it is now; `@removed` for what is gone

Triggers write the log `graph_change`, so that no way to change an object is forgotten. A token is
sealed, and holds the question ($select, ids) and the place in the log. A link may tell the same
change again, and never leaves one out.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from tandem.infra.database import Tx
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import SecretBox, Unsealable
from tandem.protocols.odata import Compare, Expression, In, Literal, Or, Path, Query
from tandem.tenant.graph import rows, store
from tandem.tenant.graph.model import BadProperty, Call, Navigation, Resource

# Whose changes are logged, by resource type. The migration has the triggers.
LOGGED = frozenset({"user", "group", "device", "application", "servicePrincipal"})
# How long a deltaLink is good for; the log is kept a day longer.
LIFETIME = timedelta(days=30)
MOST_IDS = 50

_CONTEXT = "graph.delta"
_FIRST = "00000000-0000-0000-0000-000000000000"


class SyncStateNotFound(AppError):
    kind, code = Kind.GONE, "graph.sync-state-not-found"


class State(msgspec.Struct, frozen=True, array_like=True):
    """`since` and `until` are places in the log; `until` 0 while objects are told for the first
    time. `after` is where the next page begins."""

    type: str
    at: int
    since: int
    until: int = 0
    after: str = ""
    select: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    size: int = 0


async def answer(resource: Resource, call: Call, box: SecretBox) -> tuple[list[Any], str, bool]:
    """The objects, the token of the next link, and whether that is a deltaLink.

    Raises SyncStateNotFound, BadProperty.
    """
    state = await _state(resource, call, box)
    call.query = Query(select=state.select)
    if state.until:
        found, following = await _changes(resource, call, state)
    elif state.after == "-":
        found, following = [], None
    else:
        found, following = await _everything(resource, call, state)
    if following is not None:
        return found, _seal(box, following), False
    since = state.until or state.since
    last = replace_struct(state, since=since, until=0, after="", at=int(call.now.timestamp()))
    return found, _seal(box, last), True


def replace_struct(state: State, **changes: Any) -> State:
    return msgspec.structs.replace(state, **changes)


async def _state(resource: Resource, call: Call, box: SecretBox) -> State:
    query, now = call.query, int(call.now.timestamp())
    if query.skiptoken or query.deltatoken not in ("", "latest"):
        state = _unseal(box, query.skiptoken or query.deltatoken)
        current = await store.oldest_running(call.tx)
        lapsed = call.now - LIFETIME > datetime.fromtimestamp(state.at, call.now.tzinfo)
        # A place that is still to come: the database was restored from a backup.
        if state.type != resource.type or lapsed or state.since > current:
            raise SyncStateNotFound(
                "The deltaLink or nextLink has lapsed.",
                cure="Start anew at the address in the Location header.",
                location=f"{call.base}/{call.version}/{resource.path}/delta",
            )
        return state if query.skiptoken else replace_struct(state, until=max(current, 1))
    only = _ids(query.filter) if query.filter is not None else ()
    rows.plan(resource, call.beta, query.select)
    return State(
        resource.type,
        now,
        await store.oldest_running(call.tx),
        after="-" if query.deltatoken == "latest" else "",
        select=query.select,
        only=only,
        size=min(query.top or resource.default_page, resource.longest_page),
    )


def _ids(condition: Expression) -> tuple[str, ...]:
    """The ids of `id eq 'a' or id eq 'b'`. Raises BadProperty for any other condition."""
    match condition:
        case Compare("eq", Path((name,)), Literal(value)) if name.lower() == "id":
            found: tuple[str, ...] = (str(value),)
        case In(Path((name,)), values) if name.lower() == "id":
            found = tuple(str(item.value) for item in values)
        case Or(items):
            found = tuple(key for item in items for key in _ids(item))
        case _:
            found = ()
    if not 0 < len(found) <= MOST_IDS or not all(rows.is_guid(key) for key in found):
        raise BadProperty(
            f"A delta query takes no other $filter than on at most {MOST_IDS} ids.",
            cure="Write $filter=id eq '…' or id eq '…'.",
        )
    return found


async def _everything(
    resource: Resource, call: Call, state: State
) -> tuple[list[Any], State | None]:
    asked = rows.plan(resource, call.beta, state.select)
    if state.only:
        held, token = await rows.by_ids(call, resource, state.only, asked.columns), ""
    else:
        call.query = replace(call.query, top=state.size, skiptoken=state.after)
        page = await rows.page(resource, call, asked)
        held, token = page.rows, page.token
    found = await rows.items(resource, call, asked, held, typed=False)
    members = _members(resource, state)
    if members is not None:
        for row, item in zip(held, found, strict=True):
            refs = await members.refs(call, str(row[resource.key]))
            item["members@delta"] = [_member(ref.type, ref.id) for ref in refs]
    return found, replace_struct(state, after=token) if token else None


async def _changes(resource: Resource, call: Call, state: State) -> tuple[list[Any], State | None]:
    asked = rows.plan(resource, call.beta, state.select)
    size = state.size or resource.default_page
    after = state.after or _FIRST
    logged = await store.changed(
        call.tx, resource.type, state.since, state.until, after, size + 1, state.only
    )
    chosen = logged[:size]
    held = await rows.by_ids(call, resource, [item.id for item in chosen], asked.columns)
    shown = await rows.items(resource, call, asked, held, typed=False)
    known = {str(row[resource.key]): item for row, item in zip(held, shown, strict=True)}
    if _members(resource, state) is not None and known:
        for change in await store.member_changes(call.tx, list(known), state.since, state.until):
            entry = _member(change.member_sort or "directoryObject", change.member_id)
            if not change.joined:
                entry["@removed"] = {"reason": "deleted"}
            known[change.group_id].setdefault("members@delta", []).append(entry)
    found = [
        known.get(item.id) or {"id": item.id, "@removed": {"reason": item.gone}} for item in chosen
    ]
    more = len(logged) > size
    return found, replace_struct(state, after=chosen[-1].id) if more else None


def _members(resource: Resource, state: State) -> Navigation | None:
    asked = {name.lower() for name in state.select}
    if resource.type != "group" or (asked and "members" not in asked):
        return None
    return next((item for item in resource.navigations if item.name == "members"), None)


def _member(sort: str, key: str) -> dict[str, Any]:
    return {"@odata.type": f"#microsoft.graph.{sort}", "id": key}


def _seal(box: SecretBox, state: State) -> str:
    sealed = box.seal(msgspec.msgpack.encode(state), _CONTEXT)
    return urlsafe_b64encode(sealed).decode().rstrip("=")


def _unseal(box: SecretBox, token: str) -> State:
    try:
        sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        return msgspec.msgpack.decode(box.unseal(sealed, _CONTEXT), type=State)
    except (ValueError, Unsealable, msgspec.DecodeError):
        raise BadProperty(
            "The token of the delta query is not one of ours.",
            cure="Follow @odata.nextLink and @odata.deltaLink as they were given.",
        ) from None


async def prune(tx: Tx, now: datetime) -> int:
    """Forget changes that no deltaLink may still ask about; how many."""
    return await store.prune(tx, now - LIFETIME - timedelta(days=1))
