"""Client settings: the default ones, custom ones, and what results for a device or a user."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tandem import audit
from tandem.infra.database import Tx
from tandem.site import approvals, collections, traces
from tandem.site.collections import ALL_SYSTEMS, CollectionId, MemberType
from tandem.site.settings import model, store
from tandem.site.settings.model import (
    CATALOGUE,
    DEFAULT_SETTINGS,
    MOST_CUSTOM,
    BadSettings,
    BadValue,
    Changed,
    CustomSettings,
    Deployment,
    NameTaken,
    NoSuchSettings,
    NotDeployed,
    Resultant,
    SettingsId,
    TooMany,
    Values,
    merge,
    setting,
)

# What waits for a second administrator is of this kind.
KIND = "client-settings"


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


# --------------------------------------------------------------------------- custom settings


async def custom(tx: Tx) -> list[CustomSettings]:
    """In the order of their priorities."""
    return await store.custom(tx)


async def find(tx: Tx, wanted: str) -> CustomSettings:
    """By id or name. Raises NoSuchSettings."""
    found = await store.find(tx, wanted.strip())
    if found is None:
        raise NoSuchSettings(
            f"There are no custom client settings {wanted[:256]!r}.",
            cure="List them: `tandem client-settings list`.",
        )
    return found


async def deployments(tx: Tx) -> list[Deployment]:
    """Of all custom settings, the oldest first."""
    return await store.deployments(tx)


async def create(
    tx: Tx,
    name: str,
    *,
    description: str = "",
    type: MemberType = MemberType.DEVICE,
    groups: Iterable[str] = (),
    wanted: Mapping[str, Any] | None = None,
    actor: str,
    now: datetime,
) -> CustomSettings:
    """Custom settings with these groups and those of the settings that are named, behind all others.
    What is not named is as it is by default now.

    Raises BadSettings, UnknownSetting, BadValue, NameTaken, TooMany.
    """
    await store.lock(tx)
    known = await store.custom(tx)
    if len(known) >= MOST_CUSTOM:
        raise TooMany(
            f"There are {len(known)} custom client settings, which is as many as a site takes.",
            cure="Delete some that are not deployed any more.",
        )
    name, description = _named(name, description)
    read = _read(wanted or {}, type)
    chosen = {model.group(said, type) for said in groups}
    chosen |= {CATALOGUE[given].group for given in read}
    values = await _values(tx, type, chosen, {}, read)
    made = CustomSettings(
        SettingsId(str(uuid.uuid4())),
        name,
        description,
        type,
        len(known) + 1,
        values,
        now,
        actor,
        now,
        actor,
    )
    if not await store.insert(tx, made):
        raise _taken(name)
    details = {"type": type.value, "priority": made.priority, "settings": values}
    await _audit(tx, "create", made, actor, now, **details)
    return made


async def change(
    tx: Tx,
    id: SettingsId,
    *,
    name: str | None = None,
    description: str | None = None,
    groups: Sequence[str] | None = None,
    wanted: Mapping[str, Any] | None = None,
    actor: str,
    now: datetime,
) -> CustomSettings:
    """`groups` are all that it has from now on; without it, those that it has and those of the
    settings that are named.

    Raises NoSuchSettings, BadSettings, UnknownSetting, BadValue, NameTaken.
    """
    await store.lock(tx)
    before = await find(tx, id)
    new_name, new_description = _named(
        before.name if name is None else name,
        before.description if description is None else description,
    )
    read = _read(wanted or {}, before.type)
    named = {CATALOGUE[given].group for given in read}
    if groups is None:
        chosen = {*before.groups, *named}
    else:
        chosen = {model.group(said, before.type) for said in groups}
        for given in read:
            if CATALOGUE[given].group not in chosen:
                raise BadValue(
                    f"{CATALOGUE[given].title} is of the group {CATALOGUE[given].group}, which these"
                    " settings are not to have.",
                    cure="Choose the group too, or leave the setting out.",
                    field=given,
                )
    values = await _values(tx, before.type, chosen, before.values, read)
    made = replace(before, name=new_name, description=new_description, values=values)
    if made == before:
        return before
    made = replace(made, changed_at=now, changed_by=actor)
    if not await store.update(tx, made):
        raise _taken(new_name)
    news = {
        given: [before.values.get(given), values.get(given)]
        for given in CATALOGUE
        if before.values.get(given) != values.get(given)
    }
    if news:
        await _trace(tx, made, made.deployed_to, sorted(news), actor, now)
    words = {
        word: [one, other]
        for word, one, other in (
            ("name", before.name, made.name),
            ("description", before.description, made.description),
        )
        if one != other
    }
    await _audit(tx, "update", made, actor, now, **words, settings=news)
    return made


async def prioritize(
    tx: Tx, id: SettingsId, priority: int, *, actor: str, now: datetime
) -> CustomSettings:
    """Move it to this place; those between there and here move by one.

    Raises NoSuchSettings, BadSettings.
    """
    await store.lock(tx)
    found = await find(tx, id)
    known = await store.custom(tx)
    if not 1 <= priority <= len(known):
        raise BadSettings(
            f"The priority of custom settings is a number from 1, which wins, to {len(known)} here.",
            cure=f"The default settings come last, with {model.DEFAULT_PRIORITY}.",
            field="priority",
        )
    if priority == found.priority:
        return found
    ordered = [item for item in known if item.id != found.id]
    ordered.insert(priority - 1, found)
    await store.order(tx, [item.id for item in ordered])
    low, high = sorted((priority, found.priority))
    passed = [item for item in known if low <= item.priority <= high]
    concerned = {id for item in passed for id in item.deployed_to}
    names = {name for name in found.values if any(name in item.values for item in passed)}
    if found.deployed_to:
        await _trace(tx, found, concerned, sorted(names), actor, now)
    await _audit(tx, "prioritize", found, actor, now, priority=[found.priority, priority])
    return await find(tx, found.id)


async def delete(tx: Tx, id: SettingsId, *, actor: str, now: datetime) -> CustomSettings:
    """What it had said holds no more, and those behind it move up. Raises NoSuchSettings."""
    await store.lock(tx)
    found = await find(tx, id)
    known = await store.custom(tx)
    await store.delete(tx, found.id)
    await store.order(tx, [item.id for item in known if item.id != found.id])
    if found.deployed_to:
        await _trace(tx, found, found.deployed_to, sorted(found.values), actor, now)
    await _audit(
        tx,
        "delete",
        found,
        actor,
        now,
        settings=dict(found.values),
        collections=list(found.deployed_to),
    )
    return found


async def deploy(
    tx: Tx, id: SettingsId, collection: str, *, actor: str, now: datetime
) -> CustomSettings:
    """It holds for the members of this collection, too. Twice is once.

    Raises NoSuchSettings, NoSuchCollection, WrongType.
    """
    await store.lock(tx)
    found = await find(tx, id)
    target = await target_of(tx, found, collection)
    if await store.deploy(tx, found.id, target.id, now, actor):
        await _trace(tx, found, [target.id], sorted(found.values), actor, now)
        await _audit(tx, "deploy", found, actor, now, collection=target.id)
    return await find(tx, found.id)


async def propose(
    tx: Tx,
    id: SettingsId,
    collection: str,
    *,
    reason: str = "",
    safeguards: approvals.Safeguards,
    actor: str,
    now: datetime,
) -> CustomSettings | approvals.Request:
    """As `deploy`, at once or, for more members than one administrator may reach alone, when a second
    one agrees. Raises what `deploy` does, and NeedsReason."""
    found = await find(tx, id)
    target = await target_of(tx, found, collection)
    if target.id not in found.deployed_to:
        asked = await approvals.ask(
            tx,
            KIND,
            found.name,
            {"settings": found.id},
            target,
            reason=reason,
            safeguards=safeguards,
            actor=actor,
            now=now,
        )
        if asked is not None:
            return asked
    return await deploy(tx, found.id, target.id, actor=actor, now=now)


async def described(tx: Tx, asked: approvals.Request) -> dict[str, Any]:
    """What a second administrator agrees to: the settings as they are by now."""
    every = {item.id: item for item in await store.custom(tx)}
    found = every.get(asked.subject["settings"])
    return {
        "settings_id": asked.subject["settings"],
        "priority": found.priority if found else None,
        "settings": dict(found.values) if found else {},
    }


async def target_of(tx: Tx, found: CustomSettings, collection: str) -> collections.Collection:
    """Raises NoSuchCollection, WrongType; both name the field."""
    try:
        return await collections.collection_of(tx, found.type, collection)
    except (collections.NoSuchCollection, collections.WrongType) as refused:
        refused.details["field"] = "collection"
        raise


async def withdraw(
    tx: Tx, id: SettingsId, collection: str, *, actor: str, now: datetime
) -> CustomSettings:
    """Raises NoSuchSettings, NoSuchCollection, NotDeployed."""
    await store.lock(tx)
    found = await find(tx, id)
    target = await collections.collection(tx, collection)
    if not await store.withdraw(tx, found.id, target.id):
        raise NotDeployed(
            f"{found.name} is not deployed to {target.name}.",
            cure="See where it is: `tandem client-settings custom`.",
        )
    await _trace(tx, found, [target.id], sorted(found.values), actor, now)
    await _audit(tx, "withdraw", found, actor, now, collection=target.id)
    return await find(tx, found.id)


def _named(name: str, description: str) -> tuple[str, str]:
    name, description = name.strip(), description.strip()
    if not name or len(name) > 256 or not name.isprintable():
        raise BadSettings(
            "Client settings have a name of 1 to 256 characters, on one line.", field="name"
        )
    if len(description) > 1024 or "\0" in description:
        raise BadSettings("A description has at most 1,024 characters.", field="description")
    if name.casefold() == DEFAULT_SETTINGS.casefold():
        raise _taken(name)
    return name, description


def _taken(name: str) -> NameTaken:
    return NameTaken(
        f"There are client settings {name!r} already.", cure="Take another name.", field="name"
    )


def _read(wanted: Mapping[str, Any], type: MemberType) -> Values:
    read: Values = {}
    for said, value in wanted.items():
        item = setting(said)
        if not item.is_of(type):
            raise BadSettings(
                f"{item.title} is a setting of devices, not of users.",
                cure="Make custom settings of devices for it.",
                field=item.name,
            )
        read[item.name] = item.read(value)
    return read


async def _values(
    tx: Tx,
    type: MemberType,
    chosen: Iterable[str],
    before: Mapping[str, bool | int],
    read: Mapping[str, bool | int],
) -> Values:
    """Of all settings of the groups: what is said now, else what was, else what is by default."""
    names = {name for one in chosen for name in model.of_group(one, type)}
    if not names:
        raise BadSettings(
            "Custom settings have at least one group of settings.",
            cure=f"Choose some of: {', '.join(model.groups(type))}.",
            field="groups",
        )
    values = {**await default(tx), **before, **read}
    return {name: values[name] for name in CATALOGUE if name in names}


async def _trace(
    tx: Tx,
    found: CustomSettings,
    concerned: Iterable[CollectionId],
    names: Sequence[str],
    actor: str,
    now: datetime,
) -> None:
    """Users are in no device's policy, so only settings of devices are the cause of one."""
    concerned = list(concerned)
    if found.type is MemberType.DEVICE and concerned:
        await traces.begin(
            tx,
            traces.Kind.SETTINGS,
            actor=actor,
            collections=concerned,
            details={"names": list(names), "settings": found.name},
            now=now,
        )


