"""Options and tokens of enrolment from the command line, against a real tenant over TLS."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mdm_world import Mdm, live_mdm, subcode
from tandem.cli import context, enrollment_options, enrollment_token
from tandem.infra.database import Database
from tandem.infra.errors import AppError
from ways_world import enrol, issued


def run(*words: str, json: bool = True) -> Any:
    tree = typer.Typer()
    tree.add_typer(enrollment_options.app, name="enrollment-options")
    tree.add_typer(enrollment_token.app, name="enrollment-token")
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


async def test_ways_to_enrol_are_chosen_and_tokens_issued(
    tenant_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_PROFILE", str(tmp_path / "profile.toml"))
    opened: list[context.Api] = []
    original = context.Api.__init__

    def remember(self: context.Api, *arguments: Any) -> None:
        original(self, *arguments)
        opened.append(self)

    monkeypatch.setattr(context.Api, "__init__", remember)
    async with live_mdm(tenant_db, tmp_path) as (mdm, root, _):
        bearer = (await mdm.world.bearer())["Authorization"].removeprefix("Bearer ")
        context.save_profile(
            context.Profile(
                tenant_url=mdm.world.tokens.settings.base,
                tenant_id=mdm.world.tenant.id,
                ca_file=root,
            )
        )
        context.save_session("tenant", context.Session(bearer, time.time() + 3000))
        await mdm.world.user("alex")
        await asyncio.to_thread(_options, tmp_path)
        await _tokens(mdm)
        for api in opened:
            api._client.close()


def _options(folder: Path) -> None:
    assert "Terms of use             none" in run("enrollment-options", "show", json=False)
    (folder / "terms.txt").write_text("Soyez aimables.\n", "utf-8")
    chosen = run(
        "enrollment-options", "set", "--passwords", "--terms-french", str(folder / "terms.txt")
    )
    assert chosen["termsOfUseFrench"] == "Soyez aimables."
    assert (chosen["passwordEnrollment"], chosen["offersPasswords"]) == (True, False)
    shown = run("enrollment-options", "show", json=False)
    assert "no, because terms of use cannot be accepted that way" in shown
    (folder / "none.txt").write_text("")
    (folder / "latin.txt").write_bytes(b"\xe9")
    cleared = run("enrollment-options", "set", "--terms-french", str(folder / "none.txt"))
    assert cleared["offersPasswords"]
    for words in (("set",), ("set", "--terms-english", str(folder / "latin.txt"))):
        with pytest.raises(AssertionError):
            run("enrollment-options", *words)


async def _tokens(mdm: Mdm) -> None:
    made = await asyncio.to_thread(
        run, "enrollment-token", "create", "alex@contoso.com", "--device", "LAB-001"
    )
    assert made["discoveryUrl"].endswith("/EnrollmentServer/Discovery.svc")
    text = await asyncio.to_thread(
        run, "enrollment-token", "create", "alex@contoso.com", "--minutes", "60", json=False
    )
    assert "not shown again" in text
    assert subcode(await enrol(mdm, issued(made["token"]))) == ""
    listed = await asyncio.to_thread(run, "enrollment-token", "list")
    assert sorted(bool(item["usedDateTime"]) for item in listed) == [False, True]
    (unused,) = [item for item in listed if not item["usedDateTime"]]
    await asyncio.to_thread(run, "enrollment-token", "revoke", unused["id"])
    with pytest.raises(context.Refused, match=r"does not exist|no such"):
        await asyncio.to_thread(run, "enrollment-token", "revoke", unused["id"])
