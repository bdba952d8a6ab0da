"""The wizard of a new app: package, what it is called and how it is installed, whom it is for."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from starlette.responses import RedirectResponse, Response

from tandem.console.areas.mdm import assigning, packages
from tandem.console.areas.mdm.packages import APPS, WIN32
from tandem.console.kit import (
    N_,
    ROOT,
    Draft,
    Fact,
    Field,
    Outcome,
    Page,
    Problem,
    Step,
    Values,
    Wizard,
    field,
)
from tandem.infra.errors import AppError

KEY = "app"
LINE_LIMIT = 1024
# A form keeps what was typed too much, so that it can be shortened.
MORE_THAN_A_LINE = 8192

LONG = N_("The command line has %(many)s characters; an app takes %(most)s at most.")
SHORTEN = N_("Leave out what the client does not need: a longer line makes its setup fail.")
ONE_LINE = N_("The command line is one line.")
ONLY_ARGUMENTS = N_("Only the arguments belong here: take %(word)s out.")
BY_ITSELF = N_("The service calls Windows Installer by itself.")
QUOTES = N_("A quotation mark is opened and not closed.")
NO_SETUP = N_('The client\'s package takes its parameters in CCMSETUPCMD="…".')
NO_HOST = N_("The line names no CCMHOSTNAME: the client would not find the gateway.")
NO_SITE = N_("The line names no SMSSITECODE, or none of three characters.")
TAKE_THE_LINE = N_("Take the line that the site made: Co-management, Enablement, Copy.")
WRONG_MSI = N_(
    "This is client.msi, which only the client's own setup may start: it ends with error 25502."
)
FOR_ONE_USER = N_("This package installs for one user; the client is for the machine.")
PER_MACHINE = N_("Take an MSI with ALLUSERS=1, as the site's own is.")
TAKEN = N_("Another app is called so: one of the two would not be shown to people.")
OTHER_NAME = N_("Choose another name.")
NO_DETECTION = N_("Say how the device finds out that the app is there.")

_WORD = re.compile(r'(?i)(?<![^\s"])(msiexec(?:\.exe)?|[/-][ix])(?=$|[\s"{])')
_SITE = re.compile(r"(?i)\bSMSSITECODE=([A-Z0-9]{3}|AUTO)\b")
_HOST = re.compile(r"(?i)\bCCMHOSTNAME=\S+")


def check_line(text: str, package: Mapping[str, Any] | None = None) -> None:
    """The arguments of an MSI, and of the site's client when they are its. Raises Problem."""
    if len(text) > LINE_LIMIT:
        raise Problem("command_line", LONG, cure=SHORTEN, many=len(text), most=LINE_LIMIT)
    if "\n" in text.strip() or "\r" in text.strip():
        raise Problem("command_line", ONE_LINE)
    bad = _WORD.search(_outside_quotes(text))
    if bad:
        raise Problem("command_line", ONLY_ARGUMENTS, cure=BY_ITSELF, word=bad[1])
    if text.count('"') % 2:
        raise Problem("command_line", QUOTES)
    facts = package or {}
    named = str(facts.get("file") or "").casefold()
    if named == "client.msi" and "CCMSETUPCMD" in text.upper():
        raise Problem("command_line", WRONG_MSI, cure=packages.TAKE_THE_FILE)
    client = named == "ccmsetup.msi" or "CCMSETUPCMD" in text.upper()
    if not client:
        return
    if facts.get("context") == "user":
        raise Problem("command_line", FOR_ONE_USER, cure=PER_MACHINE)
    if not re.search(r'(?i)(?:^|\s)CCMSETUPCMD=(".*"|\S+)', text):
        raise Problem("command_line", NO_SETUP, cure=TAKE_THE_LINE)
    if not _HOST.search(text) and "/mp:" not in text.casefold():
        raise Problem("command_line", NO_HOST, cure=TAKE_THE_LINE)
    if not _SITE.search(text):
        raise Problem("command_line", NO_SITE, cure=TAKE_THE_LINE)


