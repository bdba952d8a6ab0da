"""Each state that a client of the field may report has words of its own, and not its number alone."""

import pytest

from tandem.console.language import Language
from tandem.site.clients import describe

# Specification 3.2 and 4.3.
_STATES = {
    500: (1, 2, 3),
    800: (
        *range(100, 105),
        *(one for one in range(301, 330) if one != 305),
        *(400, 401, 402, 500),
        *range(601, 610),
        700,
    ),
    810: (100, 101, 102, 105, 106, 107, 108, 110),
    820: (1,),
    1000: (1, 2),
    1001: (1, 2),
    1300: (1, 2),
    2001: tuple(range(1, 8)),
    7010: tuple(range(1, 7)),
}


@pytest.mark.parametrize("topic", _STATES)
def test_every_state_is_said_in_words_and_in_french(topic: int) -> None:
    french = Language("fr")
    for state in _STATES[topic]:
        said = describe(topic, state)
        assert not said.startswith("State "), (topic, state)
        assert french.said(said) != said, said


def test_another_state_is_told_by_its_numbers() -> None:
    assert describe(810, 99) == "State 99 of topic 810"
