"""The model gateway: which requests leave for a provider, at what price, and what they really used."""
