"""The nouns of a run. Use these words everywhere: code, configuration, docs, UI, audit events."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from vestibule.core.base import Noun
from vestibule.core.control_files import credential_file, names_credential
from vestibule.core.ids import Sha
from vestibule.core.labels import Integrity, Label, LabelRule
from vestibule.core.text.globs import first_match
from vestibule.core.verdict import Ruling


class State(StrEnum):
    """Where a run stands."""

    RECEIVED = "received"
    SPECIFIED = "specified"
    AWAITING_SPEC_REVIEW = "awaiting_spec_review"
    WORKING = "working"
    CHECKING = "checking"
    AWAITING_ANSWER = "awaiting_answer"
    AWAITING_REVIEW = "awaiting_review"
    CHANGES_REQUESTED = "changes_requested"
    APPROVED = "approved"
    VERIFYING = "verifying"
    MERGING = "merging"
    WATCHING = "watching"
    MERGED = "merged"
    REFUSED = "refused"
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"

    @property
    def final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset(
    {
        State.MERGED,
        State.REFUSED,
        State.REJECTED,
        State.FAILED,
        State.EXPIRED,
        State.CANCELLED,
        State.ROLLED_BACK,
    }
)


class Ticket(Noun):
    """What a person or system asked for, as found. `text` is untrusted unless its author is trusted."""

    source: str
    text: str
    author: str
    integrity: Integrity


class Spec(Noun):
    """The ticket turned into something to work on and to judge against."""

    title: str
    body: str
    requirements: tuple[str, ...] = ()
    acceptance: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Globs that the ticket limits itself to. They narrow what the role allows, and never widen it."""
    notices: tuple[str, ...] = ()
    ticket_digest: str
    integrity: Integrity


class Budget(Noun):
    """Ceilings. Money in nano-USD, tokens as input + output + cache writes, wall-clock minutes."""

    nano_usd: int | None = None
    tokens: int | None = None
    minutes: int = 30
    idle_minutes: int | None = None


class ViewRule(Noun):
    """Files that are shown in part only, and read-only.

    `fields`: only the named fields of each record (dotted; `*` for any name). `schema`: names and types, no value.
    `header`: the part before the data (DICOM-style header projection: only `fields` of it). `redacted`: everything,
    with values of the kinds in `redact` replaced. `redact` applies to `fields` and `header` too. `by` says whose rule
    it is: of each the first that names a file counts, and both hold.
    """

    by: Literal["organisation", "repository"] = "repository"
    paths: tuple[str, ...]
    show: Literal["fields", "schema", "header", "redacted"]
    fields: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()


class Bound(Noun):
    """A ceiling on top of the role's globs, by the organisation or by the ticket itself. Empty: no ceiling."""

    by: Literal["organisation", "spec"]
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


class UpstreamUse(Noun):
    """What a role may call of an upstream MCP server: globs over the server's own tool names."""

    server: str
    tools: tuple[str, ...]


