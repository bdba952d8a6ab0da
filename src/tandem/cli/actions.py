"""tandem actions: what administrators ordered of devices, and who else has to agree."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Api, Json, Refused, Yes, confirm, emit, graph_client, table
from tandem.cli.managed_device import find

app = typer.Typer(
    help="Orders to devices: how far they are, approvals, safeguards.", no_args_is_help=True
)

_ACTIONS = "/v1.0/tandem/actions"
_REQUESTS = "/v1.0/tandem/actionRequests"
_SAFEGUARDS = "/v1.0/tandem/actionSafeguards"
_REASON = typer.Option(help="Why; a second administrator reads it.")


@app.command("list")
def list_actions(
    device: Annotated[str, typer.Option(help="Name or id: of this device only.")] = "",
    open_only: Annotated[bool, typer.Option("--open", help="Only what is not over.")] = False,
    json: Json = False,
) -> None:
    """List what was ordered of devices, the newest first."""
    graph = graph_client()
    conditions = []
    if device:
        conditions.append(f"deviceId eq '{find(graph, device)['id']}'")
    if open_only:
        conditions.append("endedDateTime eq null")
    query = {"$filter": " and ".join(conditions)} if conditions else {}
    columns = {
        "id": "ID",
        "action": "ACTION",
        "deviceName": "DEVICE",
        "state": "STATE",
        "orderedBy": "ORDERED BY",
        "orderedDateTime": "AT",
        "heldUntilDateTime": "HELD UNTIL",
        "explanation": "EXPLANATION",
    }
    emit(graph.every(_ACTIONS, **query), lambda rows: table(rows, columns), json)


@app.command()
def requests(
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only what waits for a second administrator.")
    ] = False,
    json: Json = False,
) -> None:
    """List the orders that nothing brings back, with who asked, for how many devices, and why."""
    query = {"$filter": "state eq 'waiting'"} if waiting else {}
    columns = {
        "id": "ID",
        "action": "ACTION",
        "deviceCount": "DEVICES",
        "userCount": "USERS",
        "state": "STATE",
        "requestedBy": "ASKED BY",
        "requestedDateTime": "AT",
        "reason": "REASON",
    }
    emit(graph_client().every(_REQUESTS, **query), lambda rows: table(rows, columns), json)


@app.command()
def order(
    action: Annotated[str, typer.Argument(help="syncDevice, rebootNow, retire, wipe, delete, …")],
    devices: Annotated[list[str], typer.Argument(help="Names or ids.")],
    reason: Annotated[str, _REASON] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Order the same of several devices, after saying how far it reaches."""
    graph = graph_client()
    body: dict[str, Any] = {
        "action": action,
        "devices": [find(graph, name)["id"] for name in devices],
    }
    reach = graph.post("/v1.0/tandem/assessAction", body)
    confirm(f"{action}: {told(reach)} Go on?", yes, json)
    made = graph.post("/v1.0/tandem/orderAction", {**body, "reason": reason})
    emit(made, ordered, json)


def told(reach: dict[str, Any]) -> str:
    """How far an order reaches, in a sentence."""
    names = ", ".join(reach["deviceNames"][:10])
    more = reach["deviceCount"] - min(10, len(reach["deviceNames"]))
    names += f" and {more} more" if more else ""
    text = f"{reach['deviceCount']} devices of {reach['userCount']} users ({names})."
    if reach["needsApproval"]:
        text += " A second administrator has to approve it."
    return text


def ordered(made: dict[str, Any]) -> str:
    if made["state"] == "approval":
        return (
            f"{made['deviceCount']} devices wait for a second administrator:"
            f" `tandem actions approve {made['requestId']}`."
        )
    if made["state"] == "held":
        return (
            f"{made['deviceCount']} devices get it at their next check-in after"
            f" {made['heldUntilDateTime']}; cancel it before: `tandem actions cancel-request"
            f" {made['requestId']}`."
        )
    return f"{made['deviceCount']} devices get it at their next check-in."


