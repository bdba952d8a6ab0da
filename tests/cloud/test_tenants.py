"""Tutorial step 2: the site and its tenant, over real sign-in pages and a real Graph."""

import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from site_world import Site, admin, connect, tenant_session
from tandem.infra.clock import utc_now
from tandem.site import cloud_services, collections
from tandem.site.cloud_services import BadTenantToken
from tenant_world import ADMIN, PASSWORD, World

Contoso = tuple[Site, World]
URI = "https://ConfigMgrService"


async def test_both_apps_exist_in_the_tenant_with_their_secret_sealed_here(
    contoso: Contoso,
) -> None:
    site, _ = contoso
    server, client = await connect(site)
    shown = await site.run("azure-service", "show")
    assert shown["tenant_name"] == "Contoso"
    assert [item["kind"] for item in shown["apps"]] == ["server", "client"]
    ends = shown["apps"][0]["secret_expires_at"]
    assert ends[:4] == str((utc_now() + timedelta(days=365)).year)
    registered = {item["appId"]: item for item in await site.run("app-registration", "list")}
    assert registered[server]["identifierUris"] == [URI]
    assert registered[client]["publicClient"]["redirectUris"] == ["https://ConfigMgrClient"]
    # The client app asks for Graph, and to speak to the server app for the user.
    needed = [item["resourceAppId"] for item in registered[client]["requiredResourceAccess"]]
    assert needed == ["00000003-0000-0000-c000-000000000000", server]


