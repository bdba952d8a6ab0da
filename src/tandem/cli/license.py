"""tandem license: products, and who has them."""

import time
from typing import Annotated, Any

import typer

from tandem.cli.context import Api, Json, Refused, emit, graph_client, progress, table
from tandem.cli.group import find_group

app = typer.Typer(help="Licences: products, seats, assignments.", no_args_is_help=True)


@app.command()
def subscribe(
    sku: Annotated[str, typer.Argument(help="EMSPREMIUM, EMS, INTUNE_A, AAD_PREMIUM, …")],
    seats: Annotated[int | None, typer.Option(min=1, help="Left out: no limit.")] = None,
    json: Json = False,
) -> None:
    """Subscribe to a product, or change how many seats it has."""
    made = graph_client().post("/v1.0/tandem/subscribe", {"sku": sku, "seats": seats})
    many = "without a limit" if seats is None else f"with {seats} seats"
    emit(made, lambda _: f"Subscribed to {made['skuPartNumber']} {many}.", json)


@app.command("list")
def list_products(json: Json = False) -> None:
    """List products with seats and plans, and assignments that failed with their reason."""
    graph = graph_client()
    products = graph.every("/v1.0/subscribedSkus")
    licensing = graph.get("/v1.0/tandem/licensing")
    names = {
        item["id"]: item["userPrincipalName"]
        for item in graph.every("/v1.0/users", **{"$select": "id,userPrincipalName"})
    }
    skus = {item["skuId"]: item["skuPartNumber"] for item in products}
    value = {
        "licence_required": licensing["licenceRequired"],
        "products": products,
        "failures": [
            {
                **item,
                "user": names.get(item["userId"], item["userId"]),
                "product": skus.get(item["skuId"], item["skuId"]),
            }
            for item in licensing["failures"]
        ],
    }
    emit(value, _text, json)


def _text(value: dict[str, Any]) -> str:
    rows = [
        {
            "sku": item["skuPartNumber"],
            "used": item["consumedUnits"],
            "seats": item["prepaidUnits"]["enabled"],
            "plans": ", ".join(plan["servicePlanName"] for plan in item["servicePlans"]),
        }
        for item in value["products"]
    ]
    columns = {"sku": "Product", "used": "Used", "seats": "Seats", "plans": "Plans"}
    text = table(rows, columns)
    text += f"\n\nEnrolment {'needs' if value['licence_required'] else 'needs no'} licence."
    if value["failures"]:
        columns = {"user": "User", "product": "Product", "reason": "Reason", "cure": "What to do"}
        text += "\n\nFailed assignments\n" + table(value["failures"], columns)
    return text


