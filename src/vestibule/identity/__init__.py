"""Who acts: people, task tokens, and where keys come from."""
