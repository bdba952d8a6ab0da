"""Apps: create, content by versions and signed URLs, assignment, and what became of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols import odata
from tandem.protocols.odata import Primitive
from tandem.tenant import assignments, mobile_apps
from tandem.tenant.assignments import New, TargetKind
from tandem.tenant.graph.app_statuses import app_statuses
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Created,
    Family,
    Field,
    Navigation,
    Part,
    Ref,
    Resource,
    Value,
)
from tandem.tenant.graph.my_apps import my_apps
from tandem.tenant.graph.policy_kinds import APPS
from tandem.tenant.graph.policy_objects import Kind, clean, document, find
from tandem.tenant.graph.properties import properties
from tandem.tenant.graph.targets import Assignable, assigning
from tandem.tenant.mobile_apps import App, ContentFile, Uploads, UploadState, rules
from tandem.tenant.policies import check

_READ, _WRITE = APPS
_INTUNE = Family.INTUNE
_ONE = "deviceAppManagement/mobileApps/{mobileApp}"
_VERSIONS = f"{_ONE}/contentVersions"
_FILES = f"{_VERSIONS}/{{mobileAppContent}}/files"
_INTENTS = ("required", "available", "uninstall", "availableWithoutEnrollment")

# Kept with an app, and shown elsewhere than among its properties.
_HIDDEN = frozenset({"relationships", "categories", "rules"})
_RULES = frozenset({"rules", "detectionRules", "requirementRules"})
_READ_ONLY = frozenset(
    [
        "id",
        "createddatetime",
        "lastmodifieddatetime",
        "publishingstate",
        "committedcontentversion",
        "size",
        "uploadstate",
        "isassigned",
        "dependentappcount",
        "supersedingappcount",
        "supersededappcount",
        "assignments",
        "categories",
        "relationships",
        "sha256",
        "reason",
    ]
)

_BASE = (
    "description publisher largeIcon:obj isFeatured:bool=false privacyInformationUrl "
    "informationUrl owner developer notes roleScopeTagIds:[str]^=0"
)
_LOB = "fileName"
_DERIVED = {
    "windowsMobileMSI": (
        f"{_LOB} commandLine productCode productVersion ignoreVersionDetection:bool=false "
        "installTimeoutInMinutes:int installRetryCount:int installRetryIntervalInMinutes:int "
        "identityVersion^ useDeviceContext:bool^=true"
    ),
    "win32LobApp": (
        f"{_LOB} installCommandLine uninstallCommandLine applicableArchitectures=x64 "
        "allowedArchitectures minimumFreeDiskSpaceInMB:int minimumMemoryInMB:int "
        "minimumNumberOfProcessors:int minimumCpuSpeedInMHz:int minimumSupportedWindowsRelease "
        "installExperience:obj returnCodes:[obj] msiInformation:obj setupFilePath "
        "displayVersion^ minimumSupportedOperatingSystem:obj^ allowAvailableUninstall:bool^=false"
    ),
    "windowsUniversalAppX": (
        f"{_LOB} identityName identityVersion identityPublisherHash identityResourceIdentifier "
        "isBundle:bool=false applicableArchitectures=none applicableDeviceTypes=none "
        "minimumSupportedOperatingSystem:obj"
    ),
    "windowsAppX": (
        f"{_LOB} identityName identityVersion identityPublisherHash identityResourceIdentifier "
        "isBundle:bool=false applicableArchitectures=none minimumSupportedOperatingSystem:obj"
    ),
    "webApp": "appUrl useManagedBrowser:bool=false",
    "windowsWebApp": "appUrl",
    "winGetApp": "packageIdentifier manifestHash installExperience:obj",
    "iosVppApp": "vppTokenAppleId vppTokenId bundleId",
}
_RETURN_CODES = (
    (0, "success"),
    (1707, "success"),
    (3010, "softReboot"),
    (1641, "hardReboot"),
    (1618, "retry"),
)
_FIELDS = {name: properties(text) for name, text in _DERIVED.items()}
_TYPES = {name.lower(): name for name in (*_FIELDS, *mobile_apps.WITH_CONTENT)}
_COLUMNS = {
    "displayName": "name",
    "description": "description",
    "publisher": "publisher",
    "fileName": "file_name",
    "commandLine": "command_line",
}
_SHOWN = frozenset(
    [item.name for item in properties(_BASE)]
    + [
        "id",
        "displayName",
        "createdDateTime",
        "lastModifiedDateTime",
        "publishingState",
        "size",
        "sha256",
        "committedContentVersion",
    ]
)

CATEGORIES = Kind(
    "deviceAppManagement/mobileAppCategories",
    "mobileAppCategory",
    "",
    *APPS,
    created="",
    update_status=200,
)


# ---------------------------------------------------------------------------------- apps


def _type(given: Any) -> str:
    name = str(given).rpartition(".")[2].lstrip("#")
    if not name.isalnum() or len(name) > 128:
        raise BadProperty(
            "An app says by '@odata.type' which kind it is.",
            cure='Send "@odata.type": "#microsoft.graph.win32LobApp", for example.',
            target="@odata.type",
        )
    return _TYPES.get(name.lower(), name)


def _taken(body: Body, before: Mapping[str, Any]) -> dict[str, Any]:
    """The properties that a body sets, in JSON's types, with rules in their one form."""
    found = {
        name: clean(odata.render(value))
        for name, value in body.items()
        if "@odata" not in name and name.lower() not in _READ_ONLY and name not in _RULES
    }
    try:
        wanted = rules.canonical(clean(dict(body)), before.get("rules"))
    except ValueError as error:
        raise BadProperty(
            str(error), cure="Send rules as Graph describes them.", target="rules"
        ) from None
    if wanted is not None:
        found["rules"] = wanted
    return found


