"""The tenant role: what an empty database begins with."""

from pathlib import Path

import pytest

from tandem.infra.database import Database
from tandem.roles import tenant
from tandem.tenant import licensing


@pytest.mark.parametrize("required", [False, True])
async def test_the_first_tenant_asks_for_licences_when_its_settings_say_so(
    tenant_db: Database, tmp_path: Path, required: bool
) -> None:
    (tmp_path / "password").write_text("Correct-Horse-1")
    first = tenant.First(
        "Contoso",
        "contoso.com",
        "admin@contoso.com",
        tmp_path / "password",
        licence_required=required,
    )
    settings = tenant.TenantSettings(
        state=tmp_path,
        public_url="https://t",
        management_url="https://m",
        certificate=tmp_path / "c",
        key=tmp_path / "k",
        first=first,
    )
    for _ in range(2):
        await tenant.begin(settings, tenant_db)
    async with tenant_db.transaction() as tx:
        assert await licensing.licence_required(tx) is required
        (found,) = await licensing.subscriptions(tx)
    assert found.seats is None, "one product without a limit"
