"""Client settings: what the default ones are, by the words of the field."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tandem.infra.errors import Invalid


class UnknownSetting(Invalid):
    code = "client-settings.unknown"


class BadValue(Invalid):
    code = "client-settings.bad-value"


@dataclass(frozen=True, slots=True)
class Setting:
    """`name` is what policy and commands call it; `default` has its type."""

    name: str
    group: str
    title: str
    default: bool | int
    minimum: int = 0
    maximum: int = 1

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


@dataclass(frozen=True, slots=True)
class Resultant:
    """What a device gets for one setting, and from which settings."""

    setting: Setting
    value: bool | int
    source: str


DEFAULT_SETTINGS = "Default Client Settings"

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
        Setting("enable_user_policy", "Client policy", "Enable user policy on clients", True),
        Setting(
            "enable_user_policy_from_internet",
            "Client policy",
            "Enable user policy requests from internet clients",
            False,
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
