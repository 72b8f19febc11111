"""Protocols that let the rooms of the house work together without importing each other.

Only `pipeline`, `console` and `cli` wire implementations to these.
"""

from __future__ import annotations

import concurrent.futures
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from vestibule.core.base import Noun
from vestibule.core.ids import Sha
from vestibule.core.labels import Label
from vestibule.core.model import (
    Decision,
    Event,
    GateBinding,
    Question,
    QuestionKind,
    Receipt,
    Usage,
    WallsReport,
)
from vestibule.core.verdict import Verdict


class PolicyInput(Noun):
    """What a policy sees. The contract's `{action, subject, resource, task, labels, facts}`."""

    action: str
    subject: dict[str, Any]
    resource: dict[str, Any]
    task: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    facts: dict[str, Any] = {}


class Decider(Protocol):
    """Policy. Never raises: whatever goes wrong inside is a deny with a reason `policy.*`."""

    @property
    def digest(self) -> str:
        """Digest of every bundle that takes part."""
        ...

    def decide(self, request: PolicyInput) -> Verdict: ...


class AuditSink(Protocol):
    """The audit log's writing end. Thread-safe."""

    def submit(self, event: Event) -> concurrent.futures.Future[Receipt]:
        """Resolves when the entry is durable; fails with `DependencyDown("audit")` when it cannot be."""
        ...


class Mount(Noun):
    """A host path shown inside. Read-only unless `write`."""

    source: Path
    target: str
    write: bool = False


class Limits(Noun):
    """Resource ceilings of a sandbox."""

    wall_seconds: float = 1800
    memory_bytes: int = 4 << 30
    pids: int = 512
    cpu_seconds: int | None = None
    file_bytes: int = 1 << 30
    open_files: int = 4096
    cpu_percent: int | None = None
    """Hundredths of a processor at a time, over all that run inside."""
    io_bytes: int | None = None
    """Bytes a second, read from and written to each disk: the system's, and those that something writable lies on."""


class Quota(Noun):
    """What a workspace may hold: bytes, and files with folders. `folder` is where it is counted.

    `held`: the folder is a file system of that size, which nothing can pass; else the sandbox is ended when it has.
    """

    folder: Path
    bytes: int
    files: int
    held: bool


class SandboxSpec(Noun):
    """One sandbox: what is mounted, what runs, which listeners exist inside.

    `names` are host names that get a loopback address and a listener each inside (port 80). `endpoints` (host, port)
    get one listener each, and each host an address of its own. `resolver`: port 53 inside is answered from outside.
    `env` is the whole environment; nothing is inherited.
    """

    run: str
    argv: tuple[str, ...]
    cwd: str = "/workspace"
    env: dict[str, str] = {}
    path: tuple[str, ...] = ()
    """Folders inside, before the operator's tools on PATH."""
    mounts: tuple[Mount, ...] = ()
    home_files: dict[str, bytes] = {}
    names: tuple[str, ...] = ()
    endpoints: tuple[tuple[str, int], ...] = ()
    resolver: bool = False
    limits: Limits = Limits()
    quota: Quota | None = None


class SandboxResult(Noun):
    """How it ended. `reason` is `exited`, `signal`, `wall-clock`, `quota`, `output` or `killed`."""

    exit_code: int
    reason: str
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False
    wall_ms: float = 0
    refused_calls: dict[str, int] = {}
    """System calls that no ordinary program makes, refused: name → how often."""
    walls: WallsReport


class KernelConnect(Noun):
    """Connections that a kernel-side monitor saw a process of the sandbox make. `address` in plain notation.

    `refused`: the kernel answered with an error, so nothing went anywhere. `program` is a path, "" where not known.
    """

    protocol: Literal["tcp", "udp"] = "tcp"
    address: str
    port: int
    program: str = ""
    count: int = 1
    refused: bool = False


RESOLVER = ("resolver/udp", "resolver/tcp")
"""Keys of `RunningSandbox.listeners` for DNS: a datagram socket and a listener on 127.0.0.1:53 inside."""


class Activity(Noun):
    """What a sandbox has done since its start: processor time of everything inside, bytes of output."""

    cpu_seconds: float
    output_bytes: int


