"""App registrations: ids, addresses, secrets and certificates, permissions, and the consent."""

import base64
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem import pki
from tandem.console.areas.directory import asking, forms, words
from tandem.console.areas.directory.asking import GRAPH, key
from tandem.console.kit import (
    CHANGED,
    N_,
    ROOT,
    Console,
    Draft,
    Hit,
    Notice,
    NotSignedIn,
    Option,
    Page,
    Problem,
    UnknownPage,
    Values,
    field,
)
from tandem.infra.errors import AppError, Kind

APPS = f"{ROOT}/app-registrations"
PLACE = (APPS, N_("App registrations"))
TABS = {
    "": N_("Overview"),
    "credentials": N_("Certificates and secrets"),
    "permissions": N_("API permissions"),
    "api": N_("Exposed API"),
}
SOON_DAYS = 60
_CONSENT = ("Add delegated permission grant", "Update delegated permission grant")


async def _uris_are_right(page: Page[Any], draft: Draft | None, value: Any) -> None:
    for line in str(value).split():
        if "://" not in line and not line.startswith(("ms-app", "urn:")):
            raise Problem(
                "redirects",
                N_("%(line)s is no address: it begins with https:// or a scheme of the client."),
                line=line[:100],
            )


_NAME = field("displayName", N_("Name"), required=True, limit=120)
_URIS = field(
    "identifierUris",
    N_("App ID URI"),
    limit=250,
    hint=N_("How others name this application when they ask for a token; empty for a mere client."),
)
_WEB = field(
    "web",
    N_("Redirect addresses of a web application"),
    "textarea",
    limit=4000,
    rows=3,
    hint=N_("One a line. The application proves itself by a secret or certificate."),
    check=_uris_are_right,
)
_PUBLIC = field(
    "public",
    N_("Redirect addresses of a native client"),
    "textarea",
    limit=4000,
    rows=3,
    hint=N_("One a line. The client has no secret."),
    check=_uris_are_right,
)
_HOME = field("home", N_("Home page"), "url", limit=1024)
FIELDS = (_NAME, _URIS, _HOME, _WEB, _PUBLIC)
_AT = {"web": "web", "publicClient": "public", "redirectUris": "web"}
_SECRET = (
    field("description", N_("Description"), limit=256, hint=N_("So that you know it again.")),
    field(
        "months",
        N_("Valid for"),
        "select",
        required=True,
        default="12",
        options=(("6", N_("6 months")), ("12", N_("1 year")), ("24", N_("2 years"))),
    ),
)
_CERTIFICATE = (
    field(
        "certificate",
        N_("Certificate"),
        "file",
        accept=".cer,.crt,.pem,.der",
        hint=N_("The public part alone, PEM or DER. The key stays with the application."),
    ),
    field("description", N_("Description"), limit=256),
)


async def _all_apps(page: Page[Any]) -> list[dict[str, Any]]:
    return await asking.all_of(page, f"{GRAPH}/applications", **{"$top": 999})


def credentials(
    apps: list[dict[str, Any]], now: datetime, within: int | None = None
) -> list[dict[str, Any]]:
    """Secrets and certificates with their end, the nearest first."""
    found = []
    for app in apps:
        for sort in ("passwordCredentials", "keyCredentials"):
            for item in app[sort]:
                ends_at = datetime.fromisoformat(item["endDateTime"])
                left = (ends_at - now).total_seconds() / 86400
                if within is None or left <= within:
                    found.append(
                        {
                            "app": app,
                            "id": item["keyId"],
                            "secret": sort == "passwordCredentials",
                            "name": item["displayName"] or "",
                            "hint": item.get("hint") or "",
                            "starts_at": item["startDateTime"],
                            "ends_at": ends_at,
                            "days": int(left),
                            "state": "bad"
                            if left <= 7
                            else "waiting"
                            if left <= SOON_DAYS
                            else "good",
                            "over": left <= 0,
                        }
                    )
    return sorted(found, key=lambda item: item["ends_at"])


