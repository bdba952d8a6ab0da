"""Policy objects as documents, and their limits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from tandem.infra.errors import AppError, Invalid, Kind
from tandem.workloads import Workload

# The kind whose objects reach devices.
KIND = "deviceConfigurations"

# A settings catalogue policy with thousands of settings fits; a file does not.
OBJECT_BYTES = 1024 * 1024
DEPTH = 64
NAME_CHARACTERS = 256

# Area/Name of the policy CSP: both authorities speak of one setting by one name.
_SETTING = re.compile(
    r"^(?:\./(?:Device/)?Vendor/MSFT/Policy/Config/)([A-Za-z0-9~_.-]{1,256}/[A-Za-z0-9_.~-]{1,256})$"
)
_POLICY = "./Device/Vendor/MSFT/Policy/Config/"
_PROPERTY = re.compile(r"^(?:@odata\.type|[A-Za-z_][A-Za-z0-9_]{0,127}(?:@odata\.bind)?)$")
_VALUE_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """`kind` is its collection's name, `type` Graph's type without the namespace. `version` grows
    with each change."""

    kind: str
    id: str
    type: str
    name: str
    version: int
    created_at: datetime
    changed_at: datetime
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Version:
    """What an object was. `deleted` closes its history."""

    version: int
    name: str
    properties: Mapping[str, Any]
    at: datetime
    by: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """One setting that a policy object holds, as a device is to have it. `id` and `name` are the
    object's; `builds` are the oldest releases of Windows that know the setting."""

    id: str
    name: str
    workload: Workload
    setting: str
    value: str
    created_at: datetime
    changed_at: datetime
    kind: str = "deviceConfigurations"
    format: str = "chr"
    verb: str = "Replace"
    builds: tuple[str, ...] = ()


class BadObject(Invalid):
    code = "policy.invalid"


class NoSuchObject(AppError):
    kind, code = Kind.NOT_FOUND, "policy.not-found"


def check(name: str, properties: Mapping[str, Any]) -> None:
    """Raises BadObject for what is too large, too deep, or named as no property is."""
    if len(name) > NAME_CHARACTERS:
        raise BadObject(
            f"The name has {len(name):,} characters; {NAME_CHARACTERS} are taken.",
            cure="Shorten it; what it does not say fits into the description.",
        )
    _check_depth(properties)
    size = len(msgspec.json.encode(properties))
    if size > OBJECT_BYTES:
        raise BadObject(
            f"The object has {size:,} bytes; {OBJECT_BYTES:,} are taken.",
            cure="Divide it into several objects.",
        )


def _check_depth(whole: Mapping[str, Any]) -> None:
    waiting: list[tuple[Any, int]] = [(whole, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH:
            raise BadObject(
                f"The object is nested more than {DEPTH} levels deep.", cure="Make it flatter."
            )
        if isinstance(value, Mapping):
            for name in value:
                if not _PROPERTY.match(name):
                    raise BadObject(
                        "A property has a name that is none.",
                        cure="Names are letters, digits and underscores.",
                        target=name[:64],
                    )
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]


def oma_setting(setting: str, value: str) -> dict[str, Any]:
    """A setting of the policy CSP as the part of a custom configuration.

    Raises BadObject when it is not named by area and name, or its value is too long.
    """
    uri = f"{_POLICY}{setting}"
    if not _SETTING.match(uri):
        raise BadObject(
            f"{setting!r} is not the name of a setting.",
            cure="Name it by area and name, like DeviceLock/MaxInactivityTimeDeviceLock.",
        )
    if len(value) > _VALUE_CHARACTERS:
        raise BadObject(f"A value has at most {_VALUE_CHARACTERS:,} characters.")
    return {
        "@odata.type": "#microsoft.graph.omaSettingString",
        "displayName": setting,
        "description": None,
        "omaUri": uri,
        "value": value,
        "isEncrypted": False,
        "secretReferenceValueId": None,
    }
