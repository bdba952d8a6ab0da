"""The kinds of policy objects, each in a few lines. Names and defaults are Graph's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, enrollment, policies
from tandem.tenant.graph.model import Access, BadProperty, Call, Family, Field, access
from tandem.tenant.graph.permissions import READERS, WRITERS
from tandem.tenant.graph.policy_objects import (
    Contained,
    Kind,
    Prepare,
    Properties,
    identified,
)
from tandem.tenant.policies import Policies, PolicyObject
from tandem.workloads import Workload

NO_TEMPLATE = "00000000-0000-0000-0000-000000000000"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _permissions(area: str) -> tuple[Access, Access]:
    name = f"DeviceManagement{area}"
    return (
        access(f"{name}.Read.All", f"{name}.ReadWrite.All", roles=READERS),
        access(f"{name}.ReadWrite.All", roles=WRITERS),
    )


CONFIGURATION = _permissions("Configuration")
SERVICE = _permissions("ServiceConfig")
RBAC = _permissions("RBAC")
APPS = _permissions("Apps")
CONDITIONAL_ACCESS = (
    access("Policy.Read.All", roles=(directory.GLOBAL_READER,)),
    access("Policy.ReadWrite.ConditionalAccess", roles=(directory.GLOBAL_ADMINISTRATOR,)),
)

_TAGS = "description roleScopeTagIds:[str]^=0"

# ---------------------------------------------------------------------------------- configuration

_APPLICABILITY = (
    "supportsScopeTags:bool^=true deviceManagementApplicabilityRuleOsEdition:obj^ "
    "deviceManagementApplicabilityRuleOsVersion:obj^ deviceManagementApplicabilityRuleDeviceMode:obj^"
)


_WORKLOADS = tuple(item.value for item in Workload)


def oma_settings(known: Policies) -> Prepare:
    """Checks the settings of custom profiles against the catalogue."""

    async def prepare(call: Call, type: str, kept: Properties, before: PolicyObject | None) -> None:
        catalogue = await known.catalogue(call.tx)
        _oma_settings(kept, catalogue, checked=type == policies.CUSTOM)

    return prepare


def _oma_settings(kept: Properties, catalogue: policies.Catalogue, *, checked: bool) -> None:
    """Each setting with the two keys that clients read and some strip before they send it back."""
    if kept.get("workload") is not None and kept["workload"] not in _WORKLOADS:
        raise BadProperty(
            f"There is no workload {str(kept['workload'])[:64]!r}.",
            cure="Use one of: " + ", ".join(_WORKLOADS) + ".",
            target="workload",
        )
    given = kept.get("omaSettings")
    if given is None:
        return
    if not isinstance(given, list) or not all(isinstance(item, Mapping) for item in given):
        raise BadProperty("'omaSettings' is a list of objects.", cure="Send a list.")
    found = []
    for item in given:
        uri, named = item.get("omaUri"), str(item.get("@odata.type") or "")
        if not isinstance(uri, str) or not uri.strip():
            raise BadProperty(
                "A setting has no 'omaUri'.", cure="Name the node that it sets.", target="omaUri"
            )
        if not named.startswith("#microsoft.graph.omaSetting"):
            raise BadProperty(
                "A setting says by '@odata.type' which one it is.",
                cure='Send "@odata.type": "#microsoft.graph.omaSettingString", for example.',
                target="omaSettings",
            )
        if checked:
            # Refused here, where somebody can do something about it, and not by the device.
            policies.check_custom(item, catalogue)
        found.append(
            {
                "@odata.type": named,
                "displayName": uri,
                "description": None,
                "value": None,
                **item,
                "isEncrypted": False,
                "secretReferenceValueId": None,
            }
        )
    kept["omaSettings"] = found


DEVICE_CONFIGURATIONS = Kind(
    "deviceManagement/deviceConfigurations",
    "deviceConfiguration",
    f"{_TAGS} {_APPLICABILITY}",
    *CONFIGURATION,
    shows_version=True,
    polymorphic=True,
    opened=True,
    derived={
        "windows10CustomConfiguration": "omaSettings:[obj] workload",
        "macOSCustomConfiguration": "payload:bytes payloadFileName payloadName",
        "iosCustomConfiguration": "payload:bytes payloadFileName payloadName",
        "windowsUpdateForBusinessConfiguration": (
            "deliveryOptimizationMode=userDefined prereleaseFeatures=userDefined "
            "automaticUpdateMode=userDefined microsoftUpdateServiceAllowed:bool=false "
            "driversExcluded:bool=false installationSchedule:obj "
            "qualityUpdatesDeferralPeriodInDays:int=0 featureUpdatesDeferralPeriodInDays:int=0 "
            "qualityUpdatesPaused:bool=false featureUpdatesPaused:bool=false "
            "qualityUpdatesPauseExpiryDateTime=0001-01-01T00:00:00Z "
            "featureUpdatesPauseExpiryDateTime=0001-01-01T00:00:00Z "
            "businessReadyUpdatesOnly=userDefined"
        ),
    },
    assign="assignments",
)

# ---------------------------------------------------------------------------------- compliance

_ACTIONS = Contained(
    "scheduledActionsForRule",
    "deviceComplianceScheduledActionForRule",
    "ruleName",
    inner=Contained(
        "scheduledActionConfigurations",
        "deviceComplianceActionItem",
        "actionType=noAction gracePeriodHours:int=0 notificationTemplateId "
        "notificationMessageCCList:[str]",
    ),
)
_ACTION_TYPES = [
    "noAction",
    "notification",
    "block",
    "retire",
    "wipe",
    "removeResourceAccessProfiles",
    "pushNotification",
    "remoteLock",
]


def scheduled_actions(given: Any) -> list[Properties]:
    """The rules of a compliance policy. Raises BadProperty unless one of their actions blocks."""
    rules = identified(_ACTIONS, given)
    actions = [item for rule in rules for item in rule["scheduledActionConfigurations"]]
    for item in actions:
        if item.get("actionType") not in _ACTION_TYPES:
            raise BadProperty(
                "An action for noncompliance has an 'actionType' that is not known.",
                cure=f"Use one of: {', '.join(_ACTION_TYPES)}.",
                target="actionType",
            )
        # Clients fetch the template that is named here, whatever the name is.
        item["notificationTemplateId"] = item.get("notificationTemplateId") or NO_TEMPLATE
        item["notificationMessageCCList"] = item.get("notificationMessageCCList") or []
        item["gracePeriodHours"] = item.get("gracePeriodHours") or 0
    if not any(item["actionType"] == "block" for item in actions):
        raise BadProperty(
            "A compliance policy needs 'scheduledActionsForRule' with an action of the type block.",
            cure="Send one; with gracePeriodHours it may block later.",
            target="scheduledActionsForRule",
        )
    return rules


async def _compliance(call: Call, type: str, kept: Properties, before: PolicyObject | None) -> None:
    kept["scheduledActionsForRule"] = scheduled_actions(kept.get("scheduledActionsForRule") or [])


DEVICE_COMPLIANCE_POLICIES = Kind(
    "deviceManagement/deviceCompliancePolicies",
    "deviceCompliancePolicy",
    _TAGS,
    *CONFIGURATION,
    shows_version=True,
    polymorphic=True,
    opened=True,
    derived={
        "windows10CompliancePolicy": (
            "passwordRequired:bool=false passwordBlockSimple:bool=false "
            "passwordRequiredToUnlockFromIdle:bool=false passwordMinutesOfInactivityBeforeLock:int "
            "passwordExpirationDays:int passwordMinimumLength:int "
            "passwordMinimumCharacterSetCount:int passwordRequiredType=deviceDefault "
            "passwordPreviousPasswordBlockCount:int requireHealthyDeviceReport:bool=false "
            "osMinimumVersion osMaximumVersion mobileOsMinimumVersion mobileOsMaximumVersion "
            "earlyLaunchAntiMalwareDriverEnabled:bool=false bitLockerEnabled:bool=false "
            "secureBootEnabled:bool=false codeIntegrityEnabled:bool=false "
            "storageRequireEncryption:bool=false memoryIntegrityEnabled:bool^=false "
            "kernelDmaProtectionEnabled:bool^=false virtualizationBasedSecurityEnabled:bool^=false "
            "firmwareProtectionEnabled:bool^=false activeFirewallRequired:bool^=false "
            "defenderEnabled:bool^=false defenderVersion^ signatureOutOfDate:bool^=false "
            "rtpEnabled:bool^=false antivirusRequired:bool^=false antiSpywareRequired:bool^=false "
            "deviceThreatProtectionEnabled:bool^=false "
            "deviceThreatProtectionRequiredSecurityLevel^=unavailable "
            "configurationManagerComplianceRequired:bool^=false tpmRequired:bool^=false "
            "deviceCompliancePolicyScript:obj^ validOperatingSystemBuildRanges:[obj]^ "
            "wslDistributions:[obj]^"
        ),
    },
    contained=(_ACTIONS,),
    prepare=_compliance,
    assign="assignments",
)

# ---------------------------------------------------------------------------------- catalogue


def _check_settings(kept: Properties) -> None:
    for item in kept.get("settings") or []:
        instance = item.get("settingInstance")
        if not isinstance(instance, Mapping) or not isinstance(
            instance.get("settingDefinitionId"), str
        ):
            raise BadProperty(
                "A setting has no 'settingInstance' with a 'settingDefinitionId'.",
                cure="Send both, with the '@odata.type' of the instance.",
                target="settings",
            )


async def _count_settings(
    call: Call, type: str, kept: Properties, before: PolicyObject | None
) -> None:
    _check_settings(kept)


def catalogue_settings(known: Policies) -> Prepare:
    """Checks the settings of a catalogue policy; those that are not known are kept as they are.

    A policy of no template says so: clients read the members of its reference.
    """

    async def prepare(call: Call, type: str, kept: Properties, before: PolicyObject | None) -> None:
        _check_settings(kept)
        policies.check_instances(kept.get("settings"), await known.catalogue(call.tx))
        kept["templateReference"] = {
            "templateId": "",
            "templateFamily": "none",
            "templateDisplayName": None,
            "templateDisplayVersion": None,
            **(kept.get("templateReference") or {}),
        }

    return prepare


def _setting_count(row: Row) -> int:
    return len(row["document"].get("settings") or [])


CONFIGURATION_POLICIES = Kind(
    "deviceManagement/configurationPolicies",
    "deviceManagementConfigurationPolicy",
    f"{_TAGS} platforms=none technologies=none creationSource priorityMetaData:obj "
    "templateReference:obj",
    *CONFIGURATION,
    name="name",
    contained=(
        Contained(
            "settings", "deviceManagementConfigurationSetting", "settingInstance:obj", numbered=True
        ),
    ),
    computed=(Field("settingCount", Primitive.INTEGER, value=_setting_count, needs=("document",)),),
    put=True,
    assign="assignments",
)
COMPLIANCE_POLICIES = Kind(
    "deviceManagement/compliancePolicies",
    "deviceManagementCompliancePolicy",
    f"{_TAGS} platforms=none technologies=none creationSource",
    *CONFIGURATION,
    name="name",
    contained=(
        Contained(
            "settings",
            "deviceManagementCompliancePolicySetting",
            "settingInstance:obj",
            numbered=True,
        ),
        Contained(
            "scheduledActionsForRule",
            "deviceManagementComplianceScheduledActionForRule",
            "ruleName",
            inner=_ACTIONS.inner,
        ),
    ),
    computed=(Field("settingCount", Primitive.INTEGER, value=_setting_count, needs=("document",)),),
    prepare=_count_settings,
    put=True,
    assign="assignments",
)
REUSABLE_SETTINGS = Kind(
    "deviceManagement/reusablePolicySettings",
    "deviceManagementReusablePolicySetting",
    "description settingDefinitionId settingInstance:obj referencingConfigurationPolicyCount:int=0",
    *CONFIGURATION,
    shows_version=True,
    put=True,
)

# ---------------------------------------------------------------------------------- scripts

_SCRIPT = f"{_TAGS} runAsAccount=system"
_SIGNED = "enforceSignatureCheck:bool=false runAs32Bit:bool=false"

DEVICE_MANAGEMENT_SCRIPTS = Kind(
    "deviceManagement/deviceManagementScripts",
    "deviceManagementScript",
    f"{_SCRIPT} {_SIGNED} scriptContent:bytes fileName",
    *CONFIGURATION,
    lists_omit=frozenset({"scriptContent"}),
    update_status=200,
    assign="deviceManagementScriptAssignments",
    assigns=("deviceShellScripts", "deviceCustomAttributeShellScripts"),
)
DEVICE_SHELL_SCRIPTS = Kind(
    "deviceManagement/deviceShellScripts",
    "deviceShellScript",
    f"{_SCRIPT} scriptContent:bytes fileName executionFrequency=PT0S retryCount:int=0 "
    "blockExecutionNotifications:bool=false",
    *CONFIGURATION,
    lists_omit=frozenset({"scriptContent"}),
    update_status=200,
    assign="deviceManagementScriptAssignments",
)
CUSTOM_ATTRIBUTES = Kind(
    "deviceManagement/deviceCustomAttributeShellScripts",
    "deviceCustomAttributeShellScript",
    f"{_SCRIPT} scriptContent:bytes fileName customAttributeName customAttributeType=string",
    *CONFIGURATION,
    lists_omit=frozenset({"scriptContent"}),
    update_status=200,
    assign="deviceManagementScriptAssignments",
)
DEVICE_HEALTH_SCRIPTS = Kind(
    "deviceManagement/deviceHealthScripts",
    "deviceHealthScript",
    # Clients look for a word in the publisher: it is a text, always.
    f"{_SCRIPT} {_SIGNED} publisher= version=1 detectionScriptContent:bytes "
    "remediationScriptContent:bytes isGlobalScript:bool=false highestAvailableVersion "
    "deviceHealthScriptType=deviceHealthScript detectionScriptParameters:[obj] "
    "remediationScriptParameters:[obj]",
    *CONFIGURATION,
    lists_omit=frozenset({"detectionScriptContent", "remediationScriptContent"}),
    update_status=200,
    assign="deviceHealthScriptAssignments",
    assign_values={"runRemediationScript": False, "runSchedule": None},
)
DEVICE_COMPLIANCE_SCRIPTS = Kind(
    "deviceManagement/deviceComplianceScripts",
    "deviceComplianceScript",
    f"{_SCRIPT} {_SIGNED} publisher= version=1 detectionScriptContent:bytes",
    *CONFIGURATION,
    lists_omit=frozenset({"detectionScriptContent"}),
    update_status=200,
    assign="assignments",
)

# ---------------------------------------------------------------------------------- filters, tags

ASSIGNMENT_FILTERS = Kind(
    "deviceManagement/assignmentFilters",
    "deviceAndAppManagementAssignmentFilter",
    "description platform! rule! roleScopeTags:[str]=0 payloads:[obj] "
    "assignmentFilterManagementType=devices",
    *CONFIGURATION,
    update_status=200,
)


async def _default_tag(call: Call) -> Sequence[PolicyObject]:
    return [PolicyObject("roleScopeTags", "0", "roleScopeTag", "Default", 1, _EPOCH, _EPOCH)]


ROLE_SCOPE_TAGS = Kind(
    "deviceManagement/roleScopeTags",
    "roleScopeTag",
    "description",
    *RBAC,
    created="",
    modified="",
    computed=(Field("isBuiltIn", Primitive.BOOLEAN, value=lambda row: row["id"] == "0"),),
    seeds=_default_tag,
    fixed_seeds=True,
    numbered=True,
    create_status=200,
    update_status=200,
    assign="assignments",
)
DEVICE_CATEGORIES = Kind(
    "deviceManagement/deviceCategories",
    "deviceCategory",
    _TAGS,
    *CONFIGURATION,
    created="",
    modified="",
    update_status=200,
)

# ---------------------------------------------------------------------------------- enrolment

_RESTRICTION = {
    "platformBlocked": False,
    "personalDeviceEnrollmentBlocked": False,
    "osMinimumVersion": "",
    "osMaximumVersion": "",
}
_DEFAULTS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    (
        "DefaultLimit",
        "deviceEnrollmentLimitConfiguration",
        "limit",
        {"limit": enrollment.DEFAULT_LIMIT},
    ),
    (
        "DefaultPlatformRestrictions",
        "deviceEnrollmentPlatformRestrictionsConfiguration",
        "platformRestrictions",
        {
            f"{platform}Restriction": dict(_RESTRICTION)
            for platform in ("ios", "windows", "windowsMobile", "android", "macOS")
        },
    ),
    (
        "DefaultWindowsHelloForBusiness",
        "deviceEnrollmentWindowsHelloForBusinessConfiguration",
        "windowsHelloForBusiness",
        {"state": "notConfigured"},
    ),
    (
        "DefaultWindows10EnrollmentCompletionPageConfiguration",
        "windows10EnrollmentCompletionPageConfiguration",
        "windows10EnrollmentCompletionPageConfiguration",
        {},
    ),
)


async def _enrollment_defaults(call: Call) -> Sequence[PolicyObject]:
    """What holds for everybody as long as nothing else does."""
    here = await directory.tenant(call.tx)
    return [
        PolicyObject(
            "deviceEnrollmentConfigurations",
            f"{here.id}_{name}",
            type,
            "All users and all devices",
            1,
            here.created_at,
            here.created_at,
            {
                "description": "This is the default, and applies with the lowest priority to all.",
                "priority": 0,
                "deviceEnrollmentConfigurationType": sort,
                **values,
            },
        )
        for name, type, sort, values in _DEFAULTS
    ]


_ENROLLMENT_TYPES = {
    "deviceEnrollmentLimitConfiguration": "limit",
    "deviceEnrollmentPlatformRestrictionsConfiguration": "platformRestrictions",
    "deviceEnrollmentPlatformRestrictionConfiguration": "singlePlatformRestriction",
    "deviceEnrollmentWindowsHelloForBusinessConfiguration": "windowsHelloForBusiness",
    "windows10EnrollmentCompletionPageConfiguration": (
        "windows10EnrollmentCompletionPageConfiguration"
    ),
    "deviceComanagementAuthorityConfiguration": "deviceComanagementAuthorityConfiguration",
}


async def _enrollment(call: Call, type: str, kept: Properties, before: PolicyObject | None) -> None:
    """A new one comes last in the order of its type."""
    _check_restriction(type, kept)
    kept["deviceEnrollmentConfigurationType"] = _ENROLLMENT_TYPES.get(type, "unknown")
    if before is not None:
        kept["priority"] = before.properties.get("priority", 0)
        return
    others = await policies.objects(call.tx, "deviceEnrollmentConfigurations")
    same = [item.properties.get("priority", 0) for item in others if item.type == type]
    kept["priority"] = max([0, *same]) + 1


_MOST_DEVICES = 15


def _check_restriction(type: str, kept: Properties) -> None:
    """Raises BadProperty for a limit or a version that no enrollment could be judged by."""
    if type == "deviceEnrollmentLimitConfiguration":
        limit = kept.get("limit")
        if not isinstance(limit, int) or not 1 <= limit <= _MOST_DEVICES:
            raise BadProperty(
                f"A user may enrol 1 to {_MOST_DEVICES} devices of their own.", target="limit"
            )
    for name, values in kept.items():
        if not name.endswith("Restriction") or not isinstance(values, Mapping):
            continue
        low, high = (str(values.get(end) or "") for end in ("osMinimumVersion", "osMaximumVersion"))
        for text in (low, high):
            if text and enrollment.version(text) is None:
                raise BadProperty(
                    f"{text[:64]!r} is no version of an operating system.",
                    cure="Write it as 10.0.22631.2715, or its first numbers.",
                    target=name,
                )
        if low and high and (enrollment.version(low) or ()) > (enrollment.version(high) or ()):
            raise BadProperty("The highest version is below the lowest.", target=name)


DEVICE_ENROLLMENT_CONFIGURATIONS = Kind(
    "deviceManagement/deviceEnrollmentConfigurations",
    "deviceEnrollmentConfiguration",
    f"{_TAGS} priority:int=0 deviceEnrollmentConfigurationType^",
    *SERVICE,
    shows_version=True,
    derived={
        "deviceEnrollmentLimitConfiguration": "limit:int=5",
        "deviceEnrollmentPlatformRestrictionsConfiguration": (
            "iosRestriction:obj windowsRestriction:obj windowsMobileRestriction:obj "
            "androidRestriction:obj macOSRestriction:obj"
        ),
        "deviceEnrollmentPlatformRestrictionConfiguration": "platformType platformRestriction:obj",
        "deviceEnrollmentWindowsHelloForBusinessConfiguration": (
            "state=notConfigured pinMinimumLength:int=6 pinMaximumLength:int=127 "
            "pinUppercaseCharactersUsage=disallowed pinLowercaseCharactersUsage=disallowed "
            "pinSpecialCharactersUsage=disallowed securityDeviceRequired:bool=false "
            "unlockWithBiometricsEnabled:bool=true remotePassportEnabled:bool=true "
            "pinPreviousBlockCount:int=0 pinExpirationInDays:int=0 "
            "enhancedBiometricsState=notConfigured"
        ),
        "windows10EnrollmentCompletionPageConfiguration": (
            "showInstallationProgress:bool=false blockDeviceSetupRetryByUser:bool=true "
            "allowDeviceResetOnInstallFailure:bool=false "
            "allowLogCollectionOnInstallFailure:bool=false customErrorMessage "
            "installProgressTimeoutInMinutes:int=0 allowDeviceUseOnInstallFailure:bool=false "
            "selectedMobileAppIds:[str] trackInstallProgressForAutopilotOnly:bool=false "
            "disableUserStatusTrackingAfterFirstUser:bool=false "
            "allowNonBlockingAppInstallation:bool=false installQualityUpdates:bool=false"
        ),
        "deviceComanagementAuthorityConfiguration": (
            "managedDeviceAuthority:int=0 configurationManagerAgentCommandLineArgument "
            "installConfigurationManagerAgent:bool=false"
        ),
    },
    opened=True,
    prepare=_enrollment,
    seeds=_enrollment_defaults,
    update_status=200,
    assign="enrollmentConfigurationAssignments",
)

_EXPERIENCE = {
    "outOfBoxExperienceSettings": "outOfBoxExperienceSetting",
    "hidePrivacySettings": "privacySettingsHidden",
    "hideEULA": "eulaHidden",
    "skipKeyboardSelectionPage": "keyboardSelectionPageSkipped",
    "hideEscapeLink": "escapeLinkHidden",
    "userType": "userType",
    "deviceUsageType": "deviceUsageType",
}


async def _experience(call: Call, type: str, kept: Properties, before: PolicyObject | None) -> None:
    """The out-of-box settings have an old spelling and a new one: both are always there."""
    old, new = "outOfBoxExperienceSettings", "outOfBoxExperienceSetting"
    inner = {name: other for name, other in _EXPERIENCE.items() if name != old}
    earlier = before.properties if before is not None else {}
    if isinstance(kept.get(new), Mapping) and kept.get(new) != earlier.get(new):
        kept[old] = {a: kept[new].get(b) for a, b in inner.items()}
    elif isinstance(kept.get(old), Mapping):
        kept[new] = {b: kept[old].get(a) for a, b in inner.items()}


AUTOPILOT_PROFILES = Kind(
    "deviceManagement/windowsAutopilotDeploymentProfiles",
    "windowsAutopilotDeploymentProfile",
    f"{_TAGS} language locale deviceNameTemplate deviceType=windowsPc enableWhiteGlove:bool=false "
    "preprovisioningAllowed:bool=false extractHardwareHash:bool=false "
    "hardwareHashExtractionEnabled:bool=false managementServiceAppId "
    "outOfBoxExperienceSettings:obj outOfBoxExperienceSetting:obj enrollmentStatusScreenSettings:obj",
    *SERVICE,
    derived={
        "azureADWindowsAutopilotDeploymentProfile": "",
        "activeDirectoryWindowsAutopilotDeploymentProfile": (
            "hybridAzureADJoinSkipConnectivityCheck:bool=false"
        ),
    },
    prepare=_experience,
    update_status=200,
    assign="assignments",
)
# ---------------------------------------------------------------------------------- notifications

NOTIFICATION_TEMPLATES = Kind(
    "deviceManagement/notificationMessageTemplates",
    "notificationMessageTemplate",
    f"{_TAGS} defaultLocale brandingOptions=none",
    *SERVICE,
    created="",
    contained=(
        Contained(
            "localizedNotificationMessages",
            "localizedNotificationMessage",
            "locale! subject! messageTemplate! isDefault:bool=false lastModifiedDateTime",
            writable=True,
            create_status=200,
            update_status=200,
        ),
    ),
    create_status=200,
    update_status=200,
)

# ---------------------------------------------------------------------------------- roles

_ROLES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "0bd113fe-6be5-400c-a28f-ae5553f9c0be",
        "Policy and Profile manager",
        ("DeviceConfigurations", "DeviceCompliancePolices"),
    ),
    ("c56d53a2-73d0-4502-b6bd-4a9d3dba28d5", "Intune Role Administrator", ("Roles",)),
    (
        "9e0cc482-82df-4ab2-a24c-0c23a3f52e1e",
        "Help Desk Operator",
        ("RemoteTasks", "ManagedDevices"),
    ),
    ("c1d9fcbb-cba5-40b0-bf6b-527006585f4b", "Application Manager", ("MobileApps", "ManagedApps")),
    (
        "fa1d7878-e8cb-41a1-8254-0142355c9f84",
        "Read Only Operator",
        ("ManagedDevices", "MobileApps"),
    ),
    (
        "2f9f4f7e-2d13-427b-adf2-361a1eef7ae8",
        "School Administrator",
        ("ManagedDevices", "RemoteTasks"),
    ),
    ("c3f5e1d3-7d5e-4a4c-9b53-0f8ed8c2e6a0", "Endpoint Security Manager", ("SecurityBaselines",)),
)


async def _built_in_roles(call: Call) -> Sequence[PolicyObject]:
    found = []
    for id, name, areas in _ROLES:
        verbs = ("Read",) if name.startswith("Read") else ("Read", "Create", "Update", "Delete")
        actions = [f"Microsoft.Intune_{area}_{verb}" for area in areas for verb in verbs]
        found.append(
            PolicyObject(
                "roleDefinitions",
                id,
                "deviceAndAppManagementRoleDefinition",
                name,
                1,
                _EPOCH,
                _EPOCH,
                {"rolePermissions": [_permission(actions)], "description": name},
            )
        )
    return found


def _permission(actions: list[str], denied: list[str] | None = None) -> Properties:
    return {
        "actions": actions,
        "resourceActions": [
            {"allowedResourceActions": actions, "notAllowedResourceActions": denied or []}
        ],
    }


async def _role(call: Call, type: str, kept: Properties, before: PolicyObject | None) -> None:
    """Permissions in both spellings, and never none: clients read the first."""
    given = kept.get("rolePermissions") or kept.get("permissions") or []
    if not isinstance(given, list) or not all(isinstance(item, Mapping) for item in given):
        raise BadProperty("'rolePermissions' is a list of objects.", cure="Send a list.")
    allowed: list[str] = []
    denied: list[str] = []
    for item in given:
        allowed += [str(name) for name in item.get("actions") or []]
        for more in item.get("resourceActions") or []:
            allowed += [str(name) for name in more.get("allowedResourceActions") or []]
            denied += [str(name) for name in more.get("notAllowedResourceActions") or []]
    kept["rolePermissions"] = [_permission(list(dict.fromkeys(allowed)), denied)]
    kept.pop("permissions", None)


def _is_built_in(row: Row) -> bool:
    return any(row["id"] == id for id, _, _ in _ROLES)


ROLE_DEFINITIONS = Kind(
    "deviceManagement/roleDefinitions",
    "roleDefinition",
    f"{_TAGS} rolePermissions:[obj]",
    *RBAC,
    created="",
    modified="",
    computed=(
        Field("isBuiltIn", Primitive.BOOLEAN, value=_is_built_in),
        Field("isBuiltInRoleDefinition", Primitive.BOOLEAN, value=_is_built_in, beta=True),
        Field(
            "permissions",
            Primitive.COMPLEX,
            collection=True,
            writable=True,
            beta=True,
            value=lambda row: row["document"].get("rolePermissions"),
            needs=("document",),
        ),
    ),
    prepare=_role,
    seeds=_built_in_roles,
    fixed_seeds=True,
    create_status=200,
    update_status=200,
)


async def _role_assignment(
    call: Call, type: str, kept: Properties, before: PolicyObject | None
) -> None:
    """The role is bound by its URL; who gets it and over whom are groups."""
    bound = kept.pop("roleDefinition@odata.bind", None)
    if bound is not None:
        kept["roleDefinitionId"] = (
            str(bound).rstrip("/").rpartition("/")[2].split("('")[-1].rstrip("')")
        )
    wanted = kept.get("roleDefinitionId")
    known = {item.id for item in await _built_in_roles(call)}
    stored = await policies.find(call.tx, "roleDefinitions", str(wanted or ""))
    if wanted not in known and stored is None:
        raise BadProperty(
            "The role that is to be assigned does not exist.",
            cure="Bind it: 'roleDefinition@odata.bind': …/deviceManagement/roleDefinitions/{id}.",
            target="roleDefinition",
        )
    for name in ("members", "resourceScopes", "scopeMembers"):
        for group in kept.get(name) or []:
            await directory.group(call.tx, str(group))


ROLE_ASSIGNMENTS = Kind(
    "deviceManagement/roleAssignments",
    "deviceAndAppManagementRoleAssignment",
    f"{_TAGS} resourceScopes:[str] members:[str] scopeMembers:[str]^ scopeType^=resourceScope "
    "roleDefinitionId^",
    *RBAC,
    created="",
    modified="",
    opened=True,
    prepare=_role_assignment,
    create_status=200,
    update_status=200,
)

# ---------------------------------------------------------------------------------- access

_STATES = ("enabled", "disabled", "enabledForReportingButNotEnforced")
_CONTROLS = frozenset(
    [
        "block",
        "mfa",
        "compliantDevice",
        "domainJoinedDevice",
        "approvedApplication",
        "compliantApplication",
        "passwordChange",
    ]
)


async def _conditional_access(
    call: Call, type: str, kept: Properties, before: PolicyObject | None
) -> None:
    """What cannot mean anything is refused now: a policy that is misread lets people in."""
    if kept.get("state") not in _STATES:
        raise BadProperty(
            "'state' is not one of " + ", ".join(_STATES) + ".", cure="Send one.", target="state"
        )
    conditions = kept.get("conditions")
    if not isinstance(conditions, Mapping) or not isinstance(conditions.get("users"), Mapping):
        raise BadProperty(
            "A policy needs 'conditions' with 'users'.",
            cure="Say for whom it is: conditions.users.includeUsers ['All'], for example.",
            target="conditions",
        )
    grant = kept.get("grantControls")
    if grant is None:
        return
    if not isinstance(grant, Mapping) or grant.get("operator") not in ("AND", "OR"):
        raise BadProperty("'grantControls.operator' is AND or OR.", cure="Send one of them.")
    for control in grant.get("builtInControls") or []:
        if control not in _CONTROLS:
            raise BadProperty(
                f"The control {str(control)[:64]!r} is not known.",
                cure="Known: " + ", ".join(sorted(_CONTROLS)) + ".",
                target="builtInControls",
            )


_ACCESS: Mapping[str, Any] = {
    "family": Family.DIRECTORY,
    "modified": "modifiedDateTime",
    "delete_status": 204,
}
CONDITIONAL_ACCESS_POLICIES = Kind(
    "identity/conditionalAccess/policies",
    "conditionalAccessPolicy",
    "description state! templateId conditions:obj! grantControls:obj sessionControls:obj",
    *CONDITIONAL_ACCESS,
    key="conditionalAccessPolicies",
    prepare=_conditional_access,
    **_ACCESS,
)
CONDITIONAL_ACCESS_ALIAS = Kind(
    "policies/conditionalAccessPolicies",
    "conditionalAccessPolicy",
    CONDITIONAL_ACCESS_POLICIES.fields,
    *CONDITIONAL_ACCESS,
    key="conditionalAccessPolicies",
    prepare=_conditional_access,
    **_ACCESS,
)
NAMED_LOCATIONS = Kind(
    "identity/conditionalAccess/namedLocations",
    "namedLocation",
    "",
    *CONDITIONAL_ACCESS,
    derived={
        "ipNamedLocation": "isTrusted:bool=false ipRanges:[obj]!",
        "countryNamedLocation": (
            "countriesAndRegions:[str]! includeUnknownCountriesAndRegions:bool=false "
            "countryLookupMethod=clientIpAddress"
        ),
    },
    **_ACCESS,
)

# ---------------------------------------------------------------------------------- others

_UPDATES: Mapping[str, Any] = {"update_status": 200, "assign": "assignments"}
OTHERS = (
    Kind(
        "deviceManagement/windowsFeatureUpdateProfiles",
        "windowsFeatureUpdateProfile",
        f"{_TAGS} featureUpdateVersion rolloutSettings:obj installFeatureUpdatesOptional:bool=false "
        "installLatestWindows10OnWindows11IneligibleDevice:bool=false endOfSupportDate:time "
        "deployableContentDisplayName",
        *CONFIGURATION,
        **_UPDATES,
    ),
    Kind(
        "deviceManagement/windowsQualityUpdateProfiles",
        "windowsQualityUpdateProfile",
        f"{_TAGS} expeditedUpdateSettings:obj releaseDateDisplayName deployableContentDisplayName",
        *CONFIGURATION,
        **_UPDATES,
    ),
    Kind(
        "deviceManagement/windowsDriverUpdateProfiles",
        "windowsDriverUpdateProfile",
        f"{_TAGS} approvalType=manual deploymentDeferralInDays:int newUpdates:int=0 "
        "deviceReporting:int=0 inventorySyncStatus:obj",
        *CONFIGURATION,
        **_UPDATES,
    ),
    Kind(
        "deviceManagement/groupPolicyConfigurations",
        "groupPolicyConfiguration",
        f"{_TAGS} policyConfigurationIngestionType=unknown",
        *CONFIGURATION,
        contained=(
            Contained(
                "definitionValues",
                "groupPolicyDefinitionValue",
                "enabled:bool=true configurationType=policy definition:obj",
                inner=Contained("presentationValues", "groupPolicyPresentationValue"),
            ),
        ),
        update_status=200,
        delete_status=204,
        assign="assignments",
    ),
    Kind(
        "deviceManagement/intents",
        "deviceManagementIntent",
        f"{_TAGS} templateId isMigratingToConfigurationPolicy:bool=false",
        *CONFIGURATION,
        assign="assignments",
        assign_status=204,
    ),
    Kind(
        "deviceAppManagement/mobileAppConfigurations",
        "managedDeviceMobileAppConfiguration",
        f"{_TAGS} targetedMobileApps:[str]",
        *APPS,
        shows_version=True,
        polymorphic=True,
        opened=True,
        assign="assignments",
    ),
    Kind(
        "deviceAppManagement/managedAppPolicies",
        "managedAppPolicy",
        _TAGS,
        *APPS,
        polymorphic=True,
        opened=True,
        delete_status=204,
    ),
)

KINDS = (
    DEVICE_CONFIGURATIONS,
    DEVICE_COMPLIANCE_POLICIES,
    CONFIGURATION_POLICIES,
    COMPLIANCE_POLICIES,
    REUSABLE_SETTINGS,
    DEVICE_MANAGEMENT_SCRIPTS,
    DEVICE_SHELL_SCRIPTS,
    CUSTOM_ATTRIBUTES,
    DEVICE_HEALTH_SCRIPTS,
    DEVICE_COMPLIANCE_SCRIPTS,
    ASSIGNMENT_FILTERS,
    ROLE_SCOPE_TAGS,
    DEVICE_CATEGORIES,
    DEVICE_ENROLLMENT_CONFIGURATIONS,
    AUTOPILOT_PROFILES,
    NOTIFICATION_TEMPLATES,
    ROLE_DEFINITIONS,
    ROLE_ASSIGNMENTS,
    CONDITIONAL_ACCESS_POLICIES,
    CONDITIONAL_ACCESS_ALIAS,
    NAMED_LOCATIONS,
    *OTHERS,
)

# Collections that exist and hold nothing: this version has no use for what they would hold, and
# clients that list them take a 404 for an error.
EMPTY: tuple[tuple[str, str, tuple[Access, Access]], ...] = (
    (
        "deviceManagement/windowsAutopilotDeviceIdentities",
        "windowsAutopilotDeviceIdentity",
        SERVICE,
    ),
    (
        "deviceManagement/importedWindowsAutopilotDeviceIdentities",
        "importedWindowsAutopilotDeviceIdentity",
        SERVICE,
    ),
    ("deviceManagement/depOnboardingSettings", "depOnboardingSetting", SERVICE),
    ("deviceManagement/templates", "deviceManagementTemplate", CONFIGURATION),
    ("deviceManagement/complianceManagementPartners", "complianceManagementPartner", SERVICE),
    ("deviceManagement/deviceManagementPartners", "deviceManagementPartner", SERVICE),
    ("deviceManagement/remoteAssistancePartners", "remoteAssistancePartner", SERVICE),
    ("deviceManagement/groupPolicyDefinitions", "groupPolicyDefinition", CONFIGURATION),
    ("deviceManagement/hardwareConfigurations", "hardwareConfiguration", CONFIGURATION),
    (
        "deviceManagement/resourceAccessProfiles",
        "deviceManagementResourceAccessProfileBase",
        CONFIGURATION,
    ),
    ("deviceManagement/termsAndConditions", "termsAndConditions", SERVICE),
    ("deviceManagement/remoteActionAudits", "remoteActionAudit", CONFIGURATION),
    ("deviceManagement/configManagerCollections", "configManagerCollection", CONFIGURATION),
    ("deviceAppManagement/vppTokens", "vppToken", SERVICE),
    (
        "deviceAppManagement/targetedManagedAppConfigurations",
        "targetedManagedAppConfiguration",
        APPS,
    ),
    ("identity/conditionalAccess/templates", "conditionalAccessTemplate", CONDITIONAL_ACCESS),
    ("policies/authenticationStrengthPolicies", "authenticationStrengthPolicy", CONDITIONAL_ACCESS),
    ("groupSettings", "groupSetting", CONDITIONAL_ACCESS),
)


def checked(known: Policies) -> list[Kind]:
    """The kinds, those that reach devices with the checks that need the catalogue."""
    by_path = {
        DEVICE_CONFIGURATIONS.path: oma_settings(known),
        CONFIGURATION_POLICIES.path: catalogue_settings(known),
    }
    return [
        replace(kind, prepare=by_path[kind.path]) if kind.path in by_path else kind
        for kind in KINDS
    ]
