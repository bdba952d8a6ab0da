"""What Graph's values are called on the directory's pages; all are message ids."""

from tandem.console.kit import N_

LICENCE_ERROR = {
    "CountViolation": N_(
        "No seat of this product is free. Get more seats or take one away; who waits gets it by "
        "itself."
    ),
    "ProhibitedInUsageLocationViolation": N_(
        "The user has no usage location. Set it on the user's page; the licence follows by itself."
    ),
    "MutuallyExclusiveViolation": N_(
        "A service plan excludes one that the user has from another product. Turn one of the two "
        "off, or take one product away."
    ),
    "DependencyViolation": N_(
        "A service plan needs another one, which the user does not have. Assign a product with it, "
        "or turn this plan off."
    ),
}
PRODUCT = {
    "EMSPREMIUM": N_("Enterprise Mobility + Security E5"),
    "EMS": N_("Enterprise Mobility + Security E3"),
    "INTUNE_A": N_("MDM service"),
    "AAD_PREMIUM": N_("Directory premium P1"),
    "AAD_PREMIUM_P2": N_("Directory premium P2"),
    "INTUNE_SUITE": N_("MDM service suite (add-on)"),
    "INTUNE_EDU": N_("MDM service for education"),
}
PLAN = {
    "INTUNE_A": N_("MDM service"),
    "INTUNE_EDU": N_("MDM service for education"),
    "INTUNE_P2": N_("MDM service 2"),
    "REMOTE_HELP": N_("Remote help"),
    "AAD_PREMIUM": N_("Directory premium P1"),
    "AAD_PREMIUM_P2": N_("Directory premium P2"),
    "MFA_PREMIUM": N_("Multifactor authentication"),
}
RUN_STATE = {"queued": N_("Waiting"), "running": N_("Under way"), "done": N_("Done")}

ROLE = {
    "Global Administrator": N_("May do everything in the tenant."),
    "Privileged Role Administrator": N_("Gives and takes directory roles, except privileged ones."),
    "Intune Administrator": N_("Manages devices, apps, policies and groups."),
    "User Administrator": N_("Manages users and groups, except administrators."),
    "Helpdesk Administrator": N_("Sets passwords of users who hold no role."),
    "Groups Administrator": N_("Manages groups that give no role."),
    "License Administrator": N_("Assigns licences and sets usage locations."),
    "Cloud Device Administrator": N_("Enables, disables and deletes devices."),
    "Microsoft Entra Joined Device Local Administrator": N_(
        "Is a local administrator of joined devices."
    ),
    "Application Administrator": N_("Manages app registrations and service principals."),
    "Conditional Access Administrator": N_("Manages conditional-access policies."),
    "Global Reader": N_("Reads everything and changes nothing."),
}

SORT = {
    "user": N_("User"),
    "group": N_("Group"),
    "device": N_("Device"),
    "servicePrincipal": N_("Service principal"),
    "application": N_("App registration"),
}

# The numbers of refusals at sign-in (graph-compat.md 3.6), each for whoever reads the log.
AADSTS = {
    0: N_("Signed in."),
    16000: N_("The user has to choose an account, and the client did not let them."),
    50011: N_("The redirect address is not registered for the application."),
    50013: N_("The client's assertion is not valid."),
    50020: N_("The account is not of this tenant."),
    50034: N_("There is no such account in this tenant."),
    50053: N_("The account is locked after wrong passwords, or the address was stopped."),
    50055: N_("The password has expired or has to be changed."),
    50057: N_("The account is disabled."),
    50058: N_("Nobody is signed in in the browser, and the client allowed no page to be shown."),
    50076: N_("A second factor is asked for."),
    50126: N_("The user name or the password is wrong."),
    50173: N_("The sign-in was revoked: the password changed, or all sessions were ended."),
    53000: N_("The device is not compliant, and a policy asks for that."),
    53003: N_("A conditional-access policy blocked the sign-in."),
    54005: N_("The code was used already."),
    65001: N_("Nobody has consented to what the application asks for."),
    65004: N_("The user declined to consent."),
    70000: N_("The code or token that was sent is not valid."),
    70003: N_("The application asked in a way that is not served."),
    70008: N_("The code or token has expired."),
    70011: N_("The application asked for a permission that does not exist."),
    70016: N_("The user has not yet entered the code of the device."),
    70018: N_("The code of the device is wrong."),
    70019: N_("The code of the device has expired."),
    70020: N_("The user declined the code of the device."),
    70021: N_("The device asks too often."),
    70043: N_("The sign-in is too old for a policy."),
    90002: N_("There is no such tenant here."),
    90023: N_("The request of the application is not valid."),
    90033: N_("The sign-in service did not answer in time."),
    90094: N_("Only an administrator can consent to what the application asks for."),
    90100: N_("A parameter of the request is empty or not valid."),
    135011: N_("The device is disabled."),
    500011: N_("The resource that was asked for is not in this tenant."),
    500021: N_("Access from this tenant is restricted."),
    501481: N_("The proof of the application's code (PKCE) does not match."),
    700016: N_("The application is not registered in this tenant."),
    700027: N_("The certificate with which the application signs is not known or has expired."),
    700054: N_("The application may not get what it asked for from this endpoint."),
    700082: N_("The refresh token has expired: it was not used for too long."),
    900144: N_("The request lacks a parameter."),
    900491: N_("The client's request could not be read."),
    7000112: N_("The application is disabled."),
    7000215: N_("The client secret is wrong."),
    7000218: N_("The application sent neither a secret nor a certificate."),
    7000222: N_("The client secret has expired."),
}

