"""Content at the edge, with a real gateway and a real connection point: pulled once, kept encrypted, given
by token, and never wrong."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from joserfc.jwk import ECKey

from gateway.conftest import code, serving
from gateway.content_rig import CHUNK, ContentRig, plain, unforged
from tandem import pki
from tandem.protocols import tunnel

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ContentRig]:
    async with serving(ContentRig(tmp_path_factory.mktemp("content"))) as made:
        assert isinstance(made, ContentRig)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def alone(tmp_path: Path) -> AsyncIterator[Any]:
    """A gateway for a test that breaks it; started with what the test says."""
    entered = []

    async def start(**changes: Any) -> ContentRig:
        made = ContentRig(tmp_path, **changes)
        context = serving(made)
        entered.append(context)
        await context.__aenter__()
        return made

    yield start
    for context in entered:
        await context.__aexit__(None, None, None)


async def until(holds: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def settled(rig: ContentRig, name: str) -> None:
    """Until all of it is kept: the last device is answered a moment before."""
    await until(lambda: (rig.shelf / name / str(rig.distributions[name]) / "whole").exists())


async def test_content_comes_from_the_site_once_and_from_the_gateway_from_then_on(
    standing: ContentRig,
) -> None:
    content = plain(3 * CHUNK + 4321, seed=2)
    name = standing.add(content)
    first = await standing.fetch(name)
    assert first.status_code == 200, first.text
    assert first.content == content
    assert first.headers["etag"] == f'"{name}"'
    assert first.headers["accept-ranges"] == "bytes"
    assert (await standing.fetch(name)).content == content
    assert standing.asked[name] == 1
    assert standing.given[name] == len(content)


async def test_many_that_ask_at_once_cost_the_site_one_download(standing: ContentRig) -> None:
    content = plain(5 * CHUNK, seed=3)
    name = standing.add(content)
    answers = await asyncio.gather(*(standing.fetch(name) for _ in range(12)))
    assert {answer.content == content for answer in answers} == {True}
    assert standing.given[name] == len(content)


async def test_what_lies_on_the_disk_is_no_content_and_its_key_is_not_there(
    standing: ContentRig,
) -> None:
    content = b"a sentence that anybody would recognise. " * 60_000
    name = standing.add(content)
    assert (await standing.fetch(name)).content == content
    await settled(standing, name)
    files = standing.files(name)
    assert len(files) == -(-len(content) // CHUNK) + 1
    for path in (standing.folder / "gateway").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"anybody" not in data
            assert standing.keys[name] not in data
            assert standing.keys[name].hex().encode() not in data
    assert standing.shelf.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        (f"bytes={CHUNK - 5}-{CHUNK + 5}", CHUNK - 5, CHUNK + 5),
        (f"bytes={2 * CHUNK}-", 2 * CHUNK, 2 * CHUNK + 9),
        ("bytes=-4", 2 * CHUNK + 6, 2 * CHUNK + 9),
        ("bytes=5-999999999999", 5, 2 * CHUNK + 9),
        ("bytes=-999999999999", 0, 2 * CHUNK + 9),
    ],
)
async def test_a_range_is_what_was_asked_for(
    standing: ContentRig, asked: str, first: int, last: int
) -> None:
    content = plain(2 * CHUNK + 10, seed=4)
    name = standing.add(content)
    answer = await standing.fetch(name, range=asked)
    assert answer.status_code == 206
    assert answer.content == content[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=9999999-",
        "bytes=5-4",
        "bytes=-0",
        "bytes=-",
        "bytes=0-1,5-6",
        "bytes=0-0," * 500 + "1-1",
        "bytes=99999999999999999999-",
        "bytes=x-y",
        "bytes=-5-",
    ],
)
async def test_a_range_that_is_none_is_refused(standing: ContentRig, asked: str) -> None:
    name = standing.add(plain(1000, seed=5))
    answer = await standing.fetch(name, range=asked)
    assert answer.status_code == 416
    assert code(answer) == "CMGService_Range"


async def test_a_range_of_something_else_is_all_of_it(standing: ContentRig) -> None:
    content = plain(1000, seed=5)
    name = standing.add(content)
    for more in ({"range": "items=0-1"}, {"range": "bytes=0-1", "if-range": '"other"'}):
        answer = await standing.fetch(name, **more)
        assert (answer.status_code, answer.content) == (200, content)
    same = await standing.fetch(name, range="bytes=0-1", **{"if-range": f'"{name}"'})
    assert (same.status_code, same.content) == (206, content[:2])


async def test_the_head_alone(standing: ContentRig) -> None:
    name = standing.add(plain(2 * CHUNK, seed=6))
    answer = await standing.fetch(name, "HEAD")
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(2 * CHUNK)
    assert standing.asked[name] == 0


async def test_content_of_no_bytes(standing: ContentRig) -> None:
    name = standing.add(b"")
    for _ in range(2):
        answer = await standing.fetch(name)
        assert (answer.status_code, answer.content) == (200, b"")


# -------------------------------------------------------------- who may not have it


async def refused(rig: ContentRig, name: str, headers: dict[str, str]) -> str:
    async with rig.client() as client:
        answer = await client.get(f"{tunnel.CONTENT}/{name}", headers=headers)
    assert answer.status_code == 401, answer.text
    return code(answer)


async def test_tokens_that_do_not_count(standing: ContentRig) -> None:
    content = plain(5000, seed=7)
    name, other = standing.add(content), standing.add(plain(5000, seed=8))
    assert (await standing.fetch(name)).status_code == 200
    now = int(time.time())
    stranger = ECKey.generate_key("P-256", {"kid": "s1"}, private=True)
    tokens = {
        "of other content": standing.content_token(other),
        "expired": standing.content_token(name, exp=now - 1),
        "without an end": standing.content_token(name, exp=None),
        "of next week": standing.content_token(name, nbf=now + 600_000),
        "of another site": standing.content_token(name, iss="urn:sccm:site:XX1"),
        "of another gateway": standing.content_token(name, gateway="other.contoso.com"),
        "for the management point": standing.content_token(name, aud="urn:sccm:service"),
        "of nobody": standing.content_token(name, key=stranger),
        "altered": unforged(standing.content_token(name)),
        "bound to no key": standing.content_token(name, cnf={}),
        "bound to a strange key": standing.content_token(
            name, cnf={"jwk": {"kty": "oct", "k": "AA"}}
        ),
        "of negative size": standing.content_token(name, size=-1),
        "a client's": standing.site_token(),
        "a tenant's": standing.token(),
        "no token": "x" * 9000,
    }
    for what, token in tokens.items():
        headers = standing.headers(name, token)
        assert await refused(standing, name, headers) == "CMGService_Invalid_Token", what
    without = standing.headers(name)
    del without["Authorization"]
    assert await refused(standing, name, without) == "CMGService_Token_Required"


async def test_a_content_token_is_of_use_to_its_device_alone(standing: ContentRig) -> None:
    name = standing.add(plain(5000, seed=9))
    bearer = {"Authorization": f"Bearer {standing.content_token(name)}"}
    other = pki.generate_key("p256")
    hour = timedelta(hours=1)
    for what, signed in {
        "unsigned": {},
        "signed by another device": standing.signed(name, key=other),
        "signed an hour ago": standing.signed(name, at=datetime.now(UTC) - hour),
        "signed for later": standing.signed(name, at=datetime.now(UTC) + hour),
        "signed for other content": standing.signed("0" * 64),
        "signed for another method": standing.signed(name, method="POST"),
    }.items():
        answer = await refused(standing, name, {**bearer, **signed})
        assert answer == "CMGService_Invalid_Token", what


async def test_a_content_token_opens_nothing_else(standing: ContentRig) -> None:
    name = standing.add(plain(5000, seed=10))
    answer = await standing.ask("GET", "/CCM_Proxy_ServerAuth/72057594037927941/echo",
                                standing.content_token(name))  # fmt: skip
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/CCM_Content",
        "/CCM_Content/",
        "/CCM_Content/short",
        "/CCM_Content/" + "0" * 63 + "g",
        "/CCM_Content/" + "0" * 64 + "/1/0",
        "/CCM_Content/" + "0" * 64 + "/",
        "/CMG_Content/key",
        "/CMG_Content/" + "0" * 64,
    ],
)
async def test_no_other_path_leads_to_content(standing: ContentRig, path: str) -> None:
    """Neither into the store, nor to what the gateway itself asks of the site."""
    asked = dict(standing.asked)
    answer = await standing.ask("GET", path, standing.token())
    assert answer.status_code == 403
    assert code(answer) == "CMGService_Not_Published"
    assert dict(standing.asked) == asked


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_content_is_read_alone(standing: ContentRig, method: str) -> None:
    name = standing.add(plain(10, seed=11))
    async with standing.client() as client:
        answer = await client.request(
            method, f"{tunnel.CONTENT}/{name}", headers=standing.headers(name)
        )
    assert answer.status_code == 405


async def test_content_that_the_site_does_not_know_is_not_found(standing: ContentRig) -> None:
    name = "ab" * 32
    standing.sizes[name] = 10
    answer = await standing.fetch(name)
    assert answer.status_code == 404
    assert code(answer) == "CMGService_Content_Not_Found"


# -------------------------------------------------------------- what the site gives


async def test_wrong_content_is_never_given_as_right_and_never_kept(
    standing: ContentRig,
) -> None:
    content = plain(2 * CHUNK + 100, seed=12)
    name = standing.add(content)
    standing.contents[name] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(httpx.RemoteProtocolError):  # It breaks off before its end.
        await standing.fetch(name)
    await until(lambda: not standing.files(name))
    given, begun = standing.given[name], time.monotonic()
    answer = await standing.fetch(name)
    if time.monotonic() - begun < 15:
        # What failed is not fetched again by each device that asks.
        assert (answer.status_code, code(answer)) == (502, "CMGService_Content_Wrong")
        assert standing.given[name] == given
    assert not standing.files(name)


async def test_wrong_content_of_one_chunk_is_refused_whole(standing: ContentRig) -> None:
    name = standing.add(plain(1000, seed=13))
    standing.contents[name] = plain(1000, seed=14)
    answer = await standing.fetch(name)
    assert answer.status_code == 502
    assert code(answer) == "CMGService_Content_Wrong"
    assert not standing.files(name)


async def test_content_that_ends_too_soon_is_not_given(standing: ContentRig) -> None:
    name = standing.add(plain(1000, seed=15))
    standing.contents[name] = standing.contents[name][:500]
    answer = await standing.fetch(name)
    assert answer.status_code == 503
    assert code(answer) == "CMGService_Content_Unavailable"


# -------------------------------------------------------------- what lies there


async def test_copies_outlive_a_restart_and_need_the_sites_key(alone: Any) -> None:
    rig = await alone()
    content = plain(3 * CHUNK, seed=16)
    name = rig.add(content)
    assert (await rig.fetch(name)).content == content
    await settled(rig, name)
    await asyncio.to_thread(rig.stop, "gateway")
    rig.start_gateway()
    await rig.until(lambda facts: facts["tunnels"] == 1)
    assert (await rig.fetch(name)).content == content
    assert rig.given[name] == len(content)
    assert rig.asked["key"] == 2


async def test_a_pull_that_broke_off_goes_on_where_it_stood(alone: Any) -> None:
    rig = await alone()
    content = plain(4 * CHUNK, seed=17)
    name = rig.add(content)
    rig.stops_after = 3 * CHUNK
    rig.flows.clear()
    reader = asyncio.create_task(rig.fetch(name))
    await until(lambda: len(rig.files(name)) == 3)
    await asyncio.to_thread(rig.stop, "gateway", 9)
    with pytest.raises(httpx.HTTPError):
        await reader
    rig.stops_after = 0
    rig.flows.set()
    rig.start_gateway()
    await rig.until(lambda facts: facts["tunnels"] == 1)
    assert (await rig.fetch(name)).content == content
    assert rig.given[name] < 1.5 * len(content)


async def test_what_was_tampered_with_is_noticed_and_pulled_again(alone: Any) -> None:
    rig = await alone()
    names = {
        harm: rig.add(plain(3 * CHUNK, seed=18 + number))
        for number, harm in enumerate(("flip", "cut", "empty", "gone", "exchange", "list"))
    }
    for name in names.values():
        assert (await rig.fetch(name)).content == rig.contents[name]
        await settled(rig, name)
    await asyncio.to_thread(rig.stop, "gateway")
    for harm, name in names.items():
        victim = rig.shelf / name / "1" / ("whole" if harm == "list" else "1")
        data = victim.read_bytes()
        victim.write_bytes(
            {
                "flip": data[:40] + bytes([data[40] ^ 4]) + data[41:],
                "cut": data[:-1],
                "exchange": (rig.shelf / name / "1" / "0").read_bytes(),
                "list": data[::-1],
            }.get(harm, b"")
        )
        if harm == "gone":
            victim.unlink()
    rig.start_gateway()
    await rig.until(lambda facts: facts["tunnels"] == 1)
    for _ in range(2):  # It is whole again from then on.
        for harm, name in names.items():
            assert (await rig.fetch(name)).content == rig.contents[name], harm
            again = 3 * CHUNK if harm == "list" else CHUNK
            assert rig.given[name] == 3 * CHUNK + again, harm


async def test_what_is_removed_is_not_served_any_more_and_not_kept(standing: ContentRig) -> None:
    name = standing.add(plain(2 * CHUNK, seed=20))
    assert (await standing.fetch(name)).status_code == 200
    await settled(standing, name)
    await standing.news(dropped={**standing.dropped, name: 1})
    answer = await standing.fetch(name)
    assert (answer.status_code, code(answer)) == (404, "CMGService_Content_Not_Found")
    await until(lambda: not standing.files(name))
    # Distributed again: under another key, for new tokens.
    standing.distribute_again(name)
    assert (await standing.fetch(name)).content == standing.contents[name]
    assert standing.given[name] == 2 * standing.sizes[name]


async def test_a_gateway_that_serves_no_content_says_so(alone: Any) -> None:
    rig = await alone(serves=False)
    name = rig.add(plain(10, seed=21))
    answer = await rig.fetch(name)
    assert (answer.status_code, code(answer)) == (403, "CMGService_Not_Published")


# -------------------------------------------------------------- no room


async def test_where_nothing_can_be_stored_content_comes_from_the_site_with_an_alarm(
    alone: Any,
) -> None:
    rig = await alone(file_limit=512 * 1024)
    content = plain(3 * CHUNK + 7, seed=22)
    name = rig.add(content)
    for turn in (1, 2):
        answer = await rig.fetch(name)
        assert answer.status_code == 200, answer.text
        assert answer.content == content, turn
    part = await rig.fetch(name, range=f"bytes={CHUNK + 1}-{CHUNK + 100}")
    assert part.content == content[CHUNK + 1 : CHUNK + 101]
    facts = await rig.until(lambda facts: "CMGService_Storage_Full" in facts["alarms"])
    assert facts["ok"]
    told = (rig.folder / "logs").glob("CMG-*-CMGService.log")
    assert any("CMGService_Storage_Full" in path.read_text() for path in told)


async def test_wrong_content_is_not_given_past_a_full_disk_either(alone: Any) -> None:
    rig = await alone(file_limit=512 * 1024)
    content = plain(2 * CHUNK, seed=23)
    name = rig.add(content)
    assert (await rig.fetch(name)).content == content
    rig.contents[name] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.fetch(name)


async def test_the_site_says_how_much_may_be_kept(alone: Any) -> None:
    rig = await alone(quota=2 * CHUNK)
    small, large = rig.add(plain(CHUNK, seed=24)), rig.add(plain(2 * CHUNK, seed=25))
    for name in (small, large):
        assert (await rig.fetch(name)).content == rig.contents[name]
    await settled(rig, small)
    assert not rig.files(large)
    facts = await rig.health()
    assert facts["alarms"] == ["CMGService_Storage_Full"]


# -------------------------------------------------------------- several workers, a site that is away


async def test_workers_of_an_instance_pull_once_between_them(alone: Any) -> None:
    rig = await alone(workers=2)
    content = plain(4 * CHUNK, seed=26)
    name = rig.add(content)
    answers = await asyncio.gather(*(rig.fetch(name) for _ in range(16)))
    assert {answer.content == content for answer in answers} == {True}
    assert rig.given[name] == len(content)


async def test_without_the_site_a_new_instance_serves_nothing_and_says_when_to_come_again(
    alone: Any,
) -> None:
    rig = await alone()
    name = rig.add(plain(CHUNK, seed=27))
    assert (await rig.fetch(name)).status_code == 200
    await asyncio.to_thread(rig.stop, "connector")
    await rig.until(lambda facts: facts["tunnels"] == 0)
    # What is in memory needs nobody.
    assert (await rig.fetch(name)).status_code == 200
    await asyncio.to_thread(rig.stop, "gateway")
    rig.start_gateway()
    await rig.until(lambda facts: facts["version"] == rig.version)
    answer = await rig.fetch(name)
    assert (answer.status_code, code(answer)) == (503, "CMGService_Content_Unavailable")
    assert int(answer.headers["retry-after"]) > 0
    rig.start_connector()
    await rig.until(lambda facts: facts["tunnels"] == 1)
    assert (await rig.fetch(name)).status_code == 200
    assert rig.given[name] == CHUNK


async def test_requests_for_content_stand_in_the_log_like_others(standing: ContentRig) -> None:
    name = standing.add(plain(1234, seed=28))
    await standing.fetch(name, **{"x-correlation-id": "content-one"})
    log = standing.folder / "logs" / "gateway-1.jsonl"
    lines: list[dict[str, Any]] = []

    def told() -> bool:
        lines[:] = [
            json.loads(line) for line in log.read_text().splitlines() if "content-one" in line
        ]
        return bool(lines)

    await until(told)
    assert lines[0]["url"] == f"{tunnel.CONTENT}/{name}"
    assert (lines[0]["status"], lines[0]["bytes"], lines[0]["client"]) == (200, 1234, "d1")


async def test_the_site_is_told_what_is_kept(standing: ContentRig) -> None:
    name = standing.add(plain(2 * CHUNK, seed=29))
    assert (await standing.fetch(name)).status_code == 200

    def said() -> list[tunnel.Copy]:
        return [copy for copy in standing.states[-1].copies if copy.sha256 == name]

    await until(lambda: standing.states and any(copy.whole for copy in said()))
    assert said()[0].stored_bytes > 2 * CHUNK
    assert standing.states[-1].instance == 1
    assert standing.states[-1].used_bytes >= said()[0].stored_bytes
    assert standing.states[-1].free_bytes
    await standing.news(dropped={**standing.dropped, name: 1})
    await until(lambda: not said())


async def test_a_connection_takes_one_download_after_the_other(standing: ContentRig) -> None:
    """Who has all of an answer may ask at once, however little time has passed here."""
    name = standing.add(plain(CHUNK, seed=30))
    async with standing.client(timeout=60) as client:
        for _ in range(40):
            headers = standing.headers(name)
            answer = await client.get(f"{tunnel.CONTENT}/{name}", headers=headers)
            assert answer.status_code == 200
            assert "connection" not in answer.headers
