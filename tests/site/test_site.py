"""The site itself: code, certificates, client settings, configurations, and its commands."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

import site_api
from site_api import NOW, Api, CommandFailed, add_device
from tandem import pki
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox, Unsealable
from tandem.protocols import ccm
from tandem.site import deployments, properties
from tandem.site import settings as client_settings


@pytest.fixture
def box(tmp_path: Path) -> SecretBox:
    return SecretBox.open(tmp_path / "box" / "box.key")


@pytest.mark.parametrize("code", ["", "AB", "ABCD", "A-1", "CON", "sms", "Ä12", "A B", "１２３"])
def test_a_site_code_is_three_letters_or_digits(code: str) -> None:
    with pytest.raises(properties.BadSiteCode) as refused:
        properties.check_site_code(code)
    assert refused.value.cure


async def test_a_site_is_established_once(site_tx: Tx, box: SecretBox) -> None:
    made = await properties.establish(site_tx, box, code="cm1", name="Contoso", now=NOW)
    assert made.code == "CM1"
    assert made.management_point_id > 2**56
    again = await properties.establish(site_tx, box, code="CM1", name="Other", now=NOW)
    assert again == made
    with pytest.raises(properties.AnotherSite):
        await properties.establish(site_tx, box, code="CM2", name="Contoso", now=NOW)


async def test_the_signing_certificate_comes_from_the_issuing_root(
    site_tx: Tx, box: SecretBox
) -> None:
    await properties.establish(site_tx, box, code="CM1", name="Contoso", now=NOW)
    identity = await properties.signing_identity(site_tx, box)
    identity.certificate.verify_directly_issued_by(identity.root)
    usage = identity.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CODE_SIGNING]
    assert identity.root == await properties.root_certificate(site_tx)


async def test_a_role_keeps_its_certificate_until_it_nears_its_end(
    site_tx: Tx, box: SecretBox
) -> None:
    await properties.establish(site_tx, box, code="CM1", name="Contoso", now=NOW)

    async def role(days: int, *names: str) -> properties.RoleCertificate:
        now = NOW + timedelta(days=days)
        return await properties.role_certificate(
            site_tx, box, "mp", dns=names, ips=["127.0.0.1"], now=now
        )

    first = await role(0, "mp.contoso.com")
    assert isinstance(first.key, ec.EllipticCurvePrivateKey)
    assert pki.keys.same_key(first.key, first.certificate.public_key())  # type: ignore[arg-type]
    assert (await role(200, "mp.contoso.com")).certificate == first.certificate
    assert (await role(0, "other.contoso.com")).certificate != first.certificate
    renewed = await role(310, "other.contoso.com")
    assert renewed.certificate.not_valid_after_utc > NOW + timedelta(days=600)


async def test_keys_are_sealed_in_the_database(site_tx: Tx, box: SecretBox, tmp_path: Path) -> None:
    await properties.establish(site_tx, box, code="CM1", name="Contoso", now=NOW)
    rows = await (await site_tx.execute("SELECT * FROM properties_credential")).fetchall()
    assert len(rows) == 2
    assert all(b"PRIVATE KEY" not in bytes(row["sealed_key"]) for row in rows)
    with pytest.raises(Unsealable):
        await properties.signing_identity(site_tx, SecretBox.open(tmp_path / "other" / "box.key"))


async def test_the_default_client_settings_are_the_fields(site_tx: Tx) -> None:
    assert await client_settings.default(site_tx) == {
        "allow_cloud_distribution_point": False,
        "auto_register_with_azure_ad": True,
        "enable_cloud_management_gateway": True,
        "policy_polling_minutes": 60,
        "enable_user_policy": True,
        "enable_user_policy_from_internet": False,
        "enable_hardware_inventory": True,
        "hardware_inventory_minutes": 1440,
        "state_reporting_minutes": 15,
    }
    assert set(client_settings.CATALOGUE) <= set(ccm.ClientSettings.__struct_fields__)


async def test_settings_change_all_or_none(api: Api) -> None:
    wanted = {
        "allow_cloud_distribution_point": "yes",
        "Client policy polling interval (minutes)": 5,
    }
    answer = await api.web.patch("/api/v1/client-settings", json=wanted)
    values = {item["name"]: item["value"] for item in answer.json()}
    assert values["allow_cloud_distribution_point"] is True
    assert values["policy_polling_minutes"] == 5
    wanted = {"allow_cloud_distribution_point": "no", "policy_polling_minutes": 1}
    _, error = await api.refusal("PATCH", "/api/v1/client-settings", wanted)
    assert "from 3 to 1440" in error["message"]
    values = {item["name"]: item["value"] for item in await api.get("/api/v1/client-settings")}
    assert values["allow_cloud_distribution_point"] is True


@pytest.mark.parametrize(
    "wanted",
    [
        {"no_such_setting": True},
        {"enable_user_policy": "perhaps"},
        {"policy_polling_minutes": True},
        {"policy_polling_minutes": "60 minutes"},
        {"policy_polling_minutes": 10**30},
        {"policy_polling_minutes": None},
        {"policy_polling_minutes": ["60"]},
        ["enable_user_policy"],
    ],
)
async def test_a_setting_that_cannot_be_is_refused(api: Api, wanted: object) -> None:
    code, error = await api.refusal("PATCH", "/api/v1/client-settings", wanted)
    assert code == 400
    assert error["message"]


async def test_a_configuration_reaches_the_members_of_its_collection(site_tx: Tx) -> None:
    from tandem.site import collections

    await add_device(site_tx, "LAB-001")
    await add_device(site_tx, "LAB-002")
    one = await collections.resource(site_tx, "LAB-001")
    two = await collections.resource(site_tx, "LAB-002")
    await collections.create(
        site_tx,
        "CM1",
        "Ones",
        query="select * from SMS_R_System where Name like '%1'",
        actor="t",
        now=NOW,
    )
    setting = "DeviceLock/MaxInactivityTimeDeviceLock"
    for name, value, collection, later in (
        ("Ones", "5", "Ones", 0),
        ("Everybody", "15", "SMS00001", 1),
    ):
        await deployments.create(
            site_tx,
            name,
            setting=setting,
            value=value,
            collection=collection,
            actor="t",
            now=NOW + timedelta(seconds=later),
        )
    for device, value in ((one, "5"), (two, "15")):
        (got,) = deployments.in_policy(await deployments.holding(site_tx, device.id))
        assert (got.workload, got.setting, got.value) == ("device-configuration", setting, value)


@pytest.mark.parametrize(
    "change",
    [
        {"name": " "},
        {"setting": "NoSlash"},
        {"setting": "../../etc/passwd"},
        {"value": "x" * 5000},
        {"workload": "coffee"},
        {"collection": "Nowhere"},
    ],
)
async def test_a_configuration_that_cannot_be_is_refused(api: Api, change: dict[str, str]) -> None:
    wanted = {"name": "A", "setting": "A/B", "value": "1", "collection": "SMS00001", **change}
    code, error = await api.refusal("POST", "/api/v1/configurations", wanted)
    assert code in (400, 404)
    assert error["message"]


FILE = {"path": "/etc/motd", "content": "Welcome"}


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"value": "Welcome"}, "value", "is not understood"),
        ({"value": {**FILE, "path": "/etc/../x"}}, "value", "no dots alone"),
        ({"value": {**FILE, "colour": "red"}}, "value", "colour"),
        ({"setting": "tandemfiles/Motd", "value": {**FILE, "mode": "rw"}}, "value", "octal"),
        ({"workload": "client-apps"}, "workload", "belong to the workload Device configuration"),
        ({"setting": "TandemUnits/X", "value": {"unit": "x", "enabled": True}}, "value", "systemd"),
        ({"setting": "TandemApps/X", "value": {"install": "true"}}, "value", "exactly one of"),
        (
            {
                "setting": "TandemApps/X",
                "value": {"package": {"name": "x", "url": "http://x", "sha256": "0" * 64}},
            },
            "value",
            "https://",
        ),
    ],
)
async def test_what_linux_could_not_follow_is_refused_before_any_device_gets_it(
    api: Api, change: dict, field: str, said: str
) -> None:
    wanted = {"name": "N", "setting": "TandemFiles/Motd", "value": FILE, **change}
    wanted |= {"collection": "SMS00001"}
    if isinstance(wanted["value"], dict):
        wanted["value"] = json.dumps(wanted["value"])
    code, error = await api.refusal("POST", "/api/v1/configurations", wanted)
    assert (code, error["details"]["field"]) == (400, field)
    assert said in error["message"]
    assert error["cure"]


async def test_a_setting_for_linux_finds_its_workload_by_itself(api: Api) -> None:
    app = {"install": "touch /opt/x", "detect": {"file": "/opt/x"}}
    for setting, value, workload in (
        ("TandemFiles/Motd", FILE, "device-configuration"),
        ("TandemApps/X", app, "client-apps"),
        ("DeviceLock/X", 1, "device-configuration"),
    ):
        new = {"name": setting, "setting": setting, "value": json.dumps(value)}
        made = await api.web.post("/api/v1/configurations", json={**new, "collection": "SMS00001"})
        assert made.json()["workload"] == workload


async def test_enhanced_http_is_on_when_the_site_systems_have_their_certificate(
    api: Api, tmp_path: Path
) -> None:
    assert not (await api.get("/api/v1/site"))["enhanced_http"]
    async with api.db.transaction() as tx:
        mine = SecretBox.open(tmp_path / "keys" / "box.key")
        role = properties.SITE_SYSTEMS
        await properties.role_certificate(tx, mine, role, dns=["localhost"], now=NOW)
    assert (await api.get("/api/v1/site"))["enhanced_http"]


async def test_the_commands_of_the_site(api: Api, tmp_path: Path) -> None:
    async with api.db.transaction() as tx:
        await add_device(tx, "LAB-001")
    async with site_api.commands(api, tmp_path) as commands:
        root = tmp_path / "root.pem"
        shown = await commands.run("site", "show", "--root-file", root)
        assert shown["code"] == "CM1"
        assert int(shown["management_point_id"]) > 2**56
        (certificate,) = pki.read_certificates(root.read_bytes())
        assert pki.sha256_fingerprint(certificate) == shown["issuing_root"]["sha256"]

        password = tmp_path / "password"
        password.write_text("Another-Horse-3\n")
        await commands.run(
            "administrator",
            "add",
            "ola",
            "--role",
            "read-only-analyst",
            "--password-file",
            password,
        )
        assert len(await commands.run("administrator", "list")) == 2
        assert (await api.sign_in("ola", "Another-Horse-3")).status_code == 200
        await commands.run("administrator", "remove", "ola")

        made = await commands.run("collection", "create", "Pilot", "--limiting", "All Systems")
        assert made["members"] == 0
        added = await commands.run("collection", "add-member", "Pilot", "LAB-001")
        assert added["added"] == ["LAB-001"]
        members = await commands.run("collection", "members", made["id"])
        assert [item["name"] for item in members] == ["LAB-001"]
        await commands.run("collection", "remove-rule", "Pilot", "lab-001")
        assert await commands.run("collection", "members", "Pilot") == []

        await commands.run("client-settings", "set", "enable_user_policy_from_internet=yes")
        resultant = await commands.run("client-settings", "resultant", "LAB-001")
        by_name = {item["name"]: item["value"] for item in resultant["settings"]}
        assert by_name["enable_user_policy_from_internet"] is True

        await commands.run(
            *("configuration", "create", "Lock", "--setting", "DeviceLock/MaxInactivityTime"),
            *("--value", "5", "--collection", "Pilot"),
        )
        (configuration,) = await commands.run("configuration", "list")
        assert configuration["workload"] == "device-configuration"
        with pytest.raises(CommandFailed) as refused:
            await commands.run("collection", "delete", "Pilot")
        assert "tandem configuration list" in refused.value.cure
        await commands.run("configuration", "delete", "lock")
        await commands.run("collection", "delete", "Pilot")
        actions = [item["action"] for item in await commands.run("site", "audit", "--limit", "3")]
        assert actions == ["collection.delete", "configuration.delete", "configuration.create"]