class RunningSandbox(Protocol):
    """A sandbox whose namespaces exist; the program starts at `go()`.

    Between creation and `go()` the supervisor serves the listeners and sends its probes through
    `connect`, so that guards are proven live before the agent's first instruction.
    """

    @property
    def report(self) -> WallsReport: ...

    @property
    def listeners(self) -> Mapping[str, socket.socket]:
        """Sockets inside the namespace, served outside: listeners by name, by `host:port`, and `RESOLVER`'s two."""
        ...

    @property
    def place(self) -> tuple[Path | None, int]:
        """Its cgroup v2 folder (None: it has none) and the pid of its first process, as seen outside."""
        ...

    def listen(self, address: str, port: int) -> socket.socket:
        """One more listener inside, on a loopback address. Raises `DependencyDown("sandbox")`."""
        ...

    def connect(self, name: str) -> socket.socket:
        """A client socket that was connected inside the namespace to that name's listener."""
        ...

    def programs_of(self, client: tuple[str, int], server: tuple[str, int]) -> tuple[str, ...]:
        """Paths, as seen inside, of the programs whose processes hold the client's end of a TCP connection.

        Empty when that cannot be told. Reads the kernel's tables, so it takes its time: not for an event loop.
        """
        ...

    def probe_egress(self) -> dict[str, str]:
        """Tries to leave from inside: target → error name, or `connected` (a wall is down)."""
        ...

    def activity(self) -> Activity:
        """Raises `DependencyDown("sandbox")` when it ended or does not answer."""
        ...

    def go(self) -> None: ...

    def wait(self) -> SandboxResult: ...

    def kill(self) -> None:
        """Idempotent: every process inside is gone when it returns."""
        ...


