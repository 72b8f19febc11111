"""From an export to a commit, in a bare clone of our own, with object plumbing alone.

Rules it keeps:
1. No checkout, no index of the agent's, no filter: blobs, a tree and a commit are written as objects.
2. Every path passes the one normaliser; one that does not is a finding (deny), and is left out.
3. Adding what exists unseen in the real base, or in its way, is a modification of a hidden file: a finding (deny).
4. Changing, deleting or moving a file of which the view showed a part is a finding (deny), and the base's file stays.
5. What is ignored is judged by the base's `.gitignore` files, never by the agent's.
6. More files than the guards read are refused before one is written, and of many findings of one rule the first are
   named and the others counted: an agent can bury neither git nor a reviewer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from vestibule.boundary.changes.changeset import MAX_ENTRIES, display
from vestibule.boundary.changes.guards.paths import refused
from vestibule.boundary.changes.rules import fingerprinted
from vestibule.core.base import Noun
from vestibule.core.clock import parse_rfc3339
from vestibule.core.errors import DependencyDown, Refused
from vestibule.core.ids import Sha
from vestibule.core.model import Finding, Place
from vestibule.core.refusal import refusal
from vestibule.core.text.paths import PathRefused, normalise_path
from vestibule.core.verdict import Ruling
from vestibule.core.view import Export, ExportedFile
from vestibule.git import Git, GitError, TreeEntry

SUSPICIOUS = ("change.export.setuid", "change.export.hard_link", "change.export.special", "change.export.swapped")
"""Reasons for leaving something behind that a person should know of."""

MAX_NAMED = 50
"""Findings of one rule, and ignored files, that are named."""

FORBIDDEN = ("path.", "change.export.size")
"""Reasons that refuse the whole change: without these files it is not what the agent made."""


class Applied(Noun):
    """The commit that holds what may leave. `commit` equals the base when nothing changed.

    `dropped` adds to the export's own list what the base ignores. `findings` are already denied or held.
    """

    commit: Sha
    tree: Sha
    files: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing of the export is in the commit."""
        return not self.files


def apply_export(
    export: Export, clone: Git, base: Sha, *, message: str, time: str, trust_domain: str = "vestibule.local"
) -> Applied:
    """Write the export on top of `base` into `clone` (bare, ours, with the base's objects). No ref moves.

    `time` is RFC 3339 and becomes the commit's, so the same export gives the same commit.

    Raises:
        Refused: `change.export.limits`, more files than the guards read.
        DependencyDown: git failed.
    """
    try:
        entries = clone.tree(base)
        findings, accepted = _accept(export.files, {entry.path_bytes: entry for entry in entries})
        findings += [_left_behind(path, reason) for path, reason in export.dropped if _reportable(reason)]
        ignored = _ignored(clone, entries, [item.path for item in accepted if item.status == "added"])
        named = sorted(ignored)[:MAX_NAMED]
        if len(ignored) > MAX_NAMED:
            named.append(f"({len(ignored) - MAX_NAMED:,} others)")
        dropped = [*export.dropped, *((path, "ignored: the base's .gitignore names it") for path in named)]
        accepted = [item for item in accepted if item.path not in ignored]
        if len(accepted) > MAX_ENTRIES:
            raise _too_many(len(accepted))
        if not accepted:
            commit, tree = base, clone.tree_of(base)
        else:
            tree = _write(clone, entries, accepted)
            stamp = f"{int(parse_rfc3339(time).timestamp())} +0000"
            email = f"agent@{trust_domain}"
            commit = clone.commit_tree(tree, [base], message, name="Vestibule agent", email=email, time=stamp)
    except GitError as error:
        raise DependencyDown("git", "The change could not be written.", fact=error.stderr.strip()[:200]) from None
    return Applied(
        commit=commit,
        tree=tree,
        files=tuple(dict.fromkeys(item.path for item in accepted)),
        findings=fingerprinted(_named(findings)),
        dropped=tuple(dropped),
    )


def _accept(files: Iterable[ExportedFile], base: dict[bytes, TreeEntry]) -> tuple[list[Finding], list[ExportedFile]]:
    folders: set[bytes] = set()
    for path in base:
        cut = path.rfind(b"/")
        while cut > 0 and path[:cut] not in folders:
            folders.add(path[:cut])
            cut = path.rfind(b"/", 0, cut)
    # A folder that the change empties is no longer in the way; one with unseen files stays.
    gone = {item.path.encode("utf-8") for item in files if item.status == "deleted" and not item.partial}
    findings: list[Finding] = []
    accepted: list[ExportedFile] = []
    for item in files:
        raw = item.path.encode("utf-8")
        problem = refused(item.path)
        if problem and raw not in base:
            findings.append(_refused_path(item.path, problem))
        elif item.partial:
            findings.append(_partial(item))
        elif item.status == "added" and raw in base:
            findings.append(_unseen(item.path, "It exists in the base, out of the task's sight."))
        elif (
            item.status == "added" and raw in folders and any(p.startswith(raw + b"/") and p not in gone for p in base)
        ):
            findings.append(_unseen(item.path, "A folder of that name with files out of sight exists in the base."))
        elif item.status == "added" and any(p in base and p not in gone for p in _parents(raw)):
            findings.append(_unseen(item.path, "A file out of sight has the name of one of its folders."))
        elif item.status != "added" and raw not in base:
            findings.append(_unseen(item.path, "The view had it, and the base has not: the view was not of this base."))
        else:
            accepted.append(item)
    return findings, accepted


