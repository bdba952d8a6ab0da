"""The service `TandemAgent`: to the service manager a service, inside an event loop like any role.

The manager starts python.exe, which calls back into it from the main thread; it then runs ServiceMain
in a thread of its own and delivers controls on the main one. What has to be told when is decided by
`Life`; below it is only the talking.
"""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

from tandem.agent.platform.windows.programs import ProgramFailed, Run, run, system

NAME = "TandemAgent"

NOT_A_SERVICE = 1063  # ERROR_FAILED_SERVICE_CONTROLLER_CONNECT
SPECIFIC_ERROR = 1066  # ERROR_SERVICE_SPECIFIC_ERROR
_NO_SUCH_SERVICE = 1060
_ALREADY_RUNNING = 1056
_NOT_ACTIVE = 1062
_STOP, _INTERROGATE, _SHUTDOWN, _PRESHUTDOWN = 1, 4, 5, 15
_NOT_IMPLEMENTED = 120  # ERROR_CALL_NOT_IMPLEMENTED
_ACCEPTS = 1 | 4  # SERVICE_ACCEPT_STOP, SERVICE_ACCEPT_SHUTDOWN
# How long the manager waits for the next word while a start or a stop is under way.
HINT_MILLISECONDS = 30_000
_STATE = re.compile(r"^\s*STATE\s*:\s*(\d+)", re.MULTILINE)


class State(IntEnum):
    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    RUNNING = 4


@dataclass(frozen=True)
class Word:
    """What the service manager is told."""

    state: State
    accepts: int = 0
    exit_code: int = 0
    specific_code: int = 0
    hint_milliseconds: int = 0


class Life:
    """Which word follows which event."""

    def __init__(self) -> None:
        self.word = self.starting()

    def starting(self) -> Word:
        return self._say(Word(State.START_PENDING, hint_milliseconds=HINT_MILLISECONDS))

    def started(self) -> Word:
        return self._say(Word(State.RUNNING, _ACCEPTS))

    def control(self, number: int) -> tuple[int, Word | None, bool]:
        """(answer to the manager, what to tell, whether to stop)."""
        if number in (_STOP, _SHUTDOWN, _PRESHUTDOWN):
            again = self.word.state in (State.STOP_PENDING, State.STOPPED)
            if again:
                return 0, None, False
            word = Word(State.STOP_PENDING, hint_milliseconds=HINT_MILLISECONDS)
            return 0, self._say(word), True
        if number == _INTERROGATE:
            return 0, self.word, False
        return _NOT_IMPLEMENTED, None, False

    def ended(self, failed: bool) -> Word:
        code, specific = (SPECIFIC_ERROR, 1) if failed else (0, 0)
        return self._say(Word(State.STOPPED, exit_code=code, specific_code=specific))

    def _say(self, word: Word) -> Word:
        self.word = word
        return word


async def start(*, run: Run = run) -> None:
    """Start the service; one that runs stays. Raises ProgramFailed."""
    await _sc(["start", NAME], {0, _ALREADY_RUNNING}, run)


async def stop(*, run: Run = run) -> None:
    """Stop the service; one that is stopped stays. Raises ProgramFailed."""
    await _sc(["stop", NAME], {0, _NOT_ACTIVE}, run)


async def status(*, run: Run = run) -> State | None:
    """None: there is no such service. Raises ProgramFailed."""
    code, said = await _sc(["queryex", NAME], {0, _NO_SUCH_SERVICE}, run)
    if code == _NO_SUCH_SERVICE:
        return None
    found = _STATE.search(said)
    if found is None or int(found[1]) not in State.__members__.values():
        raise ProgramFailed("sc.exe says no state of the service.")
    return State(int(found[1]))


async def _sc(words: list[str], fine: set[int], run: Run) -> tuple[int, str]:
    done = await run([system("sc.exe"), *words], b"", 60.0)
    said = done.output.decode("utf-8", "replace")
    if done.code not in fine:
        raise ProgramFailed(
            f"sc.exe {words[0]} failed with code {done.code}.",
            cure="Look for the service with services.msc, and into the System event log.",
            exit_code=done.code,
        )
    return done.code, said


Main = Callable[[asyncio.Event], Awaitable[None]]


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    class _Status(ctypes.Structure):
        _fields_ = [
            ("dwServiceType", wintypes.DWORD),
            ("dwCurrentState", wintypes.DWORD),
            ("dwControlsAccepted", wintypes.DWORD),
            ("dwWin32ExitCode", wintypes.DWORD),
            ("dwServiceSpecificExitCode", wintypes.DWORD),
            ("dwCheckPoint", wintypes.DWORD),
            ("dwWaitHint", wintypes.DWORD),
        ]

    _SERVICE_MAIN = ctypes.WINFUNCTYPE(None, wintypes.DWORD, ctypes.POINTER(wintypes.LPWSTR))
    _HANDLER = ctypes.WINFUNCTYPE(
        wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p
    )

    class _Entry(ctypes.Structure):
        _fields_ = [("lpServiceName", wintypes.LPWSTR), ("lpServiceProc", _SERVICE_MAIN)]

    _api = ctypes.WinDLL("advapi32", use_last_error=True)
    _api.RegisterServiceCtrlHandlerExW.argtypes = [wintypes.LPCWSTR, _HANDLER, ctypes.c_void_p]
    _api.RegisterServiceCtrlHandlerExW.restype = ctypes.c_void_p
    _api.SetServiceStatus.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Status)]
    _api.SetServiceStatus.restype = wintypes.BOOL
    _api.StartServiceCtrlDispatcherW.argtypes = [ctypes.POINTER(_Entry)]
    _api.StartServiceCtrlDispatcherW.restype = wintypes.BOOL

    def serve(main: Main) -> int:
        """Be the service until the manager stops it. The error number of Windows; 0 is none."""
        life = Life()
        handle = ctypes.c_void_p()
        stopping: list[Callable[[], object]] = []

        def tell(word: Word) -> None:
            pending = word.state in (State.START_PENDING, State.STOP_PENDING)
            status = _Status(
                0x10,  # SERVICE_WIN32_OWN_PROCESS
                word.state,
                word.accepts,
                word.exit_code,
                word.specific_code,
                1 if pending else 0,
                word.hint_milliseconds,
            )
            _api.SetServiceStatus(handle, ctypes.byref(status))

        def control(number: int, _kind: int, _data: object, _context: object) -> int:
            answer, word, stop = life.control(number)
            if word is not None:
                tell(word)
            if stop:
                for act in stopping:
                    act()
            return answer

        handler = _HANDLER(control)  # Kept alive here: the manager holds only its address.

        async def body() -> None:
            event, loop = asyncio.Event(), asyncio.get_running_loop()
            stopping.append(lambda: loop.call_soon_threadsafe(event.set))
            tell(life.started())
            await main(event)

        def service_main(_count: int, _words: object) -> None:
            handle.value = _api.RegisterServiceCtrlHandlerExW(NAME, handler, None)
            tell(life.starting())
            failed = False
            try:
                asyncio.run(body())
            except BaseException:
                failed = True
                raise
            finally:
                tell(life.ended(failed))

        table = (_Entry * 2)(_Entry(NAME, _SERVICE_MAIN(service_main)), _Entry())
        if _api.StartServiceCtrlDispatcherW(table):
            return 0
        return ctypes.get_last_error()
