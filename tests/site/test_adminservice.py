"""The AdminService as scripts ask it: reading, writing, refusing."""

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from site_api import CHEAP, NOW, TENANT, Api, add_device
from tandem import audit
from tandem.site import administrators, clients, collections
from tandem.site.administrators import Role
from tandem.site.adminservice import NoSuchClass, paths

BASE = "/AdminService/wmi"
DIRECT = "#AdminService.SMS_CollectionRuleDirect"
QUERY = "#AdminService.SMS_CollectionRuleQuery"
EDM = "{http://docs.oasis-open.org/odata/ns/edm}"


@pytest.fixture
async def fleet(api: Api) -> Api:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001", flags=8193)
        await add_device(tx, "LAB-002", policy=False)
        await add_device(tx, "DEV-001", enrolled=False, policy=False)
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


async def post(api: Api, path: str, body: Any = None) -> dict[str, Any]:
    answer = await api.web.post(f"{BASE}/{path}", json=body)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def resource_id(api: Api, name: str) -> int:
    (found,) = await values(api, "SMS_R_System", **{"$filter": f"Name eq '{name}'"})
    return int(found["ResourceId"])


async def lab(api: Api) -> str:
    (found,) = await values(api, "SMS_Collection", **{"$filter": "Name eq 'Lab'"})
    return str(found["CollectionID"])


async def sign_in_as(api: Api, role: Role) -> None:
    name, password = f"someone-{role.name}", "Correct-Horse-9"
    async with api.db.transaction() as tx:
        await administrators.add(tx, name, password, role, actor="t", now=NOW, settings=CHEAP)
    await api.sign_in(name, password)


# ------------------------------------------------------------------------------- reading


async def test_devices_are_systems(fleet: Api) -> None:
    answer = await fleet.get(f"{BASE}/SMS_R_System")
    assert answer["@odata.context"] == "https://site.test/AdminService/wmi/$metadata#SMS_R_System"
    assert [item["Name"] for item in answer["value"]] == ["LAB-001", "LAB-002", "DEV-001"]
    first = answer["value"][0]
    assert first["ResourceId"] >= 16_777_216
    assert first["SMSUniqueIdentifier"] == "GUID:LAB-001"
    assert first["OperatingSystemNameandVersion"] == "Windows 10.0.22631.1"
    assert first["CreationDate"] == "2026-11-24T09:00:00Z"
    assert first["SMSAssignedSites"] == ["CM1"]
    assert first["__LAZYPROPERTIES"] == []
    assert first["@odata.etag"].startswith('W/"')


CONDITIONS: list[tuple[str, list[str] | None]] = [
    ("Name eq 'lab-001'", ["LAB-001"]),
    ("startswith(Name,'LAB') eq true", ["LAB-001", "LAB-002"]),
    ("startswith(Name,'LAB') eq false", ["DEV-001"]),
    ("endswith(Name,'-001') eq true and Client eq 1", ["LAB-001", "DEV-001"]),
    ("contains(tolower(Name),'-001') and ResourceId gt 0", ["LAB-001", "DEV-001"]),
    ("tolower(Name) eq 'dev-001'", ["DEV-001"]),
    ("Client eq 1 and not startswith(Name,'LAB')", ["DEV-001"]),
    ("name in ('LAB-002','x')", ["LAB-002"]),
    ("Name ge 'LAB-001' or Name lt 'E'", ["LAB-001", "LAB-002", "DEV-001"]),
    ("CreationDate gt 2030-01-01T00:00:00Z", []),
    ("CreationDate le 2026-11-24T09:00:00Z and Active eq 1 and Name ne 'x'", None),
    ("SMSAssignedSites/any(s: s eq 'CM1') and Name eq 'DEV-001'", ["DEV-001"]),
    ("Name eq ''' or 1 eq 1'", []),
    ("Name eq '%'", []),
    ("startswith(Name,'%')", []),
]


async def test_conditions(fleet: Api) -> None:
    for condition, names in CONDITIONS:
        found = await values(fleet, "sms_r_system/", **{"$filter": condition})
        assert [item["Name"] for item in found] == (names or []) or names is None
        assert names is not None or len(found) == 3


async def test_order_part_and_count(fleet: Api) -> None:
    answer = await fleet.get(
        f"{BASE}/SMS_R_System",
        **{"$orderby": "Name desc", "$top": "1", "$skip": "1", "$count": "true", "$select": "name"},
    )
    assert answer["@odata.count"] == 3
    (row,) = answer["value"]
    assert (row.pop("@odata.etag")[:3], row) == ('W/"', {"Name": "LAB-001"})
    assert "@odata.nextLink" not in answer
    count = await fleet.web.get(f"{BASE}/SMS_R_System/$count?$filter=startswith(Name,'LAB')")
    assert count.text == "2"


WAYS = [
    "SMS_R_System({id})",
    "SMS_R_System/{id}",
    "sms_r_SYSTEM('{id}')",
    "SMS_R_System(resourceid={id})",
    "/SMS_R_System//{id}/",
    "//SMS_CombinedDeviceResources({id})",
]


async def test_every_way_to_write_one_object(fleet: Api) -> None:
    for path in WAYS:
        id = await resource_id(fleet, "DEV-001")
        (found,) = await values(fleet, path.format(id=id))
        assert found["Name"] == "DEV-001"


DOORS = [
    "/adminservice/WMI/sms_site",
    "//AdminService//wmi//SMS_Site",
    "/AdminService_TokenAuth/wmi/SMS_Site",
    "/ADMINSERVICE_TOKENAUTH/wmi/SMS_Site('cm1')",
]


