"""Gateway certificates: from a free name to the PFX (tutorial 1), over as many days as the CA takes.

Between request and answer nothing depends on a draft: the request waits in the site, and the
wizard can be begun again from it (`?existing=<id>`).
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.kit import (
    N_,
    ROOT,
    Console,
    Draft,
    Fact,
    Outcome,
    Page,
    Place,
    Problem,
    Step,
    Upload,
    Wizard,
    drawn,
    field,
    read,
)
from tandem.infra.errors import AppError

PATH = f"{ROOT}/certificates"
API = "/api/v1/certificates"
PLACE = Place(PATH, N_("Gateway certificates"), "certificate", N_("Cloud"))
KEY = "gateway-certificate"

_SUBJECT = ("organization", "organizational_unit", "locality", "state", "country")
STATE = {
    "waiting": ("waiting", N_("Waits for the CA's answer")),
    "incomplete": ("bad", N_("Certificates of its path are missing")),
    "complete": ("good", N_("Complete")),
}
REFRESH_SECONDS = 2
_ANSWERS = ".cer,.crt,.pem,.p7b,.p7c,.der"


async def _name_is_free(page: Page[Any], draft: Draft | None, _: Any) -> None:
    values = draft.values if draft is not None else {}
    prefix, domain = str(values.get("prefix", "")), str(values.get("domain", ""))
    if not prefix or not domain:
        return
    name = f"{prefix.strip()}.{domain.strip().lstrip('.')}"
    found = await page.api.get(f"/api/v1/gateway-names/{quote(name, safe='')}")
    if not found["available"]:
        at = (
            "domain"
            if "domain" in found["reason"] and "prefix" not in found["reason"]
            else "prefix"
        )
        raise Problem(at, found["reason"], cure=found["cure"])
    if draft is not None:
        draft.values["service_name"] = found["service_name"]
        draft.values["deployment_name"] = found["deployment_name"]


async def _country(page: Page[Any], draft: Draft | None, value: str) -> None:
    if len(value) != 2 or not value.isascii() or not value.isalpha():
        raise Problem("country", N_("A country is its two letters, like US or FR."))


def _id(draft: Draft) -> str:
    return str(draft.values.get("existing") or draft.values.get("certificate_id") or "")


def _fresh(draft: Draft) -> bool:
    return not draft.values.get("existing")


async def _one(page: Page[Any], id: str) -> dict[str, Any]:
    found: dict[str, Any] = await page.api.get(f"{API}/{quote(id, safe='')}")
    return found


async def _make_request(page: Page[Any], draft: Draft) -> None:
    """The key and its request; made again only when something of them is another."""
    wanted = {"service_name": draft.values["service_name"]}
    wanted |= {name: str(draft.values.get(name, "")).strip() for name in _SUBJECT}
    wanted["country"] = wanted["country"].upper()
    if draft.values.get("acme"):
        wanted["acme"] = True
    before = str(draft.values.get("certificate_id", ""))
    if before and draft.values.get("requested") == wanted:
        return
    made = await page.api.post(API, wanted)
    draft.values["certificate_id"], draft.values["requested"] = made["id"], wanted
    await page.drafts.save(draft, page.session.token)
    if before:
        try:
            known = await _one(page, before)
            if known["state"] == "waiting":
                await page.api.delete(f"{API}/{before}")
        except AppError:
            return  # Somebody else removed it.


async def _load(page: Page[Any], draft: Draft) -> Mapping[str, Any]:
    found = await _one(page, _id(draft))
    return {
        "certificate": found,
        "states": STATE,
        "path_of": PATH,
        "refresh_seconds": REFRESH_SECONDS,
    }


async def _came(page: Page[Any], draft: Draft) -> None:
    """What an ACME authority issues comes by itself: there is nothing to import."""
    found = await _one(page, _id(draft))
    draft.values["acme"] = found["acme"]
    if found["acme"] and found["state"] == "waiting":
        raise Problem(
            "",
            N_("The authority has not issued the certificate of %(name)s yet."),
            cure=N_("Wait a moment, and look at what is said of the order below."),
            name=found["service_name"],
        )


def _by_hand(draft: Draft) -> bool:
    return not draft.values.get("acme")


def _answer(draft: Draft) -> bytes:
    upload = draft.file("answer")
    if upload is not None:
        return upload.data
    return str(draft.values.get("pasted", "")).strip().encode()


async def _import(page: Page[Any], draft: Draft) -> None:
    """What the CA sent, for the key that waits. More files may follow until the path is complete."""
    data = _answer(draft)
    if data:
        try:
            await page.api.post(f"{API}/import", {"data": b64encode(data).decode()})
        except AppError as error:
            at = "answer" if draft.file("answer") else "pasted"
            error.details["field"] = at
            raise
        finally:
            draft.forget("answer")
            draft.values["pasted"] = ""
    found = await _one(page, _id(draft))
    if found["state"] == "waiting":
        raise Problem(
            "answer",
            N_("The key of %(name)s still waits for its certificate.")
            if data
            else N_("Choose the file that the CA sent, or paste what is in it."),
            **({"name": found["service_name"]} if data else {}),
        )
    if found["state"] == "incomplete":
        raise Problem(
            "answer",
            N_("The certificate is here, but that of %(issuer)s is missing on its path."),
            cure=N_("Get it from the CA and import it here too."),
            issuer=found["missing_issuer"],
        )


_PASSWORDS = (
    field("password", N_("Password of the PFX"), "password", secret=True, required=True),
    field("again", N_("The same password again"), "password", secret=True, required=True),
)


async def _same_password(page: Page[Any], draft: Draft) -> None:
    if draft.secret("password") != draft.secret("again"):
        draft.forget("password", "again")
        raise Problem("password", N_("The two passwords differ."), cure=N_("Type both again."))


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    found = await _one(page, _id(draft))
    return [
        Fact(N_("Service name"), found["service_name"]),
        Fact(N_("Issuer"), found.get("issuer", "")),
        Fact(N_("Thumbprint (SHA-1)"), found.get("thumbprint", "")),
        Fact(N_("Certificates in the PFX"), len(found.get("path", ())) + 1),
        Fact(N_("Remove the working copy from the site server"), bool(draft.values.get("remove"))),
    ]


async def _command(page: Page[Any], draft: Draft) -> str:
    found = await _one(page, _id(draft))
    subject = found["subject"]
    words = [f"tandem certificate request {found['service_name']}"]
    names = dict(zip(_SUBJECT, ("organization", "unit", "city", "state", "country"), strict=True))
    words += [
        f"--{option} '{text}'" for name, option in names.items() if (text := subject.get(name, ""))
    ]
    if found["acme"]:
        how = [" ".join([*words, "--acme"])]
    else:
        how = [" ".join([*words, "-o request.csr"]), "tandem certificate import ANSWER"]
    return "\n".join(
        [
            *how,
            f"tandem certificate export {found['service_name']} -o {_file_name(found)}.pfx"
            " --password-file FILE" + (" --remove" if draft.values.get("remove") else ""),
        ]
    )


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    found = await _one(page, _id(draft))
    if draft.values.get("remove"):
        await page.api.delete(f"{API}/{found['id']}")
        return Outcome(
            N_("The working copy of %(name)s was removed from the site server."),
            PATH,
            {"name": found["service_name"]},
        )
    return Outcome(
        N_("The certificate of %(name)s is ready."),
        f"{PATH}/{found['id']}",
        {"name": found["service_name"]},
    )


WIZARD = Wizard(
    key=KEY,
    title=N_("Gateway certificate"),
    back=PATH,
    finish_label=N_("Done"),
    steps=(
        # Never shown: the request that the wizard goes on from.
        Step(key="from", title="", fields=(field("existing", ""),), when=lambda draft: False),
        Step(
            key="name",
            title=N_("Service name"),
            intro=N_(
                "The name under which clients on the internet find the gateway. It is checked"
                " while you type; nothing is made or reserved by it."
            ),
            when=_fresh,
            fields=(
                field(
                    "prefix",
                    N_("Prefix"),
                    hint=N_(
                        "3 to 24 lowercase letters and digits. It becomes the name of the gateway's"
                        " deployment too, so nobody else may have it. An asterisk asks for a"
                        " certificate of all gateways below the domain."
                    ),
                    required=True,
                    limit=64,
                    check=_name_is_free,
                ),
                field(
                    "domain",
                    N_("Public domain of your company"),
                    hint=N_("Like contoso.com: an alias (CNAME) is made in it later."),
                    required=True,
                    limit=190,
                    check=_name_is_free,
                ),
            ),
        ),
        Step(
            key="subject",
            title=N_("Subject"),
            intro=N_("Who you are, as the CA will write it into the certificate."),
            when=_fresh,
            next_label=N_("Make key and request"),
            fields=(
                field("organization", N_("Organisation"), limit=64),
                field("organizational_unit", N_("Organisational unit"), limit=64),
                field("locality", N_("City"), limit=64),
                field("state", N_("State or province"), limit=64),
                field("country", N_("Country, two letters"), limit=2, check=_country),
                field(
                    "acme",
                    N_("Order it by ACME"),
                    "checkbox",
                    hint=N_(
                        "Of the authority in the site's settings, which asks for a record in DNS that"
                        " the site sets by itself. Without it you send the request to your CA."
                    ),
                ),
            ),
            check=_make_request,
        ),
        Step(
            key="request",
            title=N_("Request"),
            template="cloud/request_step.html",
            load=_load,
            next_label=N_("I have the CA's answer"),
            check=_came,
        ),
        Step(
            key="import",
            title=N_("Import"),
            intro=N_(
                "Give the CA's answer to the key that waits for it: one file after the other, when"
                " it sent several."
            ),
            when=_by_hand,
            template="cloud/import_step.html",
            load=_load,
            next_label=N_("Import"),
            fields=(
                field(
                    "answer",
                    N_("File of the CA (PEM, DER, P7B or bundle)"),
                    "file",
                    accept=_ANSWERS,
                ),
                field("pasted", N_("Or paste its text"), "textarea", limit=200_000, rows=6),
            ),
            check=_import,
        ),
        Step(
            key="password",
            title=N_("Password"),
            intro=N_(
                "The PFX holds the private key, so it has a password. The site does not keep it:"
                " whoever creates the gateway types it again."
            ),
            fields=_PASSWORDS,
            check=_same_password,
        ),
        Step(
            key="pfx",
            title=N_("PFX"),
            template="cloud/pfx_step.html",
            load=_load,
            fields=(
                field(
                    "remove",
                    N_("Remove the working copy, key included, from the site server at the end"),
                    "checkbox",
                    hint=N_("Only when you have the PFX: the key is then nowhere else."),
                ),
            ),
        ),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
)


# ---------------------------------------------------------------------------- pages


async def _list(page: Page[Any]) -> Response:
    found = await page.api.get(API)
    return page.render(
        "cloud/certificates.html", certificates=list(reversed(found)), states=STATE, path_of=PATH
    )


async def _show(
    page: Page[Any], problems: Mapping[str, AppError] | None = None, status: int = 200
) -> Response:
    found = await _one(page, page.request.path_params["id"])
    shown = await drawn(page, _PASSWORDS, {}, problems)
    return page.render(
        "cloud/certificate.html",
        status,
        certificate=found,
        states=STATE,
        refresh_seconds=REFRESH_SECONDS,
        fields=shown,
        path_of=PATH,
        general=(problems or {}).get(""),
    )


async def _request_file(page: Page[Any]) -> Response:
    found = await _one(page, page.request.path_params["id"])
    return _file(found["request"].encode(), f"{_file_name(found)}.csr", "application/pkcs10")


async def _pfx(page: Page[Any]) -> Response:
    """The PFX as a file, under the password of this form, or that of the wizard's draft."""
    form = await page.form()
    if "draft" in form:
        draft = await page.drafts.get(form["draft"], KEY, page.session.user)
        password = draft.secret("password")
        if not password:
            return page.to(
                f"{ROOT}/wizards/{KEY}/{draft.id}/password",
                N_("The password is not kept any more: type it again."),
            )
    else:
        values, problems = read(_PASSWORDS, form)
        if not problems and values["password"] != values["again"]:
            problems["password"] = Problem(
                "password", N_("The two passwords differ."), cure=N_("Type both again.")
            )
        if problems:
            return await _show(page, problems, 422)
        password = values["password"]
    id = page.request.path_params["id"]
    made = await page.api.post(f"{API}/{quote(id, safe='')}/export", {"password": password})
    return _file(b64decode(made["pfx"]), f"{_file_name(made)}.pfx", "application/x-pkcs12")


