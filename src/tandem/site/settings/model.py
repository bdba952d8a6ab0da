"""Client settings, by the words of the field: the default ones, custom ones with their priorities,
and what results of both.

A custom settings object is of devices or of users, has the groups of settings that were chosen for
it, and holds for members of the collections that it is deployed to. Where several have a say on a
setting, the one with the lowest number of priority wins; the default settings have 10,000.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NewType

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.site.collections import CollectionId, MemberType

SettingsId = NewType("SettingsId", str)
Values = dict[str, bool | int]


class UnknownSetting(Invalid):
    code = "client-settings.unknown"


class BadValue(Invalid):
    code = "client-settings.bad-value"


class BadSettings(Invalid):
    """A custom settings object that cannot be: its name, its groups, its priority."""

    code = "client-settings.bad-object"


class NameTaken(AppError):
    kind, code = Kind.CONFLICT, "client-settings.name-taken"


class NoSuchSettings(AppError):
    kind, code = Kind.NOT_FOUND, "client-settings.not-found"


class NotDeployed(AppError):
    kind, code = Kind.NOT_FOUND, "client-settings.not-deployed"


class TooMany(AppError):
    kind, code = Kind.CONFLICT, "client-settings.too-many"


@dataclass(frozen=True, slots=True)
class Setting:
    """`name` is what policy and commands call it; `default` has its type. `of_users`: settings of
    users may have it, too."""

    name: str
    group: str
    title: str
    default: bool | int
    minimum: int = 0
    maximum: int = 1
    of_users: bool = False

    def is_of(self, type: MemberType) -> bool:
        return self.of_users or type is MemberType.DEVICE

    def read(self, value: Any) -> bool | int:
        """Raises BadValue."""
        if isinstance(self.default, bool):
            if isinstance(value, bool):
                return value
            word = str(value).strip().casefold()
            if word in {"yes", "true", "1", "oui"}:
                return True
            if word in {"no", "false", "0", "non"}:
                return False
            raise BadValue(f"{self.title} is Yes or No, not {value!r}.", field=self.name)
        text = str(value).strip()
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if isinstance(value, bool) or not self.minimum <= number <= self.maximum:
            raise BadValue(
                f"{self.title} is a number from {self.minimum} to {self.maximum}, not {value!r}.",
                field=self.name,
            )
        return number


@dataclass(frozen=True, slots=True)
class Changed:
    """A default setting that somebody set."""

    value: bool | int
    changed_at: datetime
    changed_by: str


DEFAULT_SETTINGS = "Default Client Settings"
DEFAULT_PRIORITY = 10_000
# Far more than anybody tells apart, and few enough that a policy is computed as fast as ever.
MOST_CUSTOM = 200


@dataclass(frozen=True, slots=True)
class CustomSettings:
    """`values` are of all settings of its groups; `deployed_to` in the order in which it was."""

    id: SettingsId
    name: str
    description: str
    type: MemberType
    priority: int
    values: Mapping[str, bool | int]
    created_at: datetime
    created_by: str
    changed_at: datetime
    changed_by: str
    deployed_to: tuple[CollectionId, ...] = ()

    @property
    def groups(self) -> list[str]:
        """In the order of the field's pages."""
        return [group for group in groups(self.type) if not of_group(group).isdisjoint(self.values)]


@dataclass(frozen=True, slots=True)
class Deployment:
    settings_id: SettingsId
    collection_id: CollectionId
    deployed_at: datetime
    deployed_by: str


@dataclass(frozen=True, slots=True)
class Say:
    """Settings that have a say on one setting, and by which collections; `id` is empty, and there
    are no collections, of the default settings."""

    value: bool | int
    name: str
    priority: int
    id: SettingsId = SettingsId("")
    collections: tuple[CollectionId, ...] = ()


@dataclass(frozen=True, slots=True)
class Resultant:
    """What results for one setting: every say on it, and the first one holds."""

    setting: Setting
    says: tuple[Say, ...]

    @property
    def value(self) -> bool | int:
        return self.says[0].value

    @property
    def winner(self) -> Say:
        return self.says[0]

    @property
    def losers(self) -> tuple[Say, ...]:
        return self.says[1:]


