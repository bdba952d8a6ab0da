"""Wizards: described as steps of fields, and walked the same way each.

    GET  /console/wizards/{key}                     own open drafts, or a new one
    GET  /console/wizards/{key}/{draft}/{step}      the step, as it stands
    POST                                            checked: 303 to the next, 422 in place
    POST …/{step}/check/{field}                     one field, while it is typed (htmx)
    GET  …/{step}/options/{field}                   what a picker finds (htmx)
    POST …/{draft}/finish, …/{draft}/discard

A later step cannot be entered before the earlier ones were accepted, and one that is changed asks
for those behind it again. A draft is finished once, whatever is sent twice.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from tandem.console.drafts import Draft
from tandem.console.fields import Field, Problem, Upload, drawn, names, offered, read
from tandem.console.labels import N_
from tandem.console.model import Fact, NotSignedIn, UnknownPage
from tandem.console.pages import ROOT, Console, Page
from tandem.infra.errors import HTTP_STATUS, AppError

SUMMARY = "summary"
# What a draft is asked again at the end is what was accepted; a cookie cannot say more than this.
MOST_FILE_BYTES = 2_000_000
UNFINISHED = N_("Finish this step first.")

Work = Callable[[Page[Any], Draft], Awaitable[Any]]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a wizard. `check` sees the draft with this step's answers in it, raises Problem
    or any AppError, and may do what "Next" does; what it puts into the draft is kept."""

    key: str
    title: str
    fields: tuple[Field, ...] = ()
    intro: str = ""
    template: str = "wizard_step.html"
    load: Callable[[Page[Any], Draft], Awaitable[Mapping[str, Any]]] | None = None
    check: Work | None = None
    when: Callable[[Draft], bool] | None = None
    # What the button says, where it does something.
    next_label: str = N_("Next")


class Outcome(msgspec.Struct, frozen=True):
    """What was done, in a sentence, and the page that shows it."""

    said: str
    path: str
    values: Mapping[str, Any] = {}


class Wizard(msgspec.Struct, frozen=True, kw_only=True):
    """`command` is the equivalent command line; it names no secret."""

    key: str
    title: str
    steps: tuple[Step, ...]
    summary: Callable[[Page[Any], Draft], Awaitable[list[Fact]]]
    finish: Callable[[Page[Any], Draft], Awaitable[Outcome]]
    command: Callable[[Page[Any], Draft], Awaitable[str]] | None = None
    back: str = f"{ROOT}/"
    intro: str = ""
    finish_label: str = N_("Finish")

    def shown(self, draft: Draft) -> list[Step]:
        return [step for step in self.steps if step.when is None or step.when(draft)]


def url(wizard: Wizard, draft: Draft, step: str) -> str:
    return f"{ROOT}/wizards/{wizard.key}/{draft.id}/{step}"


def routes(console: Console[Any], wizard: Wizard) -> list[BaseRoute]:
    walk = _Walk(wizard)
    base = f"{ROOT}/wizards/{wizard.key}"
    one = f"{base}/{{draft}}"
    return [
        console.route(base, walk.start),
        console.route(base, walk.anew, post=True),
        console.route(f"{one}/finish", walk.finish, post=True),
        console.route(f"{one}/discard", walk.discard, post=True),
        console.route(f"{one}/{{step}}", walk.show),
        console.route(f"{one}/{{step}}", walk.answer, post=True),
        console.route(f"{one}/{{step}}/check/{{field}}", walk.check, post=True),
        console.route(f"{one}/{{step}}/options/{{field}}", walk.options),
    ]


