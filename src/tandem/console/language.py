"""The languages of the pages: gettext catalogues, compiled in memory when the console is loaded."""

import gettext
import re
from datetime import date, datetime
from functools import cache
from io import BytesIO
from pathlib import Path

from babel import Locale
from babel.core import negotiate_locale
from babel.dates import format_date, format_datetime, format_timedelta
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

from tandem.infra.errors import AppError

FOLDER = Path(__file__).parent / "locales"
LANGUAGES = {"en": "English", "fr": "Français"}


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """English is what the templates say; every other language is a folder of .po files, one for each
    area of the console."""
    merged = Catalog(locale=language)
    for source in sorted((FOLDER / language).glob("*.po")):
        with source.open("rb") as file:
            for message in read_po(file, locale=language):
                if message.id:
                    merged.add(message.id, message.string)
    if not len(merged):
        return gettext.NullTranslations()
    compiled = BytesIO()
    write_mo(compiled, merged)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


_PLACE = re.compile(r"%\\\((\w+)\\\)s")


@cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """The sentences of the APIs that hold data: what recognises each, and its translation."""
    found = []
    for source in sorted((FOLDER / language).glob("api*.po")):
        with source.open("rb") as file:
            for message in read_po(file, locale=language):
                if isinstance(message.id, str) and "%(" in message.id and message.string:
                    expression = _PLACE.sub(r"(?P<\1>.+)", re.escape(message.id))
                    found.append((re.compile(expression, re.DOTALL), str(message.string)))
    # The one that says most itself recognises best.
    return sorted(found, key=lambda pair: -len(pair[0].pattern))


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

    def said(self, message: str) -> str:
        """A sentence that an API made, data and all, in this language where it is known."""
        found = self.text(message)
        if found != message or not message:
            return found
        for pattern, translated in _patterns(self.code):
            if match := pattern.fullmatch(message):
                return translated % match.groupdict()
        return message

    def problem(self, error: AppError) -> str:
        """What is wrong and what to do, in one line."""
        values = getattr(error, "values", None)
        first = self.text(error.message, **values) if values else self.said(error.message)
        return f"{first} {self.said(error.cure)}".strip()

    def plural(self, one: str, many: str, number: int, **values: object) -> str:
        found = self._translations.ngettext(one, many, number)
        return found % {"number": self.number(number), **values}

    def number(self, value: float) -> str:
        return format_decimal(value, locale=self._locale)

    def share(self, value: float, whole: float) -> str:
        return format_decimal(round(100 * value / whole) if whole else 0, locale=self._locale)

    def time(self, at: datetime) -> str:
        return format_datetime(at, "medium", locale=self._locale)

    def day(self, at: date) -> str:
        return format_date(at, "medium", locale=self._locale)

    def since(self, at: datetime, now: datetime) -> str:
        return format_timedelta(at - now, add_direction=True, locale=self._locale)
