"""Forges: where proposed changes appear and approved ones merge."""
