"""The console's pages: runs, one run, a person's decision.

Rules it keeps:
1. Without a session an answer holds no data of any run.
2. A decision needs the session's form token, a reason, and the digest of what was shown; all of it is checked again
   against the run as it stands at that moment, and then by the one path that every channel uses.
3. An approval is refused while a part of the change was not sent to this browser.
4. Who decides is who the process's user is; nothing that a browser sends says so.
5. An answer to an agent's question is taken by the same rules; grant is offered only for what lies within the ceiling.
6. Whatever breaks shows as a page that says what to do; a failure is never taken for a decision.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from typing import get_args
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vestibule.console.guard import Guard, Origin
from vestibule.console.objections import MAX_REASON, answer_objection, refuse, says_something
from vestibule.console.pages import Alert, Pages, alert_of, alert_of_refusal, undecidable
from vestibule.console.review import Change, change_of
from vestibule.console.sessions import Flash, Session, Sessions
from vestibule.core.errors import USAGE, DependencyDown, Refused, VestibuleError
from vestibule.core.ids import RUN_ID
from vestibule.core.model import AnswerChoice, Choice
from vestibule.core.refusal import Refusal
from vestibule.core.runs import AnswerQuestion, DecideGate, RunReader, RunView, binding_digest

_STATIC = {"console.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}


def build_console_app(
    *,
    runs: RunReader,
    decide: DecideGate,
    sessions: Sessions,
    origin: Origin,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    answer: AnswerQuestion | None = None,
) -> ASGIApp:
    """The console as an ASGI application that answers at `origin` only. Without `answer` questions are only shown."""
    console = _Console(runs, decide, sessions, origin, clock, answer)
    app = Starlette(
        routes=[
            Route("/", console.queue, methods=["GET"]),
            Route("/login", console.login, methods=["GET"]),
            Route("/logout", console.logout, methods=["POST"]),
            Route("/runs/{run}", console.run, methods=["GET"]),
            Route("/runs/{run}/decision", console.decision, methods=["POST"]),
            Route("/runs/{run}/answer", console.answer, methods=["POST"]),
            Route("/static/{name}", console.static, methods=["GET"]),
        ],
        exception_handlers={
            VestibuleError: console.failed,
            HTTPException: console.http_error,
            Exception: console.crashed,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, origin)


class _SignInNeeded(VestibuleError):
    """There is no session."""


class _Console:
    def __init__(  # noqa: PLR0917 - one caller
        self,
        runs: RunReader,
        decide: DecideGate,
        sessions: Sessions,
        origin: Origin,
        clock: Callable[[], datetime],
        answer: AnswerQuestion | None,
    ) -> None:
        self._answer = answer
        self._runs = runs
        self._decide = decide
        self._sessions = sessions
        self._origin = origin
        self._clock = clock
        self._pages = Pages()
        folder = resources.files("vestibule.console") / "static"
        self._static = {name: (folder / name).read_bytes() for name in _STATIC}

    # Pages. Those without `async` run in worker threads: reading and rendering may take a while.

    def queue(self, request: Request) -> Response:
        session = self._session(request)
        return HTMLResponse(self._pages.queue(self._runs.list_runs(), session, self._clock()))

    def run(self, request: Request) -> Response:
        session = self._session(request)
        view = self._view(request)
        wanted = request.query_params.getlist("show")
        change = change_of(
            view,
            {int(item) for item in wanted if re.fullmatch(r"[0-9]{1,6}", item)},
            expand_all="all" in wanted,
        )
        return HTMLResponse(self._run_page(view, change, session, request=request))

    async def login(self, request: Request) -> Response:
        if request.method == "HEAD":  # a link checker must not use the link up
            raise HTTPException(405)
        headers = {"referrer-policy": "no-referrer"}
        try:
            secret = self._sessions.redeem(request.query_params.get("token", ""), self._cookie(request))
        except Refused as error:
            status = 429 if error.refusal.rule == "console.rate" else 401
            headers |= {"retry-after": "60"} if status == 429 else {"www-authenticate": "LoginLink"}
            return HTMLResponse(self._pages.message(alert_of(error), None), status, headers)
        run = request.query_params.get("run", "")
        target = f"/runs/{run}" if RUN_ID.match(run) else "/"
        answer: Response
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            # The link was followed from another site: a redirect would still count as that site's, and the
            # browser would keep the Strict cookie back. A click on our own page is ours.
            answer = HTMLResponse(self._pages.landing(target), 200, headers)
        else:
            answer = RedirectResponse(target, 303, headers)
        answer.set_cookie(self._origin.cookie, secret, path="/", httponly=True, samesite="strict")
        return answer

    async def logout(self, request: Request) -> Response:
        session = self._session(request)
        await self._form(request, session)
        self._sessions.end(self._cookie(request))
        alert = Alert("allow", "You are signed out.", next_step="To come back, open a new login link.")
        answer = HTMLResponse(self._pages.message(alert, None))
        answer.delete_cookie(self._origin.cookie, path="/", httponly=True, samesite="strict")
        return answer

    async def decision(self, request: Request) -> Response:
        session = self._session(request)
        form = await self._form(request, session)
        return await run_in_threadpool(self._take_decision, request, session, form)

    async def answer(self, request: Request) -> Response:
        session = self._session(request)
        form = await self._form(request, session)
        return await run_in_threadpool(self._take_answer, request, session, form)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._static:
            raise HTTPException(404)
        return Response(self._static[name], media_type=_STATIC[name])

    # An answer

    def _take_answer(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        view = self._view(request)
        name, choice = form.get("question", ""), form.get("choice", "")
        reason = form.get("reason", "").replace("\r\n", "\n").strip()
        item = next((item for item in view.questions if item.question.id == name), None)
        found = answer_objection(
            item,
            self._clock(),
            choice=choice,
            reason=reason,
            seen=form.get("seen", ""),
            served=self._answer is not None,
        )
        if found is None and self._answer is not None:
            picked = next(word for word in get_args(AnswerChoice) if word == choice)
            try:
                outcome = self._answer(name, picked, reason, form["seen"], session.person)
            except VestibuleError as error:
                view = self._view(request)
                alert, status = alert_of(error), _status(error)
            else:
                session.flash = Flash("allow" if choice == "grant" else "hold", outcome.message)
                return RedirectResponse(f"/runs/{view.run}#questions", 303)
        elif found is not None:
            alert, status = alert_of_refusal(found), _RULE_STATUS.get(found.rule, 403)
        page = self._run_page(view, change_of(view), session, alert, answering=name, answer_reason=reason)
        return HTMLResponse(page, status)

    # A decision

    def _take_decision(self, request: Request, session: Session, form: dict[str, str]) -> Response:
        view = self._view(request)
        change = change_of(view)
        choice, reason = form.get("choice", ""), form.get("reason", "").replace("\r\n", "\n").strip()
        found = self._objection(view, change, session, choice=choice, reason=reason, seen=form.get("seen", ""))
        if found is None:
            picked = next(item for item in get_args(Choice) if item == choice)
            try:
                outcome = self._decide(view.run, picked, reason, form["seen"], session.person)
            except VestibuleError as error:
                # Read again: the run may have moved on, and the page shows it as it stands now.
                view = self._view(request)
                page = self._run_page(view, change_of(view), session, alert_of(error), reason=reason, choice=choice)
                return HTMLResponse(page, _status(error))
            session.flash = Flash("allow" if choice == "approve" else "hold", outcome.message)
            return RedirectResponse(f"/runs/{view.run}", 303)
        page = self._run_page(view, change, session, alert_of_refusal(found), reason=reason, choice=choice)
        return HTMLResponse(page, _RULE_STATUS.get(found.rule, 403))

    def _objection(
        self, view: RunView, change: Change, session: Session, *, choice: str, reason: str, seen: str
    ) -> Refusal | None:
        """What the console itself has against this decision, before policy is asked."""
        why_not = undecidable(view, self._clock(), session.person.id)
        if why_not:
            return refuse("review.closed", why_not, "Nothing was decided. Look at the run as it stands now.")
        if view.gate is None or seen != binding_digest(view.gate):
            return refuse(
                "review.stale",
                "The change moved on while you were looking: what you saw is not what would be approved.",
                "Nothing was decided. Read the change below as it is now, then decide.",
                fact=f"the gate is now bound to commit {view.head_commit[:12]}",
            )
        if choice not in get_args(Choice):
            return refuse("review.choice", "No choice was made.", "Choose approve, request changes or reject.")
        if not says_something(reason):
            return refuse("review.reason", "A decision needs a reason.", "Write in a sentence why you decide so.")
        if len(reason) > MAX_REASON:
            return refuse("review.reason", f"The reason is longer than {MAX_REASON} characters.", "Shorten it.")
        if choice != "approve":
            return None
        missing = change.not_shown(session.presented.get(change.view_id, set()))
        if change.blocked or missing:
            fact = "; ".join([*change.blocked[:5], *(f"{item.file.path} was not shown" for item in missing[:5])])
            return refuse(
                "review.not_shown",
                "A part of this change was not shown to you, so it cannot be approved here.",
                "Open every file below (or “Show everything”), then decide. What no page can show, review with git.",
                fact=fact,
            )
        return None

    def _run_page(
        self,
        view: RunView,
        change: Change,
        session: Session,
        alert: Alert | None = None,
        *,
        reason: str = "",
        choice: str = "",
        request: Request | None = None,
        answering: str = "",
        answer_reason: str = "",
    ) -> str:
        presented = session.present(change.view_id, change.shown)
        whole = request is not None and request.query_params.get("timeline") == "all"
        return self._pages.run(
            view,
            change,
            session,
            self._clock(),
            presented=presented,
            alert=alert,
            reason=reason,
            choice=choice,
            whole_timeline=whole,
            answering=answering,
            answer_reason=answer_reason,
        )

    # What every page needs

    def _session(self, request: Request) -> Session:
        session = self._sessions.get(self._cookie(request))
        if session is None:
            raise _SignInNeeded(
                "Sign in first.",
                why="The console shows runs only to the person who started it.",
                next_step="Open the login link that the command in your terminal printed. It works once.",
            )
        return session

    def _cookie(self, request: Request) -> str:
        """The session cookie's value. Two of them are none: somebody else on this host may have set the other."""
        found = []
        for header in request.headers.getlist("cookie"):
            for pair in header.split(";"):
                name, _, value = pair.strip().partition("=")
                if name == self._origin.cookie:
                    found.append(value)
        return found[0] if len(found) == 1 else ""

    async def _form(self, request: Request, session: Session) -> dict[str, str]:
        """The fields of a form of ours, each once.

        Raises:
            Refused: `console.form` without the session's form token.
        """
        body = await request.body()
        try:
            pairs = parse_qsl(
                body.decode("ascii"),
                keep_blank_values=True,
                max_num_fields=8,
                errors="strict",
                strict_parsing=bool(body),
            )
        except ValueError:
            pairs = []
        form = dict(pairs)
        if len(form) != len(pairs) or not session.form_token_matches(form.get("form_token", "")):
            raise Refused(
                refuse(
                    "console.form",
                    "This form is not from your present session.",
                    "Nothing was decided. Open the run again and decide there.",
                )
            )
        return form

    def _view(self, request: Request) -> RunView:
        run = request.path_params["run"]
        view = self._runs.get_run(run) if RUN_ID.match(run) else None
        if view is None:
            raise HTTPException(404)
        return view

    # When something is wrong

    async def failed(self, request: Request, error: Exception) -> Response:
        known = error if isinstance(error, VestibuleError) else VestibuleError("Something went wrong.")
        if isinstance(known, _SignInNeeded):
            page = self._pages.message(alert_of(known), None)
            return HTMLResponse(page, 401, {"www-authenticate": "LoginLink"})
        page = self._pages.message(alert_of(known), self._sessions.get(self._cookie(request)))
        return HTMLResponse(page, _status(known))

    async def http_error(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        what = {404: "There is no such page or run.", 405: "That is not how this page is used."}
        alert = Alert("deny", what.get(status, "That did not work."), next_step="Go back to the list of runs.")
        page = self._pages.message(alert, self._sessions.get(self._cookie(request)))
        headers = error.headers if isinstance(error, HTTPException) else None
        return HTMLResponse(page, status, dict(headers or {}))

    async def crashed(self, request: Request, error: Exception) -> Response:
        alert = Alert(
            "deny",
            "The console failed. This is a bug of ours.",
            why=f"internal error: {type(error).__name__}",
            next_step="Look at the run with `vestibule show` before you decide again: nothing tells whether it moved.",
        )
        return HTMLResponse(self._pages.message(alert, self._sessions.get(self._cookie(request))), 500)


_RULE_STATUS = {
    "review.stale": 409,
    "review.closed": 409,
    "review.choice": 422,
    "review.reason": 422,
}


def _status(error: VestibuleError) -> int:
    if isinstance(error, DependencyDown):
        return 503
    if isinstance(error, Refused):
        return _RULE_STATUS.get(error.refusal.rule, 403)
    return 400 if error.exit_code == USAGE else 409
