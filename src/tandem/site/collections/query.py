"""Query rules: the part of WQL that rules are written in.

    select * from SMS_R_System where Name like 'LAB-00[1-4]' and not ClientVersion < '0.1'

    select SMS_R_System.Name from SMS_R_System
      inner join SMS_Client_ComanagementState as s on s.ResourceID = SMS_R_System.ResourceID
      where s.MDMEnrolled = 1 and s.UPN like '%@contoso.com'

    … where ResourceId not in (select ResourceID from SMS_Client_ComanagementState)

A query becomes an SQL condition over the resource `r`. Columns and tables come from `classes`; every
value is a parameter. What is compared with nothing (an attribute that nobody reported) is neither equal
nor unequal, as in WQL.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Tree, UnexpectedInput

from tandem.site.collections.classes import (
    CLASSES,
    EVERYTHING,
    SYSTEM,
    USER,
    USER_GROUP,
    Attribute,
    Class,
    Tables,
    nearest,
)
from tandem.site.collections.model import BadQuery

_LIMIT = 4096
# Nested deeper than people write, shallower than the interpreter's stack.
_MAX_DEPTH = 40
_MOST_CLASSES = 8
_KEYWORDS = [
    *("select", "distinct", "from", "as", "inner", "join", "on", "where", "and", "or", "not"),
    *("like", "in", "is", "null", "true", "false"),
]

_GRAMMAR = r"""
    start: select
    select: _SELECT columns _FROM source join* (_WHERE condition)?
    columns: _DISTINCT? attribute ("," attribute)*
    attribute: (NAME ".")? (NAME | STAR)
    source: NAME (_AS? NAME)?
    join: _INNER? _JOIN source _ON equality (_AND equality)*
    equality: column "=" column

    ?condition: conjunction (_OR conjunction)*              -> any_of
    ?conjunction: term (_AND term)*                         -> all_of
    ?term: _NOT term                                        -> negation
         | "(" condition ")"
         | comparison
    comparison: column OPERATOR literal                     -> compare
              | column "=" literal                          -> equal
              | column _LIKE literal                        -> like
              | column _NOT _LIKE literal                   -> not_like
              | column _IN "(" literal ("," literal)* ")"   -> one_of
              | column _NOT _IN "(" literal ("," literal)* ")"  -> none_of
              | column _IN "(" select ")"                   -> among
              | column _NOT _IN "(" select ")"              -> not_among
              | column _IS _NULL                            -> is_null
              | column _IS _NOT _NULL                       -> is_not_null
    column: (NAME ".")? NAME
    literal: STRING | NUMBER | TRUE | FALSE

    OPERATOR: "<=" | ">=" | "<>" | "!=" | "<" | ">"
    STRING: "'" /[^']*/ "'" | "\"" /[^"]*/ "\""
    NUMBER: /-?[0-9]{1,18}/
    STAR: "*"
    NAME.-1: /[A-Za-z_][A-Za-z0-9_]*/
    _SELECT.2: /select\b/i
    _DISTINCT.2: /distinct\b/i
    _FROM.2: /from\b/i
    _AS.2: /as\b/i
    _INNER.2: /inner\b/i
    _JOIN.2: /join\b/i
    _ON.2: /on\b/i
    _WHERE.2: /where\b/i
    _AND.2: /and\b/i
    _OR.2: /or\b/i
    _NOT.2: /not\b/i
    _LIKE.2: /like\b/i
    _IN.2: /in\b/i
    _IS.2: /is\b/i
    _NULL.2: /null\b/i
    TRUE.2: /true\b/i
    FALSE.2: /false\b/i
    %import common.WS
    %ignore WS
"""


@dataclass(frozen=True, slots=True)
class Condition:
    """SQL over `r` with %s placeholders, and their values. A `%` in the SQL is doubled. `reads` are
    the classes whose rows can make a query's answer another, and `of_others` says whether rows of
    another resource than the one that is asked about can."""

    sql: str
    values: tuple[Any, ...] = ()
    reads: frozenset[str] = frozenset()
    of_others: bool = False


@lru_cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr")


@lru_cache(maxsize=4096)
def compile_query(text: str, of: Class = SYSTEM, among: Tables = EVERYTHING) -> Condition:
    """`of` is the class of the members. `among` has the rows of the resource that is asked about;
    rows of other resources, which a select in brackets may read, are looked for everywhere.

    Raises BadQuery, which says where: `at` is the character, counted from 1; where a name or a
    word is nearly right, `suggestion` is what was meant."""
    if len(text) > _LIMIT:
        raise BadQuery(f"A query has at most {_LIMIT} characters.")
    if "\x00" in text:
        raise BadQuery("A query has no NUL characters.")
    if _depth(text) > _MAX_DEPTH:
        raise BadQuery(f"The query has more than {_MAX_DEPTH} parentheses inside each other.")
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _unreadable(text, _place(error, text)) from None
    (select,) = tree.children
    assert isinstance(select, Tree)
    return _Compiler(among, of).rule(select)


def _unreadable(text: str, at: int) -> BadQuery:
    found = text[at - 1 : at + 19].split("\n")[0]
    said = f"The query cannot be read at character {at}"
    said += f": {found!r} was not expected there." if found else ", its end."
    # A keyword with a slip is read as the name of something, and what follows it is what is odd.
    words = re.findall(r"[A-Za-z_]+", text[: at - 1])[-1:] + re.findall(
        r"^[A-Za-z_]+", text[at - 1 :]
    )
    for word in words:
        meant = "" if word.lower() in _KEYWORDS else nearest(word, _KEYWORDS)
        if meant and word.lower() not in CLASSES:
            return BadQuery(
                said, cure=f"Did you mean {meant}, not {word}?", at=at, suggestion=meant
            )
    return BadQuery(
        said, cure="Write it like: select * from SMS_R_System where Name like 'LAB-%'.", at=at
    )


def _place(error: UnexpectedInput, text: str) -> int:
    place = error.pos_in_stream
    token = getattr(error, "token", None)
    if place is None or (token is not None and token.type == "$END"):
        return len(text.rstrip()) + 1
    return place + 1


def _depth(text: str) -> int:
    deepest = depth = 0
    for word in text.replace("(", " ( ").replace(")", " ) ").lower().split():
        if word in {"(", "not"}:
            depth += 1
            deepest = max(deepest, depth)
        elif word == ")":
            depth -= 1
    return deepest


@dataclass(frozen=True, slots=True)
class _Source:
    """A class that a select reads, and what its row is called in the query and in SQL."""

    of: Class
    name: str
    row: str
    table: str

    @property
    def news(self) -> str:
        """The class whose changes are noted for its rows."""
        return USER.key if self.of is USER_GROUP else self.of.key

    @property
    def where(self) -> str:
        """Which rows of its table are of the class."""
        if self.of.is_resource:
            return self.of.where.format(self.row)
        # Said as it is and no parameter: the indexes are of one class each.
        return f"{self.row}.class = '{self.of.key}'"

    def expression(self, found: Attribute) -> str:
        if self.of.is_resource:
            return found.sql.format(self.row)
        if found.key == "resourceid":
            return f"{self.row}.resource_id"
        if found.number:
            # Which condition is looked at first is the database's choice: the class may be another.
            return (
                f"CASE WHEN jsonb_typeof({self.row}.folded->'{found.key}') = 'number'"
                f" THEN ({self.row}.folded->>'{found.key}')::numeric END"
            )
        return f"({self.row}.folded->>'{found.key}')"


@dataclass(frozen=True, slots=True)
class _Column:
    source: _Source
    what: Attribute

    @property
    def sql(self) -> str:
        return self.source.expression(self.what)

    @property
    def is_resource(self) -> bool:
        """Whether it says which resource the row is of."""
        return self.what.key == "resourceid"

    @property
    def folded(self) -> str:
        """Text is compared without regard to case, as WQL does. Inventory is kept folded."""
        if self.what.number or not self.source.of.is_resource:
            return self.sql
        return f"lower({self.sql})"

    def holds(self, sql: str, *values: Any) -> Condition:
        """The condition, of one of its values when it has many."""
        each = self.what.each.format(self.source.row)
        return Condition(f"EXISTS (SELECT 1 FROM {each} AND {sql})" if each else sql, values)  # noqa: S608

    def one(self, at: int) -> "_Column":
        """Raises BadQuery when it has many values."""
        if self.what.each:
            raise BadQuery(
                f"{self.what.name} has many values: nothing is joined by it or selected from it.",
                cure=f"Compare it: {self.what.name} = '…'.",
                at=at,
            )
        return self


_Scope = Sequence[_Source]
# What queries of user collections are about.
_PEOPLE = (USER, USER_GROUP)


def _other_base(found: Class, wanted: Class, at: int) -> BadQuery:
    if wanted is USER:
        return BadQuery(
            f"Queries of user collections read SMS_R_User or SMS_R_UserGroup, not {found.name}.",
            cure="Begin with one of them, or make a collection of devices.",
            at=at,
            suggestion=USER.name,
        )
    if found in _PEOPLE:
        return BadQuery(
            f"Queries of device collections read SMS_R_System, not {found.name}.",
            cure="Begin with SMS_R_System, or make a collection of users.",
            at=at,
            suggestion=SYSTEM.name,
        )
    return BadQuery(
        f"Queries of device collections read SMS_R_System, not {found.name}.",
        cure=f"Begin with SMS_R_System, and join the other: inner join {found.name}"
        f" on {found.name}.ResourceID = SMS_R_System.ResourceID.",
        at=at,
        suggestion=SYSTEM.name,
    )


class _Compiler:
    def __init__(self, among: Tables, of: Class) -> None:
        self._among_whom = among
        self._of = of
        # Users and devices are apart: a change of one never makes another's answer another.
        self._known = {
            key: found for key, found in CLASSES.items() if (found in _PEOPLE) is (of is USER)
        }
        self._rows = 0
        self._read: set[str] = set()
        # Rows that are of the same resource as `r`.
        self._own: set[str] = {"r"}
        # Rows that matter only where they are of one resource.
        self._same: list[tuple[str, str]] = []

    def rule(self, select: Tree[Token]) -> Condition:
        """The whole query, over `r`."""
        _, source, joins, condition = _parts(select)
        named = CLASSES.get(_token(source, 0).lower())
        bases = _PEOPLE if self._of is USER else (self._of,)
        if named is not None and named not in bases:
            raise _other_base(named, self._of, _start(_token(source, 0)))
        base = self._source(source, "r")
        scope, joined = self._joined([base], joins)
        where = self._condition(scope, condition) if condition is not None else Condition("true")
        if len(scope) > 1:
            where = self._exists(scope[1:], _joined(" AND ", [*joined, where]), "1")
        if base.where:
            where = _joined(" AND ", [Condition(base.where), where])
        return Condition(where.sql, where.values, frozenset(self._read), self._reads_others())

    def _reads_others(self) -> bool:
        own, before = set(self._own), 0
        while len(own) > before:
            before = len(own)
            own |= {row for pair in self._same if own & set(pair) for row in pair}
        return len(own) < self._rows

    def _source(self, source: Tree[Token], row: str = "") -> _Source:
        name = _token(source, 0)
        of = self._known.get(name.lower())
        if of is None:
            known = [found.name for found in self._known.values()]
            meant = nearest(name, known)
            raise BadQuery(
                f"There is no class {name}.",
                cure=f"Did you mean {meant}?" if meant else f"Take one of: {', '.join(known)}.",
                at=_start(name),
                **({"suggestion": meant} if meant else {}),
            )
        self._rows += 1
        alias = _token(source, 1) if len(source.children) > 1 else name
        made = _Source(of, alias.lower(), row or f"j{self._rows}", of.table(EVERYTHING))
        if not row:
            self._read.add(made.news)
        return made

    def _of_the_same(self, source: _Source) -> _Source:
        """Rows of this source are those of the resource that is asked about."""
        self._own.add(source.row)
        return replace(source, table=source.of.table(self._among_whom))

    def _joined(
        self, scope: list[_Source], joins: Sequence[Tree[Token]]
    ) -> tuple[list[_Source], list[Condition]]:
        conditions = []
        for join in joins:
            source, *equalities = [part for part in join.children if isinstance(part, Tree)]
            new = self._source(source)
            if len(scope) == _MOST_CLASSES or any(known.name == new.name for known in scope):
                raise BadQuery(
                    f"The query reads {_token(source, 0)} twice by one name, or too many classes.",
                    cure="Give the second one a name of its own: inner join … as other on …",
                    at=_start(_token(source, 0)),
                )
            scope = [*scope, new]
            own = False
            for equality in equalities:
                condition, same = self._equality(scope, new, equality)
                conditions.append(condition)
                own = own or same
            if own:
                scope[-1] = self._of_the_same(new)
        return scope, conditions

    def _equality(
        self, scope: _Scope, new: _Source, equality: Tree[Token]
    ) -> tuple[Condition, bool]:
        """And whether the new row is then of the resource that is asked about."""
        left, right = (
            self._column(scope, part).one(_start(_token(part, 0))) for part in _trees(equality)
        )
        if new not in (left.source, right.source) or left.source is right.source:
            raise BadQuery(
                f"A join names an attribute of {new.of.name} and one of a class before it.",
                cure=f"Write: on {new.of.name}.ResourceID = SMS_R_System.ResourceID.",
                at=_start(_token(_trees(equality)[0], 0)),
            )
        if left.what.number is not right.what.number:
            raise BadQuery(
                f"{left.what.name} and {right.what.name} are a number and a text.",
                cure="Join by ResourceID.",
                at=_start(_token(_trees(equality)[0], 0)),
            )
        other = right.source if left.source is new else left.source
        same = left.is_resource and right.is_resource
        if same:
            self._same.append((new.row, other.row))
        same = same and other.row in self._own
        return Condition(f"{left.folded} = {right.folded}"), same

    def _exists(self, scope: _Scope, where: Condition, what: str) -> Condition:
        sql, values = self._select(scope, where, what)
        return Condition(f"EXISTS ({sql})", values)

    def _select(self, scope: _Scope, where: Condition, what: str) -> tuple[str, tuple[Any, ...]]:
        tables = ", ".join(f"{source.table} {source.row}" for source in scope)
        conditions = [source.where for source in scope if source.where]
        sql = " AND ".join([*conditions, f"({where.sql})"])
        return f"SELECT {what} FROM {tables} WHERE {sql}", where.values  # noqa: S608

    # ------------------------------------------------------------------------- conditions

    def _condition(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        found: Condition = getattr(self, f"_{tree.data}")(scope, tree)
        return found

    def _any_of(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        return _joined(" OR ", [self._condition(scope, part) for part in _trees(tree)])

    def _all_of(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        return _joined(" AND ", [self._condition(scope, part) for part in _trees(tree)])

    def _negation(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        return _not(self._condition(scope, _trees(tree)[0]))

    def _compare(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        left, operator, literal = tree.children
        assert isinstance(left, Tree)
        assert isinstance(literal, Tree)
        column = self._column(scope, left)
        sql = "<>" if operator == "!=" else str(operator)
        return column.holds(f"{column.folded} {sql} %s", _value(column, literal))

    def _equal(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        left, literal = _trees(tree)
        column = self._column(scope, left)
        return column.holds(f"{column.folded} = %s", _value(column, literal))

    def _like(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        left, literal = _trees(tree)
        column = self._column(scope, left)
        said = _token(literal, 0)
        if column.what.number:
            raise BadQuery(
                f"{column.what.name} is a number: like compares text.",
                cure="Compare with =.",
                at=_start(said),
            )
        operator, pattern = _pattern(_text(said), _start(said))
        return column.holds(f"{column.folded} {operator}", pattern)

    def _not_like(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        return _not(self._like(scope, tree))

    def _one_of(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        left, *literals = _trees(tree)
        column = self._column(scope, left)
        places = ", ".join(["%s"] * len(literals))
        values = tuple(_value(column, literal) for literal in literals)
        return column.holds(f"{column.folded} IN ({places})", *values)

    def _none_of(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        return _not(self._one_of(scope, tree))

    def _among(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        left, select = _trees(tree)
        column = self._column(scope, left)
        columns, source, joins, condition = _parts(select)
        inner, joined = self._joined([self._source(source)], joins)
        what = self._column(inner, columns[0]).one(_start(_token(columns[0], 0)))
        if what.is_resource and column.is_resource:
            self._same.append((what.source.row, column.source.row))
        if what.is_resource and column.is_resource and column.source.row in self._own:
            inner = [self._of_the_same(s) if s is what.source else s for s in inner]
        if len(columns) != 1 or what.what.number is not column.what.number:
            raise BadQuery(
                f"The select in brackets brings one attribute to compare {column.what.name} with.",
                cure="Write it like: ResourceId in (select ResourceID from …).",
                at=_start(_token(columns[0], 0)),
            )
        where = self._condition(inner, condition) if condition is not None else Condition("true")
        where = _joined(" AND ", [*joined, where, Condition(f"{what.sql} IS NOT NULL")])
        sql, values = self._select(inner, where, what.folded)
        return column.holds(f"{column.folded} IN ({sql})", *values)

    def _not_among(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        return _not(self._among(scope, tree))

    def _is_null(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        column = self._column(scope, _trees(tree)[0])
        return _not(column.holds(_said(column)))

    def _is_not_null(self, scope: _Scope, tree: Tree[Token]) -> Condition:
        column = self._column(scope, _trees(tree)[0])
        return column.holds(_said(column))

    def _column(self, scope: _Scope, tree: Tree[Token]) -> _Column:
        """Raises BadQuery: no such class here, no such attribute, or one of several classes."""
        names = [part for part in tree.children if isinstance(part, Token)]
        among = scope
        if len(names) == 2:
            among = [source for source in scope if source.name == names[0].lower()]
            if not among and names[0].lower() == "sys":
                among = [source for source in scope if source.of is SYSTEM]
        if not among:
            meant = nearest(names[0], [source.name for source in scope])
            shown = next((s.of.name for s in scope if s.of.key == meant), meant)
            raise BadQuery(
                f"The query does not read {names[0]}.",
                cure=f"Did you mean {shown}?"
                if meant
                else f"Join it first: inner join {names[0]} on …, or write {scope[0].of.name}.",
                at=_start(names[0]),
                **({"suggestion": shown} if meant else {}),
            )
        word = names[-1]
        found = [
            _Column(source, named)
            for source in among
            if (named := source.of.attribute_named(word)) is not None
        ]
        if len(found) == 1:
            if not found[0].is_resource:
                self._read.add(found[0].source.news)
            return found[0]
        if found:
            first = found[0]
            raise BadQuery(
                f"{word} is an attribute of more than one class that the query reads.",
                cure=f"Write {first.source.of.name}.{first.what.name}.",
                at=_start(word),
            )
        known = [named.name for source in among for named in source.of.attributes]
        meant = nearest(word, known)
        raise BadQuery(
            f"{' and '.join(source.of.name for source in among)} has no attribute {word}.",
            cure=f"Did you mean {meant}?" if meant else f"Take one of: {', '.join(known)}.",
            at=_start(word),
            **({"suggestion": meant} if meant else {}),
        )


# -------------------------------------------------------------------------------- the tree


def _trees(tree: Tree[Token]) -> list[Tree[Token]]:
    return [part for part in tree.children if isinstance(part, Tree)]


def _token(tree: Tree[Token], place: int) -> Token:
    found = tree.children[place]
    assert isinstance(found, Token)
    return found


def _start(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _parts(
    select: Tree[Token],
) -> tuple[list[Tree[Token]], Tree[Token], list[Tree[Token]], Tree[Token] | None]:
    """What a select brings, from what, joined with what, and where."""
    columns, source, *rest = _trees(select)
    joins = [part for part in rest if part.data == "join"]
    where = [part for part in rest if part.data != "join"]
    return _trees(columns), source, joins, where[0] if where else None


def _said(column: _Column) -> str:
    return f"coalesce(({column.sql})::text, '') <> ''"


def _not(found: Condition) -> Condition:
    return Condition(f"(NOT ({found.sql}))", found.values)


def _joined(word: str, parts: Sequence[Condition]) -> Condition:
    if len(parts) == 1:
        return parts[0]
    sql = word.join(part.sql for part in parts)
    values = tuple(value for part in parts for value in part.values)
    return Condition(f"({sql})", values)


# -------------------------------------------------------------------------------- values


def _text(literal: Token) -> str:
    return str(literal)[1:-1] if literal.type == "STRING" else str(literal)


def _value(column: _Column, literal: Tree[Token]) -> str | int:
    said = _token(literal, 0)
    if not column.what.number:
        return _text(said).lower()
    if said.type in ("TRUE", "FALSE"):
        return int(said.type == "TRUE")
    try:
        return int(_text(said))
    except ValueError:
        raise BadQuery(
            f"{column.what.name} is compared with numbers.",
            cure="Write a number, without quotes.",
            at=_start(said),
        ) from None


# One character out of a set, or out of none of it: [0-9], [^abc].
_SET = re.compile(r"\[\^?((?:[a-z0-9 ._](?:-[a-z0-9 ._])?)+)\]")
_RANGE = re.compile("(.)-(.)")


def _pattern(said: str, at: int) -> tuple[str, str]:
    """WQL's % and _ are SQL's, a backslash is only a character, and sets take a regular expression."""
    text = said.lower()
    if "[" not in text:
        return "LIKE %s", text.replace("\\", "\\\\")
    pattern, place = "", 0
    while place < len(text):
        found = _SET.match(text, place)
        if found and all(first <= last for first, last in _RANGE.findall(found[1])):
            pattern += found[0]
            place = found.end()
            continue
        if text[place] == "[":
            raise BadQuery(
                f"The pattern {said!r} has a [ that begins no set of characters.",
                cure="Write sets like [0-9], [a-f] or [^x].",
                at=at,
            )
        pattern += {"%": ".*", "_": "."}.get(text[place]) or _literal(text[place])
        place += 1
    return "~ %s", f"^{pattern}$"


def _literal(character: str) -> str:
    """One character of a regular expression that stands for itself."""
    special = character.isascii() and not character.isalnum()
    return f"\\{character}" if special else character
