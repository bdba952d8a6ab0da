"""The log files of one device, in the form that administrators' viewers read."""

from pathlib import Path

from tandem.infra.clock import Clock
from tandem.infra.logs import LogFile, get_logger
from tandem.protocols import cmtrace

log = get_logger("agent")

INFORMATION, WARNING, ERROR = cmtrace.INFORMATION, cmtrace.WARNING, cmtrace.ERROR


class Journal:
    """Writes `<folder>/<component>.log`. `last` is the newest line that was not information.

    A line that a full or read-only disk does not take is lost, and stops nobody: how many were is
    said in the first line that can be written again, and by the process's own log at once.
    """

    def __init__(
        self, folder: Path, now: Clock, max_bytes: int = 250_000, history: int = 1
    ) -> None:
        self._folder = folder
        self._now = now
        self._limits = max_bytes, history
        self._files: dict[str, LogFile] = {}
        self.last = ""
        self._lost = 0

    def limit(self, max_bytes: int, history: int) -> None:
        """CCMLOGMAXSIZE and CCMLOGMAXHISTORY."""
        self._limits = max_bytes, history
        self._files.clear()

    def write(self, component: str, message: str, severity: int = INFORMATION) -> None:
        if severity != INFORMATION:
            self.last = message
        try:
            file = self._files.get(component)
            if file is None:
                file = LogFile(self._folder / f"{component}.log", *self._limits)
                self._files[component] = file
            lines = [cmtrace.line(message, component, self._now(), severity)]
            if self._lost:
                text = f"{self._lost} lines before this one could not be written to this disk."
                lines.insert(0, cmtrace.line(text, component, self._now(), WARNING))
            file.write_all(lines)
            self._lost = 0
        except OSError as error:
            if not self._lost:
                reason = error.strerror or str(error)
                log.warning("journal.not-written", reason=reason, message=message)
            self._lost += 1