@app.command()
def approve(
    request: Annotated[str, typer.Argument(help="Id, from `tandem actions requests`.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Agree, as a second administrator. The hold window begins then."""
    graph = graph_client()
    found = _request(graph, request)
    names = ", ".join(item["deviceName"] for item in found["devices"][:10])
    confirm(
        f"{found['requestedBy']} asks: {found['action']} for {found['deviceCount']} devices"
        f" ({names}), because: {found['reason']}. Approve?",
        yes,
        json,
    )
    graph.post(f"{_REQUESTS}/{found['id']}/approve")
    emit({"id": found["id"]}, lambda _: "Approved; it can be cancelled until it is given.", json)


@app.command()
def reject(
    request: Annotated[str, typer.Argument(help="Id, from `tandem actions requests`.")],
    reason: Annotated[str, typer.Option(help="Why not.")] = "",
    json: Json = False,
) -> None:
    """Do not agree: nothing of it happens."""
    graph = graph_client()
    found = _request(graph, request)
    graph.post(f"{_REQUESTS}/{found['id']}/reject", {"reason": reason})
    emit({"id": found["id"]}, lambda _: "Rejected: no device gets it.", json)


@app.command()
def cancel(
    action: Annotated[str, typer.Argument(help="Id, from `tandem actions list`.")],
    json: Json = False,
) -> None:
    """Take back what one device does not have yet."""
    graph_client().post(f"{_ACTIONS}/{action}/cancel")
    emit({"id": action}, lambda _: "Cancelled.", json)


@app.command()
def cancel_request(
    request: Annotated[str, typer.Argument(help="Id, from `tandem actions requests`.")],
    json: Json = False,
) -> None:
    """Take back an order for all devices that do not have it yet."""
    graph_client().post(f"{_REQUESTS}/{request}/cancel")
    emit({"id": request}, lambda _: "Cancelled for every device that does not have it.", json)


def _request(graph: Api, id: str) -> dict[str, Any]:
    return dict(graph.get(f"{_REQUESTS}/{id}"))


_NAMES = {
    "budgetPerHour": "devices an hour, for one administrator alone",
    "approvalAbove": "devices at most without a second administrator",
    "holdMinutes": "minutes before a device gets it",
    "approvalHours": "hours for a second administrator to decide",
}


@app.command()
def safeguards(
    budget_per_hour: Annotated[
        int | None, typer.Option(help="Devices that one administrator may send away in an hour.")
    ] = None,
    approval_above: Annotated[
        int | None, typer.Option(help="More devices than this need a second administrator.")
    ] = None,
    hold_minutes: Annotated[
        int | None, typer.Option(help="How long an order can be cancelled, at least.")
    ] = None,
    approval_hours: Annotated[
        int | None, typer.Option(help="How long an order waits for a second administrator.")
    ] = None,
    approve_change: Annotated[
        bool, typer.Option("--approve", help="Agree to the weaker ones that are proposed.")
    ] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take back the weaker ones that are proposed.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what guards devices from orders, or change it; weaker ones need a second administrator."""
    graph = graph_client()
    given = {
        "budgetPerHour": budget_per_hour,
        "approvalAbove": approval_above,
        "holdMinutes": hold_minutes,
        "approvalHours": approval_hours,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if sum((bool(changes), approve_change, withdraw)) > 1:
        raise Refused(
            "A change, --approve and --withdraw do not go together.", cure="Use one of them."
        )
    if changes:
        graph.patch(_SAFEGUARDS, changes)
    elif approve_change or withdraw:
        graph.post(f"{_SAFEGUARDS}/{'approve' if approve_change else 'withdraw'}")
    emit(graph.get(_SAFEGUARDS), _shown, json)


def _shown(found: dict[str, Any]) -> str:
    lines = [f"{found[name]:>6}  {text}" for name, text in _NAMES.items()]
    proposal = found["proposal"]
    if proposal:
        changed = [
            f"{name} {found[name]} → {proposal[name]}"
            for name in _NAMES
            if proposal[name] != found[name]
        ]
        lines.append(
            f"{proposal['proposedBy']} proposes {', '.join(changed)}: another administrator agrees"
            " with `tandem actions safeguards --approve`."
        )
    return "\n".join(lines)
