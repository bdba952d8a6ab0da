"""One device: both authorities' accounts side by side, and what each wants of it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from tandem.console import labels
from tandem.console.areas import notify
from tandem.console.areas.fleet import words
from tandem.console.areas.fleet.words import DEVICES
from tandem.console.kit import N_, ROOT, Fact, Page, Refused, UnknownPage, drawn, field, read
from tandem.infra.errors import AppError, Kind

REFRESH_SECONDS = 5
# All signatures are checked again for each answer.
CHECK_SECONDS = 60
TABS = {
    "": N_("Overview"),
    "policy": N_("Policy and client settings"),
    "settings": N_("Resultant settings"),
    "deployments": N_("Apps and deployments"),
    "timeline": N_("Timeline"),
    "ledger": N_("Ledger"),
    "logs": N_("Logs"),
}
SETUP_TOPIC, COMANAGEMENT_TOPIC = 800, 810
FAILED_SETUP = range(301, 330)
SITE = N_("Site")
SOURCES = {"site": SITE, "device": N_("Device"), "mdm": N_("MDM service")}


_REASON = (
    field(
        "reason",
        N_("Reason"),
        required=True,
        hint=N_("What happened, like: restored from the snapshot of Tuesday."),
    ),
)


class Line(msgspec.Struct, frozen=True):
    """One line of a timeline. `times`: how often in a row the same was said, `at` the last time."""

    at: datetime
    source: str
    text: str
    failed: bool = False
    times: int = 1


def page_of(tab: str) -> Callable[[Page[Any]], Awaitable[Response]]:
    async def view(page: Page[Any]) -> Response:
        return await _render(page, "fleet/device.html", tab)

    return view


async def panel(page: Page[Any]) -> Response:
    return await _render(page, "fleet/panel.html", "")


async def acknowledge(page: Page[Any]) -> Response:
    """Take note of what breaks the proof of a device's ledger, with a reason."""
    id = page.request.path_params["device_id"]
    at = f"{ROOT}/devices/{quote(id, safe='')}/ledger"
    given, problems = read(_REASON, await page.form())
    seen = str(page.request.query_params.get("seen", ""))
    if not problems:
        wanted = {
            "reason": given["reason"],
            "seen": int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 6 else 0,
        }
        try:
            await page.api.post(f"{DEVICES}/{quote(id, safe='')}/ledger/acknowledge", wanted)
        except AppError as error:
            if error.kind not in (Kind.INVALID, Kind.CONFLICT):
                raise
            problems[str(error.details.get("field", ""))] = error
        else:
            return page.to(at, N_("It was acknowledged. The proof holds for what comes now."))
    return await _render(page, "fleet/device.html", "ledger", given, problems)


async def _render(
    page: Page[Any],
    template: str,
    tab: str,
    values: dict[str, Any] | None = None,
    problems: dict[str, AppError] | None = None,
) -> Response:
    device_id = page.request.path_params["device_id"]
    try:
        found = await page.api.get(f"{DEVICES}/{quote(device_id, safe='')}")
    except Refused as error:
        if error.code != "fleet.no-such-device":
            raise
        raise UnknownPage(labels.NO_SUCH_DEVICE, cure=labels.NO_SUCH_DEVICE_CURE) from None
    device = found["device"]
    at = f"{ROOT}/devices/{quote(device['id'], safe='')}"
    check = tab == "ledger" and page.request.query_params.get("check") == "1"
    proof = await _proof(page, device["id"], check) if tab == "ledger" else None
    told = await _told_now(page, device["client_id"]) if tab == "" else None
    followed = (
        await page.api.get(f"{DEVICES}/{quote(device_id, safe='')}/timeline")
        if (tab == "timeline")
        else {"stories": []}
    )
    resultant = (
        await page.api.get(f"{DEVICES}/{quote(device['id'], safe='')}/settings")
        if tab == "settings"
        else {"settings": [], "without_tenant": ""}
    )
    tenant = await page.other()
    theirs = f"{tenant.url}{at}" if tenant and found["directory"] else ""
    return page.render(
        template,
        422 if problems else 200,
        fields=await drawn(page, _REASON, values or {}, problems or {}),
        general=(problems or {}).get(""),
        device=device,
        found=found,
        tab=tab,
        tabs=[(f"{at}/{key}" if key else at, title, key == tab) for key, title in TABS.items()],
        mdm=_account_of_tenant(found),
        site=_account_of_site(found),
        channel=told,
        reach=_reach(page, told) if told else [],
        active=_active(told) if told else [],
        asked=told["orders"] if told else [],
        actions=notify.ACTIONS,
        order_states=notify.STATES,
        ask_path=notify.ask_path(at, client=device["client_id"] or ""),
        in_force=_in_force(found),
        enacted=_state(found).get("enacted") or {},
        facts=_facts(found),
        timeline=_timeline(found),
        stories=followed["stories"],
        sources=SOURCES,
        logs=_logs(found["timeline"]),
        silence=found["tenant"]["silence"] or found["without_timeline"],
        at=at,
        theirs=theirs,
        words=words,
        proof=proof,
        resultant=resultant,
        setting_states=words.SETTING_STATE,
        roles=words.ROLE,
        flaws=words.FLAW,
        kinds=words.ENTRY,
        refresh_seconds=CHECK_SECONDS if check else REFRESH_SECONDS,
    )


