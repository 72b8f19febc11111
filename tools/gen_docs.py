"""Fills the tables of the reference pages from the code: commands, keys, facts, reasons, guards, fail modes, limits.

    python tools/gen_docs.py            write them
    python tools/gen_docs.py --check    say which pages are out of date; exit 1 when one is

A page holds `<!-- from the code: NAME -->` and `<!-- end -->`; what stands between is replaced. The few words that the
code does not have are in `gen_docs.yaml`. `tests/unit/docs/test_docs.py` fails when a page disagrees with the code.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "vestibule"
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"<!-- from the code: ([a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)

Row = tuple[str, ...]


def pages() -> dict[Path, str]:
    """Every page with such a block → its text as it should be."""
    found = {}
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text("utf-8")
        if _BLOCK.search(text):
            found[path] = _BLOCK.sub(_fill, text)
    return found


def _fill(match: re.Match[str]) -> str:
    name = match.group(1)
    return f"<!-- from the code: {name} -->\n\n{BLOCKS[name]().strip()}\n\n<!-- end -->"


@lru_cache(maxsize=1)
def words() -> dict[str, dict[str, Any]]:
    import yaml

    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "tools" / "gen_docs.yaml").read_text("utf-8"))
    return found


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table; bars and line feeds in cells are made safe."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(" ".join(item.split()).replace("|", "\\|") for item in cells) + " |\n"

    return line(head) + "|" + "---|" * len(head) + "\n" + "".join(line(row) for row in rows) + "\n"


def code(text: object) -> str:
    return f"`{text}`"


# --- commands ---------------------------------------------------------------------------------------------------


def all_commands() -> Iterator[tuple[str, Any]]:
    """(`vestibule audit verify`, its click command), groups before their members."""
    import click

    from vestibule.cli.main import COMMANDS, cli

    context = click.Context(cli, info_name="vestibule")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        yield f"vestibule {name}", command
        if isinstance(command, click.Group):
            for inner, member in sorted(command.commands.items()):
                yield f"vestibule {name} {inner}", member


def commands() -> str:
    import click

    parts = []
    for path, command in all_commands():
        level = "##" if path.count(" ") == 1 else "###"
        usage = " ".join([path, *command.collect_usage_pieces(click.Context(command, info_name=path))])
        parts.append(f"{level} {path}\n\n```text\n{usage}\n```\n\n{_help(command.help or '')}\n\n")
        options = [param for param in command.params if isinstance(param, click.Option)]
        if options:
            parts.append(table(("option", "does"), ((_option(item), _option_help(item)) for item in options)))
        if command.epilog:
            parts.append(f"{command.epilog}\n\n")
    return "".join(parts)


def _help(text: str) -> str:
    """Paragraphs as paragraphs; a block marked with \\b as it stands."""
    blocks = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```sh\n{block[2:]}\n```" if block.startswith("\b\n") else " ".join(block.split()) for block in blocks
    )


def _option(param: Any) -> str:
    names = ", ".join(code(name) for name in (*param.opts, *param.secondary_opts))
    if param.is_flag:
        return names
    choices = "|".join(getattr(param.type, "choices", ()))
    kind = choices or param.metavar or param.type.name.upper().replace("INTEGER RANGE", "NUMBER")
    return f"{names} {code(kind)}"


def _option_help(param: Any) -> str:
    extra = ["required"] * bool(param.required) + ["may be repeated"] * bool(param.multiple)
    if param.show_default and param.default not in (None, ""):
        extra.append(f"default: `{param.default}`")
    return (param.help or "") + (f" ({'; '.join(extra)})" if extra else "")


# --- configuration ----------------------------------------------------------------------------------------------


def repository_keys() -> str:
    from vestibule.config.schema import RepoConfig

    return _keys(RepoConfig, words()["repository"])


def operator_keys() -> str:
    from vestibule.config.schema import OperatorConfig

    return _keys(OperatorConfig, words()["operator"])


def _keys(model: type[Any], said: dict[str, list[str]]) -> str:
    found = list(_fields(model, ""))
    missing = {name for name, _ in found} ^ set(said)
    if missing:
        raise SystemExit(f"tools/gen_docs.yaml and the schema disagree on {sorted(missing)}")
    rows = ((code(name), said[name][0], default, said[name][1]) for name, default in found)
    return table(("key", "value", "default", "meaning"), rows)


def _fields(model: type[Any], prefix: str) -> Iterator[tuple[str, str]]:
    """(dotted key, default) of a configuration model, outer before inner; `*` stands for a name."""
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        yield key, "required" if field.is_required() else _default(key, field.default)
        for item in _types(field.annotation):
            if isinstance(item, type) and issubclass(item, BaseModel):
                yield from _fields(item, f"{key}.*." if "dict" in str(field.annotation) else f"{key}.")


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for item in getattr(annotation, "__args__", ()):
        yield from _types(item)


def _default(key: str, value: Any) -> str:
    from pydantic import BaseModel

    if isinstance(value, BaseModel) or value is None or value in ((), {}, ""):
        return "–"
    if isinstance(value, tuple):
        return "all" if key.endswith(".tools") else ", ".join(code(item) for item in value)
    return code(f"{value // 86400}d") if key.endswith(".expires") else code(value)


def tools() -> str:
    from vestibule.boundary.context.catalogue import TOOLS

    return table(("tool", "does"), ((code(tool.name), tool.description) for tool in TOOLS.values()))


# --- policy -----------------------------------------------------------------------------------------------------


def actions() -> str:
    said = words()["actions"]
    facts = dict(_bundle_facts())
    if set(facts) != set(said):
        raise SystemExit(f"tools/gen_docs.yaml and the policy disagree on {sorted(set(facts) ^ set(said))}")
    parts = []
    for action, (when, resource) in said.items():
        rows = ((code(name), _must(rule), code(rule.get("reason", "–"))) for name, rule in facts[action].items())
        parts.append(f"### {action}\n\nAsked when {when}. `resource`: {resource}.\n\n")
        parts.append(table(("fact", "must be", "reason when it is not"), rows))
    return "".join(parts)


def reasons() -> str:
    from vestibule.policy.refusals import ENTRIES

    rows = ((code(rule), entry.reason, entry.agent, entry.person) for rule, entry in ENTRIES.items())
    return table(("rule", "reason", "next, for the agent", "next, for a person"), rows)


def built_ins() -> str:
    from vestibule.policy.builtins import ALLOWED

    return ", ".join(code(name) for name in sorted(ALLOWED)) + "."


def _must(rule: dict[str, Any]) -> str:
    if "any" in rule:
        text = f"any {rule['any']}"
    else:
        text = " or ".join(code(json.dumps(item)) for item in rule.get("one_of", [rule.get("is")]))
    return f"{text}, judged after `{rule['after']}`" if "after" in rule else text


def _bundle_facts() -> Iterator[tuple[str, dict[str, Any]]]:
    """(action, its facts) as the shipped Rego states them."""
    from vestibule.policy.index import CONSTANTS, LayerIndex

    for path in sorted((SOURCE / "policy" / "bundle").glob("*.rego")):
        text = path.read_text("utf-8")
        tables = LayerIndex({path.name: text}).data(())[CONSTANTS]
        for name, condition in re.findall(r"^needed := (\w+) if (?:\{\n\t)?input\.action (.+)$", text, re.MULTILINE):
            for action in re.findall(r'"([a-z._]+)"', condition):
                yield action, _rows(tables[name])


def _rows(facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One row for each fact: what it must be, the reason when it is otherwise, and what is judged before it."""
    found: dict[str, dict[str, Any]] = {}
    for kind in ("is", "one_of", "any"):
        for name, value in facts[kind].items():
            found[name] = {kind: value, **{k: facts[k][name] for k in ("reason", "after") if name in facts[k]}}
    order = [*facts["reason"], *facts["any"]]
    return {name: found[name] for name in sorted(found, key=order.index)}


