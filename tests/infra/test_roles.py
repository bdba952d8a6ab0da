"""Every runnable role can at least be loaded: its settings are read before anything else."""

import importlib
import pkgutil

import pytest

from tandem import roles


@pytest.mark.parametrize("name", [item.name for item in pkgutil.iter_modules(roles.__path__)])
def test_a_role_can_be_loaded(name: str) -> None:
    importlib.import_module(f"tandem.roles.{name}")
