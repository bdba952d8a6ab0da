"""The unmodified msgraph-sdk on device management: devices of both authorities, policies, apps."""

import asyncio
import os
import ssl
import subprocess
import zipfile
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from graph_sdk import (
    CO_MANAGED,
    EVERYTHING,
    Sdk,
    ask,
    connect,
    intunewin,
    refused,
    sealed,
    with_headers,
)
from kiota_http.middleware.options import HeadersInspectionHandlerOption
from msgraph.generated.device_app_management.mobile_apps.item.assign.assign_post_request_body import (
    AssignPostRequestBody as AssignApp,
)
from msgraph.generated.device_app_management.mobile_apps.item.graph_win32_lob_app.content_versions.item.files.item.commit.commit_post_request_body import (
    CommitPostRequestBody,
)
from msgraph.generated.device_management.device_compliance_policies.item.assign.assign_post_request_body import (
    AssignPostRequestBody as AssignCompliance,
)
from msgraph.generated.device_management.device_configurations.item.assign.assign_post_request_body import (
    AssignPostRequestBody as AssignConfiguration,
)
from msgraph.generated.device_management.managed_devices.item.windows_defender_scan.windows_defender_scan_post_request_body import (
    WindowsDefenderScanPostRequestBody,
)
from msgraph.generated.models.all_devices_assignment_target import AllDevicesAssignmentTarget
from msgraph.generated.models.device_category import DeviceCategory
from msgraph.generated.models.device_compliance_action_item import DeviceComplianceActionItem
from msgraph.generated.models.device_compliance_action_type import DeviceComplianceActionType
from msgraph.generated.models.device_compliance_policy_assignment import (
    DeviceCompliancePolicyAssignment,
)
from msgraph.generated.models.device_compliance_scheduled_action_for_rule import (
    DeviceComplianceScheduledActionForRule,
)
from msgraph.generated.models.device_configuration_assignment import DeviceConfigurationAssignment
from msgraph.generated.models.exclusion_group_assignment_target import (
    ExclusionGroupAssignmentTarget,
)
from msgraph.generated.models.file_encryption_info import FileEncryptionInfo
from msgraph.generated.models.group_assignment_target import GroupAssignmentTarget
from msgraph.generated.models.install_intent import InstallIntent
from msgraph.generated.models.managed_device import ManagedDevice
from msgraph.generated.models.mobile_app_assignment import MobileAppAssignment
from msgraph.generated.models.mobile_app_content import MobileAppContent
from msgraph.generated.models.mobile_app_content_file import MobileAppContentFile
from msgraph.generated.models.oma_setting_integer import OmaSettingInteger
from msgraph.generated.models.win32_lob_app import Win32LobApp
from msgraph.generated.models.win32_lob_app_file_system_operation_type import (
    Win32LobAppFileSystemOperationType,
)
from msgraph.generated.models.win32_lob_app_file_system_rule import Win32LobAppFileSystemRule
from msgraph.generated.models.win32_lob_app_install_experience import (
    Win32LobAppInstallExperience,
)
from msgraph.generated.models.win32_lob_app_restart_behavior import Win32LobAppRestartBehavior
from msgraph.generated.models.win32_lob_app_return_code import Win32LobAppReturnCode
from msgraph.generated.models.win32_lob_app_return_code_type import Win32LobAppReturnCodeType
from msgraph.generated.models.win32_lob_app_rule_type import Win32LobAppRuleType
from msgraph.generated.models.windows10_compliance_policy import Windows10CompliancePolicy
from msgraph.generated.models.windows10_custom_configuration import Windows10CustomConfiguration
from msgraph.generated.models.windows_architecture import WindowsArchitecture
from msgraph.generated.models.windows_mobile_m_s_i import WindowsMobileMSI

from mdm_world import live_mdm
from tandem.infra.database import Database

