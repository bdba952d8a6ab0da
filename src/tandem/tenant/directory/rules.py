"""Rules that decide who is in a group: `(user.department -eq "Sales") -and (user.country -eq "DE")`.

The language is that of Graph's dynamic groups, of which these parts are served: `user.` and
`device.` properties, `-eq -ne -startsWith -notStartsWith -contains -notContains -match -notMatch
-in -notIn`, `-and -or -not`, brackets, `null`, `true` and `false`. A rule becomes one condition in
SQL, its values parameters. Everything else is refused: a rule that is stored and not followed would
leave a group empty, and exclude or include nobody without a word.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import LarkError, VisitError

from tandem.tenant.directory.model import BadRule
from tandem.tenant.directory.store import USER_TEXTS

LONGEST_RULE = 3072
_DEEPEST = 20

_GRAMMAR = r"""
?start: either
?either: both ("-or"i both)*
?both: negated ("-and"i negated)*
?negated: "-not"i negated -> negation
    | "(" either ")"
    | comparison
comparison: PROPERTY OPERATOR value
    | PROPERTY MEMBERSHIP choices -> membership
choices: "[" text ("," text)* "]" | "(" text ("," text)* ")"
?value: text | CONSTANT -> constant
text: DOUBLE | SINGLE
PROPERTY.2: /(user|device)\.[A-Za-z]+/i
MEMBERSHIP.2: /-(notIn|in)\b/i
OPERATOR: /-(eq|ne|startsWith|notStartsWith|contains|notContains|match|notMatch)\b/i
CONSTANT: /(null|true|false)\b/i
DOUBLE: /"([^"`]|`.)*"/
SINGLE: /'([^']|'')*'/
%import common.WS
%ignore WS
"""

_BOOLEANS = {"user.accountenabled", "device.accountenabled", "device.ismanaged"}
_COLUMNS = {
    **{f"user.{name.lower()}": f"o.profile->>'{name}'" for name in USER_TEXTS},
    "user.usertype": "coalesce(o.profile->>'userType', 'Member')",
    "user.userprincipalname": "o.user_principal_name",
    "user.displayname": "o.display_name",
    "user.mailnickname": "o.mail_nickname",
    "user.usagelocation": "o.usage_location",
    "user.objectid": "o.id::text",
    "user.accountenabled": "o.account_enabled",
    "device.displayname": "o.display_name",
    "device.deviceid": "o.device_id::text",
    "device.objectid": "o.id::text",
    "device.accountenabled": "o.account_enabled",
    "device.deviceostype": "o.operating_system",
    "device.deviceosversion": "o.operating_system_version",
    "device.devicetrusttype": "o.trust_type",
    "device.ismanaged": "o.is_managed",
    "device.managementtype": "CASE WHEN o.is_managed THEN 'MDM' END",
    "device.devicemanufacturer": "o.profile->>'manufacturer'",
    "device.devicemodel": "o.profile->>'model'",
    "device.devicecategory": "o.profile->>'deviceCategory'",
    "device.deviceownership": "coalesce(o.profile->>'deviceOwnership',"
    " CASE o.trust_type WHEN 'Workplace' THEN 'Personal' ELSE 'Company' END)",
    "device.enrollmentprofilename": "o.profile->>'enrollmentProfileName'",
}
_PATTERNS = {"startswith": "{}%", "contains": "%{}%"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on the rows of `table`, called `o`, and its parameters."""

    table: str
    condition: str
    parameters: dict[str, Any]

    @property
    def sort(self) -> str:
        return self.table.removeprefix("directory_")


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr")


@lru_cache(maxsize=512)
def compile_rule(text: str) -> Rule:
    """Raises BadRule, which says what is wrong with the rule or not served here."""
    if len(text) > LONGEST_RULE or text.count("(") > _DEEPEST * 10 or _depth(text) > _DEEPEST:
        raise _bad("it is too long or too deep")
    try:
        tree = _parser().parse(text)
        writer = _Writer()
        condition = writer.transform(tree)
    except VisitError as error:
        if isinstance(error.orig_exc, BadRule):
            raise error.orig_exc from None
        raise _bad("it cannot be read") from None
    except LarkError as error:
        column = getattr(error, "column", 0)
        near = f"at character {column}" if isinstance(column, int) and column > 0 else "at its end"
        raise _bad(f"it cannot be read {near}") from None
    if len(writer.tables) != 1:
        raise _bad("it names both users and devices")
    return Rule(writer.tables.pop(), str(condition), writer.parameters)