# --- guards -----------------------------------------------------------------------------------------------------

_RULE = re.compile(r"(?:change|path)\.[a-z_]+(?:\.[a-z_]+)*\Z")


def guards() -> str:
    from vestibule.boundary.changes.guards import GUARDS

    parts, said = [], words()["guards"]
    for name, _ in GUARDS:
        module = importlib.import_module(f"vestibule.boundary.changes.guards.{name}")
        doc = re.sub(r":\n1\. ", ":\n\n1. ", (module.__doc__ or "").strip())
        parts.append(f"## {name}\n\n{doc}\n\n")
        rows = [(code(rule), ruling, said.get(rule, says)) for rule, (ruling, says) in _rules_of(name).items()]
        if rows:
            parts.append(table(("rule", "verdict", "says"), rows))
    return "".join(parts)


def behaviours() -> str:
    from vestibule.boundary.host.behaviours import WORDS, shipped

    answers = {"critical": "ends the sandbox", "warning": "holds the change", "notice": "is recorded"}
    rows = [(code(item.name), item.what, code(item.action), answers[item.severity]) for item in shipped().behaviours]
    severities = {"outside-write": "critical", "unresolved-write": "warning"}
    rows += [(code(name), what, code("host.open"), answers[severities[name]]) for name, what in WORDS.items()]
    return table(("behaviour", "what was seen", "decided as", "by the shipped policy"), rows)