def _columns(taken: dict[str, Any]) -> dict[str, Any]:
    """The values that have a column, taken out of the others."""
    return {
        column: str(taken.pop(name) or "") for name, column in _COLUMNS.items() if name in taken
    }


def _document(item: App) -> dict[str, Any]:
    """An app as Graph's properties."""
    found = {
        **item.properties,
        "description": item.description,
        "publisher": item.publisher,
    }
    if item.file_name:
        found["fileName"] = item.file_name
    if item.type == mobile_apps.MSI:
        found |= {
            "commandLine": item.command_line,
            "productCode": item.product_code or item.properties.get("productCode"),
            "productVersion": item.product_version or item.properties.get("productVersion"),
        }
        found["identityVersion"] = found["productVersion"]
    return found


def _row(call: Call, item: App, *, whole: bool) -> Row:
    held = _document(item)
    if not whole:
        held.pop("largeIcon", None)  # Lists come without pictures.
    described = {one.name for one in _FIELDS.get(item.type, ())} | _SHOWN | _HIDDEN
    rest = {name: value for name, value in held.items() if name not in described}
    if item.type == mobile_apps.WIN32:
        known = list(held.get("rules") or [])
        rest["rules"] = known
        if call.beta:
            rest["detectionRules"] = rules.older(known, "detection")
            rest["requirementRules"] = rules.older(known, "requirement")
    if item.type in mobile_apps.WITH_CONTENT:
        rest["committedContentVersion"] = item.committed_version or None
        rest["size"] = item.size_bytes
    return {
        "id": item.id,
        "type": item.type,
        "display_name": item.name,
        "created_date_time": item.created_at,
        "last_modified_date_time": item.changed_at,
        "publishing_state": item.state,
        "sha256": item.sha256,
        "document": held,
        "properties": rest,
    }


async def _rows(call: Call) -> Sequence[Row]:
    key = call.keys.get("mobileApp")
    found = await mobile_apps.apps(call.tx, [key] if key else None)
    owners = await assignments.owners(call.tx, mobile_apps.OWNER)
    return [
        _row(call, item, whole=key is not None) | {"is_assigned": item.id in owners}
        for item in found
    ]


async def _create(call: Call, body: Body) -> Created:
    type = _type(body.get("@odata.type") or "#microsoft.graph.windowsMobileMSI")
    taken = {name: value for name, value in _taken(body, {}).items() if value is not None}
    if type == mobile_apps.WIN32 and not taken.get("returnCodes"):
        taken["returnCodes"] = [{"returnCode": n, "type": sort} for n, sort in _RETURN_CODES]
    columns = dict.fromkeys(_COLUMNS.values(), "") | _columns(taken)
    check(columns["name"], taken)
    made = await mobile_apps.create(call.tx, **columns, now=call.now, type=type, properties=taken)
    call.keys["mobileApp"] = made.id
    return Created(made.id)


