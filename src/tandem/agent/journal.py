"""The log files of one device, in the form that administrators' viewers read."""

from pathlib import Path

from tandem.infra.clock import Clock
from tandem.infra.logs import LogFile
from tandem.protocols import cmtrace

INFORMATION, WARNING, ERROR = cmtrace.INFORMATION, cmtrace.WARNING, cmtrace.ERROR


class Journal:
    """Writes `<folder>/<component>.log`. `last` is the newest line that was not information."""

    def __init__(
        self, folder: Path, now: Clock, max_bytes: int = 250_000, history: int = 1
    ) -> None:
        self._folder = folder
        self._now = now
        self._limits = max_bytes, history
        self._files: dict[str, LogFile] = {}
        self.last = ""

    def limit(self, max_bytes: int, history: int) -> None:
        """CCMLOGMAXSIZE and CCMLOGMAXHISTORY."""
        self._limits = max_bytes, history
        self._files.clear()

    def write(self, component: str, message: str, severity: int = INFORMATION) -> None:
        file = self._files.get(component)
        if file is None:
            file = LogFile(self._folder / f"{component}.log", *self._limits)
            self._files[component] = file
        file.write(cmtrace.line(message, component, self._now(), severity))
        if severity != INFORMATION:
            self.last = message
