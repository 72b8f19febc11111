"""How commands write for people: wrapped to the terminal with hanging indents; whole lines when it is none."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from vestibule.cli.output import nobody_reads
from vestibule.core.text.sanitize import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

NARROWEST = 40
ENDLESS = 10_000
_LABEL = 10


def styled(value: str, style: str = "", limit: int = 600) -> Text:
    """One visible line of untrusted text."""
    from rich.text import Text

    return Text(one_line(value, limit), style=style)


def console(width: int | None = None) -> Console:
    """A console on stdout. Who stops reading (`| head`) does not change how the command ends."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            # rich would exit with 1, which is only ever a bug of ours.
            nobody_reads()

    return Quiet(highlight=False, width=width)


class Page:
    """Writes to stdout. Into a pipe or file nothing is wrapped and nothing is cut, unless COLUMNS says how wide."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
        self.width = max(shutil.get_terminal_size((80, 24)).columns, NARROWEST) if terminal else ENDLESS
        self._console = console(self.width)

    def line(self, *parts: Text | str, hang: int = 0) -> None:
        """One line, wrapped; what goes over is indented by `hang`."""
        from rich.text import Text

        whole = Text.assemble(*parts)
        if whole.cell_len <= self.width:
            self._print(whole)
            return
        first, *rest = whole.wrap(self._console, self.width)
        self._print(first)
        # What did not fit on the first line is wrapped anew, for it has less room.
        for item in Text(" ").join(_stripped(part) for part in rest).wrap(self._console, self.width - hang):
            self._print(Text.assemble(" " * hang, item))

    def cut(self, *parts: Text | str) -> None:
        """One line, cut with `…` where the terminal ends."""
        from rich.text import Text

        whole = Text.assemble(*parts)
        whole.truncate(self.width, overflow="ellipsis")
        self._print(whole)

    def whole(self, text: Text | str) -> None:
        """A line that must stay one, such as a command to copy."""
        from rich.text import Text

        self._print(Text.assemble(text))

    def row(self, label: str, *parts: Text | str) -> None:
        """`label     value`, the value wrapped in its column."""
        from rich.text import Text

        self.line(Text(f"{label:<{_LABEL}}", style="dim"), *parts, hang=_LABEL)

    def title(self, text: str) -> None:
        """A heading with a blank line before it."""
        from rich.text import Text

        self._print(Text(""))
        self._print(Text(text, style="bold"))

    def table(self, table: Table) -> None:
        """A table, without the blanks that would fill its last column."""
        with self._console.capture() as capture:
            self._console.print(table, crop=False)
        try:
            sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))
            sys.stdout.flush()
        except BrokenPipeError:
            nobody_reads()

    def _print(self, text: Text) -> None:
        text.rstrip()
        self._console.print(text, soft_wrap=True)


def _stripped(text: Text) -> Text:
    found = text.copy()
    found.rstrip()
    return found
