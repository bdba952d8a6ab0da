"""One line of a log file as administrators' log viewers read it.

    <![LOG[message]LOG]!><time="13:07:09.123+000" date="11-24-2026" component="X" context=""
        type="1" thread="0" file="">

`time` carries the offset from UTC in minutes with the sign that the viewers expect: minutes to add
to the shown time to get UTC. We write UTC, so it is always +000.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

INFORMATION, WARNING, ERROR = 1, 2, 3

_LINE = re.compile(
    r'^<!\[LOG\[(?P<message>.*)\]LOG\]!><time="(?P<time>[^"+-]+)[+-]\d+" date="(?P<date>[^"]+)" '
    r'component="(?P<component>[^"]*)" context="[^"]*" type="(?P<severity>\d)" '
    r'thread="(?P<thread>\d+)" file="(?P<file>[^"]*)">$',
    re.DOTALL,
)


def line(
    message: str,
    component: str,
    at: datetime,
    severity: int = INFORMATION,
    thread: int = 0,
    file: str = "",
) -> str:
    """The line without its end. What would break the frame out of a message is made harmless."""
    moment = at.astimezone(UTC)
    return (
        f"<![LOG[{_safe(message)}]LOG]!>"
        f'<time="{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}+000" date="{moment:%m-%d-%Y}" '
        f'component="{_attribute(component)}" context="" type="{severity}" thread="{thread}" '
        f'file="{_attribute(file)}">'
    )


def lines(messages: Iterable[tuple[float, str]], component: str) -> Iterator[str]:
    """Lines of many messages, each with its time in seconds since 1970; cheaper than one by one."""
    second, clock, day = -1, "", ""
    rest = f'component="{_attribute(component)}" context="" type="1" thread="0" file="">'
    for at, message in messages:
        whole = int(at)
        if whole != second:
            moment = datetime.fromtimestamp(whole, UTC)
            second, clock, day = whole, f"{moment:%H:%M:%S}", f"{moment:%m-%d-%Y}"
        yield (
            f"<![LOG[{_safe(message)}]LOG]!>"
            f'<time="{clock}.{int((at - whole) * 1000):03d}+000" date="{day}" {rest}'
        )


def _safe(message: str) -> str:
    """Nobody who only chooses a message may forge a second line."""
    if message.isprintable() and "]LOG]!>" not in message:
        return message
    return message.replace("\r", " ").replace("\n", " ").replace("]LOG]!>", "]LOG]! >")


def _attribute(value: str) -> str:
    return value.replace('"', "'").replace("\n", " ").replace("\r", " ")


def message_of(text: str) -> str | None:
    """The message of a line, or None when the line has not this form."""
    found = _LINE.match(text.rstrip("\r\n"))
    return found["message"] if found else None


__all__ = ["ERROR", "INFORMATION", "WARNING", "line", "lines", "message_of"]