def _depth(text: str) -> int:
    deepest = level = 0
    for character in text:
        level += (character == "(") - (character == ")")
        deepest = max(deepest, level)
    return max(deepest, text.lower().count("-not "))


def _bad(reason: str) -> BadRule:
    return BadRule(
        f"The membership rule is not valid here: {reason}.",
        cure='Write user.property -eq "value", with -and, -or, -not and brackets; the operators are'
        " eq, ne, startsWith, contains, match, in and their opposites.",
        target="membershipRule",
    )


class _Writer(Transformer[Token, str]):
    def __init__(self) -> None:
        super().__init__()
        self.parameters: dict[str, Any] = {}
        self.tables: set[str] = set()

    def _bind(self, value: Any) -> str:
        name = f"r{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})s"

    def _column(self, token: Token) -> tuple[str, bool]:
        name = str(token).lower()
        if name not in _COLUMNS:
            raise _bad(f"{token} is not a property that rules can use")
        self.tables.add("directory_" + name.partition(".")[0])
        return _COLUMNS[name], name in _BOOLEANS

    def either(self, parts: list[str]) -> str:
        return "(" + " OR ".join(parts) + ")"

    def both(self, parts: list[str]) -> str:
        return "(" + " AND ".join(parts) + ")"

    def negation(self, parts: list[str]) -> str:
        return f"(({parts[0]}) IS NOT TRUE)"

    def text(self, parts: list[Token]) -> Any:
        raw = str(parts[0])
        inner = raw[1:-1]
        if raw[0] == "'":
            return ("text", inner.replace("''", "'"))
        plain, escaped = [], False
        for character in inner:
            if character == "`" and not escaped:
                escaped = True
                continue
            plain.append(character)
            escaped = False
        return ("text", "".join(plain))

    def constant(self, parts: list[Token]) -> Any:
        word = str(parts[0]).lower()
        return ("constant", {"null": None, "true": True, "false": False}[word])

    def choices(self, parts: list[Any]) -> Any:
        return [value for _, value in parts]

    def membership(self, parts: list[Any]) -> str:
        column, boolean = self._column(parts[0])
        if boolean:
            raise _bad(f"{parts[0]} is true or false, and not in a list")
        wanted = [value.lower() for value in parts[2]]
        condition = f"lower({column}) = ANY({self._bind(wanted)})"
        return condition if str(parts[1]).lower() == "-in" else f"(({condition}) IS NOT TRUE)"

    def comparison(self, parts: list[Any]) -> str:
        column, boolean = self._column(parts[0])
        operator = str(parts[1]).lower().removeprefix("-")
        sort, value = parts[2]
        if boolean and sort == "text" and str(value).lower() in ("true", "false"):
            value = str(value).lower() == "true"
        if boolean != isinstance(value, bool) and value is not None:
            raise _bad(f"{parts[0]} cannot be compared with that value")
        negated = operator.startswith("not") or operator == "ne"
        condition = self._positive(column, operator.removeprefix("not"), value)
        return f"(({condition}) IS NOT TRUE)" if negated else f"({condition})"

    def _positive(self, column: str, operator: str, value: Any) -> str:
        if operator in ("eq", "ne"):
            if value is None:
                return f"({column}) IS NULL"
            if isinstance(value, bool):
                return f"({column}) = {self._bind(value)}"
            return f"lower({column}) = lower({self._bind(value)})"
        if not isinstance(value, str):
            raise _bad(f"-{operator} needs a text")
        if operator == "match":
            return f"({column}) ~* {self._bind(_pattern(value))}"
        escaped = value.lower().replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
        return f"lower({column}) LIKE {self._bind(_PATTERNS[operator].format(escaped))}"


def _pattern(text: str) -> str:
    """A regular expression that PostgreSQL can read and that cannot run away: it backtracks only
    for back references, which rules do not need."""
    if len(text) > 200 or any(f"\\{digit}" in text for digit in range(1, 10)):
        raise _bad("its -match is too long or refers back")
    return text
