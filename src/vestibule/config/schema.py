"""What the two configuration files may say. Unknown keys are errors everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from vestibule.config.guardrails import Guardrails
from vestibule.config.parts import (
    Argv,
    Endpoint,
    Globs,
    Host,
    KeySource,
    Names,
    NanoUsd,
    Pin,
    Seconds,
    as_endpoint,
    as_tuple,
    local_host,
)
from vestibule.config.parts import Strict as _Strict
from vestibule.config.providers import Provider
from vestibule.config.spending import OperatorBudget, SpendWatch
from vestibule.core.labels import Confidentiality, Integrity, Label, LabelRule
from vestibule.core.model import Bound, UpstreamUse, ViewRule
from vestibule.core.text.globs import ImpossibleGlob, check_glob
from vestibule.core.text.names import NameRefused, canonical_host
from vestibule.core.text.patterns import SlowPattern, check_pattern

Tool = Literal[
    "get_task",
    "read_file",
    "list_files",
    "search_files",
    "write_file",
    "apply_patch",
    "run_command",
    "request_scope",
    "report_block",
]
TOOLS: tuple[Tool, ...] = get_args(Tool)
WallName = Literal[
    "mounts",
    "network",
    "seccomp",
    "no_new_privs",
    "pids",
    "userns",
    "caps",
    "descriptors",
    "landlock",
    "first_process",
    "cgroup",
    "own_uid",
    "monitor",
    "cgroup_egress",
]
Registry = Literal["pip", "npm", "cargo", "go", "maven", "debian"]
DEFAULT_MINIMUM: tuple[WallName, ...] = ("mounts", "network", "seccomp", "no_new_privs")


PROGRAM = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"


class HostRule(_Strict):
    """A `name:port` for some programs only, by file name."""

    host: Endpoint
    programs: Annotated[tuple[Annotated[str, Field(pattern=rf"^{PROGRAM}$")], ...], BeforeValidator(as_tuple)] = Field(
        min_length=1
    )


HostEntry = Annotated[
    Annotated[Endpoint, Tag("")] | Annotated[HostRule, Tag("rule")],
    Discriminator(lambda value: "rule" if isinstance(value, (dict, HostRule)) else ""),
]


class Network(_Strict):
    """Names the role may reach. A registry is named by ecosystem; its host is the operator's."""

    hosts: Annotated[tuple[HostEntry, ...], BeforeValidator(as_tuple)] = ()
    registries: Annotated[tuple[Registry, ...], BeforeValidator(as_tuple)] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Network:
        names = self.endpoints
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is named twice: write one entry, with all its programs")
        return self

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Every `name:port`."""
        return tuple(item if isinstance(item, str) else item.host for item in self.hosts)

    @property
    def programs(self) -> dict[str, tuple[str, ...]]:
        """Programs of the entries that are for some only."""
        return {item.host: item.programs for item in self.hosts if isinstance(item, HostRule)}


class RoleBudget(_Strict):
    """Ceilings of one run in this role."""

    usd: NanoUsd | None = None
    tokens: Annotated[int, Field(gt=0)] | None = None
    minutes: Annotated[int, Field(gt=0, le=1440)] = 30
    idle_minutes: Annotated[int, Field(gt=0, le=1440)] | None = 10
    """Minutes without processor time, output or a request, after which the agent is stopped; null: no such limit."""


class Askable(_Strict):
    """What a person may grant on the agent's request beyond `read` and `write` of the role. The agent never sees it."""

    read: Globs = ()
    write: Globs = ()


