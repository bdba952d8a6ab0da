"""Who may what: the permissions of Graph with the directory roles that a user needs besides."""

from tandem.tenant import directory
from tandem.tenant.graph.model import Access, access

# For parts of device management: who may look, and who may change.
READERS = (directory.INTUNE_ADMINISTRATOR, directory.GLOBAL_READER)
WRITERS = (directory.INTUNE_ADMINISTRATOR,)

_DIRECTORY_READ = ("Directory.Read.All", "Directory.ReadWrite.All")
_GLOBAL = (directory.GLOBAL_ADMINISTRATOR,)

USERS_READ = access("User.Read.All", "User.ReadWrite.All", *_DIRECTORY_READ, own=("User.Read",))
# What the narrower of these roles may change, `users` says.
USERS_WRITE = access(
    "User.ReadWrite.All",
    "Directory.ReadWrite.All",
    roles=(
        directory.USER_ADMINISTRATOR,
        directory.HELPDESK_ADMINISTRATOR,
        directory.LICENSE_ADMINISTRATOR,
    ),
)
SESSIONS_WRITE = access(
    "User.RevokeSessions.All",
    "User.ReadWrite.All",
    "Directory.ReadWrite.All",
    roles=(directory.USER_ADMINISTRATOR, directory.HELPDESK_ADMINISTRATOR),
)
# Whoever has any permission at all to read may ask what that comes to.
OWN = access(
    "Directory.Read.All",
    "Directory.ReadWrite.All",
    "User.Read.All",
    "User.ReadWrite.All",
    "Group.Read.All",
    "Group.ReadWrite.All",
    delegated=("User.Read",),
)
OWN_PASSWORD = access(
    delegated=("Directory.AccessAsUser.All", "User.ReadWrite.All"), own=("User.Read",)
)
DELETED_WRITE = access(
    "User.DeleteRestore.All",
    "User.ReadWrite.All",
    "Group.ReadWrite.All",
    "Application.ReadWrite.All",
    "Directory.ReadWrite.All",
    roles=(
        directory.USER_ADMINISTRATOR,
        directory.GROUPS_ADMINISTRATOR,
        directory.APPLICATION_ADMINISTRATOR,
    ),
)
OBJECTS_READ = access(
    "Directory.Read.All",
    "Directory.ReadWrite.All",
    "User.Read.All",
    "User.ReadWrite.All",
    "Group.Read.All",
    "Group.ReadWrite.All",
)
GROUPS_READ = access("Group.Read.All", "Group.ReadWrite.All", *_DIRECTORY_READ)
GROUPS_WRITE = access(
    "Group.ReadWrite.All",
    "Directory.ReadWrite.All",
    roles=(
        directory.USER_ADMINISTRATOR,
        directory.GROUPS_ADMINISTRATOR,
        directory.INTUNE_ADMINISTRATOR,
    ),
)
MEMBERS_WRITE = access(
    "GroupMember.ReadWrite.All",
    "Group.ReadWrite.All",
    "Directory.ReadWrite.All",
    roles=(
        directory.USER_ADMINISTRATOR,
        directory.GROUPS_ADMINISTRATOR,
        directory.INTUNE_ADMINISTRATOR,
    ),
)
LICENCES_READ = access("Organization.Read.All", "LicenseAssignment.ReadWrite.All", *_DIRECTORY_READ)
LICENCES_WRITE = access(
    "LicenseAssignment.ReadWrite.All",
    "User.ReadWrite.All",
    "Directory.ReadWrite.All",
    roles=(directory.LICENSE_ADMINISTRATOR, directory.USER_ADMINISTRATOR),
)
ORGANIZATION_READ = access("Organization.Read.All", *_DIRECTORY_READ, delegated=("User.Read",))
ORGANIZATION_WRITE = access("Directory.ReadWrite.All", roles=_GLOBAL)
MDM_SETTINGS_READ = access(
    "Policy.Read.All",
    "DeviceManagementServiceConfig.Read.All",
    "DeviceManagementServiceConfig.ReadWrite.All",
    roles=READERS,
)
MDM_SETTINGS_WRITE = access(
    "DeviceManagementServiceConfig.ReadWrite.All",
    delegated=("Policy.ReadWrite.MobilityManagement",),
    roles=WRITERS,
)
MANAGED_READ = access(
    "DeviceManagementManagedDevices.Read.All",
    "DeviceManagementManagedDevices.ReadWrite.All",
    roles=READERS,
)
# Orders to devices, and the safeguards of those that nothing brings back.
PRIVILEGED = access(
    "DeviceManagementManagedDevices.PrivilegedOperations.All",
    "DeviceManagementManagedDevices.ReadWrite.All",
    roles=WRITERS,
)
APPLICATIONS_READ = access("Application.Read.All", "Application.ReadWrite.All", *_DIRECTORY_READ)
APPLICATIONS_WRITE = access(
    "Application.ReadWrite.All",
    "Directory.ReadWrite.All",
    roles=(directory.APPLICATION_ADMINISTRATOR,),
)
ROLE_ASSIGNMENTS_WRITE = access("AppRoleAssignment.ReadWrite.All", roles=_GLOBAL)
GRANTS_READ = access("DelegatedPermissionGrant.ReadWrite.All", *_DIRECTORY_READ)
GRANTS_WRITE = access("DelegatedPermissionGrant.ReadWrite.All", roles=_GLOBAL)
DEVICES_READ = access("Device.Read.All", *_DIRECTORY_READ, application=("Device.ReadWrite.All",))
DEVICES_WRITE = access(
    application=("Device.ReadWrite.All",),
    delegated=("Directory.AccessAsUser.All",),
    roles=(directory.CLOUD_DEVICE_ADMINISTRATOR, directory.INTUNE_ADMINISTRATOR),
)
AUDITS_READ = access("AuditLog.Read.All", "Directory.Read.All", roles=(directory.GLOBAL_READER,))
ROLES_READ = access(
    "RoleManagement.Read.Directory", "RoleManagement.ReadWrite.Directory", *_DIRECTORY_READ
)
# Which roles the second may give, `roles` says.
ROLES_WRITE: Access = access(
    "RoleManagement.ReadWrite.Directory",
    roles=(*_GLOBAL, directory.PRIVILEGED_ROLE_ADMINISTRATOR),
)
DOMAINS_WRITE = access("Domain.ReadWrite.All", roles=_GLOBAL)
