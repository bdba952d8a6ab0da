"""The command line within a test: as an administrator of a tenant that serves, in this process."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tandem.cli import context
from tandem.infra.errors import AppError
from tenant_world import World


@asynccontextmanager
async def signed_in(
    world: World, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Commands speak to this tenant, which `root` certifies, as its administrator.

    A command leaves its connection to the end of its process, which here is not its own.
    """
    opened: list[context.Api] = []
    original = context.Api.__init__

    def remember(self: context.Api, *arguments: Any) -> None:
        original(self, *arguments)
        opened.append(self)

    monkeypatch.setenv("TANDEM_PROFILE", str(folder / "profile.toml"))
    monkeypatch.setattr(context.Api, "__init__", remember)
    bearer = (await world.bearer())["Authorization"].removeprefix("Bearer ")
    context.save_profile(
        context.Profile(
            tenant_url=world.tokens.settings.base, tenant_id=world.tenant.id, ca_file=root
        )
    )
    context.save_session("tenant", context.Session(bearer, time.time() + 3000))
    try:
        yield
    finally:
        for api in opened:
            api._client.close()


def answered(nouns: Mapping[str, typer.Typer], *words: str, json: bool = True) -> Any:
    """What a command answers: its value, or its text. Raises what it refuses with."""
    tree = typer.Typer()
    for noun, commands in nouns.items():
        tree.add_typer(commands, name=noun)
    if not json:
        result = CliRunner().invoke(tree, list(words))
        assert result.exit_code == 0, (words, result.output, result.exception)
        return result.output
    with context.captured() as answers:
        result = CliRunner().invoke(tree, [*words, "--json"])
    if isinstance(result.exception, AppError):
        raise result.exception
    assert result.exit_code == 0, (words, result.output, result.exception)
    return answers[-1]
