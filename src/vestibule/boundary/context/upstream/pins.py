"""What a person looked at: each upstream tool's description and schema, by digest and in full.

Rules this module keeps:
1. A pin covers all that a server says of a tool and that an agent could be shown: name, title, description, schemas,
   annotations. The order of tools, of keys and of required names changes nothing.
2. Pins live in the operator's configuration folder, one file a server, never in the state folder or a repository.
3. A pin file that is no pin file, or whose text does not have its digest, is an error, never an empty set of pins.
4. A name that a server lists twice is a change: nobody can say which of the two was looked at.

Source: MCPoison (CVE-2025-54136), "rug pull" (Invariant Labs, 2025).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from vestibule.core.base import Noun
from vestibule.core.errors import DependencyDown

MAX_PIN_BYTES = 8 << 20
MAX_TOOLS = 512
MAX_TOOL_BYTES = 64 << 10
"""Of all that a server says of one tool; a longer one is not offered and cannot be pinned."""
SEEN = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")

State = Literal["pinned", "unpinned", "changed", "gone"]


class Pin(Noun):
    """One tool as a person saw it. `time` is UTC, RFC 3339."""

    digest: str
    by: str
    time: str
    said: dict[str, Any]


class Pins(Noun):
    """A server's pin file."""

    version: Literal[1] = 1
    server: str
    tools: dict[str, Pin] = {}


def said_of(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a `tools/list` entry that a pin covers."""
    return {key: tool[key] for key in SEEN if key in tool}


def canonical(said: Mapping[str, Any]) -> str:
    """One text for one meaning: keys sorted, `required` sorted (JSON Schema: it is a set), nothing else touched."""
    return exact(_sorted(said))


def exact(value: Any) -> str:
    """One text for one JSON value; unlike `canonical` it is about the value, not about a schema's meaning."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def digest_of(said: Mapping[str, Any]) -> str:
    """`sha256:<hex>` of the canonical text."""
    return "sha256:" + hashlib.sha256(canonical(said).encode("ascii")).hexdigest()


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        found = {key: _sorted(item) for key, item in value.items()}
        required = found.get("required")
        if isinstance(required, list) and all(isinstance(item, str) for item in required):
            found["required"] = sorted(required)
        return found
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def catalogue(tools: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """Name → what a server says of a tool; None when it lists the name twice or says more than is looked at.

    Raises:
        ValueError: an entry is no tool.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for tool in tools:
        name = tool.get("name")
        if not isinstance(name, str) or not name or len(name) > 256:
            raise ValueError("a tool has no name")
        said = said_of(tool)
        if not isinstance(said.get("inputSchema"), dict) or not isinstance(said.get("description", ""), str):
            raise ValueError("a tool has no schema, or a description that is no text")
        if not isinstance(said.get("annotations", {}), dict) or not isinstance(said.get("title", ""), str):
            raise ValueError("a tool's title or annotations are of another type")
        too_long = len(canonical(said)) > MAX_TOOL_BYTES
        found[name] = None if name in found or too_long else said
    if len(found) > MAX_TOOLS:
        raise ValueError(f"a server offers more than {MAX_TOOLS} tools")
    return found


def rule_of(name: str, pins: Pins, live: Mapping[str, dict[str, Any] | None]) -> str:
    """The `pin_rule` of a tool that the server lists now: "", `upstream.unpinned` or `upstream.changed`."""
    pin = pins.tools.get(name)
    if pin is None:
        return "upstream.unpinned"
    said = live.get(name)
    return "" if said is not None and digest_of(said) == pin.digest else "upstream.changed"


def states(pins: Pins, live: Mapping[str, dict[str, Any] | None]) -> dict[str, State]:
    """Every tool that is pinned or listed."""
    found: dict[str, State] = {}
    for name in sorted({*pins.tools, *live}):
        if name not in live:
            found[name] = "gone"
        else:
            rule = rule_of(name, pins, live)
            found[name] = "pinned" if not rule else "unpinned" if rule == "upstream.unpinned" else "changed"
    return found


class PinFolder:
    """`upstreams/` in the operator's configuration folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, server: str) -> Path:
        return self.folder / f"{server}.json"

    def read(self, server: str) -> Pins:
        """The pins of a server; none when there is no file.

        Raises:
            DependencyDown: `upstream_pins`; there is a file, and it is not as it was written.
        """
        path = self.path(server)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_PIN_BYTES + 1)
        except FileNotFoundError:
            return Pins(server=server)
        except OSError as error:
            raise _down(path, error.strerror or type(error).__name__) from None
        try:
            if len(data) > MAX_PIN_BYTES:
                raise ValueError("it is too large")
            pins = Pins.model_validate_json(data)
            if pins.server != server:
                raise ValueError("it is another server's")
            for name, pin in pins.tools.items():
                if digest_of(pin.said) != pin.digest or pin.said.get("name") != name:
                    raise ValueError(f"the pin of {name!r} does not have its digest")
            if any(said is None for said in catalogue(pin.said for pin in pins.tools.values()).values()):
                raise ValueError("a pinned tool is too long")
        except ValueError as error:
            raise _down(path, str(error).splitlines()[0]) from None
        return pins

    def write(self, pins: Pins) -> None:
        """Durably and at once. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps(pins.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=True) + "\n"
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path(pins.server))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _down(path: Path, why: str) -> DependencyDown:
    return DependencyDown(
        "upstream_pins",
        "The pins of an upstream server cannot be used.",
        fact=why,
        person=f"Look at {path}; put back the file that was written, or remove it and pin the tools again.",
        agent="Go on without this server's tools.",
    )
