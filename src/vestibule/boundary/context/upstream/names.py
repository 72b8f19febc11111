"""The names under which an agent sees upstream tools: no tool can stand in another's place.

Rules this module keeps:
1. An agent sees `SERVER__TOOL`, at most `MAX_NAME` characters of `[A-Za-z0-9_-]`; a server's name has no underscore, so
   the first `__` ends it.
2. Two tools that would have one name, or names that a reader takes for one another, are both refused: none of them
   was first.
3. A tool whose own name is that of a built-in tool, or a spelling of one in some agent CLI, is refused: clients that
   cut prefixes off would call the wrong one. A person may give it another name.
4. A name that is not plain ASCII is refused, not repaired: look-alikes live there (Unicode TR 39).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from vestibule.core.tool_names import BUILT_IN, CLIS

MAX_NAME = 64
SEPARATOR = "__"

CLI_SPELLINGS = frozenset(name for row in BUILT_IN for cli in CLIS for name in row.of(cli))
"""Names of own tools of agent programs."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]*\Z")
_ALIKE = (("rn", "m"), ("vv", "w"), ("cl", "d"))
_CHARS = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "8": "b", "2": "z", "-": None, "_": None, ".": None})


def skeleton(name: str) -> str:
    """What a reader may take `name` for: case, separators and similar characters do not count."""
    found = name.casefold()
    for pair, one in _ALIKE:
        found = found.replace(pair, one)
    return found.translate(_CHARS)


def qualified(server: str, tool: str) -> str:
    """`SERVER__TOOL`; what a name may not hold is `_`."""
    return f"{server}{SEPARATOR}{re.sub(r'[^A-Za-z0-9_-]', '_', tool)}"


def server_of(name: str, servers: Collection[str]) -> str | None:
    """The server that a qualified name belongs to, whether or not it has such a tool."""
    server, found, _ = name.partition(SEPARATOR)
    return server if found and server in servers else None


def assign(tools: Iterable[tuple[str, str, str]], taken: Iterable[str]) -> tuple[dict[str, tuple[str, str]], Problems]:
    """Names for `(server, tool, name that a person gave it or "")`, and why some tools get none.

    Args:
        tools: every tool that could be offered, of all servers.
        taken: names of built-in tools, and further spellings of them.

    Returns:
        name → (server, tool), and (server, tool) → rule.
    """
    reserved = {skeleton(name) for name in (*taken, *CLI_SPELLINGS)}
    problems: dict[tuple[str, str], str] = {}
    wanted: dict[tuple[str, str], str] = {}
    for server, tool, given in tools:
        own = given or tool
        name = qualified(server, own)
        if not _PLAIN.match(own):
            problems[server, tool] = "upstream.pin.name"
        elif len(name) > MAX_NAME:
            problems[server, tool] = "upstream.pin.long_name"
        elif skeleton(own) in reserved:
            problems[server, tool] = "upstream.pin.shadows_tool"
        else:
            wanted[server, tool] = name
    by_look: dict[str, list[tuple[str, str]]] = {}
    for key, name in wanted.items():
        by_look.setdefault(skeleton(name), []).append(key)
    names: dict[str, tuple[str, str]] = {}
    for keys in by_look.values():
        if len(keys) == 1:
            names[wanted[keys[0]]] = keys[0]
            continue
        for key in keys:
            problems[key] = "upstream.pin.collision"
    return names, problems


def alike(servers: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of servers whose names a reader may take for one another."""
    seen: dict[str, str] = {}
    found = []
    for server in servers:
        other = seen.setdefault(skeleton(server), server)
        if other != server:
            found.append((other, server))
    return found


Problems = Mapping[tuple[str, str], str]
