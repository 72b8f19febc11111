"""Every bound on what an agent sends to, or gets from, the MCP endpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """Bounds of one endpoint. Sizes in bytes, times in seconds."""

    body_bytes: int = 8 << 20
    """A request's body; larger is 413."""
    body_seconds: float = 30.0
    """Until a request's body has arrived; longer is 408."""
    bodies_bytes: int = 32 << 20
    """Bodies of all requests that are not answered yet; what would be more is 429."""
    header_bytes: int = 64 << 10
    """All header names and values; more is 431."""
    concurrent_calls: int = 8
    """Tool calls at a time; more wait."""
    waiting_calls: int = 64
    """Tool calls that wait; more are 429."""
    read_bytes: int = 256 << 10
    """Of text in one `read_file` answer; the rest by `start_line`."""
    file_bytes: int = 16 << 20
    """The largest file that `read_file` opens."""
    quick_bytes: int = 32 << 10
    """The largest file that the event loop reads itself: up to here that takes less than to hand it to a thread."""
    patched_bytes: int = 4 << 20
    """The largest file that `apply_patch` changes."""
    search_file_bytes: int = 2 << 20
    """The largest file that `search_files` looks into."""
    search_total_bytes: int = 256 << 20
    """Of text that one search looks through, and that is kept in memory for the next one."""
    search_seconds: float = 10.0
    """Of one search."""
    search_hits: int = 200
    list_entries: int = 2_000
    granted_entries: int = 200
    """Files that the answer to a granted `request_scope` names."""
    waiting_answers: int = 4
    """Requests that wait for a person's answer at a time; more are told of the question at once."""
    command_seconds: int = 600
    """The longest `timeout` of `run_command`."""
    command_default_seconds: int = 120
    output_bytes: int = 64 << 10
    """The tail of each of a command's output streams that is answered."""
