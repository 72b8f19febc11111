"""Files shown in part: some fields, the header, the schema, or everything with personal data replaced. Pure.

Rules it keeps:
1. What a rule does not show is in no byte of the result. A file that cannot be read strictly, or is larger than 8 MiB,
   has no part that can be shown (`CannotProject`), and the caller shows none of it.
2. Of the organisation's rules the first that names a file counts, and of the repository's the first; when both name
   it, both hold: only what each of them shows is shown. A schema shows the least. Where none names it exactly, the
   first that names it in another case of letters does.
3. The result has the file's own format where it holds values. A schema is a JSON document (JSON Schema 2020-12), and
   so is the header of a DICOM file (the DICOM JSON model, PS3.18 annex F).
4. A redacted view that has nothing to replace is the file itself, byte by byte. Everything else is a part, whose bytes
   differ from the file's, or happen to be all of it.
5. The same file and rules give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from vestibule.core.model import ViewRule
from vestibule.core.projection.base import MAX_BYTES, CannotProject, Tree, text_of
from vestibule.core.projection.redact import KINDS
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import fold

if TYPE_CHECKING:
    from vestibule.core.projection.formats import Kind

__all__ = ["KINDS", "MAX_BYTES", "CannotProject", "project", "rules_for"]

_ABOUT = "A view of this file: names and types. Its values are not shown."


def rules_for(path: str, rules: Iterable[ViewRule]) -> tuple[ViewRule, ...]:
    """The rules that decide about a file: at most one of the organisation's and one of the repository's."""
    rules = tuple(rules)
    found: dict[str, ViewRule] = {}
    for rule in rules:
        if rule.by not in found and first_match(path, rule.paths) is not None:
            found[rule.by] = rule
    # A rule for `**/*.csv` that left `PATIENTS.CSV` whole would show what it is there to hide.
    folded = fold(path)
    for rule in rules:
        if rule.by not in found and first_match(folded, map(fold, rule.paths)) is not None:
            found[rule.by] = rule
    return tuple(found.values())


def project(data: bytes, path: str, rule: ViewRule | Sequence[ViewRule]) -> bytes:
    """What the rule (or all of several) shows of a file. `path` tells the format.

    Raises:
        CannotProject: nothing of it can be shown so.
    """
    rules = (rule,) if isinstance(rule, ViewRule) else tuple(rule)
    if not rules:
        return data
    if len(data) > MAX_BYTES:
        raise CannotProject("The file is larger than what can be shown in part.")
    from vestibule.core.projection.formats import kind_of

    kind = kind_of(path, data)
    shows = {item.show for item in rules}
    if kind == "dicom":
        found = _dicom(data, rules)
    elif kind == "text":
        found = _text(data, rules)
    elif "header" in shows and kind not in ("csv", "tsv"):
        raise CannotProject("A file of this kind has no header.")
    else:
        from vestibule.core.projection import formats

        tree = formats.parse(kind, data)
        if kind in ("csv", "tsv"):
            found = _table(kind, tree, data, rules)
        else:
            found = _document(kind, tree, data, rules)
    if len(found) > MAX_BYTES:
        raise CannotProject("What may be shown is larger than what can be shown in part.")
    return found


def _narrowing(rules: Sequence[ViewRule]) -> list[ViewRule]:
    """The rules that choose fields."""
    return [item for item in rules if item.fields or item.show in ("fields", "header")]


def _kinds(rules: Sequence[ViewRule]) -> frozenset[str]:
    """What is replaced: what any rule names; a redacted view that names nothing replaces everything it knows."""
    found = {kind for item in rules for kind in item.redact}
    if any(item.show == "redacted" and not item.redact for item in rules):
        found.update(KINDS)
    return frozenset(found)


def _document(kind: Kind, tree: Tree, data: bytes, rules: Sequence[ViewRule]) -> bytes:
    from vestibule.core.projection import formats
    from vestibule.core.projection.fields import select
    from vestibule.core.projection.redact import redact
    from vestibule.core.projection.shape import shape_of

    for item in _narrowing(rules):
        tree = select(tree, item.fields)
    if any(item.show == "schema" for item in rules):
        return _schema(shape_of(tree).schema(), records=kind == "jsonl")
    kinds = _kinds(rules)
    shown = redact(tree, kinds)
    if _unchanged(data, kinds, rules) and shown == tree:
        return data
    tree = shown
    return formats.write(kind, tree, like=data)


def _table(kind: Kind, records: Tree, data: bytes, rules: Sequence[ViewRule]) -> bytes:
    from vestibule.core.projection import formats
    from vestibule.core.projection.fields import names_flat
    from vestibule.core.projection.redact import redact, redact_text
    from vestibule.core.projection.shape import is_name, table_shape

    columns = formats.columns_of(kind, data)
    for item in _narrowing(rules):
        columns = [name for name in columns if names_flat(name, item.fields)]
    records = [{name: record[name] for name in columns} for record in records]
    if any(item.show == "schema" for item in rules):
        if not all(is_name(name) for name in columns):
            raise CannotProject("The table's first row does not name its columns.")
        return _schema(table_shape(columns, records).schema(), records=True)
    if any(item.show == "header" for item in rules):
        records = []
    kinds = _kinds(rules)
    if _unchanged(data, kinds, rules) and redact(records, kinds) == records:
        return data
    names = [redact_text(name, kinds) for name in columns]
    return formats.write_table(kind, names, redact(records, kinds), data)


def _unchanged(data: bytes, kinds: Collection[str], rules: Sequence[ViewRule]) -> bool:
    """Whether nothing in the text, comments too, is to be replaced, and nothing else is asked."""
    from vestibule.core.projection.redact import redact_lines

    if any(item.show != "redacted" or item.fields for item in rules):
        return False
    text = text_of(data)
    return redact_lines(text, kinds) == text


def _schema(found: dict[str, object], *, records: bool) -> bytes:
    about = f"{_ABOUT} The file holds records; `items` is one of them." if records else _ABOUT
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$comment": about, **found}
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


def _text(data: bytes, rules: Sequence[ViewRule]) -> bytes:
    from vestibule.core.projection import headers
    from vestibule.core.projection.fields import names_flat
    from vestibule.core.projection.redact import by_name, placeholder, redact_lines, redact_value

    kinds = _kinds(rules)
    shows = {item.show for item in rules}
    if shows == {"redacted"}:
        return redact_lines(text_of(data), kinds).encode("utf-8")
    if shows - {"header", "redacted"}:
        raise CannotProject("A file of this kind has neither fields nor a schema that can be read.")
    found = []
    for name, value in headers.parse(data):
        if not all(names_flat(name, item.fields, fold=True) for item in _narrowing(rules)):
            continue
        if kinds and "=?" in value:  # encoded words (RFC 2047) could hold anything
            continue
        named = next((kind for kind in by_name(name) if kind in kinds), None)
        found.append((name, placeholder(named) if named and value else redact_value(value, kinds)))
    return headers.write(found)


def _dicom(data: bytes, rules: Sequence[ViewRule]) -> bytes:
    from vestibule.core.projection import dicom

    chosen = [item.fields for item in _narrowing(rules)]
    values = not any(item.show == "schema" for item in rules)
    return dicom.header(data, chosen, _kinds(rules), values=values)
