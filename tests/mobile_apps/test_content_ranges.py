"""Parts of content as downloads ask for them: one, several, from the end, and beyond it."""

import email

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_mobile_apps import uploaded

from mdm_world import Mdm
from tandem.tenant import mobile_apps
from tandem.tenant.mobile_apps import ranges
from tandem.tenant.mobile_apps.ranges import Part


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("", None),
        ("bytes=0-9", [Part(0, 10)]),
        ("Bytes = 0-9", None),
        ("bytes=5-", [Part(5, 100)]),
        ("bytes=-7", [Part(93, 100)]),
        ("bytes=-700", [Part(0, 100)]),
        ("bytes=90-200", [Part(90, 100)]),
        ("bytes=0-0, 99-99", [Part(0, 1), Part(99, 100)]),
        ("bytes=0-0,100-", [Part(0, 1)]),
        ("bytes=100-", []),
        ("bytes=-0", []),
        ("bytes=9-0", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("items=0-9", None),
        ("bytes=" + ",".join(["0-"] * 10), None),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(17)), None),
        ("bytes=99999999999999999999-", None),
    ],
)
def test_a_range_header_is_read(header: str, parts: list[Part] | None) -> None:
    assert ranges.wanted(header, 100) == parts


@given(st.text(max_size=40), st.integers(0, 1000))
def test_no_header_asks_for_more_than_there_is(text: str, size: int) -> None:
    parts = ranges.wanted(f"bytes={text}", size) or []
    assert all(0 <= part.start < part.end <= size for part in parts)
    assert sum(part.size for part in parts) <= size


async def test_parts_are_served_with_their_length_and_conditions(mdm: Mdm, package: bytes) -> None:
    app = await uploaded(mdm, package)
    async with mdm.database.transaction() as tx:
        found = await mobile_apps.app(tx, app)
    url, get = await mdm.content.link(found, mdm.world.at), mdm.world.client.get
    etag = (await mdm.world.client.head(url)).headers["etag"]

    async def ask(**headers: str) -> tuple[int, bytes]:
        answer = await get(url, headers={k.replace("_", "-"): v for k, v in headers.items()})
        assert "transfer-encoding" not in answer.headers
        if answer.status_code in (200, 206):
            assert int(answer.headers["content-length"]) == len(answer.content)
        return answer.status_code, answer.content

    assert await ask(range="bytes=3-5", if_range=etag) == (206, package[3:6])
    assert await ask(range="bytes=3-5", if_range='"other"') == (200, package)
    assert await ask(range="bytes=3-5", if_range="Tue, 24 Nov 2026 09:00:00 GMT") == (200, package)
    assert await ask(range="bytes=what") == (200, package)
    assert await ask(range=f"bytes={len(package)}-") == (416, b"")
    assert await ask(if_none_match=etag) == (304, b"")
    assert await ask(if_none_match='"other"') == (200, package)
    assert await ask(if_match='"other"') == (412, b"")
    several = await get(url, headers={"range": "bytes=0-9,-4"})
    assert several.status_code == 206
    assert int(several.headers["content-length"]) == len(several.content)
    kind = f"Content-Type: {several.headers['content-type']}\r\n".encode()
    parts = email.message_from_bytes(kind + b"\r\n" + several.content).get_payload()
    assert isinstance(parts, list)
    size = len(package)
    assert [part["content-range"] for part in parts] == [
        f"bytes 0-9/{size}",
        f"bytes {size - 4}-{size - 1}/{size}",
    ]
    assert [part.get_payload(decode=True) for part in parts] == [package[:10], package[-4:]]
