"""How `tandem lab continue` reaches a lab that serves: one private socket in its folder."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from tandem.cli.lab.report import Screen
from tandem.infra.errors import AppError, Kind

_LINE_LIMIT = 1 << 20

Continue = Callable[[str | None, Screen], Awaitable[bool]]


class NoLab(AppError):
    kind, code = Kind.NOT_FOUND, "lab.not-running"


async def listen(folder: Path, go_on: Continue) -> asyncio.Server:
    """Let another process of this user ask the lab to perform further steps, one at a time."""
    one_at_a_time = asyncio.Lock()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            wanted = json.loads(await reader.readline())
            screen = Screen(quiet=True, also=lambda text: _say(writer, {"line": text}))
            try:
                async with one_at_a_time:
                    ok = await go_on(wanted.get("until"), screen)
                _say(writer, {"ok": ok})
            except AppError as error:
                _say(writer, {"ok": False, "line": f"  {error.message} {error.cure}"})
            await writer.drain()
        writer.close()

    path = folder / "lab.sock"
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path, limit=_LINE_LIMIT)
    path.chmod(0o600)
    return server


def _say(writer: asyncio.StreamWriter, value: dict[str, object]) -> None:
    writer.write(json.dumps(value).encode() + b"\n")


async def ask(folder: Path, until: str | None, show: Callable[[str], None]) -> bool:
    """Ask the lab that serves from this folder to go on. Returns whether every step held."""
    try:
        reader, writer = await asyncio.open_unix_connection(folder / "lab.sock", limit=_LINE_LIMIT)
    except OSError:
        raise NoLab(
            f"No lab serves from {folder}.",
            cure="Start one with `tandem lab --until STEP`, or name its folder with --state.",
        ) from None
    _say(writer, {"until": until})
    await writer.drain()
    ok = False
    while line := await reader.readline():
        said = json.loads(line)
        if "line" in said:
            show(said["line"])
        if "ok" in said:
            ok = bool(said["ok"])
    writer.close()
    return ok
