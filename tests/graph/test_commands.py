"""The commands of an administrator's first day, against a real tenant over TLS."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from test_audit_log import audit_commands
from typer.testing import CliRunner

from command_world import signed_in
from tandem.cli import (
    app_registration,
    audit,
    context,
    domain,
    group,
    license,
    mdm_authority,
    tenant,
    user,
)
from tandem.infra.database import Database
from tenant_world import PASSWORD, live

NOUNS = {
    "tenant": tenant.app,
    "domain": domain.app,
    "user": user.app,
    "group": group.app,
    "license": license.app,
    "mdm-authority": mdm_authority.app,
    "app-registration": app_registration.app,
    "audit": audit.app,
}


async def test_a_tenant_is_set_up_from_the_command_line(
    tenant_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        live(tenant_db, tmp_path) as (world, root),
        signed_in(world, root, tmp_path, monkeypatch),
    ):
        password = tmp_path / "password"
        password.write_text(PASSWORD)
        await asyncio.to_thread(_first_day, _run, password, tmp_path / "secret")
        await asyncio.to_thread(audit_commands, _run, tmp_path)


def _run(line: str, *more: str, fails: bool = False, code: int = 0) -> Any:
    tree = typer.Typer()
    for noun, app in NOUNS.items():
        tree.add_typer(app, name=noun)
    with context.captured() as answers:
        result = CliRunner().invoke(tree, [*line.split(), *more, "--json"])
    if fails:
        assert result.exit_code != 0
        return result.exception
    assert result.exit_code == code, (line, result.output, result.exception)
    return answers[-1]


def _first_day(run: Callable[..., Any], password: Path, secret: Path) -> None:
    file = str(password)
    location = ("--usage-location", "DE")
    run("user create alex@contoso.com --name Alex --password-file", file, *location)
    run("user create eva@contoso.com --name Eva --password-file", file)
    assert len(run("user list")) == 3
    assert len(context.graph_client().every("/v1.0/users", **{"$top": 1})) == 3
    run("group create Pilot")
    added = run("group add-member Pilot alex@contoso.com eva@contoso.com")
    assert len(added["added"]) == 2
    assert run("group add-member Pilot alex@contoso.com")["already_members"]
    assert run("group list")[0]["members"] == 2
    assert isinstance(run("group add-member Nowhere alex@contoso.com", fails=True), context.Refused)

    run("license subscribe INTUNE_A --seats 5")
    run("license assign EMSPREMIUM --user alex@contoso.com")
    assert run("user show alex@contoso.com")["licences"][0]["product"] == "EMSPREMIUM"
    run("license assign INTUNE_A --group Pilot", fails=True)
    (failure,) = run("license list")["failures"]
    assert failure["user"] == "eva@contoso.com"
    assert failure["reason"] == "The user has no usage location."
    assert "usage location" in failure["cure"]
    assert run("license progress Pilot --wait")["state"] == "done"
    assert run("license reprocess eva@contoso.com", code=1)["failed"]
    run("license unassign INTUNE_A --group Pilot")
    run("license assign EMSPREMIUM --without MFA_PREMIUM --user alex@contoso.com")
    plans = run("user show alex@contoso.com")["licences"][0]["plans"]
    assert "MFA_PREMIUM" not in plans
    run("license assign INTUNE_A --group Pilot", code=1)
    assert run("license requirement on") == {"licence_required": True}

    run("user delete eva@contoso.com")
    assert [item["displayName"] for item in run("user deleted")] == ["Eva"]
    run("user restore eva@contoso.com")
    assert isinstance(run("user restore eva@contoso.com", fails=True), context.Refused)

    assert run("mdm-authority show")["authority"] == "unknown"
    assert run("mdm-authority set")["authority"] == "intune"
    assert run("mdm-authority scope some --group Pilot")["groups"][0]["name"] == "Pilot"
    assert run("mdm-authority scope all")["user_scope"] == "all"
    assert run("mdm-authority mam-scope all")["mam_scope"] == "all"
    licensed = run("mdm-authority check alex@contoso.com")
    assert licensed["getsUrls"]
    assert not run("mdm-authority check eva@contoso.com")["getsUrls"]
    tried = run("group try-rule", 'user.mailNickname -startsWith "al"')
    assert [item["displayName"] for item in tried["first"]] == ["Alex"]
    chosen = run("mdm-authority addresses --compliance https://mdm.example/compliance")
    assert chosen["complianceUrl"] == "https://mdm.example/compliance"
    usual = run("mdm-authority addresses --restore-default")
    assert usual["complianceUrl"].endswith("/portal/compliance")

    record = run("domain add fabrikam.com")
    assert record["label"] == "fabrikam.com"
    assert isinstance(run("domain verify fabrikam.com", fails=True), context.Refused)
    assert [item["id"] for item in run("domain list")] == ["contoso.com", "fabrikam.com"]
    run("domain remove fabrikam.com --yes")

    made = run(
        "app-registration create Reports --application-permission User.Read.All --secret-file",
        str(secret),
    )
    assert secret.stat().st_mode & 0o777 == 0o600
    for _ in range(2):  # Again, it finds everything granted.
        assert run(f"app-registration consent {made['app_id']}")["granted"] == ["User.Read.All"]
    assert run("app-registration show Reports")["granted"] == ["User.Read.All"]
    assert [item["displayName"] for item in run("app-registration list")] == ["Reports"]
    assert run("tenant show")["mdm_authority"] == "intune"
