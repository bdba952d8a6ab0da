"""Settings: small frozen structs read from TOML; unknown keys are refused, secrets come by path."""

import tomllib
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from tandem.infra.errors import AppError, Kind

T = TypeVar("T", bound="Settings")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every settings type: defaults are usable, each field says what it changes."""


class BadSettings(AppError):
    kind, code = Kind.INVALID, "settings.invalid"


def load(path: Path, settings_type: type[T]) -> T:
    """Read one settings file.

    Raises BadSettings, which names the file and the key, when it is missing, not TOML, has an
    unknown key or a value of the wrong type.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadSettings(
            f"The settings file {path} does not exist.",
            cure="Name an existing file with --config, or write one.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"The settings file {path} is not TOML: {error}.") from None
    try:
        return msgspec.convert(raw, settings_type, dec_hook=_decode, str_keys=True)
    except msgspec.ValidationError as error:
        raise BadSettings(f"The settings file {path} cannot be used: {error}.") from None


def _decode(wanted: type[Any], value: Any) -> Any:
    if wanted is Path or (isinstance(wanted, type) and issubclass(wanted, Path)):
        if not isinstance(value, str):
            raise ValueError("a path is a string")
        return Path(value)
    raise NotImplementedError(
        f"settings cannot hold {get_origin(wanted) or wanted}{get_args(wanted)}"
    )


def dump(settings: msgspec.Struct) -> str:
    """The settings as TOML that `load` reads back. Fields that are None are left out."""
    return toml(msgspec.to_builtins(settings, enc_hook=_encode))


def _encode(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"settings cannot hold {type(value)}")


def toml(table: dict[str, Any]) -> str:
    """A plain TOML writer for what settings hold: scalars, lists and nested tables."""
    return "".join(_table(table, ()))


def _table(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(k)} = {_value(v)}\n" for k, v in table.items() if _is_inline(v)]
    for key, value in table.items():
        here = (*path, key)
        name = ".".join(_key(part) for part in here)
        if isinstance(value, dict):
            lines += [f"\n[{name}]\n", *_table(value, here)]
        elif _is_table_list(value):
            for item in value:
                lines += [f"\n[[{name}]]\n", *_table(item, here)]
    return lines


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], dict)


def _is_inline(value: Any) -> bool:
    return value is not None and not isinstance(value, dict) and not _is_table_list(value)


def _key(key: str) -> str:
    bare = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
    return key if bare else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's string escapes are a subset of those of a TOML basic string.
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise TypeError(f"TOML cannot hold {type(value)}")