# The order of the field's pages; names are those of protocols.ccm.ClientSettings.
CATALOGUE = {
    setting.name: setting
    for setting in (
        Setting(
            "allow_cloud_distribution_point",
            "Cloud services",
            "Allow access to cloud distribution point",
            False,
        ),
        Setting(
            "auto_register_with_azure_ad",
            "Cloud services",
            "Automatically register new Windows 10 domain joined devices with Azure AD",
            True,
        ),
        Setting(
            "enable_cloud_management_gateway",
            "Cloud services",
            "Enable clients to use a cloud management gateway",
            True,
        ),
        Setting(
            "policy_polling_minutes",
            "Client policy",
            "Client policy polling interval (minutes)",
            60,
            3,
            1440,
        ),
        Setting(
            "enable_user_policy",
            "Client policy",
            "Enable user policy on clients",
            True,
            of_users=True,
        ),
        Setting(
            "enable_user_policy_from_internet",
            "Client policy",
            "Enable user policy requests from internet clients",
            False,
            of_users=True,
        ),
        Setting(
            "enable_hardware_inventory",
            "Hardware inventory",
            "Enable hardware inventory on clients",
            True,
        ),
        Setting(
            "hardware_inventory_minutes",
            "Hardware inventory",
            "Hardware inventory schedule (minutes)",
            1440,
            15,
            43_200,
        ),
        Setting(
            "state_reporting_minutes",
            "State messaging",
            "State message reporting cycle (minutes)",
            15,
            1,
            43_200,
        ),
    )
}


def setting(name: str) -> Setting:
    """By its name or its title. Raises UnknownSetting."""
    folded = name.strip().casefold().replace("-", "_")
    for item in CATALOGUE.values():
        if folded in {item.name, item.title.casefold()}:
            return item
    raise UnknownSetting(
        f"There is no client setting {name!r}.", cure=f"Take one of: {', '.join(CATALOGUE)}."
    )


def groups(type: MemberType) -> list[str]:
    """The groups that settings of devices, or of users, can have."""
    return list(dict.fromkeys(item.group for item in CATALOGUE.values() if item.is_of(type)))


def of_group(group: str, type: MemberType = MemberType.DEVICE) -> set[str]:
    """The names of a group's settings."""
    return {name for name, item in CATALOGUE.items() if item.group == group and item.is_of(type)}


def group(said: str, type: MemberType) -> str:
    """As it is written, in whatever letters somebody said it. Raises BadSettings."""
    folded = " ".join(said.replace("-", " ").replace("_", " ").split()).casefold()
    for known in groups(type):
        if known.casefold() == folded:
            return known
    elsewhere = type is MemberType.USER and folded in {
        known.casefold() for known in groups(MemberType.DEVICE)
    }
    raise BadSettings(
        f"Settings of users have no group {said!r}: it is of devices."
        if elsewhere
        else f"There is no group of settings {said[:100]!r}.",
        cure=f"Take one of: {', '.join(groups(type))}.",
        field="groups",
    )


def merge(
    default: Mapping[str, bool | int],
    custom: Iterable[CustomSettings],
    of: Container[CollectionId],
) -> list[Resultant]:
    """What results for who is in the collections `of`, and why. Every setting of `default` is there,
    and with it each say that the custom settings have, in the order in which they win."""
    saying = [
        (item, tuple(id for id in item.deployed_to if id in of))
        for item in sorted(custom, key=lambda item: item.priority)
    ]
    return [
        Resultant(
            CATALOGUE[name],
            (
                *(
                    Say(item.values[name], item.name, item.priority, item.id, by)
                    for item, by in saying
                    if by and name in item.values
                ),
                Say(value, DEFAULT_SETTINGS, DEFAULT_PRIORITY),
            ),
        )
        for name, value in default.items()
    ]


def resulting(
    default: Mapping[str, bool | int],
    custom: Sequence[CustomSettings],
    of: Container[CollectionId],
) -> tuple[Values, set[CollectionId]]:
    """The values that `merge` finds, and the collections by which those that win hold."""
    if not any(id in of for item in custom for id in item.deployed_to):
        return dict(default), set()
    found = merge(default, custom, of)
    by = {id for one in found for id in one.winner.collections}
    return {one.setting.name: one.value for one in found}, by
