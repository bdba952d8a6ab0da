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
# The catalogue of the shell and the kit, and that of the sentences which the APIs make.
SHARED, API = "messages", "api"
KEYWORDS = {"_": None, "N_": None, "text": None, "plural": (1, 2)}


def empty() -> Catalog:
    return Catalog(
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


def area_of(path: str) -> str:
    """Whose catalogue the messages of a file are in: an area's, or that of the shell and the kit."""
    parts = Path(path).parts
    if parts[0] in ("areas", "templates") and len(parts) > 2:
        return parts[1]
    return SHARED


def messages() -> dict[str, Catalog]:
    """The messages by area. One that the shell or kit has too is theirs."""
    options = {"templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true"}}
    found: dict[str, Catalog] = {SHARED: empty()}
    extracted = list(extract_from_dir(str(CONSOLE), METHODS, options, keywords=KEYWORDS))
    for item in sorted(extracted, key=lambda item: area_of(item[0]) != SHARED):
        area, message = area_of(item[0]), item[2]
        key = message[0] if isinstance(message, tuple) else message
        if area != SHARED and found[SHARED].get(key) is not None:
            continue
        found.setdefault(area, empty()).add(message)
    return found


def main() -> None:
    for folder in (CONSOLE / "locales").iterdir():
        paths = sorted(folder.glob("*.po"))
        known: dict[object, object] = {}
        for path in paths:
            for message in read_po(BytesIO(path.read_bytes()), locale=folder.name):
                if message.id and message.string:
                    known.setdefault(message.id, message.string)
        wanted = messages()
        for area, fresh in wanted.items():
            for message in fresh:
                if message.id and message.id in known:
                    message.string = known[message.id]
            fresh.locale = folder.name
            with (folder / f"{area}.po").open("wb") as file:
                write_po(file, fresh, width=100, omit_header=False, sort_output=True)
        for path in paths:
            if path.stem not in wanted and path.stem != API:
                path.unlink()


if __name__ == "__main__":
    main()