async def _audit(
    tx: Tx, what: str, found: CustomSettings, actor: str, now: datetime, **details: Any
) -> None:
    await audit.record(
        tx,
        actor=actor,
        action=f"client-settings.{what}",
        target=found.name,
        now=now,
        details={"id": found.id, **details},
    )


async def used_for(tx: Tx, id: CollectionId) -> list[collections.Use]:
    """Custom settings that are deployed to a collection."""
    return [
        collections.Use("client-settings", item.name, str(item.priority))
        for item in await store.custom(tx)
        if id in item.deployed_to
    ]


# --------------------------------------------------------------------------- what results


@dataclass(frozen=True)
class Standing:
    """All settings of devices, as far as they do not depend on the device."""

    default: Mapping[str, bool | int]
    custom: Sequence[CustomSettings]

    @property
    def collections(self) -> list[CollectionId]:
        """Those that it has to be known of whether a device is in them."""
        return [id for item in self.custom for id in item.deployed_to]


async def standing(tx: Tx, type: MemberType = MemberType.DEVICE) -> Standing:
    every = await store.custom(tx)
    return Standing(await default(tx), [item for item in every if item.type is type])


async def resultant(tx: Tx, resource_id: int) -> Values:
    """What a device gets, by name."""
    return {item.setting.name: item.value for item in await resultant_of(tx, resource_id)}


