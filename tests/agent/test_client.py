import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from starlette.responses import Response

from one_site import Bridge, Broker, Moment, Site, enrolled, log, renamed
from tandem import pki
from tandem.agent import Bootstrap, Client, Machine, MdmEnrollment
from tandem.agent.folder import Folder, device_key
from tandem.agent.spool import Spool
from tandem.protocols import ccm
from tandem.site import clients
from tandem.workloads import Authority, Workload, capabilities

PILOT = Workload.DEVICE_CONFIGURATION


def production(value: int, **changes: bool) -> ccm.ConfigurationPolicy:
    settings = {"allow": True, "auto_enroll": False, **changes}
    return ccm.ConfigurationPolicy(
        "ScopeId_1/ConfigurationPolicy_1", "CoMgmtSettingsProd", 3, "production", **settings,
        capabilities=value,
    )  # fmt: skip


def pilot(value: int) -> ccm.ConfigurationPolicy:
    return ccm.ConfigurationPolicy(
        "ScopeId_1/ConfigurationPolicy_2", "CoMgmtSettingsPilot", 1, "pilot", True, False, value
    )


WITNESS = ccm.Configuration("c1", PILOT.value, "Desktop/Banner", "from the site")


async def record(site: Site) -> clients.Client:
    async with site.db.transaction() as tx:
        (summary,) = await clients.list_clients(tx)
        return await clients.find(tx, summary.id)


async def history(site: Site) -> list[clients.TimelineEntry]:
    async with site.db.transaction() as tx:
        client = await clients.find(tx, (await clients.list_clients(tx))[0].id)
        return await clients.timeline(tx, client.tenant_id, client.device_id)


async def test_the_first_step_registers_and_brings_policy(site: Site, installed: Machine) -> None:
    client = Client(installed)
    assert client.gate.owner(PILOT) is Authority.MDM
    await client.step()
    assert client.client_id.startswith("GUID:")
    assert client.policy is not None
    found = await record(site)
    assert (found.id, found.name, found.device_id) == (client.client_id, "LAB-001", "d1")
    assert found.approval == 3
    assert site.resources
    assert (
        f"[RegTask] - Client is registered. Server assigned ClientID is {client.client_id}. "
        "Approval status 3"
    ) in log(installed, "ClientIDManagerStartup")
    texts = [entry.text for entry in await history(site)]
    assert "Client deployment succeeded" in texts
    assert "Registered with the site" in texts
    assert "Policy delivered" in texts


async def test_registering_again_keeps_the_client_id(
    site: Site, client: Client, installed: Machine
) -> None:
    site.relay = _once(lambda: Response(
        msgspec.json.encode({"error": {"code": "client.unknown", "message": "who?"}}), 401
    ))  # fmt: skip
    before = client.client_id
    client.wake()
    await client.step()
    assert client.client_id == ""
    await client.step()
    assert client.client_id == before
    async with site.db.transaction() as tx:
        assert await clients.count(tx) == 1


def _once(make):
    answers = [make]

    def relay(request):
        if answers and request.url.path.endswith("sms_pol"):
            return answers.pop()()
        return None

    return relay


async def test_a_site_code_that_only_registration_refuses_is_reported_once(
    site: Site, installed: Machine
) -> None:
    file = installed.state / "CCM" / "client.json"
    stored = msgspec.json.decode(file.read_bytes())
    file.write_bytes(msgspec.json.encode({**stored, "site_code": "XYZ"}))
    client = Client(installed)
    await client.step()
    await client.step()
    assert client.client_id == ""
    assert "this site is CM1" in installed.mdm.info.log
    async with site.db.transaction() as tx:
        (state,) = await clients.setup_states(tx)
        entries = await clients.timeline(tx, state.tenant_id, "d1")
    assert state.state == 602
    assert "SMSSITECODE=CM1" in state.data["cure"]
    assert [e.state for e in entries if e.topic == ccm.SETUP_TOPIC].count(602) == 1


async def test_policy_that_is_known_is_not_sent_again(
    site: Site, client: Client, installed: Machine
) -> None:
    client.wake()
    await client.step()
    assert "Policy is not modified." in log(installed, "PolicyAgent")
    assert client.policy
    assert client.policy.version == 1


