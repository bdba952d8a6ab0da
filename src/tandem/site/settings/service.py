"""The default client settings, and what results for a device."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tandem import audit
from tandem.infra.database import Tx
from tandem.site.settings import store
from tandem.site.settings.model import CATALOGUE, setting

Values = dict[str, bool | int]


async def default(tx: Tx) -> Values:
    """The default client settings, all of them."""
    changed = await store.changed(tx)
    return {name: changed.get(name, item.default) for name, item in CATALOGUE.items()}


async def change_default(tx: Tx, wanted: Mapping[str, Any], *, actor: str, now: datetime) -> Values:
    """Set some of the default settings, all or none. Raises UnknownSetting, BadValue."""
    read = {setting(name).name: setting(name).read(value) for name, value in wanted.items()}
    before = await default(tx)
    for name, value in read.items():
        await store.save(tx, name, value, now, actor)
    changes = {name: [before[name], value] for name, value in read.items()}
    await audit.record(
        tx,
        actor=actor,
        action="client-settings.change",
        target="Default Client Settings",
        now=now,
        details=changes,
    )
    return await default(tx)


async def resultant(tx: Tx, resource_id: int) -> Values:
    """What a device gets. Only the default settings exist yet, and they hold for every device."""
    return await default(tx)
