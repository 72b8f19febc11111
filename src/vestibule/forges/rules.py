"""What a merge needs, as pure functions.

Rules it keeps:
1. Only what was approved merges: head, tree, base and target branch are compared with the decisions' binding, each
   decision on its own.
2. The merge commit names its run, its decisions and the audit log's checkpoint in trailers; nothing that came from a
   ticket or an agent can add a line to its message.
3. A target that moved since the decision is never merged into: the decision was about another base.
"""

from __future__ import annotations

import re
from typing import Any

from vestibule.core.clock import parse_rfc3339
from vestibule.core.errors import UsageError
from vestibule.core.ids import SHA, Sha
from vestibule.core.model import GateBinding
from vestibule.core.ports import MergeRequest, MergeResult, MergeView
from vestibule.core.refusal import Refusal, refusal
from vestibule.core.text.sanitize import one_line

BRANCHES = "vestibule/"
"""Where proposals live, below refs/heads/."""

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}\Z")
_WORD = re.compile(r"[!-~]{1,512}\Z")


def branch_of(run: str) -> str:
    """The run's branch, `vestibule/<run>`. Raises UsageError for anything that is no run id."""
    if not _RUN.match(run):
        raise UsageError(f"{one_line(run, 40)!r} is no run.", next_step="List runs with `vestibule runs`.")
    return BRANCHES + run


def merge_facts(view: MergeView, binding: GateBinding, *, approved: bool, verified: bool) -> dict[str, Any]:
    """The facts of the policy action `merge`, from what the forge sees now."""
    return {
        "approved": approved,
        "binding_current": (view.branch_head, view.tree, view.target)
        == (binding.head_commit, binding.tree, binding.target),
        "verified": verified,
        "base_is_ancestor": view.base_is_ancestor,
        "target_unmoved_or_mergeable": view.mergeable,
    }


def objection(request: MergeRequest, view: MergeView) -> Refusal | None:
    """Why this must not merge, whatever a policy said; None when nothing stands against it."""
    return _unapproved(request) or _changed(request.binding, view)


def _unapproved(request: MergeRequest) -> Refusal | None:
    if not request.decisions:
        return _refuse("merge.unapproved", "Nobody approved this change.", request.run)
    for decision in request.decisions:
        if decision.choice != "approve" or decision.run != request.run:
            return _refuse("merge.unapproved", "A decision here is no approval of this run.", decision.id)
        if decision.binding != request.binding:
            return _refuse("merge.unapproved", "An approval here was given for something else.", decision.id)
    return None


def _changed(binding: GateBinding, view: MergeView) -> Refusal | None:
    if view.target != binding.target:
        return _refuse(
            "merge.target",
            "The change was approved for another branch.",
            f"approved for {one_line(binding.target) or 'none'}, asked for {one_line(view.target)}",
        )
    if view.merged_as or view.by_hand:
        return None  # what was approved is in the target; its branch may be gone by now
    if view.branch_head != binding.head_commit:
        found = view.branch_head[:12] if view.branch_head else "nothing"
        return _refuse(
            "merge.branch_moved",
            "The proposed branch does not hold what was approved.",
            f"approved {binding.head_commit[:12]}, found {found}",
        )
    if view.tree != binding.tree:
        return _refuse("merge.tree", "The commit's tree is not the tree that was approved.", binding.head_commit[:12])
    if not view.base_is_ancestor:
        return _refuse("merge.base", "The change is not built on the base it was approved on.", binding.base_commit)
    return None


def _refuse(rule: str, reason: str, fact: str) -> Refusal:
    return refusal(
        rule,
        reason,
        fact=fact,
        agent="Stop here; only a person can go on from this point.",
        person="Find out who moved it, then run the ticket again: the new change gets a review of its own.",
    )


def merge_message(request: MergeRequest) -> str:
    """Subject and trailers (git-interpret-trailers(1)).

    Raises UsageError when an id or the checkpoint is not one printable ASCII word.
    """
    run = branch_of(request.run)[len(BRANCHES) :]
    title = one_line(" ".join(request.title.split()), 72)
    lines = [f"Merge {BRANCHES}{run}: {title}" if title else f"Merge {BRANCHES}{run}", ""]
    lines.append(f"Vestibule-Run: {run}")
    for decision in request.decisions:
        mark = " self-reviewed" if decision.self_review else ""
        lines.append(f"Vestibule-Decision: {_word(decision.id)} {_person(decision.person.id)}{mark}")
    checkpoint = request.checkpoint
    lines.append(f"Vestibule-Checkpoint: {_word(checkpoint.origin)} {checkpoint.size} {_word(checkpoint.root)}")
    return "\n".join(lines) + "\n"


def git_time(time: str) -> str:
    """`<unix seconds> +0000` of an RFC 3339 time."""
    return f"{int(parse_rfc3339(time).timestamp())} +0000"


def left(target: str, rule: str, reason: str, how_to_finish: str) -> MergeResult:
    """Nothing moved; a person finishes."""
    return MergeResult(state="left", target=target, rule=rule, reason=reason, how_to_finish=how_to_finish)


def merged(target: str, commit: Sha) -> MergeResult:
    if not SHA.match(commit):
        raise UsageError(f"{commit!r} is no commit.")
    return MergeResult(state="merged", target=target, commit=commit)


def short(ref: str) -> str:
    """A branch as people type it."""
    return ref.removeprefix("refs/heads/")


def _word(text: str) -> str:
    if not _WORD.match(text):
        raise UsageError(f"{one_line(text, 60)!r} cannot be named in a merge commit.")
    return text


def _person(identity: str) -> str:
    """An identity as one word: letters of any script stay, spaces and invisible characters are written out."""
    shown = one_line(identity, 400)
    return "".join("%20" if char.isspace() else char for char in shown)