async def test_the_policy_of_a_user_that_is_known_is_not_sent_again(
    site: Site, client: Client, installed: Machine
) -> None:
    settings = {"enable_user_policy_from_internet": True}
    site.content = ccm.PolicyContent(settings=settings)
    for _ in range(3):
        client.wake()
        await client.step()
    delivered = [e for e in await history(site) if e.text == "Policy of a user delivered"]
    assert len(delivered) == 1
    assert "User policy is not modified." in log(installed, "PolicyAgent")
    site.content = ccm.PolicyContent(settings={**settings, "policy_polling_minutes": 30})
    client.wake()
    await client.step()
    delivered = [e for e in await history(site) if e.text == "Policy of a user delivered"]
    assert len(delivered) == 2


async def test_changed_policy_has_the_next_version(site: Site, client: Client) -> None:
    site.content = ccm.PolicyContent(settings={"policy_polling_minutes": 30})
    client.wake()
    await client.step()
    assert client.policy
    assert client.policy.version == 2
    assert client.settings.policy_polling_minutes == 30


async def test_policy_is_renewed_before_it_expires(
    site: Site, client: Client, moment: Moment
) -> None:
    first = client.policy
    moment.passes(days=4)
    client.wake()
    await client.step()
    assert first
    assert client.policy
    assert client.policy.issued_at > first.issued_at
    assert client.policy.version == first.version


async def test_withheld_policy_is_noticed_and_moves_nothing(
    site: Site, client: Client, moment: Moment, installed: Machine
) -> None:
    enrolled(installed)
    site.content = ccm.PolicyContent(configuration_policies=[production(capabilities([PILOT]))])
    client.wake()
    await client.step()
    site.relay = lambda r: Response(status_code=304) if r.url.path.endswith("sms_pol") else None
    moment.passes(days=8)
    client.wake()
    await client.step()
    assert any("expired" in line for line in log(installed, "PolicyAgent"))
    assert client.gate.owner(PILOT) is Authority.MDM
    assert installed.mdm.info.policy is False
    assert (ccm.FRAMEWORK_TOPIC, 2) in [(e.topic, e.state) for e in await history(site)]
    assert Client(installed).gate.owner(PILOT) is Authority.MDM


async def test_a_forged_policy_changes_nothing(
    site: Site, client: Client, installed: Machine, moment: Moment
) -> None:
    impostor = pki.new_root(pki.name("SMS Issuing"), now=moment())
    key = pki.generate_key()
    leaf = impostor.issue(key.public_key(), pki.name("x"), now=moment(), days=9, usages=["code"])
    before = client.policy
    assert before
    evil = msgspec.structs.replace(before, configuration_policies=[production(12543)])
    sealed = ccm.seal("policy", evil, ccm.SigningIdentity(key, leaf, impostor.certificate))
    site.relay = lambda r: Response(sealed) if r.url.path.endswith("sms_pol") else None
    client.wake()
    await client.step()
    assert client.policy == before
    assert any("not by the site" in line for line in log(installed, "PolicyAgent"))


async def test_an_older_policy_is_a_replay(site: Site, client: Client, moment: Moment) -> None:
    old = await _policy_text(site, client)
    moment.passes(hours=1)
    site.content = ccm.PolicyContent(configuration_policies=[production(capabilities([]))])
    client.wake()
    await client.step()
    newer = client.policy
    site.relay = lambda r: Response(old) if r.url.path.endswith("sms_pol") else None
    client.wake()
    await client.step()
    assert client.policy == newer


async def _policy_text(site: Site, client: Client) -> str:
    return ccm.seal("policy", client.policy, site.identity)


