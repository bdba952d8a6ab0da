"""The sign-in pages: plain HTML forms that work without JavaScript.

The first form of a page is the one to fill in, its first button is the affirmative one.
"""

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from jinja2 import ChoiceLoader, DictLoader, Environment
from markupsafe import Markup
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tandem.tenant.oidc.model import Request
from tandem.tenant.oidc.words import LANGUAGES, language_of, refusal, translate

# The console's colours (Fluent's tokens), light and dark: the pages load nothing, so they are here.
_BASE = """<!doctype html>
<html lang="{{ lang }}" data-theme="{{ theme }}"><head><meta charset="utf-8">
<title>{% block title %}{{ _("Sign in") }}{% endblock %} · Tandem</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style nonce="{{ nonce }}">
:root{--page:#f5f5f5;--card:#fff;--text:#242424;--soft:#424242;--line:#d1d1d1;--edge:#616161;--brand:#0f6cbd;
--over:#115ea3;--bad:#b10e1c;--bad-back:#fdf3f4;--focus:#000;--shadow:0 0 2px rgba(0,0,0,.12),0 8px 16px rgba(0,0,0,.14);color-scheme:light}
{% set dark = "--page:#141414;--card:#292929;--text:#fff;--soft:#d6d6d6;--line:#666;--edge:#adadad;--brand:#115ea3;--over:#0f548c;--bad:#dc626d;--bad-back:#3b0509;--focus:#fff;--shadow:0 0 2px rgba(0,0,0,.24),0 8px 16px rgba(0,0,0,.28);color-scheme:dark" %}
[data-theme=dark]{ {{- dark -}} }
@media (prefers-color-scheme:dark){[data-theme=auto]{ {{- dark -}} }}
*{box-sizing:border-box}
body{font:14px/20px "Segoe UI","Segoe UI Web (West European)",-apple-system,BlinkMacSystemFont,Roboto,"Helvetica Neue",sans-serif;
background:var(--page);color:var(--text);margin:0}
header{background:#0c4a80;color:#fff;padding:14px 16px;font-weight:600}header span{font-weight:400}
main{max-width:27rem;margin:8vh auto;padding:1.5rem 2rem 2rem;background:var(--card);border-radius:6px;box-shadow:var(--shadow);overflow-wrap:anywhere}
h1{font-size:24px;line-height:32px;margin:0 0 .8rem;font-weight:600}label{display:block;margin-top:1rem;font-weight:600}
input[type=email],input[type=password],input[type=text]{width:100%;padding:5px 8px;font:inherit;margin-top:2px;
border:1px solid var(--edge);border-radius:4px;background:var(--card);color:var(--text)}
.error{background:var(--bad-back);color:var(--bad);border:1px solid;border-radius:4px;padding:8px 12px}.soft{color:var(--soft)}
button{font:inherit;padding:5px 16px;margin:1.2rem .5rem 0 0;border:1px solid var(--line);border-radius:4px;background:var(--card);color:var(--text);cursor:pointer}
button.wide{display:block;width:100%;text-align:left;margin:.5rem 0 0}
button.primary{background:var(--brand);border-color:var(--brand);color:#fff;font-weight:600}button.primary:hover{background:var(--over)}
button:focus-visible,input:focus-visible{outline:2px solid var(--focus);outline-offset:1px}
</style></head><body><header>Tandem <span>{{ tenant }}</span></header><main>{% block body %}{% endblock %}</main></body></html>
"""

_LOGIN = """{% extends "base" %}{% block body %}<h1>{{ _("Sign in") }}</h1>
{% if error %}<p class="error" role="alert" id="error"{{ tongue(error) }}>{{ refusal(error) }}</p>{% endif %}
<form method="post" action="{{ action }}">
<input type="hidden" name="ctx" value="{{ ctx }}">
<label for="login">{{ _("User name") }}</label>
<input id="login" name="login" type="email" value="{{ login }}" autocomplete="username" required
{% if not login %}autofocus{% endif %} {% if error %}aria-describedby="error"{% endif %}>
<label for="passwd">{{ _("Password") }}</label>
<input id="passwd" name="passwd" type="password" autocomplete="current-password" required
{% if login %}autofocus{% endif %}>
<button class="primary" type="submit">{{ _("Sign in") }}</button>
</form><p class="soft">{{ _("to continue to") }} {{ client }}</p>{% endblock %}
"""

