"""Which rules the tests of a policy hold up: a rule is covered when a test changes its result without it.

Rules:
1. A rule is taken out by a dead one of the same name and kind, so that the rest still means what it meant.
2. Everything is evaluated in a child process (see `trial`): some sources end the engine.
3. A rule whose removal makes the policy stop compiling, or ends the engine, counts as covered: its loss is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vestibule.policy.index import statements
from vestibule.policy.layers import Layer
from vestibule.policy.tokens import Token, UnreadableRego, tokens
from vestibule.policy.trial import try_variants

MAX_RULES = 500


@dataclass(frozen=True, slots=True)
class RuleCoverage:
    """One rule, with the lines it stands on; `reasons` are the reasons its head names."""

    file: str
    name: str
    first_line: int
    last_line: int
    reasons: tuple[str, ...]
    covered: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "name": self.name,
            "first_line": self.first_line,
            "last_line": self.last_line,
            "reasons": list(self.reasons),
            "covered": self.covered,
        }


def coverage(layer: Layer, names: Sequence[str], inputs: Sequence[Mapping[str, Any]] = ()) -> list[RuleCoverage]:
    """Every rule of the layer, at most `MAX_RULES`, with whether the test rules `names` or the decisions about
    `inputs` notice its loss.

    Raises:
        DependencyDown: `dependency.policy`: no child process could be started.
    """
    found = without_each_rule(layer.sources)[:MAX_RULES]
    if not found or not (names or inputs):
        return [rule for rule, _ in found]
    whole = {**layer.sources, **layer.tests}
    results = try_variants([whole, *({**whole, **change} for _, change in found)], names, inputs)
    return [
        RuleCoverage(
            rule.file, rule.name, rule.first_line, rule.last_line, rule.reasons, covered=results[0] != results[number]
        )
        for number, (rule, _) in enumerate(found, start=1)
    ]


def without_each_rule(sources: Mapping[str, str]) -> list[tuple[RuleCoverage, dict[str, str]]]:
    """Every rule, with its file's text as it is without that rule."""
    found: list[tuple[RuleCoverage, dict[str, str]]] = []
    for file, text in sorted(sources.items()):
        try:
            words = tokens(text)
        except UnreadableRego:
            continue
        for head, span in statements(words):
            code = [word for word in span if word.kind != "newline"]
            dead = _dead(head, code)
            if dead is None or code[-1].text == "import":
                continue
            start, end = code[0].start, _end(code)
            without = text[:start] + dead + "\n" * text.count("\n", start, end) + text[end:]
            last = code[0].line + text.count("\n", start, end)
            rule = RuleCoverage(file, head, code[0].line, last, _reasons(code), covered=False)
            found.append((rule, {file: without}))
    return found


def percent(rules: list[RuleCoverage]) -> int:
    """Covered rules of all, as a whole number; of none, 0."""
    return 100 * sum(rule.covered for rule in rules) // len(rules) if rules else 0


def summary(rules: list[RuleCoverage]) -> Mapping[str, int]:
    """The figure of each file."""
    return {file: percent([rule for rule in rules if rule.file == file]) for file in sorted({r.file for r in rules})}


def _end(code: list[Token]) -> int:
    """Where a statement ends; a `default` line or import after it belongs to itself."""
    for index, word in enumerate(code):
        if index and word.depth == 0 and word.column == 1 and word.text in ("default", "import", "package"):
            return code[index - 1].end
    return code[-1].end


def _dead(head: str, code: list[Token]) -> str | None:
    """A rule of the same name and kind that never fires; None for what is no rule."""
    if not head or len(code) < 2:
        return None
    after = code[1]
    if after.text == "contains":
        return f"{head} contains 0 if false"
    if after.text == "(" and after.adjacent:
        depth_end = next((w for w in code[2:] if w.text == ")" and w.depth == after.depth), None)
        if depth_end is None:
            return None
        count = sum(1 for w in code[2 : code.index(depth_end)] if w.text == "," and w.depth == after.depth + 1)
        arguments = ", ".join(f"unused_{number}" for number in range(count + 1))
        return f"{head}({arguments}) := 0 if false"
    if after.text in (":=", "=", "if", "=="):
        return f"{head} := 0 if false"
    return None


def _reasons(code: list[Token]) -> tuple[str, ...]:
    """The reason after `contains`."""
    if len(code) > 2 and code[1].text == "contains" and code[2].kind == "string":
        return (code[2].text[1:-1],)
    return ()