def _outside_quotes(text: str) -> str:
    return re.sub(r'"[^"]*"', '""', text)


async def _line(page: Page[Any], draft: Draft | None, text: str) -> None:
    check_line(text, draft.values.get("package") if draft else None)


async def _free(page: Page[Any], draft: Draft | None, name: str) -> None:
    """That no other app is called so."""
    mine = (draft.values.get("package") or {}).get("app") if draft else ""
    await check_name(page, name, mine or "")


async def check_name(page: Page[Any], name: str, mine: str) -> None:
    quoted = name.replace("'", "''")
    found = await page.api.get(APPS, **{"$filter": f"displayName eq '{quoted}'"})
    if any(item["id"] != mine for item in found["value"]):
        raise Problem("name", TAKEN, cure=OTHER_NAME)


async def _categories(page: Page[Any], draft: Draft | None) -> list[tuple[str, str]]:
    found = await page.api.get("/v1.0/deviceAppManagement/mobileAppCategories")
    return [(item["id"], item["displayName"]) for item in found["value"]]


def _is_msi(values: Values) -> bool:
    return str((values.get("package") or {}).get("type", "")) != WIN32


def _is_win32(values: Values) -> bool:
    return not _is_msi(values)


def _is_either(values: Values) -> bool:
    return (values.get("package") or {}).get("context") == "either"


CONTEXT = {
    "device": N_("Device"),
    "user": N_("User: it is installed once somebody is signed in"),
    "either": N_("Device or user, as is chosen with the app information"),
}
INFORMATION: tuple[Field, ...] = (
    field("name", N_("Name"), required=True, limit=256, check=_free,
          hint=N_("What people see; each app has its own.")),
    field("description", N_("Description"), "textarea", required=True, limit=1000),
    field("publisher", N_("Publisher"), required=True, limit=256),
    field("command_line", N_("Command-line arguments"), "textarea", limit=MORE_THAN_A_LINE, rows=3,
          check=_line, when=_is_msi,
          hint=N_("One line, at most 1,024 characters. For the client: the line that the site made.")),
    field("install_context", N_("Install context"), "radio", required=True, default="device",
          options=(("device", CONTEXT["device"]), ("user", CONTEXT["user"])), when=_is_either,
          hint=N_("This package can install for the device or for a user. It stays as it is chosen"
                  " here.")),
    field("ignore_version", N_("Ignore the app's version"), "checkbox", default=True, when=_is_msi,
          hint=N_("For apps that update themselves, as the client does: what is there is not"
                  " installed over.")),
    field("timeout", N_("Minutes that an installation may take"), "number", least=0, most=255,
          default=60, when=_is_msi, hint=N_("0: as long as it takes.")),
    field("retries", N_("Times that the device tries again"), "number", least=0, most=255,
          default=3, when=_is_msi),
    field("retry_minutes", N_("Minutes between these times"), "number", least=0, most=255,
          default=5, when=_is_msi),
    field("install_command", N_("Install command"), required=True, limit=1024, when=_is_win32),
    field("uninstall_command", N_("Uninstall command"), required=True, limit=1024, when=_is_win32),
    field("detect_product", N_("Detected by product code"), limit=64, when=_is_win32),
    field("detect_file", N_("Or detected by a file, with its folder"), limit=260, when=_is_win32),
    field("category", N_("Category"), "select", options=_categories),
    field("information_url", N_("Information address"), "url", limit=1000),
    field("privacy_url", N_("Privacy address"), "url", limit=1000),
    field("developer", N_("Developer"), limit=256),
    field("owner", N_("Owner"), limit=256),
    field("notes", N_("Notes"), "textarea", limit=1000),
)  # fmt: skip


# Of the order to install: field, Graph's property, and what holds without it.
TIMING = {
    "timeout": ("installTimeoutInMinutes", 60),
    "retries": ("installRetryCount", 3),
    "retry_minutes": ("installRetryIntervalInMinutes", 5),
}