AUDIT_CATEGORY = {
    "UserManagement": N_("Users"),
    "GroupManagement": N_("Groups"),
    "Device": N_("Devices"),
    "ApplicationManagement": N_("Applications and consent"),
    "RoleManagement": N_("Roles"),
    "DirectoryManagement": N_("Directory"),
    "Other": N_("Other"),
}
OUTCOME = {"success": N_("Done"), "failure": N_("Refused")}

CHECK = {
    "authority": (
        N_("The MDM authority is set."),
        N_("The MDM authority is not set: no device can be managed. Set it above."),
    ),
    "account": (
        N_("The account is enabled."),
        N_("The account is disabled, so nobody can sign in with it."),
    ),
    "scope": (
        N_("The user is in the MDM user scope."),
        N_("The user is not in the MDM user scope: add a group the user is in, or choose All."),
    ),
    "premium": (
        N_("The user may enrol automatically at join."),
        N_("Automatic enrolment needs directory premium, and no licence of the user has it."),
    ),
    "licence": (
        N_("The enrolment that follows finds a licence of the MDM service."),
        N_(
            "The enrolment that follows would be refused with 0x80180018: no licence of the user has "
            "the plan INTUNE_A."
        ),
    ),
}

# What a permission lets an application do. The name stays beside it, as it is what people look up.
PERMISSION = {
    "User.Read": N_("Sign users in and read their profile"),
    "User.Read.All": N_("Read all users' full profiles"),
    "User.ReadWrite.All": N_("Read and change all users' full profiles"),
    "User.DeleteRestore.All": N_("Delete and restore all users"),
    "User.RevokeSessions.All": N_("End all sign-in sessions of a user"),
    "Group.Read.All": N_("Read all groups"),
    "Group.ReadWrite.All": N_("Read and change all groups"),
    "GroupMember.ReadWrite.All": N_("Read and change members of groups"),
    "Device.Read.All": N_("Read all devices"),
    "Device.ReadWrite.All": N_("Read and change devices"),
    "Directory.Read.All": N_("Read directory data"),
    "Directory.ReadWrite.All": N_("Read and change directory data"),
    "Directory.AccessAsUser.All": N_("Use the directory as the signed-in user"),
    "Organization.Read.All": N_("Read the organization and its subscriptions"),
    "LicenseAssignment.ReadWrite.All": N_("Assign and remove licences"),
    "Application.Read.All": N_("Read all applications"),
    "Application.ReadWrite.All": N_("Read and change all applications"),
    "AppRoleAssignment.ReadWrite.All": N_("Grant application permissions, and take them away"),
    "DelegatedPermissionGrant.ReadWrite.All": N_("Grant delegated permissions, and take them away"),
    "Policy.Read.All": N_("Read the organization's policies"),
    "Policy.ReadWrite.ConditionalAccess": N_("Read and change conditional-access policies"),
    "Policy.ReadWrite.MobilityManagement": N_("Read and change automatic enrolment"),
    "RoleManagement.Read.Directory": N_("Read directory roles and who holds them"),
    "RoleManagement.ReadWrite.Directory": N_("Read directory roles, give and take them"),
    "AuditLog.Read.All": N_("Read the audit log and the sign-in log"),
    "Domain.ReadWrite.All": N_("Read and change domains"),
    "DeviceManagementManagedDevices.Read.All": N_("Read managed devices"),
    "DeviceManagementManagedDevices.ReadWrite.All": N_("Read and change managed devices"),
    "DeviceManagementManagedDevices.PrivilegedOperations.All": N_(
        "Wipe, lock and restart managed devices"
    ),
    "DeviceManagementConfiguration.Read.All": N_("Read device configurations and policies"),
    "DeviceManagementConfiguration.ReadWrite.All": N_(
        "Read and change device configurations and policies"
    ),
    "DeviceManagementApps.Read.All": N_("Read apps and their assignments"),
    "DeviceManagementApps.ReadWrite.All": N_("Read and change apps and their assignments"),
    "DeviceManagementServiceConfig.Read.All": N_("Read the settings of the MDM service"),
    "DeviceManagementServiceConfig.ReadWrite.All": N_(
        "Read and change the settings of the MDM service"
    ),
    "DeviceManagementRBAC.Read.All": N_("Read the roles of device management"),
    "DeviceManagementRBAC.ReadWrite.All": N_("Read and change the roles of device management"),
    "DeviceManagementScripts.Read.All": N_("Read scripts for devices"),
    "DeviceManagementScripts.ReadWrite.All": N_("Read and change scripts for devices"),
    "user_impersonation": N_("Use the application as the signed-in user"),
    "openid": N_("Sign users in"),
    "profile": N_("View users' basic profile"),
    "email": N_("View users' e-mail address"),
    "offline_access": N_("Keep access that was given"),
}
