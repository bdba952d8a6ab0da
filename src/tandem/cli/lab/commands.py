"""The administrator's hands: the commands of `tandem`, run in this process, and their answers.

A step of the lab calls what an administrator would type, with `--json`, and looks at the answer. A
refusal comes back as the words that would have been printed.
"""

import asyncio
from typing import Any

import typer

from tandem.cli import context
from tandem.infra.errors import AppError

# What a wrong option or argument raises: the common base of typer's errors has no public name.
_USAGE: Any = typer.BadParameter.__mro__[2]


class CommandFailed(Exception):
    """The command refused: what an administrator would read, `→ cure` included."""

    def __init__(self, command: str, message: str, cure: str, code: str) -> None:
        super().__init__(f"`tandem {command}`: {message} {cure}".strip())
        self.message = message
        self.cure = cure
        self.code = code


class Commands:
    """The command tree, built once."""

    def __init__(self) -> None:
        from tandem.cli.main import build

        self._tree: Any = typer.main.get_command(build())

    async def run(self, *words: object) -> Any:
        """What the command answers as JSON. Raises CommandFailed with the refusal's words."""
        arguments = [str(word) for word in words]
        return await asyncio.to_thread(self._run, arguments)

    async def refusal(self, *words: object) -> CommandFailed:
        """The refusal of a command that must refuse. Raises AssertionError if it does not."""
        try:
            answer = await self.run(*words)
        except CommandFailed as refused:
            return refused
        raise AssertionError(f"`tandem {' '.join(map(str, words))}` did not refuse: {answer}")

    def _run(self, arguments: list[str]) -> Any:
        said = " ".join(arguments)
        with context.captured() as answers:
            try:
                code = self._tree.main([*arguments, "--json"], standalone_mode=False)
            except AppError as error:
                remote = str(error.details.get("remote", "")) or error.code
                raise CommandFailed(said, error.message, error.cure, remote) from None
            except _USAGE as error:
                raise CommandFailed(said, error.format_message(), "", "usage") from None
        if code:
            raise CommandFailed(said, f"It ended with exit code {code}.", "", "exit")
        return answers[-1] if answers else None
