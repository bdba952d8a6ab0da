"""What codes and states of device management are called, and what to do about them."""

from tandem.console.kit import N_

APP_STATE = {
    "notPublished": ("waiting", N_("Upload not finished")),
    "processing": ("waiting", N_("Being processed")),
    "published": ("good", N_("Published")),
}
# What became of a setting on a device.
OUTCOME = {
    "success": ("good", N_("In force")),
    "error": ("bad", N_("Refused by the device")),
    "notApplicable": ("plain", N_("Not applicable")),
    "conflict": ("bad", N_("Conflict")),
    "pending": ("waiting", N_("Waits for the next check-in")),
    "withheld": ("plain", N_("Withheld: the site owns the workload")),
    "removing": ("waiting", N_("Is taken away at the next check-in")),
    "notAssigned": ("plain", N_("Not set by any policy")),
}
# What a policy means for a setting on a device.
ROLE = {
    "winner": ("good", N_("Its value holds")),
    "agrees": ("good", N_("Wants the same value")),
    "conflicts": ("bad", N_("Wants another value than others")),
    "withheld": ("plain", N_("Withheld: the site owns the workload")),
    "inapplicable": ("plain", N_("Not applicable")),
    "notMeant": ("plain", N_("Not meant for this device")),
}
OWNER = {"mdm": N_("The MDM service"), "site": N_("The site")}
SCOPE = {"device": N_("Device"), "user": N_("User")}
INSTALLATION = {
    "installed": ("good", N_("Installed")),
    "failed": ("bad", N_("Failed")),
    "uninstallFailed": ("bad", N_("Removal failed")),
    "installing": ("waiting", N_("Being installed")),
    "offered": ("waiting", N_("Offered")),
    "notInstalled": ("waiting", N_("Waits for the next check-in")),
    "excluded": ("plain", N_("Excluded")),
    "withheld": ("plain", N_("Withheld: the site decides about apps here")),
    "available": ("plain", N_("Available to choose")),
    "absent": ("plain", N_("Not there")),
}
INTENT = {
    "required": N_("Required"),
    "available": N_("Available"),
    "availableWithoutEnrollment": N_("Available with or without enrolment"),
    "uninstall": N_("Uninstall"),
}
APP_TYPE = {
    "windowsMobileMSI": N_("Line-of-business app (MSI)"),
    "win32LobApp": N_("Windows app (Win32)"),
    "windowsUniversalAppX": N_("Line-of-business app (AppX)"),
    "windowsAppX": N_("Line-of-business app (AppX)"),
    "webApp": N_("Web link"),
    "windowsWebApp": N_("Web link"),
    "winGetApp": N_("Store app"),
}
# What assignments come to on a device, in Graph's words and in those made like them.
RESOLVED = {
    "requiredInstall": N_("Required"),
    "requiredAndAvailableInstall": N_("Required and available"),
    "requiredAndAvailableInstallWithoutEnrollment": N_(
        "Required, and available with or without enrolment"
    ),
    "available": N_("Available"),
    "availableInstallWithoutEnrollment": N_("Available with or without enrolment"),
    "requiredUninstall": N_("Uninstall"),
    "availableAfterUninstall": N_("Available; the copy that is there is removed once"),
    "uninstallUnlessChosen": N_("Uninstall, unless the user installed it"),
    "notAvailable": N_("Not assigned"),
}
# What became of an assignment that concerns a device.
REASON = {
    "decides": ("good", N_("counts")),
    "beaten": ("plain", N_("gives way to another")),
    "excluded": ("plain", N_("is taken back by an excluded group")),
    "excludes": ("plain", N_("leaves the device out")),
}
SIDE = {"user": N_("by the user"), "device": N_("by the device")}
EVERYBODY = {
    "allLicensedUsersAssignmentTarget": N_("All users"),
    "allDevicesAssignmentTarget": N_("All devices"),
}
# The number that Windows reports while it works (windows-mdm, 12.3).
INSTALLER_STATUS = {
    10: N_("The order is there"),
    20: N_("Is being downloaded"),
    25: N_("Waits to download again"),
    30: N_("The download failed"),
    40: N_("Downloaded"),
    48: N_("Waits for a user to sign in"),
    50: N_("Is being run"),
    55: N_("Waits to be run again"),
    60: N_("The installation failed"),
    70: N_("Completed"),
}


