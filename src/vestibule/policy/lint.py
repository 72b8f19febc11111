"""What a policy must be before it may decide. Run at every load; `vestibule policy lint` shows the same.

Rules it keeps:
1. A policy that could fail open is refused at load: a call to a function that the engine leaves undefined, a
   misspelt name (Rego reads both as "undefined", which switches a deny rule off), v0 syntax read two ways.
2. A policy sees its input only: no built-in that reads the clock, the network, the environment or chance,
   no `data` outside the package, no `with` outside tests.
3. A rule that cannot speak is refused: one that `decision` never comes to, one about an action or a part of the input
   that there is not, a negation that engines read in two ways (see `lint_flow`).
4. What does not compile, or does not define `decision`, is refused, naming file and line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from vestibule.core.errors import ConfigError
from vestibule.policy import lint_flow
from vestibule.policy.builtins import ALLOWED
from vestibule.policy.layers import Layer
from vestibule.policy.tokens import Token, UnreadableRego, tokens
from vestibule.policy.trial import try_decisions

PACKAGE = "vestibule"
MAX_NESTING = 32
KEYWORDS = frozenset(
    "as contains default else every false if import in not null package some true with".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, with its place. An `error` keeps the policy from loading; a `warning` does not."""

    severity: Literal["error", "warning"]
    file: str
    line: int
    what: str
    next_step: str = ""

    def as_json(self) -> dict[str, object]:
        return {
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "what": self.what,
            "next_step": self.next_step,
        }


def require_fit(layer: Layer) -> None:
    """Raises ConfigError for the first error of `layer`."""
    for problem in lint(layer):
        if problem.severity == "error":
            raise ConfigError(
                problem.what,
                where=f"{problem.file}:{problem.line}",
                why=f"The {layer.name} policy is not fit to decide.",
                next_step=problem.next_step or "`vestibule policy lint` shows every problem.",
            )


def lint(layer: Layer) -> list[Problem]:
    """Every problem of a layer, errors and warnings, in order of file and line."""
    parsed: dict[str, list[Token]] = {}
    problems: list[Problem] = []
    for name, text in sorted({**layer.sources, **layer.tests}.items()):
        try:
            parsed[name] = [*tokens(text)]
        except UnreadableRego as error:
            problems.append(Problem("error", name, error.line, error.message))
    rules = {rule for words in parsed.values() for rule in rule_names(words)}
    for name, words in parsed.items():
        problems.extend(_file_problems(name, words, rules, is_test=name in layer.tests))
    if not any(problem.severity == "error" for problem in problems):
        problems.extend(_layer_problems(layer, {name: parsed[name] for name in layer.sources}))
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.what))


def _file_problems(name: str, words: list[Token], rules: set[str], *, is_test: bool) -> Iterator[Problem]:
    code = [word for word in words if word.kind != "newline"]
    if not code:
        yield Problem("error", name, 1, "the file is empty", f"Begin it with `package {PACKAGE}`.")
        return
    head = "".join(word.text for word in _line(words, code[0]))
    if head != f"package{PACKAGE}" and not head.startswith(f"package{PACKAGE}."):
        yield Problem(
            "error", name, code[0].line, f"the package is not `{PACKAGE}`", f"Begin with `package {PACKAGE}`."
        )
    for word in code:
        if word.depth > MAX_NESTING:
            yield Problem("error", name, word.line, f"brackets are nested deeper than {MAX_NESTING}")
            return
    yield from _imports(name, words)
    yield from _calls(name, code, rules)
    yield from _v0(name, words)
    yield from _names(name, code, rules)
    for line, what, next_step in (*lint_flow.references(code), *lint_flow.negations(words)):
        yield Problem("error", name, line, what, next_step)
    if not is_test:
        for line, what, next_step in lint_flow.actions(code):
            yield Problem("error", name, line, what, next_step)
    if not is_test:
        for word in code:
            if word.text == "with" and word.kind == "name":
                yield Problem("error", name, word.line, "`with` changes what a rule sees", "Use it in _test.rego only.")