async def resultant_of(tx: Tx, resource_id: int) -> list[Resultant]:
    """What a device gets, and why."""
    now = await standing(tx)
    of = await collections.memberships(tx, now.collections, resource_id)
    return merge(now.default, now.custom, of)


async def resultant_of_user(tx: Tx, user_id: int) -> list[Resultant]:
    """What custom settings of users say of a user. What none of them says is as the device has it,
    and not in the list."""
    now = await standing(tx, MemberType.USER)
    of = await collections.memberships(tx, now.collections, user_id, MemberType.USER)
    found = merge(now.default, now.custom, of)
    return [
        Resultant(item.setting, item.says[:-1])
        for item in found
        if item.setting.of_users and len(item.says) > 1
    ]


async def of_user(tx: Tx, tenant_id: str, object_id: str) -> Values:
    """What custom settings say of a user of the directory, by name; nothing of one who is not known."""
    user = await collections.find_user(tx, tenant_id, object_id)
    if user is None:
        return {}
    return {item.setting.name: item.value for item in await resultant_of_user(tx, user.id)}


async def longest_polling(tx: Tx) -> int:
    """Minutes after which every device has asked for its policy again, whichever settings it has."""
    now = await standing(tx)
    name = "policy_polling_minutes"
    said = [item.values[name] for item in now.custom if item.deployed_to and name in item.values]
    return max([now.default[name], *said])
