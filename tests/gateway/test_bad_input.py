"""Each row of the table in docs/protocols/gateway.md, sent to a real gateway."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from .conftest import Rig, serving
from .hostile import ECHO, INPUTS, Input, request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]

PAGE = Path(__file__).parents[2] / "docs/protocols/gateway.md"
_ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def table() -> dict[str, tuple[str, str]]:
    """The rows: what comes, what the client sees, what the log says."""
    _, _, text = PAGE.read_text("utf-8").partition("## What comes that should not\n")
    rows = _ROW.findall(text.partition("\n## ")[0])
    return {name: (sees, says) for name, sees, says in rows[2:]}


TABLE = table()


async def test_the_table_has_a_row_for_each_input_and_no_other() -> None:
    assert set(TABLE) == set(INPUTS)


@dataclass
class Outcome:
    sees: str
    correlation: str


async def head_of(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    return first.partition(" ")[2], fields


async def answer(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """The status line and the fields of a whole answer."""
    status, fields = await head_of(reader)
    while status.startswith("100"):
        status, fields = await head_of(reader)
    await reader.readexactly(int(fields.get("content-length", 0)))
    code = status.partition(" ")[2]
    return f"`{status if code.startswith('CMG') else status.split()[0]}`", fields


class Sender:
    """One hostile client."""

    def __init__(self, rig: Rig, number: int, given: Input) -> None:
        self.rig = rig
        self.given = given
        self.correlation = f"row-{number}"

    def marked(self, raw: bytes) -> bytes:
        token = f"{self.rig.token()}\r\nX-Correlation-Id: {self.correlation}"
        lines = b"\r\n" in raw
        return raw.replace(b"TOKEN", (token if lines else self.rig.token()).encode())

    async def run(self) -> Outcome:
        reader, writer = await asyncio.open_connection(
            "localhost", self.rig.port, ssl=self.rig.context(), limit=65_536
        )
        try:
            sees = await self._converse(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, OSError):
            sees = "closed"
        finally:
            writer.transport.abort()
        return Outcome(sees, self.correlation)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        for piece in self.given.raw:
            writer.write(self.marked(piece))
            # The answer to a request that is refused early is read all the same.
            try:
                await writer.drain()
            except ConnectionError:
                break
        then = self.given.then
        if then == "drip":
            dripping = asyncio.create_task(self._drip(writer))
        elif then == "half-close":
            await self.rig_sees()
            writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        elif then == "abort":
            await self.rig_sees()
            writer.transport.abort()
            return "closed"
        elif then == "stall":
            await self.logged("answer broken off")
            status, _ = await head_of(reader)
            got = len(await reader.read(30_000_000))
            assert got < 20_000_000
            return f"`{status.split()[0]}`; cut"
        status, fields = await answer(reader)
        if then == "drip":
            dripping.cancel()
        self.correlation = fields.get("x-correlation-id", self.correlation)
        if fields.get("connection") == "close":
            assert await reader.read() == b""
            return f"{status}; closed"
        writer.write(request().replace(b"TOKEN", self.rig.token().encode()))
        again, _ = await answer(reader)
        assert again == "`200`"
        return f"{status}; kept"

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"X")
            await asyncio.sleep(0.1)

    async def rig_sees(self) -> None:
        """The gateway has the connection, and read what was sent."""
        await asyncio.sleep(0.2)

    async def logged(self, event: str) -> None:
        while not any(line["event"] == event for line in log_of(self.rig, self.correlation)):
            await asyncio.sleep(0.1)


def log_of(rig: Rig, correlation: str) -> list[dict[str, Any]]:
    lines = (rig.folder / "logs/gateway-1.jsonl").read_text("utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line.get("correlation") == correlation]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Rig, dict[str, Outcome]]]:
    """All rows at once: those that take time take it together."""
    made = Rig(tmp_path_factory.mktemp("attacked"))
    made.limits = {
        "header_seconds": 1, "idle_seconds": 2, "stall_seconds": 1, "request_seconds": 4,
        "body_bytes_per_second": 10_000_000,
    }  # fmt: skip
    async with serving(made):
        senders = [Sender(made, n, given) for n, given in enumerate(INPUTS.values())]
        async with asyncio.timeout(45):
            outcomes = await asyncio.gather(*(sender.run() for sender in senders))
        # The log is written a moment later; what comes last in it is the last.
        last = await made.ask(
            "GET", ECHO.decode(), made.token(), headers={"X-Correlation-Id": "the-last"}
        )
        assert last.status_code == 200
        while not log_of(made, "the-last"):
            await asyncio.sleep(0.05)
        yield made, dict(zip(INPUTS, outcomes, strict=True))


@pytest.mark.parametrize("name", INPUTS)
async def test_what_comes_is_answered_and_logged_as_the_table_says(
    name: str, attacked: tuple[Rig, dict[str, Outcome]]
) -> None:
    rig, outcomes = attacked
    sees, says = TABLE[name]
    outcome = outcomes[name]
    assert outcome.sees == sees
    lines = log_of(rig, outcome.correlation)
    told = " ".join(
        f"`{line['event']}` {line.get('code') or line.get('status') or ''}".strip()
        for line in lines
    )
    assert (told or "nothing") == says
    number = list(INPUTS).index(name)
    seen = [s for s in rig.seen if s["headers"].get("x-correlation-id") == f"row-{number}"]
    given = INPUTS[name]
    # Nothing that is refused reaches the inside, and nothing that passes reaches it twice.
    assert len(seen) == (says.startswith("`request`") and "big" not in str(given.raw))
    for one in seen:
        if given.body is not None:
            assert one["body"] == given.body
        for field, value in given.kept.items():
            assert one["headers"][field] == value
        assert not set(map(str.lower, given.dropped)) & set(one["headers"])
        assert one["headers"]["authorization"] != "Bearer other"
        # One identity: the gateway's.
        assert one["headers"]["cmg-client-identity"] == "d1"


async def test_nothing_unpublished_was_reached(attacked: tuple[Rig, dict[str, Outcome]]) -> None:
    rig, _ = attacked
    assert {one["target"].partition(b"?")[0] for one in rig.seen} == {b"/echo"}
