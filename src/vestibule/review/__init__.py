"""Review: gates, quorum, signed decisions."""
