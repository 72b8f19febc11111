"""Strict parsers of what the outside sends: JSON-RPC, unified diffs, name filters."""
