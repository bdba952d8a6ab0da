"""Every collection that IntuneCD's backup asks for is there, and empty, in a new tenant.

The requests are those it makes, spelled as it spells them: one that is missing is an error to it.
"""

import pytest

from mdm_world import Mdm

DM, DAM = "deviceManagement/", "deviceAppManagement/"
ASKED = [
    f"{DAM}mobileAppConfigurations",
    f"{DAM}managedAppPolicies",
    f"{DM}depOnboardingSettings/",
    f"{DAM}mobileApps?$filter=(microsoft.graph.managedApp/appAvailability) eq null or "
    "(microsoft.graph.managedApp/appAvailability) eq 'lineOfBusiness' or isAssigned eq true",
    f"{DM}deviceCompliancePolicies/?$expand=scheduledActionsForRule"
    "($expand=scheduledActionConfigurations)",
    f"{DM}compliancePolicies?$expand=settings",
    f"{DM}complianceManagementPartners",
    f"{DM}deviceComplianceScripts/",
    "identity/conditionalAccess/policies",
    f"{DM}deviceCustomAttributeShellScripts/",
    f"{DM}deviceCategories",
    f"{DM}deviceConfigurations",
    f"{DM}assignmentFilters",
    f"{DM}groupPolicyConfigurations",
    f"{DM}intents",
    f"{DM}templates",
    f"{DM}deviceManagementPartners",
    f"{DM}remoteAssistancePartners",
    f"{DM}notificationMessageTemplates??$expand=localizedNotificationMessages",
    f"{DM}deviceManagementScripts/",
    f"{DM}deviceHealthScripts",
    f"{DM}reusablePolicySettings/?$select=id,settinginstance,displayname,description,"
    "settingDefinitionId,version",
    f"{DM}roleDefinitions?$filter=isBuiltIn eq false",
    f"{DM}configurationPolicies",
    f"{DM}deviceShellScripts/",
    f"{DAM}vppTokens",
    f"{DM}windowsDriverUpdateProfiles",
    f"{DM}windowsFeatureUpdateProfiles",
    f"{DM}windowsQualityUpdateProfiles",
    f"{DM}windowsAutopilotDeploymentProfiles",
    f"{DM}windowsAutopilotDeviceIdentities",
    f"{DM}managedDevices?$select=id&$filter=startsWith(operatingSystem,'macOS')",
    f"{DAM}mobileAppCategories?$filter=displayName eq 'x'",
    "identity/conditionalAccess/namedLocations",
]


async def test_a_new_tenant_answers_all_of_them_with_nothing(mdm: Mdm) -> None:
    headers = await mdm.world.bearer()
    for path in ASKED:
        answer = await mdm.world.client.get(f"/beta/{path}", headers=headers)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["value"] == [], path


@pytest.mark.parametrize(
    "name", ["applePushNotificationCertificate", "androidManagedStoreAccountEnterpriseSettings"]
)
async def test_what_a_tenant_has_not_is_not_found(mdm: Mdm, name: str) -> None:
    """As in the vendor's service, and never 5xx: that would cost a client 50 seconds."""
    answer = await mdm.world.client.get(f"/beta/{DM}{name}", headers=await mdm.world.bearer())
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ResourceNotFound")


async def test_tags_for_a_resource_can_be_narrowed(mdm: Mdm) -> None:
    path = f"{DM}getRoleScopeTagsByResource(resource='MobileApps')"
    headers = await mdm.world.bearer()
    for name, count in (("Default", 1), ("Other", 0)):
        answer = await mdm.world.client.get(
            f"/beta/{path}?$filter=displayName eq '{name}'", headers=headers
        )
        assert (answer.status_code, answer.json()["@odata.count"]) == (200, count)
