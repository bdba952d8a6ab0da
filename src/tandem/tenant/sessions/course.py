"""How a session goes: its limits, what broke it off, and what is set aside because of that.

Decided from values alone. A command that a device never answers must not keep it from the rest:
after two sessions that broke off at an answer of ours, commands go out one at a time, so the one at
which sessions end is known; after three times it is set aside until somebody releases it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256

import msgspec

from tandem.protocols.syncml import Item, Message
from tandem.tenant.sessions.actions import WIPES
from tandem.tenant.sessions.model import FIRST, Order, Sent
from tandem.workloads import is_secret

# Levels of section 11.7. What a device gets below SIGNATURE holds no secrets.
CERTIFICATE, SIGNATURE, DIGEST = 1, 2, 3

# Section 20: what one session may cost.
MESSAGES = 200
ITEMS = 10_000
BYTES = 4 * 1024 * 1024
# One object at a time, in parts (section 11.8).
OBJECT_BYTES = 1024 * 1024
# What we announce as the largest message that we take, and what devices announce.
MAX_MESSAGE_BYTES = 512 * 1024

# Enough commands to make round trips rare, few enough for a device that runs them in order.
BATCH = 60
# What several commands fill at most: a slow device answers all of them or none.
_ROOM_BYTES = 256 * 1024
# An announcement below this is nonsense: not even our statuses would fit.
_LEAST_BYTES = 4096
# Around a command: its element, target, format and type; around a message: header and Final.
_AROUND_COMMAND, _AROUND_MESSAGE, _STATUS_BYTES = 384, 1024, 160

_CAREFUL_AFTER = 2
_ASIDE_AFTER = 3
# No Status comes for an unenrolment when all is well (section 14). And a device that begins anew
# without having answered questions lost its connection: what is asked is harmless.
_SILENT = ("unenroll", "ask")


class Course(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session is like. `lost`, `suspect`, `times` and `holds` outlive it.

    `max_bytes` is the device's MaxMsgSize; `user`: somebody is signed in to it. `connection` is
    where a session of level DIGEST came from. `object` is the node whose data comes in parts.
    `nonce` is what the device has us prove ourselves with, `asked` how often it did. `questions`
    are nodes that did not fit into the first answer. `complete` is the snapshot of the database in
    which the last answer held all that was to do.
    """

    max_bytes: int = 0
    user: bool = False
    level: int = CERTIFICATE
    connection: str = ""
    items: int = 0
    bytes: int = 0
    object: str = ""
    nonce: str = ""
    asked: int = 0
    questions: tuple[str, ...] = ()
    lost: int = 0
    suspect: str = ""
    times: int = 0
    holds: bool = False
    complete: str = ""


NEW = Course()


class Lost(msgspec.Struct, frozen=True):
    """A command at which the device's sessions broke off."""

    sent: Sent
    times: int


def weighed(course: Course, message: Message, size: int) -> Course:
    """With a message of the device counted."""
    items = len(message.statuses) + sum(len(item.items) for item in message.results)
    items += sum(len(each.items) for command in message.commands for each in command.each)
    return msgspec.structs.replace(
        course,
        items=course.items + items,
        bytes=course.bytes + size,
        max_bytes=message.max_size or course.max_bytes,
    )


def over(course: Course, number: int) -> bool:
    return number > MESSAGES or course.items > ITEMS or course.bytes > BYTES


def unanswered(sent: Iterable[Sent]) -> list[Sent]:
    """Commands whose Status should have come."""
    return [
        one
        for one in sent
        if one.kind not in _SILENT and not (one.kind == "action" and one.subject in WIPES)
    ]


def lose(course: Course, sent: Sequence[Sent]) -> tuple[Course, Lost | None]:
    """After a message whose commands were not answered. Returns, too, what is set aside."""
    left = unanswered(sent)
    if not left:
        return msgspec.structs.replace(course, lost=0, suspect="", times=0), None
    one = left[-1]
    alone = len({(item.subject, item.order) for item in left}) == 1
    name = mark(one) if alone else ""
    times = course.times + 1 if name and name == course.suspect else int(alone)
    if times >= _ASIDE_AFTER:
        return msgspec.structs.replace(course, suspect="", times=0, holds=True), Lost(one, times)
    return msgspec.structs.replace(course, lost=course.lost + 1, suspect=name, times=times), None


