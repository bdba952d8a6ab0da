"""Query options and filters; the two ways to evaluate a filter agree."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.infra.database import Tx
from tandem.protocols import odata
from tandem.protocols.odata import Column, Primitive

COLUMNS = {
    "name": Column("t.name"),
    "enabled": Column("t.enabled", Primitive.BOOLEAN),
    "number": Column("t.number", Primitive.INTEGER),
    "at": Column("t.at", Primitive.TIME),
}
ROWS: list[dict[str, Any]] = [
    {"name": "Alex", "enabled": True, "number": 1, "at": datetime(2026, 1, 1, tzinfo=UTC)},
    {"name": "bea%ta", "enabled": False, "number": -2, "at": datetime(2026, 6, 1, tzinfo=UTC)},
    {"name": "O'Neil", "enabled": True, "number": 300, "at": datetime(2025, 1, 1, tzinfo=UTC)},
    {"name": None, "enabled": None, "number": None, "at": None},
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("name eq 'ALEX'", ["Alex"]),
        ("startswith(name,'a') and enabled eq true", ["Alex"]),
        ("contains(name,'%')", ["bea%ta"]),
        ("name eq 'O''Neil'", ["O'Neil"]),
        ("not (number gt 0)", ["bea%ta", None]),
        ("number in (1, 300)", ["Alex", "O'Neil"]),
        ("name eq null", [None]),
        ("name ne 'alex'", ["bea%ta", "O'Neil", None]),
        ("at ge 2026-01-01T00:00:00.0000000Z", ["Alex", "bea%ta"]),
        ("enabled", ["Alex", "O'Neil"]),
        ("endsWith(tolower(name),'EIL') or number le -2", ["bea%ta", "O'Neil"]),
    ],
)
async def test_a_filter_means_the_same_in_memory_and_in_the_database(
    tenant_tx: Tx, text: str, names: list[str | None]
) -> None:
    expression = odata.parse_filter(text)
    assert [row["name"] for row in ROWS if odata.matches(expression, row)] == names
    condition, parameters = odata.to_sql(expression, COLUMNS)
    await tenant_tx.execute(
        "CREATE TEMPORARY TABLE t (id serial, name text, enabled bool, number int, at timestamptz)"
    )
    for row in ROWS:
        await tenant_tx.execute(
            "INSERT INTO t (name, enabled, number, at)"
            " VALUES (%(name)s, %(enabled)s, %(number)s, %(at)s)",
            row,
        )
    query = f"SELECT name FROM t WHERE {condition} ORDER BY id"
    cursor = await tenant_tx.execute(query.encode(), parameters)
    assert [row["name"] for row in await cursor.fetchall()] == names


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    with suppress(odata.BadFilter):
        odata.parse_filter(text)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30))
def test_values_reach_the_database_only_as_parameters(value: str) -> None:
    quoted = value.replace("'", "''")
    condition, parameters = odata.to_sql(odata.parse_filter(f"name eq '{quoted}'"), COLUMNS)
    assert condition == "lower(t.name) = lower(%(f0)s)"
    assert parameters == {"f0": value}


@pytest.mark.parametrize("text", ["(" * 100, "not " * 100 + "enabled", "a or " * 600 + "a"])
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


@pytest.mark.parametrize("pair", [("$top", "-1"), ("$top", "x"), ("$orderby", "name sideways")])
def test_bad_options_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(odata.BadOption):
        odata.parse_query([pair])


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)))
def test_times_survive_a_round_trip(moment: datetime) -> None:
    assert odata.parse_time(odata.render(moment)) == moment
