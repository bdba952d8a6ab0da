"""The fuzz targets for a moment: seeds as they are, and seeds that were bent.

`make fuzz` runs them for long, guided by what they reach.
"""

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tools.fuzz import mutation
from tools.fuzz.__main__ import NAMES
from tools.fuzz.targets import SEEDS, TARGETS, seeds

# What turns one thing into another, in the formats that are read here.
PIECES = [
    *(b"", b"\0", b"\xff", b"<", b">", b"&", b"&#0;", b"&#x1F4A9;", b"&e;", b"<!--", b"-->"),
    *(b"<![CDATA[", b"]]>", b"<!DOCTYPE x>", b"<?xml version='1.0' encoding='utf-16'?>"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"=", b"====", b"%00", b"-1", b"0", b"9" * 40, b"\xd9\xa1"),
    *(b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff"),
    *(b"\r\n", b"\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b": "),
    *(b'xmlns="urn:x"', b"<a:Action>", b"</SyncBody>", b"<Item/>", b"  \r\n\t"),
]


@st.composite
def bent(draw: st.DrawFn, name: str) -> bytes:
    """A seed after some cuts, repetitions and insertions, or changes that keep it XML."""
    data = draw(st.sampled_from(seeds(name)))
    if name in mutation.XML and draw(st.booleans()):
        return mutation.bend(data, draw(st.integers(0, 1 << 32))) or data
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 1, 2, 4, 16, 64, 512]))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)))
        if draw(st.booleans()):
            piece = data[at : at + length] * draw(st.integers(0, 3))
        data = data[:at] + piece + data[at + length :]
    return data


def test_every_target_has_seeds_that_it_reads() -> None:
    assert set(NAMES) == set(TARGETS) == {folder.name for folder in SEEDS.iterdir()}
    for name, target in TARGETS.items():
        assert seeds(name)
        for seed in seeds(name):
            target(seed)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_bent_is_read_or_refused_and_nothing_else(name: str) -> None:
    @settings(
        max_examples=settings().max_examples if settings().max_examples > 100 else 25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(data=bent(name))
    @example(data=b"")
    @example(data=random.Random(1).randbytes(300))
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()
