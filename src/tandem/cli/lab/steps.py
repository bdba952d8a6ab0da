"""The tutorial, step by step: each is done as an administrator does it, and its "then" asserted."""

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from cryptography import x509
from cryptography.x509.oid import NameOID
from lxml import html

from tandem import pki
from tandem.agent import mdm
from tandem.cli.lab import real_device
from tandem.cli.lab.commands import CommandFailed
from tandem.cli.lab.lab import Lab
from tandem.cli.lab.plan import Step
from tandem.cli.lab.report import ExpectedRefusal, Observer
from tandem.cli.lab.topology import (
    CONNECTION_POINTS,
    DEPLOYMENT_DOMAIN,
    DOMAIN,
    EXCLUDED,
    LICENSED,
    ON_PREMISES,
    PILOT,
    PREFIX,
    SCOPE,
    SERVICE_NAME,
    SITE_CODE,
    Person,
)
from tandem.cli.sign_in import Form
from tandem.infra import net
from tandem.infra.net import Resolver
from tandem.workloads import Authority, Workload, owner_of

SUITE = "EMS"
SERVICE = "Contoso Cloud Management"
APP_ID_URI = "https://ConfigMgrService"
PILOT_DEVICES = "Pilot devices"
SETTING = "DeviceLock/MaxInactivityTimeDeviceLock"
SITE_VALUE, MDM_VALUE = "10", "5"
CONFLICTING = "Screen lock (wants something else)"
SETTINGS = (
    "auto_register_with_azure_ad",
    "allow_cloud_distribution_point",
    "enable_cloud_management_gateway",
    "enable_user_policy_from_internet",
)
# What a script of a co-management administrator needs (graph-compat.md).
SCRIPT_PERMISSIONS = (
    "User.Read.All",
    "Group.ReadWrite.All",
    "Device.Read.All",
    "Directory.Read.All",
    "Organization.Read.All",
    "Application.Read.All",
    "LicenseAssignment.ReadWrite.All",
    "DeviceManagementManagedDevices.ReadWrite.All",
    "DeviceManagementManagedDevices.PrivilegedOperations.All",
    "DeviceManagementApps.ReadWrite.All",
    "DeviceManagementConfiguration.ReadWrite.All",
    "DeviceManagementServiceConfig.ReadWrite.All",
)
_PATIENCE_SECONDS = 120.0


