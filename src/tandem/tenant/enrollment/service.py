"""Take devices into MDM, and let them go."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tandem import audit, pki
from tandem.infra import events
from tandem.infra.clock import Clock
from tandem.infra.database import Tx
from tandem.infra.secrets import SecretBox
from tandem.protocols import soap
from tandem.tenant import directory, licensing, mobile_apps, oidc
from tandem.tenant.assignments import Membership
from tandem.tenant.enrollment import (
    certificates,
    credentials,
    provisioning,
    restriction_store,
    restrictions,
    session_secrets,
    store,
    terms,
)
from tandem.tenant.enrollment.credentials import ChecksPasswords, Credentials, VerifiesTokens
from tandem.tenant.enrollment.model import (
    BadEnrollment,
    Device,
    DeviceGone,
    EnrollmentRefused,
    EnrollmentSettings,
    Event,
    NoSuchDevice,
    NotEnrolled,
    RecoveryRefused,
)
from tandem.tenant.enrollment.ways import CAME, WINDOWS, Proof

_CONTEXT = "enrollment.authority"
_ROOT_DAYS = 365 * 15
# Enrollment versions; a device that is answered 5.0 attests its TPM, which nobody reads here.
_OLDEST, _NEWEST = 3.0, 4.0
# A device that never had a session did not get its answer, or never was one (spec 7).
_PENDING = timedelta(hours=24)
_NEVER_CAME = "Never came back after its enrollment"


class Enrollment:
    """The enrollment service of one tenant."""

    def __init__(
        self,
        box: SecretBox,
        tokens: VerifiesTokens,
        *,
        now: Clock,
        public_url: str,
        management_url: str,
        settings: EnrollmentSettings = EnrollmentSettings(),
        passwords: ChecksPasswords | None = None,
    ) -> None:
        self.box = box
        self.credentials = Credentials(tokens, now, passwords)
        self.now = now
        self.public_url = public_url.rstrip("/")
        self.management_url = management_url
        self.settings = settings

    @property
    def revocation_list_url(self) -> str:
        return self.public_url + certificates.LIST_PATH

    async def establish(self, tx: Tx) -> x509.Certificate:
        """The tenant's device CA, made when missing. Returns its certificate."""
        return (await self.authority(tx)).certificate

    async def authority(self, tx: Tx) -> pki.Authority:
        kept = await store.authority(tx)
        if kept is None:
            here = await directory.tenant(tx)
            subject = pki.name("Tandem MDM Device CA", organization=here.display_name)
            made = pki.new_root(subject, now=self.now(), days=_ROOT_DAYS, key="rsa2048")
            sealed = self.box.seal(pki.key_pem(made.key), _CONTEXT)
            der = made.certificate.public_bytes(Encoding.DER)
            await store.insert_authority(tx, sealed, der)
            kept = await store.authority(tx)
            assert kept is not None
        key = pki.load_key(self.box.unseal(kept[0], _CONTEXT))
        return pki.Authority(x509.load_der_x509_certificate(kept[1]), key)

    # -------------------------------------------------------------- the three messages

    def discover(self, asked: soap.Discover, *, passwords: bool = False) -> soap.DiscoverResponse:
        """Where to go. `passwords`: they are taken; only who cannot sign in on a page brings one.

        Raises BadEnrollment for a client that is too old or offers no way that is open here.
        """
        if not asked.request_version >= _OLDEST:
            raise BadEnrollment("This client is too old to enrol.")
        base = f"{self.public_url}/EnrollmentServer"
        sign_in, policy = f"{base}/Auth", soap.FEDERATED
        if asked.auth_policies and soap.FEDERATED not in asked.auth_policies:
            if not passwords or soap.ON_PREMISE not in asked.auth_policies:
                raise BadEnrollment(
                    "Devices enrol here by a sign-in on a page, or with their user's token of the"
                    " directory.",
                    cure="Join the device to the directory; it enrols by itself then.",
                )
            sign_in, policy = "", soap.ON_PREMISE
        return soap.DiscoverResponse(
            f"{base}/Policy.svc",
            f"{base}/Enrollment.svc",
            sign_in,
            f"{min(asked.request_version, _NEWEST):.1f}",
            policy,
        )

    def require_new(self, asked: soap.RequestToken) -> None:
        """Raises RecoveryRefused, BadEnrollment unless a first certificate is asked for."""
        match asked.request_type.rpartition("/")[2]:
            case "Issue" if asked.sort == "PKCS10":
                return
            case "Recovery":
                raise RecoveryRefused("Certificates are not recovered here.")
            case _:
                raise BadEnrollment("RequestType says nothing that can be done here.")

    async def enroll(self, tx: Tx, claims: Proof, asked: soap.RequestToken) -> soap.TokenResponse:
        """A certificate and an account for a device. The credential is used up by it.

        Raises BadCredential, NoMdmAuthority, EnrollmentRefused, NoMdmLicence, BadEnrollment,
        TermsNotAccepted, BadRequest.
        """
        now = self.now()
        await self.may(tx, claims)
        windows_id, name = asked.item("DeviceID"), asked.item("DeviceName")
        kind = asked.item("EnrollmentType")
        sort = asked.item("DeviceType")
        if not windows_id or len(windows_id) > 128 or kind.lower() not in {"full", "device"}:
            raise BadEnrollment("DeviceID or EnrollmentType is missing.")
        if not sort:
            raise BadEnrollment("DeviceType is missing.")
        if sort != WINDOWS:
            raise restrictions.DeviceNotSupported("Only Windows computers enrol here.")
        await restriction_store.lock_user(tx, claims.object_id)
        owner = await restrictions.check(tx, claims.object_id, claims.device_id, windows_id, asked)
        await terms.require(tx, self.box, self.credentials, claims, asked, now)
        key = pki.windows_request(asked.request)
        id = str(uuid.uuid4())
        await store.lock(tx, [windows_id, claims.device_id])
        await self.credentials.spend(tx, claims, asked, id)
        await self._same_person(tx, windows_id, claims)
        key_sha256 = certificates.key_sha256(key)
        if await store.key_is_anothers(tx, key_sha256, windows_id):
            raise pki.BadRequest("The key is certified for another enrollment already.")
        authority = await self.authority(tx)
        profile = await certificates.profile(tx, self.settings)
        certificate = certificates.issue(
            authority, key, id, profile, list_url=self.revocation_list_url, now=now
        )
        device = Device(
            id,
            windows_id,
            asked.item("HWDevID")[:128],
            claims.device_id,
            claims.object_id,
            claims.upn,
            name[:128] or windows_id,
            asked.item("OSVersion")[:32] or asked.item("ApplicationVersion")[:32],
            kind,
            "enrolled",
            pki.sha256_fingerprint(certificate),
            now,
            None,
            None,
        )
        await self._retire_older(tx, device)
        await store.insert(tx, device, key_sha256)
        await store.set_management(tx, id, "owner_type", owner)
        await certificates.keep(tx, id, certificate, key, profile, now)
        await self._note_clones(tx, device)
        if claims.device_id:
            await directory.set_device_management(
                tx, claims.device_id, is_managed=True, mdm_app_id=oidc.MDM_APP
            )
        await self.note(
            tx, device, "enrolled", f"Enrolled in MDM by {claims.upn}{CAME[claims.way]}"
        )
        await events.record(
            tx,
            "device.enrolled",
            device.id,
            {"upn": claims.upn, "name": device.name, "way": claims.way.value},
        )
        document = provisioning.document(
            device,
            self.settings,
            profile,
            root=authority.certificate,
            certificate=certificate,
            management_url=self.management_url,
            account=await self._account(tx, device),
        )
        await self._record_enrolled(tx, device, claims)
        return soap.TokenResponse(document, now)

    async def _record_enrolled(self, tx: Tx, device: Device, claims: Proof) -> None:
        """For the audit log, whose one end other enrollments wait for: the last of all (section 20)."""
        await audit.record(
            tx,
            actor=f"user:{claims.upn}",
            action="enrol device",
            target=device.id,
            details={
                "name": device.name,
                "windows_id": device.windows_id,
                "way": claims.way.value,
                "certificate": device.fingerprint,
                "address": claims.address,
            },
            now=self.now(),
        )

    async def _account(self, tx: Tx, device: Device) -> session_secrets.Account:
        """New secrets for an enrollment; kept is what checks them."""
        made = session_secrets.new_account(device.upn)
        kept = made.kept(self.settings.provider_id)
        await session_secrets.insert(tx, self.box, device.id, kept)
        return made

    async def may(self, tx: Tx, claims: Proof) -> None:
        """Raises NoMdmAuthority, EnrollmentRefused, NoMdmLicence unless the user may enrol devices."""
        await directory.require_mdm_authority(tx)
        user = await directory.find_user(tx, claims.object_id)
        if user is None or not user.account_enabled:
            # A token outlives the account that it was given to.
            raise EnrollmentRefused("The user's account is blocked, or gone from the directory.")
        if not await directory.in_mdm_scope(tx, claims.object_id):
            raise EnrollmentRefused(
                f"{claims.upn} is not in the MDM user scope (0x80180003).",
                cure="Add the user to a group of the scope: `tandem mdm-authority scope`.",
            )
        await licensing.check_mdm_licence(tx, claims.object_id)

    async def _same_person(self, tx: Tx, windows_id: str, claims: Proof) -> None:
        known = await store.device(tx, "windows_id", windows_id)
        if known is not None and known.state != "unenrolled" and known.user_id != claims.object_id:
            raise EnrollmentRefused(
                "This device is enrolled by another user.",
                cure="Unenrol it first: `tandem managed-device unenrol`.",
            )

    async def _retire_older(self, tx: Tx, device: Device) -> None:
        """The same device enrols anew: the enrollment before is over.

        The same is the same joined device, or the same id of Windows's, which is the same user's
        here. A hardware id proves nothing (section 6.4).
        """
        known = {"windows_id": device.windows_id, "directory_device_id": device.directory_device_id}
        for column, value in known.items():
            older = await store.device(tx, column, value) if value else None
            if older is not None and older.state != "unenrolled":
                await store.set_state(tx, older.id, "unenrolled", self.now())
                await certificates.end_all(tx, older.id, "superseded", self.now())
                await mobile_apps.forget_device(tx, older.id)
                if older.directory_device_id not in {"", device.directory_device_id}:
                    await directory.set_device_management(
                        tx, older.directory_device_id, is_managed=False
                    )
                await self.note(tx, older, "superseded", "The device enrolled again")

    async def _note_clones(self, tx: Tx, device: Device) -> None:
        """Other enrollments of the same hardware: a machine that was set up anew, or a cloned image.

        Which of the two, nobody can tell from here, so nothing is ended: it is said at both (6.4).
        """
        for other in await store.of_hardware(tx, device.hardware_id, device.id):
            await self.note(
                tx,
                other,
                "possible-clone",
                f"{device.name} of {device.upn} enrolled with the hardware id of this device: it"
                " was set up anew, or one of them is a clone. Retire the one that is no more",
            )
            await self.note(
                tx,
                device,
                "possible-clone",
                f"The hardware id is that of {other.name} of {other.upn} too, which is still"
                " enrolled: the device was set up anew, or one of them is a clone",
            )
            await events.record(tx, "device.possible-clone", device.id, {"other": other.id})

    async def refused(
        self, tx: Tx, asked: soap.RequestToken | None, claims: Proof, text: str, code: str
    ) -> None:
        """Remember a refusal, for the list of enrollment failures and the audit log.

        Without `asked` it came before the device said anything of itself.
        """
        name = asked.item("DeviceName")[:128] if asked else ""
        windows_id = asked.item("DeviceID")[:128] if asked else ""
        if not name and claims.device_id:
            known = await directory.find_device(tx, claims.device_id)
            name = known.display_name if known is not None else ""
        told = f"{name or 'A device'} of {claims.upn}: {text}"[:1000]
        await store.add_event(tx, "", claims.device_id, self.now(), "refused", told, code)
        await audit.record(
            tx,
            actor=f"user:{claims.upn}",
            action="enrol device",
            target=windows_id,
            outcome="refused",
            details={
                "name": name,
                "way": claims.way.value,
                "address": claims.address,
                "code": code,
                "reason": text[:1000],
            },
            now=self.now(),
        )

    # -------------------------------------------------------------- devices

    async def authenticate(self, tx: Tx, certificate: bytes | None, source: str) -> Device:
        """The device of a session: its certificate decides, its own id has to agree.

        Raises NotEnrolled, which does not tell an unknown device from a known one.
        """
        now = self.now()
        found, by = await certificates.holder(tx, certificate, now)
        if source != found.windows_id:
            raise NotEnrolled("This device is not enrolled.")
        if await certificates.used(tx, found, by, now):
            await self.note(tx, found, "certificate", "Its renewed certificate is in use")
        return found

    async def directory_device(
        self, tx: Tx, certificate: bytes | None, settings: directory.DirectorySettings
    ) -> directory.Device:
        """The directory's device of whoever proved to hold this MDM certificate.

        A device that enrolled without a join is registered with the directory at its first call,
        as its user's. One that an administrator deleted there stays away until it enrols again.
        Raises NotEnrolled, DeviceGone, DeviceQuota.
        """
        enrolled, _ = await certificates.holder(tx, certificate, self.now())
        if not enrolled.directory_device_id:
            # Two first calls at once register one device, and none that enrols again meanwhile.
            await store.lock(tx, [enrolled.windows_id])
            enrolled = await device(tx, enrolled.id)
        if enrolled.state != "enrolled":
            raise NotEnrolled("The enrollment of this device ends.", cure="Enrol the device again.")
        if enrolled.directory_device_id:
            found = await directory.find_device(tx, enrolled.directory_device_id)
            if found is None:
                raise DeviceGone(
                    f"The device {enrolled.directory_device_id} does not exist in this tenant.",
                    cure="Have the device enrol again.",
                )
            return found
        assert certificate is not None
        key = x509.load_der_x509_certificate(certificate).public_key()
        assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
        made = await directory.join_device(
            tx,
            owner_id=enrolled.user_id,
            display_name=enrolled.name,
            operating_system="Windows",
            operating_system_version=enrolled.os_version,
            key_thumbprint=pki.jwk_thumbprint(key),
            now=self.now(),
            settings=settings,
            trust=directory.Trust.REGISTERED,
        )
        await store.set_directory_device(tx, enrolled.id, made.device_id)
        await directory.set_device_management(
            tx, made.device_id, is_managed=True, mdm_app_id=oidc.MDM_APP
        )
        registered = replace(enrolled, directory_device_id=made.device_id)
        await self.note(tx, registered, "registered", "Registered by its MDM certificate")
        await audit.record(
            tx,
            actor=f"user:{enrolled.upn}",
            action="register device",
            target=made.device_id,
            details={"name": enrolled.name, "enrollment": enrolled.id, "by": oidc.MDM_CERTIFICATE},
            now=self.now(),
        )
        return await directory.find_device(tx, made.device_id) or made

    async def left(self, tx: Tx, certificate: bytes, source: str) -> Device | None:
        """The device that once held this certificate here and is not enrolled any more."""
        return await certificates.left(tx, certificate, source, self.now())

    async def session_secrets(
        self, tx: Tx, source: str
    ) -> tuple[Device, session_secrets.SessionSecrets] | None:
        """The enrolled device that Windows calls so, and what checks its secret.

        The secret came with the certificate, and counts as long as one of the device's does.
        """
        found = await store.device(tx, "windows_id", source)
        id = found.id if found is not None and found.state != "unenrolled" else ""
        row = await session_secrets.find(tx, id)
        now = self.now()
        usable = any(one.usable(now) for one in await certificates.of(tx, id))
        if found is None or row is None or not usable:
            return None
        return found, session_secrets.opened(self.box, row)

    async def session_accepted(self, tx: Tx, device: Device, accepted: int, nonce: bytes) -> None:
        """The device proved itself; `nonce` is for its next session."""
        await session_secrets.accept(tx, device.id, accepted, nonce)

    async def device(self, tx: Tx, id: str) -> Device:
        return await device(tx, id)

    async def note(
        self, tx: Tx, device: Device, kind: str, text: str, code: str = "", trace: str = ""
    ) -> None:
        await store.add_event(
            tx, device.id, device.directory_device_id, self.now(), kind, text[:1000], code, trace
        )

    async def notes(
        self, tx: Tx, device: Device, kind: str, texts: Sequence[str], trace: str = ""
    ) -> None:
        """Several lines of one kind."""
        await store.add_events(
            tx,
            device.id,
            device.directory_device_id,
            self.now(),
            kind,
            [text[:1000] for text in texts],
            trace,
        )

    async def note_each(self, tx: Tx, devices: Sequence[Device], kind: str, text: str) -> None:
        """The same line in the timelines of several devices."""
        ids = [device.id for device in devices]
        await store.add_event_of_each(tx, ids, self.now(), kind, text[:1000])

    async def begin_unenroll(self, tx: Tx, device: Device) -> None:
        await store.set_state(tx, device.id, "unenrolling", None)
        await store.set_management(tx, device.id, "management_state", "retirePending")
        await self.note(tx, device, "unenrolling", "An administrator ends the enrollment")

    async def keep(self, tx: Tx, device: Device) -> None:
        """A device that was to leave stays: the order is off before it had it."""
        await store.set_state(tx, device.id, "enrolled", None)
        await self.note(tx, device, "enrolled", "The device stays enrolled")

    async def end(self, tx: Tx, device: Device, why: str) -> None:
        """The device left MDM."""
        await self._end(tx, device, why)
        await self._record_ended(tx, device, why)

    async def _end(self, tx: Tx, device: Device, why: str) -> None:
        await store.set_state(tx, device.id, "unenrolled", self.now())
        await certificates.end_all(tx, device.id, "cessationOfOperation", self.now())
        await mobile_apps.forget_device(tx, device.id)
        if device.directory_device_id:
            await directory.set_device_management(tx, device.directory_device_id, is_managed=False)
        await self.note(tx, device, "unenrolled", why)
        await events.record(tx, "device.unenrolled", device.id, {"why": why})

    async def _record_ended(self, tx: Tx, device: Device, why: str) -> None:
        await audit.record(
            tx,
            actor="tenant",
            action="end enrollment",
            target=device.id,
            details={"name": device.name, "certificate": device.fingerprint, "reason": why},
            now=self.now(),
        )

    async def tend(self, tx: Tx) -> None:
        """Enrollments whose device never came back are over, and tokens from long ago go."""
        await credentials.tend(tx, self.now())
        why, ended = _NEVER_CAME, await store.never_came(tx, self.now() - _PENDING)
        for device in ended:
            await self._end(tx, device, why)
        # Last of all: nobody is kept from the log's end by what comes before.
        for device in ended:
            await self._record_ended(tx, device, why)


