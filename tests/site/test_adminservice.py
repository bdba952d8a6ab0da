"""The AdminService as scripts ask it."""

from typing import Any

import pytest

from site_api import NOW, Api, add_device
from tandem.site import collections

BASE = "/AdminService/wmi"


@pytest.fixture
async def fleet(api: Api) -> Api:
    async with api.db.transaction() as tx:
        for name in ("LAB-001", "LAB-002", "DEV-001"):
            await add_device(tx, name)
        await collections.create(
            tx,
            "CM1",
            "Lab",
            query="select * from SMS_R_System where Name like 'LAB-%'",
            actor="t",
            now=NOW,
        )
    return api


async def values(api: Api, path: str, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.get(f"{BASE}/{path}", **query))["value"]
    return found


async def test_devices_are_systems(fleet: Api) -> None:
    answer = await fleet.get(f"{BASE}/SMS_R_System")
    assert answer["@odata.context"] == "https://site.test/AdminService/wmi/$metadata#SMS_R_System"
    assert [item["Name"] for item in answer["value"]] == ["LAB-001", "LAB-002", "DEV-001"]
    first = answer["value"][0]
    assert first["ResourceId"] >= 16_777_216
    assert first["SMSUniqueIdentifier"] == "GUID:LAB-001"
    assert first["OperatingSystemNameandVersion"] == "Windows 10.0.22631.1"


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("Name eq 'lab-001'", ["LAB-001"]),
        ("startswith(Name,'LAB') eq true", ["LAB-001", "LAB-002"]),
        ("contains(tolower(Name),'-001') and ResourceId gt 0", ["LAB-001", "DEV-001"]),
        ("Client eq 1 and not startswith(Name,'LAB')", ["DEV-001"]),
        ("CreationDate gt 2030-01-01T00:00:00Z", []),
    ],
)
async def test_conditions(fleet: Api, condition: str, names: list[str]) -> None:
    found = await values(fleet, "sms_r_system/", **{"$filter": condition})
    assert [item["Name"] for item in found] == names


async def test_order_part_and_count(fleet: Api) -> None:
    answer = await fleet.get(
        f"{BASE}/SMS_R_System",
        **{"$orderby": "Name desc", "$top": "1", "$skip": "1", "$count": "true", "$select": "name"},
    )
    assert answer["@odata.count"] == 3
    assert answer["value"] == [{"Name": "LAB-001"}]
    assert "@odata.nextLink" not in answer


async def test_one_object_of_wmi_is_a_list_of_one(fleet: Api) -> None:
    (system,) = await values(fleet, "SMS_R_System", **{"$filter": "Name eq 'DEV-001'"})
    for path in (f"SMS_R_System({system['ResourceId']})", f"SMS_R_System/{system['ResourceId']}"):
        assert await values(fleet, path) == [system]
    (all_systems,) = await values(fleet, "SMS_Collection('SMS00001')")
    assert (all_systems["Name"], all_systems["MemberCount"]) == ("All Systems", 3)
    plain = await fleet.get(f"/AdminService/v1.0/Device({system['ResourceId']})")
    assert (plain["Name"], plain["SMSID"]) == ("DEV-001", "GUID:DEV-001")


async def test_collections_with_their_members_counted(fleet: Api) -> None:
    condition = {"$filter": "MemberCount lt 3", "$orderby": "Name"}
    (lab,) = await values(fleet, "SMS_Collection", **condition)
    assert (lab["Name"], lab["MemberCount"], lab["LimitToCollectionID"]) == ("Lab", 2, "SMS00001")
    (site,) = await values(fleet, "SMS_Site")
    assert site["SiteCode"] == "CM1"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/AdminService/wmi/SMS_Nothing", 404),
        ("/AdminService/wmi/SMS_R_System(1)", 404),
        ("/AdminService/wmi/SMS_R_System('; drop table x')", 404),
        ("/AdminService/v2.0/Device", 404),
        ("/AdminService/wmi/", 404),
        ("/AdminService/wmi/SMS_R_System?$filter=Password eq 'x'", 400),
        ("/AdminService/wmi/SMS_R_System?$filter=Name eq", 400),
        ("/AdminService/wmi/SMS_R_System?$orderby=Password", 400),
        ("/AdminService/wmi/SMS_R_System?$select=Password", 400),
        ("/AdminService/wmi/SMS_Collection?$orderby=Password", 400),
        ("/AdminService/wmi/SMS_R_System?$top=x", 400),
    ],
)
async def test_what_is_not_there_is_said(fleet: Api, path: str, status: int) -> None:
    code, error = await fleet.refusal("GET", path)
    assert code == status
    assert error["message"]


async def test_scripts_sign_in_like_everybody(fleet: Api) -> None:
    del fleet.web.headers["Authorization"]
    assert (await fleet.web.get(f"{BASE}/SMS_R_System")).status_code == 401
