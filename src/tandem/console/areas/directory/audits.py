"""The audit log with its proof, and the sign-in log."""

from collections.abc import AsyncIterator, Iterable
from datetime import date, timedelta
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.directory import asking, words
from tandem.console.areas.directory.asking import GRAPH, literal, query
from tandem.console.kit import N_, ROOT, Console, Page, csv

AUDIT = f"{ROOT}/audit"
SIGN_INS = f"{ROOT}/sign-ins"
_HEADS = 20
# An entry shows each property before and after: fewer of them keep the page small.
_ENTRIES = 25


def _days(page: Page[Any], name: str) -> list[str]:
    """`from` and `to` of the address, as conditions; what is no day is left out."""
    where = []
    for key, sign, more in (("from", "ge", 0), ("to", "lt", 1)):
        try:
            day = date.fromisoformat(query(page, key, 10)) + timedelta(days=more)
        except (ValueError, OverflowError):
            continue
        where.append(f"{name} {sign} {day.isoformat()}T00:00:00Z")
    return where


def _audit_where(page: Page[Any]) -> list[str]:
    where = _days(page, "activityDateTime")
    if activity := query(page, "activity"):
        where.append(f"contains(activityDisplayName,{literal(activity)})")
    if actor := query(page, "actor"):
        name = "initiatedBy/user/userPrincipalName"
        app = "initiatedBy/app/displayName"
        where.append(f"contains({name},{literal(actor)}) or contains({app},{literal(actor)})")
    if target := query(page, "target"):
        where.append(f"targetResources/any(t:t/id eq {literal(target)})")
    category = query(page, "category")
    if category in words.AUDIT_CATEGORY:
        where.append(f"category eq '{category}'")
    outcome = query(page, "outcome")
    if outcome in words.OUTCOME:
        where.append(f"result eq '{outcome}'")
    return where


_AUDIT_FILTERS = ("activity", "actor", "target", "category", "outcome", "from", "to")


async def audit(page: Page[Any]) -> Response:
    shown = await asking.listed(
        page, f"{GRAPH}/auditLogs/directoryAudits", where=_audit_where(page), size=_ENTRIES
    )
    return page.render(
        "directory/audit.html",
        shown=shown,
        rows=[_entry(item) for item in shown.rows],
        asked={name: query(page, name) for name in _AUDIT_FILTERS},
        words=words,
    )


def _entry(item: dict[str, Any]) -> dict[str, Any]:
    by = item["initiatedBy"]["user"] or item["initiatedBy"]["app"] or {}
    (target, *_) = item["targetResources"] or [{}]
    return {
        **item,
        "by": by.get("userPrincipalName") or by.get("displayName") or "",
        "address": by.get("ipAddress") or "",
        "target": target.get("displayName") or target.get("id") or "",
        "target_id": target.get("id") or "",
        "changed": [
            (one["displayName"], _plain(one["oldValue"]), _plain(one["newValue"]))
            for one in target.get("modifiedProperties") or ()
        ],
    }


def _plain(value: str | None) -> str:
    """A value of the log, which is JSON in a text, as somebody reads it."""
    if value is None:
        return ""
    try:
        found = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
    return found if isinstance(found, str) else value


async def audit_csv(page: Page[Any]) -> Response:
    text = page.language.text
    rows = asking.every(
        page,
        f"{GRAPH}/auditLogs/directoryAudits",
        **{"$filter": " and ".join(f"({one})" for one in _audit_where(page)), "$top": 500},
    )

    async def lines() -> AsyncIterator[Iterable[Any]]:
        async for item in rows:
            one = _entry(item)
            yield (
                one["activityDateTime"],
                one["by"],
                one["activityDisplayName"],
                one["category"],
                one["target"],
                one["target_id"],
                text(words.OUTCOME.get(one["result"], one["result"])),
                "; ".join(f"{name}: {old} → {new}" for name, old, new in one["changed"]),
            )

    titles = (
        N_("When"),
        N_("By"),
        N_("Activity"),
        N_("Category"),
        N_("What"),
        N_("Object id"),
        N_("Result"),
        N_("Changes"),
    )
    return csv("audit", [text(title) for title in titles], lines())


async def proof(page: Page[Any]) -> Response:
    """The signed heads, and (asked by POST) whether the log is what they signed."""
    found: dict[str, Any] | None = None
    if page.request.method == "POST":
        await page.form()
        found = await page.api.post(f"{GRAPH}/tandem/verifyAudit", {})
    key = await page.api.get(f"{GRAPH}/tandem/auditKey")
    heads = await page.api.get(
        f"{GRAPH}/tandem/auditHeads", **{"$orderby": "number desc", "$top": _HEADS}
    )
    return page.render(
        "directory/audit_proof.html", found=found, key=key, heads=heads["value"][:_HEADS]
    )


# ---------------------------------------------------------------------------------- sign-ins

_SIGN_IN_FILTERS = ("user", "app", "code", "result", "address", "from", "to")


def _sign_in_where(page: Page[Any]) -> list[str]:
    where = _days(page, "createdDateTime")
    if user := query(page, "user"):
        where.append(asking.like(("userPrincipalName", "userDisplayName"), user))
    if app := query(page, "app"):
        where.append(f"contains(appDisplayName,{literal(app)}) or appId eq {literal(app)}")
    if address := query(page, "address"):
        where.append(f"startswith(ipAddress,{literal(address)})")
    code = query(page, "code", 12).upper().removeprefix("AADSTS")
    if code.isascii() and code.isdigit():
        where.append(f"status/errorCode eq {int(code)}")
    result = query(page, "result")
    if result in ("good", "bad"):
        where.append(f"status/errorCode {'eq' if result == 'good' else 'ne'} 0")
    return where


async def sign_ins(page: Page[Any]) -> Response:
    shown = await asking.listed(page, f"{GRAPH}/auditLogs/signIns", where=_sign_in_where(page))
    return page.render(
        "directory/sign_ins.html",
        shown=shown,
        rows=shown.rows,
        asked={name: query(page, name) for name in _SIGN_IN_FILTERS},
        words=words,
    )


async def sign_ins_csv(page: Page[Any]) -> Response:
    text = page.language.text
    rows = asking.every(
        page,
        f"{GRAPH}/auditLogs/signIns",
        **{"$filter": " and ".join(f"({one})" for one in _sign_in_where(page)), "$top": 500},
    )

    async def lines() -> AsyncIterator[Iterable[Any]]:
        async for item in rows:
            code = item["status"]["errorCode"]
            yield (
                item["createdDateTime"],
                item["userPrincipalName"] or "",
                item["appDisplayName"] or item["appId"] or "",
                item["resourceDisplayName"] or "",
                f"AADSTS{code}" if code else "0",
                text(words.AADSTS[code])
                if code in words.AADSTS
                else item["status"]["failureReason"],
                item["ipAddress"] or "",
                item["clientAppUsed"],
            )

    titles = (
        N_("When"),
        N_("User"),
        N_("App name"),
        N_("Resource"),
        N_("Code"),
        N_("Result"),
        N_("Address"),
        N_("How"),
    )
    return csv("sign-ins", [text(title) for title in titles], lines())


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(AUDIT, audit),
        console.route(f"{AUDIT}.csv", audit_csv),
        console.route(f"{AUDIT}/proof", proof),
        console.route(f"{AUDIT}/proof", proof, post=True),
        console.route(SIGN_INS, sign_ins),
        console.route(f"{SIGN_INS}.csv", sign_ins_csv),
    ]
