"""Query options and filters; the two ways to evaluate a filter agree."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tandem.infra.database import Embedded
from tandem.protocols import odata
from tandem.protocols.odata import Column, Primitive

_PIECES = [
    "(",
    ")",
    "/",
    ",",
    ":",
    "'",
    "'x'",
    "name",
    "enabled",
    "tags",
    "parts",
    "any",
    "all",
    "x:x",
    "in",
    "eq",
    "ne",
    "not",
    "and",
    "or",
    "has",
    "isof",
    "tolower",
    "contains",
    "null",
    "true",
    "1",
    "-1",
    "1.5",
    "2026-01-01",
    "microsoft.graph.a",
    "$it",
    "@odata.type",
    "%00",
    ";",
    '"',
    "AND",
    "OR",
    "$filter=",
    "$select=id",
    "$expand=",
    "$levels=2",
    "00000000-0000-0000-0000-000000000001",
]

COLUMNS = {
    "name": Column("t.name"),
    "enabled": Column("t.enabled", Primitive.BOOLEAN),
    "number": Column("t.number", Primitive.INTEGER),
    "at": Column("t.at", Primitive.TIME),
    "state": Column("t.state", choices=("inUse", "free")),
    "tags": Column("to_jsonb(t.tags)", collection=True),
    "parts": Column("t.parts", collection=True),
    "info": Column("t.info", Primitive.COMPLEX, json=True),
    odata.REST: Column("t.rest", json=True),
}
TABLE = """CREATE TEMPORARY TABLE t (id serial, kind text, name text, enabled bool, number int,
    at timestamptz, state text, tags text[], parts jsonb, info jsonb, rest jsonb)"""
ROWS: list[dict[str, Any]] = [
    {
        "@odata.type": "#microsoft.graph.win32LobApp",
        "name": "Alex",
        "enabled": True,
        "number": 1,
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "state": "inUse",
        "tags": ["Unified", "x"],
        "parts": [{"skuId": "A", "n": 1}, {"skuId": "b", "n": 5, "sub": [{"k": "z"}]}],
        "info": {"inventory": True, "deep": {"er": "Yes"}, "count": 7},
        "technologies": "mdm, microsoftSense",
        "since": "2026-02-03T04:05:06Z",
    },
    {
        "@odata.type": "#microsoft.graph.managedIOSLobApp",
        "name": "bea%ta",
        "enabled": False,
        "number": -2,
        "at": datetime(2026, 6, 1, tzinfo=UTC),
        "state": "free",
        "tags": [],
        "parts": [],
        "info": {"inventory": False, "deep": None},
        "technologies": "mdm",
        "appAvailability": "lineOfBusiness",
    },
    {
        "@odata.type": "#microsoft.graph.webApp",
        "name": "O'Neil",
        "enabled": True,
        "number": 300,
        "at": datetime(2025, 1, 1, tzinfo=UTC),
        "state": "free",
        "tags": ["x"],
        "parts": [{"skuId": "b", "n": 1}],
        "info": None,
        "since": "no time",
    },
    {
        "@odata.type": "#microsoft.graph.webApp",
        "name": None,
        "enabled": None,
        "number": None,
        "at": None,
        "state": None,
        "tags": [],
        "parts": [],
        "info": {},
    },
]
_PLAIN = ("name", "enabled", "number", "at", "state", "tags", "parts", "info")
_BASES = {"managedapp": {"managedapp", "managedioslobapp"}}


def types(wanted: str) -> frozenset[str]:
    return frozenset(_BASES.get(wanted, {wanted}))


def fill(connection: psycopg.Connection[Any]) -> None:
    connection.execute(TABLE.encode())
    for row in ROWS:
        rest = {k: v for k, v in row.items() if k not in _PLAIN and k != "@odata.type"}
        connection.execute(
            "INSERT INTO t (kind, name, enabled, number, at, state, tags, parts, info, rest)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                row["@odata.type"].rpartition(".")[2],
                *(row[name] for name in ("name", "enabled", "number", "at", "state", "tags")),
                *(None if row[name] is None else Jsonb(row[name]) for name in ("parts", "info")),
                Jsonb(rest),
            ),
        )


def in_database(connection: psycopg.Connection[Any], expression: odata.Expression) -> list[Any]:
    condition, parameters = odata.to_sql(expression, COLUMNS, types, "t.kind")
    query = f"SELECT name FROM t WHERE {condition} ORDER BY id"
    return [row[0] for row in connection.execute(query.encode(), parameters).fetchall()]


def in_memory(expression: odata.Expression) -> list[Any]:
    return [row["name"] for row in ROWS if odata.matches(expression, row, types)]


@pytest.fixture(scope="module")
def filled(postgres: Embedded) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        fill(connection)
        yield connection
        connection.rollback()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("name eq 'ALEX'", ["Alex"]),
        ("startswith(name,'a') and enabled eq true", ["Alex"]),
        ("contains(name,'%')", ["bea%ta"]),
        ("name eq 'O''Neil'", ["O'Neil"]),
        ("not (number gt 0)", ["bea%ta", None]),
        ("not(startsWith(name,'A'))", ["bea%ta", "O'Neil", None]),
        ("number in (1, 300)", ["Alex", "O'Neil"]),
        ("name in ('alex','O''NEIL')", ["Alex", "O'Neil"]),
        ("name eq null", [None]),
        ("null ne name", ["Alex", "bea%ta", "O'Neil"]),
        ("name ne 'alex'", ["bea%ta", "O'Neil", None]),
        ("at ge 2026-01-01T00:00:00.0000000Z", ["Alex", "bea%ta"]),
        ("at le 2026-01-01T02:00:00+02:00", ["Alex", "O'Neil"]),
        ("at le 2026-01-01T02:00:00 02:00", ["Alex", "O'Neil"]),
        ("enabled", ["Alex", "O'Neil"]),
        ("(contains(name,'e') eq true) and enabled ne false", ["Alex", "O'Neil"]),
        ("endsWith(tolower(name),'EIL') or number le -2", ["bea%ta", "O'Neil"]),
        ("tolower(name) eq tolower('ALEX')", ["Alex"]),
        ("state eq microsoft.graph.stateType'INUSE'", ["Alex"]),
        ("state ne 'inuse'", ["bea%ta", "O'Neil", None]),
        ("state eq 'nonsense'", []),
        # lists: of texts, of objects, inside one another
        ("tags/any(t:t eq 'unified')", ["Alex"]),
        ("tags/any()", ["Alex", "O'Neil"]),
        ("tags/all(t:t eq 'x')", ["bea%ta", "O'Neil", None]),
        ("parts/any(p:p/skuId eq 'B' and p/n gt 1)", ["Alex"]),
        ("parts/any(p:p/skuId eq 'a' or startsWith(p/skuId,'B'))", ["Alex", "O'Neil"]),
        ("not parts/any(p:p/n in (5, 6))", ["bea%ta", "O'Neil", None]),
        ("parts/any(p:p/sub/any(s:s/k eq 'Z') and p/n eq 5)", ["Alex"]),
        # documents: by path, of any type
        ("info/inventory eq true", ["Alex"]),
        ("info/inventory", ["Alex"]),
        ("info/deep/er eq 'yes'", ["Alex"]),
        ("info/deep eq null", ["bea%ta", "O'Neil", None]),
        ("info/count ge 6.5", ["Alex"]),
        ("info/count eq '7'", []),
        ("technologies has 'microsoftSense'", ["Alex"]),
        ("technologies eq 'MDM'", ["bea%ta"]),
        ("since gt 2026-01-01", ["Alex"]),
        # types
        ("isof('microsoft.graph.win32LobApp')", ["Alex"]),
        ("isof(microsoft.graph.managedApp)", ["bea%ta"]),
        ("not isof('microsoft.graph.webApp')", ["Alex", "bea%ta"]),
        (
            "(microsoft.graph.managedApp/appAvailability) eq null or name eq 'x'",
            ["Alex", "O'Neil", None],
        ),
        ("(microsoft.graph.managedApp/appAvailability) eq 'lineOfBusiness'", ["bea%ta"]),
    ],
)
def test_a_filter_means_the_same_in_memory_and_in_the_database(
    filled: psycopg.Connection[Any], text: str, names: list[str | None]
) -> None:
    expression = odata.parse_filter(text)
    assert in_memory(expression) == names
    assert in_database(filled, expression) == names


# ---------------------------------------------------------------------------------- any filter

_TEXTS = st.text(alphabet="aAx'%_\\\"; -1", max_size=4)
_LITERALS = st.one_of(
    _TEXTS.map(lambda text: "'" + text.replace("'", "''") + "'"),
    st.sampled_from(["null", "true", "false", "-2", "1", "1.5", "300", "2026-01-01"]),
    st.just("00000000-0000-0000-0000-000000000001"),
)
_OPERATORS = st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le"])
_PATHS = st.sampled_from(["info/inventory", "info/count", "info/deep/er", "since", "technologies"])
_TYPED = st.sampled_from(
    [
        ("name", _TEXTS.map(lambda text: "'" + text.replace("'", "''") + "'")),
        ("number", st.integers(-5, 400).map(str)),
        ("enabled", st.sampled_from(["true", "false", "null"])),
        ("at", st.sampled_from(["2026-01-01", "2025-06-01T00:00:00Z", "null"])),
    ]
)


def _conditions() -> st.SearchStrategy[str]:
    typed = _TYPED.flatmap(
        lambda pair: st.builds(lambda op, v: f"{pair[0]} {op} {v}", _OPERATORS, pair[1])
    )
    free = st.builds(lambda p, op, v: f"{p} {op} {v}", _PATHS, _OPERATORS, _LITERALS)
    tests = st.builds(
        lambda f, v: f"{f}(name,'{v}')",
        st.sampled_from(["startsWith", "ENDSWITH", "contains"]),
        _TEXTS.map(lambda text: text.replace("'", "''")),
    )
    inner = st.builds(
        lambda p, op, v: f"{p} {op} {v}", st.sampled_from(["x/skuId", "x/n"]), _OPERATORS, _LITERALS
    )
    lists = st.builds(lambda q, c: f"parts/{q}(x:{c})", st.sampled_from(["any", "all"]), inner)
    return st.recursive(
        st.one_of(typed, free, tests, lists),
        lambda below: st.one_of(
            below.map(lambda c: f"not ({c})"),
            st.builds(lambda a, b: f"({a}) and {b}", below, below),
            st.builds(lambda a, b: f"({a} or {b})", below, below),
        ),
        max_leaves=8,
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=_conditions())
def test_any_filter_means_the_same_in_memory_and_in_the_database(
    filled: psycopg.Connection[Any], text: str
) -> None:
    expression = odata.parse_filter(text)
    assert in_database(filled, expression) == in_memory(expression)


@given(st.lists(st.sampled_from(_PIECES), max_size=40))
def test_any_pieces_in_any_order_are_a_filter_or_are_refused(pieces: list[str]) -> None:
    with suppress(odata.BadFilter, odata.Unsupported):
        odata.to_sql(odata.parse_filter(" ".join(pieces)), COLUMNS, types, "t.kind")
    with suppress(odata.BadFilter, odata.BadOption):
        odata.parse_query([("$expand", "".join(pieces)), ("$search", " ".join(pieces))])


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    with suppress(odata.BadFilter):
        odata.parse_filter(text)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30))
def test_values_reach_the_database_only_as_parameters(value: str) -> None:
    quoted = value.replace("'", "''")
    expression = odata.parse_filter(f"name eq '{quoted}' or contains(name,'{quoted}')")
    condition, parameters = odata.to_sql(expression, COLUMNS)
    assert (
        condition == "(lower(t.name) = lower(%(f0)s) OR lower((t.name)::text) LIKE lower(%(f1)s))"
    )
    assert parameters["f0"] == value


@pytest.mark.parametrize(
    "text",
    [
        "name eq 'x' or 1=1--",
        "name eq 'x'; DROP TABLE t",
        "name eq 'x') OR (TRUE",
        "t.name eq 'x'",
        "number eq 1 UNION SELECT 1",
        "name eq $1",
        "%(f0)s eq 'x'",
        "info/'a' eq 1",
    ],
)
def test_sql_is_no_filter(text: str) -> None:
    with pytest.raises((odata.BadFilter, odata.Unsupported)):
        odata.to_sql(odata.parse_filter(text), {"name": COLUMNS["name"]})


def test_names_inside_a_document_reach_the_database_only_as_parameters() -> None:
    condition, parameters = odata.to_sql(odata.parse_filter("nonsense/a.b eq 'x'"), COLUMNS)
    assert "nonsense" not in condition
    assert ["nonsense", "a.b"] in parameters.values()


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100,
        "not " * 100 + "enabled",
        "a or " * 600 + "a",
        "tolower(" * 400 + "a" + ")" * 400,
        "a/any(x:" * 40 + "true" + ")" * 40,
        f"number in ({','.join(['1'] * 300)})",
        "name eq '" + "x" * 9000 + "'",
        "number eq " + "9" * 50,
    ],
)
def test_filters_are_bounded(text: str) -> None:
    with pytest.raises(odata.BadFilter):
        odata.parse_filter(text)


def test_options_are_read_with_and_without_their_dollar() -> None:
    query = odata.parse_query(
        [("$select", "id, displayName"), ("top", "5"), ("$count", "true"), ("??$expand", "members")]
    )
    assert query.select == ("id", "displayName")
    assert (query.top, query.count) == (5, True)
    assert query.expand[0].name == "members"


def test_an_expansion_has_its_own_options() -> None:
    text = "members($filter=name eq 'a;b)';$select=id;$top=2;$levels=2),owners"
    (members, owners) = odata.parse_query([("expand", text)]).expand
    assert (members.query.select, members.query.top, owners.name) == (("id",), 2, "owners")
    assert members.query.filter == odata.Compare("eq", odata.Path(("name",)), odata.Literal("a;b)"))
    assert [inner.name for inner in members.query.expand] == ["members"]


def test_a_search_is_words_with_and_without_their_property() -> None:
    search = odata.parse_search('"displayName:wa" AND "mail:x" OR "web"')
    row = {"displayName": "Contoso WA", "mail": "none"}
    assert search is not None
    assert not odata.matches(search, row)
    assert odata.matches(search, {**row, "mail": "x@y"})
    assert odata.matches(search, {"displayName": "webapp"})


@pytest.mark.parametrize(
    "pair",
    [
        ("$top", "-1"),
        ("$top", "x"),
        ("$orderby", "name sideways"),
        ("$apply", "groupby((name))"),
        ("$select", ",".join(["a"] * 201)),
        ("$orderby", ",".join(["a"] * 11)),
        ("$expand", ",".join(["a"] * 21)),
        ("$expand", "a($expand=b($expand=c($expand=d)))"),
        ("$expand", "a($levels=9)"),
        ("$expand", "a($levels=-1)"),
        ("$search", '"unclosed'),
        ("$search", '"a" "b"'),
        ("$search", " AND ".join(['"a"'] * 11)),
    ],
)
def test_bad_options_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(odata.BadOption):
        odata.parse_query([pair])


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)))
def test_times_survive_a_round_trip(moment: datetime) -> None:
    assert odata.parse_time(odata.render(moment)) == moment