async def applications(page: Page[Any]) -> Response:
    every = await _all_apps(page)
    text = asking.query(page, "search").casefold()
    shown = [
        app
        for app in every
        if text in app["displayName"].casefold() or text in app["appId"].casefold()
    ]
    return page.render(
        "directory/applications.html",
        rows=[
            {**app, "next": next(iter(credentials([app], page.now)), None)}
            for app in sorted(shown, key=lambda app: app["displayName"].casefold())
        ],
        asked={"search": asking.query(page, "search")},
        rights=await asking.rights(page),
    )


async def expiring(page: Page[Any]) -> Response:
    return page.render(
        "directory/expiring.html",
        rows=credentials(await _all_apps(page), page.now),
        rights=await asking.rights(page),
    )


async def application(page: Page[Any]) -> Response:
    tab = page.request.path_params.get("tab", "")
    if tab not in TABS:
        raise UnknownPage(N_("There is no such page."))
    found = await page.api.get(f"{GRAPH}/applications/{key(page)}")
    more: dict[str, Any] = {"rows": []}
    if tab == "credentials":
        more["rows"] = credentials([found], page.now)
    elif tab == "permissions":
        more |= await _permissions(page, found)
    base = f"{APPS}/{found['id']}"
    return page.render(
        "directory/application.html",
        app=found,
        tab=tab,
        tabs=[
            (base + (f"/{one}" if one else ""), title, one == tab) for one, title in TABS.items()
        ],
        rights=await asking.rights(page),
        words=words,
        **more,
    )


# ---------------------------------------------------------------------------------- permissions


async def _principal(page: Page[Any], app_id: str) -> dict[str, Any] | None:
    found = await page.api.get(
        f"{GRAPH}/servicePrincipals", **{"$filter": f"appId eq {asking.literal(app_id)}"}
    )
    return found["value"][0] if found["value"] else None


class _Held:
    """What a client was granted: permissions of applications, and scopes for everybody."""

    def __init__(self, roles: list[dict[str, Any]], grants: list[dict[str, Any]]) -> None:
        self.roles = {(item["resourceId"], item["appRoleId"]): item for item in roles}
        self.grants = grants

    def scope(self, resource_id: str, name: str) -> dict[str, Any] | None:
        for grant in self.grants:
            here = grant["resourceId"] == resource_id
            if here and grant["consentType"] == "AllPrincipals" and name in grant["scope"].split():
                return grant
        return None


async def _held(page: Page[Any], principal: dict[str, Any] | None) -> _Held:
    if principal is None:
        return _Held([], [])
    at = f"{GRAPH}/servicePrincipals/{principal['id']}"
    return _Held(
        await asking.all_of(page, f"{at}/appRoleAssignments"),
        await asking.all_of(page, f"{at}/oauth2PermissionGrants"),
    )


async def _permissions(page: Page[Any], found: dict[str, Any]) -> dict[str, Any]:
    """Each permission that is asked for or was granted: in words, with who granted it and when."""
    principal = await _principal(page, found["appId"])
    held = await _held(page, principal)
    rows, seen = [], set()
    for needed in found["requiredResourceAccess"]:
        resource = await _principal(page, needed["resourceAppId"])
        for access in needed["resourceAccess"]:
            row = _row(resource, access, held, needed["resourceAppId"])
            rows.append(row)
            seen.add((row["resource_id"], row["sort"], row["id"]))
    if principal is not None:
        rows += await _granted_besides(page, held, seen)
    for row in rows:
        row |= await _granted_by(page, row)
    users = [grant for grant in held.grants if grant["consentType"] == "Principal"]
    return {
        "rows": rows,
        "waiting": sum(not row["granted"] for row in rows),
        "users": len({grant["principalId"] for grant in users}),
        "principal": principal,
        "tenant": await _tenant_name(page),
    }


