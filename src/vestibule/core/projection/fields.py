"""Which fields a rule names: dotted paths, `*` for any one name. Pure.

Lists are looked through: `visits.date` is the date of each visit. A field that is named is shown with all below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vestibule.core.projection.base import Tree

ANY = "*"
_NOTHING = object()


@dataclass(slots=True)
class Names:
    """One level of the paths that are named."""

    below: dict[str, Names] = field(default_factory=dict)
    whole: bool = False
    """A path ends here."""

    @classmethod
    def of(cls, paths: Sequence[str]) -> Names:
        top = cls()
        for path in paths:
            at = top
            for part in path.split("."):
                at = at.below.setdefault(part, cls())
            at.whole = True
        return top

    def step(self, name: str) -> list[Names]:
        """What is known of a field by this name."""
        return [self.below[key] for key in dict.fromkeys((name, ANY)) if key in self.below]


def select(tree: Tree, paths: Sequence[str]) -> Tree:
    """The part of a document that `paths` name; an empty container, or None, when they name nothing of it."""
    found = _select(tree, [Names.of(paths)])
    if found is _NOTHING:
        return [] if isinstance(tree, list) else {} if isinstance(tree, dict) else None
    return found


def _select(tree: Tree, names: list[Names]) -> Tree:
    if any(item.whole for item in names):
        return tree
    if isinstance(tree, list):
        items = [part for item in tree if (part := _select(item, names)) is not _NOTHING]
        return items or _NOTHING
    if not isinstance(tree, dict):
        return _NOTHING
    kept = {}
    for key, value in tree.items():
        below = [step for item in names for step in item.step(key)]
        part = _select(value, below) if below else _NOTHING
        if part is not _NOTHING:
            kept[key] = part
    return kept or _NOTHING


def names_flat(name: str, paths: Sequence[str], *, fold: bool = False) -> bool:
    """Whether `paths` name a column or header, which has one level only."""
    if fold:
        return ANY in paths or name.casefold() in {path.casefold() for path in paths}
    return ANY in paths or name in paths
