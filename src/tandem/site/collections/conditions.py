"""Who is in a collection, as one SQL condition over the resource `r`: a device or a user."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as AnyOf
from dataclasses import dataclass, field

from tandem.infra.database import Tx
from tandem.site.collections import store
from tandem.site.collections.classes import (
    CHANGED,
    COMANAGEMENT_STATE,
    EVERYTHING,
    SYSTEM,
    USER,
    Class,
    Tables,
)
from tandem.site.collections.model import (
    ALL_CLIENTS,
    ALL_USER_GROUPS,
    ALL_USERS,
    ELIGIBLE,
    ROOTS,
    Collection,
    CollectionId,
    MemberType,
    Rule,
)
from tandem.site.collections.query import Condition, compile_query
from tandem.workloads import MINIMUM_BUILD

CLASS_OF: Mapping[MemberType, Class] = {MemberType.DEVICE: SYSTEM, MemberType.USER: USER}
# Of one collection with all that it is limited by and includes: more than people write, and less
# than what a statement of the database takes (65,535 values, and a stack). PostgreSQL 15 plans nested
# conditions in a time that grows faster than their number.
MOST_CONDITIONS = 500
DEEPEST = 40
_NONE: frozenset[CollectionId] = frozenset()


def direct(of: MemberType) -> str:
    """Whether a collection has a direct rule for `r`. Left to the database: there can be many."""
    return (
        "EXISTS (SELECT 1 FROM collections_rule d WHERE d.collection_id = %s"  # noqa: S608
        f" AND d.{store.NAMED_BY[of]} = r.id)"
    )


# Enrolled with one of these is enrolled with the tenant's MDM service.
_MDM_PROVIDERS = ["", "tandemmdm", "ms dm server"]


def _built_in(id: CollectionId, among: Tables) -> Condition | None:
    """The rule of a collection that is built in. `model.BUILT_IN` says the same for people."""
    if id == ALL_USERS:
        return Condition("r.kind = 'user'")
    if id == ALL_USER_GROUPS:
        return Condition("r.kind = 'group'")
    if id == ALL_CLIENTS:
        return Condition("r.client_id <> ''", reads=frozenset({SYSTEM.key}))
    if id == ELIGIBLE:
        sql = (
            "lower(r.os_name) LIKE 'windows%%' AND position('server' in lower(r.os_name)) = 0"  # noqa: S608
            " AND r.client_id <> '' AND r.device_id <> ''"
            # Looked at in one expression: what is no version is never cast.
            " AND CASE WHEN r.os_version ~ '^[0-9]{1,9}([.][0-9]{1,9}){1,3}$'"
            " THEN string_to_array(r.os_version, '.')::int[] >= %s::int[] ELSE false END"
            f" AND NOT EXISTS (SELECT 1 FROM {among.inventory} m"
            f" WHERE m.class = '{COMANAGEMENT_STATE.key}' AND m.resource_id = r.id"
            " AND m.folded->>'mdmenrolled' = '1'"
            " AND coalesce(m.folded->>'mdmprovider', '') <> ALL(%s::text[]))"
        )
        reads = frozenset({SYSTEM.key, COMANAGEMENT_STATE.key})
        return Condition(sql, (list(MINIMUM_BUILD), _MDM_PROVIDERS), reads)
    return None


@dataclass(frozen=True)
class Graph:
    """Collections with their rules, as far as somebody needs them.

    `among` are the resources that are asked about. `direct` are the collections that have direct
    rules for any of them, None when nobody has looked. Members of `done` have been found already.
    """

    known: Mapping[CollectionId, Collection]
    rules: Mapping[CollectionId, Sequence[Rule]]
    among: Tables = EVERYTHING
    direct: AnyOf[CollectionId] | None = None
    done: AnyOf[CollectionId] = field(default_factory=frozenset)

    def type_of(self, id: CollectionId) -> MemberType:
        return self.known[id].type if id in self.known else MemberType.DEVICE

    def table_of(self, id: CollectionId) -> str:
        return CLASS_OF[self.type_of(id)].table(self.among)

    def upstream(self, id: CollectionId) -> set[CollectionId]:
        """A collection, and all that decide who is in it."""
        found = {id}
        waiting = [id]
        while waiting:
            for step in chain(self.known, waiting.pop()):
                named = {rule.other_id for rule in self.rules.get(step, ()) if rule.other_id}
                new = ({step} | named) - found
                found |= new
                waiting += new
        return found

    def members(self, id: CollectionId, above: frozenset[CollectionId] = frozenset()) -> Condition:
        """The whole chain of what limits a collection as one condition over `r`."""
        type = self.type_of(id)
        parts = [
            _any_but(
                _listed(_built_in(step, self.among)) or [Condition(direct(type), (step,))],
                self.rules.get(step, ()),
                lambda rule, step=step: self.one(rule, type, above | {id, step}),  # type: ignore[misc]
            )
            for step in chain(self.known, id)
        ]
        return all_of(parts)

    def found(self, id: CollectionId, above: frozenset[CollectionId] = _NONE) -> Condition:
        """A SELECT of `id` of the members.

        Rule by rule, so that the database takes an index for each; `members` looks at one resource
        after the other, which is better for a few.
        """
        steps = []
        for step in chain(self.known, id):
            if step in self.done and step != id:
                steps.append(_kept(step))
                break
            steps.append(self._step(step, above | {id}))
        return _sets(" INTERSECT ", steps) if steps else self._leaf(id, Condition("true"))

    def _step(self, id: CollectionId, above: frozenset[CollectionId]) -> Condition:
        """Whom a collection's own rules name and none excludes, whatever limits it."""
        rules = self.rules.get(id, ())
        built_in = _built_in(id, self.among)
        named = [] if built_in is None else [self._leaf(id, built_in)]
        if built_in is None and (self.direct is None or id in self.direct):
            named.append(self._direct(id))
        named += [self._named(id, rule, above | {id}) for rule in rules if rule.kind != "exclude"]
        kept_out = [self._named(id, rule, above | {id}) for rule in rules if rule.kind == "exclude"]
        every = _sets(" UNION ", named) if named else Condition("SELECT 0::bigint AS id LIMIT 0")
        return _sets(" EXCEPT ", [every, _sets(" UNION ", kept_out)]) if kept_out else every

    def _direct(self, id: CollectionId) -> Condition:
        column = store.NAMED_BY[self.type_of(id)]
        within = f" AND d.{column} IN (SELECT id FROM {self.table_of(id)})"  # noqa: S608
        # A user whom the tenant does not have any more is still named.
        every = self.among is EVERYTHING and self.type_of(id) is MemberType.DEVICE
        within = "" if every else within
        return Condition(
            f"SELECT d.{column} AS id FROM collections_rule d WHERE d.collection_id = %s"  # noqa: S608
            f" AND d.kind = 'direct'{within}",
            (id,),
        )

    def _named(self, id: CollectionId, rule: Rule, above: frozenset[CollectionId]) -> Condition:
        if rule.other_id is not None and rule.other_id not in above:
            if rule.other_id in self.done:
                return _kept(rule.other_id)
            return self.found(rule.other_id, above)
        return self._leaf(id, self.one(rule, self.type_of(id), above))

    def _leaf(self, id: CollectionId, condition: Condition) -> Condition:
        """A SELECT of those for whom the condition holds."""
        sql = f"SELECT r.id FROM {self.table_of(id)} r WHERE ({condition.sql})"  # noqa: S608
        return Condition(sql, condition.values)

    def reads(self, id: CollectionId) -> frozenset[str]:
        """The classes of which a change can make somebody a member, or no member any more."""
        waiting, seen, found = [id], set[CollectionId](), set[str]()
        while waiting:
            for step in chain(self.known, waiting.pop()):
                if step in seen:
                    continue
                seen.add(step)
                built_in = _built_in(step, self.among)
                found |= built_in.reads if built_in else frozenset()
                for rule in self.rules.get(step, ()):
                    if rule.query:
                        of = CLASS_OF[self.type_of(step)]
                        found |= compile_query(rule.query, of, self.among).reads
                    if rule.other_id is not None:
                        waiting.append(rule.other_id)
        return frozenset(found)

    def depends_on(self, id: CollectionId) -> set[CollectionId]:
        """What limits a collection, and what its rules name."""
        limiting = self.known[id].limiting_id if id in self.known else None
        named = {rule.other_id for rule in self.rules.get(id, ()) if rule.other_id is not None}
        return named | ({limiting} if limiting is not None else set())

    def one(
        self, rule: Rule, type: MemberType, above: frozenset[CollectionId] = frozenset()
    ) -> Condition:
        """Whom one rule of a collection of devices or of users names."""
        if rule.kind == "direct":
            return Condition("r.id = %s", (rule.resource_id,))
        if rule.kind == "query":
            return compile_query(rule.query, CLASS_OF[type], self.among)
        assert rule.other_id is not None
        # What names itself in a circle is refused when it is made; here it must only come to an end.
        if rule.other_id in above:
            return Condition("false")
        return self.members(rule.other_id, above)

    def applies(self, rules: Sequence[Rule], type: MemberType) -> Condition:
        """Who is meant by rules that nobody keeps yet."""
        named = [rule.resource_id for rule in rules if rule.kind == "direct"]
        first = [Condition("r.id = ANY(%s::bigint[])", (named,))] if named else []
        others = [rule for rule in rules if rule.kind != "direct"]
        return _any_but(first, others, lambda rule: self.one(rule, type))


