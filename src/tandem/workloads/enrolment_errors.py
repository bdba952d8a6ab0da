"""The codes that devices report when their enrolment fails, and what each asks for.

Codes, names and meanings are the field's (comanagement, 4.1); the sentences are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EnrolmentError:
    """`name` is the symbol that logs and searches know, where there is one. A `transient` one goes by
    itself: the device tries again."""

    code: int
    name: str
    text: str
    transient: bool = False


UNKNOWN = "No text is known for this code: look at the device's log."

_BLOCKED = "This platform or version is blocked: look at the enrolment restrictions."
_SERVICE_MISSING = (
    "The device's service for push messages (dmwappushservice) is missing or disabled: enable it."
)
_TABLE = (
    EnrolmentError(
        0x8000FFFF,
        "E_UNEXPECTED",
        "MDM enrolment is not configured in the directory: set the MDM user scope.",
    ),
    EnrolmentError(
        0x80180002,
        "MENROLL_E_DEVICE_AUTHENTICATION_ERROR",
        "The user has no directory token: the user has to sign in.",
    ),
    EnrolmentError(
        0x80180003,
        "MENROLL_E_DEVICE_AUTHORIZATION_ERROR",
        "The user may not enrol devices: add the user to the MDM user scope.",
    ),
    EnrolmentError(
        0x80180005,
        "MENROLL_E_DEVICE_INTERNALSERVICE_ERROR",
        "The management service failed, its database for one; the device tries again.",
        True,
    ),
    EnrolmentError(0x80180014, "MENROLL_E_DEVICENOTSUPPORTED", _BLOCKED),
    EnrolmentError(0x80180015, "MENROLL_E_NOTSUPPORTED", _BLOCKED),
    EnrolmentError(
        0x80180018,
        "MENROLL_E_USERLICENSE",
        "The user's licence is missing or in a bad state: assign a licence.",
    ),
    EnrolmentError(0x80180023, "", _SERVICE_MISSING),
    EnrolmentError(0x800706D9, "", _SERVICE_MISSING),
    EnrolmentError(0x80180026, "", "The device is already managed by another service."),
    EnrolmentError(0x8018002A, "", "The user dismissed the second factor: sign in with it.", True),
    EnrolmentError(
        0x8018002B,
        "MENROLL_E_MDM_NOT_CONFIGURED",
        "The directory is not fully configured yet; the device tries again.",
        True,
    ),
    EnrolmentError(
        0x80070032, "", "The operating system is older than Windows 10 1709: update it."
    ),
    EnrolmentError(0x80070490, "", "Something was not found yet; the device tries again.", True),
    EnrolmentError(0x801C03F2, "", "The device is not in the directory yet; it tries again.", True),
    EnrolmentError(
        0x801C0003, "", "The directory refused the device: the user may not join devices."
    ),
    EnrolmentError(
        0xCAA2000C,
        "interaction_required",
        "The directory wants a second factor: the user has to sign in with it.",
    ),
    EnrolmentError(
        3400073293,
        "",
        "The directory's answer about the user's domain was not understood: look at how the domain"
        " is set up.",
    ),
    EnrolmentError(3399548929, "", "The user has to sign in first; the device tries again.", True),
    EnrolmentError(3400073236, "", "No token was issued: look at the directory's sign-in log."),
    EnrolmentError(
        2149122477, "", "The connection failed: look at proxy and network; the device tries again."
    ),
    EnrolmentError(
        3400073247,
        "",
        "Signing in with the account of Windows works with a federated domain only: the user has to"
        " sign in.",
    ),
    EnrolmentError(
        3399942148, "", "The server or the proxy was not found; the device tries again.", True
    ),
    EnrolmentError(2192179208, "", "The device has too little memory; it tries again.", True),
    EnrolmentError(
        3399614467, "", "The directory refused what the device proved itself with: join it again."
    ),
    EnrolmentError(2149134055, "", "A name was not resolved: look at the device's name servers."),
    EnrolmentError(
        2149134050, "", "The internet answers too slowly; the device tries again.", True
    ),
)
ENROLMENT_ERRORS: Mapping[int, EnrolmentError] = {one.code: one for one in _TABLE}


def enrolment_error(code: int) -> EnrolmentError:
    """Of an HRESULT, signed or not."""
    unsigned = code & 0xFFFFFFFF
    return ENROLMENT_ERRORS.get(unsigned) or EnrolmentError(unsigned, "", UNKNOWN)
