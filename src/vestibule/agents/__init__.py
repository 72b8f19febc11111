"""Adapters: one agent program a file. An adapter plans; the pipeline starts it inside the walls."""
