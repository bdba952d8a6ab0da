"""Client notification: what an administrator asks devices to do now, and what became of it.

Owns the tables notifications_operation, notifications_order and notifications_channel. An order waits
in the database until its device takes it or it expires; the channel only makes that soon.
"""

from tandem.site.notifications.channel import Channel, routes
from tandem.site.notifications.http import admin_routes
from tandem.site.notifications.model import (
    ACTIONS,
    Action,
    Activity,
    ChannelState,
    CountChanged,
    NobodyThere,
    NoSuchOperation,
    Operation,
    OrderState,
    Reach,
    Result,
    UnknownAction,
)
from tandem.site.notifications.service import (
    activity,
    cancel,
    channel_of,
    create,
    find,
    listed,
    orders_of,
    policy_changed,
    reach,
    results,
    take_result,
)

__all__ = [
    "ACTIONS",
    "Action",
    "Activity",
    "Channel",
    "ChannelState",
    "CountChanged",
    "NoSuchOperation",
    "NobodyThere",
    "Operation",
    "OrderState",
    "Reach",
    "Result",
    "UnknownAction",
    "activity",
    "admin_routes",
    "cancel",
    "channel_of",
    "create",
    "find",
    "listed",
    "orders_of",
    "policy_changed",
    "reach",
    "results",
    "routes",
    "take_result",
]
