"""Enrollment and sessions with a device that a test plays message by message."""

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from tandem import pki
from tandem.infra.blobs import Blobs
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.secrets import SecretBox
from tandem.protocols import msi, soap, syncml
from tandem.protocols.syncml import Command, Item, Message, Results, Status
from tandem.tenant import directory, enrollment, licensing, mobile_apps, oidc, policies, sessions
from tandem.tenant.directory import MdmScope
from tandem.workloads import Workload, capabilities

CHEAP = directory.DirectorySettings(password_memory_kib=64, password_passes=1)
SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"


@dataclass
class Tenant:
    database: Database
    enrolling: enrollment.Enrollment
    managing: sessions.Sessions
    blobs: Blobs
    content: mobile_apps.Content
    user: directory.User
    at: list[datetime]
    claims: dict[str, str] = field(default_factory=dict)

    def now(self) -> datetime:
        return self.at[0]

    async def group(self, name: str, member: bool = True) -> str:
        async with self.database.transaction() as tx:
            made = await directory.create_group(tx, name, self.now())
            if member:
                await directory.add_member(tx, made.id, self.user.id)
            return made.id

    async def device(self, tx: Tx, id: str) -> enrollment.Device:
        return await enrollment.device(tx, id)


@pytest.fixture
async def tenant(tenant_db: Database, tmp_path: object) -> Tenant:
    at = [datetime(2026, 11, 24, 9, 0, tzinfo=UTC)]
    claims: dict[str, str] = {"device_id": ""}

    class Verifier:
        async def verify_mdm(self, tx: Tx, token: str, now: datetime) -> oidc.Claims:
            if not token.startswith("a.b."):
                raise oidc.BadToken("The token is not valid.")
            return oidc.Claims(
                "user", "t", claims["user_id"], "app", "mdm", "user@contoso.com",
                device_id=claims["device_id"],
            )  # fmt: skip

    async with tenant_db.transaction() as tx:
        await directory.create_tenant(
            tx, name="Contoso", domain="contoso.com", administrator_upn="admin@contoso.com",
            password="Correct-Horse-1", now=at[0], settings=CHEAP,
        )  # fmt: skip
        await licensing.establish(tx, at[0])
        new = directory.NewUser("user@contoso.com", "User", "Correct-Horse-1", usage_location="FR")
        user = await directory.create_user(tx, new, at[0], CHEAP)
        claims["user_id"] = user.id
        await directory.set_mdm_authority(tx, at[0])
        await directory.set_mdm_scope(tx, MdmScope.ALL)
    enrolling = enrollment.Enrollment(
        SecretBox(bytes(32)), Verifier(), now=lambda: at[0], public_url="https://t",
        management_url="https://m/ManagementServer/MDM.svc",
    )  # fmt: skip
    async with tenant_db.transaction() as tx:
        await enrolling.establish(tx)
    blobs = Blobs.open(str(tmp_path))
    content = mobile_apps.Content(blobs, b"k" * 32, "https://t")
    at_once = sessions.Safeguards(hold_minutes=0)
    managing = sessions.Sessions(enrolling, content, lambda: at[0], "https://m", safeguards=at_once)
    return Tenant(tenant_db, enrolling, managing, blobs, content, user, at, claims)


@dataclass
class Machine:
    """A device's side of the wire."""

    tenant: Tenant
    certificate: bytes
    id: str
    windows_id: str
    session: int = 0
    number: int = 0
    last: Message | None = None

    async def says(self, *parts: Command | Status | Results) -> Message:
        """The next message of the session, and the answer to it."""
        self.number += 1
        self.last = Message(
            str(self.session), self.number, "https://m", self.windows_id,
            tuple(p for p in parts if isinstance(p, Command)),
            tuple(p for p in parts if isinstance(p, Status)),
            tuple(p for p in parts if isinstance(p, Results)),
        )  # fmt: skip
        return await self.send(self.last)

    async def send(self, message: Message) -> Message:
        async with self.tenant.database.transaction() as tx:
            answer = await self.tenant.managing.exchange(
                tx, sessions.Peer(self.certificate), syncml.read(syncml.write(message))
            )
        return syncml.read(answer)

    async def begins(self) -> Message:
        self.session += 1
        self.number = 0
        return await self.says(Command("Alert", "2", (), "1201"))

    def accepts(self, answer: Message, code: int = 200) -> list[Status]:
        ref = str(answer.number)
        return [
            Status(str(90 + n), ref, command.id, command.name, code)
            for n, command in enumerate(answer.commands)
        ]

    async def works(self, config_info: str = "") -> Message:
        """A whole first round: the questions answered, and what is to be done."""
        asked = await self.begins()
        answers: list[Command | Status | Results] = list(self.accepts(asked))
        if config_info:
            uri = enrollment.CONFIG_INFO_URI
            (asks,) = [c.id for c in asked.commands if c.items[0].target == uri]
            answers.append(Results("80", "1", asks, (Item(source=uri, data=config_info),)))
        return await self.says(*answers)


