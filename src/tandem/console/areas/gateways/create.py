"""The wizard that creates a gateway (spec 2.3): environment, sign-in, certificate, settings, alerts."""

import shlex
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from tandem.console.areas.cloud.sign_in import SIGN_IN, sign_in_facts, tenant_sign_in_step
from tandem.console.areas.gateways import words
from tandem.console.areas.gateways.pages import BASE, path_of
from tandem.console.areas.gateways.settings import (
    ALERTS,
    CERTIFICATE,
    CONTENT,
    DESCRIPTION,
    INSTANCES,
    PASSWORD,
    PFX,
    REVOCATION,
    STORE,
    TLS,
    UPLOAD,
    alerts_of,
    placed,
)
from tandem.console.kit import (
    N_,
    Draft,
    Fact,
    NotSignedIn,
    Outcome,
    Page,
    Problem,
    Step,
    Wizard,
    field,
)
from tandem.infra.errors import AppError

CHECK = "/api/v1/gateways/check"
PROVIDER = "/api/v1/gateways/provider"
NEW, EXISTING = "new", "existing"


async def _offer(page: Page[Any], draft: Draft | None = None) -> dict[str, Any]:
    """What the chosen environment has. Nothing when it refuses: the step itself says why."""
    chosen = str(draft.values.get("environment", "")) if draft is not None else ""
    try:
        found: dict[str, Any] = await page.api.get(PROVIDER, environment=chosen)
    except NotSignedIn:
        raise
    except AppError:
        return {"environment": "", "regions": [], "resource_groups": [], "environments": []}
    return found


