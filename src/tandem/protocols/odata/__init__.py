"""OData v4 as Microsoft Graph and the AdminService speak it: query options in, conditions out.

    GET /v1.0/users?$filter=startswith(displayName,'A') and accountEnabled eq true
                   &$select=id,displayName&$top=50&$count=true
    200 {"@odata.context": …, "@odata.count": 83, "value": […], "@odata.nextLink": …$skiptoken=…}

`parse_query` reads the options, `parse_filter` the condition. A condition is either turned into
SQL with bound parameters (`to_sql`) or asked about a row in memory (`matches`): both give the same
answer, and a test holds them together. Grammar: OData 4.01 part 2 (URL conventions), section 5.1.
"""

from tandem.protocols.odata.expressions import (
    And,
    BadFilter,
    Compare,
    Expression,
    Function,
    In,
    Lambda,
    Literal,
    Not,
    Or,
    Path,
    parse_filter,
)
from tandem.protocols.odata.memory import Types, matches
from tandem.protocols.odata.options import (
    BadOption,
    Expand,
    Order,
    Query,
    parse_query,
    parse_search,
)
from tandem.protocols.odata.sql import REST, Column, Unsupported, to_sql
from tandem.protocols.odata.values import Primitive, parse_time, read_literal, render

__all__ = [
    "REST",
    "And",
    "BadFilter",
    "BadOption",
    "Column",
    "Compare",
    "Expand",
    "Expression",
    "Function",
    "In",
    "Lambda",
    "Literal",
    "Not",
    "Or",
    "Order",
    "Path",
    "Primitive",
    "Query",
    "Types",
    "Unsupported",
    "matches",
    "parse_filter",
    "parse_query",
    "parse_search",
    "parse_time",
    "read_literal",
    "render",
    "to_sql",
]
