"""Keeping the members that were found, so that lists, counts and costs need not find them again.

    a device or what is reported of it changes   a trigger notes it; it is looked at for every
                                                 collection with incremental updates whose rules
                                                 read what has changed
    a rule or a limit changes                    the collection, and all that depend on it, are due
    a schedule                                   a collection is due so long after its last full
                                                 evaluation

What a device gets is never read from here: a check-in asks the rules themselves. So nothing waits for
an evaluation, and one that fails leaves a list old, not a device wrong.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from graphlib import TopologicalSorter

import psycopg

from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.logs import get_logger
from tandem.infra.rounds import rounds
from tandem.site.collections import evaluation_store, store
from tandem.site.collections.conditions import Graph, graph_of
from tandem.site.collections.model import ROOTS, Collection, CollectionId, Rule

log = get_logger("collections")

# So many changed resources are looked at in one transaction.
_AT_ONCE = 5000
_LONGEST_SECONDS = 60
# So many collections, or for so long, before it is looked whether a device has changed.
_SOME, _TURN_SECONDS = 100, 1.0
_AGAIN = timedelta(hours=1)


async def evaluate_fully(
    tx: Tx, id: CollectionId, now: datetime, graph: Graph | None = None
) -> None:
    """Find the members among all resources, and keep them; of roots, count them. `graph` has the collection, if given."""
    started = time.perf_counter()
    come, gone = 0, 0
    graph = graph or await graph_of(tx, [id])
    of = graph.type_of(id)
    if id in ROOTS:
        members = await store.count(tx, "true", (), of=of)
    else:
        found = graph.found(id)
        come, gone, members = await evaluation_store.save_members(tx, of, id, found, now)
    took = round((time.perf_counter() - started) * 1000, 1)
    await evaluation_store.save_full(tx, id, now, members, took, changed=bool(come or gone))


def dependents(
    of: Iterable[CollectionId],
    known: Iterable[Collection],
    rules: Iterable[tuple[CollectionId, Rule]],
) -> set[CollectionId]:
    """These collections, and all that are limited by them or name them, however far away."""
    onward: dict[CollectionId, set[CollectionId]] = {}
    for item in known:
        if item.limiting_id is not None:
            onward.setdefault(item.limiting_id, set()).add(item.id)
    for id, rule in rules:
        if rule.other_id is not None:
            onward.setdefault(rule.other_id, set()).add(id)
    found: set[CollectionId] = set()
    waiting = list(of)
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            waiting += onward.get(id, ())
    return found


def in_order(ids: Iterable[CollectionId], graph: Graph) -> list[CollectionId]:
    """Each after those that it is limited by, or whose members it includes or excludes."""
    wanted = list(ids)
    among = set(wanted)
    onward = {id: graph.depends_on(id) & among for id in wanted}
    return list(TopologicalSorter(onward).static_order())


def _concerns(graph: Graph, id: CollectionId, changed: set[str]) -> bool:
    """Whether a change of these classes can make somebody a member. The empty one is of a resource
    that is new."""
    return "" in changed or not changed.isdisjoint(graph.reads(id))


def _is_of_the_query(error: psycopg.Error) -> bool:
    """And not of the moment: a device or a collection that went meanwhile, a database that ends."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return True
    return not isinstance(error, psycopg.OperationalError | psycopg.IntegrityError)


