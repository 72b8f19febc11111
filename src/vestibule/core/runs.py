"""What a person is shown of a run, and how a person's answer comes back.

The pipeline fills these in; the console shows them. Fields that an agent could have written are
marked *untrusted*: they are shown as such and never decide anything.
"""

from __future__ import annotations

from typing import Protocol

from vestibule.core.base import Noun
from vestibule.core.canonical import digest
from vestibule.core.ids import Sha
from vestibule.core.labels import Label
from vestibule.core.model import (
    AgentRef,
    AnswerChoice,
    Choice,
    Decision,
    Finding,
    Gate,
    Person,
    Question,
    State,
    Subject,
    Task,
    Ticket,
    Timings,
    Usage,
    WallsReport,
)
from vestibule.core.refusal import Refusal
from vestibule.core.verdict import Ruling


class Counts(Noun):
    """How the agent's own intents were decided; probes are left out."""

    allow: int = 0
    hold: int = 0
    deny: int = 0


class RunSummary(Noun):
    """One line of the queue. Times are UTC, RFC 3339. `title` is untrusted."""

    run: str
    state: State
    verdict: Ruling | None = None
    title: str
    requester: str
    role: str = ""
    agent: AgentRef | None = None
    scripted_model: bool = False
    created: str
    updated: str
    expires: str = ""
    """When the open gate expires; empty without one."""
    decisions: Counts = Counts()
    findings: Counts = Counts()
    """Findings by their verdict, not by their severity."""
    changed_files: int = 0
    cost_nano_usd: int = 0
    questions: int = 0
    """Questions of the agent's that nobody answered yet, blocks included."""
    held: str = ""
    """Why nobody can approve its change now: a paused agent version worked on it. Else empty."""


class TimelineEvent(Noun):
    """An entry of the audit log as a timeline shows it. `resource` and `why` are untrusted."""

    seq: int
    time: str
    phase: str
    attempt: int = 1
    actor: str
    subject: Subject
    action: str
    resource: str
    verdict: Ruling | None = None
    reasons: tuple[str, ...] = ()
    intent: int | None = None
    result: str = ""
    refusal: Refusal | None = None
    why: str = ""


class LogHead(Noun):
    """The audit log's head: `size` entries, `root` in base64."""

    origin: str
    size: int
    root: str


class Check(Noun):
    """Evidence that a tool produced: a verify command, a scanner. `detail` is untrusted output."""

    name: str
    result: str
    """`passed`, `failed`, `skipped` or `not run`."""
    detail: str = ""
    commit: Sha = ""
    time: str = ""


class Standing(Noun):
    """Whether the person who looks may decide at the open gate, and why (not), in one sentence."""

    may: bool
    reason: str
    self_review: bool = False


class AskedView(Noun):
    """A question of the agent's. `beyond`: paths that nobody may grant, each with the reason; people only see these.

    `grantable` says that nothing is beyond; `standing` whether the person who looks may grant, and why (not);
    `refusable` whether they may refuse or acknowledge. None and False when nobody is asked any more.
    """

    question: Question
    beyond: tuple[tuple[str, str], ...] = ()
    grantable: bool = False
    standing: Standing | None = None
    refusable: bool = False


class RunView(Noun):
    """One run with everything that a decision about it needs.

    `patch` is the unified diff from `base_commit` to `head_commit` as git prints it
    (`--no-color --no-ext-diff --no-textconv --full-index`, prefixes `a/` and `b/`, any `core.quotePath`):
    untrusted bytes.
    `changed_files` is computed apart from it (names of a tree comparison): what is in one and not in the
    other is shown to the person as not reviewed. `message` is the agent's own account, untrusted.
    """

    run: str
    state: State
    verdict: Ruling | None = None
    reasons: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    created: str
    updated: str
    requester: str
    title: str
    ticket: Ticket | None = None
    task: Task | None = None
    scripted_model: bool = False
    workload: str = ""
    attempt: int = 1
    branch: str = ""
    target: str = ""
    """The ref that a merge would move."""
    base_commit: Sha = ""
    head_commit: Sha = ""
    tree: Sha = ""
    changed_files: tuple[str, ...] = ()
    patch: bytes = b""
    message: str = ""
    label: Label = Label()
    """What the run has read so far: who could have written it, and how confidential it is."""
    findings: tuple[Finding, ...] = ()
    checks: tuple[Check, ...] = ()
    counts: Counts = Counts()
    events: tuple[TimelineEvent, ...] = ()
    usage: Usage = Usage()
    walls: WallsReport | None = None
    walls_minimum: tuple[str, ...] = ()
    audit: LogHead | None = None
    timings: Timings = Timings()
    gate: Gate | None = None
    """The open gate, else the last one."""
    decisions: tuple[Decision, ...] = ()
    standing: Standing | None = None
    held: str = ""
    """Why nobody can approve its change now: a paused agent version worked on it. Else empty."""
    questions: tuple[AskedView, ...] = ()
    """What the agent asked people, in the order in which it asked. Its words are untrusted."""


class Outcome(Noun):
    """What a decision led to. `message` is one sentence for the person, `state` where the run stands now."""

    run: str
    state: State
    decision: str = ""
    message: str


def binding_digest(gate: Gate) -> str:
    """Names exactly what a person was asked about: the gate, its round and its binding. `sha256:<hex>`."""
    return digest({"gate": gate.id, "round": gate.round, "binding": gate.binding.model_dump(mode="json")})


class RunReader(Protocol):
    """Reads runs for people. Called from worker threads. Broken storage is `DependencyDown`, never an empty list."""

    def list_runs(self) -> list[RunSummary]:
        """All runs, most recently updated first."""
        ...

    def get_run(self, run: str) -> RunView | None:
        """One run, read afresh; None when there is no such run."""
        ...


class DecideGate(Protocol):
    """Takes a person's decision through the one path that every channel uses."""

    def __call__(self, run: str, choice: Choice, reason: str, seen_binding_digest: str, person: Person) -> Outcome:
        """Records the decision and moves the run on. Called from a worker thread.

        `seen_binding_digest` is what `binding_digest` gave for the gate that was shown; the callee computes it
        again from the gate as it stands now.

        Raises:
            Refused: policy says no (`review.*`); `review.stale` when the two digests differ.
            DependencyDown: the log, policy or storage cannot answer; nothing was decided.
        """
        ...


class AnswerQuestion(Protocol):
    """Takes a person's answer to an agent's question through the one path that every channel uses."""

    def __call__(self, question: str, choice: AnswerChoice, reason: str, seen: str, person: Person) -> Outcome:
        """Records the answer; the run goes on by itself. Called from a worker thread. `seen` is the shown `digest`.

        Raises:
            UsageError: no such question.
            Refused: policy says no (`review.*`, `scope.ceiling`); `review.stale` when the question is another one.
            DependencyDown: the log, policy or storage cannot answer; nothing was answered.
        """
        ...
