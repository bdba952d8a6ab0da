"""How a device hears that a session is wanted, before its next poll.

The order itself waits in the database: a wake that is lost costs time, never an order.
"""

from typing import Protocol

from tandem.infra.database import Tx
from tandem.tenant.enrollment import Device

CHANNEL = "device_wake"


class Wakes(Protocol):
    """A channel to devices. Windows's own push service (WNS) would be another one."""

    async def wake(self, tx: Tx, device: Device) -> None:
        """Ask for a session once this transaction is committed. Never waits for the device."""
        ...


class NoWakes:
    """Devices come at their next poll."""

    async def wake(self, tx: Tx, device: Device) -> None:
        pass


class AgentWakes:
    """Through the agent of a joined device, which waits at whichever process of the tenant."""

    async def wake(self, tx: Tx, device: Device) -> None:
        if device.directory_device_id:
            await tx.execute("SELECT pg_notify(%s, %s)", (CHANNEL, device.directory_device_id))
