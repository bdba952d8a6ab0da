"""What the machine is: one question to CIM."""

import msgspec

from tandem.agent.platform.windows.programs import PowerShell, ProgramFailed

_SCRIPT = r"""
$os = Get-CimInstance Win32_OperatingSystem
$computer = Get-CimInstance Win32_ComputerSystem
$bios = Get-CimInstance Win32_BIOS
$product = Get-CimInstance Win32_ComputerSystemProduct
$version = Get-ItemProperty 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
$disks = @(Get-CimInstance Win32_LogicalDisk -Filter 'DriveType=3' |
  Select-Object DeviceID, Size, FreeSpace)
@{
  os_name = $os.Caption; os_version = $os.Version; revision = [int]$version.UBR
  edition = [int]$os.OperatingSystemSKU; architecture = $os.OSArchitecture
  name = $computer.Name; manufacturer = $computer.Manufacturer; model = $computer.Model
  memory_bytes = [int64]$computer.TotalPhysicalMemory
  serial_number = $bios.SerialNumber; uuid = $product.UUID; disks = $disks
} | ConvertTo-Json -Compress -Depth 3
"""


class Disk(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="DeviceID")
    size_bytes: int | None = msgspec.field(name="Size", default=None)
    free_bytes: int | None = msgspec.field(name="FreeSpace", default=None)


class Inventory(msgspec.Struct, frozen=True):
    """As the machine says; makers leave serial numbers empty or put words there."""

    name: str
    os_name: str
    os_version: str
    revision: int = 0
    edition: int = 0
    architecture: str | None = ""
    manufacturer: str | None = ""
    model: str | None = ""
    memory_bytes: int = 0
    serial_number: str | None = ""
    uuid: str | None = ""
    disks: list[Disk] = []

    @property
    def full_version(self) -> str:
        """`10.0.22631.4317`: CIM leaves the fourth part to the registry."""
        return f"{self.os_version}.{self.revision}"


async def inventory(shell: PowerShell) -> Inventory:
    """Raises ProgramFailed."""
    found = await shell.ask(_SCRIPT)
    try:
        return msgspec.convert(found, Inventory)
    except msgspec.ValidationError as error:
        raise ProgramFailed(f"CIM answers otherwise than expected: {error}.") from None
