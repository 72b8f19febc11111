"""`vestibule upstream`: look at upstream MCP servers and pin what they say of their tools."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vestibule.cli.terminal import Page
    from vestibule.pipeline.services import Services
    from vestibule.pipeline.upstreams import Looked

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
_NAME = click.argument("name", metavar="NAME")
_OFFLINE = click.option("--offline", is_flag=True, help="What is pinned only; the server is not started.")


@click.group()
def command() -> None:
    """Look at the operator's upstream MCP servers, and pin what they say of their tools.

    An agent is offered pinned tools only, in the words that were pinned. A tool whose description or schema is
    another now is held until a person has looked at the difference and pinned it anew.
    """


@command.command("list", short_help="Every server and the states of its tools.")
@_OFFLINE
@_JSON
def list_(offline: bool, as_json: bool) -> None:
    """Every server of the operator's configuration, and how many of its tools are pinned, new, changed or gone."""
    from vestibule.cli.output import emit_json
    from vestibule.pipeline.upstreams import look

    with _services() as services:
        seen = [look(services, name, ask=not offline) for name in sorted(services.operator.upstreams)]
    if as_json:
        emit_json({"servers": [_as_json(item) for item in seen]})
        return
    page = _page()
    if not seen:
        page.line("The operator's configuration names no upstream server.")
    for item in seen:
        page.line(_head(item))


@command.command(short_help="The tools of one server.")
@_NAME
@_OFFLINE
@_JSON
def show(name: str, offline: bool, as_json: bool) -> None:
    """The tools of one server: state, what was pinned by whom, and the words that an agent is shown."""
    from vestibule.cli.output import emit_json
    from vestibule.pipeline.upstreams import look

    with _services() as services:
        seen = look(services, name, ask=not offline)
    if as_json:
        emit_json({"server": _as_json(seen, full=True)})
        return
    from vestibule.cli.terminal import styled

    page = _page()
    page.line(_head(seen))
    for tool, state in seen.states().items():
        page.title(_safe(tool))
        page.row("state", styled(state, _STYLES[state]))
        pinned = seen.pinned.tools.get(tool)
        if pinned is not None:
            page.row("pinned", styled(f"{pinned.time} by {pinned.by}"))
            page.row("digest", styled(pinned.digest))
        said = pinned.said if pinned is not None else (seen.live or {}).get(tool)
        page.row("says", styled(str((said or {}).get("description", "")), limit=4000))


@command.command(short_help="What changed since it was pinned.")
@_NAME
@click.argument("tools", nargs=-1)
@_JSON
def diff(name: str, tools: tuple[str, ...], as_json: bool) -> int:
    """What a server says of its tools now, against what was pinned; hidden characters are written out.

    Exit code 3 when something differs (a person must look), 0 when nothing does.
    """
    from vestibule.cli.output import emit_json
    from vestibule.core.errors import HELD, OK
    from vestibule.pipeline.upstreams import look

    with _services() as services:
        seen = look(services, name)
    _must_answer(seen)
    chosen = _chosen(seen, tools)
    if as_json:
        emit_json(
            {
                "server": name,
                "digest": seen.digest(_offered(seen, chosen)),
                "tools": {tool: {"state": seen.states()[tool], "diff": _difference(seen, tool)} for tool in chosen},
            }
        )
    else:
        _show_difference(seen, chosen)
    return HELD if chosen else OK


