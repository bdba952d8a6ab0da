"""A network namespace for one test: what it does to the kernel's network is gone with it."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def _check(ended: int) -> None:
    if ended:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def own_network() -> Iterator[None]:
    """The calling thread, and what it starts from now on, in a network with nothing but loopback.

    Skips the test where that cannot be, with the reason; where CI runs it fails instead.
    """
    why = ""
    if os.geteuid() != 0:
        why = "A network of its own needs root."
    elif shutil.which("nft") is None or shutil.which("ip") is None:
        why = "nft or ip is not installed: tools/packages.sh nftables iproute2."
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_LIBC.unshare(_CLONE_NEWNET))
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            _check(_LIBC.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)
