"""Questions of an agent's: what they are bound to, what may be granted, who may answer. Pure.

Rules it keeps:
1. An answer is bound to all that the person saw: what is asked, why, under which label, and the terms.
2. A grant stays below a ceiling: what the role at the base commit reads, writes or lets be asked for, and the
   organisation's bounds. A pattern is within only where that is plain from its text; in doubt it is not.
3. No grant reaches an agent-control file, and none to write reaches a protected path.
4. A block (a refusal that makes no sense to the agent) can be acknowledged; nothing is ever granted by it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Literal

from vestibule.core.base import Noun
from vestibule.core.canonical import digest, digest_bytes
from vestibule.core.clock import parse_rfc3339
from vestibule.core.control_files import control_file, protected_path
from vestibule.core.model import AnswerChoice, Bound, Person, Question, QuestionKind
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.text.globs import ImpossibleGlob, check_glob, first_match, is_whole_folder
from vestibule.core.text.paths import PathRefused, fold, normalise_path
from vestibule.core.text.sanitize import one_line
from vestibule.review.rules import MAX_REASON, is_agent, is_named, visible_reason

MAX_OPEN = 20
"""Questions of one run that wait at the same time."""

MAX_ASKED = 100
"""Questions of one run, answered ones included."""

MAX_WHY = 2000
"""Characters of a question's why."""

MAX_PATHS = 50
"""Paths of one question."""

MAX_ASKED_BYTES = 32 << 10
"""What one question asks, as JSON."""

Access = Literal["read", "write"]
ANSWERS: tuple[AnswerChoice, ...] = ("grant", "refuse")


class Terms(Noun):
    """Who may answer a run's questions, and how long they wait: those of its review gate."""

    requester: str
    eligible: tuple[str, ...] = ()
    self_approval: Literal["never", "recorded"] = "never"
    seconds: int = 7 * 86400


class Ceiling(Noun):
    """What a person may grant at most: the role's globs with those it lets be asked for, and the bounds above it."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()
    protected: tuple[str, ...] = ()


class Beyond(Noun):
    """A path that nobody may grant, and why, for people."""

    path: str
    why: str


def asked_digest(kind: QuestionKind, asked: Mapping[str, Any]) -> str:
    """Names exactly what is asked, numbers and all. Raises ValueError or TypeError when it has no JSON form."""
    return digest_bytes(_json({"kind": kind, "asked": asked}))


def asked_size(asked: Mapping[str, Any]) -> int:
    """Bytes of `asked` as JSON. Raises as `asked_digest`."""
    return len(_json(asked))


def _json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def question_digest(question: Question) -> str:
    """What an answer is bound to: the question as it was asked, without its answer."""
    asked = question.model_dump(mode="json", include=_ASKED)
    return digest({**asked, "asked": asked_digest(question.kind, question.asked)})


_ASKED = {
    "id", "run", "round", "attempt", "kind", "why", "labels", "requester", "eligible", "self_approval", "opened",
    "expires",
}  # fmt: skip


def limit_passed(count: int, still_open: int, kind: QuestionKind, asked: Mapping[str, Any], why: str) -> str:
    """Which limit one more question would pass, given those that the run asked already; empty when none."""
    paths = asked.get("paths", ())
    if count >= MAX_ASKED:
        return f"{MAX_ASKED} questions of one run are the most"
    if still_open >= MAX_OPEN:
        return f"{MAX_OPEN} open questions are the most"
    if len(why) > MAX_WHY:
        return f"a why of {MAX_WHY} characters is the longest"
    if kind == "scope" and isinstance(paths, list) and len(paths) > MAX_PATHS:
        return f"{MAX_PATHS} paths in one question are the most"
    if asked_size(asked) > MAX_ASKED_BYTES:
        return f"{MAX_ASKED_BYTES} bytes in one question are the most"
    return ""


def paths_of(question: Question) -> tuple[tuple[str, ...], Access] | None:
    """The paths and the access that a scope question asks for; None when it says neither as it must."""
    paths, access = question.asked.get("paths"), question.asked.get("access")
    if question.kind != "scope" or access not in ("read", "write") or not isinstance(paths, list):
        return None
    if not paths or len(paths) > MAX_PATHS or not all(isinstance(path, str) for path in paths):
        return None
    return tuple(paths), access


def beyond(question: Question, ceiling: Ceiling) -> tuple[Beyond, ...]:
    """What of the question nobody may grant. Empty: a person may grant it.

    A held call is judged by policy again each time it is made, so its grant has no ceiling here.
    """
    if question.kind == "call":
        return ()
    found = paths_of(question)
    if found is None:
        why = "a block can only be acknowledged" if question.kind == "block" else "it names no paths and access"
        return (Beyond(path="", why=why),)
    paths, access = found
    return tuple(Beyond(path=path, why=why) for path in paths if (why := _beyond(path, access, ceiling)))


def _beyond(path: str, access: Access, ceiling: Ceiling) -> str:
    """Why this path or pattern may not be granted; empty when it may."""
    try:
        if normalise_path(path) != path:
            return "it is not in normal form"
        check_glob(path)
    except (PathRefused, ImpossibleGlob):
        return "it is no usable path"
    if control_file(path) is not None:
        return "agents' own control files are never shown"
    if access == "write" and _protected(path, ceiling.protected):
        return "it is protected"
    writable = ceiling.write
    allowed = writable if access == "write" else (*ceiling.read, *writable)
    if not within(path, allowed):
        return f"the role lets nobody grant it to {access}"
    for bound in ceiling.bounds:
        for globs, wanted in ((bound.read, True), (bound.write, access == "write")):
            if wanted and globs and not within(path, globs):
                return "it lies beyond the organisation's bounds"
    return ""


def within(path: str, globs: Collection[str]) -> bool:
    """Whether everything that `path` (a path, or a pattern) names is plainly among `globs`."""
    if not is_pattern(path):
        return first_match(path, globs) is not None
    return any(
        glob in (path, "**") or (is_whole_folder(glob) and path.startswith(glob.removesuffix("**"))) for glob in globs
    )


def is_pattern(path: str) -> bool:
    return any(char in path for char in "*?[]{}")


def _protected(path: str, protected: Collection[str]) -> bool:
    folded = fold(path)
    if protected_path(path) is not None or first_match(folded, [fold(glob) for glob in protected]) is not None:
        return True
    return first_match(path, protected) is not None


def may_answer(
    person: Person,
    question: Question,
    *,
    reason: str,
    seen: str,
    run_open: bool,
    within_ceiling: bool,
    now: str,
    agent_ids: Collection[str] = (),
) -> dict[str, Any]:
    """The facts of `question.answer` in the policy's words. `seen` is the digest of what the person was shown."""
    return {
        "is_agent": is_agent(person, agent_ids),
        "is_requester": person.id == question.requester,
        "self_approval": question.self_approval,
        "eligible": is_named(person, question.eligible),
        "binding_current": seen == question.digest == question_digest(question),
        "expired": is_expired(question, now),
        "open": question.state == "open" and run_open,
        "reason_given": visible_reason(reason) and len(reason) <= MAX_REASON,
        "within_ceiling": within_ceiling,
    }


