"""Configurations that the site deploys to collections."""

import re
from dataclasses import dataclass
from datetime import datetime

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.site.collections import CollectionId
from tandem.workloads import Workload, workload_of_area
from tandem.workloads.instructions import area_of, read

# Area/Name, as in the policy CSP: both authorities speak of one setting by one name.
_SETTING = re.compile(r"^[A-Za-z0-9]{1,64}/[A-Za-z0-9_.]{1,128}$")


@dataclass(frozen=True, slots=True)
class Configuration:
    id: str
    name: str
    workload: Workload
    setting: str
    value: str
    collection_id: CollectionId
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """A deployment that waits for a second administrator. `devices` are how many it reached when
    it was asked for, or how many users; `scopes` those of who asked, and then its own."""

    id: str
    name: str
    workload: Workload
    setting: str
    value: str
    collection_id: CollectionId
    reason: str
    devices: int
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    scopes: tuple[str, ...] = ()


class NeedsReason(Invalid):
    code = "configuration.needs-reason"


class NotTwoPeople(AppError):
    kind, code = Kind.FORBIDDEN, "configuration.second-administrator"


class NoSuchRequest(AppError):
    kind, code = Kind.NOT_FOUND, "configuration.no-such-request"


class ReachesOthers(AppError):
    kind, code = Kind.CONFLICT, "configuration.reaches-others"


class BadConfiguration(Invalid):
    code = "configuration.invalid"


class NameTaken(AppError):
    kind, code = Kind.CONFLICT, "configuration.name-taken"


class NoSuchConfiguration(AppError):
    kind, code = Kind.NOT_FOUND, "configuration.not-found"


def check(name: str, setting: str, value: str, workload: Workload) -> None:
    """Raises BadConfiguration, and BadInstruction for one that Linux could not follow."""
    if not name.strip() or len(name) > 256:
        raise BadConfiguration("A configuration has a name of 1 to 256 characters.", field="name")
    if not _SETTING.match(setting):
        raise BadConfiguration(
            f"{setting!r} is not the name of a setting.",
            cure="Name it by area and name, like DeviceLock/MaxInactivityTimeDeviceLock.",
            field="setting",
        )
    if len(value) > 4096:
        raise BadConfiguration("A value has at most 4,096 characters.", field="value")
    area = area_of(setting)
    if not area:
        return
    read(setting, value)
    owner = workload_of_area(area)
    if workload is not owner:
        raise BadConfiguration(
            f"Settings of {area} belong to the workload {owner.title}.",
            cure=f"Deploy it as part of {owner.value}.",
            field="workload",
        )


def workload_for(setting: str, named: str) -> Workload:
    """The workload that is named, or else the one that the setting belongs to on Linux, or else
    device configuration. Raises BadConfiguration."""
    if named:
        return read_workload(named)
    area = area_of(setting)
    return workload_of_area(area) if area else Workload.DEVICE_CONFIGURATION


def read_workload(name: str) -> Workload:
    """Raises BadConfiguration."""
    try:
        return Workload(name.strip().lower())
    except ValueError:
        names = ", ".join(item.value for item in Workload)
        raise BadConfiguration(
            f"There is no workload {name!r}.", cure=f"Take one of: {names}.", field="workload"
        ) from None
