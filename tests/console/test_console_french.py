"""What reads the same in French is either the same word or one that was forgotten."""

import re

import pytest
from babel.messages.pofile import read_po

from tandem.console.language import FOLDER, Language

# The same word in both languages, or a name that nobody translates. Ask a French reader before you
# add one: the vendor's French is the measure.
SAME = {
    "%(number)s client",
    "%(number)s clients",
    "API",
    "Actions",
    "Active",
    "AdminService",
    "Administration",
    "Application",
    "Applications",
    "Article",
    "CSV",
    "Classification",
    "Code",
    "Configuration",
    "Description",
    "Enterprise Mobility + Security E3",
    "Enterprise Mobility + Security E5",
    "Instance",
    "Instance %(name)s",
    "Instance %(number)s",
    "Interactive",
    "Internet",
    "Intranet",
    "Licence",
    "MSI",
    "Navigation",
    "Notifications",
    "OMA-URI",
    "Organisation",
    "PFX",
    "Pages",
    "Plans",
    "Port",
    "Position",
    "PostgreSQL",
    "Python",
    "Secret",
    "Service",
    "Site",
    "Source",
    "Tandem",
    "Tunnels",
    "Type",
    "Version",
    "XML",
}

PLACE = re.compile(r"%\(\w+\)s")


@pytest.mark.parametrize("catalogue", sorted((FOLDER / "fr").glob("*.po")), ids=lambda p: p.stem)
def test_no_french_text_is_the_english_one(catalogue) -> None:
    with catalogue.open("rb") as file:
        found = read_po(file, locale="fr")
    forgotten = []
    for message in found:
        sources = message.id if isinstance(message.id, tuple) else (message.id,)
        targets = message.string if isinstance(message.string, tuple) else (message.string,)
        pairs = zip(sources, targets, strict=False)
        forgotten += [
            one
            for one, said in pairs
            if one == said and one not in SAME and re.search("[A-Za-z]", PLACE.sub("", one))
        ]
    assert not forgotten, f"{catalogue.name}: say it in French, or list it in SAME"


@pytest.mark.parametrize(
    "said",
    [
        "Paris takes too long to evaluate.",
        "bea asked for this: another administrator has to approve it.",
        "7 is no interval of discovery.",
    ],
)
def test_a_sentence_that_begins_with_data_has_its_french(said: str) -> None:
    found = Language("fr").said(said)
    assert found != said
    assert found.startswith(said.split()[0])
