"""A form on a page of its own: drawn, answered, refused in place with what was typed."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.responses import Response

from tandem.console.areas.directory import asking
from tandem.console.kit import (
    CHANGED,
    N_,
    ROOT,
    Field,
    NotSignedIn,
    Page,
    UnknownPage,
    Values,
    drawn,
    field,
    offered,
    read,
)
from tandem.infra.errors import HTTP_STATUS, AppError

PICK = f"{ROOT}/directory/pick"
# Pickers of pages, by the name of their field.
PICKERS = {
    "user": asking.users,
    "users": asking.users,
    "groups": asking.groups,
    "mam_groups": asking.groups,
    "members": asking.members,
    "holder": asking.users,
}
CHANGED_MEANWHILE = N_(
    "Somebody else changed this meanwhile. What you typed is below; save it once more to keep it."
)


async def pick(page: Page[Any]) -> Response:
    """What a picker finds while somebody types (htmx)."""
    name = page.request.path_params["field"]
    if name not in PICKERS:
        raise UnknownPage(N_("There is no such page."))
    item = field(name, name, "picker", options=PICKERS[name], several=name != "user")
    text = asking.query(page, f"{name}--query")
    found = await offered(page, item, None, text)
    return page.render("_picker_found.html", item=item, found=found, query=text)


async def show(
    page: Page[Any],
    fields: Sequence[Field],
    values: Mapping[str, Any],
    problems: Mapping[str, AppError] | None = None,
    *,
    title: str,
    label: str,
    back: str,
    place: tuple[str, str],
    intro: str = "",
    version: str = "",
    general: AppError | None = None,
    warning: str = "",
    status: int = 200,
    template: str = "directory/form.html",
    **more: Any,
) -> Response:
    """`place` is the list that the page belongs to: its path and title, for the breadcrumb."""
    shown = await drawn(
        page,
        fields,
        values,
        problems,
        options_url=PICK,
        lists=page.form_lists,
        form=page.form_values,
    )
    return page.render(
        template,
        status,
        fields=shown,
        heading=title,
        intro=intro,
        label=label,
        back=back,
        place=place,
        etag=version,
        general=general,
        warning=warning,
        multipart=any(item.kind == "file" for item in fields),
        **more,
    )


async def answers(
    page: Page[Any], fields: Sequence[Field]
) -> tuple[Values, dict[str, AppError], bool]:
    """What was typed, what is wrong with it, and whether a picker's search was meant only."""
    form = await page.form()
    values, problems = read(fields, form, page.form_lists, page.files)
    if any(name.endswith("--search") for name in form):
        return values, {}, True
    for item in fields:
        value = values.get(item.name)
        if item.check is None or item.name in problems or value in (None, "", []):
            continue
        if not item.shown(values):
            continue
        try:
            await item.check(page, None, value)
        except NotSignedIn:
            raise
        except AppError as error:
            problems[item.name] = error
    return values, problems, False


def placed(error: AppError, fields: Sequence[Field], names: Mapping[str, str] | None = None) -> str:
    """The field that a refusal of Graph is about, or nothing: then it stands above all fields."""
    at = str(error.details.get("field", ""))
    at = (names or {}).get(at, at)
    return at if any(item.name == at for item in fields) else ""


def status_of(error: AppError) -> int:
    if error.code == CHANGED:
        return 409
    status = HTTP_STATUS[error.kind]
    return 422 if status == 400 else status


async def filled(
    page: Page[Any],
    fields: Sequence[Field],
    values: Mapping[str, Any],
    work: Callable[[Values], Awaitable[Response]],
    *,
    names: Mapping[str, str] | None = None,
    at: str = "",
    version: str = "",
    **shown: Any,
) -> Response:
    """A form with its work: drawn with `values`, and once it is answered, done; what is refused comes
    back in place. `names` are the fields by what Graph calls them, `at` is the one that any refusal
    is about, `version` the ETag of what `values` were read from, `shown` what `show` takes."""
    problems: dict[str, AppError] = {}
    general: AppError | None = None
    warning, status = "", 200
    if page.request.method == "POST":
        values, problems, searching = await answers(page, fields)
        status = 422 if problems else 200
        if not problems and not searching:
            try:
                return await work(values)
            except NotSignedIn:
                raise
            except AppError as error:
                status = status_of(error)
                if error.code == CHANGED:
                    # The form is made from what there is now: sent once more, it holds.
                    warning = CHANGED_MEANWHILE
                else:
                    field_of = at or placed(error, fields, names)
                    problems, general = ({field_of: error}, None) if field_of else ({}, error)
                    version = page.form_values.get("version", "") or version
    return await show(
        page,
        fields,
        values,
        problems,
        version=version,
        general=general,
        warning=warning,
        status=status,
        **shown,
    )