def protected() -> str:
    from vestibule.core.control_files import PROTECTED

    return ", ".join(code(item) for item in PROTECTED) + "."


def control_files() -> str:
    from vestibule.core.control_files import CONTROL_FILES

    return ", ".join(code(item) for item in CONTROL_FILES) + "."


def _rules_of(name: str) -> dict[str, tuple[str, str]]:
    """Rule → (verdicts, message), as far as the guard's source states them in one place."""
    tree = ast.parse((SOURCE / "boundary" / "changes" / "guards" / f"{name}.py").read_text("utf-8"))
    found: dict[str, tuple[set[str], str]] = {}
    for node in ast.walk(tree):
        items = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
        texts = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
        rule = next((text for text in texts if _RULE.match(text)), None)
        if rule is not None:
            rulings = {ruling for item in items for ruling in _rulings(item)} or _rulings(tree)
            says = next((text for text in texts if text != rule and " " in text), "")
            old = found.get(rule, (set(), ""))
            found[rule] = (old[0] | rulings, old[1] or says)
    return {
        rule: (" or ".join(word for word in ("allow", "hold", "deny") if word in rulings), says)
        for rule, (rulings, says) in found.items()
    }


def _rulings(node: ast.AST) -> set[str]:
    return {
        item.attr.lower()
        for item in ast.walk(node)
        if isinstance(item, ast.Attribute) and isinstance(item.value, ast.Name) and item.value.id == "Ruling"
    }


# --- fail modes and limits --------------------------------------------------------------------------------------


def fail_modes() -> str:
    from vestibule.pipeline.fail_modes import FAIL_MODES

    rows = ((r.guard, r.depends_on, r.when_broken, code(r.reason), code(r.tested_by)) for r in FAIL_MODES)
    return table(("guard", "depends on", "when it breaks", "reason", "test"), rows)


def metrics() -> str:
    from vestibule.cost.metrics import METRICS

    rows = ((code(item.name), item.kind, ", ".join(map(code, item.labels)), item.help) for item in METRICS)
    return table(("metric", "kind", "labels", "says"), rows)


def metric_labels() -> str:
    from vestibule.cost.metrics import MOST_VALUES

    return table(("label", "values at most"), ((code(name), str(most)) for name, most in MOST_VALUES.items()))