async def _update(call: Call, key: str, body: Body) -> None:
    known = await mobile_apps.app(call.tx, key)
    given = body.get("@odata.type")
    if given is not None and _type(given) != known.type:
        raise BadProperty(
            f"This app is a {known.type}; its type cannot change.",
            cure="Make another app of the other type.",
            target="@odata.type",
        )
    taken = _taken(body, known.properties)
    columns = _columns(taken)
    kept = {**known.properties, **taken}
    kept = {name: value for name, value in kept.items() if value is not None}
    check(columns.get("name", known.name), kept)
    await mobile_apps.update(call.tx, key, call.now, **columns, properties=kept)
    version = body.get("committedContentVersion")
    if version is not None:
        await mobile_apps.publish(call.tx, key, str(version), call.now)


async def _assignable(call: Call, key: str) -> str:
    await mobile_apps.app(call.tx, key)
    if call.path.lower().endswith("/assign"):
        await mobile_apps.assignable(call.tx, key)
    return mobile_apps.OWNER


def _check_intent(values: Mapping[str, Any]) -> None:
    if values["intent"] not in _INTENTS:
        raise BadProperty(
            "An assignment's intent is not known.",
            cure="Use one of: " + ", ".join(_INTENTS) + ".",
            target="intent",
        )


def _check_intents(wanted: Sequence[New]) -> None:
    """A group is included by one intent (comanagement, 2.12)."""
    known: dict[str, str] = {}
    for one in wanted:
        if one.target.kind is not TargetKind.GROUP:
            continue
        intent = str(one.values["intent"])
        if known.setdefault(one.target.subject, intent) != intent:
            raise BadProperty(
                "A group is included by two intents of this app.",
                cure="Include it by one of them; make another group for the other.",
                target="mobileAppAssignments",
            )


# ---------------------------------------------------------------------------------- relations


async def _categories(call: Call, key: str) -> Sequence[Ref]:
    held = await mobile_apps.app(call.tx, key)
    return [Ref("mobileAppCategory", id) for id in held.properties.get("categories") or []]


async def _add_category(call: Call, key: str, target: str) -> None:
    await _find_category(call, target)
    held = await mobile_apps.app(call.tx, key)
    ids = dict.fromkeys([*(held.properties.get("categories") or []), target])
    await mobile_apps.update(
        call.tx, key, call.now, properties={**held.properties, "categories": list(ids)}
    )


async def _remove_category(call: Call, key: str, target: str) -> None:
    held = await mobile_apps.app(call.tx, key)
    ids = [id for id in held.properties.get("categories") or [] if id != target]
    await mobile_apps.update(
        call.tx, key, call.now, properties={**held.properties, "categories": ids}
    )


async def _find_category(call: Call, id: str) -> None:
    await find(call, CATEGORIES, id)


_RELATIONS = {
    "mobileAppDependency": ("dependencyType", ("detect", "autoInstall")),
    "mobileAppSupersedence": ("supersedenceType", ("update", "replace")),
}


async def _relate(call: Call, body: Body) -> Answer:
    """Replaces what an app depends on and what it supersedes."""
    key = call.keys["mobileApp"]
    held = await mobile_apps.app(call.tx, key)
    given = body.get("relationships")
    if not isinstance(given, list) or len(given) > 100:
        raise BadProperty("'relationships' is a list of at most 100.", cure="Send the whole list.")
    found: list[dict[str, Any]] = []
    for item in given:
        name = str(item.get("@odata.type") if isinstance(item, Mapping) else "").rpartition(".")[2]
        if name not in _RELATIONS:
            raise BadProperty(
                "A relationship is a mobileAppDependency or a mobileAppSupersedence.",
                cure="Name it by '@odata.type'.",
            )
        member, choices = _RELATIONS[name]
        target, value = str(item.get("targetId") or ""), item.get(member) or choices[0]
        if value not in choices or target == key:
            raise BadProperty(
                f"The relationship's {member} or targetId is not valid.",
                cure=f"{member} is one of {', '.join(choices)}; an app is not related to itself.",
            )
        await mobile_apps.app(call.tx, target)
        found.append({"id": f"{key}_{target}", "type": name, "targetId": target, member: value})
    related = {
        item.id: [one["targetId"] for one in item.properties.get("relationships") or []]
        for item in await mobile_apps.apps(call.tx)
    }
    related[key] = [item["targetId"] for item in found]
    if _reaches(related, key):
        raise BadProperty(
            "These relationships lead back to the app itself.", cure="Take one of them out."
        )
    await mobile_apps.update(
        call.tx, key, call.now, properties={**held.properties, "relationships": found}
    )
    return None


