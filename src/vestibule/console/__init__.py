"""The console: where a person sees what an agent did and decides about it."""
