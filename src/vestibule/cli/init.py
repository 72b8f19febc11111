"""`vestibule init`: looks at a repository, writes `.vestibule/`, pins the audit log's key. Never overwrites.

Files are made beneath the repository's folder without following links: a cloned repository cannot aim them elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vestibule.git import Git


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path), default=Path(), metavar="[DIR]")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of .vestibule/config.yaml and do nothing else.")
def command(directory: Path, *, schema: bool) -> int:
    """Write .vestibule/ for the repository in DIR: configuration, a place for policy, a ticket template.

    What is already there is left alone. The audit log's verifying key is made and pinned for this user.
    """
    from vestibule.config.load import config_dir, load_operator_config, load_repo_config, repo_config_schema, state_dir
    from vestibule.core.errors import UsageError

    if schema:
        from vestibule.cli.output import emit_json

        emit_json(repo_config_schema())
        return 0
    from vestibule.audit.keys import pin_key
    from vestibule.audit.trust import Trust
    from vestibule.git import Git
    from vestibule.identity.people import current_person

    git = Git.open(directory)
    if git.work_tree is None:
        raise UsageError(
            f"{directory} is a bare repository: there is no folder to write into.",
            next_step="Run `vestibule init` in a clone of it, and commit what it writes.",
        )
    person = current_person().id
    found = look(tracked(git))
    files = {
        ".vestibule/config.yaml": config_text(found, person),
        ".vestibule/ticket-template.md": TICKET,
        ".vestibule/policy/README.md": POLICY,
    }
    load_repo_config(files[".vestibule/config.yaml"].encode())
    operator = load_operator_config()
    key = pin_key(state_dir() / "audit", Trust(config_dir(os.environ) / "trust"), trust_domain=operator.trust_domain)
    written, kept = write_new(git.work_tree, files)
    _report(found, written, kept, key, person)
    return 0


@dataclass(slots=True)
class Found:
    """What the repository looks like. Globs and commands are plain text, quoted when written."""

    languages: list[str] = field(default_factory=list)
    write: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    verify: list[list[str]] = field(default_factory=list)


_LANGUAGES = {
    ".py": "Python", ".js": "JavaScript", ".jsx": "JavaScript", ".mjs": "JavaScript", ".ts": "TypeScript",
    ".tsx": "TypeScript", ".go": "Go", ".rs": "Rust", ".java": "Java", ".kt": "Kotlin", ".rb": "Ruby", ".php": "PHP",
    ".c": "C", ".h": "C", ".cc": "C++", ".cpp": "C++", ".cs": "C#", ".swift": "Swift", ".scala": "Scala",
    ".ex": "Elixir", ".sh": "Shell", ".lua": "Lua", ".pl": "Perl", ".zig": "Zig", ".hs": "Haskell",
}  # fmt: skip
_RUNNERS: tuple[tuple[str, list[str], list[str]], ...] = (
    (r"(?:.*/)?(?:pytest\.ini|conftest\.py|test_[^/]+\.py|[^/]+_test\.py)", ["pytest", "python3"], ["pytest", "-q"]),
    (r"package\.json", ["npm", "node"], ["npm", "test"]),
    (r"go\.mod", ["go", "gofmt"], ["go", "test", "./..."]),
    (r"Cargo\.toml", ["cargo"], ["cargo", "test", "--offline"]),
    (r"pom\.xml", ["mvn"], ["mvn", "-q", "-o", "test"]),
    (r"build\.gradle(?:\.kts)?", ["gradle"], ["gradle", "--offline", "test"]),
    (r"\.rspec|spec/spec_helper\.rb", ["rspec", "ruby"], ["rspec"]),
    (r"mix\.exs", ["mix"], ["mix", "test"]),
)
"""(a file that shows it, programs `run_command` may start, the verification command)."""
_WELL_KNOWN = ("src", "lib", "app", "pkg", "cmd", "internal", "tests", "test", "spec", "docs", "examples")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


def tracked(git: Git) -> list[str]:
    """Names of tracked files, and of untracked ones that are not ignored."""
    out = git.run(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    return [name.decode("utf-8", "surrogateescape") for name in out.split(b"\0") if name]


def look(names: list[str]) -> Found:
    """What the names of its files say about a repository. Pure."""
    from vestibule.core.control_files import protected_path

    found = Found()
    counts: dict[str, int] = {}
    folders: dict[str, int] = {}
    loose: dict[str, None] = {}
    for name in names:
        language = _LANGUAGES.get(Path(name).suffix.lower())
        top, slash, _ = name.partition("/")
        if language:
            counts[language] = counts.get(language, 0) + 1
        if slash and _PLAIN.match(top) and (language or top in _WELL_KNOWN) and not protected_path(name):
            folders[top] = folders.get(top, 0) + 1
        elif language and not slash:
            loose[f"*{Path(name).suffix}"] = None
    found.languages = sorted(counts, key=lambda item: (-counts[item], item))
    known = [name for name in _WELL_KNOWN if name in folders]
    others = sorted(name for name in folders if name not in known)
    found.write = [f"{name}/**" for name in (*known, *others)][:20] + list(loose)
    found.write = found.write or ["src/**", "tests/**"]
    for pattern, commands, verify in _RUNNERS:
        if any(re.fullmatch(pattern, name) for name in names):
            found.commands += [item for item in commands if item not in found.commands]
            found.verify.append(verify)
    return found


def config_text(found: Found, person: str) -> str:
    """`.vestibule/config.yaml`, commented."""

    def inline(items: list[str]) -> str:
        return json.dumps(items, ensure_ascii=False)

    verify = ", ".join(inline(item) for item in found.verify[:1])
    seen = ", ".join(found.languages[:4]) or "no source files yet"
    return f"""\