async def _tenant_name(page: Page[Any]) -> str:
    (here,) = (await page.api.get(f"{GRAPH}/organization"))["value"]
    return str(here["displayName"])


def _row(
    resource: dict[str, Any] | None, access: Mapping[str, Any], held: _Held, app_id: str
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sort": access["type"],
        "id": access["id"],
        "api": resource["displayName"] if resource else app_id,
        "resource_id": resource["id"] if resource else "",
        "name": access["id"],
        "said": "",
        "granted": None,
        "asked": True,
        "known": False,
    }
    if resource is None:
        return row
    listed = resource["appRoles" if access["type"] == "Role" else "oauth2PermissionScopes"]
    for item in listed:
        if item["id"] == access["id"]:
            row |= {
                "name": item["value"],
                "said": item.get("displayName") or item.get("adminConsentDisplayName") or "",
                "known": True,
            }
    if access["type"] == "Role":
        row["granted"] = held.roles.get((resource["id"], access["id"]))
    else:
        row["granted"] = held.scope(resource["id"], row["name"])
    return row


async def _granted_besides(
    page: Page[Any], held: _Held, seen: set[tuple[str, str, str]]
) -> list[dict[str, Any]]:
    """What was granted and is not in the registration (any more)."""
    rows = []
    resources: dict[str, dict[str, Any]] = {}

    async def resource(resource_id: str) -> dict[str, Any]:
        if resource_id not in resources:
            resources[resource_id] = await page.api.get(f"{GRAPH}/servicePrincipals/{resource_id}")
        return resources[resource_id]

    for (resource_id, role_id), _ in held.roles.items():
        if (resource_id, "Role", role_id) not in seen:
            access = {"type": "Role", "id": role_id}
            rows.append({**_row(await resource(resource_id), access, held, ""), "asked": False})
    for grant in held.grants:
        if grant["consentType"] != "AllPrincipals":
            continue
        there = await resource(grant["resourceId"])
        ids = {item["value"]: item["id"] for item in there["oauth2PermissionScopes"]}
        for name in grant["scope"].split():
            if (grant["resourceId"], "Scope", ids.get(name, "")) not in seen:
                access = {"type": "Scope", "id": ids.get(name, name)}
                rows.append(
                    {
                        **_row(there, access, held, ""),
                        "name": name,
                        "granted": grant,
                        "asked": False,
                    }
                )
    return rows