def mark(sent: Sent) -> str:
    """A short name of a command that is the same whenever it is computed."""
    text = f"{sent.kind}\n{sent.subject}\n{sent.order}\n{sent.value}"
    return sha256(text.encode()).hexdigest()[:24]


def begins(before: Course | None) -> Course:
    """What the next session knows of the ones before."""
    if before is None:
        return Course()
    return Course(lost=before.lost, suspect=before.suspect, times=before.times, holds=before.holds)


def units(orders: Iterable[Order]) -> list[list[Order]]:
    """Orders that go together: an Add and what is done with the node (section 12.3)."""
    made: list[list[Order]] = []
    for order in orders:
        last = made[-1][-1].sent if made else order.sent
        if last.kind == FIRST and last is not order.sent:
            made[-1].append(order)
            continue
        made.append([order])
    return made


def without(orders: Iterable[Order], held: Mapping[tuple[str, str], str]) -> list[Order]:
    """Orders without those that are set aside. Another value is another order."""
    kept: list[Order] = []
    for unit in units(orders):
        main = unit[-1].sent
        if held.get((main.kind, main.subject)) != value_mark(main):
            kept += unit
    return kept


def value_mark(sent: Sent) -> str:
    return sha256(f"{sent.order}\n{sent.value}".encode()).hexdigest()[:24]


# What holds secrets: links that need no sign-in, and command lines of administrators.
_SECRET_KINDS = (FIRST, "install")


def allowed(orders: Sequence[Order], level: int) -> list[Order]:
    """What a device gets that proved itself in this way: by MD5 alone, nothing secret (11.7)."""
    if level < DIGEST:
        return list(orders)
    return [
        one
        for one in orders
        if one.sent.kind not in _SECRET_KINDS
        and not (one.sent.kind == "setting" and is_secret(one.sent.subject, one.item.data or ""))
    ]


def proves_less(level: int, before: int) -> bool:
    """Whether an answer may hold what a device that proves itself in this way does not get."""
    return level >= DIGEST > before


def room(course: Course, statuses: int) -> int:
    """How many bytes of commands the next message to this device takes at most."""
    most = max(course.max_bytes, _LEAST_BYTES) if course.max_bytes else MAX_MESSAGE_BYTES
    return most - _AROUND_MESSAGE - _STATUS_BYTES * statuses


def batch(
    orders: Iterable[Order], done: Collection[Sent], course: Course, statuses: int
) -> tuple[list[Order], list[Order]]:
    """What of it goes into the next message, and what fits into none of this device's.

    What this session has asked for already stays out, and so do settings of the user while
    nobody is signed in (section 11.6).
    """
    chosen: list[Order] = []
    too_large: list[Order] = []
    whole, here = room(course, 0), room(course, statuses)
    left = min(here, _ROOM_BYTES)
    careful = course.lost >= _CAREFUL_AFTER
    for unit in units(orders):
        most = 1 if careful and unit[0].sent.kind != "ask" else BATCH
        if all(order.sent in done for order in unit):
            continue
        if not course.user and any(_of_the_user(order) for order in unit):
            continue
        size = sum(weight(order) for order in unit)
        if size > whole:
            too_large += unit
            continue
        if chosen and (size > left or len(chosen) + len(unit) > most):
            break
        if size > here:
            break  # Even the first one: this message is all statuses.
        left -= size
        chosen += unit
    return chosen, too_large


def _of_the_user(order: Order) -> bool:
    return any(one.item.target.lower().startswith("./user/") for one in order.each)


def weight(order: Order) -> int:
    """At most so many bytes of the message."""
    return sum(_AROUND_COMMAND + _bytes(one.item) for one in order.each)


def _bytes(item: Item) -> int:
    text = item.data or ""
    # What XML writes longer: & as &amp;, < and > as &lt; and &gt;, a carriage return as &#13;.
    longer = 4 * (text.count("&") + text.count("\r")) + 3 * (text.count("<") + text.count(">"))
    return len(text.encode()) + longer + 2 * len(item.target.encode())
