"""The simulator: a fleet of simulated devices that speak the real protocols."""

from pathlib import Path

from tandem import simulator
from tandem.infra import config, logs
from tandem.infra.process import run_role
from tandem.simulator import SimulatorSettings


def run(path: Path) -> None:
    """Run until SIGTERM, or until it is told to stop. Raises AppError for unusable settings."""
    settings = config.load(path, SimulatorSettings)
    logs.configure("simulator", settings.logs)
    run_role(lambda stop: simulator.run(settings, stop))