def pilot_size(devices: int) -> int:
    """Three of 25; fewer where there are not many."""
    return min(3, max(1, devices // 2))


async def until(
    what: Callable[[], Awaitable[tuple[bool, str]]],
    seconds: float = _PATIENCE_SECONDS,
    say: Callable[[str], None] | None = None,
) -> tuple[bool, str]:
    """Look until it holds. Returns whether it does, and what was seen last.

    `say` is told what is seen on the way, at most once a second, and only when it is something new.
    """
    begun = told_at = time.monotonic()
    told = ""
    while True:
        held, seen = await what()
        now = time.monotonic()
        if held or now > begun + seconds:
            return held, seen
        if say is not None and seen != told and now > told_at + 1:
            say(seen)
            told, told_at = seen, now
        await asyncio.sleep(0.2)


def _patience(lab: Lab) -> float:
    return _PATIENCE_SECONDS if lab.timers.cadence == "lab" else 4 * 3600.0


# ---------------------------------------------------------------------- 0 Prerequisites


async def tenant_and_people(lab: Lab, see: Observer) -> None:
    run = lab.commands.run
    shown = await run("tenant", "show")
    see.check(
        "the tenant has a verified domain", DOMAIN in shown["domains"], ", ".join(shown["domains"])
    )
    seats = len(lab.topology.people) + 5
    await run("license", "subscribe", SUITE, "--seats", seats)
    await run("license", "requirement", "on")
    known = {user["userPrincipalName"] for user in await run("user", "list")}
    missing = [person for person in lab.topology.people if person.upn not in known]
    for start in range(0, len(missing), 8):
        await asyncio.gather(*(_create(lab, person) for person in missing[start : start + 8]))
    known = {user["userPrincipalName"] for user in await run("user", "list")}
    wanted = {person.upn for person in lab.topology.people}
    see.check("users exist", wanted <= known, f"{len(known)} users")
    groups = {group["displayName"] for group in await run("group", "list")}
    for name in (PILOT, SCOPE, EXCLUDED, LICENSED):
        if name not in groups:
            await run("group", "create", name)
        members = [p.upn for p in lab.topology.people if name in p.groups]
        if members:
            await run("group", "add-member", name, *members)
    counted = await asyncio.to_thread(_members, lab)
    wanted_counts = {name: sum(name in p.groups for p in lab.topology.people) for name in counted}
    see.check(
        "groups have members",
        counted == wanted_counts,
        ", ".join(f"{name}: {count}" for name, count in counted.items()),
    )
    suite = await _suite(lab)
    plans = {plan["servicePlanName"] for plan in suite["servicePlans"]}
    total = suite["prepaidUnits"]["enabled"]
    free = total - suite["consumedUnits"]
    see.check(
        "the suite lists both service plans and its free seats",
        {"INTUNE_A", "AAD_PREMIUM"} <= plans and free > 0,
        f"{', '.join(sorted(plans))}; {free} of {total} seats free",
    )
    await _script_app(lab, see)


def _members(lab: Lab) -> dict[str, int]:
    graph = lab.graph()
    ids = {group["displayName"]: group["id"] for group in graph.every("/v1.0/groups")}
    return {
        name: len(graph.every(f"/v1.0/groups/{ids[name]}/members"))
        for name in (PILOT, SCOPE, EXCLUDED, LICENSED)
    }


async def _suite(lab: Lab) -> dict[str, Any]:
    products = (await lab.commands.run("license", "list"))["products"]
    return next(item for item in products if item["skuPartNumber"] == SUITE)


async def _create(lab: Lab, person: Person) -> None:
    words = ["user", "create", person.upn, "--name", person.name]
    words += ["--password-file", str(lab.password_file(person))]
    if person.located:
        words += ["--usage-location", "FR"]
    await lab.commands.run(*words)


async def _script_app(lab: Lab, see: Observer) -> None:
    """The confidential application that scripts of lab.json's readers use."""
    if "graph_client" not in lab.kept:
        file = lab.secret_file("graph-client", "")
        permissions = [w for p in SCRIPT_PERMISSIONS for w in ("--application-permission", p)]
        made = await lab.commands.run(
            "app-registration", "create", "Contoso scripts", *permissions, "--secret-file", file
        )
        await lab.commands.run("app-registration", "consent", made["app_id"])
        lab.kept["graph_client"] = {
            "client_id": made["app_id"],
            "client_secret": file.read_text().strip(),
        }
    read = await asyncio.to_thread(_as_script, lab)
    see.check(
        "an application for scripts has consent: with its secret it reads the directory",
        read.status_code == 200,
        f"{lab.kept['graph_client']['client_id']} {_said(read) if read.is_error else 'may'}",
    )


def _as_script(lab: Lab) -> httpx.Response:
    """What Graph answers to the application for scripts."""
    here = lab.topology
    trust = ssl.create_default_context(cafile=str(lab.ca_file))
    with httpx.Client(verify=trust, trust_env=False, base_url=here.tenant_url) as client:
        token = client.post(
            f"/{lab.tenant_id}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "scope": "https://graph.microsoft.com/.default",
                **lab.kept["graph_client"],
            },
        )
        if token.is_error:
            return token
        bearer = {"Authorization": f"Bearer {token.json()['access_token']}"}
        return client.get("/v1.0/users?$top=1", headers=bearer)


async def mdm_authority(lab: Lab, see: Observer) -> None:
    run, refusal = lab.commands.run, lab.commands.refusal
    state = await run("mdm-authority", "show")
    if state["authority"] == "unknown":
        wrong = lab.secret_file("early.msi", "not an MSI")
        refused = await refusal("app", "upload", wrong)
        see.check(
            "before the MDM authority is set, an app is refused, and where to set it is named",
            "mdm-authority set" in f"{refused.message} {refused.cure}",
            f"{refused.message} {refused.cure}",
        )
        state = await run("mdm-authority", "set")
    see.check("the MDM authority is set", state["authority"] == "intune", state["authority"])
    state = await run("mdm-authority", "scope", "some", "--group", SCOPE)
    covered = [group["name"] for group in state["groups"]]
    see.check("the MDM user scope covers the pilot users", covered == [SCOPE], ", ".join(covered))
    early = [person for person in lab.managed if person.early]
    users = [w for p in early for w in ("--user", p.upn)]
    await run("license", "assign", SUITE, *users)
    await lab.devices_up()
    answers = await asyncio.gather(*(lab.enroll(person) for person in early))
    failed = [a.error.text for a in answers if a.error is not None]
    enrolled = sum(a.device is not None and a.device.mdm_enrolled for a in answers)
    see.check(
        "a user in scope gets the MDM URLs at join, and the device enrols",
        enrolled == len(early),
        failed[0] if failed else f"devices enrolled: {enrolled}",
    )
    outsider = _person(lab, "LAB-NOSCOPE")
    answer = await lab.enroll(outsider)
    states = await lab.devices()
    see.check(
        "one outside the scope joins and is not offered MDM",
        answer.error is not None and not states[outsider.device].mdm_enrolled,
        answer.error.text if answer.error else "it was not refused",
    )
    forced = await lab.enroll(outsider, manual=True)
    note_refusal(lab, outsider.device, forced.error or answer.error)
    see.check(
        "if it tries all the same, the MDM service refuses",
        forced.error is not None and "0x8018" in forced.error.code.lower(),
        f"{forced.error.code} {forced.error.text}" if forced.error else "it was not refused",
    )


def _person(lab: Lab, device: str) -> Person:
    return next(person for person in lab.topology.people if person.device == device)


def note_refusal(lab: Lab, device: str, error: mdm.Refusal | None) -> None:
    """Note a refusal that the tutorial expects: step 6.4 and the report list them all."""
    if error is None:
        return
    lab.progress.refusals = [item for item in lab.progress.refusals if item.device != device]
    lab.progress.refusals.append(
        ExpectedRefusal(device, error.code, error.text, error.cure or "Ask your administrator.")
    )


async def enhanced_http(lab: Lab, see: Observer) -> None:
    site = await lab.commands.run("site", "show")
    see.check("enhanced HTTP is on", site["enhanced_http"], site["issuing_root"]["subject"])
    root = site["issuing_root"]["certificate"]

    def connect() -> str:
        context = ssl.create_default_context(cadata=root)
        with (
            socket_to(ON_PREMISES, lab.topology.ports.management_point) as plain,
            context.wrap_socket(plain, server_hostname=ON_PREMISES) as secure,
        ):
            der = secure.getpeercert(True) or b""
        return x509.load_der_x509_certificate(der).issuer.rfc4514_string()

    issuer = await asyncio.to_thread(connect)
    see.check(
        "the management point answers HTTPS with a certificate of the site's issuing root",
        issuer == site["issuing_root"]["subject"],
        issuer,
    )


def socket_to(host: str, port: int) -> Any:
    return socket.create_connection((host, port), timeout=10)


# ---------------------------------------------------------------------- 1 A public certificate


async def service_name(lab: Lab, see: Observer) -> None:
    check = ("gateway", "check-name")
    await lab.record(f"taken.{DEPLOYMENT_DOMAIN}", "A", "127.0.0.99")
    taken = await _unavailable(lab, *check, f"taken.{DOMAIN}")
    see.check("a taken name is refused with the reason", "taken" in taken, taken)
    malformed = await _unavailable(lab, *check, f"my-cmg!.{DOMAIN}")
    see.check("a malformed name is refused with the reason", bool(malformed), malformed)
    free = await lab.commands.run(*check, f"{PREFIX.upper()}.{DOMAIN}")
    see.check(
        "a free one is confirmed; mixed case is folded and said so",
        free["available"] and free["service_name"] == SERVICE_NAME and bool(free["notes"]),
        f"{free['service_name']} is free. {' '.join(free['notes'])}",
    )
    gateways = await lab.commands.run("gateway", "list")
    see.check("nothing was created", gateways == [], f"{len(gateways)} gateways")


async def _unavailable(lab: Lab, *words: object) -> str:
    """The reason, whether the command answers it or refuses with it."""
    try:
        answer = await lab.commands.run(*words)
    except CommandFailed as refused:
        return refused.message
    return "" if answer["available"] else str(answer["reason"])


async def certificate_request(lab: Lab, see: Observer) -> None:
    file = lab.folder / "certificates" / "mycmg.csr"
    file.parent.mkdir(exist_ok=True)
    await lab.commands.run(
        "certificate", "request", SERVICE_NAME, "--organization", "Contoso", "--unit", "IT",
        "--city", "Paris", "--state", "Ile-de-France", "--country", "FR", "--output", file,
    )  # fmt: skip
    said = await _openssl("req", "-verify", "-noout", "-in", file)
    see.check(
        "OpenSSL verifies the PKCS#10 request", "verify OK" in said or said == NO_OPENSSL, said
    )
    request = pki.read_request(file.read_bytes())
    parts = {item.oid: item.value for item in request.subject}
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    see.check(
        "common name and alternative name are the service name",
        parts[NameOID.COMMON_NAME] == SERVICE_NAME
        and names.get_values_for_type(x509.DNSName) == [SERVICE_NAME],
        request.subject.rfc4514_string(),
    )
    size = getattr(request.public_key(), "key_size", 0)
    see.check("the key is RSA 2048", size == 2048, f"{size} bits")
    see.check("the file holds no key", b"PRIVATE" not in file.read_bytes(), str(file))


NO_OPENSSL = "not looked at: the openssl command is not installed"


async def _openssl(*words: object) -> str:
    """What the openssl command says; NO_OPENSSL where it is not installed."""
    if shutil.which("openssl") is None:
        return NO_OPENSSL

    def call() -> str:
        done = subprocess.run(
            ["openssl", *map(str, words)], capture_output=True, text=True, timeout=30, check=False
        )
        return (done.stdout + done.stderr).strip()

    return await asyncio.to_thread(call)


async def certificate_import(lab: Lab, see: Observer) -> None:
    folder = lab.folder / "certificates"
    foreign_key = pki.generate_key("rsa2048")
    foreign = pki.certificate_request(foreign_key, pki.name(SERVICE_NAME), [SERVICE_NAME])
    (folder / "foreign.pem").write_bytes(await lab.certify(foreign))
    refused = await lab.commands.refusal("certificate", "import", folder / "foreign.pem")
    see.check("a certificate for another key is refused", bool(refused.message), refused.message)
    answer = await lab.certify((folder / "mycmg.csr").read_bytes())
    (folder / "mycmg.pem").write_bytes(answer)
    made = await lab.commands.run("certificate", "import", folder / "mycmg.pem")
    see.check(
        "the certificate pairs with the waiting key, and its path is complete",
        made["state"] == "complete",
        f"{made['service_name']}, issued by {made['issuer']}",
    )


async def certificate_export(lab: Lab, see: Observer) -> None:
    folder = lab.folder / "certificates"
    password = lab.kept.setdefault("pfx_password", "Export-" + lab.topology.admin.password[-8:])
    password_file = lab.secret_file("pfx", password)
    pfx = folder / "mycmg.pfx"
    await lab.commands.run(
        "certificate", "export", SERVICE_NAME, "--output", pfx, "--password-file", password_file,
        "--remove",
    )  # fmt: skip
    opened = pki.pfx_open(pfx.read_bytes(), password)
    see.check(
        "the PFX holds the key and every certificate of the path",
        len(opened.chain) >= 2 and pki.same_key(opened.key, opened.certificate.public_key()),  # type: ignore[arg-type]
        f"{1 + len(opened.chain)} certificates",
    )
    said = await _openssl(
        "pkcs12", "-in", pfx, "-passin", f"file:{password_file}", "-nokeys", "-info"
    )
    held = said.count("BEGIN CERTIFICATE")
    see.check(
        "OpenSSL opens it and finds the chain",
        held == 1 + len(opened.chain) or said == NO_OPENSSL,
        f"{held} certificates" if said != NO_OPENSSL else said,
    )
    left = await lab.commands.run("certificate", "list")
    see.check("the working copy is removed from the store", left == [], f"{len(left)} left")


# ---------------------------------------------------------------------- 2 Azure Services


async def azure_service(lab: Lab, see: Observer) -> None:
    known = {item["name"] for item in await lab.commands.run("azure-service", "list")}
    if SERVICE not in known:
        await lab.commands.run("azure-service", "create", SERVICE)
    found = await lab.commands.run("azure-service", "list")
    see.check("the service exists, for Cloud Management", len(found) == 1, found[0]["name"])


async def server_app(lab: Lab, see: Observer) -> None:
    words = ("azure-service", "app", "create", "server", "--name", "ConfigMgr Server")
    someone = lab.topology.people[0]
    refused = await lab.commands.refusal(
        *words,
        "--tenant-admin",
        someone.upn,
        "--tenant-password-file",
        lab.password_file(someone),
    )
    see.check(
        "an account that is not global administrator is refused",
        "global administrator" in refused.message.lower(),
        refused.message,
    )
    taken = f"https://{DOMAIN}/taken"
    body = {"displayName": "Somebody else's app", "identifierUris": [taken]}
    applications = await asyncio.to_thread(lab.graph().every, "/v1.0/applications")
    if not any(taken in item["identifierUris"] for item in applications):
        await asyncio.to_thread(lab.graph().post, "/v1.0/applications", body)
    refused = await lab.commands.refusal(*words, "--app-id-uri", taken, *lab.as_tenant_admin)
    see.check("an App ID URI in use is refused", taken in refused.message, refused.message)
    made = await lab.commands.run(
        *words, "--app-id-uri", APP_ID_URI, "--secret-years", 1, *lab.as_tenant_admin
    )
    await _registered(lab, see, made)
    lab.kept["server_app"] = made["app_id"]
    kept = await asyncio.to_thread(_where_kept, lab)
    see.check("the administrator's password is stored nowhere", kept == [], kept or "nowhere")


async def _registered(lab: Lab, see: Observer, made: dict[str, Any]) -> None:
    registrations = await lab.commands.run("app-registration", "list")
    found = [item for item in registrations if item["appId"] == made["app_id"]]
    see.check(
        "the app registration exists in the tenant",
        len(found) == 1,
        f"{made['name']} {made['app_id']}",
    )


def _where_kept(lab: Lab) -> list[str]:
    """Files of site, logs and databases that hold the tenant administrator's password."""
    secret = lab.topology.admin.password.encode()
    found = []
    for top in (lab.folder / "site", lab.logs, lab.folder / "pg", lab.folder / "gateways"):
        for path in top.rglob("*"):
            try:
                if path.is_file() and secret in path.read_bytes():
                    found.append(str(path))
            except OSError:
                continue
    return found


async def client_app(lab: Lab, see: Observer) -> None:
    made = await lab.commands.run(
        "azure-service", "app", "create", "client", "--name", "ConfigMgr Client",
        *lab.as_tenant_admin,
    )  # fmt: skip
    await _registered(lab, see, made)
    lab.kept["client_app"] = made["app_id"]


async def enable_discovery(lab: Lab, see: Observer) -> None:
    found = await lab.commands.run("discovery", "enable")
    see.check("user discovery is enabled", found["discovery_enabled"], found["name"])


async def consent(lab: Lab, see: Observer) -> None:
    refused = await lab.commands.refusal("discovery", "run")
    see.check(
        "before consent, discovery fails and names the missing permission",
        ".Read.All" in refused.message,
        refused.message,
    )
    for kind in ("server_app", "client_app"):
        await lab.commands.run("app-registration", "consent", lab.kept[kind])
    verified = await lab.commands.run("azure-service", "verify")
    see.check(
        "after consent, the site may read the directory",
        verified["ok"],
        ", ".join(item["reason"] or item["text"] for item in verified["checks"]),
    )


async def discovery(lab: Lab, see: Observer) -> None:
    async def ran() -> tuple[bool, str]:
        try:
            found = await lab.commands.run("discovery", "run")
        except CommandFailed as failed:
            return False, failed.message
        lab.kept["discovered"] = found["users"]
        return True, f"{found['users']} users, {found['added']} of them new"

    held, seen = await until(ran, 75)
    see.check("full discovery succeeds", held, seen)
    found = await asyncio.to_thread(lab.site().get, "/api/v1/users", limit=1000)
    known = {user["upn"] for user in found["items"]}
    wanted = {person.upn for person in lab.topology.people}
    see.check("the tenant's users are user resources of the site", wanted <= known, len(known))
    log = (lab.logs / "SMS_AZUREAD_DISCOVERY_AGENT.log").read_text("utf-8")
    words = "Successfully published UDX for Azure Active Directory users"
    see.check("the discovery log says so in the known words", words in log, words)


# ---------------------------------------------------------------------- 3 The gateway


async def gateway(lab: Lab, see: Observer) -> None:
    pfx = lab.folder / "certificates" / "mycmg.pfx"
    instances = lab.progress.instances
    words = ("gateway", "create", "--pfx", pfx, "--region", "West Europe", "--resource-group",
             "contoso-rg", "--instances", instances, "--alert-gb", 10000)  # fmt: skip
    wrong = lab.secret_file("wrong-pfx", "not the password")
    refused = await lab.commands.refusal(*words, "--password-file", wrong, *lab.as_tenant_admin)
    see.check("a wrong PFX password is refused", "password" in refused.message, refused.message)
    right = lab.secret_file("pfx", lab.kept["pfx_password"])
    made = await lab.commands.run(*words, "--password-file", right, *lab.as_tenant_admin)
    see.check(
        "service and deployment name come from the certificate",
        made["service_name"] == SERVICE_NAME,
        f"{made['service_name']} → {made['deployment_name']}",
    )
    see.check("its state goes to Ready", made["state"] == "Ready", made["state"])
    nodes = [f"{node['host']}:{node['port']}" for node in made["nodes"]]
    see.check("its instances run as processes", len(nodes) == instances, ", ".join(nodes))
    await lab.adopt_gateways()
    again = await lab.commands.refusal(*words, "--password-file", right, *lab.as_tenant_admin)
    see.check("the name is taken now", bool(again.message), again.message)


async def dns(lab: Lab, see: Observer) -> None:
    deployment = f"{PREFIX}.{DEPLOYMENT_DOMAIN}"
    missing = await _dns_problem(lab)
    see.check("the site says which record is missing", deployment in missing, missing)
    hosts = [f"127.0.0.{11 + number}" for number in range(lab.progress.instances)]
    await lab.record(deployment, "A", *hosts)
    await lab.record(SERVICE_NAME, "CNAME", deployment)
    found = await lab.commands.run("gateway", "check-dns")
    see.check("with the CNAME, the check passes", found["ok"], found["record"])


async def _dns_problem(lab: Lab) -> str:
    try:
        found = await lab.commands.run("gateway", "check-dns")
    except CommandFailed as refused:
        return f"{refused.message} {refused.cure}"
    return f"{found['problem']} {found['cure']}"


# ---------------------------------------------------------------------- 4 Let clients use it


async def connection_point(lab: Lab, see: Observer) -> None:
    files = []
    for number, name in enumerate(CONNECTION_POINTS):
        made = await lab.commands.run(
            "connection-point", "add", name, "--gateway", SERVICE_NAME,
            "--folder", lab.folder / f"connector-{number + 1}",
            "--gateway-ca-file", lab.public_root, "--logs", lab.logs / name,
            "--health", lab.connector_health(number),
            "--report-seconds", lab.timers.connection_report_seconds,
        )  # fmt: skip
        files.append(made["settings"])
    lab.kept["connectors"] = files
    await lab.start_connectors()

    async def connected() -> tuple[bool, str]:
        counts = []
        for name in CONNECTION_POINTS:
            shown = await lab.commands.run("connection-point", "show", name)
            good = sum(line["state"] == "connected" for line in shown["connections"])
            counts.append(good if shown["connected"] else 0)
        said = ", ".join(f"{n}: {c}" for n, c in zip(CONNECTION_POINTS, counts, strict=True))
        return (
            all(count == lab.progress.instances for count in counts),
            f"{said} of {lab.progress.instances} instances connected",
        )

    held, seen = await until(connected, 30 + lab.timers.connection_report_seconds)
    see.check("both connection points dial out to every instance", held, seen)
    await nothing_listens(lab, see)


async def gateway_traffic(lab: Lab, see: Observer) -> None:
    shown = await lab.commands.run("management-point", "show")
    id = shown["role_id"]
    path = f"/CCM_Proxy_ServerAuth/{id}/CCM_STS"
    resolver = Resolver(lab.topology.resolver)
    base = f"https://{SERVICE_NAME}:{lab.topology.ports.gateway}"
    async with net.client(
        resolver=resolver, ca_file=lab.public_root, base_url=base, max_connections=4
    ) as outside:
        before = await outside.post(path)
        see.check(
            "before, nothing of the management point is published",
            before.status_code == 403,
            _said(before),
        )
        await lab.commands.run("management-point", "set", "--allow-gateway-traffic")

        async def published() -> tuple[bool, str]:
            answer = await outside.post(path)
            return answer.status_code == 401, _said(answer)

        held, seen = await until(published, 30 + lab.timers.connection_report_seconds)
        see.check("a client on the internet reaches it, and needs a token", held, seen)
        secret = await outside.get("/api/v1/clients")
        see.check("and nothing else", secret.status_code == 403, _said(secret))
        certified = await outside.get(f"/CCM_Proxy_MutualAuth/{id}/SMS_MP/.sms_aut?MPLIST")
        see.check(
            "a client with a certificate is refused while root and CRL are missing",
            certified.status_code == 403 and "CRL" in certified.text,
            _said(certified),
        )
        known = await outside.get(
            "/CCM_Proxy_ServerAuth/AADAuthInfo", params={"TenantID": lab.tenant_id}
        )
        see.check(
            "the gateway tells a device of the tenant its client app",
            known.status_code == 200 and known.json()["clientAppId"] == lab.kept["client_app"],
            known.text,
        )


def _said(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        return f"{answer.status_code} {error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text[:200]}"


async def client_settings(lab: Lab, see: Observer) -> None:
    shown = await lab.commands.run("client-settings", "set", *(f"{s}=yes" for s in SETTINGS))
    values = {item["name"]: item["value"] for item in shown}
    see.check(
        "the four default client settings are set",
        all(values[name] is True for name in SETTINGS),
        ", ".join(SETTINGS),
    )


async def nothing_listens(lab: Lab, see: Observer) -> None:
    """Site and connection point listen on-premises alone; with the command that anyone can repeat.

    Instances of the gateway are the site's children on this machine, and stand for the internet.
    """
    pids, sockets = await asyncio.to_thread(_listening, lab)
    outside = [text for host, text in sockets if host != ON_PREMISES]
    see.check(
        "neither site nor connection point listens on an address of the internet",
        bool(sockets) and not outside,
        ", ".join(outside) or f"{len(sockets)} sockets, all on {ON_PREMISES}",
    )
    see.say(f"ss -Hltnp | grep -E 'pid=({'|'.join(map(str, pids))}),'")
    for _, text in sockets:
        see.say(f"  {text}")


def _listening(lab: Lab) -> tuple[list[int], list[tuple[str, str]]]:
    pids: list[int] = []
    sockets = []
    gateways = {p.pid for p in lab.supervisor.processes if p.role.startswith("gateway")}
    for item in lab.supervisor.processes:
        if item.role != "site" and not item.role.startswith("connector"):
            continue
        top = psutil.Process(item.pid)
        for process in [top, *top.children(recursive=True)]:
            if process.pid in gateways:
                continue
            pids.append(process.pid)
            sockets += [
                (line.laddr.ip, f"LISTEN {line.laddr.ip}:{line.laddr.port} {item.role}")
                for line in process.net_connections("inet")
                if line.status == psutil.CONN_LISTEN
            ]
    return pids, sorted(sockets)


# ---------------------------------------------------------------------- 5 Enable co-management


async def enable(lab: Lab, see: Observer) -> None:
    names = [person.device for person in lab.managed][: pilot_size(lab.progress.devices)]
    listed = ", ".join(f"'{name}'" for name in names)
    query = f"select * from SMS_R_System where Name in ({listed})"  # noqa: S608
    known = {item["name"] for item in await lab.commands.run("collection", "list")}
    if PILOT_DEVICES not in known:
        await lab.commands.run("collection", "create", PILOT_DEVICES, "--query", query)
    words = ("comanagement", "enable", "--automatic-enrollment", "pilot", "--collection",
             PILOT_DEVICES)  # fmt: skip
    someone = lab.topology.people[0]
    refused = await lab.commands.refusal(
        *words, "--tenant-admin", someone.upn, "--tenant-password-file",
        lab.password_file(someone),
    )  # fmt: skip
    see.check(
        "who is no administrator of the tenant is refused",
        "administrator" in refused.message,
        refused.message,
    )
    await lab.commands.run(*words, *lab.as_tenant_admin)
    line = (await lab.commands.run("comanagement", "show", "--command-line"))["command_line"]
    point = (await lab.commands.run("management-point", "show"))["role_id"]
    see.check(
        "the line names the gateway, the management point's decimal id and the site code",
        SERVICE_NAME in line and point in line and f"SMSSITECODE={SITE_CODE}" in line,
        line,
    )
    lab.kept["command_line"] = line


async def workloads(lab: Lab, see: Observer) -> None:
    shown = await lab.commands.run("comanagement", "workloads")
    positions = {item["workload"]: item["position"] for item in shown}
    see.check(
        "seven workloads, all of them with the site on the first day",
        len(positions) == 7 and set(positions.values()) == {"site"},
        ", ".join(positions),
    )
    refused = await lab.commands.refusal("comanagement", "switch", "client-apps", "pilot")
    see.check(
        "a pilot without a collection is refused", "collection" in refused.message, refused.message
    )


async def policies(lab: Lab, see: Observer) -> None:
    shown = await lab.commands.run("comanagement", "show")
    kinds = {item["kind"]: item for item in shown["policies"]}
    see.check(
        "the production policy exists and is deployed to All Systems",
        kinds.get("production", {}).get("collection_id") == "SMS00001",
        kinds.get("production", {}).get("name", "none"),
    )
    pilot = kinds.get("pilot", {})
    see.check(
        "the pilot policy exists and is deployed to the pilot collection",
        bool(pilot),
        f"{pilot.get('name')} → {pilot.get('collection_id')}",
    )


# ---------------------------------------------------------------------- 6 MDM installs the client


async def app(lab: Lab, see: Observer) -> None:
    folder = lab.folder / "certificates"
    package = await lab.commands.run("client", "package", "--output", folder / "ccmsetup.msi")
    line_file = lab.secret_file("command-line", lab.kept["command_line"])
    words = ("--description", "The site's client", "--publisher", "Contoso")
    wrong = lab.secret_file("wrong.msi", "This is not an MSI.")
    refused = await lab.commands.refusal("app", "upload", wrong, *words)
    see.check("a wrong file is refused", "wrong.msi" in refused.message, refused.message)
    long = lab.secret_file("too-long", "x" * 1025)
    msi = Path(package["saved"])
    refused = await lab.commands.refusal("app", "upload", msi, "--command-line-file", long)
    see.check(
        "a line over 1,024 characters is refused", "1,024" in refused.message, refused.message
    )
    known = await lab.commands.run("app", "list")
    if not known:
        await lab.commands.run("app", "upload", msi, "--command-line-file", line_file, *words)
        known = await lab.commands.run("app", "list")
    see.check(
        "name and product code are read from the MSI",
        known[0]["displayName"] == package["product_name"]
        and known[0]["productCode"] == package["product_code"],
        f"{known[0]['displayName']} {known[0]['productCode']}",
    )
    see.check(
        "the command line is the copied one",
        known[0]["commandLine"] == lab.kept["command_line"],
        known[0]["commandLine"],
    )
    lab.kept["app"] = known[0]["id"]


async def assignment(lab: Lab, see: Observer) -> None:
    made = await lab.commands.run(
        "app", "assign", lab.kept["app"], "--required", "--include", PILOT, "--exclude", EXCLUDED
    )
    given = {item["group"]: item["excluded"] for item in made["assignments"]}
    see.check(
        "required for the included group, minus the excluded one",
        given == {PILOT: False, EXCLUDED: True},
        f"{PILOT}, without {EXCLUDED}",
    )


async def licences(lab: Lab, see: Observer) -> None:
    # It ends with an error code: one member cannot get the licence, which is looked at below.
    with contextlib.suppress(CommandFailed):
        await lab.commands.run("license", "assign", SUITE, "--group", LICENSED)
    shown = await lab.commands.run("license", "list")
    suite = await _suite(lab)
    see.check(
        "licences are assigned, one by one and by group",
        suite["consumedUnits"] >= lab.progress.devices,
        f"{suite['consumedUnits']} of {suite['prepaidUnits']['enabled']} seats",
    )
    failed = shown["failures"]
    see.check(
        "a failed assignment is listed with its reason",
        any(
            item["user"] == person.upn and item["reason"]
            for item in failed
            for person in lab.topology.people
            if not person.located
        ),
        ", ".join(f"{item['user']}: {item['reason']}" for item in failed) or "none",
    )


async def devices(lab: Lab, see: Observer) -> None:
    late = [person for person in lab.managed if not person.early]
    barred = [_person(lab, "LAB-NOLICENCE"), _person(lab, "LAB-EXCLUDED")]
    answers = await asyncio.gather(*(lab.enroll(person) for person in [*late, *barred]))
    failed = [a.error.text for a in answers[: len(late)] if a.error is not None]
    see.check(
        "the other half enrols",
        not failed,
        failed[0] if failed else f"devices enrolled: {len(late)}",
    )
    forced = answers[len(late)]
    if forced.error is None or "80180018" not in forced.error.code:
        forced = await lab.enroll(barred[0], manual=True)
    note_refusal(lab, "LAB-NOLICENCE", forced.error)
    see.check(
        "without a licence enrolment fails with 0x80180018",
        forced.error is not None and "80180018" in forced.error.code,
        f"{forced.error.code} {forced.error.text}" if forced.error else "it was not refused",
    )
    total = lab.progress.devices

    async def together() -> tuple[bool, str]:
        states = await lab.devices()
        mine = [states[person.device] for person in lab.managed]
        counts = [
            sum(state.mdm_enrolled for state in mine),
            sum(state.msi_installed for state in mine),
            sum(bool(state.client_id) for state in mine),
            sum(state.mdm_enrolled and state.policy for state in mine),
        ]
        stuck = [s for s in mine if s.last_error is not None and not s.policy]
        seen = "enrolled {}, MSI {}, registered {}, co-managed {}".format(*counts)
        if stuck:
            error = stuck[0].last_error
            seen += f" ({stuck[0].name}: {error.code} {error.text})" if error else ""
        return counts[-1] == total, seen

    held, seen = await until(together, _patience(lab), see.say)
    see.check("each device becomes co-managed, in its own account", held, seen)

    async def at_site() -> tuple[bool, str]:
        status = await lab.commands.run("comanagement", "status")
        return status["co_managed"] == total, f"{status['co_managed']} co-managed"

    held, seen = await until(at_site, _patience(lab))
    see.check("the site sees each as co-managed", held, seen)

    async def at_tenant() -> tuple[bool, str]:
        found = await lab.commands.run("managed-device", "list")
        both = sum(item["managementAgent"] == "configurationManagerClientMdm" for item in found)
        return both == total, f"{both} managed by both, of {len(found)} enrolled"

    held, seen = await until(at_tenant, _patience(lab))
    if held and lab.progress.co_managed_after_seconds is None:
        lab.progress.co_managed_after_seconds = round(time.monotonic() - lab.begun, 2)
    see.check("the MDM service sees each as managed by both", held, seen)
    await _excluded(lab, see)
    await _settings_hold(lab, see)
    await _all_refused(lab, see)
    await nothing_listens(lab, see)
    await real_device.is_apart(lab, see)


async def _excluded(lab: Lab, see: Observer) -> None:
    name = "LAB-EXCLUDED"
    states = await lab.devices()
    rows = await lab.commands.run("app", "status", lab.kept["app"])
    row: dict[str, Any] = next((item for item in rows if item["deviceName"] == name), {})
    see.check(
        "a device of the excluded group is enrolled and never gets the app",
        states[name].mdm_enrolled
        and not states[name].msi_installed
        and row.get("installState") == "excluded",
        f"{row.get('installState')} by {row.get('excludedBy')}",
    )
    refusal = mdm.Refusal(
        "app.excluded",
        f"The client's app is not offered: the user is in the excluded group {EXCLUDED!r}.",
        f"Take the user out of {EXCLUDED!r}, or change the app's assignment.",
    )
    note_refusal(lab, name, refusal)


# What a device says of each of the four when it does what the setting wants.
EFFECTS = {
    "auto_register_with_azure_ad": {"joined", "registered"},
    "allow_cloud_distribution_point": {"content may come from the gateway"},
    "enable_cloud_management_gateway": {"the gateway is used"},
    "enable_user_policy_from_internet": {"user policy received"},
}


async def _all_refused(lab: Lab, see: Observer) -> None:
    refused = {item.device: item for item in lab.progress.refusals}
    barred = {person.device for person in lab.topology.people if person.device}
    barred -= {person.device for person in lab.managed}
    see.check(
        "the three that must fail are refused, each with a code and a cure",
        refused.keys() == barred and all(item.code and item.cure for item in refused.values()),
        ", ".join(f"{item.device} {item.code}" for item in refused.values()),
    )
    for item in refused.values():
        see.say(f"{item.device}  {item.text} → {item.cure}")


async def _settings_hold(lab: Lab, see: Observer) -> None:
    device = lab.managed[-1].device
    shown = await lab.commands.run("client-settings", "resultant", device)
    values = {item["name"]: item["value"] for item in shown["settings"]}
    see.check(
        "the resultant settings of a device show the four",
        all(values[name] is True for name in SETTINGS),
        device,
    )
    states = await lab.devices()

    async def effects() -> tuple[bool, str]:
        path = f"/api/v1/clients/{states[device].client_id}"
        client = await asyncio.to_thread(lab.site().get, path)
        state = client.get("state") or client.get("client", {}).get("state") or {}
        told = state.get("effects", {})
        good = all(told.get(name) in words for name, words in EFFECTS.items())
        return good, "; ".join(f"{name}: {effect}" for name, effect in told.items())

    held, seen = await until(effects, 60)
    see.check("each of the four has its effect on the device", held, seen)


# ---------------------------------------------------------------------- 7 Afterwards


async def dashboard(lab: Lab, see: Observer) -> None:
    states = await lab.devices()
    own = sum(s.mdm_enrolled and s.policy for s in states.values())

    async def agrees() -> tuple[bool, str]:
        page = await _console(lab, "/console/")
        told = re.search(r'id="co-managed">(\d+)<', page)
        whole = "half of these numbers is missing" not in page
        seen = f"{told[1] if told else 'no number'} co-managed on the page, {own} in the devices'"
        return whole and told is not None and int(told[1]) == own, seen + " own account"

    held, seen = await until(agrees, 30)
    see.check("the console's dashboard agrees with the devices' own account", held, seen)
    wanted = _own_account(lab, states)
    seen_on_page: dict[str, dict[str, int]] = {}

    async def tiles_agree() -> tuple[bool, str]:
        seen_on_page.update(_tiles(await _console(lab, "/console/")))
        wrong = [
            f"{tile} {what}: {seen_on_page.get(tile, {}).get(what)} on the page, {count} by them"
            for tile, counts in wanted.items()
            for what, count in counts.items()
            if seen_on_page.get(tile, {}).get(what) != count
        ]
        return not wrong, "; ".join(wrong) or ", ".join(seen_on_page)

    held, seen = await until(tiles_agree, 30)
    see.check("its five tiles and the sixth agree with it, number by number", held, seen)
    status = await lab.commands.run("comanagement", "status")
    see.check("the site counts the same", status["co_managed"] == own, status["co_managed"])
    devices = await _console(lab, "/console/devices")
    shown = [person.device for person in lab.managed if person.device in devices]
    see.check("the device list shows the devices", bool(shown), f"{len(shown)} on its first page")


def _own_account(lab: Lab, states: dict[str, mdm.Status]) -> dict[str, dict[str, int]]:
    """What each tile must count, by what the devices say of themselves."""
    devices = list(states.values())
    enrolled = sum(state.mdm_enrolled for state in devices)
    both = [state for state in devices if state.mdm_enrolled and state.policy]
    refused = [item.code for item in lab.progress.refusals if item.code.startswith("0x")]
    return {
        "os": {"os=current": len(devices)},
        "status": {"funnel=enrolled": len(both), "funnel=scheduled": 0, "funnel=initiated": 0},
        "enrollment": {
            "enrollment=success-joined": enrolled,
            "enrollment=failure-joined": len(refused),
        },
        "stages": {
            "stage=enrolled": enrolled,
            "stage=msi-installed": sum(state.msi_installed for state in devices),
            "stage=registered": sum(bool(state.client_id) for state in devices),
            "stage=policy": sum(state.policy for state in devices),
            "stage=co-managed": len(both),
        },
        "workloads": {
            f"workload={workload.value}&owner={owner.value}": sum(
                owner_of(workload, state.flags) is owner for state in both
            )
            for workload in Workload
            for owner in Authority
        },
        "errors": {f"error={int(code, 16)}": refused.count(code) for code in refused},
    }


def _tiles(page: str) -> dict[str, dict[str, int]]:
    """Each tile's numbers, by the filter of the device list that each of them leads to."""
    tiles: dict[str, dict[str, int]] = {}
    root: Any = html.fromstring(page)
    for section in root.xpath("//section[@aria-labelledby]"):
        found = tiles.setdefault(section.get("aria-labelledby").removesuffix("-title"), {})
        for link in section.xpath(".//a[contains(@href, '?')]"):
            own = link.xpath("ancestor::td[@class='number']")
            cell = own or link.xpath("ancestor::tr[1]/td[@class='number']")
            number = re.match(r"\d+", cell[0].text_content().strip()) if cell else None
            if number is not None:
                found[link.get("href").partition("?")[2]] = int(number[0])
    return tiles


async def _console(lab: Lab, path: str) -> str:
    """A page of the console, signed in as the site's administrator."""
    context = ssl.create_default_context(cafile=str(lab.ca_file))
    base = lab.topology.site_url
    async with httpx.AsyncClient(
        verify=context, trust_env=False, base_url=base, follow_redirects=True
    ) as browser:
        form = Form()
        page = await browser.get("/console/sign-in")
        form.feed(page.text)
        person = lab.topology.site_admin
        answer = await browser.post(
            "/console/sign-in",
            data={**form.fields, "user": person.upn, "password": person.password},
            headers={"Origin": base, "Referer": f"{base}/console/sign-in"},
        )
        answer.raise_for_status()
        return (await browser.get(path)).text


async def switch(lab: Lab, see: Observer) -> None:
    run = lab.commands.run
    workload = Workload.DEVICE_CONFIGURATION
    if not await run("configuration", "list"):
        await run(
            "configuration", "create", "Screen lock (site)", "--setting", SETTING, "--value",
            SITE_VALUE, "--collection", "SMS00001",
        )  # fmt: skip
    if not await run("device-configuration", "list"):
        await run(
            "device-configuration", "create", "Screen lock (MDM)", "--setting", SETTING,
            "--value", MDM_VALUE,
        )  # fmt: skip
        await run("device-configuration", "assign", "Screen lock (MDM)", "--include", SCOPE)
    everyone = [person.device for person in lab.managed]
    pilot = everyone[: pilot_size(lab.progress.devices)]
    await real_device.is_configured(lab)
    await _begin_again(lab)
    await _all_have(lab, see, "the site's value holds everywhere", [], everyone)
    await _in_effect(lab, see, Authority.SITE)
    await _halted_by_its_gate(lab, see, pilot, everyone)
    rollout = await _planned(lab, workload)
    rings = [ring["counts"]["waiting"] for ring in rollout["rings"]]
    see.check("the pilot moves first, then the others", rings == _rings(pilot, everyone), rings)
    reach = rollout["reach"]
    see.check(
        "the plan says whom it reaches",
        (reach["devices"], [ring["moves"] for ring in reach["rings"]]) == (len(everyone), rings),
        f"{reach['devices']} devices of {reach['users']} users, {reach['silent']} silent",
    )
    refused = await lab.commands.refusal("rollout", "start", rollout["id"], "--accept-gaps")
    see.check(
        "to move all systems, their number has to be typed",
        refused.code == "rollout.needs-confirmation",
        refused.message,
    )
    ended = await _started(lab, rollout["id"], len(everyone))
    see.check("each ring passes its gate", ended["state"] == "finished", ended["state"])
    await _all_have(lab, see, "then all have changed", everyone, everyone)
    await _in_effect(lab, see, Authority.MDM)
    await _agreed(lab, see, workload, len(everyone))
    stood = await run("comanagement", "steps", workload.value)
    see.check(
        "every place where the workload stood is kept",
        [one["position"] for one in stood][:2] == ["mdm", "pilot"],
        ", ".join(one["position"] for one in stood),
    )
    await run("comanagement", "back", workload.value, "--step", stood[1]["id"], "--yes")
    await _all_have(lab, see, "one step back, the pilot has it", pilot, everyone)
    await run("comanagement", "back", workload.value, "--step", stood[-1]["id"], "--yes")
    await _all_have(lab, see, "and back to where it was at first", [], everyone)
    await _in_effect(lab, see, Authority.SITE)
    await _agreed(lab, see, workload, 0)
    await _proven(lab, see, workload, everyone)


async def _in_effect(lab: Lab, see: Observer, owner: Authority) -> None:
    who = {Authority.SITE: "the site", Authority.MDM: "the MDM service"}[owner]

    async def look() -> tuple[bool, str]:
        return await real_device.effects(lab, owner)

    held, seen = await until(look, _patience(lab))
    see.check(f"the real device is as {who} wants it", held, seen)


async def _proven(lab: Lab, see: Observer, workload: Workload, everyone: list[str]) -> None:
    """Each device's own signed account: both owners, one after the other, and never two."""

    async def look() -> tuple[bool, str]:
        good = []
        for device in everyone:
            found = await lab.commands.run("device", "ledger", device, "--check")
            told = [e for e in found["entries"] if e.get("workload") == workload.value]
            owned = {e["authority"] for e in told if e["kind"] == "own"}
            held = next(one for one in found["owners"] if one["workload"] == workload.value)
            good.append(
                found["holds"]
                and owned == {"site", "mdm"}
                and (held["owner"], held["handing"]) == ("site", False)
            )
        return all(good), f"{sum(good)} of {len(everyone)} ledgers hold and tell of both owners"

    held, seen = await until(look, _patience(lab))
    see.check("each device proves who had it when", held, seen)


async def _begin_again(lab: Lab) -> None:
    """What a step that was broken off has left is out of the way."""
    run = lab.commands.run
    for one in await run("rollout", "list"):
        if one["state"] in ("running", "paused", "halted"):
            await run("rollout", "back", one["id"], "--yes")
    for profile in await run("device-configuration", "list"):
        if profile["displayName"] == CONFLICTING:
            await run("device-configuration", "delete", CONFLICTING)


def _rings(pilot: list[str], everyone: list[str]) -> list[int]:
    return [len(pilot), len(everyone) - len(pilot)]


async def _planned(lab: Lab, workload: Workload) -> dict[str, Any]:
    gate = "minutes=30,soak=0,done=100,failed=0"
    found: dict[str, Any] = await lab.commands.run(
        "rollout", "plan", workload.value, "--ring", f"{PILOT_DEVICES}:{gate}", "--ring",
        f"All Systems:{gate}",
    )  # fmt: skip
    return found


async def _started(lab: Lab, id: str, devices: int) -> dict[str, Any]:
    found: dict[str, Any] = await lab.commands.run(
        "rollout", "start", id, "--accept-gaps", "--confirm", devices, "--wait"
    )
    return found


async def _halted_by_its_gate(
    lab: Lab, see: Observer, pilot: list[str], everyone: list[str]
) -> None:
    """A second profile that wants another value: nobody gets either, and the pilot shows it."""
    run = lab.commands.run
    rollout = await _planned(lab, Workload.DEVICE_CONFIGURATION)
    gaps = [(gap["kind"], gap["setting"], gap["devices"]) for gap in rollout["gaps"]]
    see.check(
        "the gap analysis says what changes on each device",
        ("changes", SETTING, len(everyone)) in gaps,
        gaps,
    )
    await run("device-configuration", "create", CONFLICTING, "--setting", SETTING, "--value", "99")
    await run("device-configuration", "assign", CONFLICTING, "--include", SCOPE)
    halted = await _started(lab, rollout["id"], len(everyone))
    see.check(
        "a failure in the pilot halts the roll-out",
        (halted["state"], halted["ring"]) == ("halted", 1),
        halted["cause"]["text"],
    )
    failed = await run("rollout", "devices", rollout["id"], "--standing", "failed")
    see.check(
        "a device that failed says why",
        bool(failed) and SETTING in failed[0]["cause"]["text"],
        failed[0]["cause"]["text"] if failed else "none",
    )
    told = await _console(lab, "/console/notifications")
    see.check("the console raises an alarm", "the roll-out has halted" in told, "notifications")
    await run("rollout", "back", rollout["id"], "--yes")
    await _all_have(lab, see, "it is switched back", [], everyone)
    await _agreed(lab, see, Workload.DEVICE_CONFIGURATION, 0)
    await run("device-configuration", "delete", CONFLICTING)


async def _all_have(
    lab: Lab, see: Observer, text: str, with_mdm: list[str], everyone: list[str]
) -> None:
    async def look() -> tuple[bool, str]:
        states = await lab.devices()
        moved = sum(_has(states[name], Authority.MDM) for name in with_mdm)
        stay = [name for name in everyone if name not in with_mdm]
        stayed = sum(_has(states[name], Authority.SITE) for name in stay)
        good = moved == len(with_mdm) and stayed == len(stay)
        return good, f"{moved} of {len(with_mdm)} with MDM, {stayed} of {len(stay)} with the site"

    held, seen = await until(look, _patience(lab))
    see.check(text, held, seen)


def _has(state: mdm.Status, owner: Authority) -> bool:
    """Whether this authority owns the workload on the device, and its value is the one in force."""
    value = MDM_VALUE if owner is Authority.MDM else SITE_VALUE
    applied = state.configuration.get(SETTING)
    return (
        owner_of(Workload.DEVICE_CONFIGURATION, state.flags) is owner
        and applied is not None
        and (applied.value, applied.source) == (value, owner.value)
    )


async def _agreed(lab: Lab, see: Observer, workload: Workload, expected: int) -> None:
    async def look() -> tuple[bool, str]:
        status = await lab.commands.run("comanagement", "status")
        move = next(item for item in status["moves"] if item["workload"] == workload.value)
        managed = await lab.commands.run("managed-device", "list")
        features = [item["configurationManagerClientEnabledFeatures"] or {} for item in managed]
        seen = sum(bool(item.get("deviceConfiguration")) for item in features)
        good = move["done"] and move["with_mdm"] == expected and seen == expected
        return good, f"site: {move['with_mdm']} with MDM; MDM service: {seen}"

    held, seen = await until(look, _patience(lab))
    see.check("both authorities agree", held, seen)


STEPS: tuple[Step[Lab], ...] = (
    Step("0.1", "Tenant, users, groups, products", tenant_and_people),
    Step("0.2", "MDM authority and automatic enrolment", mdm_authority),
    Step("0.3", "Enhanced HTTP", enhanced_http),
    Step("1.1", "A unique service name", service_name),
    Step("1.2", "Certificate request on the site server", certificate_request),
    Step("1.3", "The public CA's certificate, imported", certificate_import),
    Step("1.4", "Export as PFX", certificate_export),
    Step("2.1", "Azure Services: Cloud Management", azure_service),
    Step("2.2", "Server app", server_app),
    Step("2.3", "Native client app", client_app),
    Step("2.4", "Enable user discovery", enable_discovery),
    Step("2.5", "Admin consent", consent),
    Step("2.6", "Full discovery now", discovery),
    Step("3.1", "Create the gateway", gateway),
    Step("3.2", "CNAME to the deployment", dns),
    Step("4.1", "Connection point", connection_point),
    Step("4.2", "Allow gateway traffic", gateway_traffic),
    Step("4.3", "Default client settings", client_settings),
    Step("5.1", "Enable co-management", enable),
    Step("5.2", "Workloads", workloads),
    Step("5.3", "Production and pilot policies", policies),
    Step("6.1", "The client as a line-of-business app", app),
    Step("6.2", "Assign it", assignment),
    Step("6.3", "Licences", licences),
    Step("6.4", "Devices become co-managed", devices),
    Step("7.1", "The co-management dashboard", dashboard),
    Step("7.2", "Switch a workload ring by ring, halt at a failure, and back", switch),
)
