"""The tenant itself: organization, domains, products, roles, MDM authority and user scope."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, licensing, oidc
from tandem.tenant.graph import permissions
from tandem.tenant.graph.model import (
    Action,
    Answer,
    BadProperty,
    Body,
    Call,
    Entity,
    Field,
    Navigation,
    Part,
    Ref,
    Resource,
    Value,
    missing,
)
from tandem.tenant.graph.service import authorize, bound_id
from tandem.tenant.oidc import MDM_APP

# ---------------------------------------------------------------------------------- organization


async def _organization(call: Call) -> Sequence[Row]:
    here = await directory.tenant(call.tx)
    initial = {item.name for item in await directory.domains(call.tx) if item.is_initial}
    plans = {
        plan.id: plan
        for subscription in await licensing.subscriptions(call.tx)
        for plan in subscription.product.plans
    }
    return [
        {
            "id": here.id,
            "display_name": here.display_name,
            "created_date_time": here.created_at,
            "mobile_device_management_authority": here.mdm_authority.value,
            "verified_domains": [
                {
                    "name": name,
                    "type": "Managed",
                    "isDefault": name == here.default_domain,
                    "isInitial": name in initial,
                    "capabilities": "Email, OfficeCommunicationsOnline",
                }
                for name in here.domains
            ],
            "assigned_plans": [
                {
                    "servicePlanId": plan.id,
                    "service": plan.service,
                    "capabilityStatus": "Enabled",
                    "assignedDateTime": here.created_at,
                }
                for plan in plans.values()
            ],
        }
    ]


async def _set_authority(call: Call, body: Body) -> Answer:
    await directory.set_mdm_authority(call.tx, call.now)
    return Value({"value": 1})


ORGANIZATION = Resource(
    path="organization",
    type="organization",
    rows=_organization,
    read=permissions.ORGANIZATION_READ,
    fields=(
        Field("id", Primitive.GUID),
        Field("displayName"),
        Field("tenantType", value=lambda _: "AAD"),
        Field("verifiedDomains", Primitive.COMPLEX, collection=True),
        Field("mobileDeviceManagementAuthority"),
        Field("createdDateTime", Primitive.TIME),
        Field("countryLetterCode", value=lambda _: None),
        *(
            Field(name, value=lambda _: None)
            for name in ("defaultUsageLocation", "city", "country", "postalCode", "state", "street")
        ),
        Field("partnerTenantType", value=lambda _: None),
        Field("privacyProfile", Primitive.COMPLEX, value=lambda _: None),
        Field("deletedDateTime", Primitive.TIME, value=lambda _: None),
        Field("onPremisesLastSyncDateTime", Primitive.TIME, value=lambda _: None),
        Field("preferredLanguage", value=lambda _: None),
        Field("assignedPlans", Primitive.COMPLEX, collection=True),
        Field("provisionedPlans", Primitive.COMPLEX, collection=True, value=lambda _: []),
        Field("technicalNotificationMails", collection=True, value=lambda _: []),
        Field("businessPhones", collection=True, value=lambda _: []),
        Field("onPremisesSyncEnabled", Primitive.BOOLEAN, value=lambda _: None),
    ),
)


# ---------------------------------------------------------------------------------- products


async def _skus(call: Call) -> Sequence[Row]:
    here = await directory.tenant(call.tx)
    rows = []
    for item in await licensing.subscriptions(call.tx):
        sku = item.product
        rows.append(
            {
                "id": f"{here.id}_{sku.sku_id}",
                "account_id": here.id,
                "account_name": here.display_name,
                "sku_id": sku.sku_id,
                "sku_part_number": sku.part_number,
                "consumed_units": item.consumed,
                "prepaid_units": {
                    "enabled": UNLIMITED if item.seats is None else item.seats,
                    "suspended": 0,
                    "warning": 0,
                    "lockedOut": 0,
                },
                "service_plans": [
                    {
                        "servicePlanId": plan.id,
                        "servicePlanName": plan.name,
                        "provisioningStatus": "Success",
                        "appliesTo": "User",
                    }
                    for plan in sku.plans
                ],
            }
        )
    return rows


# How the units of a product without a limit are shown to programs that want a number.
UNLIMITED = 1_000_000

SUBSCRIBED_SKUS = Resource(
    path="subscribedSkus",
    type="subscribedSku",
    key_is_guid=False,
    rows=_skus,
    read=permissions.LICENCES_READ,
    fields=(
        Field("id"),
        Field("accountId"),
        Field("accountName"),
        Field("appliesTo", value=lambda _: "User"),
        Field("capabilityStatus", value=lambda _: "Enabled"),
        Field("consumedUnits", Primitive.INTEGER),
        Field("prepaidUnits", Primitive.COMPLEX),
        Field("skuId", Primitive.GUID),
        Field("skuPartNumber"),
        Field("servicePlans", Primitive.COMPLEX, collection=True),
        Field("subscriptionIds", collection=True, value=lambda _: []),
    ),
)


async def _licensing(call: Call) -> Sequence[Row]:
    failed = [seat for seat in await licensing.seats(call.tx) if not seat.active]
    return [
        {
            "id": "licensing",
            "licence_required": await licensing.licence_required(call.tx),
            "failures": [
                {
                    "userId": seat.user_id,
                    "skuId": seat.sku_id,
                    "groupId": seat.by_group,
                    "error": seat.error,
                    "reason": seat.reason,
                    "cure": seat.cure,
                }
                for seat in failed
            ],
        }
    ]


async def _set_licensing(call: Call, key: str, body: Body) -> None:
    if "licenceRequired" in body:
        await licensing.require_licence(call.tx, body["licenceRequired"])


LICENSING = Resource(
    path="tandem/licensing",
    type="tandemLicensing",
    singleton=True,
    update_status=200,
    rows=_licensing,
    read=permissions.LICENCES_READ,
    write=permissions.ORGANIZATION_WRITE,
    update=_set_licensing,
    fields=(
        Field("licenceRequired", Primitive.BOOLEAN, writable=True),
        Field("failures", Primitive.COMPLEX, collection=True),
    ),
)


async def _subscribe(call: Call, body: Body) -> Answer:
    item = await licensing.subscribe(call.tx, body["sku"], body.get("seats"), call.now)
    here = await directory.tenant(call.tx)
    return Entity("subscribedSku", f"{here.id}_{item.product.sku_id}")


# ---------------------------------------------------------------------------------- MDM scope

_SHOWN = {
    directory.MdmScope.NONE: "none",
    directory.MdmScope.SOME: "selected",
    directory.MdmScope.ALL: "all",
}


_URLS = ("discoveryUrl", "termsOfUseUrl", "complianceUrl")


async def _mdm_policies(call: Call, usual: oidc.MdmUrls | None = None) -> Sequence[Row]:
    here = await directory.tenant(call.tx)
    usual = usual or oidc.usual_mdm_urls(oidc.OidcSettings(public_url=call.base))
    chosen = here.mdm_addresses
    return [
        {
            "id": MDM_APP,
            "applies_to": _SHOWN[here.mdm_scope],
            "discovery_url": chosen.discovery or usual.discovery_url,
            "terms_of_use_url": chosen.terms_of_use or usual.terms_of_use_url,
            "compliance_url": chosen.compliance or usual.compliance_url,
            "default_urls": {
                "discoveryUrl": usual.discovery_url,
                "termsOfUseUrl": usual.terms_of_use_url,
                "complianceUrl": usual.compliance_url,
            },
            "version": repr((here.mdm_scope, here.mdm_scope_groups, chosen)),
        }
    ]


def _wanted(
    body: Body, scope: directory.MdmScope, groups: Sequence[str]
) -> tuple[directory.MdmScope, list[str]]:
    """The scope that a body asks for, from the one there is."""
    shown = {value: item for item, value in _SHOWN.items()}
    wanted = shown[body["appliesTo"]] if body.get("appliesTo") else scope
    bound = body.get("includedGroups@odata.bind")
    named = list(groups) if bound is None else [bound_id(reference) for reference in bound]
    return wanted, named if wanted is directory.MdmScope.SOME else []


async def _set_mdm_policy(call: Call, key: str, body: Body) -> None:
    here = await directory.tenant(call.tx)
    if body.keys() & {"appliesTo", "includedGroups@odata.bind"}:
        scope, groups = _wanted(body, here.mdm_scope, here.mdm_scope_groups)
        await directory.set_mdm_scope(call.tx, scope, groups)
    if body.keys() & set(_URLS):
        known = here.mdm_addresses
        # Null, or nothing: the usual address again, whatever that is from now on.
        await directory.set_mdm_addresses(
            call.tx,
            directory.MdmAddresses(
                (body.get("discoveryUrl") or None) if "discoveryUrl" in body else known.discovery,
                (body.get("termsOfUseUrl") or None)
                if "termsOfUseUrl" in body
                else known.terms_of_use,
                (body.get("complianceUrl") or None)
                if "complianceUrl" in body
                else known.compliance,
            ),
        )


async def _scope_groups(call: Call, key: str) -> Sequence[Ref]:
    here = await directory.tenant(call.tx)
    return [Ref("group", item) for item in here.mdm_scope_groups]


async def _add_scope_group(call: Call, key: str, group_id: str) -> None:
    here = await directory.tenant(call.tx)
    groups = {*here.mdm_scope_groups, group_id}
    await directory.set_mdm_scope(call.tx, directory.MdmScope.SOME, sorted(groups))


async def _remove_scope_group(call: Call, key: str, group_id: str) -> None:
    here = await directory.tenant(call.tx)
    await directory.set_mdm_scope(
        call.tx, directory.MdmScope.SOME, _left(here.mdm_scope_groups, group_id, "MDM")
    )


def _left(groups: Sequence[str], gone: str, what: str) -> list[str]:
    left = sorted(set(groups) - {gone.lower()})
    if not left:
        raise BadProperty(
            f"The {what} user scope 'selected' needs at least one group.",
            cure="Set appliesTo to none, or add another group first.",
        )
    return left


MDM_POLICIES = Resource(
    path="policies/mobileDeviceManagementPolicies",
    type="mobilityManagementPolicy",
    rows=_mdm_policies,
    read=permissions.MDM_SETTINGS_READ,
    write=permissions.MDM_SETTINGS_WRITE,
    update=_set_mdm_policy,
    etag="version",
    tells_etag=False,
    fields=(
        Field("id", Primitive.GUID),
        Field("displayName", value=lambda _: "Microsoft Intune"),
        Field("appliesTo", writable=True, choices=("none", "all", "selected")),
        Field("isValid", Primitive.BOOLEAN, value=lambda _: True),
        Field("description", value=lambda _: None),
        *(Field(name, writable=True) for name in _URLS),
        # Ours: what the three addresses are when nobody chose others.
        Field("defaultUrls", Primitive.COMPLEX, shown=False),
    ),
    navigations=(
        Navigation(
            "includedGroups",
            _scope_groups,
            permissions.MDM_SETTINGS_READ,
            permissions.MDM_SETTINGS_WRITE,
            _add_scope_group,
            _remove_scope_group,
        ),
    ),
)


async def _mam_policies(call: Call) -> Sequence[Row]:
    here = await directory.tenant(call.tx)
    return [
        {
            "id": MDM_APP,
            "applies_to": _SHOWN[here.mam_scope],
            "version": repr((here.mam_scope, here.mam_scope_groups)),
        }
    ]


async def _set_mam_policy(call: Call, key: str, body: Body) -> None:
    here = await directory.tenant(call.tx)
    scope, groups = _wanted(body, here.mam_scope, here.mam_scope_groups)
    await directory.set_mam_scope(call.tx, scope, groups)


async def _mam_groups(call: Call, key: str) -> Sequence[Ref]:
    here = await directory.tenant(call.tx)
    return [Ref("group", item) for item in here.mam_scope_groups]


async def _add_mam_group(call: Call, key: str, group_id: str) -> None:
    here = await directory.tenant(call.tx)
    groups = {*here.mam_scope_groups, group_id}
    await directory.set_mam_scope(call.tx, directory.MdmScope.SOME, sorted(groups))


async def _remove_mam_group(call: Call, key: str, group_id: str) -> None:
    here = await directory.tenant(call.tx)
    await directory.set_mam_scope(
        call.tx, directory.MdmScope.SOME, _left(here.mam_scope_groups, group_id, "MAM")
    )


MAM_POLICIES = Resource(
    path="policies/mobileAppManagementPolicies",
    type="mobileAppManagementPolicy",
    rows=_mam_policies,
    read=permissions.MDM_SETTINGS_READ,
    write=permissions.MDM_SETTINGS_WRITE,
    update=_set_mam_policy,
    etag="version",
    tells_etag=False,
    fields=(
        Field("id", Primitive.GUID),
        Field("displayName", value=lambda _: "Microsoft Intune"),
        Field("appliesTo", writable=True, choices=("none", "all", "selected")),
        Field("isValid", Primitive.BOOLEAN, value=lambda _: True),
        Field("description", value=lambda _: None),
        *(Field(name, value=lambda _: None) for name in _URLS),
    ),
    navigations=(
        Navigation(
            "includedGroups",
            _mam_groups,
            permissions.MDM_SETTINGS_READ,
            permissions.MDM_SETTINGS_WRITE,
            _add_mam_group,
            _remove_mam_group,
        ),
    ),
)


async def _check_enrolment(call: Call, body: Body, usual: oidc.MdmUrls | None = None) -> Answer:
    """Whether a user's devices get the MDM addresses when they join, and what decides it.

    The same questions as at the join itself, in its order; those behind the first "no" are
    answered too, so that everything is mended at once.
    """
    await authorize(call, permissions.USERS_READ, writing=False)
    found = await directory.find_user(call.tx, body["user"])
    if found is None:
        raise missing(body["user"])
    here = await directory.tenant(call.tx)
    by = await directory.scope_groups_of(call.tx, found.id)
    names = [(await directory.group(call.tx, item)).display_name for item in by]
    located = bool(found.usage_location)
    required = await licensing.licence_required(call.tx)
    in_scope = await directory.in_mdm_scope(call.tx, found.id)
    (policy,) = await _mdm_policies(call, usual)
    scope = policy["applies_to"]
    checks = [
        _check("authority", here.mdm_authority is not directory.MdmAuthority.UNKNOWN),
        _check("account", found.account_enabled),
        _check("scope", in_scope, scope=scope, groups=names if scope == "selected" else []),
        _check(
            "premium",
            await licensing.may_enroll_automatically(call.tx, found.id),
            required=required,
            located=located,
        ),
    ]
    holds = all(item["holds"] for item in checks)
    licensed = True
    try:
        await licensing.check_mdm_licence(call.tx, found.id)
    except licensing.NoMdmLicence:
        licensed = False
    # It is asked at the enrolment that follows the join, which without it ends with 0x80180018.
    checks.append(_check("licence", licensed, required=required, located=located))
    return Value(
        {
            "userId": found.id,
            "userPrincipalName": found.user_principal_name,
            "displayName": found.display_name,
            "getsUrls": holds,
            "enrols": holds and licensed,
            "urls": {
                "discoveryUrl": policy["discovery_url"],
                "termsOfUseUrl": policy["terms_of_use_url"],
                "complianceUrl": policy["compliance_url"],
            }
            if holds
            else None,
            "checks": checks,
        }
    )


def _check(name: str, holds: bool, **facts: Any) -> dict[str, Any]:
    return {"name": name, "holds": holds, **facts}


# ---------------------------------------------------------------------------------- runs


async def _runs(call: Call) -> Sequence[Row]:
    return [
        {
            "id": run.group_id,
            "state": run.state.value,
            "total": run.total,
            "done": run.done,
            "failed": run.failed,
            "queued_date_time": run.queued_at,
            "finished_date_time": run.finished_at,
        }
        for run in await licensing.newest_runs(call.tx)
    ]


LICENCE_RUNS = Resource(
    path="tandem/licenseRuns",
    type="tandemLicenseRun",
    rows=_runs,
    read=permissions.LICENCES_READ,
    fields=(
        Field("id", Primitive.GUID),
        Field("state"),
        Field("total", Primitive.INTEGER),
        Field("done", Primitive.INTEGER),
        Field("failed", Primitive.INTEGER),
        Field("queuedDateTime", Primitive.TIME),
        Field("finishedDateTime", Primitive.TIME),
    ),
)


def organization(usual: oidc.MdmUrls | None = None) -> Part:
    """`usual` are the MDM addresses of this tenant; without them, those below the base that was
    asked."""
    policies = replace(MDM_POLICIES, rows=partial(_mdm_policies, usual=usual))
    return Part(
        (ORGANIZATION, SUBSCRIBED_SKUS, LICENSING, LICENCE_RUNS, policies, MAM_POLICIES),
        (
            Action(
                "tandem/enrollmentCheck",
                partial(_check_enrolment, usual=usual),
                permissions.MDM_SETTINGS_READ,
                body=(Field("user", writable=True, required=True),),
                asks=True,
            ),
            Action(
                "organization/{organization}/setMobileDeviceManagementAuthority",
                _set_authority,
                permissions.MDM_SETTINGS_WRITE,
                open=True,
            ),
            Action(
                "tandem/subscribe",
                _subscribe,
                permissions.ORGANIZATION_WRITE,
                body=(
                    Field("sku", writable=True, required=True),
                    Field("seats", Primitive.INTEGER, writable=True),
                ),
            ),
        ),
    )
