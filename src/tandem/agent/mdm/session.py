"""One OMA-DM session: the device calls, reports, and does what it is told until there is no more.

→ Alert 1201, who is signed in, news, DevInfo
← statuses, commands
→ statuses, results                      repeated while there are commands
← statuses alone: the session is over
"""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

import httpx

from tandem.agent.mdm import messages
from tandem.agent.mdm.messages import Command, Item, Message, Results, Status
from tandem.agent.mdm.model import Account, BadAnswer, MdmError, Unreachable
from tandem.agent.mdm.tree import (
    ATOMIC_FAILED,
    BAD,
    NOT_ALLOWED,
    OK,
    ROLLBACK_FAILED,
    ROLLED_BACK,
    UNSUPPORTED,
    Tree,
)
from tandem.infra.errors import Kind

_CONTENT_TYPE = "application/vnd.syncml.dm+xml"
_MAX_MESSAGE_BYTES = 524288
# A service that always has one more command must not hold a device for ever.
_MESSAGES = 200
_HEADER_OK = ("200", "212")

Origin = Literal["user", "schedule", "push", "enrollment", "alert"]
_ORIGINS = {"user": "1", "schedule": "2", "push": "3", "enrollment": "5", "alert": "6"}


class SessionRefused(MdmError):
    """The service does not talk to this device."""

    kind, code = Kind.UNAUTHENTICATED, "mdm.session-refused"


class Unenrolling(Exception):
    """Raised by the tree: the service has ended the enrollment, so the session breaks off."""


@dataclass
class Outcome:
    """`commands` counts what the service asked for."""

    commands: int = 0
    unenroll: bool = False
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Caller:
    """`second` is how long a second of the account's retries lasts."""

    http: httpx.AsyncClient
    account: Account
    device_info: dict[str, str]
    second: float = 1.0


async def hold(
    caller: Caller, tree: Tree, session: str, alerts: list[Command], origin: Origin
) -> Outcome:
    """Have one session. Raises SessionRefused, Unreachable, BadAnswer."""
    outcome = Outcome()
    message = _first(caller, session, alerts)
    for number in range(1, _MESSAGES + 1):
        answer = await _exchange(caller, message, origin)
        if answer is None:
            return outcome
        _check(answer, message)
        if not answer.commands and answer.final:
            return outcome
        try:
            statuses, results = _carry_out(tree, answer, outcome)
        except Unenrolling:
            outcome.unenroll = True
            return outcome
        message = Message(
            session,
            str(number + 1),
            caller.account.address,
            caller.account.device_id,
            (Status(answer.number, "0", "SyncHdr", "200"), *statuses),
            tuple(results),
            max_bytes=_MAX_MESSAGE_BYTES,
        ).numbered()
    raise BadAnswer("0x80180006", "The management service does not end the session.")


def _first(caller: Caller, session: str, alerts: list[Command]) -> Message:
    login = Item(data="user", type="com.microsoft/MDM/LoginStatus")
    info = tuple(
        Item(source=f"./DevInfo/{name}", data=value) for name, value in caller.device_info.items()
    )
    commands = (
        Command("Alert", "", data="1201"),
        Command("Alert", "", (login,), data="1224"),
        *alerts,
        Command("Replace", "", info),
    )
    return Message(
        session,
        "1",
        caller.account.address,
        caller.account.device_id,
        commands=commands,
        max_bytes=_MAX_MESSAGE_BYTES,
    ).numbered()


async def _exchange(caller: Caller, message: Message, origin: Origin) -> Message | None:
    """The service's answer, None when it is empty. The same bytes are sent until one comes."""
    account = caller.account
    mark = "&" if "?" in account.address else "?"
    url = f"{account.address}{mark}mode=Maintenance&Platform=WoA"
    body = messages.write(message)
    headers = {
        "Content-Type": _CONTENT_TYPE,
        "Accept": "application/vnd.syncml.dm+xml, application/octet-stream",
        "Accept-Charset": "UTF-8",
        "User-Agent": "MSFT OMA DM Client/1.2.0.1",
        "Client-Request-Id": "0",
        "UserAgentOrigin": _ORIGINS[origin],
    }
    wait = account.first_backoff_ms / 1000
    for attempt in range(account.retry_count + 1):
        try:
            response = await caller.http.post(url, content=body, headers=headers)
        except httpx.HTTPError as error:
            said, pause = f"does not answer: {error or type(error).__name__}", wait
        else:
            if response.status_code == 200:
                return messages.read(response.content) if response.content.strip() else None
            said, pause = f"answers {response.status_code}", _patience(response, wait)
            if response.status_code < 500 and response.status_code != 429:
                raise SessionRefused(
                    f"0x{0x80190000 + response.status_code:08X}",
                    f"The management service {said} to this device.",
                    cure="Look at the device in the MDM service: it may have been removed there.",
                )
        if attempt < account.retry_count:
            await asyncio.sleep(pause * caller.second)
            wait = min(wait * 2, account.last_backoff_ms / 1000)
    raise Unreachable(
        "0x80180010",
        f"The management service {said}.",
        cure="The device calls again by itself; check its network and that the service runs.",
    )


