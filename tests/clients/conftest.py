from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from clients_served import Served, serve

from tandem.infra.database import Database


@pytest.fixture
async def served(
    tenant_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    # These would win over the root that the clients are told to trust.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with serve(tenant_db, tmp_path) as made:
        yield made
