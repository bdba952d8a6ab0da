"""A lock that processes share, by a file: it goes when its holder does, however that ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
    import time

    _AGAIN_SECONDS = 0.01

    def _take(descriptor: int, wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError:
                if not wait:
                    return False
                time.sleep(_AGAIN_SECONDS)
            else:
                return True

else:
    import fcntl

    def _take(descriptor: int, wait: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock meanwhile. False: somebody else has it, and `wait` was off."""
    with path.open("a") as file:
        yield _take(file.fileno(), wait)


def lasting(path: Path) -> int:
    """A descriptor that holds the lock for as long as anybody has it open, so for a program that
    inherits it too. Whoever has the lock already keeps it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with suppress(OSError):
        _take(descriptor, False)
    return descriptor