def limits() -> str:
    from vestibule.boundary.changes.export import Bounds
    from vestibule.boundary.context.limits import ContextLimits
    from vestibule.core.ports import Limits

    said = words()
    rows: dict[str, list[Row]] = {room: [] for room in said["rooms"]}

    def add(room: str, place: str, value: Any, text: list[str]) -> None:
        rows.setdefault(room, []).append((text[0], _value(place, value), text[1], code(place)))

    for name, value in constants():
        room = next((item for item in said["rooms"] if name.startswith(item + ".")), name.split(".")[0])
        add(room, name, value, said["limits"].get(name, ["–", "–"]))
    for field in dataclasses.fields(ContextLimits):
        place = f"boundary.context.limits.{field.name}"
        add("boundary.context", place, field.default, said["context"].get(field.name, ["–", "–"]))
    for field in dataclasses.fields(Bounds):
        place = f"boundary.changes.export.Bounds.{field.name}"
        add("boundary.changes", place, field.default, said["export"].get(field.name, ["–", "–"]))
    for key, item in Limits.model_fields.items():
        add("sandbox", f"core.ports.Limits.{key}", item.default, said["sandbox"].get(key, ["–", "–"]))
    return "".join(
        f"## {said['rooms'].get(room, room)}\n\n" + table(("of", "at most", "then", "where"), items)
        for room, items in rows.items()
        if items
    )


def constants() -> Iterator[tuple[str, int | float]]:
    """(`room.module.NAME`, value) of every number of a module that begins with `MAX_`, and of those given words."""
    said = {name for name in words()["limits"] if ".MAX_" not in name}
    for path in sorted(SOURCE.rglob("*.py")):
        dotted = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        names = re.findall(r"^([A-Z][A-Z_]+)(?::[^=\n]+)? *=", path.read_text("utf-8"), re.MULTILINE)
        for name in names:
            if name.startswith("MAX_") or f"{dotted}.{name}" in said:
                value = getattr(importlib.import_module(f"vestibule.{dotted}"), name)
                if isinstance(value, int | float):
                    yield f"{dotted}.{name}", value


_IN_BYTES = re.compile(
    r"(?i)bytes|MAX_(FILE|TOTAL|BLOB|OUTPUT|PATCH|BODY|FRAME|NOTE|LINE|LINK|TARGET|MESSAGE|DECODED|TICKET)$"
)


def _value(name: str, value: Any) -> str:
    if value is None:
        return "no limit"
    if _IN_BYTES.search(name):
        for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
        return f"{value:,} bytes"
    return f"{value:,.0f}"


def agents() -> str:
    from vestibule.agents.registry import ADAPTERS, adapter

    rows = []
    for name in ADAPTERS:
        about = adapter(name).about
        tested = ", ".join(f"{item.version} ({', '.join(item.modes)})" for item in about.verified)
        reads = ", ".join(code(item) for item in about.reads)
        rows.append((code(name), code(about.program) if about.program else "", ", ".join(about.modes), tested, reads))
    return table(("adapter", "program", "modes", "tested with", "control files it would obey"), rows)


def tool_spellings() -> str:
    from vestibule.core.tool_names import CLIS, spelling

    rows = []
    for cli in CLIS:
        namespace, name = spelling(cli, "S", "TOOL") or ("", "")
        rows.append((code(cli), f"namespace {code(namespace)}, name {code(name)}" if namespace else code(name)))
    return table(("program", "tool `TOOL` of server `S`"), rows)


def tool_names() -> str:
    from vestibule.core.tool_names import BUILT_IN, CLIS

    clis = [cli for cli in CLIS if cli != "reference"]
    rows = (
        (row.kind, code(row.name), *(", ".join(code(name) for name in row.of(cli)) for cli in clis)) for row in BUILT_IN
    )
    return table(("kind", "tool", *(code(cli) for cli in clis)), rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "repository-keys": repository_keys,
    "operator-keys": operator_keys,
    "tools": tools,
    "actions": actions,
    "reasons": reasons,
    "built-ins": built_ins,
    "guards": guards,
    "behaviours": behaviours,
    "protected": protected,
    "control-files": control_files,
    "fail-modes": fail_modes,
    "agents": agents,
    "tool-spellings": tool_spellings,
    "tool-names": tool_names,
    "limits": limits,
    "metrics": metrics,
    "metric-labels": metric_labels,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a page is out of date")
    chosen = parser.parse_args()
    stale = {path: text for path, text in pages().items() if path.read_text("utf-8") != text}
    for path, text in stale.items():
        print(f"{'out of date' if chosen.check else 'wrote'}: {path.relative_to(ROOT)}")
        if not chosen.check:
            path.write_text(text, "utf-8")
    return 1 if chosen.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
