"""Sessions in which nothing is new, as most are: one statement for each message, no transaction.

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
from tandem.tenant.sessions.course import Course
from tandem.tenant.sessions.model import Sent

INVENTORY_EVERY = timedelta(hours=24)
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
        if certificate is None or not message.final:
            return None
        fingerprint = pki.sha256_fingerprint(certificate)
        match message.number:
            case 1:
                return await self._hello(connection, fingerprint, message)
            case 2:
                return await self._nothing(connection, fingerprint, message)
            case _:
                return None

    async def _hello(self, connection: Tx, fingerprint: str, message: Message) -> bytes | None:
        """The first message: the question is what the site's client says of itself."""
        told = _told(message)
        if told is None or message.statuses or message.results:
            return None
        now = self._now()
        statuses = model.statuses(message)
        made, sent = model.commands(model.questions(False), len(statuses) + 1)
        answer = self._written(message, made, statuses)
        done = await store.begin_quietly(
            connection,
            fingerprint,
            message,
            told,
            answer,
            {"1": sent},
            digest(message),
            _course(message),
            now,
            now - INVENTORY_EVERY,
        )
        return answer if done else None

    async def _nothing(self, connection: Tx, fingerprint: str, message: Message) -> bytes | None:
        """The second one: the answer is known already, and nothing has changed."""
        asked = [item.command_ref for item in message.statuses if item.command_ref != "0"]
        if message.commands or len(asked) != 1:
            return None
        config_info = _config_info(message, asked[0])
        if config_info is None:
            return None
        answer = self._written(message, [], model.statuses(message))
        done = await store.end_quietly(
            connection,
            fingerprint,
            message,
            config_info,
            answer,
            {"1": {asked[0]: Sent("ask", CONFIG_INFO_URI)}},
            self._now(),
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