def _reaches(related: Mapping[str, Sequence[str]], start: str) -> bool:
    seen: set[str] = set()
    waiting = list(related.get(start, ()))
    while waiting:
        id = waiting.pop()
        if id == start:
            return True
        if id not in seen:
            seen.add(id)
            waiting += related.get(id, ())
    return False


async def _relationships(call: Call) -> Sequence[Row]:
    """What this app depends on or supersedes (child), and what does so with it (parent)."""
    key = call.keys["mobileApp"]
    await mobile_apps.app(call.tx, key)
    known = {item.id: item for item in await mobile_apps.apps(call.tx)}
    found = []
    for source in known.values():
        for relation in source.properties.get("relationships") or []:
            target = known.get(relation["targetId"])
            if target is None or key not in (source.id, target.id):
                continue
            other = target if source.id == key else source
            member, _ = _RELATIONS[relation["type"]]
            found.append(
                {
                    "id": relation["id"],
                    "type": relation["type"],
                    "properties": {
                        "targetId": other.id,
                        "targetDisplayName": other.name,
                        "targetDisplayVersion": other.product_version
                        or other.properties.get("displayVersion"),
                        "targetPublisher": other.publisher,
                        "targetPublisherDisplayName": other.publisher,
                        "targetType": "child" if source.id == key else "parent",
                        "sourceId": source.id,
                        "sourceDisplayName": source.name,
                        member: relation[member],
                    },
                }
            )
    return found


_RELATIONSHIPS = Resource(
    path=f"{_ONE}/relationships",
    type="mobileAppRelationship",
    family=_INTUNE,
    fields=(Field("id"),),
    rows=_relationships,
    read=_READ,
    typed=lambda row: str(row["type"]),
    open=True,
    key_is_guid=False,
)


# ---------------------------------------------------------------------------------- content


def _content(uploads: Uploads) -> Part:
    async def versions(call: Call) -> Sequence[Row]:
        key = call.keys["mobileApp"]
        await mobile_apps.app(call.tx, key)
        return [{"id": str(number)} for number in await mobile_apps.versions(call.tx, key)]

    async def add_version(call: Call, body: Body) -> Created:
        app = await mobile_apps.app(call.tx, call.keys["mobileApp"])
        return Created(str(await uploads.add_version(call.tx, app)))

    async def files(call: Call) -> Sequence[Row]:
        app = await mobile_apps.app(call.tx, call.keys["mobileApp"])
        number = await uploads.version(call.tx, app, call.keys["mobileAppContent"])
        return [_file_row(call, item) for item in await mobile_apps.files(call.tx, app.id, number)]

    def _file_row(call: Call, item: ContentFile) -> Row:
        url = None
        if item.state in (UploadState.URI_READY, UploadState.URI_RENEWED):
            url = f"{call.base}/mobileAppContent/{item.id}?{uploads.query(item)}"
        return {
            "id": item.id,
            "name": item.name,
            "size": item.size_bytes,
            "size_encrypted": item.encrypted_bytes,
            "azure_storage_uri": url,
            "azure_storage_uri_expiration_date_time": item.expires_at if url else None,
            "created_date_time": item.created_at,
            "is_committed": item.committed,
            "upload_state": item.state.value,
            "is_dependency": item.is_dependency,
            "manifest": item.manifest,
            "reason": item.reason or None,
        }

    async def add_file(call: Call, body: Body) -> Created:
        app = await mobile_apps.app(call.tx, call.keys["mobileApp"])
        manifest = body.get("manifest")
        made = await uploads.add_file(
            call.tx,
            app,
            call.keys["mobileAppContent"],
            name=body["name"],
            size_bytes=body["size"],
            encrypted_bytes=body.get("sizeEncrypted") or 0,
            manifest=odata.render(manifest),
            is_dependency=bool(body.get("isDependency")),
        )
        # The URL is there at the first look: this answer tells of the moment before.
        pending = {
            "uploadState": UploadState.URI_PENDING.value,
            "azureStorageUri": None,
            "azureStorageUriExpirationDateTime": None,
        }
        return Created(made.id, pending)

    async def chosen(call: Call) -> ContentFile:
        return await uploads.file(
            call.tx,
            call.keys["mobileApp"],
            call.keys["mobileAppContent"],
            call.keys["mobileAppContentFile"],
        )

    async def commit(call: Call, body: Body) -> Answer:
        await uploads.commit(call.tx, await chosen(call), body["fileEncryptionInfo"])
        return Value({}, 200)

    async def renew(call: Call, body: Body) -> Answer:
        await uploads.renew(call.tx, await chosen(call))
        return None

    resources = (
        Resource(
            path=_VERSIONS,
            type="mobileAppContent",
            family=_INTUNE,
            fields=(Field("id"),),
            rows=versions,
            read=_READ,
            write=_WRITE,
            create=add_version,
            open=True,
            key_is_guid=False,
        ),
        Resource(
            path=_FILES,
            type="mobileAppContentFile",
            family=_INTUNE,
            fields=(
                Field("id"),
                Field("name", writable=True, required=True),
                Field("size", Primitive.INTEGER, writable=True, required=True),
                Field("sizeEncrypted", Primitive.INTEGER, writable=True, required=True),
                Field("azureStorageUri"),
                Field("azureStorageUriExpirationDateTime", Primitive.TIME),
                Field("createdDateTime", Primitive.TIME),
                Field("isCommitted", Primitive.BOOLEAN),
                Field("uploadState"),
                Field("isDependency", Primitive.BOOLEAN, writable=True),
                Field("manifest", Primitive.BINARY, writable=True),
                Field("reason"),
            ),
            rows=files,
            read=_READ,
            write=_WRITE,
            create=add_file,
            open=True,
            key_is_guid=False,
        ),
    )
    one = f"{_FILES}/{{mobileAppContentFile}}"
    info = Field("fileEncryptionInfo", Primitive.COMPLEX, writable=True, required=True)
    actions = (
        Action(f"{one}/commit", commit, _WRITE, body=(info,), family=_INTUNE),
        Action(f"{one}/renewUpload", renew, _WRITE, open=True, family=_INTUNE),
    )
    return Part(resources, actions)


