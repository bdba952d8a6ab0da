"""The unmodified msgraph-sdk on the directory: people, groups, devices, applications, licences."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from azure.core.credentials import AccessToken
from graph_sdk import DEFAULT, EVERYTHING, Sdk, ask, connect, refused, with_headers
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_authentication_azure.azure_identity_authentication_provider import (
    AzureIdentityAuthenticationProvider,
)
from kiota_http.middleware.options import RetryHandlerOption
from msgraph import GraphServiceClient
from msgraph.generated.applications.item.add_password.add_password_post_request_body import (
    AddPasswordPostRequestBody,
)
from msgraph.generated.groups.item.assign_license.assign_license_post_request_body import (
    AssignLicensePostRequestBody as GroupLicences,
)
from msgraph.generated.models.app_role_assignment import AppRoleAssignment
from msgraph.generated.models.application import Application
from msgraph.generated.models.assigned_license import AssignedLicense
from msgraph.generated.models.device import Device
from msgraph.generated.models.group import Group
from msgraph.generated.models.o_auth2_permission_grant import OAuth2PermissionGrant
from msgraph.generated.models.password_credential import PasswordCredential
from msgraph.generated.models.password_profile import PasswordProfile
from msgraph.generated.models.public_client_application import PublicClientApplication
from msgraph.generated.models.reference_create import ReferenceCreate
from msgraph.generated.models.reference_update import ReferenceUpdate
from msgraph.generated.models.required_resource_access import RequiredResourceAccess
from msgraph.generated.models.resource_access import ResourceAccess
from msgraph.generated.models.service_principal import ServicePrincipal
from msgraph.generated.models.user import User
from msgraph.generated.users.item.assign_license.assign_license_post_request_body import (
    AssignLicensePostRequestBody as UserLicences,
)
from msgraph.graph_request_adapter import GraphRequestAdapter
from msgraph_core import PageIterator
from msgraph_core.requests.batch_request_content import BatchRequestContent
from msgraph_core.requests.batch_request_item import BatchRequestItem

from mdm_world import live_mdm
from tandem.infra.database import Database
from tandem.tenant import graph, licensing, oidc
from tenant_world import PASSWORD

pytestmark = [
    pytest.mark.slow,
    # The client leaves connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # The SDK's own batch uses what it marked as deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
EVENTUAL = {"ConsistencyLevel": "eventual"}


@pytest.fixture
async def sdk(tenant_db: Database, tmp_path: Path) -> AsyncIterator[Sdk]:
    async with (
        live_mdm(tenant_db, tmp_path) as (mdm, root, _),
        connect(mdm, root, *EVERYTHING) as made,
    ):
        yield made


def new_user(name: str, **values: object) -> User:
    return User(
        account_enabled=True,
        display_name=name.title(),
        mail_nickname=name,
        user_principal_name=f"{name}@contoso.com",
        usage_location="DE",
        password_profile=PasswordProfile(
            password=PASSWORD, force_change_password_next_sign_in=False
        ),
        **values,  # type: ignore[arg-type]
    )


def new_group(name: str) -> Group:
    return Group(
        display_name=name,
        mail_enabled=False,
        mail_nickname=name.lower(),
        security_enabled=True,
        group_types=[],
    )


def reference(sdk: Sdk, object_id: str) -> ReferenceCreate:
    return ReferenceCreate(odata_id=f"{sdk.base}/v1.0/directoryObjects/{object_id}")


async def test_people_are_made_read_changed_and_deleted(sdk: Sdk) -> None:
    users = sdk.client.users
    made = await users.post(new_user("alex", department="Sales", business_phones=["+49 1"]))
    assert UUID(made.id)
    assert made.user_principal_name == "alex@contoso.com"
    one = users.by_user_id(made.id)
    read = await one.get(ask(one, select=["id", "department", "accountEnabled", "createdDateTime"]))
    assert (read.department, read.account_enabled) == ("Sales", True)
    assert read.created_date_time.tzinfo
    assert read.user_principal_name is None, "only what was selected"
    by_name = await users.by_user_id("alex@contoso.com").get()
    assert by_name.id == made.id
    assert by_name.business_phones == ["+49 1"]
    assert await one.patch(User(job_title="Lead", account_enabled=False)) is None
    after = await one.get(ask(one, select=["jobTitle", "accountEnabled"]))
    assert (after.job_title, after.account_enabled) == ("Lead", False)
    boss = await users.post(new_user("boss"))
    await one.manager.ref.put(ReferenceUpdate(odata_id=f"{sdk.base}/v1.0/users/{boss.id}"))
    manager = await one.manager.get()
    assert (type(manager).__name__, manager.id) == ("User", boss.id)
    reports = await users.by_user_id(boss.id).direct_reports.get()
    assert [item.id for item in reports.value] == [made.id]
    await one.delete()
    await refused(one.get, 404, "Request_ResourceNotFound", made.id)
    gone = sdk.client.directory.deleted_items.by_directory_object_id(made.id)
    assert (await gone.get()).display_name == "Alex"
    assert (await gone.restore.post()).id == made.id
    assert (await one.get()).display_name == "Alex"


async def test_groups_hold_people_devices_and_groups(sdk: Sdk) -> None:
    groups = sdk.client.groups
    alex = await sdk.client.users.post(new_user("alex"))
    outer, inner = [await groups.post(new_group(name)) for name in ("Outer", "Inner")]
    assert outer.group_types == []
    at, within = groups.by_group_id(outer.id), groups.by_group_id(inner.id)
    await within.members.ref.post(reference(sdk, alex.id))
    await at.patch(
        Group(
            additional_data={"members@odata.bind": [f"{sdk.base}/v1.0/directoryObjects/{inner.id}"]}
        )
    )
    direct = (await at.members.get()).value
    assert [(type(item).__name__, item.id) for item in direct] == [("Group", inner.id)]
    every = (await at.transitive_members.get()).value
    assert {(type(item).__name__, item.id) for item in every} == {
        ("Group", inner.id),
        ("User", alex.id),
    }
    people = (await at.transitive_members.graph_user.get()).value
    assert [item.user_principal_name for item in people] == ["alex@contoso.com"]
    above = (await sdk.client.users.by_user_id(alex.id).transitive_member_of.get()).value
    assert {item.id for item in above} >= {outer.id, inner.id}
    counted = await at.transitive_members.count.get(with_headers(**EVENTUAL))
    assert counted == 2
    await refused(
        lambda: within.members.ref.post(reference(sdk, alex.id)),
        400,
        "Request_BadRequest",
        "already exist",
    )
    await within.members.by_directory_object_id(alex.id).ref.delete()
    assert (await within.members.get()).value == []
    await at.owners.ref.post(reference(sdk, alex.id))
    assert [item.id for item in (await at.owners.get()).value] == [alex.id]
    await at.patch(Group(description="All"))
    assert (await at.get()).description == "All"
    await at.delete()
    await refused(at.get, 404, "Request_ResourceNotFound")


async def test_a_device_object_is_found_changed_and_deleted(sdk: Sdk) -> None:
    device = await sdk.mdm.enrolled()
    devices = sdk.client.devices
    found = await devices.get(ask(devices, filter=f"deviceId eq '{device.joined.device_id}'"))
    (item,) = found.value
    assert (item.operating_system, item.trust_type) == ("Windows", "AzureAd")
    assert item.is_managed is True
    by_key = await sdk.client.devices_with_device_id(device.joined.device_id).get()
    assert by_key.id == item.id
    one = devices.by_device_id(item.id)
    owners = (await one.registered_owners.get()).value
    assert [owner.id for owner in owners] == [device.user.id]
    await one.patch(Device(account_enabled=False))
    assert (await one.get()).account_enabled is False
    await one.delete()
    await refused(one.get, 404, "Request_ResourceNotFound")


async def test_the_apps_of_the_tutorial_are_registered_and_consented_to(sdk: Sdk) -> None:
    """Application, principal, secret, delegated grant and app role, which then really work."""
    apps, principals = sdk.client.applications, sdk.client.service_principals
    resource = await sdk.client.service_principals_with_app_id(oidc.GRAPH).get()
    role = next(item for item in resource.app_roles if item.value == "User.Read.All")
    scope = next(item for item in resource.oauth2_permission_scopes if item.value == "User.Read")
    made = await apps.post(
        Application(
            display_name="Server app",
            identifier_uris=["https://ConfigMgrService"],
            public_client=PublicClientApplication(redirect_uris=["http://localhost"]),
            required_resource_access=[
                RequiredResourceAccess(
                    resource_app_id=oidc.GRAPH,
                    resource_access=[ResourceAccess(id=role.id, type="Role")],
                )
            ],
        )
    )
    one = apps.by_application_id(made.id)
    assert (await sdk.client.applications_with_app_id(made.app_id).get()).id == made.id
    principal = await principals.post(ServicePrincipal(app_id=made.app_id))
    secret = await one.add_password.post(
        AddPasswordPostRequestBody(password_credential=PasswordCredential(display_name="first"))
    )
    assert secret.secret_text
    assert secret.hint == secret.secret_text[:3]
    kept = (await one.get()).password_credentials
    assert [(item.key_id, item.secret_text) for item in kept] == [(secret.key_id, None)]
    await principals.by_service_principal_id(principal.id).app_role_assignments.post(
        AppRoleAssignment(
            principal_id=UUID(principal.id), resource_id=UUID(resource.id), app_role_id=role.id
        )
    )
    grant = await sdk.client.oauth2_permission_grants.post(
        OAuth2PermissionGrant(
            client_id=principal.id,
            consent_type="AllPrincipals",
            resource_id=resource.id,
            scope=scope.value,
        )
    )
    grants = principals.by_service_principal_id(principal.id).oauth2_permission_grants
    assert [item.id for item in (await grants.get()).value] == [grant.id]
    granted = (
        await principals.by_service_principal_id(resource.id).app_role_assigned_to.get()
    ).value
    assert str(principal.id) in {str(item.principal_id) for item in granted}
    answer = await sdk.mdm.world.token(
        grant_type="client_credentials",
        client_id=made.app_id,
        client_secret=secret.secret_text,
        scope="https://graph.microsoft.com/.default",
    )
    assert answer.status_code == 200, answer.text
    await sdk.client.oauth2_permission_grants.by_o_auth2_permission_grant_id(grant.id).delete()
    await one.patch(Application(display_name="Renamed"))
    assert (await one.get()).display_name == "Renamed"
    await one.delete()
    await refused(one.get, 404, "Request_ResourceNotFound")


async def test_licences_go_to_people_and_to_groups(sdk: Sdk) -> None:
    ems = UUID(licensing.product("EMSPREMIUM").sku_id)
    skus = {item.sku_id: item for item in (await sdk.client.subscribed_skus.get()).value}
    assert skus[ems].sku_part_number == "EMSPREMIUM"
    plan = next(item for item in skus[ems].service_plans if item.service_plan_name == "MFA_PREMIUM")
    alex, kim = [await sdk.client.users.post(new_user(name)) for name in ("alex", "kim")]
    one = sdk.client.users.by_user_id(alex.id)
    add = [AssignedLicense(sku_id=ems, disabled_plans=[plan.service_plan_id])]
    await one.assign_license.post(UserLicences(add_licenses=add, remove_licenses=[]))
    read = await one.get(ask(one, select=["assignedLicenses", "licenseAssignmentStates"]))
    (licence,) = read.assigned_licenses
    assert (licence.sku_id, licence.disabled_plans) == (ems, [plan.service_plan_id])
    assert [item.state for item in read.license_assignment_states] == ["Active"]
    (detail,) = (await one.license_details.get()).value
    assert detail.sku_part_number == "EMSPREMIUM"
    group = await sdk.client.groups.post(new_group("Licensed"))
    at = sdk.client.groups.by_group_id(group.id)
    await at.members.ref.post(reference(sdk, kim.id))
    add = [AssignedLicense(sku_id=ems, disabled_plans=[])]
    await at.assign_license.post(GroupLicences(add_licenses=add, remove_licenses=[]))
    two = sdk.client.users.by_user_id(kim.id)
    (state,) = (
        await two.get(ask(two, select=["licenseAssignmentStates"]))
    ).license_assignment_states
    assert (state.assigned_by_group, state.state) == (group.id, "Active")
    await refused(
        lambda: two.assign_license.post(UserLicences(add_licenses=[], remove_licenses=[ems])),
        400,
        "Request_BadRequest",
    )
    await at.assign_license.post(GroupLicences(add_licenses=[], remove_licenses=[ems]))
    await one.assign_license.post(UserLicences(add_licenses=[], remove_licenses=[ems]))
    after = {item.sku_id: item for item in (await sdk.client.subscribed_skus.get()).value}
    assert after[ems].consumed_units == 0


async def test_a_batch_does_what_it_holds(sdk: Sdk) -> None:
    """The SDK sends absolute URLs. Two things are its own: it writes dependencies as `depends_on`,
    which Graph does not know, and loses the bodies of answers (microsoft/kiota-python#737)."""
    alex = await sdk.client.users.post(new_user("alex"))
    one = sdk.client.users.by_user_id(alex.id)
    none = sdk.client.users.by_user_id("00000000-0000-0000-0000-000000000009")
    content = BatchRequestContent()

    def add(name: str, request: Any) -> None:
        content.add_request(name, BatchRequestItem(request, name))

    add("read", one.to_get_request_information())
    add("change", one.to_patch_request_information(User(job_title="Lead")))
    add("none", none.to_get_request_information())
    add("list", sdk.client.users.to_get_request_information(ask(sdk.client.users, top=1)))
    answer = await sdk.client.batch.post(content)
    assert answer.get_response_status_codes() == {
        "read": 200,
        "change": 204,
        "none": 404,
        "list": 200,
    }
    assert all("json" in item.content_type for item in answer.responses.values())
    assert (sdk.sent[-1][0], sdk.sent[-1][1]) == ("POST", f"{sdk.base}/v1.0/$batch")
    assert (await one.get(ask(one, select=["jobTitle"]))).job_title == "Lead"


async def test_all_pages_are_followed(sdk: Sdk) -> None:
    for number in range(7):
        await sdk.mdm.world.user(f"user{number}")
    users = sdk.client.users
    query = ask(users, top=3, filter="startswith(displayName,'User')", select=["id", "displayName"])
    pages = PageIterator(await users.get(query), sdk.adapter)
    seen: list[str] = []
    await pages.iterate(lambda user: seen.append(user.display_name) or True)
    assert sorted(seen) == [f"User{number}" for number in range(7)]
    assert [status for _, url, status in sdk.sent if "startswith" in url] == [200, 200, 200]
    # It can stop, and go on later.
    pages = PageIterator(await users.get(query), sdk.adapter)
    seen.clear()
    await pages.iterate(lambda user: seen.append(user.display_name) or len(seen) != 4)
    assert len(seen) == 4
    await pages.iterate(lambda user: seen.append(user.display_name) or True)
    assert len(set(seen)) == len(seen) == 7


async def test_advanced_questions_need_the_header(sdk: Sdk) -> None:
    for name in ("anna", "bert"):
        await sdk.mdm.world.user(name)
    users = sdk.client.users
    hard = {"filter": "endswith(userPrincipalName,'bert@contoso.com')", "count": True}
    await refused(
        lambda: users.get(ask(users, **hard)), 400, "Request_UnsupportedQuery", "ConsistencyLevel"
    )
    found = await users.get(ask(users, EVENTUAL, **hard, orderby=["displayName"]))
    assert found.odata_count == 1
    assert [item.display_name for item in found.value] == ["Bert"]
    searched = await users.get(ask(users, EVENTUAL, search='"displayName:ann"'))
    assert [item.display_name for item in searched.value] == ["Anna"]
    assert await users.count.get(with_headers(**EVENTUAL)) == 3
    await refused(users.count.get, 400, "Request_BadRequest", "$count")


async def test_refusals_arrive_as_odata_errors(sdk: Sdk) -> None:
    users = sdk.client.users
    taken = new_user("alex")
    await users.post(taken)
    error = await refused(lambda: users.post(taken), 400, "Request_BadRequest")
    assert [item.code for item in error.error.details] == ["ObjectConflict"]
    await refused(lambda: users.get(ask(users, filter="displayName eq")), 400, "Request_BadRequest")
    await refused(
        lambda: users.get(ask(users, select=["nonsense"])), 400, "Request_BadRequest", "nonsense"
    )
    nobody = users.by_user_id("nobody@contoso.com")
    await refused(nobody.get, 404, "Request_ResourceNotFound", "nobody@contoso.com")
    async with connect(sdk.mdm, sdk.root, "User.Read.All") as reader:
        await refused(
            lambda: reader.client.users.post(new_user("kim")),
            403,
            "Authorization_RequestDenied",
        )
        policies = reader.client.device_management.device_configurations
        await refused(policies.get, 403, "Forbidden")


class Nobody:
    """A credential whose tokens are not ours."""

    async def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken("eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln", int(time.time()) + 3600)

    async def close(self) -> None:
        pass


async def test_a_token_of_somebody_else_is_refused_as_an_odata_error(sdk: Sdk) -> None:
    provider = AzureIdentityAuthenticationProvider(Nobody(), scopes=[DEFAULT])
    adapter = GraphRequestAdapter(provider, sdk.adapter._http_client)
    adapter.base_url = f"{sdk.base}/v1.0"
    other: Any = GraphServiceClient(request_adapter=adapter)
    await refused(other.users.get, 401, "InvalidAuthenticationToken")


async def test_the_default_client_s_double_slash_is_understood(sdk: Sdk) -> None:
    """A client without a base URL of its own sends /v1.0//organization."""
    async with connect(
        sdk.mdm, sdk.root, "Organization.Read.All", base=f"{sdk.base}/v1.0/"
    ) as other:
        (here,) = (await other.client.organization.get()).value
        assert here.id == sdk.mdm.world.tenant.id
        assert str(here.mobile_device_management_authority.value) == "intune"
        assert [item.name for item in here.verified_domains] == ["contoso.com"]
        assert "/v1.0//organization" in other.sent[-1][1]


async def follow(page: Any, builder: Any) -> tuple[list[Any], str]:
    """Everything from this page of a delta on, and the link that ends it."""
    found = list(page.value)
    while page.odata_next_link:
        page = await builder.with_url(page.odata_next_link).get()
        found += page.value
    return found, page.odata_delta_link


async def test_a_delta_tells_what_came_changed_and_went(sdk: Sdk) -> None:
    users = sdk.client.users
    kept, dropped = [await users.post(new_user(name)) for name in ("kept", "dropped")]
    delta = users.delta
    everybody, link = await follow(
        await delta.get(ask(delta, select=["displayName"], top=2)), delta
    )
    assert {kept.id, dropped.id} < {item.id for item in everybody}
    await users.by_user_id(kept.id).patch(User(display_name="Renamed"))
    await users.by_user_id(dropped.id).delete()
    fresh = await users.post(new_user("fresh"))
    changes, link = await follow(await delta.with_url(link).get(), delta)
    told = {item.id: item for item in changes}
    assert told[kept.id].display_name == "Renamed"
    assert told[fresh.id].display_name == "Fresh"
    assert told[dropped.id].additional_data["@removed"] == {"reason": "changed"}
    assert (await delta.with_url(link).get()).value == []


async def test_a_delta_of_groups_tells_members_that_came_and_went(sdk: Sdk) -> None:
    groups = sdk.client.groups
    alex = await sdk.client.users.post(new_user("alex"))
    group = await groups.post(new_group("Pilot"))
    members = groups.by_group_id(group.id).members
    only = ask(groups.delta, filter=f"id eq '{group.id}'")
    _, link = await follow(await groups.delta.get(only), groups.delta)
    await members.ref.post(reference(sdk, alex.id))
    (came,), link = await follow(await groups.delta.with_url(link).get(), groups.delta)
    (member,) = came.additional_data["members@delta"]
    assert member["@odata.type"] == "#microsoft.graph.user"
    assert str(member["id"]) == alex.id
    await members.by_directory_object_id(alex.id).ref.delete()
    (went,), link = await follow(await groups.delta.with_url(link).get(), groups.delta)
    (member,) = went.additional_data["members@delta"]
    assert (str(member["id"]), member["@removed"]) == (alex.id, {"reason": "deleted"})


async def test_who_asks_too_often_is_asked_to_wait_and_waits(
    tenant_db: Database, tmp_path: Path
) -> None:
    """The SDK's own handler reads Retry-After, waits, and the caller never learns of it."""
    limits = graph.GraphSettings(app_requests_per_second=1, burst_seconds=2)
    async with (
        live_mdm(tenant_db, tmp_path, limits=limits) as (mdm, root, _),
        connect(mdm, root, "Organization.Read.All") as sdk,
    ):
        organization = sdk.client.organization
        for _ in range(2):
            await organization.get()
        begun = time.monotonic()
        third = asyncio.create_task(organization.get())
        async with asyncio.timeout(20):
            while [status for _, _, status in sdk.sent] != [200, 200, 429]:
                await asyncio.sleep(0.01)
        mdm.world.wait(seconds=5)  # The service's clock stands still otherwise.
        assert (await third).value
        assert time.monotonic() - begun >= 1
        assert [status for _, _, status in sdk.sent] == [200, 200, 429, 200]
        # In a batch each request is throttled for itself, and says when to come again.
        content = BatchRequestContent()
        for number in range(4):
            request = organization.to_get_request_information()
            content.add_request(str(number), BatchRequestItem(request, str(number)))
        answer = await sdk.client.batch.post(content)
        statuses = answer.get_response_status_codes()
        assert sorted(statuses.values())[-1] == 429
        late = next(name for name, status in statuses.items() if status == 429)
        assert answer.get_response_by_id(late).headers["Retry-After"].isdigit()
        # A client that waits for nothing is told.
        impatient = RequestConfiguration(options=[RetryHandlerOption(max_retries=0)])
        await refused(lambda: organization.get(impatient), 429, "TooManyRequests")