async def device(tx: Tx, id: str) -> Device:
    """Raises NoSuchDevice."""
    found = await store.device(tx, "id", id)
    if found is None:
        raise NoSuchDevice(
            f"There is no managed device {id!r}.", cure="List them: `tandem managed-device list`."
        )
    return found


async def some(tx: Tx, ids: Sequence[str], *, lock: bool = False) -> list[Device]:
    """By their ids, in their order. `lock`: to be changed. Raises NoSuchDevice."""
    found = {one.id: one for one in await store.some(tx, ids, lock=lock)}
    return [found[id] if id in found else await device(tx, id) for id in ids]


async def existing(tx: Tx, ids: Sequence[str]) -> list[Device]:
    """Those of these that there are."""
    return await store.some(tx, ids)


async def devices(tx: Tx) -> list[Device]:
    return await store.devices(tx)


async def devices_of(tx: Tx, user_id: str) -> list[Device]:
    """A user's devices that have not left."""
    user = await directory.find_user(tx, user_id)
    if user is None:
        return []
    return await store.devices_of(tx, user_id, user.user_principal_name)


async def timeline(tx: Tx, *, device_id: str = "", kind: str = "", limit: int = 500) -> list[Event]:
    """The newest first."""
    return await store.events(tx, device_id=device_id, kind=kind, limit=limit)


async def groups_of(tx: Tx, device: Device) -> Membership:
    """Groups that count for a device: its user's, and its own as a directory object."""
    return Membership(
        *await directory.groups_of_pair(tx, device.user_id, device.directory_device_id)
    )


async def groups_of_all(tx: Tx, devices: Sequence[Device]) -> dict[str, Membership]:
    """As `groups_of`, of many devices at once, by their ids."""
    own = await directory.objects_of_devices(tx, [one.directory_device_id for one in devices])
    groups = await directory.groups_of_all(tx, {*own.values(), *(one.user_id for one in devices)})
    none: frozenset[str] = frozenset()
    return {
        one.id: Membership(
            groups.get(one.user_id, none),
            groups.get(own.get(one.directory_device_id, ""), none),
        )
        for one in devices
    }
