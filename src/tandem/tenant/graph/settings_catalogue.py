"""The settings catalogue at Graph: its definitions in the vendor's words, and imported files.

GET    deviceManagement/configurationSettings[/{id}]     definitions; ids as the vendor has them
POST   tandem/settingsCatalogue/search {"text": …}       settings in which every word occurs
GET    tandem/settingsCatalogueFiles                     what was imported
POST   tandem/settingsCatalogueFiles {"name", "content"} a published DDF file, in base64
DELETE tandem/settingsCatalogueFiles/{name}
"""

from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import policies
from tandem.tenant.graph import policy_kinds as kinds
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Created,
    Family,
    Field,
    Part,
    Resource,
    Value,
)
from tandem.tenant.policies import Definition, Policies

_INTUNE = Family.INTUNE
_NAMESPACE = "#microsoft.graph.deviceManagementConfiguration"
_POLICY = ("./Device/Vendor/MSFT/Policy/Config/", "./User/Vendor/MSFT/Policy/Config/")


def described(one: Definition) -> dict[str, Any]:
    """A definition with the vendor's properties, and what else is known here."""
    leaf, allowed = one.leaf, one.leaf.allowed
    base, offset = _split(leaf.uri)
    return {
        "@odata.type": f"{_NAMESPACE}{_sort(one)}SettingDefinition",
        "id": one.id,
        "name": leaf.name,
        "displayName": one.title(),
        "description": one.description() or None,
        "baseUri": base,
        "offsetUri": offset,
        "categoryId": category(one),
        "keywords": [part for part in leaf.uri.split("/")[-2:] if not part.startswith("{")],
        "settingUsage": "configuration",
        "uxBehavior": "default",
        "visibility": "settingsCatalog",
        "accessTypes": ",".join(sorted(verb.lower() for verb in leaf.access)),
        "rootDefinitionId": one.id,
        "applicability": {
            "platform": "windows10",
            "deviceMode": "none",
            "technologies": "mdm",
            "minimumSupportedVersion": min(leaf.builds) if leaf.builds else None,
        },
        "defaultOptionId": f"{one.id}_{leaf.default.lower()}"
        if allowed.choices and leaf.default is not None
        else None,
        "options": [
            {
                "itemId": f"{one.id}_{choice.value.lower()}",
                "name": choice.texts.get("en") or choice.value,
                "displayName": choice.texts.get("en") or choice.value,
                "translations": dict(choice.texts),
                "optionValue": {
                    "@odata.type": f"{_NAMESPACE}StringSettingValue",
                    "value": choice.value,
                },
            }
            for choice in allowed.choices
        ],
        "omaUri": leaf.uri,
        "format": leaf.format,
        "scope": one.scope,
        "workload": one.workload.value,
        "builds": list(leaf.builds),
        "default": leaf.default,
        "allowed": {
            "kind": allowed.kind or "any",
            "ranges": [{"minimum": low, "maximum": high} for low, high in allowed.ranges],
            "pattern": allowed.pattern or None,
            "delimiter": allowed.delimiter or None,
        },
        "translations": {
            language: {"displayName": text, "description": leaf.descriptions.get(language)}
            for language, text in leaf.titles.items()
        },
        "deprecated": leaf.deprecated or None,
        "source": one.source,
    }


def _sort(one: Definition) -> str:
    if one.leaf.allowed.kind in ("enum", "admx"):
        return "Choice"
    return "SimpleCollection" if one.leaf.allowed.delimiter else "Simple"


def _split(uri: str) -> tuple[str, str]:
    for base in _POLICY:
        if uri.startswith(base):
            return base.removesuffix("/"), uri.removeprefix(base)
    parts = uri.split("/")
    place = parts.index("MSFT") + 1 if "MSFT" in parts else 1
    return "/".join(parts[:place]), "/".join(parts[place:])


def category(one: Definition) -> str:
    """The area of a policy, the service provider of anything else."""
    return _split(one.leaf.uri)[1].partition("/")[0]


def settings_catalogue(known: Policies) -> Part:
    async def definitions(call: Call) -> Sequence[Row]:
        catalogue = await known.catalogue(call.tx)
        return [
            {"id": one.id, "properties": described(one)}
            for one in catalogue.definitions
            if one.leaf.settable
        ]

    async def categories(call: Call) -> Sequence[Row]:
        catalogue = await known.catalogue(call.tx)
        names = sorted({category(one) for one in catalogue.definitions if one.leaf.settable})
        return [{"id": name, "display_name": name} for name in names]

    async def search(call: Call, body: Body) -> Answer:
        catalogue = await known.catalogue(call.tx)
        found = catalogue.search(body.get("text") or "", body.get("workload") or "")
        return Value([described(one) for one in found])

    async def files(call: Call) -> Sequence[Row]:
        return [{"id": row["name"], **row} for row in await policies.files(call.tx)]

    async def import_file(call: Call, body: Body) -> Created:
        try:
            content = b64decode(str(body["content"]), validate=True)
        except ValueError:
            raise BadProperty(
                "'content' is not base64.", cure="Send the file's bytes.", target="content"
            ) from None
        by = call.caller.name or call.caller.object_id
        made = await policies.import_ddf(call.tx, str(body["name"]), content, call.now, by)
        call.note(type="settingsCatalogueFile", name=made.name)
        return Created(made.name)

    async def remove(call: Call, key: str) -> None:
        await policies.remove_ddf(call.tx, key)

    read, write = kinds.CONFIGURATION
    return Part(
        (
            Resource(
                path="deviceManagement/configurationSettings",
                type="deviceManagementConfigurationSettingDefinition",
                family=_INTUNE,
                fields=(
                    Field("id"),
                    *(
                        Field(name, value=_of(name), needs=("properties",))
                        for name in (
                            "name",
                            "displayName",
                            "description",
                            "baseUri",
                            "offsetUri",
                            "categoryId",
                            "omaUri",
                            "workload",
                            "scope",
                            "format",
                        )
                    ),
                ),
                rows=definitions,
                read=read,
                key_is_guid=False,
                open=True,
            ),
            Resource(
                path="deviceManagement/configurationCategories",
                type="deviceManagementConfigurationCategory",
                family=_INTUNE,
                fields=(Field("id"), Field("displayName")),
                rows=categories,
                read=read,
                key_is_guid=False,
            ),
            Resource(
                path="tandem/settingsCatalogueFiles",
                type="settingsCatalogueFile",
                family=_INTUNE,
                fields=(
                    Field("id"),
                    Field("name", writable=True, required=True),
                    Field("content", writable=True, required=True, readable=False),
                    Field("sha256"),
                    Field("nodes", Primitive.INTEGER),
                    Field("importedAt", Primitive.TIME),
                    Field("importedBy"),
                ),
                rows=files,
                read=read,
                write=write,
                create=import_file,
                delete=remove,
                key_is_guid=False,
            ),
        ),
        (
            Action(
                "tandem/settingsCatalogue/search",
                search,
                read,
                body=(Field("text", writable=True), Field("workload", writable=True)),
                family=_INTUNE,
                asks=True,
            ),
        ),
    )


def _of(name: str) -> Any:
    return lambda row: row["properties"].get(name)
