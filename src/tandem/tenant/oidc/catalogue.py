"""Applications that every tenant has, and the permissions of Graph.

The ids are those that clients and scripts hard-code (graph-compat.md 3.5 and 3.7).
"""

import uuid
from dataclasses import dataclass
from typing import Any

GRAPH = "00000003-0000-0000-c000-000000000000"
GRAPH_URI = "https://graph.microsoft.com"
MDM_APP = "0000000a-0000-0000-c000-000000000000"
DEVICE_REGISTRATION = "01cb2876-7ebd-4aa4-9cc9-d28bd4d359a9"
BROKER = "29d9ed98-a469-4536-ade2-f981bc1d605e"
CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
GRAPH_POWERSHELL = "14d82eec-204b-4c2f-b7e8-296a70dab67e"
AZURE_POWERSHELL = "1950a258-227b-4e31-a9cf-717495945fc2"
INTUNE_POWERSHELL = "d1ddf0e4-d672-4dae-b554-9d5bdfd93547"
MDM_ENROLLMENT = "d4ebce55-015a-49b5-a083-c84d1797ae8c"
LEGACY_GRAPH = "00000002-0000-0000-c000-000000000000"
LEGACY_GRAPH_URI = "https://graph.windows.net"

BROKER_REDIRECT = "ms-appx-web://Microsoft.AAD.BrokerPlugin"
OPENID_SCOPES = frozenset({"openid", "profile", "email", "offline_access"})

