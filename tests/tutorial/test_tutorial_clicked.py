"""The whole tutorial with a mouse, in English and in French, in a real browser."""

import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright
from walk_plain import without_scripts
from walk_steps import BY_API, CLICKED, Walk
from walk_world import STEPS, by_commands, untouched

from walk_browser import (
    ARGUMENTS,
    CHROMIUM,
    MOST_BYTES,
    MOST_BYTES_WITH_CHARTS,
    MOST_REQUESTS,
    Seen,
    sitting,
    weight,
)

pytestmark = [
    pytest.mark.walk,
    pytest.mark.browser,
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.asyncio(loop_scope="module"),
]

DEVICES = {"en": 5, "fr": 3}
# Behind which steps the first-run guide is looked at, and for what it must show done.
ONE_TO_THREE = tuple(step.id for step in STEPS if step.id[0] in "123")
GUIDE = {"3.2": ONE_TO_THREE, "7.2": tuple(step.id for step in STEPS)}


@dataclass
class Walked:
    """What came of it. A step that failed is told by the test of the tutorial, not by each."""

    language: str
    seen: Seen
    seconds: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    without_scripts: str = ""
    weights: dict[str, tuple[int, int, bool]] = field(default_factory=dict)


async def _seen(walk: Walk, folder: Path) -> str:
    """What went wrong, with what stood on the page then."""
    words = " ".join((await walk.words()).split())[:1500]
    picture = folder / "failed.png"
    await walk.at.page.screenshot(path=picture, full_page=True)
    return f"{traceback.format_exc()}\n{words}\n{picture}"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["en", "fr"])
async def walked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Walked]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian, Ubuntu: apt-get install chromium)")
    language: str = request.param
    told = Walked(language, Seen())
    folder = tmp_path_factory.mktemp(language)
    async with untouched(folder / "lab", DEVICES[language]) as lab, async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        own = (lab.topology.site_url, lab.topology.tenant_url)
        async with sitting(browser, language, own, told.seen) as context:
            # French is walked with the keyboard alone.
            walk = await Walk.begin(
                lab, context, language, told.seen, folder, keyboard=language == "fr"
            )
            for step in STEPS:
                begun = time.monotonic()
                try:
                    if step.id in CLICKED:
                        await CLICKED[step.id](walk)
                    else:
                        await by_commands(lab, step.id)
                    if step.id in GUIDE:
                        await walk.guide(GUIDE[step.id])
                except Exception:
                    told.failure = f"{step.id} {step.title}\n{await _seen(walk, folder)}"
                    break
                told.seconds[step.id] = round(time.monotonic() - begun, 1)
                print(language, step.id, told.seconds[step.id], flush=True)
            else:
                try:
                    async with sitting(
                        browser, language, own, told.seen, java_script_enabled=False
                    ) as plain:
                        await without_scripts(walk, plain)
                except Exception:
                    told.without_scripts = await _seen(walk, folder)
            for name, url in told.seen.pages.items():
                told.weights[name] = await weight(context, url)
        await browser.close()
    print(language, told.seconds, sum(told.seconds.values()))
    yield told


async def test_every_step_goes_through(walked: Walked) -> None:
    assert not walked.failure, walked.failure


async def test_no_page_has_anything_to_complain_of(walked: Walked) -> None:
    """axe at each page and step in both themes; the browser's console; requests elsewhere; 500."""
    assert not walked.seen.complaints, "\n".join(walked.seen.complaints)


async def test_pages_are_light(walked: Walked) -> None:
    heavy = [
        f"{name}: {size} bytes, {requests} requests"
        for name, (size, requests, charts) in walked.weights.items()
        if size > (MOST_BYTES_WITH_CHARTS if charts else MOST_BYTES) or requests > MOST_REQUESTS
    ]
    assert walked.weights
    assert not heavy, "\n".join(heavy)


async def test_wizards_work_without_scripts(walked: Walked) -> None:
    assert not walked.failure
    assert not walked.without_scripts, walked.without_scripts


async def test_nothing_of_the_tutorial_is_done_but_by_clicking() -> None:
    assert not BY_API
    assert [step.id for step in STEPS if step.id not in CLICKED] == []
