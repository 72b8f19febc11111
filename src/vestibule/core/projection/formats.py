"""From bytes to a tree and back, by the file's name: JSON, JSON lines, YAML, TOML, INI, .env, CSV, TSV. Pure.

Rules it keeps:
1. Strict: what another reader might take for something else (a key twice, ragged rows, a second document) cannot be
   shown in part at all.
2. What is written is written anew from the values that were chosen: comments, spaces and anchors never pass.
"""

from __future__ import annotations

import configparser
import csv
import io
import json
import math
import re
import tomllib
from collections.abc import Callable, Sequence
from datetime import date, time
from typing import Any, Literal

from vestibule.core.projection.base import MAX_DEPTH, MAX_NODES, CannotProject, Tree, check_size, text_of

Kind = Literal["json", "jsonl", "yaml", "toml", "ini", "env", "csv", "tsv", "dicom", "text"]

_SUFFIXES: dict[str, Kind] = {
    "json": "json",
    "geojson": "json",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "yaml": "yaml",
    "yml": "yaml",
    "toml": "toml",
    "ini": "ini",
    "cfg": "ini",
    "env": "env",
    "csv": "csv",
    "tsv": "tsv",
    "dcm": "dicom",
    "dicom": "dicom",
}
_COLUMN = re.compile(r"[^\W\d][\w .:/()#%-]{0,63}\Z")
_ENV = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]{0,127})=(.*)\Z")


def kind_of(path: str, data: bytes) -> Kind:
    """The format, by the name; DICOM also by its magic, everything else is text."""
    name = path.rpartition("/")[2].lower()
    if name == ".env" or name.startswith(".env."):
        return "env"
    found = _SUFFIXES.get(name.rpartition(".")[2]) if "." in name else None
    if found is None:
        return "dicom" if data[128:132] == b"DICM" else "text"
    return found


def parse(kind: Kind, data: bytes) -> Tree:
    """The document. JSON lines and tables are lists of records.

    Raises:
        CannotProject: it is not of that format, or not strictly.
    """
    try:
        tree = _PARSERS[kind](text_of(data))
    except (ValueError, RecursionError, csv.Error, configparser.Error):
        raise CannotProject(f"The file cannot be read strictly as {kind}.") from None
    check_size(tree)
    return tree


def write(kind: Kind, tree: Tree, *, like: bytes) -> bytes:
    """`tree` in the format; `like` is the file it comes from."""
    try:
        text = _WRITERS[kind](tree, like)
        return text.encode("utf-8")
    except (ValueError, TypeError, RecursionError):
        raise CannotProject(f"What may be shown cannot be written as {kind}.") from None


# --- JSON ---------------------------------------------------------------------------------------------------


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_constant(_: str) -> Any:
    raise ValueError("no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("no finite number")
    return value


def _json(text: str) -> Tree:
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)


def _json_lines(text: str) -> Tree:
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > MAX_NODES:
        raise CannotProject("The file holds too many records.")
    return [_json(line) for line in lines]


def write_json(tree: Tree, like: bytes = b"\n ") -> str:
    """Indented where `like` has lines."""
    indent = 2 if b"\n" in like.strip() else None
    return json.dumps(tree, ensure_ascii=False, allow_nan=False, indent=indent) + "\n"


