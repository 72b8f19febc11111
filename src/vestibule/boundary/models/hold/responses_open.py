"""An item of a streamed Responses answer while it comes. Pure."""

from __future__ import annotations

from typing import Any, Literal

from vestibule.boundary.models.hold.base import Held, Problem
from vestibule.boundary.models.hold.responses_items import agrees, call_id, held_call
from vestibule.boundary.models.wire.anthropic import TextOf
from vestibule.boundary.models.wire.responses import AWAITED, CALLS, said
from vestibule.boundary.models.wire.sse import WireError

_PARTS: dict[str, tuple[str, ...]] = {
    "message": ("content_part.", "output_text.", "refusal."),
    "reasoning": ("reasoning_", "content_part."),
    "function_call": ("function_call_arguments.",),
    "custom_tool_call": ("custom_tool_call_input.",),
    "shell_call": ("shell_call_command.",),
    "apply_patch_call": ("apply_patch_call_operation_diff.",),
    "mcp_call": ("mcp_call_arguments.", "mcp_call."),
    "code_interpreter_call": ("code_interpreter_call.", "code_interpreter_call_code."),
}
MAX_CLOSINGS = 2_000
"""Beginnings and ends of parts of one item: at each, its text is put together."""
_VALUES = ("arguments", "input", "command", "diff")


class OpenItem:
    """`index` is its place for the agent, `whole` the finished item (until then its beginning), `instead` what stands
    in its place once it is denied. `dropped`: nothing does, for the answer broke off."""

    def __init__(self, kind: str, index: int, start: dict[str, Any], *, held: bool) -> None:
        self.kind = kind
        self.index = index
        self.held = held
        self.start = start
        self.whole = start
        self.instead: dict[str, Any] = {}
        self.done = False
        self.sent = False
        self.state: Literal["open", "asked", "allowed", "denied", "dropped"] = "open"
        self.problem: Problem = ""
        self.size = 0
        self.parts = _PARTS.get(kind, (f"{kind}.",))
        self._texts: dict[tuple[str, int], TextOf] = {}
        self._others: dict[str, None] = {}
        self._closings = 0
        self._pieces: dict[int, TextOf] = {}
        self._ended: dict[int, str] = {}
        self._strange = False

    @property
    def waits(self) -> bool:
        return self.held and self.state in ("open", "asked")

    @property
    def refused(self) -> bool:
        """A call whose result the model waits for, and that was denied."""
        return self.state == "denied" and self.kind in AWAITED

    def forget(self) -> None:
        """What came of it is of no use any more."""
        self._pieces, self._ended, self.size = {}, {}, 0

    def note(self, value: dict[str, Any], event: str) -> None:
        """A part of a call. `event` is its name without `response.`."""
        if self.state != "open":
            return
        number = value.get("command_index", 0)
        ours = value.get("item_id") in (None, self.start.get("id"))
        if not ours or isinstance(number, bool) or not isinstance(number, int):
            self._strange = True
            return
        if event.endswith(".delta"):
            piece = value.get("delta")
            self._strange |= not isinstance(piece, str)
            self._pieces.setdefault(number, TextOf()).add(piece if isinstance(piece, str) else "")
            self.size += len(piece) if isinstance(piece, str) else 0
        elif event.endswith(".done"):
            found = next((value[key] for key in _VALUES if key in value), None)
            self._strange |= found is not None and not isinstance(found, str)
            if isinstance(found, str):
                self._ended[number] = found
        elif event.endswith(".added"):
            self._pieces.setdefault(number, TextOf()).add(str(value.get("command") or ""))

    def says(self, event: str, value: dict[str, Any]) -> str:
        """What a part of a text says that was not said before."""
        family, _, phase = event.rpartition(".")
        key = "summary" if "summary" in family else "content"
        number = value.get(f"{key}_index")
        text = self._texts.setdefault((key, number if isinstance(number, int) else 0), TextOf())
        if phase == "delta":
            piece = value.get("delta")
            text.add(piece if isinstance(piece, str) else "")
            return piece if isinstance(piece, str) else ""
        self._closings += 1
        if self._closings > MAX_CLOSINGS:
            raise WireError("a text of its answer ends too often")
        part = value.get("part")
        holder = part if isinstance(part, dict) else value
        found = next((holder[name] for name in ("text", "refusal") if isinstance(holder.get(name), str)), "")
        if not found or found == text.get() or found in self._others:
            return ""
        self._others[found] = None
        return found

    def known(self) -> list[str]:
        """The texts that were streamed, and those that ended one otherwise than it was streamed."""
        return [*(text.get() for text in self._texts.values()), *self._others]

    def new_texts(self, item: dict[str, Any]) -> str:
        """What `item` says that was not streamed."""
        known = self.known()
        return "".join(text for text in said(item) if text not in known)

    def as_held(self) -> Held:
        if self.kind not in CALLS:
            streamed, whole = "".join(text.get() for text in self._texts.values()), said(self.whole)
            texts = dict.fromkeys((streamed, *(text for text in self._others if text not in whole), "".join(whole)))
            text = "\n".join(filter(None, texts))
            return Held("text", arguments=text.encode("utf-8", "replace"), problem=self.problem)
        if self.problem:
            name = self.start.get("name")
            return Held("call", name if isinstance(name, str) else "", problem=self.problem, id=call_id(self.start))
        found = held_call(self.whole)
        pieces = {number: text.get() for number, text in self._pieces.items()}
        if not found.problem and (self._strange or not agrees(self.start, pieces, self._ended, self.whole)):
            found = found._replace(problem="shape")
        self.problem = found.problem
        return found
