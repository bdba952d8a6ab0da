"""The pages of enrolment: terms of use, the hand-over to Windows, and refusals. English and French."""

from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from tandem.infra import http
from tandem.infra.errors import AppError
from tandem.tenant import directory, licensing, oidc
from tandem.tenant.enrollment.model import EnrollmentRefused
from tandem.tenant.enrollment.ways import Options

SUBMIT = b"document.forms[0].submit();\n"

_TERMS = """{% extends "base" %}{% block title %}{{ _("Terms of use") }}{% endblock %}
{% block body %}<h1>{{ _("Terms of use") }}</h1>
{% if text %}<div lang="{{ tongue_of_text }}">{% for part in text.split("\\n") %}
<p>{{ part }}</p>{% endfor %}</div>
{% else %}<p>{{ _("Your organisation manages this device: it sets rules on it, installs software, and sees which device it is and what is installed.") }}</p>{% endif %}
<form method="post" action="{{ action }}">
<input type="hidden" name="ctx" value="{{ ctx }}">
<button class="primary" type="submit" name="decision" value="accept">{{ _("Accept") }}</button>
{% if optional %}<button type="submit" name="decision" value="decline">{{ _("Decline") }}</button>{% endif %}
</form>{% endblock %}
"""

_HAND_OVER = """{% extends "base" %}{% block title %}{{ _("Setting up your device") }}{% endblock %}
{% block body %}<h1>{{ _("Setting up your device") }}</h1>
<p role="status">{{ _("You are signed in. Windows goes on by itself; if it does not, press Continue.") }}</p>
<form method="post" action="{{ appru }}"><input type="hidden" name="wresult" value="{{ token }}">
<button class="primary" type="submit">{{ _("Continue") }}</button></form>
<script src="/EnrollmentServer/Auth/submit.js"></script>{% endblock %}
"""

_SAID = """{% extends "base" %}{% block title %}{{ said }}{% endblock %}
{% block body %}<h1>{{ said }}</h1>
{% if why %}<p class="error" role="alert">{{ why }}</p>{% endif %}<p>{{ then }}</p>{% endblock %}
"""

_FRENCH = {
    "Terms of use": "Conditions d'utilisation",
    "Your organisation manages this device: it sets rules on it, installs software, and sees which "
    "device it is and what is installed.": (
        "Votre organisation gère cet appareil : elle y applique des règles, y installe des "
        "logiciels, et voit de quel appareil il s'agit et ce qui y est installé."
    ),
    "Accept": "Accepter",
    "Decline": "Refuser",
    "Setting up your device": "Configuration de votre appareil",
    "You are signed in. Windows goes on by itself; if it does not, press Continue.": (
        "Vous êtes connecté. Windows continue tout seul ; sinon, appuyez sur Continuer."
    ),
    "This device was not enrolled": "L'appareil n'a pas été inscrit",
    "You declined the terms of use.": "Vous avez refusé les conditions d'utilisation.",
    "Close this window, and start again if you change your mind.": (
        "Fermez cette fenêtre, et recommencez si vous changez d'avis."
    ),
    "Devices open this page when they enrol": (
        "Les appareils ouvrent cette page quand ils s'inscrivent"
    ),
    "To enrol this computer, open Settings, Accounts, Access work or school, and choose to enrol "
    "only in device management.": (
        "Pour inscrire cet ordinateur, ouvrez Paramètres, Comptes, Accès Professionnel ou Scolaire, "
        "et choisissez de vous inscrire uniquement à la gestion des appareils."
    ),
    "The page is no longer valid, or came from another browser.": (
        "La page n'est plus valable, ou elle vient d'un autre navigateur."
    ),
    "The sign-in did not succeed.": "La connexion n'a pas réussi.",
    "Close this window and enrol the device again.": (
        "Fermez cette fenêtre et recommencez l'inscription de l'appareil."
    ),
    "The service cannot answer now.": "Le service ne peut pas répondre maintenant.",
    "Try again in some minutes.": "Réessayez dans quelques minutes.",
    "Devices are not managed in this organisation.": (
        "Cette organisation ne gère pas encore d'appareils."
    ),
    "Your account may not enrol devices.": "Votre compte ne peut pas inscrire d'appareils.",
    "Your account has no licence for the management of devices.": (
        "Votre compte n'a pas de licence pour la gestion des appareils."
    ),
    "Ask your administrator.": "Adressez-vous à votre administrateur.",
    "The address to return to is not one of Windows.": (
        "L'adresse de retour n'est pas une adresse de Windows."
    ),
}
_TEMPLATES = oidc.pages.more({"terms": _TERMS, "hand_over": _HAND_OVER, "told": _SAID})


def page(request: Request, name: str, here: str, status: int = 200, **values: Any) -> Response:
    return oidc.pages.page(
        name,
        lang=oidc.pages.language(request),
        theme=oidc.pages.theme(request),
        status=status,
        tenant=here,
        templates=_TEMPLATES,
        words=_FRENCH,
        **values,
    )


def _word(request: Request, text: str) -> str:
    return _FRENCH.get(text, text) if oidc.pages.language(request) == "fr" else text


def told(
    request: Request, here: str, said: str, then: str, *, why: str = "", status: int = 200
) -> Response:
    """A page that says what happened and what to do; the texts are those of this module."""
    return page(
        request,
        "told",
        here,
        status,
        said=_word(request, said),
        why=_word(request, why) if why else "",
        then=_word(request, then),
    )


def terms(
    request: Request, here: str, chosen: Options, *, action: str, ctx: str, optional: bool,
    target: str,
) -> Response:  # fmt: skip
    text, language = chosen.terms_in(oidc.pages.language(request))
    return page(
        request,
        "terms",
        here,
        text=text,
        tongue_of_text=language,
        action=action,
        ctx=ctx,
        optional=optional,
        target=target,
    )


def reason(error: AppError) -> str:
    """Why somebody may not enrol, for himself; what an administrator needs is in the log."""
    match error:
        case directory.NoMdmAuthority():
            return "Devices are not managed in this organisation."
        case licensing.NoMdmLicence():
            return "Your account has no licence for the management of devices."
        case EnrollmentRefused():
            return "Your account may not enrol devices."
    return "The service cannot answer now."


async def form(request: Request, limit: int = 16 * 1024) -> dict[str, str]:
    """The last of each field; a form that is no UTF-8, or has too many fields, is empty."""
    raw = await http.body(request, limit)
    try:
        return dict(parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        return {}