def _imports(name: str, words: list[Token]) -> Iterator[Problem]:
    for word in words:
        if word.kind == "name" and word.text == "import" and word.depth == 0:
            target = "".join(item.text for item in _line(words, word)[1:])
            allowed = target == "rego.v1" or target.startswith(("input.", f"data.{PACKAGE}."))
            if not allowed:
                yield Problem(
                    "error",
                    name,
                    word.line,
                    f"`import {target}` is not available",
                    f"Only `rego.v1`, `input.…` and `data.{PACKAGE}.…` can be imported.",
                )


def _calls(name: str, code: list[Token], rules: set[str]) -> Iterator[Problem]:
    """Each `dotted.name(`: a function of the layer or an allowed built-in."""
    for index, word in enumerate(code):
        if word.text != "(" or word.kind != "op" or index == 0:
            continue
        before = code[index - 1]
        if before.text == "]":
            yield Problem("error", name, before.line, "a function is called by a computed name", "Call it by its name.")
            continue
        if before.kind != "name" or before.text in KEYWORDS - {"contains"}:
            continue
        called = _dotted_before(code, index)
        own = called in rules or (called.startswith(f"data.{PACKAGE}.") and called.rsplit(".", 1)[1] in rules)
        if not own and called not in ALLOWED:
            yield Problem(
                "error",
                name,
                before.line,
                f"the function `{called}` is not available in policies",
                "Compute it outside and pass it in as a fact; a policy sees its input only.",
            )
        elif called == "replace" and not own and not _replaces_something(code, index):
            yield Problem(
                "error",
                name,
                before.line,
                "`replace` of text that may be empty: the engine never ends on it, and uses up the machine's memory",
                'Write the text that is replaced as a literal: `replace(x, "-", "_")`.',
            )


def _replaces_something(code: list[Token], index: int) -> bool:
    """Whether the second argument of the call that opens at `index` is a literal that is not empty."""
    arguments: list[list[Token]] = [[]]
    for word in code[index + 1 :]:
        if word.depth <= code[index].depth:
            break
        if word.text == "," and word.depth == code[index].depth + 1:
            arguments.append([])
        else:
            arguments[-1].append(word)
    found = arguments[1] if len(arguments) > 1 else []
    return len(found) == 1 and found[0].kind == "string" and len(found[0].text) > 2


def _v0(name: str, words: list[Token]) -> Iterator[Problem]:
    """A rule body without `if` (Rego v0), at the top level."""
    statement: list[Token] = []
    for word in words:
        if word.depth == 0 and word.kind == "newline":
            statement = []
            continue
        if word.kind == "newline":
            continue
        if word.depth == 0 and word.text == "{" and word.kind == "op" and statement:
            before = statement[-1]
            opens_body = (
                before.kind in ("string", "number")
                or before.text in (")", "]", "}")
                or (before.kind == "name" and before.text not in {"if", "in", "as", "every", "some", "not"})
            )
            after_every = any(item.text == "every" and item.kind == "name" for item in statement)
            if opens_body and not after_every:
                yield Problem(
                    "error", name, word.line, "a rule's body without `if` is Rego v0", "Write `if` before the `{`."
                )
        if word.depth == 0:
            statement.append(word)


def _names(name: str, code: list[Token], rules: set[str]) -> Iterator[Problem]:
    """Names that nothing defines. Rego would read them as undefined and stay silent."""
    known = set(_declared(code)) | rules | {"input", "data", "rego", "_"}
    for index, word in enumerate(code):
        if word.kind != "name" or word.text in KEYWORDS or word.text in known:
            continue
        if index and (code[index - 1].text == "." or code[index - 1].text in ("package", "import")):
            continue
        if _is_call(code, index):  # `_calls` judges those
            continue
        yield Problem(
            "error",
            name,
            word.line,
            f"nothing defines `{word.text}`",
            "Correct the name, or declare it with `some` or `:=`.",
        )


