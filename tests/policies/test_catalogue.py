"""The settings catalogue that comes with the product, and files that are imported into it."""

from base64 import b64encode

import pytest
from test_policy_objects import Beta

from mdm_world import Mdm
from tandem.tenant.policies import built_in, is_uri, loc_uri, subject_of
from tandem.workloads import Workload

# Every CSP that the MDM service needs (windows-mdm, section 12).
NEEDED = (
    "./DevInfo/Man",
    "./DevDetail/SwV",
    "./DevDetail/Ext/Microsoft/SMBIOSSerialNumber",
    "./Vendor/MSFT/DMClient/HWDevID",
    "./Vendor/MSFT/DMClient/Provider/P/Poll/NumberOfFirstRetries",
    "./Vendor/MSFT/WindowsLicensing/Edition",
    "./Vendor/MSFT/DeviceStatus/OS/Edition",
    "./Device/Vendor/MSFT/DeviceManageability/Capabilities/CSPVersions",
    "./Vendor/MSFT/DeviceStatus/NetworkIdentifiers/aa/IPAddressV4",
    "./Device/Vendor/MSFT/EnterpriseDesktopAppManagement/MSI/%7BA%7D/Status",
    "./Device/Vendor/MSFT/Policy/Config/ControlPolicyConflict/MDMWinsOverGP",
    "./Vendor/MSFT/Policy/ConfigOperations/ADMXInstall/App/Policy/Id",
    "./Vendor/MSFT/Firewall/MdmStore/PublicProfile/EnableFirewall",
    "./Device/Vendor/MSFT/BitLocker/RequireDeviceEncryption",
    "./Device/Vendor/MSFT/Defender/Health/DefenderEnabled",
    "./Device/Vendor/MSFT/LAPS/Policies/BackupDirectory",
    "./Vendor/MSFT/WiFi/Profile/Guest/WlanXml",
    "./Device/Vendor/MSFT/VPNv2/Work/AlwaysOn",
    "./Vendor/MSFT/Update/ApprovedUpdates/x/ApprovedTime",
    "./Device/Vendor/MSFT/RootCATrustedCertificates/Root/AB/EncodedCertificate",
    "./Device/Vendor/MSFT/ClientCertificateInstall/SCEP/x/Install/ServerURL",
    "./Device/Vendor/MSFT/ClientCertificateInstall/PFXCertInstall/x/PFXCertBlob",
)


def test_it_knows_every_service_provider_that_is_needed() -> None:
    catalogue = built_in()
    assert [uri for uri in NEEDED if catalogue.find(uri) is None] == []


def test_it_has_hundreds_of_settings_each_with_names_in_two_languages() -> None:
    settings = [one for one in built_in().definitions if one.leaf.settable]
    assert len(settings) >= 400
    for one in settings:
        assert {"en", "fr"} <= set(one.leaf.titles), one.leaf.uri
        assert one.leaf.descriptions.get("en"), one.leaf.uri
        assert one.leaf.builds, one.leaf.uri
        assert is_uri(one.leaf.uri)
        for choice in one.leaf.allowed.choices:
            assert {"en", "fr"} <= set(choice.texts), one.leaf.uri


@pytest.mark.parametrize(
    ("uri", "workload"),
    [
        ("./Device/Vendor/MSFT/Policy/Config/Update/ActiveHoursEnd", Workload.WINDOWS_UPDATE),
        ("./Device/Vendor/MSFT/Policy/Config/Update/Brand/New", Workload.WINDOWS_UPDATE),
        ("./Vendor/MSFT/Firewall/MdmStore/Global/CRLcheck", Workload.ENDPOINT_PROTECTION),
        ("./Vendor/MSFT/WiFi/Profile/x/WlanXml", Workload.RESOURCE_ACCESS),
        ("./Device/Vendor/MSFT/SomethingElse/A", Workload.DEVICE_CONFIGURATION),
        (
            "./Device/Vendor/MSFT/Policy/Config/office16v2~Policy~L_MicrosoftOfficemachine"
            "~L_Updates/L_UpdateBranch",
            Workload.OFFICE_CLICK_TO_RUN,
        ),
    ],
)
def test_each_node_belongs_to_one_workload(uri: str, workload: Workload) -> None:
    assert built_in().workload(uri) is workload


def test_one_node_is_one_however_it_is_written() -> None:
    catalogue = built_in()
    for uri in (
        "./Device/Vendor/MSFT/BitLocker/RequireDeviceEncryption",
        "./Vendor/MSFT/BitLocker/RequireDeviceEncryption",
        "./vendor/msft/bitlocker/requiredeviceencryption",
    ):
        found = catalogue.find(uri)
        assert found is not None
        assert found.id == "device_vendor_msft_bitlocker_requiredeviceencryption"
    assert catalogue.by_id("vendor_msft_bitlocker_requiredeviceencryption") is not None
    policy = "./Vendor/MSFT/Policy/Config/DeviceLock/DevicePasswordEnabled"
    assert subject_of(policy) == "DeviceLock/DevicePasswordEnabled"
    assert loc_uri("A/B") == "./Device/Vendor/MSFT/Policy/Config/A/B"
    assert loc_uri("./Device/Vendor/MSFT/X/{A b}/Y").endswith("/%7BA%20b%7D/Y")


