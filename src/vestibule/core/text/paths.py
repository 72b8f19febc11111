"""The one path normaliser: every path an agent, a patch or a policy names goes through it once.

Rules it keeps:
1. The result is relative, `/`-separated, NFC, without `.`, `..` or empty segments.
2. It refuses rather than repairs, except for a leading `./`, doubled slashes and inner `.` segments.
3. What another system could read as something else is refused: NUL and control characters,
   backslashes, percent-encoded separators and dots (overlong forms too), characters whose compatibility form is a
   separator or a name of dots, invisible format characters, trailing dots and spaces, device names (Windows), NTFS
   streams and short names, every spelling of `.git`.
4. Non-UTF-8 and over-long names are refused (255 bytes a segment, 4,096 in all: `NAME_MAX`, `PATH_MAX`).

Sources: git's `verify_path` and `core.protectNTFS`/`core.protectHFS` (CVE-2014-9390, CVE-2019-1352,
CVE-2021-21300), Microsoft "Naming Files, Paths, and Namespaces".
"""

from __future__ import annotations

import re
import unicodedata

MAX_PATH_BYTES = 4096
MAX_SEGMENT_BYTES = 255

_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\..*)?\Z", re.IGNORECASE)
_SHORT_GIT = re.compile(r"git~[0-9]+\Z", re.IGNORECASE)
_ENCODED = re.compile(r"%(?:0[0ad]|2e|2f|5c|25|c[01]|e0%[89]|f0%8|u(?:00|ff)|u22)", re.IGNORECASE)
"""Encoded dots, slashes, backslashes, percent signs, NUL and line ends; overlong forms (RFC 3629 section 3: C0, C1,
E0 80 to E0 9F, F0 80 to F0 8F); the `%uXXXX` form of the ASCII and full-width ranges and of look-alike slashes."""

_LOOKALIKE = {"\u2215": "/", "\u2044": "/", "\u29f8": "/", "\u2216": "\\", "\u29f5": "\\", "\u29f9": "\\"}
"""Characters that some systems turn into a separator ("best fit"), and that compatibility forms leave alone."""


class PathRefused(ValueError):
    """The path has no safe normal form. `rule` is a stable name such as `path.traversal`."""

    def __init__(self, rule: str, reason: str, hint: str) -> None:
        self.rule = rule
        self.reason = reason
        self.hint = hint
        super().__init__(reason)


def normalise_path(text: str, *, allow_root: bool = False) -> str:
    """The normal form of `text`, or an exception; `""` (with `allow_root`) is the workspace itself.

    Raises:
        PathRefused: with the rule that it breaks.
    """
    if not isinstance(text, str):
        raise PathRefused("path.type", "A path is a string.", "Send the path as a string.")
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise PathRefused("path.encoding", "The path is not valid UTF-8.", "Use a valid UTF-8 name.") from None
    if len(encoded) > MAX_PATH_BYTES:
        raise PathRefused("path.length", "The path is longer than 4,096 bytes.", "Use a shorter path.")
    if "\0" in text:
        raise PathRefused("path.nul", "The path contains a NUL byte.", "Remove the NUL byte.")
    for char in text:
        category = unicodedata.category(char)
        if category == "Cc":
            raise PathRefused("path.control", "The path contains a control character.", "Remove it.")
        if category in ("Cf", "Zl", "Zp") or char in "\u115f\u1160\u3164\uffa0\u034f":
            raise PathRefused("path.invisible", "The path contains an invisible character.", "Remove it.")
    if "\\" in text:
        raise PathRefused("path.backslash", "The path contains a backslash.", "Separate folders with '/'.")
    if _ENCODED.search(text):
        raise PathRefused(
            "path.encoded", "The path contains percent-encoded dots, slashes or bytes.", "Write the path decoded."
        )
    if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:", text):
        raise PathRefused("path.absolute", "The path is absolute.", "Give it relative to the workspace.")
    if unicodedata.normalize("NFC", text) != text:
        raise PathRefused("path.unicode", "The path is not in Unicode normal form C.", "Send the name NFC-normalised.")
    segments = [part for part in text.split("/") if part not in ("", ".")]
    if segments and segments[0].startswith("~"):  # "./~": the normal form must be its own normal form
        raise PathRefused("path.absolute", "The path begins with '~'.", "Give it relative to the workspace.")
    for part in segments:
        _check_segment(part)
    if text.endswith("/.") or (not segments and not allow_root):
        raise PathRefused("path.empty", "The path names no file.", "Name a file in the workspace.")
    return "/".join(segments)


def _check_segment(part: str) -> None:
    if part == "..":
        raise PathRefused(
            "path.traversal", "The path climbs with '..'.", "Write the resolved path, relative to the workspace."
        )
    if len(part.encode("utf-8")) > MAX_SEGMENT_BYTES:
        raise PathRefused("path.length", "A name in the path is longer than 255 bytes.", "Use a shorter name.")
    if part[-1] in ". " or part[0] == " ":
        raise PathRefused(
            "path.trailing", "A name in the path begins or ends with a space or ends with a dot.", "Remove it."
        )
    if part.isascii():
        folded = part.casefold()
    else:
        plain = unicodedata.normalize("NFKC", "".join(_LOOKALIKE.get(char, char) for char in part))
        if "/" in plain or "\\" in plain or not plain.strip(". "):
            raise PathRefused(
                "path.encoded",
                "The path contains characters that stand for dots or slashes.",
                "Write the path plainly.",
            )
        folded = plain.casefold()
    if folded == ".git" or folded.startswith(".git:") or _SHORT_GIT.match(folded):
        raise PathRefused("path.git", "The path leads into git's own folder.", "Work on tracked files only.")
    if ":" in part:
        raise PathRefused("path.stream", "A name in the path contains a colon.", "Use a name without ':'.")
    if _DEVICES.match(folded):
        raise PathRefused("path.device", "A name in the path is a device name.", "Use another name.")


def fold(path: str) -> str:
    """How a path compares where another file system might (case-insensitive, compatibility forms)."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFC", path).casefold())
