"""From what administrators wrote to what devices are to have: settings with formats and values."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tandem.protocols import ddf
from tandem.tenant.policies.catalogue import (
    POLICY,
    Catalogue,
    Definition,
    escaped,
    is_uri,
)
from tandem.tenant.policies.model import BadObject, Configuration, PolicyObject
from tandem.workloads import Workload

CUSTOM = "windows10CustomConfiguration"
CONFIGURATION_POLICIES = "configurationPolicies"
DEVICE_CONFIGURATIONS = "deviceConfigurations"
# The kinds whose objects reach devices.
KINDS = (DEVICE_CONFIGURATIONS, CONFIGURATION_POLICIES)
# Devices take messages of 512 KiB (windows-mdm, 11.8); escaping and the envelope want their share.
VALUE_BYTES = 240 * 1024
# The parts of a list in one value (windows-mdm, 12.4).
_SEPARATOR = "\uf000"
_SETTING = re.compile(r"[A-Za-z0-9~_.-]{1,256}/[A-Za-z0-9_.~-]{1,256}")
_DECLARATION = re.compile(r"\s*<\?xml\s[^>]{0,200}\?>\s*")
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# Formats of SyncML by Graph's types of a custom setting.
OMA_FORMATS = {
    "omaSettingString": "chr",
    "omaSettingStringXml": "chr",
    "omaSettingInteger": "int",
    "omaSettingBoolean": "bool",
    "omaSettingFloatingPoint": "float",
    "omaSettingDateTime": "chr",
    "omaSettingBase64": "b64",
}
# What Windows's own nodes for this service are called by its settings.
_OWN_NAMES = {"{providerid}": "TandemMDM"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something in a policy reaches no device. `what` names it."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """The settings of one object."""

    settings: tuple[Configuration, ...]
    problems: tuple[Problem, ...]


def subject_of(uri: str) -> str:
    """How a setting is called: Area/Name for the device's policies, otherwise by its node.

    Both authorities speak of one setting by one name.
    """
    uri = uri.strip()
    if uri.lower().startswith("./vendor/"):
        uri = "./Device/" + uri[2:]
    rest = uri[len(POLICY) :] if uri.lower().startswith(POLICY.lower()) else ""
    return rest if rest and _SETTING.fullmatch(rest) else uri


def loc_uri(setting: str) -> str:
    """The node of a setting, as it is written in a command."""
    return escaped(setting if setting.startswith("./") else POLICY + setting)


def compiled(item: PolicyObject, catalogue: Catalogue) -> Compiled:
    """What of an object reaches devices, and what does not and why."""
    made: list[Configuration] = []
    problems: list[Problem] = []
    for found in _read(item, catalogue):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            made.append(found)
    return Compiled(tuple(made), tuple(problems))


def _read(item: PolicyObject, catalogue: Catalogue) -> Iterator[Configuration | Problem]:
    if item.kind == DEVICE_CONFIGURATIONS and item.type == CUSTOM:
        named = item.properties.get("workload")
        for oma in item.properties.get("omaSettings") or []:
            if not isinstance(oma, Mapping) or oma.get("value") is None:
                continue
            try:
                yield _custom(item, oma, catalogue, str(named or ""))
            except BadObject as error:
                yield Problem(str(oma.get("omaUri"))[:300], error.message)
    elif item.kind == CONFIGURATION_POLICIES:
        for setting in item.properties.get("settings") or []:
            yield from _instance(item, setting.get("settingInstance"), catalogue, {})


def _setting(
    item: PolicyObject,
    uri: str,
    value: str,
    format: str,
    workload: Workload,
    known: Definition | None,
) -> Configuration:
    adds = known is not None and "Replace" not in known.leaf.access and "Add" in known.leaf.access
    return Configuration(
        id=item.id,
        name=item.name,
        workload=workload,
        setting=subject_of(uri),
        value=value,
        created_at=item.created_at,
        changed_at=item.changed_at,
        kind=item.kind,
        format=format,
        verb="Add" if adds else "Replace",
        builds=known.leaf.builds if known is not None else (),
    )


# ---------------------------------------------------------------------------------- custom


def _custom(
    item: PolicyObject, oma: Mapping[str, Any], catalogue: Catalogue, workload: str
) -> Configuration:
    uri = str(oma.get("omaUri") or "").strip()
    format, value, known = custom_value(oma, catalogue)
    owner = Workload(workload) if workload else catalogue.workload(uri)
    return _setting(item, uri, value, format, owner, known)


def custom_value(
    oma: Mapping[str, Any], catalogue: Catalogue
) -> tuple[str, str, Definition | None]:
    """Format and value of a custom setting as a device gets it. Raises BadObject.

    The node's own format counts before the type that was chosen, where the catalogue knows it and
    the value can be written so: people write numbers as texts. What values a node allows is not
    held against a custom setting: newer Windows may allow more than the catalogue knows.
    """
    uri = str(oma.get("omaUri") or "").strip()
    if is_uri(uri) and not _names_policy(uri):
        raise BadObject(
            f"{uri[:200]!r} is not the name of a setting.",
            cure="The policy CSP names its settings by area and name, like"
            " ./Device/Vendor/MSFT/Policy/Config/DeviceLock/MaxInactivityTimeDeviceLock.",
            target="omaUri",
        )
    if not is_uri(uri):
        raise BadObject(
            f"{uri[:200]!r} is not the OMA-URI of a node.",
            cure="Write it from its beginning, like ./Device/Vendor/MSFT/Policy/Config/Area/Name.",
            target="omaUri",
        )
    type = str(oma.get("@odata.type") or "").rpartition(".")[2]
    format = OMA_FORMATS.get(type)
    if format is None:
        raise BadObject(
            f"The type {type[:64]!r} of {uri} is not known.",
            cure="Use one of: " + ", ".join(OMA_FORMATS) + ".",
            target="@odata.type",
        )
    value = _written(oma.get("value"), type, uri)
    known = catalogue.find(uri)
    if known is not None and known.leaf.format not in (format, "null", "node"):
        try:
            plain = ddf.Leaf(known.leaf.uri, known.leaf.format)
            value, format = ddf.checked(plain, value), known.leaf.format
        except ddf.BadValue:
            pass  # The device has the last word.
    check_value(uri, value)
    return format, value, known


def _names_policy(uri: str) -> bool:
    """Whether a node of the policy CSP is one by area and name; other nodes are other CSPs' own."""
    found = re.match(r"\./(?:(?:device|user)/)?vendor/msft/policy/config/(.*)", uri, re.I | re.S)
    return found is None or bool(_SETTING.fullmatch(found[1]))


