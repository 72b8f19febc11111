"""What `policy explain` adds to a verdict: where each reason stands, and the smallest change of facts that turns it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

from vestibule.core.ports import PolicyInput
from vestibule.core.verdict import Verdict
from vestibule.policy.index import CONSTANTS, LayerIndex
from vestibule.policy.layers import Layer
from vestibule.policy.tokens import UnreadableRego, tokens

MAX_CHANGED = 3
MAX_TRIES = 3000


def places(layers: Sequence[Layer], layer: str, reason: str) -> tuple[str, ...]:
    """`file:line` of every place where the layer's text names `reason`, or the nearest family above it."""
    name = reason
    while name:
        found = tuple(place for item in layers if item.name == layer for place in _named(item.sources, name))
        if found:
            return found
        name = name.rpartition(".")[0]
    return ()


def _named(sources: Mapping[str, str], reason: str) -> Iterator[str]:
    for file, text in sorted(sources.items()):
        try:
            words = tokens(text)
        except UnreadableRego:
            continue
        for word in words:
            if word.kind == "string" and word.text[1:-1] == reason:
                yield f"{file}:{word.line}"


def smallest_change(
    layers: Sequence[Layer], request: PolicyInput, decide: Callable[[PolicyInput], Verdict]
) -> tuple[dict[str, Any], Verdict] | None:
    """The fewest facts with other values that loosen a hold or deny, or tighten an allow; None when none was found
    among `MAX_CHANGED` facts and `MAX_TRIES` questions."""
    verdict = decide(request)
    values = _values(layers)
    known = {name: _candidates(request.facts.get(name), values.get(name, ())) for name in request.facts}
    if not verdict.allowed:  # what is missing may be what is needed
        known |= {name: tuple(found) for name, found in values.items() if name not in known}
    tries = 0
    for count in range(1, MAX_CHANGED + 1):
        best: tuple[dict[str, Any], Verdict] | None = None
        # What the request says of itself comes first: facts of other actions seldom turn anything.
        for names in combinations(sorted(known, key=lambda name: (name not in request.facts, name)), count):
            for chosen in product(*(known[name] for name in names)):
                tries += 1
                if tries > MAX_TRIES:
                    return best
                change = dict(zip(names, chosen, strict=True))
                other = decide(request.model_copy(update={"facts": {**request.facts, **change}}))
                turned = other.ruling.strictness - verdict.ruling.strictness
                if not (turned > 0 if verdict.allowed else turned < 0):
                    continue
                if best is None or other.ruling.strictness < best[1].ruling.strictness:
                    best = (change, other)
                if verdict.allowed or best[1].allowed:
                    return best
        if best is not None:
            return best
    return None


def _values(layers: Sequence[Layer]) -> dict[str, list[Any]]:
    """Values that the layers' tables name for a fact."""
    found: dict[str, list[Any]] = {}
    for layer in layers:
        for table in LayerIndex(layer.sources).data(())[CONSTANTS].values():
            if not isinstance(table, dict) or not isinstance(table.get("is"), dict):
                continue
            rows = [(name, [value]) for name, value in table["is"].items()]
            one_of = table.get("one_of")
            rows += list(one_of.items()) if isinstance(one_of, dict) else []
            for name, values in rows:
                known = found.setdefault(name, [])
                known.extend(value for value in values if not any(_equal(value, other) for other in known))
    return found


def _candidates(value: Any, named: Sequence[Any]) -> tuple[Any, ...]:
    own = [not value] if isinstance(value, bool) else ["", "recorded", "allow"] if isinstance(value, str) else []
    every = [*named, *own]
    return tuple(
        item
        for number, item in enumerate(every)
        if not _equal(item, value) and not any(_equal(item, other) for other in every[:number])
    )


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