def _stays(prefix: bytes, base: Iterable[bytes], gone: set[bytes]) -> bool:
    return any(path.startswith(prefix) and path not in gone for path in base)


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


def _write(clone: Git, entries: list[TreeEntry], accepted: list[ExportedFile]) -> Sha:
    tree: dict[bytes, tuple[str, Sha]] = {entry.path_bytes: (entry.mode, entry.sha) for entry in entries}
    for item in accepted:
        if item.content is None:
            tree.pop(item.path.encode("utf-8"), None)
    for item in accepted:
        if item.content is not None:
            tree[item.path.encode("utf-8")] = (item.mode, clone.hash_blob(item.content))
    return clone.write_tree((mode, sha, path) for path, (mode, sha) in tree.items())


def _ignored(clone: Git, entries: list[TreeEntry], added: list[str]) -> set[str]:
    """Those of `added` that the base's `.gitignore` files name, asked in a scratch tree that holds only those files."""
    rules = [e for e in entries if e.path_bytes.rsplit(b"/", 1)[-1] == b".gitignore" and e.mode.startswith("100")]
    if not added or not rules:
        return set()
    with tempfile.TemporaryDirectory(prefix="vestibule-ignore-") as folder:
        scratch = Git.init(Path(folder))
        for entry in rules:
            try:
                target = Path(folder, normalise_path(entry.path))
            except PathRefused:
                continue
            if entry.size is None or entry.size > 1 << 20:
                continue
            for _, data in clone.blobs([entry.sha]):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        asked = b"".join(path.encode("utf-8") + b"\0" for path in added)
        # check-ignore refuses literal pathspecs; accepted paths hold no colon, so none can be pathspec magic.
        literal = {"GIT_LITERAL_PATHSPECS": "0"}
        out = scratch.run(["check-ignore", "--no-index", "--stdin", "-z"], stdin=asked, env=literal, ok_codes=(0, 1))
    return {item.decode("utf-8") for item in out.split(b"\0") if item}


def _named(findings: Iterable[Finding]) -> list[Finding]:
    """The first `MAX_NAMED` of each rule and verdict, and one that counts the others."""
    kinds: dict[tuple[str, Ruling], list[Finding]] = {}
    for item in findings:
        kinds.setdefault((item.rule, item.verdict), []).append(item)
    found: list[Finding] = []
    for items in kinds.values():
        found += items[:MAX_NAMED]
        if len(items) > MAX_NAMED:
            more = {
                "message": f"{len(items) - MAX_NAMED:,} other files have this finding.",
                "place": None,
                "excerpt": "",
            }
            found.append(items[0].model_copy(update=more))
    return found


def _too_many(count: int) -> Refused:
    return Refused(
        refusal(
            "change.export.limits",
            "The change has more files than can be judged.",
            fact=f"{count:,} files; {MAX_ENTRIES:,} are read",
            agent="Remove generated files from the workspace and finish again.",
            person="Look at what the agent made; generated folders belong in the base's .gitignore.",
        )
    )


def _unseen(path: str, why: str) -> Finding:
    return _finding(
        "change.unseen_file",
        Ruling.DENY,
        path,
        f"The change would overwrite a file that the task may not see. {why}",
        "Choose another name, or widen the role's read globs in the base branch.",
    )


def _partial(item: ExportedFile) -> Finding:
    word = "deletes or moves" if item.status == "deleted" else "replaces"
    return _finding(
        "change.partial_view",
        Ruling.DENY,
        item.path,
        f"The change {word} a file of which the task saw a part only, so it cannot know what is lost.",
        "Leave this file as it is; describe in your answer what should change in it.",
    )


def _refused_path(path: str, problem: PathRefused) -> Finding:
    return _finding(problem.rule, Ruling.DENY, path, problem.reason, problem.hint)


def _reportable(reason: str) -> bool:
    return reason.startswith((*FORBIDDEN, *SUSPICIOUS))


def _left_behind(path: str, reason: str) -> Finding:
    rule, _, text = reason.partition(": ")
    ruling = Ruling.DENY if rule.startswith(FORBIDDEN) else Ruling.HOLD
    return _finding(rule, ruling, path, f"Left behind: {text}" if ruling is Ruling.HOLD else text, "Remove it.")


def _finding(rule: str, ruling: Ruling, path: str, message: str, fix: str) -> Finding:
    shown = display(path.encode("utf-8"))
    severity = "error" if ruling is Ruling.DENY else "warning"
    return Finding(
        rule=rule,
        severity=severity,
        verdict=ruling,
        message=message,
        place=Place(path=shown),
        excerpt=shown[:160],
        fix=fix,
    )