# Permission, app role id, delegated id, and whether a user may consent for himself; + is an id of
# our own.
_GRAPH_PERMISSIONS = """
User.Read - e1fe6dd8-ba31-4d61-89e7-88639da4683d user
User.Read.All df021288-bdef-4463-88db-98f22de89214 a154be20-db9c-4678-8ab7-66f6cc099a59
User.ReadWrite.All 741f803b-c850-494e-b5df-cde7c675a1ca 204e0828-b5ca-4ad8-b9f3-f32a958e7cc4
User.DeleteRestore.All eccc023d-eccf-4e7b-9683-8813ab36cecc 4bb440cd-2cf2-4f90-8004-aa2acd2537c5
User.RevokeSessions.All 77f3a031-c388-4f99-b373-dc68676a979e fc30e98b-8810-4501-81f5-c20a3196387b
Group.Read.All 5b567255-7703-4780-807c-7be8301ae99b 5f8c59db-677d-491f-a6b8-5f174b11ec1d
Group.ReadWrite.All 62a82d76-70ea-41e2-9197-370581804d09 4e46008b-f24c-477d-8fff-7bb4ec7aafe0
GroupMember.ReadWrite.All dbaae8cf-10b5-4b86-a4a1-f871c94c6695 f81125ac-d3b7-4573-a3b2-7099cc39df9e
Device.Read.All 7438b122-aefc-4978-80ed-43db9fcc7715 951183d1-1a61-466f-a6d1-1fde911bfd95
Device.ReadWrite.All 1138cb37-bd11-4084-a2b7-9f71582aeddb -
Directory.Read.All 7ab1d382-f21e-4acd-a863-ba3e13f7da61 06da0dbc-49e2-44d2-8312-53f166ab848a
Directory.ReadWrite.All 19dbc75e-c2e2-444c-a770-ec69d8559fc7 c5366453-9fb0-48a5-a156-24f0c49a4b84
Directory.AccessAsUser.All - 0e263e50-5827-48a4-b97c-d940288653c7
Organization.Read.All 498476ce-e0fe-48b0-b801-37ba7e2685c6 4908d5b9-3fb2-4b1e-9336-1888b7937185
LicenseAssignment.ReadWrite.All 5facf0c1-8979-4e95-abcf-ff3d079771c0 f55016cc-149c-447e-8f21-7cf3ec1d6350
Application.Read.All 9a5d68dd-52b0-4cc2-bd40-abcf44ac3a30 c79f8feb-a9db-4090-85f9-90d820caa0eb
Application.ReadWrite.All 1bfefb4e-e0b5-418b-a88f-73c46d2cc8e9 bdfbf15f-ee85-4955-8675-146e8e5296b5
AppRoleAssignment.ReadWrite.All 06b708a9-e830-4db3-a914-8e69da51d44f 84bccea3-f856-4a8a-967b-dbe0a3d53a64
DelegatedPermissionGrant.ReadWrite.All 8e8e4742-1d95-4f68-9d56-6ee75648c72a 41ce6ca6-6826-4807-84f1-1c82854f7ee5
Policy.Read.All 246dd0d5-5bd0-4def-940b-0421030a5b68 572fea84-0151-49b2-9301-11cb16974376
Policy.ReadWrite.ConditionalAccess 01c0a623-fc9b-48e9-b794-0756f8e8f067 ad902697-1014-4ef5-81ef-2b4301988e8c
Policy.ReadWrite.MobilityManagement - a8ead177-1889-4546-9387-f25e658e2a79
RoleManagement.Read.Directory 483bed4a-2ad3-4361-a73b-c83ccdbdc53c 741c54c3-0c1e-44a1-818b-3f97ab4e8c83
RoleManagement.ReadWrite.Directory 9e3f62cf-ca93-4989-b6ce-bf83c28f9fe8 d01b97e9-cbc0-49fe-810a-750afd5527a3
AuditLog.Read.All b0afded3-3588-46d8-8b3d-9842eff778da e4c9e354-4dc5-45b8-9e7c-e1393b0b1a20
Domain.ReadWrite.All 7e05723c-0bb0-42da-be95-ae9f08a6e53c 0b5d694c-a244-4bde-86e6-eb5cd07730fe
DeviceManagementManagedDevices.Read.All 2f51be20-0bb4-4fed-bf7b-db946066c75e 314874da-47d6-4978-88dc-cf0d37f0bb82
DeviceManagementManagedDevices.ReadWrite.All 243333ab-4d21-40cb-a475-36241daa0842 44642bfe-8385-4adc-8fc6-fe3cb2c375c3
DeviceManagementManagedDevices.PrivilegedOperations.All 5b07b0dd-2377-4e44-a38d-703f09a0dc3c 3404d2bf-2b13-457e-a330-c24615765193
DeviceManagementConfiguration.Read.All dc377aa6-52d8-4e23-b271-2a7ae04cedf3 f1493658-876a-4c87-8fa7-edb559b3476a
DeviceManagementConfiguration.ReadWrite.All 9241abd9-d0e6-425a-bd4f-47ba86e767a4 0883f392-0a7a-443d-8c76-16a6d39c7b63
DeviceManagementApps.Read.All 7a6ee1e7-141e-4cec-ae74-d9db155731ff 4edf5f54-4666-44af-9de9-0144fb4b6e8c
DeviceManagementApps.ReadWrite.All 78145de6-330d-4800-a6ce-494ff2d33d07 7b3f05d5-f68c-4b8d-8c59-a2ecd12f24af
DeviceManagementServiceConfig.Read.All 06a5fe6d-c49d-46a7-b082-56b1b14103c7 8696daa5-bce5-4b2e-83f9-51b6defc4e1e
DeviceManagementServiceConfig.ReadWrite.All 5ac13192-7ace-4fcf-b828-1a26f28068ee 662ed50a-ac44-4eef-ad86-62eed9be2a29
DeviceManagementRBAC.Read.All 58ca0d9a-1575-47e1-a3cb-007ef2e4583b 49f0cc30-024c-4dfd-ab3e-82e137ee5431
DeviceManagementRBAC.ReadWrite.All e330c4f0-4170-414e-a55a-2f022ec2b57b 0c5e8a55-87a6-4556-93ab-adc52c4d862d
DeviceManagementScripts.Read.All + +
DeviceManagementScripts.ReadWrite.All + +
openid - 37f7f235-527c-4136-accd-4a02d197296e user
profile - 14dad69e-099b-42c9-810b-d002981feec1 user
email - 64a6cdd6-aab1-4aaf-94b8-3cc8405e90d0 user
offline_access - 7427e0e9-2fba-42fe-b0c0-848c9e6a8182 user
"""