async def test_the_pilot_switch_moves_one_workload_and_back(
    site: Site, client: Client, installed: Machine
) -> None:
    enrolled(installed)
    base = production(capabilities([]))
    site.content = ccm.PolicyContent(configuration_policies=[base], configurations=[WITNESS])
    client.wake()
    await client.step()
    gate = client.gate
    assert gate.owner(PILOT) is Authority.SITE
    assert gate.value("Desktop/Banner") == "from the site"
    assert not gate.offer(Authority.MDM, PILOT, "Desktop/Banner", "from MDM")
    assert installed.mdm.info == ccm.ConfigInfo(8193, "0.1.0", client.client_id, True)

    site.content = ccm.PolicyContent(
        configuration_policies=[base, pilot(capabilities([PILOT]))], configurations=[WITNESS]
    )
    syncs = installed.mdm.syncs
    client.wake()
    await client.step()
    assert installed.mdm.syncs == syncs + 1
    assert gate.owner(PILOT) is Authority.MDM
    assert gate.owner(Workload.COMPLIANCE_POLICIES) is Authority.SITE
    assert gate.offer(Authority.MDM, PILOT, "Desktop/Banner", "from MDM")
    await client.step()
    assert gate.value("Desktop/Banner") == "from MDM"

    site.content = ccm.PolicyContent(configuration_policies=[base], configurations=[WITNESS])
    client.wake()
    await client.step()
    assert gate.value("Desktop/Banner") == "from the site"
    assert gate.applied["Desktop/Banner"].count == 3
    state = (await record(site)).state
    assert state
    assert state.flags == 8193
    assert state.workloads[PILOT.value] == "site"
    assert state.applied["Desktop/Banner"]["source"] == "site"


async def test_a_secret_of_the_mdm_service_is_not_told_to_the_site(
    site: Site, client: Client, installed: Machine
) -> None:
    enrolled(installed)
    site.content = ccm.PolicyContent(
        configuration_policies=[production(capabilities([PILOT]))], configurations=[]
    )
    client.wake()
    await client.step()
    for setting, value in (("Vpn/SharedKey", "hunter2hunter2"), ("Desktop/Banner", "hello")):
        assert client.gate.offer(Authority.MDM, PILOT, setting, value)
    client.wake()
    await client.step()
    state = (await record(site)).state
    assert state
    told = {setting: one["value"] for setting, one in state.applied.items()}
    assert told == {"Vpn/SharedKey": "********", "Desktop/Banner": "hello"}
    assert client.gate.value("Vpn/SharedKey") == "hunter2hunter2"


SECRET = ccm.Configuration("c9", PILOT.value, "Vpn/SharedKey", "hunter2hunter2")


async def test_a_gateway_reads_no_value_that_the_site_deploys(
    site: Site, client: Client, installed: Machine
) -> None:
    """What passed through it is signed, names no setting, and opens with the device's key alone."""
    site.content = ccm.PolicyContent(
        configuration_policies=[production(8193)], configurations=[WITNESS, SECRET]
    )
    client.wake()
    await client.step()
    assert client.gate.value("Vpn/SharedKey") == "hunter2hunter2"
    kept = (installed.state / "CCM" / "policy.json").read_text()
    sealed = json.loads(kept)["sealed"]
    passed = urlsafe_b64decode(sealed.split(".")[1] + "==")
    assert b"hunter2" not in passed
    assert b"SharedKey" not in passed
    assert b"from the site" not in passed
    copied = {"root": site.root.certificate, "now": site.now(), "client_id": client.client_id}
    stranger = pki.generate_key("p256")
    with pytest.raises(ccm.BadDocument, match="encrypted to another key"):
        ccm.open_policy(sealed, key=stranger, **copied)
    with pytest.raises(ccm.BadDocument, match="no key to read"):
        ccm.open_policy(sealed, **copied)
    # Nor does it learn the secret from what the device tells of it; the site knows all the same.
    state = (await record(site)).state
    assert state
    assert state.applied["Vpn/SharedKey"] == {
        "value": "********",
        "source": "site",
        "workload": PILOT.value,
        "configuration": "c9",
    }
    # After a restart the device reads what it has.
    assert Client(installed).policy == client.policy


