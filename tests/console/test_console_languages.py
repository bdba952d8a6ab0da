"""No sentence is missing in French, none has been forgotten in a template."""

import gettext
import re
from pathlib import Path

import httpx
import pytest
from babel.messages.pofile import read_po
from console_fleet import NOW, Fleet
from lxml import html
from test_console_pages import SITE_PAGES, TENANT_PAGES, admit
from tools.console_messages import messages

from tandem import console
from tandem.console.language import FOLDER, Language, negotiate
from tandem.infra import http

PLACES = re.compile(r"%\(\w+\)s")
# What a page shows as it is in every language: names of things, and data of the fleet.
DATA = re.compile(
    r"[0-9a-f]{32}|Tandem|Français|English|LAB-\d+|[\w.]+@contoso\.com|admin|AD|full-administrator|0x[0-9A-F]{8}"
    r"|\d[\d.,  ]*|gw\.[\w.]+( \d)?|cp1|mp1|127\.0\.0\.\d+:\d+|connection refused|gateway restart"
    r"|process 4711 ended|Ready|GUID:1|[A-Z]+-EVENT|LOG-LINE-\d|\w+\.log|ccmsetup.*|Contoso"
    r"|Client Bootstrap|pilot(-without)?|d-\d+|console\.[\w-]+|%|[–›:()·.]|\w{3} \d+, 2026.*|[AP]M"
)


class Pseudo(gettext.NullTranslations):
    """A language in which every translated message is marked."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, one: str, many: str, n: int) -> str:
        return f"⟦{one if n == 1 else many}⟧"


def test_every_message_of_the_pages_is_in_every_catalogue() -> None:
    wanted = {area: {m.id for m in found if m.id} for area, found in messages().items()}
    for folder in FOLDER.iterdir():
        for area, ids in wanted.items():
            with (folder / f"{area}.po").open("rb") as file:
                catalogue = read_po(file, locale=folder.name)
            known = {message.id for message in catalogue if message.id}
            assert known == ids, f"{area}: run python -m tools.console_messages"
            for message in catalogue:
                if not message.id:
                    continue
                assert not message.fuzzy, message.id
                sources = message.id if isinstance(message.id, tuple) else (message.id,)
                targets = message.string if isinstance(message.string, tuple) else (message.string,)
                for target in targets:
                    assert target, message.id
                    assert set(PLACES.findall(target)) == set(PLACES.findall(sources[-1])), (
                        message.id
                    )


def test_a_message_is_translated_alike_wherever_it_stands() -> None:
    """The catalogues become one when they are loaded: two words for one would overrule each other."""
    for folder in FOLDER.iterdir():
        said: dict[object, tuple[str, object]] = {}
        for path in sorted(folder.glob("*.po")):
            with path.open("rb") as file:
                for message in read_po(file, locale=folder.name):
                    if message.id:
                        first = said.setdefault(message.id, (path.stem, message.string))
                        assert first[1] == message.string, (message.id, first[0], path.stem)


@pytest.mark.parametrize(
    ("area", "path"),
    [("site", path) for path in [*SITE_PAGES, "/console/sign-in", "/console/none"]]
    + [("site", "/console/devices?stage=policy&owner=mdm&workload=client-apps&page=2")]
    + [("site", "/console/devices/d-0064"), ("site", "/console/devices/d-0063/panel")]
    + [("tenant", path) for path in [*TENANT_PAGES, "/console/sign-in"]],
)
async def test_no_text_of_a_page_bypasses_the_catalogue(fleet: Fleet, area: str, path: str) -> None:
    build = console.site_routes if area == "site" else console.tenant_routes
    routes = build(fleet, now=lambda: NOW, languages=lambda code: Language(code, Pseudo()))
    transport = httpx.ASGITransport(http.application(routes, role="test"))
    async with httpx.AsyncClient(transport=transport, base_url="https://x.test") as client:
        admit(client, fleet)
        page = html.fromstring((await client.get(path)).content)
    said = page.xpath("//body//text() | //title/text()")
    said += page.xpath("//body//@aria-label | //body//@placeholder | //body/@*")
    for words in said:
        left = re.sub(r"⟦[^⟦⟧]*(⟦[^⟦⟧]*⟧[^⟦⟧]*)*⟧", "", words)
        assert not DATA.sub("", left).strip(), f"not translated: {words!r}"


def test_a_language_is_negotiated_by_choice_then_by_the_browser() -> None:
    assert negotiate("fr", "en") == "fr"
    assert negotiate("xx", "fr-CA;q=0.8, en;q=0.1") == "fr"
    assert negotiate(None, "nl;q=x,,;q=") == "en"


def test_numbers_and_times_are_the_reader_s() -> None:
    french = Language("fr")
    assert french.number(47950) == "47\u202f950"
    assert french.time(NOW).startswith("24 nov. 2026")
    assert french.plural("%(number)s device", "%(number)s devices", 0) == "0 appareil"


def test_catalogues_are_part_of_the_package() -> None:
    assert (Path(console.__file__).parent / "locales" / "fr" / "messages.po").is_file()


def test_what_an_api_refuses_is_read_in_the_reader_s_language() -> None:
    french = Language("fr")
    taken = f"There is a collection {'Pilot % <b>'} already."
    assert french.said(taken) == "Il y a déjà un regroupement Pilot % <b>."
    assert french.said("Take another name.") == "Prenez un autre nom."
    assert french.said("Nobody has translated this.") == "Nobody has translated this."
    assert Language("en").said(taken) == taken
