"""The `tandem` command: one file a noun, found by name, imported only when it is used.

A gateway must not pay for the site's libraries, and on a device they are not installed at all: a
noun whose libraries are missing is listed, and says what to install when it is called.
"""

import importlib
import pkgutil
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from tandem import __version__, cli
from tandem.cli.context import fail
from tandem.infra.errors import AppError, Kind

# Files of this package that are no noun.
_NOT_NOUNS = {"main", "context", "waiting", "__main__"}


class NeedsServer(AppError):
    kind, code = Kind.UNSUPPORTED, "cli.needs-server"


def nouns() -> dict[str, str]:
    """Every noun with the module that has its verbs."""
    found = sorted(item.name for item in pkgutil.iter_modules(cli.__path__))
    return {name.replace("_", "-"): name for name in found if name not in _NOT_NOUNS}


class _Nouns(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *nouns()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module = nouns().get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        try:
            noun = importlib.import_module(f"tandem.cli.{module}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "tandem":
                raise
            return _missing(cmd_name, error.name or "")
        command: Any = typer.main.get_command(noun.app)
        command.name = cmd_name
        return command


def _missing(noun: str, library: str) -> Any:
    made = typer.Typer(add_completion=False)

    @made.command(
        noun,
        help="(needs tandem[server])",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def refuse() -> None:
        raise NeedsServer(
            f"`tandem {noun}` is for servers, and this installation has no {library}.",
            cure="Install the servers' part: pip install 'tandem[server]'.",
        )

    return typer.main.get_command(made)


def build() -> typer.Typer:
    """The whole command tree."""
    app = typer.Typer(
        cls=_Nouns,
        help="Tandem: co-management of devices by a tenant and an on-premises site.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
    )

    @app.command()
    def version() -> None:
        """Print the version."""
        typer.echo(__version__)

    @app.callback()
    def tandem() -> None:
        pass

    return app


def main() -> None:
    try:
        build()()
    except AppError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
