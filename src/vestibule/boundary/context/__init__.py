"""What an agent may read, write and run: the MCP endpoint of a run."""
