"""Why a device's policy changed: one trace id from the cause to the device's report of what came of it.

    begin   where somebody decides (a slider, a ring, a collection, a configuration): the id is made
    follow  when a device fetches policy that differs: which cause it follows, or that the device
            itself changed; the signed policy carries the id, and the device's reports repeat it

Owns the tables traces_…. A cause is one row, however many devices it concerns; a device has one row.
"""

from tandem.site.traces.model import Cause, Followed, Given, Kind, TraceId
from tandem.site.traces.service import begin, follow, forget, given, since

__all__ = [
    "Cause",
    "Followed",
    "Given",
    "Kind",
    "TraceId",
    "begin",
    "follow",
    "forget",
    "given",
    "since",
]
