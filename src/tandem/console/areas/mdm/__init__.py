"""The MDM service's half of the tenant: apps and devices, policies, settings of co-management."""

from typing import Any

from starlette.routing import BaseRoute

from tandem.console.areas.mdm import (
    app_wizard,
    apps,
    assigning,
    certificate_profile,
    comanagement_settings,
    device_orders,
    devices,
    my_apps,
    policies,
    restrictions,
    settings,
    troubled,
)
from tandem.console.kit import N_, ROOT, Area, Console, Place


def routes(console: Console[Any]) -> list[BaseRoute]:
    app, device = f"{ROOT}/apps/{{app_id}}", f"{ROOT}/devices/{{device_id}}"
    restriction = f"{restrictions.BASE}/{{restriction_id}}"
    policy = f"{policies.BASE}/{{kind}}/{{policy_id}}"
    profile = f"{policies.BASE}/profiles/{{policy_id}}"
    shared = f"{comanagement_settings.BASE}/{{policy_id}}"
    catalogue = f"{policies.BASE}/catalogue/{{policy_id}}/settings"
    return [
        console.route(policies.BASE, policies.index),
        console.route(f"{profile}/edit", policies.edit),
        console.route(f"{profile}/edit", policies.save, post=True),
        console.route(f"{policies.BASE}/new-catalogue", settings.new),
        console.route(f"{policies.BASE}/new-catalogue", settings.create, post=True),
        console.route(catalogue, settings.choose),
        console.route(f"{catalogue}/{{definition}}", settings.setting),
        console.route(f"{catalogue}/{{definition}}", settings.save_setting, post=True),
        console.route(f"{catalogue}/{{definition}}/remove", settings.remove_setting, post=True),
        console.route(f"{profile}/oma/{{number}}", settings.oma),
        console.route(f"{profile}/oma/{{number}}", settings.save_oma, post=True),
        console.route(f"{profile}/oma/{{number}}/remove", settings.remove_oma, post=True),
        console.route(f"{policy}/status", settings.status),
        console.route(policy, policies.show),
        console.route(f"{policy}/assignments", policies.assignments),
        console.route(f"{policy}/assignments", policies.save_assignments, post=True),
        console.route(f"{policy}/history", policies.history),
        console.route(f"{policy}/delete", policies.delete),
        console.route(f"{policy}/delete", policies.delete, post=True),
        console.route(comanagement_settings.BASE, comanagement_settings.index),
        console.route(shared, comanagement_settings.edit),
        console.route(shared, comanagement_settings.save, post=True),
        console.route(f"{shared}/priority", comanagement_settings.move, post=True),
        console.route(f"{shared}/delete", comanagement_settings.delete),
        console.route(f"{shared}/delete", comanagement_settings.delete, post=True),
        console.route(restrictions.BASE, restrictions.index),
        console.route(restriction, restrictions.edit),
        console.route(restriction, restrictions.save, post=True),
        console.route(f"{restriction}/priority", restrictions.move, post=True),
        console.route(f"{restriction}/delete", restrictions.delete),
        console.route(f"{restriction}/delete", restrictions.delete, post=True),
        console.route(f"{ROOT}/devices", devices.index),
        console.route(f"{ROOT}/devices.csv", devices.export),
        console.route(f"{ROOT}/devices/bulk", devices.bulk, post=True),
        console.route(f"{device}/actions/{{action}}", devices.act),
        console.route(f"{device}/actions/{{action}}", devices.act, post=True),
        console.route(f"{device}/apps/{{app_id}}/request", devices.choose_app, post=True),
        console.route(f"{device}/apps/{{app_id}}/withdraw", devices.choose_app, post=True),
        console.route(f"{device}/properties", devices.properties),
        console.route(f"{device}/properties", devices.properties, post=True),
        console.route(f"{device}/delete", devices.delete_joined),
        console.route(f"{device}/delete", devices.delete_joined, post=True),
        console.route(device_orders.BASE, device_orders.index),
        console.route(
            f"{device_orders.BASE}/orders/{{order_id}}/cancel", device_orders.cancel, post=True
        ),
        console.route(
            f"{device_orders.BASE}/requests/{{request_id}}/{{step}}", device_orders.decide
        ),
        console.route(
            f"{device_orders.BASE}/requests/{{request_id}}/{{step}}",
            device_orders.decide,
            post=True,
        ),
        console.route(f"{device_orders.BASE}/safeguards", device_orders.safeguards),
        console.route(f"{device_orders.BASE}/safeguards", device_orders.safeguards, post=True),
        console.route(
            f"{device_orders.BASE}/safeguards/{{step}}", device_orders.decide_safeguards, post=True
        ),
        console.route(f"{device}/release", troubled.release),
        console.route(f"{device}/release", troubled.release, post=True),
        console.route(certificate_profile.BASE, certificate_profile.show),
        console.route(certificate_profile.BASE, certificate_profile.show, post=True),
        console.route(troubled.BASE, troubled.strays),
        console.route(f"{troubled.BASE}/{{device_id}}/leave", troubled.tell_to_leave),
        console.route(f"{troubled.BASE}/{{device_id}}/leave", troubled.tell_to_leave, post=True),
        console.route(f"{device}/configuration/why", settings.why),
        console.route(device, devices.show),
        console.route(f"{device}/{{tab}}", devices.show),
        console.route(f"{assigning.OPTIONS_URL}/{{field}}", assigning.pick),
        console.route(my_apps.BASE, my_apps.index, own=True),
        console.route(f"{my_apps.BASE}/request", my_apps.choose, post=True, own=True),
        console.route(f"{my_apps.BASE}/withdraw", my_apps.choose, post=True, own=True),
        console.route(f"{ROOT}/apps", apps.index),
        console.route(f"{ROOT}/apps/packages/{{draft}}", apps.to_list),
        console.route(f"{ROOT}/apps/packages/{{draft}}", app_wizard.receive, post=True),
        console.route(app, apps.overview),
        console.route(f"{app}/properties", apps.properties),
        console.route(f"{app}/properties", apps.save_properties, post=True),
        console.route(f"{app}/assignments", apps.assignments),
        console.route(f"{app}/assignments", apps.save_assignments, post=True),
        console.route(f"{app}/devices", apps.devices),
        console.route(f"{app}/devices.csv", apps.devices_csv),
        console.route(f"{app}/devices/{{device_id}}/again", apps.ask_again, post=True),
        console.route(f"{app}/users", apps.users),
        console.route(f"{app}/package", apps.package),
        console.route(f"{app}/package", apps.replace_package, post=True),
        console.route(f"{app}/publish", apps.publish, post=True),
        console.route(f"{app}/delete", apps.delete),
        console.route(f"{app}/delete", apps.delete, post=True),
    ]


AREA = Area(
    name="mdm",
    places=(
        Place(f"{ROOT}/devices", N_("Devices"), "laptop", N_("Devices")),
        Place(device_orders.BASE, N_("Device actions"), "history", N_("Devices")),
        Place(policies.BASE, N_("Policies"), "shield", N_("Devices")),
        Place(comanagement_settings.BASE, N_("Co-management settings"), "flow", N_("Devices")),
        Place(restrictions.BASE, N_("Enrolment restrictions"), "shield", N_("Devices")),
        Place(certificate_profile.BASE, N_("Certificate profile"), "certificate", N_("Devices")),
        Place(troubled.BASE, N_("Devices that left and call"), "warning", N_("Devices")),
        Place(f"{ROOT}/apps", N_("Apps"), "apps", N_("Apps")),
        Place(my_apps.BASE, N_("My apps"), "apps", N_("Apps"), own=True),
    ),
    routes=routes,
    wizards=(
        app_wizard.WIZARD,
        policies.WIZARD,
        comanagement_settings.WIZARD,
        *restrictions.WIZARDS,
    ),
    search=(devices.search, apps.search, policies.search),
    notices=(apps.notices, devices.notices, device_orders.notices, troubled.notices),
)
