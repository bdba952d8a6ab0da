"""Bring a language's catalogue up to date with the templates: python -m tools.console_messages

New messages are added empty, old ones are dropped; nothing is translated by guessing.
"""

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

CONSOLE = Path(__file__).parents[1] / "src" / "tandem" / "console"
# A catalogue changes when a message does, and not with the day.
EPOCH = datetime(2026, 11, 24, tzinfo=UTC)
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
KEYWORDS = {"_": None, "N_": None, "text": None, "plural": (1, 2)}


def messages() -> Catalog:
    catalog = Catalog(
        project="Tandem",
        version="console",
        header_comment="# The console's messages. English is what the templates say.",
        msgid_bugs_address="none",
        last_translator="the project",
        language_team="the project",
        creation_date=EPOCH,
        revision_date=EPOCH,
        fuzzy=False,
    )
    options = {"templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true"}}
    for found in extract_from_dir(str(CONSOLE), METHODS, options, keywords=KEYWORDS):
        catalog.add(found[2])
    return catalog


def main() -> None:
    for folder in (CONSOLE / "locales").iterdir():
        path = folder / "messages.po"
        known = read_po(BytesIO(path.read_bytes() if path.exists() else b""), locale=folder.name)
        fresh = messages()
        for message in fresh:
            if message.id and (old := known.get(message.id)):
                message.string = old.string
        fresh.locale = folder.name
        with path.open("wb") as file:
            write_po(file, fresh, width=100, omit_header=False, sort_output=True)


if __name__ == "__main__":
    main()
