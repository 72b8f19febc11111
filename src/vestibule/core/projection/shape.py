"""The schema of a document: names and types, no value, no count. Pure. The result is a JSON Schema (2020-12).

Rules it keeps:
1. A value never passes, and neither does how many records there are: types are joined over all of them.
2. A name passes only if it can be a field's: a name that looks like data (a number, an address, an identifier), one of
   very many, or one of several whose records are alike stands for a record, and is shown as `additionalProperties`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

from vestibule.core.projection.base import Tree
from vestibule.core.projection.redact import KINDS, redact_text

MAX_NAMES = 200
"""Fields of one object; more are records by key."""

_NAME = re.compile(r"[^\W\d][\w .:/()#%$-]{0,63}\Z")
_ORDER = ("null", "boolean", "integer", "number", "string", "array", "object")


@dataclass(slots=True)
class Shape:
    """The joined type of all values at one place."""

    types: set[str] = field(default_factory=set)
    formats: set[str] = field(default_factory=set)
    fields: dict[str, Shape] = field(default_factory=dict)
    required: set[str] | None = None
    items: Shape | None = None

    def add(self, value: Tree) -> None:
        """Join the type of one more value."""
        kind = _type(value)
        self.types.add(kind)
        if isinstance(value, dict):
            for key, item in value.items():
                self.fields.setdefault(key, Shape()).add(item)
            self.required = set(value) if self.required is None else self.required & set(value)
        elif isinstance(value, list):
            self.items = self.items or Shape()
            for item in value:
                self.items.add(item)
        elif kind == "string":
            self.formats.add(_format(value))

    def join(self, other: Shape) -> None:
        """Join all that `other` has seen."""
        self.types |= other.types
        self.formats |= other.formats
        for key, item in other.fields.items():
            self.fields.setdefault(key, Shape()).join(item)
        if other.required is not None:
            self.required = set(other.required) if self.required is None else self.required & other.required
        if other.items is not None:
            self.items = self.items or Shape()
            self.items.join(other.items)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema."""
        names = self.types - {"integer"} if "number" in self.types else self.types
        types = [name for name in _ORDER if name in names]
        found: dict[str, Any] = {"type": types[0] if len(types) == 1 else types} if types else {}
        if len(self.formats) == 1 and (only := next(iter(self.formats))):
            found["format"] = only
        if "object" in self.types:
            found |= self._object()
        if self.items is not None and self.items.types:
            found["items"] = self.items.schema()
        return found

    def _object(self) -> dict[str, Any]:
        shown, others = dict(self.fields), Shape()
        if len(self.fields) > MAX_NAMES or _records(list(self.fields.values())):
            shown = {}
        shown = {name: item for name, item in shown.items() if is_name(name)}
        for name, item in self.fields.items():
            if name not in shown:
                others.join(item)
        found: dict[str, Any] = {"properties": {name: item.schema() for name, item in shown.items()}}
        required = [name for name in shown if name in (self.required or ())]
        if required:
            found["required"] = required
        if others.types:
            found["additionalProperties"] = others.schema()
        return found


def is_name(name: str) -> bool:
    """Whether a key can be a field's name rather than data."""
    if not _NAME.match(name) or redact_text(name, KINDS) != name:
        return False
    digits = sum(char.isdecimal() for char in name)
    return digits <= 4 and not (len(name) >= 16 and digits and re.fullmatch(r"[0-9A-Fa-f-]+", name) is not None)


def _records(fields: list[Shape]) -> bool:
    """Whether several objects under different keys are alike: then the keys are data."""
    if len(fields) < 2 or not all(item.types == {"object"} and item.fields for item in fields):
        return False
    names = [set(item.fields) for item in fields]
    return 2 * len(set.intersection(*names)) >= len(set.union(*names))


def shape_of(tree: Tree) -> Shape:
    """The shape of one document."""
    shape = Shape()
    shape.add(tree)
    return shape


def table_shape(columns: list[str], records: list[dict[str, str]]) -> Shape:
    """The shape of a table's records. Cells are text; what all of a column can be read as is its type."""
    row = Shape(types={"object"}, required=set(columns))
    for name in columns:
        cells = Shape()
        for record in records:
            cells.add(_cell(record[name]))
        if not cells.types:
            cells.types.add("null")
        row.fields[name] = cells
    return Shape(types={"array"}, items=row)


def _cell(text: str) -> Tree:
    shown = text.strip()
    if not shown:
        return None
    if re.fullmatch(r"[-+]?(?:0|[1-9]\d{0,17})", shown):
        return 0
    if re.fullmatch(r"[-+]?\d{1,18}[.]\d{0,18}(?:[eE][-+]?\d{1,3})?", shown):
        return 0.5
    if shown.lower() in ("true", "false"):
        return True
    return shown


def _type(value: Tree) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else "string"


def _format(value: Tree) -> str:
    if isinstance(value, datetime):
        return "date-time"
    if isinstance(value, date):
        return "date"
    if isinstance(value, time):
        return "time"
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return "date"
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}[0-9:.+Zz-]{0,24}", value):
        return "date-time"
    return ""
