"""Whatever the guide says, the console can say in French."""

from io import BytesIO
from pathlib import Path

from babel.messages.extract import extract
from babel.messages.pofile import read_po

from tandem.console.language import FOLDER, Language
from tandem.site import guide
from tandem.site.guide import findings, story

SAID = ("_done", "_partly", "_not_yet", "_unknown", "Said")


def sentences() -> set[str]:
    """Every template of the guide: of steps, findings and the story."""
    found = set(guide.PARTS.values())
    for step in guide.STEPS.values():
        found |= {step.title, step.why}
        if step.do:
            found |= {step.do.says, step.do.warns}
    source = Path(findings.__file__).read_bytes()
    for _, message, _, _ in extract("python", BytesIO(source), dict.fromkeys(SAID)):
        found.add(str(message))
    for words in (story.DID, story.MOVED, story.ONE):
        found |= set(words.values())
    return found | set(story.ONE)


def test_every_sentence_of_the_guide_is_in_french() -> None:
    with (FOLDER / "fr" / "api-guide.po").open("rb") as file:
        known = {str(message.id) for message in read_po(file, locale="fr") if message.id}
    assert known == sentences()


def test_data_is_found_in_a_sentence_and_kept() -> None:
    french = Language("fr")
    said = french.said("alex moved Client apps to the MDM service for the pilot Pilot devices")
    assert "alex" in said
    assert "Pilot devices" in said
    assert "moved" not in said
    assert french.said("2 of 3 clients are co-managed.") == "2 clients sur 3 sont en cogestion."


if __name__ == "__main__":
    for sentence in sorted(sentences()):
        print(sentence)
