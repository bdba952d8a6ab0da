"""Enrollment into MDM (MS-MDE2), the tenant's device CA, and the devices that came in.

Owns the tables enrollment_…. Events: device.enrolled, device.unenrolled (subject: the device's id).
"""

from tandem.tenant.enrollment.http import routes
from tandem.tenant.enrollment.model import (
    CONFIG_INFO_URI,
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
from tandem.tenant.enrollment.service import (
    Enrollment,
    device,
    devices,
    groups_of,
    timeline,
)
from tandem.tenant.enrollment.store import (
    BY_CERTIFICATE,
    DEVICES,
    SEEN,
    count_by_agent,
    count_by_eligibility,
    count_by_flags,
    mark_seen,
    save_config_info,
    save_inventory,
    set_management,
)

__all__ = [
    "BY_CERTIFICATE",
    "CONFIG_INFO_URI",
    "DEVICES",
    "PROVIDER_ID",
    "SEEN",
    "BadEnrollment",
    "Device",
    "DeviceGone",
    "Enrollment",
    "EnrollmentRefused",
    "EnrollmentSettings",
    "Event",
    "NoSuchDevice",
    "NotEnrolled",
    "agent_of",
    "count_by_agent",
    "count_by_eligibility",
    "count_by_flags",
    "device",
    "devices",
    "groups_of",
    "management_agent",
    "mark_seen",
    "routes",
    "save_config_info",
    "save_inventory",
    "set_management",
    "timeline",
]
