"""Query rules: `select * from SMS_R_System where …`, the part of WQL that rules are written in.

    where Name like 'LAB-%' and not (OperatingSystemNameandVersion = 'Windows 10.0.19045')
    where SMS_R_System.ClientVersion >= '0.1' or NetbiosName in ('A', 'B')
    where Name like 'LAB-00[1-4]'

A query becomes an SQL condition over columns that are named here; every value is a parameter.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput
from lark.exceptions import LarkError

from tandem.site.collections.model import BadQuery

_LIMIT = 4096
# Nested deeper than people write, shallower than the interpreter's stack.
_MAX_DEPTH = 40

_GRAMMAR = r"""
    start: "select"i columns "from"i table ["where"i condition]
    columns: "distinct"i? attribute ("," attribute)*
    attribute: (NAME ".")? (NAME | "*")
    table: NAME

    ?condition: conjunction ("or"i conjunction)*          -> any_of
    ?conjunction: term ("and"i term)*                     -> all_of
    ?term: "not"i term                                    -> negation
         | "(" condition ")"
         | comparison
    comparison: column OPERATOR literal                   -> compare
              | column "like"i literal                    -> like
              | column "not"i "like"i literal             -> not_like
              | column "in"i "(" literal ("," literal)* ")"  -> one_of
              | column "is"i "null"i                      -> is_null
              | column "is"i "not"i "null"i               -> is_not_null
    column: (NAME ".")? NAME
    literal: STRING | NUMBER

    OPERATOR: "<=" | ">=" | "<>" | "!=" | "=" | "<" | ">"
    STRING: "'" /[^']*/ "'" | "\"" /[^"]*/ "\""
    NUMBER: /-?[0-9]{1,18}/
    NAME.-1: /[A-Za-z_][A-Za-z0-9_]*/
    %import common.WS
    %ignore WS
"""

# Attributes of SMS_R_System, with the SQL that each one is.
_COLUMNS = {
    "name": "r.name",
    "netbiosname": "r.name",
    "resourceid": "r.id",
    "smsuniqueidentifier": "r.client_id",
    "clientversion": "r.client_version",
    "client": "CASE WHEN r.client_id <> '' THEN 1 ELSE 0 END",
    "operatingsystemnameandversion": "trim(r.os_name || ' ' || r.os_version)",
    "operatingsystem": "r.os_name",
    "build": "r.os_version",
    "aaddeviceid": "r.device_id",
    "aadtenantid": "r.tenant_id",
}
_NUMBERS = {"resourceid", "client"}


@dataclass(frozen=True, slots=True)
class Condition:
    """SQL over `r` with %s placeholders, and their values. A `%` in the SQL is doubled."""

    sql: str
    values: tuple[Any, ...] = ()


class _Text(str):
    """A text of the query that knows where it stands."""

    at: int = 0


class _Number(int):
    at: int = 0


@lru_cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=True)


@lru_cache(maxsize=1024)
def compile_query(text: str) -> Condition:
    """Raises BadQuery, which says where: `at` is the character, counted from 1."""
    if len(text) > _LIMIT:
        raise BadQuery(f"A query has at most {_LIMIT} characters.")
    if "\x00" in text:
        raise BadQuery("A query has no NUL characters.")
    if _depth(text) > _MAX_DEPTH:
        raise BadQuery(f"The query has more than {_MAX_DEPTH} parentheses inside each other.")
    try:
        compiled = _Compiler().transform(_parser().parse(text))
    except UnexpectedInput as error:
        at = _place(error, text)
        found = text[at - 1 : at + 19].split("\n")[0]
        raise BadQuery(
            f"The query cannot be read at character {at}"
            + (f": {found!r} was not expected there." if found else ", its end."),
            cure="Write it like: select * from SMS_R_System where Name like 'LAB-%'.",
            at=at,
        ) from None
    except LarkError as error:
        cause = error.__context__ or error.__cause__
        if isinstance(getattr(error, "orig_exc", None), BadQuery):
            raise error.orig_exc from None  # type: ignore[attr-defined]
        raise BadQuery(f"The query cannot be read: {cause or error}.") from None
    assert isinstance(compiled, Condition)
    return compiled


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


class _Compiler(Transformer[Token, Any]):
    def start(self, parts: list[Any]) -> Condition:
        condition = parts[-1]
        return condition if isinstance(condition, Condition) else Condition("true")

    def columns(self, _: list[Any]) -> None:
        return None

    def attribute(self, _: list[Any]) -> None:
        return None

    def table(self, parts: list[Token]) -> None:
        if parts[0].lower() != "sms_r_system":
            raise BadQuery(
                f"Queries of device collections read SMS_R_System, not {parts[0]}.",
                cure="Write: select * from SMS_R_System where …",
                at=_start(parts[0]),
            )

    def column(self, parts: list[Token | None]) -> str:
        names = [part for part in parts if part is not None]
        if len(names) == 2 and names[0].lower() not in {"sms_r_system", "sys"}:
            raise BadQuery(
                f"The query does not read {names[0]}.",
                cure="Write SMS_R_System before the attribute, or nothing.",
                at=_start(names[0]),
            )
        name = names[-1].lower()
        if name not in _COLUMNS:
            raise BadQuery(
                f"SMS_R_System has no attribute {names[-1]}.",
                cure="Take Name, ClientVersion, OperatingSystemNameandVersion, ResourceId,"
                " SMSUniqueIdentifier, AADDeviceID or AADTenantID.",
                at=_start(names[-1]),
            )
        return name

    def literal(self, parts: list[Token]) -> str | int:
        text = str(parts[0])
        value = _Number(text) if parts[0].type == "NUMBER" else _Text(text[1:-1])
        value.at = _start(parts[0])
        return value

    def compare(self, parts: list[Any]) -> Condition:
        name, operator, value = parts
        sql = "<>" if operator == "!=" else str(operator)
        return self._one(name, f"{sql} %s", value)

    def like(self, parts: list[Any]) -> Condition:
        name, value = parts
        if name in _NUMBERS:
            raise BadQuery(
                "ResourceId and Client are numbers: like compares text.",
                cure="Compare with =.",
                at=value.at,
            )
        operator, pattern = _pattern(value)
        return self._one(name, operator, pattern)

    def not_like(self, parts: list[Any]) -> Condition:
        found = self.like(parts)
        return Condition(f"(NOT {found.sql})", found.values)

    def one_of(self, parts: list[Any]) -> Condition:
        name, *values = parts
        places = ", ".join(["%s"] * len(values))
        expression, folded = _fold(name, values)
        return Condition(f"{expression} IN ({places})", tuple(folded))

    def is_null(self, parts: list[Any]) -> Condition:
        return Condition(f"coalesce({_COLUMNS[parts[0]]}::text, '') = ''")

    def is_not_null(self, parts: list[Any]) -> Condition:
        return Condition(f"coalesce({_COLUMNS[parts[0]]}::text, '') <> ''")

    def negation(self, parts: list[Condition]) -> Condition:
        return Condition(f"(NOT {parts[0].sql})", parts[0].values)

    def any_of(self, parts: list[Condition]) -> Condition:
        return _joined(" OR ", parts)

    def all_of(self, parts: list[Condition]) -> Condition:
        return _joined(" AND ", parts)

    def _one(self, name: str, rest: str, value: Any) -> Condition:
        expression, folded = _fold(name, [value])
        return Condition(f"{expression} {rest}", tuple(folded))


def _start(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _fold(name: str, values: list[Any]) -> tuple[str, list[Any]]:
    """Text is compared without regard to case, as WQL does."""
    if name in _NUMBERS:
        return _COLUMNS[name], [_number(value) for value in values]
    return f"lower({_COLUMNS[name]})", [str(value).lower() for value in values]


def _number(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise BadQuery(
            "ResourceId and Client are compared with numbers.",
            cure="Write a number, without quotes.",
            at=getattr(value, "at", 0),
        ) from None


# One character out of a set, or out of none of it: [0-9], [^abc].
_SET = re.compile(r"\[\^?((?:[a-z0-9 ._](?:-[a-z0-9 ._])?)+)\]")
_RANGE = re.compile("(.)-(.)")


def _pattern(value: Any) -> tuple[str, str]:
    """WQL's % and _ are SQL's, a backslash is only a character, and sets take a regular expression."""
    text = str(value).lower()
    if "[" not in text:
        return "LIKE %s", text.replace("\\", "\\\\")
    said, place = "", 0
    while place < len(text):
        found = _SET.match(text, place)
        if found and all(first <= last for first, last in _RANGE.findall(found[1])):
            said += found[0]
            place = found.end()
            continue
        if text[place] == "[":
            raise BadQuery(
                f"The pattern {value!r} has a [ that begins no set of characters.",
                cure="Write sets like [0-9], [a-f] or [^x].",
                at=getattr(value, "at", 0),
            )
        said += {"%": ".*", "_": "."}.get(text[place]) or _literal(text[place])
        place += 1
    return "~ %s", f"^{said}$"


def _literal(character: str) -> str:
    """One character of a regular expression that stands for itself."""
    special = character.isascii() and not character.isalnum()
    return f"\\{character}" if special else character


def _joined(word: str, parts: list[Condition]) -> Condition:
    if len(parts) == 1:
        return parts[0]
    sql = word.join(part.sql for part in parts)
    return Condition(f"({sql})", tuple(value for part in parts for value in part.values))
