"""Certificates of managed devices: what each has and had, taking one back, and their profile.

Intune shows nothing of them but an end; these are paths of our own.
"""

from collections.abc import Sequence

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import enrollment
from tandem.tenant.enrollment import Enrollment
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Family,
    Field,
    Part,
    Resource,
    Value,
)
from tandem.tenant.graph.permissions import MANAGED_READ as READ
from tandem.tenant.graph.permissions import PRIVILEGED
from tandem.tenant.graph.policy_kinds import SERVICE

_DEVICE = "tandem/managedDevices/{managedDevice}"


def device_certificates(service: Enrollment) -> Part:
    async def certificates(call: Call) -> Sequence[Row]:
        device = await enrollment.device(call.tx, call.keys["managedDevice"])
        return [_row(one) for one in await enrollment.certificates_of(call.tx, device.id)]

    async def revoke(call: Call, body: Body) -> Answer:
        device = await enrollment.device(call.tx, call.keys["managedDevice"])
        reason = str(body.get("reason") or "privilegeWithdrawn")
        if reason not in enrollment.REASONS:
            raise BadProperty(
                f"{reason[:64]!r} is no reason for taking a certificate back.",
                cure=f"Take one of: {', '.join(enrollment.REASONS)}.",
                target="reason",
            )
        found = await enrollment.revoke_certificate(
            call.tx, device, str(body["certificate"]), reason, call.now
        )
        await service.note(
            call.tx, device, "certificate", "An administrator revoked its certificate"
        )
        return Value(
            {
                "id": found.fingerprint,
                "state": found.state,
                "reason": found.reason,
                "changedDateTime": found.changed_at,
            }
        )

    async def profile(call: Call) -> Sequence[Row]:
        found = await enrollment.certificate_profile(call.tx, service.settings)
        return [
            {
                "validity_days": found.validity_days,
                "renewal_days": found.renewal_days,
                "retry_days": found.retry_days,
                "key_bits": found.key_bits,
                "key_providers": list(found.providers),
                "revocation_list_url": service.revocation_list_url,
            }
        ]

    async def change(call: Call, key: str, body: Body) -> None:
        known = await enrollment.certificate_profile(call.tx, service.settings)
        given = {
            "validityDays": known.validity_days,
            "renewalDays": known.renewal_days,
            "retryDays": known.retry_days,
            "keyBits": known.key_bits,
            "keyProviders": list(known.providers),
            **{name: value for name, value in body.items() if value is not None},
        }
        await enrollment.set_profile(
            call.tx,
            enrollment.CertificateProfile(
                given["validityDays"],
                given["renewalDays"],
                given["retryDays"],
                given["keyBits"],
                tuple(given["keyProviders"]),
            ),
        )

    return Part(
        (
            Resource(
                path=f"{_DEVICE}/certificates",
                type="tandemDeviceCertificate",
                family=Family.INTUNE,
                rows=certificates,
                read=READ,
                key_is_guid=False,
                fields=(
                    Field("id"),
                    Field("serialNumber"),
                    Field("state"),
                    Field("reason"),
                    Field("startDateTime", Primitive.TIME),
                    Field("endDateTime", Primitive.TIME),
                    Field("renewsFromDateTime", Primitive.TIME),
                    Field("changedDateTime", Primitive.TIME),
                ),
            ),
            Resource(
                path="tandem/deviceCertificateProfile",
                type="tandemDeviceCertificateProfile",
                family=Family.INTUNE,
                singleton=True,
                update_status=200,
                rows=profile,
                read=SERVICE[0],
                write=SERVICE[1],
                update=change,
                fields=(
                    Field("validityDays", Primitive.INTEGER, writable=True),
                    Field("renewalDays", Primitive.INTEGER, writable=True),
                    Field("retryDays", Primitive.INTEGER, writable=True),
                    Field("keyBits", Primitive.INTEGER, writable=True),
                    Field("keyProviders", collection=True, writable=True),
                    Field("revocationListUrl"),
                ),
            ),
        ),
        (
            Action(
                f"{_DEVICE}/revokeCertificate",
                revoke,
                PRIVILEGED,
                body=(
                    Field("certificate", writable=True, required=True),
                    Field("reason", writable=True),
                ),
                family=Family.INTUNE,
            ),
        ),
    )


def _row(one: enrollment.Certificate) -> Row:
    return {
        "id": one.fingerprint,
        "serial_number": one.serial or None,
        "state": one.state,
        "reason": one.reason or None,
        "start_date_time": one.not_before,
        "end_date_time": one.not_after,
        "renews_from_date_time": one.renews_at(0),
        "changed_date_time": one.changed_at,
    }