async def test_a_gateway_that_puts_in_settings_of_its_own_is_refused(
    site: Site, client: Client, installed: Machine
) -> None:
    """Encrypting to the device takes only its public key, which is no secret: the signature counts."""
    site.content = ccm.PolicyContent(configurations=[WITNESS])
    client.wake()
    await client.step()
    sealed = json.loads((installed.state / "CCM" / "policy.json").read_text())["sealed"]
    head, payload, signature = sealed.split(".")
    told = json.loads(urlsafe_b64decode(payload + "=="))
    key = device_key(Folder(installed.state / "CCM"))
    told["hidden"] = ccm.hide([SECRET], key.public_key())
    forged = urlsafe_b64encode(json.dumps(told).encode()).rstrip(b"=").decode()
    site.relay = lambda r: (
        Response(f"{head}.{forged}.{signature}") if r.url.path.endswith("sms_pol") else None
    )
    before = client.policy
    client.wake()
    await client.step()
    assert client.policy == before
    assert client.gate.value("Vpn/SharedKey") is None
    assert any("signature of the policy" in line for line in log(installed, "PolicyAgent"))
    # The site hears of it: what the gateway did is in the device's history.
    entry = next(e for e in await history(site) if (e.topic, e.state) == (ccm.FRAMEWORK_TOPIC, 2))
    assert entry.data["code"] == "client.bad-document"


async def test_the_handler_says_what_administrators_grep_for(
    site: Site, client: Client, installed: Machine
) -> None:
    enrolled(installed)
    site.content = ccm.PolicyContent(
        configuration_policies=[production(8193), pilot(capabilities([Workload.CLIENT_APPS]))]
    )
    client.wake()
    await client.step()
    assert (
        log(installed, "CoManagementHandler")[-12:]
        == [
            "Processing GET for assignment (ScopeId_1/ConfigurationPolicy_1 : 3)",
            "Processing GET for assignment (ScopeId_1/ConfigurationPolicy_2 : 1)",
            "Getting/Merging value for setting 'CoManagementSettings_Allow'",
            "Merged value for setting 'CoManagementSettings_Allow' is 'true'",
            "Getting/Merging value for setting 'CoManagementSettings_AutoEnroll'",
            "Merged value for setting 'CoManagementSettings_AutoEnroll' is 'false'",
            "Getting/Merging value for setting 'CoManagementSettings_Capabilities'",
            "Merged value for setting 'CoManagementSettings_Capabilities' is '8257'",
            "New merged workloadflags value with co-management max capabilities '12543' is '8257'",
            "Merging workload flags 0 with 8257",
            "Workloads flag retrieved 8257",
            "Device is already enrolled with MDM and Device Provisioned",
        ][-14:]
    )


async def test_the_gate_says_why_it_refuses(site: Site, client: Client, installed: Machine) -> None:
    client.gate.offer(Authority.MDM, Workload.WINDOWS_UPDATE, "Update/Deferral", "7")
    assert log(installed, "WUAHandler")[:3] == [
        "Verifying if workload 16 is enabled in workloadFlags 0",
        "Result of & operation is 0",
        "Feature flag is OFF, should be SCCM managed.",
    ]


async def test_without_mdm_enrollment_all_workloads_are_the_sites(
    site: Site, client: Client, installed: Machine
) -> None:
    site.content = ccm.PolicyContent(configuration_policies=[production(12543)])
    client.wake()
    await client.step()
    assert client.gate.flags == 0
    state = (await record(site)).state
    assert state
    assert (state.flags, state.capabilities, state.policy_present) == (0, 12543, True)
    enrolled(installed)
    await client.step()
    assert client.gate.flags == 12543


async def test_auto_enrolment_tries_three_times_and_reports(
    site: Site, client: Client, installed: Machine, moment: Moment
) -> None:
    from one_site import BadDirectoryToken

    installed.mdm.refusals = [BadDirectoryToken("MDM scope does not cover the user.")] * 2
    site.content = ccm.PolicyContent(
        configuration_policies=[production(capabilities([]), auto_enroll=True)]
    )
    client.wake()
    await client.step()
    assert installed.mdm.enrolments == []
    moment.passes(minutes=1)
    await client.step()
    assert installed.mdm.enrolments == [False, True]
    moment.passes(minutes=1)
    client.wake()
    await client.step()
    assert installed.mdm.enrollment().enrolled
    client.wake()
    await client.step()
    states = [e.state for e in await history(site) if e.topic == ccm.COMANAGEMENT_TOPIC]
    assert [s for s in states if s != 100] == [101, 105, 110, 105, 107]
    said = log(installed, "CoManagementHandler")
    assert "Enrolling device to MDM... Try #1 out of 3" in said
    assert "MDM enrollment succeeded" in said


