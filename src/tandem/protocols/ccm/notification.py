"""Client notification: what a site asks a device to do now, and what it hears of it.

    agent → POST bgb                 the ids of orders it has taken, and how long it waits
    site  ← 200 a signed document    orders that it has not taken yet
          ← 204                      nothing came in that time: ask again
    agent → ccm_incoming             topic 9004 for each order when it is done or failed

The order is the site's word, so it is signed, for one client, with an end; the channel is not.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

NOTIFICATION_TOPIC = 9004
ORDER_DONE, ORDER_FAILED = 2, 3
# Of one answer; more come with the next.
ORDERS_LIMIT = 50

Network = Literal["intranet", "internet", "unknown"]
_Text = Annotated[str, msgspec.Meta(max_length=512, pattern=r"^[^\x00]*$")]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,64}$")]


class Location(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the device says it is, since when, and why it thinks so."""

    network: Network = "unknown"
    reason: _Text = ""
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class NotificationRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`taken`: orders that lie on the device's disk. The site has them again until it knows that."""

    taken: Annotated[list[_Id], msgspec.Meta(max_length=ORDERS_LIMIT)] = []
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0
    location: Location = Location()


class Order(msgspec.Struct, frozen=True):
    """One thing to do now. A device does it once, however often it hears of it."""

    id: str
    action: str
    expires_at: datetime


class Notifications(msgspec.Struct, frozen=True):
    """The document of one answer. It is of no use to another client, nor after `expires_at`."""

    client_id: str
    issued_at: datetime
    expires_at: datetime
    orders: list[Order]


class OrderResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """`data` of a message with topic 9004."""

    order: _Id
    text: _Text = ""
    code: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[^\x00]*$")] = ""
