"""No sentence is missing in French, none has been forgotten in a template."""

import gettext
import re
from pathlib import Path

from babel.messages.pofile import read_po
from console_areas import browser, replica
from directory_console import Browser as Person
from directory_console import tenant_console
from lxml import html
from tools.console_messages import messages

from site_api import NOW, Api
from tandem import console
from tandem.console.language import FOLDER, Language, negotiate
from tandem.infra.database import Database

PLACES = re.compile(r"%\(\w+\)s")
# What a page shows as it is in every language: names of things, and data.
DATA = re.compile(
    r"[0-9a-f]{32}|Tandem|Français|English|SI|TE|LAB-\d+|[\w.]+@contoso\.com|siteadmin|admin|AD|full-administrator|0x[0-9A-F]{8}"
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


async def test_no_text_of_the_shell_bypasses_the_catalogue(api: Api, tenant_db: Database) -> None:
    """What an area puts into its pages, the area's own tests look at."""

    def pseudo(code: str) -> Language:
        return Language(code, Pseudo())

    pages = []
    async with browser(replica(api.db, api, languages=pseudo)) as site:
        pages += [await site.web.get(path) for path in ("/console/sign-in", "/console/none")]
        await site.sign_in()
        pages += [await site.web.get(path) for path in ("/console/none", "/console/notifications")]
    async with tenant_console(tenant_db, languages=pseudo) as world:
        pages += [await world.client.get(path) for path in ("/console/sign-in", "/console/none")]
        person = await Person(world).sign_in()
        pages.append(await person.client.get("/console/none"))
    for answer in pages:
        page = html.fromstring(answer.content)
        said = page.xpath("//body//text() | //title/text()")
        said += page.xpath("//body//@aria-label | //body//@placeholder | //body/@*")
        assert any("⟦" in words for words in said), answer.url
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
