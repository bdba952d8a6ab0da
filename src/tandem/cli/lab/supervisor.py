"""The lab's processes: started together, watched, stopped together.

Each role is a process of its own in a session of its own, so a Ctrl-C in the terminal reaches the
lab alone, which then stops them in order. Their ids are kept in a file: a lab that was killed finds
and stops what it left behind.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import msgspec
import psutil

from tandem.infra import net
from tandem.infra.errors import AppError, Kind
from tandem.infra.secrets import write_private

_STOP_SECONDS = 8.0


class DidNotStart(AppError):
    kind, code = Kind.UNAVAILABLE, "lab.did-not-start"


class Known(msgspec.Struct, frozen=True):
    """A process by its id and start time, so a recycled id is not mistaken for it."""

    role: str
    pid: int
    started: float


class Supervisor:
    """`started` is told of each process, and after how many seconds it was ready."""

    def __init__(
        self,
        folder: Path,
        logs: Path,
        started: Callable[[Known, float], None] = lambda known, seconds: None,
    ) -> None:
        self._file = folder / "processes.json"
        self._logs = logs
        self._started = started
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._known: list[Known] = []
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def processes(self) -> list[Known]:
        """What runs, the processes that others started (see `adopt`) included."""
        return [item for item in self._known if _find(item) is not None]

    async def stop_leftovers(self) -> int:
        """Stop what an earlier lab on this folder left running. Returns how many there were."""
        try:
            left = msgspec.json.decode(self._file.read_bytes(), type=list[Known])
        except (FileNotFoundError, msgspec.DecodeError):
            return 0
        found = [process for item in left if (process := _find(item)) is not None]
        await _stop(found)
        self._file.unlink(missing_ok=True)
        return len(found)

    async def start(
        self,
        role: str,
        arguments: Sequence[str],
        ready: Callable[[], Awaitable[bool]],
        seconds: float = 30.0,
    ) -> None:
        """Start a role and wait until `ready` says so. Raises DidNotStart with its last words."""
        output = self._logs / f"{role}.out"
        with output.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._running[role] = process
        known = self._keep(role, process.pid)
        begun = time.monotonic()
        deadline = begun + seconds
        while not await ready():
            if process.returncode is not None or time.monotonic() > deadline:
                words = output.read_text("utf-8", "replace").strip().splitlines()[-3:]
                raise DidNotStart(
                    f"The {role} did not start: {' / '.join(words) or 'it said nothing'}.",
                    cure=f"Read {output} and the {role}'s log beside it.",
                )
            await asyncio.sleep(0.05)
        if known is not None:
            self._started(known, time.monotonic() - begun)

    def adopt(self, role: str, pid: int, seconds: float = 0.0) -> None:
        """Count a process as the lab's own: it is listed, and stopped with the others."""
        new = all(item.pid != pid for item in self._known)
        known = self._keep(role, pid)
        if known is not None and new:
            self._started(known, seconds)

    def _keep(self, role: str, pid: int) -> Known | None:
        try:
            known = Known(role, pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None
        self._known = [item for item in self._known if item.pid != pid]
        self._known.append(known)
        write_private(self._file, msgspec.json.encode(self._known))
        return known

    async def stop(self, role: str) -> None:
        """Stop one role and forget it."""
        wanted = [item for item in self._known if item.role == role]
        await _stop([p for item in wanted if (p := _find(item)) is not None])
        self._known = [item for item in self._known if item.role != role]
        process = self._running.pop(role, None)
        if process is not None:
            await process.wait()

    async def stop_all(self) -> None:
        """Stop everything, the last started first, within seconds."""
        await _stop([p for item in reversed(self._known) if (p := _find(item)) is not None])
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                await process.wait()
        self._running.clear()
        self._known.clear()
        self._file.unlink(missing_ok=True)


def _find(item: Known) -> psutil.Process | None:
    try:
        process = psutil.Process(item.pid)
        same = abs(process.create_time() - item.started) < 1.0
    except psutil.Error:
        return None
    return process if same and process.status() != psutil.STATUS_ZOMBIE else None


async def _stop(processes: list[psutil.Process]) -> None:
    families = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            families.append([process, *process.children(recursive=True)])
            process.send_signal(signal.SIGTERM)
    members = [process for family in families for process in family]
    deadline = time.monotonic() + _STOP_SECONDS
    while any(_alive(process) for process in members) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    for process in members:
        with contextlib.suppress(psutil.Error):
            if _alive(process):
                process.kill()


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


async def answers(url: str) -> bool:
    """Whether a role's private /readyz says that it is ready."""
    try:
        async with net.plain_client(timeout=2) as client:
            return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


def memory_bytes(pids: Sequence[int]) -> int:
    """The proportional set size of processes and their children, each counted once."""
    members: dict[int, psutil.Process] = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(pid)
            members |= {process.pid: process for process in [top, *top.children(recursive=True)]}
    total = 0
    for process in members.values():
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total