class LabelConfig(_Strict):
    """Files with another label than the repository's (member, internal)."""

    paths: Annotated[Globs, Field(min_length=1)]
    integrity: Annotated[Integrity, Field(strict=False)] | None = None
    confidentiality: Annotated[Confidentiality, Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> LabelConfig:
        if self.integrity is None and self.confidentiality is None:
            raise ValueError("a label rule names an integrity, a confidentiality or both")
        return self

    def rule(self) -> LabelRule:
        return LabelRule(paths=self.paths, integrity=self.integrity, confidentiality=self.confidentiality)


def check_view(show: str, fields: tuple[str, ...], redact: tuple[str, ...]) -> None:
    """Raises ValueError for a view that names nothing, or a field or kind that cannot be."""
    from vestibule.core.projection.redact import KINDS

    if show in ("fields", "header") and not fields:
        raise ValueError(f"a view of {show} names them; '*' is all of them")
    for path in fields:
        if not path or any(not part or part != part.strip() for part in path.split(".")):
            raise ValueError(f"{path!r}: a field is a name, or names with dots between them, such as patient.id")
    unknown = [kind for kind in redact if kind not in KINDS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no kind of personal data that is known: {', '.join(KINDS)}")


class ViewConfig(_Strict):
    """Files that are shown in part only, and read-only.

    The first rule of this file that names a file counts. When the operator's and the repository's both name it, both
    hold.
    """

    paths: Annotated[Globs, Field(min_length=1)]
    show: Literal["fields", "schema", "header", "redacted"]
    fields: Names = ()
    redact: Names = ()

    @model_validator(mode="after")
    def _usable(self) -> ViewConfig:
        check_view(self.show, self.fields, self.redact)
        return self

    def rule(self, by: Literal["organisation", "repository"]) -> ViewRule:
        return ViewRule(by=by, paths=self.paths, show=self.show, fields=self.fields, redact=self.redact)


def _plain_path(value: str) -> str:
    parts = value.split("/")
    if not value or value.startswith("/") or any(part in ("", ".", "..", ".git") for part in parts) or "\0" in value:
        raise ValueError(f"{value!r}: write a file's path from the repository's top, such as web/package-lock.json")
    return value


RepoPath = Annotated[str, BeforeValidator(lambda v: _plain_path(v) if isinstance(v, str) else v)]


class SetupConfig(_Strict):
    """Commands that make a role's tools, once, in a sandbox of their own. They write below /opt/setup."""

    commands: Annotated[tuple[Argv, ...], BeforeValidator(as_tuple), Field(min_length=1, max_length=20)]
    lockfiles: Annotated[tuple[RepoPath, ...], BeforeValidator(as_tuple)] = ()
    """Files of the base commit that they see, at their paths below /workspace. A change of one makes it anew."""
    registries: Annotated[tuple[Registry, ...], BeforeValidator(as_tuple)] = ()
    hosts: Annotated[tuple[Endpoint, ...], BeforeValidator(as_tuple)] = ()

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self.hosts


class RoleConfig(_Strict):
    """A named maximum of rights."""

    read: Annotated[Globs, Field(min_length=1)]
    write: Globs = ()
    tools: Annotated[tuple[Tool, ...], BeforeValidator(as_tuple)] = TOOLS
    commands: Names = ()
    network: Network = Network()
    budget: RoleBudget = RoleBudget()
    setup: SetupConfig | None = None
    askable: Askable = Askable()
    upstreams: dict[str, Annotated[Names, Field(min_length=1)]] = {}
    """Upstream MCP servers by the operator's name, and globs over the tools of each that this role may call."""

    @field_validator("commands")
    @classmethod
    def _plain_programs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
                raise ValueError(f"{name!r}: a command is a program's plain name, such as pytest")
        return value


class AgentConfig(_Strict):
    """An agent by name: an adapter and a model, both defined by the operator."""

    adapter: str
    model: str = ""
    mode: Literal["mcp", "native"] = "mcp"


class ReviewGate(_Strict):
    """Who must approve a change before it merges."""

    approvals: Annotated[int, Field(ge=1, le=20)] = 1
    from_: Annotated[Names, Field(alias="from")] = ()
    self_approval: Literal["never", "recorded"] = "never"
    expires: Seconds = 7 * 86400
    when: Literal["always"] = "always"


class Gates(_Strict):
    review: ReviewGate = ReviewGate()


class ChangesConfig(_Strict):
    """Limits on what may leave, besides the shipped guards."""

    max_files: Annotated[int, Field(gt=0)] = 50
    max_lines: Annotated[int, Field(gt=0)] = 2000
    protected: Globs = ()


class VerifyConfig(_Strict):
    """Commands run after approval and only then, in a sandbox of their own."""

    commands: Annotated[tuple[Argv, ...], BeforeValidator(as_tuple)] = ()


class RepoSandbox(_Strict):
    """May add to the operator's minimum, never take from it."""

    minimum: Annotated[tuple[WallName, ...], BeforeValidator(as_tuple)] = ()


class TrustConfig(_Strict):
    """How an agent earns wider roles. A ladder lists roles from narrow to wide; an agent begins on its first rung.

    The rung an agent stands on is in `.vestibule/trust.yaml`, which people commit; it is for one agent version.
    """

    ladders: dict[str, Annotated[Names, Field(min_length=2)]] = {}
    clean_runs: Annotated[int, Field(gt=0, le=1000)] = 10
    """Clean runs in a row, on the rung it stands on, before the next one is proposed."""
    max_denials: Annotated[int, Field(ge=0)] = 5
    """A run with more refused calls than this is not clean."""
    self_reviewed: Literal["ignore", "count"] = "ignore"
    """Whether a merge that its own requester approved is evidence."""


_PERSON = re.compile(r"(?:local:[A-Za-z0-9_][A-Za-z0-9_.-]*|group:[A-Za-z0-9_-]+|oidc:https?://\S+#\S+)\Z")


class RepoConfig(_Strict):
    """`.vestibule/config.yaml`."""

    version: Literal[1]
    roles: Annotated[dict[str, RoleConfig], Field(min_length=1)]
    agents: dict[str, AgentConfig] = {}
    groups: dict[str, Names] = {}
    gates: Gates = Gates()
    changes: ChangesConfig = ChangesConfig()
    scanners: Names = ()
    verify: VerifyConfig = VerifyConfig()
    sandbox: RepoSandbox = RepoSandbox()
    labels: Annotated[tuple[LabelConfig, ...], BeforeValidator(as_tuple)] = ()
    views: Annotated[tuple[ViewConfig, ...], BeforeValidator(as_tuple)] = ()
    trust: TrustConfig = TrustConfig()

    @field_validator("roles", "agents", "groups")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,62}", name):
                raise ValueError(f"{name!r}: a name has letters, digits, '-' and '_', and starts with a letter")
        return value

    @model_validator(mode="after")
    def _people_exist(self) -> RepoConfig:
        for members in (*self.groups.values(), self.gates.review.from_):
            for member in members:
                if not _PERSON.fullmatch(member):
                    raise ValueError(f"{member!r}: write local:NAME, oidc:ISSUER#NAME or group:NAME")
                if member.startswith("group:") and member[6:] not in self.groups:
                    raise ValueError(f"{member!r} is not defined under groups")
        return self

    @model_validator(mode="after")
    def _rungs_are_roles(self) -> RepoConfig:
        seen: dict[str, str] = {}
        for ladder, rungs in self.trust.ladders.items():
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,62}", ladder):
                raise ValueError(f"trust.ladders: {ladder!r} is no name; use letters, digits, '-' and '_'")
            for role in rungs:
                if role not in self.roles:
                    raise ValueError(f"trust.ladders.{ladder}: there is no role {role!r}")
                if role in seen:
                    raise ValueError(f"trust.ladders.{ladder}: the role {role!r} stands on {seen[role]} already")
                seen[role] = ladder
        return self

    def eligible(self, members: tuple[str, ...]) -> tuple[str, ...]:
        """People and OIDC groups behind `members`, groups resolved one level."""
        found: dict[str, None] = {}
        for member in members:
            for item in self.groups[member[6:]] if member.startswith("group:") else (member,):
                if not item.startswith("group:"):
                    found[item] = None
        return tuple(found)


