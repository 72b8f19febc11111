"""The changes crossing: what may leave the sandbox, and what may reach the main branch."""
