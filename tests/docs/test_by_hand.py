"""The page on running without the lab names every setting of every role, with its default."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tandem.agent import AgentSettings, mdm
from tandem.cli.context import Profile
from tandem.gateway import ConnectorSettings, GatewaySettings
from tandem.infra import config
from tandem.infra.config import Settings
from tandem.roles import site, tenant

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "by-hand.md"
# By the heading above a role's table, and the word that the tables within its file begin with.
ROLES: dict[str, tuple[str, type[Settings]]] = {
    "The tenant": ("Tenant", tenant.TenantSettings),
    "The site": ("Site", site.SiteSettings),
    "The gateway": ("", GatewaySettings),
    "The connection point": ("", ConnectorSettings),
    "The agent": ("", mdm.ComputerSettings),
    "The agent beside an MDM client": ("", AgentSettings),
    "Your own computer": ("", Profile),
}


def inner(field: msgspec.structs.FieldInfo) -> type[Settings] | None:
    """The settings class of a field that is a table of its own."""
    for one in (field.type, *get_args(field.type)):
        if isinstance(one, type) and issubclass(one, Settings):
            return one
    return None


def wanted(heading: str, prefix: str, kind: type[Settings], path: str = "") -> Iterator[Any]:
    """Each heading with the class that it describes, also of the tables inside."""
    yield heading, kind
    for field in msgspec.structs.fields(kind):
        below = inner(field)
        if below is not None:
            name = f"{path}{field.name}"
            yield from wanted(f"{prefix}: `[{name}]`", prefix, below, f"{name}.")


TABLES = dict(one for heading, role in ROLES.items() for one in wanted(heading, *role))


def default(field: msgspec.structs.FieldInfo) -> str:
    """As a settings file would say it."""
    if field.required:
        return "required"
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()  # type: ignore[misc, operator]
    if value is None:
        return "unset"
    plain = str(value) if isinstance(value, Path) else value
    return f"`{config.toml({'x': plain}).removeprefix('x = ').strip()}`"


def sections() -> dict[str, str]:
    parts = re.split(r"^##+ (.+)$", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("heading", TABLES)
def test_each_setting_is_on_the_page_with_its_default(heading: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", sections()[heading], re.MULTILINE)
    said = {name: value for name, value, _ in rows}
    assert len(said) == len(rows)
    fields = msgspec.structs.fields(TABLES[heading])
    assert said == {one.name: default(one) for one in fields if inner(one) is None}
    assert all(meaning.strip() for _, _, meaning in rows)


def test_no_table_is_of_settings_that_are_gone() -> None:
    tables = [heading for heading, text in sections().items() if "| field | default |" in text]
    assert tables == list(TABLES)


@pytest.mark.parametrize("heading", ["The tenant", "The site"])
def test_the_example_of_a_settings_file_is_taken(heading: str, tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.+?)```", sections()[heading], re.DOTALL)
    path = tmp_path / "role.toml"
    path.write_text(example)
    loaded = config.load(path, ROLES[heading][1])
    assert set(tomllib.loads(example)) <= set(loaded.__struct_fields__)


def test_what_listens_by_default_is_what_the_page_says() -> None:
    text = sections()["What is started, and where"]
    for kind, names in (
        (tenant.TenantSettings, ("port", "management_port", "health_port")),
        (site.SiteSettings, ("port", "management_point_port", "health_port")),
        (GatewaySettings, ("port", "tunnel_port", "health")),
    ):
        fields = {one.name: one.default for one in msgspec.structs.fields(kind)}
        assert all(str(fields[name]) in text for name in names), kind