def enrolling(**changes: object) -> ccm.PolicyContent:
    """Production enrols this device, within 10,000 of its minutes (200 seconds of the test's clock)."""
    policy = msgspec.structs.replace(
        production(capabilities([]), auto_enroll=True), spread_minutes=10_000
    )
    return ccm.PolicyContent(configuration_policies=[policy], **changes)  # type: ignore[arg-type]


async def steps(client: Client) -> None:
    client.wake()
    await client.step()


def enrolment_states(entries: list[clients.TimelineEntry]) -> list[int]:
    return [e.state for e in entries if e.topic == ccm.COMANAGEMENT_TOPIC and e.state != 100]


async def test_a_planned_enrolment_comes_at_once_when_the_site_orders_it(
    site: Site, client: Client, installed: Machine, moment: Moment
) -> None:
    site.content = enrolling()
    await steps(client)
    (planned,) = [e for e in await history(site) if (e.topic, e.state) == (810, 101)]
    at = datetime.fromisoformat(planned.data["at"])
    assert moment() <= at <= moment() + timedelta(seconds=200)
    site.content = enrolling(enroll_now="order-1")
    await steps(client)
    assert installed.mdm.enrollment().enrolled
    await steps(client)
    assert enrolment_states(await history(site)) == [101, 105, 107]


async def test_an_order_to_enrol_is_taken_once(
    site: Site, client: Client, installed: Machine, moment: Moment
) -> None:
    from one_site import BadDirectoryToken

    installed.mdm.refusals = [BadDirectoryToken("No.")] * 2
    site.content = enrolling(enroll_now="order-1")
    for _ in range(3):
        await steps(client)
    await steps(Client(installed))
    assert installed.mdm.enrolments == [False, True]


async def test_a_planned_enrolment_is_canceled_when_no_policy_asks_for_it(
    site: Site, client: Client, installed: Machine, moment: Moment
) -> None:
    site.content = enrolling()
    await steps(client)
    site.content = ccm.PolicyContent(configuration_policies=[production(capabilities([]))])
    for _ in range(2):
        moment.passes(minutes=10)
        await steps(client)
    assert enrolment_states(await history(site)) == [101, 102]
    assert not installed.mdm.enrollment().enrolled


async def test_after_three_tries_it_waits_for_the_next_evaluation(
    site: Site, client: Client, installed: Machine, moment: Moment
) -> None:
    from one_site import BadDirectoryToken

    installed.mdm.refusals = [BadDirectoryToken("No.")] * 100
    site.content = enrolling(enroll_now="order-1", settings={"policy_polling_minutes": 60})
    tried: list[float] = []
    begun = moment()
    for _ in range(125):
        before = len(installed.mdm.enrolments)
        await steps(client)
        if len(installed.mdm.enrolments) > before:
            tried.append((moment() - begun).total_seconds())
        moment.passes(seconds=0.02)
    minutes = [round(seconds / 0.02) for seconds in tried]
    assert minutes == [0, 15, 30, 90, 105, 120]
    (last,) = [e for e in await history(site) if e.state == 110][-1:]
    assert (last.data["try"], last.data["code"]) == (3, "token.invalid")


async def test_state_is_sent_again_only_when_it_changed(
    site: Site, client: Client, installed: Machine
) -> None:
    for _ in range(3):
        client.wake()
        await client.step()
    states = [e for e in await history(site) if (e.topic, e.state) == (810, 100)]
    assert len(states) == 1


async def test_messages_survive_an_outage_and_a_restart(
    site: Site, client: Client, installed: Machine
) -> None:
    enrolled(installed)
    site.relay = lambda r: Response(status_code=503)
    client.wake()
    await client.step()
    waiting = len(list((installed.state / "CCM" / "spool").glob("*.json")))
    assert waiting
    site.relay = lambda r: None
    again = Client(installed)
    await again.step()
    assert not list((installed.state / "CCM" / "spool").glob("*.json"))
    assert (await record(site)).state.mdm_enrolled  # type: ignore[union-attr]


