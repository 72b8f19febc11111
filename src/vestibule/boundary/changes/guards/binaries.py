"""Binary content: machine code is refused, small pictures and fonts pass, everything else waits for a person.

By the first bytes, never by the name alone (xz, CVE-2024-3094: a payload staged as a test file).
"""

from __future__ import annotations

from collections.abc import Iterator

from vestibule.boundary.changes.changeset import Change, ChangeSet
from vestibule.boundary.changes.guards.base import GuardContext, found, suffix
from vestibule.core.model import Finding
from vestibule.core.verdict import Ruling

EXECUTABLE: tuple[tuple[bytes, str], ...] = (
    (b"\x7fELF", "an ELF program"),
    (b"MZ", "a Windows program"),
    (b"\xfe\xed\xfa\xce", "a Mach-O program"),
    (b"\xfe\xed\xfa\xcf", "a Mach-O program"),
    (b"\xce\xfa\xed\xfe", "a Mach-O program"),
    (b"\xcf\xfa\xed\xfe", "a Mach-O program"),
    (b"\xca\xfe\xba\xbe", "a Java class or a universal Mach-O program"),
    (b"\xca\xfe\xd0\x0d", "packed Java classes"),
    (b"\x00asm", "a WebAssembly module"),
    (b"dex\n", "Android code"),
    (b"!<arch>\n", "an archive of object code"),
    (b"BC\xc0\xde", "LLVM bitcode"),
    (b"\x1bLua", "Lua bytecode"),
)
"""Magic numbers of code that a machine runs and nobody reads."""
_BYTECODE = (
    ".pyc",
    ".pyo",
    ".pyd",
    ".so",
    ".dll",
    ".dylib",
    ".exe",
    ".class",
    ".o",
    ".a",
    ".ko",
    ".wasm",
    ".jar",
    ".war",
)

HARMLESS: tuple[tuple[bytes, int, tuple[str, ...]], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, (".png",)),
    (b"\xff\xd8\xff", 0, (".jpg", ".jpeg")),
    (b"GIF87a", 0, (".gif",)),
    (b"GIF89a", 0, (".gif",)),
    (b"WEBP", 8, (".webp",)),
    (b"\x00\x00\x01\x00", 0, (".ico",)),
    (b"wOFF", 0, (".woff",)),
    (b"wOF2", 0, (".woff2",)),
    (b"\x00\x01\x00\x00", 0, (".ttf",)),
    (b"OTTO", 0, (".otf",)),
)
"""Magic, its offset, and the suffixes that go with it."""
HARMLESS_BYTES = 512 << 10

LFS = b"version https://git-lfs.github.com/spec/"


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:  # noqa: ARG001 - one protocol for all
    for change in changes.changes:
        if not change.is_file or change.new_blob == change.old_blob:
            continue
        code = machine_code(change)
        if code:
            yield found(
                "change.binary.executable",
                Ruling.DENY,
                f"The file is {code}: nobody can review it.",
                change,
                fix="Leave programs out; build them from source.",
            )
        elif change.head.startswith(LFS):
            yield found(
                "change.binary.lfs",
                Ruling.HOLD,
                "The file is a Git LFS pointer: its content is not in the change.",
                change,
                fix="A person looks at the object that the pointer names.",
            )
        elif change.binary:
            small = harmless(change)
            yield found(
                "change.binary",
                Ruling.ALLOW if small else Ruling.HOLD,
                "A small picture or font." if small else "Binary content that a reviewer cannot read as text.",
                change,
                excerpt=suffix(change.name),
                fix="" if small else "Generate it in a test, or let a person look at it.",
            )


def machine_code(change: Change) -> str | None:
    """What code the file is, else None. Text that happens to begin with `MZ` or `dex` is none."""
    if change.head.startswith(b"!<arch>\n"):
        return "an archive of object code"
    if not change.binary:
        return None
    for magic, what in EXECUTABLE:
        if change.head.startswith(magic):
            return what
    return "compiled code by its name" if suffix(change.name) in _BYTECODE else None


def harmless(change: Change) -> bool:
    """Whether magic, name and size agree that it is a small picture or font, not made executable."""
    if change.unread or (change.new_size or 0) > HARMLESS_BYTES or change.new_mode == "100755":
        return False
    kind = suffix(change.name)
    return any(change.head[at : at + len(magic)] == magic and kind in kinds for magic, at, kinds in HARMLESS)