class OperatorSandbox(_Strict):
    backend: Literal["local"] = "local"
    minimum: Annotated[tuple[WallName, ...], BeforeValidator(as_tuple)] = DEFAULT_MINIMUM
    tools: Names = ()
    memory_mb: Annotated[int, Field(gt=0)] = 4096
    pids: Annotated[int, Field(gt=0)] = 512
    cpus: Annotated[float, Field(gt=0, le=1024)] | None = None
    io_mb: Annotated[int, Field(gt=0)] | None = None
    workspace_mb: Annotated[int, Field(gt=0)] = 4096
    workspace_files: Annotated[int, Field(gt=0, le=100_000_000)] = 500_000

    @field_validator("tools")
    @classmethod
    def _absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            path = Path(item)
            if (
                not path.is_absolute()
                or ".." in path.parts
                or path in (Path("/"), Path("/proc"), Path("/sys"), Path("/dev"))
            ):
                raise ValueError(f"{item!r}: tools are absolute host folders other than /, /proc, /sys and /dev")
        return value


class UpstreamLabel(_Strict):
    """What the results of an upstream server carry. The default trusts nobody and shows nobody else."""

    integrity: Annotated[Integrity, Field(strict=False)] = Integrity.OUTSIDER
    confidentiality: Annotated[Confidentiality, Field(strict=False)] = Confidentiality.INTERNAL

    def label(self) -> Label:
        return Label(integrity=self.integrity, confidentiality=self.confidentiality)


