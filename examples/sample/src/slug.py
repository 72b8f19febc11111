"""Slugs for page addresses."""

import re


def slugify(title: str) -> str:
    """A lower-case address part: letters and digits, words joined by single dashes."""
    return re.sub(r"[^a-z0-9]", "-", title.lower())