async def test_both_doors_in_any_letter_case(api: Api) -> None:
    for path in DOORS:
        answer = await api.web.get(f"https://site.test{path}")
        assert [site["SiteCode"] for site in answer.json()["value"]] == ["CM1"]
        door = "AdminService_TokenAuth" if "token" in path.lower() else "AdminService"
        assert answer.json()["@odata.context"].startswith(
            f"https://site.test/{door}/wmi/$metadata#"
        )


async def test_one_object_of_v1_is_plain(fleet: Api) -> None:
    id = await resource_id(fleet, "DEV-001")
    plain = await fleet.get(f"/AdminService/v1.0/Device({id})")
    assert plain["@odata.context"].endswith("/AdminService/v1.0/$metadata#Device/$entity")
    assert (plain["Name"], plain["SMSID"], plain["IsClient"]) == ("DEV-001", "GUID:DEV-001", 1)


async def test_what_both_authorities_have_is_told_of_a_device(fleet: Api) -> None:
    async with fleet.db.transaction() as tx:
        await clients.block(tx, "GUID:DEV-001", actor="t", now=NOW)
    by_name = {item["Name"]: item for item in await values(fleet, "SMS_CombinedDeviceResources")}
    told = {
        name: (item["CoManaged"], item["ManagementAuthority"], item["IsBlocked"])
        for name, item in by_name.items()
    }
    assert told == {
        "LAB-001": (True, 10, False),
        "LAB-002": (False, 10, False),
        "DEV-001": (False, 8, True),
    }
    assert by_name["LAB-001"]["IsApproved"] == 1
    assert by_name["LAB-001"]["LastActiveTime"] == "2026-11-24T09:00:00Z"
    assert by_name["LAB-001"]["AADTenantID"] == TENANT
    for condition in ("CoManaged eq true", "CoManaged eq 1", "IsBlocked ne true and CoManaged"):
        found = await values(fleet, "SMS_CombinedDeviceResources", **{"$filter": condition})
        assert [item["Name"] for item in found] == ["LAB-001"], condition
    fleet.wait(days=8)
    await fleet.sign_in()
    assert not (await values(fleet, "SMS_CombinedDeviceResources"))[0]["IsActive"]


async def test_rules_are_lazy(fleet: Api) -> None:
    id = await lab(fleet)
    listed = {item["CollectionID"]: item for item in await values(fleet, "SMS_Collection")}
    assert listed[id]["__LAZYPROPERTIES"] == ["RefreshSchedule", "CollectionRules"]
    assert listed[id]["CollectionRules"] is None
    for path in (
        f"SMS_Collection('{id}')",
        f"SMS_Collection/{id}",
        f"sms_collection('{id.lower()}')",
    ):
        (one,) = await values(fleet, path)
        assert one["CollectionRules"] == [
            {
                "@odata.type": QUERY,
                "RuleName": "Lab",
                "QueryExpression": "select * from SMS_R_System where Name like 'LAB-%'",
                "QueryID": one["CollectionRules"][0]["QueryID"],
            }
        ]


async def test_collections_with_their_members_counted(fleet: Api) -> None:
    condition = {"$filter": "MemberCount lt 3 and CollectionType eq 2", "$orderby": "MemberCount"}
    (found,) = await values(fleet, "SMS_Collection", **condition)
    shown = (found["Name"], found["MemberCount"], found["LimitToCollectionID"])
    assert shown == ("Lab", 2, "SMS00001")
    (everything,) = await values(fleet, "SMS_Collection('SMS00001')")
    assert (everything["MemberCount"], everything["IsBuiltIn"]) == (3, True)
    ordered = await values(fleet, "SMS_Collection", **{"$orderby": "MemberCount desc,Name"})
    assert [item["Name"] for item in ordered] == [
        "All Desktop and Server Clients",
        "All Systems",
        "Co-management Eligible Devices",
        "Lab",
        "All User Groups",
        "All Users",
        "All Users and User Groups",
    ]
    (users,) = await values(fleet, "SMS_Collection('SMS00002')")
    assert (users["CollectionType"], users["LimitToCollectionID"]) == (1, "SMS00004")


async def test_members_of_collections(fleet: Api) -> None:
    id = await lab(fleet)
    await collections_add(fleet, id, "DEV-001")
    members = "SMS_FullCollectionMembership"
    found = await values(fleet, members, **{"$filter": f"CollectionID eq '{id.lower()}'"})
    assert {item["Name"]: item["IsDirect"] for item in found} == {
        "LAB-001": False,
        "LAB-002": False,
        "DEV-001": True,
    }
    device = await resource_id(fleet, "DEV-001")
    (one,) = await values(fleet, f"{members}(CollectionID='{id}',ResourceID={device})")
    assert (one["Name"], one["SiteCode"]) == ("DEV-001", "CM1")
    where = {"$filter": f"ResourceID eq {device}", "$select": "CollectionID", "$count": "true"}
    answer = await fleet.get(f"{BASE}/{members}", **where)
    assert answer["@odata.count"] == 4
    built_in = {"SMS00001", "SMSDM003", "SMS000CE"}
    assert {item["CollectionID"] for item in answer["value"]} == {id, *built_in}
    nowhere = await values(fleet, members, **{"$filter": "CollectionID eq 'ABC00099'"})
    assert nowhere == []
    (collection,) = await values(fleet, f"SMS_Collection('{id}')")
    own = await values(fleet, collection["MemberClassName"], **{"$orderby": "Name"})
    assert [item["Name"] for item in own] == ["DEV-001", "LAB-001", "LAB-002"]


async def collections_add(api: Api, id: str, name: str) -> None:
    async with api.db.transaction() as tx:
        await collections.add_members(tx, id, [name], actor="t", now=NOW)


