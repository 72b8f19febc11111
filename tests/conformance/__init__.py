"""The official conformance suite of MCP against the context endpoint, with authentication, policy and audit on."""
