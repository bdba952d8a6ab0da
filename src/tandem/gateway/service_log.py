"""CMGService.log of a worker: a file here, and the same lines for the site.

A worker says little: a line a minute about each endpoint, and what an administrator has to know. Who
asked for what stands in the log of requests, which stays where it is.
"""

import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from tandem.infra.clock import utc_now
from tandem.infra.logs import LogFile
from tandem.protocols import cmtrace
from tandem.protocols.tunnel import LogLine

COMPONENT = "CMGService"
# Lines that wait for the site, and how many of them, and bytes, go with one telling.
_KEPT = 1000
_LINES, _BYTES = 100, 16 * 1024
_LONGEST = 400

_SECRET = re.compile(
    r"(?i)(bearer\s+|eyJ|(?:password|passwd|secret|token|sig|signature|key)\s*[=:]\s*)[^\s,;&\"']+"
)


def masked(text: str) -> str:
    """Without what could be a password or a token, and on one line."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST])
    return _SECRET.sub(r"\1…", line)[:_LONGEST]


class ServiceLog:
    def __init__(self, folder: Path | None, service_name: str, instance: int, worker: int) -> None:
        # The field's name of it at the site, where the logs of all instances come together.
        name = f"CMG-{service_name}-{instance}-{COMPONENT}.log"
        self._file = LogFile(folder / name) if folder else None
        self._worker = worker
        self._waiting: deque[LogLine] = deque(maxlen=_KEPT)
        self._left_out = 0

    def say(self, text: str, severity: int = cmtrace.INFORMATION) -> None:
        self.say_all([text], severity)

    def say_all(self, texts: Iterable[str], severity: int = cmtrace.INFORMATION) -> None:
        now = utc_now()
        said = [masked(text) for text in texts]
        if self._file is not None and said:
            self._file.write_all(
                cmtrace.line(text, COMPONENT, now, severity, self._worker) for text in said
            )
        for text in said:
            self._left_out += len(self._waiting) == _KEPT
            self._waiting.append(LogLine(now.timestamp(), severity, text))

    def take(self) -> list[LogLine]:
        """The next lines for the site; when there were too many, the first says so."""
        taken, size = [], 0
        if self._left_out:
            text = f"{self._left_out} lines were left out: the site was not reached."
            taken.append(LogLine(utc_now().timestamp(), cmtrace.WARNING, text))
            self._left_out = 0
        while self._waiting and len(taken) < _LINES and size < _BYTES:
            line = self._waiting.popleft()
            size += len(line.text.encode())
            taken.append(line)
        return taken
