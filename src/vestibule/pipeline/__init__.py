"""The run: segments behind a small durable engine. Only here, in the console and in the CLI are the rooms wired."""
