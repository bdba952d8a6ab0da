"""What happens between an authorization request and its answer: the pages, one after the other.

    authorize → (pick an account | sign in) → conditions → consent → back to the client
    devicelogin → code → (pick | sign in) → conditions → confirm → consent → done

What one page hands to the next travels sealed in a hidden field, bound to a cookie of the browser
that got the page; so a form that somebody else prepared or copied is refused. Who is signed in is
another cookie, whose value is new after every sign-in.
"""

import asyncio
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from tandem import audit
from tandem.infra.clock import Clock
from tandem.infra.database import Database, Tx
from tandem.infra.errors import AppError
from tandem.infra.secrets import Unsealable
from tandem.tenant import directory
from tandem.tenant.oidc import (
    authorize,
    browser,
    consent,
    grant_store,
    grants,
    pages,
    passwords,
    session_store,
    sign_ins,
    store,
)
from tandem.tenant.oidc.browser import Account
from tandem.tenant.oidc.conditions import Result
from tandem.tenant.oidc.model import Application, BadToken, Peer, Request
from tandem.tenant.oidc.refusals import OAuthError, spoken
from tandem.tenant.oidc.scopes import parse_scope
from tandem.tenant.oidc.tokens import Tokens
from tandem.tenant.oidc.words import translate

Form = dict[str, str]

_CONTEXT = "oidc.sign-in"
# Password checks that may hold a database connection at once, and that may wait for it.
_CHECKS, _WAITING = 4, 64
_MOST_WRONG_CODES = 10


class Transit(msgspec.Struct, frozen=True):
    """What the pages hand from one to the next."""

    request: Request
    browser: str
    until: int
    session_id: str = ""
    confirmed: bool = False
    changing: str = ""  # Who gave the right password, and has to choose a new one.


LOGIN, PICK = "login", "pick"


def choose(asked: Request, accounts: list[Account], now: datetime) -> Account | str:
    """Whose sign-in to use, or which page to show. Raises OAuthError for prompt=none
    (OpenID Connect Core 3.1.2.1)."""
    prompts = asked.prompt.split()
    hinted = [a for a in accounts if _is(a, asked.login_hint)] if asked.login_hint else accounts
    fresh = [a for a in hinted if is_fresh(asked, a, now)]
    if "none" in prompts:
        if not fresh:
            raise OAuthError(
                50058,
                "A silent sign-in request was sent but no user is signed in.",
                cure="Send the user to sign in without prompt=none.",
            )
        if len(fresh) > 1:
            raise OAuthError(
                16000,
                "Several accounts are signed in, and the request does not say which one to use.",
                cure="Send login_hint, or the user to pick one.",
            )
        return fresh[0]
    if "login" in prompts:
        return LOGIN
    if "select_account" in prompts:
        return PICK if accounts else LOGIN
    if asked.login_hint:
        return fresh[0] if fresh else LOGIN
    if len(accounts) == 1 and fresh:
        return fresh[0]
    return PICK if len(accounts) > 1 else LOGIN


def _is(account: Account, hint: str) -> bool:
    return account.user.user_principal_name.lower() == hint.lower()


def is_fresh(asked: Request, account: Account, now: datetime) -> bool:
    if asked.max_age is None:
        return True
    return now - account.session.signed_in_at <= timedelta(seconds=asked.max_age)


