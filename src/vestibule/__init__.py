"""Vestibule: an access-control vestibule for AI coding agents in CI/CD."""

__version__ = "0.1.0"
