"""The frames of the tunnel, without a network: any pieces in, the same frames out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.protocols.tunnel import HEADER_BYTES, MAX_DATA, BadFrame, Decoder, Frame, Type, encode

STREAMS = (Type.OPEN, Type.HEAD, Type.DATA, Type.RESET)
frames = st.one_of(
    st.builds(
        Frame,
        st.sampled_from(STREAMS),
        st.integers(1, 2**31),
        st.binary(max_size=200),
        st.booleans(),
    ),
    st.builds(
        Frame,
        st.sampled_from((Type.PING, Type.PONG)),
        st.just(0),
        st.binary(max_size=8),
        st.just(False),
    ),
    st.builds(
        Frame,
        st.just(Type.CREDIT),
        st.integers(1, 2**31),
        st.binary(min_size=4, max_size=4),
        st.just(False),
    ),
)


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 400), max_size=6))
def test_frames_survive_any_way_of_cutting_them(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(encode(f.type, f.stream, f.payload, fin=f.fin) for f in sent)
    decoder, found, last = Decoder(greeted=True), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += decoder.feed(data[last:cut])
        last = max(last, cut)
    assert found == sent


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    decoder = Decoder(greeted=True)
    try:
        found = decoder.feed(data)
    except BadFrame:
        return
    assert sum(HEADER_BYTES + len(frame.payload) for frame in found) <= len(data)


@pytest.mark.parametrize(
    "header",
    [
        (MAX_DATA + 1).to_bytes(4) + bytes([Type.DATA]) + (1).to_bytes(4),
        (1).to_bytes(4) + bytes([99]) + (1).to_bytes(4),
        (1).to_bytes(4) + bytes([Type.HELLO]) + (1).to_bytes(4),
        (1).to_bytes(4) + bytes([Type.DATA]) + (0).to_bytes(4),
        (2**32 - 1).to_bytes(4) + bytes([Type.CONFIGURATION]) + (0).to_bytes(4),
    ],
)
def test_what_cannot_be_a_frame_is_refused_before_it_is_whole(header: bytes) -> None:
    with pytest.raises(BadFrame):
        Decoder(greeted=True).feed(header)
