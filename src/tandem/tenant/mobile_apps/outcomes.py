"""What the codes of installations mean, and what to do: one table for Graph, CLI and console.

Devices report HRESULTs as signed decimals (windows-mdm, 11.6): -2147023293 is 0x80070643. Names and
numbers are the vendor's: winerror.h and the error table of Windows Installer, WinHTTP, BITS
(0x8020…, and HTTP statuses as 0x8019…), and the MDM service's own 0x87D1…. Numbers below 1000 are
statuses of SyncML, of a command that the device refused (section 11.4).
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum


class Source(StrEnum):
    INSTALLER = "Windows Installer"
    WINDOWS = "Windows"
    WINHTTP = "WinHTTP"
    BITS = "BITS"
    HTTP = "HTTP"
    MDM = "MDM service"
    SYNCML = "SyncML"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`after`: how long until it is tried again by itself."""

    cause: str
    cure: str
    name: str
    source: Source
    code: int = 0  # Unsigned.
    after: timedelta = timedelta(days=1)

    @property
    def hexadecimal(self) -> str:
        return str(self.code) if self.source is Source.SYNCML else f"0x{self.code:08X}"


_MSI, _WIN, _HTTP, _BITS = Source.INSTALLER, Source.WINDOWS, Source.WINHTTP, Source.BITS
_MDM, _SYNCML = Source.MDM, Source.SYNCML
# Another installation ends soon; a connection comes back within the hour.
_SOON, _HOUR = timedelta(minutes=15), timedelta(hours=1)
_NAME = "Look at the device's DNS, and at the name in the tenant's public address."
_REACH = "Look at the device's network and proxy: it has to reach the tenant's public address."
_CHAIN = "Give the tenant a certificate that devices trust, with the name that they call."
_AGAIN = "Upload the package again; compare its size with the original first."
_LOG = "Run the package on one device with /l*v and read the end of its log."
_RESTART = "Restart the device; the service installs again a day later."
_SPACE = "Free space on the device's system drive."