def is_expired(question: Question, now: str) -> bool:
    """From the instant of `expires` on."""
    return parse_rfc3339(now) >= parse_rfc3339(question.expires)


def objection(person: Person, question: Question, facts: dict[str, Any], choice: str) -> Refusal | None:
    """Why these facts forbid an answer, as a refusal that helps. The policy decides first; this holds all the same."""
    who = one_line(person.id)
    show = f"Look at it again with `vestibule show {question.run}`."
    if facts["is_agent"]:
        return _refuse("review.agent", "Only people answer questions; an agent or a bot never does.", who, _ASK_PERSON)
    if not facts["open"] or facts["expired"]:
        ran_out = facts["expired"] and question.state in ("open", "expired")
        rule, words = ("review.expired", "ran out of time") if ran_out else ("review.closed", "is closed already")
        return _refuse(rule, f"This question {words}, and nothing is granted by it.", question.id, show)
    if not facts["binding_current"]:
        return _refuse("review.stale", "The question is not the one that was shown any more.", question.id, show)
    if not facts["eligible"]:
        named = ", ".join(one_line(item, 80) for item in question.eligible[:5]) or "any local person"
        return _refuse(
            "review.not_eligible",
            f"{who} is not among those who may answer here.",
            f"it is for: {named}",
            "Ask one of them, or name this person under gates.review.from in the base branch's .vestibule/config.yaml.",
        )
    if choice == "grant" and facts["is_requester"] and facts["self_approval"] != "recorded":
        return _refuse(
            "review.self_approval",
            "Whoever asked for a change does not widen what its agent may touch.",
            f"{who} is the requester",
            "Ask another person; for solo work set `gates.review.self_approval: recorded` in the base branch's "
            ".vestibule/config.yaml and run the ticket again.",
        )
    if not facts["reason_given"]:
        return _refuse(
            "review.no_reason",
            "An answer needs a reason that a reader can see.",
            f"{MAX_REASON} characters at most",
            "Say in a sentence why: --reason TEXT.",
        )
    if choice == "grant" and not facts["within_ceiling"]:
        return _refuse(
            "scope.ceiling",
            "What was asked lies beyond what the role or the organisation lets anyone grant.",
            question.id,
            "Refuse it; to allow it, widen `askable` of the role at the base commit, or the operator's `scope`.",
        )
    return None


_ASK_PERSON = "Ask a person to answer, under their own account."


def _refuse(rule: str, reason: str, fact: str, person: str) -> Refusal:
    return refusal(rule, reason, fact=fact, agent="Stop here; only a person can go on from this point.", person=person)
