"""The registry of HKEY_LOCAL_MACHINE, as 64-bit programs see it.

    SOFTWARE\\Tandem\\Client                  ours: what the MSI and the agent leave there
    SOFTWARE\\Microsoft\\Enrollments\\{id}     of Windows's MDM client, read only
    SOFTWARE\\Microsoft\\PolicyManager\\…      what each enrollment has set of the policy CSP, read only

SOFTWARE\\Microsoft\\CCM is another product's: CoManagementFlags are neither read nor written.
"""

import sys
from collections.abc import Mapping
from typing import Protocol

from tandem.agent.platform.model import MdmEnrollment

CLIENT_KEY = r"SOFTWARE\Tandem\Client"
ENROLLMENTS_KEY = r"SOFTWARE\Microsoft\Enrollments"
# Below it an enrollment's own values: {id}\\default\\Device\\{area}, each by its policy's name.
POLICIES_KEY = r"SOFTWARE\Microsoft\PolicyManager\Providers"
PROVIDER_ID = "TandemMDM"
_ABOUT = ("_LastWrite", "_ProviderSet", "_WinningProvider", "_ADMXInstanceData")
_ENROLLED = 1  # EnrollmentState of an enrollment in force.

Value = str | int


class Registry(Protocol):
    def values(self, key: str) -> dict[str, Value]:
        """Texts and numbers of a key; none when it does not exist."""
        ...

    def below(self, key: str) -> list[str]:
        """The names of its subkeys."""
        ...

    def write(self, key: str, values: Mapping[str, Value]) -> None:
        """Set values of a key of ours, which is made when missing. Raises ValueError otherwise."""
        ...


class Enrollment:
    """An enrollment of Windows in our MDM service. `id` names its scheduled tasks too."""

    def __init__(self, id: str, values: Mapping[str, Value]) -> None:
        self.id = id
        self.upn = str(values.get("UPN", ""))
        self.provider = str(values.get("ProviderID", ""))
        self.thumbprint = str(values.get("DMPCertThumbPrint", "")).upper()
        self.discovery_url = str(values.get("DiscoveryServiceFullURL", ""))
        self.state = values.get("EnrollmentState", 0)


def enrollment(registry: Registry) -> Enrollment | None:
    """The one in force. What former enrollments left behind has another state, or no certificate."""
    for id in registry.below(ENROLLMENTS_KEY):
        found = Enrollment(id, registry.values(rf"{ENROLLMENTS_KEY}\{id}"))
        if found.provider == PROVIDER_ID and found.thumbprint and found.state == _ENROLLED:
            return found
    return None


def policies(registry: Registry, id: str) -> dict[str, str]:
    """The settings (area/name) that Windows's MDM client has applied for an enrollment."""
    key = rf"{POLICIES_KEY}\{id}\default\Device"
    return {
        f"{area}/{name}": str(value)
        for area in registry.below(key)
        for name, value in registry.values(rf"{key}\{area}").items()
        # Beside a value stands what Windows keeps about it.
        if not name.endswith(_ABOUT)
    }


def as_seen(found: Enrollment | None) -> MdmEnrollment:
    if found is None:
        return MdmEnrollment(False)
    return MdmEnrollment(True, found.upn, found.provider, provisioned=True)


def check_ours(key: str) -> None:
    if not key.upper().startswith("SOFTWARE\\TANDEM\\"):
        raise ValueError(f"{key} is not a key of ours")


if sys.platform == "win32":
    import winreg

    _READ = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
    _WRITE = winreg.KEY_WRITE | winreg.KEY_WOW64_64KEY

    class LocalMachine:
        """The real one."""

        def values(self, key: str) -> dict[str, Value]:
            found: dict[str, Value] = {}
            try:
                with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, _READ) as opened:
                    for number in range(winreg.QueryInfoKey(opened)[1]):
                        name, value, _ = winreg.EnumValue(opened, number)
                        if isinstance(value, str | int):
                            found[name] = value
            except FileNotFoundError:
                return {}
            return found

        def below(self, key: str) -> list[str]:
            try:
                with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, _READ) as opened:
                    count = winreg.QueryInfoKey(opened)[0]
                    return [winreg.EnumKey(opened, number) for number in range(count)]
            except FileNotFoundError:
                return []

        def write(self, key: str, values: Mapping[str, Value]) -> None:
            check_ours(key)
            with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, key, 0, _WRITE) as opened:
                for name, value in values.items():
                    sort = winreg.REG_DWORD if isinstance(value, int) else winreg.REG_SZ
                    winreg.SetValueEx(opened, name, 0, sort, value)
