"""Information-flow labels: integrity × confidentiality. They join on read: integrity falls, confidentiality rises.

Source: lattice model of information flow (Denning 1976); "Agents Rule of Two" (Meta, 2025).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from enum import StrEnum

from vestibule.core.base import Noun
from vestibule.core.text.globs import first_match


class Integrity(StrEnum):
    """Who could have written it, most trusted first."""

    OPERATOR = "operator"
    MEMBER = "member"
    OUTSIDER = "outsider"
    WEB = "web"


class Confidentiality(StrEnum):
    """Who may learn it, widest first."""

    PUBLIC = "public"
    INTERNAL = "internal"
    SECRET = "secret"


_INTEGRITY = list(Integrity)
_CONFIDENTIALITY = list(Confidentiality)


class Label(Noun):
    """The label of an item or of a run."""

    integrity: Integrity = Integrity.OPERATOR
    confidentiality: Confidentiality = Confidentiality.PUBLIC

    def join(self, other: Label) -> Label:
        """The label of something that has read both."""
        integrity = max(self.integrity, other.integrity, key=_INTEGRITY.index)
        confidentiality = max(self.confidentiality, other.confidentiality, key=_CONFIDENTIALITY.index)
        if integrity is self.integrity and confidentiality is self.confidentiality:
            return self
        return Label(integrity=integrity, confidentiality=confidentiality)

    def flows_to(self, clearance: Confidentiality) -> bool:
        """Whether something with this label may go to a place cleared up to `clearance`."""
        return _CONFIDENTIALITY.index(self.confidentiality) <= _CONFIDENTIALITY.index(clearance)


_TOP = Label(integrity=_INTEGRITY[-1], confidentiality=_CONFIDENTIALITY[-1])

REPOSITORY = Label(integrity=Integrity.MEMBER, confidentiality=Confidentiality.INTERNAL)
"""A file of the base commit about which no rule says otherwise: members wrote it, and it is not for everybody."""


class LabelRule(Noun):
    """Files that carry another label than the repository's. What is None stays as it is."""

    paths: tuple[str, ...]
    integrity: Integrity | None = None
    confidentiality: Confidentiality | None = None


def label_of(path: str, rules: Iterable[LabelRule], default: Label = REPOSITORY) -> Label:
    """The label of a file: the first rule that names it and says something decides, for each half apart."""
    integrity: Integrity | None = None
    confidentiality: Confidentiality | None = None
    for rule in rules:
        if (integrity is None or confidentiality is None) and first_match(path, rule.paths) is not None:
            integrity = integrity or rule.integrity
            confidentiality = confidentiality or rule.confidentiality
    return Label(integrity=integrity or default.integrity, confidentiality=confidentiality or default.confidentiality)


def label_of_all(paths: Iterable[str], rules: Iterable[LabelRule]) -> Label:
    """The label of something that has read all these files; of none: the bottom."""
    rules = tuple(rules)
    found = Label()
    for path in paths:
        found = found.join(label_of(path, rules) if rules else REPOSITORY)
        if not rules or found == _TOP:
            break
    return found


def joined(labels: Iterable[Label]) -> Label:
    """The join of all; of none: the bottom, which is operator and public."""
    found = Label()
    for label in labels:
        found = found.join(label)
    return found


class RunLabel:
    """What a run has read so far. It only rises. Thread-safe; shared by every gateway of the run."""

    def __init__(self, label: Label = Label()) -> None:  # noqa: B008 - frozen
        self._label = label
        self._lock = threading.Lock()

    @property
    def current(self) -> Label:
        return self._label

    def join(self, other: Label) -> Label:
        """Join and give the result. Seen by every decision that begins after this returns."""
        with self._lock:
            self._label = self._label.join(other)
            return self._label
