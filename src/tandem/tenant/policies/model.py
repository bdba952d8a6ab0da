"""Device configurations: one setting each, for groups of users or devices."""

import re
from dataclasses import dataclass
from datetime import datetime

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.workloads import Workload

# Area/Name of the policy CSP: both authorities speak of one setting by one name.
_SETTING = re.compile(r"^[A-Za-z0-9]{1,64}/[A-Za-z0-9_.]{1,128}$")


@dataclass(frozen=True, slots=True)
class Configuration:
    id: str
    name: str
    workload: Workload
    setting: str
    value: str
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Assignment:
    configuration_id: str
    group_id: str
    excluded: bool


class BadConfiguration(Invalid):
    code = "configuration.invalid"


class NameTaken(AppError):
    kind, code = Kind.CONFLICT, "configuration.name-taken"


class NoSuchConfiguration(AppError):
    kind, code = Kind.NOT_FOUND, "configuration.not-found"


def check(name: str, setting: str, value: str) -> None:
    """Raises BadConfiguration."""
    if not name.strip() or len(name) > 256:
        raise BadConfiguration("A configuration has a name of 1 to 256 characters.")
    if not _SETTING.match(setting):
        raise BadConfiguration(
            f"{setting!r} is not the name of a setting.",
            cure="Name it by area and name, like DeviceLock/MaxInactivityTimeDeviceLock.",
        )
    if len(value) > 4096:
        raise BadConfiguration("A value has at most 4,096 characters.")


def loc_uri(setting: str) -> str:
    return f"./Device/Vendor/MSFT/Policy/Config/{setting}"