class _Walk:
    def __init__(self, wizard: Wizard) -> None:
        self._wizard = wizard

    # ------------------------------------------------------------------ beginning

    async def start(self, page: Page[Any]) -> Response:
        """Drafts that wait for their owner, or the first step of a new one."""
        waiting = await page.drafts.open_ones(self._wizard.key, page.session.user)
        if not waiting:
            return await self._begin(page, page.request.query_params)
        rows = [
            (draft, self._first_open(draft), url(self._wizard, draft, self._first_open(draft)))
            for draft in waiting
        ]
        return page.render(
            "wizard_start.html",
            wizard=self._wizard,
            rows=rows,
            titles={
                SUMMARY: N_("Summary"),
                **{step.key: step.title for step in self._wizard.steps},
            },
            prefilled=dict(page.request.query_params),
        )

    async def anew(self, page: Page[Any]) -> Response:
        return await self._begin(page, await page.form())

    async def _begin(self, page: Page[Any], given: Mapping[str, str]) -> Response:
        values: dict[str, Any] = {}
        for step in self._wizard.steps:
            for item in step.fields:
                values[item.name] = item.initial()
                if item.name in given and not item.secret and item.kind not in ("file", "password"):
                    text = given[item.name][: item.limit].replace("\0", "")
                    values[item.name] = [text] if item.listed else text
        values = {k: v for k, v in values.items() if _storable(v)}
        draft = await page.drafts.begin(
            self._wizard.key, page.session.user, page.session.token, values
        )
        return RedirectResponse(url(self._wizard, draft, self._first_open(draft)), 303)

    def _first_open(self, draft: Draft) -> str:
        for step in self._wizard.shown(draft):
            if step.key not in draft.passed:
                return step.key
        return SUMMARY

    # ------------------------------------------------------------------ walking

    async def show(self, page: Page[Any]) -> Response:
        draft = await self._draft(page)
        if draft.outcome is not None:
            return RedirectResponse(str(draft.outcome["path"]), 303)
        key = page.request.path_params["step"]
        if key == SUMMARY:
            first = self._first_open(draft)
            if first != SUMMARY:
                return page.to(url(self._wizard, draft, first), UNFINISHED)
            return await self._summary(page, draft)
        step = self._step(draft, key)
        if not self._enterable(draft, step):
            return page.to(url(self._wizard, draft, self._first_open(draft)), UNFINISHED)
        await page.drafts.adopt(draft, page.session.token)
        return await self._draw(page, draft, step, {}, 200)

    async def answer(self, page: Page[Any]) -> Response:
        await self._keep_of_ended_session(page)
        form = await page.form(MOST_FILE_BYTES)
        draft = await self._draft(page)
        if draft.outcome is not None:
            return RedirectResponse(str(draft.outcome["path"]), 303)
        step = self._step(draft, page.request.path_params["step"])
        if not self._enterable(draft, step):
            return page.to(url(self._wizard, draft, self._first_open(draft)), UNFINISHED)
        before = msgspec.json.encode(
            {item.name: draft.values.get(item.name) for item in step.fields}
        )
        problems = await self._take(page, draft, step, form)
        searching = next((name for name in form if name.endswith("--search")), None)
        if searching:
            # Without a script, a picker's search is a step sent with its own button.
            await page.drafts.save(draft, page.session.token)
            return await self._draw(page, draft, step, {}, 200)
        changed = before != msgspec.json.encode(
            {item.name: draft.values.get(item.name) for item in step.fields}
        )
        self._reopen(draft, step, behind=changed)
        await page.drafts.save(draft, page.session.token)
        if not problems and step.check is not None:
            try:
                await step.check(page, draft)
            except NotSignedIn:
                raise
            except AppError as error:
                await page.drafts.save(draft, page.session.token)
                return await self._draw(page, draft, step, _placed(step, error), _status(error))
        if problems:
            return await self._draw(page, draft, step, problems, 422)
        draft.passed.append(step.key)
        await page.drafts.save(draft, page.session.token)
        return RedirectResponse(url(self._wizard, draft, self._after(draft, step)), 303)

    async def _take(
        self, page: Page[Any], draft: Draft, step: Step, form: Mapping[str, str]
    ) -> dict[str, AppError]:
        """The answers into the draft; what is wrong with them by field."""
        values, problems = read(step.fields, form, page.form_lists, page.files)
        for item in step.fields:
            value = values[item.name]
            if item.kind == "file":
                if isinstance(value, Upload):
                    draft.keep_file(item.name, value)
                elif item.required and item.shown(draft.values) and not draft.file(item.name):
                    problems[item.name] = Problem(item.name, N_("Choose a file."))
            elif item.secret:
                if value:
                    draft.keep_secret(item.name, value)
                elif draft.has_secret(item.name):
                    problems.pop(item.name, None)
            else:
                draft.values[item.name] = value
                if item.kind == "picker":
                    known = draft.values.get(f"{item.name}--names") or {}
                    draft.values[f"{item.name}--names"] = {
                        key: name
                        for key, name in {**known, **names(item, page.form_lists)}.items()
                        if key in (value if item.listed else [value])
                    }
        for item in step.fields:
            if item.check is not None and item.name not in problems and item.shown(draft.values):
                given = draft.secret(item.name) if item.secret else draft.values.get(item.name)
                if item.kind == "file":
                    given = draft.file(item.name)
                if given in (None, "", []):
                    continue
                try:
                    await item.check(page, draft, given)
                except AppError as error:
                    problems[item.name] = error
        return problems

    async def check(self, page: Page[Any]) -> Response:
        """One field while somebody types. What is typed is kept; nothing is accepted by it."""
        await self._keep_of_ended_session(page)
        form = await page.form(MOST_FILE_BYTES)
        draft = await self._draft(page)
        step = self._step(draft, page.request.path_params["step"])
        item = self._field(step, page.request.path_params["field"])
        values, problems = read(step.fields, form, page.form_lists)
        problem: AppError | None = problems.get(item.name)
        typed = {
            one.name: values[one.name]
            for one in step.fields
            if not one.secret and one.kind not in ("file", "password", "picker")
        }
        draft.values.update(typed)
        given = values.get(item.name)
        if problem is None and item.check is not None and given not in (None, "", []):
            try:
                await item.check(page, draft, given)
            except AppError as error:
                problem = error
        await page.drafts.keep_typed(draft.id, draft.kind, page.session.token, typed)
        good = problem is None and item.check is not None and given not in (None, "", [])
        return page.render("_field_said.html", item=item, wrong=problem, good=good)

    async def options(self, page: Page[Any]) -> Response:
        draft = await self._draft(page)
        step = self._step(draft, page.request.path_params["step"])
        item = self._field(step, page.request.path_params["field"])
        query = page.request.query_params.get(f"{item.name}--query", "")[:100].replace("\0", "")
        found = await offered(page, item, draft, query)
        return page.render("_picker_found.html", item=item, found=found, query=query)

    # ------------------------------------------------------------------ ending

    async def finish(self, page: Page[Any]) -> Response:
        await page.form()
        draft = await self._draft(page)
        if draft.outcome is not None:
            return RedirectResponse(str(draft.outcome["path"]), 303)
        first = self._first_open(draft)
        if first != SUMMARY:
            return page.to(url(self._wizard, draft, first), UNFINISHED)
        if not await page.drafts.claim(draft):
            return page.to(
                url(self._wizard, draft, SUMMARY), N_("This is being done already: wait a moment.")
            )
        try:
            outcome = await self._wizard.finish(page, draft)
        except NotSignedIn:
            await page.drafts.release(draft)
            raise
        except AppError as error:
            await page.drafts.release(draft)
            await page.drafts.save(draft, page.session.token)
            return await self._summary(page, draft, error)
        except BaseException:
            await page.drafts.release(draft)
            raise
        await page.drafts.finish(draft, {"path": outcome.path})
        return page.to(outcome.path, outcome.said, **outcome.values)

    async def discard(self, page: Page[Any]) -> Response:
        await page.form()
        draft = await self._draft(page)
        await page.drafts.discard(draft)
        return page.to(self._wizard.back, N_("The draft was discarded; nothing was changed."))

    # ------------------------------------------------------------------ drawing

    async def _draw(
        self,
        page: Page[Any],
        draft: Draft,
        step: Step,
        problems: Mapping[str, AppError],
        status: int,
    ) -> Response:
        loaded: Mapping[str, Any] = {}
        general = problems.get("")
        if step.load is not None:
            try:
                loaded = await step.load(page, draft)
            except NotSignedIn:
                raise
            except AppError as error:
                general = general or error
        here = url(self._wizard, draft, step.key)
        fields = await drawn(
            page,
            step.fields,
            draft.values,
            {name: problem for name, problem in problems.items() if name},
            draft=draft,
            check_url=f"{here}/check",
            options_url=f"{here}/options",
            lists=page.form_lists,
            form=page.form_values,
        )
        return page.render(
            step.template,
            status,
            **self._frame(draft, step.key),
            step=step,
            fields=fields,
            general=general,
            here_url=here,
            previous=self._before(draft, step),
            multipart=any(item.kind == "file" for item in step.fields),
            **loaded,
        )

    async def _summary(
        self, page: Page[Any], draft: Draft, error: AppError | None = None
    ) -> Response:
        facts, command = [], ""
        try:
            facts = await self._wizard.summary(page, draft)
            if self._wizard.command is not None:
                command = await self._wizard.command(page, draft)
        except NotSignedIn:
            raise
        except AppError as problem:
            error = error or problem
        shown = self._wizard.shown(draft)
        wrong = ""
        if error is not None:
            at = str(error.details.get("field", ""))
            wrong = next(
                (
                    url(self._wizard, draft, step.key)
                    for step in shown
                    if any(item.name == at for item in step.fields)
                ),
                "",
            )
        return page.render(
            "wizard_summary.html",
            _status(error) if error else 200,
            **self._frame(draft, SUMMARY),
            facts=facts,
            command=command,
            error=error,
            wrong=wrong,
            previous=url(self._wizard, draft, shown[-1].key) if shown else "",
            finish_url=f"{ROOT}/wizards/{self._wizard.key}/{draft.id}/finish",
        )

    def _frame(self, draft: Draft, current: str) -> dict[str, Any]:
        shown = self._wizard.shown(draft)
        steps = [
            (
                step.title,
                url(self._wizard, draft, step.key) if self._enterable(draft, step) else "",
                "current" if step.key == current else "done" if step.key in draft.passed else "",
            )
            for step in shown
        ]
        ready = self._first_open(draft) == SUMMARY
        steps.append(
            (
                N_("Summary"),
                url(self._wizard, draft, SUMMARY) if ready else "",
                "current" if current == SUMMARY else "",
            )
        )
        number = next(i for i, step in enumerate(steps, 1) if step[2] == "current")
        return {
            "wizard": self._wizard,
            "draft": draft,
            "steps": steps,
            "step_number": number,
            "discard_url": f"{ROOT}/wizards/{self._wizard.key}/{draft.id}/discard",
        }

    # ------------------------------------------------------------------ the order of steps

    async def _draft(self, page: Page[Any]) -> Draft:
        return await page.drafts.get(
            page.request.path_params["draft"], self._wizard.key, page.session.user
        )

    def _step(self, draft: Draft, key: str) -> Step:
        for step in self._wizard.shown(draft):
            if step.key == key:
                return step
        raise UnknownPage(N_("This wizard has no such step."), cure=N_("Start the wizard anew."))

    def _field(self, step: Step, name: str) -> Field:
        for item in step.fields:
            if item.name == name:
                return item
        raise UnknownPage(N_("This step has no such field."))

    def _enterable(self, draft: Draft, step: Step) -> bool:
        for earlier in self._wizard.shown(draft):
            if earlier.key == step.key:
                return True
            if earlier.key not in draft.passed:
                return False
        return False

    def _reopen(self, draft: Draft, step: Step, *, behind: bool) -> None:
        keys = [one.key for one in self._wizard.steps]
        at = keys.index(step.key)
        gone = set(keys[at:]) if behind else {step.key}
        draft.passed = [key for key in draft.passed if key not in gone]

    def _after(self, draft: Draft, step: Step) -> str:
        shown = [one.key for one in self._wizard.shown(draft)]
        at = shown.index(step.key)
        return shown[at + 1] if at + 1 < len(shown) else SUMMARY

    def _before(self, draft: Draft, step: Step) -> str:
        shown = [one.key for one in self._wizard.shown(draft)]
        at = shown.index(step.key)
        return url(self._wizard, draft, shown[at - 1]) if at else ""

    async def _keep_of_ended_session(self, page: Page[Any]) -> None:
        """A session that ended while a form was filled in loses nothing that was typed."""
        if page.signed_in:
            return
        form = await page.form(MOST_FILE_BYTES, ended=True)
        key = page.request.path_params["step"]
        step = next((one for one in self._wizard.steps if one.key == key), None)
        if step is not None:
            values, _ = read(step.fields, form, page.form_lists)
            typed = {
                item.name: values[item.name]
                for item in step.fields
                if not item.secret and item.kind not in ("file", "password")
            }
            await page.drafts.keep_typed(
                page.request.path_params["draft"], self._wizard.key, page.cookie, typed
            )
        raise NotSignedIn(
            N_("Your session has ended. Sign in again: what you typed is kept."),
            cure=N_("Sign in again."),
        )


def _placed(step: Step, error: AppError) -> dict[str, AppError]:
    """At the field it names, when this step has that; else above all fields."""
    at = str(error.details.get("field", ""))
    return {at if any(item.name == at for item in step.fields) else "": error}


def _status(error: AppError) -> int:
    status = HTTP_STATUS[error.kind]
    return 422 if status == 400 else status


def _storable(value: Any) -> bool:
    return isinstance(value, str | int | bool | list) or value is None


def start_url(key: str, **values: str) -> str:
    return f"{ROOT}/wizards/{key}" + (f"?{urlencode(values)}" if values else "")