class UpstreamView(_Strict):
    """Which part of a tool's result is shown; a result that cannot be shown so is refused."""

    show: Literal["fields", "schema", "redacted", "identifiers"]
    """`identifiers`: every value that is no identifier, number or date is hidden, so that no sentence comes through."""
    fields: Names = ()
    redact: Names = ()

    @model_validator(mode="after")
    def _says_something(self) -> UpstreamView:
        if self.show == "fields" and not self.fields:
            raise ValueError("a view of fields names them")
        if self.show == "redacted" and not self.redact:
            raise ValueError("a redacted view names what is replaced")
        check_view(self.show, self.fields, self.redact)
        return self


class ArgumentRule(_Strict):
    """What one argument of an upstream tool may be. Of a list, what each item may be. All that is named must hold.

    `pattern` must match the whole of a text of at most 1,024 characters. `paths` are globs below `root`, for arguments
    that are paths; without `root` the argument is a relative path.
    """

    values: Annotated[tuple[str | int | bool, ...], BeforeValidator(as_tuple)] = ()
    pattern: str = ""
    paths: Globs = ()
    root: str = ""
    min: int | None = None
    max: int | None = None
    max_length: Annotated[int, Field(gt=0, le=1 << 16)] | None = None

    @model_validator(mode="after")
    def _usable(self) -> ArgumentRule:
        if self.pattern:
            try:
                check_pattern(self.pattern)
            except SlowPattern as error:
                raise ValueError(str(error)) from None
        if self.root and (not self.root.startswith("/") or "/../" in f"{self.root}/" or self.root == "/"):
            raise ValueError(f"{self.root!r}: root is an absolute folder other than /")
        if self.root and not self.paths:
            raise ValueError("root is for arguments that are paths: name the globs below it under paths")
        return self


class ToolRule(_Strict):
    """One tool (or the tools of a glob) of an upstream server. The first rule that names a tool decides."""

    tool: Annotated[str, Field(min_length=1)]
    arguments: dict[str, ArgumentRule] = {}
    extra_arguments: bool = False
    """Whether arguments that the pinned schema does not name may be given, as far as the schema lets them."""
    name: str = ""
    """Another name for the agent, where the server's own would be refused. For a rule that names one tool."""
    view: UpstreamView | None = None
    label: UpstreamLabel | None = None
    """What the results of this tool carry, as the view shows them; without it, what the server's carry."""
    free_text: Names = ()
    """Arguments whose wording is the agent's. Links, addresses and names in them need trusted text all the same."""

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9_-]{1,48}", value):
            raise ValueError(f"{value!r}: a tool's name has letters, digits, '-' and '_'")
        return value


