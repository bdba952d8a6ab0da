"""Which of two versions is the newer: dpkg itself is asked too."""

import shutil
import subprocess
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.agent.handlers.packages import is_older

# Each is older than the next.
ORDERED = [
    "0~~",
    "0~",
    "0",
    "0.9",
    "1.0~beta1~svn1245",
    "1.0~beta1",
    "1.0",
    "1.0-1~bpo12+1",
    "1.0-1",
    "1.0-1+deb12u2",
    "1.0-1+deb12u10",
    "1.0-1.1",
    "1.0-10",
    "1.0a",
    "1.0a7",
    "1.0+dfsg",
    "1.0.1",
    "1.2.3-4-5",
    "1.10",
    "1:0.1",
    "2:0.0~",
]
part = st.text("0129.+~abZ", max_size=6)
version = st.builds(
    lambda epoch, upstream, revision: f"{epoch}1{upstream}{revision}",
    st.sampled_from(["", "0:", "1:", "10:"]),
    part,
    st.one_of(st.just(""), part.map(lambda text: f"-{text}0")),
)


def test_versions_are_ordered_as_the_manual_says() -> None:
    for (a, one), (b, other) in permutations(list(enumerate(ORDERED)), 2):
        assert is_older(one, other) is (a < b), (one, other)
    for one in ORDERED:
        assert not is_older(one, one)
    assert not is_older("1.0", "1.0-0")
    assert not is_older("1.0-0", "1.0")


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is Debian's")
@settings(max_examples=60, deadline=None)
@given(one=version, other=version)
def test_dpkg_orders_them_so_too(one: str, other: str) -> None:
    asked = subprocess.run(
        ["dpkg", "--compare-versions", one, "lt", other], check=False, capture_output=True
    )
    assert is_older(one, other) is (asked.returncode == 0), (one, other)
