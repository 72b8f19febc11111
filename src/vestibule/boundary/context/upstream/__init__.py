"""Upstream MCP servers as a source of tools: pinned, bounded, labelled, one set per run."""
