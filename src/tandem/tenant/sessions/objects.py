"""Data of a device that is larger than its messages, and comes in parts (section 11.8).

Results or Replace, Item with Size and MoreData  →
                                                 ←  213, Alert 1222: the next part, please
the same node again, with or without MoreData    →
                                                 ←  213 and 1222, or nothing more: it is whole
"""

from dataclasses import dataclass, field, replace

import msgspec

from tandem.infra.database import Tx
from tandem.protocols import syncml
from tandem.protocols.syncml import Command, Item, Message, Results
from tandem.tenant.sessions import store
from tandem.tenant.sessions.course import OBJECT_BYTES, Course

NEXT, NO_END = "1222", "1225"
_PART, _NO_SIZE, _TOO_LARGE, _OTHER_SIZE = 213, 411, 413, 424


@dataclass(slots=True)
class Parts:
    """A message whose items are whole. `codes` are the statuses that parts get, by the id of their
    command or Results; `alerts` are ours."""

    message: Message
    course: Course
    codes: dict[str, int] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)


async def assembled(tx: Tx, device_id: str, course: Course, message: Message) -> Parts:
    made = Parts(message, course)
    containers: list[Command | Results] = [*message.results, *message.commands]
    if not course.object and not any(item.more for one in containers for item in one.items):
        return made
    reading = _Reading(tx, device_id, course.object, made)
    results = [await reading.whole(one, one.items) for one in message.results]
    commands = [await reading.whole(one, one.items) for one in message.commands]
    if course.object and not reading.went_on and message.final:
        made.alerts.append(NO_END)
        await reading.drop()
    made.message = replace(
        message,
        results=tuple(one for one in results if isinstance(one, Results)),
        commands=tuple(one for one in commands if isinstance(one, Command)),
    )
    made.course = msgspec.structs.replace(course, object=reading.open)
    return made


class _Reading:
    def __init__(self, tx: Tx, device_id: str, open_: str, made: Parts) -> None:
        self._tx = tx
        self._device_id = device_id
        self._made = made
        self.open = open_
        self.went_on = False

    async def whole(
        self, one: Command | Results, items: tuple[Item, ...]
    ) -> Command | Results | None:
        """With those items that are whole; None when there is none but parts."""
        kept = [done for item in items if (done := await self._item(one, item)) is not None]
        if len(kept) == len(items) and all(
            new is old for new, old in zip(kept, items, strict=True)
        ):
            return one
        return replace(one, items=tuple(kept)) if kept else None

    async def _item(self, one: Command | Results, item: Item) -> Item | None:
        name = syncml.normal(item.source or item.target)[:512]
        if self.open and name == self.open:
            return await self._goes_on(one, item)
        if not item.more:
            return item
        if self.open:
            self._made.alerts.append(NO_END)
            await self.drop()
        data = item.data or ""
        if not item.size:
            self._made.codes[one.id] = _NO_SIZE
        elif item.size > OBJECT_BYTES or len(data) > item.size:
            self._made.codes[one.id] = _TOO_LARGE
        else:
            await store.begin_object(self._tx, self._device_id, item.size, data)
            self.open, self.went_on = name, True
            self._ask(one)
        return None

    async def _goes_on(self, one: Command | Results, item: Item) -> Item | None:
        self.went_on = True
        size, data = await store.add_part(self._tx, self._device_id, item.data or "", OBJECT_BYTES)
        if item.more and len(data) <= size:
            self._ask(one)
            return None
        await self.drop()
        # Some count characters, some the bytes of UTF-8.
        if size not in (len(data), len(data.encode())):
            self._made.codes[one.id] = _OTHER_SIZE
            return None
        return replace(item, data=data, more=False, size=size)

    def _ask(self, one: Command | Results) -> None:
        self._made.codes[one.id] = _PART
        self._made.alerts.append(NEXT)

    async def drop(self) -> None:
        await store.end_object(self._tx, self._device_id)
        self.open = ""
