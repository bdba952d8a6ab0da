"""Policy of the signed-in user, over the gateway: merged with the device's, which comes first."""

from pathlib import Path

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

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
    # The token of who was there is good for hours yet.
    assert (installed.state / "CCM" / "token-user").exists()
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


@pytest.mark.usefixtures("deployed")
async def test_another_user_has_nothing_of_the_one_before(
    site: Site, client: Client, installed: Machine
) -> None:
    """Neither the site's word nor a token that is still good for hours keeps it here."""
    await polled(client)
    assert client.gate.value("Desk/B") == "user"
    site.of_users["u2"] = [setting("u3", "Desk/C", "other")]
    broker = installed.directory
    assert isinstance(broker, Broker)
    broker.user = "u2"
    # The next user comes while the site cannot be reached.
    site.relay = lambda request: Response(status_code=503)
    await client.step()
    assert client.gate.value("Desk/B") is None
    assert client.gate.value("Desk/A") == "device"
    site.relay = lambda request: None
    await polled(client)
    assert client.gate.value("Desk/C") == "other"
    lines = client.gate.ledger._path.read_text().splitlines()
    ledger = [ccm.read_entry(line) for line in lines]
    assert [one.kind for one in ledger if one.setting == "Desk/B"] == ["write", "remove"]


@pytest.mark.usefixtures("deployed")
async def test_the_report_says_what_came_by_the_user(site: Site, client: Client) -> None:
    await polled(client)
    async with site.db.transaction() as tx:
        state = (await clients.find(tx, clients.ClientId(client.client_id))).state
    assert state is not None
    assert state.user == "u1"
    assert (
        state.applied["Desk/B"] | {"configuration": "u2", "user": "u1"} == state.applied["Desk/B"]
    )
    assert "user" not in state.applied["Desk/A"]


@pytest.mark.usefixtures("deployed")
async def test_the_users_policy_is_not_taken_for_the_devices(
    site: Site, client: Client, installed: Machine
) -> None:
    """A gateway that gives one for the other does not take away what the device has."""
    kept: list[str] = []
    await polled(client)
    stored = client._folder.read("user-policy.json")
    assert stored is not None
    kept.append(msgspec.json.decode(stored)["sealed"])

    def swaps(request: Request) -> Response | None:
        swapped = request.url.path.endswith(".sms_pol") and not request.url.query
        return Response(kept[0], media_type="application/jose") if swapped else None

    site.relay = swaps
    await polled(client)
    assert client.gate.value("Desk/A") == "device"
    assert client.policy is not None
    assert client.policy.user == ""
    assert any("is a user's" in line for line in log(installed, "PolicyAgent"))
