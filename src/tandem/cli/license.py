"""tandem license: products, and who has them."""

from typing import Annotated, Any

import typer

from tandem.cli.context import Json, Refused, emit, graph_client, table
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
        columns = {"user": "User", "product": "Product", "reason": "Reason"}
        text += "\n\nFailed assignments\n" + table(value["failures"], columns)
    return text


@app.command()
def assign(
    sku: Annotated[str, typer.Argument(help="Product, as `license list` shows it.")],
    user: Annotated[list[str] | None, typer.Option(help="Sign-in name; repeatable.")] = None,
    group: Annotated[str | None, typer.Option(help="Name or id of a group.")] = None,
    json: Json = False,
) -> None:
    """Assign a product to users or to a group."""
    if bool(user) == bool(group):
        raise typer.BadParameter("Give --user (any number of times) or --group.")
    graph = graph_client()
    known = {item["skuPartNumber"]: item["skuId"] for item in graph.every("/v1.0/subscribedSkus")}
    sku_id = known.get(sku.upper(), sku)
    body = {"addLicenses": [{"skuId": sku_id, "disabledPlans": []}], "removeLicenses": []}
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
        done.append(group)
        failed += [
            {"holder": item["userPrincipalName"], "reason": "see `tandem license list`"}
            for item in graph.every(f"/v1.0/groups/{group_id}/membersWithLicenseErrors")
        ]
    value = {"product": sku, "assigned": done, "failed": failed}
    emit(value, _assigned, json)
    if failed:
        raise typer.Exit(1)


def _assigned(value: dict[str, Any]) -> str:
    lines = [f"Assigned {value['product']} to {name}." for name in value["assigned"]]
    lines += [f"Not assigned to {item['holder']}: {item['reason']}" for item in value["failed"]]
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
