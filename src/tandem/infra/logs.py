"""JSON lines for machines, and plain log files for administrators."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import msgspec
import structlog

_stream: TextIO = sys.stderr
_role = ""


def configure(role: str, folder: Path | None, level: int = logging.INFO) -> None:
    """Send this process's log, as JSON lines, to folder/role.jsonl, or to standard error."""
    global _stream, _role
    stream: TextIO
    if folder is None:
        stream = sys.stderr
    else:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / f"{role}.jsonl").open("a", buffering=1, encoding="utf-8")

    _stream, _role = stream, role

    def add_role(_: Any, __: str, event: Any) -> Any:
        event["role"] = role
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            add_role,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def get_logger(name: str) -> Any:
    return structlog.get_logger(name)


class Lines:
    """Lines of the log that are alike and come in thousands: kept for a moment, written together.

    `add` costs a fraction of what a line through structlog costs. Whoever owns it calls `write`
    soon and at the end; a process that is killed loses what it has not written.
    """

    def __init__(self, event: str, names: tuple[str, ...]) -> None:
        self._event = event
        self._line: type[msgspec.Struct] = msgspec.defstruct(
            "Line", [(name, Any) for name in (*names, "event", "level", "timestamp", "role")]
        )
        self._encoder = msgspec.json.Encoder()
        self._waiting: list[tuple[float, tuple[Any, ...]]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, *values: Any) -> None:
        """The values of `names`, in their order: numbers and text."""
        self._waiting.append((time.time(), values))

    def write(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        second, stamp, lines = -1, "", []
        for at, values in waiting:
            whole = int(at)
            if whole != second:
                second, stamp = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
            moment = f"{stamp}.{int((at - whole) * 1_000_000):06d}Z"
            lines.append(self._line(*values, self._event, "info", moment, _role))
        _stream.write(self._encoder.encode_lines(lines).decode("utf-8"))


class LogFile:
    """A text log that is renamed to `.lo_` when it is full, like the field's own.

    The default size is the field's: 250,000 bytes and one old copy.
    """

    def __init__(self, path: Path, max_bytes: int = 250_000, history: int = 1) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._history = history
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, line: str) -> None:
        self.write_all([line])

    def write_all(self, lines: Iterable[str]) -> None:
        """All of them with one write; they stay together when the file is renamed.

        A disk that takes nothing loses lines, and nothing else: whoever writes here does other work.
        """
        with contextlib.suppress(OSError):
            self._write_all(lines)

    def _write_all(self, lines: Iterable[str]) -> None:
        text = "".join([line.rstrip("\n") + "\r\n" for line in lines])
        data = text.encode("utf-8", "replace")
        try:
            if self.path.stat().st_size + len(data) > self._max_bytes:
                self._rotate()
        except FileNotFoundError:
            pass
        with self.path.open("ab") as file:
            file.write(data)

    def _rotate(self) -> None:
        if self._history == 0:
            self.path.unlink()
            return
        for number in range(self._history, 1, -1):
            older = self._old(number - 1)
            if older.exists():
                older.replace(self._old(number))
        self.path.replace(self._old(1))

    def _old(self, number: int) -> Path:
        suffix = ".lo_" if number == 1 else f".lo_{number}"
        return self.path.with_suffix(suffix)