def _listed(condition: Condition | None) -> list[Condition]:
    return [] if condition is None else [condition]


def _kept(id: CollectionId) -> Condition:
    """A SELECT of members that were found just before."""
    sql = "SELECT f.resource_id AS id FROM collections_found f WHERE f.collection_id = %s"
    return Condition(sql, (id,))


def _sets(word: str, parts: Sequence[Condition]) -> Condition:
    if len(parts) == 1:
        return parts[0]
    sql = word.join(f"({part.sql})" for part in parts)
    return Condition(sql, tuple(value for part in parts for value in part.values))


def _any_but(
    first: list[Condition], rules: Sequence[Rule], one: Callable[[Rule], Condition]
) -> Condition:
    """Who is named by a rule and excluded by none."""
    named = first + [one(rule) for rule in rules if rule.kind != "exclude"]
    kept_out = [one(rule) for rule in rules if rule.kind == "exclude"]
    found = _joined(" OR ", named) if named else Condition("false")
    if not kept_out:
        return found
    out = _joined(" OR ", kept_out)
    return Condition(f"({found.sql}) AND NOT ({out.sql})", found.values + out.values)


def _joined(word: str, parts: Sequence[Condition]) -> Condition:
    return Condition(
        word.join(f"({part.sql})" for part in parts),
        tuple(value for part in parts for value in part.values),
    )


