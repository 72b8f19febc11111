"""From bytes to a ticket: what is text at all, and how much of it.

Rules it keeps:
1. Binary, empty and oversized input is refused with a sentence that says what to do (exit 2).
2. YAML is read strictly: no tags (CWE-502), one document, no duplicate keys.
3. The text is kept as found; `specify` makes it safe to show and to give to an agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vestibule.config.strict_yaml import Document, parse
from vestibule.core.errors import ConfigError, UsageError
from vestibule.core.labels import Integrity
from vestibule.core.model import Ticket
from vestibule.core.text.sanitize import one_line

MAX_TICKET_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Parts:
    """A ticket taken apart: `fields` from YAML (with places for errors) and the Markdown text."""

    fields: Document | None
    text: str


def parse_ticket(data: bytes, source: str, author: str, integrity: Integrity) -> Ticket:
    """A ticket from a file, standard input or a forge. Pure: `data` was read by the caller.

    `source` names where it comes from (a file name ending in .yaml or .yml is YAML, all else Markdown with
    optional YAML front matter); `author` and `integrity` are what the caller established, never the text's.

    Raises:
        UsageError: empty, binary, too large (more than 1 MiB).
        ConfigError: YAML that is not valid or holds tags, with file and line.
    """
    name = one_line(source)
    if len(data) > MAX_TICKET_BYTES:
        raise UsageError(
            f"The ticket {name} is larger than 1 MiB.",
            why=f"It has {len(data):,} bytes.",
            next_step="Shorten it to what has to be done; leave logs out or link to them.",
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"The ticket {name} is UTF-16 text.", next_step="Save it as UTF-8 (iconv -f UTF-16 -t UTF-8).")
    if b"\0" in data:
        raise UsageError(
            f"The ticket {name} is no text.",
            why=f"It holds a NUL byte at position {data.index(0)}.",
            next_step="Give a Markdown or YAML file.",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"The ticket {name} is no UTF-8 text.",
            why=f"The byte at position {error.start} is invalid.",
            next_step="Give a Markdown or YAML file in UTF-8.",
        ) from None
    if not text.strip():
        raise UsageError(
            f"The ticket {name} is empty.",
            next_step="Write what has to be done: a title, requirements, acceptance criteria.",
        )
    ticket = Ticket(source=source, text=text, author=author, integrity=integrity)
    take_apart(ticket)
    return ticket


def take_apart(ticket: Ticket) -> Parts:
    """Fields and text of a ticket.

    Raises:
        ConfigError: the YAML is not valid, holds tags, or is no mapping.
    """
    text = ticket.text.replace("\r\n", "\n").replace("\r", "\n")
    name = one_line(ticket.source)
    if ticket.source.lower().endswith((".yaml", ".yml")):
        document = parse(text.encode("utf-8"), name)
        if not isinstance(document.value, dict):
            raise ConfigError(
                "the ticket is no mapping of keys to values",
                where=document.where(()),
                next_step="Write title, body, requirements and acceptance as keys, or give Markdown.",
            )
        return Parts(document, _body(document.value))
    front, rest = _front_matter(text)
    if front is None:
        return Parts(None, text)
    document = parse(front.encode("utf-8"), name)
    if not isinstance(document.value, dict):
        return Parts(None, text)
    return Parts(document, rest)


def _front_matter(text: str) -> tuple[str | None, str]:
    """The YAML between two `---` lines at the start, and what follows. A first line without a key is Markdown.

    The YAML keeps its leading empty line, so that line numbers in errors are those of the file.
    """
    lines = text.split("\n")
    if lines[0].rstrip() != "---" or len(lines) < 3:
        return None, text
    first = next((line for line in lines[1:] if line.strip()), "")
    if ":" not in first or first.startswith((" ", "#", "---")):
        return None, text
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() in ("---", "..."):
            return "\n" + "\n".join(lines[1:number]), "\n".join(lines[number + 1 :])
    return None, text


def _body(value: dict[str, Any]) -> str:
    for key in ("body", "description"):
        if isinstance(value.get(key), str):
            return str(value[key])
    return ""
