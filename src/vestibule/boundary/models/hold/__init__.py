"""Answers as state machines: what may flow, what is held until it is judged, how it ends. No I/O."""
