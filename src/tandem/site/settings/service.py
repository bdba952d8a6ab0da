"""The default client settings, and what results for a device."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tandem import audit
from tandem.infra.database import Tx
from tandem.site import traces
from tandem.site.collections import ALL_SYSTEMS
from tandem.site.settings import store
from tandem.site.settings.model import (
    CATALOGUE,
    DEFAULT_SETTINGS,
    Changed,
    Resultant,
    setting,
)

Values = dict[str, bool | int]


async def default(tx: Tx) -> Values:
    """The default client settings, all of them."""
    changed = await store.changed(tx)
    return {
        name: changed[name].value if name in changed else item.default
        for name, item in CATALOGUE.items()
    }


async def changes(tx: Tx) -> dict[str, Changed]:
    """Which of them somebody set, to what, when and who; by name."""
    return {name: item for name, item in (await store.changed(tx)).items() if name in CATALOGUE}


async def hold(tx: Tx) -> None:
    """One administrator at a time changes the default settings, until this transaction ends."""
    await store.lock(tx)


async def change_default(tx: Tx, wanted: Mapping[str, Any], *, actor: str, now: datetime) -> Values:
    """Set some of the default settings, all or none. Raises UnknownSetting, BadValue."""
    read = {setting(name).name: setting(name).read(value) for name, value in wanted.items()}
    await store.lock(tx)
    before = await default(tx)
    news = {name: value for name, value in read.items() if before[name] != value}
    for name, value in news.items():
        await store.save(tx, name, value, now, actor)
    if news:
        await traces.begin(
            tx,
            traces.Kind.SETTINGS,
            actor=actor,
            collections=[ALL_SYSTEMS],
            details={"names": sorted(news)},
            now=now,
        )
        await audit.record(
            tx,
            actor=actor,
            action="client-settings.change",
            target=DEFAULT_SETTINGS,
            now=now,
            details={name: [before[name], value] for name, value in news.items()},
        )
    return await default(tx)


async def resultant(tx: Tx, resource_id: int) -> Values:
    """What a device gets, by name."""
    return {item.setting.name: item.value for item in await resultant_of(tx, resource_id)}


async def resultant_of(tx: Tx, resource_id: int) -> list[Resultant]:
    """What a device gets, and where it is from. Only the default settings exist yet, and they hold
    for every device."""
    values = await default(tx)
    return [Resultant(CATALOGUE[name], value, DEFAULT_SETTINGS) for name, value in values.items()]
