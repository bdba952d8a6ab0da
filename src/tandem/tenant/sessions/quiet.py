"""Sessions in which nothing is new, as most are: one statement for each message, and one row written.

A device says hello as it did before, is asked what the site's client says of itself, answers as it did
before, and there is nothing to do. That there is nothing to do is not computed again: the session keeps
the snapshot of the database in which it was, and the table `sessions_change` the transactions that have
changed since what devices are to have. Whatever is not exactly so goes the long way.

The first message is remembered and not written: the second one writes the session that both are. What
becomes of it in between, as when the service restarts, is what becomes of a connection that breaks:
the device's second message is not heard, and it comes again.
"""

from collections import OrderedDict
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
from tandem.tenant.sessions.course import Course
from tandem.tenant.sessions.store import Begun

INVENTORY_EVERY = timedelta(hours=24)
_HELLO = {"1200", "1201", "1224"}


# So many sessions wait for their second message at once; older ones are written down for it.
_MOST = 10_000


class Quiet:
    """Answers what it can without a transaction."""

    def __init__(self, now: Clock, url: str) -> None:
        self._now = now
        self._url = url
        # By the fingerprint of the device's certificate.
        self._begun: OrderedDict[str, Begun] = OrderedDict()

    async def answer(
        self, connection: Tx, certificate: bytes | None, message: Message
    ) -> bytes | None:
        """The answer; None, and nothing done, for a message that brings or needs anything.

        `connection` commits each statement by itself.
        """
        if certificate is None:
            return None
        fingerprint = pki.sha256_fingerprint(certificate)
        if message.number == 1:
            return await self._hello(connection, fingerprint, message)
        begun = self._begun.get(fingerprint)
        if begun is None or begun.session != message.session:
            return None
        answer = await self._nothing(connection, fingerprint, message, begun)
        if answer is None:
            # The long way goes on with it.
            await store.begin(connection, begun)
        if self._begun.get(fingerprint) is begun:
            del self._begun[fingerprint]
        return answer

    async def _hello(self, connection: Tx, fingerprint: str, message: Message) -> bytes | None:
        """The first message: the question is what the site's client says of itself."""
        told = _told(message)
        if told is None or message.statuses or message.results or not message.final:
            return None
        now = self._now()
        last = await store.settled(
            connection, fingerprint, message, told, now, now - INVENTORY_EVERY
        )
        if last is None:
            return None
        statuses = model.statuses(message)
        made, sent = model.commands(model.questions(False), len(statuses) + 1)
        answer = self._written(message, made, statuses)
        self._begun[fingerprint] = Begun(
            last, message.session, answer, {"1": sent}, digest(message), _course(message), now
        )
        self._begun.move_to_end(fingerprint)
        if len(self._begun) > _MOST:
            oldest, waits = next(iter(self._begun.items()))
            await store.begin(connection, waits)
            if self._begun.get(oldest) is waits:
                del self._begun[oldest]
        return answer

    async def _nothing(
        self, connection: Tx, fingerprint: str, message: Message, begun: Begun
    ) -> bytes | None:
        """The second one: the answer is known already, and nothing has changed."""
        asked = [item.command_ref for item in message.statuses if item.command_ref != "0"]
        if message.number != 2 or not message.final or message.commands:
            return None
        if asked != list(begun.sent["1"]):
            return None
        config_info = _config_info(message, asked[0])
        if config_info is None:
            return None
        answer = self._written(message, [], model.statuses(message))
        done = await store.end_quietly(
            connection, fingerprint, message.source, begun, config_info, answer, self._now()
        )
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
        or now - inventory_at > INVENTORY_EVERY
        or "serial_number" not in inventory
    )


def _told(message: Message) -> dict[str, str] | None:
    """What a greeting says of the device, by name; None for more than a greeting."""
    told: dict[str, str] = {}
    for command in message.commands:
        if command.name == "Alert":
            login = all(item.type.endswith("LoginStatus") for item in command.items)
            if command.data not in _HELLO or not login:
                return None
            continue
        if command.name != "Replace":
            return None
        for item in command.items:
            uri, value = syncml.normal(item.source or item.target), item.data or ""
            name = _DEVICE_INFO.get(uri)
            if name is not None:
                told[name] = model.inventory_value(name, value)
            elif uri != _DEVICE_ID or value.strip() != message.source:
                return None
    return told


def _course(message: Message) -> Course:
    """What the session is like, as its first message says: it may still go on the long way."""
    user = None
    for command in message.commands:
        user = model.signed_in(command, user)
    return Course(max_bytes=message.max_size, user=bool(user))


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