class Upstream(_Strict):
    """An upstream MCP server: a program in a sandbox of its own (`command`), or an HTTP endpoint (`url`).

    `outward` are globs over the tools whose call leaves a trace or sends data somewhere; by default all of them.
    `inside` are those of them whose trace stays inside the organisation: what they write reaches only people and places
    that are cleared for it. The Rule of Two does not hold them; their arguments need trusted text like all others.
    """

    command: Names = ()
    env: dict[str, str] = {}
    folders: Names = ()
    url: str = ""
    key: KeySource | None = None
    key_header: str = "Authorization"
    """The header that carries `key`; in `Authorization` it is a bearer token."""
    tools: Annotated[Names, Field(min_length=1)]
    outward: Names = ("*",)
    inside: Names = ()
    rules: Annotated[tuple[ToolRule, ...], BeforeValidator(as_tuple)] = ()
    label: UpstreamLabel = UpstreamLabel()
    clearance: Annotated[Confidentiality, Field(strict=False)] = Confidentiality.PUBLIC
    seconds: Annotated[int, Field(gt=0, le=600)] = 30
    start_seconds: Annotated[int, Field(gt=0, le=120)] = 20
    result_bytes: Annotated[int, Field(gt=0, le=1 << 20)] = 64 << 10
    concurrent: Annotated[int, Field(gt=0, le=32)] = 4
    failures: Annotated[int, Field(gt=0, le=100)] = 3
    """So many failures in a row, and the server is left alone."""
    pause_seconds: Annotated[int, Field(gt=0, le=3600)] = 30
    """For so long at first, then twice as long each time, at most an hour."""
    cache_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    """For so long the same call of a tool that is not outward gives the same answer within one attempt; 0 is never."""
    memory_mb: Annotated[int, Field(gt=0, le=65536)] = 1024

    @model_validator(mode="after")
    def _one_way(self) -> Upstream:
        if bool(self.command) is bool(self.url):
            raise ValueError("an upstream has either a command or a url")
        if self.url and (self.env or self.folders):
            raise ValueError("env and folders are for a server that is a command")
        if self.command and self.key:
            raise ValueError("a key is for a server that is a url; a sandbox holds none")
        if self.url:
            check_upstream_url(self.url)
        for folder in self.folders:
            path = Path(folder)
            if not path.is_absolute() or ".." in path.parts or str(path) in ("/", "/proc", "/sys", "/dev"):
                raise ValueError(f"{folder!r}: folders are absolute host folders other than /, /proc, /sys and /dev")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", self.key_header):
            raise ValueError(f"{self.key_header!r} is no header's name")
        for pattern in (*self.tools, *self.outward, *self.inside, *(rule.tool for rule in self.rules)):
            try:
                check_glob(pattern)
            except ImpossibleGlob as error:
                raise ValueError(str(error)) from None
        names = [rule.name for rule in self.rules if rule.name]
        if len(set(names)) != len(names):
            raise ValueError("two rules give tools one name")
        return self


def check_upstream_url(url: str) -> None:
    """Raises ValueError unless it is `https`, or `http` to this machine; no user, query or fragment."""
    found = re.fullmatch(r"(https?)://([^\s/?#@\\]+)(/[^\s?#\\]*)?", url)
    if found is None or not url.isascii():
        raise ValueError("url is an http(s) URL without user, query or fragment")
    if found[1] == "http" and not local_host(found[2]):
        raise ValueError("a server that is not on this machine is reached by https only")


class OperatorScope(_Strict):
    """The organisation's ceiling on every role of every repository. Empty: none."""

    read: Globs = ()
    write: Globs = ()

    def bounds(self) -> tuple[Bound, ...]:
        return (Bound(by="organisation", read=self.read, write=self.write),) if self.read or self.write else ()


def _registry_place(value: str) -> str:
    """`name:port` in its canonical form, or an http(s) URL without user, query or fragment."""
    if "://" not in value:
        return as_endpoint(value)
    found = re.fullmatch(r"(https?)://([^\s/?#@\\:]+)(:[0-9]{1,5})?(/[^\s?#\\]*)?", value)
    if found is None:
        raise ValueError(f"{value!r}: write name:port, or an http(s) URL without user, query or fragment")
    as_endpoint(f"{found[2]}{found[3] or ':443'}")
    return value