# Of the client's setup: state messages of topic 800, and the return codes of the bootstrap.
_SETUP = {
    100: N_("Client setup has begun."),
    301: N_("Client setup failed for a reason that it does not know."),
    302: N_("Client setup could not create its service."),
    303: N_("Client setup could not delete its service."),
    304: N_("A write filter keeps client setup from installing."),
    306: N_("The download of the client could not start."),
    307: N_("The command line of the client cannot be used: take the line that the site made."),
    308: N_("The download of the client failed: look at the gateway."),
    309: N_("The download of the client failed: look at the gateway."),
    310: N_("A prerequisite of the client could not be installed."),
    311: N_("A prerequisite of the client is not signed as it should be."),
    312: N_("The device's disk is full."),
    313: N_("client.msi failed: look at client.msi.log on the device."),
    314: N_("The client's manifest could not be read."),
    315: N_("The device has no certificate that the site accepts."),
    316: N_("A prerequisite of the client is not signed as it should be."),
    317: N_("The device has to restart before the client can be installed."),
    318: N_("The management point and the client are of different versions."),
    319: N_("This operating system is not supported by the client."),
    320: N_("This kind of deployment is not supported."),
    321: N_("The transfer service of Windows (BITS) is missing."),
    322: N_("The source of the client is not available: look at the gateway."),
    324: N_("The site is of a version that this client does not fit."),
    325: N_("A prerequisite's hash is not the manifest's."),
    326: N_("The device could not leave its MDM service."),
    327: N_("The device is managed by an MDM service that forbids the client."),
    328: N_("The MDM service's agent was found, and setup stopped."),
    329: N_("The network is metered; setup waits for another."),
    400: N_("The client is installed."),
    500: N_("The client is being assigned to its site."),
    602: N_("The site code of the command line is not this site's."),
    603: N_("The client could not be assigned to the management point."),
    604: N_("The site has no default management point."),
    605: N_("The site's signing certificate is not what the client expects."),
    606: N_("The client could not find its site by itself: name it by SMSSITECODE."),
    607: N_("The client is newer than the site: upload the package of this site."),
    608: N_("The site's version could not be found out."),
    609: N_("The client's version does not fit the site: upload the package of this site."),
}
_RETURNED = {
    6: N_("Client setup ended with an error."),
    7: N_("The device has to restart before the client can be installed."),
    8: N_("Client setup was running already."),
    9: N_("A prerequisite of the client was not met."),
    10: N_("The client's manifest has another hash than expected."),
}


def setup_step(step: int, code: int) -> str:
    """Where client setup stands, in words; empty when nothing is known."""
    if step in _SETUP:
        return _SETUP[step]
    return _RETURNED.get(code, "")


ACTION = {
    "syncDevice": N_("Check in"),
    "rebootNow": N_("Restart"),
    "setDeviceName": N_("Rename"),
    "windowsDefenderScan": N_("Scan for malware"),
    "windowsDefenderUpdateSignatures": N_("Update malware definitions"),
    "cleanWindowsDevice": N_("Fresh start"),
    "wipe": N_("Wipe"),
    "retire": N_("Retire"),
    "delete": N_("Delete"),
    "remoteLock": N_("Remote lock"),
    "shutDown": N_("Shut down"),
    "resetPasscode": N_("Reset the passcode"),
    "locateDevice": N_("Locate"),
    "unenroll": N_("Retire"),
}
# Of an order for one device, by our own words (tandem/actions).
ORDER_STATE = {
    "approval": ("waiting", N_("Waits for a second administrator")),
    "held": ("waiting", N_("Held back")),
    "pending": ("waiting", N_("Waits for the next check-in")),
    "sent": ("waiting", N_("The device has it")),
    "accepted": ("waiting", N_("Is being wiped")),
    "done": ("good", N_("Done")),
    "failed": ("bad", N_("Failed")),
    "timedOut": ("bad", N_("No answer")),
    "cancelled": ("plain", N_("Cancelled")),
    "expired": ("bad", N_("Expired")),
}
AGENT = {
    "mdm": N_("MDM service"),
    "configurationManagerClientMdm": N_("Co-managed"),
    "configurationManagerClient": N_("MDM service, client registered"),
}
COMPLIANCE = {
    "compliant": ("good", N_("Compliant")),
    "noncompliant": ("bad", N_("Not compliant")),
    "configManager": ("plain", N_("Judged by the site")),
    "unknown": ("plain", N_("Not evaluated")),
}
MANAGEMENT = {
    "managed": ("good", N_("Managed")),
    "retirePending": ("waiting", N_("Leaves at its next check-in")),
    "retireIssued": ("waiting", N_("Leaves")),
    "retireCanceled": ("good", N_("Managed; retiring was cancelled")),
    "wipeCanceled": ("good", N_("Managed; wiping was cancelled")),
    "wipePending": ("waiting", N_("Is wiped at its next check-in")),
    "wipeIssued": ("waiting", N_("Is being wiped")),
    "wipeFailed": ("bad", N_("The wipe failed")),
}
OWNERSHIP = {
    "company": N_("Corporate"),
    "personal": N_("Personal"),
    "unknown": N_("Unknown"),
}
JOIN = {
    "AzureAd": N_("Directory joined"),
    "ServerAd": N_("Hybrid joined"),
    "Workplace": N_("Registered"),
}


def enrolment_failure(code: str | None) -> str:
    """What a refused enrolment asks for (comanagement, 4.1)."""
    from tandem.console import labels

    try:
        return labels.enrollment_error(int(code or "", 0) & 0xFFFFFFFF)
    except ValueError:
        return labels.UNKNOWN_ERROR


# What a command that was set aside was for.
SET_ASIDE = {
    "setting": N_("Setting"),
    "removal": N_("Removal of a setting"),
    "install": N_("Installation of an app"),
    "uninstall": N_("Removal of an app"),
    "account": N_("Account of the MDM service"),
}

# (kind, words) of the states of a device's certificates, and why they ended.
CERTIFICATE = {
    "issued": ("waiting", N_("Waits for its first session")),
    "active": ("good", N_("In use")),
    "superseded": ("plain", N_("Replaced by another")),
    "revoked": ("bad", N_("Revoked")),
}
CERTIFICATE_REASON = {
    "superseded": N_("A newer one took its place"),
    "cessationOfOperation": N_("The enrolment ended"),
    "keyCompromise": N_("Its key is known to others"),
    "privilegeWithdrawn": N_("An administrator took it back"),
}