def _file(data: bytes, name: str, media_type: str) -> Response:
    return Response(
        data,
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _file_name(found: Mapping[str, Any]) -> str:
    name = str(found["service_name"]).replace("*", "wildcard")
    return "".join(c for c in name if c.isalnum() or c in ".-")


async def _order(page: Page[Any]) -> Response:
    """How the order of an ACME authority stands: fetched again until it has ended."""
    found = await _one(page, page.request.path_params["id"])
    return page.render(
        "cloud/_order.html", certificate=found, path_of=PATH, refresh_seconds=REFRESH_SECONDS
    )


async def _order_again(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    found = await page.api.post(f"{API}/{quote(id, safe='')}/order", {})
    draft = form.get("draft", "")
    back = f"{PATH}/{id}"
    if draft:
        made = await page.drafts.get(draft, KEY, page.session.user)
        back = f"{ROOT}/wizards/{KEY}/{made.id}/request"
    return page.to(
        back, N_("The certificate of %(name)s is ordered once more."), name=found["service_name"]
    )


async def _remove(page: Page[Any]) -> Response:
    form = await page.form()
    id = page.request.path_params["id"]
    found = await _one(page, id)
    if "confirmed" not in form:
        _ = page.language.text
        return page.confirm(
            _(N_("Remove the working copy")),
            _(
                N_(
                    "The certificate of %(name)s and its private key are removed from the site"
                    " server. A gateway that uses it has its own copy and goes on."
                ),
                name=found["service_name"],
            ),
            _(N_("Remove")),
            back=f"{PATH}/{id}",
        )
    await page.api.delete(f"{API}/{quote(id, safe='')}")
    return page.to(
        PATH,
        N_("The working copy of %(name)s was removed from the site server."),
        name=found["service_name"],
    )


_IMPORT = (
    field("pfx", N_("PFX file"), "file", accept=".pfx,.p12", required=True),
    field("password", N_("Password of the PFX"), "password", secret=True),
)


async def _import_page(page: Page[Any]) -> Response:
    return page.render("cloud/import_pfx.html", fields=await drawn(page, _IMPORT, {}), general=None)


async def _import_pfx(page: Page[Any]) -> Response:
    form = await page.form(2_000_000)
    values, problems = read(_IMPORT, form, page.form_lists, page.files)
    upload = values["pfx"]
    if not isinstance(upload, Upload):
        problems["pfx"] = Problem("pfx", N_("Choose a file."))
    else:
        body = {"data": b64encode(upload.data).decode(), "password": values["password"]}
        try:
            made = await page.api.post(f"{API}/import-pfx", body)
            return page.to(
                f"{PATH}/{made['id']}",
                N_("The certificate of %(name)s was imported."),
                name=made["service_name"],
            )
        except AppError as error:
            problems["password" if error.code == "pki.wrong-password" else "pfx"] = error
    shown = await drawn(page, _IMPORT, {}, problems)
    return page.render("cloud/import_pfx.html", 422, fields=shown, general=None)


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(PATH, _list),
        console.route(f"{PATH}/import", _import_page),
        console.route(f"{PATH}/import", _import_pfx, post=True),
        console.route(f"{PATH}/{{id}}", _show),
        console.route(f"{PATH}/{{id}}/request.csr", _request_file),
        console.route(f"{PATH}/{{id}}/pfx", _pfx, post=True),
        console.route(f"{PATH}/{{id}}/order", _order),
        console.route(f"{PATH}/{{id}}/order", _order_again, post=True),
        console.route(f"{PATH}/{{id}}/remove", _remove, post=True),
    ]
