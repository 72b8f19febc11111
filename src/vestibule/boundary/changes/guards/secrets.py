"""Secrets in what a change adds: known formats, known values, over decoded layers.

Rules it keeps:
1. No finding ever contains a secret or a part of one; excerpts and fingerprints are made without it.
2. Known values are found in parts too: any 12 characters in a row, or half of the value in pieces of six,
   in every layer (`layers`), and joined over all files of the change.
3. Well-known samples and plain placeholders pass; a private key passes only as a declared test fixture.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator

from vestibule.boundary.changes.changeset import Change, ChangeSet
from vestibule.boundary.changes.guards.base import GuardContext, capped, found
from vestibule.boundary.changes.secret_formats import (
    ASSIGNED,
    FORMATS,
    PRIVATE_KEY,
    PRIVATE_KEY_HEADER,
    Format,
    bits_per_character,
    is_placeholder,
)
from vestibule.core.model import Finding
from vestibule.core.text.globs import first_match
from vestibule.core.text.layers import LOOSE, SPLIT, Layer, compact, layers
from vestibule.core.text.paths import fold
from vestibule.core.text.secrets import KnownSecret, part_of, secret_core
from vestibule.core.verdict import Ruling

FIXTURES = ("**/test{,s}/**", "**/testdata/**", "**/fixtures/**", "**/__fixtures__/**", "**/spec/**", "**/testing/**")
"""Where test keys are declared to live (compared on folded paths)."""
_TEST_WORDS = re.compile(
    rb"(?im)^(?![ \t]*-----)[^\n]*\b(?:test|tests|testing|fixture|dummy|example|not a (?:real )?secret)\b"
)
_SAMPLE_CLAIMS = ({"sub": "1234567890", "name": "John Doe"},)
"""Payloads of well-known sample tokens (jwt.io); a token with these claims names nobody."""

_FIX = "Remove it, revoke it if it was ever real, and read it from the environment or a secret store."


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:
    everything: list[bytes] = []
    for change in changes.changes:
        text = added_text(change)
        if not text:
            continue
        everything.append(text)
        yield from capped(_known_formats(change, text))
        yield from known_values(change, text, context.secrets)
    if context.secrets and len(everything) > 1:
        yield from _joined(everything, context.secrets)


def added_text(change: Change) -> bytes:
    """What the change adds: lines of a text, the whole of a binary or link, and the new name."""
    if change.new is None:
        return b""
    name = change.path + b"\n" if change.introduces else b""
    body = change.new if change.binary else b"\n".join(line for _, line in change.added)
    return name + body


def _known_formats(change: Change, text: bytes) -> Iterator[Finding]:
    seen: set[tuple[str, bytes]] = set()
    for layer in layers(text):
        if layer.name == LOOSE:
            continue
        for kind, start, value in credentials(layer):
            if (kind, value) in seen:
                continue
            seen.add((kind, value))
            hidden = f" ({layer.name})" if layer.name else ""
            yield found(
                "change.secret.format",
                Ruling.DENY,
                f"This looks like a credential: {kind}{hidden}.",
                change,
                line=_line(change, text, start) if not layer.name else None,
                excerpt=kind,
                fix=_FIX,
            )
        if layer.name == SPLIT and PRIVATE_KEY.search(text):
            continue  # the same key again; what stands encoded beside it is still looked at
        if PRIVATE_KEY_HEADER in layer.data and (match := PRIVATE_KEY.search(layer.data)):
            yield _private_key(change, text, layer, match.start())
    for match in ASSIGNED.finditer(text):
        value = match.group(1)
        if _random(value) and not any(value in known or known in value for _, known in seen):
            yield found(
                "change.secret.assigned",
                Ruling.HOLD,
                "A literal that looks random is given to something secret.",
                change,
                line=_line(change, text, match.start(1)),
                excerpt="assignment",
                fix=_FIX,
            )


def credentials(layer: Layer) -> Iterator[tuple[str, int, bytes]]:
    """(format, offset, variable part) of everything in the layer that has a credential's form."""
    for form in FORMATS:
        if not any(word in layer.data for word in form.keywords):
            continue
        for match in form.pattern.finditer(layer.data):
            value = match.group(1)
            if bits_per_character(value) >= form.entropy and not _harmless(form, match, value):
                yield form.name, match.start(), value


