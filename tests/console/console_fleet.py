"""A small fleet that shows every state, behind both protocols of the console."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from tandem import console
from tandem.console.model import (
    App,
    AppStatus,
    Begun,
    Dashboard,
    Device,
    DeviceFacts,
    Devices,
    Fact,
    Filter,
    Happening,
    LogText,
    Owner,
    Session,
    Slice,
)
from tandem.infra.errors import AppError, Kind
from tandem.workloads import Authority, Position, Workload, capabilities, owner_of

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
PASSWORD = "correct horse battery"


class WrongPassword(AppError):
    kind, code = Kind.UNAUTHENTICATED, "administrator.wrong-password"


def device(number: int, **facts: object) -> DeviceFacts:
    base: dict[str, object] = {
        "id": f"d-{number:04}",
        "name": f"LAB-{number:03}",
        "user": f"user{number}@contoso.com",
        "os_version": "10.0.22631.1",
        "licensed": True,
        "last_seen_at": NOW - timedelta(minutes=number),
    }
    return DeviceFacts(**{**base, **facts})  # type: ignore[arg-type]


TOGETHER = {
    "mdm_enrolled": True,
    "app_offered": True,
    "msi_installed": True,
    "registered": True,
    "policy_present": True,
    "client_version": "5.00.0001",
    "flags": capabilities([]),
}
FLEET = (
    *(device(number, **TOGETHER) for number in range(1, 61)),
    device(61, **{**TOGETHER, "flags": capabilities([Workload.CLIENT_APPS])}),
    device(62, **{**TOGETHER, "mdm_enrolled": False}),
    device(63, mdm_enrolled=True, app_offered=True, trouble="ccmsetup failed with 0x87d0027e"),
    device(64, licensed=False, enrollment_error=0x80180018),
    device(65, hybrid=True, enrollment_error=0x8018002B),
    device(66, hybrid=True, scheduled=True, initiated=True, registered=True),
    device(67, pending_sign_in=True),
    device(68, os_version="10.0.15063.0", registered=True),
    device(69, os_version="6.1.7601", registered=True, joined=False),
)
APP = App(
    "a-1",
    "Client Bootstrap",
    "Contoso",
    "5.00.0001",
    "published",
    ("pilot",),
    ("pilot-without",),
    installed=61,
    failed=1,
    waiting=2,
)
STATUSES = (
    AppStatus(
        "d-0001", "LAB-001", "user1@contoso.com", "installed", False, "ccmsetup", 0, True, True
    ),
    AppStatus(
        "d-0063",
        "LAB-063",
        "user63@contoso.com",
        "70",
        True,
        "ccmsetup",
        7,
        False,
        False,
        stuck_at="ccmsetup failed with 0x87d0027e",
    ),
)


class Fleet:
    """Both protocols over `devices`. `tenant_gone` is why the tenant cannot be asked."""

    def __init__(self) -> None:
        self.devices_known = FLEET
        self.sessions: dict[str, Session] = {}
        self.tenant_gone = ""
        self.broken = False

    def admit(self, user: str = "admin") -> Session:
        token = f"token-{user}-{len(self.sessions)}"
        self.sessions[token] = Session(token, user, "Full Administrator")
        return self.sessions[token]

    async def sign_in(self, user: str, password: str) -> Session:
        if password != PASSWORD:
            raise WrongPassword("ADMINISTRATOR-OR-PASSWORD-WRONG", cure="TRY-AGAIN")
        return self.admit(user)

    async def begin(self, return_to: str) -> Begun:
        return Begun(f"https://tenant/authorize?to={return_to}", "secret-of-this-sign-in")

    async def finish(self, secret: str, query: Mapping[str, str]) -> tuple[Session, str]:
        if secret != "secret-of-this-sign-in" or query.get("code") != "good":
            raise WrongPassword("SIGN-IN-NOT-FINISHED")
        return self.admit("admin@contoso.com"), "/console/apps"

    async def session(self, token: str) -> Session | None:
        if self.broken:
            raise RuntimeError("a bug")
        return self.sessions.get(token)

    async def sign_out(self, session: Session) -> None:
        del self.sessions[session.token]

    async def dashboard(self, session: Session) -> Dashboard:
        positions = {Workload.CLIENT_APPS: Position.PILOT}
        return console.dashboard(self.devices_known, positions, self.tenant_gone)

    async def devices(self, session: Session, wanted: Filter, part: Slice) -> Devices:
        return console.listing(self.devices_known, wanted, part, self.tenant_gone)

    async def device(self, session: Session, device_id: str) -> Device:
        for facts in self.devices_known:
            if facts.id == device_id:
                return Device(
                    facts=facts,
                    mdm=(
                        Fact("Enrolled", facts.mdm_enrolled),
                        Fact("Last check-in", facts.last_seen_at),
                    ),
                    site=(Fact("Client id", "GUID:1"), Fact("Client version", "5.00.0001")),
                    owners=tuple(
                        Owner(workload, owner_of(workload, facts.flags), Authority.SITE)
                        for workload in Workload
                    ),
                    timeline=(
                        Happening(NOW, "MDM service", "ENROLLED-EVENT"),
                        Happening(NOW, "Site", "FAILED-EVENT", failed=True),
                        Happening(NOW, "Site", "REPEATED-EVENT", times=12),
                    ),
                    logs=(LogText("CoManagementHandler.log", ("LOG-LINE-1", "LOG-LINE-2")),),
                    without_tenant=self.tenant_gone,
                )
        raise console.UnknownDevice("NO-SUCH-DEVICE", cure="LOOK-IN-THE-LIST")

    async def apps(self, session: Session) -> tuple[App, ...]:
        return (APP,)

    async def app(self, session: Session, app_id: str) -> App:
        if app_id != APP.id:
            raise console.UnknownApp("NO-SUCH-APP")
        import msgspec

        return msgspec.structs.replace(APP, statuses=STATUSES)
