"""What the monitor says: whether it stands, and all that it saw of one run."""

from __future__ import annotations

from vestibule.core.base import Noun
from vestibule.core.ports import KernelConnect


class Program(Noun):
    """A program that was executed. `sha256` is empty when the file was another one before it could be read."""

    path: str
    sha256: str = ""
    times: int = 1


class Summary(Noun):
    """All that was seen of one run. `sha256` is of the event stream: each record after its length (4 bytes, little)."""

    count: int = 0
    kinds: dict[str, int] = {}
    drops: int = 0
    sha256: str = ""
    cut: bool = False
    full: bool = False
    left_out: int = 0
    writes: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    connects: tuple[KernelConnect, ...] = ()
    programs: tuple[Program, ...] = ()


class Standing(Noun):
    """Whether a monitor stands here: its rung (`none` when not), and what proved it or why not."""

    rung: str
    proved_by: str

    @property
    def whole(self) -> bool:
        """Whether it sees connections, moves and removals too, so that its account can be compared with others."""
        return self.rung == "tracepoints"

    @property
    def up(self) -> bool:
        return self.rung != "none"
