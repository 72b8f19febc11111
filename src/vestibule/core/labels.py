"""Information-flow labels: integrity × confidentiality. They join on read: integrity falls, confidentiality rises."""

from __future__ import annotations

from enum import StrEnum

from vestibule.core.base import Noun


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
        return Label(
            integrity=max(self.integrity, other.integrity, key=_INTEGRITY.index),
            confidentiality=max(self.confidentiality, other.confidentiality, key=_CONFIDENTIALITY.index),
        )
