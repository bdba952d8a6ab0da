"""The branches of the tree that are not about applications."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from tandem.agent.mdm.messages import Item
from tandem.agent.mdm.session import Unenrolling
from tandem.agent.mdm.tree import (
    FAILED,
    FORBIDDEN,
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    Path,
    Store,
    Value,
)
from tandem.agent.platform import ConfigurationGate
from tandem.infra.errors import AppError
from tandem.infra.logs import get_logger
from tandem.workloads import Authority, Workload, workload_of_area

log = get_logger("mdm")

# The one instance that Windows lets a program on the device write.
AGENT = "WMI_Bridge_Server"


class Policy:
    """`./Vendor/MSFT/Policy`: what the service wants (Config), and what is in force (Result).

    What the gate does not let through is refused with 403 and not stored: the service sends it
    again when the workload is its own. What is stored is offered again after each change, so a
    value of the service is back in force when its workload comes back to it.
    """

    def __init__(self, wanted: Store, gate: Callable[[], ConfigurationGate | None]) -> None:
        self._wanted = wanted
        self._gate = gate
        wanted.settled = self._settled

    def get(self, path: Path) -> Value | None:
        head, rest = (path[0].lower() if path else ""), path[1:]
        if head == "config":
            return self._wanted.get(rest)
        if head == "result" and len(rest) == 2:
            text = self.in_force("/".join(rest))
            return None if text is None else Value(text)
        return None

    def in_force(self, setting: str) -> str | None:
        gate = self._gate()
        if gate is not None:
            return gate.value(setting)
        found = self._wanted.get(tuple(setting.split("/")))
        return None if found is None else found.text

    def write(self, path: Path, item: Item, *, add: bool) -> int:
        if not path or path[0].lower() != "config":
            return NOT_ALLOWED if path and path[0].lower() == "result" else NOT_FOUND
        if len(path) != 3:
            return OK if item.format == "node" else NOT_ALLOWED
        gate, workload = self._gate(), workload_of_area(path[1])
        if gate is not None and gate.owner(workload) is not Authority.MDM:
            # Offered all the same: the refusal belongs into the agent's log.
            with suppress(AppError):
                gate.offer(Authority.MDM, workload, "/".join(path[1:]), item.data or "")
            return FORBIDDEN
        before = dict(self._wanted.kept)
        code = self._wanted.write(path[1:], item, add=add)
        return code if code != OK or self._acts(before) else FAILED

    def _acts(self, before: Mapping[str, tuple[str, str]]) -> bool:
        """Hand what has changed to the gate, unless it is only tried. False: the gate cannot keep it,
        and what was wanted before is wanted still."""
        if self._wanted.trying or self._settled(before):
            return True
        self._wanted.kept.clear()
        self._wanted.kept.update(before)
        return False

    def _settled(self, before: Mapping[str, tuple[str, str]]) -> bool:
        gate = self._gate()
        if gate is None:
            return True
        try:
            gate.change(Authority.MDM, self._all(), set(before) - set(self._wanted.kept))
        except AppError as error:
            log.warning("mdm.not-kept", reason=error.message)
            return False
        return True

    def _all(self) -> dict[str, tuple[Workload, str]]:
        return {
            name: (workload_of_area(name.partition("/")[0]), text)
            for name, (text, _) in self._wanted.kept.items()
        }

    def offer(self) -> None:
        """Hand all that the service wants to the gate, which decides by who owns what now."""
        gate = self._gate()
        if gate is not None:
            gate.change(Authority.MDM, self._all(), ())

    def delete(self, path: Path) -> int:
        if not path or path[0].lower() != "config":
            return NOT_FOUND
        before = dict(self._wanted.kept)
        code = self._wanted.delete(path[1:])
        return code if self._acts(before) else FAILED

    def run(self, path: Path, item: Item) -> int:
        return NOT_ALLOWED

    @property
    def stores(self) -> tuple[Store, ...]:
        return (self._wanted,)


class Account:
    """`./Vendor/MSFT/DMClient`: the settings of the enrollment."""

    def __init__(self, kept: Store, provider: str, fixed: dict[str, str]) -> None:
        self._kept = kept
        self._provider = provider.lower()
        self._fixed = {name.lower(): text for name, text in fixed.items()}

    def get(self, path: Path) -> Value | None:
        if len(path) == 1 and path[0].lower() == "hwdevid":
            return Value(self._fixed["hwdevid"])
        if len(path) == 3 and self._is_ours(path) and path[2].lower() in self._fixed:
            return Value(self._fixed[path[2].lower()])
        return self._kept.get(path)

    def _is_ours(self, path: Path) -> bool:
        return (
            len(path) >= 2 and path[0].lower() == "provider" and path[1].lower() == self._provider
        )

    def write(self, path: Path, item: Item, *, add: bool) -> int:
        if not self._is_ours(path) or len(path) < 3:
            return OK if self._is_ours(path) and item.format == "node" else NOT_FOUND
        if path[2].lower() in self._fixed:
            return NOT_ALLOWED
        return self._kept.write(path, item, add=add)

    def delete(self, path: Path) -> int:
        return self._kept.delete(path) if self._is_ours(path) and len(path) > 2 else NOT_ALLOWED

    def run(self, path: Path, item: Item) -> int:
        names = [part.lower() for part in path]
        if names == ["unenroll"] or (self._is_ours(path) and names[2:] == ["unenroll"]):
            if (item.data or "").strip().lower() not in ("", self._provider):
                return NOT_FOUND
            raise Unenrolling
        return NOT_FOUND

    @property
    def stores(self) -> tuple[Store, ...]:
        return (self._kept,)


class Manageability:
    """`./Vendor/MSFT/DeviceManageability`: what the agent lets the service read of itself."""

    def __init__(self, config_info: Callable[[], str]) -> None:
        self._config_info = config_info

    def get(self, path: Path) -> Value | None:
        match [part.lower() for part in path]:
            case []:
                return Value.node(["Capabilities", "Provider"])
            case ["capabilities"]:
                return Value.node(["CSPVersions"])
            case ["capabilities", "cspversions"]:
                return Value(_CSPS, "xml")
            case ["provider"]:
                return Value.node([AGENT] if self._config_info() else [])
            case ["provider", name] if name == AGENT.lower() and self._config_info():
                return Value.node(["ConfigInfo"])
            case ["provider", name, "configinfo"] if name == AGENT.lower():
                text = self._config_info()
                return Value(text) if text else None
        return None

    def write(self, path: Path, item: Item, *, add: bool) -> int:
        return NOT_ALLOWED

    def delete(self, path: Path) -> int:
        return NOT_ALLOWED

    def run(self, path: Path, item: Item) -> int:
        return NOT_ALLOWED

    @property
    def stores(self) -> tuple[Store, ...]:
        return ()


_CSPS = (
    "<DeviceManageability><Capabilities><CSPVersions>"
    + "".join(
        f'<CSP Node="./Device/Vendor/MSFT/{name}" Version="1.0"/>'
        for name in ("DMClient", "DeviceManageability", "EnterpriseDesktopAppManagement", "Policy")
    )
    + "</CSPVersions></Capabilities></DeviceManageability>"
)


class Orders:
    """What a simulated device is told to do with itself: it does so when the session is over."""

    def __init__(self, names: Sequence[str], ordered: Callable[[str], None]) -> None:
        self._names = {name.lower(): name for name in names}
        self._ordered = ordered

    def get(self, path: Path) -> Value | None:
        return Value.node(list(self._names.values())) if not path else None

    def write(self, path: Path, item: Item, *, add: bool) -> int:
        return NOT_ALLOWED

    def delete(self, path: Path) -> int:
        return NOT_ALLOWED

    def run(self, path: Path, item: Item) -> int:
        name = self._names.get("/".join(path).lower())
        if name is None:
            return NOT_FOUND
        self._ordered(name)
        return OK

    @property
    def stores(self) -> tuple[Store, ...]:
        return ()