def _write_json_lines(tree: Tree, _: bytes) -> str:
    return "".join(json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n" for item in tree)


# --- TOML, INI, .env ----------------------------------------------------------------------------------------


def _write_toml(tree: Tree, _: bytes) -> str:
    lines: list[str] = []
    _toml_table(tree, [], lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _toml_table(table: dict[str, Tree], path: list[str], lines: list[str]) -> None:
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    if path and (len(tables) < len(table) or not table):
        lines.append(f"\n[{'.'.join(path)}]")
    lines.extend(f"{_toml_key(key)} = {_toml(value)}" for key, value in table.items() if key not in tables)
    for key, value in tables.items():
        _toml_table(value, [*path, _toml_key(key)], lines)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_text(key)


def _toml_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml(value: Tree) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_text(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (date, time)):
        return value.isoformat()
    raise TypeError("no TOML value")


def _ini(text: str) -> Tree:
    # A default section would put its values into every other one.
    reader = configparser.RawConfigParser(strict=True, allow_no_value=True, default_section="\0")
    reader.optionxform = str  # type: ignore[assignment,method-assign]
    reader.read_string(text)
    return {name: dict(reader.items(name)) for name in reader.sections()}


def _write_ini(tree: Tree, _: bytes) -> str:
    lines: list[str] = []
    for section, values in tree.items():
        lines.append(f"[{section}]")
        lines.extend(key if value is None else f"{key} = {_indented(value)}" for key, value in values.items())
        lines.append("")
    return "\n".join(lines)


def _indented(value: Tree) -> str:
    return str(value).replace("\n", "\n\t")


def _env(text: str) -> Tree:
    found: dict[str, str] = {}
    for line in text.splitlines():
        shown = line.strip()
        if not shown or shown.startswith("#"):
            continue
        match = _ENV.match(shown)
        if match is None or match[1] in found:
            raise ValueError("no assignment")
        value = match[2].strip()
        if value[:1] in ("'", '"', "`"):
            # A value that goes on in the next line would be taken for names there.
            if len(value) < 2 or value[-1] != value[0]:
                raise ValueError("a value of several lines")
            value = value[1:-1]
        found[match[1]] = value
    return found


def _write_env(tree: Tree, _: bytes) -> str:
    return "".join(f"{key}={_env_value(str(value))}\n" for key, value in tree.items())


def _env_value(value: str) -> str:
    if re.fullmatch(r"[\w.,:/@+%=⟦⟧-]*", value):
        return value
    quote = next((mark for mark in "\"'`" if mark not in value), None)
    if quote is None:
        raise ValueError("cannot be quoted")
    return f"{quote}{value}{quote}"


# --- tables -------------------------------------------------------------------------------------------------


def delimiter_of(kind: Kind, text: str) -> str:
    """The character between cells."""
    if kind == "tsv":
        return "\t"
    first = text.split("\n", 1)[0]
    return max((",", ";", "\t", "|"), key=lambda mark: (first.count(mark), mark == ","))


def _table(kind: Kind) -> Callable[[str], Tree]:
    def parse_table(text: str) -> Tree:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(kind, text), strict=True)
        first = next(rows, None)
        if first is None:
            return []
        columns = [name.strip() for name in first]
        if len(set(columns)) != len(columns) or not all(_COLUMN.match(name) for name in columns):
            raise CannotProject("The table's first row does not name its columns.")
        records = []
        cells = 0
        for row in rows:
            if not row:
                continue
            cells += len(row)
            if len(row) != len(columns) or cells > MAX_NODES:
                raise CannotProject("The table's rows are not alike, or there are too many.")
            records.append(dict(zip(columns, row, strict=True)))
        return records

    return parse_table


def columns_of(kind: Kind, data: bytes) -> list[str]:
    """The names in a table's first row; `parse` has checked them."""
    text = text_of(data)
    first = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(kind, text), strict=True), [])
    return [name.strip() for name in first]


def write_table(kind: Kind, columns: Sequence[str], records: Sequence[dict[str, Any]], like: bytes) -> bytes:
    """The table with these columns; every record's values stand in their order."""
    out = io.StringIO(newline="")
    text = text_of(like)
    # Below 3.13 the writer leaves a lone carriage return bare, and a reader takes it for the end of a row.
    quoting: Literal[0, 1] = csv.QUOTE_ALL if "\r" in text.replace("\r\n", "\n") else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=delimiter_of(kind, text), lineterminator="\n", quoting=quoting)
    if columns:
        writer.writerow(columns)
        writer.writerows(record.values() for record in records)
    return out.getvalue().encode("utf-8")


def _yaml(text: str) -> Tree:
    from vestibule.core.projection import yaml_tree

    return yaml_tree.parse(text)


def _write_yaml(tree: Tree, _: bytes) -> str:
    from vestibule.core.projection import yaml_tree

    return yaml_tree.write(tree)


_TOKEN = re.compile(
    r"""[\w-]+|"(?:[^"\\]|\\.)*+"?|'[^']*+'?|[ \t]+|(?P<dot>\.)|(?P<other>.)""",
)


def _read_toml(text: str) -> Tree:
    # The reader's time grows with the square of a dotted key's parts; no key this deep could be shown anyway.
    if any(_deep(line) for line in text.split("\n") if line.count(".") > MAX_DEPTH):
        raise CannotProject("The file is nested too deeply.")
    return tomllib.loads(text)


def _deep(line: str) -> bool:
    parts = 0
    for token in _TOKEN.finditer(line):
        parts = parts + 1 if token["dot"] else 0 if token["other"] else parts
        if parts > MAX_DEPTH:
            return True
    return False


_PARSERS: dict[Kind, Callable[[str], Tree]] = {
    "json": _json,
    "jsonl": _json_lines,
    "yaml": _yaml,
    "toml": _read_toml,
    "ini": _ini,
    "env": _env,
    "csv": _table("csv"),
    "tsv": _table("tsv"),
}
_WRITERS: dict[Kind, Callable[[Tree, bytes], str]] = {
    "json": write_json,
    "jsonl": _write_json_lines,
    "yaml": _write_yaml,
    "toml": _write_toml,
    "ini": _write_ini,
    "env": _write_env,
}
