"""The languages of the pages: gettext catalogues, compiled in memory when the console is loaded."""

import gettext
from datetime import datetime
from functools import cache
from io import BytesIO
from pathlib import Path

from babel import Locale
from babel.core import negotiate_locale
from babel.dates import format_datetime, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

FOLDER = Path(__file__).parent / "locales"
LANGUAGES = {"en": "English", "fr": "Français"}


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """English is what the templates say; every other language is a .po file."""
    source = FOLDER / language / "messages.po"
    if not source.is_file():
        return gettext.NullTranslations()
    compiled = BytesIO()
    with source.open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def negotiate(chosen: str | None, accepted: str) -> str:
    """The language of a request: what was chosen here, else what the browser asks for first."""
    if chosen in LANGUAGES:
        return chosen
    ranked = []
    for position, part in enumerate(accepted.split(",")[:20]):
        name, _, quality = part.strip().partition(";q=")
        try:
            rank = float(quality or "1")
        except ValueError:
            rank = 0.0
        ranked.append((-rank, position, name.strip().replace("-", "_")))
    wanted = [name for _, _, name in sorted(ranked)]
    return negotiate_locale(wanted, list(LANGUAGES), sep="_") or "en"


class Language:
    """Text, numbers and times as a reader of this language expects them."""

    def __init__(self, code: str, translations: gettext.NullTranslations | None = None) -> None:
        self.code = code
        self._locale = Locale.parse(code)
        self._translations = translations or catalogue(code)

    def text(self, message: str, **values: object) -> str:
        found = self._translations.gettext(message) if message else ""
        return found % values if values else found

    def plural(self, one: str, many: str, number: int, **values: object) -> str:
        found = self._translations.ngettext(one, many, number)
        return found % {"number": self.number(number), **values}

    def number(self, value: float) -> str:
        return format_decimal(value, locale=self._locale)

    def share(self, value: float, whole: float) -> str:
        return format_decimal(round(100 * value / whole) if whole else 0, locale=self._locale)

    def time(self, at: datetime) -> str:
        return format_datetime(at, "medium", locale=self._locale)

    def since(self, at: datetime, now: datetime) -> str:
        return format_timedelta(at - now, add_direction=True, locale=self._locale)
