"""From a ticket's bytes to a spec: sanitized, bounded, with nothing hidden left hidden."""

from vestibule.intake.spec import specify
from vestibule.intake.ticket import MAX_TICKET_BYTES, parse_ticket

__all__ = ["MAX_TICKET_BYTES", "parse_ticket", "specify"]