def timing(app: Mapping[str, Any]) -> dict[str, Any]:
    """These of an app, as values of the fields."""
    return {
        key: usual if app.get(name) is None else app[name] for key, (name, usual) in TIMING.items()
    }


def properties(values: Mapping[str, Any], sort: str) -> dict[str, Any]:
    """Graph's properties of an app. Raises Problem for a Win32 app that cannot be detected."""
    found: dict[str, Any] = {
        "@odata.type": f"#microsoft.graph.{sort}",
        "displayName": values["name"],
        "description": values["description"],
        "publisher": values["publisher"],
        "informationUrl": values["information_url"] or None,
        "privacyInformationUrl": values["privacy_url"] or None,
        "developer": values["developer"],
        "owner": values["owner"],
        "notes": values["notes"],
    }
    if sort == packages.MSI:
        found["commandLine"] = values["command_line"].strip()
        found["ignoreVersionDetection"] = bool(values["ignore_version"])
        for key, (name, _) in TIMING.items():
            # Left empty: what holds for every app.
            found[name] = values[key] if isinstance(values.get(key), int) else None
    elif sort == WIN32:
        found["installCommandLine"] = values["install_command"]
        found["uninstallCommandLine"] = values["uninstall_command"]
        found["installExperience"] = {
            "runAsAccount": "system",
            "deviceRestartBehavior": "basedOnReturnCode",
        }
        found["rules"] = [_rule(values)]
    return found


def _rule(values: Mapping[str, Any]) -> dict[str, Any]:
    if values["detect_product"]:
        return {
            "@odata.type": "#microsoft.graph.win32LobAppProductCodeRule",
            "ruleType": "detection",
            "productCode": values["detect_product"],
            "productVersionOperator": "notConfigured",
            "productVersion": None,
        }
    folder, _, name = str(values["detect_file"]).rpartition("\\")
    if not folder or not name:
        raise Problem("detect_product", NO_DETECTION)
    return {
        "@odata.type": "#microsoft.graph.win32LobAppFileSystemRule",
        "ruleType": "detection",
        "path": folder,
        "fileOrFolderName": name,
        "check32BitOn64System": False,
        "operationType": "exists",
        "operator": "notConfigured",
        "comparisonValue": None,
    }


# ---------------------------------------------------------------------------------- the package


async def receive(page: Page[Any]) -> Response:
    """The package of a draft. What is wrong with it is shown on the step it came from."""
    draft = await page.drafts.get(page.request.path_params["draft"], KEY, page.session.user)
    to = f"{ROOT}/wizards/{KEY}/{draft.id}/package"
    if draft.outcome is not None:
        return RedirectResponse(str(draft.outcome["path"]), 303)
    try:
        upload, _ = await packages.received(page)
    except packages.CutOff:
        return Response(status_code=400)
    except Problem as problem:
        return await _refused(page, draft, to, problem)
    if upload is None:
        return await _refused(page, draft, to, Problem("package", packages.CHOOSE))
    before = draft.values.get("package") or {}
    try:
        app = {"id": before["app"], "type": before["type"]} if before else None
        if app is not None and not _same_sort(upload.filename or "", before):
            await packages.forget(page, before["app"])
            app = None
        facts = await packages.sent(page, upload, app)
    except AppError as error:
        return await _refused(page, draft, to, error)
    finally:
        await upload.close()
    for name, part in (
        ("name", "name"),
        ("publisher", "publisher"),
        ("install_command", "install"),
        ("uninstall_command", "uninstall"),
        ("detect_product", "product_code"),
    ):
        if draft.values.get(name) in (None, "", before.get(part)):
            draft.values[name] = facts.get(part, "")
    draft.values["package"] = facts
    draft.values.pop("package_problem", None)
    # What was accepted for another package is looked at again.
    draft.passed = []
    await page.drafts.save(draft, page.session.token)
    return RedirectResponse(to, 303)


