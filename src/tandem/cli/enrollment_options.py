"""tandem enrollment-options: by which ways devices enrol, and what users read when they do."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tandem.cli.context import Json, emit, graph_client

app = typer.Typer(help="How devices may enrol.", no_args_is_help=True)

_OPTIONS = "/v1.0/tandem/enrollmentOptions"

Text = Annotated[Path | None, typer.Option(help="A text file; an empty one takes the text away.")]


@app.command()
def show(json: Json = False) -> None:
    """Show them."""
    emit(graph_client().get(_OPTIONS), _text, json)


@app.command("set")
def set_options(
    passwords: Annotated[
        bool | None, typer.Option(help="Let devices enrol with a user name and a password.")
    ] = None,
    maintenance: Annotated[
        bool | None, typer.Option(help="Close enrolment for a while, with a fault that says so.")
    ] = None,
    terms_english: Text = None,
    terms_french: Text = None,
    refusal: Annotated[
        str | None, typer.Option(help="What Windows shows to whoever may not enrol.")
    ] = None,
    json: Json = False,
) -> None:
    """Change what is given; the rest stays."""
    change: dict[str, Any] = {}
    if passwords is not None:
        change["passwordEnrollment"] = passwords
    if maintenance is not None:
        change["maintenance"] = maintenance
    if refusal is not None:
        change["refusalText"] = refusal
    for name, path in (
        ("termsOfUseEnglish", terms_english),
        ("termsOfUseFrench", terms_french),
    ):
        if path is not None:
            change[name] = _read(path)
    if not change:
        raise typer.BadParameter("Say what is to change; `--help` lists it.")
    emit(graph_client().patch(_OPTIONS, change), _text, json)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read as UTF-8 text: {error}") from None


def _text(value: dict[str, Any]) -> str:
    terms = [
        language
        for name, language in (("termsOfUseEnglish", "English"), ("termsOfUseFrench", "French"))
        if value[name]
    ]
    passwords = "yes" if value["passwordEnrollment"] else "no"
    if value["passwordEnrollment"] and not value["offersPasswords"]:
        passwords = "no, because terms of use cannot be accepted that way"
    lines = (
        ("Sign-in on a page", "yes"),
        ("User name and password", passwords),
        ("Terms of use", ", ".join(terms) or "none"),
        ("Closed for maintenance", "yes" if value["maintenance"] else "no"),
        ("Text for refused users", value["refusalText"] or "none"),
    )
    return "\n".join(f"{name:24} {said}" for name, said in lines)