_PICK = """{% extends "base" %}{% block body %}<h1>{{ _("Pick an account") }}</h1>
<form method="post" action="{{ action }}">
<input type="hidden" name="ctx" value="{{ ctx }}">
{% for id, name, upn in accounts %}
<button class="wide{% if loop.first %} primary{% endif %}" type="submit" name="account"
value="{{ id }}">{{ name }} ({{ upn }})</button>
{% endfor %}<button class="wide" type="submit" name="account" value="other">{{ _("Use another account") }}</button>
</form><p class="soft">{{ _("to continue to") }} {{ client }}</p>{% endblock %}
"""

_CHANGE = """{% extends "base" %}{% block body %}<h1>{{ _("Choose a new password") }}</h1>
{% if error %}<p class="error" role="alert" id="error"{{ tongue(error) }}>{{ refusal(error) }}</p>{% endif %}
<p>{{ _("This password has to be changed before you go on:") }} {{ upn }}</p>
<form method="post" action="{{ action }}">
<input type="hidden" name="ctx" value="{{ ctx }}">
<label for="newpasswd">{{ _("New password") }}</label>
<input id="newpasswd" name="newpasswd" type="password" autocomplete="new-password" required autofocus
{% if error %}aria-describedby="error"{% endif %}>
<label for="again">{{ _("New password, again") }}</label>
<input id="again" name="again" type="password" autocomplete="new-password" required>
<button class="primary" type="submit">{{ _("Sign in") }}</button>
</form>{% endblock %}
"""

_CONSENT = """{% extends "base" %}{% block title %}{{ _("Permissions requested") }}{% endblock %}
{% block body %}<h1>{{ _("Permissions requested") }}</h1>
<p><strong>{{ client }}</strong> {{ _("asks to use") }} {{ resource }} {{ _("on behalf of") }} {{ upn }}:</p>
<ul>{% for item in scopes %}<li>{{ item }}</li>{% endfor %}</ul>
<form method="post" action="{{ action }}">
<input type="hidden" name="ctx" value="{{ ctx }}">
{% if administrator %}<label><input type="checkbox" name="everybody" value="1">
{{ _("Consent on behalf of the organization") }}</label>{% endif %}
<button class="primary" type="submit" name="decision" value="accept">{{ _("Accept") }}</button>
<button type="submit" name="decision" value="cancel">{{ _("Cancel") }}</button>
</form>{% endblock %}
"""

_DEVICE = """{% extends "base" %}{% block body %}<h1>{{ _("Enter code") }}</h1>
{% if error %}<p class="error" role="alert" id="error"{{ tongue(error) }}>{{ refusal(error) }}</p>{% endif %}
<p>{{ _("Enter the code displayed on your app or device.") }}</p>
<form method="post" action="{{ action }}">
<input type="hidden" name="ctx" value="{{ ctx }}">
<label for="otc">{{ _("Code") }}</label>
<input id="otc" name="otc" type="text" value="{{ code }}" autocomplete="off" required autofocus
{% if error %}aria-describedby="error"{% endif %}>
<button class="primary" type="submit">{{ _("Next") }}</button>
</form>{% endblock %}
"""

_CONFIRM = """{% extends "base" %}{% block body %}
<h1>{{ _("Are you trying to sign in to") }} {{ client }}?</h1>
<p>{{ _("Another device will be signed in as") }} <strong>{{ upn }}</strong>.
{{ _("Only continue if you started this on a device of your own, and typed in its code yourself.") }}</p>
<form method="post" action="{{ action }}">
<input type="hidden" name="ctx" value="{{ ctx }}">
<button class="primary" type="submit" name="decision" value="accept">{{ _("Continue") }}</button>
<button type="submit" name="decision" value="cancel">{{ _("Cancel") }}</button>
</form>{% endblock %}
"""

_POST = """{% extends "base" %}{% block title %}{{ _("Signed in") }}{% endblock %}
{% block body %}<h1>{{ _("Signed in") }}</h1>
<form method="post" action="{{ action }}">
{% for name, value in fields %}<input type="hidden" name="{{ name }}" value="{{ value }}">
{% endfor %}<button class="primary" type="submit" autofocus>{{ _("Continue") }}</button>
</form>{% endblock %}
"""

