"""Hardware inventory: reports in their order, each once, and a whole one where something is missing."""

from datetime import datetime

import msgspec

from tandem.infra.database import Tx
from tandem.infra.logs import get_logger
from tandem.protocols import ccm
from tandem.site import collections
from tandem.site.clients import store
from tandem.site.clients.model import ClientId

log = get_logger("clients.inventory")

# A report of a series that was left counts for nothing; older ones than these no device has waiting.
_PAST = 8


async def take(tx: Tx, id: ClientId, message: ccm.Message, now: datetime) -> None:
    """What a message says of the hardware, when it is its turn; else the whole is asked for."""
    try:
        report = msgspec.convert(message.data, ccm.Inventory)
    except msgspec.ValidationError as error:
        log.warning("unreadable inventory", client=id, reason=str(error))
        await store.want_inventory(tx, id)
        return
    at = min(message.at, now)
    if report.series:
        place = await store.inventory_place(tx, id)
        after = follow(place, report)
        if after is not place:
            await store.save_inventory_place(tx, id, after)
        if (after.series, after.number) == (place.series, place.number):
            return
        # Its turn says that it is the newest; no clock has a say in that.
        at = now
    for of in collections.HARDWARE:
        if of.name in report.classes:
            await collections.report(tx, id, of, report.classes[of.name], at)
        elif report.whole:
            await collections.report(tx, id, of, [], at)


def follow(place: store.InventoryPlace, report: ccm.Inventory) -> store.InventoryPlace:
    """How far this client's reports are followed after this one; another number than before: it
    counts."""
    if report.series in place.past:
        return msgspec.structs.replace(place, wanted=True)
    if report.series != place.series:
        if not report.whole:
            return msgspec.structs.replace(place, wanted=True)
        past = [*place.past, place.series][-_PAST:] if place.series else place.past
        return store.InventoryPlace(report.series, report.number, past, False)
    # A number that was there before, in a message that was not: it was overtaken, or the device's
    # disk was put back. Neither says what is so now.
    if report.number > place.number and (report.whole or report.number == place.number + 1):
        wanted = place.wanted and not report.whole
        return store.InventoryPlace(place.series, report.number, place.past, wanted)
    return msgspec.structs.replace(place, wanted=True)
