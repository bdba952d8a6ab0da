"""One instance of a gateway."""

from pathlib import Path

from tandem.gateway import GatewaySettings, run_instance
from tandem.infra import config


def run(path: Path) -> None:
    """Serve until SIGTERM. Raises AppError when the settings or the certificate are no good."""
    run_instance(config.load(path, GatewaySettings))
