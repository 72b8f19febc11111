"""The one git wrapper."""

from vestibule.git.process import GitError
from vestibule.git.repository import Git, TreeEntry

__all__ = ["Git", "GitError", "TreeEntry"]