# ---------------------------------------------------------------------------------- the part


def mobile_app_parts(uploads: Uploads) -> Part:
    async def delete(call: Call, key: str) -> None:
        for file in await mobile_apps.delete(call.tx, key):
            await uploads.jobs.defer(call.tx, mobile_apps.UNSTAGE, prefix=f"{file}/")

    apps = Resource(
        path="deviceAppManagement/mobileApps",
        type="mobileApp",
        family=_INTUNE,
        rows=_rows,
        read=_READ,
        write=_WRITE,
        create=_create,
        update=_update,
        delete=delete,
        typed=lambda row: str(row["type"]),
        derived=_FIELDS,
        etag="last_modified_date_time",
        tells_etag=False,
        open=True,
        fields=(
            Field("id", Primitive.GUID),
            Field("displayName", writable=True),
            *properties(_BASE),
            Field("createdDateTime", Primitive.TIME),
            Field("lastModifiedDateTime", Primitive.TIME),
            Field("publishingState"),
            Field("isAssigned", Primitive.BOOLEAN, beta=True),
            Field("uploadState", Primitive.INTEGER, beta=True, value=_upload_state),
            Field("sha256"),
        ),
        navigations=(
            Navigation("categories", _categories, _READ, _WRITE, _add_category, _remove_category),
        ),
    )
    assigned = assigning(
        Assignable(
            "deviceAppManagement/mobileApps",
            "mobileApp",
            "mobileAppAssignment",
            "mobileAppAssignments",
            _READ,
            _WRITE,
            _assignable,
            {"intent": "required", "settings": None},
            check=_check_intent,
            check_all=_check_intents,
        )
    )
    content = _content(uploads)
    categories = document(CATEGORIES)
    became = app_statuses()
    mine = my_apps()
    return Part(
        (
            apps,
            _RELATIONSHIPS,
            *assigned.resources,
            *content.resources,
            *categories.resources,
            *became.resources,
        ),
        (
            Action(f"{_ONE}/updateRelationships", _relate, _WRITE, open=True, family=_INTUNE),
            *assigned.actions,
            *content.actions,
            *categories.actions,
            *became.actions,
            *mine.actions,
        ),
    )


def _upload_state(row: Row) -> int:
    return 1 if row["publishing_state"] == "published" else 0
