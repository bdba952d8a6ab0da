"""Where a group is used: by apps, policies and scopes of the whole tenant."""

from pathlib import Path

import mdm_console

from tandem.infra.database import Database
from tandem.tenant import directory

GRAPH = "#microsoft.graph."


async def test_a_group_says_what_is_given_to_it(tenant_db: Database, tmp_path: Path) -> None:
    async with mdm_console.world(tenant_db, tmp_path) as (mdm, browser):
        async with mdm.database.transaction() as tx:
            group = await directory.create_group(tx, "Pilot", mdm.world.at)
            other = await directory.create_group(tx, "Others", mdm.world.at)
            await directory.set_mdm_scope(tx, directory.MdmScope.SOME, [group.id])
        target = {"@odata.type": f"{GRAPH}groupAssignmentTarget", "groupId": group.id}
        apps = "deviceAppManagement/mobileApps"
        web = {
            "@odata.type": f"{GRAPH}webApp",
            "displayName": "Intranet",
            "publisher": "Contoso",
            "appUrl": "https://intranet.example",
        }
        app = (await mdm.graph("POST", apps, web)).json()
        assigned = {"mobileAppAssignments": [{"intent": "available", "target": target}]}
        await mdm.graph("POST", f"{apps}/{app['id']}/assign", assigned)
        policies = "deviceManagement/deviceConfigurations"
        custom = {
            "@odata.type": f"{GRAPH}windows10CustomConfiguration",
            "displayName": "Baseline",
            "omaSettings": [],
        }
        policy = (await mdm.graph("POST", policies, custom)).json()
        body = {"assignments": [{"target": target}]}
        await mdm.graph("POST", f"{policies}/{policy['id']}/assign", body)
        said = await browser.text(f"/console/groups/{group.id}/used")
        assert "Intranet" in said
        assert "Baseline" in said
        assert "MDM user scope" in said
        nothing = await browser.text(f"/console/groups/{other.id}/used")
        assert "Nothing is given to this group." in nothing