pytestmark = [
    pytest.mark.slow,
    # The client leaves connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # The SDK's query parameters derive from what it marked as deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SOURCE = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="11111111-2222-3333-4444-55555555555a" Name="Client Setup" Language="1033"
           Version="1.2.3" Manufacturer="Contoso"
           UpgradeCode="21111111-2222-3333-4444-555555555555">
    <Package InstallerVersion="500" Compressed="yes" InstallScope="perMachine"/>
    <Media Id="1" Cabinet="files.cab" EmbedCab="yes"/>
    <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="INSTALLDIR" Name="Thing">
      <Component Id="c" Guid="31111111-2222-3333-4444-555555555555">
        <File Id="a.txt" Name="a.txt" Source="a.txt" KeyPath="yes"/>
      </Component></Directory></Directory>
    <Feature Id="f" Level="1"><ComponentRef Id="c"/></Feature>
  </Product>
</Wix>
"""


@pytest.fixture
async def sdk(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Sdk]:
    async with (
        live_mdm(tenant_db, tmp_path) as (mdm, root, _),
        connect(mdm, root, *EVERYTHING) as made,
    ):
        yield made


# ------------------------------------------------------------------ devices


async def test_managed_devices_show_both_authorities_and_take_orders(sdk: Sdk) -> None:
    both, alone = await sdk.mdm.enrolled("alex", "A" * 32), await sdk.mdm.enrolled("kim", "B" * 32)
    both.agent(CO_MANAGED)
    await both.check_in()
    devices = sdk.client.device_management.managed_devices
    every = await devices.get(ask(devices, top=1, orderby=["deviceName"]))
    assert every.odata_count == 2
    rest = await devices.with_url(every.odata_next_link).get()
    assert [item.id for item in (*every.value, *rest.value)] == [both.id, alone.id]
    agent = "managementAgent eq 'configurationManagerClientMdm'"
    (found,) = (await devices.get(ask(devices, filter=agent))).value
    assert found.id == both.id
    assert found.management_agent.value == "configurationManagerClientMdm"
    assert found.compliance_state.value == "configManager"
    assert found.azure_a_d_device_id == both.joined.device_id
    features = found.configuration_manager_client_enabled_features
    assert (features.modern_apps, features.compliance_policy) == (True, False)
    assert rest.value[0].configuration_manager_client_enabled_features is None
    typed = "managementAgent eq microsoft.graph.managementAgentType'mdm'"
    assert [item.id for item in (await devices.get(ask(devices, filter=typed))).value] == [alone.id]
    beta = devices.with_url(f"{sdk.base}/beta/deviceManagement/comanagedDevices")
    assert [item.id for item in (await beta.get()).value] == [both.id]
    overview = await sdk.client.device_management.managed_device_overview.get()
    assert (overview.enrolled_device_count, overview.dual_enrolled_device_count) == (2, 1)

    alone_name = rest.value[0].managed_device_name
    one = devices.by_managed_device_id(both.id)
    await one.patch(ManagedDevice(managed_device_name="Front desk"))
    assert (await one.get()).managed_device_name == "Front desk"
    assert alone_name.startswith("kim_Windows_")
    assert (await one.users.get()).value[0].id == both.user.id
    await one.sync_device.post()
    await one.windows_defender_scan.post(WindowsDefenderScanPostRequestBody(quick_scan=True))
    results = {
        item.action_name: item.action_state for item in (await one.get()).device_action_results
    }
    assert results["windowsDefenderScan"].value == "pending"
    commands = await both.check_in()
    assert "./Device/Vendor/MSFT/Defender/Scan" in {c.items[0].target for c in commands}
    await devices.by_managed_device_id(alone.id).retire.post()
    assert (await devices.by_managed_device_id(alone.id).get()).management_state.value.startswith(
        "retire"
    )
    nobody = devices.by_managed_device_id("00000000-0000-0000-0000-000000000009")
    await refused(nobody.get, 404, "ResourceNotFound")


async def test_what_else_a_tenant_begins_with_is_read(sdk: Sdk) -> None:
    """Each answer is one that the SDK has a type for, and finds the members of."""
    management, management_of_apps = sdk.client.device_management, sdk.client.device_app_management
    root = await management.get()
    assert root.subscription_state.value == "active"
    defaults = (await management.device_enrollment_configurations.get()).value
    assert len({type(item).__name__ for item in defaults}) == len(defaults) == 4
    roles = (await management.role_definitions.get()).value
    assert all(role.is_built_in and role.role_permissions for role in roles)
    admins = (await sdk.client.directory_roles.get()).value
    assert "62e90394-69f5-4237-9190-012177145e10" in {item.role_template_id for item in admins}
    assert (await sdk.client.role_management.directory.role_assignments.get()).value
    category = await management.device_categories.post(DeviceCategory(display_name="Kiosk"))
    listed = (await management.device_categories.get()).value
    assert [(item.id, item.display_name) for item in listed] == [(category.id, "Kiosk")]
    events = (await management.audit_events.get()).value
    assert [event.resources[0].resource_id for event in events] == [category.id]
    signed_in = (await sdk.client.audit_logs.sign_ins.get()).value
    assert {item.app_display_name for item in signed_in} == {"Script"}
    for builder in (
        management.notification_message_templates,
        management.windows_autopilot_device_identities,
        management.imported_windows_autopilot_device_identities,
        management.terms_and_conditions,
        management.troubleshooting_events,
        management_of_apps.mobile_app_categories,
        management_of_apps.managed_app_policies,
        management_of_apps.mobile_app_configurations,
        sdk.client.identity.conditional_access.policies,
        sdk.client.identity.conditional_access.named_locations,
    ):
        assert (await builder.get()).value == [], type(builder).__name__


# ------------------------------------------------------------------ policies


async def test_configurations_are_made_assigned_changed_and_deleted(sdk: Sdk) -> None:
    group = await sdk.mdm.group("Pilot")
    configurations = sdk.client.device_management.device_configurations
    made = await configurations.post(
        Windows10CustomConfiguration(
            display_name="Lock",
            oma_settings=[
                OmaSettingInteger(
                    display_name="Lock",
                    oma_uri="./Device/Vendor/MSFT/Policy/Config/DeviceLock/MaxInactivityTimeDeviceLock",
                    value=15,
                )
            ],
        )
    )
    one = configurations.by_device_configuration_id(made.id)
    read = await one.get()
    assert type(read) is Windows10CustomConfiguration
    assert (type(read.oma_settings[0]), read.oma_settings[0].value) == (OmaSettingInteger, 15)
    wanted = [
        DeviceConfigurationAssignment(target=AllDevicesAssignmentTarget()),
        DeviceConfigurationAssignment(target=ExclusionGroupAssignmentTarget(group_id=group.id)),
    ]
    answer = await one.assign.post(AssignConfiguration(assignments=wanted))
    assert len(answer.value) == 2
    kept = (await one.assignments.get()).value
    assert {type(item.target) for item in kept} == {
        AllDevicesAssignmentTarget,
        ExclusionGroupAssignmentTarget,
    }
    assert len({item.id for item in kept}) == 2
    await one.patch(Windows10CustomConfiguration(description="For everybody"))
    after = await one.get()
    assert (after.description, after.version) == ("For everybody", 2)
    assert after.oma_settings[0].value == 15
    await one.delete()
    await refused(one.get, 404, "ResourceNotFound")


async def test_a_change_to_what_changed_meanwhile_is_refused(sdk: Sdk) -> None:
    configurations = sdk.client.device_management.device_configurations
    made = await configurations.post(Windows10CustomConfiguration(display_name="Lock"))
    one = configurations.by_device_configuration_id(made.id)
    look = HeadersInspectionHandlerOption(inspect_response_headers=True)
    await one.get(with_options(look))
    (tag,) = look.response_headers.get("etag")
    mine = with_headers(If_Match=tag)
    await one.patch(Windows10CustomConfiguration(display_name="Mine"), mine)
    late = with_headers(If_Match=tag)
    await refused(
        lambda: one.patch(Windows10CustomConfiguration(display_name="Yours"), late),
        412,
        "PreconditionFailed",
    )
    assert (await one.get()).display_name == "Mine"


def with_options(*options: Any) -> Any:
    made = with_headers()
    made.options = list(options)
    return made


async def test_compliance_policies_need_an_action_and_are_assigned(sdk: Sdk) -> None:
    group = await sdk.mdm.group("Pilot")
    policies = sdk.client.device_management.device_compliance_policies
    bare = Windows10CompliancePolicy(display_name="Healthy", bit_locker_enabled=True)
    await refused(lambda: policies.post(bare), 400, "BadRequest", "scheduledActionsForRule")
    block = DeviceComplianceActionItem(
        action_type=DeviceComplianceActionType.Block, grace_period_hours=24
    )
    bare.scheduled_actions_for_rule = [
        DeviceComplianceScheduledActionForRule(
            rule_name="PasswordRequired", scheduled_action_configurations=[block]
        )
    ]
    made = await policies.post(bare)
    one = policies.by_device_compliance_policy_id(made.id)
    expand = ["scheduledActionsForRule($expand=scheduledActionConfigurations)"]
    read = await one.get(ask(one, expand=expand))
    assert (type(read), read.bit_locker_enabled) == (Windows10CompliancePolicy, True)
    (action,) = read.scheduled_actions_for_rule[0].scheduled_action_configurations
    assert (action.action_type, action.grace_period_hours) == (DeviceComplianceActionType.Block, 24)
    target = DeviceCompliancePolicyAssignment(target=GroupAssignmentTarget(group_id=group.id))
    await one.assign.post(AssignCompliance(assignments=[target]))
    (kept,) = (await one.assignments.get()).value
    assert (type(kept.target), kept.target.group_id) == (GroupAssignmentTarget, group.id)
    await one.patch(Windows10CompliancePolicy(secure_boot_enabled=True))
    assert (await one.get()).secure_boot_enabled is True
    await one.delete()
    assert (await policies.get()).value == []


# ------------------------------------------------------------------ apps


@pytest.fixture(scope="module")
def msi(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("msi")
    (folder / "a.txt").write_bytes(b"hello" * 1000)
    (folder / "a.wxs").write_text(SOURCE, encoding="utf-8")
    subprocess.run(["wixl", "-o", "a.msi", "a.wxs"], cwd=folder, check=True)
    return (folder / "a.msi").read_bytes()


def opened(package: bytes) -> tuple[bytes, FileEncryptionInfo, ElementTree.Element]:
    """What an uploader takes out of a package."""
    with zipfile.ZipFile(BytesIO(package)) as read:
        content = read.read("IntuneWinPackage/Contents/IntunePackage.intunewin")
        facts = ElementTree.fromstring(read.read("IntuneWinPackage/Metadata/Detection.xml"))
    told = {item.tag: item.text or "" for item in facts.findall("EncryptionInfo/*")}
    info = FileEncryptionInfo(
        encryption_key=b64decode(told["EncryptionKey"]),
        mac_key=b64decode(told["MacKey"]),
        initialization_vector=b64decode(told["InitializationVector"]),
        mac=b64decode(told["Mac"]),
        file_digest=b64decode(told["FileDigest"]),
        file_digest_algorithm=told["FileDigestAlgorithm"],
        profile_identifier=told["ProfileIdentifier"],
    )
    return content, info, facts


async def upload(
    sdk: Sdk, versions: Any, name: str, size: int, content: bytes, info: FileEncryptionInfo
) -> tuple[str, Any, Any]:
    """The flow of an uploader: its content version, its file builder, the file at the end."""
    version = await versions.post(MobileAppContent())
    files = versions.by_mobile_app_content_id(version.id).files
    file = await files.post(
        MobileAppContentFile(
            name=name,
            size=size,
            size_encrypted=len(content),
            is_dependency=False,
            manifest=b"<MobileMsiData/>",
        )
    )
    at = files.by_mobile_app_content_file_id(file.id)
    file = await state(at, "azureStorageUriRequestSuccess")
    trust = ssl.create_default_context(cafile=str(sdk.root))
    async with httpx.AsyncClient(verify=trust) as web:
        ids = []
        for start in range(0, len(content), 64 * 1024):
            ids.append(b64encode(f"{len(ids):04d}".encode()).decode())
            answer = await web.put(
                f"{file.azure_storage_uri}&comp=block&blockid={ids[-1]}",
                content=content[start : start + 64 * 1024],
                headers={"x-ms-blob-type": "BlockBlob"},
            )
            assert answer.status_code == 201, answer.text
        listed = "".join(f"<Latest>{id}</Latest>" for id in ids)
        answer = await web.put(
            f"{file.azure_storage_uri}&comp=blocklist",
            content=f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>',
        )
        assert answer.status_code == 201, answer.text
    await at.commit.post(commit_body(info))
    return version.id, at, await state(at, "commitFileSuccess", "commitFileFailed")


def commit_body(info: FileEncryptionInfo) -> CommitPostRequestBody:
    return CommitPostRequestBody(file_encryption_info=info)


async def state(file: Any, *wanted: str) -> Any:
    async with asyncio.timeout(30):
        while (read := await file.get()).upload_state.value not in wanted:
            await asyncio.sleep(0.05)
    return read


async def test_an_msi_is_uploaded_published_and_assigned(sdk: Sdk, msi: bytes) -> None:
    group = await sdk.mdm.group("Pilot")
    apps = sdk.client.device_app_management.mobile_apps
    made = await apps.post(
        WindowsMobileMSI(
            display_name="Client Setup",
            publisher="Contoso",
            file_name="ccmsetup.msi",
            command_line='CCMSETUPCMD="CCMHOSTNAME=gateway.contoso.com"',
            ignore_version_detection=True,
        )
    )
    assert made.publishing_state.value == "notPublished"
    app = apps.by_mobile_app_id(made.id)
    content, info = sealed(msi)
    cast = app.graph_windows_mobile_m_s_i.content_versions
    version, file, committed = await upload(sdk, cast, "ccmsetup.msi", len(msi), content, info)
    assert (committed.upload_state.value, committed.is_committed) == ("commitFileSuccess", True)
    await refused(lambda: file.commit.post(commit_body(info)), 409, "Conflict")
    await app.patch(WindowsMobileMSI(committed_content_version=version))
    read = await app.get()
    assert type(read) is WindowsMobileMSI
    assert (read.publishing_state.value, read.committed_content_version) == ("published", version)
    assert (read.product_version, read.command_line) == ("1.2.3", made.command_line)
    assert read.product_code.strip("{}").lower() == "11111111-2222-3333-4444-55555555555a"
    wanted = MobileAppAssignment(
        intent=InstallIntent.Required, target=GroupAssignmentTarget(group_id=group.id)
    )
    await app.assign.post(AssignApp(mobile_app_assignments=[wanted]))
    (kept,) = (await app.assignments.get()).value
    assert (kept.intent, kept.target.group_id) == (InstallIntent.Required, group.id)
    await app.assignments.by_mobile_app_assignment_id(kept.id).delete()
    again = await app.assignments.post(wanted)
    assert again.id == kept.id
    await app.delete()
    await refused(app.get, 404, "ResourceNotFound")


async def test_a_win32_package_is_uploaded_and_a_damaged_one_is_not(sdk: Sdk) -> None:
    plain = os.urandom(150_000)
    package = intunewin("setup.exe", plain)
    content, info, facts = opened(package)
    apps = sdk.client.device_app_management.mobile_apps
    made = await apps.post(
        Win32LobApp(
            display_name=facts.findtext("Name"),
            description="A tool",
            publisher="Contoso",
            file_name=facts.findtext("FileName"),
            setup_file_path=facts.findtext("SetupFile"),
            install_command_line="setup.exe /S",
            uninstall_command_line="setup.exe /U",
            applicable_architectures=WindowsArchitecture.X64,
            minimum_supported_windows_release="21H2",
            install_experience=Win32LobAppInstallExperience(
                device_restart_behavior=Win32LobAppRestartBehavior.Suppress
            ),
            return_codes=[
                Win32LobAppReturnCode(return_code=0, type=Win32LobAppReturnCodeType.Success)
            ],
            rules=[
                Win32LobAppFileSystemRule(
                    rule_type=Win32LobAppRuleType.Detection,
                    path="C:\\Program Files\\Tool",
                    file_or_folder_name="tool.exe",
                    operation_type=Win32LobAppFileSystemOperationType.Exists,
                )
            ],
        )
    )
    app = apps.by_mobile_app_id(made.id)
    cast, size = (
        app.graph_win32_lob_app.content_versions,
        int(facts.findtext("UnencryptedContentSize") or 0),
    )
    assert size == len(plain)
    damaged = content[:-1] + bytes([content[-1] ^ 1])
    *_, failed = await upload(sdk, cast, "IntunePackage.intunewin", size, damaged, info)
    assert failed.upload_state.value == "commitFileFailed"
    version, _, done = await upload(sdk, cast, "IntunePackage.intunewin", size, content, info)
    assert (done.upload_state.value, version) == ("commitFileSuccess", "2")
    await app.patch(Win32LobApp(committed_content_version=version))
    read = await app.get()
    assert type(read) is Win32LobApp
    assert (read.publishing_state.value, read.size) == ("published", len(plain))
    assert (read.install_command_line, read.setup_file_path) == ("setup.exe /S", "setup.exe")
    (rule,) = read.rules
    assert (type(rule), rule.file_or_folder_name) == (Win32LobAppFileSystemRule, "tool.exe")
    only = await apps.get(ask(apps, filter="isof('microsoft.graph.win32LobApp')", count=True))
    assert ([item.id for item in only.value], only.odata_count) == ([made.id], 1)