def _declared(code: list[Token]) -> Iterator[str]:
    """Local names: of `:=` and `=`, `some`, `every`, function arguments, comprehensions and import aliases."""
    for index, word in enumerate(code):
        if word.text in (":=", "=") and word.kind == "op":
            yield from _names_before(code, index)
        elif word.kind == "name" and word.text in ("some", "every"):
            for item in code[index + 1 :]:
                if item.kind == "name" and item.text not in KEYWORDS:
                    yield item.text
                elif item.text not in (",", "[", "]"):
                    break
        elif word.kind == "name" and word.text == "as" and index + 1 < len(code):
            yield code[index + 1].text
        elif word.kind == "name" and word.text == "import" and word.depth == 0:
            last = word
            for item in code[index + 1 :]:
                if item.line != word.line:
                    break
                last = item
            yield last.text
        elif word.text == "(" and word.depth == 0 and index and code[index - 1].kind == "name":
            for item in code[index + 1 :]:
                if item.depth == 0:
                    break
                if item.kind == "name" and item.text not in KEYWORDS:
                    yield item.text


def _names_before(code: list[Token], index: int) -> Iterator[str]:
    """The name, or names of an array pattern, on the left of an assignment."""
    previous = code[index - 1] if index else None
    if previous is None:
        return
    if previous.kind == "name":
        yield previous.text
    elif previous.text == "]":
        for item in reversed(code[: index - 1]):
            if item.depth <= previous.depth:
                break
            if item.kind == "name":
                yield item.text


def rule_names(words: list[Token]) -> Iterator[str]:
    """Names of rules and functions: the first word of a line at the top level."""
    start = True
    for word in words:
        if word.kind == "newline":
            start = start or word.depth == 0
            continue
        if start and word.depth == 0 and word.kind == "name":
            if word.text == "default":
                continue
            if word.text not in KEYWORDS:
                yield word.text
        start = False


def _layer_problems(layer: Layer, parsed: dict[str, list[Token]]) -> Iterator[Problem]:
    first = min(layer.sources, default="")
    if not any("decision" in rule_names(words) for words in parsed.values()):
        yield Problem(
            "error",
            first,
            1,
            "nothing defines `decision`",
            'Write `default decision := {"verdict": "allow", "reasons": []}` and rules that tighten it.',
        )
        return
    if not any(_has_default(words) for words in parsed.values()):
        yield Problem(
            "warning",
            first,
            1,
            "there is no `default decision`, and undefined is a deny",
            "Where the policy has nothing to say, let a default answer allow; another layer still decides.",
        )
    for name, (line, what, next_step) in lint_flow.unreached(parsed):
        yield Problem("error", name, line, what, next_step)
    wrong = try_decisions(layer.sources)
    if wrong:
        yield Problem(
            "error",
            first,
            1,
            f"the policy does not compile or run: {wrong}",
            "Look for rules that call themselves, conflicting values of one rule, and wrong argument types.",
        )


def _has_default(words: list[Token]) -> bool:
    code = [word for word in words if word.kind != "newline"]
    return any(
        word.text == "default" and following.text == "decision" and word.depth == 0
        for word, following in pairwise(code)
    )


def _line(words: list[Token], first: Token) -> list[Token]:
    return [word for word in words if word.line == first.line and word.kind != "newline"]


def _dotted_before(code: list[Token], index: int) -> str:
    """The dotted name that ends just before `index`."""
    parts = [code[index - 1].text]
    position = index - 1
    while position >= 2 and code[position - 1].text == "." and code[position - 2].kind == "name":
        parts.append(code[position - 2].text)
        position -= 2
    return ".".join(reversed(parts))


def _is_call(code: list[Token], index: int) -> bool:
    """Whether the dotted name that starts at `index` is called."""
    position = index
    while position + 2 < len(code) and code[position + 1].text == "." and code[position + 2].kind == "name":
        position += 2
    return position + 1 < len(code) and code[position + 1].text == "("
