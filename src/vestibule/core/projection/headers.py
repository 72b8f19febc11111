"""Text headers in the manner of RFC 5322: `Name: value` lines until the first empty one. Pure."""

from __future__ import annotations

import re

from vestibule.core.projection.base import CannotProject, text_of

MAX_HEADERS = 2_000
_HEADER = re.compile(r"([!-9;-~]{1,128}):[ \t]?(.*)\Z")


def parse(data: bytes) -> list[tuple[str, str]]:
    """Names and values in order; folded lines joined.

    Raises:
        CannotProject: the text does not begin with headers.
    """
    found: list[tuple[str, str]] = []
    # Bodies may be anything; what comes before the first empty line must be UTF-8.
    head = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[0]
    for line in text_of(head).splitlines():
        if line[:1] in (" ", "\t") and found:
            name, value = found[-1]
            found[-1] = (name, f"{value} {line.strip()}")
            continue
        match = _HEADER.match(line)
        if match is None or len(found) == MAX_HEADERS:
            raise CannotProject("The file does not begin with header lines.")
        found.append((match[1], match[2].strip()))
    return found


def write(headers: list[tuple[str, str]]) -> bytes:
    """The headers, and the empty line that ends them."""
    return "".join(f"{name}: {value}\n" for name, value in [*headers]).encode("utf-8") + b"\n"