def check_custom(oma: Mapping[str, Any], catalogue: Catalogue) -> None:
    """Raises BadObject for a custom setting that no device could be given. One without a value is
    for later."""
    custom_value({**oma, "value": ""} if oma.get("value") is None else oma, catalogue)


def _written(value: Any, type: str, uri: str) -> str:
    form = OMA_FORMATS[type]
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    if type == "omaSettingStringXml":
        text = _xml_text(text)
    if form in ("int", "bool", "float", "b64"):
        try:
            return ddf.checked(ddf.Leaf(uri, form), text)
        except ddf.BadValue as error:
            raise BadObject(
                f"The value of {uri} does not fit its type. {error}",
                cure="Change the value or its type.",
                target="value",
            ) from None
    return text


def _xml_text(text: str) -> str:
    """XML of a setting. Graph carries it as base64; people also write it as it is."""
    from base64 import b64decode

    if not text.lstrip().startswith("<"):
        try:
            text = b64decode(text, validate=True).decode("utf-8-sig")
        except ValueError:
            return text
    # A declaration inside of Data has made messages unreadable (windows-mdm, 11.2).
    return _DECLARATION.sub("", text, count=1)


def check_value(name: str, value: str) -> None:
    """Raises BadObject for what no message can carry."""
    if _UNWRITABLE.search(value):
        raise BadObject(
            f"The value of {name} has characters that XML cannot carry.",
            cure="Take the control characters out, or send it as base64.",
            target="value",
        )
    if len(escape(value).encode()) > VALUE_BYTES:
        raise BadObject(
            f"The value of {name} has more than {VALUE_BYTES // 1024} KiB.",
            cure="Devices take no more; send less.",
            target="value",
        )


# ---------------------------------------------------------------------------------- catalogue


def _instance(
    item: PolicyObject, given: Any, catalogue: Catalogue, names: Mapping[str, str]
) -> Iterator[Configuration | Problem]:
    """The settings in an instance of the catalogue, and in those inside it."""
    if not isinstance(given, Mapping):
        return
    id = str(given.get("settingDefinitionId") or "")
    known = catalogue.by_id(id)
    inner: list[tuple[Sequence[Any], Mapping[str, str]]] = []
    values: list[Any] = []
    for key in ("choiceSettingValue", "simpleSettingValue"):
        if isinstance(given.get(key), Mapping):
            values.append(given[key])
    for key in ("choiceSettingCollectionValue", "simpleSettingCollectionValue"):
        values += [one for one in given.get(key) or [] if isinstance(one, Mapping)]
    for key in ("groupSettingValue", "groupSettingCollectionValue"):
        held = given.get(key) or []
        for number, group in enumerate([held] if isinstance(held, Mapping) else held):
            if isinstance(group, Mapping):
                children = group.get("children") or []
                inner.append((children, {**names, **_named(id, children, number)}))
    if not values:
        if known is None and not inner:
            yield Problem(id, "The catalogue does not know it.")
        for children, deeper in inner:
            for child in children:
                yield from _instance(item, child, catalogue, deeper)
        return
    if known is None:
        yield Problem(id, "The catalogue does not know it.")
        return
    children = [
        child for value in values for child in value.get("children") or [] if child is not None
    ]
    try:
        value = instance_value(known, values)
        uri = _resolved(known.leaf.uri, names)
        yield _setting(item, uri, value, known.leaf.format, known.workload, known)
    except BadObject as error:
        yield Problem(id, error.message)
    if known.leaf.allowed.kind != "admx":
        for child in children:
            yield from _instance(item, child, catalogue, names)


