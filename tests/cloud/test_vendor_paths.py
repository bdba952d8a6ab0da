"""The site asks its tenant for nothing that the vendor's cloud has not: one URL points it there."""

import vendor_paths
from site_world import Site, admin, connect
from tandem.infra.clock import utc_now
from tandem.roles.site import BelowVersion
from tandem.site import fleet
from tenant_world import ADMIN, PASSWORD, World


def test_what_the_vendor_serves_is_told_from_what_is_ours() -> None:
    known = vendor_paths.knows
    one = "11111111-1111-1111-1111-111111111111"
    assert known("GET", "/v1.0/users")
    assert known("POST", f"/v1.0/applications/{one}/addPassword")
    assert known("GET", "/v1.0/deviceManagement/managedDevices")
    report = "/v1.0/deviceManagement/reports/retrieveDeviceAppInstallationStatusReport"
    assert known("POST", report)
    assert known("POST", f"/{one}/oauth2/v2.0/token")
    assert not known("GET", f"/v1.0/applications/{one}/addPassword")
    assert not known("POST", f"/v1.0/applications/{one}/grantAdminConsent")
    assert not known("GET", "/v1.0/tandem/licensing")
    assert not known("GET", "/v1.0/nonsense")
    assert not known("GET", "/healthz")


async def test_the_site_asks_for_nothing_that_the_vendor_has_not(
    contoso: tuple[Site, World],
) -> None:
    """Registration of both apps, consent, checks, a new secret, discovery, a tenant's sign-in."""
    site, world = contoso
    await world.user("ada")
    await connect(site)
    await site.run("azure-service", "verify")
    await site.run("azure-service", "renew-secret", *admin(site))
    await site.run("discovery", "run")
    account = ("--upn", "ada@contoso.com", "--tenant-id", world.tenant.id)
    await site.run("administrator", "add", "Ada", *account)
    password = site.secret("ada", PASSWORD)
    words = ("sign-in", "site", "--with-tenant", "--user", "ada@contoso.com")
    await site.run(*words, "--password-file", password)
    asked = set(site.asked)
    last = {path.rpartition("/")[2] for _, path in asked}
    assert {"organization", "applications", "servicePrincipals", "addPassword", "users"} <= last
    assert {"token", "openid-configuration", "keys"} <= last
    assert {item for item in asked if not vendor_paths.knows(*item)} == set()


async def test_what_a_tenant_s_graph_has_not_is_done_without(
    contoso: tuple[Site, World],
) -> None:
    """This tenant serves the directory alone: no devices, no apps, no statuses of theirs."""
    site, world = contoso
    await connect(site)
    joined = await world.joined(ADMIN, "LAB-001")

    async def graph() -> fleet.Graph:
        async with site.db.transaction() as tx:
            client = await site.cloud.tenants.graph(tx, await site.cloud.tenants.service(tx))
        return BelowVersion(client)

    others = fleet.Collaborators(site.cloud.tenants.tenant_id, graph)
    site.asked.clear()
    await fleet.Keeper(site.db, others, utc_now).tend()
    async with site.db.transaction() as tx:
        reading = await fleet.look(tx, utc_now())
        found = await fleet.listing(tx, fleet.Filter())
    assert fleet.silence(reading) == ""
    assert [(d.name, d.mdm_enrolled) for d in found.devices] == [("LAB-001", False)]
    assert found.devices[0].id == joined.device_id
    assert "/v1.0/deviceManagement/managedDevices" in {path for _, path in site.asked}
    assert {item for item in site.asked if not vendor_paths.knows(*item)} == set()
