"""Which betas a request may switch on (`anthropic-beta`). Pure.

Rule it keeps: what would have the provider do something itself is refused; another beta is a word without its fields,
which are checked where they stand.
"""

from __future__ import annotations

import re

from vestibule.boundary.models.fields.kit import FieldRefused

_BETA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_REFUSED_BETAS = (
    # Each switches on what the field lists above refuse anyway: refused here too, so that the message says it early.
    "advisor-tool",
    "agent-memory",
    "ce-",
    "code-execution",
    "compact-",
    "computer-use",
    "dreaming",
    "experimental-",
    "fallback-credit",
    "fast-mode",
    "files-api",
    "inline-tools",
    "managed-agents",
    "mcp-client",
    "mcp-tunnels",
    "message-batches",
    "message-threads",
    "server-side-",
    "skills-",
    "spend-limit",
    "telemetry-",
    "user-profiles",
    "web-fetch",
    "web-search",
    "webhooks",
)


def check_betas(header: str) -> str:
    """The `anthropic-beta` list to send on. Unknown betas pass: without their fields they are words.

    Raises:
        FieldRefused: a beta that enables what the provider would do itself, or no beta's name.
    """
    names = [name.strip() for name in header.split(",") if name.strip()]
    if len(names) > 64 or not all(_BETA.match(name) for name in names):
        raise FieldRefused("betas", "the anthropic-beta header is no list of beta names")
    for name in names:
        if name.lower().startswith(_REFUSED_BETAS):
            raise FieldRefused("betas", "a beta in the anthropic-beta header enables what the provider would do itself")
    return ",".join(names)
