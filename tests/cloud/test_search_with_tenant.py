"""The search's half that is the tenant's: its apps over Graph, with the site's own credentials."""

from datetime import UTC, datetime

import site_world
import tenant_world
from tandem.site import administrators, search


async def test_a_tenant_that_refuses_is_said_and_the_rest_is_found(
    contoso: tuple[site_world.Site, tenant_world.World],
) -> None:
    site, _ = contoso
    others = search.Collaborators.of(site.db, site.cloud)
    who = administrators.Administrator(
        "anna", administrators.Role.FULL_ADMINISTRATOR, datetime.now(UTC)
    )
    found = await search.search(site.db, others, who, "all sys", 5)
    assert ([item.title for item in found[0]], found[1]) == (["All Systems"], [])
    # This tenant serves its directory alone.
    await site_world.connect(site)
    found, missing = await search.search(site.db, others, who, "all sys", 5)
    assert [item.title for item in found] == ["All Systems"]
    assert missing[0].startswith("The tenant refuses")
    assert ("GET", "/v1.0/deviceAppManagement/mobileApps") in site.asked
