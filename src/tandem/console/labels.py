"""What values are called on the pages. These are message ids: a page translates them."""

from typing import NamedTuple

from tandem.workloads import UNKNOWN, Authority, Position, Workload, enrolment_error


def N_(message: str) -> str:
    """Marks a message for the catalogue; it is translated where it is shown."""
    return message


class Place(NamedTuple):
    path: str
    title: str
    icon: str
    group: str = ""
    own: bool = False  # Open to whoever is signed in, with or without a role.


BROKEN = N_("Something went wrong on the server.")
BROKEN_CURE = N_("Try again. If it stays so, look for the id below in the role's log.")

AUTHORITY = {Authority.SITE: N_("Site"), Authority.MDM: N_("MDM service")}
POSITION = {
    Position.SITE: N_("Site"),
    Position.PILOT: N_("Pilot MDM"),
    Position.MDM: N_("MDM service"),
}
WORKLOAD = {
    Workload.COMPLIANCE_POLICIES: N_("Compliance policies"),
    Workload.RESOURCE_ACCESS: N_("Resource access policies"),
    Workload.DEVICE_CONFIGURATION: N_("Device configuration"),
    Workload.WINDOWS_UPDATE: N_("Windows Update policies"),
    Workload.ENDPOINT_PROTECTION: N_("Endpoint Protection"),
    Workload.CLIENT_APPS: N_("Client apps"),
    Workload.OFFICE_CLICK_TO_RUN: N_("Office Click-to-Run apps"),
}
# What carries security scopes.
SCOPED = {
    "configuration": N_("Configuration"),
    "gateway": N_("Gateway"),
}
ROLE = {
    "Full Administrator": N_("Full administrator"),
    "Infrastructure Administrator": N_("Infrastructure administrator"),
    "Operations Administrator": N_("Operations administrator"),
    "Read-only Analyst": N_("Read-only analyst"),
    # Of the site, with scopes or collections that limit them.
    "Full Administrator (limited)": N_("Full administrator, limited"),
    "Infrastructure Administrator (limited)": N_("Infrastructure administrator, limited"),
    "Operations Administrator (limited)": N_("Operations administrator, limited"),
    "Read-only Analyst (limited)": N_("Read-only analyst, limited"),
    "Global Administrator": N_("Global administrator"),
    "Intune Administrator": N_("MDM administrator"),
    "Global Reader": N_("Global reader"),
    "Privileged Role Administrator": N_("Privileged role administrator"),
    "User Administrator": N_("User administrator"),
    "Helpdesk Administrator": N_("Helpdesk administrator"),
    "Groups Administrator": N_("Groups administrator"),
    "License Administrator": N_("Licence administrator"),
    "Cloud Device Administrator": N_("Cloud device administrator"),
    "Application Administrator": N_("Application administrator"),
    "Conditional Access Administrator": N_("Conditional access administrator"),
    "Microsoft Entra Joined Device Local Administrator": N_(
        "Local administrator of joined devices"
    ),
}

# Of somebody without a role, who sees what is theirs.
USER = N_("User")

# What a code of a failed enrolment asks for; api-workloads.po has the French.
UNKNOWN_ERROR = UNKNOWN


def enrollment_error(code: int) -> str:
    return enrolment_error(code).text


def code(value: int) -> str:
    """An HRESULT the way administrators search for it."""
    return f"0x{value & 0xFFFFFFFF:08X}"


