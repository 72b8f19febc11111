"""Turns views of runs into HTML. The one place where templates are rendered.

Rules it keeps:
1. Everything that is printed is escaped by the template engine and passed through the one sanitizer first; no
   template marks anything as safe.
2. A name that a template does not get is an error, never an empty string.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vestibule.console.marks import Part, may_hide, parts, scripts_note
from vestibule.console.review import Change
from vestibule.console.sessions import Flash, Session
from vestibule.core.clock import parse_rfc3339
from vestibule.core.errors import Refused, VestibuleError
from vestibule.core.model import Gate, State
from vestibule.core.money import format_usd
from vestibule.core.refusal import Refusal
from vestibule.core.runs import AskedView, RunSummary, RunView, TimelineEvent, binding_digest
from vestibule.core.text.sanitize import show_hidden
from vestibule.core.verdict import Ruling

TIMELINE_ROWS = 300
TIMELINE_MAX = 20_000

_TONES = {
    State.AWAITING_SPEC_REVIEW: "hold",
    State.AWAITING_REVIEW: "hold",
    State.AWAITING_ANSWER: "hold",
    State.CHANGES_REQUESTED: "hold",
    State.APPROVED: "allow",
    State.MERGED: "allow",
    State.REFUSED: "deny",
    State.REJECTED: "deny",
    State.FAILED: "deny",
    State.EXPIRED: "deny",
    State.CANCELLED: "deny",
    State.ROLLED_BACK: "deny",
}
_WAITING = (State.AWAITING_REVIEW, State.AWAITING_ANSWER, State.AWAITING_SPEC_REVIEW, State.CHANGES_REQUESTED)


@dataclass(frozen=True, slots=True)
class Alert:
    """What is said at the top of a page. `tone` is `allow`, `hold` or `deny`; `title` is one sentence."""

    tone: str
    title: str
    why: str = ""
    next_step: str = ""
    rule: str = ""


def alert_of(error: VestibuleError) -> Alert:
    """An error for people, as the page says it."""
    if isinstance(error, Refused):
        found = error.refusal
        return Alert("deny", found.reason, found.fact, found.next.person, found.rule)
    return Alert("deny", error.what, error.why, error.next_step)


def alert_of_refusal(found: Refusal) -> Alert:
    return Alert("deny", found.reason, found.fact, found.next.person, found.rule)


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """An intent with its outcome, or an entry that has no other half."""

    event: TimelineEvent
    outcome: str


@dataclass(frozen=True, slots=True)
class AskedRow:
    """A question as the page shows it. `lines` are the agent's words; `unanswerable` says why there is no form."""

    item: AskedView
    lines: list[str]
    unanswerable: str

    @classmethod
    def of(cls, item: AskedView, moment: datetime) -> AskedRow:
        asked, kind = item.question.asked, item.question.kind
        if kind == "scope" and isinstance(asked.get("paths"), list):
            lines = [f"{asked.get('access', '')} {path}" for path in asked["paths"]]
        else:
            lines = [
                f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
                for name, value in asked.items()
            ]
        return cls(item, lines, unanswerable(item, moment))


def unanswerable(item: AskedView, moment: datetime) -> str:
    """Why no answer can be given here now, as one sentence; empty when one can."""
    question = item.question
    if question.state != "open":
        return f"This question is {question.state}."
    if _over(question.expires, moment):
        return "This question has expired. Nothing is granted by waiting."
    if item.standing is None:
        return "The run has ended; nobody is asked any more."
    return ""


