"""Bring a language's catalogue up to date with the templates: python -m tools.console_messages

New messages are added empty, old ones are dropped; nothing is translated by guessing. One catalogue
for each area of the console, one for the shell and the kit, and one ("api") for the refusals of the
APIs that pages act through: these are read from the sources, where each is a text or an f-string.
Sentences that are put together there stand in api-<area>.po, written by hand.
A message has one translation, wherever it stands: what the catalogue of its own area says.
"""

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

PACKAGE = Path(__file__).parents[1] / "src" / "tandem"
CONSOLE = PACKAGE / "console"
# What the pages' APIs are made of. Devices, other services' clients and SDKs hear the rest.
APIS = (
    "audit",
    "infra/database.py",
    "infra/http.py",
    "infra/net.py",
    "pki",
    "site/administrators",
    "site/approvals",
    "site/auditing",
    "site/clients/conflicts.py",
    "site/clients/http.py",
    "site/clients/identity_http.py",
    "site/clients/registration_tokens.py",
    "site/cloud_services",
    "site/collections",
    "site/comanagement",
    "site/content",
    "site/deployments",
    "site/discovery",
    "site/fleet",
    "site/guide",
    "site/health",
    "site/ledgers",
    "site/notifications",
    "site/properties",
    "site/search",
    "site/settings",
    "site/software_updates",
    "tenant/assignments",
    "tenant/directory",
    "tenant/graph",
    "tenant/licensing",
    "tenant/mobile_apps",
    "tenant/policies",
    "tenant/sessions",
)
# A catalogue changes when a message does, and not with the day.
EPOCH = datetime(2026, 11, 24, tzinfo=UTC)
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
# The catalogue of the shell and the kit, and those of the sentences which the APIs make.
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
    found[API] = api_messages()
    return found


def api_messages() -> Catalog:
    """The refusals of the APIs: `message` and `cure` of each, with %(name)s where data stands."""
    catalog = empty()
    for root in APIS:
        path = PACKAGE / root
        for source in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for text in refusals(ast.parse(source.read_text("utf-8"))):
                catalog.add(text)
    return catalog


def refusals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else _name(node.func)
        cures = [word.value for word in node.keywords if word.arg == "cure"]
        if not cures and not called[:1].isupper():
            continue
        for argument in [*node.args[:1], *cures]:
            text = template(argument)
            # A sentence, which may begin with data; other arguments are names and keys.
            begins = text is not None and (text[:1].isupper() or text.startswith("%("))
            if text and begins and text.endswith((".", "!", "?")) and " " in text:
                yield text


def template(node: ast.expr) -> str | None:
    """A text as it stands, an f-string with its data as %(name)s; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts, used = [], {}  # type: ignore[var-annotated]
    for value in node.values:
        if isinstance(value, ast.FormattedValue):
            name = _name(value.value)
            used[name] = used.get(name, 0) + 1
            parts.append(f"%({name}{used[name] if used[name] > 1 else ''})s")
        elif isinstance(value, ast.Constant):
            parts.append(str(value.value))
    return "".join(parts)


def _name(node: ast.expr) -> str:
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else "value"


def main() -> None:
    for folder in (CONSOLE / "locales").iterdir():
        paths = sorted(folder.glob("*.po"))
        known: dict[object, object] = {}
        # The shell's and the kit's word for a message goes before an area's.
        for path in sorted(paths, key=lambda path: path.stem != SHARED):
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
            if path.stem not in wanted and not path.stem.startswith(f"{API}-"):
                path.unlink()


if __name__ == "__main__":
    main()