class SandboxBackend(Protocol):
    """A way to make sandboxes. Refuses (`DependencyDown("sandbox")`) rather than fall back."""

    def create(
        self,
        spec: SandboxSpec,
        *,
        stdin: bytes | int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> RunningSandbox:
        """`stdout`/`stderr`: file descriptors to pass through, else captured (bounded)."""
        ...

    def report(self) -> WallsReport:
        """Which walls stand on this machine, proven by attacking them once per process."""
        ...


class ModelLedger(Protocol):
    """Budget: durable holds before dispatch, settled from what the provider reported.

    Every call hands its work to the ledger's own thread and returns at once; the future resolves when it is durable,
    and fails with `Refused` (`budget.*`) or `DependencyDown` (`database`, `budget`).
    """

    def submit_hold(
        self, run: str, model: str, *, nano_usd: int, tokens: int, details: Mapping[str, Any] | None = None
    ) -> concurrent.futures.Future[str]:
        """The hold's id; refused when a ceiling would be passed. `details` say whose spend it is, and join the record:
        `agent`, `agent_version`, `role`, `repository`, `provider`, `prices`."""
        ...

    def submit_settle(
        self, hold: str, usage: Usage, details: Mapping[str, Any] | None = None
    ) -> concurrent.futures.Future[None]:
        """The provider reported this usage. `details` join the record (kinds of tokens that `Usage` does not tell)."""
        ...

    def submit_charge(self, hold: str) -> concurrent.futures.Future[None]:
        """The provider was reached and reported no usage: the whole hold counts as spent."""
        ...

    def submit_release(self, hold: str) -> concurrent.futures.Future[None]:
        """The request never reached a provider."""
        ...

    def usage(self, run: str) -> Usage: ...


class AnswerGuard(Protocol):
    """A validator of what a model says, chosen by the operator (`guardrails.answers`). Used from one thread at a time.

    `reads` says what it is given: `text` is each text of an answer, `call` each text in a tool call's arguments,
    `final` the last text of a turn that has no calls.
    """

    @property
    def name(self) -> str: ...

    @property
    def reads(self) -> frozenset[Literal["text", "call", "final"]]: ...

    def check(self, text: str) -> str:
        """Empty: it may pass. Else the end of a sentence that says what is wrong. Raising is a denial as well."""
        ...


class CommandRunner(Protocol):
    """Runs one command for `run_command`: a fresh sandbox on the same workspace, no network at all."""

    def run(self, argv: Sequence[str], *, timeout_seconds: float) -> SandboxResult: ...


class ServerProcess(Protocol):
    """An upstream MCP server that runs in its own sandbox. The descriptors are this process's ends, its to close."""

    @property
    def stdin(self) -> int:
        """Writing end of the server's standard input."""
        ...

    @property
    def stdout(self) -> int:
        """Reading end of its standard output."""
        ...

    def kill(self) -> str:
        """Every process of it is gone when this returns. Idempotent. Gives the tail of its stderr, untrusted."""
        ...


class ServerRunner(Protocol):
    """Starts upstream MCP servers: no network, `folders` read-only at their own place, `env` and nothing else."""

    def start(
        self, server: str, command: Sequence[str], env: Mapping[str, str], folders: Sequence[str], memory_mb: int
    ) -> ServerProcess:
        """Raises `DependencyDown`: `sandbox`, `walls`. After the attempt's end nothing starts any more."""
        ...


class Questions(Protocol):
    """What one run's agent asks people. Thread-safe; rows, so an answer may come from another process."""

    def ask(self, kind: QuestionKind, asked: Mapping[str, Any], why: str, *, labels: Label) -> Question:
        """The question, durable. The same `asked` again gives the one that is open or answered already.

        Raises:
            Refused: `question.limit`, the run has asked too much.
        """
        ...

    def find(self, kind: QuestionKind, asked: Mapping[str, Any]) -> Question | None:
        """The newest question about exactly `asked`, with its answer if there is one."""
        ...

    def wait(self, question: str, seconds: float) -> Question:
        """Returns as soon as it is answered, at the latest after `seconds`."""
        ...


class CheckpointRef(Noun):
    """A checkpoint of the audit log as a merge names it: origin, size, root (standard base64)."""

    origin: str
    size: int
    root: str


class MergeRequest(Noun):
    """An approved change to merge. `binding` is what the decisions approved; `time` (RFC 3339) dates the commit."""

    run: str
    title: str
    binding: GateBinding
    decisions: tuple[Decision, ...]
    checkpoint: CheckpointRef
    time: str


class MergeResult(Noun):
    """`merged`: the target holds `commit`. `left`: nothing was moved; `rule` says why, `how_to_finish` what to do."""

    state: Literal["merged", "left"]
    target: str
    commit: Sha = ""
    rule: str = ""
    reason: str = ""
    how_to_finish: str = ""


class MergeView(Noun):
    """What a forge sees of a change right now.

    `mergeable`: the target is where the decision saw it, or the change is in it already: as `merged_as`, our merge
    commit, or `by_hand`, when a person merged the approved head.
    """

    target: str
    target_head: Sha | None
    branch_head: Sha | None
    tree: Sha | None
    base_is_ancestor: bool
    mergeable: bool
    merged_as: Sha | None = None
    by_hand: bool = False


class Forge(Protocol):
    """Where proposed changes appear and approved ones merge."""

    @property
    def target(self) -> str:
        """The full name of the branch that changes go to, such as `refs/heads/main`."""
        ...

    def target_head(self) -> Sha:
        """The target branch's current commit. Raises `UsageError` when it has none yet."""
        ...

    def propose(self, run: str, clone: Path, commit: Sha, *, previous: Sha | None = None) -> str:
        """Show `commit` of the repository at `clone` as the run's branch; its short name. Idempotent.

        `previous` is what the branch held after the last round. Raises `Refused` (`forge.branch_moved`)
        when somebody else moved or removed it.
        """
        ...

    def look(self, run: str, binding: GateBinding) -> MergeView:
        """The facts of a merge, read now."""
        ...

    def merge(self, request: MergeRequest) -> MergeResult:
        """Verify again, then merge exactly what was approved. Idempotent, safe to repeat after a crash.

        Raises `Refused` (`merge.*`) when what is there is not what was approved.
        """
        ...

    def settle(self, run: str) -> str:
        """Undo what a killed merge of this run left half made, and give the work tree back to its person.

        A sentence about what was undone, or is in the way; empty when there was nothing. A merge that is in stays.
        """
        ...

    def protect(self) -> str:
        """Keep pushes off the target and the proposals where the forge can; what stands: `installed`, `put there now`,
        `foreign`, `inactive`, or `not applicable`. Never replaces what somebody else put there.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Kind, place, posture, for `doctor` and the run's page. JSON values."""
        ...
