"""The story: entries of the audit log in sentences, with what devices did between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from tandem import audit
from tandem.site.clients import Milestone
from tandem.site.guide.model import Happened, Said
from tandem.workloads import Workload

# What an administrator did, by action. Sign-ins and scripts' calls are no part of the story.
DID = {
    "azure-service.create": "%(who)s made the Azure service %(what)s",
    "azure-service.create-server-app": "%(who)s registered the server app in the tenant",
    "azure-service.create-client-app": "%(who)s registered the native client app in the tenant",
    "azure-service.import-server-app": "%(who)s imported the server app",
    "azure-service.import-client-app": "%(who)s imported the native client app",
    "azure-service.renew-secret": "%(who)s renewed the server app's secret",
    "azure-service.update-apps": "%(who)s updated the settings of the apps in the tenant",
    "azure-service.delete": "%(who)s deleted the Azure service %(what)s",
    "discovery.enable": "%(who)s enabled user discovery",
    "discovery.disable": "%(who)s disabled user discovery",
    "discovery.run": "%(who)s ran full discovery",
    "discovery.run-delta": "%(who)s ran delta discovery",
    "discovery.run-groups": "%(who)s ran discovery of groups",
    "discovery.groups": "%(who)s changed whether and when groups are discovered",
    "discovery.choose-groups": "%(who)s chose the group %(what)s for discovery",
    "discovery.remove-group": "%(who)s took the group %(what)s out of discovery",
    "discovery.schedule": "%(who)s changed when discovery of users runs",
    "certificate.request": "%(who)s requested a certificate for %(what)s",
    "certificate.import": "%(who)s imported the certificate of %(what)s",
    "certificate.import-pfx": "%(who)s imported a PFX for %(what)s",
    "certificate.export": "%(who)s exported the certificate of %(what)s as PFX",
    "certificate.remove": "%(who)s removed the working copy of %(what)s",
    "gateway.create": "%(who)s created the gateway %(what)s",
    "gateway.start": "%(who)s started the gateway %(what)s",
    "gateway.stop": "%(who)s stopped the gateway %(what)s",
    "gateway.delete": "%(who)s deleted the gateway %(what)s",
    "connection-point.add": "%(who)s added the connection point %(what)s",
    "connection-point.remove": "%(who)s removed the connection point %(what)s",
    "management-point.allow-gateway": "%(who)s allowed gateway traffic",
    "management-point.deny-gateway": "%(who)s stopped gateway traffic",
    "client-settings.change": "%(who)s changed the default client settings",
    "comanagement.enable": "%(who)s enabled co-management, or changed whom the site enrols",
    "collection.create": "%(who)s made the collection %(what)s",
    "configuration.create": "%(who)s deployed the configuration %(what)s",
    "configuration.delete": "%(who)s took back the configuration %(what)s",
    "administrator.add": "%(who)s made %(what)s an administrator",
    "administrator.remove": "%(who)s removed the administrator %(what)s",
}
MOVED = {
    "site": "%(who)s moved %(workload)s back to the site",
    "pilot": "%(who)s moved %(workload)s to the MDM service for the pilot %(collection)s",
    "mdm": "%(who)s moved %(workload)s to the MDM service for all",
}
REGISTERED = "%(count)s devices registered with the site"
CO_MANAGED = "%(count)s devices became co-managed"
FOLLOWED = "%(count)s devices reported who owns their workloads now"
ONE = {
    REGISTERED: "One device registered with the site",
    CO_MANAGED: "One device became co-managed",
    FOLLOWED: "One device reported who owns its workloads now",
}


def told(
    entries: Iterable[audit.Entry], news: Sequence[Milestone], collections: Mapping[str, str]
) -> list[Happened]:
    """The newest first. Devices are counted once for each stretch between two entries."""
    done = sorted(
        (line for entry in entries if (line := _did(entry, collections))), key=lambda one: one.at
    )
    lines: list[Happened] = []
    known: set[str] = set()  # Devices that are co-managed already.
    waiting = sorted(news, key=lambda one: one.at)
    for line in [*done, None]:
        until = line.at if line else None
        stretch = [one for one in waiting if until is None or one.at < until]
        waiting = waiting[len(stretch) :]
        lines += _devices(stretch, known)
        if line is not None:
            lines.append(line)
    return _counted(sorted(lines, key=lambda one: one.at, reverse=True))


def _did(entry: audit.Entry, collections: Mapping[str, str]) -> Happened | None:
    who, details = entry.actor, entry.details
    if entry.outcome != "done":
        return None
    if entry.action == "comanagement.switch":
        name = str(details.get("pilot", ""))
        values = {
            "who": who,
            "workload": _title(entry.target),
            "collection": collections.get(name, name),
            "to": str(details.get("to")),
        }
        message = MOVED.get(str(details.get("to")), MOVED["site"])
        said = Said(message, values)
    elif entry.action in DID:
        values = {"who": who, "what": str(details.get("name") or entry.target)}
        said = Said(DID[entry.action], values)
    else:
        return None
    return Happened(entry.at, who, said, entry.action, entry.target)


def _title(workload: str) -> str:
    try:
        return Workload(workload).title
    except ValueError:
        return workload


def _devices(stretch: Sequence[Milestone], known: set[str]) -> list[Happened]:
    registered: dict[str, datetime] = {}
    arrived: dict[str, datetime] = {}
    followed: dict[str, datetime] = {}
    for one in stretch:
        if one.registered:
            registered[one.device_id] = one.at
        elif one.device_id in arrived:
            continue
        elif one.device_id in known:
            followed[one.device_id] = one.at
        elif one.co_managed:
            arrived[one.device_id] = one.at
    known.update(arrived)
    lines = []
    for message, devices in ((REGISTERED, registered), (CO_MANAGED, arrived), (FOLLOWED, followed)):
        if devices:
            count = len(devices)
            text = Said(ONE[message]) if count == 1 else Said(message, {"count": count})
            first, last = min(devices.values()), max(devices.values())
            lines.append(Happened(first, "", text, count=count, until=last))
    return lines


def _counted(lines: Sequence[Happened]) -> list[Happened]:
    """The same sentence several times in a row is said once, from the first time to the last."""
    found: list[Happened] = []
    for line in lines:
        last = found[-1] if found else None
        if last is not None and not last.count and last.said.text == line.said.text:
            found[-1] = replace(line, until=last.until or last.at)
        else:
            found.append(line)
    return found
