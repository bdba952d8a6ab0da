"""A connection point ends when it is told to, whatever happens in that moment."""

import asyncio
from pathlib import Path

import pytest

from gateway.conftest import Rig, free_port
from tandem.gateway.connector import Connector
from tandem.gateway.model import ConnectorSettings


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("steps", range(10))
async def test_it_ends_though_a_tunnel_changes_in_that_moment(
    shared: Rig, tmp_path: Path, steps: int
) -> None:
    """News that come a step of the loop before the end took its word away from who waited for them."""
    connector = Connector(
        ConnectorSettings(
            connection_point="CP01",
            management_point_url=f"https://127.0.0.1:{free_port()}",
            certificate=shared.folder / "CP01.pem",
            key=shared.folder / "CP01.key",
            site_root=shared.folder / "site.pem",
            state=tmp_path / "state",
        )
    )
    stop = asyncio.Event()
    main = asyncio.create_task(connector.main(stop))
    await asyncio.sleep(0.05)
    asyncio.get_running_loop().call_soon(connector.changed)
    for _ in range(steps):
        await asyncio.sleep(0)
    stop.set()
    done, _ = await asyncio.wait({main}, timeout=3)
    main.cancel()
    assert done