async def _environments(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    return [(item["name"], item["name"]) for item in (await _offer(page))["environments"]]


async def _regions(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    return [(name, name) for name in (await _offer(page, draft))["regions"]]


async def _groups(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    """Those there are, with their region; the first choice makes a new one."""
    say = page.language.text
    found = (await _offer(page))["resource_groups"]
    existing = [
        (
            item["name"],
            say(N_("%(name)s (existing, in %(region)s)"), name=item["name"], region=item["region"]),
        )
        for item in found
    ]
    return [("", say(N_("Create a new one"))), *existing]


async def _provider(page: Page[Any], draft: Draft) -> None:
    """Whether there is a host for it at all, and each has what an instance needs; raises the API's
    refusal, or the first thing that is missing."""
    chosen = str(draft.values.get("environment", ""))
    await page.api.get(PROVIDER, environment=chosen)
    found = await page.api.post(f"{PROVIDER}/test", {"environment": chosen})
    missing = next((item for item in found["checks"] if not item["ok"]), None)
    if missing is not None:
        raise Problem("environment", missing["reason"], cure=missing["cure"])


async def _general(page: Page[Any], draft: Draft) -> Mapping[str, Any]:
    found = await page.api.get(PROVIDER)
    if not draft.values.get("environment"):
        draft.values["environment"] = found["environment"]
    return {"provider": found}


async def _tested(page: Page[Any], draft: Draft) -> None:
    """Behind the sign-in's "Next": the connection to the provider is tested."""
    assert _SIGN_IN.check is not None
    await _SIGN_IN.check(page, draft)
    body = {"environment": draft.values["environment"], "tenant_sign_in": draft.values[SIGN_IN]}
    await page.api.post(CHECK, body)


_SIGN_IN = tenant_sign_in_step("sign-in")


def certificate_of(draft: Draft) -> dict[str, str]:
    """What the API is to make the gateway's certificate of."""
    if draft.values.get("source") != UPLOAD:
        return {"certificate": str(draft.values.get("certificate", ""))}
    upload = draft.file("pfx")
    if upload is None:
        # A day later they are dropped from a draft.
        raise Problem("pfx", N_("Choose the file once more: it is kept for a day only."))
    return {"data": b64encode(upload.data).decode(), "password": draft.secret("password")}


async def _read_certificate(page: Page[Any], draft: Draft) -> None:
    """The names that the certificate fills in. A wildcard leaves the service name to be typed."""
    step = _PFX if draft.values.get("source") == UPLOAD else _STORE
    found = await _check(page, draft, step, "")
    draft.values["found"] = {
        name: found[name]
        for name in ("service_name", "deployment_name", "wildcard", "names", "expires_at", "notes")
    }
    kept = str(draft.values.get("service_name", ""))
    fits = bool(found["wildcard"]) and kept.endswith(found["wildcard"][1:])
    draft.values["service_name"] = found["service_name"] or (kept if fits else "")


async def _check(page: Page[Any], draft: Draft, step: Step, service_name: str) -> dict[str, Any]:
    body = {
        "tenant_sign_in": draft.values[SIGN_IN],
        "environment": draft.values["environment"],
        "service_name": service_name,
        **certificate_of(draft),
    }
    if step is _SETTINGS:
        body |= {"region": draft.values["region"], "resource_group": _group(draft.values)}
    try:
        found: dict[str, Any] = await page.api.post(CHECK, body)
    except AppError as error:
        _, at = placed(error, step.fields)
        for name in at:
            error.details["field"] = name
        raise
    name = found["name_check"]
    if name is not None and not name["available"]:
        at_field = "service_name" if step is _SETTINGS else step.fields[0].name
        raise Problem(at_field, name["reason"], cure=name["cure"])
    return found


async def _settings(page: Page[Any], draft: Draft) -> None:
    values = draft.values
    wanted = str(values["service_name"])
    wildcard = (values.get("found") or {}).get("wildcard", "")
    if not wanted:
        raise Problem(
            "service_name",
            N_("The certificate is for %(wildcard)s: say which name the gateway has."),
            cure=N_("Put a prefix in the place of the star."),
            wildcard=wildcard,
        )
    found = await _check(page, draft, _SETTINGS, wanted)
    values["found"] = {
        **(values.get("found") or {}),
        "service_name": found["service_name"],
        "deployment_name": found["deployment_name"],
        "notes": found["notes"],
    }
    if int(values["instances"]) > found["most_instances"]:
        raise Problem(
            "instances",
            N_("The provider has hosts for %(most)s instances at most."),
            most=found["most_instances"],
        )
    group = values.get("existing_group") or values.get("resource_group", "")
    for item in found["resource_groups"]:
        if item["name"] == group and item["region"] != values["region"]:
            raise Problem(
                "region",
                N_("The resource group %(group)s is in the region %(region)s."),
                cure=N_("Take that region, or another resource group."),
                group=group,
                region=item["region"],
            )


def _name_is_fixed(values: Mapping[str, Any]) -> str:
    found = values.get("found") or {}
    return "" if found.get("wildcard") else N_("It is the name of the certificate.")


async def _shown(page: Page[Any], draft: Draft) -> Mapping[str, Any]:
    regions = (await _offer(page, draft))["regions"]
    if not draft.values.get("region") and regions:
        draft.values["region"] = regions[0]
    return {"found": draft.values.get("found") or {}}


async def _alerts(page: Page[Any], draft: Draft) -> None:
    values = draft.values
    if values.get("watch") and int(values["warning_percent"]) >= int(values["critical_percent"]):
        raise Problem(
            "warning_percent",
            N_("The warning comes before the critical alert: its percentage is the lower one."),
        )


_STORE = Step(
    key="store",
    title=N_("Certificate of the store"),
    intro=N_("The certificate fills in the service name and the deployment name."),
    fields=(CERTIFICATE,),
    check=_read_certificate,
    when=lambda draft: draft.values.get("source") != UPLOAD,
)
_PFX = Step(
    key="file",
    title=N_("Certificate file"),
    intro=N_("The certificate fills in the service name and the deployment name."),
    fields=(PFX, PASSWORD),
    check=_read_certificate,
    when=lambda draft: draft.values.get("source") == UPLOAD,
)
_SETTINGS = Step(
    key="settings",
    title=N_("Settings"),
    template="gateways/settings_step.html",
    load=_shown,
    check=_settings,
    fields=(
        field(
            "service_name",
            N_("Service name"),
            locked=_name_is_fixed,
            hint=N_("Of a wildcard certificate: a name in the place of the star."),
        ),
        DESCRIPTION,
        field("region", N_("Region"), "select", options=_regions, required=True),
        field(
            "existing_group",
            N_("Resource group"),
            "select",
            options=_groups,
            hint=N_("An existing one has to be in the same region."),
        ),
        field(
            "resource_group",
            N_("Name of the new resource group"),
            limit=90,
            hint=N_("Left empty, it is named after the gateway. Without blanks."),
        ),
        INSTANCES,
        field(
            "trusted_root",
            N_("Trusted roots of client certificates"),
            "file",
            accept=".pem,.cer,.crt,.der,.p7b",
            hint=N_(
                "Only for clients with certificates: the root and every intermediate of their"
                " authority, in one file."
            ),
        ),
        REVOCATION,
        TLS,
        CONTENT,
        field(
            "content_only",
            N_("For content alone"),
            "checkbox",
            hint=N_("It publishes nothing of a management point: a second gateway beside another."),
        ),
    ),
)


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    values, found = draft.values, draft.values["found"]
    say, number = page.language.text, page.language.number
    alerts = alerts_of(values)
    watched = N_("Not watched")
    facts = [
        Fact(N_("Environment"), values["environment"]),
        *await sign_in_facts(page, draft),
        Fact(N_("Service name"), found["service_name"]),
        Fact(N_("Deployment name"), found["deployment_name"]),
        Fact(N_("Certificate valid until"), words.at(found["expires_at"])),
        Fact(N_("DNS record to add"), _record(found)),
        Fact(N_("Description"), values["description"]),
        Fact(N_("Region"), values["region"]),
        Fact(N_("Resource group"), _group(values) or say(N_("a new one, named after the gateway"))),
        Fact(N_("Number of instances"), int(values["instances"])),
        Fact(N_("Trusted roots"), _root_name(draft)),
        Fact(N_("Verify client certificate revocation"), bool(values["check_revocation"])),
        Fact(N_("Allow the gateway to serve content"), bool(values["serve_content"])),
        Fact(N_("For content alone"), bool(values.get("content_only"))),
    ]
    transfer, stop = say(watched), None
    if "outbound_gb" in alerts:
        transfer = say(
            N_("%(gb)s GB, warning at %(warning)s %%, critical at %(critical)s %%"),
            gb=number(alerts["outbound_gb"]),
            warning=alerts["warning_percent"],
            critical=alerts["critical_percent"],
        )
        stop = alerts["stop_when_critical"]
    storage = say(watched)
    if "storage_gb" in alerts:
        storage = say(N_("%(gb)s GB"), gb=number(alerts["storage_gb"]))
    return [
        *facts,
        Fact(N_("Outbound transfer in 14 days"), transfer),
        Fact(N_("Stop the gateway when the critical threshold is exceeded"), stop),
        Fact(N_("Storage threshold"), storage),
    ]


def _record(found: Mapping[str, Any]) -> str:
    return f"{found['service_name']}. CNAME {found['deployment_name']}."


def _group(values: Mapping[str, Any]) -> str:
    return str(values.get("existing_group") or values.get("resource_group") or "")


def _root_name(draft: Draft) -> str:
    upload = draft.file("trusted_root")
    return upload.name if upload else ""


async def _command(page: Page[Any], draft: Draft) -> str:
    """Secrets come by file: `pfx-password` and `tenant-password` stand for files of the reader's."""
    values, found = draft.values, draft.values["found"]
    line = ["tandem", "gateway", "create"]
    if values.get("source") == UPLOAD:
        upload = draft.file("pfx")
        line += ["--pfx", upload.name if upload else "gateway.pfx"]
        line += ["--password-file", "pfx-password"]
    else:
        line += ["--certificate", found["service_name"] or str(values["certificate"])]
    if found.get("wildcard"):
        line += ["--service-name", found["service_name"]]
    line += ["--environment", values["environment"], "--region", values["region"]]
    if _group(values):
        line += ["--resource-group", _group(values)]
    if values["description"]:
        line += ["--description", values["description"]]
    line += ["--instances", str(values["instances"])]
    if _root_name(draft):
        line += ["--trusted-root", _root_name(draft)]
    line += [] if values["check_revocation"] else ["--no-check-revocation"]
    line += [] if values["serve_content"] else ["--no-serve-content"]
    line += ["--content-only"] if values.get("content_only") else []
    alerts = alerts_of(values)
    if "outbound_gb" in alerts:
        line += ["--alert-gb", str(alerts["outbound_gb"])]
        line += ["--warning-percent", str(alerts["warning_percent"])]
        line += ["--critical-percent", str(alerts["critical_percent"])]
        line += ["--stop-when-critical"] if alerts["stop_when_critical"] else []
    if "storage_gb" in alerts:
        line += ["--storage-gb", str(alerts["storage_gb"])]
    line += ["--tenant-admin", "ADMIN", "--tenant-password-file", "tenant-password"]
    return shlex.join(line)


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    values = draft.values
    root = draft.file("trusted_root")
    body = {
        **certificate_of(draft),
        "tenant_sign_in": values[SIGN_IN],
        "trusted_roots": [b64encode(root.data).decode()] if root else [],
        "service_name": values["found"]["service_name"],
        "environment": values["environment"],
        "region": values["region"],
        "resource_group": _group(values),
        "description": values["description"],
        "instances": int(values["instances"]),
        "check_revocation": bool(values["check_revocation"]),
        "serve_content": bool(values["serve_content"]),
        "content_only": bool(values.get("content_only")),
        "alerts": alerts_of(values),
    }
    made = await page.api.post("/api/v1/gateways", body)
    name = made["service_name"]
    return Outcome(
        said=N_("%(name)s is being provisioned. Add its DNS record meanwhile."),
        path=path_of(name),
        values={"name": name},
    )


WIZARD = Wizard(
    key="create-gateway",
    title=N_("Create a cloud management gateway"),
    back=BASE,
    finish_label=N_("Create the gateway"),
    steps=(
        Step(
            key="general",
            title=N_("General"),
            template="gateways/general_step.html",
            load=_general,
            check=_provider,
            fields=(
                field(
                    "environment",
                    N_("Cloud environment"),
                    "select",
                    options=_environments,
                    required=True,
                ),
            ),
        ),
        replace(
            _SIGN_IN,
            check=_tested,
            next_label=N_("Test the connection, and go on"),
        ),
        Step(
            key="certificate",
            title=N_("Certificate"),
            intro=N_("Which certificate does the gateway show to devices?"),
            fields=(
                field(
                    "source",
                    N_("Where it is"),
                    "radio",
                    required=True,
                    default=STORE,
                    options=(
                        (
                            STORE,
                            N_("In the site's own store"),
                            N_("Where the wizard for gateway certificates puts it."),
                        ),
                        (UPLOAD, N_("In a file (PFX) with its password")),
                    ),
                ),
            ),
        ),
        _STORE,
        _PFX,
        _SETTINGS,
        Step(key="alerts", title=N_("Alerts"), fields=ALERTS, check=_alerts),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
)