async def enroll(tenant: Tenant, windows_id: str = "AB" * 16) -> Machine:
    key = pki.generate_key("rsa2048")
    pem = pki.certificate_request(key, pki.name("x!y"), ())
    der = x509.load_pem_x509_csr(pem).public_bytes(Encoding.DER)
    context = {
        "DeviceID": (windows_id,), "EnrollmentType": ("Device",), "DeviceName": ("LAB-1",),
        "DeviceType": ("CIMClient_Windows",),
    }  # fmt: skip
    asked = soap.RequestToken("t", "http://x/Issue", "PKCS10", der, context)
    credential = soap.Credential("token", soap.JWT_TYPE, f"a.b.{uuid4().hex}".encode())
    async with tenant.database.transaction() as tx:
        proof = await tenant.enrolling.credentials.of_token(tx, credential)
        answer = await tenant.enrolling.enroll(tx, proof, asked)
    document = etree.fromstring(answer.provisioning)
    encoded = document.find(".//characteristic[@type='My']//parm[@name='EncodedCertificate']")
    assert encoded is not None
    certificate = b64decode(encoded.get("value", ""))
    provider = document.find(".//characteristic[@type='DMClient']")
    assert provider is not None
    entry = provider.find(".//parm[@name='EntDMID']")
    assert entry is not None
    return Machine(tenant, certificate, entry.get("value", ""), windows_id)


async def test_the_provisioning_document_names_one_account_everywhere(tenant: Tenant) -> None:
    machine = await enroll(tenant)
    leaf = x509.load_der_x509_certificate(machine.certificate)
    assert leaf.subject.rfc4514_string() == f"CN={machine.id}"
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [usage.dotted_string for usage in usages] == ["1.3.6.1.5.5.7.3.2"]


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda tx, user: licensing.require_licence(tx, True), "licensing.no-mdm-licence"),
        (lambda tx, user: directory.set_mdm_scope(tx, MdmScope.NONE), "enrollment.refused"),
    ],
)
async def test_who_may_not_enroll_is_told_why(
    tenant: Tenant, prepare: Callable[..., object], expected: str
) -> None:
    async with tenant.database.transaction() as tx:
        await prepare(tx, tenant.user)  # type: ignore[misc]
    with pytest.raises(AppError) as refused:
        await enroll(tenant)
    assert refused.value.code == expected
    assert refused.value.cure


async def test_only_the_enrolled_certificate_with_its_own_id_is_answered(tenant: Tenant) -> None:
    machine = await enroll(tenant)
    other = await enroll(tenant, "CD" * 16)
    stranger = pki.new_root(pki.name("stranger"), now=tenant.now()).certificate
    for certificate, source in (
        (stranger.public_bytes(Encoding.DER), machine.windows_id),
        (other.certificate, machine.windows_id),
    ):
        with pytest.raises(enrollment.NotEnrolled):
            async with tenant.database.transaction() as tx:
                message = Message("1", 1, "m", source)
                await tenant.managing.exchange(tx, sessions.Peer(certificate), message)


async def test_a_setting_is_sent_until_the_device_has_taken_it_and_not_again(
    tenant: Tenant,
) -> None:
    machine = await enroll(tenant)
    group = await tenant.group("Everyone")
    async with tenant.database.transaction() as tx:
        made = await policies.create(tx, "Lock", SETTING, "5", tenant.now())
        await policies.assign(tx, made.id, [group], [])
    work = await machine.works()
    (command,) = work.commands
    assert (command.name, command.items[0].data) == ("Replace", "5")
    assert command.items[0].target == f"./Device/Vendor/MSFT/Policy/Config/{SETTING}"
    # The answer was lost: the device repeats its message and gets the same one.
    assert machine.last is not None
    assert await machine.send(machine.last) == work
    # It never came back: the next session says it again.
    again = await machine.works()
    assert [c.items[0].data for c in again.commands] == ["5"]
    closing = await machine.says(*machine.accepts(again))
    assert closing.commands == ()
    assert (await machine.works()).commands == ()
    async with tenant.database.transaction() as tx:
        await policies.change(tx, made.id, "7", tenant.now())
    assert [c.items[0].data for c in (await machine.works()).commands] == ["7"]