# Of Win32: the low half of 0x8007….
_WIN32 = {
    2: Outcome("A file that is needed was not found on the device.", cure=_LOG,
               name="ERROR_FILE_NOT_FOUND", source=_WIN),
    5: Outcome("The device denied access.",
               cure="Look whether security software or a policy blocks the installer.",
               name="ERROR_ACCESS_DENIED", source=_WIN),
    13: Outcome("The order to install, or the package, holds data that the device cannot use.",
                cure=_AGAIN, name="ERROR_INVALID_DATA", source=_WIN),
    14: Outcome("The device has too little memory.", cure=_RESTART, name="ERROR_OUTOFMEMORY",
                source=_WIN),
    32: Outcome("Another program holds a file that the installation needs.", cure=_RESTART,
                name="ERROR_SHARING_VIOLATION", source=_WIN),
    50: Outcome("This edition of Windows does not support it.",
                cure="Look at what the app asks of Windows.", name="ERROR_NOT_SUPPORTED",
                source=_WIN),
    87: Outcome("An argument of the installation is not valid.",
                cure="Correct the command-line arguments of the app.",
                name="ERROR_INVALID_PARAMETER", source=_WIN),
    112: Outcome("The device's disk is full.", cure=_SPACE, name="ERROR_DISK_FULL", source=_WIN),
    1168: Outcome("The device does not know this installation any more.",
                  cure="Nothing is to be done: it is offered again.", name="ERROR_NOT_FOUND",
                  source=_WIN),
    1223: Outcome("Somebody cancelled it on the device.",
                  cure="Ask the user; install without a window, which /quiet does.",
                  name="ERROR_CANCELLED", source=_WIN),
    1460: Outcome("It took longer than it may.",
                  cure="Raise the time-out in the properties of the app.", name="ERROR_TIMEOUT",
                  source=_WIN),
    1601: Outcome("The Windows Installer service cannot be reached.", cure=_RESTART,
                  name="ERROR_INSTALL_SERVICE_FAILURE", source=_MSI),
    1602: Outcome("Somebody cancelled the installation on the device.",
                  cure="Ask the user; install without a window, which /quiet does.",
                  name="ERROR_INSTALL_USEREXIT", source=_MSI),
    1603: Outcome("The installation failed, and was rolled back.", cure=_LOG,
                  name="ERROR_INSTALL_FAILURE", source=_MSI),
    1604: Outcome("The installation was suspended and not finished.", cure=_RESTART,
                  name="ERROR_INSTALL_SUSPEND", source=_MSI),
    1605: Outcome("The package is another product than was announced, or it is not installed.",
                  cure=_AGAIN, name="ERROR_UNKNOWN_PRODUCT", source=_MSI),
    1612: Outcome("The package was not found where it should lie.",
                  cure="Nothing is to be done: it is downloaded again.",
                  name="ERROR_INSTALL_SOURCE_ABSENT", source=_MSI),
    1613: Outcome("The package needs a newer Windows Installer.", cure="Update Windows.",
                  name="ERROR_INSTALL_PACKAGE_VERSION", source=_MSI),
    1618: Outcome("Another installation was in progress.",
                  cure="Nothing is to be done: it is tried again by itself, after 15 minutes.",
                  name="ERROR_INSTALL_ALREADY_RUNNING", source=_MSI, after=_SOON),
    1619: Outcome("The package could not be opened.", cure=_AGAIN,
                  name="ERROR_INSTALL_PACKAGE_OPEN_FAILED", source=_MSI),
    1620: Outcome("The package cannot be opened: it is damaged.", cure=_AGAIN,
                  name="ERROR_INSTALL_PACKAGE_INVALID", source=_MSI),
    1622: Outcome("The log file of the installation could not be opened.",
                  cure="Correct the command-line arguments of the app.",
                  name="ERROR_INSTALL_LOG_FAILURE", source=_MSI),
    1624: Outcome("A transform of the package could not be applied.",
                  cure="Correct the command-line arguments of the app.",
                  name="ERROR_INSTALL_TRANSFORM_FAILURE", source=_MSI),
    1625: Outcome("A policy of the device forbids this installation.",
                  cure="Look at the policies for Windows Installer and for software restriction.",
                  name="ERROR_INSTALL_PACKAGE_REJECTED", source=_MSI),
    1632: Outcome("The device's folder for temporary files is full or closed.", cure=_SPACE,
                  name="ERROR_INSTALL_TEMP_UNWRITABLE", source=_MSI),
    1633: Outcome("The package is for another kind of processor.",
                  cure="Upload the package for these devices as an app of its own.",
                  name="ERROR_INSTALL_PLATFORM_UNSUPPORTED", source=_MSI),
    1638: Outcome("Another version of this product is installed already.",
                  cure="Uninstall it first, or build a package that upgrades it.",
                  name="ERROR_PRODUCT_VERSION", source=_MSI),
    1639: Outcome("The command line cannot be read.",
                  cure="Correct the command-line arguments of the app.",
                  name="ERROR_INVALID_COMMAND_LINE", source=_MSI),
    1641: Outcome("It is installed, and the device restarts.", cure="Nothing is to be done.",
                  name="ERROR_SUCCESS_REBOOT_INITIATED", source=_MSI),
    1654: Outcome("Windows Installer does not run in this session of the device.", cure=_RESTART,
                  name="ERROR_INSTALL_REJECTED", source=_MSI),
    3010: Outcome("It is installed; a restart completes it.", cure="Restart the device.",
                  name="ERROR_SUCCESS_REBOOT_REQUIRED", source=_MSI),
    12002: Outcome("The download took too long.", cure=_REACH, name="ERROR_WINHTTP_TIMEOUT",
                   source=_HTTP, after=_HOUR),
    12007: Outcome("The device cannot resolve the name it downloads from.", cure=_NAME,
                   name="ERROR_WINHTTP_NAME_NOT_RESOLVED", source=_HTTP, after=_HOUR),
    12029: Outcome("The device cannot connect to what it downloads from.", cure=_REACH,
                   name="ERROR_WINHTTP_CANNOT_CONNECT", source=_HTTP, after=_HOUR),
    12030: Outcome("The connection broke during the download.", cure=_REACH,
                   name="ERROR_WINHTTP_CONNECTION_ERROR", source=_HTTP, after=_HOUR),
    12037: Outcome("The certificate of what it downloads from is over or not valid yet.",
                   cure="Set the device's clock; renew the tenant's certificate.",
                   name="ERROR_WINHTTP_SECURE_CERT_DATE_INVALID", source=_HTTP),
    12038: Outcome("The certificate of what it downloads from has another name.", cure=_CHAIN,
                   name="ERROR_WINHTTP_SECURE_CERT_CN_INVALID", source=_HTTP),
    12045: Outcome("The device does not trust who issued the certificate it met.", cure=_CHAIN,
                   name="ERROR_WINHTTP_SECURE_INVALID_CA", source=_HTTP),
    12152: Outcome("The answer to the download cannot be read: something between changes it.",
                   cure=_REACH, name="ERROR_WINHTTP_INVALID_SERVER_RESPONSE", source=_HTTP,
                   after=_HOUR),
    12175: Outcome("The device does not trust the certificate of what it downloads from.",
                   cure=_CHAIN, name="ERROR_WINHTTP_SECURE_FAILURE", source=_HTTP),
    25502: Outcome("This is client.msi, which only the client's set-up may run.",
                   cure="Upload ccmsetup.msi in its place.", name="", source=_MSI),
}  # fmt: skip
_HRESULT = {
    0x80091007: Outcome("The downloaded package has not the hash that was announced.",
                        cure="Upload the package again; look whether a proxy changes downloads.",
                        name="CRYPT_E_HASH_VALUE", source=_WIN),
    0x800B0100: Outcome("The package is not signed, and the device asks for a signature.",
                        cure="Sign the package, or change that policy.",
                        name="TRUST_E_NOSIGNATURE", source=_WIN),
    0x800B0109: Outcome("The package is signed by somebody whom the device does not trust.",
                        cure="Give devices the signer's root by a trusted certificate profile.",
                        name="CERT_E_UNTRUSTEDROOT", source=_WIN),
    0x80200010: Outcome("The device has no network.", cure=_REACH,
                        name="BG_E_NETWORK_DISCONNECTED", source=_BITS, after=_HOUR),
    0x80200011: Outcome("The answer to the download does not say how long it is.", cure=_REACH,
                        name="BG_E_MISSING_FILE_SIZE", source=_BITS),
    0x80200012: Outcome("The server of the download speaks too old an HTTP.", cure=_REACH,
                        name="BG_E_INSUFFICIENT_HTTP_SUPPORT", source=_BITS),
    0x80200013: Outcome("The server of the download gives no ranges: something between takes them away.",
                        cure=_REACH, name="BG_E_INSUFFICIENT_RANGE_SUPPORT", source=_BITS),
    0x87D00324: Outcome("It was installed, and was not found afterwards.",
                        cure="Look at the detection rules.", name="", source=_MDM),
    0x87D1041C: Outcome("It was installed, and is not found any more.",
                        cure="Nothing is to be done: it is installed again.", name="", source=_MDM),
    0x87D13B64: Outcome("The content's hash is not the announced one.", cure=_AGAIN, name="",
                        source=_MDM),
}  # fmt: skip
_STATUS = {
    400: Outcome("The device cannot read the order to install.",
                 cure="Look at the command-line arguments, and report it.", name="Bad request",
                 source=_SYNCML),
    403: Outcome("The device forbids this command.",
                 cure="Look whether a policy of the device restricts its management.",
                 name="Forbidden", source=_SYNCML),
    404: Outcome("The device does not know this command yet.",
                 cure="Nothing is to be done: it is offered again.", name="Not found",
                 source=_SYNCML),
    405: Outcome("The device refuses this command.",
                 cure="An app for one user needs that user signed in on the device.",
                 name="Command not allowed", source=_SYNCML),
    406: Outcome("This build of Windows does not have the command.", cure="Update Windows.",
                 name="Optional feature not supported", source=_SYNCML),
    425: Outcome("The MDM service has no permission for this on the device.",
                 cure="Look whether a policy of the device restricts its management.",
                 name="Permission denied", source=_SYNCML),
    500: Outcome("The device could not carry out the command.", cure=_RESTART,
                 name="Command failed", source=_SYNCML),
}  # fmt: skip
_ANSWERED = {
    403: Outcome("The link to the package was not valid any more.",
                 cure="Nothing is to be done: the next check-in brings a new one. Set the device's clock.",
                 name="HTTP 403", source=Source.HTTP, after=_HOUR),
    404: Outcome("The package was not there any more.", cure=_AGAIN, name="HTTP 404",
                 source=Source.HTTP, after=_HOUR),
    407: Outcome("A proxy asks the device for a name and a password.",
                 cure="Let devices pass to the tenant's public address without signing in.",
                 name="HTTP 407", source=Source.HTTP),
    416: Outcome("The package changed during the download.",
                 cure="Nothing is to be done: it is downloaded again.", name="HTTP 416",
                 source=Source.HTTP, after=_HOUR),
}  # fmt: skip
_REFUSED = Outcome("The server of the download refused it.", cure=_REACH, name="HTTP",
                   source=Source.HTTP, after=_HOUR)  # fmt: skip
UNKNOWN = Outcome("No text is known for this code.", cure=_LOG, name="", source=_WIN)


def outcome(code: int) -> Outcome | None:
    """Of a code as devices report it, signed or not; None for 0."""
    value = code & 0xFFFFFFFF
    if value == 0:
        return None
    if value in _STATUS:
        return replace(_STATUS[value], code=value)
    if value in _HRESULT:
        return replace(_HRESULT[value], code=value)
    if value >> 16 == 0x8019:
        status = value & 0xFFFF
        known = _ANSWERED.get(status, replace(_REFUSED, name=f"HTTP {status}"))
        return replace(known, code=value)
    low = value & 0xFFFF if value >> 16 == 0x8007 else value
    return replace(_WIN32.get(low, UNKNOWN), code=value)


def every() -> list[Outcome]:
    """The whole table, for whoever lists it."""
    low = [outcome(0x80070000 | code if code < 65536 else code) for code in _WIN32]
    rest = [outcome(code) for code in (*_HRESULT, *_STATUS, *(0x80190000 | s for s in _ANSWERED))]
    return [item for item in (*low, *rest) if item is not None]
