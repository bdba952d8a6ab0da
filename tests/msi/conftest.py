from datetime import UTC, datetime

import pytest

from tandem import pki


@pytest.fixture(scope="session")
def site_root() -> bytes:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    return pki.pem(pki.new_root(pki.name("Site"), now=now, days=9).certificate)