class Pages:
    """The templates of the console."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("vestibule.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            finalize=_visible,
        )
        self._templates.filters.update(
            marks=_marks,
            name=_name,
            number=_number,
            usd=format_usd,
            scripts=scripts_note,
            words=_words,
            tone=_tone,
            stamp=_stamp,
        )

    def message(self, alert: Alert, session: Session | None) -> str:
        """A page that says one thing."""
        return self._render("message.html", session, alert=alert)

    def landing(self, target: str) -> str:
        """After a login that came from another site: one click makes the browser send its new cookie."""
        return self._render("landing.html", None, alert=None, target=target)

    def queue(self, runs: Sequence[RunSummary], session: Session, moment: datetime) -> str:
        waiting = [run for run in runs if run.state in _WAITING or run.questions]
        rest = [run for run in runs if run not in waiting]
        waiting.sort(key=lambda run: (run.decisions.deny + run.findings.deny > 0, run.findings.hold > 0), reverse=True)
        return self._render(
            "queue.html",
            session,
            alert=_flash(session.take_flash()),
            groups=[("Waiting for a person", waiting), ("All other runs", rest)],
            total=len(runs),
            paused=list(dict.fromkeys(run.held for run in runs if run.held)),
            age=lambda time: _since(time, moment),
            until=lambda time: _until(time, moment),
        )

    def run(
        self,
        view: RunView,
        change: Change,
        session: Session,
        moment: datetime,
        *,
        presented: set[int],
        alert: Alert | None = None,
        reason: str = "",
        choice: str = "",
        whole_timeline: bool = False,
        answering: str = "",
        answer_reason: str = "",
    ) -> str:
        """`answering` is the question whose form comes back with what was written into it."""
        rows = timeline(view.events)
        listed = rows[:TIMELINE_MAX] if whole_timeline else _telling(rows)
        missing = change.not_shown(presented)
        return self._render(
            "run.html",
            session,
            alert=alert or _flash(session.take_flash()),
            view=view,
            change=change,
            gate=view.gate,
            seen=binding_digest(view.gate) if view.gate else "",
            undecidable=undecidable(view, moment, session.person.id),
            missing=missing,
            blocked=change.blocked,
            timeline=listed,
            timeline_left=len(rows) - len(listed),
            reason=reason,
            choice=choice,
            asked=[AskedRow.of(item, moment) for item in view.questions],
            answering=answering,
            answer_reason=answer_reason,
            approvals=_approvals(view),
            budget_share=_share(view),
            age=lambda time: _since(time, moment),
            until=lambda time: _until(time, moment),
        )

    def _render(self, template: str, session: Session | None, **context: Any) -> str:
        return self._templates.get_template(template).render(session=session, **context)


def undecidable(view: RunView, moment: datetime, person: str) -> str:
    """Why no decision can be made here now, as one sentence; empty when one can."""
    gate = view.gate
    if gate is None:
        return "This run has no gate: nothing waits for a person."
    if gate.state != "open":
        return f"The gate is closed ({_words(gate.state)})."
    if _expired(gate, moment):
        return "The gate has expired. Nothing is approved by waiting; start the run again to have it reviewed."
    if view.state is not State.AWAITING_REVIEW:
        return f"The run does not wait for a review (it is {_words(view.state.value)})."
    if view.standing is not None:
        return "" if view.standing.may else view.standing.reason
    if person == gate.requester and gate.self_approval == "never":
        return f"You requested this run ({person}), and requesters do not decide about their own runs here."
    return ""


def _expired(gate: Gate, moment: datetime) -> bool:
    return _over(gate.expires, moment)


def _over(expires: str, moment: datetime) -> bool:
    try:
        return parse_rfc3339(expires) <= moment
    except ValueError:
        return True


def timeline(events: Sequence[TimelineEvent]) -> list[TimelineRow]:
    """Intents joined with their outcomes, in the log's order."""
    outcomes = {event.intent: event for event in events if event.phase == "outcome" and event.intent is not None}
    intents = {event.seq for event in events if event.phase == "intent"}
    rows = []
    for event in sorted(events, key=lambda item: item.seq):
        if event.phase == "intent":
            outcome = outcomes.get(event.seq)
            waiting = "no outcome" if event.verdict is Ruling.ALLOW else ""
            rows.append(TimelineRow(event, (outcome.result or "ok") if outcome else waiting))
        elif event.intent not in intents:
            rows.append(TimelineRow(event, event.result or "ok"))
    return rows


def _telling(rows: list[TimelineRow]) -> list[TimelineRow]:
    """The first rows, and of the others those that were held, refused or failed."""
    later = [row for row in rows[TIMELINE_ROWS:] if row.event.verdict is not Ruling.ALLOW or row.outcome == "failed"]
    return rows[:TIMELINE_ROWS] + later[: TIMELINE_MAX - TIMELINE_ROWS]


def _approvals(view: RunView) -> int:
    if view.gate is None:
        return 0
    people = {
        decision.person.id
        for decision in view.decisions
        if decision.gate == view.gate.id and decision.choice == "approve" and decision.binding == view.gate.binding
    }
    return len(people)


def _share(view: RunView) -> dict[str, int]:
    """Budget used, in whole per cent, for the ceilings that exist."""
    if view.task is None:
        return {}
    budget, found = view.task.budget, {}
    if budget.nano_usd:
        found["money"] = view.usage.cost_nano_usd * 100 // budget.nano_usd
    if budget.tokens:
        found["tokens"] = view.usage.budgeted_tokens * 100 // budget.tokens
    return found


def _flash(flash: Flash | None) -> Alert | None:
    return Alert(flash.kind, flash.text) if flash else None


def _visible(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return show_hidden(value) if may_hide(value) else value
    return value


def _marks(text: str) -> list[Part]:
    found = parts(text)
    return [Part("text", found)] if isinstance(found, str) else found


def _name(text: str) -> list[Part]:
    """A name on one line: line feeds and tabs in it are visible."""
    return _marks(text.replace("\n", "⏎").replace("\t", "⇥"))


def _words(text: str) -> str:
    return text.replace("_", " ").replace("-", " ")


def _number(value: int) -> str:
    return f"{value:,}"


def _tone(state: State) -> str:
    return _TONES.get(state, "plain")


def _stamp(time: str) -> str:
    """`2026-01-02 03:04:05 UTC` of an RFC 3339 time; the text itself when it is none."""
    try:
        return parse_rfc3339(time).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return time


def _span(seconds: int) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            rest = ""
            if unit == "d" and seconds % 86400 >= 3600:
                rest = f" {seconds % 86400 // 3600} h"
            if unit == "h" and seconds % 3600 >= 60:
                rest = f" {seconds % 3600 // 60} min"
            return f"{seconds // size} {unit}{rest}"
    return f"{max(seconds, 0)} s"


def _since(time: str, moment: datetime) -> str:
    try:
        return _span(int((moment - parse_rfc3339(time)).total_seconds()))
    except ValueError:
        return "unknown"


def _until(time: str, moment: datetime) -> str:
    try:
        left = int((parse_rfc3339(time) - moment).total_seconds())
    except ValueError:
        return "expired"
    return f"in {_span(left)}" if left > 0 else "expired"
