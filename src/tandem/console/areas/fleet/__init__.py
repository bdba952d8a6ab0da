"""The site's devices and its dashboard: the list, what a tile counts, one device, many at once."""

from starlette.routing import BaseRoute

from tandem.console.areas.fleet import actions, dashboard, deleting, device, devices, leaving
from tandem.console.kit import N_, ROOT, Area, Console, Place


def _routes(console: Console) -> list[BaseRoute]:  # type: ignore[type-arg]
    one = f"{ROOT}/devices/{{device_id}}"
    return [
        console.route(f"{ROOT}/", dashboard.show),
        console.route(f"{ROOT}/devices", devices.show),
        console.route(f"{ROOT}/devices.csv", devices.export),
        console.route(f"{ROOT}/devices/action", actions.act, post=True),
        console.route(one, device.page_of("")),
        console.route(f"{one}/panel", device.panel),
        console.route(f"{one}/ledger", device.acknowledge, post=True),
        console.route(f"{one}/leave", leaving.show),
        console.route(f"{one}/leave", leaving.show, post=True),
        console.route(f"{one}/delete", deleting.show),
        console.route(f"{one}/delete", deleting.show, post=True),
        console.route(f"{one}/leave/{{action}}", leaving.act, post=True),
        *(console.route(f"{one}/{tab}", device.page_of(tab)) for tab in device.TABS if tab),
    ]


AREA = Area(
    name="fleet",
    places=(
        Place(f"{ROOT}/", N_("Co-management dashboard"), "flow", N_("Monitoring")),
        Place(f"{ROOT}/devices", N_("Devices"), "laptop", N_("Assets and compliance")),
    ),
    routes=_routes,
    notices=(dashboard.notices,),
)