def _harmless(form: Format, match: re.Match[bytes], value: bytes) -> bool:
    if is_placeholder(value):
        return True
    return form.name == "JSON Web Token" and sample_token(match.group(1))


def sample_token(token: bytes) -> bool:
    """Whether a JSON Web Token carries the claims of a well-known sample and no others that matter."""
    part = token.split(b".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(claims, dict) and any(
        all(claims.get(key) == value for key, value in sample.items())
        and set(claims) <= {*sample, "iat", "admin", "exp"}
        for sample in _SAMPLE_CLAIMS
    )


def _private_key(change: Change, text: bytes, layer: Layer, start: int) -> Finding:
    fixture = not layer.name and first_match(fold(change.name), FIXTURES) is not None
    whole = change.new or text
    said = fixture and bool(_TEST_WORDS.search(whole[: whole.find(PRIVATE_KEY_HEADER)][:2000]))
    ruling = Ruling.ALLOW if said else Ruling.HOLD if fixture else Ruling.DENY
    hidden = f" ({layer.name})" if layer.name else ""
    note = {
        Ruling.ALLOW: "A private key, declared a test fixture by its place and its header comment.",
        Ruling.HOLD: "A private key among test fixtures, without a comment above it that says it is one.",
        Ruling.DENY: f"A private key{hidden}.",
    }[ruling]
    line = _line(change, text, start) if not layer.name else None
    fix = "" if said else _FIX
    return found("change.secret.private_key", ruling, note, change, line=line, excerpt="private key", fix=fix)


def _random(value: bytes) -> bool:
    classes = sum(bool(re.search(part, value)) for part in (rb"[a-z]", rb"[A-Z]", rb"[0-9]"))
    return classes >= 2 and bits_per_character(value) >= 3.7 and not is_placeholder(value)


def known_values(change: Change, text: bytes, secrets: Iterable[KnownSecret]) -> Iterator[Finding]:
    """Known values in one file's added text, whole or in parts, in any layer."""
    wanted = [(secret, core) for secret in secrets if len(core := secret_core(secret.value)) >= 8]
    if not wanted:
        return
    done: set[str] = set()
    for layer in layers(text):
        for secret, core in wanted:
            if secret.name not in done and (offset := part_of(core, layer.data)) is not None:
                done.add(secret.name)
                hidden = f" ({layer.name})" if layer.name else ""
                yield found(
                    "change.secret.value",
                    Ruling.DENY,
                    f"The value of {secret.name}, or a part of it{hidden}.",
                    change,
                    line=_line(change, text, offset) if not layer.name else None,
                    excerpt=secret.name,
                    fix=_FIX,
                )


def _joined(texts: list[bytes], secrets: Iterable[KnownSecret]) -> Iterator[Finding]:
    """Pieces of one value in several files."""
    together = compact(b"\n".join(texts))
    for secret in secrets:
        core = compact(secret_core(secret.value))
        if len(core) >= 8 and part_of(core, together) is not None:
            yield found(
                "change.secret.value",
                Ruling.DENY,
                f"The value of {secret.name}, or much of it, is spread over this change.",
                excerpt=secret.name,
                fix=_FIX,
            )


def reveals(text: bytes, secrets: Iterable[KnownSecret]) -> bool:
    """Whether a short text holds a credential or a telling part of a known value as it stands."""
    if any(True for _ in credentials(Layer("", text))):
        return True
    cores = (secret_core(secret.value) for secret in secrets)
    return any(len(core) >= 8 and part_of(core, text) is not None for core in cores)


def _line(change: Change, text: bytes, offset: int) -> int | None:
    """The line in the new file of an offset in `added_text`."""
    if change.binary or not change.added:
        return None
    index = text.count(b"\n", 0, offset) - (change.path.count(b"\n") + 1 if change.introduces else 0)
    return change.added[index][0] if 0 <= index < len(change.added) else None
