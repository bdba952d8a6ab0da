"""The checking client against the tenant's MDM service, over real TLS, and as a command."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tools.fuzz.targets import seeds
from typer.testing import CliRunner

from app_content import publish
from mdm_world import Mdm, live_mdm
from tandem.cli.main import build
from tandem.infra.database import Database
from tandem.simulator.checking import MUSTS, Conversation, Proof, Verdict, check, token, verdicts
from tandem.tenant import enrollment, mobile_apps, policies
from tenant_world import PASSWORD


async def work(mdm: Mdm, user_id: str) -> None:
    """An app and settings wait for the devices of this user."""
    group = await mdm.group("All", user_id)
    async with mdm.database.transaction() as tx:
        for name, value in (("DeviceLock/MaxInactivityTimeDeviceLock", "15"), ("A/B", "<a/>")):
            made = await policies.create(tx, name, name, value, mdm.world.at)
            await policies.assign(tx, made.id, [group.id], [])
        app = await mobile_apps.create(
            tx,
            name="Client",
            description="",
            publisher="",
            command_line='A="x & y"',
            file_name="client.msi",
            now=mdm.world.at,
        )
    await publish(mdm.database, mdm.content.blobs, app.id, seeds("msi")[0], mdm.world.now)
    async with mdm.database.transaction() as tx:
        await mobile_apps.assign(tx, app.id, [group.id], [])


async def profile(mdm: Mdm, *, days: int, renewal_days: int) -> None:
    async with mdm.database.transaction() as tx:
        wanted = enrollment.CertificateProfile(days, renewal_days, 1)
        await enrollment.set_profile(tx, wanted)


async def command(*given: str) -> tuple[int, dict[str, Any]]:
    """`tandem simulate check` in a process of its own: how it ended, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tandem.cli", "simulate", "check", *given), stdout=PIPE
    )
    said, _ = await process.communicate()
    return process.returncode or 0, dict(msgspec.json.decode(said))


def wrong(found: list[Verdict]) -> list[Any]:
    return [(verdict.name, verdict.problems) for verdict in found if verdict.state == "fail"]


async def test_the_tenant_says_what_the_specification_says_it_must(
    tenant_db: Database, tmp_path: Path
) -> None:
    async with live_mdm(tenant_db, tmp_path) as (mdm, root, _):
        user = await mdm.world.user("alex")
        await work(mdm, user.id)
        url = f"{mdm.enrollment.public_url}/EnrollmentServer/Discovery.svc"
        joined = await mdm.world.joined(user.user_principal_name)
        credential = token(await mdm.mdm_token(joined))
        async with Conversation(
            url, credential, user=user.user_principal_name, ca_file=root
        ) as client:
            await client.discover()
            await client.policies()
            await profile(mdm, days=2, renewal_days=1)
            await client.enroll()
            await client.sessions()
            # Devices renew from the day that is wanted now, which is over for this one.
            await profile(mdm, days=365, renewal_days=364)
            await client.renew()
            await client.proofs()
            await client.strangers()
            await client.leave()
        await profile(mdm, days=365, renewal_days=60)
        found = verdicts(MUSTS, client.exchanges)
        assert wrong(found) == []
        unseen = [verdict.name for verdict in found if verdict.state == "not seen"]
        assert unseen == ["renewal.refused"]
        heard = b"".join(exchange.body for exchange in client.exchanges)
        assert b"MsiInstallJob" in heard
        assert b"./Device/Vendor/MSFT/Policy/Config/A/B" in heard
        # The command, for a user's own device, whose user signs in to the directory for it.
        (tmp_path / "password").write_text(PASSWORD)
        code, report = await command(
            *(mdm.enrollment.public_url, "--user", user.user_principal_name, "--of-user"),
            *("--password-file", str(tmp_path / "password"), "--ca-file", str(root)),
            *("--tenant-id", mdm.world.tenant.id, "--json"),
        )
        assert [must for must in report["musts"] if must["state"] == "fail"] == []
        assert (code, report["failed"], report["stopped"]) == (0, 0, "")
        assert report["passed"] > 100
        # Who is not in the directory learns what it can, and that it was stopped.
        nobody = Proof(token="not a token")
        stopped = await check(mdm.enrollment.public_url, nobody, MUSTS, ca_file=root)
        assert not stopped.good
        assert "s:Authentication" in stopped.stopped
        assert stopped.passed > 30


@pytest.mark.parametrize("json", [False, True])
def test_the_command_says_that_nobody_answers(tmp_path: Path, json: bool) -> None:
    (tmp_path / "token").write_text("a token")
    given = ["simulate", "check", "https://localhost:1", "--token-file", str(tmp_path / "token")]
    answer = CliRunner().invoke(build(), [*given, "--json"] if json else given)
    assert answer.exit_code == 1
    assert "does not answer" in str(answer.exception)


def test_the_command_lists_every_demand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it prints of a report, and that it fails with one demand."""
    from tandem.simulator import checking

    async def canned(*_: Any, **__: Any) -> Any:
        found = [
            Verdict("a.b", "2", "This holds.", "pass", 3, []),
            Verdict("c.d", "3", "This does not.", "fail", 1, ["discover: for a reason"]),
        ]
        return checking.Report("https://x/", 1, 1, 0, 4, "", "", found)

    monkeypatch.setattr(checking, "check", canned)
    (tmp_path / "token").write_text("a token")
    given = ["simulate", "check", "x", "--token-file", str(tmp_path / "token")]
    answer = CliRunner().invoke(build(), given)
    assert answer.exit_code == 1
    assert "FAIL  c.d  This does not. (3)\n        discover: for a reason" in answer.output
    assert "1 pass, 1 fail, 0 not seen" in answer.output
    told = msgspec.json.decode(CliRunner().invoke(build(), [*given, "--json"]).output)
    assert [must["state"] for must in told["musts"]] == ["pass", "fail"]
