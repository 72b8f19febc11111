"""What is checked in a model's answers and requests beyond its calls: the operator's."""

from __future__ import annotations

from vestibule.config.parts import Strict


class Guardrails(Strict):
    """Guards on texts of models."""