async def test_expand_in_v1(fleet: Api) -> None:
    device = await resource_id(fleet, "LAB-001")
    query = {
        "$filter": f"ResourceID eq {device}",
        "$expand": "Collection($select=Name,MemberCount)",
        "$orderby": "CollectionID desc",
    }
    answer = await fleet.get("/AdminService/v1.0/ResourceCollectionMembership", **query)
    assert [item["Collection"] for item in answer["value"]] == [
        {"Name": "All Desktop and Server Clients", "MemberCount": 3},
        {"Name": "Co-management Eligible Devices", "MemberCount": 3},
        {"Name": "All Systems", "MemberCount": 3},
        {"Name": "Lab", "MemberCount": 2},
    ]
    assert (await fleet.refusal("GET", f"{BASE}/SMS_R_System?$expand=Collection"))[0] == 400


async def test_pages_lead_on(fleet: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.site.adminservice.service.PAGE", 2)
    names, link = [], f"https://site.test{BASE}/SMS_R_System?$select=Name&$orderby=Name"
    while link:
        answer = (await fleet.web.get(link)).json()
        names.append([item["Name"] for item in answer["value"]])
        link = answer.get("@odata.nextLink", "")
    assert names == [["DEV-001", "LAB-001"], ["LAB-002"]]


async def test_the_site_says_who_it_is(api: Api) -> None:
    (site,) = await values(api, "SMS_Site")
    assert (site["SiteCode"], site["SiteName"], site["Type"]) == ("CM1", "Contoso", 2)
    (here,) = await values(api, "SMS_Identification")
    answer = await post(api, "SMS_Identification.GetSiteId")
    assert answer["@odata.context"].endswith("#__PARAMETERS")
    assert (answer["ReturnValue"], answer["SiteID"]) == (0, here["SiteID"])
    assert len(here["SiteID"]) == 38


async def test_sliders_are_shown_and_not_moved_here(fleet: Api) -> None:
    (before,) = await values(fleet, "SMS_CoManagementSettings")
    assert (before["IsEnabled"], before["CoManagementFlags"]) == (False, 0)
    pilot = await lab(fleet)
    for path, body in (
        ("", {"automatic_enrollment": "pilot", "collection": pilot, "access_token": "t"}),
        ("/workloads/client-apps", {"position": "pilot", "collection": pilot}),
        ("/workloads/compliance-policies", {"position": "mdm"}),
    ):
        answer = await fleet.web.put(f"/api/v1/comanagement{path}", json=body)
        assert answer.status_code == 200, answer.text
    (now,) = await values(fleet, "SMS_CoManagementSettings('CM1')")
    assert (now["AutoEnroll"], now["AutoEnrollCollectionID"]) == ("pilot", pilot)
    assert now["CoManagementFlags"] == 8193 + 2
    assert now["PilotCoManagementFlags"] == 8193 + 2 + 64
    apps = next(i for i in now["CoManagementWorkloads"] if i["Name"] == "client-apps")
    assert (apps["Position"], apps["PilotCollectionID"], apps["Capability"]) == ("pilot", pilot, 64)
    assert {item["Name"] for item in now["CoManagementPolicies"]} == {
        "CoMgmtSettingsProd",
        "CoMgmtSettingsPilotAutoEnroll",
        "CoMgmtSettingsPilot_client-apps",
    }
    for method in ("PUT", "PATCH", "DELETE"):
        path = f"{BASE}/SMS_CoManagementSettings('CM1')"
        assert (await fleet.web.request(method, path, json={})).status_code == 405


async def test_people(api: Api) -> None:
    async with api.db.transaction() as tx:
        user = collections.UserResource(TENANT, "o-1", "ada@contoso.com", "Ada L.", "ada@x", "S-1")
        await collections.upsert_user(tx, user, NOW)
    (ada,) = await values(api, "SMS_R_User", **{"$filter": "UserName eq 'ada'"})
    assert (ada["FullUserName"], ada["AADUserID"]) == ("Ada L.", "o-1")
    assert [u["Mail"] for u in await values(api, f"SMS_R_User({ada['ResourceId']})")] == ["ada@x"]
    (admin,) = await values(api, "SMS_Admin")
    assert (admin["LogonName"], admin["RoleNames"]) == ("siteadmin", ["Full Administrator"])
    assert "password" not in str(admin).lower()
    (again,) = await values(api, f"SMS_Admin({admin['AdminID']})")
    assert again["DisplayName"] == "siteadmin"
    roles = {item["RoleName"]: item["NumberOfAdmins"] for item in await values(api, "SMS_Role")}
    assert roles == {
        "Full Administrator": 1,
        "Infrastructure Administrator": 0,
        "Operations Administrator": 0,
        "Read-only Analyst": 0,
    }
    assert await values(api, "SMS_AzureService") == []


@pytest.mark.parametrize("surface", ["wmi", "v1.0"])
async def test_documents_name_what_is_served(fleet: Api, surface: str) -> None:
    base = f"/AdminService/{surface}"
    document = await fleet.get(f"{base}/")
    assert document["@odata.context"] == f"https://site.test{base}/$metadata"
    sets = [item["name"] for item in document["value"]]
    answer = await fleet.web.get(f"{base}/$metadata")
    assert answer.headers["content-type"].startswith("application/xml")
    schema = etree.fromstring(answer.content).find(f".//{EDM}Schema")
    assert schema is not None
    container = schema.find(f"{EDM}EntityContainer")
    assert container is not None
    assert [item.get("Name") for item in container.iterfind(f"{EDM}EntitySet")] == sets
    types = {item.get("Name"): item for item in schema.iterfind(f"{EDM}EntityType")}
    known = {item.get("Name") for item in schema} - {None}
    for name in sets:
        described = {
            item.get("Name"): item.get("Type") for item in types[name].iterfind(f"{EDM}Property")
        }
        for type_ in described.values():
            plain = str(type_).removeprefix("Collection(").rstrip(")")
            assert plain.startswith("Edm.") or plain.removeprefix("AdminService.") in known, plain
        for row in (await fleet.get(f"{base}/{name}"))["value"]:
            own = {key for key in row if not key.startswith(("@", "__"))}
            assert own == set(described), name
            for key, value in row.items():
                if value is not None and key in described:
                    assert_type(described[key], value)


def assert_type(said: str, value: Any) -> None:
    if said.startswith("Collection("):
        assert isinstance(value, list), (said, value)
    elif said == "Edm.Int64":
        assert isinstance(value, int), (said, value)
        assert not isinstance(value, bool), (said, value)
    elif said == "Edm.Boolean":
        assert isinstance(value, bool), (said, value)
    elif said == "Edm.DateTimeOffset":
        assert value.endswith("Z"), (said, value)
    else:
        assert isinstance(value, str), (said, value)


# ------------------------------------------------------------------------------- writing


async def test_a_collection_from_its_making_to_its_end(fleet: Api) -> None:
    body = {
        "Name": "Pilot",
        "CollectionType": 2,
        "LimitToCollectionID": "SMS00001",
        "RefreshType": 2,
        "RefreshSchedule": [
            {
                "@odata.type": "#AdminService.SMS_ST_RecurInterval",
                "DaySpan": 1,
                "StartTime": "2026-11-24T00:00:00Z",
                "IsGMT": False,
            }
        ],
    }
    answer = await fleet.web.post(f"{BASE}/SMS_Collection", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    id = made["CollectionID"]
    assert answer.headers["location"].endswith(f"/AdminService/wmi/SMS_Collection(%27{id}%27)")
    assert made["@odata.context"].endswith("/$metadata#SMS_Collection/$entity")
    assert made["@odata.etag"]
    assert made["__CLASS"] == "SMS_Collection"
    assert made["__GENUS"] == 2
    assert made["__RELPATH"] == f'SMS_Collection.CollectionID="{id}"'
    assert made["__NAMESPACE"] == "root\\sms\\site_CM1"
    assert made["__PATH"].endswith(f"\\root\\sms\\site_CM1:{made['__RELPATH']}")
    assert made["__PROPERTY_COUNT"] == len([key for key in made if key[0] not in "_@"])
    assert made["__LAZYPROPERTIES"] == ["RefreshSchedule", "CollectionRules"]
    assert {"__SUPERCLASS", "__DYNASTY", "__DERIVATION", "__SERVER"} <= set(made)
    assert made["__QUALIFIER_SECURITYVERBS"] & 1024
    (read,) = await values(fleet, f"SMS_Collection('{id}')")
    assert read["@odata.etag"] == made["@odata.etag"]

    one = f"{BASE}/SMS_Collection('{id}')"
    whole = {**read, "Name": "Pilot 2", "Comment": "two", "LimitToCollectionID": await lab(fleet)}
    del whole["LimitToCollectionName"]
    changed = (await fleet.web.put(one, json=whole)).json()["value"][0]
    shown = (changed["Name"], changed["Comment"], changed["LimitToCollectionName"])
    assert shown == ("Pilot 2", "two", "Lab")
    stale = await fleet.web.put(one, json={"Name": "x"}, headers={"If-Match": read["@odata.etag"]})
    assert stale.status_code == 412
    assert (await fleet.web.delete(one)).status_code == 204
    assert (await fleet.refusal("GET", one))[0] == 404
    assert (await fleet.refusal("DELETE", one))[0] == 404


@pytest.mark.parametrize(
    ("body", "kind", "minutes"),
    [
        ({}, 6, 10080),
        ({"RefreshType": 1}, 1, 0),
        ({"RefreshType": 4}, 4, 0),
        ({"RefreshType": 2, "RefreshSchedule": [{"DaySpan": 1, "HourSpan": 2}]}, 2, 26 * 60),
        ({"RefreshType": 6, "RefreshSchedule": [{"MinuteSpan": 30}]}, 6, 30),
        ({"RefreshType": 4, "RefreshSchedule": [{"DaySpan": 1}]}, 4, 0),
    ],
)
async def test_how_a_collection_is_refreshed(
    fleet: Api, body: dict[str, Any], kind: int, minutes: int
) -> None:
    answer = await fleet.web.post(f"{BASE}/SMS_Collection", json={"Name": "P", **body})
    assert answer.status_code == 201, answer.text
    id = answer.json()["CollectionID"]
    one = f"SMS_Collection('{id}')"
    (read,) = await values(fleet, one)
    spans = [
        item["DaySpan"] * 1440 + item["HourSpan"] * 60 + item["MinuteSpan"]
        for item in read["RefreshSchedule"]
    ]
    assert (read["RefreshType"], spans) == (kind, [minutes] if minutes else [])
    shown = await fleet.get(f"/api/v1/collections/{id}")
    assert (shown["incremental"], shown["full_every_minutes"]) == (kind in (4, 6), minutes)
    put = await fleet.web.put(f"{BASE}/{one}", json={"RefreshType": 6})
    assert put.status_code == 200, put.text
    assert put.json()["value"][0]["RefreshType"] == 6
    refresh = await fleet.web.post(f"{BASE}/{one}/AdminService.RequestRefresh", json={})
    assert refresh.status_code < 300, refresh.text
    assert (await fleet.get(f"/api/v1/collections/{id}"))["evaluation"]["members"] == 0


async def test_rules_come_and_go(fleet: Api) -> None:
    made = await post(fleet, "SMS_Collection", {"Name": "Few", "LimitToCollectionID": "SMS00001"})
    few = f"SMS_Collection('{made['CollectionID']}')"
    device = await resource_id(fleet, "DEV-001")
    direct = {
        "@odata.type": DIRECT,
        "RuleName": "DEV-001",
        "ResourceClassName": "SMS_R_System",
        "ResourceID": device,
    }
    query = {
        "@odata.type": QUERY,
        "RuleName": "Labs",
        "QueryExpression": "select * from SMS_R_System where Name like 'LAB-%'",
    }
    for _ in range(2):  # A script that does not know whether it was heard asks again.
        answer = await post(
            fleet, f"{few}/AdminService.AddMembershipRule", {"collectionRule": direct}
        )
        assert (answer["ReturnValue"], answer["QueryID"]) == (0, 0)
        answer = await post(
            fleet, f"{few}/adminservice.addmembershiprules", {"collectionRules": [query]}
        )
        assert answer["QueryIDs"][0] > 0
    (shown,) = await values(fleet, few)
    assert [rule["@odata.type"] for rule in shown["CollectionRules"]] == [DIRECT, QUERY]
    assert shown["MemberCount"] == 3
    assert (await post(fleet, f"{few}/AdminService.RequestRefresh", {}))["ReturnValue"] == 0
    by_number = {"@odata.type": QUERY, "QueryID": answer["QueryIDs"][0]}
    await post(fleet, f"{few}/AdminService.DeleteMembershipRule", {"collectionRule": by_number})
    gone = {"collectionRules": [direct]}
    await post(fleet, f"{few}/AdminService.DeleteMembershipRules", gone)
    (shown,) = await values(fleet, few)
    assert (shown["CollectionRules"], shown["MemberCount"]) == ([], 0)
    again = await fleet.refusal("POST", f"{BASE}/{few}/AdminService.DeleteMembershipRules", gone)
    assert again[0] == 404


async def test_all_rules_or_none(fleet: Api) -> None:
    id = await lab(fleet)
    device = await resource_id(fleet, "DEV-001")
    rules = [
        {"@odata.type": DIRECT, "ResourceID": device},
        {"@odata.type": DIRECT, "ResourceID": 1},
    ]
    path = f"{BASE}/SMS_Collection('{id}')/AdminService.AddMembershipRules"
    assert (await fleet.refusal("POST", path, {"collectionRules": rules}))[0] == 404
    (shown,) = await values(fleet, f"SMS_Collection('{id}')")
    assert shown["MemberCount"] == 2


async def test_a_deleted_device_is_gone_until_its_client_registers_again(fleet: Api) -> None:
    device = await resource_id(fleet, "LAB-001")
    await collections_add(fleet, await lab(fleet), "LAB-001")
    answer = await fleet.web.delete(f"{BASE}/SMS_R_System({device})")
    assert answer.status_code == 204
    assert (await fleet.refusal("GET", f"{BASE}/SMS_R_System({device})"))[0] == 404
    async with fleet.db.transaction() as tx:
        assert await clients.count(tx) == 2
        await add_device(tx, "LAB-001")
    assert await resource_id(fleet, "LAB-001") > device


async def test_a_blocked_device_is_not_let_back_in_by_deleting_it(fleet: Api) -> None:
    async with fleet.db.transaction() as tx:
        await clients.block(tx, "GUID:LAB-001", actor="t", now=NOW)
    device = await resource_id(fleet, "LAB-001")
    status, error = await fleet.refusal("DELETE", f"{BASE}/SMS_R_System({device})")
    assert (status, error["code"]) == (409, "client.still-blocked")
    assert await resource_id(fleet, "LAB-001") == device


# ------------------------------------------------------------------------------- refusals


NOT_THERE = [
    ("/AdminService/wmi/SMS_Nothing", 404),
    ("/AdminService/wmi/SMS_Application", 404),
    ("/AdminService/wmi/SMS_R_System(1)", 404),
    ("/AdminService/wmi/SMS_R_System('; drop table x')", 404),
    ("/AdminService/wmi/SMS_R_System(16777216 or 1 eq 1)", 404),
    ("/AdminService/wmi/SMS_R_System(99999999999999999999)", 404),
    ("/AdminService/wmi/SMS_Collection(''' or 1=1 --')", 404),
    ("/AdminService/wmi/SMS_Collection('%')", 404),
    ("/AdminService/wmi/SMS_FullCollectionMembership('SMS00001')", 404),
    ("/AdminService/wmi/SMS_FullCollectionMembership(ResourceID=1,ResourceID=2)", 404),
    ("/AdminService/wmi/SMS_CM_RES_COLL_CM199999", 404),
    ("/AdminService/wmi/SMS_R_System(1)/AdminService.Nothing", 404),
    ("/AdminService/wmi/a/b/c/d/e", 404),
    ("/AdminService/wmi/SMS_R_System('x", 404),
    ("/AdminService/v2.0/Device", 404),
    ("/AdminService/", 404),
    ("/AdminService/wmi/SMS_R_System?$filter=Password eq 'x'", 400),
    ("/AdminService/wmi/SMS_R_System?$filter=Name eq", 400),
    ("/AdminService/wmi/SMS_R_System?$filter=ResourceId eq 'x'", 400),
    ("/AdminService/wmi/SMS_R_System?$filter=Name eq 1", 400),
    ("/AdminService/wmi/SMS_Site?$filter=Password eq 'x'", 400),
    ("/AdminService/wmi/SMS_Collection?$filter=CollectionRules eq 'x'", 400),
    ("/AdminService/wmi/SMS_R_System?$orderby=Password", 400),
    ("/AdminService/wmi/SMS_R_System?$orderby=SMSAssignedSites", 400),
    ("/AdminService/wmi/SMS_R_System?$select=Password", 400),
    ("/AdminService/wmi/SMS_Collection?$orderby=Password", 400),
    ("/AdminService/wmi/SMS_R_System?$top=x", 400),
    ("/AdminService/wmi/SMS_R_System?$search=x", 400),
    ("/AdminService/wmi/SMS_R_System?$apply=x", 400),
    (f"/AdminService/wmi/SMS_R_System?$filter={'(' * 60}Name eq 'x'{')' * 60}", 400),
    (f"/AdminService/wmi/SMS_Site({'9' * 3000})", 404),
]


async def test_what_is_not_there_is_said(fleet: Api) -> None:
    for path, status in NOT_THERE:
        code, error = await fleet.refusal("GET", path)
        assert code == status, error
        assert set(error) == {"code", "message"}
        assert error["message"]


BODIES: list[tuple[Any, int, str]] = [
    ({}, 400, "Name"),
    ({"Name": 7}, 400, "Name"),
    ({"Name": "a", "Password": "x"}, 400, "Password"),
    ({"Name": "a", "name": "b"}, 400, "twice"),
    ({"Name": "a", "CollectionID": "SMS00001"}, 400, "CollectionID"),
    ({"Name": "a", "MemberCount": 5}, 400, "MemberCount"),
    ({"Name": "a", "CollectionType": 0}, 400, "CollectionType"),
    ({"Name": "a", "CollectionType": True}, 400, "CollectionType"),
    ({"Name": "a", "RefreshType": 3}, 400, "RefreshType"),
    ({"Name": "a", "RefreshSchedule": "daily"}, 400, "RefreshSchedule"),
    ({"Name": "a", "LimitToCollectionID": "CM199999"}, 404, "CM199999"),
    ({"Name": "a", "CollectionRules": [7]}, 400, "CollectionRules"),
    ({"Name": "a", "CollectionRules": [{"@odata.type": QUERY}]}, 400, "RuleName"),
    ({"Name": "Lab"}, 409, "Lab"),
    ({"Name": "x" * 300}, 400, "256"),
    ({"Name": "a\x00b"}, 400, "NUL"),
    ([], 400, "read"),
    ("x" * 300_000, 413, "larger"),
]


async def test_bodies_that_are_not_taken(fleet: Api) -> None:
    for body, status, word in BODIES:
        code, error = await fleet.refusal("POST", f"{BASE}/SMS_Collection", body)
        assert code == status, error
        assert word in error["message"]
        assert len(await values(fleet, "SMS_Collection")) == 7


RULES: list[tuple[Any, int]] = [
    ({"@odata.type": DIRECT}, 400),
    ({"@odata.type": DIRECT, "ResourceID": "1"}, 400),
    ({"@odata.type": DIRECT, "ResourceID": True}, 400),
    ({"@odata.type": DIRECT, "ResourceID": 1}, 404),
    ({"@odata.type": DIRECT, "ResourceID": 1, "ResourceClassName": "SMS_R_User"}, 400),
    ({"@odata.type": QUERY, "RuleName": "a"}, 400),
    ({"@odata.type": QUERY, "RuleName": "a", "QueryExpression": "drop table x"}, 400),
    ({"@odata.type": QUERY, "RuleName": "a" * 300, "QueryExpression": "select"}, 400),
    ({"@odata.type": "#AdminService.SMS_CollectionRuleIncludeCollection"}, 400),
    ({"@odata.type": {"a": 1}, "ResourceID": 1}, 400),
    ("x", 400),
    (None, 400),
]


async def test_rules_that_name_other_collections(fleet: Api) -> None:
    id = await lab(fleet)
    made = await post(fleet, "SMS_Collection", {"Name": "Without the lab"})
    one = f"SMS_Collection('{made['CollectionID']}')"
    rules = [
        {
            "@odata.type": f"#AdminService.SMS_CollectionRule{way}Collection",
            f"{way}CollectionID": of,
        }
        for way, of in (("Include", "SMS00001"), ("Exclude", id))
    ]
    await post(fleet, f"{one}/AdminService.AddMembershipRules", {"collectionRules": rules})
    shown = (await fleet.get(f"{BASE}/{one}"))["value"][0]
    assert [
        rule.get("IncludeCollectionID") or rule["ExcludeCollectionID"]
        for rule in shown["CollectionRules"]
    ] == ["SMS00001", id]
    whole = len(await values(fleet, "SMS_R_System"))
    inside = (await fleet.get(f"{BASE}/SMS_Collection('{id}')"))["value"][0]["MemberCount"]
    assert shown["MemberCount"] == whole - inside
    circle = {**rules[0], "IncludeCollectionID": made["CollectionID"]}
    path = f"{BASE}/{one}/AdminService.AddMembershipRule"
    assert (await fleet.refusal("POST", path, {"collectionRule": circle}))[0] == 409
    await post(fleet, f"{one}/AdminService.DeleteMembershipRule", {"collectionRule": rules[1]})
    assert (await fleet.get(f"{BASE}/{one}"))["value"][0]["MemberCount"] == whole


async def test_rules_that_are_not_taken(fleet: Api) -> None:
    for rule, status in RULES:
        path = f"{BASE}/SMS_Collection('{await lab(fleet)}')/AdminService.AddMembershipRule"
        code, error = await fleet.refusal("POST", path, {"collectionRule": rule})
        assert code == status, error
        assert (await fleet.refusal("POST", path, {}))[0] == 400
        assert (await fleet.refusal("POST", path, {"collectionRule": {}, "x": 1}))[0] == 400


async def test_what_is_built_in_stays(fleet: Api) -> None:
    one = f"{BASE}/SMS_Collection('SMS00001')"
    assert (await fleet.refusal("DELETE", one))[0] == 409
    assert (await fleet.refusal("PUT", one, {"Name": "x"}))[0] == 409
    assert (await fleet.refusal("PUT", one, {"MemberCount": 9}))[0] == 400
    rule = {
        "collectionRule": {"@odata.type": DIRECT, "ResourceID": await resource_id(fleet, "LAB-001")}
    }
    path = f"{one}/AdminService.AddMembershipRule"
    assert (await fleet.refusal("POST", path, rule))[0] == 409


async def test_client_settings_are_made_moved_and_assigned(fleet: Api) -> None:
    """As SMS_ClientSettings and SMS_ClientSettingsAssignment."""
    said = [{"Name": "policy_polling_minutes", "Value": "5"}]
    first = await post(fleet, "SMS_ClientSettings", {"Name": "Busy", "Settings": said})
    (shown,) = await values(fleet, f"SMS_ClientSettings('{first['SettingsID']}')")
    assert (shown["Type"], shown["Priority"], shown["Groups"]) == (1, 1, ["Client policy"])
    values_said = {item["Name"]: item["Value"] for item in shown["Settings"]}
    assert values_said["policy_polling_minutes"] == "5"
    body = {"Name": "Loud", "Groups": ["State messaging"]}
    second = await post(fleet, "SMS_ClientSettings", body)
    path = f"{BASE}/SMS_ClientSettings('{second['SettingsID']}')"
    changed = await fleet.web.put(path, json={"Priority": 1})
    assert changed.status_code < 300, changed.text
    order = await values(fleet, "SMS_ClientSettings", **{"$orderby": "Priority"})
    assert [item["Name"] for item in order] == ["Loud", "Busy"]
    both = {"ClientSettingsID": first["SettingsID"], "CollectionID": "SMS00001"}
    made = await post(fleet, "SMS_ClientSettingsAssignment", both)
    assert made["CollectionName"] == "All Systems"
    (shown,) = await values(fleet, f"SMS_ClientSettings('{first['SettingsID']}')")
    assert shown["AssignmentCount"] == 1
    one = f"ClientSettingsID='{first['SettingsID']}',CollectionID='SMS00001'"
    gone = await fleet.web.delete(f"{BASE}/SMS_ClientSettingsAssignment({one})")
    assert gone.status_code < 300, gone.text
    for wrong in (
        {"Name": "A", "Type": 3, "Groups": ["State messaging"]},
        {"Name": "A", "Priority": 1, "Groups": ["State messaging"]},
        {"Name": "A", "Settings": ["policy_polling_minutes"]},
        {"Name": "A", "Settings": [{"Value": "5"}]},
        {"Name": "A"},
    ):
        assert (await fleet.refusal("POST", f"{BASE}/SMS_ClientSettings", wrong))[0] == 400
    assert (await fleet.web.delete(path)).status_code < 300
    (left,) = await values(fleet, "SMS_ClientSettings")
    assert (left["Name"], left["Priority"]) == ("Busy", 1)


async def test_a_collection_of_users(fleet: Api) -> None:
    async with fleet.db.transaction() as tx:
        for name in ("ada", "bob"):
            user = collections.UserResource(
                TENANT, f"o-{name}", f"{name}@contoso.com", name.title()
            )
            await collections.upsert_user(tx, user, NOW)
    (ada,) = await values(fleet, "SMS_R_User", **{"$filter": "UserName eq 'ada'"})
    direct = {
        "@odata.type": DIRECT,
        "ResourceClassName": "SMS_R_User",
        "ResourceID": ada["ResourceId"],
    }
    made = await post(fleet, "SMS_Collection", {"Name": "Staff", "CollectionType": 1})
    id = made["CollectionID"]
    assert (made["CollectionType"], made["LimitToCollectionID"]) == (1, "SMS00004")
    await post(
        fleet, f"SMS_Collection('{id}')/AdminService.AddMembershipRule", {"collectionRule": direct}
    )
    (shown,) = await values(fleet, f"SMS_Collection('{id}')")
    assert shown["MemberCount"] == 1
    (rule,) = shown["CollectionRules"]
    assert (rule["ResourceClassName"], rule["RuleName"]) == ("SMS_R_User", "ada@contoso.com")
    path = f"{BASE}/SMS_Collection('{id}')"
    device = {"@odata.type": DIRECT, "ResourceID": await resource_id(fleet, "LAB-001")}
    for method, where, body, code in (
        ("POST", f"{path}/AdminService.AddMembershipRule", {"collectionRule": device}, 404),
        ("PUT", path, {"CollectionType": 2}, 400),
        ("PUT", path, {"LimitToCollectionID": "SMS00001"}, 409),
    ):
        assert (await fleet.refusal(method, where, body))[0] == code
    await post(
        fleet,
        f"SMS_Collection('{id}')/AdminService.DeleteMembershipRule",
        {"collectionRule": direct},
    )
    assert (await values(fleet, f"SMS_Collection('{id}')"))[0]["MemberCount"] == 0


METHODS = [
    ("POST", "SMS_R_System", "GET"),
    ("PUT", "SMS_R_System(16777216)", "GET, DELETE"),
    ("DELETE", "SMS_Collection", "GET, POST"),
    ("POST", "SMS_Site('CM1')", "GET"),
    ("POST", "", "GET"),
    ("POST", "$metadata", "GET"),
    ("GET", "SMS_Identification.GetSiteId", "POST"),
    ("GET", "SMS_Collection('SMS00001')/AdminService.RequestRefresh", "POST"),
]


async def test_methods_that_are_not_served(api: Api) -> None:
    for method, path, allow in METHODS:
        answer = await api.web.request(method, f"{BASE}/{path}", json={})
        assert (answer.status_code, answer.headers["allow"]) == (405, allow), answer.text


# ------------------------------------------------------------------------------- who may


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


async def test_a_name_and_a_password_over_tls(api: Api) -> None:
    del api.web.headers["Authorization"]
    good = basic("siteadmin", "Correct-Horse-2")
    assert (await api.web.get(f"{BASE}/SMS_Site", headers=good)).status_code == 200
    plain = await api.web.get(f"http://site.test{BASE}/SMS_Site", headers=good)
    assert plain.status_code == 401
    assert "TLS" in plain.json()["error"]["message"]
    tokens_only = await api.web.get("/AdminService_TokenAuth/wmi/SMS_Site", headers=good)
    assert tokens_only.status_code == 401
    assert tokens_only.headers.get_list("www-authenticate") == ["Bearer"]


async def test_guesses_lock_the_account_at_every_door(api: Api) -> None:
    del api.web.headers["Authorization"]
    for _ in range(CHEAP.lock_after):
        answer = await api.web.get(f"{BASE}/SMS_Site", headers=basic("siteadmin", "wrong"))
        assert answer.status_code == 401
    good = basic("siteadmin", "Correct-Horse-2")
    assert (await api.web.get(f"{BASE}/SMS_Site", headers=good)).status_code == 429
    assert (await api.sign_in()).status_code == 429
    api.wait(seconds=CHEAP.lock_seconds + 1)
    assert (await api.web.get(f"{BASE}/SMS_Site", headers=good)).status_code == 200


CREDENTIALS = [
    "",
    "Bearer",
    "Bearer x",
    "Bearer x.y.z",
    "Basic",
    "Basic !!!",
    "Basic //8=",
    "Basic eA==",
    "Negotiate YII",
    basic("nobody", "x")["Authorization"],
    basic("a\x00b", "x")["Authorization"],
]


async def test_without_a_credential(api: Api) -> None:
    del api.web.headers["Authorization"]
    for value in CREDENTIALS:
        answer = await api.web.get(f"{BASE}/SMS_R_System", headers={"Authorization": value})
        assert answer.status_code == 401
        assert [w.split()[0] for w in answer.headers.get_list("www-authenticate")] == [
            "Bearer",
            "Basic",
        ]
        assert set(answer.json()["error"]) == {"code", "message"}


async def test_analysts_read_and_operators_write(fleet: Api) -> None:
    await sign_in_as(fleet, Role.READ_ONLY_ANALYST)
    id, device = await lab(fleet), await resource_id(fleet, "LAB-001")
    assert (await post(fleet, "SMS_Identification.GetSiteId"))["ReturnValue"] == 0
    one = f"{BASE}/SMS_Collection('{id}')"
    writes: list[tuple[str, str, Any]] = [
        ("POST", f"{BASE}/SMS_Collection", {"Name": "x"}),
        ("PUT", one, {"Name": "x"}),
        ("PATCH", one, {"Name": "x"}),
        ("DELETE", one, None),
        ("DELETE", f"{BASE}/SMS_R_System({device})", None),
        *(
            ("POST", f"{one}/AdminService.{name}", {})
            for name in (
                "AddMembershipRule",
                "AddMembershipRules",
                "DeleteMembershipRule",
                "DeleteMembershipRules",
                "RequestRefresh",
            )
        ),
    ]
    for method, path, body in writes:
        status, error = await fleet.refusal(method, path, body)
        assert (status, error["code"]) == (403, "site.not-allowed"), (method, path)
    await sign_in_as(fleet, Role.OPERATIONS_ADMINISTRATOR)
    assert (await post(fleet, "SMS_Collection", {"Name": "x"}))["CollectionID"]


async def test_a_page_of_another_origin_changes_nothing(fleet: Api) -> None:
    device = await resource_id(fleet, "LAB-001")
    path = f"{BASE}/SMS_R_System({device})"
    for origin in (
        "https://evil.example",
        "null",
        "https://[",
        "https://site.test.evil.example",
        "",
    ):
        foreign = {"Origin": origin}
        assert (await fleet.web.delete(path, headers=foreign)).status_code == 403, origin
        assert (await fleet.web.get(path, headers=foreign)).status_code == 200, origin
    assert (
        await fleet.web.delete(path, headers={"Origin": "https://site.test"})
    ).status_code == 204


async def test_every_call_is_written_down(fleet: Api) -> None:
    await values(fleet, "SMS_Site", **{"$filter": "SiteCode eq 'CM1'"})
    await fleet.refusal("GET", f"{BASE}/SMS_R_System(1)")
    await fleet.refusal("POST", f"{BASE}/SMS_Collection", {"Name": "Lab"})
    async with fleet.db.transaction() as tx:
        newest = await audit.entries(tx, limit=3)
        assert await audit.verify(tx) is None
    assert [(e.action, e.target, e.outcome) for e in reversed(newest)] == [
        ("adminservice.call", "SMS_Site", "done"),
        ("adminservice.call", "SMS_R_System(1)", "refused"),
        ("adminservice.call", "SMS_Collection", "refused"),
    ]
    refused, _, done = newest
    assert done.details["status_message"] == 11618
    assert (done.actor, done.details["method"], done.details["credential"]) == (
        "siteadmin",
        "GET",
        "session",
    )
    assert "SiteCode" in done.details["query"]
    assert refused.details["reason"] == "collection.name-taken"


@given(st.text(max_size=60) | st.text(alphabet="aZ_.$()',/= 1\x00é", max_size=60))
def test_any_path_is_read_or_refused(path: str) -> None:
    try:
        segments = paths.split(path)
    except NoSuchClass:
        return
    assert all(segment.raw for segment in segments)
    # Read once or twice, it is the same.
    assert paths.split("/".join(segment.raw for segment in segments)) == segments