class Evaluator:
    """Keeps the members of one site's collections, until it is stopped. Of several replicas one
    evaluates at a time."""

    def __init__(self, db: Database, now: Clock) -> None:
        self._db = db
        self._now = now

    async def run(self, stop: asyncio.Event, every_seconds: float = 1.0) -> None:
        """Until `stop`; what it is at then is left, and done by whoever comes next."""
        failed = "collections are not evaluated"
        await rounds(stop, self.tend, every_seconds, failed=failed, cut_off=True)

    async def tend(self) -> None:
        """All that is due now. A device that changes waits for a few full evaluations at most."""
        await self._mark()
        while await self._incremental() or await self._full():
            await self._mark()

    async def _mark(self) -> None:
        """What depends on rules that have changed is due."""
        async with self._db.transaction() as tx:
            if not await evaluation_store.try_lock(tx):
                return
            stale = await evaluation_store.take_stale(tx)
            if stale:
                known, rules = await store.collections(tx), await store.every_rule(tx)
                ids = sorted(dependents(stale, known, rules))
                await evaluation_store.make_due(tx, ids, self._now())

    async def _incremental(self) -> bool:
        """Whether there was something to do."""
        return await self._look(self._look_at_changed)

    async def _look(self, at: Callable[..., Awaitable[bool]]) -> bool:
        """All collections together; each for itself when a query of one of them fails."""
        async with self._db.transaction() as tx:
            if not await evaluation_store.try_lock(tx):
                return False
            await evaluation_store.limit_time(tx, _LONGEST_SECONDS)
            try:
                async with tx.transaction():
                    return await at(tx, careful=False)
            except psycopg.Error as error:
                if not _is_of_the_query(error):
                    raise
                return await at(tx, careful=True)

    async def _look_at_changed(self, tx: Tx, *, careful: bool) -> bool:
        """`careful`: each collection for itself, so that one that fails takes no other with it."""
        changed = await evaluation_store.take_changed(tx, _AT_ONCE)
        if not changed:
            return False
        now = self._now()
        there = await evaluation_store.gather(tx, list(changed))
        every = [id for id in await evaluation_store.incremental(tx) if id not in ROOTS]
        done: set[CollectionId] = set()
        graph = await graph_of(tx, every, done=done)
        took: dict[CollectionId, float] = {}
        moved: dict[CollectionId, tuple[int, int]] = {}
        for of, resources in there.items():
            classes = set[str]().union(*(changed[id] for id in resources))
            ids = [id for id in every if graph.type_of(id) is of and _concerns(graph, id, classes)]
            kept: list[CollectionId] = []
            for id in in_order(ids, graph) if resources else ():
                started = time.perf_counter()
                try:
                    async with tx.transaction() if careful else contextlib.nullcontext():
                        await evaluation_store.find(tx, id, graph.found(id))
                        if careful:
                            moved |= await evaluation_store.keep_found(tx, of, [id], now)
                except psycopg.Error as error:
                    if not careful or not _is_of_the_query(error):
                        raise
                    await self._set_aside(tx, id, error)
                    continue
                took[id] = (time.perf_counter() - started) * 1000
                done.add(id)
                kept.append(id)
            if kept and not careful:
                moved |= await evaluation_store.keep_found(tx, of, kept, now)
        runs = [(id, ms, *moved.get(id, (0, 0))) for id, ms in took.items()]
        await evaluation_store.save_incremental(tx, now, runs)
        return True

    async def _full(self) -> bool:
        """Some collections that are due, for as long as a changed device may wait. Whether there
        were any."""
        return await self._look(self._look_at_due)

    async def _look_at_due(self, tx: Tx, *, careful: bool) -> bool:
        now = self._now()
        ids = await evaluation_store.due(tx, now, _SOME)
        graph = await graph_of(tx, ids)
        until = time.perf_counter() + _TURN_SECONDS
        for id in ids:
            try:
                async with tx.transaction() if careful else contextlib.nullcontext():
                    await evaluate_fully(tx, id, now, graph)
            except psycopg.Error as error:
                if not careful or not _is_of_the_query(error):
                    raise
                await self._set_aside(tx, id, error)
            if time.perf_counter() > until:
                break
        return bool(ids)

    async def _set_aside(self, tx: Tx, id: CollectionId, error: Exception) -> None:
        """Tried again after a while, and by hand; until then its list is as old as it is."""
        reason = str(error).split("\n")[0][:300]
        log.warning("a collection cannot be evaluated", collection=id, reason=reason)
        await evaluation_store.save_due(tx, id, self._now() + _AGAIN, reason)