def _same_sort(name: str, before: Mapping[str, Any]) -> bool:
    return name.lower().endswith(".intunewin") == bool(before["type"] == WIN32)


async def _refused(page: Page[Any], draft: Draft, to: str, error: AppError) -> Response:
    values = error.values if isinstance(error, Problem) else {}
    draft.values["package_problem"] = {
        "message": error.message,
        "cure": error.cure,
        "values": {key: str(value)[:500] for key, value in values.items()},
    }
    await page.drafts.save(draft, page.session.token)
    return RedirectResponse(to, 303)


async def _show_package(page: Page[Any], draft: Draft) -> dict[str, Any]:
    facts = draft.values.get("package")
    wrong = draft.values.get("package_problem")
    problem = None
    if wrong:
        problem = Problem("package", wrong["message"], cure=wrong["cure"], **wrong["values"])
    state, reason = "", ""
    if facts:
        try:
            state, reason = await packages.state_of(page, facts)
        except AppError as error:
            problem = problem or error  # type: ignore[assignment]
    return {
        "package": _facts(page, facts) if facts else [],
        "package_state": state,
        "package_reason": reason,
        "package_problem": problem,
        "package_url": f"{ROOT}/apps/packages/{draft.id}",
    }


def _facts(page: Page[Any], facts: Mapping[str, Any]) -> list[Fact]:
    context = CONTEXT[facts["context"]]
    return [
        Fact(N_("Package file"), facts["file"]),
        Fact(N_("Name in the package"), facts["name"]),
        Fact(N_("Version"), facts["version"]),
        Fact(N_("Product code"), facts["product_code"]),
        Fact(N_("Install context"), page.language.text(context)),
        Fact(N_("Size in bytes"), facts["size"]),
    ]


async def _check_package(page: Page[Any], draft: Draft) -> None:
    facts = draft.values.get("package")
    if not facts:
        raise Problem("package", packages.CHOOSE)
    state, reason = await packages.state_of(page, facts)
    if state == "bad":
        raise Problem("package", packages.FAILED, cure=packages.AGAIN, reason=reason)
    draft.values.pop("package_problem", None)


# ---------------------------------------------------------------------------------- the rest


async def _check_information(page: Page[Any], draft: Draft) -> None:
    package = draft.values["package"]
    if package["type"] == packages.MSI:
        check_line(draft.values.get("command_line") or "", package)
    else:
        for name in ("install_command", "uninstall_command"):
            if not draft.values.get(name):
                raise Problem(name, N_("Fill this in."))
    properties(draft.values, package["type"])


async def _check_assignments(page: Page[Any], draft: Draft) -> None:
    assigning.check(draft.values)
    win32 = draft.values["package"]["type"] == WIN32
    await assigning.check_kinds(page, draft.values, win32=win32)


async def _summary(page: Page[Any], draft: Draft) -> list[Fact]:
    values, package = draft.values, draft.values["package"]
    found = [
        Fact(N_("Name"), values["name"]),
        Fact(N_("Publisher"), values["publisher"]),
        *_facts(page, {**package, "context": context_of(values)}),
    ]
    if package["type"] == packages.MSI:
        found.append(Fact(N_("Command-line arguments"), values["command_line"]))
        found.append(Fact(N_("Ignore the app's version"), bool(values["ignore_version"])))
    else:
        found.append(Fact(N_("Install command"), values["install_command"]))
        found.append(Fact(N_("Uninstall command"), values["uninstall_command"]))
    return [*found, *await assigning.facts(page, values)]


def context_of(values: Mapping[str, Any]) -> str:
    """For whom the app installs: what its package says, or what was chosen where that says both."""
    said = str(values["package"]["context"])
    return str(values.get("install_context") or "device") if said == "either" else said


