"""From a ticket's bytes to a spec: sanitized, bounded, with nothing hidden left hidden."""

from vestibule.intake.spec import specify
from vestibule.intake.ticket import parse_ticket

__all__ = ["parse_ticket", "specify"]