class Scope(Noun):
    """What this task may touch: the intersection of organisation policy, role and spec, and what people granted.

    Ask `reads` and `writes`; the globs alone do not tell.
    """

    read: tuple[str, ...]
    write: tuple[str, ...]
    tools: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    host_programs: dict[str, tuple[str, ...]] = {}
    """Hosts that only these programs may reach, by file name."""
    registries: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    max_files: int = 50
    max_lines: int = 2000
    bounds: tuple[Bound, ...] = ()
    granted_read: tuple[str, ...] = ()
    """What people granted on the agent's request: beyond the ticket's bound, never beyond the organisation's."""
    granted_write: tuple[str, ...] = ()
    labels: tuple[LabelRule, ...] = ()
    views: tuple[ViewRule, ...] = ()
    upstreams: tuple[UpstreamUse, ...] = ()

    def reads(self, path: str) -> bool:
        """Whether a normalised path may be read, listed and searched. Control files are judged apart.

        A credential file (`control_files.credential_file`) only when a read glob or a grant names it.
        """
        return self._in(path, "read", self.read, self.granted_read) and (
            credential_file(path) is None or self._in(path, "read", *_naming(path, self.read, self.granted_read))
        )

    def writes(self, path: str) -> bool:
        """Whether a normalised path may be changed. Protected paths are judged apart."""
        return self._in(path, "write", self.write, self.granted_write)

    def shows(self, path: str) -> bool:
        """Whether a normalised path belongs to the view: what is written is seen too, but for credential files."""
        return self.reads(path) or (
            self.writes(path)
            and (
                credential_file(path) is None or self._in(path, "write", *_naming(path, self.write, self.granted_write))
            )
        )

    def within(self, files: tuple[str, ...]) -> Scope:
        """The scope of a task whose spec limits itself to `files`; the same when it names none. Never wider."""
        own = (Bound(by="spec", read=files, write=files),) if files else ()
        return self.model_copy(update={"bounds": (*(item for item in self.bounds if item.by != "spec"), *own)})

    def _in(self, path: str, kind: Literal["read", "write"], own: tuple[str, ...], granted: tuple[str, ...]) -> bool:
        if not self._bounded(path, kind, "organisation"):
            return False
        if granted and first_match(path, granted) is not None:
            return True
        return first_match(path, own) is not None and self._bounded(path, kind, "spec")

    def _bounded(self, path: str, kind: Literal["read", "write"], by: str) -> bool:
        for bound in self.bounds:
            globs = bound.read if kind == "read" else bound.write
            if bound.by == by and globs and first_match(path, globs) is None:
                return False
        return True

    @property
    def readable(self) -> tuple[str, ...]:
        """Globs around what may be read: wider than `reads` where a bound narrows them."""
        return (*self.read, *self.granted_read)

    @property
    def writable(self) -> tuple[str, ...]:
        """Globs around what may be written: wider than `writes` where a bound narrows them."""
        return (*self.write, *self.granted_write)


def _naming(path: str, *globs: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Of each the globs that name the credential file `path`."""
    return tuple(tuple(glob for glob in some if names_credential(path, glob)) for some in globs)


class AgentRef(Noun):
    """Adapter + program version + model. `version` is `adapter@program+model+config-digest`."""

    name: str
    adapter: str
    model: str = ""
    version: str = ""


class Task(Noun):
    """One spec given to one role with one scope and one budget."""

    run: str
    spec: Spec
    role: str
    scope: Scope
    budget: Budget
    agent: AgentRef
    requester: str
    base_commit: Sha


class Place(Noun):
    """Where a finding is. `line` counts from 1."""

    path: str
    line: int | None = None
    end_line: int | None = None


Severity = Literal["note", "warning", "error"]


class Finding(Noun):
    """Something a guard or scanner saw. SARIF outside.

    `rule` is a stable dotted name; `excerpt` never contains a secret's value; `fingerprint` is stable
    over unrelated edits (SARIF `partialFingerprints`).
    """

    rule: str
    severity: Severity
    verdict: Ruling
    message: str
    place: Place | None = None
    excerpt: str = ""
    fix: str = ""
    tool: str = "vestibule"
    fingerprint: str = ""

    def as_json(self) -> dict[str, Any]:
        """The contract's `findings[]` shape."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "verdict": self.verdict.value,
            "path": self.place.path if self.place else "",
            "line": self.place.line if self.place else None,
            "message": self.message,
            "fix": self.fix,
            "tool": self.tool,
        }


class Usage(Noun):
    """What a run consumed, as the gateway counted it."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_nano_usd: int = 0

    def plus(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})

    @property
    def budgeted_tokens(self) -> int:
        """Tokens a budget counts: input + output + cache writes."""
        return self.input_tokens + self.output_tokens + self.cache_write_tokens


Subject = Literal["agent", "probe", "person", "system"]


class Event(Noun):
    """One entry of the audit log, as handed to it. The log adds `seq` and `time`.

    An intent carries the verdict and is durable before its effect; an outcome names its intent.
    `details` holds integers, strings, booleans, lists and objects of these; no floats, no secrets.
    """

    run: str
    phase: Literal["intent", "outcome"]
    action: str
    resource: str
    subject: Subject
    actor: str
    verdict: Ruling | None = None
    reasons: tuple[str, ...] = ()
    attempt: int = 1
    policy_digest: str = ""
    input_digest: str = ""
    labels: Label = Label()
    intent: int | None = None
    result: Literal["", "ok", "failed", "unknown"] = ""
    details: dict[str, Any] = Field(default_factory=dict)


class Receipt(Noun):
    """The log's answer: the entry is durable at `seq` (from 1)."""

    seq: int
    time: str


