"""From a ticket to a spec: what an agent works on and a reviewer judges against.

Rules it keeps:
1. The text of a ticket is data. It grants nothing: role, scope, agent, model, approvals and budget come from the
   command or the trigger and from configuration, and a ticket that names them is told so.
2. Nothing is hidden: characters, comments and elements that a reader would not see are written out, and a
   notice says what was found. Nothing is fetched.
3. Everything is bounded, and what was cut is said.
4. `files` narrows what the role allows. What of it cannot be read is an error: dropping it would widen the scope.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vestibule.config.strict_yaml import Document
from vestibule.core.canonical import digest_bytes
from vestibule.core.errors import ConfigError
from vestibule.core.model import Spec, Ticket
from vestibule.core.text.globs import ImpossibleGlob, check_given_glob
from vestibule.core.text.sanitize import find_hidden, one_line, show_hidden
from vestibule.intake.markdown import Reading, read_markdown
from vestibule.intake.ticket import take_apart

MAX_BODY_BYTES = 48 * 1024
MAX_ITEMS = 100
MAX_ITEM_CHARS = 1000
MAX_NOTICES = 40
TITLE_CHARS = 120

_GOVERNING = frozenset(
    "role roles scope read write tools commands network hosts registries agent agents model models adapter provider "  # noqa: SIM905
    "approvals approve gates gate review reviewers self_approval budget usd tokens policy sandbox verify scanners base "
    "branch protected changes permissions secrets env".split()
)
_ACCEPTANCE = re.compile(r"\b(?:acceptance|definition of done|done when|criteria)\b", re.IGNORECASE)
_REQUIREMENTS = re.compile(r"\b(?:requirements?|tasks?|to-?do|what to do|must|goals?)\b", re.IGNORECASE)


def specify(ticket: Ticket) -> Spec:
    """The spec of a ticket. Pure and deterministic.

    Raises:
        ConfigError: the ticket's YAML is not valid, a field has another type, or `files` an impossible glob (exit 2,
            with file and line).
    """
    parts = take_apart(ticket)
    notices: list[str] = []
    fields = _fields(parts.fields, notices)
    text = _bounded(parts.text, notices)
    reading = read_markdown(text)
    acceptance = [*fields["acceptance"], *(item.text for item in reading.items if _is_acceptance(item.heading, item))]
    requirements = [*fields["requirements"], *_requirements(reading)]
    _describe(reading, notices)
    hidden = find_hidden(reading.visible)
    if hidden:
        kinds = ", ".join(sorted({item.kind for item in hidden}))
        notices.append(f"{len(hidden)} hidden characters ({kinds}) are written out as ⟦U+XXXX⟧.")
    return Spec(
        title=_title(fields["title"], reading, ticket),
        body=show_hidden(reading.visible).strip("\n"),
        requirements=_items(requirements, "requirements", notices),
        acceptance=_items(acceptance, "acceptance criteria", notices),
        components=_items(fields["components"], "components", notices),
        files=tuple(dict.fromkeys(fields["files"])),
        notices=_notices(notices),
        ticket_digest=digest_bytes(ticket.text.encode("utf-8")),
        integrity=ticket.integrity,
    )


def _fields(document: Document | None, notices: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {
        "title": [],
        "requirements": [],
        "acceptance": [],
        "components": [],
        "files": [],
    }
    if document is None:
        return found
    governing: list[str] = []
    for key, value in document.value.items():
        if key == "files":
            found[key] = _globs(document, value)
        elif key in found:
            found[key] = _strings(document, key, value)
        elif key in ("body", "description"):
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{key!r} is text", where=document.where((key,)))
        elif key.lower().replace("-", "_") in _GOVERNING:
            governing.append(repr(one_line(key, 60)))
        else:
            notices.append(f"The ticket's field {one_line(key, 60)!r} is not known and was ignored.")
    if governing:
        notices.append(
            f"The ticket sets {', '.join(governing)}, which was ignored: the role comes from the command or the "
            "trigger, and rights, gates and budgets from the configuration at the base commit."
        )
    if "body" in document.value and "description" in document.value:
        notices.append("The ticket has both 'body' and 'description'; 'description' was ignored.")
    return found


def _strings(document: Document, key: str, value: object) -> list[str]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    for number, item in enumerate(items):
        if not isinstance(item, str):
            path = (key, number) if isinstance(value, list) else (key,)
            raise ConfigError(
                f"{key!r} is text{'' if key == 'title' else ' or a list of texts'}",
                where=document.where(path),
                next_step="Put the value in quotes.",
            )
    if key == "title" and len(items) > 1:
        raise ConfigError("'title' is one text", where=document.where((key,)))
    return [str(item) for item in items]


def _globs(document: Document, value: object) -> list[str]:
    """Globs that are possible, folders written as everything below them."""
    items = _strings(document, "files", value)
    if not items or len(items) > MAX_ITEMS:
        raise ConfigError(
            f"'files' names 1 to {MAX_ITEMS} paths or globs",
            where=document.where(("files",)),
            next_step="Name what the ticket is limited to, or leave 'files' out.",
        )
    found = []
    for number, item in enumerate(items):
        text = item + "**" if item.endswith("/") else item
        try:
            check_given_glob(text)
        except ImpossibleGlob as error:
            place = ("files", number) if isinstance(value, list) else ("files",)
            raise ConfigError(
                f"{one_line(str(error))}",
                where=document.where(place),
                next_step="A ticket's 'files' are paths or globs relative to the repository, such as src/app/**.",
            ) from None
        found.append("/".join(part for part in text.split("/") if part not in ("", ".")))
    return found


def _bounded(text: str, notices: list[str]) -> str:
    data = text.encode("utf-8")
    if len(data) <= MAX_BODY_BYTES:
        return text
    kept = data[:MAX_BODY_BYTES].decode("utf-8", errors="ignore")
    kept = kept[: kept.rfind("\n")] if "\n" in kept[MAX_BODY_BYTES // 4 :] else kept
    notices.append(
        f"The ticket's text was cut after {len(kept.encode('utf-8')):,} of {len(data):,} bytes; "
        "what follows does not reach the agent."
    )
    return kept


def _is_acceptance(heading: str, item: object) -> bool:
    return bool(getattr(item, "checkbox", False)) or bool(_ACCEPTANCE.search(heading))


def _requirements(reading: Reading) -> list[str]:
    """Items below a heading that speaks of requirements; without such a heading, all that are no criteria."""
    others = [item for item in reading.items if not _is_acceptance(item.heading, item)]
    named = [item for item in others if _REQUIREMENTS.search(item.heading)]
    return [item.text for item in (named or others)]


def _describe(reading: Reading, notices: list[str]) -> None:
    notices.extend(f"Written out where it stands: {item}" for item in reading.hidden)
    notices.extend(f"An image is not shown to the agent: {item}" for item in reading.images)
    notices.extend(f"A link says one thing and leads elsewhere: {item}" for item in reading.misleading)
    hosts = list(dict.fromkeys(reading.hosts))
    if hosts:
        more = f" and {len(hosts) - 10} more" if len(hosts) > 10 else ""
        notices.append(f"The ticket links to {', '.join(hosts[:10])}{more}; nothing is fetched.")


def _items(items: Sequence[str], what: str, notices: list[str]) -> tuple[str, ...]:
    if len(items) > MAX_ITEMS:
        notices.append(f"Only the first {MAX_ITEMS} of {len(items)} {what} are listed.")
    return tuple(one_line(item, MAX_ITEM_CHARS) for item in items[:MAX_ITEMS])


def _notices(notices: list[str]) -> tuple[str, ...]:
    if len(notices) > MAX_NOTICES:
        notices = [*notices[:MAX_NOTICES], f"{len(notices) - MAX_NOTICES} more notices were left out."]
    return tuple(one_line(notice, 500) for notice in notices)


def _title(named: Sequence[str], reading: Reading, ticket: Ticket) -> str:
    first_line = next((line.strip() for line in reading.visible.split("\n") if line.strip(" \t#>*-=")), "")
    for candidate in (*named, *reading.headings[:1], first_line):
        if candidate.strip():
            return one_line(" ".join(candidate.split()), TITLE_CHARS)
    return one_line(ticket.source, TITLE_CHARS) or "Untitled"