@app.command()
def assign(
    sku: Annotated[str, typer.Argument(help="Product, as `license list` shows it.")],
    user: Annotated[list[str] | None, typer.Option(help="Sign-in name; repeatable.")] = None,
    group: Annotated[str | None, typer.Option(help="Name or id of a group.")] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="A plan of the product to switch off; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Assign a product to users or to a group, and wait until everybody in it is done."""
    graph = graph_client()
    item = _product(graph, sku)
    body = {
        "addLicenses": [
            {"skuId": item["skuId"], "disabledPlans": _plans(item, without or [])},
        ],
        "removeLicenses": [],
    }
    _change(graph, sku, body, user, group, json)


@app.command()
def unassign(
    sku: Annotated[str, typer.Argument(help="Product, as `license list` shows it.")],
    user: Annotated[list[str] | None, typer.Option(help="Sign-in name; repeatable.")] = None,
    group: Annotated[str | None, typer.Option(help="Name or id of a group.")] = None,
    json: Json = False,
) -> None:
    """Take a product away from users or from a group."""
    graph = graph_client()
    body = {"addLicenses": [], "removeLicenses": [_product(graph, sku)["skuId"]]}
    _change(graph, sku, body, user, group, json)


def _product(graph: Api, sku: str) -> dict[str, Any]:
    for item in graph.every("/v1.0/subscribedSkus"):
        if sku.lower() in (item["skuPartNumber"].lower(), item["skuId"]):
            return item
    raise Refused(
        f"The tenant has no subscription of {sku}.",
        cure=f"Subscribe to it first: `tandem license subscribe {sku}`.",
    )


def _plans(item: dict[str, Any], names: list[str]) -> list[str]:
    known = {
        plan["servicePlanName"].lower(): plan["servicePlanId"] for plan in item["servicePlans"]
    }
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        raise Refused(
            f"{item['skuPartNumber']} has no plan {', '.join(unknown)}.",
            cure="Its plans are " + ", ".join(sorted(known)).upper() + ".",
        )
    return [known[name.lower()] for name in names]


def _change(
    graph: Api,
    sku: str,
    body: dict[str, Any],
    user: list[str] | None,
    group: str | None,
    json: bool,
) -> None:
    if bool(user) == bool(group):
        raise typer.BadParameter("Give --user (any number of times) or --group.")
    done, failed = [], []
    for upn in user or ():
        try:
            graph.post(f"/v1.0/users/{upn}/assignLicense", body)
            done.append(upn)
        except Refused as error:
            failed.append({"holder": upn, "reason": f"{error.message} {error.cure}".strip()})
    if group:
        group_id = find_group(graph, group)
        graph.post(f"/v1.0/groups/{group_id}/assignLicense", body)
        _wait(graph, group_id, json)
        done.append(group)
        failed += [
            {"holder": item["userPrincipalName"], "reason": "see `tandem license list`"}
            for item in graph.every(f"/v1.0/groups/{group_id}/membersWithLicenseErrors")
        ]
    value = {
        "product": sku,
        "verb": "Assigned" if body["addLicenses"] else "Took away",
        "to": "to" if body["addLicenses"] else "from",
        "assigned": done,
        "failed": failed,
    }
    emit(value, _assigned, json)
    if failed:
        raise typer.Exit(1)


def _wait(graph: Api, group_id: str, json: bool) -> dict[str, Any]:
    """Watch the group's run until everybody in it is done."""
    with progress("Going through the group", json) as said:
        while True:
            run: dict[str, Any] = graph.get(f"/v1.0/tandem/licenseRuns/{group_id}")
            if run["state"] == "done":
                return run
            said(f"{run['done']} of {run['total']} members done, {run['failed']} without a licence")
            time.sleep(0.3)


@app.command("progress")
def show_progress(
    group: Annotated[str, typer.Argument(help="Name or id of the group.")],
    wait: Annotated[bool, typer.Option(help="Until everybody is done.")] = False,
    json: Json = False,
) -> None:
    """How far the last change of a group's licences is."""
    graph = graph_client()
    group_id = find_group(graph, group)
    run = graph.get(f"/v1.0/tandem/licenseRuns/{group_id}")
    if wait:
        run = _wait(graph, group_id, json)
    emit(run, lambda r: f"{r['state']}: {r['done']} of {r['total']}, {r['failed']} failed", json)


@app.command()
def reprocess(
    user: Annotated[str, typer.Argument(help="Sign-in name or id.")], json: Json = False
) -> None:
    """Try a user's failed licences again, after their cause was removed."""
    graph = graph_client()
    graph.post(f"/v1.0/users/{user}/reprocessLicenseAssignment", {})
    select = {"$select": "licenseAssignmentStates"}
    states = graph.get(f"/v1.0/users/{user}", **select)["licenseAssignmentStates"]
    failed = [item["error"] for item in states if item["state"] == "Error"]
    said = f"Still failed: {', '.join(failed)}." if failed else "Every licence is active."
    emit({"user": user, "failed": failed}, lambda _: said, json)
    if failed:
        raise typer.Exit(1)


def _assigned(value: dict[str, Any]) -> str:
    words = (value["verb"], value["product"], value["to"])
    lines = [" ".join(words) + f" {name}." for name in value["assigned"]]
    lines += [f"No licence for {item['holder']}: {item['reason']}" for item in value["failed"]]
    return "\n".join(lines)


@app.command()
def requirement(
    state: Annotated[str, typer.Argument(help="on or off")], json: Json = False
) -> None:
    """Whether enrolment asks for a licence with the MDM plan."""
    if state not in ("on", "off"):
        raise typer.BadParameter("Say on or off.")
    changed = graph_client().patch("/v1.0/tandem/licensing", {"licenceRequired": state == "on"})
    value = {"licence_required": changed["licenceRequired"]}
    said = "Enrolment needs a licence." if state == "on" else "Enrolment needs no licence."
    emit(value, lambda _: said, json)