async def _told_now(page: Page[Any], client_id: str) -> dict[str, Any] | None:
    """Whether its client can be told something now, and how active it is; None without a client."""
    if not client_id:
        return None
    try:
        found: dict[str, Any] = await page.api.get(
            f"/api/v1/client-notifications/clients/{quote(client_id, safe='')}"
        )
    except Refused as error:
        if error.code != "client.not-found":
            raise
        return None
    return found


def _reach(page: Page[Any], told: Mapping[str, Any]) -> list[Fact]:
    channel, where = told["channel"], told["channel"]["location"]
    return [
        Fact(N_("Online"), channel["online"]),
        Fact(N_("Asked the site last"), _time(channel["asked_at"])),
        Fact(
            N_("Network, by its own account"),
            page.language.text(words.NETWORK.get(where["network"], "")),
        ),
        Fact(N_("Why it thinks so"), page.language.said(where["reason"])),
        Fact(N_("Since"), _time(where["since"])),
    ]


def _active(told: Mapping[str, Any]) -> list[Fact]:
    activity = told["activity"]
    return [
        Fact(N_("Active in the last seven days"), activity["active"]),
        Fact(N_("Last policy request"), _time(activity["policy_at"])),
        Fact(N_("Last heartbeat"), _time(activity["heartbeat_at"])),
        Fact(N_("Last hardware inventory"), _time(activity["inventory_at"])),
        Fact(N_("Last status message"), _time(activity["state_at"])),
        Fact(N_("Last heard of"), _time(activity["seen_at"])),
    ]


async def _proof(page: Page[Any], device_id: str, check: bool) -> dict[str, Any] | None:
    """The device's ledger as the site has it, or None while there is none."""
    path = f"{DEVICES}/{quote(device_id, safe='')}/ledger"
    try:
        found: dict[str, Any] = await page.api.get(path, **({"check": "true"} if check else {}))
    except Refused as error:
        if error.code != "ledger.none":
            raise
        return None
    return found


def _account_of_tenant(found: Mapping[str, Any]) -> list[Fact]:
    told = found["mdm"] or found["directory"]
    if told is None:
        return [Fact(labels.ENROLLED, False)]
    return [
        Fact(labels.ENROLLED, found["device"]["mdm_enrolled"]),
        Fact(labels.ENROLLED_AT, _time(told.get("enrolled_at"))),
        Fact(labels.LAST_CHECK_IN, _time(told.get("checked_in_at"))),
        Fact(labels.OWNER, told.get("user", "")),
        Fact(N_("Licensed"), found["device"]["licensed"]),
        Fact(labels.DIRECTORY_ID, found["device"]["id"]),
        Fact(labels.MDM_ID, told.get("mdm_id", "")),
        Fact(labels.MODEL, told.get("model", "")),
        Fact(labels.SERIAL, told.get("serial_number", "")),
        Fact(labels.APP_OFFERED, found["device"]["app_offered"]),
        Fact(labels.MSI_INSTALLED, found["device"]["msi_installed"]),
    ]


