"""The tools of upstream MCP servers, as one source of the context endpoint.

Rules this module keeps:
1. An agent is offered what three lists name: the operator's, the role's, and the pins. Name, description and schema
   are the pinned ones: it never sees a word of a server that nobody looked at.
2. Every call is planned with what the server says *now*: a tool that is not the pinned one is held. It is looked at
   once more just before the call goes.
3. What is sent is what was decided: arguments in their normal form. An approval is for one call with exactly these
   arguments, once.
4. A result carries the server's label, joined before the call goes. It is shown as data, bounded, without the key.
5. What is kept is kept for one run, and never for a call that leaves a trace.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from vestibule.boundary.context import catalogue
from vestibule.boundary.context.file_errors import NotDone
from vestibule.boundary.context.provenance import RunTrust, Trusted, trusted_arguments
from vestibule.boundary.context.rules import Ask, Call
from vestibule.boundary.context.tools import Answer
from vestibule.boundary.context.upstream import arguments as given_arguments
from vestibule.boundary.context.upstream import names, pins
from vestibule.boundary.context.upstream.cache import AnswerCache
from vestibule.boundary.context.upstream.results import NoView, Projection, show
from vestibule.boundary.context.upstream.server import Catalogue, Clock, UpstreamServer
from vestibule.boundary.context.values import identifiers_text
from vestibule.config.schema import ToolRule, Upstream, UpstreamView
from vestibule.core.canonical import digest_bytes
from vestibule.core.crossing import Step
from vestibule.core.errors import Refused
from vestibule.core.labels import Label, RunLabel
from vestibule.core.model import UpstreamUse, ViewRule
from vestibule.core.ports import Questions
from vestibule.core.refusal import refusal
from vestibule.core.text.globs import first_match
from vestibule.core.text.sanitize import one_line, show_hidden


@dataclass(frozen=True, slots=True)
class Offered:
    """One tool that the role may call."""

    server: str
    tool: str
    shown: catalogue.Tool
    outward: bool
    rule: ToolRule | None


class UpstreamSource:
    """`extension.ToolSource` of one run."""

    def __init__(
        self,
        servers: Sequence[UpstreamServer],
        uses: Sequence[UpstreamUse],
        pinned: Mapping[str, pins.Pins],
        *,
        labels: RunLabel,
        trusted: Trusted | None = None,
        questions: Questions | None = None,
        keys: Mapping[str, str] | None = None,
        used: Mapping[str, int] | None = None,
        now: Clock = time.monotonic,
    ) -> None:
        """`keys` are the credentials of HTTP servers, by server, to be kept out of results.

        `used` says how often each outward call went in earlier attempts of the run, by its name in the log: an approval
        that was used then is used.
        """
        allowed = {use.server: use.tools for use in uses}
        self._servers = {server.name: server for server in servers if server.name in allowed}
        self._allowed = allowed
        self._pins = {name: pinned.get(name) or pins.Pins(server=name) for name in self._servers}
        self._labels = labels
        self._trust = RunTrust(trusted or Trusted())
        self._questions = questions
        self._keys = {} if keys is None else keys
        self._now = now
        self._lock = threading.Lock()
        self._uses: dict[str, int] = dict(used or {})
        self._kept = {name: AnswerCache[Answer](server.config.cache_seconds) for name, server in self._servers.items()}
        self._offered, self.problems = self._offer()

    def _offer(self) -> tuple[dict[str, Offered], names.Problems]:
        wanted = [
            (name, tool, _given_name(server.config, tool))
            for name, server in self._servers.items()
            for tool in self._pins[name].tools
            if self._may(name, tool)
        ]
        assigned, problems = names.assign(wanted, catalogue.TOOLS)
        found = {}
        for name, (server, tool) in assigned.items():
            config = self._servers[server].config
            outward = first_match(tool, config.outward) is not None
            said = self._pins[server].tools[tool].said
            found[name] = Offered(
                server,
                tool,
                catalogue.Tool(
                    name,
                    f"Tool of the upstream server {server}. {show_hidden(str(said.get('description', '')))}".strip(),
                    _visible(said["inputSchema"]),
                    read_only=not outward,
                ),
                outward,
                rule_for(config, tool),
            )
        return found, problems

    def _may(self, server: str, tool: str) -> bool:
        config = self._servers[server].config
        return first_match(tool, config.tools) is not None and first_match(tool, self._allowed[server]) is not None

    # --- extension.ToolSource -------------------------------------------------------------------------------

    def tools(self) -> Sequence[catalogue.Tool]:
        return [item.shown for _, item in sorted(self._offered.items())]

    def plan(self, name: str, arguments: Mapping[str, Any]) -> Call | None:
        """The call as one decision. Asks the server what it offers, so it may block."""
        server = names.server_of(name, self._servers)
        if server is None:
            return None
        offered = self._offered.get(name)
        if offered is None:
            return self._not_offered(name, server)
        config = self._servers[server].config
        pinned = self._pins[server]
        checked = given_arguments.check(arguments, pinned.tools[offered.tool].said["inputSchema"], offered.rule)
        pin_rule = "" if checked.rule else self._pin_rule(server, offered.tool)
        asked = self._asked(offered, checked.arguments) if offered.outward and not checked.rule else None
        step = self._step(
            name,
            offered.tool,
            server,
            {
                "arguments": _plain(checked.arguments),
                "outward": offered.outward,
                **({"call": _use(asked)} if asked is not None else {}),
            },
            tool_known=True,
            tool_allowed=True,
            argument_rule=checked.rule,
            argument=checked.argument,
            arguments_ok=not checked.rule,
            pin_rule=pin_rule,
            outward=offered.outward,
            cleared=self._labels.current.flows_to(config.clearance),
            inside=first_match(offered.tool, config.inside) is not None,
            arguments_trusted=self._vouched(offered, checked.arguments),
            approved=asked is not None and self._approved(asked),
        )
        ask = Ask("call", asked) if asked is not None and not pin_rule else None
        return Call(name, checked.arguments, (step,), source=self, ask=ask)

    def carry_out(self, call: Call) -> Answer:
        """Raises `Refused`: `dependency.upstream`, `upstream.changed`, `upstream.view`; `NotDone`."""
        offered = self._offered.get(call.tool)
        if offered is None:
            raise NotDone("unknown_tool", f"There is no tool {one_line(call.tool, 64)}.")
        server = self._servers[offered.server]
        key = f"{offered.tool} {_digest(call.arguments)}"
        kept = self._kept[offered.server]
        if not offered.outward and not self._stale(server):
            found = kept.get(key, self._now())
            if found is not None:
                return Answer(found.texts, found.ok, {**found.details, "kept": True})
        if offered.outward:
            self._use_up(call)
        answer = server.call(offered.tool, call.arguments, partial(self._must_fit, offered))
        try:
            shown = show(
                answer,
                server=offered.server,
                tool=offered.tool,
                limit=server.config.result_bytes,
                key=self._keys.get(offered.server, ""),
                view=_projection(offered.rule.view) if offered.rule and offered.rule.view else None,
            )
        except NoView:
            raise _no_view(call.tool) from None
        details = {"bytes": shown.received, "cut": shown.cut, "dropped": shown.dropped}
        done = Answer((shown.text,), shown.ok, details)
        if not offered.outward and shown.ok:
            kept.put(key, done, len(shown.text), self._now())
        if shown.ok:
            self._trust.read(offered.server, shown.data, self._label(offered.server, offered.tool))
        return done

    # --- facts ----------------------------------------------------------------------------------------------

    def _step(self, name: str, tool: str, server: str, more: dict[str, Any], **facts: Any) -> Step:
        config = self._servers[server].config
        label = self._label(server, tool)
        resource = {
            "id": one_line(name, 128),
            "tool": one_line(tool, 128),
            "server": server,
            "label": label.model_dump(mode="json"),
            "clearance": config.clearance.value,
            **more,
        }
        return Step("context.call", resource, facts, reads=label)

    def _label(self, server: str, tool: str) -> Label:
        """What results of the tool carry: the rule's label where it has one, for what its view shows."""
        config = self._servers[server].config
        rule = rule_for(config, tool)
        return (rule.label if rule and rule.label else config.label).label()

    def _not_offered(self, name: str, server: str) -> Call:
        """A name of a server's that the role has no tool under: what stands in the way, as facts."""
        tool = self._meant(name, server)
        known = tool is not None
        rule = ""
        if tool is not None:
            rule = self.problems.get((server, tool)) or self._pin_rule(server, tool)
        step = self._step(
            name,
            tool or name,
            server,
            {"outward": True},
            tool_known=known,
            tool_allowed=tool is not None and self._may(server, tool),
            argument_rule="",
            argument="",
            arguments_ok=True,
            # Known, allowed and pinned as it is, and still without a name: then another tool of it has that name.
            pin_rule=rule or ("upstream.pin" if known else ""),
            outward=True,
            cleared=self._labels.current.flows_to(self._servers[server].config.clearance),
            inside=False,
            arguments_trusted=False,
            approved=False,
        )
        return Call(name, {}, (step,), source=self)

    def _meant(self, name: str, server: str) -> str | None:
        """The tool of a server, pinned or listed now, that would have this name."""
        config = self._servers[server].config
        found = set(self._pins[server].tools)
        with contextlib.suppress(Refused):  # when what it offers cannot be known, what is pinned is all there is
            found |= set(self._servers[server].offers())
        given = {tool: _given_name(config, tool) or tool for tool in sorted(found)}
        return next((tool for tool, own in given.items() if names.qualified(server, own) == name), None)

    def _pin_rule(self, server: str, tool: str) -> str:
        try:
            live = self._servers[server].offers()
        except Refused:
            # Decided on what is pinned; nothing goes to a server that is down, and it is looked at before a call goes.
            return "" if tool in self._pins[server].tools else "upstream.unpinned"
        return pins.rule_of(tool, self._pins[server], live)

    def _must_fit(self, offered: Offered, live: Catalogue) -> None:
        if pins.rule_of(offered.tool, self._pins[offered.server], live):
            self._kept[offered.server].clear()
            raise Refused(
                refusal(
                    "upstream.changed",
                    "The server's description or schema of this tool is not the one that was pinned.",
                    fact=f"{offered.server}: {one_line(offered.tool, 64)}",
                    agent="Go on without this tool.",
                    person=f"See the difference with `vestibule upstream diff {offered.server}`.",
                )
            )

    def _stale(self, server: UpstreamServer) -> bool:
        """Whether the server says that its tools changed: then nothing is given from what is kept."""
        return server.changed

    def _vouched(self, offered: Offered, arguments: Mapping[str, Any]) -> bool:
        rule = offered.rule
        return trusted_arguments(
            offered.shown,
            arguments,
            self._trust.for_server(offered.server),
            free_text=rule.free_text if rule else (),
            listed={name: one.values for name, one in rule.arguments.items()} if rule else {},
        ).trusted

    # --- approvals ------------------------------------------------------------------------------------------

    def _asked(self, offered: Offered, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What an approval is bound to: this tool as it is pinned, these arguments, and which time it is."""
        exact = _digest(arguments)
        pinned = self._pins[offered.server].tools[offered.tool].digest
        with self._lock:
            done = self._uses.get(_use({"server": offered.server, "tool": offered.tool, "exactly": exact}), 0)
        return {
            "server": offered.server,
            "tool": offered.tool,
            "arguments": _plain(arguments),
            "exactly": exact,
            "pin": pinned,
            "time": done + 1,
        }

    def _approved(self, asked: Mapping[str, Any]) -> bool:
        if self._questions is None:
            return False
        try:
            found = self._questions.find("call", asked)
        except Exception:  # noqa: BLE001 - an answer that cannot be read is no approval
            return False
        return found is not None and found.state == "granted"

    def _use_up(self, call: Call) -> None:
        """One approval, one call: of two at the same time with the same content one goes."""
        asked = call.ask.asked if call.ask else None
        if asked is None:
            raise NotDone("pin", "The tool is not the one that was pinned.")
        key = _use(asked)
        with self._lock:
            if self._uses.get(key, 0) != asked["time"] - 1:
                raise NotDone("repeated", "The same call went meanwhile. Make it again if it is meant twice.")
            self._uses[key] = asked["time"]

    def close(self) -> None:
        """Ends every server. Idempotent, thread-safe."""
        for server in self._servers.values():
            server.close()


def _use(asked: Mapping[str, Any]) -> str:
    """One name for a server's tool with exactly these arguments, as the log has it."""
    return digest_bytes(pins.exact([asked["server"], asked["tool"], asked["exactly"]]).encode("ascii"))


def rule_for(config: Upstream, tool: str) -> ToolRule | None:
    """The first rule that names the tool."""
    return next((rule for rule in config.rules if first_match(tool, (rule.tool,)) is not None), None)


def _projection(view: UpstreamView) -> Projection:
    """What carries a view out. A text that is JSON is read as such; fields and schemas need one that is."""
    if view.show == "identifiers":
        return identifiers_text
    from vestibule.core.projection import project

    rule = ViewRule(paths=("**",), show=view.show, fields=view.fields, redact=view.redact)

    def shown(text: str) -> str:
        json_text = view.show != "redacted" or text.lstrip()[:1] in ("{", "[")
        return project(text.encode("utf-8"), "result.json" if json_text else "result.txt", rule).decode("utf-8")

    return shown


def _given_name(config: Upstream, tool: str) -> str:
    rule = rule_for(config, tool)
    return rule.name if rule else ""


def _visible(value: Any) -> Any:
    """A schema with every hidden character in its texts written out."""
    if isinstance(value, str):
        return show_hidden(value)
    if isinstance(value, dict):
        return {show_hidden(key): _visible(item) for key, item in value.items()}
    return [_visible(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Without floats, which have no one canonical form: as texts. `_digest` tells them apart."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _digest(arguments: Mapping[str, Any]) -> str:
    return digest_bytes(pins.exact(arguments).encode("ascii"))


def _no_view(tool: str) -> Refused:
    return Refused(
        refusal(
            "upstream.view",
            "The result has no part that may be shown.",
            fact=one_line(tool, 128),
            agent="Go on without this result.",
            person="Look at the tool's `view` in the operator's configuration and at what the server sends.",
        )
    )