# What the timeline's two sources say, as far as it holds no names: they say it in English.
HAPPENINGS = (
    N_("Client deployment started"),
    N_("Client deployment failed"),
    N_("Client deployment failed: the command line cannot be used"),
    N_("Client deployment failed: a download did not succeed"),
    N_("Client deployment failed: the client's manifest cannot be used"),
    N_("Client deployment failed: the site cannot be reached"),
    N_("Client deployment failed: the client's hash is not the manifest's"),
    N_("Client deployment succeeded"),
    N_("Client assignment started"),
    N_("Client assignment failed: the site code is not this site's"),
    N_("Client assignment failed at the management point"),
    N_("Scan for software updates completed"),
    N_("Scan for software updates failed"),
    N_("Software updates are not applicable"),
    N_("Software updates are required"),
    N_("Software updates are installed"),
    N_("Software updates failed to install"),
    N_("Client assignment failed: the site signing certificate"),
    N_("Client assigned"),
    N_("Co-management state"),
    N_("MDM enrollment scheduled"),
    N_("MDM enrollment cancelled"),
    N_("MDM enrollment started"),
    N_("MDM enrollment succeeded, not provisioned"),
    N_("MDM enrollment succeeded, provisioned"),
    N_("MDM enrollment waits for a user to sign in"),
    N_("MDM enrollment failed"),
    N_("The client is well"),
    N_("The client has a problem"),
    N_("Heartbeat"),
    N_("Inventory"),
    N_("Registered with the site"),
    N_("Registered again, with a new key"),
    N_("Policy delivered"),
    N_("Policy of a user delivered"),
    N_("Client deployment failed: there is no client certificate"),
    N_("Obsolete: the machine registered anew"),
    N_("No longer obsolete: the client spoke again"),
    N_("Two machines may be this one client"),
    N_("The site's policy is present"),
    N_("The site's client is gone"),
    N_("The device enrolled again"),
    N_("An administrator ends the enrollment"),
    N_("An administrator asks for a check-in"),
    N_("Did what it was asked to do"),
    N_("Could not do what it was asked to do"),
    N_("The client has left; the MDM service alone decides"),
    N_("Client deployment waits for a download"),
    N_("Client deployment is scheduled"),
    N_("Client deployment waits for its maintenance window"),
    N_("Client deployment was skipped"),
    N_("Client deployment failed: its service could not be made"),
    N_("Client deployment failed: its service could not be removed"),
    N_("Client deployment failed: the device's write filter"),
    N_("Client deployment failed: the download did not begin"),
    N_("Client deployment failed: the download by BITS did not succeed"),
    N_("Client deployment failed: BITS could not be installed"),
    N_("Client deployment failed: the signature of what it needs first"),
    N_("Client deployment failed: the disk is full"),
    N_("Client deployment failed: the client's MSI"),
    N_("Client deployment failed: the device has to restart first"),
    N_("Client deployment failed: the management point is of another version"),
    N_("Client deployment failed: the operating system is not supported"),
    N_("Client deployment failed: this kind of deployment is not supported"),
    N_("Client deployment failed: BITS is missing"),
    N_("Client deployment failed: App-V"),
    N_("Client deployment failed: the site is of another version"),
    N_("Client deployment failed: the device did not leave its MDM service"),
    N_("Client deployment failed: the device is in an MDM service"),
    N_("Client deployment failed: the device is in Intune"),
    N_("Client deployment failed: the network is metered"),
    N_("Client deployment succeeded; the device has to restart"),
    N_("Client deployment succeeded, and the device has restarted"),
    N_("Client assignment failed"),
    N_("Client assignment failed: there is no default management point"),
    N_("Client assignment failed: no site was found"),
    N_("Client assignment failed: the client is newer than the site"),
    N_("Client assignment failed: the site's version"),
    N_("Client assignment failed: the client's version"),
    N_("Windows Update for Business reported"),
    N_("The client's certificate is good"),
    N_("The client's certificate has a problem"),
    N_("The client's health check is good"),
    N_("The client's health check failed"),
    N_("Endpoint protection is not managed"),
    N_("Endpoint protection is to be installed"),
    N_("Endpoint protection is managed"),
    N_("Endpoint protection failed"),
    N_("Endpoint protection waits for a restart"),
    N_("Endpoint protection is not supported"),
    N_("Endpoint protection is with the MDM service"),
    N_("Conditional access: compliance was told"),
    N_("Conditional access failed at the management point"),
    N_("Conditional access failed at the client"),
    N_("Conditional access failed at the MDM service"),
    N_("Conditional access failed at the directory"),
    N_("Conditional access: the MDM service judges compliance"),
)

# The lines of both authorities' accounts on a device's page.
ENROLLED = N_("Enrolled")
ENROLLED_AT = N_("Enrolled at")
LAST_CHECK_IN = N_("Last check-in")
DIRECTORY_ID = N_("Directory id")
MDM_ID = N_("MDM id")
OWNER = N_("Primary user")
MODEL = N_("Model")
SERIAL = N_("Serial number")
AGENT = N_("Agent, as the device told the MDM service")
CLIENT_ID = N_("Client id")
CLIENT_VERSION = N_("Client version")
REGISTERED_AT = N_("Registered at")
LAST_POLICY = N_("Last policy request")
LAST_STATE = N_("Last state message")
FLAGS = N_("Co-management flags, as the device reports")
POLICY_PRESENT = N_("Policy present")
APP_OFFERED = N_("App offered")
MSI_INSTALLED = N_("MSI installed")
REGISTERED = N_("Registered with the site")
WORKLOADS_APPLIED = N_("Settings in force")
BLOCKED = N_("Blocked")
NO_SUCH_DEVICE = N_("There is no such device.")
NO_SUCH_DEVICE_CURE = N_("The device list shows all of them.")
SIGN_IN_LOST = N_("The sign-in did not start on this page, or it took too long.")
SIGN_IN_AGAIN = N_("Start it again.")
NOT_RECOGNIZED = N_("User not recognized.")
NOT_RECOGNIZED_CURE = N_(
    "An administrator of devices needs a licence with the plan INTUNE_A here: ask who gives licences."
)
NO_TOKEN_SERVICE = N_("The tenant's sign-in service does not answer.")
NO_TOKEN_SERVICE_CURE = N_("Try again in a moment: nothing was done.")
NOT_ALLOWED = N_("Your account has no role that may use this console.")
NOT_ALLOWED_CURE = N_(
    "Your own apps are under My apps. A global administrator can give it a role: Global Reader is"
    " enough."
)
