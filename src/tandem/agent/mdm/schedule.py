"""When the device calls by itself: the three schedules of DMClient/Poll (spec 13)."""

from dataclasses import dataclass

DAY_MINUTES = 1440


@dataclass(frozen=True)
class Poll:
    """(interval in minutes, how often; 0 is for ever) of each schedule."""

    first: tuple[int, int] = (15, 10)
    second: tuple[int, int] = (0, 0)
    remaining: tuple[int, int] = (480, 0)

    @classmethod
    def read(cls, values: dict[str, str]) -> "Poll":
        """From the values below Poll, by name; what is missing or no number is 0."""

        def number(name: str) -> int:
            text = values.get(name.lower(), "")
            return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0

        return cls(
            (number("IntervalForFirstSetOfRetries"), number("NumberOfFirstRetries")),
            (number("IntervalForSecondSetOfRetries"), number("NumberOfSecondRetries")),
            (
                number("IntervalForRemainingScheduledRetries"),
                number("NumberOfRemainingScheduledRetries"),
            ),
        )


def next_poll(poll: Poll, minutes: float) -> float:
    """The next call after so many minutes since the enrollment, in minutes since then.

    A schedule without end hides those after it; without any, the device calls once a day.
    """
    at = 0.0
    for interval, count in (poll.first, poll.second, poll.remaining):
        if interval == 0:
            continue
        end = at + interval * count
        if count == 0 or minutes < end:
            return at + interval * (int(max(0.0, minutes - at) // interval) + 1)
        at = end
    return at + DAY_MINUTES * (int(max(0.0, minutes - at) // DAY_MINUTES) + 1)
