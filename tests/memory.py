"""How much memory this process took meanwhile, as the kernel counts it.

tracemalloc would say it more finely, but stopping it while another thread ends brings Python 3.11 down.
"""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Peak:
    bytes: int = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """The most that was resident at once above what was before; known when the block ends."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew (proc(5)).
    before, found = _status("VmRSS"), Peak()
    yield found
    found.bytes = _status("VmHWM") - before


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024
