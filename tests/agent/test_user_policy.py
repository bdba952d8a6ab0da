"""Policy of the signed-in user, over the gateway: merged with the device's, which comes first."""

from pathlib import Path

import pytest

from one_site import TENANT, Broker, Site, log
from tandem.agent import Client, Machine
from tandem.protocols import ccm
from tandem.site import clients
from tandem.workloads import Workload

ON = {"enable_user_policy": True, "enable_user_policy_from_internet": True}
OF = Workload.DEVICE_CONFIGURATION.value


def setting(id: str, name: str, value: str) -> ccm.Configuration:
    return ccm.Configuration(id, OF, name, value)


async def polled(client: Client) -> None:
    client.wake()
    await client.step()


@pytest.fixture
def deployed(site: Site) -> None:
    """The user u1 has two settings, one of which the device has too."""
    site.content = ccm.PolicyContent(
        settings=ON, configurations=[setting("c1", "Desk/A", "device")]
    )
    site.of_users["u1"] = [setting("u1", "Desk/A", "user"), setting("u2", "Desk/B", "user")]


@pytest.mark.usefixtures("deployed")
async def test_the_users_settings_come_where_the_devices_say_nothing(
    client: Client, installed: Machine
) -> None:
    await polled(client)
    assert client.gate.value("Desk/A") == "device"
    assert client.gate.value("Desk/B") == "user"
    assert "Received user policy for u1." in log(installed, "PolicyAgent")
    # It is there after a restart before the network is.
    assert Client(installed)._user_policy is not None


@pytest.mark.usefixtures("deployed")
async def test_switched_off_the_users_settings_go(
    site: Site, client: Client, installed: Machine
) -> None:
    await polled(client)
    off = {**ON, "enable_user_policy_from_internet": False}
    site.content = ccm.PolicyContent(settings=off, configurations=site.content.configurations)
    await polled(client)
    assert client.gate.value("Desk/B") is None
    assert client.gate.value("Desk/A") == "device"
    assert not (installed.state / "CCM" / "user-policy.json").exists()


@pytest.mark.usefixtures("deployed")
async def test_when_nobody_is_signed_in_any_more_the_settings_go(
    client: Client, installed: Machine
) -> None:
    await polled(client)
    broker = installed.directory
    assert isinstance(broker, Broker)
    broker.user_tokens = False
    (installed.state / "CCM" / "token-user").unlink()
    await polled(client)
    assert client.gate.value("Desk/B") is None


@pytest.mark.usefixtures("deployed")
async def test_a_token_of_a_user_on_another_device_is_refused(
    site: Site, client: Client, installed: Machine
) -> None:
    async def elsewhere(tx: object, token: str) -> clients.TenantIdentity:
        kind = "user" if token.startswith("user:") else "device"
        return clients.TenantIdentity(TENANT, "d9" if kind == "user" else "d1", kind, "u1")

    site.verify_token = elsewhere
    (installed.state / "CCM" / "token-user").unlink()
    await polled(client)
    assert client.gate.value("Desk/B") is None
    assert any("given to another device" in line for line in log(installed, "PolicyAgent"))


@pytest.mark.usefixtures("deployed")
async def test_a_tampered_token_is_refused(site: Site, client: Client, installed: Machine) -> None:
    await polled(client)
    broker = installed.directory
    assert isinstance(broker, Broker)

    async def forged(*_: str) -> str:
        return "user;d1"

    broker.user_token = forged  # type: ignore[method-assign]
    (installed.state / "CCM" / "token-user").unlink()
    await polled(client)
    assert client.gate.value("Desk/B") is None


async def test_while_the_setting_is_off_the_management_point_gives_none(
    site: Site, client: Client, installed: Machine, tmp_path: Path
) -> None:
    """Whatever an agent asks: the site's own rule is the site's to keep."""
    with pytest.raises(Exception, match=r"client\.user-policy-off"):
        await client._session.get("/SMS_MP/.sms_pol?user", account="user")
