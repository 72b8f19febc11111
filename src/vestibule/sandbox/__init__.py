"""Where the agent runs."""