def all_of(parts: list[Condition]) -> Condition:
    return _joined(" AND ", parts) if parts else Condition("true")


async def condition_of(tx: Tx, id: CollectionId) -> Condition:
    return (await conditions_of(tx, [id]))[0]


async def conditions_of(tx: Tx, ids: Sequence[CollectionId]) -> list[Condition]:
    if all(id in ROOTS for id in ids):
        return [Condition("true")] * len(ids)
    graph = await graph_of(tx, ids)
    return [graph.members(id) for id in ids]


async def graph_of(
    tx: Tx, ids: Sequence[CollectionId], *, done: AnyOf[CollectionId] | None = None
) -> Graph:
    """Of all resources; with `done`, of those that have changed. These collections, what limits them, and what their rules name, with their rules."""
    known = {item.id: item for item in await store.collections(tx)}
    rules: dict[CollectionId, list[Rule]] = {}
    missing = {step for id in ids for step in chain(known, id)}
    while missing:
        rules.update({id: [] for id in missing})
        for id, rule in await store.rules(tx, sorted(missing), direct=False):
            rules[id].append(rule)
        named = {rule.other_id for id in missing for rule in rules[id] if rule.other_id is not None}
        missing = {step for id in named for step in chain(known, id)} - rules.keys()
    if done is None:
        return Graph(known, rules)
    return Graph(known, rules, CHANGED, await store.with_direct(tx, CHANGED), done)


def chain(known: Mapping[CollectionId, Collection], id: CollectionId) -> list[CollectionId]:
    """A collection and what limits it, without the roots, which limit nothing."""
    found: list[CollectionId] = []
    step: CollectionId | None = id
    while step is not None and step not in ROOTS and step not in found:
        found.append(step)
        step = known[step].limiting_id if step in known else None
    return found
