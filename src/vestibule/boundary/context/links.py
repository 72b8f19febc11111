"""Links of the view, followed on paper: what a path leads to, as a path that is decided in its own right.

Rules this module keeps:
1. The kernel never follows a link for us. What a link says is read, and worked out as text; what comes out is a
   normalised path of the workspace, or nothing.
2. Only names that are links in the view are looked at. A link that a process in the sandbox made leads nowhere.
3. The answer decides nothing: the path that was sent and the path that it leads to are both asked of policy, and the
   second is opened with no link allowed. A link that is exchanged meanwhile leads to a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from vestibule.core.text.paths import PathRefused, normalise_path

MAX_HOPS = 8

ReadLink = Callable[[str], str]
"""What the link at a path says, unresolved; empty when it is no link."""


def leads_to(path: str, links: Collection[str], read: ReadLink) -> str | None:
    """Where the normalised `path` leads when a name on its way is one of `links`; None when it leads nowhere else."""
    found = path
    for _ in range(MAX_HOPS):
        parts = found.split("/")
        at = next((count for count in range(1, len(parts) + 1) if "/".join(parts[:count]) in links), 0)
        if not at:
            return found if found != path else None
        target = read("/".join(parts[:at]))
        if not target or target.startswith("/"):
            return None
        walked = parts[: at - 1]
        for part in target.split("/"):
            if part == "..":
                if not walked:
                    return None
                walked.pop()
            elif part not in ("", "."):
                walked.append(part)
        try:
            found = normalise_path("/".join([*walked, *parts[at:]]))
        except PathRefused:
            return None
    return None
