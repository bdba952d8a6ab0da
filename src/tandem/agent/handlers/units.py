"""systemd units, enabled and disabled by their links (systemd.unit(5), [Install]).

A unit is enabled when every link that its [Install] section asks for is there; it is what
`systemctl --root=… enable` makes. Nothing is started or stopped: that is the next start's.
"""

from tandem.agent.handlers.model import Record, Trouble
from tandem.agent.handlers.root import Root
from tandem.workloads.instructions import Unit

ETC = "/etc/systemd/system"
_FOLDERS = (
    ETC,
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


class Units:
    def __init__(self, root: Root) -> None:
        self._root = root

    def in_place(self, wanted: Unit) -> bool:
        """Whether its links are as they are to be. Raises Trouble."""
        if not wanted.enabled:
            return not self._links_of(wanted.unit)
        return not self._missing(wanted.unit)

    def prepare(self, wanted: Unit, record: Record) -> None:
        """Note in the record which links will be made or taken away. Raises Trouble."""
        if wanted.enabled:
            for path, target in self._missing(wanted.unit).items():
                record.linked[path] = target
                missing = self._root.missing(path)
                record.folders += [one for one in missing if one not in record.folders]
        else:
            record.unlinked |= self._links_of(wanted.unit)

    def write(self, wanted: Unit, record: Record) -> None:
        if wanted.enabled:
            for path, target in self._missing(wanted.unit).items():
                self._root.make_link(path, target)
        else:
            for path in self._links_of(wanted.unit):
                self._root.remove(path)

    def undo(self, record: Record) -> None:
        """The links as they were: what was made goes, what was taken away comes back."""
        for path, target in record.linked.items():
            if path not in record.unlinked and self._root.link(path) == target:
                self._root.remove(path)
        for path, target in record.unlinked.items():
            if path not in record.linked and self._root.status(path) is None:
                self._root.make_link(path, target)
        for folder in reversed(record.folders):
            self._root.remove_folder(folder)

    def _find(self, unit: str) -> tuple[str, bytes]:
        """Path and content of a unit file, of its template for an instance. Raises Trouble."""
        stem, at, rest = unit.partition("@")
        names = [unit] if not at else [unit, f"{stem}@.{rest.rpartition('.')[2]}"]
        for name in names:
            for folder in _FOLDERS:
                path = f"{folder}/{name}"
                if self._root.link(path) == "/dev/null":
                    raise Trouble(
                        "unit.masked",
                        f"{unit} is masked on this device.",
                        cure="Unmask it first: somebody wanted it never to start.",
                    )
                data = self._root.read_followed(path)
                if data is not None:
                    return path, data
        raise Trouble(
            "unit.not-found",
            f"There is no unit {unit} on this device.",
            cure="Deploy its file, or the app that brings it, first.",
        )

    def _missing(self, unit: str) -> dict[str, str]:
        """The links that [Install] asks for and that are not there."""
        path, data = self._find(unit)
        install = _install(data.decode("utf-8", "replace"))
        links = {
            f"{ETC}/{target}.{kind}/{unit}": path
            for key, kind in (("WantedBy", "wants"), ("RequiredBy", "requires"))
            for target in install.get(key, [])
        }
        links |= {f"{ETC}/{alias}": path for alias in install.get("Alias", [])}
        if not links:
            raise Trouble(
                "unit.not-installable",
                f"{unit} says nothing of when it starts: it has no WantedBy, RequiredBy or Alias.",
                cure="Give the unit an [Install] section.",
            )
        if any(
            "%" in link or "/" in link[len(ETC) + 1 :].replace(f"/{unit}", "") for link in links
        ):
            raise Trouble(
                "unit.not-understood", f"The [Install] section of {unit} is not understood."
            )
        return {
            link: target
            for link, target in links.items()
            if _name(self._root.link(link)) != _name(target)
        }

    def _links_of(self, unit: str) -> dict[str, str]:
        """The links of the administrator's folder by which a unit is enabled."""
        found = {}
        for name in self._root.names(ETC):
            below = name.endswith((".wants", ".requires"))
            for path in [f"{ETC}/{name}/{unit}"] if below else [f"{ETC}/{name}"]:
                target = self._root.link(path)
                # A link beside the unit files is an alias when it points to the unit.
                if target and (below or (name != unit and _name(target) == unit)):
                    found[path] = target
        return found


def _name(target: str | None) -> str:
    return (target or "").rpartition("/")[2]


def _install(text: str) -> dict[str, list[str]]:
    """The lists of the [Install] section: keys may come again, and an empty one begins anew."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Install]" and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            words = value.split()
            found[key.strip()] = [*found.get(key.strip(), []), *words] if words else []
    return found
