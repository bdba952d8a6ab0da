"""The tenant itself: organization, domains, products, roles, MDM authority and user scope."""

from collections.abc import Callable, Sequence

from tandem.infra.listing import Row
from tandem.protocols.odata import Primitive
from tandem.tenant import directory, licensing
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
)
from tandem.tenant.graph.service import bound_id
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


async def _mdm_policies(call: Call) -> Sequence[Row]:
    here = await directory.tenant(call.tx)
    return [{"id": MDM_APP, "applies_to": _SHOWN[here.mdm_scope], "base": call.base}]


def _mdm_url(path: str) -> Callable[[Row], str]:
    return lambda row: f"{row['base']}/{path}"


async def _set_mdm_policy(call: Call, key: str, body: Body) -> None:
    here = await directory.tenant(call.tx)
    shown = {value: scope for scope, value in _SHOWN.items()}
    scope = shown[body["appliesTo"]] if body.get("appliesTo") else here.mdm_scope
    bound = body.get("includedGroups@odata.bind")
    groups = list(here.mdm_scope_groups)
    if bound is not None:
        groups = [bound_id(reference) for reference in bound]
    if scope is not directory.MdmScope.SOME:
        groups = []
    await directory.set_mdm_scope(call.tx, scope, groups)


async def _scope_groups(call: Call, key: str) -> Sequence[Ref]:
    here = await directory.tenant(call.tx)
    return [Ref("group", item) for item in here.mdm_scope_groups]


async def _add_scope_group(call: Call, key: str, group_id: str) -> None:
    here = await directory.tenant(call.tx)
    groups = {*here.mdm_scope_groups, group_id}
    await directory.set_mdm_scope(call.tx, directory.MdmScope.SOME, sorted(groups))


async def _remove_scope_group(call: Call, key: str, group_id: str) -> None:
    here = await directory.tenant(call.tx)
    left = sorted(set(here.mdm_scope_groups) - {group_id.lower()})
    if not left:
        raise BadProperty(
            "The MDM user scope 'selected' needs at least one group.",
            cure="Set appliesTo to none, or add another group first.",
        )
    await directory.set_mdm_scope(call.tx, directory.MdmScope.SOME, left)


MDM_POLICIES = Resource(
    path="policies/mobileDeviceManagementPolicies",
    type="mobilityManagementPolicy",
    rows=_mdm_policies,
    read=permissions.MDM_SETTINGS_READ,
    write=permissions.MDM_SETTINGS_WRITE,
    update=_set_mdm_policy,
    fields=(
        Field("id", Primitive.GUID),
        Field("displayName", value=lambda _: "Microsoft Intune"),
        Field("appliesTo", writable=True, choices=("none", "all", "selected")),
        Field("isValid", Primitive.BOOLEAN, value=lambda _: True),
        Field("description", value=lambda _: None),
        Field("discoveryUrl", value=_mdm_url("EnrollmentServer/Discovery.svc"), needs=("base",)),
        Field("termsOfUseUrl", value=_mdm_url("TermsOfUse.aspx"), needs=("base",)),
        Field("complianceUrl", value=_mdm_url("portal/compliance"), needs=("base",)),
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


def organization() -> Part:
    return Part(
        (ORGANIZATION, SUBSCRIBED_SKUS, LICENSING, LICENCE_RUNS, MDM_POLICIES),
        (
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