class Interaction:
    """The pages of one authority."""

    def __init__(
        self,
        database: Database,
        tokens: Tokens,
        now: Clock,
        settings: directory.DirectorySettings,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._now = now
        self._passwords = settings
        self._checks = asyncio.Semaphore(_CHECKS)
        self._waiting = 0
        self._secure = tokens.settings.base.startswith("https://")
        # With this prefix no other host of the domain can plant the cookie (RFC 6265bis, 4.1.3).
        prefix = "__Host-" if self._secure else ""
        self.form_cookie = f"{prefix}tandem_form"
        self.session_cookie = f"{prefix}tandem_session"

    # ------------------------------------------------------------------ authorize

    async def authorize(
        self, request: HttpRequest, query: Form, peer: Peer, here: directory.Tenant
    ) -> Response:
        now = self._now()
        async with self._database.transaction() as tx:
            asked, client = await authorize.check_client(tx, query)
            try:
                await authorize.check_request(tx, client, asked, query)
                return await self._begin(tx, request, asked, client, peer, here, now)
            except OAuthError as error:
                refusal = error
        return self._refuse(request, asked, refusal, here)

    async def _begin(
        self,
        tx: Tx,
        request: HttpRequest,
        asked: Request,
        client: Application,
        peer: Peer,
        here: directory.Tenant,
        now: datetime,
    ) -> Response:
        accounts = await self._accounts(tx, request, now)
        chosen = choose(asked, accounts, now)
        transit = self._transit(request, asked)
        if isinstance(chosen, Account):
            return await self._go_on(tx, request, transit, chosen, client, peer, here, now)
        if chosen == PICK:
            response = self._pick_page(request, here, transit, client, accounts)
        else:
            response = self._login_page(request, here, transit, client, asked.login_hint)
        return self._bind(response, transit)

    async def login(
        self, request: HttpRequest, form: Form, peer: Peer, here: directory.Tenant
    ) -> Response:
        transit, now = self._open(request, form), self._now()
        login, password = form.get("login", "").strip(), form.get("passwd", "")
        user = await self._check(login, password, peer, now)
        async with self._database.transaction() as tx:
            client, _ = await consent.client_of(tx, transit.request.app_id)
            if not isinstance(user, directory.User):
                refusal = spoken(user)
                response = self._login_page(
                    request, here, transit, client, login, refusal.text, _status(refusal)
                )
                if refusal.retry_after_seconds:
                    response.headers["Retry-After"] = str(refusal.retry_after_seconds)
                await self._log(tx, transit.request, client, peer, now, refusal, upn=login)
                return response
            if user.must_change_password:
                onward = msgspec.structs.replace(transit, changing=user.id)
                return self._change_page(request, here, onward, user)
            return await self._open_session(tx, request, transit, user, client, peer, here, now)

    async def _open_session(
        self,
        tx: Tx,
        request: HttpRequest,
        transit: Transit,
        user: directory.User,
        client: Application,
        peer: Peer,
        here: directory.Tenant,
        now: datetime,
    ) -> Response:
        value, account = await browser.sign_in(
            tx, self._cookie(request), user, now, self._tokens.settings
        )
        try:
            response = await self._go_on(tx, request, transit, account, client, peer, here, now)
        except OAuthError as error:
            response = self._refuse(request, transit.request, error, here)
        self._set(response, self.session_cookie, value)
        return response

    async def change_password(
        self, request: HttpRequest, form: Form, peer: Peer, here: directory.Tenant
    ) -> Response:
        """The page after the right password of somebody who has to choose a new one."""
        transit, now = self._open(request, form), self._now()
        if not transit.changing:
            raise OAuthError(16000, "Nobody has signed in here.", cure="Start again.")
        chosen = form.get("newpasswd", "")
        async with self._checks, self._database.transaction() as tx:
            client, _ = await consent.client_of(tx, transit.request.app_id)
            user = await directory.user(tx, transit.changing)
            if not user.must_change_password:
                # Done already, by this page or another: the password is asked for again.
                return self._login_page(request, here, transit, client, user.user_principal_name)
            try:
                if chosen != form.get("again", ""):
                    raise directory.BadValue("The two passwords differ.", cure="Type it twice.")
                await self._refuse_same(tx, user, chosen, now)
                await directory.set_password(tx, user.id, chosen, now, self._passwords)
            except directory.BadValue as error:
                return self._change_page(request, here, transit, user, spoken(error).text)
            user = await directory.update_user(tx, user.id, {"must_change_password": False}, now)
            await audit.record(
                tx,
                actor=f"user:{user.user_principal_name}",
                action="change own password",
                target=user.id,
                now=now,
            )
            onward = msgspec.structs.replace(transit, changing="")
            return await self._open_session(tx, request, onward, user, client, peer, here, now)

    async def _refuse_same(self, tx: Tx, user: directory.User, chosen: str, now: datetime) -> None:
        upn = user.user_principal_name
        async with tx.transaction(force_rollback=True):  # What it counts means nothing here.
            same = await directory.authenticate(tx, upn, chosen, now, self._passwords)
        if isinstance(same, directory.User):
            raise directory.BadValue("That is the old password.", cure="Choose another.")

    async def _check(
        self, login: str, password: str, peer: Peer, now: datetime
    ) -> directory.User | AppError:
        """Few at a time: hashing is slow on purpose, and the others need connections as well."""
        if self._waiting >= _WAITING:
            return OAuthError(90033, "Too many people are signing in.", cure="Try again.")
        self._waiting += 1
        try:
            async with self._checks, self._database.transaction() as tx:
                return await passwords.check(
                    tx, login, password, peer.address, now, self._tokens.settings, self._passwords
                )
        finally:
            self._waiting -= 1

    async def pick(
        self, request: HttpRequest, form: Form, peer: Peer, here: directory.Tenant
    ) -> Response:
        transit, now = self._open(request, form), self._now()
        async with self._database.transaction() as tx:
            client, _ = await consent.client_of(tx, transit.request.app_id)
            accounts = await self._accounts(tx, request, now)
            picked = [a for a in accounts if a.session.id == form.get("account")]
            if not picked:
                return self._login_page(request, here, transit, client)
            if not is_fresh(transit.request, picked[0], now):
                upn = picked[0].user.user_principal_name
                return self._login_page(request, here, transit, client, upn)
            try:
                return await self._go_on(tx, request, transit, picked[0], client, peer, here, now)
            except OAuthError as error:
                refusal = error
        return self._refuse(request, transit.request, refusal, here)

    # ------------------------------------------------------------------ after the sign-in

    async def _go_on(
        self,
        tx: Tx,
        request: HttpRequest,
        transit: Transit,
        account: Account,
        client: Application,
        peer: Peer,
        here: directory.Tenant,
        now: datetime,
    ) -> Response:
        """The next page for somebody who is signed in, or the answer to the client."""
        asked, user = transit.request, account.user
        resource, _ = await consent.resource_of(tx, parse_scope(asked.scope))
        decision = await grants.decide(
            tx, self._tokens, user, client, resource, peer, "interactive", now
        )
        if decision.result is not Result.GRANT:
            refusal = decision.refusal()
            await self._log(tx, asked, client, peer, now, refusal, user=user, decided=True)
            return self._refuse(request, asked, refusal, here)
        onward = msgspec.structs.replace(transit, session_id=account.session.id)
        if asked.device and not transit.confirmed:
            return self._bind(self._confirm_page(request, here, onward, client, user), onward)
        prompts = asked.prompt.split()
        missing = await consent.consent_needed(tx, asked, user, again="consent" in prompts)
        if missing is None:
            return await self._hand_over(tx, request, asked, account, client, peer, here, now)
        if "none" in prompts:
            raise OAuthError(
                65001,
                f"The user has not consented to {', '.join(missing.missing)}.",
                cure="Send the user to consent without prompt=none.",
                suberror="consent_required",
            )
        roles = await directory.roles_of(tx, user.id)
        if not consent.may_consent(missing, roles):
            refusal = OAuthError(
                90094,
                f"{client.display_name} needs permission to {', '.join(missing.missing)} that "
                "only an administrator can grant.",
                cure="Ask a Global Administrator to grant admin consent.",
            )
            await self._log(tx, asked, client, peer, now, refusal, user=user)
            return self._refuse(request, asked, refusal, here)
        response = self._page(
            request,
            "consent",
            here,
            target=asked.redirect_uri,
            action=f"/{here.id}/oauth2/consent",
            ctx=self._seal(onward),
            client=client.display_name,
            resource=missing.resource.display_name,
            scopes=missing.missing,
            upn=user.user_principal_name,
            administrator=directory.GLOBAL_ADMINISTRATOR in roles,
        )
        return self._bind(response, onward)

    async def consent(
        self, request: HttpRequest, form: Form, peer: Peer, here: directory.Tenant
    ) -> Response:
        transit, now = self._open(request, form), self._now()
        asked = transit.request
        async with self._database.transaction() as tx:
            client, _ = await consent.client_of(tx, asked.app_id)
            account = await self._signed_in(tx, request, transit, now)
            if form.get("decision") != "accept":
                refusal = OAuthError(
                    65004,
                    "User declined to consent to access the app.",
                    cure="Accept, to use it.",
                )
                await self._log(tx, asked, client, peer, now, refusal, user=account.user)
                await self._decline(tx, asked)
                return self._refuse(request, asked, refusal, here)
            try:
                again = "consent" in asked.prompt.split()
                missing = await consent.consent_needed(tx, asked, account.user, again=again)
                if missing is not None:
                    everybody = form.get("everybody") == "1"
                    await consent.accept(tx, missing, account.user, now, everybody=everybody)
                return await self._hand_over(tx, request, asked, account, client, peer, here, now)
            except OAuthError as error:
                return self._refuse(request, asked, error, here)

    async def _signed_in(
        self, tx: Tx, request: HttpRequest, transit: Transit, now: datetime
    ) -> Account:
        """The account that the page was shown to, if it is still signed in to this browser."""
        for account in await self._accounts(tx, request, now):
            if transit.session_id and account.session.id == transit.session_id:
                return account
        raise OAuthError(16000, "Nobody has signed in here.", cure="Start again.")

    async def _hand_over(
        self,
        tx: Tx,
        request: HttpRequest,
        asked: Request,
        account: Account,
        client: Application,
        peer: Peer,
        here: directory.Tenant,
        now: datetime,
    ) -> Response:
        user, session = account.user, account.session
        await browser.used(tx, account, now)
        await self._log(tx, asked, client, peer, now, None, user=user)
        if asked.device:
            await grant_store.decide_device_code(
                tx, asked.device, "approved", user.id, session.signed_in_at
            )
            return self._said(request, here, "You have signed in on your device")
        fields, code = [], ""
        if "code" in asked.response_type.split():
            code = await authorize.issue_code(
                tx, self._tokens, asked, user, session.id, session.signed_in_at, now
            )
            fields.append(("code", code))
        if "id_token" in asked.response_type.split():
            made = await grants.id_token(
                tx, self._tokens, here.id, client, user, session.signed_in_at, now, asked.nonce,
                session_id=session.id, code=code,
            )  # fmt: skip
            fields.append(("id_token", made))
        if asked.client_info:
            fields.append(("client_info", grants.client_info(user.id, here.id)))
        fields.append(("session_state", session.id))
        issuer = self._tokens.issuer(here.id, 2)
        return pages.answer(
            asked, fields, here.display_name, issuer, pages.language(request), pages.theme(request)
        )

    # ------------------------------------------------------------------ another device

    def device_page(
        self, request: HttpRequest, here: directory.Tenant, code: str = "", error: str = ""
    ) -> Response:
        """Where a person types the code that a device shows."""
        transit = self._transit(request, Request("", "", "", True))
        response = self._page(
            request,
            "device",
            here,
            400 if error else 200,
            action=f"/{here.id}/oauth2/device",
            ctx=self._seal(transit),
            code=code[:20],
            error=error,
        )
        return self._bind(response, transit)

    async def device(
        self, request: HttpRequest, form: Form, peer: Peer, here: directory.Tenant
    ) -> Response:
        self._open(request, form)
        now = self._now()
        async with self._database.transaction() as tx:
            try:
                since = now - timedelta(seconds=self._tokens.settings.address_window_seconds)
                wrong, _ = await session_store.failures(
                    tx, peer.address, 70018, since, _MOST_WRONG_CODES
                )
                if wrong >= _MOST_WRONG_CODES:
                    raise OAuthError(
                        50053, "Too many wrong codes came from this address.", cure="Wait a while."
                    )
                asked = await authorize.device_request(tx, form.get("otc", ""), now)
                client, _ = await consent.client_of(tx, asked.app_id)
                return await self._begin(tx, request, asked, client, peer, here, now)
            except OAuthError as error:
                if error.number == 70018:
                    values = {"number": 70018, "reason": error.message}
                    await sign_ins.record(
                        tx, sign_ins.entry("interactive", "", peer, now, **values)
                    )
                return self.device_page(request, here, error=error.text)

    async def confirm(
        self, request: HttpRequest, form: Form, peer: Peer, here: directory.Tenant
    ) -> Response:
        transit, now = self._open(request, form), self._now()
        async with self._database.transaction() as tx:
            account = await self._signed_in(tx, request, transit, now)
            client, _ = await consent.client_of(tx, transit.request.app_id)
            if form.get("decision") != "accept":
                await self._decline(tx, transit.request)
                return self._said(request, here, "The device was not signed in")
            onward = msgspec.structs.replace(transit, confirmed=True)
            try:
                return await self._go_on(tx, request, onward, account, client, peer, here, now)
            except OAuthError as error:
                return self._refuse(request, transit.request, error, here)

    async def _decline(self, tx: Tx, asked: Request) -> None:
        if asked.device:
            await grant_store.decide_device_code(tx, asked.device, "declined", None, None)

    # ------------------------------------------------------------------ sign-out

    async def sign_out(self, request: HttpRequest, query: Form, here: directory.Tenant) -> Response:
        """End the browser's sessions. Only a registered address is redirected to."""
        now = self._now()
        target = query.get("post_logout_redirect_uri", "")
        async with self._database.transaction() as tx:
            await browser.sign_out(tx, self._cookie(request), now)
            app_id = query.get("client_id", "")
            if query.get("id_token_hint"):
                app_id = await self._hinted(tx, query["id_token_hint"])
            known = target and await store.redirect_is_registered(tx, target, app_id)
        if known:
            state = query.get("state", "")
            mark = "&" if "?" in target else "?"
            response = pages.redirect(
                f"{target}{mark}{urlencode({'state': state})}" if state else target
            )
        else:
            response = self._said(request, here, "You are signed out")
        response.delete_cookie(
            self.session_cookie, path="/", secure=self._secure, httponly=True, samesite="lax"
        )
        return response

    async def _hinted(self, tx: Tx, id_token: str) -> str:
        """The client that an id_token was for; it may have expired. A forged one names nobody."""
        try:
            return str((await self._tokens.read(tx, id_token, self._now()))["aud"])
        except (BadToken, KeyError):
            return "nobody"

    # ------------------------------------------------------------------ pages

    def _login_page(
        self,
        request: HttpRequest,
        here: directory.Tenant,
        transit: Transit,
        client: Application,
        login: str = "",
        error: str = "",
        status: int = 200,
    ) -> Response:
        return self._page(
            request,
            "login",
            here,
            status,
            target=transit.request.redirect_uri,
            action=f"/{here.id}/oauth2/login",
            ctx=self._seal(transit),
            client=client.display_name,
            login=login[:320],
            error=error,
        )

    def _change_page(
        self,
        request: HttpRequest,
        here: directory.Tenant,
        transit: Transit,
        user: directory.User,
        error: str = "",
    ) -> Response:
        return self._page(
            request,
            "change",
            here,
            400 if error else 200,
            target=transit.request.redirect_uri,
            action=f"/{here.id}/oauth2/password",
            ctx=self._seal(transit),
            upn=user.user_principal_name,
            error=error,
        )

    def _pick_page(
        self,
        request: HttpRequest,
        here: directory.Tenant,
        transit: Transit,
        client: Application,
        accounts: list[Account],
    ) -> Response:
        shown = [(a.session.id, a.user.display_name, a.user.user_principal_name) for a in accounts]
        return self._page(
            request,
            "pick",
            here,
            target=transit.request.redirect_uri,
            action=f"/{here.id}/oauth2/pick",
            ctx=self._seal(transit),
            client=client.display_name,
            accounts=shown,
        )

    def _confirm_page(
        self,
        request: HttpRequest,
        here: directory.Tenant,
        transit: Transit,
        client: Application,
        user: directory.User,
    ) -> Response:
        return self._page(
            request,
            "confirm",
            here,
            action=f"/{here.id}/oauth2/confirm",
            ctx=self._seal(transit),
            client=client.display_name,
            upn=user.user_principal_name,
        )

    def _page(
        self,
        request: HttpRequest,
        name: str,
        here: directory.Tenant,
        status: int = 200,
        **values: Any,
    ) -> Response:
        return pages.page(
            name,
            lang=pages.language(request),
            theme=pages.theme(request),
            status=status,
            tenant=here.display_name,
            **values,
        )

    def _said(self, request: HttpRequest, here: directory.Tenant, text: str) -> Response:
        lang = pages.language(request)
        more = translate("You may close this window.", lang)
        return self._page(request, "said", here, said=translate(text, lang), more=more)

    def _refuse(
        self, request: HttpRequest, asked: Request, error: OAuthError, here: directory.Tenant
    ) -> Response:
        """To the client's redirect URI, or onto a page where there is none."""
        if asked.device:
            return self.error_page(request, error)
        issuer = self._tokens.issuer(here.id, 2)
        return pages.answer(
            asked,
            error.fields(),
            here.display_name,
            issuer,
            pages.language(request),
            pages.theme(request),
        )

    def error_page(self, request: HttpRequest, error: AppError) -> Response:
        refusal = spoken(error)
        return pages.page(
            "error",
            lang=pages.language(request),
            theme=pages.theme(request),
            status=_status(refusal),
            tenant="",
            error=refusal.text,
        )

    # ------------------------------------------------------------------ state

    def _transit(self, request: HttpRequest, asked: Request) -> Transit:
        held = request.cookies.get(self.form_cookie, "") or secrets.token_urlsafe(16)
        until = int(self._now().timestamp()) + self._tokens.settings.sign_in_seconds
        return Transit(asked, held, until)

    def _bind(self, response: Response, transit: Transit) -> Response:
        self._set(response, self.form_cookie, transit.browser)
        return response

    def _set(self, response: Response, name: str, value: str) -> None:
        """Lax: a form that another site sends here comes without the cookie."""
        response.set_cookie(
            name, value, path="/", secure=self._secure, httponly=True, samesite="lax"
        )

    def _cookie(self, request: HttpRequest) -> str:
        return request.cookies.get(self.session_cookie, "")

    async def _accounts(self, tx: Tx, request: HttpRequest, now: datetime) -> list[Account]:
        return await browser.accounts(tx, self._cookie(request), now, self._tokens.settings)

    def _seal(self, transit: Transit) -> str:
        sealed = self._tokens.box.seal(msgspec.json.encode(transit), _CONTEXT)
        return urlsafe_b64encode(sealed).decode()

    def _open(self, request: HttpRequest, form: Form) -> Transit:
        """The sealed state of the form, which has to come from the browser that got the page."""
        stale = OAuthError(
            16000,
            "The sign-in page is no longer valid, or came from another browser.",
            cure="Go back to the application and start again; cookies have to be allowed.",
        )
        try:
            sealed = urlsafe_b64decode(form.get("ctx", ""))
            transit = msgspec.json.decode(self._tokens.box.unseal(sealed, _CONTEXT), type=Transit)
        except (ValueError, Unsealable, msgspec.DecodeError):
            raise stale from None
        held = request.cookies.get(self.form_cookie, "")
        if not secrets.compare_digest(held.encode(), transit.browser.encode()):
            raise stale
        if transit.until < self._now().timestamp():
            raise stale
        return transit

    async def _log(
        self,
        tx: Tx,
        asked: Request,
        client: Application,
        peer: Peer,
        now: datetime,
        error: OAuthError | None,
        *,
        upn: str = "",
        user: directory.User | None = None,
        decided: bool = False,
    ) -> None:
        item = sign_ins.entry("interactive", client.app_id, peer, now)
        conditions = "notApplied"
        if self._tokens.conditions.any and (decided or error is None):
            conditions = "failure" if decided else "success"
        resource, _ = await consent.resource_of(tx, parse_scope(asked.scope))
        item = replace(
            item,
            app_name=client.display_name,
            resource_id=resource.app_id,
            resource_name=resource.display_name,
            upn=(user.user_principal_name if user else upn).replace("\0", "")[:320],
            user_id=user.id if user else None,
            user_name=user.display_name if user else "",
            number=error.number if error else 0,
            reason=error.message if error else "",
            conditions=conditions,
        )
        await sign_ins.record(tx, item)


def _status(error: OAuthError) -> int:
    return 429 if error.number == 50053 else error.status