@pytest.mark.parametrize(
    "uri",
    ["", "/Device/X", "Device/X", "./", "./X", "./X//Y", "./X/../Y", "./X/%2e%2e/Y", "./X/Y?z",
     "./X/Y#z", "./X/Y\n", "./X/%zz", "./X/<y>", "./" + "a/" * 40 + "b", "./X/" + "a" * 1100],
)  # fmt: skip
def test_what_is_no_node_of_a_device_is_known_as_none(uri: str) -> None:
    assert not is_uri(uri)


DDF = b"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE MgmtTree PUBLIC " -//OMA//DTD-DM-DDF 1.2//EN"
 "http://www.openmobilealliance.org/tech/DTD/DM_DDF-V1_2.dtd"[<?oma-dm-ddf-ver supported-versions="1.2"?>]>
<MgmtTree xmlns:MSFT="http://schemas.microsoft.com/MobileDevice/DM">
  <VerDTD>1.2</VerDTD><MSFT:Diagnostics />
  <Node><NodeName>Update</NodeName><Path>./Device/Vendor/MSFT/Policy/Config</Path>
    <DFProperties><AccessType><Get /></AccessType><DFFormat><node /></DFFormat></DFProperties>
    <Node><NodeName>BrandNewSwitch</NodeName>
      <DFProperties><AccessType><Add /><Delete /><Get /><Replace /></AccessType>
        <DefaultValue>0</DefaultValue><Description>Turns something new on.</Description>
        <DFFormat><int /></DFFormat><Occurrence><One /></Occurrence><Scope><Dynamic /></Scope>
        <DFType><MIME /></DFType>
        <MSFT:Applicability><MSFT:OsBuildVersion>10.0.26100</MSFT:OsBuildVersion></MSFT:Applicability>
        <MSFT:AllowedValues ValueType="ENUM"><MSFT:Enum><MSFT:Value>0</MSFT:Value></MSFT:Enum>
          <MSFT:Enum><MSFT:Value>1</MSFT:Value></MSFT:Enum></MSFT:AllowedValues>
      </DFProperties></Node></Node>
</MgmtTree>"""
FILES = "tandem/settingsCatalogueFiles"
NEW = "device_vendor_msft_policy_config_update_brandnewswitch"


@pytest.fixture
async def beta(mdm: Mdm) -> Beta:
    return Beta(mdm, await mdm.world.bearer())


async def test_a_published_file_becomes_a_part_of_the_catalogue(beta: Beta) -> None:
    path = f"deviceManagement/configurationSettings/{NEW}"
    assert (await beta("GET", path)).status_code == 404
    body = {"name": "Update.xml", "content": b64encode(DDF).decode()}
    made = await beta.made(FILES, body)
    assert (made["name"], made["nodes"]) == ("Update.xml", 1)
    found = await beta.got(path)
    assert (found["name"], found["workload"]) == ("BrandNewSwitch", "windows-update")
    assert [option["itemId"] for option in found["options"]] == [f"{NEW}_0", f"{NEW}_1"]
    hits = await beta("POST", "tandem/settingsCatalogue/search", {"text": "brand something"})
    assert [one["id"] for one in hits.json()["value"]] == [NEW]
    assert (await beta("DELETE", f"{FILES}/Update.xml")).status_code == 200
    assert (await beta("GET", path)).status_code == 404


async def test_what_is_no_ddf_file_is_refused_and_nothing_is_kept(beta: Beta) -> None:
    bomb = DDF.replace(b'[<?oma-dm-ddf-ver supported-versions="1.2"?>]', b"[<!ENTITY a 'b'>]")
    for content in (b64encode(bomb).decode(), b64encode(b"<html/>").decode(), "not base64"):
        answer = await beta("POST", FILES, {"name": "x.xml", "content": content})
        assert answer.status_code == 400, answer.text
    assert (await beta.got(FILES))["value"] == []


async def test_the_catalogue_is_found_by_words_in_either_language(beta: Beta) -> None:
    for text in ("minutes until locks", "minutes verrouillage", "MaxInactivityTimeDeviceLock"):
        hits = await beta("POST", "tandem/settingsCatalogue/search", {"text": text})
        names = [one["name"] for one in hits.json()["value"]]
        assert "MaxInactivityTimeDeviceLock" in names, text
