"""Size: what nobody can review does not pass, and what guards could not read is refused."""

from __future__ import annotations

from collections.abc import Iterator

from vestibule.boundary.changes.changeset import MAX_ENTRIES, MAX_FILE, MAX_TOTAL, ChangeSet
from vestibule.boundary.changes.guards.base import GuardContext, found, suffix
from vestibule.core.model import Finding
from vestibule.core.verdict import Ruling

CODE_LINE, DATA_LINE = 5_000, 65_536
"""Bytes of one line beyond which a person has to look: of code, and of anything else."""
CODE = frozenset(
    [
        ".py",
        ".pyi",
        ".js",
        ".mjs",
        ".cjs",
        ".ts",
        ".mts",
        ".cts",
        ".jsx",
        ".tsx",
        ".vue",
        ".svelte",
        ".css",
        ".html",
        ".htm",
        ".php",
        ".rb",
        ".go",
        ".rs",
        ".java",
        ".kt",
        ".c",
        ".h",
        ".cc",
        ".cpp",
        ".hpp",
        ".cs",
        ".swift",
        ".scala",
        ".sh",
        ".bash",
        ".zsh",
        ".ps1",
        ".lua",
        ".pl",
        ".sql",
        ".r",
        ".ex",
        ".exs",
        ".clj",
        ".groovy",
        ".tf",
    ]
)


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:
    if changes.skipped:
        yield found(
            "change.size.unread",
            Ruling.DENY,
            f"The change has more than {MAX_ENTRIES:,} files; the rest was not read.",
            fix="Split the change.",
        )
    for change in changes.changes:
        if change.unread:
            yield found(
                "change.size.unread",
                Ruling.DENY,
                f"The file was not read: it is larger than {MAX_FILE >> 20} MiB, "
                f"or the change is larger than {MAX_TOTAL >> 20} MiB.",
                change,
                excerpt=f"{change.new_size or 0} bytes",
                fix="Leave large files out of the repository, or split the change.",
            )
        limit = CODE_LINE if suffix(change.name) in CODE else DATA_LINE
        long = next((number for number, line in change.added if len(line) > limit), None)
        if long is not None:
            yield found(
                "change.size.line",
                Ruling.HOLD,
                f"A line is longer than {limit:,} bytes: nobody reads it.",
                change,
                line=long,
                excerpt="",
                fix="Leave generated and minified files out of the change.",
            )
    # Pure moves and changed line ends need no reading.
    counted = [c for c in changes.changes if not c.eol_only and not (c.status == "R" and not c.lines and not c.binary)]
    if len(counted) > context.max_files:
        yield found(
            "change.size.files",
            Ruling.DENY,
            f"The change touches {len(counted):,} files; {context.max_files:,} are allowed.",
            fix="Split the change, or raise changes.max_files in the base branch.",
        )
    lines = sum(change.lines for change in counted)
    if lines > context.max_lines:
        yield found(
            "change.size.lines",
            Ruling.DENY,
            f"The change adds and removes {lines:,} lines; {context.max_lines:,} are allowed.",
            fix="Split the change, or raise changes.max_lines in the base branch.",
        )
