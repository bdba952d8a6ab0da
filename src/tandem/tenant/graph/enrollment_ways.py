"""How devices may enrol, and tokens for single devices. Ours only: Graph has no such resource.

GET, PATCH  tandem/enrollmentOptions     {passwordEnrollment, termsOfUseEnglish, …}
POST        tandem/enrollmentTokens      {user, lifetimeInMinutes, deviceName} → {token, …} once
GET, DELETE tandem/enrollmentTokens/{id}
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, enrollment
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    BadProperty,
    Body,
    Call,
    Created,
    Field,
    Part,
    Resource,
)

_MINUTES = 15
# A property of the resource, and the option that it is.
_OPTIONS = {
    "passwordEnrollment": "password_enrollment",
    "termsOfUseEnglish": "terms_en",
    "termsOfUseFrench": "terms_fr",
    "maintenance": "maintenance",
    "refusalText": "refusal_text",
}


async def _options(call: Call) -> Sequence[Row]:
    chosen = await enrollment.options(call.tx)
    row = {name: getattr(chosen, name) for name in _OPTIONS.values()}
    return [{"id": "enrollmentOptions", **row, "passwords": chosen.passwords}]


async def _choose(call: Call, key: str, body: Body) -> None:
    before = await enrollment.options(call.tx)
    changes: dict[str, Any] = {
        _OPTIONS[name]: value.strip() if isinstance(value, str) else value
        for name, value in body.items()
        if value is not None
    }
    await enrollment.choose(call.tx, replace(before, **changes))
    call.note(changed=sorted(body))


OPTIONS = Resource(
    path="tandem/enrollmentOptions",
    type="tandemEnrollmentOptions",
    singleton=True,
    update_status=200,
    rows=_options,
    read=permissions.MDM_SETTINGS_READ,
    write=permissions.MDM_SETTINGS_WRITE,
    update=_choose,
    fields=(
        Field(
            "passwordEnrollment",
            Primitive.BOOLEAN,
            writable=True,
            column=_OPTIONS["passwordEnrollment"],
        ),
        # What a device is told: nobody can accept terms where a password is all there is.
        Field("offersPasswords", Primitive.BOOLEAN, column="passwords"),
        Field("termsOfUseEnglish", writable=True, column=_OPTIONS["termsOfUseEnglish"]),
        Field("termsOfUseFrench", writable=True, column=_OPTIONS["termsOfUseFrench"]),
        Field("maintenance", Primitive.BOOLEAN, writable=True, column=_OPTIONS["maintenance"]),
        Field("refusalText", writable=True, column=_OPTIONS["refusalText"]),
    ),
)


def _tokens(service: enrollment.Enrollment) -> Resource:
    async def create(call: Call, body: Body) -> Created:
        user = await directory.user(call.tx, body["user"])
        minutes = body.get("lifetimeInMinutes")
        try:
            lifetime = timedelta(minutes=_MINUTES if minutes is None else minutes)
        except OverflowError:
            raise BadProperty(
                "A token lives from a minute to a day.",
                cure="Choose 1 to 1,440 minutes.",
                target="lifetimeInMinutes",
            ) from None
        made, text = await service.credentials.issue(
            call.tx,
            enrollment.Way.PROGRAMMATIC,
            user,
            lifetime=lifetime,
            issued_by=call.caller.name or call.caller.object_id,
            device_name=(body.get("deviceName") or "").strip(),
        )
        call.note(name=user.user_principal_name)
        url = f"{service.public_url}/EnrollmentServer/Discovery.svc"
        return Created(made.id, {"token": text, "discoveryUrl": url})

    async def delete(call: Call, key: str) -> None:
        found = await enrollment.revoke_token(call.tx, key)
        call.note(name=found.upn)

    return Resource(
        path="tandem/enrollmentTokens",
        type="tandemEnrollmentToken",
        rows=enrollment.TOKENS,
        read=permissions.MDM_SETTINGS_READ,
        write=permissions.MDM_SETTINGS_WRITE,
        create=create,
        delete=delete,
        fields=(
            Field("id", Primitive.GUID),
            Field("user", writable=True, required=True, readable=False),
            Field("lifetimeInMinutes", Primitive.INTEGER, writable=True, readable=False),
            Field("userId", Primitive.GUID),
            Field("userPrincipalName"),
            Field("deviceName", writable=True),
            Field("issuedBy"),
            Field("createdDateTime", Primitive.TIME),
            Field("expirationDateTime", Primitive.TIME),
            Field("usedDateTime", Primitive.TIME),
            Field("managedDeviceId"),
        ),
    )


def enrollment_ways(service: enrollment.Enrollment) -> Part:
    return Part((OPTIONS, _tokens(service)))
