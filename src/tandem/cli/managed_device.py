"""tandem managed-device: devices that are enrolled in MDM."""

import re
from typing import Annotated, Any

import typer

from tandem.cli.app import find_app
from tandem.cli.context import Api, Json, Refused, confirm, emit, graph_client, table

app = typer.Typer(help="Devices that are enrolled in MDM.", no_args_is_help=True)

_PATH = "/v1.0/deviceManagement/managedDevices"
_CERTIFICATES = "/v1.0/tandem/managedDevices"
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@app.command("list")
def list_devices(
    overdue: Annotated[
        bool, typer.Option("--overdue", help="Those that should have checked in since.")
    ] = False,
    json: Json = False,
) -> None:
    """List the enrolled devices."""
    columns = {
        "deviceName": "NAME",
        "userPrincipalName": "USER",
        "osVersion": "OS",
        "managementAgent": "MANAGED BY",
        "lastSyncDateTime": "LAST CHECK-IN",
    }
    if overdue:
        columns["overdueSinceDateTime"] = "OVERDUE SINCE"
    path = "/v1.0/tandem/overdueDevices" if overdue else _PATH
    emit(graph_client().every(path), lambda rows: table(rows, columns), json)


def find(graph: Api, wanted: str) -> dict[str, Any]:
    """By name, or either id. A name that several devices have is none. Raises Refused."""
    quoted = wanted.replace("'", "''")
    condition = f"id eq '{quoted}' or azureADDeviceId eq '{quoted}'"
    if not _GUID.fullmatch(wanted):
        condition = f"deviceName eq '{quoted}'"
    found = graph.get(_PATH, **{"$filter": condition, "$top": 2})["value"]
    if len(found) == 1:
        return dict(found[0])
    if found:
        raise Refused(
            f"Several managed devices are called {wanted!r}.",
            cure="Name the device by its id: `tandem managed-device list --json`.",
        )
    raise Refused(
        f"There is no managed device {wanted!r}.", cure="List them: `tandem managed-device list`."
    )