@command.command(short_help="Pin tools as they are shown.")
@_NAME
@click.argument("tools", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask; for scripts that look at the printed difference themselves.")
@click.option("--expect", metavar="DIGEST", help="Pin only if it is what `diff` printed this digest for.")
@_JSON
def pin(name: str, tools: tuple[str, ...], yes: bool, expect: str | None, as_json: bool) -> int:
    """Pin TOOLS (default: all that are new or changed) of a server, as they are shown now.

    What is pinned is what this command printed, not what the server says a moment later. Who pinned, and when, is in
    the pin and in the audit log.
    """
    from vestibule.cli.output import emit_json
    from vestibule.core.errors import HELD, OK, UsageError
    from vestibule.pipeline.upstreams import look
    from vestibule.pipeline.upstreams import pin as pin_tools

    with _services() as services:
        seen = look(services, name)
        _must_answer(seen)
        chosen = _offered(seen, _chosen(seen, tools))
        found = seen.digest(chosen)
        if expect is not None and expect != found:
            raise UsageError(
                "The server does not say what that digest stands for.",
                why=f"Its digest is {found} now.",
                next_step=f"Look again: `vestibule upstream diff {name}`.",
            )
        if not as_json:
            _show_difference(seen, chosen)
        if chosen and not yes and expect is None and not _agreed(len(chosen)):
            return HELD
        if chosen:
            pin_tools(services, seen, chosen)
    if as_json:
        emit_json({"server": name, "pinned": chosen, "digest": found})
    elif chosen:
        click.echo(f"Pinned {len(chosen)} tools of {name}.")
    return OK


@command.command(short_help="Take pins back.")
@_NAME
@click.argument("tools", nargs=-1, required=True)
@_JSON
def unpin(name: str, tools: tuple[str, ...], as_json: bool) -> None:
    """Take the pins of TOOLS back: they are held from the next attempt on."""
    from vestibule.cli.output import emit_json
    from vestibule.pipeline.upstreams import look
    from vestibule.pipeline.upstreams import unpin as unpin_tools

    with _services() as services:
        look(services, name, ask=False)
        unpin_tools(services, name, tools)
    if as_json:
        emit_json({"server": name, "unpinned": list(tools)})
    else:
        click.echo(f"Unpinned {len(tools)} tools of {name}.")


@command.command(short_help="Whether the servers answer and are as pinned.")
@click.argument("name", metavar="[NAME]", required=False)
@_JSON
def check(name: str | None, as_json: bool) -> int:
    """Start each server (or NAME) and compare. Exit code 0: all as pinned; 3: something to look at; 4: one is down."""
    from vestibule.cli.output import emit_json
    from vestibule.core.errors import HELD, OK, REFUSED
    from vestibule.pipeline.upstreams import look

    with _services() as services:
        wanted = [name] if name else sorted(services.operator.upstreams)
        seen = [look(services, item) for item in wanted]
    if as_json:
        emit_json({"servers": [_as_json(item) for item in seen]})
    else:
        from vestibule.cli.terminal import styled

        page = _page()
        for item in seen:
            page.line(_head(item))
            if item.live is None and item.said:
                for line in item.said.strip().splitlines()[-10:]:
                    page.line("    ", styled(line, "dim"))
    if any(item.live is None for item in seen):
        return REFUSED
    return HELD if any(_open(item) for item in seen) else OK


_STYLES = {"pinned": "green", "unpinned": "yellow", "changed": "bold red", "gone": "yellow"}


@contextmanager
def _services() -> Iterator[Services]:
    from vestibule.pipeline.services import Services

    services = Services()
    try:
        yield services
    finally:
        services.close()


def _page() -> Page:
    from vestibule.cli.terminal import Page

    return Page()


def _safe(text: str) -> str:
    from vestibule.core.text.sanitize import one_line

    return one_line(text, 200)


def _must_answer(seen: Looked) -> None:
    from vestibule.core.errors import DependencyDown

    if seen.live is None:
        raise DependencyDown(
            "upstream",
            f"The upstream server {seen.server!r} cannot be asked.",
            fact=_safe(seen.down),
            person=f"See what it says with `vestibule upstream check {seen.server}`.",
        )


def _open(seen: Looked) -> list[str]:
    """Tools that a person has not looked at as they are now, of those that the operator lets anyone call."""
    from vestibule.core.text.globs import first_match

    return [
        tool
        for tool, state in seen.states().items()
        if state != "pinned" and first_match(tool, seen.config.tools) is not None
    ]


def _chosen(seen: Looked, tools: tuple[str, ...]) -> list[str]:
    from vestibule.core.errors import UsageError

    states = seen.states()
    for tool in tools:
        if tool not in states:
            raise UsageError(f"The server {seen.server!r} has no tool {_safe(tool)!r}.")
    return [tool for tool in tools if states[tool] != "pinned"] if tools else _open(seen)


def _offered(seen: Looked, chosen: list[str]) -> list[str]:
    """Those that can be pinned: what is gone, listed twice or too long cannot."""
    return [tool for tool in chosen if (seen.live or {}).get(tool) is not None]


def _agreed(count: int) -> bool:
    import sys

    from vestibule.core.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(
            "Pinning asks for your word, and nobody is at the terminal.",
            next_step="Look at `vestibule upstream diff`, then name what you saw with --expect DIGEST.",
        )
    return click.confirm(f"Pin {count} tools as they are shown above?", default=False, err=True)


def _lines(said: Any) -> list[str]:
    """What is said of a tool, one thing a line, with every hidden character written out."""
    import json

    from vestibule.core.text.sanitize import show_hidden

    if said is None:
        return []
    lines = []
    for key, value in said.items():
        if isinstance(value, str):
            lines += [f"{key}: {line}" for line in show_hidden(value).split("\n")]
        else:
            text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
            lines += [f"{key}: {line}" for line in show_hidden(text).split("\n")]
    return lines


def _difference(seen: Looked, tool: str) -> list[str]:
    import difflib

    pinned = seen.pinned.tools.get(tool)
    live = (seen.live or {}).get(tool)
    if live is None and tool in (seen.live or {}):
        return ["The server lists this name twice, or says more of it than can be looked at."]
    found = difflib.unified_diff(
        _lines(pinned.said if pinned else None), _lines(live), "pinned", "now", n=3, lineterm=""
    )
    return list(found)


def _show_difference(seen: Looked, chosen: list[str]) -> None:
    from rich.text import Text

    page = _page()
    if not chosen:
        page.line(f"{seen.server}: nothing differs from what is pinned.")
        return
    for tool in chosen:
        state = seen.states()[tool]
        page.title(f"{seen.server}: {_safe(tool)} ({state})")
        for line in _difference(seen, tool):
            style = "green" if line.startswith("+") else "red" if line.startswith("-") else "dim"
            page.line(Text(f"  {line}", style=style), hang=4)
    page.title("Digest of what is shown")
    page.whole(Text(f"  {seen.digest(_offered(seen, chosen))}"))


def _head(seen: Looked) -> Any:
    from rich.text import Text

    states = list(seen.states().values())
    line = Text(f"{seen.server:<24} ", style="bold")
    line.append("http   " if seen.config.url else "stdio  ", style="dim")
    for state in dict.fromkeys(states):
        line.append(f"{states.count(state)} {state}  ", style=_STYLES[state])
    if seen.down:
        line.append(f"down: {_safe(seen.down)}", style="bold red")
    return line


def _as_json(seen: Looked, *, full: bool = False) -> dict[str, Any]:
    states = seen.states()
    found: dict[str, Any] = {
        "name": seen.server,
        "kind": "http" if seen.config.url else "stdio",
        "asked": seen.live is not None,
        "down": seen.down,
        "tools": {},
    }
    for tool, state in states.items():
        pinned = seen.pinned.tools.get(tool)
        found["tools"][tool] = {
            "state": state,
            "digest": pinned.digest if pinned else "",
            "by": pinned.by if pinned else "",
            "time": pinned.time if pinned else "",
        }
        if full:
            found["tools"][tool]["pinned"] = pinned.said if pinned else None
            found["tools"][tool]["now"] = (seen.live or {}).get(tool)
    return found