async def test_the_administrators_password_and_token_are_kept_nowhere(
    contoso: Contoso, capfd: pytest.CaptureFixture[str]
) -> None:
    site, _ = contoso
    await connect(site)
    kept = b""
    for file in site.folder.rglob("*"):
        if file.is_file() and "tenant" not in str(file.relative_to(site.folder)):
            kept += file.read_bytes()
    dump = ["pg_dump", "--dbname", site.db.dsn]
    try:
        kept += subprocess.run(dump, capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        async with site.db.transaction() as tx:
            names = await tx.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for row in await names.fetchall():
                found = await tx.execute(f"SELECT t::text AS row FROM {row['tablename']} t")
                kept += "\n".join([line["row"] async for line in found]).encode()
    said = capfd.readouterr()
    kept += said.out.encode() + said.err.encode()
    assert b"cloud_app" in kept or b"Contoso cloud" in kept
    assert PASSWORD.encode() not in kept
    assert not re.search(rb"eyJ[\w-]{8,}\.eyJ", kept)  # Three letters are in any long PEM file.


async def test_an_app_id_uri_in_use_is_refused_and_nothing_is_left_behind(
    contoso: Contoso,
) -> None:
    site, _ = contoso
    await site.run("azure-service", "create", "First")
    await site.run("azure-service", "create", "Second")
    options = ("--service", "First", *admin(site))
    await site.run("azure-service", "app", "create", "server", *options)
    refused = await site.refusal(
        *("azure-service", "app", "create", "server", "--service", "Second", *admin(site))
    )
    assert refused.code == "azure-service.app-id-uri-in-use"
    assert URI in refused.message
    await tenant_session(site)
    names = [item["displayName"] for item in await site.run("app-registration", "list")]
    assert names.count("ConfigMgr Server") == 1
    assert (await site.run("azure-service", "show", "--service", "Second"))["apps"] == []


async def test_someone_who_is_no_global_administrator_is_refused(contoso: Contoso) -> None:
    site, world = contoso
    await world.user("ada")
    await site.run("azure-service", "create", "Contoso cloud")
    refused = await site.refusal(
        *("azure-service", "app", "create", "server", *admin(site, "ada@contoso.com"))
    )
    assert refused.code == "azure-service.not-global-administrator"
    assert "ada@contoso.com is not a global administrator" in refused.message


async def test_a_wrong_password_is_refused_by_the_tenant_in_its_words(contoso: Contoso) -> None:
    site, _ = contoso
    await site.run("azure-service", "create", "Contoso cloud")
    wrong = ("--tenant-admin", ADMIN, "--tenant-password-file", site.secret("w", "wrong"))
    refused = await site.refusal("azure-service", "app", "create", "server", *wrong)
    assert "AADSTS50126" in refused.message


async def test_discovery_before_consent_names_the_missing_permission(contoso: Contoso) -> None:
    site, world = contoso
    await world.user("ada")
    server, _ = await connect(site, consent=False)
    refused = await site.refusal("discovery", "run")
    assert "Directory.Read.All" in refused.message
    assert refused.cure.endswith(f"`tandem app-registration consent {server}`.")
    assert refused.code == "azure-service.consent-missing"
    assert await _verify(site) == [True, False]
    # At once after consent it works: nothing of the refusal is remembered.
    await site.run("app-registration", "consent", server)
    found = await site.run("discovery", "run")
    assert (found["state"], found["users"], found["added"]) == ("succeeded", 2, 2)
    assert await _verify(site) == [True, True]
    assert (await site.run("azure-service", "verify"))["ok"]


async def test_who_asks_often_asks_with_one_token_and_with_a_new_one_after_a_refusal(
    contoso: Contoso,
) -> None:
    site, world = contoso
    await world.user("ada")
    server, _ = await connect(site, consent=False)

    async def users() -> int:
        async with site.db.transaction() as tx:
            service = await site.cloud.tenants.service(tx)
            graph = await site.cloud.tenants.kept_graph(tx, service)
        return len((await graph.get("/users"))["value"])

    with pytest.raises(cloud_services.ConsentMissing):
        await users()
    await site.run("app-registration", "consent", server)
    site.asked.clear()
    assert [await users(), await users(), await users()] == [2, 2, 2]
    assert [path for _, path in site.asked if path.endswith("/oauth2/v2.0/token")] == [
        path for _, path in site.asked[:1]
    ]
    # Another secret is another sign-in.
    await site.run("azure-service", "renew-secret", *admin(site))
    site.asked.clear()
    assert await users() == 2
    assert len([path for _, path in site.asked if path.endswith("/token")]) == 1


async def _verify(site: Site) -> list[bool]:
    async with site.db.transaction() as tx:
        return [check.ok for check in await site.cloud.tenants.verify(tx, "", utc_now())]


async def test_full_discovery_makes_user_resources_and_says_so_in_the_log(
    contoso: Contoso,
) -> None:
    site, world = contoso
    ada = await world.user("ada")
    await connect(site)
    first = await site.run("discovery", "run")
    again = await site.run("discovery", "run")
    assert (first["users"], first["added"], again["added"]) == (2, 2, 0)
    async with site.db.transaction() as tx:
        users = await collections.users(tx)
        known = await collections.find_user(tx, world.tenant.id, ada.id)
    assert {user.upn for user in users} == {ADMIN, "ada@contoso.com"}
    assert known is not None
    log = site.log("SMS_AZUREAD_DISCOVERY_AGENT")
    assert "<![LOG[Successfully published UDX for Azure Active Directory users" in log
    assert [item["state"] for item in await site.run("discovery", "status")] == ["succeeded"] * 2


async def test_discovery_that_is_not_enabled_is_refused(site: Site) -> None:
    refused = await site.refusal("discovery", "run")
    assert refused.code == "discovery.not-enabled"
    assert "tandem discovery enable" in refused.cure


async def test_a_token_for_the_site_is_verified_offline(contoso: Contoso) -> None:
    """The keys are kept: a tenant that is away does not stop devices that have a token."""
    site, world = contoso
    await connect(site)
    tokens = site.cloud.tenants
    answer = await world.user_tokens(f"{URI}/user_impersonation", upn=ADMIN)
    async with site.db.transaction() as tx:
        who = await tokens.verify_token(tx, answer["access_token"])
        assert (who.tenant_id, who.upn) == (world.tenant.id, ADMIN)
        (trusted,) = await tokens.trusted_tenants(tx)
    assert trusted.app_id_uri == URI
    assert trusted.authority.endswith(world.tenant.id)
    away = cloud_services.CloudEnvironment(authority="https://localhost:1", graph="")
    tokens.settings = cloud_services.CloudSettings(environment=away, jwks_seconds=0)
    async with site.db.transaction() as tx:
        assert (await tokens.verify_token(tx, answer["access_token"])).upn == ADMIN
        graph_token = (await world.bearer())["Authorization"].removeprefix("Bearer ")
        for stranger in (graph_token, answer["access_token"][:-8] + "AAAAAAAA", "x", "a.b.c"):
            with pytest.raises(BadTenantToken):
                await tokens.verify_token(tx, stranger)


async def test_an_app_that_exists_is_imported_and_its_secret_tried(contoso: Contoso) -> None:
    site, world = contoso
    await tenant_session(site)
    secret_file = Path(site.folder / "app-secret")
    made = await site.run(
        *("app-registration", "create", "By hand", "--secret-file", secret_file),
        *("--application-permission", "Directory.Read.All"),
    )
    await site.run("app-registration", "consent", made["app_id"])
    await site.run("azure-service", "create", "Imported")
    options = (
        *("azure-service", "app", "import", "server", "--client-id", made["app_id"]),
        *("--tenant-id", world.tenant.id, "--app-id-uri", "api://by-hand"),
    )
    wrong = ("--secret-file", site.secret("wrong", "wrong"), "--secret-expires", "2099-01-01")
    assert (await site.refusal(*options, *wrong)).code == "tenant.refuses"
    past = ("--secret-file", secret_file, "--secret-expires", "2020-01-01")
    assert "expired" in (await site.refusal(*options, *past)).message
    await site.run(*options, "--secret-file", secret_file, "--secret-expires", "2099-01-01")
    await site.run("discovery", "enable")
    assert (await site.run("discovery", "run"))["state"] == "succeeded"


async def test_a_secret_is_renewed_before_it_ends(contoso: Contoso) -> None:
    site, _ = contoso
    await connect(site)
    async with site.db.transaction() as tx:
        await tx.execute("UPDATE cloud_app SET secret_expires_at = now() + interval '5 days'")
    assert await _verify(site) == [True, True, False]
    renewed = await site.run("azure-service", "renew-secret", "--secret-years", 2, *admin(site))
    assert renewed["secret_expires_at"][:4] == str((utc_now() + timedelta(days=730)).year)
    assert await _verify(site) == [True, True]
    refused = await site.refusal("azure-service", "renew-secret", "--secret-years", 9, *admin(site))
    assert "1 or 2 years" in refused.message


async def test_update_application_settings_adds_what_is_missing_and_takes_nothing_out(
    contoso: Contoso,
) -> None:
    site, world = contoso
    await tenant_session(site)
    secret_file = Path(site.folder / "app-secret")
    # Somebody else's permission: it has to outlive the update.
    made = await site.run(
        *("app-registration", "create", "By hand", "--secret-file", secret_file),
        *("--application-permission", "Group.Read.All"),
    )
    await site.run("azure-service", "create", "Imported")
    await site.run(
        *("azure-service", "app", "import", "server", "--client-id", made["app_id"]),
        *("--tenant-id", world.tenant.id, "--app-id-uri", "api://by-hand"),
        *("--secret-file", secret_file, "--secret-expires", "2099-01-01"),
    )
    before = await _registered(site, made["app_id"])
    (theirs,) = before["requiredResourceAccess"][0]["resourceAccess"]
    assert before["api"]["oauth2PermissionScopes"] == []
    assert await _verify(site) == [True, False, False]
    await world.user("ada")
    wrong = await site.refusal("azure-service", "update-apps", *admin(site, "ada@contoso.com"))
    assert wrong.code == "azure-service.not-global-administrator"
    assert await _registered(site, made["app_id"]) == before

    done = await site.run("azure-service", "update-apps", *admin(site))
    assert done["apps"][0]["added"][:2] == ["User.Read.All", "Directory.Read.All"]
    assert done["apps"][0]["added"][-1] == "user_impersonation"
    after = await _registered(site, made["app_id"])
    access = after["requiredResourceAccess"][0]["resourceAccess"]
    assert theirs in access
    assert len(access) == 1 + 5
    assert [scope["value"] for scope in after["api"]["oauth2PermissionScopes"]] == [
        "user_impersonation"
    ]
    # Again: nothing is doubled.
    again = await site.run("azure-service", "update-apps", *admin(site))
    assert again["apps"][0]["added"] == []
    assert await _registered(site, made["app_id"]) == after
    # With the consent that follows, the app may do what discovery needs.
    await site.run("azure-service", "consent", "--grant", *admin(site))
    assert await _verify(site) == [True, True, False]


async def test_a_client_app_of_an_older_site_learns_to_speak_to_the_server_app(
    contoso: Contoso,
) -> None:
    site, _ = contoso
    await tenant_session(site)
    server, _ = await connect(site)
    made = await site.run("app-registration", "create", "Old client")
    async with site.db.transaction() as tx:
        await tx.execute("DELETE FROM cloud_app WHERE kind = 'client'")
    await site.run("azure-service", "app", "import", "client", "--client-id", made["app_id"])
    done = await site.run("azure-service", "update-apps", *admin(site))
    assert [item["added"] for item in done["apps"]] == [[], ["User.Read", "user_impersonation"]]
    after = await _registered(site, made["app_id"])
    assert server in [item["resourceAppId"] for item in after["requiredResourceAccess"]]


async def test_deletion_leaves_both_apps_in_the_tenant(contoso: Contoso) -> None:
    site, _ = contoso
    server, client = await connect(site)
    await tenant_session(site)
    await site.run("azure-service", "delete", "Contoso cloud")
    assert await site.run("azure-service", "list") == []
    left = {item["appId"] for item in await site.run("app-registration", "list")}
    assert {server, client} <= left


async def _registered(site: Site, app_id: str) -> dict[str, Any]:
    found = {item["appId"]: item for item in await site.run("app-registration", "list")}
    return dict(found[app_id])


async def test_delta_discovery_reads_what_changed_and_a_lost_link_means_a_full_run(
    contoso: Contoso,
) -> None:
    site, world = contoso
    await connect(site)
    await site.run("discovery", "enable")
    await site.run("discovery", "schedule", "--delta-minutes", 5)
    full = await site.run("discovery", "run")
    assert (full["kind"], full["state"]) == ("full", "succeeded")
    quiet = await site.run("discovery", "run", "--delta")
    assert (quiet["kind"], quiet["users"]) == ("delta", 0)
    await world.user("newcomer")
    found = await site.run("discovery", "run", "--delta")
    assert (found["users"], found["added"]) == (1, 1)
    async with site.db.transaction() as tx:
        known = await collections.find_user_named(tx, world.tenant.id, "newcomer@contoso.com")
    assert known is not None
    # Who is deleted there is no user here any more, and is in no collection.
    await site.run("user", "delete", "newcomer@contoso.com")
    left = await site.run("discovery", "run", "--delta")
    assert (left["users"], left["added"], left["removed"]) == (0, 0, 1)
    async with site.db.transaction() as tx:
        known = await collections.find_user_named(tx, world.tenant.id, "newcomer@contoso.com")
    assert known is None
    # A delta that found nothing makes room for the next.
    kinds = [(run["kind"], run["users"]) for run in await site.run("discovery", "status")]
    assert kinds == [("delta", 0), ("delta", 1), ("full", full["users"])]
    # A link that the tenant answers with 410, as it does when one has lapsed: all are read again.
    async with site.db.transaction() as tx:
        await tx.execute(
            "UPDATE discovery_schedule"
            " SET delta_link = replace(delta_link, '/users/delta', '/groups/delta')"
        )
    again = await site.run("discovery", "run", "--delta")
    assert (again["state"], again["users"]) == ("succeeded", full["users"])


async def test_discovery_runs_on_its_schedule(contoso: Contoso) -> None:
    site, _ = contoso
    await connect(site)
    await site.run("discovery", "enable")
    shown = await site.run("discovery", "schedule")
    assert (shown["full_days"], shown["delta_minutes"], shown["full_at"]) == (7, 0, None)
    refused = await site.refusal("discovery", "schedule", "--full-days", 4000)
    assert refused.code == "discovery.bad-schedule"
    await site.run("discovery", "schedule", "--full-days", 2, "--delta-minutes", 30)

    async def due() -> list[str]:
        async with site.db.transaction() as tx:
            found = [run.kind for run in await site.discovery.request_due(tx)]
            # One run at a time: what is asked for is not asked for again meanwhile.
            assert await site.discovery.request_due(tx) == []
        await site.jobs_done()
        return found

    # The first run is somebody's; from then on it repeats.
    assert await due() == []
    await site.run("discovery", "run")
    assert await due() == []
    await _back(site, "31 minutes")
    assert await due() == ["delta"]
    assert await due() == []
    await _back(site, "2 days")
    assert await due() == ["full"]
    await site.run("discovery", "schedule", "--full-days", 0, "--delta-minutes", 0)
    await _back(site, "400 days")
    assert await due() == []


async def _back(site: Site, span: str) -> None:
    async with site.db.transaction() as tx:
        await tx.execute(
            "UPDATE discovery_schedule SET full_at = full_at - %s::interval,"
            " delta_at = delta_at - %s::interval",
            (span, span),
        )