async def test_a_lost_answer_does_not_count_a_message_twice(
    site: Site, client: Client, installed: Machine
) -> None:
    enrolled(installed)
    lost: list[bytes] = []

    spool = installed.state / "CCM" / "spool"
    await client.step()
    kept = {p.name: p.read_bytes() for p in spool.glob("*.json")}
    client.wake()
    await client.step()
    before = len(await history(site))
    for name, data in kept.items():
        (spool / name).write_bytes(data)
    again = Client(installed)
    await again.step()
    assert kept
    assert not lost
    assert len(await history(site)) == before
    assert not list(spool.glob("*.json"))


async def test_a_token_that_lost_its_worth_is_replaced(
    site: Site, client: Client, moment: Moment
) -> None:
    moment.passes(hours=9)
    client.wake()
    site.seen.clear()
    await client.step()
    assert next(r.url.path.rsplit("/", 1)[1] for r in site.seen) == "CCM_STS"
    assert client.policy


async def test_client_settings_have_their_effects(
    site: Site, client: Client, installed: Machine
) -> None:
    site.content = ccm.PolicyContent(
        settings={"enable_user_policy_from_internet": True, "allow_cloud_distribution_point": True}
    )
    client.wake()
    await client.step()
    client.wake()
    await client.step()
    state = (await record(site)).state
    assert state
    assert state.effects == {
        "allow_cloud_distribution_point": "content may come from the gateway",
        "auto_register_with_azure_ad": "joined",
        "enable_cloud_management_gateway": "the gateway is used",
        "enable_user_policy_from_internet": "user policy received",
    }
    assert "Policy of a user delivered" in [e.text for e in await history(site)]


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_device_that_is_not_joined_is_registered_only_where_settings_allow_it(
    site: Site, client: Client, installed: Machine, allowed: bool
) -> None:
    directory = installed.directory
    assert isinstance(directory, Broker)
    directory.device, directory.registers = None, True
    site.content = ccm.PolicyContent(settings={"auto_register_with_azure_ad": allowed})
    client.wake()
    await client.step()
    assert (directory.device, directory.registrations) == (("d1", 1) if allowed else (None, 0))
    state = (await record(site)).state
    assert state
    effect = "registered" if allowed else "not joined, and not to be registered"
    assert state.effects["auto_register_with_azure_ad"] == effect


async def test_a_registration_that_fails_is_said(
    site: Site, client: Client, installed: Machine
) -> None:
    assert isinstance(installed.directory, Broker)
    installed.directory.device = None
    client.wake()
    await client.step()
    state = (await record(site)).state
    assert state
    assert state.effects["auto_register_with_azure_ad"].startswith("registration failed: ")


async def test_user_policy_is_not_asked_for_where_settings_do_not_allow_it(
    site: Site, client: Client
) -> None:
    site.seen.clear()
    client.wake()
    await client.step()
    assert not any(request.url.query == "user" for request in site.seen)
    state = (await record(site)).state
    assert state
    assert state.effects["enable_user_policy_from_internet"] == "no user policy is asked for"


async def test_content_comes_from_the_gateway_only_where_settings_allow_it(
    site: Site, client: Client, installed: Machine
) -> None:
    package = installed.state / "CCM" / "client" / "client.whl"
    package.write_bytes(b"damaged")
    for cached in (installed.state / "ccmsetup").glob(site.manifest.sha256):
        cached.unlink()
    again = Client(installed)
    site.seen.clear()
    await again.step()
    assert not any(site.manifest.sha256 in request.url.path for request in site.seen)
    assert package.read_bytes() == b"damaged"
    state = (await record(site)).state
    assert state
    assert "damaged" in state.effects["allow_cloud_distribution_point"]

    site.content = ccm.PolicyContent(settings={"allow_cloud_distribution_point": True})
    again.wake()
    await again.step()
    assert package.read_bytes() == site.package
    assert "The client's package was repaired." in log(installed, "CcmEval")


