"""How a device hears that a session is wanted, before its next poll.

The order itself waits in the database: a wake that is lost costs time, never an order.
"""

from collections.abc import Sequence
from typing import Protocol

from tandem.infra.database import Tx
from tandem.tenant.enrollment import Device

CHANNEL = "device_wake"


class Wakes(Protocol):
    """A channel to devices. Windows's own push service (WNS) would be another one."""

    async def wake(self, tx: Tx, devices: Sequence[Device]) -> None:
        """Ask for a session once this transaction is committed. Never waits for a device."""
        ...


class NoWakes:
    """Devices come at their next poll."""

    async def wake(self, tx: Tx, devices: Sequence[Device]) -> None:
        pass


class AgentWakes:
    """Through the agent of a joined device, which waits at whichever process of the tenant."""

    async def wake(self, tx: Tx, devices: Sequence[Device]) -> None:
        ids = [one.directory_device_id for one in devices if one.directory_device_id]
        if ids:
            await tx.execute("SELECT pg_notify(%s, id) FROM unnest(%s::text[]) id", (CHANNEL, ids))
