"""The private socket through which the devices of a process are directed.

One JSON value a line, one answer a line:

    {"op": "list"}                                 {"ok": true, "devices": [Status…]}
    {"op": "enrol", "device": "LAB-001"}           {"ok": false, "error": {code, text, cure}}
    {"op": "sync" | "unenrol", "device": …}        {"ok": true, "device": Status}
    {"op": "sign-in", "device": …, "upn": …, "password_file": …}
    {"op": "sign-out", "device": …}                {"ok": true, "device": Status}
    {"op": "stop"}                                 {"ok": true}
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from tandem.agent.mdm.devices import Devices
from tandem.agent.mdm.model import Status
from tandem.infra import logs
from tandem.infra.errors import AppError, Invalid, Kind

_LINE_LIMIT = 16 << 20
_PATH_LIMIT = 100

log = logs.get_logger(__name__)


class Order(msgspec.Struct, frozen=True):
    op: str
    device: str = ""
    manual: bool = False  # Enrol also where the directory offers no management service.
    upn: str = ""  # Who signs in, with the password in this file.
    password_file: str = ""


class Refusal(msgspec.Struct, frozen=True):
    code: str
    text: str
    cure: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    ok: bool
    error: Refusal | None = None
    device: Status | None = None
    devices: list[Status] | None = None
    simulated: bool | None = None
    agent_pids: list[int] | None = None


class NotRunning(AppError):
    kind, code = Kind.UNAVAILABLE, "device.not-running"


async def listen(
    path: Path, devices: Devices, stop: asyncio.Event, *, simulated: bool
) -> asyncio.Server:
    """Serve this user's other processes until the server is closed."""
    work: dict[str, Callable[[Order], Awaitable[Answer]]] = {}

    async def every(order: Order) -> Answer:
        return Answer(
            True, devices=devices.statuses(), simulated=simulated, agent_pids=devices.host_pids
        )

    async def enroll(order: Order) -> Answer:
        return Answer(True, device=await devices.enroll(order.device, manual=order.manual))

    async def sync(order: Order) -> Answer:
        return Answer(True, device=await devices.sync(order.device))

    async def unenroll(order: Order) -> Answer:
        return Answer(True, device=await devices.unenroll(order.device))

    async def sign_in(order: Order) -> Answer:
        password = Path(order.password_file)
        return Answer(True, device=await devices.sign_in(order.device, order.upn, password))

    async def sign_out(order: Order) -> Answer:
        return Answer(True, device=await devices.sign_out(order.device))

    async def end(order: Order) -> Answer:
        stop.set()
        return Answer(True)

    work |= {"list": every, "enrol": enroll, "sync": sync, "unenrol": unenroll, "stop": end}
    work |= {"sign-in": sign_in, "sign-out": sign_out}

    async def answer(line: bytes) -> Answer:
        try:
            order = msgspec.json.decode(line, type=Order)
            if order.op not in work:
                raise Invalid(f"There is no operation {order.op!r}.", cure=", ".join(work))
            return await work[order.op](order)
        except msgspec.DecodeError as error:
            return Answer(False, Refusal("request.invalid", str(error)))
        except AppError as error:
            code = str(error.details.get("hresult", error.code))
            return Answer(False, Refusal(code, error.message, error.cure))
        except Exception as error:
            log.exception("device.failed")
            return Answer(False, Refusal("internal", f"The device failed: {type(error).__name__}."))

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await answer(line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    return await asyncio.start_unix_server(talk, sock=_socket(path), limit=_LINE_LIMIT)


async def serve(devices: Devices, path: Path, stop: asyncio.Event, *, simulated: bool) -> None:
    """Keep the devices alive, and follow orders, until `stop`."""
    server = await listen(path, devices, stop, simulated=simulated)
    try:
        await devices.run(stop)
    finally:
        server.close()
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _socket(path: Path) -> socket.socket:
    """A socket that only this user reaches, from the moment it is there."""
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise Invalid(
            f"The path of the control socket, {path}, is too long for a socket.",
            cure="Name a shorter one under `control` in the settings.",
        )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove(path)
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    finally:
        os.umask(before)
    return made


async def ask(
    path: Path,
    op: str,
    device: str = "",
    *,
    manual: bool = False,
    upn: str = "",
    password_file: Path | None = None,
) -> Answer:
    """Direct a running devices. A refusal is an Answer; NotRunning is raised when nobody listens."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_LIMIT)
    except OSError:
        raise NotRunning(
            f"Nothing listens at {path}.", cure="Start the devices' process first."
        ) from None
    try:
        writer.write(
            msgspec.json.encode(Order(op, device, manual, upn, str(password_file or ""))) + b"\n"
        )
        await writer.drain()
        line = await reader.readline()
    except ConnectionError:
        line = b""
    finally:
        writer.close()
    if not line:
        raise NotRunning(
            "The devices' process ended before it answered.", cure="Look into its log."
        )
    return msgspec.json.decode(line, type=Answer)