# What applications of the site's age ask of the directory's first API.
_LEGACY = ("User.Read", "Directory.Read.All", "Directory.ReadWrite.All")


def permission_scope(value: str, scope_id: str = "", *, by_user: bool = False) -> dict[str, Any]:
    """A delegated permission in Graph's shape."""
    return {
        "id": scope_id or str(uuid.uuid4()),
        "value": value,
        "type": "User" if by_user else "Admin",
        "isEnabled": True,
        "adminConsentDisplayName": value,
        "adminConsentDescription": f"Allows the app to use {value} on behalf of the user.",
        "userConsentDisplayName": value,
        "userConsentDescription": f"Allows the app to use {value} on your behalf.",
    }


def app_role(value: str, role_id: str) -> dict[str, Any]:
    """An application permission in Graph's shape."""
    return {
        "id": role_id,
        "value": value,
        "displayName": value,
        "description": f"Allows the app to use {value} without a signed-in user.",
        "allowedMemberTypes": ["Application"],
        "isEnabled": True,
        "origin": "Application",
    }


@dataclass(frozen=True, slots=True)
class BuiltIn:
    app_id: str
    name: str
    identifier_uris: tuple[str, ...] = ()
    public_redirect_uris: tuple[str, ...] = ()
    scopes: tuple[dict[str, Any], ...] = ()
    app_roles: tuple[dict[str, Any], ...] = ()


def _stable(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tandem:{text}"))


def enrollment_redirect(base: str) -> str:
    """Where the sign-in of a device's federated enrolment comes back to."""
    return f"{base}/EnrollmentServer/Auth/SignedIn"


def built_in(mdm_app_id_uri: str, domain: str, base: str) -> tuple[BuiltIn, ...]:
    """The applications of every tenant. Clients among them are trusted: no consent is asked."""
    scopes, roles = [], []
    for line in _GRAPH_PERMISSIONS.strip().splitlines():
        value, role_id, scope_id, *user = line.split()
        if scope_id == "+":
            scope_id, role_id = _stable(f"scope:{value}"), _stable(f"role:{value}")
        if scope_id != "-":
            scopes.append(permission_scope(value, scope_id, by_user=bool(user)))
        if role_id != "-":
            roles.append(app_role(value, role_id))
    loopback = (
        "http://localhost",
        "http://127.0.0.1",
        "urn:ietf:wg:oauth:2.0:oob",
        "https://login.microsoftonline.com/common/oauth2/nativeclient",
    )
    legacy = tuple(item for item in scopes if item["value"] in _LEGACY)
    legacy_roles = tuple(item for item in roles if item["value"] in _LEGACY)
    impersonation = permission_scope("user_impersonation", _stable("drs"), by_user=True)
    delegation = permission_scope("mdm_delegation", _stable("mdm"), by_user=True)
    return (
        BuiltIn(GRAPH, "Microsoft Graph", (GRAPH_URI,), (), tuple(scopes), tuple(roles)),
        BuiltIn(MDM_APP, "Microsoft Intune", (mdm_app_id_uri,), (), (delegation,)),
        BuiltIn(
            DEVICE_REGISTRATION,
            "Device Registration Service",
            (f"urn:ms-drs:{domain}",),
            (),
            (impersonation,),
        ),
        BuiltIn(BROKER, "Microsoft Authentication Broker", (), (BROKER_REDIRECT,)),
        BuiltIn(CLI, "Tandem command line", (), loopback),
        BuiltIn(GRAPH_POWERSHELL, "Microsoft Graph Command Line Tools", (), loopback),
        BuiltIn(AZURE_POWERSHELL, "Azure PowerShell", (), loopback),
        BuiltIn(INTUNE_POWERSHELL, "Microsoft Intune PowerShell", (), loopback),
        BuiltIn(MDM_ENROLLMENT, "Microsoft Intune Enrollment", (), (enrollment_redirect(base),)),
        BuiltIn(
            LEGACY_GRAPH,
            "Windows Azure Active Directory",
            (LEGACY_GRAPH_URI,),
            (),
            legacy,
            legacy_roles,
        ),
    )