async def test_the_site_s_workloads_are_left_alone(tenant: Tenant) -> None:
    machine = await enroll(tenant)
    group = await tenant.group("Everyone")
    async with tenant.database.transaction() as tx:
        made = await policies.create(tx, "Lock", SETTING, "5", tenant.now())
        await policies.assign(tx, made.id, [group], [])
    info = "flags={};agent=0.1.0;client=GUID:1;policy=1"
    assert (await machine.works(info.format(8193))).commands == ()
    moved = capabilities([Workload.DEVICE_CONFIGURATION])
    work = await machine.works(info.format(moved))
    assert len(work.commands) == 1
    await machine.says(*machine.accepts(work))
    assert (await machine.works(info.format(8193))).commands == ()
    # Back with the MDM service, it says the value anew: the site had set its own meanwhile.
    assert len((await machine.works(info.format(moved))).commands) == 1


async def test_an_excluded_group_wins(tenant: Tenant) -> None:
    machine = await enroll(tenant)
    everyone, out = await tenant.group("Everyone"), await tenant.group("Out")
    async with tenant.database.transaction() as tx:
        made = await policies.create(tx, "Lock", SETTING, "5", tenant.now())
        await policies.assign(tx, made.id, [everyone], [out])
    assert (await machine.works()).commands == ()


async def test_late_and_foreign_messages_change_nothing(tenant: Tenant) -> None:
    machine = await enroll(tenant)
    work = await machine.works()
    assert work.commands == ()
    for message in (
        Message("77", 2, "m", machine.windows_id),
        Message(str(machine.session), 1, "m", machine.windows_id, (), ()),
    ):
        answer = await machine.send(message)
        assert answer.final
    fresh = await enroll(tenant, "EF" * 16)
    assert (await fresh.send(Message("5", 4, "m", fresh.windows_id))).commands == ()


async def test_a_device_leaves_when_told_and_is_not_known_any_more(tenant: Tenant) -> None:
    machine = await enroll(tenant)
    async with tenant.database.transaction() as tx:
        by = sessions.By("1", "admin@contoso.com")
        await tenant.managing.order(tx, by, sessions.RETIRE, [machine.id])
    work = await machine.works()
    (order,) = work.commands
    assert order.name == "Exec"
    assert order.items[0].target.endswith("/Unenroll")
    machine.session, machine.number = machine.session + 1, 0
    kind = "com.microsoft:mdm.unenrollment.userrequest"
    await machine.says(
        Command("Alert", "2", (), "1201"),
        Command("Alert", "3", (Item(type=kind, data="1"),), "1226"),
    )
    async with tenant.database.transaction() as tx:
        assert (await enrollment.device(tx, machine.id)).state == "unenrolled"
    with pytest.raises(enrollment.NotEnrolled):
        await machine.begins()


async def test_what_the_agent_says_becomes_the_device_s_account(tenant: Tenant) -> None:
    machine = await enroll(tenant)
    await machine.works(
        "flags=0;agent=0.1.0;client=;policy=0;setup=322;code=6;log=The%20gateway%20is%20away"
    )
    async with tenant.database.transaction() as tx:
        device = await enrollment.device(tx, machine.id)
        events = await enrollment.timeline(tx, device_id=machine.id)
    assert device.agent is not None
    assert (device.agent.setup, device.agent.log) == (322, "The gateway is away")
    assert device.flags is None
    assert any("The gateway is away" in event.text for event in events)


async def test_a_link_to_content_is_good_for_its_app_and_time_only(tenant: Tenant) -> None:
    app = mobile_apps.App(
        "a1", "n", "", "", "", "x.msi", "{A}", "1", "", "0" * 64, 1, "published", "", tenant.now()
    )
    token = (await tenant.content.link(app, tenant.now())).split("/content/")[1].split("/")[0]
    assert tenant.content.app_id(token, tenant.now()) == "a1"
    later = tenant.now() + timedelta(hours=5)
    for bad, when in (
        (token, later),
        (token[:-2] + "AA", tenant.now()),
        ("a2." + token[3:], tenant.now()),
        ("", tenant.now()),
        ("a.b.c.d", tenant.now()),
    ):
        with pytest.raises(mobile_apps.LinkExpired):
            tenant.content.app_id(bad, when)


async def test_an_app_needs_an_msi_and_a_short_line(tenant: Tenant) -> None:
    async with tenant.database.transaction() as tx:
        with pytest.raises(mobile_apps.BadApp) as long:
            await mobile_apps.create(
                tx, name="", description="", publisher="", command_line="x" * 1025,
                file_name="c.msi", now=tenant.now(),
            )  # fmt: skip
        assert "1,024" in long.value.message
        made = await mobile_apps.create(
            tx, name="", description="", publisher="", command_line="x" * 1024,
            file_name="c.msi", now=tenant.now(),
        )  # fmt: skip
        with pytest.raises(mobile_apps.NotPublished):
            await mobile_apps.assign(tx, made.id, [], [])
    with pytest.raises(msi.BadMsi):
        msi.read(b"not an MSI")
