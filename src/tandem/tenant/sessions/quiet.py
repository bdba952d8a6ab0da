"""Sessions in which nothing is new, as most are: two statements for each message, and no transaction.

A device says hello as it did before, is asked what the site's client says of itself, answers as it did
before, and there is nothing to do. That there is nothing to do is not computed again: the session keeps
the snapshot of the database in which it was, and the table `sessions_change` the transactions that have
changed since what devices are to have. Whatever is not exactly so goes the long way.
"""

from datetime import datetime, timedelta
from hashlib import sha256

import msgspec

from tandem import pki
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.protocols import syncml
from tandem.protocols.syncml import Message
from tandem.tenant.enrollment import CONFIG_INFO_URI
from tandem.tenant.sessions import model, store
from tandem.tenant.sessions.model import Sent
from tandem.tenant.sessions.store import Standing

_ASKED = Sent("ask", CONFIG_INFO_URI)
_HELLO = {"1200", "1201", "1224"}


class Quiet:
    """Answers what it can without a transaction."""

    def __init__(self, now: Clock, url: str) -> None:
        self._now = now
        self._url = url

    async def answer(
        self, connection: Tx, certificate: bytes | None, message: Message
    ) -> bytes | None:
        """The answer; None, and nothing done, for a message that brings or needs anything.

        `connection` commits each statement by itself.
        """
        if certificate is None or not message.final or message.number > 2:
            return None
        found = await store.standing(connection, pki.sha256_fingerprint(certificate), self._now())
        if found is None or found.windows_id != message.source:
            return None
        if message.number == 1:
            return await self._hello(connection, found, message)
        return await self._nothing(connection, found, message)

    async def _hello(self, connection: Tx, known: Standing, message: Message) -> bytes | None:
        """The first message: the question is what the site's client says of itself."""
        now = self._now()
        if (
            (message.session, message.number) == (known.session, known.number)
            or message.statuses
            or message.results
            or inventory_is_old(known.inventory, known.inventory_at, now)
            or not all(_says_nothing(command, known) for command in message.commands)
        ):
            return None
        statuses = model.statuses(message)
        made, sent = model.commands(model.questions(False), len(statuses) + 1)
        answer = self._written(message, made, statuses)
        done = await store.begin_quietly(
            connection, known, message, answer, {"1": sent}, digest(message), now
        )
        return answer if done else None

    async def _nothing(self, connection: Tx, known: Standing, message: Message) -> bytes | None:
        """The second one: the answer is known already, and nothing has changed."""
        asked = known.sent.get("1", {})
        if (
            (message.session, 1) != (known.session, known.number)
            or message.commands
            or list(asked.values()) != [_ASKED]
            or _config_info(message, *asked) != known.config_info
        ):
            return None
        answer = self._written(message, [], model.statuses(message))
        done = await store.end_quietly(connection, known, answer, self._now())
        return answer if done else None

    def _written(
        self,
        message: Message,
        commands: list[syncml.Command],
        statuses: list[syncml.Status],
    ) -> bytes:
        return syncml.write(
            Message(
                message.session,
                message.number,
                message.source,
                self._url,
                tuple(commands),
                tuple(statuses),
            )
        )


def digest(message: Message) -> str:
    """Of a message as it was understood: white space and prefixes say nothing."""
    return sha256(msgspec.json.encode(message)).hexdigest()


def inventory_is_old(
    inventory: dict[str, object], inventory_at: datetime | None, now: datetime
) -> bool:
    """Whether a device is to be asked for all of it."""
    return (
        inventory_at is None
        or now - inventory_at > timedelta(hours=24)
        or "serial_number" not in inventory
    )


def _says_nothing(command: syncml.Command, known: Standing) -> bool:
    """A greeting, or what the device said of itself before."""
    if command.name == "Alert":
        return command.data in _HELLO and all(
            item.type.endswith("LoginStatus") for item in command.items
        )
    if command.name != "Replace":
        return False
    for item in command.items:
        uri, value = syncml.normal(item.source or item.target), item.data or ""
        if uri == _DEVICE_ID:
            if value.strip() != known.windows_id:
                return False
            continue
        name = _DEVICE_INFO.get(uri)
        if name is None or known.inventory.get(name) != model.inventory_value(name, value):
            return False
    return True


_DEVICE_ID = syncml.normal(model.DEVICE_ID)
_DEVICE_INFO = {syncml.normal(uri): name for uri, name in model.DEVICE_INFO.items()}
_CONFIG_INFO = syncml.normal(CONFIG_INFO_URI)


def _config_info(message: Message, command_id: str) -> str | None:
    """What the one question was answered with; None when that is not all that is said."""
    codes = {item.command_ref: item.code for item in message.statuses if item.message_ref == "1"}
    if len(codes) != len(message.statuses) or set(codes) != {"0", command_id}:
        return None
    if codes["0"] not in (200, 212):
        return None
    items = [item for result in message.results for item in result.items]
    if codes[command_id] == 404 and not message.results:
        return ""
    if codes[command_id] != 200 or len(items) != 1 or len(message.results) != 1:
        return None
    result, item = message.results[0], items[0]
    if (result.message_ref, result.command_ref) != ("1", command_id):
        return None
    if syncml.normal(item.source or item.target or CONFIG_INFO_URI) != _CONFIG_INFO:
        return None
    return (item.data or "").strip()[:4096]
