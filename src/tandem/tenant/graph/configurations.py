"""Policy objects and the settings of device management: what the kinds do besides being kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tandem.infra.listing import Row
from tandem.protocols import odata
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, policies
from tandem.tenant.graph import policy_kinds as kinds
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Family,
    Field,
    Part,
    Resource,
    Value,
    missing,
)
from tandem.tenant.graph.policy_objects import by, documents, find
from tandem.tenant.graph.properties import properties
from tandem.tenant.graph.settings_catalogue import settings_catalogue
from tandem.tenant.policies import Policies, PolicyObject

_INTUNE = Family.INTUNE

# ---------------------------------------------------------------------------------- calls of kinds


async def _schedule(call: Call, body: Body) -> Answer:
    """Replaces the actions for noncompliance."""
    kind = kinds.DEVICE_COMPLIANCE_POLICIES
    key = call.keys[kind.type]
    await find(call, kind, key)
    found = await policies.lock(call.tx, kind.store, key)
    if found is None:
        raise missing(key)
    rules = kinds.scheduled_actions(body.get("deviceComplianceScheduledActionForRules") or [])
    kept = {**found.properties, "scheduledActionsForRule": rules}
    await policies.save(call.tx, found, found.name, kept, call.now, by(call))
    return Value(rules)


async def _set_scheduled(call: Call, body: Body) -> Answer:
    kind = kinds.COMPLIANCE_POLICIES
    key = call.keys[kind.type]
    found = await policies.lock(call.tx, kind.store, key)
    if found is None:
        raise missing(key)
    rules = kinds.scheduled_actions(body.get("scheduledActions") or [])
    kept = {**found.properties, "scheduledActionsForRule": rules}
    await policies.save(call.tx, found, found.name, kept, call.now, by(call))
    return Value(rules)


async def _set_priority(call: Call, body: Body) -> Answer:
    """Moves an enrolment configuration within its type; the others make room."""
    kind = kinds.DEVICE_ENROLLMENT_CONFIGURATIONS
    key = call.keys[kind.type]
    moved = await policies.lock(call.tx, kind.store, key)
    if moved is None or not moved.properties.get("priority"):
        await find(call, kind, key)
        raise BadProperty("The default has the lowest priority, always.", cure="Move another one.")
    same = [
        item
        for item in await policies.objects(call.tx, kind.store)
        if item.type == moved.type and item.properties.get("priority") and item.id != key
    ]
    order = sorted(same, key=lambda item: int(item.properties["priority"]))
    order.insert(max(int(body["priority"]) - 1, 0), moved)
    for number, item in enumerate(order, 1):
        if item.properties["priority"] != number:
            kept = {**item.properties, "priority": number}
            await policies.save(call.tx, item, item.name, kept, call.now, by(call))
    return Value({})


async def _plain_text(call: Call, body: Body) -> Answer:
    """Nothing is sealed here, so there is no reference to ask for: settings carry their values."""
    await find(call, kinds.DEVICE_CONFIGURATIONS, call.keys["deviceConfiguration"])
    raise missing(call.parameters.get("secretReferenceValueId", "secretReferenceValueId"))


async def _tags_for(call: Call, body: Body) -> Answer:
    """The scope tags that may be put on a resource: all of them."""
    found = [
        *await (kinds.ROLE_SCOPE_TAGS.seeds(call) if kinds.ROLE_SCOPE_TAGS.seeds else _none()),
        *await policies.objects(call.tx, kinds.ROLE_SCOPE_TAGS.store),
    ]
    shown = [
        {
            "id": item.id,
            "displayName": item.name,
            "description": item.properties.get("description"),
            "isBuiltIn": item.id == "0",
        }
        for item in found
    ]
    if call.query.filter is not None:
        shown = [item for item in shown if odata.matches(call.query.filter, item)]
    return Value({"@odata.count": len(shown), "value": shown})


async def _none() -> Sequence[PolicyObject]:
    return ()


async def _role_assignments_of(call: Call) -> Sequence[Row]:
    """The assignments of one role."""
    key = call.keys[kinds.ROLE_DEFINITIONS.type]
    await find(call, kinds.ROLE_DEFINITIONS, key)
    return [
        {
            "id": item.id,
            "name": item.name,
            "document": item.properties,
            "properties": {},
        }
        for item in await policies.objects(call.tx, kinds.ROLE_ASSIGNMENTS.store)
        if item.properties.get("roleDefinitionId") == key
    ]


async def _role_of(call: Call) -> Sequence[Row]:
    """The role of an assignment."""
    found = await find(call, kinds.ROLE_ASSIGNMENTS, call.keys[kinds.ROLE_ASSIGNMENTS.type])
    role = await find(call, kinds.ROLE_DEFINITIONS, str(found.properties["roleDefinitionId"]))
    return [
        {
            "id": role.id,
            "name": role.name,
            "document": role.properties,
            "properties": {},
        }
    ]


_ROLE_ASSIGNMENTS = Resource(
    path="deviceManagement/roleDefinitions/{roleDefinition}/roleAssignments",
    type="roleAssignment",
    family=_INTUNE,
    fields=(
        Field("id"),
        Field("displayName", column="name"),
        *properties(kinds.ROLE_ASSIGNMENTS.fields),
    ),
    rows=_role_assignments_of,
    read=kinds.RBAC[0],
    key_is_guid=False,
)
_ROLE = Resource(
    path="deviceManagement/roleAssignments/{deviceAndAppManagementRoleAssignment}/roleDefinition",
    type="roleDefinition",
    family=_INTUNE,
    singleton=True,
    fields=(
        Field("id"),
        Field("displayName", column="name"),
        *properties(kinds.ROLE_DEFINITIONS.fields),
    ),
    rows=_role_of,
    read=kinds.RBAC[0],
)

# ---------------------------------------------------------------------------------- the root

_SETTINGS = (
    "deviceComplianceCheckinThresholdDays:int=30 isScheduledActionEnabled:bool=true "
    "secureByDefault:bool=false enhancedJailBreak:bool=false "
    "deviceInactivityBeforeRetirementInDay:int=0 derivedCredentialProvider=notConfigured "
    "derivedCredentialUrl androidDeviceAdministratorEnrollmentEnabled:bool=false "
    "ignoreDevicesForUnsupportedSettingsEnabled:bool=false enableLogCollection:bool=true "
    "enableAutopilotDiagnostics:bool=true enableEnhancedTroubleshootingExperience:bool=false "
    "enableDeviceGroupMembershipReport:bool=false m365AppDiagnosticsEnabled:bool=false"
)
_FIELDS = {item.name: item for item in properties(_SETTINGS)}
_ROOT = "deviceManagement"


async def _root(call: Call) -> PolicyObject:
    here = await directory.tenant(call.tx)
    found = await policies.find(call.tx, _ROOT, here.id)
    created = here.created_at
    return found or PolicyObject(_ROOT, here.id, _ROOT, here.display_name, 0, created, created)


def _settings(root: PolicyObject) -> dict[str, object]:
    kept = root.properties.get("settings") or {}
    return {name: kept.get(name, item.initial) for name, item in _FIELDS.items()}


async def _root_rows(call: Call) -> Sequence[Row]:
    root = await _root(call)
    return [
        {
            "id": root.id,
            "settings": _settings(root),
            "intune_brand": root.properties.get("intuneBrand"),
        }
    ]


async def _update_root(call: Call, key: str, body: Body) -> None:
    root = await _root(call)
    kept = dict(root.properties)
    if isinstance(body.get("settings"), Mapping):
        given = {k: v for k, v in body["settings"].items() if "@" not in k}
        unknown = sorted(set(given) - set(_FIELDS))
        if unknown:
            raise BadProperty(
                f"'settings' has no property {unknown[0][:64]!r}.",
                cure="Leave it out.",
                target=unknown[0][:64],
            )
        kept["settings"] = {**_settings(root), **{k: v for k, v in given.items() if v is not None}}
    if "intuneBrand" in body:
        kept["intuneBrand"] = body["intuneBrand"]
    if await policies.lock(call.tx, _ROOT, root.id) is None:
        made = replace(root, version=1, changed_at=call.now, properties=kept)
        await policies.add(call.tx, made, by(call))
    else:
        await policies.save(call.tx, root, root.name, kept, call.now, by(call))


async def _settings_rows(call: Call) -> Sequence[Row]:
    return [{"document": _settings(await _root(call))}]


_DEVICE_MANAGEMENT = Resource(
    path=_ROOT,
    type=_ROOT,
    family=_INTUNE,
    singleton=True,
    fields=(
        Field("id", Primitive.GUID),
        Field("intuneAccountId", Primitive.GUID, column="id"),
        Field("subscriptionState", value=lambda _: "active"),
        Field("settings", Primitive.COMPLEX, writable=True),
        Field("intuneBrand", Primitive.COMPLEX, writable=True),
    ),
    rows=_root_rows,
    read=kinds.SERVICE[0],
    write=kinds.SERVICE[1],
    update=_update_root,
)
_MANAGEMENT_SETTINGS = Resource(
    path=f"{_ROOT}/settings",
    type="deviceManagementSettings",
    family=_INTUNE,
    singleton=True,
    fields=tuple(_FIELDS.values()),
    rows=_settings_rows,
    read=kinds.SERVICE[0],
)

# ---------------------------------------------------------------------------------- what is not


async def _nothing(call: Call) -> Sequence[Row]:
    return ()


def _empty() -> list[Resource]:
    found = [
        Resource(
            path=path,
            type=type,
            family=_INTUNE,
            fields=(Field("id"), Field("displayName")),
            rows=_nothing,
            read=permissions[0],
            key_is_guid=False,
        )
        for path, type, permissions in kinds.EMPTY
    ]
    found.append(
        Resource(
            path="deviceManagement/depOnboardingSettings/{depOnboardingSetting}/enrollmentProfiles",
            type="enrollmentProfile",
            family=_INTUNE,
            fields=(Field("id"), Field("displayName")),
            rows=_nothing,
            read=kinds.SERVICE[0],
            key_is_guid=False,
        )
    )
    return found


async def _absent(call: Call, body: Body) -> Answer:
    raise missing(call.path.rpartition("/")[2])


async def _discovery(call: Call, body: Body) -> Answer:
    """Whether devices of a domain find the way to enrolment by themselves: of the tenant's own."""
    here = await directory.tenant(call.tx)
    asked = call.parameters.get("domainName", "").lower()
    return Value({"value": asked in {name.lower() for name in here.domains}})