def _named(id: str, children: Sequence[Any], number: int) -> dict[str, str]:
    """How the nodes of a group are called that have no name of their own: by what says it."""
    last = id.rpartition("_")[2]
    if not last.startswith("{"):
        return {}
    if last in _OWN_NAMES:
        return {last: _OWN_NAMES[last]}
    for child in children:
        if isinstance(child, Mapping) and str(child.get("settingDefinitionId")) == f"{id}_name":
            value = (child.get("simpleSettingValue") or {}).get("value")
            if value:
                return {last: re.sub(r"[/\x00-\x1f?#]", "-", str(value))[:200]}
    return {last: f"{last.strip('{}')}-{number + 1}"}


def _resolved(uri: str, names: Mapping[str, str]) -> str:
    parts = []
    for part in uri.split("/"):
        key = part.lower()
        if key.startswith("{"):
            found = names.get(key) or _OWN_NAMES.get(key)
            if found is None:
                raise BadObject(
                    f"The node {uri} needs a name for {part}.",
                    cure="Set it by a custom profile, with the whole OMA-URI.",
                )
            part = found
        parts.append(part)
    return "/".join(parts)


def instance_value(known: Definition, values: Sequence[Mapping[str, Any]]) -> str:
    """The value of an instance as a device gets it. Raises BadObject."""
    leaf = known.leaf
    texts = []
    for one in values:
        raw = one.get("value")
        text = ("true" if raw else "false") if isinstance(raw, bool) else str(raw or 0)
        if isinstance(raw, str):
            text = raw
        if raw is None:
            raise BadObject(f"The setting {known.id} has no value.", cure="Send one.")
        text = _choice(known, text)
        if leaf.allowed.kind == "admx" and text in ("0", "1"):
            text = _admx(known, text, one.get("children") or [])
        texts.append(text)
    separator = leaf.allowed.delimiter or _SEPARATOR
    value = separator.join(texts)
    try:
        value = ddf.checked(leaf, value)
    except ddf.BadValue as error:
        raise BadObject(
            f"{known.title()} ({leaf.name}) cannot be {value[:64]!r}. {error}",
            cure="Choose another value.",
            target="settings",
        ) from None
    check_value(leaf.name, value)
    return value


def _choice(known: Definition, text: str) -> str:
    """The value behind the id of an option: the setting's id, and the value."""
    for id in (known.id, known.id.removeprefix("device_"), f"device_{known.id}"):
        if text.lower().startswith(f"{id}_"):
            rest = text[len(id) + 1 :]
            for choice in known.leaf.allowed.choices:
                if choice.value.lower() == rest.lower():
                    return choice.value
            return rest
    return text


def _admx(known: Definition, text: str, children: Sequence[Any]) -> str:
    if text == "0":
        return "<disabled/>"
    data = []
    for child in children:
        if not isinstance(child, Mapping):
            continue
        name = str(child.get("settingDefinitionId") or "").rpartition(f"{known.id}_")[2]
        held = child.get("simpleSettingValue") or child.get("choiceSettingValue") or {}
        many = child.get("simpleSettingCollectionValue") or []
        value = str(held.get("value", ""))
        value = value.removeprefix(f"{child.get('settingDefinitionId')}_")
        if many:
            value = _SEPARATOR.join(str(one.get("value", "")) for one in many)
        data.append(f"<data id={quoteattr(name)} value={quoteattr(value)}/>")
    return "<enabled/>" + "".join(data)


def check_instances(settings: Any, catalogue: Catalogue) -> None:
    """Raises BadObject for a value that its setting does not take, at any depth.

    Settings that the catalogue does not know are let through: they reach no device.
    """
    item = [one.get("settingInstance") for one in settings or [] if isinstance(one, Mapping)]
    waiting: list[Any] = list(item)
    while waiting:
        given = waiting.pop()
        if not isinstance(given, Mapping):
            continue
        known = catalogue.by_id(str(given.get("settingDefinitionId") or ""))
        held: list[Any] = []
        for key, value in given.items():
            if key.endswith("Value"):
                held += value if isinstance(value, list) else [value]
        held = [one for one in held if isinstance(one, Mapping)]
        for one in held:
            if known is None or known.leaf.allowed.kind != "admx":
                waiting += one.get("children") or []
        values = [one for one in held if "value" in one]
        if known is not None and values:
            instance_value(known, values)
