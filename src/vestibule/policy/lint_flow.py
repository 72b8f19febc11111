"""What lint looks for beyond single words: rules that nothing asks, that cannot fire, and negations engines differ on.

Every finding is a way in which a deny rule can be silent without anybody noticing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from itertools import pairwise

from vestibule.policy.index import PARTS, statements
from vestibule.policy.tokens import Token

ACTIONS = frozenset(
    (
        "task.admit",
        "context.read",
        "context.write",
        "context.list",
        "context.search",
        "context.exec",
        "context.call",
        "scope.request",
        "question.answer",
        "model.request",
        "model.tool_call",
        "network.resolve",
        "network.connect",
        "host.exec",
        "host.open",
        "host.connect",
        "host.match",
        "token.issue",
        "agent.pause",
        "agent.release",
        "change.propose",
        "review.decide",
        "merge",
        "release.rollback",
    )
)
"""Every action there is, those of later versions too."""

Found = tuple[int, str, str]
"""Line, what is wrong, and what to do."""


def references(code: list[Token]) -> Iterator[Found]:
    """`data` and `input` used for what is never there."""
    for index, word in enumerate(code):
        if word.kind != "name" or word.text not in ("input", "data") or (index and code[index - 1].text == "."):
            continue
        path = [item.text for item in code[index + 1 : index + 3]]
        if word.text == "data" and path != [".", "vestibule"]:
            yield word.line, "`data` outside the package is empty", "Write `data.vestibule.…`, or pass it in as a fact."
        if word.text == "input" and len(path) == 2 and path[0] == "." and path[1] not in PARTS:
            near = difflib.get_close_matches(path[1], PARTS, 1)
            hint = f"Did you mean `input.{near[0]}`?" if near else f"An input has {', '.join(PARTS)}."
            yield word.line, f"an input has no `{path[1]}`", hint


def actions(code: list[Token]) -> Iterator[Found]:
    """`input.action` compared with something that is no action: such a rule never fires."""
    for index in range(len(code) - 4):
        if [item.text for item in code[index : index + 3]] != ["input", ".", "action"]:
            continue
        operator, first = code[index + 3], code[index + 4]
        compared: list[Token] = []
        if operator.text in ("==", "!=", "=") and first.kind == "string":
            compared = [first]
        elif operator.text == "in" and first.text in ("{", "["):
            for item in code[index + 5 :]:
                if item.depth <= first.depth:
                    break
                compared.append(item)
        for item in compared:
            if item.kind == "string" and item.text[1:-1] not in ACTIONS:
                near = difflib.get_close_matches(item.text[1:-1], ACTIONS, 1)
                hint = f"Did you mean {near[0]!r}?" if near else "See the policy vocabulary for all of them."
                yield item.line, f"there is no action {item.text}", hint


def negations(words: list[Token]) -> Iterator[Found]:
    """`not` before `in` or a call with a reference inside. That undefined, OPA drops the rule, rego-cpp fires it."""
    for index, word in enumerate(words):
        if word.text != "not" or word.kind != "name":
            continue
        inside: list[Token] = []
        for item in words[index + 1 :]:
            if item.depth < word.depth or (item.depth == word.depth and (item.kind == "newline" or item.text == ";")):
                break
            inside.append(item)
        called = any(a.kind == "name" and b.text == "(" and b.adjacent for a, b in pairwise(inside))
        member = any(item.text == "in" and item.kind == "name" for item in inside)
        reference = any(item.text in (".", "[") and item.kind == "op" and item.adjacent for item in inside)
        if (called or member) and reference:
            yield (
                word.line,
                "`not` before `in` or a call is read in two ways when something inside is undefined",
                "Give the positive condition a rule of its own, and write `not` before its name.",
            )


def unreached(files: Mapping[str, list[Token]]) -> Iterator[tuple[str, Found]]:
    """Rules that `decision` never comes to, directly or through others; with the file."""
    heads: dict[str, tuple[str, int]] = {}
    uses: dict[str, set[str]] = {}
    for file, words in files.items():
        for head, span in statements(words):
            if not head:
                continue
            heads.setdefault(head, (file, span[0].line))
            uses.setdefault(head, set()).update(
                word.text for word in span[1:] if word.kind == "name" and word.text != head
            )
    reached, asked = {"decision"}, ["decision"]
    while asked:
        for name in uses.get(asked.pop(), ()):
            if name not in reached:
                reached.add(name)
                asked.append(name)
    for name, (file, line) in heads.items():
        if name not in reached:
            what = f"nothing asks for `{name}`: `decision` never comes to it"
            yield file, (line, what, "Correct the name, use it from `decision`, or take it out.")