async def _granted_by(page: Page[Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """By whom and when, from the audit log; nothing of what the tenant began with."""
    grant = row["granted"]
    empty = {"by": "", "at": (grant or {}).get("createdDateTime")}
    if not grant:
        return empty
    try:
        found = await page.api.get(
            f"{GRAPH}/auditLogs/directoryAudits",
            **{
                "$filter": f"targetResources/any(t:t/id eq {asking.literal(grant['id'])})",
                "$top": 20,
            },
        )
    except NotSignedIn:
        raise
    except AppError as error:
        if error.kind not in (Kind.FORBIDDEN, Kind.INVALID):
            raise
        return empty
    for item in found["value"]:
        by = item["initiatedBy"]["user"] or item["initiatedBy"]["app"] or {}
        return {
            "by": by.get("userPrincipalName") or by.get("displayName") or "",
            "at": item["activityDateTime"],
        }
    return empty


async def consent(page: Page[Any]) -> Response:
    """Grant what the registration asks for, for everybody in the tenant, after a page that says
    what that is."""
    form = await page.form()
    found = await page.api.get(f"{GRAPH}/applications/{key(page)}")
    here = f"{APPS}/{found['id']}/permissions"
    shown = await _permissions(page, found)
    text = page.language.text
    if form.get("confirmed") != "1":
        return page.confirm(
            text("Grant admin consent for %(tenant)s?", tenant=shown["tenant"]),
            text(
                "%(name)s may do this from then on, for everybody in %(tenant)s, and nobody is asked "
                "again. Granted permissions are taken back on this page.",
                name=found["displayName"],
                tenant=shown["tenant"],
            ),
            text("Grant admin consent for %(tenant)s", tenant=shown["tenant"]),
            back=here,
            danger=False,
            items=[
                f"{text(words.PERMISSION.get(row['name'], row['name']))} ({row['name']}, "
                f"{text('as itself') if row['sort'] == 'Role' else text('for a signed-in user')})"
                for row in shown["rows"]
                if row["asked"]
            ],
        )
    for row in shown["rows"]:
        if row["asked"] and not row["known"]:
            raise Problem(
                "",
                N_("The tenant does not know the permission %(name)s of %(api)s."),
                cure=N_("Take it out of the registration, then grant the others."),
                name=row["name"],
                api=row["api"],
            )
    principal = shown["principal"] or await page.api.post(
        f"{GRAPH}/servicePrincipals", {"appId": found["appId"]}
    )
    await _grant(page, principal["id"], [row for row in shown["rows"] if not row["granted"]])
    return page.to(here, N_("Consent was granted for %(tenant)s."), tenant=shown["tenant"])


async def _grant(page: Page[Any], principal_id: str, rows: list[dict[str, Any]]) -> None:
    at = f"{GRAPH}/servicePrincipals/{principal_id}"
    scopes: dict[str, set[str]] = {}
    for row in rows:
        if row["sort"] == "Role":
            await page.api.post(
                f"{at}/appRoleAssignments",
                {
                    "principalId": principal_id,
                    "resourceId": row["resource_id"],
                    "appRoleId": row["id"],
                },
            )
        else:
            scopes.setdefault(row["resource_id"], set()).add(row["name"])
    grants = await asking.all_of(page, f"{at}/oauth2PermissionGrants")
    for resource_id, names in scopes.items():
        held = [
            grant
            for grant in grants
            if grant["resourceId"] == resource_id and grant["consentType"] == "AllPrincipals"
        ]
        if held:
            every = " ".join(sorted(names | set(held[0]["scope"].split())))
            await page.api.patch(
                f"{GRAPH}/oauth2PermissionGrants/{held[0]['id']}", {"scope": every}
            )
        else:
            await page.api.post(
                f"{GRAPH}/oauth2PermissionGrants",
                {
                    "clientId": principal_id,
                    "consentType": "AllPrincipals",
                    "resourceId": resource_id,
                    "scope": " ".join(sorted(names)),
                },
            )


async def revoke(page: Page[Any]) -> Response:
    """Take one permission back."""
    form = await page.form()
    found = await page.api.get(f"{GRAPH}/applications/{key(page)}")
    here = f"{APPS}/{found['id']}/permissions"
    shown = await _permissions(page, found)
    for row in shown["rows"]:
        if not row["granted"] or (row["id"], row["resource_id"], row["sort"]) != (
            form.get("permission"),
            form.get("resource"),
            form.get("sort"),
        ):
            continue
        if row["sort"] == "Role":
            at = f"{GRAPH}/servicePrincipals/{shown['principal']['id']}"
            await page.api.delete(f"{at}/appRoleAssignments/{row['granted']['id']}")
        else:
            left = [name for name in row["granted"]["scope"].split() if name != row["name"]]
            path = f"{GRAPH}/oauth2PermissionGrants/{row['granted']['id']}"
            if left:
                await page.api.patch(path, {"scope": " ".join(left)})
            else:
                await page.api.delete(path)
        return page.to(here, N_("%(name)s was taken back."), name=row["name"])
    return page.to(here, N_("This permission is not granted any more."))


async def permissions(page: Page[Any]) -> Response:
    """Which permissions of one API the registration asks for."""
    found_answer = await page.api.ask("GET", f"{GRAPH}/applications/{key(page)}")
    found = found_answer.json
    here = f"{APPS}/{found['id']}/permissions"
    known = await asking.all_of(page, f"{GRAPH}/servicePrincipals", **{"$top": 999})
    offering = {
        item["appId"]: item
        for item in sorted(known, key=lambda item: item["displayName"].casefold())
        if item["appRoles"] or item["oauth2PermissionScopes"]
    }
    graph_app = "00000003-0000-0000-c000-000000000000"
    wanted = page.request.query_params.get("api", "") or graph_app
    if page.request.method == "POST":
        wanted = (await page.form()).get("api", wanted)
    if wanted not in offering:
        raise UnknownPage(N_("The tenant has no such API."), cure=N_("Choose one from the list."))
    api = offering[wanted]

    def option(item: Mapping[str, Any], sort: str) -> Option:
        title = words.PERMISSION.get(item["value"], item["value"])
        return (f"{sort}:{item['id']}", page.language.text(title), item["value"])

    fields = tuple(
        field(name, title, "checks", options=options)
        for name, title, options in (
            (
                "Scope",
                N_("Delegated: with a signed-in user, and no more than that user may"),
                tuple(option(item, "Scope") for item in api["oauth2PermissionScopes"]),
            ),
            (
                "Role",
                N_("Application: by itself, without a user"),
                tuple(option(item, "Role") for item in api["appRoles"]),
            ),
        )
        if options
    )
    now = {
        f"{access['type']}:{access['id']}"
        for needed in found["requiredResourceAccess"]
        if needed["resourceAppId"] == wanted
        for access in needed["resourceAccess"]
    }
    values: dict[str, Any] = {
        item.name: [one[0] for one in item.options if one[0] in now] for item in fields
    }
    general: AppError | None = None
    status = 200
    if page.request.method == "POST":
        values, _, _ = await forms.answers(page, fields)
        offered = {one[0] for item in fields for one in item.options}
        chosen = [one for item in fields for one in values[item.name] if one in offered]
        others = [n for n in found["requiredResourceAccess"] if n["resourceAppId"] != wanted]
        if chosen:
            access = [dict(zip(("type", "id"), one.split(":", 1), strict=True)) for one in chosen]
            others.append({"resourceAppId": wanted, "resourceAccess": access})
        try:
            await page.api.patch(
                f"{GRAPH}/applications/{found['id']}",
                {"requiredResourceAccess": others},
                version=page.form_values.get("version", ""),
            )
            return page.to(
                here, N_("The permissions were saved. They count once consent is granted.")
            )
        except NotSignedIn:
            raise
        except AppError as error:
            general, status = error, forms.status_of(error)
    return await forms.show(
        page,
        fields,
        values,
        title=page.language.text("Permissions of %(name)s", name=found["displayName"]),
        label=page.language.text("Save"),
        back=here,
        place=PLACE,
        version=found_answer.etag,
        general=None if general is not None and general.code == CHANGED else general,
        warning=forms.CHANGED_MEANWHILE if general is not None and general.code == CHANGED else "",
        status=status,
        template="directory/permissions_form.html",
        apis=[(app_id, item["displayName"]) for app_id, item in offering.items()],
        wanted=wanted,
    )


# ---------------------------------------------------------------------------------- changes


def _body(values: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    web = dict((known or {}).get("web") or {})
    return {
        "displayName": values["displayName"],
        "identifierUris": values["identifierUris"].split(),
        "web": {
            **web,
            "homePageUrl": values["home"] or None,
            "redirectUris": values["web"].split(),
        },
        "publicClient": {"redirectUris": values["public"].split()},
    }


async def create(page: Page[Any]) -> Response:
    async def work(values: Values) -> Response:
        made = await page.api.post(f"{GRAPH}/applications", _body(values))
        return page.to(
            f"{APPS}/{made['id']}", N_("%(name)s was registered."), name=made["displayName"]
        )

    return await forms.filled(
        page,
        FIELDS,
        {item.name: item.initial() for item in FIELDS},
        work,
        names=_AT,
        title=page.language.text("Register an application"),
        label=page.language.text("Register"),
        back=APPS,
        place=PLACE,
    )


async def edit(page: Page[Any]) -> Response:
    path = f"{GRAPH}/applications/{key(page)}"
    answer = await page.api.ask("GET", path)
    found = answer.json
    here = f"{APPS}/{found['id']}"

    async def work(values: Values) -> Response:
        version = page.form_values.get("version", "")
        await page.api.patch(path, _body(values, found), version=version)
        return page.to(here, N_("%(name)s was changed."), name=values["displayName"])

    return await forms.filled(
        page,
        FIELDS,
        {
            "displayName": found["displayName"],
            "identifierUris": " ".join(found["identifierUris"]),
            "home": found["web"]["homePageUrl"] or "",
            "web": "\n".join(found["web"]["redirectUris"]),
            "public": "\n".join(found["publicClient"]["redirectUris"]),
        },
        work,
        names=_AT,
        version=answer.etag,
        title=page.language.text("Edit %(name)s", name=found["displayName"]),
        label=page.language.text("Save"),
        back=here,
        place=PLACE,
    )


async def add_secret(page: Page[Any]) -> Response:
    """A client secret; its text is on the answer and nowhere else."""
    path = f"{GRAPH}/applications/{key(page)}"
    found = await page.api.get(path)
    here = f"{APPS}/{found['id']}/credentials"

    async def work(values: Values) -> Response:
        ends_at = page.now + timedelta(days=int(values["months"]) * 365 // 12)
        asked = {
            "displayName": values["description"] or None,
            "endDateTime": ends_at.isoformat().replace("+00:00", "Z"),
        }
        made = await page.api.post(f"{path}/addPassword", {"passwordCredential": asked})
        return page.render(
            "directory/secret.html",
            app=found,
            secret=made["secretText"],
            ends_at=made["endDateTime"],
            back=here,
        )

    return await forms.filled(
        page,
        _SECRET,
        {item.name: item.initial() for item in _SECRET},
        work,
        title=page.language.text("New secret for %(name)s", name=found["displayName"]),
        label=page.language.text("Add"),
        intro=page.language.text("The secret is shown once. It is stored as a hash alone."),
        back=here,
        place=PLACE,
    )


async def add_certificate(page: Page[Any]) -> Response:
    path = f"{GRAPH}/applications/{key(page)}"
    answer = await page.api.ask("GET", path, query={"$select": "id,displayName,keyCredentials"})
    found = answer.json
    here = f"{APPS}/{found['id']}/credentials"

    async def work(values: Values) -> Response:
        upload = page.files.get("certificate")
        if upload is None:
            raise Problem("certificate", N_("Choose a file."))
        kept = [{"keyId": item["keyId"]} for item in found["keyCredentials"]]
        fresh = {
            "keyId": str(uuid.uuid4()),
            "type": "AsymmetricX509Cert",
            "usage": "Verify",
            "key": base64.b64encode(_der(upload.data)).decode(),
            "displayName": values["description"] or upload.name,
        }
        await page.api.patch(path, {"keyCredentials": [*kept, fresh]}, version=answer.etag)
        return page.to(here, N_("The certificate was added."))

    return await forms.filled(
        page,
        _CERTIFICATE,
        {item.name: item.initial() for item in _CERTIFICATE},
        work,
        at="certificate",
        title=page.language.text("New certificate for %(name)s", name=found["displayName"]),
        label=page.language.text("Add"),
        back=here,
        place=PLACE,
    )


def _der(data: bytes) -> bytes:
    """The certificate of a file; a private key beside it is not even looked at."""
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        if b"-----BEGIN" in data:
            found = x509.load_pem_x509_certificate(data)
        else:
            found = x509.load_der_x509_certificate(data)
    except pki.UNREADABLE:
        raise Problem(
            "certificate",
            N_("This file holds no certificate."),
            cure=N_("Choose the certificate alone, as PEM or DER; not a PFX."),
        ) from None
    return found.public_bytes(Encoding.DER)


async def act(page: Page[Any]) -> Response:
    form = await page.form()
    path = f"{GRAPH}/applications/{key(page)}"
    found = await page.api.get(path)
    here, name, text = f"{APPS}/{found['id']}", found["displayName"], page.language.text
    match page.request.path_params["what"]:
        case "remove-secret" if form.get("confirmed") != "1":
            return page.confirm(
                text("Remove this secret?"),
                text("Whatever signs in with it is refused from then on, with AADSTS7000215."),
                text("Remove"),
                back=f"{here}/credentials",
                fields={"key": form.get("key", "")},
            )
        case "remove-secret":
            await page.api.post(f"{path}/removePassword", {"keyId": form.get("key", "")})
            return page.to(f"{here}/credentials", N_("The secret was removed."))
        case "remove-certificate" if form.get("confirmed") != "1":
            return page.confirm(
                text("Remove this certificate?"),
                text("Whatever signs in with it is refused from then on, with AADSTS700027."),
                text("Remove"),
                back=f"{here}/credentials",
                fields={"key": form.get("key", "")},
            )
        case "remove-certificate":
            kept = [
                {"keyId": item["keyId"]}
                for item in found["keyCredentials"]
                if item["keyId"] != form.get("key", "")
            ]
            await page.api.patch(path, {"keyCredentials": kept})
            return page.to(f"{here}/credentials", N_("The certificate was removed."))
        case "delete" if form.get("confirmed") != "1":
            redirects = found["publicClient"]["redirectUris"]
            own = any(uri.endswith(f"{ROOT}/sign-in/done") for uri in redirects)
            return page.confirm(
                text("Delete %(name)s?", name=name),
                text(
                    "This is the registration of this console: nobody can sign in here any more "
                    "until the tenant's role is started again."
                )
                if own
                else text(
                    "Whatever uses this registration can no longer sign in. For 30 days it can be "
                    "restored from the deleted items, with its secrets."
                ),
                text("Delete"),
                back=here,
            )
        case "delete":
            await page.api.delete(path)
            return page.to(
                APPS, N_("%(name)s was deleted, and can be restored for 30 days."), name=name
            )
    raise UnknownPage(N_("There is no such page."))


async def search(page: Page[Any], text: str) -> list[Hit]:
    return [
        Hit(N_("App registrations"), app["displayName"], app["appId"], f"{APPS}/{app['id']}")
        for app in await _all_apps(page)
        if text.casefold() in app["displayName"].casefold() or text.casefold() in app["appId"]
    ][:20]


async def notices(page: Page[Any]) -> list[Notice]:
    try:
        near = credentials(await _all_apps(page), page.now, 30)
    except NotSignedIn:
        raise
    except AppError as error:
        if error.kind is not Kind.FORBIDDEN:
            raise
        return []
    return [
        Notice(
            title=N_("A credential of %(name)s has expired")
            if item["over"]
            else N_("A credential of %(name)s expires in %(days)s days"),
            values={"name": item["app"]["displayName"], "days": page.language.number(item["days"])},
            state="bad" if item["days"] <= 7 else "waiting",
            url=f"{APPS}/{item['app']['id']}/credentials",
            at=item["ends_at"],
        )
        for item in near[:20]
    ]


def routes(console: Console[Any]) -> list[BaseRoute]:
    one = f"{APPS}/{{id}}"
    both = [
        (f"{APPS}/new", create),
        (f"{one}/edit", edit),
        (f"{one}/new-secret", add_secret),
        (f"{one}/new-certificate", add_certificate),
        (f"{one}/ask", permissions),
    ]
    return [
        console.route(APPS, applications),
        console.route(f"{APPS}/expiring", expiring),
        *(console.route(path, view) for path, view in both),
        *(console.route(path, view, post=True) for path, view in both),
        console.route(f"{one}/consent", consent, post=True),
        console.route(f"{one}/revoke", revoke, post=True),
        console.route(f"{one}/do/{{what}}", act, post=True),
        console.route(one, application),
        console.route(f"{one}/{{tab}}", application),
    ]
