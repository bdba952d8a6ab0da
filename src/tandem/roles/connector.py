"""A connection point."""

from pathlib import Path

from tandem.gateway import ConnectorSettings, run_connector
from tandem.infra import config


def run(path: Path) -> None:
    """Hold the tunnels until SIGTERM. Raises AppError when the settings are no good."""
    run_connector(config.load(path, ConnectorSettings))
