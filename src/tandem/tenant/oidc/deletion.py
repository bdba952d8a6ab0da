"""Deleting an application and bringing it back: all rows that are its, kept by the directory."""

from datetime import datetime
from typing import Any

from tandem.infra.database import Tx
from tandem.tenant import directory
from tandem.tenant.oidc import store
from tandem.tenant.oidc.model import Application, UriTaken

# What belongs to an application, in an order in which it can be put back.
_TABLES = {
    "oidc_application": "t.id = %(id)s",
    "oidc_identifier_uri": "t.application_id = %(id)s",
    "oidc_secret": "t.application_id = %(id)s",
    "oidc_certificate": "t.application_id = %(id)s",
    "oidc_service_principal": "t.app_id = %(app_id)s",
    "oidc_grant": "t.client_id = %(principal)s OR t.resource_id = %(principal)s",
    "oidc_role_assignment": "t.principal_id = %(principal)s OR t.resource_id = %(principal)s",
}
# Columns that name something else, which may be gone by the time of the restore.
_OTHERS = ("client_id", "resource_id", "principal_id", "user_id")


async def delete(tx: Tx, known: Application, now: datetime) -> None:
    principal = await store.principal(tx, app_id=known.app_id)
    ids = {
        "id": known.id,
        "app_id": known.app_id,
        "principal": principal.id if principal else None,
    }
    kept: dict[str, Any] = {
        table: await directory.rows_of(tx, table, condition, ids)
        for table, condition in _TABLES.items()
    }
    (row,) = kept["oidc_application"]
    principals = [principal.id] if principal else []
    await directory.keep(
        tx,
        directory.Deleted(known.id, "application", known.display_name, now),
        {"row": row, "tables": kept, "principals": principals},
    )
    for principal_id in principals:
        await directory.hide(tx, principal_id, now)
    await store.delete_application(tx, known.id)


async def restore(tx: Tx, object_id: str) -> None:
    item, kept = await directory.deleted(tx, object_id)
    taken = await store.uris_of_others(tx, item.id, kept["row"]["identifier_uris"])
    if taken:
        raise UriTaken(
            f"The application cannot be restored: another one has the identifierUri {taken[0]} "
            "by now.",
            cure="Take the URI from that application first.",
            target="identifierUris",
        )
    for principal_id in kept["principals"]:
        await directory.show(tx, principal_id)
    for table in _TABLES:
        for row in kept["tables"].get(table, ()):
            if await _stands(tx, table, row):
                await directory.put_back(tx, table, row)
    await directory.forget(tx, item.id)


async def _stands(tx: Tx, table: str, row: dict[str, Any]) -> bool:
    if table not in ("oidc_grant", "oidc_role_assignment"):
        return True
    for name in _OTHERS:
        if row.get(name) and await directory.sort_of(tx, row[name]) is None:
            return False
    return True