class Wall(Noun):
    """One isolation mechanism: whether it stands, and what proved it."""

    state: Literal["up", "down"]
    proved_by: str


class WallsReport(Noun):
    """The walls that were proven up for a run. `tier` is root, user or none."""

    backend: str = "local"
    tier: Literal["root", "user", "none"]
    walls: dict[str, Wall]
    limits: dict[str, str] = {}
    """What holds each ceiling: `memory`, `pids`, `cpu`, `io` and `workspace` → `cgroup2`, `cgroup1`, `rlimit`, …"""
    start_ms: float = 0.0

    def missing(self, minimum: tuple[str, ...]) -> tuple[str, ...]:
        """Names in `minimum` that do not stand; unknown names count as down."""
        return tuple(name for name in minimum if name not in self.walls or self.walls[name].state != "up")


class Person(Noun):
    """A person as established. `id` is `local:NAME` or `oidc:ISSUER#SUBJECT`; `how` says what proved it."""

    id: str
    groups: tuple[str, ...] = ()
    how: str


Choice = Literal["approve", "request-changes", "reject"]


class GateBinding(Noun):
    """What a gate's decision is bound to: exactly what the person saw.

    `target` is the full name of the branch the change goes to: a change approved for one branch is not
    approved for another, even when both stand at the same commit.
    """

    head_commit: Sha
    tree: Sha
    base_commit: Sha
    policy_digest: str
    findings_digest: str
    target: str = ""


class Gate(Noun):
    """A point where people decide. A row, never a waiting process. Times are UTC, RFC 3339."""

    id: str
    run: str
    kind: Literal["review"]
    round: int
    approvals: int
    eligible: tuple[str, ...]
    self_approval: Literal["never", "recorded"]
    requester: str
    binding: GateBinding
    opened: str
    expires: str
    state: Literal["open", "approved", "changes_requested", "rejected", "expired", "superseded"] = "open"


class Decision(Noun):
    """One person's answer at a gate. `self_review` marks solo work."""

    id: str
    gate: str
    run: str
    person: Person
    choice: Choice
    reason: str
    binding: GateBinding
    self_review: bool = False
    channel: Literal["cli", "console"] = "cli"
    time: str


QuestionKind = Literal["scope", "call", "block"]
AnswerChoice = Literal["grant", "refuse"]
"""Refusing a block acknowledges it."""


class Question(Noun):
    """Something an agent asked a person. A row, like a gate: nobody waits in a process for it.

    `scope`: paths it would like (`asked`: paths, access). `call`: a call to an upstream server that policy held
    (`asked`: tool, arguments, reasons). `block`: a refusal that makes no sense to it (`asked`: what); people see it,
    and nothing waits for it. `asked` and `why` are untrusted. `digest` is what an answer is bound to.
    """

    id: str
    run: str
    round: int
    attempt: int
    kind: QuestionKind
    asked: dict[str, Any]
    why: str
    digest: str
    labels: Label = Label()
    requester: str
    eligible: tuple[str, ...]
    self_approval: Literal["never", "recorded"]
    opened: str
    expires: str
    state: Literal["open", "granted", "refused", "expired", "closed"] = "open"
    person: Person | None = None
    reason: str = ""
    self_review: bool = False
    answered: str = ""


class Timings(Noun):
    """Milliseconds per stage."""

    intake: float = 0
    sandbox: float = 0
    agent: float = 0
    changes: float = 0


class FailMode(Noun):
    """A row of the fail-mode table: what happens when what a guard depends on breaks. Always `deny`."""

    guard: str
    depends_on: str
    when_broken: Literal["deny"] = "deny"
    reason: str
    tested_by: str
