"""The one git wrapper."""

from vestibule.git.repository import Git, GitError, TreeEntry

__all__ = ["Git", "GitError", "TreeEntry"]
