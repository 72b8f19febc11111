"""The five crossings of the trust boundary."""