async def test_a_client_that_may_not_use_the_gateway_says_so_and_stops(
    site: Site, client: Client
) -> None:
    site.content = ccm.PolicyContent(settings={"enable_cloud_management_gateway": False})
    client.wake()
    await client.step()
    state = (await record(site)).state
    assert state
    assert state.effects["enable_cloud_management_gateway"] == "the gateway is no longer used"
    site.seen.clear()
    client.wake()
    await client.step()
    assert site.seen == []


async def test_being_woken_asks_for_an_mdm_session_too(
    site: Site, client: Client, installed: Machine
) -> None:
    before = installed.mdm.syncs
    await client.step()
    assert installed.mdm.syncs == before
    client.wake()
    await client.step()
    assert installed.mdm.syncs == before + 1


async def test_run_ends_when_it_is_asked_to(installed: Machine) -> None:
    stop = asyncio.Event()
    client = Client(installed)
    task = asyncio.create_task(client.run(stop))
    while not client.client_id:
        await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(task, 5)


async def test_the_key_never_leaves_the_device_and_is_private(
    site: Site, client: Client, installed: Machine
) -> None:
    key: Path = installed.state / "CCM" / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (await record(site)).thumbprint == pki.jwk_thumbprint(pki.load_key(key.read_bytes()))


async def test_a_message_that_is_never_taken_does_not_hold_up_the_others(
    site: Site, client: Client, installed: Machine
) -> None:
    spool = Spool(Folder(installed.state / "CCM" / "spool"))
    for number in range(3):
        spool.add(1300, number, site.now(), {"text": "\0" if number == 1 else "fine"})
    await Client(installed).step()
    assert [e.state for e in await history(site) if e.topic == 1300] == [0, 2]
    assert any("is dropped" in line for line in log(installed, "StateMessage"))


async def test_many_devices_live_in_one_process(
    site: Site, machine: Machine, tmp_path: Path
) -> None:
    """Each device has its own key and folder; connections are shared."""
    site.content = ccm.PolicyContent(configuration_policies=[production(capabilities([PILOT]))])
    stop = asyncio.Event()

    async def device(number: int) -> Client:
        own = renamed(
            machine,
            tmp_path / f"device{number}",
            name=f"LAB-{number:03}",
            mdm=Bridge(MdmEnrollment(True, "user@contoso.com", "TandemMDM", True)),
            directory=Broker(f"device-{number}"),
            durable=False,
        )
        assert (await Bootstrap(own, site.command_line).run(stop)).code == 0
        client = Client(own)
        await client.step()
        return client

    found = await asyncio.gather(*(device(number) for number in range(25)))
    assert len({client.client_id for client in found}) == 25
    assert all(client.gate.owner(PILOT) is Authority.MDM for client in found)
    async with site.db.transaction() as tx:
        listed = await clients.list_clients(tx)
    assert [one.policy_present for one in listed] == [True] * 25


async def test_who_leaves_stays_until_its_last_word_is_said(
    site: Site, client: Client, installed: Machine
) -> None:
    """The way was cut, and when it starts again the gateway is none for it any more."""
    settings = {"enable_cloud_management_gateway": False}
    site.content = ccm.PolicyContent(settings=settings, leave=True)
    site.relay = lambda r: Response(b"", 503) if r.url.path.endswith("/ccm_incoming") else None
    await steps(client)
    assert not client.left
    site.relay = lambda request: None
    again = Client(installed)
    await steps(again)
    assert not again.left
    assert installed.mdm.info.client


async def test_an_enrolment_that_was_planned_by_a_clock_ahead_is_not_waited_for(
    site: Site, client: Client, installed: Machine
) -> None:
    from one_site import BadDirectoryToken

    own = Moment()
    own.at = site.now()
    site.content = enrolling()
    device = replace(installed, now=own)
    here = Client(device)
    await steps(here)
    installed.mdm.refusals = [BadDirectoryToken("No.")] * 2
    own.passes(days=365)
    await steps(here)
    assert installed.mdm.enrolments == [False, True]
    own.passes(days=-365)
    again = Client(device)
    await steps(again)
    own.passes(seconds=201)
    await steps(again)
    assert installed.mdm.enrollment().enrolled