def configurations(known: Policies | None = None) -> Part:
    """Every kind of policy object, the root of device management, and the empty collections.

    `known` is what is compiled of policies, where something else has it already.
    """
    known = known or Policies()
    parts = [*documents(kinds.checked(known)), settings_catalogue(known)]
    resources = [item for part in parts for item in part.resources]
    actions = [item for part in parts for item in part.actions]
    configuration, service = kinds.CONFIGURATION, kinds.SERVICE
    one = "deviceManagement/deviceCompliancePolicies/{deviceCompliancePolicy}"
    actions += [
        Action(
            f"{one}/scheduleActionsForRules", _schedule, configuration[1], open=True, family=_INTUNE
        ),
        Action(
            "deviceManagement/compliancePolicies/{deviceManagementCompliancePolicy}"
            "/setScheduledActions",
            _set_scheduled,
            configuration[1],
            open=True,
            family=_INTUNE,
        ),
        Action(
            "deviceManagement/deviceEnrollmentConfigurations/{deviceEnrollmentConfiguration}"
            "/setPriority",
            _set_priority,
            service[1],
            body=(Field("priority", Primitive.INTEGER, writable=True, required=True),),
            family=_INTUNE,
        ),
        Action(
            "deviceManagement/deviceConfigurations/{deviceConfiguration}"
            "/getOmaSettingPlainTextValue",
            _plain_text,
            configuration[0],
            method="GET",
            family=_INTUNE,
        ),
        Action(
            "deviceManagement/getRoleScopeTagsByResource",
            _tags_for,
            kinds.RBAC[0],
            method="GET",
            family=_INTUNE,
        ),
        Action(
            "deviceManagement/verifyWindowsEnrollmentAutoDiscovery",
            _discovery,
            service[0],
            method="GET",
            family=_INTUNE,
        ),
    ]
    for name in (
        "applePushNotificationCertificate",
        "androidManagedStoreAccountEnterpriseSettings",
    ):
        path = f"deviceManagement/{name}"
        actions.append(Action(path, _absent, service[0], method="GET", family=_INTUNE))
    resources += [
        _ROLE_ASSIGNMENTS,
        _ROLE,
        _DEVICE_MANAGEMENT,
        _MANAGEMENT_SETTINGS,
        *_empty(),
    ]
    return Part(tuple(resources), tuple(actions))
