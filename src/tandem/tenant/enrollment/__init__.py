"""Enrollment into MDM (MS-MDE2), the tenant's device CA, and the devices that came in.

Owns the tables enrollment_…. `ways` tells how a device proves whose it is.
Events: device.enrolled, device.unenrolled (subject: the device's id).
"""

from tandem.tenant.enrollment.certificate_model import (
    KEY_BITS,
    PROVIDERS,
    REASONS,
    BadProfile,
    Certificate,
    CertificateProfile,
    NoSuchCertificate,
)
from tandem.tenant.enrollment.certificates import holder, revocation_list, set_profile
from tandem.tenant.enrollment.certificates import of as certificates_of
from tandem.tenant.enrollment.certificates import profile as certificate_profile
from tandem.tenant.enrollment.certificates import revoke as revoke_certificate
from tandem.tenant.enrollment.credentials import choose, options
from tandem.tenant.enrollment.credentials import revoke as revoke_token
from tandem.tenant.enrollment.http import routes
from tandem.tenant.enrollment.model import (
    CONFIG_INFO_URI,
    POLL_NODES,
    PROVIDER_ID,
    BadEnrollment,
    Device,
    DeviceGone,
    EnrollmentRefused,
    EnrollmentSettings,
    Event,
    NoSuchDevice,
    NotEnrolled,
    agent_of,
    management_agent,
)
from tandem.tenant.enrollment.restrictions import DEFAULT_LIMIT, version
from tandem.tenant.enrollment.service import (
    Enrollment,
    device,
    devices,
    devices_of,
    existing,
    groups_of,
    groups_of_all,
    some,
    timeline,
)
from tandem.tenant.enrollment.session_secrets import SessionSecrets
from tandem.tenant.enrollment.session_secrets import digest as auth_md5
from tandem.tenant.enrollment.store import (
    BY_CERTIFICATE,
    DEVICES,
    SEEN,
    count_by_agent,
    count_by_eligibility,
    count_by_flags,
    mark_seen,
    names_of,
    save_config_info,
    save_inventory,
    set_management,
    set_management_state,
)
from tandem.tenant.enrollment.token_store import TOKENS
from tandem.tenant.enrollment.ways import BadCredential, Options, Proof, Token, Way

__all__ = [
    "BY_CERTIFICATE",
    "CONFIG_INFO_URI",
    "DEFAULT_LIMIT",
    "DEVICES",
    "KEY_BITS",
    "POLL_NODES",
    "PROVIDERS",
    "PROVIDER_ID",
    "REASONS",
    "SEEN",
    "TOKENS",
    "BadCredential",
    "BadEnrollment",
    "BadProfile",
    "Certificate",
    "CertificateProfile",
    "Device",
    "DeviceGone",
    "Enrollment",
    "EnrollmentRefused",
    "EnrollmentSettings",
    "Event",
    "NoSuchCertificate",
    "NoSuchDevice",
    "NotEnrolled",
    "Options",
    "Proof",
    "SessionSecrets",
    "Token",
    "Way",
    "agent_of",
    "auth_md5",
    "certificate_profile",
    "certificates_of",
    "choose",
    "count_by_agent",
    "count_by_eligibility",
    "count_by_flags",
    "device",
    "devices",
    "devices_of",
    "existing",
    "groups_of",
    "groups_of_all",
    "holder",
    "management_agent",
    "mark_seen",
    "names_of",
    "options",
    "revocation_list",
    "revoke_certificate",
    "revoke_token",
    "routes",
    "save_config_info",
    "save_inventory",
    "set_management",
    "set_management_state",
    "set_profile",
    "some",
    "timeline",
    "version",
]
