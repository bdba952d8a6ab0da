"""The sign-in pages: plain HTML forms that work without JavaScript.

The first form of a page is the one to fill in, its first button is the affirmative one.
"""

import secrets
from typing import Any
from urllib.parse import urlencode, urlsplit

from jinja2 import DictLoader, Environment
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tandem.tenant.oidc.model import Request

_BASE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{% block title %}Sign in{% endblock %}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style nonce="{{ nonce }}">
body{font:16px/1.5 "Segoe UI",system-ui,sans-serif;background:#f3f2f1;color:#201f1e;margin:0}
main{max-width:27rem;margin:10vh auto;padding:2.5rem;background:#fff;border:1px solid #e1dfdd}
h1{font-size:1.5rem;margin:.2rem 0 1rem}label{display:block;margin-top:1rem}
input[type=email],input[type=password]{width:100%;box-sizing:border-box;padding:.5rem;font:inherit;
border:1px solid #605e5c}.org{color:#605e5c}.error{color:#a4262c;border-left:3px solid;padding-left:.7rem}
button{font:inherit;padding:.4rem 1.5rem;margin:1.5rem .5rem 0 0;border:1px solid #605e5c;background:#fff}
button.primary{background:#0067b8;border-color:#0067b8;color:#fff}
button:focus-visible,input:focus-visible{outline:3px solid #201f1e;outline-offset:2px}
</style></head><body><main><p class="org">{{ tenant }}</p>{% block body %}{% endblock %}</main></body></html>
"""

_LOGIN = """{% extends "base" %}{% block body %}<h1>Sign in</h1>
{% if error %}<p class="error" role="alert" id="error">{{ error }}</p>{% endif %}
<form method="post" action="{{ action }}">
<input type="hidden" name="ctx" value="{{ ctx }}">
<label for="login">User name</label>
<input id="login" name="login" type="email" value="{{ login }}" autocomplete="username" required
{% if not login %}autofocus{% endif %} {% if error %}aria-describedby="error"{% endif %}>
<label for="passwd">Password</label>
<input id="passwd" name="passwd" type="password" autocomplete="current-password" required
{% if login %}autofocus{% endif %}>
<button class="primary" type="submit">Sign in</button>
</form><p>to continue to {{ client }}</p>{% endblock %}
"""

_CONSENT = """{% extends "base" %}{% block title %}Permissions requested{% endblock %}
{% block body %}<h1>Permissions requested</h1>
<p><strong>{{ client }}</strong> asks to use {{ resource }} on behalf of {{ upn }}:</p>
<ul>{% for item in scopes %}<li>{{ item }}</li>{% endfor %}</ul>
<form method="post" action="{{ action }}">
<input type="hidden" name="ctx" value="{{ ctx }}">
{% if administrator %}<label><input type="checkbox" name="everybody" value="1">
Consent on behalf of the organization</label>{% endif %}
<button class="primary" type="submit" name="decision" value="accept">Accept</button>
<button type="submit" name="decision" value="cancel">Cancel</button>
</form>{% endblock %}
"""

_POST = """{% extends "base" %}{% block title %}Signed in{% endblock %}
{% block body %}<h1>Signed in</h1>
<form method="post" action="{{ action }}">
{% for name, value in fields %}<input type="hidden" name="{{ name }}" value="{{ value }}">
{% endfor %}<button class="primary" type="submit" autofocus>Continue</button>
</form>{% endblock %}
"""

_ERROR = """{% extends "base" %}{% block title %}Sign-in error{% endblock %}
{% block body %}<h1>Sorry, we cannot sign you in</h1>
<p class="error" role="alert">{{ error }}</p>{% endblock %}
"""

_PAGES = Environment(
    loader=DictLoader(
        {"base": _BASE, "login": _LOGIN, "consent": _CONSENT, "post": _POST, "error": _ERROR}
    ),
    autoescape=True,
)


def page(name: str, *, status: int = 200, target: str = "", **values: Any) -> Response:
    """A page that loads nothing, runs nothing and cannot be framed. `target` is where its form
    may lead besides here: browsers apply form-action to the redirect after a form as well."""
    nonce = secrets.token_urlsafe(16)
    content = _PAGES.get_template(name).render(nonce=nonce, **values)
    parts = urlsplit(target)
    origin = f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else ""
    allowed = origin or (f"{parts.scheme}:" if parts.scheme else "")
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self' {allowed}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(content, status, headers)


def answer(request: Request, fields: list[tuple[str, str]], tenant: str) -> Response:
    """The answer to the client, in the way it asked for."""
    if request.state:
        fields = [*fields, ("state", request.state)]
    if request.response_mode == "form_post":
        return page(
            "post",
            tenant=tenant,
            action=request.redirect_uri,
            fields=fields,
            target=request.redirect_uri,
        )
    if request.response_mode == "fragment":
        mark = "#"
    else:
        mark = "&" if urlsplit(request.redirect_uri).query else "?"
    location = request.redirect_uri + mark + urlencode(fields)
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(location, 302, headers)