async def _command(page: Page[Any], draft: Draft) -> str:
    values, package = draft.values, draft.values["package"]
    words = ["tandem", "app", "upload", package["file"], "--name", values["name"]]
    for option, name in (
        ("--description", "description"),
        ("--publisher", "publisher"),
        ("--developer", "developer"),
        ("--owner", "owner"),
        ("--notes", "notes"),
        ("--information-url", "information_url"),
        ("--privacy-url", "privacy_url"),
        *(
            (("--command-line", "command_line"),)
            if package["type"] == packages.MSI
            else (
                ("--install", "install_command"),
                ("--uninstall", "uninstall_command"),
                ("--detect-product", "detect_product"),
                ("--detect-file", "detect_file"),
            )
        ),
    ):
        if values.get(name):
            words += [option, values[name]]
    if package["context"] == "either" and context_of(values) == "user":
        words.append("--for-users")
    if package["type"] == packages.MSI and values["ignore_version"]:
        words.append("--ignore-version")
    if package["type"] == packages.MSI:
        for option, key in (
            ("--timeout", "timeout"),
            ("--retries", "retries"),
            ("--retry-minutes", "retry_minutes"),
        ):
            if isinstance(values.get(key), int) and values[key] != TIMING[key][1]:
                words += [option, str(values[key])]
    return "\n".join([shlex.join(words), *assign_commands(values, values["name"])])


def assign_commands(values: Mapping[str, Any], name: str) -> list[str]:
    """`tandem app assign`: it gives one intent at a time, and the last counts."""
    found = []
    for intent in assigning.INTENTS:
        if not assigning.targets(values, intent):
            continue
        words = ["tandem", "app", "assign", name, "--intent", intent]
        everybody = values.get(f"{intent}_everybody") or []
        words += ["--all-users"] if "users" in everybody else []
        words += ["--all-devices"] if "devices" in everybody else []
        for option, field_name in (("--include", intent), ("--exclude", f"{intent}_excluded")):
            names = values.get(f"{field_name}--names") or {}
            for id in values.get(field_name) or []:
                words += [option, names.get(id, id)]
        found.append(shlex.join(words))
    return found


async def _finish(page: Page[Any], draft: Draft) -> Outcome:
    values, package = draft.values, draft.values["package"]
    path = f"{APPS}/{package['app']}"
    await page.api.patch(path, properties(values, package["type"]))
    if package["context"] == "either":
        chosen = {
            "@odata.type": f"#microsoft.graph.{package['type']}",
            "useDeviceContext": context_of(values) == "device",
        }
        # A property of beta alone.
        await page.api.patch(path.replace("/v1.0/", "/beta/", 1), chosen)
    await packages.published(page, package)
    if values.get("category"):
        reference = {
            "@odata.id": "https://graph.microsoft.com/v1.0/deviceAppManagement"
            f"/mobileAppCategories/{values['category']}"
        }
        await page.api.post(f"{path}/categories/$ref", reference)
    body = {"mobileAppAssignments": assigning.assignments(values)}
    await page.api.post(f"{path}/assign", body)
    return Outcome(
        N_("%(name)s was created."), f"{ROOT}/apps/{package['app']}", {"name": values["name"]}
    )


WIZARD = Wizard(
    key=KEY,
    title=N_("Add an app"),
    back=f"{ROOT}/apps",
    steps=(
        Step(
            key="package",
            title=N_("Package"),
            template="mdm/package_step.html",
            load=_show_package,
            check=_check_package,
            intro=N_(
                "Name, version and product code are read from the package. A draft keeps the"
                " package: it need not be sent again."
            ),
        ),
        Step(
            key="information",
            title=N_("App information"),
            fields=INFORMATION,
            check=_check_information,
        ),
        Step(
            key="assignments",
            title=N_("Assignments"),
            fields=assigning.APP_FIELDS,
            check=_check_assignments,
            intro=N_(
                "Excluding beats including between groups of the same kind: users are taken out by"
                " groups of users, devices by groups of devices. Taking an assignment away does not"
                " uninstall the app."
            ),
        ),
    ),
    summary=_summary,
    command=_command,
    finish=_finish,
    finish_label=N_("Create the app"),
)