_SAID = """{% extends "base" %}{% block title %}{{ said }}{% endblock %}
{% block body %}<h1>{{ said }}</h1><p role="status">{{ more }}</p>{% endblock %}
"""

_ERROR = """{% extends "base" %}{% block title %}{{ _("Sign-in error") }}{% endblock %}
{% block body %}<h1>{{ _("Sorry, we cannot sign you in") }}</h1>
<p class="error" role="alert"{{ tongue(error) }}>{{ refusal(error) }}</p>{% endblock %}
"""

_TEMPLATES = DictLoader(
    {
        "base": _BASE,
        "login": _LOGIN,
        "pick": _PICK,
        "change": _CHANGE,
        "consent": _CONSENT,
        "device": _DEVICE,
        "confirm": _CONFIRM,
        "post": _POST,
        "said": _SAID,
        "error": _ERROR,
    }
)
_PAGES = Environment(loader=_TEMPLATES, autoescape=True)

# No page of ours is ever in somebody else's frame, where a click could be stolen.
_FRAMES = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff"}
_PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


# What somebody chose in the console, which is on the same host: the pages look alike.
_LANGUAGE_COOKIE, _THEME_COOKIE = "tandem-language", "tandem-theme"


def language(request: HttpRequest) -> str:
    chosen = request.cookies.get(_LANGUAGE_COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    return language_of(request.headers.get("accept-language", ""))


def theme(request: HttpRequest) -> str:
    chosen = request.cookies.get(_THEME_COOKIE, "")
    return chosen if chosen in ("light", "dark") else "auto"


def more(templates: Mapping[str, str]) -> Environment:
    """Templates of another module, which extend "base"."""
    return Environment(
        loader=ChoiceLoader([DictLoader(dict(templates)), _TEMPLATES]), autoescape=True
    )


def page(
    name: str,
    *,
    lang: str = "en",
    theme: str = "auto",
    status: int = 200,
    target: str = "",
    script: bool = False,
    templates: Environment | None = None,
    words: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """A page that loads nothing, runs nothing and cannot be framed. `target` is where its form
    may lead besides here: browsers apply form-action to the redirect after a form as well.

    `script` lets it run scripts that this host serves as files, never one in the page. `templates`
    are another module's (see `more`), and `words` its French texts.
    """
    nonce = secrets.token_urlsafe(16)

    def say(text: str) -> str:
        if lang == "fr" and words and text in words:
            return words[text]
        return translate(text, lang)

    def tongue(text: str) -> Markup:
        """A refusal that has no words in the page's language says in which one it is."""
        same = lang == "en" or refusal(text, lang) != text
        return Markup("") if same else Markup(' lang="en"')

    content = (
        (templates or _PAGES)
        .get_template(name)
        .render(
            nonce=nonce,
            lang=lang,
            theme=theme,
            _=say,
            refusal=lambda text: refusal(text, lang),
            tongue=tongue,
            **values,
        )
    )
    parts = urlsplit(target)
    origin = f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else ""
    allowed = origin or (f"{parts.scheme}:" if parts.scheme else "")
    runs = "script-src 'self'; " if script else ""
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self' {allowed}; {runs}"
        "frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Content-Language": lang, **_FRAMES, **_PRIVATE}
    return HTMLResponse(content, status, headers)


def answer(
    request: Request,
    fields: list[tuple[str, str]],
    tenant: str,
    issuer: str,
    lang: str,
    theme: str = "auto",
) -> Response:
    """The answer to the client, in the way it asked for, with who gives it (RFC 9207)."""
    fields = [*fields, ("iss", issuer)]
    if request.state:
        fields.append(("state", request.state))
    if request.response_mode == "form_post":
        return page(
            "post",
            lang=lang,
            theme=theme,
            tenant=tenant,
            action=request.redirect_uri,
            fields=fields,
            target=request.redirect_uri,
        )
    if request.response_mode == "fragment":
        mark = "#"
    else:
        mark = "&" if urlsplit(request.redirect_uri).query else "?"
    return redirect(request.redirect_uri + mark + urlencode(fields))


def redirect(location: str) -> Response:
    """The frame policy holds for what redirects too, so that prompt=none in a frame of somebody
    else's page learns nothing from what is painted."""
    policy = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
    return RedirectResponse(location, 302, {**policy, **_FRAMES, **_PRIVATE})
