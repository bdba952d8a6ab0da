"""Who is in a collection, as one SQL condition over the resource `r`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tandem.infra.database import Tx
from tandem.site.collections import store
from tandem.site.collections.model import ALL_SYSTEMS, Collection, CollectionId, Rule
from tandem.site.collections.query import Condition, compile_query

# Whether a collection has a direct rule for `r`. Left to the database: there can be many.
DIRECT = (
    "EXISTS (SELECT 1 FROM collections_rule d WHERE d.collection_id = %s AND d.resource_id = r.id)"
)
# Of one collection with all that it is limited by and includes: more than people write, and less
# than what a statement of the database takes (65,535 values, and a stack). PostgreSQL 15 plans nested
# conditions in a time that grows faster than their number.
MOST_CONDITIONS = 500
DEEPEST = 40
_NONE: frozenset[CollectionId] = frozenset()


@dataclass(frozen=True)
class Graph:
    """Collections with their rules, as far as somebody needs them."""

    known: Mapping[CollectionId, Collection]
    rules: Mapping[CollectionId, Sequence[Rule]]

    def members(self, id: CollectionId, above: frozenset[CollectionId] = frozenset()) -> Condition:
        """The whole chain of what limits a collection as one condition over `r`."""
        parts = [
            _any_but(
                [Condition(DIRECT, (step,))],
                self.rules.get(step, ()),
                lambda rule, step=step: self.one(rule, above | {id, step}),  # type: ignore[misc]
            )
            for step in chain(self.known, id)
        ]
        return all_of(parts)

    def found(
        self, id: CollectionId, among: Sequence[int] | None, above: frozenset[CollectionId] = _NONE
    ) -> Condition:
        """A SELECT of `id` of the members, of all resources or of those `among` whom is asked.

        Rule by rule, so that the database takes an index for each; `members` looks at one resource
        after the other, which is better for a few.
        """
        steps = [self._step(step, among, above | {id}) for step in chain(self.known, id)]
        return _sets(" INTERSECT ", steps) if steps else _leaf(Condition("true"), among)

    def _step(
        self, id: CollectionId, among: Sequence[int] | None, above: frozenset[CollectionId]
    ) -> Condition:
        """Whom a collection's own rules name and none excludes, whatever limits it."""
        rules = self.rules.get(id, ())
        named = [self._named(rule, among, above | {id}) for rule in rules if rule.kind != "exclude"]
        kept_out = [
            self._named(rule, among, above | {id}) for rule in rules if rule.kind == "exclude"
        ]
        within = "" if among is None else " AND d.resource_id = ANY(%s::bigint[])"
        direct = Condition(
            "SELECT d.resource_id AS id FROM collections_rule d WHERE d.collection_id = %s"  # noqa: S608
            f" AND d.kind = 'direct'{within}",
            (id,) if among is None else (id, among),
        )
        every = _sets(" UNION ", [direct, *named])
        return _sets(" EXCEPT ", [every, _sets(" UNION ", kept_out)]) if kept_out else every

    def _named(
        self, rule: Rule, among: Sequence[int] | None, above: frozenset[CollectionId]
    ) -> Condition:
        if rule.other_id is not None and rule.other_id not in above:
            return self.found(rule.other_id, among, above)
        return _leaf(self.one(rule, above), among)

    def one(self, rule: Rule, above: frozenset[CollectionId] = frozenset()) -> Condition:
        """Whom one rule names."""
        if rule.kind == "direct":
            return Condition("r.id = %s", (rule.resource_id,))
        if rule.kind == "query":
            return compile_query(rule.query)
        assert rule.other_id is not None
        # What names itself in a circle is refused when it is made; here it must only come to an end.
        if rule.other_id in above:
            return Condition("false")
        return self.members(rule.other_id, above)

    def applies(self, rules: Sequence[Rule]) -> Condition:
        """Who is meant by rules that nobody keeps yet."""
        devices = [rule.resource_id for rule in rules if rule.kind == "direct"]
        direct = [Condition("r.id = ANY(%s::bigint[])", (devices,))] if devices else []
        others = [rule for rule in rules if rule.kind != "direct"]
        return _any_but(direct, others, self.one)


def _leaf(condition: Condition, among: Sequence[int] | None) -> Condition:
    """A SELECT of those for whom the condition holds."""
    sql = f"SELECT r.id FROM collections_resource r WHERE ({condition.sql})"  # noqa: S608
    if among is None:
        return Condition(sql, condition.values)
    return Condition(f"{sql} AND r.id = ANY(%s::bigint[])", (*condition.values, among))


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
    if all(id == ALL_SYSTEMS for id in ids):
        return [Condition("true")] * len(ids)
    graph = await graph_of(tx, ids)
    return [graph.members(id) for id in ids]


async def graph_of(tx: Tx, ids: Sequence[CollectionId]) -> Graph:
    """These collections, what limits them, and what their rules name, with their rules."""
    known = {item.id: item for item in await store.collections(tx)}
    rules: dict[CollectionId, list[Rule]] = {}
    missing = {step for id in ids for step in chain(known, id)}
    while missing:
        rules.update({id: [] for id in missing})
        for id, rule in await store.rules(tx, sorted(missing), direct=False):
            rules[id].append(rule)
        named = {rule.other_id for id in missing for rule in rules[id] if rule.other_id is not None}
        missing = {step for id in named for step in chain(known, id)} - rules.keys()
    return Graph(known, rules)


def chain(known: Mapping[CollectionId, Collection], id: CollectionId) -> list[CollectionId]:
    """A collection and what limits it, without All Systems, which limits nothing."""
    found: list[CollectionId] = []
    step: CollectionId | None = id
    while step is not None and step != ALL_SYSTEMS and step not in found:
        found.append(step)
        step = known[step].limiting_id if step in known else None
    return found
