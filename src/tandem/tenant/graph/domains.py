"""Domains by which users are called: added, verified by a TXT record, made the default, deleted."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Created,
    Entity,
    Field,
    Part,
    Resource,
)

# The TXT records of a name, as DNS has them now; empty when it has none.
Texts = Callable[[str], Awaitable[Sequence[str]]]


async def _domains(call: Call) -> Sequence[Row]:
    return [
        {
            "id": item.name,
            "default": item.is_default,
            "initial": item.is_initial,
            "verified": item.is_verified,
        }
        for item in await directory.domains(call.tx)
    ]


async def _create(call: Call, body: Body) -> Created:
    return Created((await directory.add_domain(call.tx, body["id"])).name)


async def _update(call: Call, key: str, body: Body) -> None:
    if body.get("isDefault") is False:
        raise BadProperty(
            "A tenant has one default domain.",
            cure="Make another domain the default instead.",
            target="isDefault",
        )
    if body.get("isDefault"):
        await directory.make_default(call.tx, key)


async def _delete(call: Call, key: str) -> None:
    await directory.delete_domain(call.tx, key)


DOMAINS = Resource(
    path="domains",
    type="domain",
    key_is_guid=False,
    rows=_domains,
    read=permissions.ORGANIZATION_READ,
    write=permissions.DOMAINS_WRITE,
    create=_create,
    update=_update,
    delete=_delete,
    fields=(
        Field("id", writable=True, required=True),
        Field("authenticationType", value=lambda _: "Managed"),
        Field("availabilityStatus", value=lambda _: None),
        Field("isDefault", Primitive.BOOLEAN, column="default", writable=True),
        Field("isInitial", Primitive.BOOLEAN, column="initial"),
        Field("isRoot", Primitive.BOOLEAN, value=lambda _: True),
        Field("isVerified", Primitive.BOOLEAN, column="verified"),
        Field("isAdminManaged", Primitive.BOOLEAN, value=lambda _: True),
        Field("supportedServices", collection=True, value=lambda _: ["Email", "Intune"]),
        Field("passwordValidityPeriodInDays", Primitive.INTEGER, value=lambda _: None),
        Field("passwordNotificationWindowInDays", Primitive.INTEGER, value=lambda _: None),
        Field("state", Primitive.COMPLEX, value=lambda _: None),
    ),
)


def _record(item: directory.Domain) -> dict[str, Any]:
    return {
        "id": f"{item.name}_txt",
        "label": item.name,
        "record_type": "Txt",
        "text": item.challenge,
        "ttl": 3600,
    }


async def _records(call: Call) -> Sequence[Row]:
    item = await directory.domain(call.tx, call.keys["domain"])
    return [_record(item)] if item.challenge else []


RECORDS = Resource(
    path="domains/{domain}/verificationDnsRecords",
    type="domainDnsTxtRecord",
    key_is_guid=False,
    rows=_records,
    read=permissions.ORGANIZATION_READ,
    typed=lambda _: "domainDnsTxtRecord",
    fields=(
        Field("id"),
        Field("isOptional", Primitive.BOOLEAN, value=lambda _: False),
        Field("label"),
        Field("recordType"),
        Field("supportedService", value=lambda _: "Email"),
        Field("ttl", Primitive.INTEGER),
        Field("text"),
    ),
)


def domains(texts: Texts) -> Part:
    async def verify(call: Call, body: Body) -> Answer:
        item = await directory.domain(call.tx, call.keys["domain"])
        found = [] if item.is_verified else await texts(item.name)
        await directory.verify_domain(call.tx, item.name, found)
        return Entity("domain", item.name)

    return Part(
        (DOMAINS, RECORDS),
        (Action("domains/{domain}/verify", verify, permissions.DOMAINS_WRITE, open=True),),
    )
