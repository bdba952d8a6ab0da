"""The `tandem` command: one file a noun, found by name, imported only when it is used."""

import importlib
import pkgutil
import sys

import typer

from tandem import __version__, cli
from tandem.cli.context import fail
from tandem.infra.errors import AppError

# Files of this package that are no noun.
_NOT_NOUNS = {"main", "context", "sign_in"}


def build() -> typer.Typer:
    """The whole command tree."""
    app = typer.Typer(
        help="Tandem: co-management of devices by a tenant and an on-premises site.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
    )

    @app.command()
    def version() -> None:
        """Print the version."""
        typer.echo(__version__)

    for module in sorted(item.name for item in pkgutil.iter_modules(cli.__path__)):
        if module not in _NOT_NOUNS:
            noun = importlib.import_module(f"tandem.cli.{module}")
            app.add_typer(noun.app, name=module.replace("_", "-"))
    return app


def main() -> None:
    try:
        build()()
    except AppError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
