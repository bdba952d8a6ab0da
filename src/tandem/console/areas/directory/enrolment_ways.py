"""How devices prove whose they are when they enrol, and tokens that enrol one device each."""

from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from tandem.console.areas.directory import asking, forms
from tandem.console.areas.directory.asking import GRAPH, key
from tandem.console.areas.directory.enrolment import ENROLMENT
from tandem.console.kit import N_, Console, Page, Values, field

WAYS = f"{ENROLMENT}/ways"
PLACE = (ENROLMENT, N_("Automatic enrolment"))
_OPTIONS = f"{GRAPH}/tandem/enrollmentOptions"
_TOKENS = f"{GRAPH}/tandem/enrollmentTokens"
_FIELDS = (
    field(
        "passwordEnrollment",
        N_("Enrolment with a user name and a password"),
        "checkbox",
        hint=N_(
            "For devices that can show no page. The password goes to the enrolment service itself, "
            "without a second factor: leave it off unless a device needs it. With terms of use it "
            "is not offered, because nobody could accept them."
        ),
    ),
    field(
        "termsOfUseEnglish",
        N_("Terms of use, in English"),
        "textarea",
        limit=20_000,
        hint=N_(
            "Plain text. Where there is one, whoever enrols a device has to accept it. Who accepted "
            "an older text accepts this one at the next enrolment."
        ),
    ),
    field("termsOfUseFrench", N_("Terms of use, in French"), "textarea", limit=20_000),
    field(
        "refusalText",
        N_("Text for users who may not enrol"),
        limit=500,
        hint=N_("Windows shows it instead of a number, for example whom to call."),
    ),
    field(
        "maintenance",
        N_("Closed for maintenance"),
        "checkbox",
        hint=N_("Devices are told to come back later. Enrolled devices go on as before."),
    ),
)
_NEW = (
    field(
        "user",
        N_("User"),
        "picker",
        required=True,
        options=asking.users,
        hint=N_("Whose device it is going to be."),
    ),
    field(
        "deviceName",
        N_("Name of the device"),
        limit=64,
        hint=N_("Left empty, a device of any name may use the token."),
    ),
    field(
        "lifetimeInMinutes",
        N_("Good for how many minutes"),
        "number",
        required=True,
        least=1,
        most=1440,
        default=15,
    ),
)


async def ways(page: Page[Any]) -> Response:
    chosen = await page.api.get(_OPTIONS)
    tokens = await asking.all_of(page, _TOKENS)

    async def work(values: Values) -> Response:
        change = {name: values[name] for name in chosen if name in values}
        different = {name: value for name, value in change.items() if value != chosen[name]}
        if different:
            await page.api.patch(_OPTIONS, different)
        return page.to(WAYS, N_("The settings were saved. They count from now on."))

    return await forms.filled(
        page,
        _FIELDS,
        {item.name: chosen[item.name] for item in _FIELDS},
        work,
        template="directory/enrolment_ways.html",
        title=page.language.text("How devices enrol"),
        label=page.language.text("Save"),
        back=ENROLMENT,
        place=PLACE,
        tokens=tokens,
        chosen=chosen,
        now=page.now.isoformat(),
        rights=await asking.rights(page),
    )


async def new_token(page: Page[Any]) -> Response:
    """A token; its text is on the answer and nowhere else."""

    async def work(values: Values) -> Response:
        made = await page.api.post(
            _TOKENS,
            {
                "user": values["user"],
                "deviceName": values["deviceName"],
                "lifetimeInMinutes": values["lifetimeInMinutes"],
            },
        )
        return page.render("directory/enrolment_token.html", made=made, back=WAYS)

    return await forms.filled(
        page,
        _NEW,
        {item.name: item.initial() for item in _NEW},
        work,
        title=page.language.text("New enrolment token"),
        label=page.language.text("Issue"),
        intro=page.language.text(
            "It enrols one device of this user without a sign-in, and is shown once."
        ),
        back=WAYS,
        place=(WAYS, N_("How devices enrol")),
    )


async def revoke(page: Page[Any]) -> Response:
    await page.api.delete(f"{_TOKENS}/{key(page)}")
    return page.to(WAYS, N_("The token is void."))


def routes(console: Console[Any]) -> list[BaseRoute]:
    return [
        console.route(WAYS, ways),
        console.route(WAYS, ways, post=True),
        console.route(f"{WAYS}/new-token", new_token),
        console.route(f"{WAYS}/new-token", new_token, post=True),
        console.route(f"{WAYS}/tokens/{{id}}/revoke", revoke, post=True),
    ]