def _patience(response: httpx.Response, otherwise: float) -> float:
    after = response.headers.get("retry-after", "")
    return float(after) if after.isascii() and after.isdigit() else otherwise


def _check(answer: Message, sent: Message) -> None:
    if answer.session != sent.session:
        raise BadAnswer("0x80180006", "The answer belongs to another session.")
    for status in answer.statuses:
        if status.command_ref == "0" and status.code not in _HEADER_OK:
            raise SessionRefused(
                f"0x{0x80190000 + int(status.code):08X}"
                if status.code.isdigit() and len(status.code) == 3
                else "0x80180006",
                f"The management service refuses the session with status {status.code}.",
                cure="Enroll the device again.",
            )


def _carry_out(tree: Tree, answer: Message, outcome: Outcome) -> tuple[list[Status], list[Results]]:
    statuses: list[Status] = []
    results: list[Results] = []
    for command in answer.commands:
        outcome.commands += 1
        _one(tree, answer.number, command, statuses, results)
    outcome.failed += [
        f"{status.command} {status.target}: {status.code}"
        for status in statuses
        if not status.code.startswith("2")
    ]
    return statuses, results


def _one(
    tree: Tree,
    message: str,
    command: Command,
    statuses: list[Status],
    results: list[Results],
) -> None:
    target = command.items[0].target if command.items else ""

    def say(code: int, of: Command = command) -> None:
        where = of.items[0].target if of.items else ""
        statuses.append(Status(message, of.id, of.name, str(code), where))

    if not command.id:
        # Windows answers a command without an id with an empty reference.
        statuses.append(Status(message, "", command.name, str(BAD), target))
        return
    match command.name:
        case "Get":
            _get(tree, message, command, statuses, results)
        case "Atomic":
            _atomic(tree, message, command, statuses)
        case "Sequence":
            say(OK)
            for child in command.children:
                _one(tree, message, child, statuses, results)
        case "Alert":
            say(OK)
        case "Add" | "Replace" | "Delete" | "Exec":
            say(tree.change(command))
        case _:
            say(UNSUPPORTED)


def _get(
    tree: Tree, message: str, command: Command, statuses: list[Status], results: list[Results]
) -> None:
    """One status for the command, and results for what is there."""
    found: list[Item] = []
    code = OK if command.items else BAD
    for item in command.items:
        value = tree.get(item.target)
        if isinstance(value, int):
            code = value
        else:
            found.append(Item(source=item.target, data=value.text, format=value.format))
    target = command.items[0].target if command.items else ""
    status = OK if found else code
    statuses.append(Status(message, command.id, "Get", str(status), target))
    if found:
        results.append(Results(message, command.id, tuple(found)))


def _atomic(tree: Tree, message: str, command: Command, statuses: list[Status]) -> None:
    """All or nothing: what was written is taken back when one of them fails, and nobody has acted
    on it by then."""
    attempt = tree.attempt()
    codes: list[int] = []
    try:
        for child in command.children:
            allowed = child.id and child.name in ("Add", "Replace", "Delete", "Exec")
            code = tree.change(child) if allowed else NOT_ALLOWED
            codes.append(code)
            if code >= 300:
                break
    except BaseException:
        attempt.undo()
        raise
    whole = bool(codes) and codes[-1] < 300
    if whole:
        whole = attempt.keep()
    else:
        attempt.undo()
    statuses.append(Status(message, command.id, "Atomic", str(OK if whole else ATOMIC_FAILED)))
    for number, child in enumerate(command.children):
        if number >= len(codes):
            code = 215
        elif whole or codes[number] >= 300:
            code = codes[number]
        else:
            # What was started cannot be taken back.
            code = ROLLBACK_FAILED if child.name == "Exec" else ROLLED_BACK
        where = child.items[0].target if child.items else ""
        statuses.append(Status(message, child.id, child.name, str(code), where))