RegistryPlace = Annotated[str, BeforeValidator(lambda v: _registry_place(v) if isinstance(v, str) else v)]


class OperatorNetwork(_Strict):
    """What roles may reach, and how. `hosts` absent: whatever they name."""

    hosts: Annotated[tuple[Endpoint, ...], BeforeValidator(as_tuple)] | None = None
    private: Annotated[tuple[Host, ...], BeforeValidator(as_tuple)] = ()
    """Exactly these hosts may lead to inner addresses."""
    registries: dict[Registry, Annotated[tuple[RegistryPlace, ...], BeforeValidator(as_tuple)]] = {}
    """Hosts of a registry, instead of what the client's own configuration says: `name:port`, or the index's URL."""
    pins: dict[Endpoint, Pin] = {}
    """Where a name and port lead, instead of a look-up: an address and a port."""
    integrity: Annotated[Integrity, Field(strict=False)] = Integrity.MEMBER
    """What comes in from any host counts as: who names a host in a role vouches for it, unless this says less."""
    clearance: Annotated[Confidentiality, Field(strict=False)] = Confidentiality.INTERNAL
    """How confidential what a run has read may be, for it to send anything out."""
    learn: bool = False
    """Whether `vestibule run --egress learn` is allowed."""
    sent_mb: Annotated[int, Field(gt=0)] = 256
    received_mb: Annotated[int, Field(gt=0)] = 8192
    rate_kb: Annotated[int, Field(ge=0)] = 0
    """Per second and name; 0: no limit."""


class OpaBackend(_Strict):
    """An OPA server that evaluates the policies: `https://…`, or `http://` on this machine."""

    url: str
    token: KeySource | None = None


class PolicyBackend(_Strict):
    """Where policy is evaluated: in this process, or by an OPA server."""

    opa: OpaBackend | None = None


class OperatorConfig(_Strict):
    """The operator's file (`VESTIBULE_CONFIG`). Every key is optional."""

    version: Literal[1] = 1
    models: dict[str, Provider] = {}
    model_aliases: dict[str, Annotated[Names, Field(min_length=1)]] = {}
    """A name for agents → models in the order in which they are asked (`provider/model`)."""
    prices: Names = ()
    """Files with prices that the shipped table lacks, or that a contract says otherwise."""
    guardrails: Guardrails = Guardrails()
    spend: SpendWatch = SpendWatch()
    sandbox: OperatorSandbox = OperatorSandbox()
    policy: Names = ()
    policy_backend: PolicyBackend = PolicyBackend()
    scope: OperatorScope = OperatorScope()
    network: OperatorNetwork = OperatorNetwork()
    labels: Annotated[tuple[LabelConfig, ...], BeforeValidator(as_tuple)] = ()
    views: Annotated[tuple[ViewConfig, ...], BeforeValidator(as_tuple)] = ()
    upstreams: dict[str, Upstream] = {}
    budget: OperatorBudget = OperatorBudget()
    trust_domain: str = "vestibule.local"

    @field_validator("upstreams")
    @classmethod
    def _servers(cls, value: dict[str, Upstream]) -> dict[str, Upstream]:
        for name in value:
            if not re.fullmatch(r"[a-z][a-z0-9-]{0,23}", name) or name in ("vestibule", "mcp"):
                raise ValueError(f"{name!r}: a server's name has small letters, digits and '-', at most 24 characters")
        return value

    @field_validator("trust_domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        try:
            return canonical_host(value)
        except NameRefused as error:
            raise ValueError(str(error)) from None


def uses(role: RoleConfig) -> tuple[UpstreamUse, ...]:
    """What a role may call of upstream servers."""
    return tuple(UpstreamUse(server=name, tools=tools) for name, tools in sorted(role.upstreams.items()))


OPERATOR_ONLY = (
    "models",
    "model_aliases",
    "prices",
    "guardrails",
    "spend",
    "base_url",
    "key",
    "policy",
    "policy_backend",
    "budget",
    "trust_domain",
    "tools",
    "scope",
    "upstreams",
)
"""Keys that live in the operator's configuration; a repository that sets one gets told so."""