# Vestibule, for this repository ({seen}).
# Read from the commit that a change goes to, never from the change itself: what stands here governs from the moment
# it is merged. `vestibule init --schema` prints the JSON Schema; unknown keys are errors.
version: 1

# A role is the most that an agent may do. A run names one with --role.
roles:
  developer:
    read: ["**"]                        # what the agent sees; agent-control files are never shown
    write: {inline(found.write)}
    tools: [get_task, read_file, list_files, search_files, write_file, apply_patch, run_command]
    commands: {inline(found.commands)}  # programs that run_command may start, inside the sandbox
    budget: {{usd: 2.50, tokens: 2000000, minutes: 30}}

# Agents by name. Adapters and models are defined by the operator: no address and no key belongs in this file.
agents:
  claude: {{adapter: claude-code, model: claude-sonnet-5}}
  reference: {{adapter: reference, model: claude-sonnet-5}}

# People: local:NAME is the operating-system user that runs `vestibule review`.
groups:
  reviewers: [{json.dumps(person)}]

gates:
  review:
    approvals: 1
    from: ["group:reviewers"]
    # never: whoever asked for a change does not approve it (exit code 4 says so).
    # recorded: for solo work. The requester may approve, and decision, log and merge are marked self-reviewed.
    self_approval: never
    expires: 7d
    when: always

# Limits of one change. .vestibule/, CI files and agent-control files are always protected; add your own.
changes:
  max_files: 50
  max_lines: 2000
  protected: []

# Run after approval and only then, in a sandbox of their own, without a network.
verify:
  commands: [{verify}]

# May add walls to the operator's minimum, never take any away.
sandbox:
  minimum: []
"""


TICKET = """\
# Say in one line what should be different

What is wrong or missing, and for whom. How it can be seen: steps, an error message, a failing test.
The text grants nothing: role, files, budget and reviewers come from .vestibule/config.yaml and the command.

## Requirements

- What must be true afterwards, one point a line.

## Acceptance criteria

- How a reviewer will check it, one point a line.
"""

POLICY = """\
# Policy of this repository

Rego modules in this folder (`*.rego`, package `vestibule`) take part in every decision, beside the shipped policy and
the organisation's. The strictest verdict counts: what stands here can tighten, never loosen. It is read from the
commit that a change goes to. Without a module here, the shipped policy decides alone.

A module defines `decision := {"verdict": "allow" | "hold" | "deny", "reasons": [...]}`; no answer is a deny.

    vestibule policy lint .vestibule/policy      # which built-ins are safe to use
    vestibule policy test .vestibule/policy      # unit tests beside the modules
    vestibule policy explain --help              # why a request is decided so
"""


def write_new(root: Path, files: dict[str, str]) -> tuple[list[str], list[str]]:
    """(written, left alone). Folders and files are opened one by one beneath `root`, links never followed.

    Raises:
        UsageError: a folder of the way is a link or a file.
    """
    from vestibule.core.errors import UsageError

    written: list[str] = []
    kept: list[str] = []
    for name, text in files.items():
        *folders, last = name.split("/")
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                inner = _enter(descriptor, folder)
                os.close(descriptor)
                descriptor = inner
            try:
                file = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=descriptor)
            except FileExistsError:
                kept.append(name)
                continue
            with os.fdopen(file, "w", encoding="utf-8") as stream:
                stream.write(text)
            written.append(name)
        except OSError as error:
            raise UsageError(
                f"{name} cannot be written: {error.strerror}.",
                next_step="Make sure that .vestibule is a plain folder that you may write to.",
            ) from None
        finally:
            os.close(descriptor)
    return written, kept


def _enter(parent: int, name: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


def _report(found: Found, written: list[str], kept: list[str], key: str, person: str) -> None:
    lines = [f"Saw: {', '.join(found.languages[:4]) or 'no source files'}; agents may write {', '.join(found.write)}."]
    lines += [f"  wrote       {name}" for name in written]
    lines += [f"  left alone  {name} (it is there already)" for name in kept]
    lines.append(f"Reviewer: {person}. Audit log key, pinned: {key}")
    if written:
        lines.append(
            "Next: read .vestibule/config.yaml, then commit it to the main branch; it governs once it is there."
        )
    click.echo("\n".join(lines))