def _account_of_site(found: Mapping[str, Any]) -> list[Fact]:
    client = found["client"]
    if client is None:
        return [Fact(labels.REGISTERED, False)]
    state = client["state"]
    return [
        Fact(labels.REGISTERED, True),
        Fact(labels.CLIENT_ID, client["id"]),
        Fact(labels.CLIENT_VERSION, client["client_version"]),
        Fact(labels.REGISTERED_AT, _time(client["registered_at"])),
        Fact(labels.BLOCKED, client["blocked"]),
        Fact(labels.LAST_POLICY, _time(client["policy_at"])),
        Fact(labels.POLICY_PRESENT, bool(state and state["policy_present"])),
        Fact(labels.LAST_STATE, _time(client["state_at"])),
        Fact(labels.FLAGS, str(state["flags"]) if state else ""),
        Fact(labels.WORKLOADS_APPLIED, "\n".join(_settings(_applied(found)))),
    ]


def _state(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the device last said of itself."""
    state = found["client"]["state"] if found["client"] else None
    return state if isinstance(state, Mapping) else {}


def _applied(found: Mapping[str, Any]) -> Mapping[str, Any]:
    applied = _state(found).get("applied")
    return applied if isinstance(applied, Mapping) else {}


def _facts(found: Mapping[str, Any]) -> list[Fact]:
    """The compliance facts, which a device tells its site while compliance is the site's."""
    told = _state(found).get("facts") or {}
    if not told:
        return []
    return [
        Fact(N_("Operating system"), told.get("os_name", "")),
        Fact(N_("Version"), told.get("os_version", "")),
        Fact(N_("Disk encryption"), _known(told, "encryption")),
        Fact(N_("Firewall"), _known(told, "firewall")),
    ]


def _known(told: Mapping[str, str], name: str) -> str:
    """The device's word with its evidence: yes, no or unknown, and by what it knows."""
    return f"{told.get(name, '')} ({told.get(name + '_by', '')})"


def _in_force(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each setting that the device says is in force: its name, value and whose it is."""
    return [
        (name, str(value.get("value", "")), str(value.get("source", "")))
        for name, value in _applied(found).items()
        if isinstance(value, Mapping)
    ]


def _settings(applied: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} = {value.get('value', '')} ({value.get('source', '')})"
        for name, value in applied.items()
        if isinstance(value, Mapping)
    ]


def _timeline(found: Mapping[str, Any]) -> list[Line]:
    """The newest first; what is said several times in a row is one line that counts."""
    mdm = words.AUTHORITY["mdm"]
    said = [
        *(Line(_at(e["at"]), mdm, e["text"], e["failed"]) for e in found["tenant_timeline"]),
        *(
            Line(
                _at(e["at"]),
                SITE,
                e["text"],
                e["topic"] == SETUP_TOPIC and e["state"] in FAILED_SETUP,
            )
            for e in found["timeline"]
        ),
    ]
    lines: list[Line] = []
    for item in sorted(said, key=lambda one: one.at, reverse=True):
        last = lines[-1] if lines else None
        if last and (last.source, last.text, last.failed) == (item.source, item.text, item.failed):
            lines[-1] = msgspec.structs.replace(last, times=last.times + 1)
        else:
            lines.append(item)
    return lines


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time(text: str | None) -> datetime | None:
    return _at(text) if text else None


def _logs(entries: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What the device itself wrote, as far as its messages carry it."""
    setup, handler = [], []
    for entry in entries:
        moment = f"{_at(entry['at']):%Y-%m-%d %H:%M:%S}"
        if entry["topic"] == SETUP_TOPIC:
            setup.append(f"{moment}  {_line(entry['data']) or entry['text']}")
        elif entry["topic"] == COMANAGEMENT_TOPIC:
            handler.append(f"{moment}  {entry['text']}{_told(entry['data'])}")
    named = (("ccmsetup.log", setup), ("CoManagementHandler.log", handler))
    return [(name, "\n".join(lines)) for name, lines in named if lines]


def _line(data: Mapping[str, Any]) -> str:
    return next((str(data[key]) for key in ("log", "line", "text", "detail") if data.get(key)), "")


def _told(data: Mapping[str, Any]) -> str:
    """What a co-management message carries, on one line."""
    said = [f"workload flags {data['flags']}"] if "flags" in data else []
    applied = data.get("applied")
    said += _settings(applied) if isinstance(applied, Mapping) else []
    said += [f"{name} {data[name]}" for name in ("code", "hresult", "message") if data.get(name)]
    return f": {', '.join(said)}" if said else ""