@app.command()
def show(device: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Show a device with its settings and its timeline."""
    graph = graph_client()
    found = find(graph, device)
    found["settings"] = graph.get(f"{_PATH}/{found['id']}/settings")["value"]
    found["timeline"] = graph.get(f"{_PATH}/{found['id']}/timeline")["value"]

    def text(value: dict[str, Any]) -> str:
        lines = [f"{value['deviceName']}  {value['userPrincipalName']}  {value['managementAgent']}"]
        for item in value["settings"]:
            said = _setting(item)
            if item["outcome"] in ("conflict", "withheld", "notApplicable"):
                said = f"{item['outcome']}: {item['reason']}"
            lines.append(f"  {item['setting']} = {said}")
        for item in value["timeline"]:
            lines.append(f"  {item['dateTime']}  {item['text']}")
        return "\n".join(lines)

    emit(found, text, json)


@app.command()
def why(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    setting: Annotated[str, typer.Argument(help="Area/Name, OMA-URI or the catalogue's id.")],
    json: Json = False,
) -> None:
    """Say why a device has a setting, or has it not."""
    graph = graph_client()
    found = find(graph, device)
    answer = graph.post(f"{_WHY}/{found['id']}/why", {"setting": setting})
    emit(answer, _why, json)


def _why(value: dict[str, Any]) -> str:
    lines = [
        f"{value['setting']} on {value['deviceName']}: {value['outcome']}",
        f"  {value['reason']}",
    ]
    if value["wanted"] is not None:
        lines.append(f"  Value     {value['wanted']}")
    last = value["lastOutcome"]
    if last is not None and not last["lapsed"]:
        lines.append(
            f"  Device    has {last['value']}, status {last['status']}, {last['dateTime']}"
        )
    owner = {"mdm": "the MDM service", "site": "the site"}[value["workloadOwner"]]
    lines.append(f"  Workload  {value['workload']}, owned by {owner}")
    for one in value["policies"]:
        lines.append(f"  {_ROLES[one['role']]:<12} {one['policyName']} = {one['value'][:64]}")
        lines += [f"      {_way(way)}" for way in one["path"]]
        if not one["assigned"]:
            lines.append("      assigned to nobody")
    if not value["policies"]:
        lines.append("  No policy names it.")
    return "\n".join(lines)


_WHY = "/v1.0/tandem/managedDevices"
_ROLES = {
    "winner": "wins",
    "agrees": "agrees",
    "conflicts": "conflicts",
    "withheld": "withheld",
    "inapplicable": "too new",
    "notMeant": "not meant",
}


def _way(way: dict[str, Any]) -> str:
    through = " > ".join(one["displayName"] for one in way["groups"])
    target = {"allDevices": "all devices", "allUsers": "all users"}.get(way["target"], through)
    member = {"user": "the user", "device": "the device"}.get(way["member"], "nobody here")
    if way["effect"] == "filtered":
        return f"{member} in {target}, but its filter is not evaluated"
    return f"{way['effect']}: {member} in {target}"


def _setting(item: dict[str, Any]) -> str:
    wanted, delivered, status = item["wanted"], item["delivered"], item["status"]
    if delivered is None:
        return f"{wanted} (at the next check-in)"
    if status >= 300:
        return f"{delivered} (refused by the device, status {status})"
    if wanted != delivered:
        after = "removed" if wanted is None else wanted
        return f"{delivered} ({after} at the next check-in)"
    return str(delivered)


@app.command()
def sync(device: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Ask a device to check in: within seconds where its agent waits, else at its next poll."""
    graph = graph_client()
    found = find(graph, device)
    graph.post(f"{_PATH}/{found['id']}/syncDevice", {})
    emit({"id": found["id"]}, lambda _: f"{found['deviceName']} is asked to check in.", json)


_REASON = typer.Option(help="Why, for whoever may have to approve it.")


def _away(
    device: str, action: str, reason: str, question: str, yes: bool, json: bool, **options: bool
) -> None:
    """Order what nothing brings back: it is held, and says until when it can be cancelled."""
    graph = graph_client()
    found = find(graph, device)
    confirm(question.format(found["deviceName"]), yes, json)
    body = {"action": action, "devices": [found["id"]], "reason": reason, **options}
    made = graph.post("/v1.0/tandem/orderAction", body)

    def text(value: dict[str, Any]) -> str:
        name = found["deviceName"]
        if not value["requestId"]:
            return f"That was ordered of {name} before."
        if value["state"] == "approval":
            return (
                f"{name}: a second administrator has to approve it:"
                f" `tandem actions approve {value['requestId']}`."
            )
        until = value["heldUntilDateTime"] if value["state"] == "held" else None
        when = f"at its next check-in after {until}" if until else "at its next check-in"
        return f"{name} gets it {when}. Take it back before: `tandem managed-device cancel-action {name}`."

    emit({"id": found["id"], **made}, text, json)


@app.command()
def retire(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    reason: Annotated[str, _REASON] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """End a device's enrolment. Its MDM settings go; the site's client stays."""
    _away(device, "retire", reason, "End the enrolment of {}?", yes, json)


app.command("unenrol", help="The same as retire.")(retire)


@app.command()
def cancel_action(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    action: Annotated[
        str, typer.Option(help="Only this one: wipe, retire, …; default: all that waits.")
    ] = "",
    json: Json = False,
) -> None:
    """Take back what was ordered of a device, before it has it."""
    graph = graph_client()
    found = find(graph, device)
    condition = f"deviceId eq '{found['id']}' and canBeCancelled eq true"
    condition += f" and action eq '{action}'" if action else ""
    waiting = graph.every("/v1.0/tandem/actions", **{"$filter": condition})
    if not waiting:
        raise Refused(
            f"Nothing that can be taken back waits for {found['deviceName']}.",
            cure=f"Look at how far it is: `tandem actions list --device {found['deviceName']}`.",
        )
    for item in waiting:
        graph.post(f"/v1.0/tandem/actions/{item['id']}/cancel")
    names = ", ".join(item["action"] for item in waiting)
    emit(
        {"id": found["id"], "cancelled": [item["id"] for item in waiting]},
        lambda _: f"{found['deviceName']}: {names} cancelled.",
        json,
    )


@app.command()
def approve_action(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Agree, as a second administrator, to the order that this device waits for with others."""
    graph = graph_client()
    found = find(graph, device)
    condition = f"deviceId eq '{found['id']}' and state eq 'approval'"
    waiting = graph.every("/v1.0/tandem/actions", **{"$filter": condition})
    if not waiting:
        raise Refused(
            f"Nothing of {found['deviceName']} waits for a second administrator.",
            cure="List what does: `tandem actions requests --waiting`.",
        )
    requests = list(dict.fromkeys(item["requestId"] for item in waiting))
    for id in requests:
        asked = graph.get(f"/v1.0/tandem/actionRequests/{id}")
        confirm(
            f"{asked['requestedBy']} asks: {asked['action']} for {asked['deviceCount']} devices,"
            f" because: {asked['reason']}. Approve for all of them?",
            yes,
            json,
        )
        graph.post(f"/v1.0/tandem/actionRequests/{id}/approve")
    emit(
        {"id": found["id"], "approved": requests},
        lambda _: "Approved; it can be cancelled until a device has it.",
        json,
    )


def _order(device: str, action: str, body: dict[str, Any], said: str, json: bool) -> None:
    graph = graph_client()
    found = find(graph, device)
    graph.post(f"{_PATH}/{found['id']}/{action}", body)
    emit({"id": found["id"]}, lambda _: said.format(found["deviceName"]), json)


@app.command()
def restart(device: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Restart a device; it does at its next check-in."""
    _order(device, "rebootNow", {}, "{} restarts at its next check-in.", json)


@app.command()
def rename(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    name: Annotated[str, typer.Argument(help="The new name; %SERIAL% and %RAND:n% are filled in.")],
    json: Json = False,
) -> None:
    """Give a device another computer name."""
    body = {"deviceName": name}
    _order(device, "setDeviceName", body, "{} is renamed at its next check-in.", json)


@app.command()
def wipe(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    keep_enrolment: Annotated[bool, typer.Option("--keep-enrolment")] = False,
    keep_user_data: Annotated[bool, typer.Option("--keep-user-data")] = False,
    protected: Annotated[
        bool,
        typer.Option(
            "--protected",
            help="Keep trying, though it is switched off meanwhile; may leave it unbootable.",
        ),
    ] = False,
    reason: Annotated[str, _REASON] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Reset a device. What is on it is lost, unless it is kept by an option."""
    options = {
        "keepEnrollmentData": keep_enrolment,
        "keepUserData": keep_user_data,
        "useProtectedWipe": protected,
    }
    _away(device, "wipe", reason, "Reset {}? What is on it is lost.", yes, json, **options)


@app.command()
def scan(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    full: Annotated[bool, typer.Option("--full")] = False,
    json: Json = False,
) -> None:
    """Have a device scan itself for malware."""
    body = {"quickScan": not full}
    _order(device, "windowsDefenderScan", body, "{} scans at its next check-in.", json)


@app.command()
def delete(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    reason: Annotated[str, _REASON] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Take a device off the list. It is told to leave at its next check-in."""
    _away(device, "delete", reason, "Delete {}?", yes, json)


@app.command()
def apps(device: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """The apps that a device is to have, may have or has, and why."""
    graph = graph_client()
    found = find(graph, device)
    rows = graph.get(f"/v1.0/tandem/managedDevices/{found['id']}/apps")["value"]

    def text(rows: list[dict[str, Any]]) -> str:
        lines = []
        for row in rows:
            lines.append(
                f"{row['displayName']} {row['version'] or ''}: {row['intent']}, {row['installState']}"
            )
            for reason in row["reasons"]:
                target = reason["groupDisplayName"] or reason["target"]
                lines.append(
                    f"  {reason['intent']} by the {reason['side']}, {target}: {reason['outcome']}"
                )
            if row["error"]:
                error = row["error"]
                lines.append(f"  {error['code']} {error['name']}: {error['message']}")
                lines.append(f"  {error['cure']}")
            if row["withheldReason"] and row["installState"] == "withheld":
                lines.append(f"  {row['withheldReason']}")
        return "\n".join(lines) or "No app is assigned to this device."

    emit(rows, text, json)


@app.command("choose-app")
def choose_app(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    wanted: Annotated[str, typer.Argument(metavar="APP", help="Name or id.")],
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the choice back.")] = False,
    json: Json = False,
) -> None:
    """Choose an available app for a device's user; it installs at the next check-in."""
    graph = graph_client()
    found, chosen = find(graph, device), find_app(graph, wanted)
    call = "withdrawApp" if withdraw else "requestApp"
    path = f"/v1.0/tandem/managedDevices/{found['id']}/{call}"
    graph.post(path, {"mobileAppId": chosen["id"]})
    said = "is not chosen any more" if withdraw else "is installed at the next check-in"
    value = {"id": found["id"], "mobileAppId": chosen["id"], "requested": not withdraw}
    emit(value, lambda _: f"{chosen['displayName']} {said} of {found['deviceName']}.", json)


@app.command()
def certificates(
    device: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False
) -> None:
    """List the certificates that a device has and had, the newest first."""
    graph = graph_client()
    found = find(graph, device)
    columns = {
        "serialNumber": "SERIAL NUMBER",
        "state": "STATE",
        "reason": "REASON",
        "startDateTime": "FROM",
        "endDateTime": "UNTIL",
        "renewsFromDateTime": "RENEWS FROM",
    }
    rows = graph.every(f"{_CERTIFICATES}/{found['id']}/certificates")
    emit(rows, lambda items: table(items, columns), json)


@app.command("revoke-certificate")
def revoke_certificate(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    certificate: Annotated[str, typer.Argument(help="Serial number or SHA-256 fingerprint.")],
    reason: Annotated[
        str,
        typer.Option(help="privilegeWithdrawn, keyCompromise, cessationOfOperation or superseded."),
    ] = "privilegeWithdrawn",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Take a certificate back. A device without another one has to enrol again."""
    graph = graph_client()
    found = find(graph, device)
    if not yes and not json:
        typer.confirm(f"Revoke a certificate of {found['deviceName']}?", abort=True)
    done = graph.post(
        f"{_CERTIFICATES}/{found['id']}/revokeCertificate",
        {"certificate": certificate, "reason": reason},
    )
    emit(done, lambda _: f"The certificate of {found['deviceName']} is revoked.", json)


_ASIDE = {
    "deviceName": "DEVICE",
    "kind": "WHAT",
    "subject": "OF",
    "reason": "WHY",
    "setAsideDateTime": "SINCE",
}


@app.command("set-aside")
def set_aside(
    device: Annotated[str, typer.Argument(help="Name or id; all devices without one.")] = "",
    json: Json = False,
) -> None:
    """List the commands that devices do not get any more, because they choke on them."""
    graph = graph_client()
    path = "/v1.0/tandem/setAsideCommands"
    if device:
        path = f"{_PATH}/{find(graph, device)['id']}/setAsideCommands"
    emit(graph.every(path), lambda rows: table(rows, _ASIDE), json)


@app.command()
def release(
    device: Annotated[str, typer.Argument(help="Name or id.")],
    subject: Annotated[str, typer.Argument(help="What OF names; everything without one.")] = "",
    json: Json = False,
) -> None:
    """Give a device again what was set aside; it comes at its next check-in."""
    graph = graph_client()
    found = find(graph, device)
    done = graph.post(f"{_PATH}/{found['id']}/releaseCommands", {"subject": subject})
    count = int((done or {}).get("value", 0))
    text = f"{found['deviceName']} gets {count} of its commands again."
    emit({"id": found["id"], "released": count}, lambda _: text, json)


_STRAYS = {
    "id": "ID",
    "deviceName": "DEVICE",
    "calls": "CALLS",
    "lastCallDateTime": "LAST CALL",
    "unenrollOrderedDateTime": "TOLD TO LEAVE",
}


@app.command()
def strays(json: Json = False) -> None:
    """List the devices that have left here and call all the same, like restored images."""
    rows = graph_client().every("/v1.0/tandem/strayDevices")
    emit(rows, lambda found: table(found, _STRAYS), json)


@app.command("tell-to-leave")
def tell_to_leave(
    id: Annotated[str, typer.Argument(help="The ID that `strays` lists.")], json: Json = False
) -> None:
    """Have a device that has left here told to leave when it calls."""
    graph_client().post(f"/v1.0/tandem/strayDevices/{id}/unenroll", {})
    emit({"id": id}, lambda _: "It is told to leave at its next call.", json)
